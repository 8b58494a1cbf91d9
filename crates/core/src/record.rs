//! All that is stored about one login: the sealed credential, and beside it the small facts that change without it.
//!
//! Each fact is a column of its own, updated only while the version it belongs to is still the stored one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

mod backoff;

pub use backoff::{Backoff, Failed, Reach};

use crate::{
    attempt::Attempt,
    credential::{Credential, Generation, Version},
    error::LoginCause,
    time::{BootId, Now, Stamp, Wall},
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

    /// Lays what is known of the same version and could not be noted over what was read: the attempt, the pause, the
    /// refusal (I-1, I-9). `boot` is this machine's.
    pub fn remember(&mut self, known: &Self, boot: BootId) {
        if known.version() == self.version() {
            self.attempt = Attempt::of_both(self.attempt, known.attempt, boot);
            self.backoff = later(self.backoff.take(), &known.backoff, |pause| pause.at, boot);
            self.suspicion = Suspicion::of_both(self.suspicion.take(), &known.suspicion, boot);
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

/// Of a fact in the store and the same one in memory, the one that was learned later: the other was known to whoever learned
/// it. Where no clock tells, that of the store.
pub(crate) fn later<T: Clone>(
    stored: Option<T>,
    known: &Option<T>,
    at: impl Fn(&T) -> Option<Stamp>,
    boot: BootId,
) -> Option<T> {
    let overtakes = |stored: &T, known: &T| match (at(stored), at(known)) {
        (Some(stored), Some(known)) => known.is_later_than(&stored, boot),
        _ => false,
    };
    match (stored, known) {
        (Some(stored), Some(known)) if !overtakes(&stored, known) => Some(stored),
        (stored, None) => stored,
        (_, Some(known)) => Some(known.clone()),
    }
}

/// What a spooled version waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    /// The version that the store holds and that it follows; `None` where the store holds nothing.
    pub follows: Option<Version>,
}

/// Where the newest version of a login lies: the further down, the sooner it is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// In the store.
    #[default]
    Store,
    /// In the spool: it outlives the process, and waits for the store.
    Spool,
    /// In memory alone.
    Memory,
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
    /// Of what the store says of a version and what memory says, the later; but each refused probe was one, and none is left
    /// where either says so (I-1). They differ where the store went back, and somebody has gone on from what it said. `boot`
    /// is this machine's.
    pub(crate) fn of_both(
        stored: Option<Self>,
        known: &Option<Self>,
        boot: BootId,
    ) -> Option<Self> {
        let probes = [&stored, known].map(|one| one.as_ref().map_or(0, |doubt| doubt.probes));
        let last = known.as_ref().filter(|doubt| doubt.next_probe_at.is_none());
        let doubt = match &stored {
            Some(open) if open.next_probe_at.is_some() && last.is_some() => last.cloned(),
            Some(over) if over.next_probe_at.is_none() && last.is_none() => stored,
            _ => later(stored, known, |doubt| doubt.at, boot),
        };
        doubt.map(|doubt| Self {
            probes: probes[0].max(probes[1]),
            ..doubt
        })
    }

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

    /// Notes one more forced refresh. What lies in the future, since the clock was set back, counts no longer.
    #[must_use]
    pub fn once_more(&self, now: Wall, brings: Generation) -> Self {
        let mut at: Vec<Wall> = self
            .at
            .iter()
            .copied()
            .filter(|t| *t <= now && t.until(now) < Duration::from_secs(60))
            .collect();
        at.push(now);
        Self {
            at,
            brought: Some(brings),
            broken_until: None,
        }
    }
}

const LONGEST_PROBE: Duration = Duration::from_secs(21_600);
const FORCED_SPACING: Duration = Duration::from_secs(30);
const FORCED_A_MINUTE: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

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

    /// I-12, F-19: a clock that was set back leaves forced refreshes in the future: they hold nobody back.
    #[test]
    fn a_clock_that_is_set_back_leaves_no_pause() {
        let start = Wall::from_unix_seconds(1_000_000);
        let later = start + Duration::from_secs(900);
        let forced = Forced::default().once_more(later, Generation(1));
        let mut now = start;
        let mut forced = forced.once_more(now, Generation(2));
        for brings in 3..5 {
            now = now + Duration::from_secs(31);
            forced = forced.once_more(now, Generation(brings));
        }
        let pause = now.until(forced.allowed_at(None));
        assert!(pause <= Duration::from_secs(60), "{pause:?}");
    }

    /// I-9, I-1: the store has an older back-off and an older refusal than the ones it could not note: the later ones count.
    /// What another process noted after that counts in their place.
    #[test]
    fn what_was_learned_later_counts() {
        let at = |ms: u64, boot: u8| Stamp {
            wall: Wall(1_000_000 + ms),
            mono: crate::time::Mono(ms),
            boot: crate::time::BootId([boot; 16]),
        };
        let learned = |ms: u64, boot: u8| {
            let why = crate::Error::StoreUnavailable { why: "full".into() };
            let now = at(ms, boot);
            let suspicion = Suspicion {
                cause: LoginCause::Never,
                since: now.wall,
                probes: 0,
                next_probe_at: None,
                at: Some(now),
            };
            Record {
                backoff: Some(Backoff::after(None, &Failed::once(&why), 0.5, now)),
                suspicion: Some(suspicion),
                ..Record::default()
            }
        };
        let read = |stored: &Record, known: &Record| {
            let mut record = stored.clone();
            record.remember(known, crate::time::BootId([2; 16]));
            record
        };
        let (early, late) = (learned(1_000, 1), learned(9_000, 1));
        assert_eq!(read(&early, &late), late);
        assert_eq!(read(&late, &early), late);
        assert_eq!(read(&Record::default(), &late), late);
        assert_eq!(read(&early, &Record::default()), early);
        // What was stored before a restart binds nobody after it, whatever the wall clock says.
        let restarted = learned(500, 2);
        assert_eq!(read(&late, &restarted), restarted);
        assert_eq!(read(&restarted, &late), restarted);
    }
}
