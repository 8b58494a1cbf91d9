//! Discovery on the stage: which documents are asked for, in which order, and what ends it.

mod choice;
mod order;
mod trust;

use super::*;
use crate::flow::stage::*;

const MCP: &str = "https://mcp.example/mcp";
const RESOURCE_PATH: &str = "https://mcp.example/.well-known/oauth-protected-resource/mcp";
const RESOURCE_ROOT: &str = "https://mcp.example/.well-known/oauth-protected-resource";
const OAUTH: &str = "https://as.example/.well-known/oauth-authorization-server";
const OPENID: &str = "https://as.example/.well-known/openid-configuration";
const ORIGIN_OAUTH: &str = "https://mcp.example/.well-known/oauth-authorization-server";
const ORIGIN_OPENID: &str = "https://mcp.example/.well-known/openid-configuration";
const HTML: &str = "<!doctype html><title>hello</title>";

fn task() -> Task {
    Task {
        server: Resource::parse(MCP).unwrap(),
        known_issuer: None,
        challenge: None,
        issuer: None,
        exception: None,
        ways: Ways::default(),
    }
}

fn bound(issuer: &str) -> Task {
    Task {
        known_issuer: Issuer::parse(issuer).ok(),
        challenge: None,
        ..task()
    }
}

/// A stage whose server answers 401 with this challenge and every document that is not scripted with 404.
fn challenged(challenge: &str) -> Stage {
    let mut stage = Stage::new();
    stage.page(
        MCP,
        with_headers(401, &[("www-authenticate", challenge)], ""),
    );
    missing(&mut stage);
    stage
}

fn missing(stage: &mut Stage) {
    for _ in 0..8 {
        stage.answer(reply(404, "not found"));
    }
}

fn resource_document(resource: &str, issuers: &str) -> String {
    format!(
        r#"{{"resource":"{resource}","authorization_servers":{issuers},"scopes_supported":["r1","r2"]}}"#
    )
}

fn server_document(issuer: &str) -> String {
    format!(
        r#"{{"issuer":"{issuer}","authorization_endpoint":"https://as.example/authorize","token_endpoint":
        "https://as.example/token","code_challenge_methods_supported":["S256"]}}"#
    )
}

/// The usual documents: the resource's at the path, the server's by RFC 8414.
fn published(stage: &mut Stage) {
    stage.page(
        RESOURCE_PATH,
        reply(200, &resource_document(MCP, r#"["https://as.example"]"#)),
    );
    stage.page(OAUTH, reply(200, &server_document("https://as.example")));
}

fn discover(stage: &mut Stage, task: Task) -> Result<Discovered, Error> {
    stage.run(Discover::new(task))
}

/// The addresses of the documents that were asked for.
fn documents(stage: &Stage) -> Vec<String> {
    stage.asked().split_off(1)
}
