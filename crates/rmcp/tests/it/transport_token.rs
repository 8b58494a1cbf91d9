//! Where the token goes: on every request, in its one place.

use pilotlight_rmcp::{Wire, connect_on};

use crate::support::World;

/// AUTH-80, AUTH-81, TR-40: a request, a notification, the session's own stream and the goodbye each carry the token
/// that is current when they leave, in the header, once; and none has it in its URL or its body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_carries_the_token_in_its_header() {
    let world = World::start(|_| {}).await;
    let issued = world
        .lab
        .with_issuer(|issuer| issuer.issued_secrets().to_vec());
    let header = world.session.header().await.unwrap();
    let header = header.to_str().unwrap().to_owned();
    let token = header.strip_prefix("Bearer ").unwrap().to_owned();
    assert!(issued.contains(&token));

    let replaced = world.replace_server(answer).await;
    let client = connect_on(Wire::Stateful, replaced.session.clone(), ()).await;
    let client = client.unwrap();
    assert_eq!(client.list_all_tools().await.unwrap().len(), 0);
    client.cancel().await.unwrap();

    let wanted = [
        "initialize",
        "notifications/initialized",
        "tools/list",
        "GET",
        "DELETE",
    ];
    // The stream and the goodbye are the SDK's own tasks: nobody waits for them.
    let requests = replaced
        .until(|requests| {
            let kinds: Vec<_> = requests.iter().map(|request| kind(request)).collect();
            wanted
                .iter()
                .all(|one| kinds.iter().any(|kind| kind == one))
        })
        .await;
    for request in &requests {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        assert!(!lines.next().unwrap().contains(&token), "in the URL");
        let carried: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            .map(|(_, value)| value)
            .collect();
        assert_eq!(carried, [header.as_str()], "{}", kind(request));
        assert!(!body.contains(&token), "in the body");
    }
}

fn method(request: &str) -> Option<String> {
    let (_, body) = request.split_once("\r\n\r\n")?;
    let message: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(message["method"].as_str()?.to_owned())
}

fn kind(request: &str) -> String {
    let word = || request.split(' ').next().unwrap_or_default().to_owned();
    method(request).unwrap_or_else(word)
}

/// A server with sessions that has no stream.
fn answer(request: &str) -> String {
    let result = match kind(request).as_str() {
        "initialize" => {
            r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}"#
        }
        "tools/list" => r#"{"tools":[]}"#,
        "GET" => return "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n".to_owned(),
        _ => return "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let id = serde_json::from_str::<serde_json::Value>(body).unwrap()["id"].clone();
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: one\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}
