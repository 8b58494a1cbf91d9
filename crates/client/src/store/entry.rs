//! What lies in a spool slot: a version that the store refused, an attempt that it refused, or both.

use pilotlight_core::{
    attempt::Attempt,
    credential::{Credential, Generation, Version},
};
use serde::{Deserialize, Serialize};

use super::rules::Held;

/// What a slot holds. Each entry names all that the slot is to hold, so that only the newest counts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The versions that the store may hold for the credential to count; several where a spooled version followed a spooled
    /// one.
    pub(super) after: Vec<Option<Version>>,
    /// The version that the store refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<Credential>,
    /// The attempt that the store refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<SpooledAttempt>,
}

/// An attempt, and the version that it belongs to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct SpooledAttempt {
    pub(super) version: Version,
    pub(super) attempt: Attempt,
}

impl Entry {
    /// The spooled version, if it counts.
    pub(super) fn counting(&self, held: Held) -> Option<&Credential> {
        self.credential
            .as_ref()
            .filter(|kept| held.is_followed_by(&self.after, kept.version))
    }

    /// The attempt that belongs to a version.
    pub(super) fn attempt_of(&self, version: Version) -> Option<Attempt> {
        self.attempt
            .filter(|spooled| spooled.version == version)
            .map(|spooled| spooled.attempt)
    }

    /// Takes a version in, beside the attempt that is there. What follows a spooled version also follows what that one
    /// followed: neither may have reached the store. A login is never displaced by a refresh of the one that it replaces
    /// (I-5); answers whether that changes anything.
    pub(super) fn keep(&mut self, follows: Option<Version>, credential: Credential) -> bool {
        let login = credential.version.incarnation;
        let replaces = |after: &Option<Version>| after.is_some_and(|v| v.incarnation == login);
        if let Some(kept) = &self.credential
            && kept.version.incarnation != login
            && self.after.iter().any(replaces)
        {
            return false;
        }
        let before = std::mem::replace(&mut self.after, vec![follows]);
        if let Some(kept) = &self.credential {
            let follows_kept = follows == Some(kept.version);
            // A login that was under way while the other version was spooled replaces that one too.
            let is_login = credential.version.generation == Generation(0);
            let replaces_kept = is_login && kept.version.incarnation != login;
            if replaces_kept && !follows_kept {
                self.after.push(Some(kept.version));
            }
            if follows_kept || replaces_kept {
                let room = CHAIN - self.after.len();
                self.after.extend(before.into_iter().take(room));
            }
        }
        self.credential = Some(credential);
        true
    }

    /// Takes an attempt in, or takes that of this version back; answers whether that changes anything.
    pub(super) fn keep_attempt(&mut self, version: Version, attempt: Option<&Attempt>) -> bool {
        let found = self.attempt_of(version);
        if attempt.is_some() || found.is_some() {
            self.attempt = attempt.map(|attempt| SpooledAttempt {
                version,
                attempt: *attempt,
            });
        }
        found.as_ref() != attempt
    }
}

/// How many versions a chain of spooled ones may name.
const CHAIN: usize = 32;

#[cfg(test)]
mod tests;
