//! Sends to a server of the new era: headers, what its tools want, what broke off (TR-05 to TR-11).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::{
    Failure, HEADER_MISMATCH, INVALID_REQUEST, NEW, Note, Numbers, Output, Post, Refusal, Ticket,
    carried_error, harmless,
};
use crate::headers;
use crate::message::{
    CLIENT_CAPABILITIES, CLIENT_INFO, Id, Kind, Message, PROTOCOL_VERSION, ResultType, json,
};
use crate::tools::{self, Tools};

/// How many pages of a list are read to find what a tool wants.
const MAX_PAGES: u32 = 64;

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Call {
    /// What the host wrote, or the bridge itself.
    pub(crate) origin: Message,
    /// What was sent of it.
    sent: Message,
    pub(crate) purpose: Purpose,
    /// How often the server has asked back.
    pub(crate) rounds: u32,
    /// Its tools have been listed again for it.
    fitted: bool,
    /// It broke off once.
    again: bool,
}

/// Whose request it is.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// The host's.
    Host,
    /// Ours, to learn who the server is.
    Discover,
    /// Ours, to hear of changes.
    Listen,
    /// Ours, to learn what a tool wants, for a request that was refused with this error.
    Refresh(Box<Refresh>),
}

/// A request whose headers did not fit, while the tools are listed.
#[derive(Debug)]
pub(crate) struct Refresh {
    call: Call,
    /// How it was refused: what the host is told if the list does not help.
    refused: Message,
    page: u32,
}

impl Call {
    pub(crate) fn new(origin: Message, purpose: Purpose) -> Self {
        Self {
            sent: origin.clone(),
            origin,
            purpose,
            rounds: 0,
            fitted: false,
            again: false,
        }
    }

    /// The host's id; for what the bridge asks itself, ours.
    pub(crate) fn id(&self) -> Id {
        self.origin.id().cloned().unwrap_or_else(|| Id::of_text(""))
    }
}

/// Something came for a request.
#[derive(Debug)]
pub(crate) enum Came {
    /// A notification; the request goes on.
    Notification(Message),
    /// Its answer. Nothing more comes.
    Answer(Box<Call>, Message),
    /// Nothing more comes, and no answer came.
    Lost(Box<Call>),
}

/// Who sends.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    pub(crate) tools: Tools,
    pub(crate) numbers: Numbers,
    calls: BTreeMap<Ticket, Call>,
}

impl Sender {
    pub(crate) fn new(tools: Tools) -> Self {
        Self {
            tools,
            ..Self::default()
        }
    }

    /// Sends a request for the first time.
    pub(crate) fn send(
        &mut self,
        mut call: Call,
        raw: Bytes,
        after: Duration,
        out: &mut Vec<Output>,
    ) -> Option<Ticket> {
        match Message::read(raw) {
            Ok(sent) => {
                call.sent = sent;
                self.post(call, after, out)
            }
            Err(why) => {
                out.push(Output::Fail(Failure::Host(why)));
                None
            }
        }
    }

    /// Sends a notification.
    pub(crate) fn notify(&mut self, message: &Message, out: &mut Vec<Output>) {
        let Ok(headers) = headers::of(message, &version(message), &[]) else {
            return;
        };
        let ticket = self.numbers.ticket();
        let raw = message.raw().clone();
        out.push(Output::Post(Post {
            ticket,
            raw,
            headers,
            answered: false,
            after: Duration::ZERO,
        }));
    }

    fn post(&mut self, call: Call, after: Duration, out: &mut Vec<Output>) -> Option<Ticket> {
        let name = call.sent.name();
        let mirrors = name
            .as_deref()
            .map_or(&[][..], |name| self.tools.mirrors(name));
        match headers::of(&call.sent, &version(&call.sent), mirrors) {
            Ok(headers) => {
                drop(name);
                let ticket = self.numbers.ticket();
                let raw = call.sent.raw().clone();
                self.calls.insert(ticket, call);
                out.push(Output::Post(Post {
                    ticket,
                    raw,
                    headers,
                    answered: true,
                    after,
                }));
                Some(ticket)
            }
            Err(why) => {
                out.push(Output::ToHost(
                    Refusal::BadRequest(INVALID_REQUEST).answer(&call.id(), &why.to_string()),
                ));
                None
            }
        }
    }

    /// Sends a request once more, under a new id (TR-10, TR-13).
    fn post_again(&mut self, mut call: Call, out: &mut Vec<Output>) {
        let raw = call.sent.edit().id(&self.numbers.id()).finish();
        if let Ok(sent) = Message::read(raw) {
            call.sent = sent;
            self.post(call, Duration::ZERO, out);
        }
    }

    /// A message came on the answer to a request.
    pub(crate) fn answered(
        &mut self,
        to: Ticket,
        raw: Bytes,
        out: &mut Vec<Output>,
    ) -> Option<Came> {
        let id = self.calls.get(&to)?.id();
        match Message::read(raw) {
            Ok(message) => match message.kind() {
                Kind::Notification => Some(Came::Notification(message)),
                Kind::Result | Kind::Error => self.finish(to, message, out),
                Kind::Request => {
                    out.push(Output::Note(Note::LeftOut(message.method().into_owned())));
                    None
                }
            },
            Err(why) => {
                out.push(Output::Fail(Failure::Server(why)));
                out.push(Output::CloseStream(to));
                let told = Refusal::NotMcp.answer(&id, "the server's answer cannot be read");
                self.finish(to, Message::read(told).ok()?, out)
            }
        }
    }

    /// A request was refused with a status.
    pub(crate) fn refused(
        &mut self,
        to: Ticket,
        status: u16,
        body: Bytes,
        out: &mut Vec<Output>,
    ) -> Option<Came> {
        let id = self.calls.get(&to)?.id();
        let message = match carried_error(body, &id) {
            Some(message) => message,
            None => {
                let why = format!("the server answered with HTTP {status}");
                Message::read(Refusal::Status(status).answer(&id, &why)).ok()?
            }
        };
        self.finish(to, message, out)
    }

    /// Nothing more comes for a request.
    pub(crate) fn ended(&mut self, to: Ticket, out: &mut Vec<Output>) -> Option<Came> {
        let mut call = self.calls.remove(&to)?;
        let method = call.sent.method().into_owned();
        if harmless(&method) && !call.again {
            call.again = true;
            out.push(Output::Note(Note::SentAgain(method)));
            self.post_again(call, out);
            return None;
        }
        match call.purpose {
            Purpose::Refresh(refresh) => {
                Some(Came::Answer(Box::new(refresh.call), refresh.refused))
            }
            _ => Some(Came::Lost(Box::new(call))),
        }
    }

    /// Stops the request that the host calls so. Gives it back, if there was one.
    pub(crate) fn cancel(&mut self, id: &Id, out: &mut Vec<Output>) -> Option<Call> {
        let ticket = self.calls.iter().find_map(|(ticket, call)| {
            let host = match &call.purpose {
                Purpose::Host => call,
                Purpose::Refresh(refresh) => &refresh.call,
                _ => return None,
            };
            host.origin
                .id()
                .is_some_and(|found| found.same(id))
                .then_some(*ticket)
        })?;
        out.push(Output::CloseStream(ticket));
        self.calls.remove(&ticket)
    }

    /// Stops one of our own requests.
    pub(crate) fn stop(&mut self, ticket: Ticket, out: &mut Vec<Output>) {
        if self.calls.remove(&ticket).is_some() {
            out.push(Output::CloseStream(ticket));
        }
    }

    /// Forgets a request whose answer is over.
    pub(crate) fn forget(&mut self, ticket: Ticket) -> Option<Call> {
        self.calls.remove(&ticket)
    }

    /// Says whose a request is that is under way.
    pub(crate) fn purpose(&self, ticket: Ticket) -> Option<&Purpose> {
        self.calls.get(&ticket).map(|call| &call.purpose)
    }

    fn finish(&mut self, ticket: Ticket, message: Message, out: &mut Vec<Output>) -> Option<Came> {
        let mut call = self.calls.remove(&ticket)?;
        if let Purpose::Refresh(refresh) = call.purpose {
            return self.refreshed(*refresh, &message, out);
        }
        let misfit =
            message.error_code() == Some(HEADER_MISMATCH) && call.sent.method() == "tools/call";
        if misfit && !call.fitted && matches!(call.purpose, Purpose::Host) {
            out.push(Output::Note(Note::HeadersDidNotFit));
            call.fitted = true;
            self.refresh(
                Refresh {
                    call,
                    refused: message,
                    page: 0,
                },
                None,
                out,
            );
            return None;
        }
        Some(Came::Answer(Box::new(call), message))
    }

    /// Asks for a page of tools.
    fn refresh(&mut self, refresh: Refresh, cursor: Option<&[u8]>, out: &mut Vec<Output>) {
        let meta: Vec<_> = [PROTOCOL_VERSION, CLIENT_INFO, CLIENT_CAPABILITIES]
            .into_iter()
            .filter_map(|name| Some((name, refresh.call.sent.meta(name)?.to_vec())))
            .collect();
        let raw = tools::refresh(self.numbers.id().as_str(), &meta, cursor);
        if let Ok(origin) = Message::read(raw) {
            let purpose = Purpose::Refresh(Box::new(refresh));
            self.post(Call::new(origin, purpose), Duration::ZERO, out);
        }
    }

    fn refreshed(
        &mut self,
        refresh: Refresh,
        list: &Message,
        out: &mut Vec<Output>,
    ) -> Option<Came> {
        if list.kind() != Kind::Result || list.result_member("tools").is_none() {
            return Some(Came::Answer(Box::new(refresh.call), refresh.refused));
        }
        let listed = self.tools.list(list, refresh.page == 0, true);
        out.extend(
            listed
                .hidden
                .into_iter()
                .map(|tool| Output::Note(Note::Hidden(tool))),
        );
        match list
            .result_member("nextCursor")
            .filter(|cursor| *cursor != b"null")
        {
            Some(cursor) if refresh.page < MAX_PAGES => {
                let refresh = Refresh {
                    page: refresh.page + 1,
                    ..refresh
                };
                self.refresh(refresh, Some(cursor), out);
            }
            _ => self.post_again(refresh.call, out),
        }
        None
    }

    /// The answer to a host's request, as the host is to get it: under its own id, lists without what is hidden, and
    /// `plain`, for an old host, without the word that it is complete.
    pub(crate) fn deliver(
        &mut self,
        call: &Call,
        message: Message,
        plain: bool,
        out: &mut Vec<Output>,
    ) {
        let id = call.id();
        let mut message = message;
        if message.id() != Some(&id) {
            match Message::read(message.edit().id(&id).finish()) {
                Ok(renamed) => message = renamed,
                Err(_) => return,
            }
        }
        if message.result_member("tools").is_some() && call.origin.method() == "tools/list" {
            let first = call
                .origin
                .param("cursor")
                .is_none_or(|cursor| cursor == b"null");
            let listed = self.tools.list(&message, first, true);
            out.extend(
                listed
                    .hidden
                    .into_iter()
                    .map(|tool| Output::Note(Note::Hidden(tool))),
            );
            match Message::read(listed.raw) {
                Ok(listed) => message = listed,
                Err(_) => return,
            }
        }
        let strip = plain && message.result_type() == ResultType::Complete;
        let raw = if strip {
            message.into_without_result_member("resultType")
        } else {
            message.into_raw()
        };
        out.push(Output::ToHost(raw));
    }
}

/// The version that a message names: its header has to say the same (TR-03).
fn version(message: &Message) -> String {
    message
        .meta(PROTOCOL_VERSION)
        .and_then(json::decoded)
        .map_or_else(|| NEW.to_owned(), |version| version.into_owned())
}
