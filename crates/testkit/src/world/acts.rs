//! The world as a driver: it does what a flow's steps ask for, each in its own time.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use pilotlight_core::{
    Error,
    attempt::Attempt,
    credential::{CredentialKey, Version},
    error::{Holder, NetworkFault},
    exchange::{self, Delivery, Exchange, Failure, Fault, Leg, Reply},
    flow::{
        Act, Answer, Expects, Flow, Lock, Step, Turn, login::Login, logout::Logout,
        refresh::Refresh,
    },
    memory::Want,
    record::Fact,
    time::Now,
};

use super::{
    Ambush, Call, CallId, Event, ISSUER, Kind, LOCK_WAIT, Run, Variant, World,
    judge::number,
    network::{DEADLINE, Failed, Fate, fate},
    people,
};

/// A flow of any kind.
#[derive(Debug)]
pub(super) enum AnyFlow {
    Refresh(Box<Refresh>),
    Login(Box<Login>),
    Logout(Box<Logout>),
}

/// How any flow ended.
#[expect(clippy::large_enum_variant, reason = "one lives at a time")]
pub(super) enum AnyOutcome {
    Refresh(<Refresh as Flow>::Outcome),
    Login(<Login as Flow>::Outcome),
    Logout(<Logout as Flow>::Outcome),
}

/// What any flow says next.
#[expect(clippy::large_enum_variant, reason = "one lives at a time")]
enum AnyTurn {
    Next(AnyFlow, Step),
    Done(AnyOutcome),
}

fn turn<F: Flow>(
    turn: Turn<F>,
    flow: fn(Box<F>) -> AnyFlow,
    done: fn(F::Outcome) -> AnyOutcome,
) -> AnyTurn {
    match turn {
        Turn::Next(next, step) => AnyTurn::Next(flow(Box::new(next)), step),
        Turn::Done(outcome) => AnyTurn::Done(done(outcome)),
    }
}

impl AnyFlow {
    fn step(self, answer: Option<Answer>, now: Now) -> AnyTurn {
        macro_rules! go {
            ($flow:expr, $kind:ident) => {
                turn(
                    match answer {
                        None => $flow.start(now),
                        Some(answer) => $flow.handle(answer, now),
                    },
                    Self::$kind,
                    AnyOutcome::$kind,
                )
            };
        }
        match self {
            Self::Refresh(flow) => go!(flow, Refresh),
            Self::Login(flow) => go!(flow, Login),
            Self::Logout(flow) => go!(flow, Logout),
        }
    }
}

impl World {
    pub(super) fn begin_run(
        &mut self,
        process: usize,
        login: usize,
        flow: AnyFlow,
        want: Want,
    ) -> usize {
        let run = self.runs.len();
        self.runs.push(Some(Box::new(Run {
            process,
            epoch: self.processes[process].epoch,
            login,
            flow: Some(flow),
            step: 0,
            act: None,
            answer: None,
            want,
            began_at: self.now,
            attempt: None,
            noted_while: super::store::Health::Well,
            stopped_at: 0,
        })));
        self.advance(run, None);
        run
    }

    /// Hands a flow what came of its last step, and begins the next.
    fn advance(&mut self, id: usize, answer: Option<Answer>) {
        let Some(mut run) = self.runs[id].take() else {
            return;
        };
        let now = self.clock(run.process);
        let Some(flow) = run.flow.take() else {
            return;
        };
        match flow.step(answer, now) {
            AnyTurn::Next(flow, Step { act, wake_at }) => {
                run.flow = Some(flow);
                run.step += 1;
                let step = run.step;
                self.runs[id] = Some(run);
                match act {
                    Some(act) => self.begin_act(id, step, act),
                    None => {
                        let at = wake_at.map_or(self.now, |at| self.when(at));
                        self.answer_at(id, at, Answer::Woken);
                    }
                }
            }
            AnyTurn::Done(outcome) => self.run_ended(id, &run, outcome),
        }
    }

    fn run_ended(&mut self, id: usize, run: &Run, outcome: AnyOutcome) {
        match outcome {
            // A flow that ends without letting go of the lease keeps it for the run that saves what only memory holds.
            AnyOutcome::Refresh(outcome) => self.refreshed(run, outcome),
            AnyOutcome::Login(done) => self.logged_in(id, run, done),
            AnyOutcome::Logout(done) => self.logged_out(run, done),
        }
    }

    pub(super) fn run_mut(&mut self, run: usize, step: u32) -> Option<&mut Run> {
        self.runs[run].as_deref_mut().filter(|run| run.step == step)
    }

    pub(super) fn answer_at(&mut self, run: usize, at: u64, answer: Answer) {
        let Some(own) = self.runs[run].as_deref_mut() else {
            return;
        };
        own.answer = Some(answer);
        let step = own.step;
        self.at(at, Event::Answer { run, step });
    }

    pub(super) fn answer(&mut self, run: usize, step: u32) {
        let answer = self.run_mut(run, step).and_then(|run| run.answer.take());
        if answer.is_some() {
            self.advance(run, answer);
        }
    }

    /// Begins an act, unless somebody lies in wait just there: between any two steps.
    fn begin_act(&mut self, run: usize, step: u32, act: Act) {
        let process = self.holder_of(run).0;
        let waiting = |ambush: &Ambush| ambush.step == step;
        if let Some(ambush) = self.ambushes.iter().position(waiting) {
            let Ambush { crashes, lasts, .. } = self.ambushes.swap_remove(ambush);
            self.spring(process, crashes, lasts);
        }
        if !self.processes[process].alive {
            return;
        }
        if self.processes[process].paused {
            if let Some(own) = self.runs[run].as_deref_mut() {
                own.act = Some(act);
            }
            return self.at(self.now, Event::Begin { run, step });
        }
        self.begin_now(run, step, act);
    }

    /// A process that was stopped before an act goes on with it.
    pub(super) fn begin_late(&mut self, run: usize, step: u32) {
        if let Some(act) = self.run_mut(run, step).and_then(|run| run.act.take()) {
            if let Some(own) = self.runs[run].as_deref_mut() {
                own.stopped_at = step;
            }
            self.begin_now(run, step, act);
        }
    }

    fn begin_now(&mut self, run: usize, step: u32, act: Act) {
        match act {
            Act::Send(exchange) => self.send_exchange(run, step, *exchange),
            Act::Lock(lock) => self.lock(run, step, &lock),
            Act::Unlock(lock) => {
                let lock = self.lock_of(&lock);
                self.unlock(lock, |(_, _, holder)| holder == run);
                self.answer_at(run, self.now, Answer::Done(Ok(())));
            }
            Act::OpenCallback(_) => {
                let uri = format!("http://127.0.0.1:{}/callback", 40_000 + run % 10_000);
                self.answer_at(run, self.now + 1, Answer::CallbackOpen(Ok(uri)));
            }
            Act::CloseCallback => self.answer_at(run, self.now + 1, Answer::Done(Ok(()))),
            Act::Show(prompt) => {
                let redirect = people::approve(&prompt);
                let thinks = if self.now < super::CALM {
                    1_000
                } else {
                    self.random.between(3_000, 60_000)
                };
                self.answer_at(run, self.now + thinks, Answer::Redirected(Ok(redirect)));
            }
            act => {
                if let Some(own) = self.runs[run].as_deref_mut() {
                    own.act = Some(act);
                }
                let late = self.stalled_until.saturating_sub(self.now).min(15_000);
                let takes = late + 1 + self.random.below(4);
                self.after(takes, Event::Perform { run, step });
            }
        }
    }

    /// Does an act at the store.
    pub(super) fn perform(&mut self, run: usize, step: u32) {
        let Some(act) = self.run_mut(run, step).and_then(|run| run.act.take()) else {
            return;
        };
        let Some(own) = self.runs[run].as_deref() else {
            return;
        };
        let (process, login) = (own.process, own.login);
        let is_refresh = matches!(own.flow, Some(AnyFlow::Refresh(_)));
        let mut answer = self.store_act(run, login, is_refresh, act);
        let lossy = self.plan.has(Kind::StoreLostAnswer) && !self.quiet && self.now > super::CALM;
        if lossy && self.random.chance(0.01) {
            let error = || Error::StoreUnavailable {
                why: "the answer was lost".into(),
            };
            match &mut answer {
                Answer::Noted(noted) => *noted = Err(error()),
                Answer::Committed(committed) => *committed = Err(error()),
                Answer::Done(done) => *done = Err(error()),
                _ => {}
            }
        }
        self.trace
            .mark([self.now, process as u64, login as u64, step.into()]);
        let takes = self.random.below(3);
        self.answer_at(run, self.now + takes, answer);
    }

    fn store_act(&mut self, run: usize, login: usize, is_refresh: bool, act: Act) -> Answer {
        let naive = self.is(Variant::Naive);
        match act {
            Act::Reread(_) => {
                let with_spool = !self.is(Variant::SpoolNotReread);
                let mut reading = self.store.read(login, with_spool);
                let process = self.holder_of(run).0;
                let own = self.memory(process, login).credential().ok().cloned();
                if self.is(Variant::ReceivedTimeNotSeeded)
                    && let Some(read) = reading.record.as_mut().and_then(|r| r.credential.as_mut())
                    && own
                        .is_none_or(|own| own.version != read.version || own.received_at.is_none())
                {
                    read.received_at = None;
                }
                if is_refresh && (naive || self.is(Variant::NoReread)) {
                    let process = self.runs[run].as_deref().map_or(0, |run| run.process);
                    reading
                        .record
                        .clone_from(&self.memory(process, login).record);
                }
                Answer::Read(Ok(reading))
            }
            Act::Note {
                version, mut facts, ..
            } => {
                let noted = facts.iter().find_map(|fact| match fact {
                    Fact::Attempt(Some(attempt)) => Some(*attempt),
                    _ => None,
                });
                let believed = facts.iter().any(|fact| {
                    matches!(fact, Fact::Suspicion(Some(suspicion)) if suspicion.next_probe_at.is_none())
                });
                if believed {
                    self.check_believed(login, version);
                }
                if naive || self.is(Variant::NoAttemptNote) {
                    facts.retain(|fact| !matches!(fact, Fact::Attempt(_)));
                }
                let done = self.store.note(login, version, &facts);
                self.attempted(run, login, version, noted);
                Answer::Noted(if naive { Ok(true) } else { done })
            }
            Act::SpoolAttempt {
                version, attempt, ..
            } => {
                let done = self.store.spool_attempt(login, version, attempt);
                self.attempted(run, login, version, attempt);
                Answer::Done(done)
            }
            Act::Commit(mut commit) => {
                let credential = commit.credential.clone();
                let before = self.store.rows[login]
                    .record
                    .as_ref()
                    .and_then(|record| record.credential.clone());
                if self.is(Variant::ReceivedTimeNotSaved) {
                    commit.credential.received_at = None;
                }
                let stored = self.store.rows[login].version();
                let other =
                    stored.is_some_and(|held| held.incarnation != credential.version.incarnation);
                let forced = is_refresh
                    && (naive
                        || self.is(Variant::UnconditionalPut)
                        || (self.is(Variant::LoginLoses)
                            && other
                            && commit.expects != Expects::Anything));
                if is_refresh
                    && self.is(Variant::OmittedTokenDropped)
                    && self.last_answer_omitted(run)
                {
                    commit.credential.refresh_token = None;
                }
                self.check_commit(login, &commit);
                let done = self.store.commit(login, *commit, forced);
                self.check_written(login, before);
                if matches!(done, Ok(pilotlight_core::flow::Committed::Done { .. })) {
                    self.mark_durable(&credential);
                    let version = credential.version.generation.0;
                    self.trace.say(self.now, || {
                        format!("login {login}: generation {version} is stored")
                    });
                }
                Answer::Committed(done)
            }
            Act::Spool {
                follows,
                credential,
            } => {
                if self.is(Variant::NoSpool) || naive {
                    return Answer::Done(Err(self.store.refuses()));
                }
                let done = self.store.spool(login, follows, (*credential).clone());
                if done.is_ok() {
                    self.mark_durable(&credential);
                    let version = credential.version.generation.0;
                    self.trace.say(self.now, || {
                        format!("login {login}: generation {version} is spooled")
                    });
                }
                Answer::Done(done)
            }
            Act::Learn(_, notes) => {
                if self.store.health == super::store::Health::Well {
                    self.trace.say(self.now, || format!("learned: {notes:?}"));
                    self.store.notes = notes;
                } else if notes.reuse_grace != self.store.notes.reuse_grace {
                    self.report.unlearned += 1;
                }
                Answer::Done(Ok(()))
            }
            Act::FindRegistrations(_) => Answer::Registered(Ok(self.store.registrations.clone())),
            Act::KeepRegistration(registration) => {
                self.store.registrations.insert(0, *registration);
                Answer::Done(Ok(()))
            }
            Act::ForgetRegistration(gone) => {
                self.store
                    .registrations
                    .retain(|kept| kept.client.id != gone.client.id);
                Answer::Done(Ok(()))
            }
            Act::Bury { .. } => Answer::Buried(self.store.bury(login)),
            Act::PutBinding(binding) => {
                self.store.rows[login].binding = Some(*binding);
                Answer::Done(Ok(()))
            }
            Act::Record(_, event) => {
                self.trace
                    .say(self.now, || format!("login {login}: {:?}", event.happened));
                Answer::Done(Ok(()))
            }
            _ => Answer::Done(Ok(())),
        }
    }

    /// Remembers what a run noted of the call that it is about to make, and whether store or spool really hold it.
    fn attempted(&mut self, run: usize, login: usize, version: Version, attempt: Option<Attempt>) {
        let held = self.store.rows[login].noted_attempt(version);
        if let (Some(attempt), Some(run)) = (attempt, self.runs[run].as_deref_mut()) {
            run.attempt = Some((version, attempt, held == Some(attempt)));
            run.noted_while = self.store.health;
        }
    }

    fn last_answer_omitted(&self, run: usize) -> bool {
        let call = self.calls.iter().rev().find(|call| call.run == run);
        call.and_then(|call| call.answer.as_ref())
            .is_some_and(|answer| !answer.body.contains("refresh_token"))
    }

    // Locks.

    fn lock_of(&self, lock: &Lock) -> usize {
        match lock {
            Lock::Refresh(key) => self.login_of(key),
            Lock::Register(_) => self.targets.len(),
        }
    }

    fn login_of(&self, key: &CredentialKey) -> usize {
        self.targets
            .iter()
            .position(|target| target.key == *key)
            .unwrap_or_default()
    }

    fn holder_of(&self, run: usize) -> (usize, u32) {
        self.runs[run]
            .as_deref()
            .map_or((0, 0), |run| (run.process, run.epoch))
    }

    fn lock(&mut self, run: usize, step: u32, lock: &Lock) {
        let (lock, (process, epoch)) = (self.lock_of(lock), self.holder_of(run));
        let refresh = matches!(
            self.runs[run].as_deref().and_then(|run| run.flow.as_ref()),
            Some(AnyFlow::Refresh(_))
        );
        if self.is(Variant::Naive) && refresh {
            self.answer_at(run, self.now, Answer::Locked(Ok(0)));
            return;
        }
        let state = &mut self.locks[lock];
        let ours = state
            .holder
            .is_some_and(|(p, e, _)| (p, e) == (process, epoch));
        let kept = ours
            && self.processes[process]
                .cells
                .get(lock)
                .is_some_and(|cell| cell.holds_lease);
        if state.holder.is_none() || (kept && refresh) {
            self.grant(lock, run, 1);
        } else {
            state.waiting.push((run, step));
            self.after(2_100, Event::StillLocked { run, step });
        }
    }

    fn grant(&mut self, lock: usize, run: usize, after: u64) {
        let (process, epoch) = self.holder_of(run);
        let state = &mut self.locks[lock];
        state.fence += 1;
        state.holder = Some((process, epoch, run));
        let fence = state.fence;
        if self.is(Variant::ShortLease) {
            self.after(10_000, Event::LeaseEnds { lock, fence });
        }
        self.answer_at(run, self.now + after, Answer::Locked(Ok(fence)));
    }

    /// A lock has been waited for a while: its holder may be stopped, or the wait over.
    pub(super) fn still_locked(&mut self, run: usize, step: u32) {
        let Some(lock) = self
            .locks
            .iter()
            .position(|lock| lock.waiting.contains(&(run, step)))
        else {
            return;
        };
        let Some(own) = self.runs[run].as_deref() else {
            return;
        };
        let waited = self.now - own.began_at;
        let refresh = matches!(own.flow, Some(AnyFlow::Refresh(_)));
        let stopped = self.locks[lock].holder.is_some_and(|(process, ..)| {
            self.processes[process].paused && self.now - self.processes[process].paused_at > 2_000
        });
        let holder = Holder {
            pid: 0,
            program: String::new(),
            since: 0,
            stopped,
        };
        let answer = if self.is(Variant::UnlockedFallback) && refresh && waited >= 12_000 {
            Answer::Locked(Ok(0))
        } else if stopped || waited >= LOCK_WAIT {
            Answer::Locked(Err(Error::LeaseHeld { holder }))
        } else {
            self.after(2_000, Event::StillLocked { run, step });
            return;
        };
        self.locks[lock].waiting.retain(|waiter| waiter.0 != run);
        self.answer_at(run, self.now, answer);
    }

    pub(super) fn lease_ends(&mut self, lock: usize, fence: u64) {
        if self.locks[lock].fence == fence && self.locks[lock].holder.is_some() {
            self.locks[lock].holder = None;
            self.grant_next(lock);
        }
    }

    /// Lets go of a lock, if this is who holds it: a run, or a process with all it has.
    pub(super) fn unlock(&mut self, lock: usize, holds: impl Fn((usize, u32, usize)) -> bool) {
        if self.locks[lock].holder.is_some_and(holds) {
            self.locks[lock].holder = None;
            self.grant_next(lock);
        }
    }

    fn grant_next(&mut self, lock: usize) {
        let mut waiting = std::mem::take(&mut self.locks[lock].waiting);
        waiting.retain(|(run, step)| {
            let own = self.runs[*run].as_deref().filter(|own| own.step == *step);
            own.is_some_and(|own| {
                let process = &self.processes[own.process];
                process.alive && process.epoch == own.epoch
            })
        });
        // Whoever is stopped asks for nothing.
        let awake: Vec<usize> = (0..waiting.len())
            .filter(|i| {
                self.runs[waiting[*i].0]
                    .as_deref()
                    .is_some_and(|own| !self.processes[own.process].paused)
            })
            .collect();
        if let Some(chosen) = awake.get(self.random.below(awake.len() as u64) as usize) {
            let (run, _) = waiting.remove(*chosen);
            let after = self.random.below(100);
            self.locks[lock].waiting = waiting;
            self.grant(lock, run, after);
        } else {
            self.locks[lock].waiting = waiting;
        }
    }

    // Exchanges.

    fn send_exchange(&mut self, run: usize, step: u32, mut exchange: Exchange) {
        let Some(own) = self.runs[run].as_deref() else {
            return;
        };
        let (process, login) = (own.process, own.login);
        let sent_at = self.clock(process);
        if exchange.leg != Leg::Token {
            let reply = self.document(&exchange, login, sent_at);
            let takes = 20 + self.random.below(80);
            self.answer_at(run, self.now + takes, Answer::Exchanged(reply));
            return;
        }
        let field = |name: &str| {
            url::form_urlencoded::parse(&exchange.body)
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        let presents = field("refresh_token").and_then(|token| number(&token));
        if presents.is_some() && self.is(Variant::DiscoveryAtRefresh) && self.hostile_metadata {
            exchange.url.set_host(Some("evil.example")).expect("a host");
        }
        if exchange.url.host_str() != Some("as.example") {
            self.broken("I-15", || format!("secrets go to {}", exchange.url));
        }
        let fate = if self.now < super::CALM || self.quiet {
            let none = super::Plan {
                faults: super::Faults::default(),
                ..self.plan.clone()
            };
            fate(self.now, &none, None, &mut self.random)
        } else {
            fate(self.now, &self.plan, self.outage, &mut self.random)
        };
        let mut fate = fate;
        let stopped = self.runs[run]
            .as_deref()
            .is_some_and(|own| own.stopped_at == step);
        if exchange.patient
            && let Some((at, Failed::DeadPath)) = &mut fate.fails
        {
            *at = self.now + DEADLINE;
        }
        let id = self.calls.len();
        let epoch = self.processes[process].epoch;
        let (label, noted) = self.check_send(run, presents);
        self.report.calls += 1;
        self.report.labelled += u64::from(label.is_some());
        self.trace.say(self.now, || match presents {
            Some((family, number)) => format!(
                "p{process} login {login}: call {id} presents {family}.{number} {label:?} {fate:?}"
            ),
            None => format!("p{process} login {login}: call {id} presents a code"),
        });
        self.schedule_call(id, &fate);
        self.calls.push(Call {
            run,
            step,
            process,
            epoch,
            login,
            sent_at: self.now,
            presents,
            label,
            fate,
            noted,
            stopped,
            not_delivered: false,
            processed_at: None,
            answer: None,
            answered_at: None,
            failed: None,
        });
        // The client stamps a request as it leaves; the answer carries that stamp.
        if let Some(own) = self.runs[run].as_deref_mut() {
            own.answer = Some(Answer::Exchanged(Err(failure(Failed::Deadline, sent_at))));
        }
    }

    fn schedule_call(&mut self, call: CallId, fate: &Fate) {
        if let Some(at) = fate.arrives {
            self.at(at, Event::AtIssuer { call });
        }
        if let Some(at) = fate.again {
            self.at(at, Event::Again { call });
        }
        if let Some(at) = fate.replies {
            self.at(at, Event::Reply { call });
        }
        if let Some((at, _)) = fate.fails {
            self.at(at, Event::Fail { call });
        }
    }

    /// The issuer reads a token request.
    pub(super) fn at_issuer(&mut self, id: CallId) {
        let (presents, login) = (self.calls[id].presents, self.calls[id].login);
        let was =
            presents.and_then(|(family, _)| self.issuer.families.get(family).map(|f| f.ended));
        let answer = match presents {
            Some((family, number)) => {
                self.issuer
                    .refresh(family, number, id, self.now, &mut self.random)
            }
            None => self.issuer.exchange(login, self.now),
        };
        let status = answer.status;
        self.trace
            .mark([self.now, 1_000_000, id as u64, status.into()]);
        self.trace.say(self.now, || {
            format!(
                "the issuer answers call {id}: {} {}",
                answer.status, answer.body
            )
        });
        let call = &mut self.calls[id];
        // Of a request that came twice, the sender sees the first answer.
        if call.processed_at.is_none() {
            call.processed_at = Some(self.now);
            call.answer = Some(call.fate.spoilt.clone().unwrap_or_else(|| answer.clone()));
            if call.fate.spoilt.is_some() {
                // Nobody can read what it carries.
                if let Some(answer) = &mut call.answer {
                    answer.granted = None;
                }
            }
        }
        if let Some((family, _)) = presents
            && was == Some(None)
            && self.issuer.families[family].ended.is_some()
        {
            self.judge.deaths.push((self.now, family));
        }
    }

    fn waits(&self, call: &Call) -> bool {
        call.failed.is_none()
            && call.answered_at.is_none()
            && self.runs[call.run]
                .as_deref()
                .is_some_and(|run| run.step == call.step)
    }

    /// An answer reaches its sender, if it still waits.
    pub(super) fn reply(&mut self, id: CallId) {
        let call = &self.calls[id];
        let Some(answer) = call.fate.instead.clone().or_else(|| call.answer.clone()) else {
            return;
        };
        if !self.waits(call) || call.fate.replies.is_none() {
            return;
        }
        let (run, process, epoch) = (call.run, call.process, call.epoch);
        self.calls[id].answered_at = Some(self.now);
        self.calls[id].not_delivered =
            answer.status == 429 || (answer.status == 503 && answer.retry_after.is_some());
        if let Some((family, number, _)) = answer.granted {
            let info = &mut self.issuer.families[family].refresh[number];
            info.delivered.get_or_insert((self.now, process, epoch));
        }
        self.judge
            .answered(&self.calls[id], answer.status, self.now);
        let Some(sent_at) = self.sent_at(run) else {
            return;
        };
        let mut headers = HeaderMap::new();
        if let Some(seconds) = answer.retry_after {
            headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let reply = Reply {
            status: answer.status,
            headers,
            body: answer.body.into_bytes().into(),
            sent_at,
        };
        self.answer_at(run, self.now, Answer::Exchanged(Ok(reply)));
    }

    /// A sender gives a call up.
    pub(super) fn fail_call(&mut self, id: CallId) {
        let call = &self.calls[id];
        if !self.waits(call) {
            return;
        }
        let (run, login) = (call.run, call.login);
        let how = call.fate.fails.map_or(Failed::Broken, |(_, how)| how);
        self.calls[id].failed = Some((self.now, how));
        self.calls[id].not_delivered = how == Failed::NotConnected;
        self.judge.answered(&self.calls[id], 0, self.now);
        self.trace.say(self.now, || {
            format!("login {login}: call {id} is given up: {how:?}")
        });
        let Some(sent_at) = self.sent_at(run) else {
            return;
        };
        self.answer_at(run, self.now, Answer::Exchanged(Err(failure(how, sent_at))));
    }

    fn sent_at(&self, run: usize) -> Option<Now> {
        match self.runs[run].as_deref()?.answer.as_ref()? {
            Answer::Exchanged(Err(failure)) => Some(failure.sent_at),
            _ => None,
        }
    }

    /// The documents that a login reads, and the calls that are not for tokens.
    fn document(&mut self, exchange: &Exchange, login: usize, sent_at: Now) -> exchange::Exchanged {
        let mut headers = HeaderMap::new();
        let (status, body) = match exchange.leg {
            Leg::Challenge => {
                headers.insert(
                    http::header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer"),
                );
                (401, String::new())
            }
            Leg::Metadata if exchange.url.path().contains("protected-resource") => {
                let resource = &self.targets[login].resource;
                (
                    200,
                    format!(r#"{{"resource":"{resource}","authorization_servers":["{ISSUER}"]}}"#),
                )
            }
            Leg::Metadata => (200, METADATA.to_owned()),
            Leg::Registration => {
                let client = self.issuer.client;
                (
                    201,
                    format!(
                        r#"{{"client_id":"client-{client}","token_endpoint_auth_method":"none"}}"#
                    ),
                )
            }
            Leg::Revocation => {
                self.revoked_by_client(exchange, login);
                (200, String::new())
            }
            Leg::Token => (500, String::new()),
        };
        Ok(Reply {
            status,
            headers,
            body: body.into_bytes().into(),
            sent_at,
        })
    }
}

fn failure(how: Failed, sent_at: Now) -> Failure {
    let (delivery, fault) = match how {
        Failed::NotConnected => (
            Delivery::NotDelivered,
            Fault::Network(NetworkFault::Connect),
        ),
        Failed::Broken => (Delivery::Ambiguous, Fault::Network(NetworkFault::Broken)),
        Failed::DeadPath => (Delivery::Ambiguous, Fault::Network(NetworkFault::DeadPath)),
        Failed::Deadline => (
            Delivery::Ambiguous,
            Fault::Deadline(Duration::from_millis(DEADLINE)),
        ),
    };
    Failure {
        delivery,
        fault,
        host: "as.example".into(),
        sent_at,
    }
}

const METADATA: &str = r#"{"issuer":"https://as.example","authorization_endpoint":"https://as.example/authorize",
"token_endpoint":"https://as.example/token","registration_endpoint":"https://as.example/register",
"revocation_endpoint":"https://as.example/revoke","code_challenge_methods_supported":["S256"],
"token_endpoint_auth_methods_supported":["none"]}"#;
