//! One JSON-RPC message, kept as the bytes it came in, and what the bridge has to know of it.
//!
//! Both sides see what the other wrote: unknown members, their order, number formats and escapes. So a message is never
//! decoded and written again; it is read once for where its parts lie ([`Message::read`]), and where an era wants another
//! `_meta`, `id` or member, that place alone is written anew ([`Edit`]).
//!
//! A name that is there twice is refused where it matters here: one reader takes the first, another the last, and a header
//! that repeats one of them would vouch for the other.

mod edit;
mod id;
pub(crate) mod json;
mod parts;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use bytes::Bytes;

pub use edit::Edit;
pub(crate) use edit::object;
pub use id::Id;
use json::{Cursor, Span};
use parts::{Found, Object, TOP, known};

/// `_meta`: the protocol version of a request (2026-07-28).
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta`: who sends a request.
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// `_meta`: what the sender of a request can do.
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// `_meta`: from which severity on a request wants log messages.
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// `_meta`: the subscription a notification belongs to.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
/// `_meta`: who answers.
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// Why some bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// They are no UTF-8.
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 {
        /// The first byte that is none.
        at: usize,
    },
    /// They are no JSON.
    #[error("not JSON at byte {at}")]
    NotJson {
        /// The first byte that cannot stand there.
        at: usize,
    },
    /// More brackets are open than any reader should have to follow.
    #[error("nested too deeply at byte {at}")]
    TooDeep {
        /// Where the last one opens.
        at: usize,
    },
    /// A name that decides something is there twice.
    #[error("{name:?} is there twice")]
    Duplicate {
        /// The name.
        name: &'static str,
    },
    /// The id is neither a string nor a number.
    #[error("the id is neither a string nor a number")]
    Id,
    /// It is an array: several messages, see [`crate::batch`].
    #[error("a batch")]
    Batch,
    /// A batch with nothing in it, or with too much.
    #[error("a batch of {count} messages")]
    BatchSize {
        /// How many there are, as far as they were counted.
        count: usize,
    },
    /// It is JSON, but no message.
    #[error("not a JSON-RPC message")]
    NotAMessage,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A method and an id.
    Request,
    /// A method and no id.
    Notification,
    /// A result.
    Result,
    /// An error.
    Error,
}

/// What a result says of itself (2026-07-28).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultType {
    /// It is the answer; also where nothing is said, as before 2026-07-28.
    Complete,
    /// The server wants to know something first.
    InputRequired,
    /// Something else.
    Other,
}

/// A message and where its parts lie.
#[derive(Debug, Clone)]
pub struct Message {
    raw: Bytes,
    kind: Kind,
    id: Option<Id>,
    top: Object,
    params: Option<Object>,
    meta: Option<Object>,
    result: Option<Object>,
    error: Option<Object>,
}

impl Message {
    /// Reads a message. One pass over the bytes, nothing copied.
    ///
    /// # Errors
    /// [`Malformed`]: what is wrong with it. A surrogate without its other half is not: it passes as it is.
    pub fn read(raw: Bytes) -> Result<Self, Malformed> {
        std::str::from_utf8(&raw).map_err(|error| Malformed::NotUtf8 {
            at: error.valid_up_to(),
        })?;
        let mut cursor = Cursor::at(&raw, 0);
        match cursor.next() {
            Some(b'{') => {}
            Some(b'[') => return Err(Malformed::Batch),
            _ => {
                cursor.value()?;
                cursor.end()?;
                return Err(Malformed::NotAMessage);
            }
        }
        let mut found = Found::default();
        let top = known(&raw, &mut cursor, TOP, &mut |cursor, name| {
            found.read(&raw, cursor, name)
        })?;
        cursor.end()?;
        let Found {
            params,
            meta,
            result,
            error,
        } = found;
        let id = top
            .member("id")
            .map(|id| Id::read(&raw[id.value.clone()]))
            .transpose()?
            .flatten();
        let kind = match (
            top.member("method"),
            top.member("result"),
            top.member("error"),
        ) {
            (Some(method), None, None) if raw[method.value.start] == b'"' => {
                if id.is_some() {
                    Kind::Request
                } else if top.member("id").is_some() {
                    return Err(Malformed::Id);
                } else {
                    Kind::Notification
                }
            }
            (None, Some(_), None) if id.is_some() => Kind::Result,
            (None, None, Some(_)) => Kind::Error,
            _ => return Err(Malformed::NotAMessage),
        };
        Ok(Self {
            kind,
            id,
            top,
            params,
            meta,
            result,
            error,
            raw,
        })
    }

    /// The message, as it came.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The message, as it came.
    #[must_use]
    pub fn into_raw(self) -> Bytes {
        self.raw
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its id. An error may have none.
    #[must_use]
    pub fn id(&self) -> Option<&Id> {
        self.id.as_ref()
    }

    /// Its method, decoded; empty for answers, and for a name that no `str` can hold.
    #[must_use]
    pub fn method(&self) -> Cow<'_, str> {
        self.top
            .member("method")
            .and_then(|method| json::decoded(self.at(&method.value)))
            .unwrap_or_default()
    }

    /// What the headers of 2026-07-28 call its name: `params.name` of `tools/call` and `prompts/get`, `params.uri` of
    /// `resources/read`.
    #[must_use]
    pub fn name(&self) -> Option<Cow<'_, str>> {
        let member = match &*self.method() {
            "tools/call" | "prompts/get" => "name",
            "resources/read" => "uri",
            _ => return None,
        };
        self.param_text(member)
    }

    /// Whether it has `params` that members can be put into (none at all counts).
    #[must_use]
    pub fn takes_params(&self) -> bool {
        self.params.is_some()
            || self
                .top
                .member("params")
                .is_none_or(|params| self.at(&params.value) == b"null")
    }

    /// `params`, as it is written.
    #[must_use]
    pub fn params(&self) -> Option<&[u8]> {
        self.top
            .member("params")
            .map(|params| self.at(&params.value))
    }

    /// A member of `params`, as it is written. Only names that the eras speak of are found.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&[u8]> {
        self.find(self.params.as_ref(), name)
    }

    /// A member of `params` that is a string, decoded.
    #[must_use]
    pub fn param_text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.param(name).and_then(json::decoded)
    }

    /// A member of `params._meta`, as it is written. Only names that the eras speak of are found.
    #[must_use]
    pub fn meta(&self, name: &str) -> Option<&[u8]> {
        self.find(self.meta.as_ref(), name)
    }

    /// The result, as it is written.
    #[must_use]
    pub fn result(&self) -> Option<&[u8]> {
        self.top
            .member("result")
            .map(|result| self.at(&result.value))
    }

    /// A member of the result, as it is written. Only names that the eras speak of are found.
    #[must_use]
    pub fn result_member(&self, name: &str) -> Option<&[u8]> {
        self.find(self.result.as_ref(), name)
    }

    /// A member of the result's `_meta`, as it is written.
    #[must_use]
    pub fn result_meta(&self, name: &str) -> Option<&[u8]> {
        let meta = self.result.as_ref()?.member("_meta")?;
        json::member(&self.raw, &meta.value, name).map(|value| self.at(&value))
    }

    /// What the result says of itself; `Complete` for what is no result.
    #[must_use]
    pub fn result_type(&self) -> ResultType {
        match self.result_member("resultType").map(json::decoded) {
            None => ResultType::Complete,
            Some(Some(text)) if text == "complete" => ResultType::Complete,
            Some(Some(text)) if text == "input_required" => ResultType::InputRequired,
            Some(_) => ResultType::Other,
        }
    }

    /// The error, as it is written.
    #[must_use]
    pub fn error(&self) -> Option<&[u8]> {
        self.top.member("error").map(|error| self.at(&error.value))
    }

    /// The error's code, where it is a whole number.
    #[must_use]
    pub fn error_code(&self) -> Option<i64> {
        std::str::from_utf8(self.find(self.error.as_ref(), "code")?)
            .ok()?
            .parse()
            .ok()
    }

    /// A member of the error's `data`, as it is written.
    #[must_use]
    pub fn error_data(&self, name: &str) -> Option<&[u8]> {
        let data = self.error.as_ref()?.member("data")?;
        json::member(&self.raw, &data.value, name).map(|value| self.at(&value))
    }

    /// Starts to write some places anew.
    pub fn edit(&self) -> Edit<'_> {
        Edit::new(self)
    }

    /// Gives the message back without one member of its result. Where nobody else holds the bytes, what lies before the
    /// member moves and nothing is copied: a result of many megabytes costs what a small one costs.
    #[must_use]
    pub fn into_without_result_member(self, name: &str) -> Bytes {
        let cut = self
            .result
            .as_ref()
            .map(|result| edit::removed(&self.raw, result, &[name]));
        let Some([cut]) = cut.as_deref() else {
            return self.raw;
        };
        let (cut, before) = (cut.clone(), cut.start);
        match self.raw.try_into_mut() {
            Ok(mut whole) if before <= whole.len() - cut.end => {
                whole.copy_within(..before, cut.end - before);
                whole.freeze().slice(cut.end - before..)
            }
            Ok(whole) => edit::apply(&whole, vec![(cut, Vec::new())]),
            Err(shared) => edit::apply(&shared, vec![(cut, Vec::new())]),
        }
    }

    pub(crate) fn slice(&self, part: &[u8]) -> Bytes {
        self.raw.slice_ref(part)
    }

    fn find(&self, object: Option<&Object>, name: &str) -> Option<&[u8]> {
        object?.member(name).map(|member| self.at(&member.value))
    }

    fn at(&self, span: &Span) -> &[u8] {
        &self.raw[span.clone()]
    }
}
