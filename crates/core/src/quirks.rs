//! What an issuer wants otherwise than most, as far as its own answers have told.
//!
//! Learned quirks add a parameter to an authorization request, or change which scopes a request names; nothing else. In
//! particular no answer ever teaches a client to leave `resource` out: that would give up whom a token is for, so only a
//! person can ask for it, for one server and one issuer (DESIGN.md section 6).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::time::Wall;

/// One thing that was learned about an issuer: what was tried and what it is done about, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Quirk {
    /// It refused a refresh without scopes, and took the same with them.
    ScopesAtRefresh,
    /// It refused a refresh with scopes, and took the same without.
    NoScopesAtRefresh,
    /// It gave no refresh token although one was wanted.
    PromptConsent,
    /// Nor did it where the person was asked again.
    AccessTypeOffline,
    /// Nothing of all that brought a refresh token, or it refused to be asked like that.
    NothingHelps,
    /// It refused `offline_access` although it lists that scope.
    NoOfflineAccess,
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ScopesAtRefresh => {
                "it refused a refresh that named no permissions, and took the same with them: they are named from now on"
            }
            Self::NoScopesAtRefresh => {
                "it refused a refresh that named permissions, and took the same without: none are named from now on"
            }
            Self::PromptConsent => {
                "it issued no refresh token although one was wanted: the next login asks for consent again (prompt=consent)"
            }
            Self::AccessTypeOffline => {
                "asking for consent again brought no refresh token: the next login asks for offline access, too \
                 (access_type=offline)"
            }
            Self::NothingHelps => {
                "neither prompt=consent nor access_type=offline brings a refresh token there: they are left out again"
            }
            Self::NoOfflineAccess => {
                "it refused offline_access, which it lists, and took the same without: it is not asked for any more"
            }
        })
    }
}

/// What an authorization request says on top, for an issuer that gives refresh tokens only to who insists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Insist {
    /// Nothing.
    #[default]
    Not,
    /// `prompt=consent` (OpenID Connect Core section 3.1.2.1; `offline_access` wants it in section 11).
    Consent,
    /// That, and `access_type=offline`.
    Offline,
    /// Nothing any more: it was of no use.
    GivenUp,
}

impl Insist {
    /// The parameters to add.
    #[must_use]
    pub fn parameters(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Not | Self::GivenUp => &[],
            Self::Consent => &CONSENT,
            Self::Offline => &CONSENT_AND_OFFLINE,
        }
    }

    /// What the next authorization tries after one that brought no refresh token.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Not => Self::Consent,
            Self::Consent => Self::Offline,
            Self::Offline | Self::GivenUp => Self::GivenUp,
        }
    }

    /// What is said of having got here.
    #[must_use]
    pub fn quirk(self) -> Option<Quirk> {
        match self {
            Self::Not => None,
            Self::Consent => Some(Quirk::PromptConsent),
            Self::Offline => Some(Quirk::AccessTypeOffline),
            Self::GivenUp => Some(Quirk::NothingHelps),
        }
    }
}

/// What was learned, and when: forgotten after thirty days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned<T> {
    /// What.
    pub what: T,
    /// When.
    pub at: Wall,
}

impl<T: Copy> Learned<T> {
    fn still(known: Option<Self>, now: Wall) -> Option<T> {
        known
            .filter(|known| known.at.until(now) <= FORGOTTEN_AFTER)
            .map(|known| known.what)
    }

    fn newer(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) if one.at > other.at => Some(one),
            (one, other) => other.or(one),
        }
    }
}

/// The quirks of one issuer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quirks {
    /// Whether a refresh names its scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes_at_refresh: Option<Learned<bool>>,
    /// How a refresh token is insisted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insist: Option<Learned<Insist>>,
    /// Whether `offline_access` is left out although it is listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_offline_access: Option<Learned<bool>>,
}

impl Quirks {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a refresh names its scopes. RFC 6749 section 6 wants the same ones where none are named, so none are.
    #[must_use]
    pub fn names_scopes(&self, now: Wall) -> bool {
        Learned::still(self.scopes_at_refresh, now).unwrap_or_default()
    }

    /// What an authorization request says on top.
    #[must_use]
    pub fn insist(&self, now: Wall) -> Insist {
        Learned::still(self.insist, now).unwrap_or_default()
    }

    /// Whether `offline_access` is never added.
    #[must_use]
    pub fn omits_offline_access(&self, now: Wall) -> bool {
        Learned::still(self.no_offline_access, now).unwrap_or_default()
    }

    /// Learns whether a refresh has to name its scopes.
    #[must_use]
    pub fn with_scopes_at_refresh(self, named: bool, at: Wall) -> Self {
        Self {
            scopes_at_refresh: Some(Learned { what: named, at }),
            ..self
        }
    }

    /// Learns how a refresh token is to be insisted on.
    #[must_use]
    pub fn with_insist(self, insist: Insist, at: Wall) -> Self {
        Self {
            insist: Some(Learned { what: insist, at }),
            ..self
        }
    }

    /// Learns that `offline_access` is refused.
    #[must_use]
    pub fn without_offline_access(self, at: Wall) -> Self {
        Self {
            no_offline_access: Some(Learned { what: true, at }),
            ..self
        }
    }

    /// What a store is to hold that holds this and is told `learned` by somebody whose copy may be older: of each the newer.
    #[must_use]
    pub fn joined(&self, learned: &Self) -> Self {
        Self {
            scopes_at_refresh: Learned::newer(self.scopes_at_refresh, learned.scopes_at_refresh),
            insist: Learned::newer(self.insist, learned.insist),
            no_offline_access: Learned::newer(self.no_offline_access, learned.no_offline_access),
        }
    }
}

const CONSENT_AND_OFFLINE: [(&str, &str); 2] = [("prompt", "consent"), ("access_type", "offline")];
const CONSENT: [(&str, &str); 1] = [("prompt", "consent")];

const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// DESIGN.md section 6: each quirk is remembered for thirty days from when it was learned, each by itself, and then the
    /// issuer is asked as any other.
    #[test]
    fn a_quirk_is_forgotten_after_thirty_days() {
        let start = Wall::from_unix_seconds(1_000_000);
        let quirks = Quirks::default()
            .with_scopes_at_refresh(true, start)
            .with_insist(Insist::Consent, start + DAY)
            .without_offline_access(start + 2 * DAY);
        let known = |days| {
            let now = start + days * DAY;
            (
                quirks.names_scopes(now),
                quirks.insist(now),
                quirks.omits_offline_access(now),
            )
        };
        assert_eq!(known(30), (true, Insist::Consent, true));
        assert_eq!(known(31), (false, Insist::Consent, true));
        assert_eq!(known(32), (false, Insist::Not, true));
        assert_eq!(known(33), (false, Insist::Not, false));
    }

    /// DESIGN.md section 6: what somebody with an older copy writes takes nothing back that was learned since.
    #[test]
    fn of_two_copies_the_newer_of_each_is_kept() {
        let (early, late) = (Wall(1_000), Wall(2_000));
        let one = Quirks::default()
            .with_scopes_at_refresh(true, late)
            .with_insist(Insist::Consent, early);
        let other = Quirks::default()
            .with_scopes_at_refresh(false, early)
            .with_insist(Insist::Offline, late)
            .without_offline_access(early);
        let both = Quirks::default()
            .with_scopes_at_refresh(true, late)
            .with_insist(Insist::Offline, late)
            .without_offline_access(early);
        assert_eq!((one.joined(&other), other.joined(&one)), (both, both));
        assert_eq!(both.joined(&Quirks::default()), both);
    }

    /// DESIGN.md section 6: insisting goes one step at a time and ends: a person is not asked for consent again and again for
    /// nothing.
    #[test]
    fn insisting_ends() {
        let mut steps = vec![Insist::Not];
        while steps.last() != Some(&Insist::GivenUp) {
            steps.push(steps[steps.len() - 1].next());
        }
        let added: Vec<_> = steps.iter().map(|step| step.parameters().len()).collect();
        assert_eq!(added, [0, 1, 2, 0]);
        assert_eq!(Insist::GivenUp.next(), Insist::GivenUp);
    }
}
