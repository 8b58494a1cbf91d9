//! What has been learned about an issuer.
//!
//! Notes hold evidence, never settings: they age out after thirty days, and nothing in them can weaken a request.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Wall;

/// For how long an issuer repeats its answer to a refresh token that it has rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(tag = "grace", rename_all = "snake_case")]
pub enum ReuseGrace {
    /// Never seen.
    #[default]
    Unknown,
    /// A repeat this long after the first call was answered with tokens.
    AtLeast {
        /// The longest such span seen.
        span: Duration,
    },
    /// A repeat inside the window was answered with `invalid_grant`.
    None,
}

/// The notes on one issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct IssuerNotes {
    /// What is known of its grace.
    pub reuse_grace: ReuseGrace,
    /// When that was last seen.
    pub seen_at: Wall,
}

impl IssuerNotes {
    /// What is known of the grace today: forgotten after thirty days.
    #[must_use]
    pub fn grace(&self, now: Wall) -> ReuseGrace {
        if self.seen_at.until(now) > FORGOTTEN_AFTER {
            ReuseGrace::Unknown
        } else {
            self.reuse_grace
        }
    }

    /// Learns that a repeat `after` the first call brought tokens.
    #[must_use]
    pub fn repeated_well(&self, after: Duration, now: Wall) -> Self {
        let known = match self.grace(now) {
            ReuseGrace::AtLeast { span } => span,
            _ => Duration::ZERO,
        };
        Self {
            reuse_grace: ReuseGrace::AtLeast {
                span: known.max(after),
            },
            seen_at: now,
        }
    }

    /// Learns that a repeat inside the window was refused.
    #[must_use]
    pub fn repeated_badly(now: Wall) -> Self {
        Self {
            reuse_grace: ReuseGrace::None,
            seen_at: now,
        }
    }
}

const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    /// DESIGN.md section 3, step 6: what was learned is kept with its evidence and forgotten after thirty days.
    #[test]
    fn a_grace_is_learned_widened_and_forgotten() {
        let now = Wall::from_unix_seconds(1_000_000);
        let notes = IssuerNotes::default().repeated_well(Duration::from_secs(2), now);
        let notes = notes.repeated_well(Duration::from_secs(1), now);
        assert_eq!(
            notes.grace(now),
            ReuseGrace::AtLeast {
                span: Duration::from_secs(2)
            }
        );
        assert_eq!(
            notes.grace(now + Duration::from_secs(31 * 86_400)),
            ReuseGrace::Unknown
        );
    }
}
