//! All that is stored about one login: the sealed credential, and beside it the small facts that change without it.
//!
//! Each fact is a column of its own, updated only while the version it belongs to is still the stored one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    attempt::Attempt,
    credential::{Credential, Generation, Version},
    error::LoginCause,
    time::{Now, Stamp, Wall},
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
    /// When this was written, on all clocks: within one boot no jump of the wall clock moves the next probe (F-19).
    #[serde(default)]
    pub at: Option<Stamp>,
}

impl Suspicion {
    /// How long the next probe has to wait, zero where it need not; `None` when there is none left.
    #[must_use]
    pub fn probe_in(&self, now: Now) -> Option<Duration> {
        let next = self.next_probe_at?;
        if let Some(at) = self.at.filter(|at| at.boot == now.boot)
            && let Some(age) = now.since(&at)
        {
            return Some(at.wall.until(next).saturating_sub(age));
        }
        // A pause longer than any that is ever set comes from a clock that jumped: it binds nobody.
        Some(now.wall.until(next)).map(|left| {
            if left > LONGEST_PROBE {
                Duration::ZERO
            } else {
                left
            }
        })
    }
}

/// Token calls fail: when the next is allowed, for all processes together (I-9).
///
/// Its instants are told from `at`, so that within one boot no jump of the wall clock, nor another process's own idea of
/// it, changes what they mean (F-19).
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
    /// When this was written, on all clocks.
    #[serde(default)]
    pub at: Option<Stamp>,
}

impl Backoff {
    /// The back-off after one more failure at `now`, of `calls` calls in a row: full jitter from 0.5 s, doubling to 5 min;
    /// `Retry-After` up to an hour is honoured; at most 24 calls an hour.
    ///
    /// `draw` is uniform in `0.0..1.0`.
    #[must_use]
    pub fn after(
        previous: Option<&Self>,
        code: &str,
        retry_after: Option<Duration>,
        draw: f64,
        calls: u32,
        now: Now,
    ) -> Self {
        let failures = previous.map_or(0, |b| b.failures) + 1;
        let ceiling = FIRST_PAUSE
            .saturating_mul(2u32.saturating_pow(failures.min(16) - 1))
            .min(LONGEST_PAUSE);
        let mut pause = FIRST_PAUSE.max(ceiling.mul_f64(draw.clamp(0.0, 1.0)));
        if let Some(asked) = retry_after {
            pause = pause.max(asked.min(HOUR));
        }
        let mut made: Vec<Wall> = previous.map(|b| b.calls_told(now)).unwrap_or_default();
        made.extend((0..calls).map(|_| now.wall));
        let mut not_before = now.wall + pause;
        if made.len() >= CALLS_AN_HOUR
            && let Some(oldest) = made.get(made.len() - CALLS_AN_HOUR)
        {
            not_before = not_before.max(*oldest + HOUR);
        }
        Self {
            since: previous.map_or(now.wall, |b| b.since),
            failures,
            not_before,
            calls: made,
            code: code.to_owned(),
            at: Some(now),
        }
    }

    /// How long calls must still wait; `None` where they need not.
    ///
    /// Where only the wall clock can tell, a pause that began in the future, or is longer than any that is ever set, comes
    /// from a clock that jumped: it binds nobody (F-19, I-12).
    #[must_use]
    pub fn binds(&self, now: Now) -> Option<Duration> {
        let left = match self.age(now) {
            Some((at, age)) => at.until(self.not_before).saturating_sub(age),
            None => {
                let jumped = self.calls.last().is_some_and(|call| *call > now.wall);
                let left = now.wall.until(self.not_before);
                if jumped { Duration::ZERO } else { left }
            }
        };
        (!left.is_zero() && left <= HOUR + LONGEST_PAUSE).then_some(left)
    }

    /// When this was written, and how long ago that is, where the boot clock can tell.
    fn age(&self, now: Now) -> Option<(Wall, Duration)> {
        let at = self.at.filter(|at| at.boot == now.boot)?;
        Some((at.wall, now.since(&at)?))
    }

    /// The calls of the last hour, as the clock tells them now.
    fn calls_told(&self, now: Now) -> Vec<Wall> {
        let told = |call: &Wall| match self.age(now) {
            Some((at, age)) => {
                let ago = crate::time::millis(call.until(at) + age);
                Wall(now.wall.0.saturating_sub(ago))
            }
            None => *call,
        };
        let calls = self.calls.iter().map(told);
        calls.filter(|call| call.until(now.wall) < HOUR).collect()
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
const LONGEST_PROBE: Duration = Duration::from_secs(21_600);
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
            let code = "unavailable.network";
            let next = Backoff::after(backoff.as_ref(), code, None, 0.0, 1, at(now));
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
            |s| Backoff::after(None, "x", Some(Duration::from_secs(s)), 0.5, 1, at(now)).not_before;
        assert_eq!(after(90), now + Duration::from_secs(90));
        assert_eq!(after(86_400), now + HOUR);
    }

    /// F-19: a pause that was set by a clock an hour ahead, before a restart, binds nobody once the clock is right.
    #[test]
    fn a_pause_from_the_future_binds_nobody() {
        let ahead = Wall::from_unix_seconds(1_003_600);
        let mut backoff = Backoff::after(None, "x", None, 0.5, 1, at(ahead));
        assert!(backoff.binds(at(ahead)).is_some());
        backoff.at = None;
        assert_eq!(backoff.binds(at(Wall::from_unix_seconds(1_000_000))), None);
    }

    /// F-19, I-9, I-12: within one boot a jump of the wall clock, or another process's, changes neither the pause nor the
    /// budget.
    #[test]
    fn a_jump_changes_no_pause() {
        let now = at(Wall::from_unix_seconds(1_000_000));
        let pause = Some(Duration::from_secs(60));
        let mut backoff = Backoff::after(None, "x", pause, 0.5, 1, now);
        for jump in [0, 1_000, 2_000_000] {
            let later = Stamp {
                wall: Wall::from_unix_seconds(jump),
                ..now.after(Duration::from_secs(20))
            };
            assert_eq!(backoff.binds(later), Some(Duration::from_secs(40)));
        }
        for n in 1..u64::try_from(CALLS_AN_HOUR).unwrap() {
            let later = Stamp {
                wall: Wall::from_unix_seconds(n % 2 * 9_000_000),
                ..now.after(Duration::from_secs(60 * n))
            };
            assert_eq!(backoff.binds(later), None, "call {n}");
            backoff = Backoff::after(Some(&backoff), "x", None, 0.0, 1, later);
        }
        let full = now.after(Duration::from_secs(60 * 24));
        let left = backoff.binds(full).expect("the budget is spent");
        assert!(left > Duration::from_secs(2000), "{left:?}");
    }

    fn at(wall: Wall) -> Now {
        Stamp {
            wall,
            mono: crate::time::Mono(wall.0),
            ..Stamp::default()
        }
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
