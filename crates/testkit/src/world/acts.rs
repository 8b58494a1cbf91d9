//! The world as a driver: it does what a flow's steps ask for, each in its own time.

use pilotlight_core::{
    Error,
    attempt::Attempt,
    credential::Version,
    flow::{
        Act, Answer, Expects, Flow, Step, Turn, login::Login, logout::Logout, refresh::Refresh,
    },
    memory::Want,
    notes::IssuerNotes,
    record::Fact,
    time::Now,
};

use super::{Ambush, Event, Kind, Run, Variant, World, judge::AboutAttempt, people};

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

/// Takes a flow one step on, in the box that it lies in.
fn turn<F: Flow>(
    mut place: Box<F>,
    answer: Option<Answer>,
    now: Now,
    flow: fn(Box<F>) -> AnyFlow,
    done: fn(F::Outcome) -> AnyOutcome,
) -> AnyTurn {
    let turn = match answer {
        None => (*place).start(now),
        Some(answer) => (*place).handle(answer, now),
    };
    match turn {
        Turn::Next(next, step) => {
            *place = next;
            AnyTurn::Next(flow(place), step)
        }
        Turn::Done(outcome) => AnyTurn::Done(done(outcome)),
    }
}

impl AnyFlow {
    fn step(self, answer: Option<Answer>, now: Now) -> AnyTurn {
        match self {
            Self::Refresh(flow) => turn(flow, answer, now, Self::Refresh, AnyOutcome::Refresh),
            Self::Login(flow) => turn(flow, answer, now, Self::Login, AnyOutcome::Login),
            Self::Logout(flow) => turn(flow, answer, now, Self::Logout, AnyOutcome::Logout),
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
        let held = self.memory(process, login).credential().ok();
        let held = held.map(|held| (held.version, held.received_at));
        self.runs.push(Some(Box::new(Run {
            process,
            epoch: self.processes[process].epoch,
            login,
            flow: Some(flow),
            step: 0,
            act: None,
            answer: None,
            want,
            held,
            began_at: self.now,
            attempt: None,
            noted_while: super::store::Health::Well,
            noted_at: self.now,
            notes: IssuerNotes::default(),
            early: false,
            calls: 0,
            attempts: false,
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
            let login = self.runs[run].as_deref().map(|run| run.login);
            self.spring(process, login, crashes, lasts);
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
            self.begin_now(run, step, act);
        }
    }

    fn begin_now(&mut self, run: usize, step: u32, act: Act) {
        match act {
            Act::Send(exchange) => self.send_exchange(run, step, *exchange),
            Act::Lock(lock) => self.lock(run, step, &lock),
            Act::Unlock(lock) => {
                let lock = self.lock_of(run, &lock);
                self.unlock(lock, |(_, _, holder)| holder == run);
                self.answer_at(run, self.now, Answer::Done(Ok(())));
            }
            Act::OpenCallback(_) => {
                let uri = format!("http://127.0.0.1:{}/callback", 40_000 + run % 10_000);
                self.answer_at(run, self.now + 1, Answer::CallbackOpen(Ok(uri)));
            }
            Act::CloseCallback | Act::ShowCode(_) => {
                self.answer_at(run, self.now + 1, Answer::Done(Ok(())));
            }
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
        let about = AboutAttempt::of(&act);
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
        self.judge
            .attempt_answered((login, run), about, &answer, self.now);
        self.trace
            .mark([self.now, process as u64, login as u64, step.into()]);
        let takes = self.random.below(3);
        self.answer_at(run, self.now + takes, answer);
    }

    fn store_act(&mut self, run: usize, login: usize, is_refresh: bool, act: Act) -> Answer {
        let naive = self.is(Variant::Naive);
        match act {
            // A disk that takes nothing gives nothing either, now and then.
            Act::Reread(_)
                if self.store.health == super::store::Health::Broken && self.random.chance(0.2) =>
            {
                Answer::Read(Err(self.store.refuses()))
            }
            Act::Reread(_) => {
                let with_spool = !self.is(Variant::SpoolNotReread);
                let mut reading = Box::new(self.store.read(login, with_spool));
                if let Some(own) = self.runs[run].as_deref_mut() {
                    own.notes.clone_from(&reading.notes);
                    if std::mem::take(&mut own.attempts) {
                        own.calls = 0;
                    }
                }
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
                self.learned(run, login, &facts, matches!(done, Ok(true)));
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
                if is_refresh {
                    self.check_material(run, login, &commit.credential);
                }
                let told = self.is_told(login);
                let done = self.store.commit(login, *commit, forced);
                if told && !self.is_told(login) {
                    self.judge.untold_at[login] = self.now;
                }
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
                if is_refresh {
                    self.check_material(run, login, &credential);
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
                self.learn(run, &notes);
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
            Act::Bury { .. } => {
                let buried = self.store.bury(login);
                if matches!(buried, Ok(Some(_))) {
                    self.targets[login].buried_at = Some(self.now);
                }
                Answer::Buried(buried)
            }
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
            run.noted_at = self.now;
            run.attempts = true;
            self.after(STANDS, Event::AttemptStands { login });
        }
    }

    fn last_answer_omitted(&self, run: usize) -> bool {
        let call = self.calls.iter().rev().find(|call| call.run == run);
        call.and_then(|call| call.answer.as_ref())
            .is_some_and(|answer| !answer.body.contains("refresh_token"))
    }
}

/// After that a process may be dead whose attempt still stands, in milliseconds.
const STANDS: u64 = 3_000;
