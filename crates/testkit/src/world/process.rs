//! What a program does with its sessions: the client's session layer, over the same [`Memory`].

use pilotlight_core::{
    Error,
    credential::{Incarnation, Version},
    error::{Action, LoginCause, Waited},
    flow::refresh::{Gain, Outcome, Refresh},
    memory::{Installed, Memory, Saving, Service, Want, tries_the_ended},
    record::{Fact, Kept},
};

use super::{CALLER_WAIT, Event, Run, Variant, World, acts::AnyFlow, judge::number, people::What};

/// One process's session for one login.
#[derive(Debug, Default)]
pub(super) struct Cell {
    pub(super) memory: Memory,
    /// Which login that is, or was last.
    incarnation: Option<Incarnation>,
    pub(super) flight: Option<usize>,
    waiters: Vec<usize>,
    /// Whether a refresh ended with the lease kept, since only memory holds what it brought.
    pub(super) holds_lease: bool,
    /// The store's state at the last look.
    seen: u64,
    look_scheduled: bool,
    /// When a request last used it.
    pub(super) used_at: u64,
    save_scheduled: bool,
    saving: Saving,
}

/// One request of a program to the server.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) process: usize,
    pub(super) epoch: u32,
    login: usize,
    began_at: u64,
    sent: Option<Version>,
    /// The grant and access token that it carries.
    token: Option<(usize, usize)>,
    retried: bool,
    /// Whether it waited for a refresh because of a 401.
    refused: bool,
    wait: u32,
    waiting: Option<Waiting>,
    done: bool,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    want: Want,
    /// Whether it started the refresh it waits for.
    started: bool,
}

impl World {
    pub(super) fn start(&mut self, process: usize) {
        let logins = self.targets.len();
        let own = &mut self.processes[process];
        if own.alive {
            return;
        }
        own.alive = true;
        own.epoch += 1;
        own.paused = false;
        own.deferred.clear();
        own.cells = (0..logins).map(|_| Cell::default()).collect();
        let epoch = own.epoch;
        self.trace.say(self.now, || format!("p{process} starts"));
        for login in 0..logins {
            let first = self.random.between(100, self.plan.pace);
            self.after(
                first,
                Event::Request {
                    process,
                    epoch,
                    login,
                },
            );
            if self.is(Variant::RefreshAtConnect) && self.load(process, login).is_ok() {
                self.flight(
                    process,
                    login,
                    Want {
                        asked: true,
                        refused: None,
                    },
                );
            }
        }
    }

    /// A program makes a request, and will make another.
    pub(super) fn request(&mut self, process: usize, epoch: u32, login: usize) {
        let pace = self.plan.pace as f64;
        // Programs make requests in bursts: several at once, then nothing for a while.
        let pause = if self.random.chance(0.2) {
            50
        } else {
            100 + self.random.exponential(pace) as u64
        };
        self.after(
            pause,
            Event::Request {
                process,
                epoch,
                login,
            },
        );
        let request = self.requests.len();
        self.requests.push(Request {
            process,
            epoch,
            login,
            began_at: self.now,
            sent: None,
            token: None,
            retried: false,
            refused: false,
            wait: 0,
            waiting: None,
            done: false,
        });
        self.report.requests += 1;
        let now = self.now;
        let cell = &mut self.processes[process].cells[login];
        cell.used_at = now;
        if cell.seen != self.store.commits && !cell.look_scheduled {
            cell.look_scheduled = true;
            let soon = self.random.below(1_000);
            self.after(
                soon,
                Event::Look {
                    process,
                    epoch,
                    login,
                },
            );
        }
        self.serve(request);
    }

    /// Puts a token on a request, now or once there is one.
    fn serve(&mut self, request: usize) {
        let Request { process, login, .. } = self.requests[request];
        let now = self.clock(process);
        let missing = self.memory(process, login).version().is_none();
        if missing && let Err(error) = self.load(process, login) {
            return self.end(request, Err(error));
        }
        let policy = self.setup.policy;
        match self.memory(process, login).service(now, policy) {
            Ok(Service::Serve) => self.send(request),
            Ok(Service::ServeAndRefresh) => {
                self.mark_due(process, login);
                self.send(request);
                if self.processes[process].cells[login].flight.is_none() {
                    self.flight(process, login, Want::default());
                }
            }
            Ok(Service::Wait) => {
                self.mark_due(process, login);
                self.wait(request, Want::default());
            }
            Err(error) => self.end(request, Err(error)),
        }
    }

    fn send(&mut self, request: usize) {
        let Request { process, login, .. } = self.requests[request];
        let Ok(credential) = self.memory(process, login).credential() else {
            return self.end(request, Err(super::Store::never()));
        };
        let (version, token) = (credential.version, number(credential.access_token.expose()));
        let request_ = &mut self.requests[request];
        (request_.sent, request_.token) = (Some(version), token);
        // Most requests take no time worth telling; some are overtaken by what happens meanwhile.
        if self.random.chance(0.3) {
            let travel = 5 + self.random.below(2_000);
            self.after(travel, Event::Arrive { request });
        } else {
            self.arrive(request);
        }
    }

    /// The server has answered.
    pub(super) fn arrive(&mut self, request: usize) {
        let Request {
            process,
            login,
            sent,
            token,
            retried,
            ..
        } = self.requests[request].clone();
        let (Some(version), Some((family, access))) = (sent, token) else {
            return;
        };
        let mut taken = self.now >= self.server_refuses_until
            && self
                .issuer
                .accepts(family, access, self.now, self.plan.introspects);
        if self.plan.has(super::Kind::ServerRefuses) && !self.quiet && self.random.chance(0.002) {
            taken = false;
        }
        if taken && self.targets[login].wants_more {
            let cause = LoginCause::Scope {
                scopes: vec!["more".into()],
            };
            return self.end(request, Err(Error::login(cause)));
        }
        if taken {
            let wall = self.clock(process).wall;
            if let Some((_, acceptance)) = self.memory(process, login).accepted(version, wall) {
                // Off the request's path; whether it could be written is nobody's concern.
                let facts = [Fact::Acceptance(Some(acceptance))];
                drop(self.store.note(login, version, &facts));
            }
            return self.end(request, Ok(()));
        }
        if retried || self.is(Variant::NoRetryOn401) {
            return self.end(request, Err(Error::DeniedByResource));
        }
        self.requests[request].refused = true;
        self.mark_access_due(family, access);
        // Somebody may have brought a newer token: memory, then the store.
        if self.memory(process, login).version() == Some(version)
            && let Err(error) = self.load(process, login)
        {
            return self.end(request, Err(error));
        }
        match self.memory(process, login).version() {
            Some(current) if current != version => self.retry(request),
            Some(_) => self.wait(
                request,
                Want {
                    asked: false,
                    refused: Some(version),
                },
            ),
            None => self.end(request, Err(super::Store::never())),
        }
    }

    fn retry(&mut self, request: usize) {
        if std::mem::replace(&mut self.requests[request].retried, true) {
            self.broken("I-13", || "a request is repeated twice".into());
        }
        self.serve(request);
    }

    fn wait(&mut self, request: usize, want: Want) {
        let Request { process, login, .. } = self.requests[request];
        let now = self.clock(process);
        // I-14: who has a token that works never waits.
        if want == Want::default()
            && self
                .memory(process, login)
                .credential()
                .is_ok_and(|credential| {
                    credential
                        .expires_in(now)
                        .is_some_and(|left| !left.is_zero())
                })
        {
            self.broken("I-14", || "a request waits although its token lives".into());
        }
        let started = self.flight(process, login, want);
        self.requests[request].waiting = Some(Waiting { want, started });
        self.requests[request].wait += 1;
        let wait = self.requests[request].wait;
        self.processes[process].cells[login].waiters.push(request);
        self.after(CALLER_WAIT, Event::GiveUp { request, wait });
    }

    /// The caller's own deadline.
    pub(super) fn give_up(&mut self, request: usize, wait: u32) {
        let waits = &self.requests[request];
        if waits.done || waits.waiting.is_none() || waits.wait != wait {
            return;
        }
        let Request { process, login, .. } = *waits;
        let waits_for_refused = waits.waiting.is_some_and(|w| w.want.refused.is_some());
        self.processes[process].cells[login]
            .waiters
            .retain(|waiter| *waiter != request);
        if !waits_for_refused && self.serves(process, login) {
            return self.send(request);
        }
        let (waited_for, limit) = (
            Waited::Refresh,
            std::time::Duration::from_millis(CALLER_WAIT),
        );
        self.end(request, Err(Error::Timeout { waited_for, limit }));
    }

    /// A refresh has ended that requests waited for.
    fn wake(&mut self, process: usize, login: usize, result: &Result<Gain, Error>) {
        let waiters = std::mem::take(&mut self.processes[process].cells[login].waiters);
        for request in waiters {
            let Some(Waiting { want, started }) = self.requests[request].waiting else {
                continue;
            };
            let now = self.clock(process);
            let policy = self.setup.policy;
            let memory = self.memory(process, login);
            if !started && !memory.answers(want, result, now, policy) {
                // It was under way for another reason: one more.
                let started = self.flight(process, login, want);
                self.requests[request].waiting = Some(Waiting { want, started });
                self.processes[process].cells[login].waiters.push(request);
                continue;
            }
            self.requests[request].waiting = None;
            match want.refused {
                Some(refused) => self.woken_refused(request, refused, result.clone()),
                None => self.woken_expired(request, result.clone()),
            }
        }
    }

    fn woken_refused(&mut self, request: usize, refused: Version, result: Result<Gain, Error>) {
        let Request { process, login, .. } = self.requests[request];
        let current = self.memory(process, login).version();
        match result {
            Ok(_) if current.is_some_and(|version| version != refused) => self.retry(request),
            Ok(_) => self.end(request, Err(Error::DeniedByResource)),
            Err(error) => self.end(request, Err(error)),
        }
    }

    fn woken_expired(&mut self, request: usize, result: Result<Gain, Error>) {
        let Request { process, login, .. } = self.requests[request];
        let Err(error) = result else {
            return self.send(request);
        };
        let is_over =
            matches!(error, Error::LoginRequired { .. }) && self.load(process, login).is_err();
        if (!is_over && self.serves(process, login)) || tries_the_ended(&error) {
            self.send(request);
        } else {
            self.end(request, Err(error));
        }
    }

    /// Whether requests are served from memory now: somebody else may have brought a token while the caller waited (I-14).
    fn serves(&mut self, process: usize, login: usize) -> bool {
        let (now, policy) = (self.clock(process), self.setup.policy);
        let service = self.memory(process, login).service(now, policy);
        matches!(service, Ok(Service::Serve | Service::ServeAndRefresh))
    }

    fn end(&mut self, request: usize, result: Result<(), Error>) {
        let ended = &mut self.requests[request];
        ended.done = true;
        ended.waiting = None;
        let Request {
            process,
            login,
            began_at,
            refused,
            retried,
            ..
        } = *ended;
        let epoch = ended.epoch;
        let took = self.now - began_at;
        // For an ended token, after a 401, and for the token of the repeat: each wait has the caller's deadline.
        if took > 3 * CALLER_WAIT + 2_000
            && !self.judge.past.was_stopped(process, began_at, self.now)
        {
            self.broken("I-17", || format!("a request took {took} ms"));
        }
        let Err(error) = result else {
            self.judge.served(login, self.now);
            return;
        };
        // I-14: nor does a request fail that never left, although its token lives by all that its process knows.
        let unsent = self.requests[request].sent.is_none();
        let now = self.clock(process);
        let held = self.memory(process, login).credential().ok();
        let left = held
            .filter(|_| unsent)
            .and_then(|held| held.expires_in(now));
        let stopped = self.judge.past.was_stopped(process, began_at, self.now);
        if left.is_some_and(|left| !left.is_zero()) && !stopped {
            self.broken("I-14", || {
                format!("a request fails although its token lives: {error}")
            });
        }
        let asked_for = self.targets[login].logged_out || self.targets[login].wants_more;
        if !asked_for && self.now > super::CALM {
            self.report.failed += 1;
            self.judge.missed(login, self.now);
            self.trace.say(self.now, || {
                format!("p{process} login {login}: a request fails: {error}")
            });
        }
        if error == Error::DeniedByResource && !refused && !retried {
            self.broken("F-02", || {
                "a 401 was the end of a request that nothing was tried for".into()
            });
        }
        if error.action() == Action::LogIn
            && !self.targets[login].logged_out
            && self.now > super::CALM
        {
            self.call_person(process, epoch, login);
        }
    }

    fn call_person(&mut self, process: usize, _epoch: u32, login: usize) {
        if std::mem::replace(&mut self.targets[login].person_called, true) {
            return;
        }
        self.trace.say(self.now, || {
            format!("p{process} login {login}: a person is asked to log in")
        });
        let later = self.random.between(30_000, 600_000);
        self.after(
            later,
            Event::Person {
                login,
                what: What::Login,
            },
        );
    }

    pub(super) fn memory(&mut self, process: usize, login: usize) -> &mut Memory {
        &mut self.processes[process].cells[login].memory
    }

    /// Reads the store and takes over what is there.
    pub(super) fn load(&mut self, process: usize, login: usize) -> Result<(), Error> {
        let commits = self.store.commits;
        let with_spool = !self.is(Variant::SpoolNotReread);
        let mut record = self.store.rows[login].read(with_spool);
        if self.store.rows[login].binding.is_none() || record.is_none() {
            return Err(super::Store::never());
        }
        if self.is(Variant::ReceivedTimeNotSeeded)
            && let Some(credential) = record
                .as_mut()
                .and_then(|record| record.credential.as_mut())
        {
            credential.received_at = None;
        }
        let boot = self.clock(process).boot;
        let cell = &mut self.processes[process].cells[login];
        cell.seen = commits;
        let installed = cell.memory.install(record, None, false, boot);
        self.installed(process, login, installed);
        Ok(())
    }

    fn installed(&mut self, process: usize, login: usize, installed: Installed) {
        if installed == Installed::Changed {
            let version = self.memory(process, login).version();
            let generation = version.map_or(u64::MAX, |version| version.generation.0);
            self.trace
                .mark([self.now, process as u64, login as u64, generation]);
            let own = &mut self.processes[process];
            let life = (process, own.epoch);
            let incarnation = version.map(|version| version.incarnation);
            let before = std::mem::replace(&mut own.cells[login].incarnation, incarnation);
            if before.is_some() && before != incarnation {
                self.judge
                    .past
                    .takes_over(life, login, self.now, incarnation);
            }
        }
        if self.memory(process, login).waits_for_store() {
            self.save_later(process, login);
        }
    }

    /// The ticker comes by once a second.
    fn save_later(&mut self, process: usize, login: usize) {
        let own = &mut self.processes[process];
        let scheduled = std::mem::replace(&mut own.cells[login].save_scheduled, true);
        let save = Event::Save {
            process,
            epoch: own.epoch,
            login,
        };
        if !scheduled {
            self.after(1_000, save);
        }
    }

    /// The ticker's look at a store that has changed.
    pub(super) fn look(&mut self, process: usize, login: usize) {
        self.processes[process].cells[login].look_scheduled = false;
        drop(self.load(process, login));
    }

    /// An attempt was noted a few seconds ago. Who looks at the store every second sees whether it still stands.
    pub(super) fn look_for_abandoned(&mut self, process: usize, login: usize) {
        // The ticker looks at what was used lately.
        let idle = self.now - self.processes[process].cells[login].used_at;
        let unknown = self.memory(process, login).version().is_none();
        if idle > 600_000 || unknown || self.load(process, login).is_err() {
            return;
        }
        let (now, policy) = (self.clock(process), self.policy());
        let cell = &self.processes[process].cells[login];
        if cell.flight.is_none() && cell.memory.finds_abandoned(now, policy) {
            self.flight(process, login, Want::default());
        }
    }

    /// An attempt that still stands a few seconds after it was noted: every process looks, at its own second.
    pub(super) fn watch_attempt(&mut self, login: usize) {
        let record = self.store.rows[login].read(true);
        let Some(attempt) = record.and_then(|record| record.attempt) else {
            return;
        };
        self.witness(login, &attempt);
        for process in 0..self.processes.len() {
            let own = &self.processes[process];
            if own.alive && own.cells[login].memory.version().is_some() {
                let epoch = own.epoch;
                let soon = self.random.below(1_000);
                self.after(
                    soon,
                    Event::LookForAbandoned {
                        process,
                        epoch,
                        login,
                    },
                );
            }
        }
    }

    /// Brings to the store what only memory or the spool holds.
    pub(super) fn save(&mut self, process: usize, login: usize) {
        let now = self.clock(process).mono;
        let kept = self.memory(process, login).kept();
        let cell = &mut self.processes[process].cells[login];
        cell.save_scheduled = false;
        let turn = cell.saving.turn(kept, cell.flight.is_some(), now);
        if turn {
            self.flight(process, login, Want::default());
        }
        if kept != Kept::Store {
            self.save_later(process, login);
        }
    }

    /// Starts a refresh unless one is in flight; whether it did.
    pub(super) fn flight(&mut self, process: usize, login: usize, want: Want) -> bool {
        if self.processes[process].cells[login].flight.is_some() {
            return false;
        }
        let (id, policy, entropy) = (self.process_id(process), self.policy(), self.random.bytes());
        let Some(task) = self.memory(process, login).task(want, id, entropy, policy) else {
            return false;
        };
        let run = self.begin_run(
            process,
            login,
            AnyFlow::Refresh(Box::new(Refresh::new(task))),
            want,
        );
        if self.runs[run].is_some() {
            self.processes[process].cells[login].flight = Some(run);
        }
        true
    }

    /// A refresh has ended.
    pub(super) fn refreshed(&mut self, run: &Run, outcome: Outcome) {
        let Run { process, login, .. } = *run;
        let cell = &mut self.processes[process].cells[login];
        cell.flight = None;
        cell.holds_lease = outcome.unsaved;
        let deletes = self.is(Variant::ClearOnError) || self.is(Variant::Naive);
        if deletes
            && outcome.result.is_err()
            && !matches!(
                outcome.result,
                Err(Error::LeaseHeld { .. } | Error::StoreUnavailable { .. })
            )
        {
            self.store.delete(login);
            self.broken("I-6", || format!("login {login}: a failure deletes it"));
        }
        let boot = self.clock(process).boot;
        let (installed, result) = self.memory(process, login).settle(outcome, boot);
        self.installed(process, login, installed);
        self.check_settled(process, login);
        let gain = result
            .as_ref()
            .map_or_else(|error| error.code().to_owned(), |gain| format!("{gain:?}"));
        self.trace.say(self.now, || {
            format!("p{process} login {login}: refresh ends: {gain}")
        });
        self.wake(process, login, &result);
    }
}
