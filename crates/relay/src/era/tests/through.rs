//! What goes in one era comes out equal through both: a host and a server of the same era, with both machines between them.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::headers;
use crate::message::{CLIENT_CAPABILITIES, CLIENT_INFO, SUBSCRIPTION_ID, json};

/// An old host, the two machines with the new era between them, and an old server.
struct OldOldPipe {
    near: OldHost,
    far: NewHost,
    /// What the old host got.
    host: Vec<Bytes>,
    /// What the old server got, each with its ticket.
    server: VecDeque<(Ticket, Bytes)>,
    /// The tickets of what is under way in the new era, by the id that it has there.
    open: Vec<(Id, Ticket)>,
}

impl OldOldPipe {
    fn new() -> Self {
        Self {
            near: OldHost::new(bridge(), Tools::default(), None),
            far: NewHost::new(bridge(), Tools::default()),
            host: Vec::new(),
            server: VecDeque::new(),
            open: Vec::new(),
        }
    }

    fn near(&mut self, input: Input) {
        for output in self.near.step(input) {
            match output {
                Output::ToHost(raw) => self.host.push(raw),
                Output::Post(post) => {
                    let message = Message::read(post.raw.clone()).unwrap();
                    // A server of the new era would refuse it otherwise.
                    let fields = post.headers.into_iter().collect();
                    assert_eq!(
                        headers::check(&fields, &message, &[]),
                        Ok(()),
                        "{}",
                        text(&post.raw)
                    );
                    assert!(message.meta(PROTOCOL_VERSION).is_some());
                    if let Some(id) = message.id() {
                        self.open.push((id.clone(), post.ticket));
                    }
                    self.far(Input::Host(post.raw));
                }
                Output::CloseStream(ticket) => {
                    if let Some(at) = self.open.iter().position(|(_, open)| *open == ticket) {
                        let id = self.open.remove(at).0;
                        self.far(host(format!(
                            r#"{{"method":"notifications/cancelled","params":{{"requestId":{}}}}}"#,
                            id.as_str()
                        )));
                    }
                }
                Output::Fail(why) => panic!("{why}"),
                Output::Note(_) => {}
            }
        }
    }

    fn far(&mut self, input: Input) {
        for output in self.far.step(input) {
            match output {
                Output::ToHost(raw) => {
                    let message = Message::read(raw.clone()).unwrap();
                    let to = match message.id().or(message
                        .meta(SUBSCRIPTION_ID)
                        .and_then(Id::of_value)
                        .as_ref())
                    {
                        Some(id) => self
                            .open
                            .iter()
                            .find(|(open, _)| open.same(id))
                            .map(|(_, ticket)| *ticket),
                        None => self.open.last().map(|(_, ticket)| *ticket),
                    };
                    if let Some(to) = to {
                        if message.id().is_some() {
                            self.open.retain(|(_, open)| *open != to);
                        }
                        self.near(Input::Answer { to, raw });
                    }
                }
                Output::Post(post) => self.server.push_back((post.ticket, post.raw)),
                Output::CloseStream(_) | Output::Note(_) => {}
                Output::Fail(why) => panic!("{why}"),
            }
        }
    }

    /// The next that the server got.
    fn got(&mut self) -> (Ticket, Bytes) {
        self.server.pop_front().expect("the server got nothing")
    }

    fn shake(&mut self, capabilities: &str) {
        self.near(host(format!(
            r#"{{"jsonrpc":"2.0","id":"i","method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{capabilities},"clientInfo":{{"name":"h","x":1.0}}}}}}"#
        )));
        let (ticket, raw) = self.got();
        let message = Message::read(raw).unwrap();
        assert_eq!(
            message.param("capabilities").unwrap(),
            capabilities.as_bytes()
        );
        assert_eq!(
            message.param("clientInfo").unwrap(),
            br#"{"name":"h","x":1.0}"#
        );
        let said = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}},"serverInfo":{"name":"s","y":1.0},"instructions":"\u0041"}"#;
        let id = message.id().unwrap().as_str();
        self.far(answer(
            ticket,
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{said}}}"#),
        ));
        assert_eq!(
            self.got().1,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#
        );
        let [told] = &std::mem::take(&mut self.host)[..] else {
            panic!("{:?}", self.host)
        };
        let told = value(told);
        assert_eq!(
            (&told["id"], &told["result"]),
            (
                &Value::from("i"),
                &serde_json::from_str::<Value>(said).unwrap()
            )
        );
    }
}

/// A value as people write it.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("1.50".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("1E+2".to_owned()),
        Just("null".to_owned()),
        "\"([a-z{}\\[\\]é]|\\\\u00e9|\\\\/|\\\\\"|\\\\ud800){0,6}\"",
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(|all| format!("[{} ]", all.join(" ,"))),
            any_members(inner).prop_map(|members| format!("{{ {members}}}")),
        ]
    })
}

/// Members of an object, with odd names and white space.
fn any_members(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    proptest::collection::vec(("[a-c]", value), 0..4).prop_map(|all| {
        all.iter()
            .map(|(name, value)| format!("\"{name}\" :{value}"))
            .collect::<Vec<_>>()
            .join(", ")
    })
}

fn any_id() -> impl Strategy<Value = String> {
    prop_oneof![
        "[1-9][0-9]{0,3}",
        "[1-9][0-9]{20}",
        "[1-9]\\.0",
        "\"[a-z\"é]{0,3}\"".prop_map(|text| json::quoted(&text)),
    ]
}

fn joined(members: &str, more: &str) -> String {
    [members, more]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// TR-13, TR-18: an old host's call reaches an old server byte for byte through both eras, and so do the server's
    /// questions, the host's answers, progress, and the answer.
    #[test]
    fn an_old_call_comes_out_equal(
        id in any_id(), params in any_members(any_value()), meta in any_members(any_value()), outcome in any_members(any_value()),
        asks in proptest::collection::vec((any_id(), any_members(any_value()), any_value()), 0..3), fails in any::<bool>()
    ) {
        let mut pipe = OldOldPipe::new();
        pipe.shake(r#"{"elicitation":{}, "sampling":{ }}"#);
        let meta = joined(&meta, r#""progressToken":"p\u0041""#);
        let params = joined(r#""name" :"t\u00e9""#, &joined(&format!(r#""_meta":{{ {meta} }}"#), &params));
        let call = format!(r#"{{ "jsonrpc":"2.0","id":{id} ,"x":1.0, "method":"tools/call","params":{{ {params} }}}}"#);
        pipe.near(host(&call));
        let (ticket, raw) = pipe.got();
        prop_assert_eq!(text(&raw), &call);
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p\u0041", "progress":1.50}}"#;
        for (own, question, reply) in &asks {
            pipe.far(answer(ticket, progress));
            prop_assert_eq!(pipe.host.pop().unwrap(), progress);
            let question = format!("{{ {question}}}");
            let ask = format!(r#"{{"jsonrpc":"2.0","id":{own},"method":"sampling/createMessage","params":{question}}}"#);
            pipe.far(answer(ticket, &ask));
            let asked = Message::read(pipe.host.pop().unwrap()).unwrap();
            prop_assert_eq!(&*asked.method(), "sampling/createMessage");
            prop_assert_eq!(asked.params().unwrap(), question.as_bytes());
            let own_id = asked.id().unwrap().as_str();
            pipe.near(host(format!(r#"{{"jsonrpc":"2.0","id":{own_id},"result":{reply}}}"#)));
            let (_, told) = pipe.got();
            prop_assert_eq!(told, format!(r#"{{"jsonrpc":"2.0","id":{own},"result":{reply}}}"#));
        }
        let kind = if fails { "error" } else { "result" };
        let outcome = if fails { joined(r#""code":-1.50"#, &outcome) } else { outcome };
        let done = format!(r#"{{"jsonrpc" :"2.0","{kind}":{{ {outcome} }}, "id": {id}}}"#);
        // Names that are there twice are refused where they decide something; these do not.
        pipe.far(answer(ticket, &done));
        prop_assert_eq!(pipe.host.len(), 1);
        prop_assert_eq!(text(&pipe.host[0]), &done);
        prop_assert!(pipe.server.is_empty());
    }

    /// TR-12, TR-17, TR-18: lists lose what the new era added, watched resources and their news pass, log levels arrive.
    #[test]
    fn old_lists_news_and_levels_come_out_equal(
        id in any_id(), tools in any_value(), more in any_members(any_value()), rest in any_members(any_value())
    ) {
        let mut pipe = OldOldPipe::new();
        pipe.shake("{ }");
        pipe.near(host(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#));
        pipe.near(host(r#"{"jsonrpc":"2.0","id":"s","method":"resources/subscribe","params":{"uri":"u:\u00e9"}}"#));
        let (ticket, raw) = pipe.got();
        prop_assert_eq!(&value(&raw)["params"], &serde_json::json!({"uri": "u:é"}));
        pipe.far(answer(ticket, format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id_of(&raw))));
        prop_assert_eq!(pipe.host.pop().unwrap(), r#"{"jsonrpc":"2.0","id":"s","result":{}}"#);
        for (method, member) in [("resources/updated", r#""uri":"u:é""#), ("tools/list_changed", "")] {
            let params = joined(&rest, member);
            let news = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{{ {params}}}}}"#);
            pipe.far(Input::Server(bytes(&news)));
            let told: Vec<_> = pipe.host.drain(..).collect();
            prop_assert_eq!(told, [news]);
        }
        pipe.near(host(r#"{"jsonrpc":"2.0","id":"v","method":"logging/setLevel","params":{"level":"notice"}}"#));
        prop_assert_eq!(pipe.host.pop().unwrap(), r#"{"jsonrpc":"2.0","id":"v","result":{}}"#);
        let list = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list","params":{{"cursor" :"\/"}}}}"#);
        pipe.near(host(&list));
        let (_, level) = pipe.got();
        prop_assert_eq!(&value(&level)["params"]["level"], "notice");
        let (ticket, raw) = pipe.got();
        prop_assert_eq!(text(&raw), &list);
        let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":1.50}}"#;
        pipe.far(answer(ticket, log));
        prop_assert_eq!(pipe.host.pop().unwrap(), log);
        let result = joined(&format!(r#""tools":{tools}"#), &more);
        pipe.far(answer(ticket, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{ {result} }}}}"#)));
        let told = text(&pipe.host[0]).replacen(r#""ttlMs":0,"cacheScope":"private","#, "", 1);
        prop_assert_eq!(told, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{ {result} }}}}"#));
    }

    /// TR-13, TR-18: a new host's call reaches a new server through the old era: name, arguments and answers equal, the
    /// state byte for byte, the questions under the server's own names.
    #[test]
    fn a_new_call_comes_out_equal(
        id in any_id(), params in any_members(any_value()), outcome in any_members(any_value()),
        asks in proptest::collection::vec((any_members(any_value()), any_value(), any::<String>()), 0..3)
    ) {
        let capabilities = r#"{"elicitation":{}, "sampling":{ }}"#;
        let meta = format!(
            r#""_meta":{{"{PROTOCOL_VERSION}":"2026-07-28","{CLIENT_INFO}":{{"name":"h","x":1.0}},"{CLIENT_CAPABILITIES}":{capabilities}}}"#
        );
        let mut near = NewHost::new(bridge(), Tools::default());
        let mut far = OldHost::new(bridge(), Tools::default(), None);
        let mut call = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{{}}}}}"#,
            joined(&format!(r#""name" :"t\u00e9",{meta}"#), &params));
        // The handshake, both ways round.
        let first = near.step(host(&call));
        let probe = far.step(Input::Host(post(&first).raw.clone()));
        let said = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{{}}}}}}"#,
            id_of(&post(&probe).raw));
        let open = far.step(answer(post(&probe).ticket, said));
        let mut out = near.step(answer(post(&first).ticket, &told(&open)[0]));
        prop_assert_eq!(far.step(Input::Host(posts(&out)[0].raw.clone())), []);
        let running = posts(&out)[1].clone();
        out = far.step(Input::Host(running.raw.clone()));
        for (round, (question, reply, state)) in asks.iter().enumerate() {
            let sent = post(&out).clone();
            let state = json::quoted(state);
            let own = sent_id(&sent);
            let asked = format!(r#"{{"jsonrpc":"2.0","id":{own},"result":{{"resultType":"input_required","inputRequests":{{"k\u0061{round}":{{"method":"sampling/createMessage","params":{{ {question}}}}}}},"requestState":{state}}}}}"#);
            let question_out = far.step(answer(sent.ticket, asked));
            let ended = near.step(answer(running.ticket, &told(&question_out)[0]));
            let ended = Message::read(bytes(&told(&ended)[0])).unwrap();
            let asked = ended.result_member("inputRequests").unwrap();
            let mut keys = Vec::new();
            json::members(asked, &(0..asked.len()), |key, put| keys.push((key.span, put)));
            prop_assert_eq!(keys.len(), 1);
            let (key, put) = (text_of(&asked[keys[0].0.clone()]), text_of(&asked[keys[0].1.clone()]));
            prop_assert_eq!(put, format!(r#"{{"method":"sampling/createMessage","params":{{ {question}}}}}"#));
            let given = text_of(ended.result_member("requestState").unwrap());
            let next = format!(r#"{{"jsonrpc":"2.0","id":"r{round}","method":"tools/call","params":{{{},"inputResponses":{{{key}:{reply}}},"requestState":{given}}}}}"#,
                joined(&format!(r#""name" :"t\u00e9",{meta}"#), &params));
            call = next;
            let back = near.step(host(&call));
            out = far.step(Input::Host(post(&back).raw.clone()));
            let again = text(&post(&out).raw);
            let wanted = format!(r#""inputResponses":{{"k\u0061{round}":{reply}}},"requestState":{state}"#);
            prop_assert!(again.contains(&wanted), "{}", again);
        }
        let sent = post(&out).clone();
        let message = Message::read(sent.raw.clone()).unwrap();
        prop_assert_eq!(message.meta(CLIENT_CAPABILITIES).unwrap(), capabilities.as_bytes());
        prop_assert!(text(&sent.raw).contains(r#""name" :"t\u00e9""#) && text(&sent.raw).contains(&params));
        let done = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete",{} }}}}"#,
            sent_id(&sent), joined(r#""a":1"#, &outcome));
        let plain = far.step(answer(sent.ticket, &done));
        let end = near.step(answer(running.ticket, &told(&plain)[0]));
        let wanted = Message::read(bytes(&call)).unwrap();
        let wanted = done.replacen(&sent_id(&sent), wanted.id().unwrap().as_str(), 1);
        prop_assert_eq!(&told(&end)[0], &wanted);
    }
}

fn text_of(raw: &[u8]) -> &str {
    std::str::from_utf8(raw).unwrap()
}

fn sent_id(post: &Post) -> String {
    id_of(&post.raw)
}
