//! What a machine translates: bounded, and never in the way of who reads or writes beside it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pilotlight::human::Refuse;
use pilotlight_testkit::mcp_server::Wires;
use serde_json::json;
use tokio::sync::watch;

use crate::support::{DISCOVERED, Host, PATIENCE, Script, answer, logged_in, new};

/// A host that writes hundreds of messages and reads only then, as a script does, is read to the end: what a machine answers
/// by itself, and what is refused.
#[tokio::test]
async fn a_host_that_writes_before_it_reads_is_read() {
    let (lab, store) = logged_in(|lab| lab.mcp_server.wires = Wires::Modern).await;
    let mut host = Host::on(store, lab.resource_url(), Arc::new(Refuse), |_| {}).await;
    host.shake_hands().await;
    let long = "y".repeat(1000);
    let ping = |id: usize| format!(r#"{{"jsonrpc":"2.0","id":"{long}{id}","method":"ping"}}"#);
    let wrong = |_: usize| format!(r#"{{"jsonrpc":"2.0","{long}"#);
    let lines: [&dyn Fn(usize) -> String; 2] = [&ping, &wrong];
    for line in lines {
        let all = async {
            for number in 0..400 {
                host.say(&line(number)).await;
            }
        };
        let written = tokio::time::timeout(PATIENCE, all).await;
        written.expect("what is written is read");
        for _ in 0..400 {
            let said = host.hear().await;
            assert!(said.contains("result") || said.contains("-32700"), "{said}");
        }
    }
}

/// T-33: no more requests than may wait do so where a machine translates, either.
#[tokio::test]
async fn the_requests_that_are_translated_are_bounded() {
    let (go, held) = watch::channel(false);
    let server = Script::start(move |request, reply| {
        let mut held = held.clone();
        async move {
            if request.is("server/discover") {
                return reply.json(DISCOVERED).await;
            }
            let _ = held.wait_for(|go| *go).await;
            let id = request.id();
            reply
                .json(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#))
                .await
        }
    })
    .await;
    let few = |config: &mut pilotlight_relay::Config| config.limits.requests = 4;
    let mut host = Host::with(&server.url, Arc::new(Refuse), few).await;
    for id in 1..=6 {
        host.say(&new(&id.to_string(), "tools/call", &json!({ "name": "x" })))
            .await;
    }
    for id in ["5", "6"] {
        let refused = answer(&mut host).await;
        assert_eq!(refused["id"], id, "{refused}");
        assert_eq!(
            refused["error"]["data"]["code"], "bridge.too_many_requests",
            "{refused}"
        );
    }
    go.send_replace(true);
    for _ in 1..=4 {
        assert!(answer(&mut host).await["result"].is_object());
    }
    host.say(&new("7", "tools/call", &json!({ "name": "x" })))
        .await;
    assert!(answer(&mut host).await["result"].is_object());
}

/// TR-10: an answer of a new server that breaks off is asked for again where that changes nothing, under another id; what may
/// have been done is told as lost.
#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let lists = Arc::new(AtomicUsize::new(0));
    let server = Script::start(move |request, mut reply| {
        let lists = lists.clone();
        async move {
            if request.is("server/discover") {
                return reply.json(DISCOVERED).await;
            }
            if request.is("tools/list") && lists.fetch_add(1, Ordering::SeqCst) > 0 {
                let id = request.id();
                let result = r#"{"resultType":"complete","tools":[]}"#;
                return reply
                    .json(&format!(
                        r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#
                    ))
                    .await;
            }
            let head = "content-type: application/json\r\ncontent-length: 500\r\n";
            reply = reply.open(head).await;
            reply.write(r#"{"jsonrpc":"2.0""#).await;
            reply
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(&new("l", "tools/list", &json!({}))).await;
    let listed = answer(&mut host).await;
    assert_eq!(listed["id"], "l", "{listed}");
    assert!(listed["result"]["tools"].is_array(), "{listed}");
    let seen = server.seen();
    let mut asked: Vec<_> = seen
        .iter()
        .filter(|one| one.is("tools/list"))
        .map(|one| one.id())
        .collect();
    asked.dedup();
    assert_eq!(asked.len(), 2, "{asked:?}");
    host.say(&new("c", "tools/call", &json!({ "name": "x" })))
        .await;
    let lost = answer(&mut host).await;
    assert_eq!(
        (&lost["id"], &lost["error"]["data"]["code"]),
        (&json!("c"), &json!("server.no_answer")),
        "{lost}"
    );
    assert_eq!(server.count(|one| one.is("tools/call")), 1);
}

/// TR-12: a subscription is silent while nothing changes, for however long; the host hears of its end in its own words.
#[tokio::test]
async fn a_silent_subscription_goes_on() {
    let (to_stream, stream) = watch::channel(0);
    let server = Script::start(move |request, reply| {
        let mut stream = stream.clone();
        async move {
            if request.is("server/discover") {
                return reply.json(DISCOVERED).await;
            }
            let mut reply = reply.stream().await;
            let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
            reply.event(changed).await;
            let _ = stream.wait_for(|step| *step == 1).await;
            reply.event(changed).await;
            let _ = stream.wait_for(|step| *step == 2).await;
            reply
        }
    })
    .await;
    let brief = |config: &mut pilotlight_relay::Config| {
        config.body_timeout = Some(Duration::from_millis(50));
    };
    let mut host = Host::with(&server.url, Arc::new(Refuse), brief).await;
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    host.say(&new("s", "subscriptions/listen", &wanted)).await;
    for step in [1, 2] {
        let changed = answer(&mut host).await;
        assert_eq!(changed["method"], "notifications/tools/list_changed");
        host.hears_nothing().await;
        to_stream.send_replace(step);
    }
    let ended = answer(&mut host).await;
    assert_eq!(ended["method"], "notifications/cancelled", "{ended}");
    assert_eq!(ended["params"]["requestId"], "s");
}
