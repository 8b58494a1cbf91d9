//! All that is stored about one login: the sealed credential, and beside it the small facts that change without it.
//!
//! Each fact is a column of its own, updated only while the version it belongs to is still the stored one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    attempt::Attempt,
    credential::{Credential, Generation, Version},
    error::LoginCause,
    time::Wall,
};

/// What a read of store and spool found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The login; `None` where a logout left a tombstone.
    pub credential: Option<Credential>,
    /// Set where `credential` lies in the spool and has yet to be merged into the store.
    pub spooled: Option<Spooled>,
    /// A token call that may have reached the issuer.
    pub attempt: Option<Attempt>,
    /// The server's acceptance of this generation.
    pub acceptance: Option<Acceptance>,
    /// The issuer's refusal, if it stands.
    pub suspicion: Option<Suspicion>,
    /// When the next token call is allowed while calls fail.
    pub backoff: Option<Backoff>,
    /// Refreshes forced by a 401.
    pub forced: Option<Forced>,
}

impl Record {
    /// Writes facts into this copy, as the store does into its own.
    pub fn apply(&mut self, facts: &[Fact]) {
        for fact in facts.iter().cloned() {
            match fact {
                Fact::Attempt(value) => self.attempt = value,
                Fact::Acceptance(value) => self.acceptance = value,
                Fact::Suspicion(value) => self.suspicion = value,
                Fact::Backoff(value) => self.backoff = value,
                Fact::Forced(value) => self.forced = value,
            }
        }
    }

    /// The version stored, if there is a login.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.credential
            .as_ref()
            .map(|credential| credential.version)
    }
}

/// What a spooled version waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    /// The version that the store holds and that it follows; `None` where the store holds nothing.
    pub follows: Option<Version>,
}

/// One small fact to write beside the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Note, or clear, an attempt.
    Attempt(Option<Attempt>),
    /// Note an acceptance.
    Acceptance(Option<Acceptance>),
    /// Note, or clear, a refusal.
    Suspicion(Option<Suspicion>),
    /// Note, or clear, a back-off.
    Backoff(Option<Backoff>),
    /// Note forced refreshes.
    Forced(Option<Forced>),
}

/// The server has accepted a token of this generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Which generation.
    pub generation: Generation,
    /// When first.
    pub first_at: Wall,
    /// When last, to within a minute.
    pub last_at: Wall,
}

/// The issuer refused the refresh token; probes will tell whether that is true (F-14, F-15).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// What to report.
    pub cause: LoginCause,
    /// When it was refused first.
    pub since: Wall,
    /// How many probes were refused.
    pub probes: u32,
    /// When the next probe is allowed; `None` when there is none left.
    pub next_probe_at: Option<Wall>,
}

/// Token calls fail: when the next is allowed, for all processes together (I-9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// When the first of this row of failures was.
    pub since: Wall,
    /// How many in a row.
    pub failures: u32,
    /// No call before this.
    pub not_before: Wall,
    /// When each call of the last hour left, oldest first.
    pub calls: Vec<Wall>,
    /// The code of the last error.
    pub code: String,
}

impl Backoff {
    /// The back-off after one more failure at `now`: full jitter from 0.5 s, doubling to 5 min; `Retry-After` up to an
    /// hour is honoured; at most 24 calls an hour.
    ///
    /// `draw` is uniform in `0.0..1.0`.
    #[must_use]
    pub fn after(
        previous: Option<&Self>,
        code: &str,
        retry_after: Option<Duration>,
        draw: f64,
        now: Wall,
    ) -> Self {
        let failures = previous.map_or(0, |b| b.failures) + 1;
        let ceiling = FIRST_PAUSE
            .saturating_mul(2u32.saturating_pow(failures.min(16) - 1))
            .min(LONGEST_PAUSE);
        let mut pause = FIRST_PAUSE.max(ceiling.mul_f64(draw.clamp(0.0, 1.0)));
        if let Some(asked) = retry_after {
            pause = pause.max(asked.min(HOUR));
        }
        let mut calls: Vec<Wall> = previous.map(|b| b.calls.clone()).unwrap_or_default();
        calls.retain(|call| call.until(now) < HOUR);
        calls.push(now);
        let mut not_before = now + pause;
        if calls.len() >= CALLS_AN_HOUR
            && let Some(oldest) = calls.get(calls.len() - CALLS_AN_HOUR)
        {
            not_before = not_before.max(*oldest + HOUR);
        }
        Self {
            since: previous.map_or(now, |b| b.since),
            failures,
            not_before,
            calls,
            code: code.to_owned(),
        }
    }
}

impl Backoff {
    /// How long calls must still wait; `None` where they need not.
    ///
    /// A pause that began in the future, or is longer than any that is ever set, comes from a clock that jumped: it binds
    /// nobody (F-19, I-12).
    #[must_use]
    pub fn binds(&self, now: Wall) -> Option<Duration> {
        let left = now.until(self.not_before);
        let jumped = self.calls.last().is_some_and(|call| *call > now);
        (!left.is_zero() && left <= HOUR + LONGEST_PAUSE && !jumped).then_some(left)
    }
}

/// Refreshes that a 401 forced (T-45).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Forced {
    /// When each of the last minute was.
    pub at: Vec<Wall>,
    /// The generation that the last one brought.
    pub brought: Option<Generation>,
    /// No forced refresh before this: a token straight from a forced refresh was refused.
    pub broken_until: Option<Wall>,
}

impl Forced {
    /// When a refresh forced by a 401 is allowed next, for a token of this lifetime.
    #[must_use]
    pub fn allowed_at(&self, lifetime: Option<Duration>) -> Wall {
        let spacing = lifetime.map_or(FORCED_SPACING, |life| FORCED_SPACING.min(life / 4));
        let after_last = self.at.last().map_or(Wall(0), |last| *last + spacing);
        let after_third = match self
            .at
            .len()
            .checked_sub(FORCED_A_MINUTE)
            .and_then(|i| self.at.get(i))
        {
            Some(third) => *third + Duration::from_secs(60),
            None => Wall(0),
        };
        after_last
            .max(after_third)
            .max(self.broken_until.unwrap_or_default())
    }

    /// Notes one more forced refresh.
    #[must_use]
    pub fn once_more(&self, now: Wall, brings: Generation) -> Self {
        let mut at: Vec<Wall> = self
            .at
            .iter()
            .copied()
            .filter(|t| t.until(now) < Duration::from_secs(60))
            .collect();
        at.push(now);
        Self {
            at,
            brought: Some(brings),
            broken_until: None,
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);
const CALLS_AN_HOUR: usize = 24;
const FORCED_SPACING: Duration = Duration::from_secs(30);
const FORCED_A_MINUTE: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// I-9, F-12, F-26: at least half a second between calls after a failure, at most 24 an hour, however long it lasts.
    #[test]
    fn six_hours_of_failure_stay_within_the_budget() {
        let start = Wall::from_unix_seconds(1_000_000);
        let end = start + 6 * HOUR;
        let (mut now, mut backoff, mut calls) = (start, None::<Backoff>, Vec::new());
        while now < end {
            calls.push(now);
            let next = Backoff::after(backoff.as_ref(), "unavailable.network", None, 0.0, now);
            assert!(next.not_before >= now + FIRST_PAUSE);
            now = next.not_before;
            backoff = Some(next);
        }
        for (i, call) in calls.iter().enumerate() {
            let hour = calls
                .iter()
                .skip(i)
                .take_while(|c| call.until(**c) < HOUR)
                .count();
            assert!(hour <= CALLS_AN_HOUR, "{hour} calls within an hour");
        }
        assert!(calls.len() <= 150, "{} calls in six hours", calls.len());
    }

    /// F-12: Retry-After is honoured up to an hour.
    #[test]
    fn retry_after_is_honoured_up_to_an_hour() {
        let now = Wall::from_unix_seconds(1_000_000);
        let after =
            |s| Backoff::after(None, "x", Some(Duration::from_secs(s)), 0.5, now).not_before;
        assert_eq!(after(90), now + Duration::from_secs(90));
        assert_eq!(after(86_400), now + HOUR);
    }

    /// F-19: a pause that was set by a clock an hour ahead binds nobody once the clock is right.
    #[test]
    fn a_pause_from_the_future_binds_nobody() {
        let ahead = Wall::from_unix_seconds(1_003_600);
        let backoff = Backoff::after(None, "x", None, 0.5, ahead);
        assert!(backoff.binds(ahead).is_some());
        assert_eq!(backoff.binds(Wall::from_unix_seconds(1_000_000)), None);
    }

    /// T-45: however many 401s come, at most three forced refreshes a minute and a pause between any two.
    #[test]
    fn a_storm_of_401s_forces_few_refreshes() {
        let start = Wall::from_unix_seconds(1_000_000);
        let (mut forced, mut done) = (Forced::default(), 0);
        for ms in (0..60_000).step_by(10) {
            let now = start + Duration::from_millis(ms);
            if now >= forced.allowed_at(Some(Duration::from_secs(15))) {
                forced = forced.once_more(now, Generation(done));
                done += 1;
            }
        }
        assert_eq!(done, 3);
        assert_eq!(
            Forced::default()
                .once_more(start, Generation(1))
                .allowed_at(Some(Duration::from_secs(3600))),
            start + FORCED_SPACING
        );
    }
}
