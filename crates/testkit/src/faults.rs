//! What can be made to go wrong with a request to the authorization server.

use std::collections::{BTreeMap, VecDeque};

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::exchange::{Delivery, Response};

/// One misbehaviour.
///
/// In JSON: `{"fault":"status","status":503,"retry_after":2}`, `{"fault":"lose"}` and so on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// An HTTP error is answered and nothing is processed.
    Status {
        /// The HTTP status code.
        status: u16,
        /// The `Retry-After` field, in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
        /// The body; JSON `temporarily_unavailable` when absent.
        #[serde(default)]
        body: Option<String>,
    },
    /// The request waits before it is processed.
    Delay {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// The request is processed at once, the answer comes later.
    DelayAnswer {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// The request is processed, the answer is lost.
    Lose,
    /// The token response carries no refresh token, though one may have been rotated.
    OmitRefreshToken,
    /// The token response does not say how long the access token lives.
    OmitExpiresIn,
    /// A false `invalid_grant`: nothing is processed, spent or revoked.
    InvalidGrant,
    /// A 200 answer with any body; nothing is processed.
    Raw200 {
        /// The body.
        body: String,
        /// The media type; `application/json` when absent.
        #[serde(default)]
        content_type: Option<String>,
    },
    /// The connection is closed before the request is processed.
    Close,
}

impl Fault {
    /// Gives the name that ledgers use.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Delay { .. } => "delay",
            Self::DelayAnswer { .. } => "delay_answer",
            Self::Lose => "lose",
            Self::OmitRefreshToken => "omit_refresh_token",
            Self::OmitExpiresIn => "omit_expires_in",
            Self::InvalidGrant => "invalid_grant",
            Self::Raw200 { .. } => "raw200",
            Self::Close => "close",
        }
    }

    /// Gives the answer of a fault that keeps the request from being processed now; `None` for the others.
    pub(crate) fn instead(&self) -> Option<Response> {
        match self {
            Self::Status {
                status,
                retry_after,
                body,
            } => {
                let status =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
                let response = match body {
                    Some(body) => Response::with_body(status, media_type(body), body.as_str()),
                    None => oauth_error(status, "temporarily_unavailable", "try again later"),
                };
                Some(match retry_after {
                    Some(seconds) => {
                        response.with_header(http::header::RETRY_AFTER, &seconds.to_string())
                    }
                    None => response,
                })
            }
            Self::Delay { ms } => Some(Response::undelivered(Delivery::HoldMs(*ms))),
            Self::InvalidGrant => Some(oauth_error(
                StatusCode::BAD_REQUEST,
                "invalid_grant",
                "the grant is not valid",
            )),
            Self::Raw200 { body, content_type } => Some(
                Response::with_body(
                    StatusCode::OK,
                    content_type.as_deref().unwrap_or("application/json"),
                    body.as_str(),
                )
                .no_store(),
            ),
            Self::Close => Some(Response::undelivered(Delivery::Close)),
            Self::DelayAnswer { .. }
            | Self::Lose
            | Self::OmitRefreshToken
            | Self::OmitExpiresIn => None,
        }
    }

    /// Applies a fault of delivery to the answer of a request that was processed.
    pub(crate) fn afterwards(&self, response: &mut Response) {
        match self {
            Self::Lose => response.deliver = Delivery::LoseAnswer,
            Self::DelayAnswer { ms } => response.deliver = Delivery::DelayMs(*ms),
            _ => {}
        }
    }
}

/// A part of the authorization server that can be made to misbehave.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Endpoint {
    /// The well-known documents.
    Metadata,
    /// The authorization endpoint.
    Authorize,
    /// The token endpoint.
    #[default]
    Token,
    /// The device authorization endpoint, and its page.
    Device,
    /// The registration endpoint.
    Register,
    /// The revocation endpoint.
    Revoke,
}

/// A fault together with the endpoint it is meant for, as control requests send it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFault {
    /// Where; the token endpoint when absent.
    #[serde(default)]
    pub at: Endpoint,
    /// Whether it stays until it is taken away, instead of being used up by one request.
    #[serde(default)]
    pub standing: bool,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
}

/// The faults that wait for requests.
#[derive(Debug, Default)]
pub(crate) struct FaultQueue {
    once: BTreeMap<Endpoint, VecDeque<Fault>>,
    standing: BTreeMap<Endpoint, Fault>,
}

impl FaultQueue {
    pub(crate) fn push(&mut self, at: Endpoint, fault: Fault) {
        self.once.entry(at).or_default().push_back(fault);
    }

    pub(crate) fn set_standing(&mut self, at: Endpoint, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.standing.insert(at, fault),
            None => self.standing.remove(&at),
        };
    }

    /// Draws the fault for a request: the next of the queue, else the standing one.
    pub(crate) fn draw(&mut self, at: Endpoint) -> Option<Fault> {
        self.once
            .get_mut(&at)
            .and_then(VecDeque::pop_front)
            .or_else(|| self.standing.get(&at).cloned())
    }

    pub(crate) fn queued(&self) -> usize {
        self.once.values().map(VecDeque::len).sum()
    }

    pub(crate) fn clear(&mut self) {
        self.once.clear();
        self.standing.clear();
    }
}

/// Makes an OAuth error answer (RFC 6749 section 5.2).
pub(crate) fn oauth_error(status: StatusCode, error: &str, description: &str) -> Response {
    Response::json(
        status,
        &serde_json::json!({ "error": error, "error_description": description }),
    )
    .no_store()
}

fn media_type(body: &str) -> &'static str {
    match body.trim_start().as_bytes().first() {
        Some(b'{' | b'[' | b'"') => "application/json",
        Some(b'<') => "text/html; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    }
}
