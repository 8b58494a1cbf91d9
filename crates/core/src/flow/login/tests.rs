//! A login on the stage, by theme.

mod accepted;
mod clients;
mod device;
mod exchange;
mod forgotten;
mod hosted;
mod issuers;
mod proof;
mod quirks;
mod redirect;
mod scopes;
mod unattended;

use std::time::Duration;

use super::*;
use crate::{
    credential::{Account, BindingKey},
    error::LoginCause,
    exchange::Exchanged,
    flow::{Callback, stage::*},
    record::Record,
    registration::ClientAuthentication,
    resource::Resource,
};
use crate::{
    event::{Event, Happened},
    exchange::Exchange,
    registration::ClientSource,
};

const MCP: &str = "https://mcp.example/mcp";
const RESOURCE: &str = "https://mcp.example/.well-known/oauth-protected-resource/mcp";
const METADATA: &str = "https://as.example/.well-known/oauth-authorization-server";
const REGISTER: &str = "https://as.example/register";
const TOKEN: &str = "https://as.example/token";
const AUTHORIZE: &str = "https://as.example/authorize";
const ANY_PORT: &str = "http://127.0.0.1:50000/callback";

fn task() -> Task {
    let key = BindingKey::new(Resource::parse(MCP).unwrap(), Account::default());
    Task {
        binding: Binding {
            key,
            name: "mcp".into(),
            credential: None,
            created_at: start().wall,
            exception: None,
            without_resource_at: None,
            former: Vec::new(),
        },
        challenge: None,
        scopes: None,
        client: None,
        unattended: None,
        refused: None,
        client_metadata_url: None,
        issuer: None,
        trusts_server: false,
        without_resource: None,
        client_key: None,
        client_name: "Pilotlight".into(),
        redirect: Redirect::default(),
        device: Device::Never,
        authorize_params: Vec::new(),
        human_wait: Duration::from_secs(600),
        process: process(1),
        proof_key: None,
        entropy: [[1; 32], [2; 32], [9; 32]],
    }
}

/// A server whose resource is published without a path, an issuer with dynamic registration, and tokens.
fn stage() -> Stage {
    with_metadata("")
}

/// The same, with more in the issuer's metadata: `,"name":value`.
fn with_metadata(more: &str) -> Stage {
    let mut stage = Stage::new();
    stage.page(
        MCP,
        with_headers(401, &[("www-authenticate", "Bearer")], ""),
    );
    stage.page(
        RESOURCE,
        reply(
            200,
            r#"{"resource":"https://mcp.example","authorization_servers":["https://as.example"]}"#,
        ),
    );
    let document = format!(
        r#"{{"issuer":"https://as.example","authorization_endpoint":"https://as.example/authorize?tenant=t","token_endpoint":"{TOKEN}",
        "registration_endpoint":"{REGISTER}","revocation_endpoint":"https://as.example/revoke",
        "code_challenge_methods_supported":["S256"],"token_endpoint_auth_methods_supported":["none","client_secret_basic","client_secret_post"]{more}}}"#
    );
    stage.page(METADATA, reply(200, &document));
    stage.page(
        REGISTER,
        reply(
            201,
            r#"{"client_id":"client-1","token_endpoint_auth_method":"none"}"#,
        ),
    );
    stage.page(TOKEN, tokens(0));
    // Whoever looks whether it knows the client is led on.
    stage.page(AUTHORIZE, reply(302, ""));
    stage
}

fn login(stage: &mut Stage, task: Task) -> Result<Box<LoggedIn>, Error> {
    stage.run(Login::new(task))
}

/// A listener on a port that a person named.
fn on_port(port: u16) -> Redirect {
    Redirect::Loopback(Callback {
        port: Some(port),
        ..Callback::default()
    })
}

fn redirect(pairs: &[(&str, &str)]) -> Option<Result<Vec<(String, String)>, Error>> {
    Some(Ok(pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()))
}

/// A parameter of the URL that was shown.
fn shown(stage: &Stage, name: &str) -> Option<String> {
    let all: Vec<_> = stage
        .prompt
        .as_ref()?
        .url
        .query_pairs()
        .filter(|(key, _)| key == name)
        .collect();
    assert!(all.len() < 2, "{name} comes twice");
    all.into_iter().next().map(|(_, value)| value.into_owned())
}

fn sent_to<'a>(stage: &'a Stage, url: &str) -> Vec<&'a Exchange> {
    stage
        .exchanges
        .iter()
        .filter(|exchange| exchange.url.as_str() == url)
        .collect()
}

/// Every request in full, in words.
fn all_sent(stage: &Stage) -> String {
    let words = stage.exchanges.iter().map(|sent| {
        let body = String::from_utf8_lossy(&sent.body);
        format!("{} {:?} {body}\n", sent.url, sent.headers)
    });
    words.collect()
}

/// A stored registration with this redirect URI.
fn registration(id: &str, redirect_uri: &str) -> Registration {
    Registration {
        issuer: issuer(),
        client: client(id),
        redirect_uris: vec![redirect_uri.into()],
        management: None,
        registered_at: start().wall,
    }
}
