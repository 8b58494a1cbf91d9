//! The bridge: the loop that reads the host, and ends every task.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http::HeaderMap;
use pilotlight::{Session, Sessions, clock::Clock};
use pilotlight_core::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use crate::{
    approver::Approver,
    batch,
    config::{Config, Limits},
    cookies::Cookies,
    era::Input,
    frame::{Frame, FrameReader},
    lock::lock,
    login::Login,
    message::Message,
    out::Out,
    refusal::Fault,
    scan::{Id, Kind, Peek, Scan},
    table::{self, Ask, Table},
    tools::Tools,
    translate::{Route, Translation},
    turns::{Before, Turn, Turns},
    upstream::Place,
    wire::{Stage, Wire},
};

/// What a bridge stands on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ground {
    /// The logins.
    pub sessions: Sessions,
    /// The session of the server.
    pub session: Session,
    /// Who asks the person; the same that the sessions were opened with.
    pub approver: Arc<Approver>,
    /// The clock of the sessions.
    pub clock: Arc<dyn Clock>,
}

impl Ground {
    /// Puts together what a bridge stands on.
    #[must_use]
    pub fn new(
        sessions: Sessions,
        session: Session,
        approver: Arc<Approver>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            sessions,
            session,
            approver,
            clock,
        }
    }
}

/// Carries messages between one host and one server.
#[derive(Debug)]
pub struct Bridge {
    core: Arc<Core>,
}

/// Why a bridge has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The host has closed its end, or has died.
    HostLeft,
    /// The bridge was told to stop.
    Stopped,
}

/// What all tasks of a bridge share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) session: Session,
    pub(crate) uri: http::Uri,
    pub(crate) config: Config,
    pub(crate) out: Arc<Out>,
    pub(crate) table: Table,
    pub(crate) wire: Wire,
    pub(crate) cookies: Cookies,
    pub(crate) login: Login,
    pub(crate) translation: Translation,
    pub(crate) tools: Mutex<Tools>,
    approver: Arc<Approver>,
    /// `initialize` and `notifications/initialized`: what follows waits for them.
    pub(crate) opening: Turns,
    /// Notifications keep their order.
    notices: Turns,
}

impl Bridge {
    /// Makes a bridge that answers to `host`.
    ///
    /// # Errors
    /// `config.url` where the session's URL cannot be requested.
    pub fn new(
        ground: Ground,
        config: Config,
        host: impl AsyncWrite + Send + 'static,
    ) -> Result<Self, Error> {
        let url = ground.session.url();
        let uri = url.url().as_str().parse().map_err(|_| Error::ConfigUrl {
            url: pilotlight_core::resource::clean(url.as_str()),
            why: "it is no URI",
        })?;
        let out = Arc::new(Out::new(host));
        ground.approver.attach(out.clone());
        let login = Login::new(
            ground.sessions,
            ground.clock,
            ground.approver.clone(),
            &config,
        );
        Ok(Self {
            core: Arc::new(Core {
                session: ground.session,
                uri,
                out,
                table: Table::default(),
                wire: Wire::new(),
                cookies: Cookies::default(),
                login,
                translation: Translation::default(),
                tools: Mutex::new(Tools::new(&config.ignored_tools)),
                approver: ground.approver,
                opening: Turns::new(),
                notices: Turns::new(),
                config,
            }),
        })
    }

    /// Carries messages until the host goes or `stop` comes. What the sessions still have to store is waited for by
    /// [`Sessions::drain`], after this.
    pub async fn run(self, host: impl AsyncRead + Unpin, stop: impl Future<Output = ()>) -> Ended {
        let core = self.core;
        let mut tasks = JoinSet::new();
        tasks.spawn(Box::pin(core.clone().listening()));
        tasks.spawn(core.clone().telling());
        if let Some(every) = core.config.ping_interval {
            tasks.spawn(Box::pin(core.clone().pinging(every)));
        }
        let own_tasks = tasks.len();
        let mut stop = pin!(stop);
        let ended = tokio::select! {
            biased;
            () = &mut stop => Ended::Stopped,
            () = core.out.closed() => Ended::HostLeft,
            () = Box::pin(read(&core, host, &mut tasks)) => {
                // Who writes its questions and hangs up, as a script does, still gets its answers.
                let answers = async {
                    while tasks.len() > own_tasks && tasks.join_next().await.is_some() {}
                    core.translation.settled().await;
                };
                tokio::select! {
                    () = &mut stop => Ended::Stopped,
                    () = core.out.closed() => Ended::HostLeft,
                    _ = tokio::time::timeout(LINGER, answers) => Ended::HostLeft,
                }
            }
        };
        core.login.abandon();
        tasks.shutdown().await;
        core.translation.end().await;
        core.farewell().await;
        ended
    }
}

/// Reads the host to its end. When too much of what it said waits for answers, it is not read.
async fn read(core: &Arc<Core>, host: impl AsyncRead + Unpin, tasks: &mut JoinSet<()>) {
    let limits = core.config.limits;
    let room = Arc::new(Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS)));
    let mut reader = FrameReader::new(host, limits.frame);
    loop {
        let next = tokio::select! {
            biased;
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            next = reader.next() => next,
        };
        let message = match next {
            Ok(Some(Frame::Message(message))) => message,
            Ok(Some(Frame::TooLong(long))) => {
                let id = long.peek.id.clone();
                let Ok(permit) = room.clone().acquire_many_owned(charge(0, limits)).await else {
                    return;
                };
                tasks.spawn(core.refusing(id, Fault::TooLong(long), Arc::new(permit)));
                continue;
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the host cannot be read");
                return;
            }
        };
        let wanted = charge(message.len(), limits);
        // Never closed.
        let Ok(permit) = room.clone().acquire_many_owned(wanted).await else {
            return;
        };
        core.dispatch(message, Arc::new(permit), tasks);
    }
}

/// How much room a message of this length takes: a short one costs its task.
fn charge(length: usize, limits: Limits) -> u32 {
    u32::try_from(length.max(TASK).min(limits.in_flight)).unwrap_or(u32::MAX)
}

/// Whom a message waits for.
struct Waits {
    before: Option<Before>,
    opening: Option<Turn>,
    notice: Option<Turn>,
}

impl Core {
    /// Begins to carry a message of the host. Nothing waits in it: a host that writes may read only later.
    fn dispatch(
        self: &Arc<Self>,
        message: Bytes,
        permit: Arc<OwnedSemaphorePermit>,
        tasks: &mut JoinSet<()>,
    ) {
        let peek = Scan::of(&message);
        if !peek.whole {
            let fault = match serde_json::from_slice::<serde::de::IgnoredAny>(&message) {
                Ok(_) => Fault::NotMessage,
                Err(_) => Fault::NotJson,
            };
            tasks.spawn(self.refusing(None, fault, permit));
            return;
        }
        if let (Kind::Response, Some(id)) = (peek.kind, &peek.id)
            && self.approver.answered(id, &message)
        {
            return;
        }
        let most = self.config.limits.requests;
        match self.translation.route(&message, peek.kind, &permit, most) {
            Route::Pass => {}
            Route::Wait => return,
            Route::Translate => {
                if peek.method == INITIALIZED {
                    self.approver.initialized();
                }
                self.tell(Input::Host(message), Some(permit));
                return;
            }
            Route::Refuse => {
                tasks.spawn(self.refusing(peek.id, Fault::TooMany(most), permit));
                return;
            }
            Route::Ask => {
                let core = self.clone();
                tasks.spawn(Box::pin(async move { core.ask_era(message).await }));
                return;
            }
        }
        tasks.spawn(self.passing(peek, message, permit));
    }

    /// Carries a message as it is. It has its turn when this returns, and goes when what is returned is driven.
    pub(crate) fn passing(
        self: &Arc<Self>,
        peek: Peek,
        message: Bytes,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> BoxFuture<'static, ()> {
        match (peek.kind, &peek.id) {
            (Kind::Request, Some(id)) => {
                let id = id.clone();
                self.asked(id, &peek, message, permit)
            }
            (Kind::Notification, _) => self.notify(&peek, message, permit),
            (Kind::Batch, _) => self.batch(&message, &permit),
            (Kind::Response, _) => {
                let (core, waits) = (self.clone(), self.waits(None, None));
                Box::pin(async move {
                    waits.done().await;
                    core.pass(message, permit).await;
                })
            }
            (Kind::Request | Kind::Unknown, _) => {
                self.refusing(None, Fault::NotMessage, permit.clone())
            }
        }
    }

    /// Carries each message of a batch as if it had come alone: so each request is answered, and each is looked at.
    fn batch(
        self: &Arc<Self>,
        message: &Bytes,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> BoxFuture<'static, ()> {
        let Ok(parts) = batch::split(message) else {
            return self.refusing(None, Fault::NotMessage, permit.clone());
        };
        let parts = parts.into_iter().filter_map(|part| {
            let peek = Scan::of(&part);
            if !peek.whole || peek.kind == Kind::Batch {
                return Some(self.refusing(None, Fault::NotMessage, permit.clone()));
            }
            if let (Kind::Response, Some(id)) = (peek.kind, &peek.id)
                && self.approver.answered(id, &part)
            {
                return None;
            }
            Some(self.passing(peek, part, permit.clone()))
        });
        let all: Vec<_> = parts.collect();
        Box::pin(async move {
            join_all(all).await;
        })
    }

    /// Refuses a message. It keeps its room until the host has taken the answer: who only writes is not read without end.
    fn refusing(
        self: &Arc<Self>,
        id: Option<Id>,
        fault: Fault,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> BoxFuture<'static, ()> {
        let core = self.clone();
        Box::pin(async move {
            core.refuse(id.as_ref(), &fault).await;
            drop(permit);
        })
    }

    fn asked(
        self: &Arc<Self>,
        id: Id,
        peek: &Peek,
        message: Bytes,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> BoxFuture<'static, ()> {
        if self.table.len() >= self.config.limits.requests {
            let fault = Fault::TooMany(self.config.limits.requests);
            return self.refusing(Some(id), fault, permit);
        }
        let mut ask = Ask::new(id, &peek.method, false);
        if !self.config.ignored_tools.is_empty() && peek.method.starts_with("tools/") {
            let read = Message::read(message.clone()).ok();
            let hidden = read
                .as_ref()
                .and_then(Message::name)
                .is_some_and(|name| lock(&self.tools).ignored(&name));
            if hidden && peek.method == "tools/call" {
                return self.refusing(Some(ask.id), Fault::Hidden, permit);
            }
            ask.first_page = read.is_none_or(|read| read.param("cursor").is_none());
        }
        let ask = Arc::new(ask);
        self.table.add(&ask);
        let before = self.opening.before();
        let opening = (peek.method == "initialize").then(|| {
            self.approver.learn(&message);
            self.opening.take()
        });
        let waits = Waits {
            before,
            opening,
            notice: None,
        };
        let core = self.clone();
        Box::pin(async move {
            let _turn = waits.done().await;
            core.request(&ask, message, permit).await;
        })
    }

    fn notify(
        self: &Arc<Self>,
        peek: &Peek,
        message: Bytes,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> BoxFuture<'static, ()> {
        let cancels = peek.method == "notifications/cancelled";
        if cancels && let Some(ask) = table::cancelled(&message).and_then(|id| self.table.find(&id))
        {
            ask.cancel();
        }
        let opens = peek.method == INITIALIZED;
        if opens {
            self.approver.initialized();
        }
        let before = self.opening.before();
        let opening = opens.then(|| self.opening.take());
        let waits = Waits {
            before,
            opening,
            // Whoever cancels may do so because of what those before it wait for.
            notice: (!cancels).then(|| self.notices.take()),
        };
        let core = self.clone();
        Box::pin(async move {
            let _turn = waits.done().await;
            if opens {
                core.wire.keep_initialized(&message);
            }
            core.pass(message, permit).await;
            if opens {
                core.wire.listen();
            }
        })
    }

    fn waits(&self, opening: Option<Turn>, notice: Option<Turn>) -> Waits {
        Waits {
            before: self.opening.before(),
            opening,
            notice,
        }
    }

    /// Sends what has no answer of its own.
    async fn pass(self: &Arc<Self>, message: Bytes, permit: Arc<OwnedSemaphorePermit>) {
        let none = HeaderMap::new();
        let posted = self.post(&message, &none, Place::InSession);
        let posted = Box::pin(posted).await;
        drop((message, permit));
        let fault = match posted {
            Ok(response) if response.status().is_success() => {
                return Box::pin(self.after(response)).await;
            }
            Ok(response) => Fault::Status {
                status: response.status().as_u16(),
                error: None,
            },
            Err(fault) => fault,
        };
        tracing::info!(code = fault.code(), %fault, "a message could not be delivered");
    }

    /// Answers what has no answer.
    async fn refuse(&self, id: Option<&Id>, fault: &Fault) {
        tracing::info!(code = fault.code(), "a message is refused");
        let answer = fault.answer(id, &self.config.login_command);
        // A host that has gone is noticed elsewhere.
        drop(self.out.message(&answer).await);
    }

    /// Keeps the session, and what lies between, awake.
    async fn pinging(self: Arc<Self>, every: Duration) {
        let mut number = 0_u64;
        loop {
            tokio::time::sleep(every).await;
            if self.wire.stage() == Stage::Idle {
                continue;
            }
            number += 1;
            let id = format!("\"pilotlight-ping-{number}\"");
            let message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            let ask = Arc::new(Ask::new(Id::new(&id), "ping", true));
            self.table.add(&ask);
            let permit = Arc::new(Semaphore::new(1)).acquire_owned().await;
            let Ok(permit) = permit else { return };
            let asking = self.request(&ask, message.into(), Arc::new(permit));
            if tokio::time::timeout(PING, Box::pin(asking)).await.is_err() {
                self.table.remove(&ask);
            }
        }
    }
}

impl Waits {
    /// Waits, and keeps the turns for as long as what it gives is kept.
    async fn done(mut self) -> (Option<Turn>, Option<Turn>) {
        if let Some(before) = self.before.take() {
            before.done().await;
        }
        if let Some(turn) = &self.opening {
            turn.come().await;
        }
        if let Some(turn) = &self.notice {
            turn.come().await;
        }
        (self.opening, self.notice)
    }
}

const INITIALIZED: &str = "notifications/initialized";
/// What was asked before the host hung up may take this long.
const LINGER: Duration = Duration::from_secs(2);
/// What a message costs at least.
const TASK: usize = 1024;
const PING: Duration = Duration::from_secs(30);
