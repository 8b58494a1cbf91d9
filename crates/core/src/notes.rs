//! What has been learned about an issuer.
//!
//! Notes hold evidence, never settings: they age out after thirty days, and nothing in them can weaken a request.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{credential::Version, quirks::Quirks, time::Wall};

/// For how long an issuer repeats its answer to a refresh token that it has rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(from = "Written", into = "Written")]
pub enum ReuseGrace {
    /// Never seen.
    #[default]
    Unknown,
    /// A repeat this long after the first call was answered with tokens.
    AtLeast {
        /// The longest such span seen.
        span: Duration,
    },
    /// A repeat this long after the first call was answered with `invalid_grant`.
    Below {
        /// The shortest such span seen.
        span: Duration,
    },
    /// A repeat within moments of the first call was answered with `invalid_grant`.
    None,
}

/// A [`ReuseGrace`] as it is stored. Builds that know no bound from above read one as no grace at all, which is the careful
/// side; a grace that a later build may know is unknown to this one (F-30).
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Written {
    grace: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    span: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    below: Option<Duration>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    AtLeast,
    None,
    #[serde(other)]
    Unknown,
}

impl From<Written> for ReuseGrace {
    fn from(written: Written) -> Self {
        match (written.grace, written.span, written.below) {
            (Name::None, _, Some(span)) => Self::Below { span },
            (Name::None, _, None) => Self::None,
            (Name::AtLeast, Some(span), _) => Self::AtLeast { span },
            (Name::AtLeast, None, _) | (Name::Unknown, ..) => Self::Unknown,
        }
    }
}

impl From<ReuseGrace> for Written {
    fn from(grace: ReuseGrace) -> Self {
        let (grace, span, below) = match grace {
            ReuseGrace::Unknown => (Name::Unknown, None, None),
            ReuseGrace::AtLeast { span } => (Name::AtLeast, Some(span), None),
            ReuseGrace::Below { span } => (Name::None, None, Some(span)),
            ReuseGrace::None => (Name::None, None, None),
        };
        Self { grace, span, below }
    }
}

/// The notes on one issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct IssuerNotes {
    /// What is known of its grace.
    pub reuse_grace: ReuseGrace,
    /// When that was last seen.
    pub seen_at: Wall,
    /// What was known before the last refusal, should that prove false.
    #[serde(default)]
    pub before: ReuseGrace,
    /// When one last did.
    #[serde(default)]
    pub healed_at: Wall,
    /// A repeat on a path that was found dead, and whose outcome is open: should the issuer refuse what it brought, the first
    /// call has reached it late, and was beyond its grace. Until then there is no other: an issuer without grace takes one
    /// login by this, not several.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// What it wants otherwise than most.
    #[serde(default, skip_serializing_if = "Quirks::is_empty")]
    pub quirks: Quirks,
}

/// A repeat on a path that was found dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What it is to bring.
    pub version: Version,
    /// How long after the first call it leaves.
    pub after: Duration,
    /// When that is.
    pub at: Wall,
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

    /// Learns that a repeat `after` the first call brought tokens, although the issuer had acted on the first: its answer
    /// had been a 200 that could not be read.
    #[must_use]
    pub fn repeated_well(&self, after: Duration, now: Wall) -> Self {
        let reuse_grace = match self.grace(now) {
            // A bound from above stands: it is what a repeat must heed.
            ReuseGrace::Below { span } if span > after => return self.clone(),
            ReuseGrace::None => return self.clone(),
            ReuseGrace::AtLeast { span } => ReuseGrace::AtLeast {
                span: span.max(after),
            },
            _ => ReuseGrace::AtLeast { span: after },
        };
        Self {
            reuse_grace,
            seen_at: now,
            ..self.clone()
        }
    }

    /// Learns that a repeat `after` the first call was refused.
    #[must_use]
    pub fn repeated_badly(&self, after: Duration, now: Wall) -> Self {
        let span = match self.grace(now) {
            ReuseGrace::Below { span } => span.min(after),
            ReuseGrace::None => Duration::ZERO,
            _ => after,
        };
        let reuse_grace = if span < SHORTEST_GRACE {
            ReuseGrace::None
        } else {
            ReuseGrace::Below { span }
        };
        Self {
            reuse_grace,
            before: self.grace(now),
            seen_at: now,
            trial: None,
            ..self.clone()
        }
    }

    /// Learns that the refusal of `since` was false: if that is what taught the bound, the one before it is what is known.
    #[must_use]
    pub fn healed(&self, since: Wall, now: Wall) -> Self {
        if self.seen_at != since {
            return self.clone();
        }
        Self {
            reuse_grace: self.before,
            before: self.before,
            seen_at: now,
            healed_at: now,
            trial: self.trial,
            quirks: self.quirks,
        }
    }

    /// What a store is to hold that holds this, and is told `learned` by somebody whose copy may be older: a bound from above
    /// stands until something newer lifts it, and an open trial until its own outcome.
    #[must_use]
    pub fn joined(&self, learned: &Self) -> Self {
        Self {
            quirks: self.quirks.joined(&learned.quirks),
            ..self.joined_grace(learned)
        }
    }

    /// The same, of the grace.
    fn joined_grace(&self, learned: &Self) -> Self {
        let now = learned.seen_at.max(self.seen_at);
        let healed = learned.healed_at > self.seen_at;
        let span = |grace| match grace {
            ReuseGrace::None => Some(Duration::ZERO),
            ReuseGrace::Below { span } => Some(span),
            _ => None,
        };
        let stands = match (span(self.grace(now)), span(learned.reuse_grace)) {
            (Some(own), Some(other)) => own < other,
            (own, _) => own.is_some(),
        };
        if stands && !healed {
            Self {
                trial: learned.trial,
                ..self.clone()
            }
        } else {
            learned.clone()
        }
    }

    /// Notes a repeat on a path that was found dead.
    #[must_use]
    pub fn on_trial(&self, trial: Trial) -> Self {
        Self {
            trial: Some(trial),
            ..self.clone()
        }
    }

    /// Whether the outcome of such a repeat is open: for a day at most.
    #[must_use]
    pub fn is_trying(&self, now: Wall) -> bool {
        self.trial
            .is_some_and(|trial| trial.at.until(now) < TRIAL_ENDS_AFTER)
    }

    /// Learns that `version` was refreshed: if it is what the repeat brought, or later, and the first call can be on its way
    /// no longer, all went well.
    #[must_use]
    pub fn confirmed(&self, version: Version, now: Wall) -> Option<Self> {
        let trial = self.trial?;
        (trial.is_over(now) && (version == trial.version || version.succeeds(&trial.version))).then(
            || Self {
                trial: None,
                ..self.clone()
            },
        )
    }
}

impl Trial {
    /// Whether the first call can be on its way no longer.
    #[must_use]
    pub fn is_over(&self, now: Wall) -> bool {
        self.at.until(now) >= LATEST_ARRIVAL
    }

    /// Whether a refusal of this version tells that the first call has arrived after its repeat: the version that the
    /// repeat brought, or one that followed within minutes. No network holds a request longer.
    #[must_use]
    pub fn explains(&self, refused: Version, now: Wall) -> bool {
        let soon = self.at.until(now) < LATEST_ARRIVAL && now >= self.at;
        refused == self.version || (soon && refused.succeeds(&self.version))
    }
}

const TRIAL_ENDS_AFTER: Duration = Duration::from_secs(86_400);

/// For how long a request may be on its way.
const LATEST_ARRIVAL: Duration = Duration::from_secs(300);

/// A grace that is known to be shorter than this is none.
const SHORTEST_GRACE: Duration = Duration::from_secs(4);

const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    /// DESIGN.md section 3, step 6: a refusal bounds the grace from above, and a refusal within moments means that there is none.
    #[test]
    fn a_refusal_bounds_the_grace() {
        let now = Wall::from_unix_seconds(1_000_000);
        let seconds = |span| Duration::from_secs(span);
        let below = |span| ReuseGrace::Below {
            span: seconds(span),
        };
        let notes = IssuerNotes::default().repeated_badly(seconds(10), now);
        assert_eq!(notes.grace(now), below(10));
        assert_eq!(notes.repeated_badly(seconds(11), now).grace(now), below(10));
        assert_eq!(notes.repeated_badly(seconds(5), now).grace(now), below(5));
        assert_eq!(notes.repeated_well(seconds(2), now), notes);
        let none = notes.repeated_badly(seconds(1), now);
        assert_eq!(none.grace(now), ReuseGrace::None);
        assert_eq!(
            none.repeated_badly(seconds(9), now).grace(now),
            ReuseGrace::None
        );
    }

    /// DESIGN.md section 3, step 6: what somebody with an older copy writes lifts no bound; a refusal that proved false does, and so
    /// does a month.
    #[test]
    fn an_older_copy_lifts_no_bound() {
        let start = Wall::from_unix_seconds(1_000_000);
        let seconds = Duration::from_secs;
        let stale = IssuerNotes::default().repeated_well(seconds(1), start + seconds(9));
        let held = IssuerNotes::default().repeated_badly(seconds(8), start);
        let below = ReuseGrace::Below { span: seconds(8) };
        assert_eq!(held.joined(&stale).reuse_grace, below);
        assert_eq!(held.joined(&IssuerNotes::default()).reuse_grace, below);
        let shorter = IssuerNotes::default().repeated_badly(seconds(1), start + seconds(9));
        assert_eq!(held.joined(&shorter).reuse_grace, ReuseGrace::None);
        assert_eq!(shorter.joined(&held).reuse_grace, ReuseGrace::None);
        assert_eq!(held.healed(start + seconds(1), start + seconds(60)), held);
        let healed = held.healed(start, start + seconds(60));
        assert_eq!(held.joined(&healed).reuse_grace, ReuseGrace::Unknown);
        let late = IssuerNotes::default().repeated_well(seconds(1), start + 2 * FORGOTTEN_AFTER);
        assert_eq!(held.joined(&late), late);
    }

    /// DESIGN.md section 3, step 6: what a repeat brought is refused: its first call has arrived late. Later refusals, and those of
    /// other logins, say nothing about the grace.
    #[test]
    fn a_late_arrival_is_told_from_other_refusals() {
        let at = Wall::from_unix_seconds(1_000_000);
        let version = |login, generation| Version {
            incarnation: crate::credential::Incarnation([login; 16]),
            generation: crate::credential::Generation(generation),
        };
        let after = Duration::from_secs(10);
        let trial = Trial {
            version: version(1, 5),
            after,
            at,
        };
        let notes = IssuerNotes::default().on_trial(trial);
        let (soon, later) = (at + Duration::from_secs(60), at + Duration::from_secs(3600));
        assert!(trial.explains(version(1, 5), later));
        assert!(trial.explains(version(1, 7), soon));
        assert!(!trial.explains(version(1, 7), later));
        assert!(!trial.explains(version(2, 5), soon));
        // And it is over when that login is refreshed once more, or after a day.
        assert!(notes.is_trying(soon) && !notes.is_trying(at + TRIAL_ENDS_AFTER));
        assert_eq!(notes.confirmed(version(2, 9), later), None);
        assert_eq!(
            notes.confirmed(version(1, 6), soon),
            None,
            "it may still come"
        );
        assert_eq!(notes.confirmed(version(1, 5), later).unwrap().trial, None);
    }

    /// DESIGN.md section 6: what is written about the grace takes nothing of the quirks back, whichever copy is the newer one.
    #[test]
    fn quirks_and_grace_are_joined_each_by_itself() {
        let start = Wall::from_unix_seconds(1_000_000);
        let later = start + Duration::from_secs(60);
        let mut held = IssuerNotes::default().repeated_badly(Duration::from_secs(9), start);
        held.quirks = held.quirks.with_scopes_at_refresh(true, start);
        let mut told = IssuerNotes::default().repeated_badly(Duration::from_secs(5), later);
        told.quirks = told.quirks.without_offline_access(start);
        for joined in [held.joined(&told), told.joined(&held)] {
            let below = ReuseGrace::Below {
                span: Duration::from_secs(5),
            };
            assert_eq!(joined.reuse_grace, below);
            let quirks = joined.quirks;
            assert!(quirks.names_scopes(later) && quirks.omits_offline_access(later));
            let healed = joined.healed(joined.seen_at, later);
            assert_eq!(healed.quirks, quirks);
        }
    }

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
