//! After the call: what its verdict means for what is stored (F-12 to F-18).

use std::{collections::VecDeque, time::Duration};

use crate::{
    attempt::Label,
    credential::{Credential, Lifetime, Version},
    error::{Certainty, Error, LoginCause, Named, NetworkFault},
    event::{Happened, Reason},
    exchange::{Exchange, Leg},
    flow::{Act, Commit, Expects, Reading, Step, Turn},
    freshness::{Policy, refresh_point},
    grant::revocation_request,
    notes::Trial,
    record::{Backoff, Fact, Failed, Forced, Record, Suspicion},
    time::{Mono, Now, Wall},
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

    /// Nobody knows whether the issuer rotated. Inside the window the call is repeated once, under its label; else the
    /// attempt stays, and the login is *uncertain*.
    pub(super) fn ambiguous(
        self,
        mut call: Box<Call>,
        error: Error,
        broken: bool,
        now: Now,
    ) -> Turn<Self> {
        // An issuer that answers with a failure rarely acted; and the hour has few repeats. They are for answers that were lost.
        let failing = matches!(error, Error::ServerError { .. }) && call.acted.is_none();
        let enough = match call.attempt.label {
            Some(Label::Uncertain) if !call.repeats => 0,
            _ => REPEATS_OF_A_FAILURE,
        };
        let broken = broken && (!failing || call.sent <= enough);
        if broken && let Some(pause) = self.repeat_after(&call, Duration::ZERO, now) {
            let dead = NetworkFault::DeadPath;
            if matches!(error, Error::Network { why, .. } if why == dead) {
                // Another such repeat may have left, or been refused, while this call was on its way.
                let key = self.task.key.clone();
                return self.next(State::ExpectTrialNotes(call, error), Act::Reread(key));
            }
            call.failed = Some(error);
            call.repeat_as_labelled();
            return self.pause(call, now.mono + pause);
        }
        self.uncertain(call, error, Then::Unlock, now)
    }

    /// A dead path, and the notes as they are now: the repeat is put on trial, unless another one is, or
    /// repeats are refused there.
    pub(super) fn dead_path(
        self,
        mut call: Box<Call>,
        error: Error,
        read: Option<Box<Reading>>,
        now: Now,
    ) -> Turn<Self> {
        if let Some(reading) = read {
            call.reading.notes = reading.notes;
        }
        let Some(pause) = self.repeat_after(&call, Duration::ZERO, now) else {
            return self.uncertain(call, error, Then::Unlock, now);
        };
        call.failed = Some(error);
        call.repeat_as_labelled();
        if call.reading.notes.is_trying(now.wall) {
            // Two paths died together. The connection is given up, and its answer with it: a repeat risks nothing more.
            return self.pause(call, now.mono + pause);
        }
        self.try_once(call, pause, now)
    }

    /// The attempt stays, and the next call waits.
    pub(super) fn uncertain(
        self,
        call: Box<Call>,
        error: Error,
        then: Then,
        now: Now,
    ) -> Turn<Self> {
        let first = call.attempt.label.is_none();
        let usable = !matches!(call.reason, Reason::Refused | Reason::Expired);
        let backoff = Backoff::after(
            call.record.backoff.as_ref(),
            &Failed {
                error: &error,
                retry_after: None,
                calls: call.sent,
                early: self.early,
            },
            self.fraction(),
            now,
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
                at: Some(now),
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
        let outcome = Outcome::known(record, reading.notes, result);
        self.facts(outcome, credential.version, facts, event, then)
    }

    /// A repeat on a dead path may meet the first call, still on its way: one login at a time, and its outcome is waited for.
    fn try_once(self, mut call: Box<Call>, pause: Duration, now: Now) -> Turn<Self> {
        let version = call.credential.version.next();
        let age = now.since(&call.window_from);
        let trial = Trial {
            version,
            after: age.unwrap_or_default() + pause,
            at: now.wall,
        };
        let notes = call.reading.notes.on_trial(trial);
        call.reading.notes = notes.clone();
        let issuer = self.task.key.issuer.clone();
        self.next(
            State::ExpectTrial(call, now.mono + pause),
            Act::Learn(issuer, notes),
        )
    }

    /// How long to pause before a call whose answer was lost is repeated in this run, if it may be: the window is still
    /// open then, and it was not repeated too often. After the first repeat nothing is risked that was not risked before, so
    /// one fault more costs no login.
    pub(super) fn repeat_after(&self, call: &Call, asked: Duration, now: Now) -> Option<Duration> {
        let repeats = match call.attempt.label {
            // What was refused for its form alone spent nothing.
            None => call.sent == 1 + u32::from(call.asked_otherwise),
            Some(Label::RetryAmbiguous | Label::AfterCrash) => true,
            // Nothing is left that waiting could save, and this call may be the first that got through.
            Some(Label::Uncertain) => true,
            Some(_) => false,
        };
        let age = now.since(&call.window_from)?;
        let pause = match call.attempt.label {
            None => Duration::from_millis(200).mul_f64(1.0 + 4.0 * self.fraction()),
            Some(_) => {
                let doubled = call.sent.saturating_sub(2).min(8);
                REPEAT_PAUSE.mul_f64(1.0 + self.fraction()) * 2u32.pow(doubled)
            }
        };
        let pause = pause.max(asked);
        let window = call.window(self.task.policy, now)?;
        let open = age + pause < window && call.sent <= self.task.policy.most_repeats;
        let spare = Backoff::spares(call.record.backoff.as_ref(), call.sent, now);
        // A call that is made because the issuer is back is one.
        (repeats && open && spare && !self.early).then_some(pause)
    }

    pub(super) fn pause(self, call: Box<Call>, at: Mono) -> Turn<Self> {
        Turn::Next(
            Self {
                state: State::ExpectPause(call, at),
                ..self
            },
            Step::wait_until(at),
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

    /// `invalid_grant`, and the store still holds what was refused: the login is suspect, or lost.
    pub(super) fn refused(self, call: Call, named: Option<Named>, now: Now) -> Turn<Self> {
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
                at: Some(now),
            },
            named,
            now,
        )
    }

    pub(super) fn suspect(
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
            repeats,
            window_from,
            left_at,
            is_first,
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
        let after = match (attempt.label, reading.notes.trial) {
            (Some(Label::RetryAmbiguous | Label::AfterCrash), _) => left_at.since(&window_from),
            (Some(Label::Uncertain), _) if repeats && is_first => left_at.since(&window_from),
            (Some(Label::Uncertain), _) if repeats => left_at.since(&attempt.first_sent_at),
            // What a repeat has just brought is refused: the first call has reached the issuer after all, too late.
            (None, Some(trial)) if trial.explains(credential.version, now.wall) => {
                Some(trial.after)
            }
            _ => None,
        };
        let believed =
            named != Some(Named::Revoked) && matches!(cause, LoginCause::RefreshRejected { .. });
        let learned = after.filter(|_| believed);
        if let Some(after) = learned {
            reading.notes = reading.notes.repeated_badly(after, now.wall);
        }
        let facts = vec![
            Fact::Attempt(None),
            Fact::Backoff(None),
            Fact::Suspicion(Some(suspicion)),
        ];
        record.apply(&facts);
        let event = self.event(now, happened);
        let gone = cause == LoginCause::RegistrationGone;
        let result = Err(Error::login(cause));
        let outcome = Outcome::known(record, reading.notes, result);
        let then = if gone {
            Then::Forget
        } else if learned.is_some() {
            Then::Learn
        } else {
            Then::Unlock
        };
        self.facts(outcome, credential.version, facts, event, then)
    }
}

/// When the next probe is allowed after this many were refused; `None` when there is none left.
fn probe_at(probes: u32, now: Now) -> Option<Wall> {
    usize::try_from(probes)
        .ok()
        .and_then(|i| PROBES.get(i))
        .map(|pause| now.wall + *pause)
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

/// When a refused refresh token is tried again: after 1, 5 and 30 minutes and 6 hours (F-14, F-15).
const PROBES: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
    Duration::from_secs(21_600),
];

const LAST_PROBE: u32 = 3;

/// How often a 5xx is asked again in a row.
const REPEATS_OF_A_FAILURE: u32 = 2;

/// The shortest pause before a second repeat (I-9); it doubles.
const REPEAT_PAUSE: Duration = Duration::from_millis(500);

const SHORTEST_LEARNED: Duration = Duration::from_secs(10);
