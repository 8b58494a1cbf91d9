//! Old hosts in front of new servers.

use super::*;

const CAN: &str = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}}"#;

fn discovered(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{CAN},"instructions":"\u0041","ttlMs":0,"cacheScope":"private","_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"s" ,"version":"2"}}}}}}}}"#
    )
}

fn initialize(version: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{"sampling":{{}},"elicitation":{{"form":{{}},"url":{{}}}}}},"clientInfo":{{"name":"h","version":"1.0"}}}}}}"#
    )
}

/// A machine that has shaken hands, and listens to nothing.
fn open() -> OldHost {
    let mut machine = OldHost::new(bridge(), Tools::default(), None);
    let out = machine.step(host(initialize("2025-06-18")));
    let ask = post(&out);
    let (ticket, id) = (ask.ticket, id_of(&ask.raw));
    machine.step(answer(ticket, discovered(&id)));
    machine
}

/// TR-04, TR-17, TR-18: the handshake is made of `server/discover`; the server gets no word of the old era.
#[test]
fn the_handshake_is_made_of_a_discovery() {
    for (asked, agreed) in [
        ("2025-06-18", "2025-06-18"),
        ("2024-11-05", "2024-11-05"),
        ("2031-01-01", "2025-11-25"),
    ] {
        let mut machine = OldHost::new(bridge(), Tools::default(), None);
        let out = machine.step(host(initialize(asked)));
        let ask = post(&out);
        assert_eq!(header(ask, "mcp-method"), Some("server/discover"));
        assert_eq!(header(ask, "mcp-protocol-version"), Some("2026-07-28"));
        let meta = &value(&ask.raw)["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "h");
        assert_eq!(
            meta["io.modelcontextprotocol/protocolVersion"],
            "2026-07-28"
        );
        assert!(told(&out).is_empty());
        let out = machine.step(answer(ask.ticket, discovered(&id_of(&ask.raw))));
        assert_eq!(
            told(&out),
            [format!(
                r#"{{"jsonrpc":"2.0","id":0,"result":{{"protocolVersion":"{agreed}","capabilities":{CAN},"serverInfo":{{"name":"s" ,"version":"2"}},"instructions":"\u0041"}}}}"#
            )]
        );
        let twice = machine.step(host(initialize(asked)));
        assert!(told(&twice)[0].contains("-32600") && posts(&twice).is_empty());
    }
}

/// TR-15: what a probe has brought answers at once; a modern server without discovery is taken as it is.
#[test]
fn a_known_server_is_not_asked_again() {
    let known = detect::Discovery::read(&Message::read(bytes(discovered("1"))).unwrap());
    let out = OldHost::new(bridge(), Tools::default(), known).step(host(initialize("2025-11-25")));
    assert!(posts(&out).is_empty() && told(&out)[0].contains("\"tools\""));
    let mut machine = OldHost::new(bridge(), Tools::default(), None);
    let ask = post(&machine.step(host(initialize("2025-11-25")))).ticket;
    let body = bytes(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"m"}}"#);
    let out = machine.step(Input::Refused {
        to: ask,
        status: 404,
        body,
    });
    assert!(
        told(&out)[0].contains(r#""capabilities":{},"serverInfo":{"name":"bridge""#),
        "{out:?}"
    );
}

/// TR-14, TR-15: a server of another era hands the host's message back; one without a common version is named.
#[test]
fn a_server_of_another_era_hands_the_message_back() {
    let refuse = |status, body: &str| {
        let mut machine = OldHost::new(bridge(), Tools::default(), None);
        let ask = post(&machine.step(host(initialize("2025-11-25")))).ticket;
        machine.step(Input::Refused {
            to: ask,
            status,
            body: bytes(body),
        })
    };
    let back = Output::Fail(Failure::ServerEra(vec![bytes(initialize("2025-11-25"))]));
    assert_eq!(refuse(400, ""), std::slice::from_ref(&back));
    assert_eq!(refuse(405, ""), std::slice::from_ref(&back));
    let versions =
        r#"{"id":1,"error":{"code":-32022,"message":"m","data":{"supported":["2031-01-01"]}}}"#;
    assert!(told(&refuse(400, versions))[0].contains("2031-01-01"));
    assert!(told(&refuse(503, ""))[0].contains("HTTP 503"));
    let mut machine = OldHost::new(bridge(), Tools::default(), None);
    let ask = post(&machine.step(host(initialize("2025-11-25")))).ticket;
    let old = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"m"}}"#;
    assert_eq!(machine.step(answer(ask, old)), [back]);
}

/// TR-03, TR-04: a request gets what the new era wants, in front of what it had; its answer loses only `resultType`.
#[test]
fn requests_are_dressed_and_answers_undressed() {
    let mut machine = open();
    let out = machine.step(host(r#"{"jsonrpc":"2.0","id":1e0,"method":"prompts/get","params":{ "name":"p","a":1.50,"_meta":{"progressToken":7}}}"#));
    let sent = post(&out);
    assert_eq!(
        sent.raw,
        r#"{"jsonrpc":"2.0","id":1e0,"method":"prompts/get","params":{ "name":"p","a":1.50,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"h","version":"1.0"},"io.modelcontextprotocol/clientCapabilities":{"sampling":{},"elicitation":{"form":{},"url":{}}},"progressToken":7}}}"#
    );
    assert_eq!(
        (header(sent, "mcp-method"), header(sent, "mcp-name")),
        (Some("prompts/get"), Some("p"))
    );
    let out = machine.step(answer(
        sent.ticket,
        r#"{"jsonrpc":"2.0","id":1e0,"result":{"resultType":"complete", "n":1.0,"n":2}}"#,
    ));
    assert_eq!(
        told(&out),
        [r#"{"jsonrpc":"2.0","id":1e0,"result":{ "n":1.0,"n":2}}"#]
    );
}

/// TR-17: `ping` is answered here, the log level kept for each `_meta`, and what the new era has not is not posted.
#[test]
fn removed_methods_never_reach_the_server() {
    let mut machine = open();
    let out = machine.step(host(r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#));
    assert_eq!(
        out,
        [Output::ToHost(bytes(
            r#"{"jsonrpc":"2.0","id":"p","result":{}}"#
        ))]
    );
    let set = |level: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":2,"method":"logging/setLevel","params":{{"level":{level}}}}}"#
        )
    };
    let out = machine.step(host(set("\"warning\"")));
    assert_eq!(
        out,
        [Output::ToHost(bytes(
            r#"{"jsonrpc":"2.0","id":2,"result":{}}"#
        ))]
    );
    assert!(told(&machine.step(host(set("\"loud\""))))[0].contains("-32602"));
    let out = machine.step(host(r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#));
    assert_eq!(
        value(&post(&out).raw)["params"]["_meta"]["io.modelcontextprotocol/logLevel"],
        "warning"
    );
    for left_out in ["notifications/roots/list_changed", "notifications/progress"] {
        let out = machine.step(host(format!(
            r#"{{"jsonrpc":"2.0","method":"{left_out}"}}"#
        )));
        assert_eq!(out, [Output::Note(Note::LeftOut(left_out.to_owned()))]);
    }
}

/// TR-13: the server's questions go to the host as requests; its answers and the state go back byte for byte, under a new
/// id; the host gets its answer under its own.
#[test]
fn questions_go_to_the_host_and_answers_go_back() {
    let mut machine = open();
    let call = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"t","arguments":{"x":1.0}}}"#;
    let sent = post(&machine.step(host(call))).ticket;
    let asks = r#"{"jsonrpc":"2.0","id":5,"result":{"resultType":"input_required","inputRequests":{
        "k\u0061":{"method":"elicitation/create","params":{"mode":"url","url":"https://x","n":1.0}},
        "b":{"method":"sampling/createMessage","params":{"z":[1.50]}}},"requestState":"s\u0041\/"}}"#;
    let out = machine.step(answer(sent, asks));
    let asked = told(&out);
    assert!(posts(&out).is_empty());
    assert_eq!(asked.len(), 2);
    let own: Vec<_> = asked.iter().map(|raw| id_of(&bytes(raw))).collect();
    assert_eq!(
        asked[0],
        format!(
            r#"{{"jsonrpc":"2.0","id":{0},"method":"elicitation/create","params":{{"elicitationId":{0},"mode":"url","url":"https://x","n":1.0}}}}"#,
            own[0]
        )
    );
    assert_eq!(
        asked[1],
        format!(
            r#"{{"jsonrpc":"2.0","id":{},"method":"sampling/createMessage","params":{{"z":[1.50]}}}}"#,
            own[1]
        )
    );
    assert_eq!(
        machine.step(host(format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{{"model":"m" ,"t":0.10}}}}"#,
            own[1]
        ))),
        []
    );
    let out = machine.step(host(format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{{"action":"accept"}}}}"#,
        own[0]
    )));
    let again = post(&out);
    assert!(text(&again.raw).contains(r#""inputResponses":{"k\u0061":{"action":"accept"},"b":{"model":"m" ,"t":0.10}},"requestState":"s\u0041\/""#));
    assert!(text(&again.raw).contains(r#""name":"t","arguments":{"x":1.0}"#));
    assert_ne!(id_of(&again.raw), "5");
    assert_eq!(header(again, "mcp-name"), Some("t"));
    let done = format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete","content":[]}}}}"#,
        id_of(&again.raw)
    );
    assert_eq!(
        told(&machine.step(answer(again.ticket, done))),
        [r#"{"jsonrpc":"2.0","id":5,"result":{"content":[]}}"#]
    );
}

/// TR-13: a state alone is sent back after a pause that grows, without answers; no state is never invented; no endless
/// rounds.
#[test]
fn a_state_alone_is_sent_back_and_rounds_end() {
    let mut machine = open();
    let call = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"t"}}"#;
    let mut out = machine.step(host(call));
    let mut rounds = 0;
    let mut pause = Duration::ZERO;
    while let [sent] = posts(&out)[..] {
        assert!(rounds == 0 || sent.after > pause);
        assert!(!text(&sent.raw).contains("inputResponses"));
        pause = sent.after;
        rounds += 1;
        let state = format!(
            r#"{{"id":1,"result":{{"resultType":"input_required","requestState":"{rounds}"}}}}"#
        );
        out = machine.step(answer(sent.ticket, state));
        if let [next] = posts(&out)[..] {
            assert_eq!(
                value(&next.raw)["params"]["requestState"],
                rounds.to_string()
            );
        }
    }
    assert_eq!(rounds, 11);
    assert!(told(&out)[0].contains("without end"));
    let sent = post(&machine.step(host(call))).ticket;
    let out = machine.step(answer(sent, r#"{"id":1,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"sampling/createMessage"}}}}"#));
    let out = machine.step(host(format!(
        r#"{{"id":{},"result":{{}}}}"#,
        id_of(&bytes(&told(&out)[0]))
    )));
    assert!(!text(&post(&out).raw).contains("requestState"));
}

/// TR-13: what the host cannot do is not asked of it; what it refuses ends the request with its own words.
#[test]
fn a_host_is_asked_only_for_what_it_can_do() {
    let mut machine = open();
    let call = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"t"}}"#;
    for question in [
        r#"{"method":"roots/list"}"#,
        r#"{"method":"tools/call"}"#,
        "7",
        r#"{"method":"sampling/createMessage","method":1}"#,
    ] {
        let sent = post(&machine.step(host(call))).ticket;
        let asks = format!(
            r#"{{"id":5,"result":{{"resultType":"input_required","inputRequests":{{"a":{{"method":"sampling/createMessage"}},"b":{question}}}}}}}"#
        );
        let out = machine.step(answer(sent, asks));
        assert_eq!(told(&out).len(), 1, "{question} {out:?}");
        assert!(told(&out)[0].starts_with(r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32000"#));
    }
    let sent = post(&machine.step(host(call))).ticket;
    let asks = r#"{"id":5,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"sampling/createMessage"},"b":{"method":"sampling/createMessage"}}}}"#;
    let asked = told(&machine.step(answer(sent, asks)));
    let out = machine.step(host(format!(
        r#"{{"id":{},"error":{{"code":-1, "message":"no"}}}}"#,
        id_of(&bytes(&asked[0]))
    )));
    assert_eq!(
        told(&out),
        [
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{}}}}}"#,
                id_of(&bytes(&asked[1]))
            ),
            r#"{"jsonrpc":"2.0","id":5,"error":{"code":-1, "message":"no"}}"#.to_owned()
        ]
    );
}

/// TR-11: a host that cancels closes the stream, or takes back the questions that wait for its answer.
#[test]
fn cancelling_closes_the_stream_or_takes_questions_back() {
    let mut machine = open();
    let call = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"t"}}"#;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#;
    let sent = post(&machine.step(host(call))).ticket;
    assert_eq!(machine.step(host(cancel)), [Output::CloseStream(sent)]);
    let sent = post(&machine.step(host(call))).ticket;
    let asks = r#"{"id":5,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"sampling/createMessage"}}}}"#;
    let asked = told(&machine.step(answer(sent, asks)));
    let own = id_of(&bytes(&asked[0]));
    assert_eq!(
        told(&machine.step(host(cancel))),
        [format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{own}}}}}"#
        )]
    );
    assert_eq!(
        machine.step(host(format!(r#"{{"id":{own},"result":{{}}}}"#))),
        [],
        "too late"
    );
}

/// TR-12: a subscription is opened for what the server tells of; each watched resource opens a new one before the old one
/// ends; what comes on it reaches the host without its mark.
#[test]
fn changes_come_on_one_subscription_at_a_time() {
    let mut machine = open();
    let out = machine.step(host(
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
    ));
    let first = post(&out).clone();
    assert_eq!(header(&first, "mcp-method"), Some("subscriptions/listen"));
    assert_eq!(
        value(&first.raw)["params"]["notifications"],
        serde_json::json!({"toolsListChanged": true})
    );
    let acknowledged = |uris: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":1}},"notifications":{{"resourceSubscriptions":[{uris}]}}}}}}"#
        )
    };
    assert_eq!(machine.step(answer(first.ticket, acknowledged(""))), []);
    let subscribe = |id: u8, uri: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/subscribe","params":{{"uri":"{uri}"}}}}"#
        )
    };
    let out = machine.step(host(subscribe(8, "u:1")));
    let second = post(&out).clone();
    assert!(told(&out).is_empty(), "not yet");
    assert_eq!(
        value(&second.raw)["params"]["notifications"]["resourceSubscriptions"],
        serde_json::json!(["u:1"])
    );
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1,"x":1.0}}}"#;
    let plain = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"x":1.0}}}"#;
    assert_eq!(
        told(&machine.step(answer(first.ticket, changed))),
        [plain],
        "the old one still tells"
    );
    let out = machine.step(answer(second.ticket, acknowledged("\"u\\u003a1\"")));
    assert!(out.contains(&Output::CloseStream(first.ticket)));
    assert_eq!(told(&out), [r#"{"jsonrpc":"2.0","id":8,"result":{}}"#]);
    assert_eq!(
        machine.step(answer(first.ticket, changed)),
        [],
        "and now no more"
    );
    // Not granted: an error, and nothing is watched.
    let third = post(&machine.step(host(subscribe(9, "u:2")))).ticket;
    let out = machine.step(answer(third, acknowledged("\"u:1\"")));
    assert!(told(&out)[0].contains(r#""id":9,"error""#), "{out:?}");
    // It ends: it is opened again, later each time.
    let out = machine.step(Input::Ended { to: third });
    assert_eq!(
        value(&post(&out).raw)["params"]["notifications"]["resourceSubscriptions"],
        serde_json::json!(["u:1"])
    );
    let pause = post(&out).after;
    assert!(pause >= Duration::from_secs(1));
    let out = machine.step(Input::Refused {
        to: post(&out).ticket,
        status: 503,
        body: bytes(""),
    });
    assert!(post(&out).after > pause);
    let unsubscribe = machine.step(host(
        subscribe(10, "u:1").replace("subscribe", "unsubscribe"),
    ));
    assert!(told(&unsubscribe)[0].contains(r#""id":10,"result":{}"#));
    let next = posts(&unsubscribe)[0];
    assert!(
        value(&next.raw)["params"]["notifications"]
            .get("resourceSubscriptions")
            .is_none()
    );
    // A server that has none is not asked again.
    let out = machine.step(Input::Refused {
        to: next.ticket,
        status: 404,
        body: bytes(""),
    });
    assert!(posts(&out).is_empty());
    assert!(told(&machine.step(host(subscribe(11, "u:3"))))[0].contains("-32601"));
}

/// TR-12: who takes a resource back before the server has agreed is answered all the same.
#[test]
fn a_subscription_taken_back_early_is_answered() {
    let known = detect::Discovery {
        versions: vec![NEW.to_owned()],
        capabilities: Some(bytes(r#"{"resources":{"subscribe":true}}"#)),
        ..Default::default()
    };
    let mut machine = OldHost::new(bridge(), Tools::default(), Some(known));
    machine.step(host(initialize("2025-11-25")));
    let opened = post(&machine.step(host(
        r#"{"id":1,"method":"resources/subscribe","params":{"uri":"u"}}"#,
    )))
    .ticket;
    let out = machine.step(host(
        r#"{"id":2,"method":"resources/unsubscribe","params":{"uri":"u"}}"#,
    ));
    assert_eq!(
        told(&out),
        [
            r#"{"jsonrpc":"2.0","id":2,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#
        ]
    );
    assert!(out.contains(&Output::CloseStream(opened)));
}

/// TR-16: a host that turns out to be new is handed on.
#[test]
fn a_new_host_is_handed_on() {
    let mut machine = open();
    let probe = r#"{"id":1,"method":"server/discover"}"#;
    assert_eq!(
        machine.step(host(probe)),
        [Output::Fail(Failure::HostEra(bytes(probe)))]
    );
}
