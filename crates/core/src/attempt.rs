//! The durable note that a refresh token is being spent.
//!
//! It is written before the request leaves and cleared by the commit that follows. Whoever finds one, holding the lease,
//! knows that the token it names may be spent already, and may do only what [`Attempt::ruling`] allows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    credential::Generation,
    notes::ReuseGrace,
    time::{BootId, Now, Stamp},
};

/// Why a token call that may repeat an earlier one is made all the same (I-1, I-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Label {
    /// The answer to the first call was lost; the repeat is inside the window in which issuers repeat theirs.
    RetryAmbiguous,
    /// The process that made the first call died.
    AfterCrash,
    /// The store went back in time (a backup was restored).
    Restored,
    /// A refused token is tried again, to tell a false refusal from a true one.
    ProbeSuspect,
    /// Nothing is left that waiting could save.
    Uncertain,
}

/// Which process, on which boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// A random number drawn at its start, since process ids repeat.
    pub nonce: u64,
}

/// A token call that may have reached the issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The generation whose refresh token it spends.
    pub generation: Generation,
    /// How many calls this generation has seen, this one included.
    pub number: u32,
    /// Why it may repeat an earlier one; `None` for the first.
    pub label: Option<Label>,
    /// The fence of the lease it was made under.
    pub fence: u64,
    /// Who made it.
    pub process: ProcessId,
    /// When the *first* call of this generation left: the issuer's grace counts from there.
    pub first_sent_at: Stamp,
    /// When this one left.
    pub sent_at: Stamp,
}

/// What the finder of an attempt may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// Repeat the call at once, under this label.
    Send(Label),
    /// Do not send while the access token is usable.
    Uncertain,
}

impl Attempt {
    /// Says what whoever finds this attempt may do, by the [`repeat_window`] (DESIGN.md section 3, step 4).
    #[must_use]
    pub fn ruling(&self, now: Now, window: Option<Duration>) -> Ruling {
        let Some(window) = window else {
            return Ruling::Uncertain;
        };
        let crashed_before = self.label == Some(Label::AfterCrash);
        match now.since(&self.first_sent_at) {
            Some(age) if age < window && !crashed_before => Ruling::Send(Label::AfterCrash),
            _ => Ruling::Uncertain,
        }
    }

    /// Of what the store says of a generation and what memory says: both calls may have reached the issuer, so the window
    /// counts from the earlier, and the label is the one after which less is allowed (I-1). They differ where the store went
    /// back, and somebody has gone on from what it said. `boot` is this machine's.
    pub(crate) fn of_both(stored: Option<Self>, known: Option<Self>, boot: BootId) -> Option<Self> {
        let (Some(stored), Some(known)) = (stored, known) else {
            return stored.or(known);
        };
        if stored.generation != known.generation {
            return Some(stored);
        }
        let (at, own) = (stored.first_sent_at, known.first_sent_at);
        let allows = |attempt: &Self| match attempt.label {
            None => 3,
            Some(Label::RetryAmbiguous) => 2,
            Some(Label::AfterCrash) => 1,
            Some(_) => 0,
        };
        Some(Self {
            number: stored.number.max(known.number),
            label: match allows(&known) < allows(&stored) {
                true => known.label,
                false => stored.label,
            },
            first_sent_at: if at.is_later_than(&own, boot) {
                own
            } else {
                at
            },
            ..stored
        })
    }
}

/// Until when after the first call a repeat is safe enough; `None` for an issuer known to have no grace.
///
/// A grace known to be *at least* some span says nothing about longer ones, so it never shortens the window. One known to
/// be *below* some span halves that: only calls whose connection broke at once are repeated there, and never those on a
/// path that was found dead.
#[must_use]
pub fn repeat_window(grace: ReuseGrace, limit: Duration) -> Option<Duration> {
    match grace {
        ReuseGrace::Unknown | ReuseGrace::AtLeast { .. } => Some(limit),
        ReuseGrace::Below { span } => Some(limit.min(span / 2)),
        ReuseGrace::None => None,
    }
}

/// Within this time a path that carries nothing any more is found dead.
pub const DEAD_PATH_FOUND: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Mono, Wall};

    fn attempt(label: Option<Label>) -> Attempt {
        let sent = Stamp {
            wall: Wall(0),
            mono: Mono(0),
            boot: BootId([1; 16]),
        };
        Attempt {
            generation: Generation(3),
            number: 1,
            label,
            fence: 1,
            process: ProcessId::default(),
            first_sent_at: sent,
            sent_at: sent,
        }
    }

    fn at(seconds: u64) -> Now {
        Stamp {
            wall: Wall(seconds * 1000),
            mono: Mono(seconds * 1000),
            boot: BootId([1; 16]),
        }
    }

    /// F-03: a crash between rotation and commit is repeated once, inside the window; later it is uncertain.
    #[test]
    fn a_crash_is_repeated_once_inside_the_window() {
        assert_eq!(
            attempt(None).ruling(at(11), WINDOW),
            Ruling::Send(Label::AfterCrash)
        );
        assert_eq!(attempt(None).ruling(at(12), WINDOW), Ruling::Uncertain);
        assert_eq!(
            attempt(Some(Label::AfterCrash)).ruling(at(2), WINDOW),
            Ruling::Uncertain
        );
    }

    /// I-3: an issuer known to have no grace never sees the token again while the access token lives.
    #[test]
    fn without_grace_nothing_is_repeated() {
        let limit = Duration::from_secs(12);
        let none = repeat_window(ReuseGrace::None, limit);
        assert_eq!(attempt(None).ruling(at(0), none), Ruling::Uncertain);
        let seconds = |span| Duration::from_secs(span);
        let seen = ReuseGrace::AtLeast { span: seconds(2) };
        assert_eq!(
            repeat_window(seen, limit),
            WINDOW,
            "a lower bound shortens nothing"
        );
        let refused = ReuseGrace::Below { span: seconds(10) };
        assert_eq!(repeat_window(refused, limit), Some(seconds(5)));
    }

    /// I-1, F-03: a store that went back shows another's first call; what memory has sent of the same token counts with it.
    /// Its window is closed, and its repeat after a crash was the only one.
    #[test]
    fn what_memory_has_sent_counts_beside_what_the_store_shows() {
        let boot = BootId([1; 16]);
        let stored = Attempt {
            first_sent_at: at(60),
            sent_at: at(60),
            ..attempt(None)
        };
        let known = Attempt {
            number: 2,
            ..attempt(Some(Label::AfterCrash))
        };
        let both = Attempt::of_both(Some(stored), Some(known), boot);
        assert_eq!(both.map(|both| both.number), Some(2));
        let ruling = both.map(|both| both.ruling(at(63), WINDOW));
        assert_eq!(ruling, Some(Ruling::Uncertain));
        let known = Attempt {
            label: None,
            ..known
        };
        let both = Attempt::of_both(Some(stored), Some(known), boot);
        assert_eq!(both.map(|both| both.first_sent_at), Some(at(0)));
        let another = Attempt {
            generation: Generation(2),
            ..known
        };
        assert_eq!(
            Attempt::of_both(Some(stored), Some(another), boot),
            Some(stored)
        );
        assert_eq!(Attempt::of_both(None, Some(known), boot), Some(known));
    }

    const WINDOW: Option<Duration> = Some(Duration::from_secs(12));
}
