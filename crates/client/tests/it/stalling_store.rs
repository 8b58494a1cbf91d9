//! A store that stands still while it is told to.

use std::sync::Arc;

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
use tokio::sync::watch;

/// A store around another one, which answers nothing while it stands still.
#[derive(Debug)]
pub(crate) struct StallingStore {
    inner: Arc<dyn Store>,
    stalled: watch::Sender<bool>,
}

impl StallingStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            stalled: watch::Sender::new(false),
        }
    }

    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    async fn moves(&self) {
        let mut stalled = self.stalled.subscribe();
        let _ = stalled.wait_for(|stalled| !stalled).await;
    }
}

#[async_trait]
impl Store for StallingStore {
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
        self.moves().await;
        self.inner.binding(key).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Error> {
        self.moves().await;
        self.inner.bindings().await
    }

    async fn put_binding(&self, binding: &Binding) -> Result<(), Error> {
        self.moves().await;
        self.inner.put_binding(binding).await
    }

    async fn read(&self, key: &CredentialKey) -> Result<Option<Record>, Error> {
        self.moves().await;
        self.inner.read(key).await
    }

    async fn note(
        &self,
        key: &CredentialKey,
        version: Version,
        facts: &[Fact],
        event: Option<&Event>,
    ) -> Result<bool, Error> {
        self.moves().await;
        self.inner.note(key, version, facts, event).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, Error> {
        self.moves().await;
        self.inner.commit(commit).await
    }

    async fn prepare_spool(&self, key: &CredentialKey) -> Result<(), Error> {
        self.moves().await;
        self.inner.prepare_spool(key).await
    }

    async fn spool(&self, follows: Option<Version>, credential: &Credential) -> Result<(), Error> {
        self.moves().await;
        self.inner.spool(follows, credential).await
    }

    async fn spool_attempt(
        &self,
        key: &CredentialKey,
        version: Version,
        attempt: Option<&Attempt>,
    ) -> Result<(), Error> {
        self.moves().await;
        self.inner.spool_attempt(key, version, attempt).await
    }

    async fn bury(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<Option<Buried>, Error> {
        self.moves().await;
        self.inner.bury(key, event, revoke).await
    }

    async fn revocations(&self) -> Result<Vec<QueuedRevocation>, Error> {
        self.moves().await;
        self.inner.revocations().await
    }

    async fn revoked(&self, key: &CredentialKey, incarnation: Incarnation) -> Result<(), Error> {
        self.moves().await;
        self.inner.revoked(key, incarnation).await
    }

    async fn registrations(&self, issuer: &Issuer) -> Result<Vec<Registration>, Error> {
        self.moves().await;
        self.inner.registrations(issuer).await
    }

    async fn put_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.moves().await;
        self.inner.put_registration(registration).await
    }

    async fn forget_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.moves().await;
        self.inner.forget_registration(registration).await
    }

    async fn notes(&self, issuer: &Issuer) -> Result<IssuerNotes, Error> {
        self.moves().await;
        self.inner.notes(issuer).await
    }

    async fn learn(&self, issuer: &Issuer, notes: &IssuerNotes) -> Result<(), Error> {
        self.moves().await;
        self.inner.learn(issuer, notes).await
    }

    async fn record(&self, key: &CredentialKey, event: &Event) -> Result<(), Error> {
        self.moves().await;
        self.inner.record(key, event).await
    }

    async fn events(&self, key: &CredentialKey, limit: usize) -> Result<Vec<Event>, Error> {
        self.moves().await;
        self.inner.events(key, limit).await
    }

    async fn login_outcome(&self, binding: BindingId) -> Result<Option<LoginOutcome>, Error> {
        self.moves().await;
        self.inner.login_outcome(binding).await
    }

    async fn put_login_outcome(
        &self,
        binding: BindingId,
        outcome: &LoginOutcome,
    ) -> Result<(), Error> {
        self.moves().await;
        self.inner.put_login_outcome(binding, outcome).await
    }

    async fn try_lock(&self, name: LockName) -> Result<Locked, Error> {
        self.moves().await;
        self.inner.try_lock(name).await
    }

    async fn changes(&self) -> Result<u64, Error> {
        self.moves().await;
        self.inner.changes().await
    }
}
