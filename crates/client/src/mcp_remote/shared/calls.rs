//! The calls of a store: those of a refresh look at mcp-remote's files, all others are passed on.

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

use super::{Shared, state::blocking};
use crate::{
    cell::lock,
    mcp_remote::files::Files,
    store::{LockName, Locked, LoginOutcome, QueuedRevocation, Store},
};

#[async_trait]
impl Store for Shared {
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
        let Some(stored) = self.inner.read(key).await? else {
            return Ok(None);
        };
        let id = self.inner.credential_id(key);
        match self.link(id).await? {
            Some(link) => self.together(key, id, link, stored).await,
            None => Ok(Some(stored)),
        }
    }

    async fn note(
        &self,
        key: &CredentialKey,
        version: Version,
        facts: &[Fact],
        event: Option<&Event>,
    ) -> Result<bool, Error> {
        let leaves = facts
            .iter()
            .any(|fact| matches!(fact, Fact::Attempt(Some(_))));
        if leaves && !self.still_ours(self.inner.credential_id(key)).await? {
            return Ok(false);
        }
        self.inner.note(key, version, facts, event).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, Error> {
        let done = self.inner.commit(commit).await?;
        if matches!(done, Committed::Done { .. }) {
            self.made(&commit.credential).await;
        }
        Ok(done)
    }

    async fn prepare_spool(&self, key: &CredentialKey) -> Result<(), Error> {
        self.inner.prepare_spool(key).await
    }

    async fn spool(&self, follows: Option<Version>, credential: &Credential) -> Result<(), Error> {
        self.inner.spool(follows, credential).await?;
        self.made(credential).await;
        Ok(())
    }

    async fn spool_attempt(
        &self,
        key: &CredentialKey,
        version: Version,
        attempt: Option<&Attempt>,
    ) -> Result<(), Error> {
        self.inner.spool_attempt(key, version, attempt).await
    }

    async fn bury(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<Option<Buried>, Error> {
        let buried = self.inner.bury(key, event, revoke).await?;
        self.ended(key).await?;
        Ok(buried)
    }

    async fn bury_damaged(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<bool, Error> {
        let is_buried = self.inner.bury_damaged(key, event, revoke).await?;
        if is_buried {
            self.ended(key).await?;
        }
        Ok(is_buried)
    }

    async fn revocations(&self) -> Result<Vec<QueuedRevocation>, Error> {
        self.inner.revocations().await
    }

    async fn revoked(&self, key: &CredentialKey, incarnation: Incarnation) -> Result<(), Error> {
        self.inner.revoked(key, incarnation).await
    }

    async fn registrations(&self, issuer: &Issuer) -> Result<Vec<Registration>, Error> {
        self.inner.registrations(issuer).await
    }

    async fn put_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.inner.put_registration(registration).await
    }

    async fn forget_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.inner.forget_registration(registration).await
    }

    async fn notes(&self, issuer: &Issuer) -> Result<IssuerNotes, Error> {
        self.inner.notes(issuer).await
    }

    async fn learn(&self, issuer: &Issuer, notes: &IssuerNotes) -> Result<(), Error> {
        self.inner.learn(issuer, notes).await
    }

    async fn record(&self, key: &CredentialKey, event: &Event) -> Result<(), Error> {
        self.inner.record(key, event).await
    }

    async fn events(&self, key: &CredentialKey, limit: usize) -> Result<Vec<Event>, Error> {
        self.inner.events(key, limit).await
    }

    async fn login_outcome(&self, binding: BindingId) -> Result<Option<LoginOutcome>, Error> {
        self.inner.login_outcome(binding).await
    }

    async fn put_login_outcome(
        &self,
        binding: BindingId,
        outcome: &LoginOutcome,
    ) -> Result<(), Error> {
        self.inner.put_login_outcome(binding, outcome).await
    }

    async fn try_lock(&self, name: LockName) -> Result<Locked, Error> {
        if let LockName::Refresh(id) = name
            && let Some(link) = self.link(id).await?
        {
            return self.try_both(id, link).await;
        }
        self.inner.try_lock(name).await
    }

    async fn changes(&self) -> Result<u64, Error> {
        let own = self.inner.changes().await?;
        let known: Vec<Files> = lock(&self.state.known).values().cloned().collect();
        if known.is_empty() {
            return Ok(own);
        }
        blocking(move || {
            Ok(known
                .iter()
                .fold(own, |all, files| all.rotate_left(9) ^ files.trace()))
        })
        .await
    }

    async fn is_shared(&self, key: &CredentialKey) -> bool {
        let id = self.inner.credential_id(key);
        self.link(id).await.is_ok_and(|link| link.is_some())
    }
}
