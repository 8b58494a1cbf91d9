//! Before the call: the attempt, made durable. In the store, or in the spool slot where the store refuses it; where both
//! refuse, memory alone knows of it, and that is enough only for a first call with a token that is of no use any more.

use std::time::Duration;

use crate::{
    attempt::{DEAD_PATH_FOUND, Label, repeat_window},
    error::Error,
    event::Reason,
    exchange::{Exchange, Leg},
    flow::{Act, Turn},
    freshness::Policy,
    grant::{Grant, token_request},
    record::Fact,
    time::{Mono, Now},
};

use super::{Call, Refresh, State, ending::Then};

impl Refresh {
    /// Makes the attempt durable; nothing leaves before that.
    pub(super) fn note(self, call: Call) -> Turn<Self> {
        let (key, version) = (self.task.key.clone(), call.credential.version);
        let mut facts = vec![Fact::Attempt(Some(call.attempt))];
        if self.early {
            facts.push(Fact::Backoff(call.record.backoff.clone()));
        }
        let act = Act::Note {
            key,
            version,
            facts,
            event: None,
        };
        self.next(State::ExpectNote(Box::new(call)), act)
    }

    /// What came of the note.
    pub(super) fn noted(
        mut self,
        mut call: Box<Call>,
        noted: Result<bool, Error>,
        now: Now,
    ) -> Turn<Self> {
        match noted {
            // It holds this version, whatever it said of it before: only the answer was lost.
            Ok(true) => {
                (self.in_slot, self.stored) = (false, None);
                call.record.spooled = None;
                self.depart(call, now)
            }
            // What spool or memory hold is never beside its facts in the store. A store that was asked twice to take it and
            // has not refuses the note as well, whatever it says: a full disk has no objection to writing nothing.
            Ok(false) if self.looks > 1 && self.is_unstored(&call) => {
                let why = "it takes no new version".to_owned();
                self.spool_attempt(call, Error::StoreUnavailable { why }, now)
            }
            // A login or logout came between, or the store can take again what memory or spool hold: look again.
            Ok(false) => self.reread(call.attempt.fence, false),
            Err(error) => self.spool_attempt(call, error, now),
        }
    }

    /// The store refuses the note: the spool slot may take it.
    fn spool_attempt(self, call: Box<Call>, error: Error, now: Now) -> Turn<Self> {
        // What memory alone holds ends with the process, and the slot may have to tell whoever comes then that the token
        // which the store still holds is spent. A probe is counted in the store, and nowhere else (I-1).
        let useless = self.stored.is_some() || call.attempt.label == Some(Label::ProbeSuspect);
        if useless || call.is_hurried(now) {
            return self.send_unheld(call, error, now);
        }
        let act = Act::SpoolAttempt {
            key: self.task.key.clone(),
            version: call.credential.version,
            attempt: Some(call.attempt),
        };
        self.next(State::ExpectSlot(call, error), act)
    }

    /// What came of keeping the attempt in the slot.
    pub(super) fn spooled_attempt(
        mut self,
        call: Box<Call>,
        refused: Error,
        spooled: Result<(), Error>,
        now: Now,
    ) -> Turn<Self> {
        match spooled {
            Ok(()) => {
                self.in_slot = true;
                self.depart(call, now)
            }
            Err(_) => self.send_unheld(call, refused, now),
        }
    }

    /// Neither store nor slot took the attempt. A repeat would be unlabelled after a crash: only what is of no use any more
    /// is sent, and only for the first time.
    fn send_unheld(mut self, call: Box<Call>, error: Error, now: Now) -> Turn<Self> {
        self.unnoted = true;
        match call.reason {
            Reason::Expired | Reason::Refused if call.attempt.label.is_none() => {
                self.send(call, now)
            }
            // A repeat: the failure before it binds all the same (I-9).
            _ if call.failed.is_some() => self.stays(call, now),
            _ => {
                let mut reading = call.reading;
                if let Some(record) = &mut reading.record {
                    // A call of this run may have been delivered although nothing could be noted.
                    record.attempt = call.found.or(record.attempt);
                }
                self.stop(reading, Err(error))
            }
        }
    }

    /// The attempt is durable: the call leaves, unless it is a repeat that comes too late, after a suspend or a slow disk.
    fn depart(self, call: Box<Call>, now: Now) -> Turn<Self> {
        match call.not_after(self.task.policy, now) {
            Some(end) if now.mono >= end => self.stays(call, now),
            _ => self.send(call, now),
        }
    }

    /// A repeat has not left: no note of it could be made, or its window has closed, by a suspend, a slow disk or a slow
    /// connection (F-04). What failed before it is how the run ends; where that was another run, what is stored says what may
    /// follow.
    pub(super) fn stays(self, mut call: Box<Call>, now: Now) -> Turn<Self> {
        let Some(error) = call.failed.take() else {
            return self.reread(call.attempt.fence, true);
        };
        // Nor has the one that was put on trial, if it was this one.
        let trial = &mut call.reading.notes.trial;
        let own = trial.is_some_and(|trial| trial.version == call.credential.version.next());
        let then = if own && call.sent == 1 {
            *trial = None;
            Then::Learn
        } else {
            Then::Unlock
        };
        self.uncertain(call, error, then, now)
    }

    fn send(self, mut call: Box<Call>, now: Now) -> Turn<Self> {
        let Some(token) = &call.credential.refresh_token else {
            return self.stop(
                call.reading,
                Err(Error::Bug {
                    what: "refresh without a refresh token",
                }),
            );
        };
        let scope = call.scopes().filter(|_| call.names_scopes);
        let grant = Grant::Refresh { token, scope };
        let pins = &call.credential.pins;
        let form = token_request(
            &grant,
            &call.credential.client,
            call.credential.audience(),
            pins.resource_parameter.as_deref(),
        );
        let mut exchange = Exchange::form(
            Leg::Token,
            pins.token_endpoint.clone(),
            "token_endpoint",
            form,
        );
        exchange.orders.proof.clone_from(&call.credential.proof_key);
        exchange.not_after = call.not_after(self.task.policy, now);
        if call.sent > 0 {
            let held_for = now.since(&call.begun_at).unwrap_or_default();
            let left = LONGEST_CALLS.saturating_sub(held_for);
            exchange.within = exchange.within.min(left).max(SHORTEST_CALL);
        }
        call.sent += 1;
        exchange.patient_from = self.patient_from(&call, now);
        self.next(State::ExpectToken(call), Act::Send(Box::new(exchange)))
    }

    /// From when on a call that leaves has its dead path waited for: where no repeat could follow, or another one's outcome is
    /// open, nothing is gained by giving it up, since it may heal, and bring the answer. A call leaves when its connection
    /// stands and its process runs, which may be seconds after this.
    fn patient_from(&self, call: &Call, now: Now) -> Option<Mono> {
        let is_trying = call.reading.notes.is_trying(now.wall);
        let found_dead = now.after(DEAD_PATH_FOUND);
        let repeated_after = match call.attempt.label {
            _ if is_trying => None,
            Some(Label::Uncertain) => None,
            _ => self.repeat_after(call, Duration::ZERO, found_dead),
        };
        let (Some(pause), Some(window)) = (repeated_after, call.window(self.task.policy, now))
        else {
            return Some(now.mono);
        };
        let age = now.since(&call.window_from).unwrap_or(window);
        let left = window.saturating_sub(age + pause + DEAD_PATH_FOUND);
        (!call.opens_window()).then(|| now.mono + left)
    }

    /// Whether the version in hand is one that the store does not hold.
    fn is_unstored(&self, call: &Call) -> bool {
        self.stored.is_some() || call.record.spooled.is_some()
    }
}

impl Call {
    /// A call counts from when it left, which may be seconds after it was decided: its connection had to stand first.
    pub(super) fn leaves(&mut self, sent_at: Now) {
        if self.opens_window() {
            self.window_from = sent_at;
        }
        self.left_at = sent_at;
    }

    /// Whether it is the first of its window, which opens when it leaves.
    fn opens_window(&self) -> bool {
        self.window_from == self.attempt.sent_at
    }

    /// What was sent may have been delivered, whatever becomes of the next.
    pub(super) fn repeat_as_labelled(&mut self) {
        self.found = Some(self.attempt);
        self.attempt.label = Some(match self.attempt.label {
            None => Label::RetryAmbiguous,
            // Each label has its maximum; what follows a repeat is uncertain, and no worse (I-1).
            Some(_) => Label::Uncertain,
        });
        self.attempt.number += 1;
        self.repeats = true;
    }

    /// Until when after the first call a repeat may leave.
    pub(super) fn window(&self, policy: Policy, now: Now) -> Option<Duration> {
        repeat_window(self.reading.notes.grace(now.wall), policy.repeat_limit)
    }

    /// When the window of a repeat closes; whatever else is sent has none.
    fn not_after(&self, policy: Policy, now: Now) -> Option<Mono> {
        let repeats = matches!(
            self.attempt.label,
            Some(Label::RetryAmbiguous | Label::AfterCrash)
        );
        let window = self.window(policy, now).unwrap_or_default();
        let age = now.since(&self.window_from).unwrap_or(window);
        (repeats || self.repeats).then(|| now.mono + window.saturating_sub(age))
    }

    /// Whether this would be an uncertain call too soon after the one before. The slot keeps no back-off that all processes
    /// could heed, so the attempts themselves are spaced.
    fn is_hurried(&self, now: Now) -> bool {
        self.attempt.label == Some(Label::Uncertain)
            && !self.repeats
            && self
                .found
                .and_then(|before| now.since(&before.sent_at))
                .is_some_and(|age| age < UNCERTAIN_PACE)
    }
}

/// 24 calls an hour (I-9).
const UNCERTAIN_PACE: Duration = Duration::from_secs(150);

/// For so long the calls of one run may hold the lease: others wait for it for 75 s, and the commit takes its time.
const LONGEST_CALLS: Duration = Duration::from_secs(72);

/// A call has this long in any case: one that is given up at once may have been delivered all the same.
const SHORTEST_CALL: Duration = Duration::from_secs(20);
