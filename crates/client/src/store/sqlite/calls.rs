//! The store's calls, each where it may block.

use async_trait::async_trait;
use pilotlight_core::{
    Error,
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
};

use std::sync::atomic::Ordering;

use super::{Inner, SqliteStore, rows, tables};
use crate::store::{LockName, Locked, LoginOutcome, QueuedRevocation, Store};

#[async_trait]
impl Store for SqliteStore {
    fn credential_id(&self, key: &CredentialKey) -> CredentialId {
        self.inner.keys.lookup.credential(key)
    }

    fn binding_id(&self, key: &BindingKey) -> BindingId {
        self.inner.keys.lookup.binding(key)
    }

    fn issuer_id(&self, issuer: &Issuer) -> [u8; 32] {
        self.inner.keys.lookup.issuer(issuer)
    }

    fn writable(&self) -> bool {
        self.inner.writable.load(Ordering::Relaxed)
    }

    async fn binding(&self, key: &BindingKey) -> Result<Option<Binding>, Error> {
        let key = key.clone();
        self.call(move |inner| inner.binding(&key)).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Error> {
        self.call(Inner::bindings).await
    }

    async fn put_binding(&self, binding: &Binding) -> Result<(), Error> {
        let binding = binding.clone();
        let refuse = tables::TakenName::Refuse;
        self.call(move |inner| {
            inner.writing(|t| tables::put_binding(t, &inner.keys, &binding, refuse))
        })
        .await
    }

    async fn read(&self, key: &CredentialKey) -> Result<Option<Record>, Error> {
        let key = key.clone();
        self.call(move |inner| inner.read(&key)).await
    }

    async fn note(
        &self,
        key: &CredentialKey,
        version: Version,
        facts: &[Fact],
        event: Option<&Event>,
    ) -> Result<bool, Error> {
        let (key, facts, event) = (key.clone(), facts.to_vec(), event.cloned());
        self.call(move |inner| inner.note(&key, version, &facts, event.as_ref()))
            .await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, Error> {
        let commit = commit.clone();
        self.call(move |inner| inner.commit(&commit)).await
    }

    async fn prepare_spool(&self, key: &CredentialKey) -> Result<(), Error> {
        let key = key.clone();
        self.call(move |inner| inner.prepare_spool(&key)).await
    }

    async fn spool(&self, follows: Option<Version>, credential: &Credential) -> Result<(), Error> {
        let credential = credential.clone();
        self.call(move |inner| inner.spool(follows, &credential))
            .await
    }

    async fn spool_attempt(
        &self,
        key: &CredentialKey,
        version: Version,
        attempt: Option<&Attempt>,
    ) -> Result<(), Error> {
        let (id, attempt) = (self.credential_id(key), attempt.copied());
        self.call(move |inner| inner.spool_attempt(id, version, attempt.as_ref()))
            .await
    }

    async fn bury(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<Option<Buried>, Error> {
        let (key, event) = (key.clone(), event.clone());
        self.call(move |inner| inner.bury(&key, &event, revoke))
            .await
    }

    async fn bury_damaged(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<bool, Error> {
        let (key, event) = (key.clone(), event.clone());
        self.call(move |inner| inner.bury_damaged(&key, &event, revoke))
            .await
    }

    async fn revocations(&self) -> Result<Vec<QueuedRevocation>, Error> {
        self.call(Inner::revocations).await
    }

    async fn revoked(&self, key: &CredentialKey, incarnation: Incarnation) -> Result<(), Error> {
        let key = key.clone();
        self.call(move |inner| inner.revoked(&key, incarnation))
            .await
    }

    async fn registrations(&self, issuer: &Issuer) -> Result<Vec<Registration>, Error> {
        let issuer = issuer.clone();
        self.call(move |inner| inner.registrations(&issuer)).await
    }

    async fn put_registration(&self, registration: &Registration) -> Result<(), Error> {
        let registration = registration.clone();
        self.call(move |inner| inner.put_registration(&registration))
            .await
    }

    async fn forget_registration(&self, registration: &Registration) -> Result<(), Error> {
        let registration = registration.clone();
        self.call(move |inner| inner.forget_registration(&registration))
            .await
    }

    async fn notes(&self, issuer: &Issuer) -> Result<IssuerNotes, Error> {
        let issuer = issuer.clone();
        self.call(move |inner| inner.notes(&issuer)).await
    }

    async fn learn(&self, issuer: &Issuer, notes: &IssuerNotes) -> Result<(), Error> {
        let (issuer, notes) = (issuer.clone(), notes.clone());
        self.call(move |inner| inner.learn(&issuer, &notes)).await
    }

    async fn record(&self, key: &CredentialKey, event: &Event) -> Result<(), Error> {
        let (id, event) = (self.credential_id(key), event.clone());
        self.call(move |inner| inner.writing(|t| rows::add_event(t, &inner.keys, id, &event)))
            .await
    }

    async fn events(&self, key: &CredentialKey, limit: usize) -> Result<Vec<Event>, Error> {
        let id = self.credential_id(key);
        self.call(move |inner| inner.reading(|c| rows::events(c, &inner.keys, id, limit)))
            .await
    }

    async fn login_outcome(&self, binding: BindingId) -> Result<Option<LoginOutcome>, Error> {
        self.call(move |inner| inner.login_outcome(binding)).await
    }

    async fn put_login_outcome(
        &self,
        binding: BindingId,
        outcome: &LoginOutcome,
    ) -> Result<(), Error> {
        let outcome = outcome.clone();
        self.call(move |inner| inner.put_login_outcome(binding, &outcome))
            .await
    }

    async fn try_lock(&self, name: LockName) -> Result<Locked, Error> {
        self.call(move |inner| inner.try_lock(name)).await
    }

    async fn changes(&self) -> Result<u64, Error> {
        self.call(Inner::changes).await
    }

    async fn is_shared(&self, _: &CredentialKey) -> bool {
        false
    }
}
