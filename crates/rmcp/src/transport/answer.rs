//! What an answer to a POST or GET means: the rules of rmcp's reqwest client, which its worker relies on.
//!
//! | status | meaning |
//! | --- | --- |
//! | 202, 204 | accepted |
//! | 404 with a session | the session has expired: rmcp starts another (TR-31) |
//! | 401, 403 with a challenge | for the caller; the session has already tried what a token can do |
//! | 429, 5xx | the status and `Retry-After`, unless a JSON-RPC error says more |
//! | other 4xx to `server/discover` | a JSON-RPC error that tells rmcp which era the server is of (TR-15) |
//! | other 4xx with a JSON-RPC error | that error |
//! | 2xx | JSON or SSE; anything at all where no answer is awaited (TR-36) |

use futures_util::StreamExt;
use http::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use pilotlight_core::challenge::Demand;
use rmcp::{
    model::{ClientJsonRpcMessage, ClientRequest, ErrorData, JsonRpcMessage, ServerJsonRpcMessage},
    transport::{
        common::http_header::{EVENT_STREAM_MIME_TYPE, HEADER_SESSION_ID, JSON_MIME_TYPE},
        streamable_http_client::{
            AuthRequiredError, HttpStatusError, InsufficientScopeError, StreamableHttpError,
            StreamableHttpPostResponse, StreamableHttpResponseLimits,
        },
    },
};

use super::{Events, Failure, sse::Bytestream};

/// What was asked.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) message: &'a ClientJsonRpcMessage,
    /// Whether the request named a session.
    pub(super) in_session: bool,
}

/// What came of a POST.
pub(super) enum Answer<B> {
    /// Taken, and nothing to say.
    Accepted,
    /// One message, and the session that the answer names.
    Json(Box<ServerJsonRpcMessage>, Option<String>),
    /// Events, and the session that the answer names.
    Events(B, Option<String>),
}

impl<B> Answer<B> {
    /// The same in rmcp's words, with the body read by `events`.
    pub(super) fn into_rmcp(self, events: impl FnOnce(B) -> Events) -> StreamableHttpPostResponse {
        match self {
            Self::Accepted => StreamableHttpPostResponse::Accepted,
            Self::Json(message, session) => StreamableHttpPostResponse::Json(*message, session),
            Self::Events(body, session) => StreamableHttpPostResponse::Sse(events(body), session),
        }
    }
}

impl Question<'_> {
    /// Whether the server owes a JSON-RPC answer.
    fn awaits_answer(&self) -> bool {
        matches!(self.message, ClientJsonRpcMessage::Request(_))
    }

    /// Turns the rejection of a `server/discover` into an error that rmcp's lifecycle can classify: the server's own, or
    /// one in its place, under the ID that was asked with, since whoever rejected it may not have read that far.
    fn rejected_discovery<B>(&self, status: StatusCode, body: &str) -> Option<Answer<B>> {
        let ClientJsonRpcMessage::Request(request) = self.message else {
            return None;
        };
        let discovery = matches!(request.request, ClientRequest::DiscoverRequest(_));
        if self.in_session || !discovery || !status.is_client_error() || refuses_access(status) {
            return None;
        }
        let error = match serde_json::from_str(body) {
            Ok(ServerJsonRpcMessage::Error(error)) => error.error,
            _ => ErrorData::invalid_request(
                format!("server/discover rejected with HTTP {status}: {body}"),
                None,
            ),
        };
        Some(Answer::Json(
            Box::new(ServerJsonRpcMessage::error(error, Some(request.id.clone()))),
            None,
        ))
    }
}

/// Reads the answer to a POST.
pub(super) async fn of<B: Bytestream>(
    question: Question<'_>,
    response: Response<B>,
    limits: StreamableHttpResponseLimits,
) -> Result<Answer<B>, Failure> {
    let (head, body) = response.into_parts();
    let status = head.status;
    challenged(status, &head.headers)?;
    if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
        return Ok(Answer::Accepted);
    }
    if status == StatusCode::NOT_FOUND && question.in_session {
        return Err(StreamableHttpError::SessionExpired);
    }
    if !status.is_success() {
        return refused(question, status, &head.headers, body, limits).await;
    }
    let session = text(&head.headers, HEADER_SESSION_ID);
    let length = content_length(&head.headers);
    if length == Some(0) && !question.awaits_answer() {
        return Ok(Answer::Accepted);
    }
    if is_media_type(&head.headers, EVENT_STREAM_MIME_TYPE) {
        return Ok(Answer::Events(body, session));
    }
    if is_media_type(&head.headers, JSON_MIME_TYPE) {
        let body = whole(body, length, limits.max_json_response_size).await?;
        return match serde_json::from_slice(&body) {
            Ok(message) => Ok(Answer::Json(Box::new(message), session)),
            Err(_) if !question.awaits_answer() => Ok(Answer::Accepted),
            Err(error) => {
                let start = String::from_utf8_lossy(&body[..body.len().min(PREVIEW)]).into_owned();
                let why = format!(
                    "could not parse JSON response as ServerJsonRpcMessage: {error}: {start}"
                );
                Err(StreamableHttpError::UnexpectedServerResponse(why.into()))
            }
        };
    }
    if question.awaits_answer() {
        return Err(StreamableHttpError::UnexpectedContentType(text(
            &head.headers,
            CONTENT_TYPE.as_str(),
        )));
    }
    Ok(Answer::Accepted)
}

/// Reads the answer to a GET: a stream, or why there is none.
pub(super) fn stream<B>(response: Response<B>) -> Result<B, Failure> {
    let (head, body) = response.into_parts();
    if head.status == StatusCode::METHOD_NOT_ALLOWED {
        return Err(StreamableHttpError::ServerDoesNotSupportSse);
    }
    challenged(head.status, &head.headers)?;
    if let Some(error) = status_error(head.status, &head.headers) {
        return Err(error.into());
    }
    if !head.status.is_success() {
        return Err(unexpected(head.status, ""));
    }
    if is_media_type(&head.headers, EVENT_STREAM_MIME_TYPE)
        || is_media_type(&head.headers, JSON_MIME_TYPE)
    {
        Ok(body)
    } else {
        Err(StreamableHttpError::UnexpectedContentType(text(
            &head.headers,
            CONTENT_TYPE.as_str(),
        )))
    }
}

pub(super) fn unexpected(status: StatusCode, body: &str) -> Failure {
    let why = if body.is_empty() {
        format!("HTTP {status}")
    } else {
        format!("HTTP {status}: {body}")
    };
    StreamableHttpError::UnexpectedServerResponse(why.into())
}

/// What is neither a success nor one of the statuses with a meaning of their own.
async fn refused<B: Bytestream>(
    question: Question<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    body: B,
    limits: StreamableHttpResponseLimits,
) -> Result<Answer<B>, Failure> {
    let is_json = is_media_type(headers, JSON_MIME_TYPE);
    let status_error = status_error(status, headers);
    let body = match status_error {
        // A rate limit is judged without its body, and so is a failure that has none to offer.
        Some(error) if !is_json || status == StatusCode::TOO_MANY_REQUESTS => {
            return Err(error.into());
        }
        // A refusal of access must not pass for an ordinary JSON-RPC error.
        _ if !is_json || refuses_access(status) => {
            start(body, limits.max_error_response_size).await
        }
        _ => match whole(body, content_length(headers), limits.max_json_response_size).await {
            Ok(bytes) => {
                let body = decoded(&bytes);
                if let Ok(error @ JsonRpcMessage::Error(_)) =
                    serde_json::from_str::<ServerJsonRpcMessage>(&body)
                {
                    let discovery = question.rejected_discovery(status, &body);
                    let session = text(headers, HEADER_SESSION_ID);
                    return Ok(discovery.unwrap_or_else(|| Answer::Json(Box::new(error), session)));
                }
                decoded(&bytes[..bytes.len().min(limits.max_error_response_size)])
            }
            Err(error @ StreamableHttpError::ResponseBodyTooLarge { .. }) => {
                return Err(status_error.map_or(error, Into::into));
            }
            Err(_) => UNREAD.to_owned(),
        },
    };
    if let Some(answer) = question.rejected_discovery(status, &body) {
        return Ok(answer);
    }
    Err(status_error.map_or_else(|| unexpected(status, &body), Into::into))
}

/// The errors that carry a challenge (RFC 6750 section 3).
fn challenged(status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    if !refuses_access(status) {
        return Ok(());
    }
    let Some(challenge) = headers.get(WWW_AUTHENTICATE) else {
        return Ok(());
    };
    let Ok(challenge) = challenge.to_str() else {
        return Err(StreamableHttpError::UnexpectedServerResponse(
            "invalid www-authenticate header value".into(),
        ));
    };
    let challenge = challenge.to_owned();
    Err(if status == StatusCode::UNAUTHORIZED {
        StreamableHttpError::AuthRequired(AuthRequiredError::new(challenge))
    } else {
        let scope = Demand::from_headers(headers)
            .scope
            .map(|scopes| scopes.to_string());
        StreamableHttpError::InsufficientScope(InsufficientScopeError::new(challenge, scope))
    })
}

fn refuses_access(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

fn status_error(status: StatusCode, headers: &HeaderMap) -> Option<HttpStatusError> {
    let fails = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    fails.then(|| HttpStatusError::new(status.as_u16(), text(headers, RETRY_AFTER.as_str())))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Compares the essence of the media type (RFC 9110 section 8.3.1): no parameters, no case.
fn is_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .map(http::HeaderValue::as_bytes)
        .unwrap_or_default();
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(expected.as_bytes())
}

/// A body that is needed whole; its size is judged before any of it is kept.
async fn whole<B: Bytestream>(
    mut body: B,
    length: Option<u64>,
    limit: usize,
) -> Result<Vec<u8>, Failure> {
    let too_large = || StreamableHttpError::ResponseBodyTooLarge { max_size: limit };
    if length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        return Err(too_large());
    }
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(StreamableHttpError::Client)?;
        if chunk.len() > limit - all.len() {
            return Err(too_large());
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// The start of a body that only serves as an explanation; the rest is not read.
async fn start<B: Bytestream>(mut body: B, limit: usize) -> String {
    let mut all = Vec::new();
    while all.len() < limit {
        match body.next().await {
            Some(Ok(chunk)) => all.extend_from_slice(&chunk[..chunk.len().min(limit - all.len())]),
            Some(Err(_)) => return UNREAD.to_owned(),
            None => break,
        }
    }
    decoded(&all)
}

fn decoded(body: &[u8]) -> String {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    String::from_utf8_lossy(body).into_owned()
}

pub(super) const ACCEPTED: &str = "text/event-stream, application/json";
pub(super) const JSON: &str = JSON_MIME_TYPE;
const PREVIEW: usize = 256;
const UNREAD: &str = "<failed to read response body>";

#[cfg(test)]
mod tests;
