//! The server's end: one request with what the wire wants on it, a login where one is wanted, a new session where the old
//! one is gone.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use pilotlight::{Body, Session};
use pilotlight_core::Error;

use crate::{
    answer::{Assembly, Came, Message, Stream, piece},
    bridge::Core,
    headers::MCP_PROTOCOL_VERSION,
    login,
    redirect::{Target, Way},
    refusal::Fault,
    scan::{Kind, Scan},
    wire::{Endpoint, SESSION, Stage, agreed, named_session},
};

/// What a request was sent with.
struct Prepared {
    session: Session,
    request: Request<Bytes>,
    /// The number of the session that it named.
    of: Option<u64>,
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
        self.posted(message, fields, place, true).await
    }

    /// The same; where nobody waits for it, no person is asked for a login.
    pub(crate) async fn posted(
        self: &Arc<Self>,
        message: &Bytes,
        fields: &HeaderMap,
        place: Place,
        may_ask: bool,
    ) -> Result<Response<Body>, Fault> {
        let mut reopened = false;
        loop {
            let prepared = |at| self.prepared(Method::POST, message, fields, place, at);
            let (response, of) = self.sent(prepared, may_ask).await?;
            if response.status().is_success() {
                self.wire.accepted.send_modify(|count| *count += 1);
            }
            match of {
                Some(of) if response.status() == StatusCode::NOT_FOUND && !reopened => {
                    reopened = true;
                    Box::pin(self.reopen(of, may_ask)).await?;
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
        let prepared = |at| self.prepared(Method::GET, &nothing, &fields, place, at);
        Ok(self.sent(prepared, may_ask).await?.0)
    }

    /// Sends a request, and on to where the server leads it; where that wants a login that a person can give, it is asked for,
    /// once.
    async fn sent<P>(
        self: &Arc<Self>,
        prepared: impl Fn(Option<Target>) -> P,
        may_ask: bool,
    ) -> Result<(Response<Body>, Option<u64>), Fault>
    where
        P: Future<Output = Result<Prepared, Fault>>,
    {
        let mut asked = false;
        let mut way = Way::default();
        loop {
            let Prepared {
                session,
                request,
                of,
            } = prepared(way.at()).await?;
            let (method, uri) = (request.method().clone(), request.uri().clone());
            let sending = session.send_within(request, self.config.headers_timeout);
            match Box::pin(sending).await {
                Ok(response) => {
                    if self.config.cookies {
                        self.cookies.learn(&uri, response.headers());
                    }
                    if !way.leads_on(&session, &method, &uri, &response)? {
                        return Ok((response, of));
                    }
                }
                Err(error) if may_ask && login::can_mend(&error) => {
                    if std::mem::replace(&mut asked, true) {
                        return Err(self.login.unmended(error).await.into());
                    }
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
        at: Option<Target>,
    ) -> Result<Prepared, Fault> {
        let sse = self.wire.stage() == Stage::Sse && method == Method::POST;
        let (session, uri) = match at {
            Some(target) => target,
            None if sse => self.endpoint().await?,
            None => (self.session.clone(), self.uri.clone()),
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
    pub(crate) async fn endpoint(self: &Arc<Self>) -> Result<Target, Fault> {
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
            Ok(Endpoint::At(target)) => Ok(target.clone()),
            Ok(Endpoint::None(fault)) => Err(fault.clone()),
            Ok(Endpoint::Unknown) | Err(_) => Err(Fault::NoTransport),
        }
    }

    /// Opens a session in the place of the one with this number, which the server has forgotten (TR-31): whoever comes while one
    /// is at it waits for the same.
    async fn reopen(self: &Arc<Self>, of: u64, may_ask: bool) -> Result<(), Fault> {
        let _alone = self.wire.reopening.lock().await;
        if self.wire.named() != Some(of) {
            return Ok(());
        }
        let (Some(initialize), initialized) = self.wire.said() else {
            return Err(Fault::NoAnswer);
        };
        tracing::info!("the server has forgotten the session; it is opened anew");
        let none = HeaderMap::new();
        let response = self.post_once(&initialize, &none, may_ask).await?;
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
            let response = self.post_once(&initialized, &fields, may_ask).await?;
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
        may_ask: bool,
    ) -> Result<Response<Body>, Fault> {
        let prepared = |at| self.prepared(Method::POST, message, fields, Place::Alone, at);
        Ok(self.sent(prepared, may_ask).await?.0)
    }

    /// Says one of the host's own messages again, to an endpoint that is not known to others yet. Nobody waits for that.
    pub(crate) async fn say(
        self: &Arc<Self>,
        endpoint: &Target,
        message: &Bytes,
    ) -> Result<(), Fault> {
        let none = HeaderMap::new();
        let prepared = |at: Option<Target>| {
            let at = at.or_else(|| Some(endpoint.clone()));
            self.prepared(Method::POST, message, &none, Place::Alone, at)
        };
        let (response, _) = self.sent(prepared, false).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(refused(response).await),
        }
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
        let place = Place::InSession;
        let prepared = |at| self.prepared(Method::DELETE, &message, &fields, place, at);
        drop(tokio::time::timeout(GOODBYE, Box::pin(self.sent(prepared, false))).await);
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

const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const BOTH: &str = "application/json, text/event-stream";
const EVENTS: &str = "text/event-stream";
const LONGEST_ERROR: usize = 64 << 10;
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(2);
