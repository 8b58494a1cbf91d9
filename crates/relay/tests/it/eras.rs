//! Hosts and servers of different eras, over real sockets.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use pilotlight::{human::Refuse, store::Store};
use pilotlight_testkit::{
    Lab,
    mcp_server::{Answers, Wires},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{
    DISCOVERED, Host, INITIALIZE, INITIALIZED, Script, answer, logged_in, new, welcome,
};

async fn lab(wires: Wires, answers: Answers) -> (Lab, Arc<dyn Store>) {
    logged_in(|lab| {
        lab.mcp_server.wires = wires;
        lab.mcp_server.answers = answers;
    })
    .await
}

fn old(id: &str, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

/// TR-01 to TR-05, TR-10: a new host and a new server: headers are added, nothing is asked twice; each request of a revoked
/// token is answered.
#[tokio::test]
async fn a_new_host_before_a_new_server() {
    for answers in [Answers::Json, Answers::EventStream] {
        let (lab, store) = lab(Wires::Modern, answers).await;
        let mut host = Host::on(store, lab.resource_url(), Arc::new(Refuse), |_| {}).await;
        host.say(&new("d", "server/discover", &json!({}))).await;
        let discovered = answer(&mut host).await;
        assert_eq!(discovered["id"], "d");
        assert!(
            discovered["result"]["supportedVersions"][0] == "2026-07-28",
            "{discovered}"
        );
        lab.with_issuer(|issuer| issuer.revoke_access());
        let call = json!({ "name": "echo", "arguments": { "text": "hi" } });
        host.say(&new("c", "tools/call", &call)).await;
        let called = answer(&mut host).await;
        assert_eq!(called["result"]["content"][0]["text"], "hi", "{called}");
        lab.with_mcp(|server| assert_eq!(server.stats().initialize, 0));
    }
}

/// TR-16 to TR-18: an old host before a server that knows no sessions: the handshake is answered, and every request gets what
/// the new era wants.
#[tokio::test]
async fn an_old_host_before_a_new_server() {
    let (lab, store) = lab(Wires::Modern, Answers::EventStream).await;
    let mut host = Host::on(store, lab.resource_url(), Arc::new(Refuse), |_| {}).await;
    host.say(INITIALIZE).await;
    let welcome = answer(&mut host).await;
    assert_eq!(
        (&welcome["id"], &welcome["result"]["protocolVersion"]),
        (&json!(0), &json!("2025-06-18"))
    );
    host.say(INITIALIZED).await;
    host.say(&old("p", "ping", &json!({}))).await;
    assert_eq!(answer(&mut host).await["id"], "p");
    host.say(&old("l", "tools/list", &json!({}))).await;
    let listed = answer(&mut host).await;
    assert_eq!(listed["result"]["tools"][0]["name"], "echo", "{listed}");
    let call = json!({ "name": "echo", "arguments": { "text": "hi" } });
    host.say(&old("c", "tools/call", &call)).await;
    assert_eq!(
        answer(&mut host).await["result"]["content"][0]["text"],
        "hi"
    );
}

/// TR-14, TR-18: a server of the new era that answers `initialize` with 200 all the same, by an error or by a version that no
/// old host knows, is asked what it speaks, and an old host gets along with it. One that knows no other answer is passed on.
#[tokio::test]
async fn an_old_host_before_a_new_server_that_answers_initialize() {
    let refuses = r#""error":{"code":-32601,"message":"Method not found: initialize"}"#;
    let agrees = r#""result":{"protocolVersion":"2026-07-28","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#;
    for (said, discovers) in [
        (refuses, true),
        (agrees, true),
        (refuses, false),
        (agrees, false),
    ] {
        let server = Script::start(move |request, reply| async move {
            if !request.body.contains(r#""id""#) {
                return reply.accepted().await;
            }
            let id = request.id();
            let rest = if request.is("initialize") {
                said.to_owned()
            } else if !request.is("server/discover") {
                r#""result":{"resultType":"complete","content":[]}"#.to_owned()
            } else if discovers {
                r#""result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}"#.to_owned()
            } else {
                r#""error":{"code":-32601,"message":"x"}"#.to_owned()
            };
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},{rest}}}"#);
            reply.send("200 OK", "content-type: application/json\r\nmcp-session-id: s\r\n", &body).await
        })
        .await;
        let mut host = Host::start(&server.url).await;
        host.say(INITIALIZE).await;
        if !discovers {
            let answered = host.hear().await;
            assert!(answered.contains(said), "{answered}");
            continue;
        }
        let welcome = answer(&mut host).await;
        let version = &welcome["result"]["protocolVersion"];
        assert_eq!((&welcome["id"], version), (&json!(0), &json!("2025-06-18")));
        host.say(INITIALIZED).await;
        host.say(&old("c", "tools/call", &json!({ "name": "x" })))
            .await;
        let called = answer(&mut host).await;
        assert!(called["result"]["content"].is_array(), "{called}");
        let call = server.seen().pop().unwrap();
        assert_eq!(call.header("mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!(call.header("mcp-name"), Some("x"));
        assert_eq!(call.header("mcp-session-id"), None, "of the old era");
    }
}

/// TR-15: a new host before a server of 2025: it is asked once what it speaks, and then spoken to with sessions.
#[tokio::test]
async fn a_new_host_before_an_old_server() {
    let (lab, store) = lab(Wires::Legacy, Answers::Json).await;
    let mut host = Host::on(store, lab.resource_url(), Arc::new(Refuse), |_| {}).await;
    host.say(&new("d", "server/discover", &json!({}))).await;
    let discovered = answer(&mut host).await;
    assert_eq!(
        discovered["result"]["supportedVersions"][0], "2026-07-28",
        "{discovered}"
    );
    let call = json!({ "name": "echo", "arguments": { "text": "hi" } });
    for id in ["1", "2"] {
        host.say(&new(id, "tools/call", &call)).await;
        let called = answer(&mut host).await;
        assert_eq!(called["id"], id);
        assert_eq!(called["result"]["content"][0]["text"], "hi", "{called}");
    }
    // TR-31: a restart of the server is not seen.
    lab.with_mcp(|server| server.forget_sessions());
    host.say(&new("3", "tools/call", &call)).await;
    assert_eq!(
        answer(&mut host).await["result"]["content"][0]["text"],
        "hi"
    );
    lab.with_mcp(|server| assert_eq!(server.stats().initialize, 2));
}

/// TR-18: an old host before a server of both eras: the bytes pass.
#[tokio::test]
async fn an_old_host_before_a_server_of_both_eras() {
    let (lab, store) = lab(Wires::Both, Answers::Json).await;
    let mut host = Host::on(store, lab.resource_url(), Arc::new(Refuse), |_| {}).await;
    host.shake_hands().await;
    let call = json!({ "name": "echo", "arguments": { "text": "hi" } });
    host.say(&old("c", "tools/call", &call)).await;
    assert_eq!(
        answer(&mut host).await["result"]["content"][0]["text"],
        "hi"
    );
    lab.with_mcp(|server| {
        assert_eq!((server.stats().initialize, server.stats().discover), (1, 0));
    });
}

/// TR-35: what an old server tells a new host goes on where its stream broke off; what it asks on it is the request's.
#[tokio::test]
async fn an_old_servers_stream_goes_on_for_a_new_host() {
    let server = Script::start(|request, reply| async move {
        if request.method == "GET" && request.header("last-event-id").is_some() {
            let mut reply = reply.stream().await;
            reply
                .write("id: e2\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"c\",\"result\":{\"content\":[]}}\n\n")
                .await;
            return reply;
        }
        if request.method == "GET" {
            return reply.send("405 Method Not Allowed", "", "").await;
        }
        if request.is("server/discover") {
            return reply.send("400 Bad Request", "", "").await;
        }
        if !request.body.contains(r#""id""#) {
            return reply.accepted().await;
        }
        if request.is("initialize") {
            let id = request.id();
            let result = r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#;
            return reply.json(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)).await;
        }
        let mut reply = reply.stream().await;
        reply.write("retry: 30\nid: e1\ndata: \n\n").await;
        reply
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(&new("c", "tools/call", &json!({ "name": "x" })))
        .await;
    let called = answer(&mut host).await;
    assert_eq!(called["id"], "c", "{called}");
    assert!(called["result"]["content"].is_array(), "{called}");
    let seen = server.seen();
    let last: Vec<_> = seen
        .iter()
        .filter_map(|one| one.header("last-event-id"))
        .collect();
    assert_eq!(last, ["e1"]);
}

/// TR-16: a host that tries the new era first and falls back is followed.
#[tokio::test]
async fn a_host_that_falls_back_is_followed() {
    let (lab, store) = lab(Wires::Legacy, Answers::Json).await;
    let mut host = Host::on(store, lab.resource_url(), Arc::new(Refuse), |_| {}).await;
    host.say(&new("d", "server/discover", &json!({}))).await;
    answer(&mut host).await;
    host.say(INITIALIZE).await;
    let welcome = answer(&mut host).await;
    assert_eq!(
        welcome["result"]["protocolVersion"], "2025-06-18",
        "{welcome}"
    );
    host.say(INITIALIZED).await;
    host.say(&old("l", "tools/list", &json!({}))).await;
    assert_eq!(
        answer(&mut host).await["result"]["tools"][0]["name"],
        "echo"
    );
}

/// An old server that answers what it speaks only when it may, and with this status.
async fn slow_to_tell(status: &'static str) -> (watch::Sender<bool>, Script) {
    let (go, held) = watch::channel(false);
    let server = Script::start(move |request, reply| {
        let mut held = held.clone();
        async move {
            if request.is("server/discover") {
                let _ = held.wait_for(|go| *go).await;
                return reply.send(status, "", "").await;
            }
            if request.is("initialize") {
                return reply.json(&welcome("2025-06-18")).await;
            }
            if request.method == "GET" {
                return reply.send("405 Method Not Allowed", "", "").await;
            }
            if !request.body.contains(r#""id""#) {
                return reply.accepted().await;
            }
            let id = request.id();
            reply
                .json(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#))
                .await
        }
    })
    .await;
    (go, server)
}

/// TR-16: a host that falls back while the server is still being asked what it speaks is followed too, in the order of what
/// it said; nothing of that is lost.
#[tokio::test]
async fn a_host_that_falls_back_meanwhile_is_followed() {
    let (go, server) = slow_to_tell("400 Bad Request").await;
    let mut host = Host::start(&server.url).await;
    host.say(&new("d", "server/discover", &json!({}))).await;
    server.until(1, |one| one.is("server/discover")).await;
    host.say(INITIALIZE).await;
    host.say(INITIALIZED).await;
    host.say(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)
        .await;
    host.is_read().await;
    go.send_replace(true);
    let welcome = answer(&mut host).await;
    assert_eq!(welcome["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(answer(&mut host).await["id"], 1);
    host.say(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#)
        .await;
    assert_eq!(answer(&mut host).await["id"], 2);
    let seen = server.seen();
    let at = |body: &str| seen.iter().position(|one| one.body == body);
    assert!(at(INITIALIZE) < at(INITIALIZED), "in order");
    assert!(at(INITIALIZED).is_some());
}

/// TR-16: a host that falls back while the server is asked is followed also where the asking fails.
#[tokio::test]
async fn a_host_that_falls_back_from_a_server_in_trouble_is_followed() {
    let (go, server) = slow_to_tell("502 Bad Gateway").await;
    let mut host = Host::start(&server.url).await;
    host.say(&new("d", "server/discover", &json!({}))).await;
    server.until(1, |one| one.is("server/discover")).await;
    host.say(INITIALIZE).await;
    host.say(INITIALIZED).await;
    host.say(r#"{"id":1,"method":"tools/list"}"#).await;
    host.is_read().await;
    go.send_replace(true);
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(answer(&mut host).await);
    }
    let told = |id: Value| heard.iter().find(|one| one["id"] == id).unwrap();
    assert_eq!(
        told(json!("d"))["error"]["data"]["code"],
        "server.http_status"
    );
    assert_eq!(told(json!(0))["result"]["protocolVersion"], "2025-06-18");
    assert!(told(json!(1))["result"].is_object());
    assert_eq!(server.count(|one| one.is("server/discover")), 1);
}

/// TR-15: an answer that breaks off, and a server in trouble, say nothing of what it speaks: who waits is told, and the server is
/// asked again.
#[tokio::test]
async fn what_could_not_be_told_is_asked_again() {
    for breaks in [true, false] {
        let asked = Arc::new(AtomicUsize::new(0));
        let server = Script::start(move |request, mut reply| {
            let asked = asked.clone();
            async move {
                if !request.is("server/discover") {
                    let id = request.id();
                    return reply.json(&format!(r#"{{"id":{id},"result":{{}}}}"#)).await;
                }
                if asked.fetch_add(1, Ordering::SeqCst) > 0 {
                    return reply.json(DISCOVERED).await;
                }
                if !breaks {
                    return reply.send("502 Bad Gateway", "", "").await;
                }
                let head = "content-type: application/json\r\ncontent-length: 500\r\n";
                reply = reply.open(head).await;
                reply.write(&DISCOVERED[..40]).await;
                reply
            }
        })
        .await;
        let mut host = Host::start(&server.url).await;
        let call = json!({ "name": "x" });
        host.say(&new("1", "tools/call", &call)).await;
        let refused = answer(&mut host).await;
        assert!(refused["id"] == "1" && refused["error"].is_object());
        host.say(&new("2", "tools/call", &call)).await;
        let called = answer(&mut host).await;
        assert!(
            called["id"] == "2" && called["result"].is_object(),
            "{called}"
        );
        assert_eq!(server.count(|one| one.is("server/discover")), 2);
        assert_eq!(server.count(|one| one.is("initialize")), 0);
        let call = server.seen().pop().unwrap();
        assert_eq!(call.header("mcp-protocol-version"), Some("2026-07-28"));
    }
}

/// TR-33: for a new host too an old server gets the version that was agreed on, if it knows the header. TR-38: one of 2025-03-26
/// may answer in batches.
#[tokio::test]
async fn the_agreed_version_is_repeated_to_who_knows_the_header() {
    for (version, repeated) in [("2025-06-18", Some("2025-06-18")), ("2025-03-26", None)] {
        let server = Script::start(move |request, reply| async move {
            let batch = |text: &str| match version {
                "2025-03-26" => format!("[{text}]"),
                _ => text.to_owned(),
            };
            if request.is("server/discover") {
                let error = r#"{"jsonrpc":"2.0","id":"pilotlight-probe","error":{"code":-32601,"message":"x"}}"#;
                return reply.json(&batch(error)).await;
            }
            if !request.body.contains(r#""id""#) {
                return reply.accepted().await;
            }
            let id = request.id();
            let result = match request.is("initialize") {
                true => json!({ "protocolVersion": version, "capabilities": {},
                    "serverInfo": { "name": "s", "version": "1" } }),
                false => json!({ "content": [] }),
            };
            let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
            reply.json(&batch(&answer)).await
        })
        .await;
        let mut host = Host::start(&server.url).await;
        host.say(&new("1", "tools/call", &json!({ "name": "x" })))
            .await;
        let called = answer(&mut host).await;
        assert!(called["result"].is_object(), "{called}");
        let seen = server.seen();
        for method in ["notifications/initialized", "tools/call"] {
            let one = seen.iter().find(|one| one.is(method)).unwrap();
            assert_eq!(one.header("mcp-protocol-version"), repeated, "{method}");
        }
    }
}

/// TR-15, TR-50: a new host before a server of 2024-11-05 that answers a POST with 404, as most do: its stream is opened, and
/// what waited is answered.
#[tokio::test]
async fn a_new_host_before_a_server_that_knows_no_post() {
    let (to_stream, stream) = watch::channel(String::new());
    let server = Script::start(move |request, reply| {
        let (to_stream, mut stream) = (to_stream.clone(), stream.clone());
        async move {
            if request.method == "GET" {
                let mut reply = reply.stream().await;
                reply.write("event: endpoint\ndata: /messages\n\n").await;
                while stream.changed().await.is_ok() {
                    let data = stream.borrow_and_update().clone();
                    reply.event(&data).await;
                }
                return reply;
            }
            if request.path != "/messages" {
                return reply.send("404 Not Found", "", "Cannot POST /mcp").await;
            }
            let sent: Value = serde_json::from_str(&request.body).unwrap_or_default();
            let result = match request.is("initialize") {
                true => json!({ "protocolVersion": "2024-11-05", "capabilities": { "tools": {} },
                    "serverInfo": { "name": "s", "version": "1" } }),
                false => json!({ "content": [{ "type": "text", "text": "hi" }] }),
            };
            if !sent["id"].is_null() {
                let answer = json!({ "jsonrpc": "2.0", "id": sent["id"], "result": result });
                to_stream.send_replace(answer.to_string());
            }
            reply.accepted().await
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    for id in ["1", "2"] {
        host.say(&new(id, "tools/call", &json!({ "name": "echo" })))
            .await;
        let called = answer(&mut host).await;
        assert_eq!(called["id"], id, "{called}");
        assert_eq!(called["result"]["content"][0]["text"], "hi", "{called}");
    }
}

/// A new host before what is no server at all hears so, each time it asks.
#[tokio::test]
async fn a_new_host_before_no_server_is_told() {
    let server =
        Script::start(|_, reply| async { reply.send("404 Not Found", "", "").await }).await;
    let mut host = Host::start(&server.url).await;
    for id in ["1", "2"] {
        host.say(&new(id, "tools/call", &json!({ "name": "echo" })))
            .await;
        let refused = answer(&mut host).await;
        assert_eq!(refused["id"], id, "{refused}");
        assert!(
            refused.to_string().contains("server.no_transport"),
            "{refused}"
        );
    }
}

/// TR-11: on the stateless wire cancelling closes the stream, and no notification is sent.
#[tokio::test]
async fn cancelling_a_stateless_request_hangs_up() {
    let hung_up = Arc::new(tokio::sync::Notify::new());
    let told = hung_up.clone();
    let server = Script::start(move |request, reply| {
        let told = told.clone();
        async move {
            if request.is("server/discover") {
                return reply.json(DISCOVERED).await;
            }
            let mut reply = reply.stream().await;
            reply.hung_up().await;
            told.notify_one();
            reply
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.say(&new("c", "tools/call", &json!({ "name": "x" })))
        .await;
    server.until(1, |one| one.is("tools/call")).await;
    let call = server
        .seen()
        .into_iter()
        .find(|one| one.is("tools/call"))
        .unwrap();
    assert_eq!(call.header("mcp-method"), Some("tools/call"));
    assert_eq!(call.header("mcp-name"), Some("x"));
    assert_eq!(call.header("mcp-protocol-version"), Some("2026-07-28"));
    host.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c"}}"#)
        .await;
    tokio::time::timeout(crate::support::PATIENCE, hung_up.notified())
        .await
        .expect("in time");
    assert_eq!(server.count(|one| one.is("notifications/cancelled")), 0);
}

/// `--ignore-tool`: a hidden tool is in no list and cannot be called; what is left of the list stays as it is written.
#[tokio::test]
async fn hidden_tools_are_not_seen_nor_called() {
    const TOOLS: &str =
        r#"{"id":1,"result":{ "tools":[{"name":"keep","x":1.0} , {"name":"Drop_it"}],"z":0.10}}"#;
    let server = Script::start(|_, reply| async { reply.json(TOOLS).await }).await;
    let hide = |config: &mut pilotlight_relay::Config| config.ignored_tools = vec!["drop*".into()];
    let mut host = Host::with(&server.url, Arc::new(Refuse), hide).await;
    host.say(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)
        .await;
    assert_eq!(
        host.hear().await,
        r#"{"id":1,"result":{ "tools":[{"name":"keep","x":1.0}],"z":0.10}}"#
    );
    host.say(&old("2", "tools/call", &json!({ "name": "DROP_IT" })))
        .await;
    let refused = answer(&mut host).await;
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&json!("2"), &json!(-32603))
    );
    assert_eq!(server.seen().len(), 1);
}
