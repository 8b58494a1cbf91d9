//! Where host and server are not both of the old era: a machine of [`era`](crate::era) decides, and this does what it says.
//!
//! ```text
//!   host ── Input::Host ──> machine ── Output::Post ──> a task each ── Input::Answer, Refused, Ended ──> machine
//!                              └──── Output::ToHost ──> stdout
//! ```

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
};

use crate::{
    answer::{Assembly, Came, Message as Arrived, Stream, piece},
    bridge::Core,
    config::Transport,
    era::{
        Era, Failure, Identity, Input, NEW, NewHost, OldHost, Output, Post, Stateless, Ticket,
        detect::{self, Asked, Discovery, Verdict},
    },
    lock::lock,
    message::{Id as MessageId, Message},
    refusal::Fault,
    scan::{Id, Kind, Scan},
    table::Ask,
    tools::Tools,
    upstream::{Place, Stage, is_events, refused},
};

/// Whoever decides what is said.
pub(crate) trait Machine: Send + std::fmt::Debug {
    fn step(&mut self, input: Input) -> Vec<Output>;
}

impl Machine for Stateless {
    fn step(&mut self, input: Input) -> Vec<Output> {
        Self::step(self, input)
    }
}

impl Machine for OldHost {
    fn step(&mut self, input: Input) -> Vec<Output> {
        Self::step(self, input)
    }
}

impl Machine for NewHost {
    fn step(&mut self, input: Input) -> Vec<Output> {
        Self::step(self, input)
    }
}

/// The machine at work, and its requests under way.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    mode: Mutex<Mode>,
    machine: tokio::sync::Mutex<Option<Box<dyn Machine>>>,
    posts: Mutex<HashMap<Ticket, AbortHandle>>,
    /// Owns those requests: none outlives the bridge.
    tasks: Mutex<JoinSet<()>>,
}

type Permit = Arc<OwnedSemaphorePermit>;
/// A message of the host; one that was handed back by a machine takes no room any more.
type Waiting = (Bytes, Option<Permit>);

/// Who speaks what.
#[derive(Debug, Default)]
enum Mode {
    /// The host has said nothing that tells.
    #[default]
    Undecided,
    /// The server is being asked; what the host says meanwhile waits.
    Asking(VecDeque<Waiting>),
    /// Both old: the bytes pass.
    Passing,
    /// The machine decides.
    Translating,
}

/// What is to become of a message of the host.
pub(crate) enum Route {
    /// It passes.
    Pass,
    /// The machine gets it.
    Translate,
    /// The server is to be asked what it speaks; the message waits.
    Ask,
    /// It waits with others.
    Wait,
}

impl Translation {
    fn mode(&self) -> MutexGuard<'_, Mode> {
        lock(&self.mode)
    }

    fn posts(&self) -> MutexGuard<'_, HashMap<Ticket, AbortHandle>> {
        lock(&self.posts)
    }

    pub(crate) fn is_on(&self) -> bool {
        matches!(*self.mode(), Mode::Translating)
    }

    /// Says what is to become of a message, and keeps one that waits.
    pub(crate) fn route(&self, message: &Bytes, kind: Kind, permit: &Permit) -> Route {
        let mut mode = self.mode();
        match &mut *mode {
            Mode::Passing => Route::Pass,
            Mode::Translating => Route::Translate,
            Mode::Asking(waiting) => {
                waiting.push_back((message.clone(), Some(permit.clone())));
                Route::Wait
            }
            Mode::Undecided if kind == Kind::Batch => Route::Pass,
            Mode::Undecided => match era_of(message) {
                None => Route::Pass,
                Some(Era::Old) => {
                    *mode = Mode::Passing;
                    Route::Pass
                }
                Some(Era::New) => {
                    *mode = Mode::Asking([(message.clone(), Some(permit.clone()))].into());
                    Route::Ask
                }
            },
        }
    }

    /// Waits until nothing is under way.
    pub(crate) async fn settled(&self) {
        while poll_fn(|cx| lock(&self.tasks).poll_join_next(cx))
            .await
            .is_some()
        {}
    }

    /// Nothing is under way any more.
    pub(crate) fn stop(&self) {
        for (_, post) in self.posts().drain() {
            post.abort();
        }
    }

    /// The same, for good.
    pub(crate) async fn end(&self) {
        self.stop();
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
    }
}

impl Core {
    fn new_tools(&self) -> Tools {
        Tools::new(&self.config.ignored_tools)
    }

    /// Asks the server what it speaks, for a host of the new era, and begins with what the host has said meanwhile.
    pub(crate) async fn ask_era(self: &Arc<Self>, first: Bytes) {
        let old = match self.asked_era(&first).await {
            Ok(Verdict::Legacy) => true,
            Ok(Verdict::TrySse) => self.begin_sse().await.is_ok(),
            Ok(_) => false,
            Err(fault) => return self.not_told(&fault).await,
        };
        let machine: Box<dyn Machine> = match old {
            true => Box::new(NewHost::new(identity(), self.new_tools())),
            false => Box::new(Stateless::new(self.new_tools())),
        };
        self.put_to_work(machine).await;
    }

    /// The server could not be asked. Whoever waits hears why, and the next message has it asked again: an era that was guessed
    /// would hold for the life of the process. A host that has fallen back meanwhile goes on from there (TR-16).
    async fn not_told(self: &Arc<Self>, fault: &Fault) {
        tracing::info!(
            code = fault.code(),
            "the server could not be asked what it speaks"
        );
        let waiting = {
            let mut mode = self.translation.mode();
            let Mode::Asking(waiting) = &mut *mode else {
                return;
            };
            let mut waiting = std::mem::take(waiting);
            *mode = Mode::Undecided;
            let is_old = |(message, _): &Waiting| era_of(message) == Some(Era::Old);
            if let Some(first) = waiting.iter().position(is_old) {
                *mode = Mode::Passing;
                // It keeps its place: nothing passes while the mode is held.
                for (message, permit) in waiting.split_off(first) {
                    self.pass_on(message, permit);
                }
            }
            waiting
        };
        self.refuse_all(waiting, fault).await;
    }

    async fn refuse_all(&self, waiting: VecDeque<Waiting>, fault: &Fault) {
        for (message, _) in waiting {
            let peek = Scan::of(&message);
            if let (Kind::Request, Some(id)) = (peek.kind, &peek.id) {
                let answer = fault.answer(Some(id), &self.config.login_command);
                // A host that has gone is noticed elsewhere.
                drop(self.out.message(&answer).await);
            }
        }
    }

    /// Begins to translate for a host of the old era; tells whether the server is one of the new.
    pub(crate) async fn translated(
        self: &Arc<Self>,
        initialize: &Bytes,
        status: u16,
        body: &Bytes,
        permit: &Permit,
    ) -> bool {
        let known = match detect::detect(Asked::Initialize, status, body) {
            Verdict::Modern(known) => known,
            Verdict::Retry(_) => None,
            _ => return false,
        };
        self.translate_for_old(initialize, known, permit).await;
        true
    }

    /// The same, where the refusal of `initialize` does not tell: the server is asked.
    pub(crate) async fn translated_if_asked(
        self: &Arc<Self>,
        initialize: &Bytes,
        permit: &Permit,
    ) -> bool {
        let Ok(Verdict::Modern(known)) = self.asked_era(initialize).await else {
            return false;
        };
        self.translate_for_old(initialize, known, permit).await;
        true
    }

    async fn translate_for_old(
        self: &Arc<Self>,
        initialize: &Bytes,
        known: Option<Discovery>,
        permit: &Permit,
    ) {
        tracing::info!("the server knows no sessions; the host is translated for");
        let machine = OldHost::new(identity(), self.new_tools(), known);
        let waiting = [(initialize.clone(), Some(permit.clone()))];
        *self.translation.mode() = Mode::Asking(waiting.into());
        self.put_to_work(Box::new(machine)).await;
    }

    /// Asks the server what it speaks; a fault where that tells nothing.
    async fn asked_era(self: &Arc<Self>, first: &Bytes) -> Result<Verdict, Fault> {
        let message = Message::read(first.clone()).ok();
        let id = MessageId::of_text("pilotlight-probe");
        let probe = detect::probe(&id, message.as_ref(), &identity());
        let read = Message::read(probe.clone()).ok();
        let wanted = read.and_then(|read| crate::headers::of(&read, NEW, &[]).ok());
        let mut fields = HeaderMap::new();
        fields.extend(wanted.unwrap_or_default());
        let response = Box::pin(self.post(&probe, &fields, Place::Alone)).await?;
        let status = response.status().as_u16();
        if response.status().is_success() {
            let answer = Box::pin(self.own_answer(response)).await?;
            return Ok(detect::detect(Asked::New, status, &answer));
        }
        let told = refused(response).await;
        let body = match &told {
            Fault::Status { error, .. } => error.clone().unwrap_or_default(),
            _ => Bytes::new(),
        };
        match detect::detect(Asked::New, status, &body) {
            Verdict::Challenge | Verdict::Unavailable => Err(told),
            verdict => Ok(verdict),
        }
    }

    /// Puts a machine to work, with what waits for it.
    async fn put_to_work(self: &Arc<Self>, machine: Box<dyn Machine>) {
        *self.translation.machine.lock().await = Some(machine);
        loop {
            // What waits is taken and told under one lock: whoever takes the machine away finds the rest where it was.
            let mut machine = self.translation.machine.lock().await;
            if machine.is_none() {
                return;
            }
            let next = {
                let mut mode = self.translation.mode();
                let Mode::Asking(waiting) = &mut *mode else {
                    return;
                };
                match waiting.pop_front() {
                    Some(next) => next,
                    None => {
                        *mode = Mode::Translating;
                        return;
                    }
                }
            };
            let (message, permit) = next;
            self.step(&mut machine, Input::Host(message), permit).await;
        }
    }

    /// Tells the machine what happened, and does what it says. Boxed, since what is done may tell it more.
    pub(crate) fn feed(
        self: &Arc<Self>,
        input: Input,
        permit: Option<Permit>,
    ) -> BoxFuture<'static, ()> {
        let core = self.clone();
        Box::pin(async move { core.fed(input, permit).await })
    }

    async fn fed(self: &Arc<Self>, input: Input, permit: Option<Permit>) {
        let mut machine = self.translation.machine.lock().await;
        if machine.is_some() {
            return self.step(&mut machine, input, permit).await;
        }
        // It was taken away while this waited for it.
        let Input::Host(message) = input else { return };
        match &mut *self.translation.mode() {
            Mode::Asking(waiting) => waiting.push_back((message, permit)),
            _ => self.pass_on(message, permit),
        }
    }

    async fn step(
        self: &Arc<Self>,
        machine: &mut Option<Box<dyn Machine>>,
        input: Input,
        permit: Option<Permit>,
    ) {
        let Some(deciding) = machine.as_mut() else {
            return;
        };
        for output in deciding.step(input) {
            match output {
                // A host that has gone is noticed elsewhere.
                Output::ToHost(message) => drop(self.out.message(&message).await),
                Output::Post(post) => self.begin_post(post, permit.clone()),
                Output::CloseStream(ticket) => {
                    if let Some(post) = self.translation.posts().remove(&ticket) {
                        post.abort();
                    }
                }
                Output::Fail(Failure::HostEra(message)) => {
                    // The host gave up on its first try and begins as an old one does.
                    self.translation.stop();
                    *machine = None;
                    let mut mode = self.translation.mode();
                    let before = std::mem::replace(&mut *mode, Mode::Passing);
                    self.pass_on(message, permit);
                    // What it has said since keeps its place: nothing passes while the mode is held.
                    if let Mode::Asking(waiting) = before {
                        for (message, permit) in waiting {
                            self.pass_on(message, permit);
                        }
                    }
                    return;
                }
                Output::Fail(Failure::ServerEra(back)) => {
                    *machine = None;
                    self.handed_back(back);
                    return;
                }
                Output::Fail(failure) => {
                    tracing::warn!(%failure, "a message could not be translated")
                }
                Output::Note(note) => tracing::info!(?note, "translated"),
            }
        }
    }

    /// Carries a message of a host that is no longer translated for. It has its turn when this returns.
    fn pass_on(self: &Arc<Self>, message: Bytes, permit: Option<Permit>) {
        let permit = permit.or_else(|| {
            let room = Arc::new(Semaphore::new(1));
            room.try_acquire_owned().ok().map(Arc::new)
        });
        let Some(work) = permit.map(|permit| self.passing(Scan::of(&message), message, permit))
        else {
            return;
        };
        let mut posts = self.translation.posts();
        let mut free = (0..AGAIN.0).rev().map(Ticket);
        let Some(ticket) = free.find(|one| !posts.contains_key(one)) else {
            return;
        };
        self.under_way(&mut posts, ticket, work);
    }

    /// Has something done that [`Translation::stop`] ends. It is noted before it can end, by the lock that is held.
    fn under_way(
        self: &Arc<Self>,
        posts: &mut HashMap<Ticket, AbortHandle>,
        ticket: Ticket,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let core = self.clone();
        let mut tasks = lock(&self.translation.tasks);
        // What has ended takes no room.
        while tasks.try_join_next().is_some() {}
        let task = tasks.spawn(async move {
            work.await;
            core.translation.posts().remove(&ticket);
        });
        posts.insert(ticket, task);
    }

    /// The server is not of the era that it was taken for: what is left is the transport of 2024-11-05 (TR-50).
    fn handed_back(self: &Arc<Self>, back: Vec<Bytes>) {
        let old = back.first().and_then(era_of) == Some(Era::Old);
        {
            let mut mode = self.translation.mode();
            let mut waiting: VecDeque<Waiting> = back.into_iter().map(|raw| (raw, None)).collect();
            if let Mode::Asking(others) = &mut *mode {
                waiting.append(others);
            }
            *mode = Mode::Asking(waiting);
        }
        let core = self.clone();
        let mut posts = self.translation.posts();
        self.under_way(&mut posts, AGAIN, async move { core.try_sse(old).await });
    }

    async fn try_sse(self: &Arc<Self>, old: bool) {
        let may =
            !old && self.wire.stage() != Stage::Sse && self.config.transport != Transport::HttpOnly;
        let found = may && self.begin_sse().await.is_ok();
        let machine = || Box::new(NewHost::new(identity(), self.new_tools()));
        if found {
            return self.put_to_work(machine()).await;
        }
        // Whoever waits hears it, and whoever comes later tries again.
        let waiting = {
            let mut deciding = self.translation.machine.lock().await;
            let mut mode = self.translation.mode();
            let next = match old {
                true => Mode::Passing,
                false => {
                    *deciding = Some(machine());
                    Mode::Translating
                }
            };
            std::mem::replace(&mut *mode, next)
        };
        let Mode::Asking(waiting) = waiting else {
            return;
        };
        self.refuse_all(waiting, &Fault::NoTransport).await;
    }

    fn begin_post(self: &Arc<Self>, post: Post, permit: Option<Permit>) {
        let (core, ticket) = (self.clone(), post.ticket);
        let before = self.opening.before();
        let opens = Scan::of(&post.raw).method;
        let turn = matches!(opens.as_str(), "initialize" | "notifications/initialized")
            .then(|| self.opening.take());
        let mut posts = self.translation.posts();
        self.under_way(&mut posts, ticket, async move {
            if let Some(before) = before {
                before.done().await;
            }
            Box::pin(core.carry(post, &opens, permit)).await;
            drop(turn);
        });
    }

    /// Carries one message of the machine, and tells it what comes of that.
    async fn carry(self: &Arc<Self>, post: Post, method: &str, permit: Option<Permit>) {
        let (to, answered) = (post.ticket, post.answered);
        if !post.after.is_zero() {
            tokio::time::sleep(post.after).await;
        }
        let opens = method == "initialize";
        if opens {
            self.wire.keep_initialize(&post.raw);
        } else if method == "notifications/initialized" {
            self.wire.keep_initialized(&post.raw);
        }
        let done = Box::pin(self.carried(&post, opens, permit)).await;
        if method == "notifications/initialized" {
            self.wire.listen();
        }
        if !answered {
            return;
        }
        if let Err(fault) = done {
            match &fault {
                Fault::Status { status, error } => {
                    let body = error.clone().unwrap_or_default();
                    let refused = Input::Refused {
                        to,
                        status: *status,
                        body,
                    };
                    return self.feed(refused, None).await;
                }
                // It may be resumed, or is told as lost, as the machine sees fit.
                Fault::NoAnswer => {}
                fault => {
                    // An error of ours is the answer.
                    tracing::info!(method, code = fault.code(), "a request failed");
                    let id = Scan::of(&post.raw).id;
                    let raw = fault.answer(id.as_ref(), &self.config.login_command).into();
                    self.feed(Input::Answer { to, raw }, None).await;
                }
            }
        }
        self.feed(Input::Ended { to }, None).await;
    }

    async fn carried(
        self: &Arc<Self>,
        post: &Post,
        opens: bool,
        permit: Option<Permit>,
    ) -> Result<(), Fault> {
        let to = post.ticket;
        let mut fields = HeaderMap::new();
        fields.extend(post.headers.iter().cloned());
        let place = if opens {
            Place::Alone
        } else {
            Place::InSession
        };
        let ask = Scan::of(&post.raw).id.map(|id| {
            let mut ask = Ask::new(Id::new(id.as_str()), "", true);
            ask.ticket = Some(to);
            Arc::new(ask)
        });
        let sse = self.wire.stage() == Stage::Sse;
        if let Some(ask) = ask.as_ref().filter(|_| sse) {
            self.table.add(ask);
        }
        let response = match &ask {
            Some(ask) => self.post_asked(ask, &post.raw, &fields, place).await,
            None => self.post(&post.raw, &fields, place).await,
        }?;
        drop(permit);
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        if let Some(ask) = ask.filter(|_| sse && post.answered) {
            ask.settled().await;
            self.table.remove(&ask);
            return Ok(());
        }
        if opens {
            self.wire.begin(response.headers());
        }
        let assembly = Assembly::new(&self.out, self.config.limits, true);
        if is_events(response.headers()) {
            let mut stream = Stream::new(response.into_body(), assembly, self.config.body_timeout);
            while let Some(came) = stream.next().await? {
                if let Came::Message(Arrived::Held(raw, _)) = came {
                    self.told(to, raw, opens).await;
                }
            }
            return Ok(());
        }
        let (mut body, mut assembly) = (response.into_body(), assembly);
        while let Some(bytes) = piece(&mut body, self.config.body_timeout).await? {
            assembly.piece(bytes).await?;
        }
        if let Some(Arrived::Held(raw, _)) = assembly.end().await? {
            self.told(to, raw, opens).await;
        }
        Ok(())
    }

    async fn told(self: &Arc<Self>, to: Ticket, raw: Bytes, opens: bool) {
        for raw in crate::exchange::parts(raw) {
            if opens && Scan::of(&raw).kind == Kind::Response {
                self.wire.agree(&raw);
            }
            self.feed(Input::Answer { to, raw }, None).await;
        }
    }
}

/// Names what is no POST of a machine: the search for another transport. Those below it name what passes after all.
const AGAIN: Ticket = Ticket(u64::MAX);

/// The era that a message of the host tells.
fn era_of(message: &Bytes) -> Option<Era> {
    let message = Message::read(message.clone()).ok()?;
    crate::era::host_era(&message)
}

fn identity() -> Identity {
    Identity {
        name: "pilotlight".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
