//! What comes from a server of the old era.

use bytes::Bytes;

use super::super::detect::{Asked, Verdict, detect};
use super::super::{
    Failure, INVALID_PARAMS, Note, OLD, Output, RESOURCE_NOT_FOUND, Refusal, Ticket,
    URL_ELICITATION_REQUIRED, carried_error, host, raw_error, stateless::BROKE,
};
use super::{Call, NewHost, Purpose, Session, Stage, wanted};
use crate::message::{Id, Kind, Message};

/// The largest answer that is kept for a host that has not come back with its answers.
const MAX_EARLY: usize = 1 << 20;

impl NewHost {
    /// A message came: on the answer to a request, or on no answer.
    pub(super) fn server(&mut self, on: Option<Ticket>, raw: Bytes, out: &mut Vec<Output>) {
        match Message::read(raw) {
            Ok(message) => match message.kind() {
                Kind::Request => self.question(on, &message, out),
                Kind::Notification => self.news(on, message, out),
                Kind::Result | Kind::Error => {
                    if let Some(ticket) = on.or_else(|| self.ticket_of(&message)) {
                        self.answer(ticket, message, out);
                    }
                }
            },
            Err(why) => {
                out.push(Output::Fail(Failure::Server(why)));
                if let Some(ticket) = on {
                    let why = "the server's answer cannot be read";
                    self.fail(ticket, Refusal::NotMcp, why, out);
                }
            }
        }
    }

    /// A request was refused with a status.
    pub(super) fn refused(
        &mut self,
        ticket: Ticket,
        status: u16,
        body: Bytes,
        out: &mut Vec<Output>,
    ) {
        let Some(call) = self.calls.get(&ticket) else {
            return;
        };
        if call.purpose == Purpose::Initialize
            && !matches!(
                detect(Asked::Initialize, status, &body),
                Verdict::Unavailable | Verdict::Challenge
            )
        {
            self.calls.remove(&ticket);
            self.stage = Stage::Closed;
            let waiting = std::mem::take(&mut self.waiting)
                .into_iter()
                .map(Message::into_raw)
                .collect();
            return out.push(Output::Fail(Failure::ServerEra(waiting)));
        }
        match call.sent.id().and_then(|id| carried_error(body, id)) {
            Some(message) => self.answer(ticket, message, out),
            None => self.fail(
                ticket,
                Refusal::Status(status),
                &format!("the server answered with HTTP {status}"),
                out,
            ),
        }
    }

    /// Nothing more comes for a request.
    pub(super) fn ended(&mut self, ticket: Ticket, out: &mut Vec<Output>) {
        self.fail(ticket, Refusal::NoAnswer, BROKE, out);
    }

    fn fail(&mut self, ticket: Ticket, refusal: Refusal, why: &str, out: &mut Vec<Output>) {
        let id = self
            .calls
            .get(&ticket)
            .and_then(|call| call.sent.id().cloned());
        if let Some(message) = id.and_then(|id| Message::read(refusal.answer(&id, why)).ok()) {
            self.answer(ticket, message, out);
        }
    }

    /// Whose answer this is, for one that came on no answer.
    fn ticket_of(&self, message: &Message) -> Option<Ticket> {
        let id = message.id()?;
        let call = self
            .calls
            .iter()
            .find(|(_, call)| call.sent.id().is_some_and(|sent| sent.same(id)));
        call.map(|(ticket, _)| *ticket)
    }

    fn answer(&mut self, ticket: Ticket, message: Message, out: &mut Vec<Output>) {
        let Some(mut call) = self.calls.remove(&ticket) else {
            return;
        };
        match &call.purpose {
            Purpose::Ours => {}
            Purpose::Initialize => self.initialized(&message, out),
            Purpose::Subscribe { uri } => {
                let taken = message.kind() == Kind::Result;
                self.subscribed(uri, taken, out);
            }
            Purpose::Host => match call.waits.take() {
                Some(id) if message.error_code() == Some(URL_ELICITATION_REQUIRED) => {
                    self.visit(&id, &call, &message, out);
                }
                Some(id) => {
                    let raw = self.translated(&call.origin, &id, &message, out);
                    out.push(Output::ToHost(raw));
                }
                // The host thinks about a question that the server no longer needs answered.
                None => {
                    let short = message.raw().len() <= MAX_EARLY;
                    let told = Refusal::TooLarge.answer(
                        &Id::of_text(""),
                        "the answer came too early, and was too long to keep",
                    );
                    call.early = if short {
                        Some(message)
                    } else {
                        Message::read(told).ok()
                    };
                    call.questions.clear();
                    self.calls.insert(ticket, call);
                }
            },
        }
    }

    fn initialized(&mut self, answer: &Message, out: &mut Vec<Output>) {
        let part = |name| {
            answer
                .result_member(name)
                .filter(|raw| raw.starts_with(b"{"))
                .map(|raw| answer.slice(raw))
        };
        let version = answer
            .result_member("protocolVersion")
            .and_then(crate::message::json::decoded);
        let known = version.is_some_and(|version| OLD.contains(&&*version));
        if answer.kind() == Kind::Result && known {
            let session = Session {
                capabilities: part("capabilities").unwrap_or_else(|| Bytes::from_static(b"{}")),
                info: part("serverInfo"),
                instructions: answer
                    .result_member("instructions")
                    .map(|raw| answer.slice(raw)),
            };
            return self.opened(session, out);
        }
        // Each who waits hears why; the next request tries again.
        self.stage = Stage::Closed;
        for waiting in std::mem::take(&mut self.waiting) {
            if let Some(id) = waiting.id() {
                let told = match answer.error() {
                    Some(why) => raw_error(id, why),
                    None => Refusal::NoCommonVersion
                        .answer(id, "the server speaks no version that is spoken here"),
                };
                out.push(Output::ToHost(told));
            }
        }
    }

    /// An answer, as a host of the new era wants it: under the id it waits for, saying that it is complete.
    pub(super) fn translated(
        &mut self,
        origin: &Message,
        id: &Id,
        message: &Message,
        out: &mut Vec<Output>,
    ) -> Bytes {
        let method = origin.method();
        if method == "tools/list" && message.result_member("tools").is_some() {
            let first = origin.param("cursor").is_none();
            let listed = self.tools.list(message, first, false);
            out.extend(
                listed
                    .hidden
                    .into_iter()
                    .map(|tool| Output::Note(Note::Hidden(tool))),
            );
            if let Ok(message) = Message::read(listed.raw) {
                return dressed(&method, id, &message);
            }
        }
        dressed(&method, id, message)
    }

    /// A notification: to the requests and subscriptions that want it.
    fn news(&mut self, on: Option<Ticket>, message: Message, out: &mut Vec<Output>) {
        match &*message.method() {
            "notifications/progress" => self.progress(message, out),
            "notifications/message" => {
                let level = message
                    .param_text("level")
                    .and_then(|level| host::severity(&level));
                let wants = |call: &Call| {
                    wanted(&call.origin)
                        .is_some_and(|mildest| level.is_none_or(|level| level >= mildest))
                };
                let wanted = match on.and_then(|ticket| self.calls.get(&ticket)) {
                    Some(call) => wants(call),
                    None => self.calls.values().any(wants),
                };
                if wanted {
                    out.push(Output::ToHost(message.into_raw()));
                }
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
            | "notifications/resources/updated" => self.changed(&message, out),
            "notifications/cancelled" => self.withdrawn(&message),
            // The new era has no such word: the host tries again by itself.
            method @ "notifications/elicitation/complete" => {
                out.push(Output::Note(Note::LeftOut(method.to_owned())))
            }
            _ => out.push(Output::ToHost(message.into_raw())),
        }
    }

    /// Progress goes by the token that the host uses now: a request that came again has another.
    fn progress(&mut self, message: Message, out: &mut Vec<Output>) {
        let token = message.param("progressToken").and_then(Id::of_value);
        let call = token.as_ref().and_then(|token| {
            self.calls.values().find(|call| {
                let sent = call.sent.meta("progressToken").and_then(Id::of_value);
                sent.is_some_and(|sent| sent.same(token))
            })
        });
        let raw = match call {
            None => message.into_raw(),
            Some(Call { waits: None, .. } | Call { progress: None, .. }) => return,
            Some(Call {
                progress: Some(now),
                ..
            }) if message.param("progressToken") == Some(now) => message.into_raw(),
            Some(Call {
                progress: Some(now),
                ..
            }) => message.edit().param("progressToken", now.clone()).finish(),
        };
        out.push(Output::ToHost(raw));
    }
}

/// An answer with what the new era wants of it.
fn dressed(method: &str, id: &Id, message: &Message) -> Bytes {
    let mut edit = message.edit();
    if message.id() != Some(id) {
        edit = edit.id(id);
    }
    if message.kind() == Kind::Error {
        if message.error_code() == Some(RESOURCE_NOT_FOUND) && method == "resources/read" {
            edit = edit.code(INVALID_PARAMS);
        }
        return edit.finish();
    }
    let mut put = |name: &'static str, value: &str| {
        if message.result_member(name).is_none() {
            edit = std::mem::replace(&mut edit, message.edit()).result(name, value);
        }
    };
    put("resultType", "\"complete\"");
    if matches!(
        method,
        "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
    ) {
        put("ttlMs", "0");
        put("cacheScope", "\"private\"");
    }
    edit.finish()
}
