//! New hosts in front of old servers.

use super::*;

const CAN: &str = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}}"#;

fn request(id: &str, method: &str, params: &str) -> String {
    with(
        id,
        method,
        params,
        r#"{"sampling":{},"elicitation":{"form":{},"url":{}}}"#,
        "",
    )
}

fn with(id: &str, method: &str, params: &str, capabilities: &str, meta: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{{"name":"h"}},"io.modelcontextprotocol/clientCapabilities":{capabilities}{meta}}}}}}}"#
    )
}

fn initialized(id: &str, version: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"{version}","capabilities":{CAN},"serverInfo":{{"name":"s" }},"instructions":"\u0041"}}}}"#
    )
}

/// A machine that has shaken hands.
fn open() -> NewHost {
    let mut machine = NewHost::new(bridge(), Tools::default());
    let out = machine.step(host(request("0", "server/discover", "")));
    let (ticket, id) = (post(&out).ticket, id_of(&post(&out).raw));
    machine.step(answer(ticket, initialized(&id, "2025-11-25")));
    machine
}

/// TR-16, TR-33: the first request makes the handshake, in the host's name; what waits for it goes after it.
#[test]
fn the_first_request_makes_the_handshake() {
    let mut machine = NewHost::new(bridge(), Tools::default());
    let out = machine.step(host(request("0", "tools/list", r#""cursor":"\u0031","#)));
    let first = post(&out).clone();
    assert!(first.headers.is_empty());
    assert_eq!(
        text(&first.raw).split_once("\"params\":").unwrap().1,
        r#"{"protocolVersion":"2025-11-25","capabilities":{"sampling":{},"elicitation":{"form":{},"url":{}}},"clientInfo":{"name":"h"}}}"#
    );
    assert!(
        machine
            .step(host(request("1", "server/discover", "")))
            .is_empty()
    );
    let out = machine.step(answer(
        first.ticket,
        initialized(&id_of(&first.raw), "2025-06-18"),
    ));
    let [ready, list] = posts(&out)[..] else {
        panic!("{out:?}")
    };
    assert_eq!(
        ready.raw,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#
    );
    assert!(!ready.answered && ready.headers.is_empty());
    assert_eq!(
        list.raw,
        r#"{"jsonrpc":"2.0","id":0,"method":"tools/list","params":{"cursor":"\u0031"}}"#
    );
    assert_eq!(
        told(&out),
        [format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{CAN},"instructions":"\u0041","ttlMs":0,"cacheScope":"private","_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"s" }}}}}}}}"#
        )]
    );
    let out = machine.step(answer(
        list.ticket,
        r#"{"jsonrpc":"2.0","id":0.0,"result":{"tools":[{"x":1.0}]}}"#,
    ));
    assert_eq!(
        told(&out),
        [
            r#"{"jsonrpc":"2.0","id":0,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":[{"x":1.0}]}}"#
        ]
    );
}

/// TR-15: a handshake that fails is told to all who wait, or hands their messages back; the next request tries again.
#[test]
fn a_handshake_that_fails_is_told_to_all_who_wait() {
    let begin = || {
        let mut machine = NewHost::new(bridge(), Tools::default());
        let first = post(&machine.step(host(request("0", "tools/list", "")))).clone();
        machine.step(host(request("1", "server/discover", "")));
        (machine, first)
    };
    let (mut machine, first) = begin();
    let out = machine.step(answer(
        first.ticket,
        r#"{"id":1,"error":{"code":-32000, "message":"m"}}"#,
    ));
    assert_eq!(told(&out).len(), 2);
    assert!(told(&out)[1].contains(r#""id":1,"error":{"code":-32000, "message":"m"}"#));
    assert!(
        text(&post(&machine.step(host(request("2", "tools/list", "")))).raw).contains("initialize")
    );
    let (mut machine, first) = begin();
    let out = machine.step(answer(first.ticket, initialized("1", "1999-01-01")));
    assert_eq!(told(&out).len(), 2);
    let (mut machine, first) = begin();
    let out = machine.step(Input::Refused {
        to: first.ticket,
        status: 405,
        body: bytes(""),
    });
    let back = vec![
        bytes(request("0", "tools/list", "")),
        bytes(request("1", "server/discover", "")),
    ];
    assert_eq!(out, [Output::Fail(Failure::ServerEra(back))]);
    let (mut machine, first) = begin();
    assert_eq!(
        told(&machine.step(Input::Refused {
            to: first.ticket,
            status: 503,
            body: bytes("")
        }))
        .len(),
        2
    );
    let (mut machine, first) = begin();
    assert_eq!(
        told(&machine.step(Input::Ended { to: first.ticket })).len(),
        2
    );
}

/// TR-04, TR-14, TR-17: a request that is none of the new era is refused here.
#[test]
fn requests_of_no_era_are_refused() {
    let mut machine = open();
    let refused = |machine: &mut NewHost, raw: String| {
        let out = machine.step(host(raw));
        assert!(posts(&out).is_empty());
        value(&bytes(&told(&out)[0]))["error"].clone()
    };
    let bare = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned();
    assert_eq!(refused(&mut machine, bare)["code"], -32602);
    let other = request("1", "tools/list", "").replace("2026-07-28", "2031-01-01");
    let error = refused(&mut machine, other);
    assert_eq!(error["code"], -32022);
    assert_eq!(
        error["data"],
        serde_json::json!({"code": "bridge.bad_request", "supported": ["2026-07-28"], "requested": "2031-01-01"})
    );
    assert_eq!(
        refused(&mut machine, with("1", "tools/list", "", "7", ""))["code"],
        -32602
    );
    for method in [
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
    ] {
        assert_eq!(
            refused(&mut machine, request("1", method, ""))["code"],
            -32601
        );
    }
    let old = r#"{"id":1,"method":"initialize"}"#;
    assert_eq!(
        machine.step(host(old)),
        [Output::Fail(Failure::HostEra(bytes(old)))]
    );
}

/// TR-13: the server's question ends the request; the host's next one carries the answer back, and waits for the same call.
#[test]
fn a_question_ends_the_request_and_its_answer_goes_on() {
    let mut machine = open();
    let call = |id: &str, more: &str| {
        with(
            id,
            "tools/call",
            &format!(r#""name":"t",{more}"#),
            r#"{"elicitation":{}}"#,
            &format!(r#","progressToken":"p{id}""#),
        )
    };
    let sent = post(&machine.step(host(call("7", "")))).clone();
    let question = r#"{"jsonrpc":"2.0","id":3.0,"method":"elicitation/create","params":{ "message":"\u0041","n":1.0}}"#;
    let out = machine.step(answer(sent.ticket, question));
    let asked = value(&bytes(&told(&out)[0]));
    assert_eq!(
        (&asked["id"], &asked["result"]["resultType"]),
        (&Value::from(7), &Value::from("input_required"))
    );
    assert!(
        told(&out)[0]
            .contains(r#"{"method":"elicitation/create","params":{ "message":"\u0041","n":1.0}}"#)
    );
    let key = asked["result"]["inputRequests"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap()
        .clone();
    let state = asked["result"]["requestState"].as_str().unwrap().to_owned();
    // Nobody waits now: progress has nowhere to go.
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p7","progress":1.0}}"#;
    assert_eq!(machine.step(answer(sent.ticket, progress)), []);
    // Another tool may not use it, nor a state that nobody gave.
    let other = call("8", &format!(r#""requestState":"{state}","#)).replace("\"t\"", "\"u\"");
    assert!(told(&machine.step(host(other)))[0].contains("-32602"));
    assert!(told(&machine.step(host(call("8", r#""requestState":"x","#))))[0].contains("-32602"));
    // Without the answer, it is asked again.
    let out = machine.step(host(call("8", &format!(r#""requestState":"{state}","#))));
    assert!(posts(&out).is_empty() && told(&out)[0].contains(&key));
    let answers =
        format!(r#""inputResponses":{{"{key}":{{"action" :"accept"}}}},"requestState":"{state}","#);
    let out = machine.step(host(call("9", &answers)));
    assert_eq!(
        post(&out).raw,
        r#"{"jsonrpc":"2.0","id":3.0,"result":{"action" :"accept"}}"#
    );
    assert!(!post(&out).answered && told(&out).is_empty());
    assert_eq!(
        told(&machine.step(answer(sent.ticket, progress))),
        [progress.replace("p7", "p9")]
    );
    let done = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[1.0]}}"#;
    assert_eq!(
        told(&machine.step(answer(sent.ticket, done))),
        [r#"{"jsonrpc":"2.0","id":9,"result":{"resultType":"complete","content":[1.0]}}"#]
    );
}

/// TR-13: an answer that comes while the host thinks is kept for it; its id may serve another request meanwhile.
#[test]
fn an_answer_that_comes_early_is_kept() {
    let mut machine = open();
    let call = |id: &str, more: &str| request(id, "tools/call", &format!(r#""name":"t",{more}"#));
    let sent = post(&machine.step(host(call("7", "")))).ticket;
    let out = machine.step(Input::Server(bytes(
        r#"{"id":1,"method":"sampling/createMessage","params":{}}"#,
    )));
    let state = value(&bytes(&told(&out)[0]))["result"]["requestState"]
        .as_str()
        .unwrap()
        .to_owned();
    let second = machine.step(host(call("7", "")));
    assert_ne!(id_of(&post(&second).raw), "7", "the server still has a 7");
    assert_eq!(
        machine.step(answer(sent, r#"{"id":7,"result":{"a":1}}"#)),
        []
    );
    let out = machine.step(host(call(
        "8",
        &format!(r#""requestState":"{state}","inputResponses":{{}},"#),
    )));
    assert_eq!(
        told(&out),
        [r#"{"id":8,"result":{"resultType":"complete","a":1}}"#]
    );
    let done = format!(
        r#"{{"id":{},"result":{{"b":1}}}}"#,
        id_of(&post(&second).raw)
    );
    assert_eq!(
        told(&machine.step(answer(post(&second).ticket, done))),
        [r#"{"id":7,"result":{"resultType":"complete","b":1}}"#]
    );
}

/// TR-13: what no request can carry is refused to the server; its ping is answered.
#[test]
fn a_question_that_nobody_can_carry_is_refused() {
    let mut machine = open();
    let out = machine.step(Input::Server(bytes(r#"{"id":"x","method":"ping"}"#)));
    assert_eq!(post(&out).raw, r#"{"jsonrpc":"2.0","id":"x","result":{}}"#);
    let list = post(&machine.step(host(request("1", "tools/list", "")))).ticket;
    let plain =
        post(&machine.step(host(with("2", "tools/call", r#""name":"t","#, "{}", "")))).ticket;
    for input in [
        Input::Server(bytes(r#"{"id":"x","method":"roots/list"}"#)),
        answer(list, r#"{"id":"x","method":"sampling/createMessage"}"#),
        answer(plain, r#"{"id":"x","method":"sampling/createMessage"}"#),
    ] {
        let out = machine.step(input);
        assert!(told(&out).is_empty());
        assert!(
            text(&post(&out).raw)
                .starts_with(r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32601"#),
            "{out:?}"
        );
    }
}

/// TR-13, T-14: hosts that never come back leave no more than a bound; the server is told.
#[test]
fn hosts_that_never_come_back_leave_a_bound() {
    let mut machine = open();
    let mut given_up = 0;
    for id in 0..200 {
        let sent = post(&machine.step(host(request(
            &id.to_string(),
            "tools/call",
            r#""name":"t","#,
        ))))
        .ticket;
        let out = machine.step(answer(
            sent,
            format!(r#"{{"id":{id},"method":"sampling/createMessage"}}"#),
        ));
        given_up += posts(&out).len() / 2;
        if let [refusal, cancel] = posts(&out)[..] {
            assert!(text(&refusal.raw).contains("\"error\""));
            assert!(text(&cancel.raw).contains("notifications/cancelled"));
        }
    }
    assert_eq!(given_up, 200 - 64);
}

/// TR-13: an error that asks to visit URLs becomes a question; when they have been visited the call is made anew.
#[test]
fn an_error_that_names_urls_becomes_a_question() {
    let mut machine = open();
    let call = |id: &str, more: &str| request(id, "tools/call", &format!(r#""name":"t",{more}"#));
    let refusal = r#"{"code":-32042,"message":"m","data":{"elicitations":[{"mode":"url","elicitationId":"e","url":"https://x","message":"\u0041"}]}}"#;
    let ask = |machine: &mut NewHost| {
        let sent = post(&machine.step(host(call("7", "")))).ticket;
        let out = machine.step(answer(
            sent,
            format!(r#"{{"jsonrpc":"2.0","id":7,"error":{refusal}}}"#),
        ));
        let asked = value(&bytes(&told(&out)[0]))["result"].clone();
        let key = asked["inputRequests"]
            .as_object()
            .unwrap()
            .keys()
            .next()
            .unwrap()
            .clone();
        assert_eq!(asked["inputRequests"][&key]["params"]["url"], "https://x");
        (key, asked["requestState"].as_str().unwrap().to_owned())
    };
    let back = |machine: &mut NewHost, action: &str| {
        let (key, state) = ask(machine);
        let more = format!(
            r#""inputResponses":{{"{key}":{{"action":"{action}"}}}},"requestState":"{state}","#
        );
        machine.step(host(call("8", &more)))
    };
    let out = back(&mut machine, "accept");
    assert_eq!(
        post(&out).raw,
        r#"{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"t"}}"#
    );
    assert_eq!(
        told(&back(&mut machine, "decline")),
        [format!(r#"{{"jsonrpc":"2.0","id":8,"error":{refusal}}}"#)]
    );
    let sent =
        post(&machine.step(host(with("9", "tools/call", r#""name":"t","#, "{}", "")))).ticket;
    let out = machine.step(answer(
        sent,
        format!(r#"{{"jsonrpc":"2.0","id":9,"error":{refusal}}}"#),
    ));
    assert_eq!(
        told(&out),
        [format!(r#"{{"jsonrpc":"2.0","id":9,"error":{refusal}}}"#)],
        "it cannot"
    );
}

/// TR-37: a cancelled request is told to the server, by the id it knows, and no stream is closed.
#[test]
fn cancelling_is_told_to_the_server() {
    let mut machine = open();
    let sent = post(&machine.step(host(request("7", "tools/call", r#""name":"t","#)))).clone();
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"reason":"\u0041"}}"#;
    let out = machine.step(host(cancel));
    assert_eq!(post(&out).raw, cancel);
    assert_eq!(out.len(), 1);
    assert_eq!(
        machine.step(answer(sent.ticket, r#"{"id":7,"result":{}}"#)),
        []
    );
}

/// TR-12: a subscription is made of what the server tells by itself and of the resources it agrees to watch.
#[test]
fn a_subscription_is_made_of_what_the_server_can() {
    let mut machine = open();
    let filter = r#""notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["u:1","u:2"]},"#;
    let out = machine.step(host(request("\"l\"", "subscriptions/listen", filter)));
    let [one, two] = posts(&out)[..] else {
        panic!("{out:?}")
    };
    assert!(text(&one.raw).contains(r#""method":"resources/subscribe","params":{"uri":"u:1"}"#));
    assert!(told(&out).is_empty(), "not before the server has answered");
    assert_eq!(
        machine.step(answer(
            one.ticket,
            format!(r#"{{"id":{},"result":{{}}}}"#, id_of(&one.raw))
        )),
        []
    );
    let out = machine.step(answer(
        two.ticket,
        format!(r#"{{"id":{},"error":{{"code":-1}}}}"#, id_of(&two.raw)),
    ));
    assert_eq!(
        told(&out),
        [
            r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"l"},"notifications":{"toolsListChanged":true,"resourceSubscriptions":["u:1"]}}}"#
        ]
    );
    let out = machine.step(Input::Server(bytes(
        r#"{"method":"notifications/tools/list_changed"}"#,
    )));
    assert_eq!(
        told(&out),
        [
            r#"{"params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"l"}},"method":"notifications/tools/list_changed"}"#
        ]
    );
    assert_eq!(
        machine.step(Input::Server(bytes(
            r#"{"method":"notifications/prompts/list_changed"}"#
        ))),
        []
    );
    let updated = |uri: &str| {
        Input::Server(bytes(format!(
            r#"{{"method":"notifications/resources/updated","params":{{"uri":"{uri}"}}}}"#
        )))
    };
    assert_eq!(told(&machine.step(updated("u:1"))).len(), 1);
    assert_eq!(told(&machine.step(updated("u:1/part"))).len(), 1);
    assert_eq!(told(&machine.step(updated("v"))).len(), 0);
    // A second one for the same resource needs no word to the server; it stops watching when the last one ends.
    let out = machine.step(host(request(
        "2",
        "subscriptions/listen",
        r#""notifications":{"resourceSubscriptions":["u:1"]},"#,
    )));
    assert!(posts(&out).is_empty() && told(&out).len() == 1);
    assert_eq!(told(&machine.step(updated("u:1"))).len(), 2);
    let cancel = |id: &str| {
        host(format!(
            r#"{{"method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
        ))
    };
    assert_eq!(machine.step(cancel("\"l\"")), []);
    assert!(
        text(&post(&machine.step(cancel("2"))).raw)
            .contains(r#""resources/unsubscribe","params":{"uri":"u:1"}"#)
    );
}

/// TR-17: a request that wants log messages has the server send them, and only such requests get them.
#[test]
fn log_messages_go_to_who_wants_them() {
    let mut machine = open();
    let call = |id: &str, level: &str| {
        with(
            id,
            "tools/call",
            r#""name":"t","#,
            "{}",
            &format!(r#","io.modelcontextprotocol/logLevel":"{level}""#),
        )
    };
    let out = machine.step(host(call("1", "warning")));
    let [level, warned] = posts(&out)[..] else {
        panic!("{out:?}")
    };
    assert!(
        text(&level.raw).contains(r#""method":"logging/setLevel","params":{"level":"warning"}"#)
    );
    let plain = post(&machine.step(host(request("2", "tools/call", r#""name":"t","#)))).ticket;
    let log = |level: &str| {
        format!(r#"{{"method":"notifications/message","params":{{"level":"{level}","data":1.0}}}}"#)
    };
    assert_eq!(
        told(&machine.step(answer(warned.ticket, log("error")))),
        [log("error")]
    );
    assert_eq!(machine.step(answer(warned.ticket, log("info"))), []);
    assert_eq!(machine.step(answer(plain, log("error"))), []);
    assert_eq!(
        told(&machine.step(Input::Server(bytes(log("error"))))),
        [log("error")]
    );
    assert_eq!(
        posts(&machine.step(host(call("3", "error")))).len(),
        1,
        "it sends them already"
    );
    assert_eq!(posts(&machine.step(host(call("4", "debug")))).len(), 2);
}

/// TR-08, TR-13: errors and lists of the old era become those of the new: no such resource has another code, ignored tools
/// are hidden, marked ones are not: no header was asked for.
#[test]
fn answers_speak_the_new_era() {
    let mut machine = NewHost::new(bridge(), Tools::new(&["d*".to_owned()]));
    let out = machine.step(host(request("0", "tools/list", "")));
    let out = machine.step(answer(
        post(&out).ticket,
        initialized(&id_of(&post(&out).raw), "2024-11-05"),
    ));
    let list = posts(&out)[1];
    assert!(list.headers.is_empty(), "2024-11-05 knows no header");
    let marked = r#"{"name":"m","inputSchema":{"x-mcp-header":"B"}}"#;
    let out = machine.step(answer(
        list.ticket,
        format!(r#"{{"id":0,"result":{{"tools":[{{"name":"D"}},{marked}]}}}}"#),
    ));
    assert!(told(&out)[0].contains(&format!(r#""tools":[{marked}]"#)));
    assert!(
        told(&machine.step(host(request("1", "tools/call", r#""name":"d","#))))[0]
            .contains("-32603")
    );
    let sent = post(&machine.step(host(request("2", "resources/read", r#""uri":"u","#)))).ticket;
    let out = machine.step(answer(
        sent,
        r#"{"id":2,"error":{"code":-32002,"message":"m","data":{"uri":"u"}}}"#,
    ));
    assert_eq!(
        told(&out),
        [r#"{"id":2,"error":{"code":-32602,"message":"m","data":{"uri":"u"}}}"#]
    );
    let sent = post(&machine.step(host(request("3", "tools/call", r#""name":"t","#)))).ticket;
    let out = machine.step(answer(
        sent,
        r#"{"id":3,"error":{"code":-32002,"message":"m"}}"#,
    ));
    assert!(
        told(&out)[0].contains("-32002"),
        "there it is the server's own"
    );
}

/// TR-13: a question that the server takes back is not asked again, and an answer to it goes nowhere.
#[test]
fn a_question_that_is_taken_back_is_not_answered() {
    let mut machine = open();
    let call = |id: &str, more: &str| request(id, "tools/call", &format!(r#""name":"t",{more}"#));
    let sent = post(&machine.step(host(call("7", "")))).ticket;
    let question = r#"{"id":3,"method":"sampling/createMessage","params":{}}"#;
    let out = machine.step(answer(sent, question));
    let asked = value(&bytes(&told(&out)[0]))["result"].clone();
    let key = asked["inputRequests"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap()
        .clone();
    let state = asked["requestState"].as_str().unwrap().to_owned();
    let taken_back = r#"{"method":"notifications/cancelled","params":{"requestId":3.0}}"#;
    assert_eq!(machine.step(answer(sent, taken_back)), []);
    let more = format!(r#""inputResponses":{{"{key}":{{}}}},"requestState":"{state}","#);
    assert_eq!(machine.step(host(call("8", &more))), []);
    assert_eq!(
        told(&machine.step(answer(sent, r#"{"id":7,"result":{}}"#))),
        [r#"{"id":8,"result":{"resultType":"complete"}}"#]
    );
}
