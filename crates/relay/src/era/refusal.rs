//! What a machine says to the host where the server has not answered: errors with the codes of `docs/errors.md`.

use bytes::Bytes;

use super::{INTERNAL_ERROR, INVALID_REQUEST, NAME, PARSE_ERROR, SERVER_ERROR, raw_error};
use crate::message::{Id, json};

/// Why a request is answered with an error of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// What the host wrote is no JSON.
    NotJson,
    /// What the host wrote is JSON, and no message.
    NotMessage,
    /// The request does not fit its version of the protocol; JSON-RPC's number for how.
    BadRequest(i64),
    /// The person asked to hide the tool.
    Hidden,
    /// As much is under way as may be.
    TooMany,
    /// The server answered with an HTTP status.
    Status(u16),
    /// The server's answer ended before it was there.
    NoAnswer,
    /// The server's answer is no message.
    NotMcp,
    /// The server's answer is too long to be kept.
    TooLarge,
    /// The server has no such thing; JSON-RPC's number for that.
    NotOffered(i64),
    /// The server speaks none of the versions that are spoken here.
    NoCommonVersion,
    /// The server asks back what cannot be put to the host.
    Unanswerable,
}

impl Refusal {
    /// The stable code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NotJson => "bridge.not_json",
            Self::NotMessage => "bridge.not_message",
            Self::BadRequest(_) => "bridge.bad_request",
            Self::Hidden => "bridge.tool_hidden",
            Self::TooMany => "bridge.too_many_requests",
            Self::Status(_) => "server.http_status",
            Self::NoAnswer => "server.no_answer",
            Self::NotMcp => "server.not_mcp",
            Self::TooLarge => "server.answer_too_large",
            Self::NotOffered(_) => "server.not_offered",
            Self::NoCommonVersion => "server.no_common_version",
            Self::Unanswerable => "server.unanswerable",
        }
    }

    /// The number that JSON-RPC wants.
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::NotJson => PARSE_ERROR,
            Self::NotMessage => INVALID_REQUEST,
            Self::BadRequest(number) | Self::NotOffered(number) => number,
            // As `mcp-remote` answers.
            Self::Hidden => INTERNAL_ERROR,
            _ => SERVER_ERROR,
        }
    }

    /// The answer to a request.
    pub(crate) fn answer(self, id: &Id, why: &str) -> Bytes {
        raw_error(id, self.error(why, "").as_bytes())
    }

    /// The error, with further members of `data`, each after a comma.
    pub(crate) fn error(self, why: &str, further: &str) -> String {
        let (number, code) = (self.number(), self.code());
        let message = json::quoted(&format!("{NAME}{why}"));
        let status = match self {
            Self::Status(status) => format!(",\"http_status\":{status}"),
            _ => String::new(),
        };
        format!(
            "{{\"code\":{number},\"message\":{message},\"data\":{{\"code\":\"{code}\"{status}{further}}}}}"
        )
    }
}
