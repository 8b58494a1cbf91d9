//! Where host and server are not both of the old era: a machine of [`era`](crate::era) decides, and this does what it says.
//!
//! ```text
//!   host ── Input::Host ──> machine ── Output::Post ──> a task each ── Input::Answer, Refused, Ended ──> machine
//!                              └──── Output::ToHost ──> stdout
//! ```

mod asking;
mod carrying;
mod deciding;
mod outbox;

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    sync::OwnedSemaphorePermit,
    task::{AbortHandle, JoinSet},
};

use crate::{
    bridge::Core,
    era::{Era, Identity, Input, NewHost, OldHost, Output, Stateless, Ticket},
    lock::lock,
    message::Message,
    scan::Kind,
    tools::Tools,
};
use outbox::Outbox;

/// Whoever decides what is said.
pub(crate) trait Machine: Send + std::fmt::Debug {
    fn step(&mut self, input: Input) -> Vec<Output>;

    /// Whether an answer whose stream breaks off is asked for where it did (TR-35): servers of the new era know no such thing
    /// (TR-10).
    fn resumes(&self) -> bool {
        false
    }
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

    fn resumes(&self) -> bool {
        true
    }
}

/// The machine at work, and its requests under way.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    mode: Mutex<Mode>,
    machine: Mutex<Option<Box<dyn Machine>>>,
    resumes: AtomicBool,
    outbox: Outbox,
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
    /// There is no room for it.
    Refuse,
}

impl Translation {
    fn mode(&self) -> MutexGuard<'_, Mode> {
        lock(&self.mode)
    }

    /// Locked before the mode, and before the posts.
    fn machine(&self) -> MutexGuard<'_, Option<Box<dyn Machine>>> {
        lock(&self.machine)
    }

    fn posts(&self) -> MutexGuard<'_, HashMap<Ticket, AbortHandle>> {
        lock(&self.posts)
    }

    pub(crate) fn is_on(&self) -> bool {
        matches!(*self.mode(), Mode::Translating)
    }

    pub(crate) fn resumes(&self) -> bool {
        self.resumes.load(Ordering::Relaxed)
    }

    /// Says what is to become of a message, and keeps one that waits. No more than `most` requests are under way.
    pub(crate) fn route(&self, message: &Bytes, kind: Kind, permit: &Permit, most: usize) -> Route {
        let mut mode = self.mode();
        let full = |others: usize| kind == Kind::Request && others >= most;
        match &mut *mode {
            Mode::Passing => Route::Pass,
            Mode::Translating if full(self.posts().len() + self.outbox.len()) => Route::Refuse,
            Mode::Translating => Route::Translate,
            Mode::Asking(waiting) if full(waiting.len()) => Route::Refuse,
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
        self.outbox.written(self.outbox.last()).await;
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

    /// Writes what a machine says to the host, until the bridge ends.
    pub(crate) async fn telling(self: Arc<Self>) {
        self.translation.outbox.write_to(&self.out).await;
    }
}

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
