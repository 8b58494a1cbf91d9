//! A host of the old era in front of a server of the new era.
//!
//! ```text
//!   host                          here                                server
//!   initialize             ->     server/discover                ->
//!                          <-     its capabilities, its name     <-
//!   notifications/initialized ->  subscriptions/listen           ->   (if it tells of changes)
//!   tools/call 7           ->     7, with `_meta`                ->
//!   elicitation/create     <-     (one question of several)      <-   input_required, questions, requestState
//!   its answer             ->     new id, inputResponses, requestState, byte for byte ->
//!   the answer to 7        <-     under its own id               <-   the answer
//!   resources/subscribe    ->     listen anew, then end the old  ->
//!   logging/setLevel       ->     (kept, and said in each `_meta`)
//!   ping                   ->     (answered here)
//!   notifications/cancelled ->    (closes the stream)
//! ```

mod listen;
mod rounds;

use std::time::Duration;

use bytes::Bytes;

use super::detect::{Asked, Discovery, Verdict, detect, discover};
use super::host;
use super::stateless::{Call, Came, Purpose, Sender, ignored, lost};
use super::{
    Failure, INVALID_PARAMS, INVALID_REQUEST, Identity, Input, METHOD_NOT_FOUND, NEW, Note, OLD,
    Output, Refusal, read_host, result,
};
use crate::message::{
    CLIENT_CAPABILITIES, CLIENT_INFO, Edit, Id, Kind, LOG_LEVEL, Message, PROTOCOL_VERSION,
    ResultType, json, object,
};
use crate::tools::Tools;
use listen::Listen;
use rounds::Rounds;

/// The machine for old hosts and new servers.
#[derive(Debug)]
pub struct OldHost {
    bridge: Identity,
    sender: Sender,
    /// Who the host is and what it can do, as it wrote it.
    info: Vec<u8>,
    capabilities: Vec<u8>,
    /// The log level that the host wants, as it wrote it.
    level: Option<Vec<u8>>,
    discovery: Option<Discovery>,
    /// An `initialize` that waits for the server's word.
    opening: Option<Message>,
    opened: bool,
    listen: Listen,
    rounds: Rounds,
}

impl OldHost {
    /// Begins. With `known`, what a probe has brought already, `initialize` is answered at once.
    #[must_use]
    pub fn new(bridge: Identity, tools: Tools, known: Option<Discovery>) -> Self {
        Self {
            info: bridge.json(),
            bridge,
            sender: Sender::new(tools),
            capabilities: b"{}".to_vec(),
            level: None,
            discovery: known,
            opening: None,
            opened: false,
            listen: Listen::default(),
            rounds: Rounds::default(),
        }
    }

    /// Takes what happened, and says what is to be done.
    pub fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let came = match input {
            Input::Host(raw) => {
                if let Some(message) = read_host(raw, &mut out) {
                    self.host(message, &mut out);
                }
                None
            }
            Input::Answer { to, raw } => {
                if matches!(self.sender.purpose(to), Some(Purpose::Listen)) {
                    self.heard(to, raw, &mut out);
                    None
                } else {
                    self.sender.answered(to, raw, &mut out)
                }
            }
            Input::Refused { to, status, body } => match self.sender.purpose(to) {
                Some(Purpose::Discover) => {
                    self.not_discovered(status, &body, &mut out);
                    None
                }
                Some(Purpose::Listen) => {
                    self.not_heard(to, Some((status, &body)), &mut out);
                    None
                }
                _ => self.sender.refused(to, status, body, &mut out),
            },
            Input::Ended { to } if matches!(self.sender.purpose(to), Some(Purpose::Listen)) => {
                self.not_heard(to, None, &mut out);
                None
            }
            Input::Ended { to } => self.sender.ended(to, &mut out),
            Input::Server(_) => {
                out.push(Output::Note(Note::LeftOut(
                    "a message on no answer".to_owned(),
                )));
                None
            }
        };
        match came {
            Some(Came::Notification(message)) => out.push(Output::ToHost(message.into_raw())),
            Some(Came::Answer(call, message)) => self.answer(*call, message, &mut out),
            Some(Came::Lost(call)) if matches!(call.purpose, Purpose::Discover) => {
                if let Some(id) = self.opening.take().as_ref().and_then(Message::id) {
                    out.push(Output::ToHost(
                        Refusal::NoAnswer.answer(id, "the server does not answer"),
                    ));
                }
            }
            Some(Came::Lost(call)) => out.push(Output::ToHost(lost(&call))),
            None => {}
        }
        out
    }

    fn host(&mut self, message: Message, out: &mut Vec<Output>) {
        let Some(id) = message.id().cloned() else {
            return self.host_notification(&message, out);
        };
        if matches!(message.kind(), Kind::Result | Kind::Error) {
            return self.answered_by_host(&id, &message, out);
        }
        match &*message.method() {
            "initialize" => self.initialize(message, out),
            "server/discover" | "subscriptions/listen" => {
                out.push(Output::Fail(Failure::HostEra(message.into_raw())))
            }
            "ping" => out.push(Output::ToHost(result(&id, b"{}"))),
            "logging/setLevel" => self.set_level(&id, &message, out),
            "resources/subscribe" => self.subscribe(&id, &message, out),
            "resources/unsubscribe" => self.unsubscribe(&id, &message, out),
            _ if ignored(&self.sender, &message, out) => {}
            _ => {
                let raw = self.dressed(&message).finish();
                self.sender
                    .send(Call::new(message, Purpose::Host), raw, Duration::ZERO, out);
            }
        }
    }

    fn host_notification(&mut self, message: &Message, out: &mut Vec<Output>) {
        match &*message.method() {
            "notifications/initialized" => self.begin_listening(out),
            "notifications/cancelled" => {
                if let Some(id) = message.param("requestId").and_then(Id::of_value) {
                    self.sender.cancel(&id, out);
                    self.rounds.cancel(&id, out);
                }
            }
            // The new era has neither (TR-17): who wants roots asks for them, and nobody asks a host for progress.
            method @ ("notifications/roots/list_changed" | "notifications/progress") => {
                out.push(Output::Note(Note::LeftOut(method.to_owned())));
            }
            _ if message.kind() == Kind::Notification => {
                if let Ok(dressed) = Message::read(self.dressed(message).finish()) {
                    self.sender.notify(&dressed, out);
                }
            }
            _ => out.push(Output::Note(Note::LeftOut(
                "an error without an id".to_owned(),
            ))),
        }
    }

    /// A message with what the new era wants of each (TR-04).
    fn dressed<'a>(&self, message: &'a Message) -> Edit<'a> {
        let edit = message
            .edit()
            .meta(PROTOCOL_VERSION, json::quoted(NEW))
            .meta(CLIENT_INFO, self.info.clone())
            .meta(CLIENT_CAPABILITIES, self.capabilities.clone());
        match &self.level {
            Some(level) => edit.meta(LOG_LEVEL, level.clone()),
            None => edit,
        }
    }

    fn initialize(&mut self, message: Message, out: &mut Vec<Output>) {
        let id = message.id().cloned().unwrap_or_else(|| Id::of_text(""));
        if self.opened || self.opening.is_some() {
            return out.push(Output::ToHost(
                Refusal::BadRequest(INVALID_REQUEST).answer(&id, "already initialized"),
            ));
        }
        if let Some(info) = message
            .param("clientInfo")
            .filter(|info| info.starts_with(b"{"))
        {
            self.info = info.to_vec();
        }
        if let Some(capabilities) = message
            .param("capabilities")
            .filter(|raw| raw.starts_with(b"{"))
        {
            self.capabilities = capabilities.to_vec();
        }
        if let Some(known) = self.discovery.clone() {
            return self.open(&message, known, out);
        }
        let ask = discover(
            &self.sender.numbers.id(),
            self.info.clone(),
            self.capabilities.clone(),
        );
        self.opening = Some(message);
        if let Ok(origin) = Message::read(ask.clone()) {
            self.sender.send(
                Call::new(origin, Purpose::Discover),
                ask,
                Duration::ZERO,
                out,
            );
        }
    }

    /// Answers `initialize` with what the server has said of itself.
    fn open(&mut self, message: &Message, known: Discovery, out: &mut Vec<Output>) {
        let asked = message.param_text("protocolVersion");
        let version = OLD
            .iter()
            .find(|version| asked.as_deref() == Some(**version))
            .unwrap_or(&OLD[0]);
        let or = |raw: &Option<Bytes>, fallback: Vec<u8>| {
            raw.as_ref().map_or(fallback, |raw| raw.to_vec())
        };
        let mut members = vec![
            ("protocolVersion", json::quoted(version).into_bytes()),
            ("capabilities", or(&known.capabilities, b"{}".to_vec())),
            ("serverInfo", or(&known.info, self.bridge.json())),
        ];
        if let Some(instructions) = &known.instructions {
            members.push(("instructions", instructions.to_vec()));
        }
        if let Some(id) = message.id() {
            out.push(Output::ToHost(result(id, &object(members))));
        }
        self.opened = true;
        self.discovery = Some(known);
    }

    /// The server refused `server/discover`: it may be of the new era all the same (TR-14, TR-15).
    fn not_discovered(&mut self, status: u16, body: &Bytes, out: &mut Vec<Output>) {
        let verdict = detect(Asked::New, status, body);
        let Some(opening) = self.opening.take() else {
            return;
        };
        match (verdict, opening.id()) {
            (Verdict::Modern(known), _) => self.open(&opening, known.unwrap_or_default(), out),
            (Verdict::NoCommonVersion(versions), Some(id)) => {
                let text = format!(
                    "the server speaks no version that is spoken here, but {}",
                    versions.join(", ")
                );
                out.push(Output::ToHost(Refusal::NoCommonVersion.answer(id, &text)));
            }
            (Verdict::Unavailable | Verdict::Challenge, Some(id)) => {
                let text = format!("the server answered with HTTP {status}");
                out.push(Output::ToHost(Refusal::Status(status).answer(id, &text)));
            }
            _ => out.push(Output::Fail(Failure::ServerEra(vec![opening.into_raw()]))),
        }
    }

    /// An answer came for a request that is no subscription.
    fn answer(&mut self, call: Call, message: Message, out: &mut Vec<Output>) {
        if matches!(call.purpose, Purpose::Discover) {
            match (Discovery::read(&message), self.opening.take()) {
                (Some(known), Some(opening))
                    if known.versions.iter().any(|version| version == NEW) =>
                {
                    self.open(&opening, known, out);
                }
                (_, opening) => {
                    self.opening = opening;
                    self.not_discovered(200, message.raw(), out);
                }
            }
            return;
        }
        if message.result_type() == ResultType::InputRequired {
            return self.asked_back(call, &message, out);
        }
        self.sender.deliver(&call, message, true, out);
    }

    fn set_level(&mut self, id: &Id, message: &Message, out: &mut Vec<Output>) {
        let offered = self
            .discovery
            .as_ref()
            .and_then(|known| known.capabilities.as_ref());
        let told = if !offered.is_some_and(|capabilities| host::has(capabilities, "logging")) {
            Refusal::NotOffered(METHOD_NOT_FOUND).answer(id, "the server sends no log messages")
        } else if message
            .param_text("level")
            .is_none_or(|level| host::severity(&level).is_none())
        {
            Refusal::BadRequest(INVALID_PARAMS).answer(id, "no such level")
        } else {
            self.level = message.param("level").map(<[u8]>::to_vec);
            result(id, b"{}")
        };
        out.push(Output::ToHost(told));
    }
}
