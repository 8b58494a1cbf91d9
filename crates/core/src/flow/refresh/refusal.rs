//! The issuer refuses: what is believed, what is learned, and when the token is tried again (F-14, F-15, F-17).

use std::time::Duration;

use crate::{
    attempt::Label,
    error::{Certainty, Error, LoginCause, Named},
    event::Happened,
    flow::Turn,
    record::{Fact, Suspicion},
    time::{Now, Wall},
};

use super::{Call, Outcome, Refresh, ending::Then};

impl Refresh {
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
pub(super) fn probe_at(probes: u32, now: Now) -> Option<Wall> {
    usize::try_from(probes)
        .ok()
        .and_then(|i| PROBES.get(i))
        .map(|pause| now.wall + *pause)
}

/// When a refused refresh token is tried again: after 1, 5 and 30 minutes and 6 hours (F-14, F-15).
const PROBES: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
    Duration::from_secs(21_600),
];

/// The last one that may be counted without a verdict.
pub(super) const LAST_PROBE: u32 = 3;
