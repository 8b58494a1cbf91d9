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

/// TR-37: on the stateful wire a cancelled request is told to the server; its stream stays open, and its silence is no error.
#[tokio::test]
async fn cancelling_is_told_and_does_not_hang_up() {
    let (cancelled, told) = tokio::sync::watch::channel(false);
    let server = Script::start(move |request, reply| {
        let (cancelled, mut told) = (cancelled.clone(), told.clone());
        async move {
            if request.is("a") {
                let mut reply = reply.stream().await;
                let hung_up = tokio::time::timeout(Duration::from_secs(5), async {
                    tokio::select! {
                        _ = told.wait_for(|told| *told) => false,
                        () = reply.hung_up() => true,
                    }
                });
                assert!(!hung_up.await.unwrap());
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
