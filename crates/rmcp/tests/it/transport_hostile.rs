//! The transport against servers that mean harm.

use std::{collections::HashMap, sync::Arc};

use futures_util::StreamExt;
use http::{HeaderName, HeaderValue};
use pilotlight::core::{Error, error::NetworkFault};
use pilotlight_rmcp::Transport;
use rmcp::{
    model::ClientJsonRpcMessage,
    transport::streamable_http_client::{StreamableHttpClient, StreamableHttpError},
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{World, serve};

fn ping() -> ClientJsonRpcMessage {
    serde_json::from_value(json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).unwrap()
}

fn none() -> HashMap<HeaderName, HeaderValue> {
    HashMap::new()
}

/// T-23: a redirect is an error that says so; nothing, above all no token, reaches where it leads.
#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}/mcp", elsewhere.local_addr().unwrap());
    let collected = serve(elsewhere, |_| String::new());
    let world = World::start(|_| {}).await;
    let home = world.lab.resource_url().to_owned();
    for location in [target, format!("{home}/v2"), "/mcp".to_owned()] {
        for status in [301, 302, 303, 307, 308] {
            let answer = format!(
                "HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            );
            let replaced = World::start(|_| {})
                .await
                .replace_server(move |_| answer.clone())
                .await;
            let transport = Transport::new(replaced.session.clone());
            let url = Arc::clone(&replaced.url);
            let posted = transport
                .post_message(Arc::clone(&url), ping(), None, None, none())
                .await;
            let got = transport
                .get_stream(Arc::clone(&url), None, None, None, none())
                .await
                .map(|_| ());
            let deleted = transport
                .delete_session(url, "s".into(), None, none())
                .await;
            for error in [posted.map(|_| ()), got, deleted].map(Result::unwrap_err) {
                let expected = Error::Network {
                    host: "127.0.0.1".into(),
                    why: NetworkFault::Redirect,
                };
                assert!(
                    matches!(&error, StreamableHttpError::Client(own) if *own == expected),
                    "{error:?}"
                );
            }
            assert_eq!(
                replaced.requests.lock().unwrap().len(),
                3,
                "each was sent once"
            );
        }
    }
    assert_eq!(collected.lock().unwrap().len(), 0);
}

/// T-24: a URL that the login is not for gets no request at all.
#[tokio::test]
async fn the_token_goes_to_its_own_resource_only() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = format!("http://{}/mcp", elsewhere.local_addr().unwrap());
    let collected = serve(elsewhere, |_| String::new());
    let replaced = World::start(|_| {})
        .await
        .replace_server(|_| String::new())
        .await;
    let transport = Transport::new(replaced.session.clone());
    let origin = replaced.url.trim_end_matches("/mcp").to_owned();
    let host = origin.trim_start_matches("http://").to_owned();
    for url in [
        other,
        format!("{origin}/b"),
        format!("{origin}/mcpx"),
        format!("{origin}/mcp/../b"),
        format!("{origin}/mcp/..%2fb"),
        format!("{origin}//evil"),
        format!("http://user:word@{host}/mcp"),
        format!("https://{host}/mcp"),
        "/mcp".to_owned(),
    ] {
        let refused = transport
            .post_message(url.as_str().into(), ping(), None, None, none())
            .await;
        assert!(refused.is_err(), "{url}");
    }
    assert_eq!(
        (
            collected.lock().unwrap().len(),
            replaced.requests.lock().unwrap().len()
        ),
        (0, 0)
    );
}

/// AUTH-82, T-24: the token comes from the session, whatever rmcp is configured with; nobody can put another beside it.
#[tokio::test]
async fn no_other_token_is_ever_sent() {
    let answer = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
    let replaced = World::start(|_| {})
        .await
        .replace_server(move |_| answer.to_owned())
        .await;
    let transport = Transport::new(replaced.session.clone());
    let url = Arc::clone(&replaced.url);
    let given = Some("canary".to_owned());
    transport
        .post_message(
            Arc::clone(&url),
            ping(),
            Some("s1".into()),
            given.clone(),
            none(),
        )
        .await
        .unwrap();
    transport
        .delete_session(Arc::clone(&url), "s1".into(), given.clone(), none())
        .await
        .unwrap();
    drop(
        transport
            .get_stream(
                Arc::clone(&url),
                Some("s1".into()),
                Some("e9".into()),
                given,
                none(),
            )
            .await,
    );

    for name in ["authorization", "accept", "mcp-session-id", "last-event-id"] {
        let custom = HashMap::from([(
            HeaderName::from_static(name),
            HeaderValue::from_static("canary"),
        )]);
        let refused = transport
            .post_message(Arc::clone(&url), ping(), None, None, custom)
            .await;
        assert!(
            matches!(refused, Err(StreamableHttpError::ReservedHeaderConflict(_))),
            "{name}"
        );
    }
    let own = replaced.session.header().await.unwrap();
    let requests = replaced.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        let request = request.to_ascii_lowercase();
        assert!(!request.contains("canary"));
        assert_eq!(request.matches("authorization:").count(), 1);
        assert!(request.contains(&own.to_str().unwrap().to_ascii_lowercase()));
        assert!(request.contains("mcp-session-id: s1"));
    }
    assert!(
        requests[2]
            .to_ascii_lowercase()
            .contains("last-event-id: e9")
    );
}

/// T-14, T-45: an event that is too large ends its stream for good; rmcp's attempts to resume it send nothing.
#[tokio::test]
async fn a_stream_with_a_huge_event_is_not_resumed() {
    let event = format!("data: {}\n\n", "x".repeat(500));
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{event}");
    let replaced = World::start(|_| {})
        .await
        .replace_server(move |_| answer.clone())
        .await;
    let transport = Transport::new(replaced.session.clone());
    let get = |last: &str| {
        let (url, last) = (Arc::clone(&replaced.url), Some(last.to_owned()));
        transport.get_stream_with_max_sse_event_size(
            url,
            Some("s1".into()),
            last,
            None,
            none(),
            100,
        )
    };
    let events: Vec<_> = get("e1").await.unwrap().collect().await;
    assert!(matches!(events.as_slice(), [Err(error)] if error.to_string().contains("100 bytes")));
    let again = get("e1").await.map(|_| ());
    assert!(
        matches!(again, Err(StreamableHttpError::ServerDoesNotSupportSse)),
        "{again:?}"
    );
    assert_eq!(replaced.requests.lock().unwrap().len(), 1);
    assert!(get("e2").await.is_ok(), "another stream is another stream");
}
