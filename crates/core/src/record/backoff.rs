//! The pause after a token call that failed, shared by all processes (I-9), and the looks that may end it early (F-12).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, NetworkFault},
    time::{Now, Stamp, Wall},
};

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
    /// When each call of the last hour left that was made at its own time, oldest first.
    pub calls: Vec<Wall>,
    /// The same of those that came on top: repeats, and calls because the issuer was back.
    #[serde(default)]
    pub extra: Vec<Wall>,
    /// The issuer itself asked for a pause until then: nothing ends it early.
    #[serde(default)]
    pub asked_until: Wall,
    /// Whether the issuer can be reached, as far as is known.
    #[serde(default)]
    pub reach: Reach,
    /// The last look at that.
    #[serde(default)]
    pub looked_at: Option<Stamp>,
    /// The code of the last error.
    pub code: String,
    /// When this was written, on all clocks.
    #[serde(default)]
    pub at: Option<Stamp>,
    /// What a grant without a person was refused with: the same in other words, for whoever asks meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// The SHA-256 of the last assertion that was refused: it is never shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<[u8; 32]>,
    /// Whether it came of something that is read from elsewhere: whoever waits may look whether that has changed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub looks_elsewhere: bool,
    /// How many calls in a row found no token endpoint at the pinned place.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gone: u32,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<Wall>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Whether the issuer can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Nobody has looked.
    #[default]
    Unknown,
    /// No answer, or a 5xx.
    Down,
    /// It answers; if token calls fail, that is its token endpoint's own trouble.
    Up,
}

/// A row of token calls that came to nothing: one, and what repeated it.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// How the last ended.
    pub error: &'a Error,
    /// The pause that the issuer asks for.
    pub retry_after: Option<Duration>,
    /// How many left.
    pub calls: u32,
    /// Whether the first was made before its time, because the issuer was back.
    pub early: bool,
}

impl<'a> Failed<'a> {
    /// One call, at its own time, without a word of when the next may be.
    #[must_use]
    pub fn once(error: &'a Error) -> Self {
        Self {
            error,
            retry_after: None,
            calls: 1,
            early: false,
        }
    }
}

impl Backoff {
    /// The back-off after one more failure at `now`: from 0.5 s, four times as much with each, with full jitter; once that
    /// is 5 min, the last tenth of it, so that the calls of an hour last for the hour. `Retry-After` up to an hour is
    /// honoured; at most 24 calls an hour.
    ///
    /// `draw` is uniform in `0.0..1.0`.
    #[must_use]
    pub fn after(previous: Option<&Self>, failed: &Failed<'_>, draw: f64, now: Now) -> Self {
        let draw = draw.clamp(0.0, 1.0);
        let failures = previous.map_or(0, |b| b.failures) + 1;
        let ceiling = FIRST_PAUSE.saturating_mul(4u32.saturating_pow(failures.min(16) - 1));
        let mut pause = if ceiling < LONGEST_PAUSE {
            FIRST_PAUSE.max(ceiling.mul_f64(draw))
        } else {
            LONGEST_PAUSE.mul_f64(0.9 + 0.1 * draw)
        };
        let asked = failed.retry_after.map(|asked| asked.min(HOUR));
        pause = pause.max(asked.unwrap_or_default());
        let recent = |calls: fn(&Self) -> &[Wall]| -> Vec<Wall> {
            previous.map_or_else(Vec::new, |b| b.within_an_hour(calls(b), now))
        };
        let (mut calls, mut extra) = (recent(|b| &b.calls), recent(|b| &b.extra));
        let regular = u32::from(!failed.early).min(failed.calls);
        calls.extend((0..regular).map(|_| now.wall));
        extra.extend((regular..failed.calls).map(|_| now.wall));
        let mut made: Vec<Wall> = calls.iter().chain(&extra).copied().collect();
        made.sort_unstable();
        let mut not_before = now.wall + pause;
        if let Some(leaves) = made.len().checked_sub(CALLS_AN_HOUR)
            && let Some(oldest) = made.get(leaves)
        {
            not_before = not_before.max(*oldest + HOUR);
        }
        let reach = match (previous.map(|b| b.reach), failed.error) {
            // It answered when somebody looked: only a look that fails says that all of it is gone.
            (Some(Reach::Up), _) => Reach::Up,
            (_, Error::Network { .. } | Error::Timeout { .. }) => Reach::Down,
            (known, _) => known.unwrap_or_default(),
        };
        Self {
            since: previous.map_or(now.wall, |b| b.since),
            failures,
            not_before,
            calls,
            extra,
            asked_until: asked.map_or(Wall(0), |asked| now.wall + asked),
            reach,
            looked_at: Some(now),
            code: failed.error.code().to_owned(),
            at: Some(now),
            denied: None,
            refused: None,
            looks_elsewhere: false,
            gone: if is_gone(failed.error) {
                previous.map_or(0, |b| b.gone) + 1
            } else {
                0
            },
            gone_since: is_gone(failed.error).then(|| {
                let since = previous.and_then(|b| Some(b.told(b.gone_since?, now)));
                since.unwrap_or(now.wall)
            }),
        }
    }

    /// Whether the token endpoint has been gone from its pinned place for so long that the issuer's own metadata is asked
    /// where it is now (DESIGN.md section 3).
    #[must_use]
    pub fn endpoint_is_gone(&self, now: Now) -> bool {
        let since = self.gone_since.map(|since| self.told(since, now));
        self.gone >= GONE_CALLS && since.is_some_and(|since| since.until(now.wall) >= HOUR)
    }

    /// The same, once the metadata was asked for: it is asked again after another such row.
    #[must_use]
    pub fn metadata_asked(self) -> Self {
        Self {
            gone: 0,
            gone_since: None,
            ..self
        }
    }

    /// Whether a call of a row that `sent` were made of may be followed by one more: a few an hour may come on top.
    #[must_use]
    pub fn spares(previous: Option<&Self>, sent: u32, now: Now) -> bool {
        let lately = |calls: fn(&Self) -> &[Wall]| {
            previous.map_or(0, |b| b.within_an_hour(calls(b), now).len())
        };
        let (calls, extra) = (lately(|b| &b.calls), lately(|b| &b.extra));
        let sent = usize::try_from(sent).unwrap_or(CALLS_AN_HOUR);
        extra + sent <= EXTRA_AN_HOUR && calls + extra + sent < CALLS_AN_HOUR
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

    /// Whether somebody who waits may look now whether the issuer can be reached: every ten seconds, and only where it
    /// would help.
    #[must_use]
    pub fn may_look(&self, now: Now) -> bool {
        let looked_lately = self
            .looked_at
            .and_then(|at| now.since(&at))
            .is_some_and(|ago| ago < LOOK_EVERY);
        let asked = self.told(self.asked_until, now) > now.wall;
        !looked_lately && !asked && self.spare(now)
    }

    /// What is known after a look, and whether the issuer is back, so that one call is allowed at once.
    #[must_use]
    pub fn looked(mut self, reachable: bool, now: Now) -> (Self, bool) {
        let back = reachable && self.reach == Reach::Down && self.spare(now);
        self.reach = if reachable { Reach::Up } else { Reach::Down };
        self.looked_at = Some(now);
        if back {
            self.not_before = Wall(0);
        }
        (self, back)
    }

    /// Whether a call may be made because the issuer is back.
    fn spare(&self, now: Now) -> bool {
        let extra = self.within_an_hour(&self.extra, now).len();
        let calls = self.within_an_hour(&self.calls, now).len();
        extra < BACK_AN_HOUR && calls + extra < CALLS_AN_HOUR
    }

    /// When this was written, and how long ago that is, where the boot clock can tell.
    fn age(&self, now: Now) -> Option<(Wall, Duration)> {
        let at = self.at.filter(|at| at.boot == now.boot)?;
        Some((at.wall, now.since(&at)?))
    }

    /// An instant of this, as the clock tells it now.
    fn told(&self, instant: Wall, now: Now) -> Wall {
        match self.age(now) {
            Some((at, age)) => {
                let written = now.wall.0.saturating_sub(crate::time::millis(age));
                let ago = crate::time::millis(instant.until(at));
                Wall(written.saturating_sub(ago)) + at.until(instant)
            }
            None => instant,
        }
    }

    /// Those calls that left within the last hour, as the clock tells them now.
    fn within_an_hour(&self, calls: &[Wall], now: Now) -> Vec<Wall> {
        let told = calls.iter().map(|call| self.told(*call, now));
        told.filter(|call| *call <= now.wall && call.until(now.wall) < HOUR)
            .collect()
    }
}

/// Whether a call failed because there is no such place (any more).
fn is_gone(error: &Error) -> bool {
    match error {
        Error::ServerError { status, .. } => matches!(status, 404 | 405 | 410),
        Error::Network { why, .. } => *why == NetworkFault::Dns,
        _ => false,
    }
}

const GONE_CALLS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);
const CALLS_AN_HOUR: usize = 24;
const EXTRA_AN_HOUR: usize = 5;
const BACK_AN_HOUR: usize = 4;

#[cfg(test)]
mod tests;
