//! Servers that lead elsewhere.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::HeaderValue;
use pilotlight::human::Refuse;

use crate::support::{Host, INITIALIZE, Script, welcome};

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x"}}"#;

/// T-23, TR-32, TR-34: a redirect within the origin that keeps the method is followed for each request of a session, with what the
/// session wants on it; the message stays as it is.
#[tokio::test]
async fn a_redirect_within_the_origin_is_followed() {
    for (status, location) in [
        ("307 Temporary Redirect", "/mcp/"),
        ("308 Permanent Redirect", "http://HOST/elsewhere"),
    ] {
        let server = Script::start(move |request, reply| async move {
            if request.path == "/mcp" {
                let location = location.replace("HOST", request.header("host").unwrap());
                let head = format!("location: {location}\r\n");
                return reply.send(status, &head, "").await;
            }
            if request.method == "GET" {
                let mut reply = reply.stream().await;
                reply.event(r#"{"jsonrpc":"2.0","method":"a"}"#).await;
                reply.hung_up().await;
                return reply;
            }
            if request.is("initialize") {
                let head = "content-type: application/json\r\nmcp-session-id: s\r\n";
                return reply.send("200 OK", head, &welcome("2025-06-18")).await;
            }
            match request.body.contains(r#""id""#) {
                true => reply.json(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#).await,
                false => reply.accepted().await,
            }
        })
        .await;
        let canary = |config: &mut pilotlight_relay::Config| {
            let value = HeaderValue::from_static("canary");
            config.headers.insert("x-api-key", value);
        };
        let mut host = Host::with(&server.url, Arc::new(Refuse), canary).await;
        host.shake_hands().await;
        assert!(host.hear().await.contains(r#""method":"a""#));
        host.say(CALL).await;
        assert!(host.hear().await.contains(r#""id":7"#));
        host.hang_up().await;
        let seen = server.seen();
        let (first, then): (Vec<_>, Vec<_>) = seen.iter().partition(|one| one.path == "/mcp");
        assert_eq!(then.len(), 5, "{then:?}");
        for method in ["POST", "GET", "DELETE"] {
            let count = |all: &[&crate::support::Request]| {
                all.iter().filter(|one| one.method == method).count()
            };
            assert_eq!(count(&first), count(&then), "{method}");
        }
        let call = then.iter().find(|one| one.is("tools/call")).unwrap();
        assert_eq!(call.body, CALL);
        assert_eq!(call.header("mcp-session-id"), Some("s"));
        assert_eq!(call.header("x-api-key"), Some("canary"));
    }
}

/// T-23: to another origin nothing goes; the error names it, and nothing else of where it leads.
#[tokio::test]
async fn a_redirect_to_another_origin_is_not_followed() {
    let collector = Script::start(|_, reply| async { reply.accepted().await }).await;
    let others = [
        collector.url.clone(),
        collector.url.replace("127.0.0.1", "localhost"),
        collector.url.replace("http://", "https://"),
        collector.url.replace("http://", "http://me@"),
    ];
    for other in others {
        let location = format!("location: {other}?code=canary\r\n");
        let server = Script::start(move |_, reply| {
            let location = location.clone();
            async move { reply.send("307 Temporary Redirect", &location, "").await }
        })
        .await;
        let mut host = Host::start(&server.url).await;
        host.say(INITIALIZE).await;
        let refused = host.hear().await;
        assert!(refused.contains("server.redirected"), "{refused}");
        let origin = url::Url::parse(&other).unwrap().origin();
        assert!(refused.contains(&origin.ascii_serialization()), "{refused}");
        assert!(!refused.contains("canary"), "{refused}");
        assert_eq!(server.seen().len(), 1);
    }
    assert_eq!(collector.seen().len(), 0);
}

/// T-23: a circle ends; a POST that would become a GET is sent nowhere.
#[tokio::test]
async fn what_leads_nowhere_ends() {
    let round = Arc::new(AtomicUsize::new(0));
    let server = Script::start(move |_, reply| {
        let location = format!("location: /{}\r\n", round.fetch_add(1, Ordering::SeqCst));
        async move { reply.send("308 Permanent Redirect", &location, "").await }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(CALL).await;
    assert!(host.hear().await.contains("server.redirected"));
    assert_eq!(server.seen().len(), 4);
    for status in ["301 Moved Permanently", "302 Found", "303 See Other"] {
        let server =
            Script::start(move |_, reply| reply.send(status, "location: /other\r\n", "")).await;
        let mut host = Host::start(&server.url).await;
        host.say(CALL).await;
        assert!(host.hear().await.contains("server.http_status"));
        assert_eq!(server.seen().len(), 1);
    }
}
