//! After the grant: what it brought is made durable, or why it brought nothing is noted.

use crate::{
    credential::{Credential, Lifetime, Version},
    error::Error,
    event::Happened,
    flow::{
        Act, Commit, Expects, Reading, Turn,
        refresh::{
            Gain, Outcome,
            settle::{forced_after, learned_lifetime, refresh_point_of},
        },
    },
    record::{Backoff, Fact, Failed, Forced, Kept, Record, Spooled},
    time::{Now, Wall},
};

use super::{
    Call, State, Unattended,
    obtain::{NotObtained, Obtained},
};

impl Unattended {
    /// A token: the next generation, durable before anybody sees it (I-4).
    pub(super) fn granted(self, call: Box<Call>, obtained: Obtained, now: Now) -> Turn<Self> {
        let Obtained { answer, sent_at } = obtained;
        let old = &call.credential;
        let silent = answer.lifetime.is_none();
        let mut new = old.succeeded_by(answer, sent_at);
        if silent {
            new.lifetime = learned_lifetime(old, &call.record, call.reason, now);
        }
        let happened = Happened::Refreshed {
            generation: new.version.generation,
            reason: call.reason,
            label: None,
            calls: 1,
            sent_at: sent_at.wall,
            previous_refresh_point: refresh_point_of(old, self.task.policy),
            lifetime: new.lifetime.map(Lifetime::span),
        };
        let commit = Commit {
            credential: new.clone(),
            expects: Expects::Version(self.stored.unwrap_or(old.version)),
            binding: None,
            forced: forced_after(&call.record, call.reason, new.version, now),
            event: self.event(now, happened),
        };
        self.next(
            State::ExpectCommit(call, Box::new(new)),
            Act::Commit(Box::new(commit)),
        )
    }

    pub(super) fn committed(self, call: Call, new: Credential, kept: Kept, now: Now) -> Turn<Self> {
        let forced = forced_after(&call.record, call.reason, new.version, now);
        let follows = Some(self.stored.unwrap_or(call.credential.version));
        let otherwise = call.credential.presented_otherwise(&new);
        let record = Record {
            credential: Some(new),
            spooled: (kept == Kept::Spool).then_some(Spooled { follows }),
            forced,
            ..Record::default()
        };
        let outcome = Outcome {
            unsaved: kept == Kept::Memory,
            ..Outcome::known(record, call.notes, Ok(Gain::Refreshed))
        };
        let Some(happened) = otherwise else {
            return self.unlock(outcome);
        };
        let (key, event) = (self.task.key.clone(), self.event(now, happened));
        self.next(
            State::ExpectTold(Box::new(outcome)),
            Act::Record(key, event),
        )
    }

    /// No token: everything is kept, and the next call waits.
    pub(super) fn back_off(self, call: Call, failed: &NotObtained, now: Now) -> Turn<Self> {
        let Call {
            mut record,
            notes,
            credential,
            early,
            ..
        } = call;
        let pauses = record.backoff.as_ref().and_then(|known| known.binds(now));
        if failed.calls == 0 && pauses.is_some() {
            // Somebody who waits has looked, and nothing has changed: the pause that is noted goes on.
            return self.unlock(Outcome::known(record, notes, Err(failed.error.clone())));
        }
        let backoff = Backoff {
            denied: match &failed.error {
                Error::DeniedByIssuer { error } => Some(error.clone()),
                _ => None,
            },
            looks_elsewhere: failed.calls == 0 || failed.refused.is_some(),
            refused: failed
                .refused
                .or_else(|| record.backoff.as_ref().and_then(|known| known.refused)),
            ..Backoff::after(
                record.backoff.as_ref(),
                &Failed {
                    error: &failed.error,
                    retry_after: failed.retry_after,
                    calls: failed.calls,
                    early,
                },
                self.fraction(),
                now,
            )
        };
        let happened = Happened::RefreshFailed {
            code: failed.error.code().to_owned(),
            next: backoff.not_before,
        };
        let facts = vec![Fact::Backoff(Some(backoff))];
        record.apply(&facts);
        let outcome = Outcome::known(record, notes, Err(failed.error.clone()));
        self.note(outcome, credential.version, facts, happened, now)
    }

    /// The server refuses what a renewal has just brought because it refused the one before: no more for half its life.
    pub(super) fn trip(
        self,
        reading: Reading,
        version: Version,
        forced: Forced,
        until: Wall,
        now: Now,
    ) -> Turn<Self> {
        let facts = vec![Fact::Forced(Some(forced))];
        let mut record = reading.record.unwrap_or_default();
        record.apply(&facts);
        let outcome = Outcome::known(record, reading.notes, Err(Error::DeniedByResource));
        let happened = Happened::BreakerTripped { until };
        self.note(outcome, version, facts, happened, now)
    }

    fn note(
        self,
        outcome: Outcome,
        version: Version,
        facts: Vec<Fact>,
        happened: Happened,
        now: Now,
    ) -> Turn<Self> {
        let act = Act::Note {
            key: self.task.key.clone(),
            version,
            facts,
            event: Some(self.event(now, happened)),
        };
        self.next(State::ExpectFacts(Box::new(outcome)), act)
    }
}
