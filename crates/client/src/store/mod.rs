//! Where logins live: one trait with numbered promises, and the stores that keep them.
//!
//! Every store promises:
//!
//! 1. *Durable*: what [`Store::commit`], [`Store::note`], [`Store::bury`] and [`Store::put_registration`] have answered
//!    survives a crash and a power cut.
//! 2. *Atomic*: each call is done wholly or not at all; events share the transaction of what they describe.
//! 3. *Compare-and-swap*: a commit that expects a version goes through only if exactly that version is stored; a commit
//!    that expects anything always goes through.
//! 4. *Facts belong to a version*: a note is written only while its version is the stored one, and a new version starts
//!    without facts (but for what the commit carries).
//! 5. *Monotone*: within one incarnation the stored generation never decreases.
//! 6. *Nothing deletes a refresh token* but a successor, a burial, or the end of a tombstone's thirty days (I-6).
//! 7. *One holder*: at most one live [`Lease`] for each lock name on the machine (for a fleet: in the fleet); it ends with
//!    its process, and each lease's fence is larger than the one before.
//! 8. *Reads see spool and store*: of the same incarnation the higher generation wins; a spooled version counts only while
//!    the stored one is exactly what it follows. A spooled attempt counts beside the version that it belongs to, wherever
//!    that is read from, unless the store holds a later one. Version and attempt share the slot and never displace each
//!    other, and what is noted of an attempt takes the place of what the slot holds.
//! 9. *Sealed*: nothing that a store writes shows a token, secret, URL, name or account in the clear.
//! 10. *Unreadable is not absent*: damage is an error, never an empty answer. But a login that cannot be read is replaced by
//!     the next ([`Store::commit`] of whatever is there) and can be buried ([`Store::bury_damaged`]): the history says so, and
//!     nothing else is touched.

mod entry;
#[cfg(feature = "sqlite")]
mod key;
mod lookup;
mod memory;
#[cfg(feature = "sqlite")]
mod place;
mod rules;
#[cfg(feature = "sqlite")]
mod seal;
#[cfg(feature = "sqlite")]
mod spool;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::{any::Any, fmt::Debug, time::Duration};

use async_trait::async_trait;
use pilotlight_core::{
    Error,
    attempt::Attempt,
    credential::{
        Binding, BindingId, BindingKey, Credential, CredentialId, CredentialKey, Incarnation,
        Version,
    },
    error::Holder,
    event::Event,
    flow::{Buried, Commit, Committed, Registration},
    issuer::Issuer,
    notes::IssuerNotes,
    record::{Fact, Record},
    scope::Scopes,
    time::Wall,
};

pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteStore, SqliteStoreConfig};

/// Keeps logins. See the [module](self) for what every implementation promises.
#[async_trait]
pub trait Store: Send + Sync + Debug + 'static {
    /// The id that a credential is stored, locked and spooled under.
    fn credential_id(&self, key: &CredentialKey) -> CredentialId;

    /// The id that a binding is stored and locked under.
    fn binding_id(&self, key: &BindingKey) -> BindingId;

    /// The id that registering at an issuer is locked under.
    fn issuer_id(&self, issuer: &Issuer) -> [u8; 32];

    /// Whether this program may write (`min_writer`); a program that may not serves and never refreshes.
    fn writable(&self) -> bool;

    /// Finds the binding of a URL and account.
    async fn binding(&self, key: &BindingKey) -> Result<Option<Binding>, Error>;

    /// Lists every binding, oldest first.
    async fn bindings(&self) -> Result<Vec<Binding>, Error>;

    /// Writes a binding; fails with `config.value` where its name belongs to another.
    async fn put_binding(&self, binding: &Binding) -> Result<(), Error>;

    /// Reads a login from store and spool, whichever is newer (promise 8). `None` where there never was one; a
    /// record without a credential is a tombstone.
    async fn read(&self, key: &CredentialKey) -> Result<Option<Record>, Error>;

    /// Writes facts beside the credential while `version` is stored; answers whether it was. What they say of an attempt
    /// takes the place of what the spool slot holds of it; a refresh without trouble leaves the slot alone.
    async fn note(
        &self,
        key: &CredentialKey,
        version: Version,
        facts: &[Fact],
        event: Option<&Event>,
    ) -> Result<bool, Error>;

    /// Makes a new version durable, moves the binding, and empties the spool slot of what it followed.
    async fn commit(&self, commit: &Commit) -> Result<Committed, Error>;

    /// Makes sure that the login's spool slot exists with room for a record of ordinary size.
    async fn prepare_spool(&self, key: &CredentialKey) -> Result<(), Error>;

    /// Keeps a version durably in the spool slot, unless a login that replaces it is there; `follows` is the version that the store must still hold for it to count.
    async fn spool(&self, follows: Option<Version>, credential: &Credential) -> Result<(), Error>;

    /// Keeps an attempt durably in the spool slot, for the version whose refresh token it spends, beside whatever else the
    /// slot holds; `None` takes that version's attempt back. For an attempt that the store refuses to note.
    async fn spool_attempt(
        &self,
        key: &CredentialKey,
        version: Version,
        attempt: Option<&Attempt>,
    ) -> Result<(), Error>;

    /// Replaces a login by a tombstone and, with `revoke`, moves its secrets to the revocation queue. `None` where there
    /// is no login.
    async fn bury(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<Option<Buried>, Error>;

    /// Replaces a login that cannot be read any more by a tombstone, with [`Happened::Damaged`] before the event; `false` where
    /// there is none like that. With `revoke`, what its spool slot still tells is moved to the revocation queue. A store that
    /// can have no damage answers `false`; one over another asks that one.
    ///
    /// [`Happened::Damaged`]: pilotlight_core::event::Happened::Damaged
    async fn bury_damaged(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<bool, Error>;

    /// Lists what waits to be revoked, oldest first.
    async fn revocations(&self) -> Result<Vec<QueuedRevocation>, Error>;

    /// Takes the revocation of one login off the queue.
    async fn revoked(&self, key: &CredentialKey, incarnation: Incarnation) -> Result<(), Error>;

    /// The registrations of this program at an issuer, newest first.
    async fn registrations(&self, issuer: &Issuer) -> Result<Vec<Registration>, Error>;

    /// Keeps a registration.
    async fn put_registration(&self, registration: &Registration) -> Result<(), Error>;

    /// Forgets a registration (by issuer and client id).
    async fn forget_registration(&self, registration: &Registration) -> Result<(), Error>;

    /// What is known of an issuer.
    async fn notes(&self, issuer: &Issuer) -> Result<IssuerNotes, Error>;

    /// Writes what was learned about an issuer, [joined](IssuerNotes::joined) to what is known: the writer's copy may be old.
    async fn learn(&self, issuer: &Issuer, notes: &IssuerNotes) -> Result<(), Error>;

    /// Records an event that belongs to no other write.
    async fn record(&self, key: &CredentialKey, event: &Event) -> Result<(), Error>;

    /// The history of a login, oldest first, at most the newest `limit` events.
    async fn events(&self, key: &CredentialKey, limit: usize) -> Result<Vec<Event>, Error>;

    /// How the last login of a binding ended.
    async fn login_outcome(&self, binding: BindingId) -> Result<Option<LoginOutcome>, Error>;

    /// Writes how a login of a binding ended.
    async fn put_login_outcome(
        &self,
        binding: BindingId,
        outcome: &LoginOutcome,
    ) -> Result<(), Error>;

    /// Tries once, without waiting, to take a lock.
    async fn try_lock(&self, name: LockName) -> Result<Locked, Error>;

    /// A number that changes whenever any process has changed the store; cheap enough to ask once a second.
    async fn changes(&self) -> Result<u64, Error>;

    /// Whether a login is shared with another program, beside this store ([`Shared`](crate::mcp_remote::Shared)).
    async fn is_shared(&self, key: &CredentialKey) -> bool;
}

/// What can be locked on a machine (or, with a database, in a fleet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockName {
    /// Refreshing a login.
    Refresh(CredentialId),
    /// Logging in to a server.
    Login(BindingId),
    /// Registering at an issuer; the id is a keyed hash of it.
    Register([u8; 32]),
}

/// What came of trying a lock.
#[derive(Debug)]
pub enum Locked {
    /// It is ours until the lease is dropped.
    Got(Lease),
    /// Somebody else has it.
    HeldBy(Holder),
}

/// A lock that is held: let go by dropping it, or by the end of the process.
#[derive(Debug)]
pub struct Lease {
    /// Larger than that of every earlier lease of this lock.
    pub fence: u64,
    /// What keeps the lock held.
    #[expect(dead_code, reason = "held for its drop")]
    guard: Box<dyn Any + Send + Sync>,
}

impl Lease {
    /// Wraps what keeps a lock held.
    #[must_use]
    pub fn new(fence: u64, guard: impl Any + Send + Sync) -> Self {
        Self {
            fence,
            guard: Box::new(guard),
        }
    }
}

/// A login whose tokens the issuer has yet to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedRevocation {
    /// What to revoke.
    pub credential: Credential,
    /// Its registration, to delete as well, where no other login uses it.
    pub unshared: Option<Registration>,
    /// Since when it waits; it is given up after seven days.
    pub queued_at: Wall,
}

/// How the last login ended, for the processes that waited for it, and what people were asked for lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct LoginOutcome {
    /// When.
    pub at: Wall,
    /// `None` for success, else the error's code.
    pub code: Option<String>,
    /// The authorizations of the last ten minutes, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorizations: Vec<Authorization>,
    /// The SHA-256 of an assertion that the issuer has refused: no login shows it again (EXT-41).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<[u8; 32]>,
    /// The last look at whom the server trusts, since the login ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<LookedAt>,
}

/// A look at whom a server trusts, after its login had ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct LookedAt {
    /// When.
    pub at: Wall,
    /// The issuer of the login that had ended.
    pub issuer: Issuer,
    /// The issuer that the server named in its place; `None` where it named the same, or nothing that can be read.
    pub named: Option<Issuer>,
}

impl LookedAt {
    /// A look that has found nothing new (yet).
    #[must_use]
    pub fn new(at: Wall, issuer: Issuer) -> Self {
        Self {
            at,
            issuer,
            named: None,
        }
    }
}

/// A person was asked for scopes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Authorization {
    /// Which.
    pub scopes: Scopes,
    /// When it ended.
    pub at: Wall,
    /// `None` for success, else the error's code; [`Authorization::LEFT`] where whoever asked did not wait for the person.
    pub code: Option<String>,
    /// Whether a request had met a 403, rather than the person having begun.
    pub step_up: bool,
}

impl LoginOutcome {
    /// A login that ended then: well, or with the error of that code.
    #[must_use]
    pub fn new(at: Wall, code: Option<String>) -> Self {
        Self {
            at,
            code,
            authorizations: Vec::new(),
            refused: None,
            looked: None,
        }
    }

    /// The outcome that follows this one.
    #[must_use]
    pub fn then(self, next: Authorization) -> Self {
        let (at, code) = (next.at, next.code.clone());
        Self {
            at,
            code,
            ..self.and(next)
        }
    }

    /// The same outcome, and what a person was asked for since. What lies in the future was written before the clock was set
    /// back, nobody knows when (F-19): it is forgotten with what is old.
    #[must_use]
    pub fn and(mut self, next: Authorization) -> Self {
        let lately = |one: &Authorization| one.at <= next.at && one.at.until(next.at) < REMEMBERED;
        self.authorizations.retain(lately);
        self.authorizations.push(next);
        let surplus = self.authorizations.len().saturating_sub(MOST_REMEMBERED);
        self.authorizations.drain(..surplus);
        self
    }
}

impl Authorization {
    /// The code of an authorization that nobody waited for to its end.
    pub const LEFT: &'static str = "left";

    /// A login that a person began.
    #[must_use]
    pub fn new(scopes: Scopes, at: Wall, code: Option<String>) -> Self {
        Self {
            scopes,
            at,
            code,
            step_up: false,
        }
    }

    /// The same, begun because of a 403.
    #[must_use]
    pub fn with_step_up(self) -> Self {
        Self {
            step_up: true,
            ..self
        }
    }
}

const REMEMBERED: Duration = Duration::from_secs(600);
const MOST_REMEMBERED: usize = 16;

/// What [`Store::put_binding`] answers where the name is another binding's.
fn name_taken() -> Error {
    Error::ConfigValue {
        what: "name".into(),
        why: "another server has this name".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(at: u64) -> Authorization {
        Authorization::new(Scopes::parse("a"), Wall(at), None)
    }

    /// F-19, T-31: what was written before the clock was set back is not remembered as if it were now; nor is what is old.
    #[test]
    fn only_what_was_lately_is_remembered() {
        let minute = 60_000;
        let outcome = [92, 100, 95].map(|at| one(at * minute));
        let outcome = outcome
            .into_iter()
            .fold(LoginOutcome::default(), LoginOutcome::then);
        let left: Vec<_> = outcome.authorizations.iter().map(|one| one.at).collect();
        assert_eq!(left, [Wall(92 * minute), Wall(95 * minute)]);
        let later = outcome.then(one(103 * minute));
        let left: Vec<_> = later.authorizations.iter().map(|one| one.at).collect();
        assert_eq!(left, [Wall(95 * minute), Wall(103 * minute)]);
    }
}
