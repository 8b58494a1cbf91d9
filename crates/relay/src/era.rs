//! The two eras of MCP, and what is said in one put into the other (TR-16 to TR-18).
//!
//! *Old* (2024-11-05 to 2025-11-25): a session begins with `initialize`, the server asks the host back (sampling,
//! elicitation, roots), changes come by themselves. *New* (2026-07-28): no session; each request says in `_meta` who asks
//! and what they can do; a server that wants to know something ends the request with the question (`input_required`), and
//! the same request comes again with the answer; changes come on the answer of `subscriptions/listen`.
//!
//! ```text
//!   host   server   who sits between
//!   old    old      nobody: the bytes pass
//!   new    new      [`Stateless`]: headers, tool lists, cancelling
//!   old    new      [`OldHost`]: answers the handshake, asks the host what the server wants to know
//!   new    old      [`NewHost`]: makes the handshake, ends a request with what the server asks
//! ```
//!
//! Each is a state machine without clock, socket or task: [`Input`] goes in, [`Output`] comes out, in the order in which it
//! is to be done. Which one is needed is told by [`host_era`] and by [`detect`].

pub mod detect;
mod host;
mod new_host;
mod old_host;
mod refusal;
mod stateless;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::message::{Id, Kind, Malformed, Message, PROTOCOL_VERSION, json};
use crate::tools::Hidden;
pub use new_host::NewHost;
pub use old_host::OldHost;
pub(crate) use refusal::Refusal;
pub use stateless::Stateless;

/// The version of the new era that is spoken here.
pub const NEW: &str = "2026-07-28";
/// The versions of the old era, the newest first.
pub const OLD: &[&str] = &["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// An era.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// Sessions: 2024-11-05 to 2025-11-25.
    Old,
    /// No sessions: 2026-07-28.
    New,
}

/// Names one POST, from the [`Post`] on to the last [`Input`] about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The host wrote a message.
    Host(Bytes),
    /// A message came on the answer to a POST: the body, or one event of a stream.
    Answer {
        /// Which POST.
        to: Ticket,
        /// The message.
        raw: Bytes,
    },
    /// A POST was answered with a status that is no success.
    Refused {
        /// Which POST.
        to: Ticket,
        /// The status.
        status: u16,
        /// The body, as much of it as an error may have.
        body: Bytes,
    },
    /// Nothing more comes for a POST; also where it never got an answer. Not needed after `Refused`, and harmless.
    Ended {
        /// Which POST.
        to: Ticket,
    },
    /// A message came from the server, but on no answer: on the stream that a GET opened.
    Server(Bytes),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write a message to the host.
    ToHost(Bytes),
    /// Send a message to the server.
    Post(Post),
    /// Stop reading an answer, and close its stream. Nothing more about it is to be told.
    CloseStream(Ticket),
    /// It cannot go on like this.
    Fail(Failure),
    /// Something for the log.
    Note(Note),
}

/// A message for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// Its name in what is told about it.
    pub ticket: Ticket,
    /// The message.
    pub raw: Bytes,
    /// Headers that repeat parts of it. The old era has none but the agreed version, which is the wire's to know.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether it is a request: only then something is to be told about it.
    pub answered: bool,
    /// How long to wait before it is sent.
    pub after: Duration,
}

/// What cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The host wrote something that is no message. It has been told, where that was possible.
    #[error("what the host wrote cannot be read: {0}")]
    Host(Malformed),
    /// The server wrote something that is no message. The request it answers has been answered with an error.
    #[error("what the server wrote cannot be read: {0}")]
    Server(Malformed),
    /// The host speaks the other era now (one that knows both gives up on its first try). Its message is handed back: find
    /// the right machine, and begin with it.
    #[error("the host speaks the other era")]
    HostEra(Bytes),
    /// The server does not speak the era it was taken for. The host's messages that wait are handed back: see whether it
    /// speaks HTTP+SSE, and begin with them.
    #[error("the server speaks another era")]
    ServerEra(Vec<Bytes>),
}

/// Something for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A tool is hidden (TR-08: should be told, with the reason).
    Hidden(Hidden),
    /// A server said that headers do not fit; its tools are listed again (TR-09).
    HeadersDidNotFit,
    /// An answer broke off; its request is harmless and sent again (TR-10).
    SentAgain(String),
    /// A message that has no place in the other era is left out.
    LeftOut(String),
}

/// What the bridge is called where it has to name someone itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
}

impl Identity {
    pub(crate) fn json(&self) -> Vec<u8> {
        format!(
            "{{\"name\":{},\"version\":{}}}",
            json::quoted(&self.name),
            json::quoted(&self.version)
        )
        .into_bytes()
    }
}

/// The era that a host speaks, as far as one message tells: `initialize` is old, `server/discover` and a version in `_meta`
/// are new (TR-16). A `ping` tells nothing.
#[must_use]
pub fn host_era(message: &Message) -> Option<Era> {
    match &*message.method() {
        "initialize" | "notifications/initialized" => Some(Era::Old),
        "server/discover" | "subscriptions/listen" => Some(Era::New),
        _ if message.meta(PROTOCOL_VERSION).is_some() => Some(Era::New),
        _ => None,
    }
}

/// How an error of the bridge begins.
pub(crate) const NAME: &str = "pilotlight: ";
/// Something is wrong with the server. The number is ours: JSON-RPC leaves it to whoever answers.
pub(crate) const SERVER_ERROR: i64 = -32000;
/// JSON-RPC: the text is no JSON.
pub(crate) const PARSE_ERROR: i64 = -32700;
/// JSON-RPC: the message is no request.
pub(crate) const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC: no such method.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC: something about the parameters.
pub(crate) const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC: something went wrong here.
pub(crate) const INTERNAL_ERROR: i64 = -32603;
/// MCP, old era: no such resource.
pub(crate) const RESOURCE_NOT_FOUND: i64 = -32002;
/// MCP 2025-11-25: a URL has to be visited first.
pub(crate) const URL_ELICITATION_REQUIRED: i64 = -32042;
/// MCP, new era: headers and message do not fit.
pub(crate) const HEADER_MISMATCH: i64 = -32020;
/// MCP, new era: the request needs what the host cannot do.
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
/// MCP, new era: no such version.
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;

/// Whether a request may be sent again when its answer broke off: whoever asks twice changes nothing (TR-10).
pub(crate) fn harmless(method: &str) -> bool {
    matches!(
        method,
        "server/discover"
            | "tools/list"
            | "prompts/list"
            | "prompts/get"
            | "resources/list"
            | "resources/read"
            | "resources/templates/list"
            | "completion/complete"
    )
}

/// An answer with a result.
pub(crate) fn result(id: &Id, raw: &[u8]) -> Bytes {
    let mut text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":", id.as_str()).into_bytes();
    text.extend_from_slice(raw);
    text.push(b'}');
    text.into()
}

/// An answer with an error, for the server: the host is told by a [`Refusal`].
pub(crate) fn error(id: &Id, code: i64, message: &str) -> Bytes {
    raw_error(
        id,
        format!("{{\"code\":{code},\"message\":{}}}", json::quoted(message)).as_bytes(),
    )
}

/// An answer with an error that is written already.
pub(crate) fn raw_error(id: &Id, error: &[u8]) -> Bytes {
    let mut text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":", id.as_str()).into_bytes();
    text.extend_from_slice(error);
    text.push(b'}');
    text.into()
}

/// A request or, without an id, a notification.
pub(crate) fn call(id: Option<&Id>, method: &[u8], params: Option<&[u8]>) -> Bytes {
    let mut text = b"{\"jsonrpc\":\"2.0\",".to_vec();
    if let Some(id) = id {
        text.extend_from_slice(format!("\"id\":{},", id.as_str()).as_bytes());
    }
    text.extend_from_slice(b"\"method\":");
    text.extend_from_slice(method);
    if let Some(params) = params {
        text.extend_from_slice(b",\"params\":");
        text.extend_from_slice(params);
    }
    text.push(b'}');
    text.into()
}

/// Reads what the host wrote, or tells it that this was no message.
pub(crate) fn read_host(raw: Bytes, out: &mut Vec<Output>) -> Option<Message> {
    match Message::read(raw) {
        Ok(message) => Some(message),
        Err(why) => {
            let refusal = match why {
                Malformed::NotJson { .. } | Malformed::NotUtf8 { .. } => Refusal::NotJson,
                _ => Refusal::NotMessage,
            };
            let error = refusal.error(&why.to_string(), "");
            let null = Bytes::from(format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{error}}}"
            ));
            out.push(Output::ToHost(null));
            out.push(Output::Fail(Failure::Host(why)));
            None
        }
    }
}

/// The error that an answer with a status carries, if it does: with the id of the request that it answers.
pub(crate) fn carried_error(body: Bytes, id: &Id) -> Option<Message> {
    let message = Message::read(body)
        .ok()
        .filter(|message| message.kind() == Kind::Error)?;
    Message::read(message.edit().id(id).finish()).ok()
}

/// Hands out numbers for tickets and for the ids of what the bridge asks itself.
#[derive(Debug, Default)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.0 += 1;
        Ticket(self.0)
    }

    /// An id that no host is likely to use.
    pub(crate) fn id(&mut self) -> Id {
        self.0 += 1;
        Id::of_text(&format!("pilotlight-{}", self.0))
    }
}
