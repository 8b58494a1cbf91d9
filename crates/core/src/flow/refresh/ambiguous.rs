//! Nobody knows whether the issuer rotated: the call is repeated in time, or the login is *uncertain* (F-03, F-04).

use std::time::Duration;

use crate::{
    attempt::Label,
    error::{Error, NetworkFault},
    event::{Happened, Reason},
    flow::{Act, Reading, Step, Turn},
    notes::Trial,
    record::{Backoff, Fact, Failed, Suspicion},
    time::{Mono, Now},
};

use super::{
    Call, Gain, Outcome, Refresh, State,
    ending::Then,
    refusal::{LAST_PROBE, probe_at},
};

impl Refresh {
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
}

/// How often a 5xx is asked again in a row.
const REPEATS_OF_A_FAILURE: u32 = 2;

/// The shortest pause before a second repeat (I-9); it doubles.
const REPEAT_PAUSE: Duration = Duration::from_millis(500);
