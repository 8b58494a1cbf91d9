//! What is said to a host in the place of an answer: JSON-RPC errors with a stable code in their data.

use bytes::Bytes;
use pilotlight_core::{
    Error,
    error::{Action, NetworkFault},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    era::{INVALID_REQUEST, NAME, Refusal, SERVER_ERROR},
    frame::TooLong,
    scan::Id,
};

/// Why a request has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    /// No token, or no connection.
    #[error("{0}")]
    Session(Error),
    /// A person is being asked; what they have to open, if it is known.
    #[error("a login is needed: {error}")]
    Login { error: Error, url: Option<String> },
    /// The server answered with an HTTP status.
    #[error("the server answered HTTP {status}")]
    Status { status: u16, error: Option<Bytes> },
    /// The server's answer ended without one to this request.
    #[error(
        "the server's answer ended before it was complete; the request may have been carried out"
    )]
    NoAnswer,
    /// The server answered with something else than JSON or events.
    #[error("the server's answer is neither JSON nor a stream of events")]
    NotMcp,
    /// The answer has to be known whole and is too long for that.
    #[error("the server's answer is longer than {0} bytes")]
    TooLarge(usize),
    /// The request was longer than allowed.
    #[error("{0}")]
    TooLong(TooLong),
    /// What the host wrote is not JSON.
    #[error("this is not JSON")]
    NotJson,
    /// What the host wrote is JSON, and no message.
    #[error("this is no JSON-RPC message")]
    NotMessage,
    /// The person asked to hide the tool.
    #[error("the tool is hidden here")]
    Hidden,
    /// Too many requests are in flight.
    #[error("{0} requests wait for their answers already")]
    TooMany(usize),
    /// The server speaks neither transport.
    #[error("the server speaks neither Streamable HTTP nor HTTP+SSE here")]
    NoTransport,
    /// The server leads elsewhere, and further than is followed; where to, without what a secret could be in.
    #[error(
        "the server redirects to {0}: a redirect is followed within the server's own origin, three times at most"
    )]
    Redirected(String),
    /// Nobody reads answers any more.
    #[error("the host has gone")]
    HostGone,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(_: std::io::Error) -> Self {
        Self::HostGone
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    error: &'a RawValue,
}

#[derive(Serialize)]
struct Body {
    code: i64,
    message: String,
    data: Data,
}

#[derive(Default, Serialize)]
struct Data {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
}

impl Fault {
    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Session(error) | Self::Login { error, .. } => error.code(),
            Self::Status { status, .. } => Refusal::Status(*status).code(),
            Self::NoAnswer => Refusal::NoAnswer.code(),
            Self::NotMcp => Refusal::NotMcp.code(),
            Self::TooLarge(_) => Refusal::TooLarge.code(),
            Self::NotJson => Refusal::NotJson.code(),
            Self::NotMessage => Refusal::NotMessage.code(),
            Self::Hidden => Refusal::Hidden.code(),
            Self::TooMany(_) => Refusal::TooMany.code(),
            Self::NoTransport => "server.no_transport",
            Self::Redirected(_) => "server.redirected",
            Self::TooLong(_) => "bridge.frame_too_large",
            Self::HostGone => "bridge.host_gone",
        }
    }

    /// The connection broke, rather than anything being refused.
    pub(crate) fn is_broken(&self) -> bool {
        match self {
            Self::NoAnswer => true,
            Self::Session(Error::Network { why, .. }) => *why == NetworkFault::Broken,
            Self::Session(Error::Timeout { .. }) => true,
            _ => false,
        }
    }

    /// Nothing came for a long time.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Session(Error::Timeout { .. }))
    }

    /// The error as the answer to a request.
    pub(crate) fn answer(&self, id: Option<&Id>, login_command: &str) -> Vec<u8> {
        let id = id.and_then(|id| RawValue::from_string(id.as_str().to_owned()).ok());
        let id = id.unwrap_or_else(null);
        if let Self::Status {
            error: Some(error), ..
        } = self
            && let Some(error) = said(error)
        {
            return written(&id, error);
        }
        let (mut data, mut message) = (Data::default(), format!("{NAME}{self}"));
        data.code = self.code();
        match self {
            Self::Session(error) | Self::Login { error, .. } => {
                data.retry_after_seconds = error.retry_after().map(|after| after.as_secs());
                if matches!(error.action(), Action::LogIn) {
                    data.run = Some(login_command.to_owned());
                    message.push_str(". Run: ");
                    message.push_str(login_command);
                }
            }
            Self::Status { status, .. } => data.http_status = Some(*status),
            _ => {}
        }
        if let Self::Login { url: Some(url), .. } = self {
            message.push_str(". Or open: ");
            message.push_str(url);
            data.url = Some(url.clone());
        }
        let code = match self {
            Self::Session(_) | Self::Login { .. } => REFUSED,
            Self::TooLong(_) => INVALID_REQUEST,
            Self::NotMessage => Refusal::NotMessage.number(),
            Self::NotJson => Refusal::NotJson.number(),
            Self::Hidden => Refusal::Hidden.number(),
            _ => SERVER_ERROR,
        };
        let body = Body {
            code,
            message,
            data,
        };
        let body = serde_json::to_string(&body).and_then(RawValue::from_string);
        written(&id, &body.unwrap_or_else(|_| null()))
    }
}

/// The `error` member that a server has put into the body of an HTTP error.
fn said(body: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Shape {
        #[expect(dead_code, reason = "that it is there and a number is what is asked")]
        code: i64,
    }
    let message: Message<'_> = serde_json::from_slice(body).ok()?;
    serde_json::from_str::<Shape>(message.error.get()).ok()?;
    Some(message.error)
}

fn written(id: &RawValue, error: &RawValue) -> Vec<u8> {
    let answer = Answer {
        jsonrpc: "2.0",
        id,
        error,
    };
    serde_json::to_vec(&answer).unwrap_or_default()
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// What `mcp-remote` answers with where a login is in the way.
const REFUSED: i64 = -32001;

#[cfg(test)]
mod tests {
    use super::*;
    use pilotlight_core::error::LoginCause;

    /// T-33: what a person has to run, and the code that programs go by.
    #[test]
    fn a_needed_login_says_what_to_run() {
        let fault = Fault::Session(Error::login(LoginCause::Never));
        let text =
            String::from_utf8(fault.answer(Some(&Id::new("1.0")), "pilotlight login x")).unwrap();
        assert_eq!(
            text,
            r#"{"jsonrpc":"2.0","id":1.0,"error":{"code":-32001,"message":"pilotlight: nobody is logged in to this server. Run: pilotlight login x","data":{"code":"login.never","run":"pilotlight login x"}}}"#
        );
    }

    /// An error that a server puts into an HTTP error goes on as it is written, with the id that the host knows.
    #[test]
    fn a_servers_own_error_goes_on() {
        let error = Bytes::from_static(br#"{"jsonrpc":"2.0","id":null,"error":{"code": -32020, "message":"\u0041", "data":1e2}}"#);
        let fault = Fault::Status {
            status: 400,
            error: Some(error),
        };
        assert_eq!(
            String::from_utf8(fault.answer(Some(&Id::new("\"a\"")), "")).unwrap(),
            r#"{"jsonrpc":"2.0","id":"a","error":{"code": -32020, "message":"\u0041", "data":1e2}}"#
        );
        let fault = Fault::Status {
            status: 502,
            error: Some(Bytes::from_static(b"<html>")),
        };
        let text = String::from_utf8(fault.answer(None, "")).unwrap();
        assert!(
            text.contains(r#""id":null"#) && text.contains(r#""http_status":502"#),
            "{text}"
        );
    }
}
