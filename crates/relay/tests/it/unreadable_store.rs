//! A store that cannot say, once, how the last login ended.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
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
        event::Event,
        flow::{Buried, Commit, Committed, Registration},
        issuer::Issuer,
        notes::IssuerNotes,
        record::{Fact, Record},
    },
    store::{LockName, Locked, LoginOutcome, QueuedRevocation, Store},
};

/// A store around another one. The first question for the outcome of a login fails, as in a store that is busy.
#[derive(Debug)]
pub(crate) struct UnreadableStore(Arc<dyn Store>, AtomicBool);

impl UnreadableStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self(inner, AtomicBool::new(true))
    }
}

#[async_trait]
impl Store for UnreadableStore {
    fn credential_id(&self, key: &CredentialKey) -> CredentialId {
        self.0.credential_id(key)
    }

    fn binding_id(&self, key: &BindingKey) -> BindingId {
        self.0.binding_id(key)
    }

    fn issuer_id(&self, issuer: &Issuer) -> [u8; 32] {
        self.0.issuer_id(issuer)
    }

    fn writable(&self) -> bool {
        self.0.writable()
    }

    async fn binding(&self, key: &BindingKey) -> Result<Option<Binding>, Error> {
        self.0.binding(key).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Error> {
        self.0.bindings().await
    }

    async fn put_binding(&self, binding: &Binding) -> Result<(), Error> {
        self.0.put_binding(binding).await
    }

    async fn read(&self, key: &CredentialKey) -> Result<Option<Record>, Error> {
        self.0.read(key).await
    }

    async fn note(
        &self,
        key: &CredentialKey,
        version: Version,
        facts: &[Fact],
        event: Option<&Event>,
    ) -> Result<bool, Error> {
        self.0.note(key, version, facts, event).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, Error> {
        self.0.commit(commit).await
    }

    async fn prepare_spool(&self, key: &CredentialKey) -> Result<(), Error> {
        self.0.prepare_spool(key).await
    }

    async fn spool(&self, follows: Option<Version>, credential: &Credential) -> Result<(), Error> {
        self.0.spool(follows, credential).await
    }

    async fn spool_attempt(
        &self,
        key: &CredentialKey,
        version: Version,
        attempt: Option<&Attempt>,
    ) -> Result<(), Error> {
        self.0.spool_attempt(key, version, attempt).await
    }

    async fn bury(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<Option<Buried>, Error> {
        self.0.bury(key, event, revoke).await
    }

    async fn bury_damaged(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<bool, Error> {
        self.0.bury_damaged(key, event, revoke).await
    }

    async fn revocations(&self) -> Result<Vec<QueuedRevocation>, Error> {
        self.0.revocations().await
    }

    async fn revoked(&self, key: &CredentialKey, incarnation: Incarnation) -> Result<(), Error> {
        self.0.revoked(key, incarnation).await
    }

    async fn registrations(&self, issuer: &Issuer) -> Result<Vec<Registration>, Error> {
        self.0.registrations(issuer).await
    }

    async fn put_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.0.put_registration(registration).await
    }

    async fn forget_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.0.forget_registration(registration).await
    }

    async fn notes(&self, issuer: &Issuer) -> Result<IssuerNotes, Error> {
        self.0.notes(issuer).await
    }

    async fn learn(&self, issuer: &Issuer, notes: &IssuerNotes) -> Result<(), Error> {
        self.0.learn(issuer, notes).await
    }

    async fn record(&self, key: &CredentialKey, event: &Event) -> Result<(), Error> {
        self.0.record(key, event).await
    }

    async fn events(&self, key: &CredentialKey, limit: usize) -> Result<Vec<Event>, Error> {
        self.0.events(key, limit).await
    }

    async fn login_outcome(&self, binding: BindingId) -> Result<Option<LoginOutcome>, Error> {
        if self.1.swap(false, Ordering::SeqCst) {
            return Err(Error::StoreUnavailable {
                why: "as it was told".to_owned(),
            });
        }
        self.0.login_outcome(binding).await
    }

    async fn put_login_outcome(
        &self,
        binding: BindingId,
        outcome: &LoginOutcome,
    ) -> Result<(), Error> {
        self.0.put_login_outcome(binding, outcome).await
    }

    async fn try_lock(&self, name: LockName) -> Result<Locked, Error> {
        self.0.try_lock(name).await
    }

    async fn changes(&self) -> Result<u64, Error> {
        self.0.changes().await
    }

    async fn is_shared(&self, key: &CredentialKey) -> bool {
        self.0.is_shared(key).await
    }
}
