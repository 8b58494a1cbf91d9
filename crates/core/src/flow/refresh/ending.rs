//! How a refresh ends: what was learned is written beside the login, what must not stay in the spool slot is taken back,
//! and the lock is let go.

use crate::{
    credential::Version,
    error::{Error, LoginCause},
    event::Event,
    flow::{Act, Lock, Reading, Turn},
    record::Fact,
    registration::ClientSource,
};

use super::{Gain, Outcome, Refresh, State, version_of};

/// What follows the writing of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing more.
    Unlock,
    /// What was learned about the issuer is written, too.
    Learn,
    /// The issuer has forgotten the client: the next login registers another (F-16).
    Forget,
    /// The call was not delivered: its attempt may stay nowhere.
    TakeBack,
}

impl Refresh {
    /// Writes facts beside the login.
    pub(super) fn facts(
        self,
        outcome: Outcome,
        version: Version,
        facts: Vec<Fact>,
        event: impl Into<Option<Event>>,
        then: Then,
    ) -> Turn<Self> {
        let key = self.task.key.clone();
        let act = Act::Note {
            key,
            version,
            facts,
            event: event.into(),
        };
        let outcome = Box::new(outcome);
        self.next(State::ExpectFacts { outcome, then }, act)
    }

    /// What came of writing them.
    pub(super) fn noted_facts(
        mut self,
        outcome: Box<Outcome>,
        then: Then,
        noted: Result<bool, Error>,
    ) -> Turn<Self> {
        match noted {
            Ok(true) => {
                self.in_slot = false;
                self.then(outcome, then)
            }
            // A login or logout came between, or the store does not hold this version yet.
            Ok(false) => {
                let key = self.task.key.clone();
                self.next(State::ExpectMoved { outcome, then }, Act::Reread(key))
            }
            Err(_) => {
                self.unnoted = true;
                self.then(outcome, then)
            }
        }
    }

    /// What is stored where the facts could not be: a login or logout rules, not what was learned about the one before.
    pub(super) fn moved(
        mut self,
        outcome: Box<Outcome>,
        then: Then,
        read: Result<Box<Reading>, Error>,
    ) -> Turn<Self> {
        let held = version_of(&outcome.record);
        match read {
            Ok(reading) => match (held, version_of(&reading.record)) {
                (_, None) => self.stop(*reading, Err(Error::login(LoginCause::Never))),
                (Some(held), Some(stored)) if held == stored || held.succeeds(&stored) => {
                    self.unnoted = true;
                    self.then(outcome, then)
                }
                _ => self.stop(*reading, Ok(Gain::Adopted)),
            },
            Err(_) => {
                self.unnoted = true;
                self.then(outcome, then)
            }
        }
    }

    pub(super) fn then(self, outcome: Box<Outcome>, then: Then) -> Turn<Self> {
        match then {
            Then::Learn => {
                let issuer = self.task.key.issuer.clone();
                let act = Act::Learn(issuer, outcome.notes.clone());
                self.next(State::ExpectLearn(outcome), act)
            }
            Then::Forget => self.forget(outcome),
            Then::TakeBack => self.take_back(outcome),
            Then::Unlock => self.unlock(*outcome),
        }
    }

    fn forget(self, outcome: Box<Outcome>) -> Turn<Self> {
        let credential = outcome
            .record
            .as_ref()
            .and_then(|record| record.credential.as_ref());
        let Some(credential) = credential.filter(|c| c.client.source == ClientSource::Dynamic)
        else {
            return self.unlock(*outcome);
        };
        let issuer = self.task.key.issuer.clone();
        let act = Act::forgetting(issuer, credential.client.clone());
        self.next(State::ExpectForgotten(outcome), act)
    }

    /// Takes the attempt of a call that was not delivered out of the slot, or puts the one before it back; a store that
    /// noted this has done so already. Where the slot refuses, the attempt stays: the next call is then a repeat under a
    /// label, later than it need be, and nothing worse. After any other verdict it stays on purpose, until the store holds
    /// what was learned: the token has been seen.
    fn take_back(self, outcome: Box<Outcome>) -> Turn<Self> {
        let before = outcome.record.as_ref().and_then(|record| record.attempt);
        let Some(version) = version_of(&outcome.record).filter(|_| self.in_slot) else {
            return self.unlock(*outcome);
        };
        let act = Act::SpoolAttempt {
            key: self.task.key.clone(),
            version,
            attempt: before,
        };
        self.next(State::ExpectTakenBack(outcome), act)
    }

    pub(super) fn stop(self, reading: Reading, result: Result<Gain, Error>) -> Turn<Self> {
        let Reading { record, notes, .. } = reading;
        self.unlock(Outcome::known(record, notes, result))
    }

    pub(super) fn unlock(mut self, mut outcome: Outcome) -> Turn<Self> {
        // What only memory holds stays unsaved until something has taken it.
        let kept = self
            .task
            .unsaved
            .as_ref()
            .filter(|_| self.stored.is_some())
            .map(|kept| kept.version);
        // Where nothing could be read, nothing has taken it either.
        let unread = outcome.record.is_none() && self.task.unsaved.is_some();
        outcome.unsaved |= unread || (kept.is_some() && kept == version_of(&outcome.record));
        // Nor may memory forget what has left, where no look at the store ended the run.
        if let Some(known) = self.known.take().filter(|_| outcome.record.is_none()) {
            (outcome.record, outcome.notes) = (Some(known.0), known.1);
            self.unnoted = true;
        }
        outcome.unnoted = self.unnoted;
        outcome.superseded = self.superseded.take();
        if outcome.unsaved {
            // The lock stays with whoever holds the only copy: what the store holds is spent, and nobody else may send it
            // (F-06). The next run, which saves it, lets go.
            return Turn::Done(outcome);
        }
        let key = self.task.key.clone();
        self.next(
            State::ExpectUnlock(Box::new(outcome)),
            Act::Unlock(Lock::Refresh(key)),
        )
    }
}
