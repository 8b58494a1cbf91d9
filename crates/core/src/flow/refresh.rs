//! A refresh, one among many processes (RFC 6749 section 6).
//!
//! ```text
//!  lock -> re-read -> (merge the spool) -> decide -> note the attempt -> send -> judge
//!                        |                               ^                |
//!                        +- newer and fresh: adopt       +-- repeat once -+- ambiguous, inside the window
//!                        +- not due, not allowed: stop                    +- refused: re-read, note the suspicion
//!                                                                         +- not delivered: back off
//!                                                                         +- tokens: commit, else spool -> unlock
//! ```
//!
//! The token endpoint is the one pinned at login, never one that was just discovered (T-15, T-16). Nothing is sent
//! without the lock (I-16), nothing that the store does not hold (I-2), and no refresh token twice but under a label that
//! was durable first (I-1, I-3).

use std::time::Duration;

use crate::{
    attempt::{Attempt, Label, ProcessId, Ruling, repeat_window},
    credential::{Credential, CredentialKey, Lifetime, Version},
    error::{Certainty, Error, LoginCause, Named},
    event::{Event, Happened, Reason},
    exchange::{Exchange, Leg},
    flow::{Act, Answer, Commit, Committed, Expects, Flow, Lock, Reading, Step, Turn},
    freshness::{DueReason, Freshness, Policy, refresh_point},
    grant::{Grant, revocation_request, token_request},
    notes::IssuerNotes,
    record::{Backoff, Fact, Forced, Record, Suspicion},
    time::{Mono, Now, Wall},
    token::{TokenAnswer, Verdict},
};

/// What is to be refreshed, and why.
#[derive(Debug)]
pub struct Task {
    /// Whose login.
    pub key: CredentialKey,
    /// The version that the caller holds in memory.
    pub held: Option<Version>,
    /// The version whose access token the server refused, if that is why.
    pub refused: Option<Version>,
    /// Whether a person or program asked, due or not.
    pub asked: bool,
    /// A version that neither store nor spool has taken yet.
    pub unsaved: Option<Box<Credential>>,
    /// Which process this is.
    pub process: ProcessId,
    /// 32 random bytes, for jitter.
    pub entropy: [u8; 32],
    /// When a refresh is due.
    pub policy: Policy,
}

/// How a refresh ended.
#[derive(Debug)]
pub struct Outcome {
    /// What is known to be stored now; `None` where it could not be read.
    pub record: Option<Record>,
    /// What is known of the issuer.
    pub notes: IssuerNotes,
    /// What was gained, or why nothing.
    pub result: Result<Gain, Error>,
    /// Whether the newest version lives in memory only.
    pub unsaved: bool,
}

/// What a refresh gained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gain {
    /// A new generation.
    Refreshed,
    /// A generation or login that another process made.
    Adopted,
    /// Nothing needed doing.
    Nothing,
    /// A call was lost and must not be repeated yet; the access token still works.
    Uncertain,
}

/// The flow. See the [module](self).
#[derive(Debug)]
pub struct Refresh {
    task: Task,
    state: State,
    /// How often store and spool were read: whoever is overtaken again and again gives up.
    looks: u32,
    /// The stored version, where the one in hand follows it and lives in memory only.
    stored: Option<Version>,
}

#[derive(Debug)]
enum State {
    Ready,
    ExpectLease,
    ExpectRecord {
        fence: u64,
        merged: bool,
    },
    ExpectMerge {
        fence: u64,
        reading: Box<Reading>,
        unsaved: bool,
    },
    ExpectKept {
        fence: u64,
        reading: Box<Reading>,
    },
    ExpectNote(Box<Call>),
    ExpectToken(Box<Call>),
    ExpectPause(Box<Call>, Mono),
    ExpectCommit(Box<Call>, Box<Credential>),
    ExpectSpool(Box<Call>, Box<Credential>),
    ExpectReread(Box<Call>, Option<Named>),
    ExpectOvertaken {
        fence: u64,
        new: Box<Credential>,
    },
    ExpectFacts {
        outcome: Box<Outcome>,
        learned: bool,
    },
    ExpectMoved(Box<Outcome>),
    ExpectDiscard {
        fence: u64,
    },
    ExpectLearn(Box<Outcome>),
    ExpectHealed(Box<Outcome>),
    ExpectUnlock(Box<Outcome>),
}

/// A token call under the lease: why, with what, under which label.
#[derive(Debug)]
struct Call {
    reading: Reading,
    record: Record,
    credential: Credential,
    reason: Reason,
    attempt: Attempt,
    /// The attempt that may have been delivered before, to be put back where this call turns out not to have been.
    found: Option<Attempt>,
}

impl Refresh {
    /// Sets up the flow; nothing happens before [`Flow::start`].
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self {
            task,
            state: State::Ready,
            looks: 0,
            stored: None,
        }
    }

    fn next(self, state: State, act: Act) -> Turn<Self> {
        Turn::Next(Self { state, ..self }, Step::act(act))
    }

    fn reread(self, fence: u64, merged: bool) -> Turn<Self> {
        self.look(State::ExpectRecord { fence, merged })
    }

    fn look(mut self, state: State) -> Turn<Self> {
        self.stored = None;
        self.looks += 1;
        if self.looks > MOST_LOOKS {
            return self.unlock(failed(Error::StoreUnavailable {
                why: "it changes faster than it can be read".to_owned(),
            }));
        }
        let key = self.task.key.clone();
        self.next(state, Act::Reread(key))
    }

    fn unlock(self, mut outcome: Outcome) -> Turn<Self> {
        // What only memory holds stays unsaved until something has taken it.
        let kept = self
            .task
            .unsaved
            .as_ref()
            .filter(|_| self.stored.is_some())
            .map(|kept| kept.version);
        outcome.unsaved |= kept.is_some() && kept == version_of(&outcome.record);
        let key = self.task.key.clone();
        self.next(
            State::ExpectUnlock(Box::new(outcome)),
            Act::Unlock(Lock::Refresh(key)),
        )
    }

    fn stop(self, reading: Reading, result: Result<Gain, Error>) -> Turn<Self> {
        let Reading { record, notes, .. } = reading;
        self.unlock(Outcome {
            record,
            notes,
            result,
            unsaved: false,
        })
    }

    fn event(&self, now: Now, happened: Happened) -> Event {
        Event {
            at: now.wall,
            process: self.task.process,
            happened,
        }
    }

    /// Decides, from what store and spool hold, whether to send at all.
    fn decide(mut self, fence: u64, reading: Reading, merged: bool, now: Now) -> Turn<Self> {
        let Some((record, credential)) = reading
            .record
            .clone()
            .and_then(|r| r.credential.clone().map(|c| (r, c)))
        else {
            if let (Some(_), Some(kept)) = (&reading.record, self.task.unsaved.take()) {
                return self.discard(fence, &kept, reading);
            }
            return self.stop(reading, Err(Error::login(LoginCause::Never)));
        };
        let version = credential.version;
        if !merged {
            self.task.unsaved = self
                .task
                .unsaved
                .take()
                .filter(|kept| kept.version.succeeds(&version));
            if let Some(kept) = self.task.unsaved.clone() {
                return self.merge(fence, reading, *kept, Expects::Version(version), true, now);
            }
            if let Some(spooled) = record.spooled {
                let expects = spooled.follows.map_or(Expects::Nothing, Expects::Version);
                return self.merge(fence, reading, credential, expects, false, now);
            }
        }
        let refused = self.task.refused == Some(version);
        let freshness = credential.freshness(now, self.task.policy);
        let reason = match freshness {
            _ if refused => Reason::Refused,
            Freshness::Expired { .. } => Reason::Expired,
            Freshness::Due {
                reason: DueReason::Due,
                ..
            } => Reason::Due,
            Freshness::Due {
                reason: DueReason::AgeUnknown,
                ..
            } => Reason::AgeUnknown,
            Freshness::Fresh { .. } if self.task.asked && self.task.held == Some(version) => {
                Reason::Asked
            }
            Freshness::Fresh { .. } => {
                let gain = if self.task.held == Some(version) {
                    Gain::Nothing
                } else {
                    Gain::Adopted
                };
                return self.stop(reading, Ok(gain));
            }
        };
        let usable = !matches!(reason, Reason::Refused | Reason::Expired);
        if let Some(end) = forbidden(&record, &credential, &reading, reason, now) {
            return match end {
                Forbidden::Error(error) => self.stop(reading, Err(error)),
                Forbidden::Nothing => self.stop(reading, Ok(Gain::Nothing)),
                Forbidden::Trip(forced, until) => {
                    self.trip(reading, record, forced, until, version, now)
                }
            };
        }
        let found = record
            .attempt
            .filter(|attempt| attempt.generation == version.generation);
        let ruling = found.map(|attempt| match attempt.label {
            // What was sent as uncertain never becomes a crash again: each label has its maximum (I-1).
            Some(Label::Uncertain) => Ruling::Uncertain,
            _ => attempt.ruling(now, reading.notes.grace(now.wall)),
        });
        let label = match ruling {
            _ if record.suspicion.is_some() => Some(Label::ProbeSuspect),
            None => None,
            Some(Ruling::Send(label)) => Some(label),
            Some(Ruling::Uncertain) if usable => return self.stop(reading, Ok(Gain::Uncertain)),
            Some(Ruling::Uncertain) => Some(Label::Uncertain),
        };
        let attempt = Attempt {
            generation: version.generation,
            number: found.map_or(0, |attempt| attempt.number) + 1,
            label,
            fence,
            process: self.task.process,
            first_sent_at: found.map_or(now, |attempt| attempt.first_sent_at),
            sent_at: now,
        };
        self.note(Call {
            reading,
            record,
            credential,
            reason,
            attempt,
            found,
        })
    }

    /// Brings a version that only spool or memory hold into the store, then looks again.
    fn merge(
        self,
        fence: u64,
        reading: Reading,
        credential: Credential,
        expects: Expects,
        unsaved: bool,
        now: Now,
    ) -> Turn<Self> {
        let happened = Happened::Merged {
            generation: credential.version.generation,
        };
        let event = self.event(now, happened);
        let forced = reading
            .record
            .as_ref()
            .and_then(|record| record.forced.clone());
        let commit = Commit {
            credential,
            expects,
            binding: None,
            forced,
            event,
        };
        self.next(
            State::ExpectMerge {
                fence,
                reading: Box::new(reading),
                unsaved,
            },
            Act::Commit(Box::new(commit)),
        )
    }

    /// The store refuses what only memory holds: the spool may take it.
    fn keep(self, fence: u64, reading: Box<Reading>, now: Now) -> Turn<Self> {
        let Some(credential) = self.task.unsaved.clone() else {
            return self.decide(fence, *reading, true, now);
        };
        let follows = version_of(&reading.record);
        self.next(
            State::ExpectKept { fence, reading },
            Act::Spool {
                follows,
                credential,
            },
        )
    }

    /// Neither store nor spool takes what memory holds. It is the newest version all the same: what they still hold is
    /// spent, and never sent again (I-2).
    fn decide_in_memory(mut self, fence: u64, mut reading: Reading, now: Now) -> Turn<Self> {
        let held = reading.record.take().unwrap_or_default();
        self.stored = held.version();
        let credential = self.task.unsaved.as_deref().cloned();
        reading.record = Some(Record {
            credential,
            forced: held.forced,
            ..Record::default()
        });
        self.decide(fence, reading, true, now)
    }

    /// The server refuses what a forced refresh has just brought: no more of them for half the token's life (T-45).
    fn trip(
        self,
        reading: Reading,
        mut record: Record,
        forced: Forced,
        until: Wall,
        version: Version,
        now: Now,
    ) -> Turn<Self> {
        let facts = vec![Fact::Forced(Some(forced))];
        record.apply(&facts);
        let event = self.event(now, Happened::BreakerTripped { until });
        let outcome = Outcome {
            record: Some(record),
            notes: reading.notes,
            result: Err(Error::DeniedByResource),
            unsaved: false,
        };
        self.facts(outcome, version, facts, event, false)
    }

    fn facts(
        self,
        outcome: Outcome,
        version: Version,
        facts: Vec<Fact>,
        event: Event,
        learned: bool,
    ) -> Turn<Self> {
        let key = self.task.key.clone();
        let act = Act::Note {
            key,
            version,
            facts,
            event: Some(event),
        };
        self.next(
            State::ExpectFacts {
                outcome: Box::new(outcome),
                learned,
            },
            act,
        )
    }

    /// Makes the attempt durable; nothing leaves before that.
    fn note(self, call: Call) -> Turn<Self> {
        let (key, version) = (self.task.key.clone(), call.credential.version);
        let act = Act::Note {
            key,
            version,
            facts: vec![Fact::Attempt(Some(call.attempt))],
            event: None,
        };
        self.next(State::ExpectNote(Box::new(call)), act)
    }

    fn send(self, call: Box<Call>) -> Turn<Self> {
        let Some(token) = &call.credential.refresh_token else {
            return self.stop(
                call.reading,
                Err(Error::Bug {
                    what: "refresh without a refresh token",
                }),
            );
        };
        let grant = Grant::Refresh { token, scope: None };
        let pins = &call.credential.pins;
        let form = token_request(
            &grant,
            &call.credential.client,
            pins.resource_parameter.as_deref(),
        );
        let exchange = Exchange::post(
            Leg::Token,
            pins.token_endpoint.clone(),
            "token_endpoint",
            form.headers,
            form.body,
        );
        self.next(State::ExpectToken(call), Act::Send(Box::new(exchange)))
    }

    fn judge(self, call: Box<Call>, verdict: Verdict, sent_at: Now, now: Now) -> Turn<Self> {
        match verdict {
            Verdict::Granted(answer) => self.granted(call, *answer, sent_at, now),
            Verdict::NotDelivered { error, retry_after } => {
                self.back_off(*call, error, retry_after, now)
            }
            Verdict::Refused { error } => {
                self.back_off(*call, Error::DeniedByIssuer { error }, None, now)
            }
            Verdict::Ambiguous { error, broken } => self.ambiguous(call, error, broken, now),
            Verdict::InvalidGrant { named } => {
                let key = self.task.key.clone();
                self.next(State::ExpectReread(call, named), Act::Reread(key))
            }
            Verdict::InvalidClient => {
                let cause = LoginCause::RegistrationGone;
                self.suspect(
                    *call,
                    Suspicion {
                        cause,
                        since: now.wall,
                        probes: 0,
                        next_probe_at: None,
                    },
                    None,
                    now,
                )
            }
        }
    }

    /// Tokens: the next generation, durable before anybody sees it (I-4).
    fn granted(self, call: Box<Call>, answer: TokenAnswer, sent_at: Now, now: Now) -> Turn<Self> {
        let old = &call.credential;
        let silent = answer.lifetime.is_none();
        let mut new = old.succeeded_by(answer, sent_at);
        if silent {
            new.lifetime = learned_lifetime(&call, now);
        }
        let forced = match (&call.record.forced, call.reason) {
            (forced, Reason::Refused) => Some(
                forced
                    .clone()
                    .unwrap_or_default()
                    .once_more(now.wall, new.version.generation),
            ),
            (forced, _) => forced.clone(),
        };
        let point = |received: Now, lifetime: Duration| {
            received.wall + refresh_point(lifetime, old.spread(), self.task.policy)
        };
        let happened = Happened::Refreshed {
            generation: new.version.generation,
            reason: call.reason,
            label: call.attempt.label,
            calls: call.attempt.number,
            sent_at: sent_at.wall,
            previous_refresh_point: old
                .received_at
                .zip(old.lifetime)
                .map(|(at, life)| point(at, life.span())),
            lifetime: new.lifetime.map(Lifetime::span),
        };
        let event = self.event(now, happened);
        let expects = Expects::Version(self.stored.unwrap_or(old.version));
        let commit = Commit {
            credential: new.clone(),
            expects,
            binding: None,
            forced,
            event,
        };
        self.next(
            State::ExpectCommit(call, Box::new(new)),
            Act::Commit(Box::new(commit)),
        )
    }

    fn committed(
        self,
        call: Call,
        new: Credential,
        forced_into_spool: bool,
        now: Now,
    ) -> Turn<Self> {
        let mut record = Record {
            credential: Some(new),
            forced: call.record.forced.clone(),
            ..Record::default()
        };
        if call.reason == Reason::Refused
            && let Some(version) = record.version()
        {
            let forced = call.record.forced.unwrap_or_default();
            record.forced = Some(forced.once_more(now.wall, version.generation));
        }
        if forced_into_spool {
            record.spooled = Some(crate::record::Spooled {
                follows: Some(call.credential.version),
            });
        }
        let notes = call.reading.notes;
        let outcome = Outcome {
            record: Some(record),
            notes,
            result: Ok(Gain::Refreshed),
            unsaved: false,
        };
        if call.attempt.label == Some(Label::ProbeSuspect) {
            let (key, event) = (self.task.key.clone(), self.event(now, Happened::Healed));
            return self.next(
                State::ExpectHealed(Box::new(outcome)),
                Act::Record(key, event),
            );
        }
        self.unlock(outcome)
    }

    /// The commit found something else: what is stored rules. What a logout has ended, or a login as another client
    /// replaced, is handed back to the issuer; a login as the same client could end with it.
    fn overtaken(self, fence: u64, new: &Credential, reading: Reading, now: Now) -> Turn<Self> {
        match reading
            .record
            .as_ref()
            .and_then(|record| record.credential.as_ref())
        {
            // The store had taken it, and only its answer was lost.
            Some(stored) if stored.version == new.version => {
                self.stop(reading, Ok(Gain::Refreshed))
            }
            Some(stored)
                if stored.version.incarnation == new.version.incarnation
                    || stored.client.id == new.client.id =>
            {
                self.decide(fence, reading, true, now)
            }
            _ => self.discard(fence, new, reading),
        }
    }

    /// Hands tokens that nobody will use back to the issuer, and looks again.
    fn discard(self, fence: u64, new: &Credential, reading: Reading) -> Turn<Self> {
        let (Some(endpoint), Some(token)) = (&new.pins.revocation_endpoint, &new.refresh_token)
        else {
            let gain = version_of(&reading.record).map(|_| Gain::Adopted);
            return self.stop(reading, gain.ok_or(Error::login(LoginCause::Never)));
        };
        let form = revocation_request(token.expose(), "refresh_token", &new.client);
        let exchange = Exchange::post(
            Leg::Revocation,
            endpoint.clone(),
            "revocation_endpoint",
            form.headers,
            form.body,
        );
        self.next(
            State::ExpectDiscard { fence },
            Act::Send(Box::new(exchange)),
        )
    }

    /// Nobody knows whether the issuer rotated. Inside the window the call is repeated once, under its label; else the
    /// attempt stays, and the login is *uncertain*.
    fn ambiguous(self, mut call: Box<Call>, error: Error, broken: bool, now: Now) -> Turn<Self> {
        let first = call.attempt.label.is_none();
        let age = now
            .since(&call.attempt.first_sent_at)
            .unwrap_or(Duration::MAX);
        let pause = Duration::from_millis(200).mul_f64(1.0 + 4.0 * self.fraction());
        let window = repeat_window(call.reading.notes.grace(now.wall));
        if first && broken && window.is_some_and(|window| age + pause < window) {
            // The first call may have been delivered, whatever becomes of the second.
            call.found = Some(call.attempt);
            call.attempt.label = Some(Label::RetryAmbiguous);
            call.attempt.number += 1;
            return self.pause(call, now.mono + pause);
        }
        let usable = !matches!(call.reason, Reason::Refused | Reason::Expired);
        let backoff = Backoff::after(
            call.record.backoff.as_ref(),
            error.code(),
            None,
            self.fraction(),
            now.wall,
        );
        let happened = Happened::Ambiguous {
            code: error.code().to_owned(),
            repeated: !first,
        };
        let mut facts = vec![Fact::Backoff(Some(backoff))];
        let Call {
            reading,
            mut record,
            attempt,
            credential,
            ..
        } = *call;
        // A probe that nobody answered counts (I-1), but it is never the last: only a refusal is believed (I-7).
        if let (Some(Label::ProbeSuspect), Some(before)) = (attempt.label, &record.suspicion) {
            let probes = (before.probes + 1).min(LAST_PROBE);
            facts.push(Fact::Suspicion(Some(Suspicion {
                probes,
                next_probe_at: probe_at(probes, now),
                ..before.clone()
            })));
        }
        record.apply(&facts);
        record.attempt = Some(attempt);
        let result = if usable {
            Ok(Gain::Uncertain)
        } else {
            Err(error)
        };
        let event = self.event(now, happened);
        let outcome = Outcome {
            record: Some(record),
            notes: reading.notes,
            result,
            unsaved: false,
        };
        self.facts(outcome, credential.version, facts, event, false)
    }

    fn pause(self, call: Box<Call>, at: Mono) -> Turn<Self> {
        Turn::Next(
            Self {
                state: State::ExpectPause(call, at),
                ..self
            },
            Step::wait_until(at),
        )
    }

    /// The issuer did nothing: everything is kept, the attempt is taken back, and the next call waits.
    fn back_off(
        self,
        call: Call,
        error: Error,
        retry_after: Option<Duration>,
        now: Now,
    ) -> Turn<Self> {
        let Call {
            reading,
            mut record,
            found,
            credential,
            ..
        } = call;
        let backoff = Backoff::after(
            record.backoff.as_ref(),
            error.code(),
            retry_after,
            self.fraction(),
            now.wall,
        );
        let happened = Happened::RefreshFailed {
            code: error.code().to_owned(),
            next: backoff.not_before,
        };
        let facts = vec![Fact::Attempt(found), Fact::Backoff(Some(backoff))];
        record.apply(&facts);
        let event = self.event(now, happened);
        let outcome = Outcome {
            record: Some(record),
            notes: reading.notes,
            result: Err(error),
            unsaved: false,
        };
        self.facts(outcome, credential.version, facts, event, false)
    }

    /// `invalid_grant`, and the store still holds what was refused: the login is suspect, or lost.
    fn refused(self, call: Call, named: Option<Named>, now: Now) -> Turn<Self> {
        let before = call.record.suspicion.as_ref();
        let (since, probes) = before.map_or((now.wall, 0), |s| (s.since, s.probes + 1));
        let next_probe_at = match named {
            Some(_) => None,
            None => probe_at(probes, now),
        };
        let certainty = if next_probe_at.is_some() {
            Certainty::Suspect
        } else {
            Certainty::Certain
        };
        let cause = LoginCause::RefreshRejected { certainty, named };
        self.suspect(
            call,
            Suspicion {
                cause,
                since,
                probes,
                next_probe_at,
            },
            named,
            now,
        )
    }

    fn suspect(
        self,
        call: Call,
        suspicion: Suspicion,
        named: Option<Named>,
        now: Now,
    ) -> Turn<Self> {
        let Call {
            mut reading,
            mut record,
            attempt,
            credential,
            ..
        } = call;
        let cause = suspicion.cause.clone();
        let happened = match suspicion.next_probe_at {
            next_probe_at @ Some(_) => Happened::Suspected {
                cause: cause.clone(),
                next_probe_at,
                label: attempt.label,
            },
            None => Happened::Lost {
                cause: cause.clone(),
                label: attempt.label,
            },
        };
        let repeated = matches!(
            attempt.label,
            Some(Label::RetryAmbiguous | Label::AfterCrash)
        );
        let learned = repeated
            && named != Some(Named::Revoked)
            && matches!(cause, LoginCause::RefreshRejected { .. });
        if learned {
            reading.notes = IssuerNotes::repeated_badly(now.wall);
        }
        let facts = vec![
            Fact::Attempt(None),
            Fact::Backoff(None),
            Fact::Suspicion(Some(suspicion)),
        ];
        record.apply(&facts);
        let event = self.event(now, happened);
        let result = Err(Error::login(cause));
        let outcome = Outcome {
            record: Some(record),
            notes: reading.notes,
            result,
            unsaved: false,
        };
        self.facts(outcome, credential.version, facts, event, learned)
    }

    /// A number in `0.0..1.0` from the flow's entropy.
    fn fraction(&self) -> f64 {
        let head = self
            .task
            .entropy
            .iter()
            .take(4)
            .fold(0u32, |n, byte| n << 8 | u32::from(*byte));
        f64::from(head) / (f64::from(u32::MAX) + 1.0)
    }
}

impl Flow for Refresh {
    type Outcome = Outcome;

    fn start(self, _now: Now) -> Turn<Self> {
        let key = self.task.key.clone();
        self.next(State::ExpectLease, Act::Lock(Lock::Refresh(key)))
    }

    fn handle(mut self, answer: Answer, now: Now) -> Turn<Self> {
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, answer) {
            (State::ExpectLease, Answer::Locked(Ok(fence))) => self.reread(fence, false),
            (State::ExpectLease, Answer::Locked(Err(error))) => Turn::Done(failed(error)),
            (State::ExpectRecord { fence, merged }, Answer::Read(Ok(reading))) => {
                self.decide(fence, reading, merged, now)
            }
            (State::ExpectRecord { .. }, Answer::Read(Err(error))) => self.unlock(failed(error)),
            (State::ExpectMerge { fence, .. }, Answer::Committed(Ok(_))) => {
                self.reread(fence, true)
            }
            // The store still refuses: what spool or memory hold is served and, if need be, refreshed from.
            (
                State::ExpectMerge {
                    fence,
                    reading,
                    unsaved: false,
                },
                Answer::Committed(Err(_)),
            ) => self.decide(fence, *reading, true, now),
            (
                State::ExpectMerge {
                    fence,
                    reading,
                    unsaved: true,
                },
                Answer::Committed(Err(_)),
            ) => self.keep(fence, reading, now),
            (State::ExpectKept { fence, .. }, Answer::Done(Ok(()))) => self.reread(fence, true),
            (State::ExpectKept { fence, reading }, Answer::Done(Err(_))) => {
                self.decide_in_memory(fence, *reading, now)
            }
            // A repeat that comes too late, after a suspend or a slow disk, is no repeat any more.
            (State::ExpectNote(call), Answer::Noted(Ok(true))) if call.is_late(now) => {
                self.reread(call.attempt.fence, true)
            }
            (State::ExpectNote(call), Answer::Noted(Ok(true))) => self.send(call),
            // A login or logout came between, or the store can take again what memory holds: look again.
            (State::ExpectNote(call), Answer::Noted(Ok(false))) => {
                self.reread(call.attempt.fence, false)
            }
            (State::ExpectNote(call), Answer::Noted(Err(error))) => {
                // Without a durable note a repeat would be unlabelled after a crash: only for a token that is of no use
                // any more, and never for a repeat.
                match call.reason {
                    Reason::Expired | Reason::Refused if call.attempt.label.is_none() => {
                        self.send(call)
                    }
                    _ => self.stop(call.reading, Err(error)),
                }
            }
            (State::ExpectToken(call), Answer::Exchanged(exchanged)) => {
                let sent_at = match &exchanged {
                    Ok(reply) => reply.sent_at,
                    Err(failure) => failure.sent_at,
                };
                self.judge(call, Verdict::of(&exchanged), sent_at, now)
            }
            (State::ExpectPause(call, at), Answer::Woken) if now.mono < at => self.pause(call, at),
            (State::ExpectPause(mut call, _), Answer::Woken) => {
                call.attempt.sent_at = now;
                self.note(*call)
            }
            (State::ExpectCommit(call, new), Answer::Committed(Ok(Committed::Done { .. }))) => {
                self.committed(*call, *new, false, now)
            }
            (State::ExpectCommit(call, new), Answer::Committed(Ok(Committed::Moved))) => {
                self.look(State::ExpectOvertaken {
                    fence: call.attempt.fence,
                    new,
                })
            }
            (State::ExpectOvertaken { fence, new }, Answer::Read(Ok(reading))) => {
                self.overtaken(fence, &new, reading, now)
            }
            (State::ExpectOvertaken { .. }, Answer::Read(Err(error))) => self.unlock(failed(error)),
            (State::ExpectCommit(call, new), Answer::Committed(Err(_))) => {
                let follows = Some(self.stored.unwrap_or(call.credential.version));
                let act = Act::Spool {
                    follows,
                    credential: new.clone(),
                };
                self.next(State::ExpectSpool(call, new), act)
            }
            (State::ExpectSpool(call, new), Answer::Done(Ok(()))) => {
                self.committed(*call, *new, true, now)
            }
            (State::ExpectSpool(call, new), Answer::Done(Err(_))) => {
                let record = Record {
                    credential: Some(*new),
                    ..Record::default()
                };
                let notes = call.reading.notes;
                self.unlock(Outcome {
                    record: Some(record),
                    notes,
                    result: Ok(Gain::Refreshed),
                    unsaved: true,
                })
            }
            (State::ExpectReread(call, named), Answer::Read(read)) => {
                let stored = read.as_ref().ok().and_then(|r| version_of(&r.record));
                match read {
                    // Somebody newer: adopt it.
                    Ok(reading) if stored != Some(call.credential.version) => {
                        let gain = stored
                            .map(|_| Gain::Adopted)
                            .ok_or(Error::login(LoginCause::Never));
                        self.stop(reading, gain)
                    }
                    _ => self.refused(*call, named, now),
                }
            }
            // A login or logout came between: it rules, not what was learned about the one before.
            (State::ExpectFacts { outcome, .. }, Answer::Noted(Ok(false))) => {
                let key = self.task.key.clone();
                self.next(State::ExpectMoved(outcome), Act::Reread(key))
            }
            (State::ExpectMoved(outcome), Answer::Read(Ok(reading))) => {
                let (held, stored) = (version_of(&outcome.record), version_of(&reading.record));
                match (held, stored) {
                    (_, None) => self.stop(reading, Err(Error::login(LoginCause::Never))),
                    (Some(held), Some(stored)) if held == stored || held.succeeds(&stored) => {
                        self.unlock(*outcome)
                    }
                    _ => self.stop(reading, Ok(Gain::Adopted)),
                }
            }
            (State::ExpectMoved(outcome), Answer::Read(Err(_))) => self.unlock(*outcome),
            (
                State::ExpectFacts {
                    outcome,
                    learned: true,
                },
                Answer::Noted(_),
            ) => {
                let issuer = self.task.key.issuer.clone();
                let act = Act::Learn(issuer, outcome.notes.clone());
                self.next(State::ExpectLearn(outcome), act)
            }
            (State::ExpectFacts { outcome, .. }, Answer::Noted(_)) => self.unlock(*outcome),
            (State::ExpectDiscard { fence }, Answer::Exchanged(_)) => self.reread(fence, true),
            (State::ExpectLearn(outcome) | State::ExpectHealed(outcome), Answer::Done(_)) => {
                self.unlock(*outcome)
            }
            (State::ExpectUnlock(outcome), Answer::Done(_)) => Turn::Done(*outcome),
            _ => Turn::Done(failed(Error::Bug {
                what: "refresh: an answer that nothing waits for",
            })),
        }
    }
}

impl Call {
    /// Whether this is a repeat whose window has closed.
    fn is_late(&self, now: Now) -> bool {
        let repeats = matches!(
            self.attempt.label,
            Some(Label::RetryAmbiguous | Label::AfterCrash)
        );
        let window = repeat_window(self.reading.notes.grace(now.wall)).unwrap_or_default();
        repeats
            && now
                .since(&self.attempt.first_sent_at)
                .is_none_or(|age| age >= window)
    }
}

fn version_of(record: &Option<Record>) -> Option<Version> {
    record.as_ref().and_then(Record::version)
}

/// When the next probe is allowed after this many were refused; `None` when there is none left.
fn probe_at(probes: u32, now: Now) -> Option<Wall> {
    usize::try_from(probes)
        .ok()
        .and_then(|i| PROBES.get(i))
        .map(|pause| now.wall + *pause)
}

fn failed(error: Error) -> Outcome {
    Outcome {
        record: None,
        notes: IssuerNotes::default(),
        result: Err(error),
        unsaved: false,
    }
}

/// How long a token may live whose issuer does not say so: as long as the last one did before the server refused it, and
/// a little longer each time that nobody refused it. Good for refreshing early, never for refusing to serve (F-18).
fn learned_lifetime(call: &Call, now: Now) -> Option<Lifetime> {
    let old = &call.credential;
    let accepted = call
        .record
        .acceptance
        .is_some_and(|seen| seen.generation == old.version.generation);
    match (call.reason, old.lifetime) {
        (_, Some(Lifetime::Stated(_))) => None,
        (Reason::Refused, _) if accepted => {
            // A shorter one would make every use a refresh that is merely due, past the limits of forced ones (T-45).
            now.since(&old.received_at?)
                .filter(|age| *age >= SHORTEST_LEARNED)
                .map(Lifetime::Hint)
        }
        (Reason::Refused, _) => None,
        (_, Some(Lifetime::Hint(span))) => Some(Lifetime::Hint(span + span / 4)),
        (_, None) => None,
    }
}

/// Why nothing is sent.
enum Forbidden {
    Error(Error),
    Nothing,
    Trip(Forced, Wall),
}

/// Whether something stored forbids a call now: no refresh token, a verdict, a pause, a breaker.
fn forbidden(
    record: &Record,
    credential: &Credential,
    reading: &Reading,
    reason: Reason,
    now: Now,
) -> Option<Forbidden> {
    let usable = !matches!(reason, Reason::Refused | Reason::Expired);
    if credential.refresh_token.is_none() {
        let lost = Forbidden::Error(Error::login(LoginCause::NoRefreshToken));
        return Some(if usable { Forbidden::Nothing } else { lost });
    }
    if !reading.writable {
        let why = "a newer version of Pilotlight keeps this store; update this program".to_owned();
        return Some(Forbidden::Error(Error::StoreUnavailable { why }));
    }
    // A pause longer than any that is ever set comes from a clock that jumped: it binds nobody (F-19, I-12).
    if let Some(suspicion) = &record.suspicion
        && suspicion
            .next_probe_at
            .is_none_or(|at| at > now.wall && now.wall.until(at) <= LONGEST_PROBE)
    {
        return Some(Forbidden::Error(Error::login(suspicion.cause.clone())));
    }
    let pause = record
        .backoff
        .as_ref()
        .map(|b| (now.wall.until(b.not_before), b))
        .filter(|(left, _)| *left <= LONGEST_PAUSE);
    if let Some((left, backoff)) = pause
        && !left.is_zero()
    {
        return Some(Forbidden::Error(Error::BackingOff {
            code: backoff.code.clone(),
            retry_after: left,
        }));
    }
    if reason != Reason::Refused {
        return None;
    }
    let lifetime = credential.lifetime.map(Lifetime::span);
    let forced = record.forced.clone().unwrap_or_default();
    let generation = credential.version.generation;
    let accepted = record
        .acceptance
        .is_some_and(|seen| seen.generation == generation);
    if forced.brought == Some(generation) && !accepted && forced.broken_until.is_none() {
        let until = now.wall + lifetime.map_or(BREAKER, |life| life / 2);
        return Some(Forbidden::Trip(
            Forced {
                broken_until: Some(until),
                ..forced
            },
            until,
        ));
    }
    let wait = now.wall.until(forced.allowed_at(lifetime));
    let longest = DAY.max(lifetime.unwrap_or_default() / 2);
    (!wait.is_zero() && wait <= longest).then_some(Forbidden::Error(Error::DeniedByResource))
}

/// When a refused refresh token is tried again: after 1, 5 and 30 minutes and 6 hours (F-14, F-15).
const PROBES: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
    Duration::from_secs(21_600),
];
const LAST_PROBE: u32 = 3;
const LONGEST_PROBE: Duration = Duration::from_secs(21_600);
const LONGEST_PAUSE: Duration = Duration::from_secs(3700);
const MOST_LOOKS: u32 = 4;
const SHORTEST_LEARNED: Duration = Duration::from_secs(60);
const BREAKER: Duration = Duration::from_secs(1800);
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests;
