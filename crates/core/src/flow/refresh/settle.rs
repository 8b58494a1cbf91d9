//! After the call: what its verdict means for what is stored (F-12 to F-18).

use std::{collections::VecDeque, time::Duration};

use crate::{
    attempt::Label,
    credential::{Credential, Lifetime, Version},
    error::{Error, LoginCause},
    event::{Happened, Reason},
    exchange::{Exchange, Leg},
    flow::{Act, Commit, Expects, Reading, Turn},
    freshness::{Policy, refresh_point},
    grant::revocation_request,
    record::{Backoff, Fact, Failed, Forced, Record, Suspicion},
    time::{Now, Wall},
    token::{TokenAnswer, Verdict},
};

use super::{Call, Gain, Outcome, Refresh, State, ending::Then, version_of};

impl Refresh {
    pub(super) fn judge(
        self,
        mut call: Box<Call>,
        verdict: Verdict,
        sent_at: Now,
        now: Now,
    ) -> Turn<Self> {
        match verdict {
            Verdict::Granted(answer) => self.granted(call, *answer, sent_at, now),
            Verdict::NotDelivered { error, retry_after } => {
                self.back_off(*call, error, retry_after, now)
            }
            Verdict::Refused { error } => self.refused_as_asked(call, error, now),
            Verdict::Ambiguous {
                error,
                broken,
                acted,
            } => {
                call.acted = call.acted.or(acted.then_some(sent_at));
                self.ambiguous(call, error, broken, now)
            }
            Verdict::InvalidGrant { named } => {
                let key = self.task.key.clone();
                self.next(State::ExpectReread(call, named), Act::Reread(key))
            }
            // What it was shown may have been wrong for a time only: a file that is replaced, a clock. Nothing was spent.
            Verdict::InvalidClient if call.credential.client.shows_what_lies_elsewhere() => {
                let error = Error::refused("invalid_client".to_owned());
                self.back_off(*call, error, None, now)
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
                        at: Some(now),
                    },
                    None,
                    now,
                )
            }
        }
    }

    /// Tokens: the next generation, durable before anybody sees it (I-4).
    pub(super) fn granted(
        self,
        call: Box<Call>,
        answer: TokenAnswer,
        sent_at: Now,
        now: Now,
    ) -> Turn<Self> {
        let old = &call.credential;
        let silent = answer.lifetime.is_none();
        let mut new = old.succeeded_by(answer, sent_at);
        if silent {
            new.lifetime = learned_lifetime(old, &call.record, call.reason, now);
        }
        let forced = forced_after(&call.record, call.reason, new.version, now);
        let happened = Happened::Refreshed {
            generation: new.version.generation,
            reason: call.reason,
            label: call.attempt.label,
            calls: call.attempt.number,
            sent_at: sent_at.wall,
            previous_refresh_point: refresh_point_of(old, self.task.policy),
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

    pub(super) fn committed(
        self,
        call: Call,
        new: Credential,
        forced_into_spool: bool,
        now: Now,
    ) -> Turn<Self> {
        let (otherwise, names_scopes) = (call.otherwise(), call.names_scopes);
        let follows = self.follows(&call);
        let mut told: VecDeque<_> = call
            .credential
            .presented_otherwise(&new)
            .into_iter()
            .collect();
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
            record.spooled = Some(crate::record::Spooled { follows });
        }
        let mut notes = call.reading.notes;
        let after = call.acted.and_then(|acted| call.left_at.since(&acted));
        let mut learned = otherwise.is_some();
        if learned {
            notes.quirks = notes.quirks.with_scopes_at_refresh(names_scopes, now.wall);
        }
        if let Some(after) = after {
            notes = notes.repeated_well(after, now.wall);
            learned = true;
        }
        if call.attempt.label.is_none()
            && let Some(confirmed) = notes.confirmed(call.credential.version, now.wall)
        {
            notes = confirmed;
            learned = true;
        }
        let probed = call.attempt.label == Some(Label::ProbeSuspect);
        if let Some(suspicion) = call.record.suspicion.filter(|_| probed) {
            let healed = notes.healed(suspicion.since, now.wall);
            learned |= healed != notes;
            notes = healed;
        }
        let outcome = Outcome::known(record, notes, Ok(Gain::Refreshed));
        let (outcome, then) = (
            Box::new(outcome),
            if learned { Then::Learn } else { Then::Unlock },
        );
        match otherwise {
            _ if probed => told.push_back(Happened::Healed),
            Some(quirk) => told.push_back(Happened::Learned { quirk }),
            None => {}
        }
        self.tell(outcome, then, told, now)
    }

    /// Records what has happened beside the new generation, one after the other.
    pub(super) fn tell(
        self,
        outcome: Box<Outcome>,
        then: Then,
        mut told: VecDeque<Happened>,
        now: Now,
    ) -> Turn<Self> {
        let Some(happened) = told.pop_front() else {
            return self.then(outcome, then);
        };
        let (key, event) = (self.task.key.clone(), self.event(now, happened));
        self.next(
            State::ExpectTold(outcome, then, told),
            Act::Record(key, event),
        )
    }

    /// The commit found something else: what is stored rules. What a logout has ended, or a login as another client
    /// replaced, is handed back to the issuer; a login as the same client could end with it.
    pub(super) fn overtaken(
        mut self,
        fence: u64,
        new: &Credential,
        reading: Reading,
        now: Now,
    ) -> Turn<Self> {
        match reading
            .record
            .as_ref()
            .and_then(|record| record.credential.as_ref())
        {
            // The store has gone back: what was granted follows what it holds, and goes into it.
            Some(stored) if new.version.succeeds(&stored.version) => {
                self.task.unsaved = Some(Box::new(new.clone()));
                self.decide(fence, reading, false, now)
            }
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
    pub(super) fn discard(self, fence: u64, new: &Credential, reading: Reading) -> Turn<Self> {
        let (Some(endpoint), Some(token)) = (&new.pins.revocation_endpoint, &new.refresh_token)
        else {
            let gain = version_of(&reading.record).map(|_| Gain::Adopted);
            return self.stop(reading, gain.ok_or(Error::login(LoginCause::Never)));
        };
        let form = revocation_request(token.expose(), "refresh_token", &new.client, new.audience());
        let exchange = Exchange::form(
            Leg::Revocation,
            endpoint.clone(),
            "revocation_endpoint",
            form,
        );
        self.next(
            State::ExpectDiscard { fence },
            Act::Send(Box::new(exchange)),
        )
    }

    /// The issuer did nothing: everything is kept, the attempt is taken back, and the next call waits.
    pub(super) fn back_off(
        self,
        mut call: Call,
        error: Error,
        retry_after: Option<Duration>,
        now: Now,
    ) -> Turn<Self> {
        // A repeat that was not delivered is still to be made, while its window is open.
        let asked = retry_after.unwrap_or_default();
        let begun = call.repeats || call.attempt.label == Some(Label::AfterCrash);
        if call.found.is_some()
            && begun
            && let Some(pause) = self.repeat_after(&call, asked, now)
        {
            call.attempt.number += 1;
            call.repeats = true;
            return self.pause(Box::new(call), now.mono + pause);
        }
        let Call {
            reading,
            mut record,
            found,
            credential,
            sent,
            ..
        } = call;
        let pauses = record.backoff.as_ref().and_then(|known| known.binds(now));
        if sent == 0 && pauses.is_some() {
            // Somebody who waits has looked, and nothing has changed: the pause that is noted goes on.
            let facts = vec![Fact::Attempt(found)];
            record.apply(&facts);
            let outcome = Outcome::known(record, reading.notes, Err(error));
            return self.facts(outcome, credential.version, facts, None, Then::TakeBack);
        }
        let backoff = Backoff {
            looks_elsewhere: sent == 0,
            ..Backoff::after(
                record.backoff.as_ref(),
                &Failed {
                    error: &error,
                    retry_after,
                    calls: sent,
                    early: self.early,
                },
                self.fraction(),
                now,
            )
        };
        let happened = Happened::RefreshFailed {
            code: error.code().to_owned(),
            next: backoff.not_before,
        };
        let facts = vec![Fact::Attempt(found), Fact::Backoff(Some(backoff))];
        record.apply(&facts);
        let event = self.event(now, happened);
        let outcome = Outcome::known(record, reading.notes, Err(error));
        self.facts(outcome, credential.version, facts, event, Then::TakeBack)
    }
}

/// What is remembered of forced refreshes after this one.
pub(in crate::flow) fn forced_after(
    record: &Record,
    reason: Reason,
    brings: Version,
    now: Now,
) -> Option<Forced> {
    let known = record.forced.clone();
    if reason != Reason::Refused {
        return known;
    }
    let known = known.unwrap_or_default();
    Some(known.once_more(now.wall, brings.generation))
}

/// When a token was due, as far as that is known.
pub(in crate::flow) fn refresh_point_of(of: &Credential, policy: Policy) -> Option<Wall> {
    let (received, life) = (of.received_at?, of.lifetime?);
    Some(received.wall + refresh_point(life.span(), of.spread(), policy))
}

/// How long a token may live whose issuer does not say so: as long as the last one did before the server refused it, and
/// a little longer each time that nobody refused it. Good for refreshing early, never for refusing to serve (F-18).
pub(in crate::flow) fn learned_lifetime(
    old: &Credential,
    record: &Record,
    reason: Reason,
    now: Now,
) -> Option<Lifetime> {
    let accepted = record
        .acceptance
        .is_some_and(|seen| seen.generation == old.version.generation);
    match (reason, old.lifetime) {
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

const SHORTEST_LEARNED: Duration = Duration::from_secs(10);
