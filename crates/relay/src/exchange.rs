//! One request of the host, from its turn to its answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use pilotlight::Body;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    answer::{Assembly, Came, Message, Stream, piece},
    batch,
    bridge::Core,
    config::Transport,
    era::{Input, Ticket, detect::opens_nothing},
    lock::lock,
    message::Message as Whole,
    refusal::Fault,
    scan::{Kind, Scan},
    table::Ask,
    upstream::{Place, is_events, is_json, is_rpc_error, refused},
    wire::Stage,
};

impl Core {
    /// Answers a request, in whatever way it ends.
    pub(crate) async fn request(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        message: Bytes,
        permit: Arc<OwnedSemaphorePermit>,
    ) {
        let done = Box::pin(self.exchange(ask, message, permit)).await;
        self.table.remove(ask);
        let Err(fault) = done else { return };
        if ask.is_cancelled() || ask.own || !ask.answer() {
            return;
        }
        tracing::info!(method = ask.method, code = fault.code(), "a request failed");
        let answer = fault.answer(Some(&ask.id), &self.config.login_command);
        // A host that has gone is noticed by the bridge.
        drop(self.out.message(&answer).await);
    }

    async fn exchange(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        message: Bytes,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Result<(), Fault> {
        let response = match ask.method.as_str() {
            "initialize" => match Box::pin(self.initialize(ask, &message, &permit)).await? {
                Some(response) => response,
                None => {
                    // Answered by whoever translates from now on.
                    ask.answer();
                    return Ok(());
                }
            },
            _ => {
                self.post_asked(ask, &message, &HeaderMap::new(), Place::InSession)
                    .await?
            }
        };
        // What waits for an answer from here on is no longer held.
        drop((message, permit));
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        if self.wire.stage() == Stage::Sse {
            // The answer comes on the stream.
            ask.settled().await;
            return Ok(());
        }
        self.answered(ask, response).await
    }

    /// Sends a request. On HTTP+SSE one whose stream breaks is answered as lost; it is not sent after that, for the host may ask
    /// again.
    pub(crate) async fn post_asked(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        message: &Bytes,
        fields: &HeaderMap,
        place: Place,
    ) -> Result<Response<Body>, Fault> {
        if self.wire.stage() == Stage::Sse {
            self.endpoint().await?;
        }
        ask.begin();
        tokio::select! {
            biased;
            () = ask.is_lost() => Err(Fault::NoAnswer),
            response = Box::pin(self.posted(message, fields, place, !ask.is_ping())) => response,
        }
    }

    /// Reads what comes with the taking of a message that has no answer of its own: answers to a batch do.
    pub(crate) async fn after(self: &Arc<Self>, response: Response<Body>) {
        let assembly = Assembly::new(&self.out, self.config.limits, false);
        let (head, mut body) = response.into_parts();
        let read = async {
            if is_events(&head.headers) {
                let mut stream = Stream::new(body, assembly, self.config.body_timeout);
                while let Some(came) = stream.next().await? {
                    if let Came::Message(message) = came {
                        self.deliver(message, None).await?;
                    }
                }
            } else if is_json(&head.headers) {
                let mut assembly = assembly;
                while let Some(bytes) = piece(&mut body, self.config.body_timeout).await? {
                    assembly.piece(bytes).await?;
                }
                if let Some(message) = assembly.end().await? {
                    self.deliver(message, None).await?;
                }
            }
            Ok::<_, Fault>(())
        };
        if let Err(fault) = read.await {
            tracing::info!(code = fault.code(), "an answer broke off");
        }
    }

    /// Reads the answer to a request.
    pub(crate) async fn answered(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        response: Response<Body>,
    ) -> Result<(), Fault> {
        if is_events(response.headers()) {
            return self.streamed(ask, response.into_body()).await;
        }
        if !is_json(response.headers()) {
            return Err(match response.status() {
                StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Fault::NoAnswer,
                _ => Fault::NotMcp,
            });
        }
        let mut assembly = self.assembly(ask);
        let mut body = response.into_body();
        while let Some(bytes) = piece(&mut body, self.patience(ask)).await? {
            assembly.piece(bytes).await?;
        }
        if let Some(message) = assembly.end().await? {
            self.deliver(message, Some(ask)).await?;
        }
        match ask.is_answered() {
            true => Ok(()),
            false => Err(Fault::NoAnswer),
        }
    }

    /// Reads the answer from a stream, and from those that the server goes on with (TR-35).
    async fn streamed(self: &Arc<Self>, ask: &Arc<Ask>, body: Body) -> Result<(), Fault> {
        let mut stream = Stream::new(body, self.assembly(ask), self.patience(ask));
        let (mut tries, mut empty) = (0, 0);
        let mut asked_after: Option<String> = None;
        loop {
            let ended = self.read(ask, &mut stream).await;
            if ask.is_answered() || ask.is_cancelled() {
                return Ok(());
            }
            let broken = match ended {
                Ok(()) => Fault::NoAnswer,
                Err(fault) if fault.is_broken() => fault,
                Err(fault) => return Err(fault),
            };
            if ask.ticket.is_some() && !self.translation.resumes() {
                return Err(broken);
            }
            let Some(last) = stream.last_id().map(str::to_owned) else {
                return Err(broken);
            };
            // A server that wants to be polled closes every stream. What brings nothing new is counted, but only the id tells:
            // a server that says the same again has nothing new either.
            empty = match asked_after.as_ref() == Some(&last) {
                true => empty + 1,
                false => 0,
            };
            if empty > EMPTY {
                return Err(broken);
            }
            let pause = stream.retry.unwrap_or(PAUSE).min(LONGEST_PAUSE);
            loop {
                tries += 1;
                if tries > TRIES {
                    return Err(broken);
                }
                tokio::time::sleep(pause * (tries + empty).min(8)).await;
                if ask.is_cancelled() {
                    return Ok(());
                }
                match self.get(Some(&last), Place::InSession).await {
                    Ok(response) if response.status().is_success() => {
                        let retry = stream.retry;
                        let body = response.into_body();
                        stream = Stream::new(body, self.assembly(ask), self.patience(ask));
                        stream.resumes(&last, retry);
                        tries = 0;
                        break;
                    }
                    Ok(response) if response.status().is_server_error() => {}
                    Ok(_) => return Err(broken),
                    Err(fault) if fault.is_broken() || is_away(&fault) => {}
                    Err(fault) => return Err(fault),
                }
            }
            asked_after = Some(last);
        }
    }

    async fn read(self: &Arc<Self>, ask: &Arc<Ask>, stream: &mut Stream<'_>) -> Result<(), Fault> {
        loop {
            let next = match ask.is_answered() {
                false => stream.next().await?,
                // The server ends the stream after the answer; a connection that is read to its end can be used again.
                true => match tokio::time::timeout(LINGER, stream.next()).await {
                    Ok(next) => next?,
                    Err(_) => return Ok(()),
                },
            };
            match next {
                Some(Came::Message(message)) => self.deliver(message, Some(ask)).await?,
                Some(Came::Other(..)) => {}
                None => return Ok(()),
            }
        }
    }

    /// How long an answer may be silent. A subscription is, while nothing changes.
    fn patience(&self, ask: &Ask) -> Option<Duration> {
        let limit = self.config.body_timeout;
        limit.filter(|_| ask.method != "subscriptions/listen")
    }

    fn assembly(&self, ask: &Arc<Ask>) -> Assembly<'_> {
        let lists = ask.method == "tools/list" && !self.config.ignored_tools.is_empty();
        let whole = ask.own || ask.method == "initialize" || lists;
        Assembly::new(&self.out, self.config.limits, whole)
    }

    /// Hands a message of the server to whom it is for.
    pub(crate) async fn deliver(
        self: &Arc<Self>,
        message: Message,
        ask: Option<&Arc<Ask>>,
    ) -> Result<(), Fault> {
        let (bytes, peek) = match message {
            Message::Held(bytes, peek) => (Some(bytes), peek),
            Message::Written(peek) => (None, peek),
        };
        if let (Some((ask, to)), Some(raw)) = (ask.and_then(|ask| Some((ask, ask.ticket?))), &bytes)
            && peek.kind != Kind::Batch
        {
            self.told(ask, to, raw.clone(), peek.kind).await;
            return Ok(());
        }
        match peek.kind {
            Kind::Batch => {
                let Some(bytes) = bytes else { return Ok(()) };
                for part in parts(bytes) {
                    let peek = Scan::of(&part);
                    if peek.kind != Kind::Batch {
                        Box::pin(self.deliver(Message::Held(part, peek), ask)).await?;
                    }
                }
                return Ok(());
            }
            Kind::Unknown => {
                tracing::warn!("the server sent JSON that is no message");
                return Ok(());
            }
            Kind::Response => {
                let found = match (&ask, &peek.id) {
                    (Some(ask), _) => Some(Arc::clone(ask)),
                    (None, Some(id)) => self.table.find(id),
                    (None, None) => None,
                };
                if let Some(ask) = found {
                    let nameless = peek.id.is_none_or(|id| id.as_str() == "null");
                    let bytes = match bytes {
                        // Some servers do not say which request they could not read.
                        Some(bytes) if nameless && ask.ticket.is_none() => {
                            let fault = Fault::Status {
                                status: StatusCode::OK.as_u16(),
                                error: Some(bytes),
                            };
                            let command = &self.config.login_command;
                            Some(fault.answer(Some(&ask.id), command).into())
                        }
                        bytes => bytes,
                    };
                    return self.answer_came(&ask, bytes).await;
                }
            }
            Kind::Request | Kind::Notification => {}
        }
        if self.translation.is_on() {
            if let Some(bytes) = bytes {
                self.feed(Input::Server(bytes)).await;
            }
            return Ok(());
        }
        if let Some(bytes) = bytes {
            self.out.message(&bytes).await?;
        }
        Ok(())
    }

    /// Hands what came on the answer to a machine's request to the machine.
    async fn told(self: &Arc<Self>, ask: &Ask, to: Ticket, raw: Bytes, kind: Kind) {
        if kind == Kind::Response && ask.method == "initialize" {
            self.wire.agree(&raw);
        }
        self.feed(Input::Answer { to, raw }).await;
        if kind == Kind::Response {
            ask.answer();
        }
    }

    async fn answer_came(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        bytes: Option<Bytes>,
    ) -> Result<(), Fault> {
        if ask.is_answered() {
            // Told already: by an answer that was sent twice, or by an error of ours.
            return Ok(());
        }
        if let (Some(to), Some(raw)) = (ask.ticket, &bytes) {
            let raw = raw.clone();
            self.feed(Input::Answer { to, raw }).await;
        }
        if let Some(bytes) = bytes.filter(|_| !ask.own) {
            if ask.method == "initialize" {
                if Box::pin(self.opened_nothing(&bytes)).await {
                    ask.answer();
                    return Ok(());
                }
                self.wire.agree(&bytes);
            }
            let bytes = match ask.method.as_str() {
                "tools/list" => self.without_ignored(ask, bytes),
                _ => bytes,
            };
            self.out.message(&bytes).await?;
        }
        ask.answer();
        Ok(())
    }

    /// Begins to translate where a server that has no sessions answers `initialize` all the same; tells whether it does.
    async fn opened_nothing(self: &Arc<Self>, answer: &Bytes) -> bool {
        if self.wire.stage() == Stage::Sse || !opens_nothing(answer) {
            return false;
        }
        let (Some(initialize), _) = self.wire.said() else {
            return false;
        };
        self.translated_if_asked(&initialize, None).await
    }

    /// A list without the tools that the person asked to hide.
    fn without_ignored(&self, ask: &Ask, bytes: Bytes) -> Bytes {
        if self.config.ignored_tools.is_empty() {
            return bytes;
        }
        let Ok(message) = Whole::read(bytes.clone()) else {
            return bytes;
        };
        let mut tools = lock(&self.tools);
        tools.list(&message, ask.first_page, false).raw
    }

    /// Opens the session, by the transport that the server speaks.
    async fn initialize(
        self: &Arc<Self>,
        ask: &Ask,
        message: &Bytes,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Result<Option<Response<Body>>, Fault> {
        self.wire.keep_initialize(message);
        ask.begin();
        let transport = self.config.transport;
        let none = HeaderMap::new();
        if transport.begins_with_sse() && self.wire.stage() != Stage::Sse {
            match self.begin_sse().await {
                Ok(()) => {}
                Err(fault) if transport == Transport::SseOnly => return Err(fault),
                Err(fault @ (Fault::Session(_) | Fault::Login { .. })) => return Err(fault),
                Err(_) => {}
            }
        }
        let response = self.post(message, &none, Place::Alone).await?;
        let status = response.status();
        if status.is_success() {
            // On HTTP+SSE there is no session, and the answer may have come already.
            if self.wire.stage() != Stage::Sse {
                self.wire.begin(response.headers());
            }
            return Ok(Some(response));
        }
        let told = refused(response).await;
        let body = match &told {
            Fault::Status {
                error: Some(body), ..
            } => body.clone(),
            _ => Bytes::new(),
        };
        if self
            .translated(message, status.as_u16(), &body, permit)
            .await
        {
            return Ok(None);
        }
        if transport != Transport::HttpFirst || !may_be_sse(status) {
            return Err(told);
        }
        // TR-50: what does not know the POST may be a server of 2024-11-05.
        match self.begin_sse().await {
            Ok(()) => Ok(Some(self.post(message, &none, Place::Alone).await?)),
            Err(_)
                if self
                    .translated_if_asked(message, Some(permit.clone()))
                    .await =>
            {
                Ok(None)
            }
            Err(_) => Err(match &told {
                Fault::Status {
                    error: Some(body), ..
                } if is_rpc_error(body) => told,
                _ if matches!(
                    status,
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
                ) =>
                {
                    Fault::NoTransport
                }
                _ => told,
            }),
        }
    }

    /// Has the listening task open an HTTP+SSE stream, and waits for its endpoint.
    pub(crate) async fn begin_sse(self: &Arc<Self>) -> Result<(), Fault> {
        self.wire
            .endpoint
            .send_replace(crate::wire::Endpoint::Unknown);
        self.wire.stage.send_replace(Stage::Sse);
        let known = self.endpoint().await;
        if known.is_err() {
            self.wire.stage.send_replace(Stage::Idle);
        }
        known.map(drop)
    }
}

/// The messages in a text: one, or those of a batch. What is no batch after all is none.
pub(crate) fn parts(raw: Bytes) -> Vec<Bytes> {
    match batch::is_batch(&raw) {
        false => vec![raw],
        true => batch::split(&raw).unwrap_or_else(|malformed| {
            tracing::warn!(%malformed, "a batch cannot be read");
            Vec::new()
        }),
    }
}

/// Whether such an answer to a POST may be that of a server of 2024-11-05. A 401 or 403 is about the token (TR-51).
fn may_be_sse(status: StatusCode) -> bool {
    let other = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !other.contains(&status)
}

/// The server cannot be reached just now: it may be starting again.
pub(crate) fn is_away(fault: &Fault) -> bool {
    matches!(fault, Fault::Session(error) if error.code().starts_with("unavailable."))
}

const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often in a row an answer is asked for again where the server does not give a stream.
const TRIES: u32 = 6;
/// How many streams in a row may bring nothing new.
const EMPTY: u32 = 60;
const LINGER: Duration = Duration::from_secs(5);
