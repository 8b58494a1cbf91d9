//! A host of the new era in front of a server of the old era.
//!
//! ```text
//!   host                          here                                server
//!   (its first request)    ->     initialize, in its name        ->
//!                                 notifications/initialized      ->
//!   server/discover        ->     (answered from what it said)
//!   tools/call 7           ->     7, without what is new in `_meta` ->
//!   input_required         <-     (7 ends, the server's call goes on) <-   elicitation/create 3
//!   tools/call 8, the answer, requestState ->  the answer to 3   ->
//!   the answer, as 8       <-     `resultType` put in            <-   the answer to 7
//!   subscriptions/listen   ->     resources/subscribe, each      ->
//!   changes, with its id   <-                                    <-   changes, by themselves
//!   logLevel in `_meta`    ->     logging/setLevel, where milder ->
//! ```

mod listen;
mod questions;
mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Failure, INVALID_PARAMS, Identity, Input, METHOD_NOT_FOUND, NEW, Note, Numbers, OLD, Output,
    Post, Refusal, Ticket, UNSUPPORTED_VERSION, call as request, host, raw_error, read_host,
    result,
};
use crate::message::{
    CLIENT_CAPABILITIES, CLIENT_INFO, Id, Kind, LOG_LEVEL, Message, PROTOCOL_VERSION, SERVER_INFO,
    json, object,
};
use crate::tools::Tools;
use listen::Listens;
use questions::Question;

/// How many requests may wait for the handshake.
const MAX_WAITING: usize = 1024;

/// The machine for new hosts and old servers.
#[derive(Debug)]
pub struct NewHost {
    bridge: Identity,
    tools: Tools,
    numbers: Numbers,
    stage: Stage,
    /// What the host wrote before the handshake was done.
    waiting: Vec<Message>,
    calls: BTreeMap<Ticket, Call>,
    listens: Listens,
    /// Errors that ended with "visit this URL first", by the state that the host was given.
    visits: BTreeMap<String, questions::Visit>,
    /// The mildest log messages that the server has been told to send.
    level: Option<usize>,
}

#[derive(Debug)]
enum Stage {
    Closed,
    Opening,
    Open(Session),
}

/// What an old server said of itself.
#[derive(Debug)]
struct Session {
    capabilities: Bytes,
    info: Option<Bytes>,
    instructions: Option<Bytes>,
}

/// A request that is under way.
#[derive(Debug)]
struct Call {
    purpose: Purpose,
    /// What was sent.
    sent: Message,
    /// What the host wrote when it began; for our own, what was sent.
    origin: Message,
    /// Under which id the host waits for it now; none while it thinks about a question.
    waits: Option<Id>,
    /// What the host calls its progress now.
    progress: Option<Vec<u8>>,
    /// What the host is given to name it by, once the server has asked something.
    state: Option<String>,
    questions: Vec<Question>,
    /// The answer, if it came while nobody waited.
    early: Option<Message>,
}

#[derive(Debug, PartialEq, Eq)]
enum Purpose {
    Host,
    Initialize,
    /// For a subscription of the host's.
    Subscribe {
        uri: String,
    },
    /// Nobody waits for it.
    Ours,
}

impl NewHost {
    /// Begins. Of `tools` only what the person asked to hide counts.
    #[must_use]
    pub fn new(bridge: Identity, tools: Tools) -> Self {
        Self {
            bridge,
            tools,
            numbers: Numbers::default(),
            stage: Stage::Closed,
            waiting: Vec::new(),
            calls: BTreeMap::new(),
            listens: Listens::default(),
            visits: BTreeMap::new(),
            level: None,
        }
    }

    /// Takes what happened, and says what is to be done.
    pub fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Host(raw) => {
                if let Some(message) = read_host(raw, &mut out) {
                    self.host(message, &mut out);
                }
            }
            Input::Answer { to, raw } => self.server(Some(to), raw, &mut out),
            Input::Server(raw) => self.server(None, raw, &mut out),
            Input::Refused { to, status, body } => self.refused(to, status, body, &mut out),
            Input::Ended { to } => self.ended(to, &mut out),
        }
        out
    }

    fn host(&mut self, message: Message, out: &mut Vec<Output>) {
        match (message.kind(), message.id().cloned()) {
            (Kind::Request, Some(id)) => {
                if let Some(refusal) = self.unfit(&id, &message, out) {
                    out.extend(refusal);
                    return;
                }
                match self.stage {
                    Stage::Open(_) => self.request(id, message, out),
                    _ if self.waiting.len() >= MAX_WAITING => {
                        out.push(Output::ToHost(
                            Refusal::TooMany.answer(&id, "too many requests wait for the server"),
                        ));
                    }
                    Stage::Opening => self.waiting.push(message),
                    Stage::Closed => {
                        self.initialize(&message, out);
                        self.waiting.push(message);
                    }
                }
            }
            (Kind::Notification, _) if message.method() == "notifications/cancelled" => {
                self.cancelled(&message, out)
            }
            (Kind::Notification, _) if matches!(self.stage, Stage::Open(_)) => {
                let raw = undressed(&message);
                self.tell(raw, out);
            }
            _ => out.push(Output::Note(Note::LeftOut(
                "an answer, or a notification before any request".to_owned(),
            ))),
        }
    }

    /// Says why a request is none of the new era, or none that may be made: a refusal, or a failure without one.
    fn unfit(
        &mut self,
        id: &Id,
        message: &Message,
        out: &mut Vec<Output>,
    ) -> Option<Option<Output>> {
        let refuse = |why: Refusal, text: &str| Some(Some(Output::ToHost(why.answer(id, text))));
        let bad = Refusal::BadRequest(INVALID_PARAMS);
        if message.method() == "initialize" {
            out.push(Output::Fail(Failure::HostEra(message.raw().clone())));
            return Some(None);
        }
        let version = message.meta(PROTOCOL_VERSION).and_then(json::decoded);
        match version.as_deref() {
            None => return refuse(bad, "_meta names no protocol version"),
            Some(NEW) => {}
            Some(other) => {
                let data = format!(
                    ",\"supported\":[\"{NEW}\"],\"requested\":{}",
                    json::quoted(other)
                );
                let wrong = Refusal::BadRequest(UNSUPPORTED_VERSION);
                let error = wrong.error("Unsupported protocol version", &data);
                return Some(Some(Output::ToHost(raw_error(id, error.as_bytes()))));
            }
        }
        if !message
            .meta(CLIENT_CAPABILITIES)
            .is_some_and(|raw| raw.starts_with(b"{"))
        {
            return refuse(bad, "_meta names no client capabilities");
        }
        match &*message.method() {
            "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => {
                let why = Refusal::BadRequest(METHOD_NOT_FOUND);
                refuse(why, "not a method of this version")
            }
            "tools/call" if message.name().is_some_and(|name| self.tools.ignored(&name)) => {
                refuse(Refusal::Hidden, "this tool is ignored by request")
            }
            _ => None,
        }
    }

    fn initialize(&mut self, first: &Message, out: &mut Vec<Output>) {
        let info = first.meta(CLIENT_INFO).filter(|raw| raw.starts_with(b"{"));
        let params = object(vec![
            ("protocolVersion", json::quoted(OLD[0]).into_bytes()),
            (
                "capabilities",
                first.meta(CLIENT_CAPABILITIES).unwrap_or(b"{}").to_vec(),
            ),
            (
                "clientInfo",
                info.map_or_else(|| self.bridge.json(), <[u8]>::to_vec),
            ),
        ]);
        self.stage = Stage::Opening;
        self.ask("initialize", &params, Purpose::Initialize, out);
    }

    /// The handshake is done: what waits goes on.
    fn opened(&mut self, session: Session, out: &mut Vec<Output>) {
        self.stage = Stage::Open(session);
        self.tell(request(None, b"\"notifications/initialized\"", None), out);
        for message in std::mem::take(&mut self.waiting) {
            if let Some(id) = message.id().cloned() {
                self.request(id, message, out);
            }
        }
    }

    fn request(&mut self, id: Id, message: Message, out: &mut Vec<Output>) {
        match &*message.method() {
            "server/discover" => out.push(Output::ToHost(self.discovered(&id))),
            "subscriptions/listen" => self.listen(id, &message, out),
            _ if message.param("requestState").is_some() => self.told(id, message, out),
            _ => self.forward(id, message, out),
        }
    }

    /// Sends a host's request to the server.
    fn forward(&mut self, id: Id, message: Message, out: &mut Vec<Output>) {
        self.want_level(&message, out);
        let mut raw = undressed(&message);
        // The host may use an id again when it has been answered; the server's call may still go on.
        let taken = self
            .calls
            .values()
            .any(|call| call.sent.id().is_some_and(|sent| sent.same(&id)));
        if taken && let Ok(plain) = Message::read(raw.clone()) {
            raw = plain.edit().id(&self.numbers.id()).finish();
        }
        let progress = message.meta("progressToken").map(<[u8]>::to_vec);
        let Ok(sent) = Message::read(raw) else { return };
        let call = Call {
            purpose: Purpose::Host,
            sent,
            origin: message,
            waits: Some(id),
            progress,
            state: None,
            questions: Vec::new(),
            early: None,
        };
        self.post(call, out);
    }

    /// Has the server send log messages as mild as this request wants.
    fn want_level(&mut self, message: &Message, out: &mut Vec<Output>) {
        let Some(level) = wanted(message) else { return };
        let Stage::Open(session) = &self.stage else {
            return;
        };
        if self.level.is_some_and(|now| now <= level)
            || !host::has(&session.capabilities, "logging")
        {
            return;
        }
        self.level = Some(level);
        let params = format!("{{\"level\":\"{}\"}}", host::LEVELS[level]);
        self.ask("logging/setLevel", params.as_bytes(), Purpose::Ours, out);
    }

    /// The answer to `server/discover`.
    fn discovered(&self, id: &Id) -> Bytes {
        let Stage::Open(session) = &self.stage else {
            return Refusal::NoAnswer.answer(id, "not connected");
        };
        let mut members = vec![
            ("resultType", b"\"complete\"".to_vec()),
            ("supportedVersions", format!("[\"{NEW}\"]").into_bytes()),
            ("capabilities", session.capabilities.to_vec()),
        ];
        if let Some(instructions) = &session.instructions {
            members.push(("instructions", instructions.to_vec()));
        }
        members.push(("ttlMs", b"0".to_vec()));
        members.push(("cacheScope", b"\"private\"".to_vec()));
        if let Some(info) = &session.info {
            members.push(("_meta", object(vec![(SERVER_INFO, info.to_vec())])));
        }
        result(id, &object(members))
    }

    fn cancelled(&mut self, message: &Message, out: &mut Vec<Output>) {
        let Some(id) = message.param("requestId").and_then(Id::of_value) else {
            return;
        };
        self.waiting
            .retain(|waiting| !waiting.id().is_some_and(|found| found.same(&id)));
        if self.unlisten(&id, out) {
            return;
        }
        let found = self
            .calls
            .iter()
            .find(|(_, call)| call.waits.as_ref().is_some_and(|waits| waits.same(&id)));
        let Some(ticket) = found.map(|(ticket, _)| *ticket) else {
            return;
        };
        if let Some(sent) = self
            .calls
            .remove(&ticket)
            .and_then(|call| call.sent.id().cloned())
        {
            // TR-37: told, and never by closing the stream.
            let raw = message.edit().param("requestId", sent.as_str()).finish();
            self.tell(raw, out);
        }
    }

    /// Asks the server something of our own.
    fn ask(
        &mut self,
        method: &str,
        params: &[u8],
        purpose: Purpose,
        out: &mut Vec<Output>,
    ) -> Option<Ticket> {
        let id = self.numbers.id();
        let sent = Message::read(request(
            Some(&id),
            json::quoted(method).as_bytes(),
            Some(params),
        ))
        .ok()?;
        let origin = sent.clone();
        let call = Call {
            purpose,
            sent,
            origin,
            waits: None,
            progress: None,
            state: None,
            questions: Vec::new(),
            early: None,
        };
        Some(self.post(call, out))
    }

    fn post(&mut self, call: Call, out: &mut Vec<Output>) -> Ticket {
        let ticket = self.numbers.ticket();
        let raw = call.sent.raw().clone();
        self.calls.insert(ticket, call);
        out.push(Output::Post(Post {
            ticket,
            raw,
            headers: Vec::new(),
            answered: true,
            after: Duration::ZERO,
        }));
        ticket
    }

    /// Sends what needs no answer: a notification, or the answer to a question.
    fn tell(&mut self, raw: Bytes, out: &mut Vec<Output>) {
        let ticket = self.numbers.ticket();
        out.push(Output::Post(Post {
            ticket,
            raw,
            headers: Vec::new(),
            answered: false,
            after: Duration::ZERO,
        }));
    }
}

/// A message without what is only of the new era.
fn undressed(message: &Message) -> Bytes {
    message
        .edit()
        .without_meta(PROTOCOL_VERSION)
        .without_meta(CLIENT_INFO)
        .without_meta(CLIENT_CAPABILITIES)
        .without_meta(LOG_LEVEL)
        .without_param("inputResponses")
        .without_param("requestState")
        .finish()
}

/// The mildest log messages that a request wants.
fn wanted(message: &Message) -> Option<usize> {
    message
        .meta(LOG_LEVEL)
        .and_then(json::decoded)
        .and_then(|level| host::severity(&level))
}
