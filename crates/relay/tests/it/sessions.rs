//! Sessions of the stateful wire.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{Host, INITIALIZE, INITIALIZED, Script, welcome};
use pilotlight_relay::Ended;

/// A server with sessions that forgets the first one when it is told to.
async fn forgetful() -> (Script, Arc<AtomicUsize>) {
    let live = Arc::new(AtomicUsize::new(0));
    let current = live.clone();
    let server = Script::start(move |request, reply| {
        let current = current.clone();
        async move {
            if request.is("initialize") {
                let number = current.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
                let head =
                    format!("content-type: application/json\r\nmcp-session-id: s{number}\r\n");
                return reply.send("200 OK", &head, &welcome("2025-06-18")).await;
            }
            let wanted = format!("s{}", current.load(Ordering::SeqCst));
            if request.header("mcp-session-id") != Some(wanted.as_str()) {
                return reply.send("404 Not Found", "", "").await;
            }
            match request.method.as_str() {
                "GET" => reply.send("405 Method Not Allowed", "", "").await,
                "DELETE" => reply.send("200 OK", "", "").await,
                _ if request.body.contains(r#""id""#) => {
                    reply
                        .json(&format!(r#"{{"id":{},"result":{{}}}}"#, request.id()))
                        .await
                }
                _ => reply.accepted().await,
            }
        }
    })
    .await;
    (server, live)
}

/// TR-30, TR-32, TR-33, TR-34: the session's id and the agreed version go on every request, the GET and the DELETE included.
#[tokio::test]
async fn a_session_is_named_until_its_end() {
    let (server, _) = forgetful().await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    host.hear().await;
    server.until(1, |one| one.method == "GET").await;
    assert_eq!(host.hang_up().await, Ended::HostLeft);
    let seen = server.seen();
    assert_eq!(seen[0].header("mcp-session-id"), None);
    assert_eq!(seen[0].header("mcp-protocol-version"), None);
    for request in &seen[1..] {
        assert_eq!(
            request.header("mcp-session-id"),
            Some("s1"),
            "{}",
            request.head
        );
        assert_eq!(request.header("mcp-protocol-version"), Some("2025-06-18"));
    }
    assert_eq!(seen.last().unwrap().method, "DELETE");
    let get = seen.iter().find(|one| one.method == "GET").unwrap();
    assert_eq!(get.header("accept"), Some("text/event-stream"));
}

/// TR-31: of many requests that meet a forgotten session one opens a new one, with the host's own words; all are answered.
#[tokio::test]
async fn a_forgotten_session_is_opened_anew_once() {
    let (server, live) = forgetful().await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    host.hear().await;
    live.store(7, Ordering::SeqCst);
    for id in 10..18 {
        host.say(&format!(r#"{{"id":{id},"method":"a"}}"#)).await;
    }
    let mut heard = Vec::new();
    for _ in 10..18 {
        heard.push(host.hear().await);
    }
    heard.sort();
    let wanted: Vec<_> = (10..18)
        .map(|id| format!(r#"{{"id":{id},"result":{{}}}}"#))
        .collect();
    assert_eq!(heard, wanted);
    host.hears_nothing().await;
    assert_eq!(live.load(Ordering::SeqCst), 8, "one new session");
    let again: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|one| one.is("initialize"))
        .collect();
    assert_eq!(again.len(), 2);
    assert_eq!(again[1].body, INITIALIZE);
    assert_eq!(again[1].header("mcp-session-id"), None);
    assert_eq!(server.count(|one| one.body == INITIALIZED), 2);
}

/// TR-31: a session that was opened anew only by half, since the server could not take `initialized`, is none: the next request
/// opens another, and nothing is said in the half one.
#[tokio::test]
async fn a_session_that_is_opened_by_half_is_none() {
    let (sessions, said) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = Script::start(move |request, reply| {
        let (sessions, said) = (sessions.clone(), said.clone());
        async move {
            if request.is("initialize") {
                let number = sessions.fetch_add(1, Ordering::SeqCst) + 1;
                let head =
                    format!("content-type: application/json\r\nmcp-session-id: s{number}\r\n");
                return reply.send("200 OK", &head, &welcome("2025-06-18")).await;
            }
            if request.body == INITIALIZED {
                return match said.fetch_add(1, Ordering::SeqCst) {
                    1 => reply.send("503 Service Unavailable", "", "").await,
                    _ => reply.accepted().await,
                };
            }
            match request.header("mcp-session-id") {
                _ if request.method == "GET" => reply.send("405 Method Not Allowed", "", "").await,
                Some("s1") => reply.send("404 Not Found", "", "").await,
                Some("s2") => reply.send("400 Bad Request", "", "not initialized").await,
                _ => {
                    reply
                        .json(&format!(r#"{{"id":{},"result":{{}}}}"#, request.id()))
                        .await
                }
            }
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    let error = host.hear().await;
    assert!(error.contains(r#""http_status":503"#), "{error}");
    host.say(r#"{"id":2,"method":"a"}"#).await;
    assert_eq!(host.hear().await, r#"{"id":2,"result":{}}"#);
    let last = server.seen().into_iter().rfind(|one| one.is("a")).unwrap();
    assert_eq!(last.header("mcp-session-id"), Some("s3"));
    assert_eq!(last.header("mcp-protocol-version"), Some("2025-06-18"));
    let said = server
        .seen()
        .into_iter()
        .filter(|one| one.body == INITIALIZED);
    let named: Vec<_> = said
        .map(|one| {
            let version = one.header("mcp-protocol-version") == Some("2025-06-18");
            (one.header("mcp-session-id").map(str::to_owned), version)
        })
        .collect();
    let wanted = ["s1", "s2", "s3"].map(|id| (Some(id.to_owned()), true));
    assert_eq!(named, wanted);
}

/// A server that forgets every session is asked for a new one once for each request, and then the host is told.
#[tokio::test]
async fn a_server_that_forgets_every_session_is_no_loop() {
    let server = Script::start(|request, reply| async move {
        match request.is("initialize") {
            true => {
                let head = "content-type: application/json\r\nmcp-session-id: s\r\n";
                reply.send("200 OK", head, &welcome("2025-06-18")).await
            }
            false if request.body.contains(r#""id""#) => reply.send("404 Not Found", "", "").await,
            false => reply.accepted().await,
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    let error = host.hear().await;
    assert!(error.contains(r#""http_status":404"#), "{error}");
    assert_eq!(server.count(|one| one.is("a")), 2);
    assert_eq!(server.count(|one| one.is("initialize")), 2);
}

/// A server that tells by a cookie which of its machines is to be asked again gets it back, until it is told otherwise.
#[tokio::test]
async fn cookies_are_kept() {
    for keep in [true, false] {
        let server = Script::start(|request, reply| async move {
            let head = "content-type: application/json\r\nset-cookie: node=a; Path=/; HttpOnly\r\n";
            match request.is("initialize") {
                true => reply.send("200 OK", head, &welcome("2025-06-18")).await,
                false => reply.accepted().await,
            }
        })
        .await;
        let nobody = Arc::new(pilotlight::human::Refuse);
        let mut host = Host::with(&server.url, nobody, |config| config.cookies = keep).await;
        host.shake_hands().await;
        server.until(1, |one| one.body == INITIALIZED).await;
        let said = server
            .seen()
            .into_iter()
            .find(|one| one.body == INITIALIZED)
            .unwrap();
        assert_eq!(said.header("cookie"), keep.then_some("node=a"));
    }
}
