//! Is the access token fresh, due or expired, and why.
//!
//! The refresh point is `expiry - buffer - jitter`: always earlier, never later. All processes compute the same one,
//! since the jitter comes from the version ([`Credential::spread`]).

use std::time::Duration;

use crate::{
    credential::{Credential, Lifetime},
    time::Now,
};

/// How far before expiry a refresh is due, and how a call is repeated whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The longest buffer (default 5 min); a quarter of the lifetime where that is shorter.
    pub buffer: Duration,
    /// The latest repeat of a call, counted from the first (default 12 s). Issuers that allow any allow at least that.
    pub repeat_limit: Duration,
    /// How often a call is repeated at most within that time (default 4).
    pub most_repeats: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            buffer: Duration::from_secs(300),
            repeat_limit: Duration::from_secs(12),
            most_repeats: 4,
        }
    }
}

/// Whether an access token may be used, and what is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Use it; nothing to do until then.
    Fresh {
        /// When it becomes due; `None` where its lifetime is unknown.
        due_in: Option<Duration>,
    },
    /// Use it, and refresh in the background.
    Due {
        /// Why.
        reason: DueReason,
        /// How long it still lives, as far as is known.
        expires_in: Option<Duration>,
    },
    /// Its stated life is over.
    Expired {
        /// Since when.
        since: Duration,
    },
}

/// Why a refresh is due although the access token still works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DueReason {
    /// The refresh point has passed.
    Due,
    /// Nobody knows when the token was received.
    AgeUnknown,
}

/// When an access token of this lifetime and spread becomes due, counted from its receipt.
#[must_use]
pub fn refresh_point(lifetime: Duration, spread: f64, policy: Policy) -> Duration {
    let buffer = policy.buffer.min(lifetime / 4);
    let mut widest = buffer / 5;
    if lifetime > Duration::from_secs(600) {
        widest = widest.max(lifetime / 20);
    }
    lifetime
        .saturating_sub(buffer)
        .saturating_sub(widest.mul_f64(spread.clamp(0.0, 1.0)))
}

impl Credential {
    /// Judges the access token at `now`.
    ///
    /// A lifetime that nobody stated never expires here: the first 401 tells. A lifetime read from a JWT makes the token
    /// due, never expired. An age that the clocks cannot tell is *due*, once: the refresh fills it in.
    #[must_use]
    pub fn freshness(&self, now: Now, policy: Policy) -> Freshness {
        if self.is_static() {
            // What it says about its end is a hint for people: the server decides.
            return Freshness::Fresh { due_in: None };
        }
        let age = self.received_at.and_then(|received| now.since(&received));
        let (Some(age), Some(lifetime)) = (age, self.lifetime) else {
            return match (age, self.lifetime, self.is_final()) {
                (None, _, false) => Freshness::Due {
                    reason: DueReason::AgeUnknown,
                    expires_in: None,
                },
                _ => Freshness::Fresh { due_in: None },
            };
        };
        let span = lifetime.span();
        let point = refresh_point(span, self.spread(), policy);
        if age < point {
            return Freshness::Fresh {
                due_in: Some(point - age),
            };
        }
        match (span.checked_sub(age), lifetime) {
            (Some(left), _) if !left.is_zero() => Freshness::Due {
                reason: DueReason::Due,
                expires_in: Some(left),
            },
            (_, Lifetime::Hint(_)) => Freshness::Due {
                reason: DueReason::Due,
                expires_in: None,
            },
            _ => Freshness::Expired { since: age - span },
        }
    }

    /// How long the access token still lives; `None` where that is unknown.
    #[must_use]
    pub fn expires_in(&self, now: Now) -> Option<Duration> {
        let age = now.since(&self.received_at?)?;
        Some(self.lifetime?.span().saturating_sub(age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(60);

    /// F-22, F-24, F-21: the buffer is a quarter of a short life and five minutes of a long one, and jitter only pulls earlier.
    #[test]
    fn the_refresh_point_is_early_and_never_late() {
        let policy = Policy::default();
        for lifetime in [
            Duration::from_secs(5),
            Duration::from_secs(15),
            MIN,
            10 * MIN,
            60 * MIN,
            24 * 60 * MIN,
        ] {
            let latest = lifetime - policy.buffer.min(lifetime / 4);
            let earliest = refresh_point(lifetime, 0.999_999, policy);
            assert_eq!(refresh_point(lifetime, 0.0, policy), latest);
            assert!(
                earliest < latest && earliest > lifetime / 2,
                "{lifetime:?}: {earliest:?}"
            );
        }
        let hour = 60 * MIN;
        let window = refresh_point(hour, 0.0, policy) - refresh_point(hour, 1.0, policy);
        assert!(
            window >= hour / 20 - Duration::from_millis(1),
            "I-11: the jitter window is 5 % of a long life, got {window:?}"
        );
    }
}
