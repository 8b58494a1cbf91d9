//! Whatever both sides do, in whatever order: each request of the host is answered once, and what is written can be read.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::headers;

/// One of the machines.
enum Machine {
    Stateless(Stateless),
    OldHost(Box<OldHost>),
    NewHost(Box<NewHost>),
}

impl Machine {
    fn step(&mut self, input: Input) -> Vec<Output> {
        match self {
            Self::Stateless(machine) => machine.step(input),
            Self::OldHost(machine) => machine.step(input),
            Self::NewHost(machine) => machine.step(input),
        }
    }
}

/// Everything around a machine, and what must hold of it.
struct World {
    machine: Machine,
    /// Requests of the host, and how often each has been answered.
    asked: BTreeMap<String, u32>,
    /// Requests that have no answer of their own, or need none any more.
    exempt: BTreeSet<String>,
    /// Questions that the host has been asked.
    questions: Vec<String>,
    /// States that the host has been given.
    states: Vec<String>,
    /// What is under way at the server: its id and its method.
    open: BTreeMap<Ticket, (String, String)>,
    tickets: BTreeSet<Ticket>,
    next: u32,
}

impl World {
    fn new(machine: Machine) -> Self {
        Self {
            machine,
            asked: BTreeMap::new(),
            exempt: BTreeSet::new(),
            questions: Vec::new(),
            states: Vec::new(),
            open: BTreeMap::new(),
            tickets: BTreeSet::new(),
            next: 0,
        }
    }

    fn host(&mut self, method: &str, params: &str, id: bool) {
        let mut meta = String::new();
        if !matches!(self.machine, Machine::OldHost(_)) {
            meta = format!(
                r#""_meta":{{"{PROTOCOL_VERSION}":"{NEW}","io.modelcontextprotocol/clientCapabilities":{{"elicitation":{{"url":{{}},"form":{{}}}},"sampling":{{}}}},"progressToken":{},"io.modelcontextprotocol/logLevel":"info"}}"#,
                self.next
            );
        }
        let comma = if meta.is_empty() || params.is_empty() {
            ""
        } else {
            ","
        };
        let mut raw =
            format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{params}{comma}{meta}}}"#);
        if id {
            self.next += 1;
            raw.push_str(&format!(r#","id":{}"#, self.next));
            self.asked.insert(self.next.to_string(), 0);
            if method == "subscriptions/listen" {
                self.exempt.insert(self.next.to_string());
            }
        }
        raw.push('}');
        self.feed(host(raw));
    }

    fn feed(&mut self, input: Input) {
        for output in self.machine.step(input) {
            match output {
                Output::ToHost(raw) => self.told(raw),
                Output::Post(post) => {
                    assert!(self.tickets.insert(post.ticket), "a ticket names one POST");
                    let message = Message::read(post.raw.clone()).unwrap();
                    assert_eq!(post.answered, message.kind() == Kind::Request);
                    if !matches!(self.machine, Machine::NewHost(_)) {
                        assert!(
                            matches!(message.kind(), Kind::Request | Kind::Notification),
                            "TR-01"
                        );
                        let removed = matches!(
                            &*message.method(),
                            "initialize"
                                | "ping"
                                | "logging/setLevel"
                                | "resources/subscribe"
                                | "resources/unsubscribe"
                        );
                        assert!(
                            !removed || matches!(self.machine, Machine::Stateless(_)),
                            "TR-17"
                        );
                        let fields = post.headers.into_iter().collect();
                        if message.kind() == Kind::Request {
                            assert_eq!(
                                headers::check(&fields, &message, &[]),
                                Ok(()),
                                "{}",
                                text(&post.raw)
                            );
                        }
                    }
                    if let Some(id) = message.id().filter(|_| post.answered) {
                        let id = id.as_str().to_owned();
                        assert!(
                            self.open.values().all(|(open, _)| *open != id),
                            "an id names one request"
                        );
                        self.open
                            .insert(post.ticket, (id, message.method().into_owned()));
                    }
                }
                Output::CloseStream(ticket) => {
                    // One whose answer could not be read has ended for us already.
                    self.open.remove(&ticket);
                }
                Output::Fail(Failure::ServerEra(back)) => {
                    for raw in back {
                        self.exempt.insert(id_of(&raw));
                    }
                }
                Output::Fail(Failure::HostEra(raw)) => drop(self.exempt.insert(id_of(&raw))),
                Output::Fail(_) | Output::Note(_) => {}
            }
        }
    }

    fn told(&mut self, raw: Bytes) {
        let message = Message::read(raw).unwrap();
        let id = message.id().map(|id| id.as_str().to_owned());
        match (message.kind(), id) {
            (Kind::Result | Kind::Error, Some(id)) => {
                let count = self
                    .asked
                    .get_mut(&id)
                    .unwrap_or_else(|| panic!("nobody asked {id}"));
                *count += 1;
                assert_eq!(*count, 1, "{id} is answered twice");
                if message.kind() == Kind::Error {
                    says_whose_error_it_is(&message);
                }
                if let Some(state) = message.result_member("requestState") {
                    assert!(
                        !matches!(self.machine, Machine::OldHost(_)),
                        "an old host knows no state"
                    );
                    self.states.push(String::from_utf8(state.to_vec()).unwrap());
                }
            }
            (Kind::Request, Some(id)) => {
                assert!(
                    matches!(self.machine, Machine::OldHost(_)),
                    "TR-16: a new host is asked nothing"
                );
                self.questions.push(id);
            }
            _ => {}
        }
    }

    /// What the host does.
    fn act(&mut self, what: u8, which: Index) {
        match what % 14 {
            0 => self.host(
                "initialize",
                r#""protocolVersion":"2025-11-25","capabilities":{"sampling":{},"elicitation":{}}"#,
                true,
            ),
            1 => self.host("notifications/initialized", "", false),
            2 => self.host("ping", "", true),
            3 => self.host("logging/setLevel", r#""level":"info""#, true),
            4 | 5 => self.host("tools/call", r#""name":"t""#, true),
            6 => self.host("tools/list", "", true),
            7 => self.host(
                "resources/subscribe",
                &format!(r#""uri":"u{}""#, which.index(3)),
                true,
            ),
            8 => self.host(
                "resources/unsubscribe",
                &format!(r#""uri":"u{}""#, which.index(3)),
                true,
            ),
            9 => self.host("server/discover", "", true),
            10 => {
                let filter = format!(
                    r#""notifications":{{"resourceSubscriptions":["u{}","v"]}}"#,
                    which.index(3)
                );
                self.host("subscriptions/listen", &filter, true);
            }
            11 => {
                if self.next > 0 {
                    let id = (which.index(self.next as usize) + 1).to_string();
                    self.exempt.insert(id.clone());
                    self.host(
                        "notifications/cancelled",
                        &format!(r#""requestId":{id}"#),
                        false,
                    );
                }
            }
            12 => {
                if !self.questions.is_empty() {
                    let id = self
                        .questions
                        .swap_remove(which.index(self.questions.len()));
                    let body = [
                        r#""result":{"action":"accept"}"#,
                        r#""error":{"code":-1,"message":"m"}"#,
                    ][which.index(2)];
                    self.feed(host(format!(r#"{{"jsonrpc":"2.0","id":{id},{body}}}"#)));
                }
            }
            _ => {
                if !self.states.is_empty() {
                    let state = self.states[which.index(self.states.len())].clone();
                    let key = which.index(40);
                    let answers = format!(
                        r#""pilotlight-{key}":{{"action":"accept"}},"pilotlight-{}":{{}}"#,
                        key + 1
                    );
                    self.host(
                        "tools/call",
                        &format!(
                            r#""name":"t","requestState":{state},"inputResponses":{{{answers}}}"#
                        ),
                        true,
                    );
                }
            }
        }
    }

    /// What the server does.
    fn react(&mut self, what: u8, which: Index) {
        let Some((ticket, (id, _))) = self.open.iter().nth(which.index(self.open.len().max(1)))
        else {
            return;
        };
        let (to, id) = (*ticket, id.clone());
        let all = r#""tools":[],"supportedVersions":["2026-07-28"],"protocolVersion":"2025-11-25","capabilities":{"resources":{"subscribe":true},"tools":{"listChanged":true},"logging":{}}"#;
        let result = |result: &str| {
            answer(
                to,
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{result}}}}}"#),
            )
        };
        let error = |code: i64| {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"m","data":{{"elicitations":[{{"url":"x"}}]}}}}}}"#
            )
        };
        let input = match what % 16 {
            0..=2 => result(all),
            3 => result(&format!(r#"{all},"nextCursor":"n","resultType":"complete""#)),
            4 => result(r#""resultType":"input_required","requestState":"s""#),
            5 => result(r#""resultType":"input_required","inputRequests":{"a":{"method":"sampling/createMessage"},"b":{"method":"elicitation/create"}}"#),
            6 => result(r#""resultType":"input_required","inputRequests":{"a":{"method":"roots/list"}},"requestState":7"#),
            7 => answer(to, error([-32020, -32021, -32022, -32042, -32601, -1][which.index(6)])),
            8 => answer(to, format!(r#"{{"jsonrpc":"2.0","id":"q{}","method":"sampling/createMessage","params":{{}}}}"#, which.index(9))),
            9 => Input::Server(bytes(r#"{"jsonrpc":"2.0","id":"z","method":"elicitation/create","params":{"mode":"url"}}"#)),
            10 => {
                let status = [400, 404, 405, 500, 503][which.index(5)];
                let body = if which.index(2) == 0 { error(-32020) } else { "<html>".to_owned() };
                self.open.remove(&to);
                return self.feed(Input::Refused { to, status, body: bytes(body) });
            }
            11 => {
                self.open.remove(&to);
                return self.feed(Input::Ended { to });
            }
            12 => return self.feed(answer(to, r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"resourceSubscriptions":["u1","u2"]}}}"#)),
            13 => return self.feed(answer(to, r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}"#)),
            14 => return self.feed(answer(to, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q1"}}"#)),
            _ => answer(to, "{\"id\":"),
        };
        if !matches!(what % 16, 8 | 9) {
            self.open.remove(&to);
        }
        self.feed(input);
    }

    /// The server goes, and the host answers what it has been asked.
    fn end(&mut self) {
        for _ in 0..10_000 {
            if let Some(id) = self.questions.pop() {
                self.feed(host(format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-1,"message":"m"}}}}"#
                )));
            } else if let Some((to, (_, method))) = self.open.pop_first() {
                // A subscription is opened again for ever, but where there is none.
                if method == "subscriptions/listen" {
                    self.feed(Input::Refused {
                        to,
                        status: 404,
                        body: bytes(""),
                    });
                } else {
                    self.feed(Input::Ended { to });
                }
            } else {
                break;
            }
        }
        assert!(self.open.is_empty(), "it never ends");
        for (id, count) in &self.asked {
            assert!(
                *count == 1 || self.exempt.contains(id),
                "{id} is answered {count} times"
            );
        }
    }
}

/// An error is the peers' own, or says that it is the bridge's, with a code that people can look up.
fn says_whose_error_it_is(message: &Message) {
    let error = value(&bytes(message.error().unwrap()));
    if error["message"] == "m" {
        return;
    }
    let said = error["message"].as_str().unwrap();
    assert!(said.starts_with("pilotlight: "), "{error}");
    let code = error["data"]["code"].as_str();
    let code = code.unwrap_or_else(|| panic!("{error} has no code"));
    let listed = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md"));
    assert!(
        listed.contains(&format!("`{code}`")),
        "{code} is not listed"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    /// TR-01, TR-13, TR-16, TR-17: each request is answered once, whoever does what, and the wires get only their own words.
    /// An error that no peer has said bears the bridge's name, and a code that is listed.
    #[test]
    fn each_request_is_answered_once(
        which in 0..3u8, known in any::<bool>(), start in any::<Index>(),
        script in proptest::collection::vec((any::<bool>(), any::<u8>(), any::<Index>()), 0..60)
    ) {
        let open = detect::Discovery {
            versions: vec![NEW.to_owned()],
            capabilities: Some(bytes(r#"{"resources":{"subscribe":true},"tools":{"listChanged":true},"logging":{}}"#)),
            ..Default::default()
        };
        let mut world = World::new(match which {
            0 => Machine::Stateless(Stateless::new(Tools::default())),
            1 => Machine::OldHost(Box::new(OldHost::new(bridge(), Tools::default(), known.then_some(open)))),
            _ => Machine::NewHost(Box::new(NewHost::new(bridge(), Tools::default()))),
        });
        if known {
            world.act(if which == 1 { 0 } else { 9 }, start);
            world.react(0, start);
        }
        for (host, what, which) in script {
            if host { world.act(what, which) } else { world.react(what, which) }
        }
        world.end();
    }
}
