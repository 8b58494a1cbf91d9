//! What promises 3, 5 and 8 mean, decided in one place for every store.

use pilotlight_core::{
    credential::{Incarnation, Version},
    flow::Expects,
};

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

#[cfg(test)]
mod tests {
    use super::*;
    use pilotlight_core::credential::Generation;

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
}
