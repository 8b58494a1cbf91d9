//! How a bridge ends.

use std::time::Duration;

use crate::support::{DISCOVERED, Host, Script, welcome};
use pilotlight_relay::Ended;

async fn server() -> Script {
    Script::start(|request, mut reply| async move {
        match (request.method.as_str(), request.is("initialize")) {
            (_, true) => {
                let head = "content-type: application/json\r\nmcp-session-id: s\r\n";
                reply.send("200 OK", head, &welcome("2025-06-18")).await
            }
            ("POST", _) if request.is("slow") => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                reply.json(r#"{"id":1,"result":{}}"#).await
            }
            ("POST", _) if request.is("never") => {
                reply.hung_up().await;
                reply
            }
            _ => reply.accepted().await,
        }
    })
    .await
}

/// TR-16, TR-32: the end of stdin is the end, and the server is told; what was asked just before is still answered.
#[tokio::test]
async fn a_host_that_hangs_up_gets_its_last_answers() {
    let server = server().await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    host.say(r#"{"id":1,"method":"slow"}"#).await;
    assert_eq!(host.hang_up().await, Ended::HostLeft);
    let seen = server.seen();
    assert_eq!(seen.last().unwrap().method, "DELETE");
    assert_eq!(server.count(|one| one.is("slow")), 1);
}

/// The same where the host is translated for.
#[tokio::test]
async fn a_host_that_is_translated_for_gets_its_last_answers() {
    let (go, held) = tokio::sync::watch::channel(false);
    let server = Script::start(move |request, reply| {
        let mut held = held.clone();
        async move {
            if request.is("server/discover") {
                return reply.json(DISCOVERED).await;
            }
            let _ = held.wait_for(|go| *go).await;
            let id = request.id();
            reply.json(&format!(r#"{{"id":{id},"result":{{}}}}"#)).await
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"jsonrpc":"2.0","id":7,"method":"slow","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"h","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#).await;
    server.until(1, |one| one.is("slow")).await;
    host.says_no_more().await;
    go.send_replace(true);
    let answer = host.hear().await;
    assert!(answer.contains(r#""id":7,"result""#), "{answer}");
    assert_eq!(host.ended().await, Ended::HostLeft);
}

/// A request that is never answered does not keep the bridge.
#[tokio::test]
async fn a_request_without_an_answer_does_not_keep_the_bridge() {
    let server = server().await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    host.say(r#"{"id":1,"method":"never"}"#).await;
    server.until(1, |one| one.is("never")).await;
    assert_eq!(host.hang_up().await, Ended::HostLeft);
}

/// A signal ends it at once, and the server is told.
#[tokio::test]
async fn a_signal_ends_it() {
    let server = server().await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    host.say(r#"{"id":1,"method":"never"}"#).await;
    server.until(1, |one| one.is("never")).await;
    assert_eq!(host.stop().await, Ended::Stopped);
    assert_eq!(server.seen().last().unwrap().method, "DELETE");
}

/// A server that cannot be reached is no end: each request says so, and the next one finds it again.
#[tokio::test]
async fn a_server_that_is_gone_is_no_end() {
    let gone = server().await;
    let url = gone.url.clone();
    drop(gone);
    let mut host = Host::start(&url).await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    let error = host.hear().await;
    assert!(error.contains("unavailable.network"), "{error}");
    assert_eq!(host.hang_up().await, Ended::HostLeft);
}
