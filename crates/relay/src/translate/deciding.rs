//! What a machine says, done: nothing here waits, so whoever has something to tell it is never held up by somebody else.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use tokio::{sync::Semaphore, task::AbortHandle};

use super::{Machine, Mode, Permit, Waiting, era_of, identity};
use crate::{
    bridge::Core,
    config::Transport,
    era::{Era, Failure, Input, NewHost, Output, Ticket},
    lock::lock,
    refusal::Fault,
    scan::Scan,
    wire::Stage,
};

impl Core {
    /// Puts a machine to work, with what waits for it: that is told before anybody else tells it something.
    pub(super) fn put_to_work(self: &Arc<Self>, machine: Box<dyn Machine>) {
        self.translation
            .resumes
            .store(machine.resumes(), Ordering::Relaxed);
        let mut deciding = self.translation.machine();
        *deciding = Some(machine);
        while deciding.is_some() {
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
            self.step(&mut deciding, Input::Host(message), permit);
        }
    }

    /// Tells the machine what the server did, and has done what it says. Whoever reads the server goes on when the host has
    /// taken that.
    pub(crate) async fn feed(self: &Arc<Self>, input: Input) {
        let last = self.tell(input, None);
        self.translation.outbox.written(last).await;
    }

    /// Tells the machine what happened, and has done what it says; gives the number of the last line for the host. Nothing waits
    /// in it: whoever reads the host may not wait until the host reads.
    pub(crate) fn tell(self: &Arc<Self>, input: Input, permit: Option<Permit>) -> u64 {
        let mut machine = self.translation.machine();
        if machine.is_some() {
            self.step(&mut machine, input, permit);
            return self.translation.outbox.last();
        }
        // It was taken away before this came.
        if let Input::Host(message) = input {
            match &mut *self.translation.mode() {
                Mode::Asking(waiting) => waiting.push_back((message, permit)),
                _ => self.pass_on(message, permit),
            }
        }
        0
    }

    fn step(
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
                Output::ToHost(message) => self.translation.outbox.add(message, permit.clone()),
                Output::Post(post) => self.begin_post(post, permit.clone()),
                // Whoever tells this may be that post: it has nothing more to do, and its last words are in the outbox.
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
    pub(super) fn pass_on(self: &Arc<Self>, message: Bytes, permit: Option<Permit>) {
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
    pub(super) fn under_way(
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
            return self.put_to_work(machine());
        }
        // Whoever waits hears it, and whoever comes later tries again.
        let waiting = {
            let mut deciding = self.translation.machine();
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
}

/// Names what is no POST of a machine: the search for another transport. Those below it name what passes after all.
const AGAIN: Ticket = Ticket(u64::MAX);
