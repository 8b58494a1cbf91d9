//! The server's end: one request with what the wire wants on it, a login where one is wanted, a new session where the old
//! one is gone.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use pilotlight::{Body, Session};
use pilotlight_core::Error;
use serde::Deserialize;
use tokio::sync::watch;

use crate::{
    answer::{Assembly, Came, Message, Stream, piece},
    bridge::Core,
    headers::MCP_PROTOCOL_VERSION,
    lock::lock,
    login,
    refusal::Fault,
    scan::{Kind, Scan},
};

/// What is known of the connection to the server.
#[derive(Debug)]
pub(crate) struct Wire {
    state: Mutex<State>,
    /// Held by whoever opens a new session in the place of one that is gone.
    reopening: tokio::sync::Mutex<()>,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) endpoint: watch::Sender<Endpoint>,
    /// Counts the messages that the server has taken.
    pub(crate) accepted: watch::Sender<u64>,
}

/// What the listening task is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing yet.
    Idle,
    /// Keep a GET stream open, for the session of this number.
    Listen(u64),
    /// Keep an HTTP+SSE stream open.
    Sse,
}

/// Where messages go on HTTP+SSE.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// Not known (any more).
    Unknown,
    /// Here.
    At(Session, http::Uri),
    /// There is none.
    None(Fault),
}

#[derive(Debug, Default)]
struct State {
    session: Option<HeaderValue>,
    version: Option<HeaderValue>,
    /// Counts the sessions that were opened.
    generation: u64,
    /// The host's own words, to be said again.
    initialize: Option<Bytes>,
    initialized: Option<Bytes>,
}

/// What a request was sent with.
struct Prepared {
    session: Session,
    request: Request<Bytes>,
    /// The number of the session that it named.
    of: Option<u64>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            reopening: tokio::sync::Mutex::new(()),
            stage: watch::Sender::new(Stage::Idle),
            endpoint: watch::Sender::new(Endpoint::Unknown),
            accepted: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub(crate) fn keep_initialize(&self, message: &Bytes) {
        self.state().initialize = Some(message.clone());
    }

    pub(crate) fn keep_initialized(&self, message: &Bytes) {
        self.state().initialized = Some(message.clone());
    }

    pub(crate) fn said(&self) -> (Option<Bytes>, Option<Bytes>) {
        let state = self.state();
        (state.initialize.clone(), state.initialized.clone())
    }

    /// A session begins with the head of the answer to `initialize`.
    pub(crate) fn begin(&self, head: &HeaderMap) {
        self.replace(named_session(head), None);
    }

    fn replace(&self, session: Option<HeaderValue>, version: Option<HeaderValue>) {
        let mut state = self.state();
        state.session = session;
        state.version = version;
        state.generation += 1;
    }

    /// The version that the answer names goes on every request from now on (TR-33), if it is one that knows the header:
    /// servers of 2025-03-26 and 2024-11-05 get none.
    pub(crate) fn agree(&self, answer: &[u8]) {
        self.state().version = agreed(answer);
    }

    /// From now on the server may send what nobody asked for.
    pub(crate) fn listen(&self) {
        let generation = self.state().generation;
        self.stage.send_if_modified(|stage| {
            let changes = *stage != Stage::Sse;
            if changes {
                *stage = Stage::Listen(generation);
            }
            changes
        });
    }

    /// The number of the session, if it has an id.
    fn named(&self) -> Option<u64> {
        let state = self.state();
        state.session.as_ref().map(|_| state.generation)
    }

    /// Puts on a request what the session wants; tells the number of the session.
    fn mark(&self, head: &mut HeaderMap) -> Option<u64> {
        let state = self.state();
        if let Some(version) = &state.version {
            head.insert(MCP_PROTOCOL_VERSION, version.clone());
        }
        let session = state.session.as_ref()?;
        head.insert(SESSION, session.clone());
        Some(state.generation)
    }
}

/// The session that the head of an answer to `initialize` names.
fn named_session(head: &HeaderMap) -> Option<HeaderValue> {
    head.get(&SESSION).cloned().map(|mut id| {
        // TR-39.
        id.set_sensitive(true);
        id
    })
}

/// The version that an answer to `initialize` names, where requests are to repeat it.
fn agreed(answer: &[u8]) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        result: Agreed<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Agreed<'a> {
        #[serde(borrow)]
        protocol_version: std::borrow::Cow<'a, str>,
    }
    let answer: Answer<'_> = serde_json::from_slice(answer).ok()?;
    let version = answer.result.protocol_version;
    // Versions are dates.
    (*version >= *REPEATED_SINCE)
        .then(|| HeaderValue::from_str(&version).ok())
        .flatten()
}

/// How a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Outside any session: `initialize`, and what stands alone.
    Alone,
    /// In the session there is.
    InSession,
}

impl Core {
    /// Sends a message. A login is asked for once, and a session that is gone is opened anew once.
    pub(crate) async fn post(
        self: &Arc<Self>,
        message: &Bytes,
        fields: &HeaderMap,
        place: Place,
    ) -> Result<Response<Body>, Fault> {
        let mut reopened = false;
        loop {
            let prepared = || self.prepared(Method::POST, message, fields, place);
            let (response, of) = self.sent(prepared, true).await?;
            if response.status().is_success() {
                self.wire.accepted.send_modify(|count| *count += 1);
            }
            match of {
                Some(of) if response.status() == StatusCode::NOT_FOUND && !reopened => {
                    reopened = true;
                    Box::pin(self.reopen(of)).await?;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Opens the server's own stream, or one that broke off.
    pub(crate) async fn get(
        self: &Arc<Self>,
        last_event: Option<&str>,
        place: Place,
    ) -> Result<Response<Body>, Fault> {
        self.got(last_event, place, true).await
    }

    /// The same, for what nobody waits for: no person is asked for a login.
    pub(crate) async fn get_quietly(
        self: &Arc<Self>,
        last_event: Option<&str>,
    ) -> Result<Response<Body>, Fault> {
        self.got(last_event, Place::InSession, false).await
    }

    async fn got(
        self: &Arc<Self>,
        last_event: Option<&str>,
        place: Place,
        may_ask: bool,
    ) -> Result<Response<Body>, Fault> {
        let mut fields = HeaderMap::new();
        if let Some(id) = last_event.and_then(|id| HeaderValue::from_str(id).ok()) {
            fields.insert(LAST_EVENT, id);
        }
        let nothing = Bytes::new();
        let prepared = || self.prepared(Method::GET, &nothing, &fields, place);
        Ok(self.sent(prepared, may_ask).await?.0)
    }

    /// Sends a request; where the server wants a login that a person can give, it is asked for, once.
    async fn sent<P>(
        self: &Arc<Self>,
        prepared: impl Fn() -> P,
        may_ask: bool,
    ) -> Result<(Response<Body>, Option<u64>), Fault>
    where
        P: Future<Output = Result<Prepared, Fault>>,
    {
        let mut asked = !may_ask;
        loop {
            let Prepared {
                session,
                request,
                of,
            } = prepared().await?;
            let uri = request.uri().clone();
            let sending = session.send_within(request, self.config.headers_timeout);
            match Box::pin(sending).await {
                Ok(response) => {
                    if self.config.cookies {
                        self.cookies.learn(&uri, response.headers());
                    }
                    return Ok((response, of));
                }
                Err(error) if !asked && login::can_mend(&error) => {
                    asked = true;
                    Box::pin(self.login.settle(error)).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn prepared(
        self: &Arc<Self>,
        method: Method,
        message: &Bytes,
        fields: &HeaderMap,
        place: Place,
    ) -> Result<Prepared, Fault> {
        let sse = self.wire.stage() == Stage::Sse && method == Method::POST;
        let (session, uri) = match sse {
            true => self.endpoint().await?,
            false => (self.session.clone(), self.uri.clone()),
        };
        let accepted = match method {
            Method::GET => EVENTS,
            _ => BOTH,
        };
        let mut request = Request::new(message.clone());
        *request.uri_mut() = uri;
        let head = request.headers_mut();
        for (name, value) in &self.config.headers {
            head.append(name, value.clone());
        }
        head.insert(ACCEPT, HeaderValue::from_static(accepted));
        if method == Method::POST {
            head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let of = match place {
            Place::InSession => self.wire.mark(head),
            Place::Alone => None,
        };
        for (name, value) in fields {
            head.insert(name, value.clone());
        }
        let uri = request.uri().clone();
        self.cookies.mark(&uri, request.headers_mut());
        *request.method_mut() = method;
        Ok(Prepared {
            session,
            request,
            of,
        })
    }

    /// The endpoint of HTTP+SSE, as soon as it is known.
    pub(crate) async fn endpoint(self: &Arc<Self>) -> Result<(Session, http::Uri), Fault> {
        let mut endpoint = self.wire.endpoint.subscribe();
        let known = endpoint.wait_for(|endpoint| !matches!(endpoint, Endpoint::Unknown));
        let known = match self.config.headers_timeout {
            None => known.await,
            Some(limit) => {
                tokio::time::timeout(limit, known)
                    .await
                    .map_err(|_| Error::Timeout {
                        waited_for: pilotlight_core::error::Waited::Answer,
                        limit,
                    })?
            }
        };
        match known.as_deref() {
            Ok(Endpoint::At(session, uri)) => Ok((session.clone(), uri.clone())),
            Ok(Endpoint::None(fault)) => Err(fault.clone()),
            Ok(Endpoint::Unknown) | Err(_) => Err(Fault::NoTransport),
        }
    }

    /// Opens a session in the place of the one with this number, which the server has forgotten (TR-31): whoever comes while one
    /// is at it waits for the same.
    pub(crate) async fn reopen(self: &Arc<Self>, of: u64) -> Result<(), Fault> {
        let _alone = self.wire.reopening.lock().await;
        if self.wire.named() != Some(of) {
            return Ok(());
        }
        let (Some(initialize), initialized) = self.wire.said() else {
            return Err(Fault::NoAnswer);
        };
        tracing::info!("the server has forgotten the session; it is opened anew");
        let none = HeaderMap::new();
        let response = self.post_once(&initialize, &none).await?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let session = named_session(response.headers());
        let answer = self.own_answer(response).await?;
        let version = agreed(&answer);
        let opened = initialized.is_some();
        if let Some(initialized) = initialized {
            let mut fields = HeaderMap::new();
            fields.extend(session.clone().map(|id| (SESSION, id)));
            fields.extend(
                version
                    .clone()
                    .map(|version| (MCP_PROTOCOL_VERSION, version)),
            );
            let response = self.post_once(&initialized, &fields).await?;
            if !response.status().is_success() {
                return Err(refused(response).await);
            }
        }
        // One that is opened by half is none: until here whoever comes meets the old one, and tries again.
        self.wire.replace(session, version);
        if opened {
            self.wire.listen();
        }
        Ok(())
    }

    /// Sends a message of the bridge's own, in no session but the one that is named in the fields.
    async fn post_once(
        self: &Arc<Self>,
        message: &Bytes,
        fields: &HeaderMap,
    ) -> Result<Response<Body>, Fault> {
        let prepared = || self.prepared(Method::POST, message, fields, Place::Alone);
        Ok(self.sent(prepared, true).await?.0)
    }

    /// Reads an answer that is for the bridge; what else comes goes to the host.
    pub(crate) async fn own_answer(
        self: &Arc<Self>,
        response: Response<Body>,
    ) -> Result<Bytes, Fault> {
        let assembly = Assembly::new(&self.out, self.config.limits, true);
        if is_events(response.headers()) {
            let mut stream = Stream::new(response.into_body(), assembly, self.config.body_timeout);
            while let Some(came) = stream.next().await? {
                match came {
                    Came::Message(Message::Held(answer, peek)) if peek.kind == Kind::Response => {
                        return Ok(answer);
                    }
                    Came::Message(message) => self.deliver(message, None).await?,
                    Came::Other(..) => {}
                }
            }
            return Err(Fault::NoAnswer);
        }
        let (mut body, mut assembly) = (response.into_body(), assembly);
        while let Some(bytes) = piece(&mut body, self.config.body_timeout).await? {
            assembly.piece(bytes).await?;
        }
        let Some(Message::Held(came, _)) = assembly.end().await? else {
            return Err(Fault::NoAnswer);
        };
        // TR-38: servers of 2025-03-26 may put it in a batch.
        let mut parts = crate::exchange::parts(came).into_iter();
        let answer = parts.find(|part| Scan::of(part).kind == Kind::Response);
        answer.ok_or(Fault::NoAnswer)
    }

    /// Ends the session at the server (TR-32); whatever it says to that is fine.
    pub(crate) async fn farewell(self: &Arc<Self>) {
        if self.wire.named().is_none() || self.wire.stage() == Stage::Sse {
            return;
        }
        let (message, fields) = (Bytes::new(), HeaderMap::new());
        let prepared = self.prepared(Method::DELETE, &message, &fields, Place::InSession);
        if let Ok(prepared) = prepared.await {
            let sending = prepared.session.send(prepared.request);
            drop(tokio::time::timeout(GOODBYE, Box::pin(sending)).await);
        }
    }
}

/// What an HTTP error says, if it is not too long.
pub(crate) async fn refused(response: Response<Body>) -> Fault {
    let status = response.status().as_u16();
    let read = tokio::time::timeout(GOODBYE, response.into_body().collect(LONGEST_ERROR)).await;
    Fault::Status {
        status,
        error: read.ok().and_then(Result::ok),
    }
}

pub(crate) fn is_events(head: &HeaderMap) -> bool {
    has_type(head, EVENTS)
}

pub(crate) fn is_json(head: &HeaderMap) -> bool {
    has_type(head, "application/json")
}

fn has_type(head: &HeaderMap, wanted: &str) -> bool {
    let value = head.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(wanted))
}

/// Whether a body is a JSON-RPC error.
pub(crate) fn is_rpc_error(body: &[u8]) -> bool {
    let peek = Scan::of(body);
    peek.whole && peek.kind == Kind::Response
}

pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// The first version that has a header for the version.
const REPEATED_SINCE: &str = "2025-06-18";
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const BOTH: &str = "application/json, text/event-stream";
const EVENTS: &str = "text/event-stream";
const LONGEST_ERROR: usize = 64 << 10;
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(2);
