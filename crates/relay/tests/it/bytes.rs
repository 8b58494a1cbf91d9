//! What passes, passes as it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{Host, INITIALIZED, Script, welcome};
use pilotlight::human::Refuse;

/// TR-02, TR-36: a request reaches the server, and its answer the host, as they are written: unknown members, their order,
/// numbers, escapes and doubled names.
#[tokio::test]
async fn messages_pass_as_they_are_written() {
    const ASKED: &str = r#"{ "x-unknown":[1.50,1e400],"method":"tools/call" , "id": 18446744073709551616.0,"params":{"b":1,"a":"\u0041\/","a":2},"jsonrpc":"2.0"}"#;
    const ANSWERED: &str = r#"{"result":{"z":-0.0,"a":[0.10,12345678901234567890123],"t":"\ud83d\ude00 \"}"},"x":null,"id":18446744073709551616.0,"jsonrpc":"2.0"}"#;
    let server = Script::start(|request, reply| async move {
        match request.is("initialize") {
            true => reply.json(&welcome("2025-06-18")).await,
            false if request.body.contains("tools/call") => reply.json(ANSWERED).await,
            false => reply.accepted().await,
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    assert_eq!(host.shake_hands().await, welcome("2025-06-18"));
    host.say(ASKED).await;
    assert_eq!(host.hear().await, ANSWERED);
    let asked = server
        .seen()
        .into_iter()
        .find(|one| one.body.contains("x-unknown"))
        .unwrap();
    assert_eq!(asked.body, ASKED);
    assert_eq!(
        asked.header("accept"),
        Some("application/json, text/event-stream")
    );
    assert_eq!(asked.header("content-type"), Some("application/json"));
}

/// A pretty-printed answer is one line at the host; JSON over several `data` fields too (TR-02).
#[tokio::test]
async fn an_answer_over_several_lines_is_one_line() {
    let server = Script::start(|request, reply| async move {
        if request.is("a") {
            return reply
                .json("{\r\n  \"id\": 1,\n  \"result\": {\n}\n}\n")
                .await;
        }
        let mut reply = reply.stream().await;
        reply
            .write("\u{feff}: hi\r\ndata: {\"id\": 2,\r\ndata: \"result\": {}}\r\n\r\n")
            .await;
        reply
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#).await;
    assert_eq!(host.hear().await, r#"{    "id": 1,   "result": { } }"#);
    host.say(r#"{"jsonrpc":"2.0","id":2,"method":"b"}"#).await;
    assert_eq!(host.hear().await, r#"{"id": 2, "result": {}}"#);
}

/// A result that is larger than what the bridge holds is streamed: while the host does not read, the server cannot write on.
#[tokio::test]
async fn a_large_result_waits_for_the_host_at_the_server() {
    const PIECES: usize = 512;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let server = Script::start(move |_, reply| {
        let counter = counter.clone();
        async move {
            let mut reply = reply.open("content-type: application/json\r\n").await;
            reply.write(r#"{"result":{"t":""#).await;
            let piece = "x".repeat(64 * 1024);
            for _ in 0..PIECES {
                reply.write(&piece).await;
                counter.fetch_add(1, Ordering::SeqCst);
            }
            reply.write(r#""},"id":1}"#).await;
            reply
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let early = written.load(Ordering::SeqCst);
    assert!(
        early < PIECES / 2,
        "{early} of {PIECES} pieces were taken although nobody reads"
    );
    let line = host.hear().await;
    assert_eq!(
        line.len(),
        PIECES * 64 * 1024 + r#"{"result":{"t":""},"id":1}"#.len()
    );
    assert!(line.ends_with(r#""},"id":1}"#));
}

/// A large result that breaks off is no message, and the request is answered with an error all the same.
#[tokio::test]
async fn a_large_result_that_breaks_off_is_an_error() {
    let server = Script::start(|_, reply| async move {
        let mut reply = reply.open("content-type: application/json\r\n").await;
        reply
            .write(&format!(
                r#"{{"id":1,"result":{{"t":"{}"#,
                "x".repeat(1 << 20)
            ))
            .await;
        reply
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#).await;
    let broken = host.hear().await;
    assert!(serde_json::from_str::<serde_json::Value>(&broken).is_err());
    let error: serde_json::Value = serde_json::from_str(&host.hear().await).unwrap();
    assert_eq!(error["id"], 1);
    assert_eq!(error["error"]["data"]["code"], "server.no_answer");
}

/// A short result that breaks off does not reach the host at all.
#[tokio::test]
async fn a_short_result_that_breaks_off_is_not_shown() {
    let server = Script::start(|_, reply| async move {
        let mut reply = reply
            .open("content-type: application/json\r\ncontent-length: 100\r\n")
            .await;
        reply.write(r#"{"id":1,"result":{"#).await;
        reply
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#).await;
    let error: serde_json::Value = serde_json::from_str(&host.hear().await).unwrap();
    assert_eq!(error["error"]["data"]["code"], "unavailable.network");
}

/// T-33: a message that is too long is refused by its id and not sent; what follows goes on.
#[tokio::test]
async fn a_message_that_is_too_long_is_refused() {
    let server =
        Script::start(|_, reply| async { reply.json(r#"{"id":2,"result":{}}"#).await }).await;
    let small = |config: &mut pilotlight_relay::Config| config.limits.frame = 1000;
    let mut host = Host::with(&server.url, Arc::new(Refuse), small).await;
    host.say(&format!(
        r#"{{"method":"a","params":"{}","id":"x"}}"#,
        "y".repeat(2000)
    ))
    .await;
    let error: serde_json::Value = serde_json::from_str(&host.hear().await).unwrap();
    assert_eq!(
        (&error["id"], &error["error"]["code"]),
        (&"x".into(), &(-32600).into())
    );
    assert_eq!(error["error"]["data"]["code"], "bridge.frame_too_large");
    host.say("not json").await;
    assert!(host.hear().await.contains("-32700"));
    host.say("7").await;
    assert!(host.hear().await.contains("-32600"));
    host.say(r#"{"method":"a","id":2}"#).await;
    assert_eq!(host.hear().await, r#"{"id":2,"result":{}}"#);
    assert_eq!(server.seen().len(), 1);
}

/// When as much waits as may wait, the host is not read; the next answer makes room.
#[tokio::test]
async fn what_may_wait_is_bounded() {
    let (release, released) = tokio::sync::watch::channel(false);
    let server = Script::start(move |request, reply| {
        let mut released = released.clone();
        async move {
            let _ = released.wait_for(|released| *released).await;
            reply
                .json(&format!(r#"{{"id":{},"result":{{}}}}"#, request.id()))
                .await
        }
    })
    .await;
    let small = |config: &mut pilotlight_relay::Config| config.limits.in_flight = 2500;
    let mut host = Host::with(&server.url, Arc::new(Refuse), small).await;
    let padding = "y".repeat(1100);
    for id in 1..=4 {
        host.say(&format!(
            r#"{{"id":{id},"method":"a","params":"{padding}"}}"#
        ))
        .await;
    }
    server.until(2, |_| true).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.seen().len(), 2, "the third does not fit");
    release.send(true).unwrap();
    for _ in 0..4 {
        host.hear().await;
    }
}

/// Order: nothing overtakes `initialize` and `initialized`; notifications keep theirs.
#[tokio::test]
async fn nothing_overtakes_the_handshake() {
    let server = Script::start(|request, reply| async move {
        if request.is("initialize") {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return reply.json(&welcome("2025-06-18")).await;
        }
        if request.is("notifications/initialized") || request.is("notifications/1") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        match request.body.contains(r#""id""#) {
            true => {
                reply
                    .json(&format!(r#"{{"id":{},"result":{{}}}}"#, request.id()))
                    .await
            }
            false => reply.accepted().await,
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    for line in [
        crate::support::INITIALIZE,
        INITIALIZED,
        r#"{"id":1,"method":"a"}"#,
        r#"{"method":"notifications/1"}"#,
        r#"{"method":"notifications/2"}"#,
    ] {
        host.say(line).await;
    }
    host.hear().await;
    assert_eq!(host.hear().await, r#"{"id":1,"result":{}}"#);
    server.until(1, |one| one.is("notifications/2")).await;
    let posts: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|one| one.method == "POST")
        .collect();
    let at = |method: &str| posts.iter().position(|one| one.is(method)).unwrap();
    assert_eq!((at("initialize"), at("notifications/initialized")), (0, 1));
    assert!(at("a") > 1 && at("notifications/1") < at("notifications/2"));
}

/// TR-38: a batch is taken apart: each of its messages is a line.
#[tokio::test]
async fn a_batch_of_the_server_is_taken_apart() {
    let server = Script::start(|request, reply| async move {
        match request.is("initialize") {
            true => reply.json(&format!("[{}]", welcome("2025-03-26"))).await,
            false if request.body.contains(r#""id""#) => {
                reply
                    .json(r#"[{"method":"notifications/x"}, {"id":1.0,"result":{"a":1e2}}]"#)
                    .await
            }
            false => reply.accepted().await,
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    assert_eq!(host.shake_hands().await, welcome("2025-03-26"));
    host.say(r#"{"id":1.0,"method":"a"}"#).await;
    assert_eq!(host.hear().await, r#"{"method":"notifications/x"}"#);
    assert_eq!(host.hear().await, r#"{"id":1.0,"result":{"a":1e2}}"#);
    host.hears_nothing().await;
    // TR-33: servers of this version do not know the header.
    let asked = server.seen().into_iter().find(|one| one.is("a")).unwrap();
    assert_eq!(asked.header("mcp-protocol-version"), None);
}

/// TR-38: however long a batch is, it is taken apart: a host of a later version gets no array, and no second answer.
#[tokio::test]
async fn a_long_batch_of_the_server_is_taken_apart() {
    const LONG: usize = 600 << 10;
    for stream in [false, true] {
        let server = Script::start(move |_, reply| async move {
            let batch = format!(
                r#" [{{"method":"notifications/x"}},{{"id":1,"result":"{}"}}]"#,
                "x".repeat(LONG)
            );
            match stream {
                false => reply.json(&batch).await,
                true => {
                    let mut reply = reply.stream().await;
                    reply.event(&batch).await;
                    reply
                }
            }
        })
        .await;
        let mut host = Host::start(&server.url).await;
        host.say(r#"{"id":1,"method":"a"}"#).await;
        assert_eq!(host.hear().await, r#"{"method":"notifications/x"}"#);
        let answer = host.hear().await;
        assert!(
            answer.starts_with(r#"{"id":1,"result":"x"#),
            "{}",
            answer.len()
        );
        assert!(answer.len() > LONG);
        host.hears_nothing().await;
    }
}

/// TR-38, I-6: each request in a batch of the host is answered, also where the server is of no use, and none passes by the
/// filter.
#[tokio::test]
async fn a_batch_of_the_host_is_carried_message_by_message() {
    let server = Script::start(|request, reply| async move {
        match request.is("notifications/x") {
            true => reply.accepted().await,
            false => reply.send("500 Internal Server Error", "", "").await,
        }
    })
    .await;
    let hide = |config: &mut pilotlight_relay::Config| config.ignored_tools = vec!["drop".into()];
    let nobody = std::sync::Arc::new(pilotlight::human::Refuse);
    let mut host = Host::with(&server.url, nobody, hide).await;
    host.say(concat!(
        r#"[{"id":1,"method":"tools/call","params":{"name":"drop"}},{"id":2,"method":"a"},"#,
        r#"{"method":"notifications/x"},{"id":3,"method":"b"}]"#
    ))
    .await;
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(host.hear().await);
    }
    for id in 1..=3 {
        let own = format!(r#""id":{id},"#);
        assert!(heard.iter().any(|one| one.contains(&own)), "{heard:?}");
    }
    server.until(1, |one| one.is("notifications/x")).await;
    assert_eq!(server.count(|one| one.body.contains("drop")), 0);
    host.say("[]").await;
    assert!(host.hear().await.contains("error"));
}

/// An error that names no request is given the id of the one it answers: a host could not tell otherwise.
#[tokio::test]
async fn an_error_without_an_id_gets_that_of_its_request() {
    let server = Script::start(|_, reply| async {
        reply
            .json(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"\u006eo"}}"#)
            .await
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(r#"{"jsonrpc":"2.0","id":"a","method":"x"}"#).await;
    assert_eq!(
        host.hear().await,
        r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32600,"message":"\u006eo"}}"#
    );
}
