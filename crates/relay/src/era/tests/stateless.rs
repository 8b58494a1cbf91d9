//! New hosts in front of new servers.

use super::*;

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn call(id: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t","arguments":{arguments},{META}}}}}"#
    )
}

/// TR-01, TR-05, TR-10: a message passes as it is, with its headers, and so does its answer; both kinds of answers.
#[test]
fn messages_pass_with_their_headers() {
    let mut machine = Stateless::new(Tools::default());
    let raw = call("1.0", r#"{"r":"x","n":1e2}"#);
    let out = machine.step(host(&raw));
    let sent = post(&out);
    assert_eq!(sent.raw, raw);
    assert_eq!(
        (header(sent, "mcp-method"), header(sent, "mcp-name")),
        (Some("tools/call"), Some("t"))
    );
    assert_eq!(header(sent, "mcp-protocol-version"), Some("2026-07-28"));
    let progress = r#"{"method":"notifications/progress","params":{"progressToken":1}}"#;
    assert_eq!(
        told(&machine.step(answer(sent.ticket, progress))),
        [progress]
    );
    let asks = r#"{"id":1.0,"result":{"resultType":"input_required","requestState":"\u0041","inputRequests":{}}}"#;
    assert_eq!(
        told(&machine.step(answer(sent.ticket, asks))),
        [asks],
        "a new host answers that itself"
    );
    assert_eq!(machine.step(Input::Ended { to: sent.ticket }), []);
}

/// TR-16: an id that the server has written anew goes to the host as the host wrote it; also on an error in a status.
#[test]
fn answers_bear_the_hosts_own_id() {
    let mut machine = Stateless::new(Tools::default());
    let sent = post(&machine.step(host(call("1.0", "{}")))).ticket;
    assert_eq!(
        told(&machine.step(answer(sent, r#"{"id":1,"result":{"z": 1}}"#))),
        [r#"{"id":1.0,"result":{"z": 1}}"#]
    );
    let sent = post(&machine.step(host(call("\"a\"", "{}")))).ticket;
    let body = bytes(r#"{"jsonrpc":"2.0","error":{"code":-32602,"message":"m"}}"#);
    let out = machine.step(Input::Refused {
        to: sent,
        status: 400,
        body,
    });
    assert_eq!(
        told(&out),
        [r#"{"id":"a","jsonrpc":"2.0","error":{"code":-32602,"message":"m"}}"#]
    );
    let sent = post(&machine.step(host(call("2", "{}")))).ticket;
    let out = machine.step(Input::Refused {
        to: sent,
        status: 502,
        body: bytes("<html>"),
    });
    assert_eq!(
        told(&out),
        [
            r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32000,"message":"pilotlight: the server answered with HTTP 502","data":{"code":"server.http_status","http_status":502}}}"#
        ]
    );
}

/// TR-11: a cancelled request closes its stream; nothing is posted, and nothing that still comes reaches the host.
#[test]
fn cancelling_closes_the_stream_and_posts_nothing() {
    let mut machine = Stateless::new(Tools::default());
    let sent = post(&machine.step(host(call("7", "{}")))).ticket;
    let cancel = r#"{"method":"notifications/cancelled","params":{"requestId":7.0}}"#;
    assert_eq!(machine.step(host(cancel)), [Output::CloseStream(sent)]);
    assert_eq!(machine.step(answer(sent, r#"{"id":7,"result":{}}"#)), []);
    assert_eq!(machine.step(host(cancel)), []);
}

/// TR-06, TR-08, TR-09: headers that do not fit: the tools are listed again, all pages, and the call sent once more.
#[test]
fn headers_that_do_not_fit_are_learned_and_sent_once_more() {
    let mut machine = Stateless::new(Tools::default());
    let first = machine.step(host(call("1", r#"{"r":"é"}"#)));
    let misfit = || bytes(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"no R"}}"#);
    let out = machine.step(Input::Refused {
        to: post(&first).ticket,
        status: 400,
        body: misfit(),
    });
    let list = post(&out);
    assert_eq!(header(list, "mcp-method"), Some("tools/list"));
    assert_eq!(
        value(&list.raw)["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"],
        serde_json::json!({})
    );
    let page = format!(
        r#"{{"id":{},"result":{{"tools":[{{"name":"o"}}],"nextCursor":"\u0032"}}}}"#,
        id_of(&list.raw)
    );
    let out = machine.step(answer(list.ticket, page));
    let list = post(&out);
    assert!(
        text(&list.raw).contains(r#""cursor":"\u0032""#),
        "as the server wrote it"
    );
    let page = format!(
        r#"{{"id":{},"result":{{"tools":[{WISH}]}}}}"#,
        id_of(&list.raw)
    );
    let out = machine.step(answer(list.ticket, page));
    let again = post(&out);
    assert_eq!(header(again, "mcp-param-r"), Some("=?base64?w6k=?="));
    assert_ne!(id_of(&again.raw), "1", "a new request has a new id");
    let out = machine.step(Input::Refused {
        to: again.ticket,
        status: 400,
        body: misfit(),
    });
    assert!(posts(&out).is_empty(), "once");
    assert_eq!(told(&out), [text(&misfit())]);
    // The next call knows.
    assert_eq!(
        header(
            post(&machine.step(host(call("2", r#"{"r":"x"}"#)))),
            "mcp-param-r"
        ),
        Some("x")
    );
}

/// TR-09: a list that cannot be had leaves the first error.
#[test]
fn a_list_that_fails_leaves_the_first_error() {
    for broken in [true, false] {
        let mut machine = Stateless::new(Tools::default());
        let first = machine.step(host(call("1", "{}")));
        let misfit = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"no R"}}"#;
        let mut out = machine.step(answer(post(&first).ticket, misfit));
        if broken {
            for _ in 0..2 {
                out = machine.step(Input::Ended {
                    to: post(&out).ticket,
                });
            }
        } else {
            out = machine.step(Input::Refused {
                to: post(&out).ticket,
                status: 500,
                body: bytes(""),
            });
        }
        assert_eq!(told(&out), [misfit]);
    }
}

/// TR-08: a list reaches the host without the tools it may not see, and says so to the log.
#[test]
fn lists_reach_the_host_without_hidden_tools() {
    let mut machine = Stateless::new(Tools::new(&["d*".to_owned()]));
    let sent = post(&machine.step(host(format!(
        r#"{{"id":1,"method":"tools/list","params":{{{META}}}}}"#
    ))))
    .ticket;
    let bad = r#"{"name":"b","inputSchema":{"x-mcp-header":"B"}}"#;
    let list = format!(r#"{{"id":1,"result":{{"tools":[{{"name":"del"}},{bad},{WISH}]}}}}"#);
    let out = machine.step(answer(sent, list));
    assert_eq!(
        told(&out),
        [format!(r#"{{"id":1,"result":{{"tools":[{WISH}]}}}}"#)]
    );
    assert_eq!(
        out.iter()
            .filter(|output| matches!(output, Output::Note(Note::Hidden(_))))
            .count(),
        2
    );
    let out = machine.step(host(call("2", "{}").replace("\"t\"", "\"Delete\"")));
    assert!(
        posts(&out).is_empty() && told(&out)[0].contains("-32603"),
        "{out:?}"
    );
}

/// TR-10: an answer that breaks off: what is harmless is sent once more under a new id, what is not is an error.
#[test]
fn what_broke_off_is_sent_again_only_if_it_is_harmless() {
    let mut machine = Stateless::new(Tools::default());
    let first = machine.step(host(format!(
        r#"{{"id":1,"method":"resources/read","params":{{"uri":"u",{META}}}}}"#
    )));
    let again = machine.step(Input::Ended {
        to: post(&first).ticket,
    });
    assert_ne!(id_of(&post(&again).raw), "1");
    assert_eq!(header(post(&again), "mcp-name"), Some("u"));
    let done = format!(r#"{{"id":{},"result":{{}}}}"#, id_of(&post(&again).raw));
    assert_eq!(
        told(&machine.step(answer(post(&again).ticket, done))),
        [r#"{"id":1,"result":{}}"#]
    );
    let first = machine.step(host(call("2", "{}")));
    let out = machine.step(Input::Ended {
        to: post(&first).ticket,
    });
    assert!(
        posts(&out).is_empty()
            && told(&out)[0].starts_with(r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32000"#)
    );
}

/// TR-12: a subscription that breaks off is told to the host as servers on stdio tell it.
#[test]
fn a_subscription_that_ends_is_told() {
    let mut machine = Stateless::new(Tools::default());
    let listen = format!(
        r#"{{"id":"l","method":"subscriptions/listen","params":{{"notifications":{{}},{META}}}}}"#
    );
    let sent = post(&machine.step(host(listen))).ticket;
    let out = machine.step(Input::Ended { to: sent });
    assert_eq!(
        told(&out),
        [r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"l"}}"#]
    );
}

/// TR-16, T-14: what is no message is answered as such; an old host is handed on.
#[test]
fn what_is_no_message_and_who_is_no_new_host() {
    let mut machine = Stateless::new(Tools::default());
    let out = machine.step(host("{\"id\":1"));
    assert!(
        told(&out)[0].contains(r#""id":null,"error":{"code":-32700"#),
        "{out:?}"
    );
    assert!(matches!(
        out[1],
        Output::Fail(Failure::Host(Malformed::NotJson { at: 7 }))
    ));
    let old = r#"{"id":1,"method":"initialize"}"#;
    assert_eq!(
        machine.step(host(old)),
        [Output::Fail(Failure::HostEra(bytes(old)))]
    );
    let sent = post(&machine.step(host(call("1", "{}")))).ticket;
    let out = machine.step(answer(sent, "{\"id\":"));
    assert!(told(&out)[0].contains("cannot be read"));
    assert!(out.contains(&Output::CloseStream(sent)));
    let out = machine.step(host(r#"{"id":3,"method":"a\nb"}"#));
    assert!(
        posts(&out).is_empty() && told(&out)[0].contains(r#""id":3,"error":{"code":-32600"#),
        "{out:?}"
    );
}

/// TR-09, T-14: a host that names no version is refused by the server, and its tools are listed all the same.
#[test]
fn a_host_without_a_version_is_the_servers_to_refuse() {
    let mut machine = Stateless::new(Tools::default());
    let first = machine.step(host(
        r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#,
    ));
    let misfit = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"no version"}}"#;
    let out = machine.step(answer(post(&first).ticket, misfit));
    let refused = Input::Refused {
        to: post(&out).ticket,
        status: 400,
        body: bytes(""),
    };
    assert_eq!(told(&machine.step(refused)), [misfit]);
}
