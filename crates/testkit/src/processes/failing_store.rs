//! A store that passes fail points and keeps a journal: the harness's own, around the real one.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use pilotlight::{
    Error,
    core::{
        attempt::Attempt,
        credential::{
            Binding, BindingId, BindingKey, Credential, CredentialId, CredentialKey, Incarnation,
            Version,
        },
        event::{Event, Happened},
        flow::{Buried, Commit, Committed, Expects, Registration},
        issuer::Issuer,
        notes::IssuerNotes,
        record::{Fact, Record},
    },
    store::{Lease, LockName, Locked, LoginOutcome, QueuedRevocation, Store},
};

use super::{
    fail_point::{Deed, FailPoints, Point},
    said::{Journal, Said},
};
use crate::fingerprint;

/// A store in which every write can be the last thing that a process does.
#[derive(Debug)]
pub struct FailingStore<S> {
    inner: S,
    points: Arc<FailPoints>,
    journal: Journal,
    /// How many refresh locks this process holds.
    leases: Arc<AtomicUsize>,
    /// The refresh token of each version seen, by fingerprint.
    tokens: Mutex<HashMap<Version, String>>,
    unstored: Mutex<Unstored>,
}

/// The versions that the store refused.
#[derive(Debug, Default)]
struct Unstored {
    refused: HashSet<Version>,
    /// Those of them that the spool refused, too.
    held: HashSet<Version>,
}

/// Counts a refresh lock for as long as it is held.
struct Counted {
    _lease: Lease,
    leases: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.leases.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<S: Store> FailingStore<S> {
    /// Wraps a store.
    #[must_use]
    pub fn new(inner: S, points: Arc<FailPoints>, journal: Journal) -> Self {
        Self {
            inner,
            points,
            journal,
            leases: Arc::default(),
            tokens: Mutex::default(),
            unstored: Mutex::default(),
        }
    }

    fn before(&self, deed: Deed) -> Result<(), Error> {
        self.points.pass(Point::Before(deed))
    }

    /// What is done is done: a refusal after it only hides that.
    fn after(&self, deed: Deed) -> Result<(), Error> {
        self.points.pass(Point::After(deed))
    }

    fn seen(&self, credential: &Credential) -> String {
        let token = credential
            .refresh_token
            .as_ref()
            .map(|token| fingerprint(token.expose()))
            .unwrap_or_default();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(credential.version, token.clone());
        token
    }

    fn token(&self, version: Version) -> String {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&version).cloned().unwrap_or_default()
    }

    fn say_attempt(&self, version: Version, attempt: &Attempt, durable: bool) {
        self.journal.say(Said::Attempt {
            token: self.token(version),
            login: name_of(version.incarnation),
            generation: attempt.generation.0,
            number: attempt.number,
            label: attempt.label,
            durable,
        });
    }

    fn unstored(&self) -> MutexGuard<'_, Unstored> {
        self.unstored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spool refuses a version: where the store has done so before, it is in memory only.
    fn say_held(&self, token: String, version: Version) {
        let mut unstored = self.unstored();
        if unstored.refused.contains(&version) && unstored.held.insert(version) {
            drop(unstored);
            self.journal.say(Said::Held {
                token,
                login: name_of(version.incarnation),
                generation: version.generation.0,
            });
        }
    }

    fn say_durable(&self, token: String, credential: &Credential, spooled: bool) {
        let mut unstored = self.unstored();
        unstored.refused.remove(&credential.version);
        unstored.held.remove(&credential.version);
        drop(unstored);
        self.journal.say(Said::Durable {
            token,
            login: name_of(credential.version.incarnation),
            generation: credential.version.generation.0,
            spooled,
        });
    }
}

fn name_of(login: Incarnation) -> String {
    let shown = login.0.iter().take(4);
    shown.map(|byte| format!("{byte:02x}")).collect()
}

/// What a commit is.
fn deed_of(commit: &Commit) -> Deed {
    match (&commit.event.happened, commit.expects) {
        (Happened::Merged { .. }, _) => Deed::Merge,
        (_, Expects::Anything) => Deed::LoginCommit,
        _ => Deed::Commit,
    }
}

#[async_trait]
impl<S: Store> Store for FailingStore<S> {
    fn credential_id(&self, key: &CredentialKey) -> CredentialId {
        self.inner.credential_id(key)
    }

    fn binding_id(&self, key: &BindingKey) -> BindingId {
        self.inner.binding_id(key)
    }

    fn issuer_id(&self, issuer: &Issuer) -> [u8; 32] {
        self.inner.issuer_id(issuer)
    }

    fn writable(&self) -> bool {
        self.inner.writable()
    }

    async fn binding(&self, key: &BindingKey) -> Result<Option<Binding>, Error> {
        self.inner.binding(key).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Error> {
        self.inner.bindings().await
    }

    async fn put_binding(&self, binding: &Binding) -> Result<(), Error> {
        self.inner.put_binding(binding).await
    }

    async fn read(&self, key: &CredentialKey) -> Result<Option<Record>, Error> {
        let under_lock = self.leases.load(Ordering::SeqCst) > 0;
        if under_lock {
            self.before(Deed::Read)?;
        }
        let read = self.inner.read(key).await?;
        if let Some(credential) = read.as_ref().and_then(|record| record.credential.as_ref()) {
            self.seen(credential);
        }
        if under_lock {
            self.after(Deed::Read)?;
        }
        Ok(read)
    }

    async fn note(
        &self,
        key: &CredentialKey,
        version: Version,
        facts: &[Fact],
        event: Option<&Event>,
    ) -> Result<bool, Error> {
        let attempt = facts.iter().find_map(|fact| match fact {
            Fact::Attempt(attempt) => Some(attempt.as_ref()),
            _ => None,
        });
        // A failure that puts an earlier attempt back is no new one.
        let spends = attempt.flatten().filter(|_| event.is_none());
        let deed = if spends.is_some() {
            Deed::Attempt
        } else {
            Deed::Fact
        };
        let noted = match self.before(deed) {
            Ok(()) => self.inner.note(key, version, facts, event).await,
            Err(refused) => Err(refused),
        };
        match (&noted, spends, attempt) {
            (Ok(true), Some(attempt), _) => self.say_attempt(version, attempt, true),
            (Err(_), Some(attempt), _) => self.say_attempt(version, attempt, false),
            // Beside a version that the store does not have it notes nothing: the call may leave all the same.
            (Ok(false), Some(attempt), _) if self.unstored().held.contains(&version) => {
                self.say_attempt(version, attempt, false);
            }
            (Ok(true), None, Some(None)) => self.journal.say(Said::Cleared {
                token: self.token(version),
            }),
            _ => {}
        }
        let noted = noted?;
        self.after(deed)?;
        Ok(noted)
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, Error> {
        let deed = deed_of(commit);
        let token = self.seen(&commit.credential);
        let committed = match self.before(deed) {
            Ok(()) => self.inner.commit(commit).await,
            Err(refused) => Err(refused),
        };
        if committed.is_err() {
            self.unstored().refused.insert(commit.credential.version);
        }
        let committed = committed?;
        if matches!(committed, Committed::Done { .. }) {
            self.say_durable(token, &commit.credential, false);
        }
        self.after(deed)?;
        Ok(committed)
    }

    async fn prepare_spool(&self, key: &CredentialKey) -> Result<(), Error> {
        self.before(Deed::PrepareSpool)?;
        self.inner.prepare_spool(key).await?;
        self.after(Deed::PrepareSpool)
    }

    async fn spool(&self, follows: Option<Version>, credential: &Credential) -> Result<(), Error> {
        let token = self.seen(credential);
        let spooled = match self.before(Deed::Spool) {
            Ok(()) => self.inner.spool(follows, credential).await,
            Err(refused) => Err(refused),
        };
        if spooled.is_err() {
            self.say_held(token.clone(), credential.version);
        }
        spooled?;
        self.say_durable(token, credential, true);
        self.after(Deed::Spool)
    }

    async fn spool_attempt(
        &self,
        key: &CredentialKey,
        version: Version,
        attempt: Option<&Attempt>,
    ) -> Result<(), Error> {
        self.before(Deed::SpoolAttempt)?;
        self.inner.spool_attempt(key, version, attempt).await?;
        match attempt {
            Some(attempt) => self.say_attempt(version, attempt, true),
            None => self.journal.say(Said::Cleared {
                token: self.token(version),
            }),
        }
        self.after(Deed::SpoolAttempt)
    }

    async fn bury(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<Option<Buried>, Error> {
        self.before(Deed::Bury)?;
        let buried = self.inner.bury(key, event, revoke).await?;
        self.after(Deed::Bury)?;
        Ok(buried)
    }

    async fn bury_damaged(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<bool, Error> {
        self.before(Deed::Bury)?;
        let is_buried = self.inner.bury_damaged(key, event, revoke).await?;
        self.after(Deed::Bury)?;
        Ok(is_buried)
    }

    async fn revocations(&self) -> Result<Vec<QueuedRevocation>, Error> {
        self.inner.revocations().await
    }

    async fn revoked(&self, key: &CredentialKey, incarnation: Incarnation) -> Result<(), Error> {
        self.before(Deed::Revoked)?;
        self.inner.revoked(key, incarnation).await?;
        self.after(Deed::Revoked)
    }

    async fn registrations(&self, issuer: &Issuer) -> Result<Vec<Registration>, Error> {
        self.inner.registrations(issuer).await
    }

    async fn put_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.before(Deed::Register)?;
        self.inner.put_registration(registration).await?;
        self.after(Deed::Register)
    }

    async fn forget_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.inner.forget_registration(registration).await
    }

    async fn notes(&self, issuer: &Issuer) -> Result<IssuerNotes, Error> {
        self.inner.notes(issuer).await
    }

    async fn learn(&self, issuer: &Issuer, notes: &IssuerNotes) -> Result<(), Error> {
        self.before(Deed::Learn)?;
        self.inner.learn(issuer, notes).await?;
        self.after(Deed::Learn)
    }

    async fn record(&self, key: &CredentialKey, event: &Event) -> Result<(), Error> {
        self.inner.record(key, event).await
    }

    async fn events(&self, key: &CredentialKey, limit: usize) -> Result<Vec<Event>, Error> {
        self.inner.events(key, limit).await
    }

    async fn login_outcome(&self, binding: BindingId) -> Result<Option<LoginOutcome>, Error> {
        self.before(Deed::ReadOutcome)?;
        let outcome = self.inner.login_outcome(binding).await?;
        self.after(Deed::ReadOutcome)?;
        Ok(outcome)
    }

    async fn put_login_outcome(
        &self,
        binding: BindingId,
        outcome: &LoginOutcome,
    ) -> Result<(), Error> {
        self.before(Deed::Outcome)?;
        self.inner.put_login_outcome(binding, outcome).await?;
        self.after(Deed::Outcome)
    }

    async fn try_lock(&self, name: LockName) -> Result<Locked, Error> {
        let LockName::Refresh(_) = name else {
            return self.inner.try_lock(name).await;
        };
        self.before(Deed::Lock)?;
        match self.inner.try_lock(name).await? {
            Locked::Got(lease) => {
                self.leases.fetch_add(1, Ordering::SeqCst);
                let fence = lease.fence;
                let counted = Counted {
                    _lease: lease,
                    leases: Arc::clone(&self.leases),
                };
                self.after(Deed::Lock)?;
                Ok(Locked::Got(Lease::new(fence, counted)))
            }
            held => Ok(held),
        }
    }

    async fn changes(&self) -> Result<u64, Error> {
        self.inner.changes().await
    }

    async fn is_shared(&self, key: &CredentialKey) -> bool {
        self.inner.is_shared(key).await
    }
}
