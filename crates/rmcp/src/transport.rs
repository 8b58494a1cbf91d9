//! The transport: rmcp's Streamable HTTP over a [`Session`], on Pilotlight's own HTTP stack.
//!
//! ```text
//!   rmcp worker ── post_message, get_stream, delete_session ──> Transport ── Session::send ──> MCP server
//!   (eras, sessions, resumption)                                (statuses, bodies, SSE)  (token, refresh, one retry)
//! ```
//!
//! Every request, the GET stream's and the DELETE's included, gets the token that is current when it leaves (AUTH-80,
//! TR-40). rmcp's own `auth_header` is ignored, and a custom `Authorization` header is refused: tokens come from the
//! session and from nowhere else (T-24). Redirects are not followed (T-23).
//!
//! An `initialize` never asks for a revision that has none, as rmcp's default handler would: servers that know the
//! handshake only need not know of that revision.
//!
//! What the login makes use of of MCP's extensions is declared with the client's capabilities (EXT-01); see `declared`.
//!
//! Answers mean here what they mean to rmcp's reqwest client, so that its negotiation of eras, its sessions and its
//! limits work unchanged; see `answer`.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
    request::Builder,
};
use pilotlight::{Body, Session};
use pilotlight_core::{Error, error::NetworkFault};
use rmcp::{
    model::{ClientJsonRpcMessage, ClientNotification, ClientRequest, ProtocolVersion},
    transport::{
        StreamableHttpClientTransport,
        common::http_header::{HEADER_LAST_EVENT_ID, HEADER_SESSION_ID},
        streamable_http_client::{
            SseError, StreamableHttpClient, StreamableHttpClientTransportConfig,
            StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
        },
    },
};
use sse_stream::Sse;

mod answer;
mod declared;
mod opening;
mod sse;

use opening::Opening;

pub(crate) use sse::Broken;

/// An rmcp [`StreamableHttpClient`] that keeps the login of one [`Session`] alive. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    session: Session,
    state: Arc<Mutex<State>>,
    opening: Opening,
}

#[derive(Default)]
struct State {
    /// The streams that are not to be resumed, by session and last event.
    ended: VecDeque<Stream>,
    last_error: Option<Error>,
}

/// What rmcp resumes a stream by.
#[derive(Clone, PartialEq, Eq)]
struct Stream {
    session: Option<Arc<str>>,
    last_event: Option<String>,
}

type Failure = StreamableHttpError<Error>;
type Events = BoxStream<'static, Result<Sse, SseError>>;

impl Transport {
    /// Makes a transport of a session.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self {
            session,
            state: Arc::default(),
            opening: Opening::default(),
        }
    }

    /// Starts rmcp's worker over it, at the session's own URL and with rmcp's defaults. [`connect`](crate::connect) does
    /// this and negotiates.
    ///
    /// It must be called within a tokio runtime.
    #[must_use]
    pub fn start(self) -> StreamableHttpClientTransport<Self> {
        let url = self.session.url().url().to_string();
        StreamableHttpClientTransport::with_client(
            self,
            StreamableHttpClientTransportConfig::with_uri(url),
        )
    }

    /// The last error of the session that a request of this transport ended with: rmcp does not pass on every one.
    #[must_use]
    pub fn last_error(&self) -> Option<Error> {
        self.state().last_error.clone()
    }

    async fn send(
        &self,
        request: Builder,
        headers: HashMap<HeaderName, HeaderValue>,
        body: Bytes,
    ) -> Result<Response<Body>, Failure> {
        let mut request = request.body(body).map_err(|_| unusable("a header"))?;
        for (name, value) in headers {
            refuse_reserved(&name)?;
            request.headers_mut().insert(name, value);
        }
        let host = request.uri().host().unwrap_or_default().to_owned();
        let response =
            self.session
                .send(request)
                .await
                .and_then(|response| match response.status() {
                    StatusCode::NOT_MODIFIED => Ok(response),
                    status if status.is_redirection() => Err(Error::Network {
                        host,
                        why: NetworkFault::Redirect,
                    }),
                    _ => Ok(response),
                });
        response.map_err(|error| {
            self.state().last_error = Some(error.clone());
            StreamableHttpError::Client(error)
        })
    }

    /// Reads an SSE body; a stream with an event that is too large is never resumed, or it would come again and again.
    fn events<B: sse::Bytestream>(
        &self,
        body: B,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        limit: usize,
    ) -> Events {
        let state = Arc::clone(&self.state);
        sse::events(body, last_event, limit, move |last_event| {
            tracing::warn!(
                limit,
                "an event is larger than allowed; its stream is not resumed"
            );
            let ended = &mut lock(&state).ended;
            if ended.len() == ENDED_KEPT {
                ended.pop_front();
            }
            ended.push_back(Stream {
                session,
                last_event,
            });
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl StreamableHttpClient for Transport {
    type Error = Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(
            uri,
            message,
            session_id,
            auth_header,
            custom_headers,
            limits,
        )
        .await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        max_sse_event_size: usize,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let mut limits = StreamableHttpResponseLimits::default();
        limits.max_sse_event_size = max_sse_event_size;
        self.post_message_with_response_limits(
            uri,
            message,
            session_id,
            auth_header,
            custom_headers,
            limits,
        )
        .await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let mut request = Request::post(uri.as_ref())
            .header(ACCEPT, answer::ACCEPTED)
            .header(CONTENT_TYPE, answer::JSON);
        if let Some(session) = &session_id {
            request = request.header(HEADER_SESSION_ID, session_header(session)?);
            if matches!(message, ClientJsonRpcMessage::Request(_)) {
                self.opening.settled(session).await;
            }
        }
        let message = with_handshake_version(message);
        let message = declared::with_extensions(message, &self.session.extensions());
        let body = serde_json::to_vec(&message)?.into();
        let response = self.send(request, custom_headers, body).await?;
        let question = answer::Question {
            message: &message,
            in_session: session_id.is_some(),
        };
        let answer = answer::of(question, response, limits).await?;
        if let Some(session) = &session_id
            && begins_session(&message)
        {
            self.opening.expect(Arc::clone(session));
        }
        Ok(answer.into_rmcp(|body| self.events(body, session_id, None, limits.max_sse_event_size)))
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        let request =
            Request::delete(uri.as_ref()).header(HEADER_SESSION_ID, session_header(&session_id)?);
        let response = self.send(request, custom_headers, Bytes::new()).await?;
        match response.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                Err(StreamableHttpError::ServerDoesNotSupportDeleteSession)
            }
            status if status.is_success() => Ok(()),
            status => Err(answer::unexpected(status, "")),
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<Events, Failure> {
        let limit = StreamableHttpResponseLimits::default().max_sse_event_size;
        self.get_stream_with_max_sse_event_size(
            uri,
            session_id,
            last_event_id,
            auth_header,
            custom_headers,
            limit,
        )
        .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        max_sse_event_size: usize,
    ) -> Result<Events, Failure> {
        let stream = Stream {
            session: session_id.clone(),
            last_event: last_event_id.clone(),
        };
        if self.state().ended.contains(&stream) {
            // Of rmcp's errors the one that ends its attempts.
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        let own_stream = session_id.clone().filter(|_| last_event_id.is_none());
        let _attempt = self.opening.attempt(own_stream);
        let mut request = Request::get(uri.as_ref()).header(ACCEPT, answer::ACCEPTED);
        if let Some(session) = &session_id {
            request = request.header(HEADER_SESSION_ID, session_header(session)?);
        }
        if let Some(last_event) = &last_event_id {
            request = request.header(HEADER_LAST_EVENT_ID, last_event);
        }
        let response = self.send(request, custom_headers, Bytes::new()).await?;
        let body = answer::stream(response)?;
        Ok(self.events(body, session_id, last_event_id, max_sse_event_size))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("url", &self.session.url().as_str())
            .finish_non_exhaustive()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts the newest revision that has a handshake in the place of one that has none.
fn with_handshake_version(mut message: ClientJsonRpcMessage) -> ClientJsonRpcMessage {
    if let ClientJsonRpcMessage::Request(request) = &mut message
        && let ClientRequest::InitializeRequest(initialize) = &mut request.request
        && !initialize.params.protocol_version.has_initialize()
    {
        initialize.params.protocol_version = ProtocolVersion::LATEST_WITH_INITIALIZE;
    }
    message
}

/// Whether rmcp opens the session's own stream once this has been answered.
fn begins_session(message: &ClientJsonRpcMessage) -> bool {
    matches!(message, ClientJsonRpcMessage::Notification(notification)
        if matches!(notification.notification, ClientNotification::InitializedNotification(_)))
}

/// A session ID as a header value that is not shown (TR-39).
fn session_header(session: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(session).map_err(|_| unusable("the session ID"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Refuses what the transport itself sets, as rmcp's reqwest client does, and `Authorization`.
fn refuse_reserved(name: &HeaderName) -> Result<(), Failure> {
    let reserved = [
        ACCEPT.as_str(),
        AUTHORIZATION.as_str(),
        HEADER_SESSION_ID,
        HEADER_LAST_EVENT_ID,
    ];
    if reserved
        .iter()
        .any(|own| name.as_str().eq_ignore_ascii_case(own))
    {
        return Err(StreamableHttpError::ReservedHeaderConflict(
            name.to_string(),
        ));
    }
    Ok(())
}

fn unusable(what: &str) -> Failure {
    StreamableHttpError::UnexpectedServerResponse(format!("{what} cannot be sent").into())
}

const ENDED_KEPT: usize = 64;
