//! Streams: what comes on them, and what happens when they break.

use std::time::Duration;

use crate::support::{Host, Script, welcome};

/// TR-36: what a server asks on the stream of an answer reaches the host, and the host's answer is posted.
#[tokio::test]
async fn a_server_may_ask_on_the_stream_of_an_answer() {
    let (answered, answer) = tokio::sync::watch::channel(false);
    let server = Script::start(move |request, reply| {
        let (answered, mut answer) = (answered.clone(), answer.clone());
        async move {
            if request.is("a") {
                let mut reply = reply.stream().await;
                reply
                    .event(r#"{"method":"notifications/progress","params":{"x":1.0}}"#)
                    .await;
                reply.event(r#"{"id":"s1","method":"roots/list"}"#).await;
                let _ = answer.wait_for(|answered| *answered).await;
                reply.event(r#"{"id":1,"result":{}}"#).await;
                return reply;
            }
            answered.send_replace(true);
            reply.accepted().await
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    assert_eq!(
        host.hear().await,
        r#"{"method":"notifications/progress","params":{"x":1.0}}"#
    );
    assert_eq!(host.hear().await, r#"{"id":"s1","method":"roots/list"}"#);
    host.say(r#"{"id":"s1","result":{"roots":[]}}"#).await;
    assert_eq!(host.hear().await, r#"{"id":1,"result":{}}"#);
    assert_eq!(
        server.seen()[1].body,
        r#"{"id":"s1","result":{"roots":[]}}"#
    );
}

/// TR-35: an answer whose stream ends early is asked for again by the id of its last event, after the pause that the server
/// named; what came before does not come twice.
#[tokio::test]
async fn an_answer_goes_on_where_its_stream_broke_off() {
    let server = Script::start(|request, reply| async move {
        if request.method == "POST" {
            let mut reply = reply.stream().await;
            reply.write("retry: 30\nid: e1\ndata: {\"method\":\"notifications/one\"}\n\nid: e2\ndata: {\"id\":1,").await;
            return reply;
        }
        let mut reply = reply.stream().await;
        reply.write("id: e2\ndata: {\"id\":1,\"result\":{}}\n\n").await;
        reply
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    assert_eq!(host.hear().await, r#"{"method":"notifications/one"}"#);
    assert_eq!(host.hear().await, r#"{"id":1,"result":{}}"#);
    host.hears_nothing().await;
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(
        (seen[1].method.as_str(), seen[1].header("last-event-id")),
        ("GET", Some("e1"))
    );
}

/// TR-35: a server that closes the stream of a long call again and again, and each time has something new, is polled for as
/// long as that goes on, each time after the pause that it named.
#[tokio::test]
async fn a_call_that_is_polled_for_has_no_last_try() {
    const CLOSES: usize = 20;
    let server = Script::start(|request, reply| async move {
        let last = request
            .header("last-event-id")
            .and_then(|id| id.parse().ok());
        let next = last.map_or(0, |last: usize| last + 1);
        let mut reply = reply.stream().await;
        let text = match next {
            // An event that only has an id: it is there to be resumed after.
            0..CLOSES => format!("retry: 10\nid: {next}\ndata:\n\n"),
            _ => format!("id: {next}\ndata: {{\"id\":1,\"result\":{{}}}}\n\n"),
        };
        reply.write(&text).await;
        reply
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    // The pauses are longer together than this.
    host.hears_nothing().await;
    assert_eq!(host.hear().await, r#"{"id":1,"result":{}}"#);
    assert_eq!(server.seen().len(), 1 + CLOSES);
}

/// TR-35: a server that has nothing new, however often it is asked, is not asked for ever.
#[tokio::test]
async fn a_stream_that_stays_empty_is_given_up() {
    let server = Script::start(|request, reply| async move {
        let mut reply = reply.stream().await;
        if request.method == "POST" {
            reply.write("retry: 0\nid: 1\ndata:\n\n").await;
        }
        reply
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    let error = host.hear().await;
    assert!(error.contains("server.no_answer"), "{error}");
    assert!(server.seen().len() > 20, "{}", server.seen().len());
}

/// TR-10, TR-35: without the id of an event nothing can be resumed, and nothing is sent twice: the host is told.
#[tokio::test]
async fn an_answer_that_cannot_be_resumed_is_not_asked_for_again() {
    let server = Script::start(|_, reply| async move {
        let mut reply = reply.stream().await;
        reply.event(r#"{"method":"notifications/one"}"#).await;
        reply
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    host.hear().await;
    let error = host.hear().await;
    assert!(error.contains("server.no_answer"), "{error}");
    assert_eq!(server.seen().len(), 1);
}

/// TR-34, TR-35: the session's own stream is opened after the handshake, and opened again by the id of its last event.
#[tokio::test]
async fn the_servers_own_stream_is_kept_open() {
    let server = Script::start(|request, reply| async move {
        if request.is("initialize") {
            return reply.json(&welcome("2025-11-25")).await;
        }
        if request.method != "GET" {
            return reply.accepted().await;
        }
        let last = request.header("last-event-id").map(str::to_owned);
        let mut reply = reply.stream().await;
        match last.as_deref() {
            None => {
                reply
                    .write("retry: 20\nid: 1\ndata: {\"method\":\"notifications/one\"}\n\n")
                    .await;
            }
            Some("1") => {
                reply
                    .write("id: 2\ndata: {\"method\":\"notifications/two\"}\n\n")
                    .await;
            }
            _ => reply.hung_up().await,
        }
        reply
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    assert_eq!(host.hear().await, r#"{"method":"notifications/one"}"#);
    assert_eq!(host.hear().await, r#"{"method":"notifications/two"}"#);
    server
        .until(1, |one| one.header("last-event-id") == Some("2"))
        .await;
}

/// TR-34, TR-40: a stream that is refused for want of a token comes back when the server takes requests again; it asks nobody
/// for a login by itself. One whose last event the server no longer knows is opened without it.
#[tokio::test]
async fn the_servers_own_stream_comes_back_after_a_refusal() {
    let opened = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let server = Script::start(move |request, reply| {
        let opened = opened.clone();
        async move {
            if request.is("initialize") {
                return reply.json(&welcome("2025-11-25")).await;
            }
            if request.path != "/mcp" {
                return reply.send("404 Not Found", "", "").await;
            }
            if request.method != "GET" {
                return match request.body.contains(r#""id""#) {
                    true => reply.json(r#"{"id":1,"result":{}}"#).await,
                    false => reply.accepted().await,
                };
            }
            match opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => {
                    let head = "www-authenticate: Bearer\r\n";
                    reply.send("401 Unauthorized", head, "").await
                }
                1 => {
                    let mut reply = reply.stream().await;
                    reply
                        .write("retry: 20\nid: 7\ndata: {\"method\":\"notifications/one\"}\n\n")
                        .await;
                    reply
                }
                2 => reply.send("400 Bad Request", "", "no such event").await,
                _ => {
                    let mut reply = reply.stream().await;
                    reply.event(r#"{"method":"notifications/two"}"#).await;
                    reply.hung_up().await;
                    reply
                }
            }
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    server
        .until(1, |one| one.method == "GET" && one.path == "/mcp")
        .await;
    host.hears_nothing().await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    let mut heard = [host.hear().await, host.hear().await];
    heard.sort();
    assert_eq!(
        heard,
        [
            r#"{"id":1,"result":{}}"#,
            r#"{"method":"notifications/one"}"#
        ]
    );
    assert_eq!(host.hear().await, r#"{"method":"notifications/two"}"#);
    let gets = server.seen().into_iter();
    let last: Vec<_> = gets
        .filter(|one| one.method == "GET" && one.path == "/mcp")
        .map(|one| one.header("last-event-id").map(str::to_owned))
        .collect();
    assert_eq!(last, [None, None, Some("7".to_owned()), None]);
}

/// TR-37: on the stateful wire a cancelled request is told to the server; its stream stays open, and its silence is no error.
#[tokio::test]
async fn cancelling_is_told_and_does_not_hang_up() {
    let (cancelled, told) = tokio::sync::watch::channel(false);
    let (hangs_up, mut hung_up) = tokio::sync::mpsc::unbounded_channel();
    let server = Script::start(move |request, reply| {
        let (cancelled, mut told) = (cancelled.clone(), told.clone());
        let hangs_up = hangs_up.clone();
        async move {
            if request.is("a") {
                let mut reply = reply.stream().await;
                let _ = told.wait_for(|told| *told).await;
                // Who hangs up because of what it told does so soon after.
                let while_open = tokio::time::timeout(LONG_ENOUGH, reply.hung_up());
                hangs_up.send(while_open.await.is_ok()).unwrap();
                return reply;
            }
            cancelled.send_replace(true);
            reply.accepted().await
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"id":1,"method":"a"}"#).await;
    server.until(1, |one| one.is("a")).await;
    host.say(r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#)
        .await;
    server
        .until(1, |one| one.is("notifications/cancelled"))
        .await;
    let hung_up = tokio::time::timeout(crate::support::PATIENCE, hung_up.recv());
    assert_eq!(hung_up.await.unwrap(), Some(false), "the stream stays open");
    host.hears_nothing().await;
}

/// TR-20: a server that says nothing is given up after the configured time, and is not asked twice.
#[tokio::test]
async fn a_silent_server_is_given_up() {
    let server = Script::start(|request, mut reply| async move {
        if request.is("head") {
            reply.hung_up().await;
            return reply;
        }
        let mut reply = reply.stream().await;
        reply.hung_up().await;
        reply
    })
    .await;
    let short = |config: &mut pilotlight_relay::Config| {
        config.headers_timeout = Some(Duration::from_millis(100));
        config.body_timeout = Some(Duration::from_millis(100));
    };
    let mut host = Host::with(
        &server.url,
        std::sync::Arc::new(pilotlight::human::Refuse),
        short,
    )
    .await;
    for method in ["head", "body"] {
        host.say(&format!(r#"{{"id":1,"method":"{method}"}}"#))
            .await;
        let error = host.hear().await;
        assert!(error.contains("unavailable.timeout"), "{error}");
    }
    assert_eq!(server.seen().len(), 2);
}

const LONG_ENOUGH: Duration = Duration::from_millis(100);
