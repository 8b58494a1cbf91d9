//! A plain MCP client, judged by the conformance suite: connects, logs in when it must, lists the tools and calls them.
//!
//! One path for every server: it knows neither which test it is in nor what is looked for, and uses nothing that another
//! program could not.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod samples;

use std::{env, process, process::ExitCode, sync::Arc, thread, time::Duration};

use async_trait::async_trait;
use pilotlight::core::{
    credential::Account, error::LoginCause, flow::Prompt, registration::Client, resource::Resource,
    unattended::ID_TOKEN,
};
use pilotlight::secrets::{SecretRef, Secrets, Zeroizing};
use pilotlight::{
    Error, LoginRequest, Session, Sessions, clock::SystemClock, human::Human, store::MemoryStore,
};
use pilotlight_rmcp::{Wire, cause, connect_on};
use pilotlight_testkit::ScriptedHuman;
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
    ElicitationAction, ElicitationCapability, FormElicitationCapability, Implementation,
};
use rmcp::service::{RequestContext, ServiceError};
use rmcp::{ClientHandler, ErrorData, RoleClient};
use serde::Deserialize;
use serde_json::{Value, json};

use samples::samples;

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    // The suite waits for ever for a client that does not end.
    thread::spawn(|| {
        thread::sleep(PATIENCE);
        process::exit(75)
    });
    let Err(error) = run().await else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{error:?}");
    ExitCode::from(cause(&*error).map_or(5, Error::exit_code))
}

#[allow(clippy::disallowed_methods, reason = "this is the configuration")]
async fn run() -> Done {
    let url = Resource::parse(&env::args().next_back().unwrap_or_default())?;
    let context = env::var("MCP_CONFORMANCE_CONTEXT").unwrap_or_else(|_| "{}".to_owned());
    let configured: Configured = serde_json::from_str(&context)?;
    let old = env::var("MCP_CONFORMANCE_PROTOCOL_VERSION")? == "2025-11-25";
    let wire = if old { Wire::Stateful } else { Wire::Stateless };
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let builder = Sessions::builder(store).human(Arc::new(Clicks));
    let sessions = builder.secrets(Arc::new(configured.clone())).open()?;
    let session = sessions.open(&url, &Account::default()).await?;
    let (mut called, mut logins) = (0, 0);
    loop {
        let Err(error) = use_tools(wire, &session, &configured, &mut called).await else {
            return Ok(());
        };
        let ended = cause(&*error).is_some_and(|error| error.code().starts_with("login."));
        if !ended || logins == LOGINS {
            return Err(error);
        }
        logins += 1;
        sessions.login(configured.login(&url)?).await?;
    }
}

/// Lists the tools and calls each once, whatever it answers.
async fn use_tools(wire: Wire, on: &Session, with: &Configured, called: &mut usize) -> Done {
    let client = connect_on(wire, on.clone(), Answers).await?;
    let tools = client.list_all_tools().await?;
    let any_object = tools.first().map(|tool| json!(tool.input_schema));
    let mut calls = Vec::new();
    for tool in &tools {
        let arguments = samples(tool.input_schema.get("properties"), any_object.as_ref());
        calls.push(CallToolRequestParams::new(tool.name.clone()).with_arguments(arguments));
    }
    let calls = Option::deserialize(&with.0["toolCalls"])?.unwrap_or(calls);
    while let Some(call) = calls.get(*called) {
        match client.call_tool(call.clone()).await {
            Ok(answer) => println!("{}: {}", call.name, json!(answer)),
            Err(ServiceError::McpError(error)) => println!("{}: {error}", call.name),
            Err(error) => return Err(error.into()),
        }
        *called += 1;
    }
    client.cancel().await?;
    Ok(())
}

/// What a user would have configured for this server, by name; its secrets are looked up when they are needed.
#[derive(Debug, Clone, Deserialize)]
struct Configured(Value);

impl Configured {
    fn login(&self, url: &Resource) -> Done<LoginRequest> {
        let secret = |name: &str| self.0.get(name).map(|_| format!("configured:{name}"));
        let client = |id| json!({"id": id, "authentication": "none", "source": "pre_registered"});
        let mut request = LoginRequest::new(url.clone(), Account::default());
        request.client_metadata_url = Some(METADATA_DOCUMENT.parse()?);
        request.trusts_server = true; // The suite does not say where a client was made.
        if let Some(id) = self.0.get("client_id") {
            let key = |from| json!({"reference": from, "algorithm": self.0["signing_algorithm"]});
            let mut client = client(id);
            client["secret_ref"] = json!(secret("client_secret"));
            client["key"] = json!(secret("private_key_pem").map(key));
            request.client = Some(Client::deserialize(client)?);
        }
        request.unattended = Option::deserialize(match secret("valid_jwt") {
            Some(token) => json!({"grant": "workload", "token": token}),
            None if self.0.get("idp_issuer").is_none() => Value::Null,
            None => json!({
                "grant": "enterprise", "issuer": self.0["idp_issuer"], "token_endpoint": self.0["idp_token_endpoint"],
                "client": client(&self.0["idp_client_id"]), "subject": secret("idp_id_token"), "subject_type": ID_TOKEN,
            }),
        })?;
        Ok(request)
    }
}

#[async_trait]
impl Secrets for Configured {
    async fn read(&self, reference: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Error> {
        let secret = self.0[reference.rest()].as_str().unwrap_or_default();
        Ok(Zeroizing::new(secret.into()))
    }
}

/// Answers what a server asks the person, with the defaults.
#[derive(Clone)]
struct Answers;

impl ClientHandler for Answers {
    fn get_info(&self) -> ClientConfig {
        let form = FormElicitationCapability::new();
        let mut can = ClientCapabilities::default();
        can.elicitation = Some(ElicitationCapability::new().with_form(form));
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        ClientConfig::new(can, Implementation::new(name, version))
    }

    async fn create_elicitation(
        &self,
        asked: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let asked = json!(asked);
        let content = samples(asked["requestedSchema"].get("properties"), None);
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(content.into()))
    }
}

/// Somebody who clicks Allow wherever a login leads.
#[derive(Debug)]
struct Clicks;

#[async_trait]
impl Human for Clicks {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        let visited = ScriptedHuman::allows().visit(prompt.url.as_str()).await;
        visited.map_err(|_| Error::login(LoginCause::Abandoned))?;
        // The redirect comes to the listener, as from a browser.
        std::future::pending().await
    }
}

const PATIENCE: Duration = Duration::from_secs(25);
const LOGINS: usize = 3;
/// The document that describes this program, as its maker would host it.
const METADATA_DOCUMENT: &str = "https://conformance-test.local/client-metadata.json";
