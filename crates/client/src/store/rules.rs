//! What promises 3, 5 and 8 mean, decided in one place for every store.

use pilotlight_core::{
    attempt::Attempt,
    credential::{Incarnation, Version},
    flow::Expects,
    record::{Record, Spooled},
};

use super::entry::Entry;

/// What a store holds under an id, without any spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing: there never was a login.
    Nothing,
    /// A tombstone of this login.
    Buried(Incarnation),
    /// A login.
    Login(Version),
}

/// What a commit may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Write it.
    Write,
    /// This login is there already, in this or a later version: only what travels with the commit is written.
    Already,
    /// Something else is stored.
    Moved,
}

impl Held {
    /// The version that a spooled one must follow to count.
    pub(super) fn version(self) -> Option<Version> {
        match self {
            Self::Login(version) => Some(version),
            Self::Nothing | Self::Buried(_) => None,
        }
    }

    /// Whether a spooled version counts: the store is still where it follows from, and it leads on from there.
    ///
    /// `after` holds each version that it may follow: where one spooled version followed another that never reached
    /// the store, both.
    pub(super) fn is_followed_by(self, after: &[Option<Version>], spooled: Version) -> bool {
        after.contains(&self.version()) && self.may_become(spooled)
    }

    /// Whether a commit may go through. `spooled` is the spooled version, if one counts: it is as good as stored.
    pub(super) fn admits(
        self,
        spooled: Option<Version>,
        expects: Expects,
        new: Version,
    ) -> Admission {
        let fits = match expects {
            Expects::Version(version) => {
                self.version() == Some(version) || spooled == Some(version)
            }
            Expects::Nothing => self.version().is_none(),
            Expects::Anything => {
                return match self {
                    Self::Login(held)
                        if held.incarnation == new.incarnation
                            && held.generation >= new.generation =>
                    {
                        Admission::Already
                    }
                    // A login that was logged out before it was stored stays logged out.
                    Self::Buried(incarnation) if incarnation == new.incarnation => Admission::Moved,
                    _ => Admission::Write,
                };
            }
        };
        if fits && self.may_become(new) {
            Admission::Write
        } else {
            Admission::Moved
        }
    }

    /// Whether `new` would not take a login back: an earlier version of it, or one that was logged out.
    fn may_become(self, new: Version) -> bool {
        match self {
            Self::Nothing => true,
            Self::Buried(incarnation) => incarnation != new.incarnation,
            Self::Login(held) => held.incarnation != new.incarnation || new.succeeds(&held),
        }
    }
}

/// What store and slot hold together (promise 8). Of the slot only the newest entry counts: it was written knowing the other.
pub(super) fn together(
    held: Held,
    stored: Option<Record>,
    newest: Option<&Entry>,
) -> Option<Record> {
    let mut record = match newest.and_then(|entry| entry.counting(held)) {
        Some(credential) => {
            let continues = |held: Version| held.incarnation == credential.version.incarnation;
            // What is known of forced refreshes outlives a version; the other facts belong to the one that is stored.
            let forced = stored
                .filter(|_| held.version().is_some_and(continues))
                .and_then(|stored| stored.forced);
            Record {
                credential: Some(credential.clone()),
                spooled: Some(Spooled {
                    follows: held.version(),
                }),
                forced,
                ..Record::default()
            }
        }
        None => stored?,
    };
    if let (Some(version), Some(entry)) = (record.version(), newest) {
        record.attempt = later(record.attempt, entry.attempt_of(version));
    }
    Some(record)
}

/// The attempt that counts of the two that store and slot hold for one version: the later one. What is put back after a
/// call that was not delivered has the number that it had.
fn later(noted: Option<Attempt>, spooled: Option<Attempt>) -> Option<Attempt> {
    match (noted, spooled) {
        (Some(noted), Some(spooled)) if spooled.number <= noted.number => Some(noted),
        (noted, spooled) => spooled.or(noted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotlight_core::{attempt::ProcessId, credential::Generation, time::Stamp};

    fn v(incarnation: u8, generation: u64) -> Version {
        Version {
            incarnation: Incarnation([incarnation; 16]),
            generation: Generation(generation),
        }
    }

    /// F-06, promise 8: a spooled version counts only while the store is exactly where it follows from.
    #[test]
    fn a_spooled_version_counts_only_where_it_follows() {
        let held = Held::Login(v(1, 3));
        assert!(held.is_followed_by(&[Some(v(1, 3))], v(1, 4)));
        assert!(
            held.is_followed_by(&[Some(v(1, 4)), Some(v(1, 3))], v(1, 5)),
            "a chain of spooled versions"
        );
        assert!(held.is_followed_by(&[Some(v(1, 3))], v(2, 0)), "a login");
        assert!(
            !held.is_followed_by(&[Some(v(1, 2))], v(1, 3)),
            "it has been merged"
        );
        assert!(!held.is_followed_by(&[Some(v(1, 2))], v(1, 4)));
        assert!(!held.is_followed_by(&[None], v(1, 4)));
        assert!(!held.is_followed_by(&[Some(v(1, 3))], v(1, 3)));
        assert!(Held::Nothing.is_followed_by(&[None], v(1, 0)));
        assert!(!Held::Nothing.is_followed_by(&[Some(v(1, 0))], v(1, 1)));
    }

    /// F-31: what a logout has buried does not come back from the spool, but a new login does.
    #[test]
    fn a_tombstone_is_followed_by_a_new_login_only() {
        let held = Held::Buried(v(1, 0).incarnation);
        assert!(!held.is_followed_by(&[None], v(1, 0)));
        assert!(!held.is_followed_by(&[Some(v(1, 3))], v(1, 4)));
        assert!(held.is_followed_by(&[None], v(2, 0)));
        assert_eq!(
            held.admits(None, Expects::Version(v(1, 3)), v(1, 4)),
            Admission::Moved
        );
        assert_eq!(
            held.admits(None, Expects::Nothing, v(1, 4)),
            Admission::Moved
        );
        assert_eq!(
            held.admits(None, Expects::Nothing, v(2, 0)),
            Admission::Write
        );
    }

    /// I-5: a login never loses, and within one login nothing goes back.
    #[test]
    fn a_login_never_loses_and_nothing_goes_back() {
        let held = Held::Login(v(1, 3));
        assert_eq!(
            held.admits(None, Expects::Anything, v(2, 0)),
            Admission::Write
        );
        assert_eq!(
            held.admits(None, Expects::Anything, v(1, 0)),
            Admission::Already
        );
        assert_eq!(
            held.admits(None, Expects::Anything, v(1, 3)),
            Admission::Already
        );
        assert_eq!(
            held.admits(None, Expects::Version(v(1, 3)), v(1, 4)),
            Admission::Write
        );
        assert_eq!(
            held.admits(None, Expects::Version(v(1, 3)), v(1, 3)),
            Admission::Moved
        );
        assert_eq!(
            held.admits(None, Expects::Version(v(1, 2)), v(1, 4)),
            Admission::Moved
        );
        assert_eq!(
            held.admits(None, Expects::Nothing, v(2, 0)),
            Admission::Moved
        );
        assert_eq!(
            held.admits(Some(v(1, 4)), Expects::Version(v(1, 4)), v(1, 5)),
            Admission::Write
        );
    }

    /// I-3, promise 8: of two attempts the later counts; with the same number the store's.
    #[test]
    fn the_later_attempt_counts() {
        let attempt = |number, fence| Attempt {
            generation: Generation(3),
            number,
            label: None,
            fence,
            process: ProcessId::default(),
            first_sent_at: Stamp::default(),
            sent_at: Stamp::default(),
        };
        let (first, second) = (attempt(1, 1), attempt(2, 2));
        for (noted, spooled, counts) in [
            (None, None, None),
            (Some(first), None, Some(first)),
            (None, Some(first), Some(first)),
            (Some(first), Some(second), Some(second)),
            (Some(second), Some(first), Some(second)),
            (Some(first), Some(attempt(1, 9)), Some(first)),
        ] {
            assert_eq!(later(noted, spooled), counts);
        }
    }
}
