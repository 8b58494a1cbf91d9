//! A store that stands still while it is told to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
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
use tokio::sync::watch;

/// A store around another one, which answers nothing while it stands still.
#[derive(Debug)]
pub(crate) struct StallingStore {
    inner: Arc<dyn Store>,
    stalled: watch::Sender<Stall>,
    /// How many calls have begun while it stood still.
    begun: AtomicUsize,
}

/// What stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stall {
    Nothing,
    Everything,
    /// The calls of this name.
    Only(&'static str),
    /// Everything, once a call of this name has ended.
    After(&'static str),
    /// The answers of calls of this name: what they read is old when it comes.
    Answers(&'static str),
    /// Nothing; the next call of this name panics.
    Panics(&'static str),
}

impl StallingStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            stalled: watch::Sender::new(Stall::Nothing),
            begun: AtomicUsize::new(0),
        }
    }

    pub(crate) fn stall(&self, stall: Stall) {
        self.stalled.send_replace(stall);
    }

    /// How many calls have begun while it stood still.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    async fn moves(&self, call: &'static str) {
        let mut stalled = self.stalled.subscribe();
        let stands = |stall: &Stall| {
            *stall == Stall::Everything || matches!(stall, Stall::Only(only) if *only == call)
        };
        if stands(&stalled.borrow_and_update()) {
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
        let _ = stalled.wait_for(|stall| !stands(stall)).await;
        let panics = self.stalled.send_if_modified(|stall| {
            let now = *stall == Stall::Panics(call);
            if now {
                *stall = Stall::Nothing;
            }
            now
        });
        assert!(!panics, "as it was told");
    }

    async fn answers(&self, call: &'static str) {
        let mut stalled = self.stalled.subscribe();
        let held = |stall: &Stall| *stall == Stall::Answers(call);
        if held(&stalled.borrow_and_update()) {
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
        let _ = stalled.wait_for(|stall| !held(stall)).await;
    }

    fn ended(&self, call: &'static str) {
        self.stalled.send_if_modified(|stall| {
            let now = *stall == Stall::After(call);
            if now {
                *stall = Stall::Everything;
            }
            now
        });
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
        self.moves("binding").await;
        self.inner.binding(key).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Error> {
        self.moves("bindings").await;
        self.inner.bindings().await
    }

    async fn put_binding(&self, binding: &Binding) -> Result<(), Error> {
        self.moves("put_binding").await;
        self.inner.put_binding(binding).await
    }

    async fn read(&self, key: &CredentialKey) -> Result<Option<Record>, Error> {
        self.moves("read").await;
        let read = self.inner.read(key).await;
        self.answers("read").await;
        read
    }

    async fn note(
        &self,
        key: &CredentialKey,
        version: Version,
        facts: &[Fact],
        event: Option<&Event>,
    ) -> Result<bool, Error> {
        self.moves("note").await;
        self.inner.note(key, version, facts, event).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, Error> {
        self.moves("commit").await;
        let committed = self.inner.commit(commit).await;
        self.ended("commit");
        committed
    }

    async fn prepare_spool(&self, key: &CredentialKey) -> Result<(), Error> {
        self.moves("prepare_spool").await;
        self.inner.prepare_spool(key).await
    }

    async fn spool(&self, follows: Option<Version>, credential: &Credential) -> Result<(), Error> {
        self.moves("spool").await;
        self.inner.spool(follows, credential).await
    }

    async fn spool_attempt(
        &self,
        key: &CredentialKey,
        version: Version,
        attempt: Option<&Attempt>,
    ) -> Result<(), Error> {
        self.moves("spool_attempt").await;
        self.inner.spool_attempt(key, version, attempt).await
    }

    async fn bury(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<Option<Buried>, Error> {
        self.moves("bury").await;
        self.inner.bury(key, event, revoke).await
    }

    async fn bury_damaged(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<bool, Error> {
        self.moves("bury_damaged").await;
        self.inner.bury_damaged(key, event, revoke).await
    }

    async fn revocations(&self) -> Result<Vec<QueuedRevocation>, Error> {
        self.moves("revocations").await;
        self.inner.revocations().await
    }

    async fn revoked(&self, key: &CredentialKey, incarnation: Incarnation) -> Result<(), Error> {
        self.moves("revoked").await;
        self.inner.revoked(key, incarnation).await
    }

    async fn registrations(&self, issuer: &Issuer) -> Result<Vec<Registration>, Error> {
        self.moves("registrations").await;
        self.inner.registrations(issuer).await
    }

    async fn put_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.moves("put_registration").await;
        self.inner.put_registration(registration).await
    }

    async fn forget_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.moves("forget_registration").await;
        self.inner.forget_registration(registration).await
    }

    async fn notes(&self, issuer: &Issuer) -> Result<IssuerNotes, Error> {
        self.moves("notes").await;
        self.inner.notes(issuer).await
    }

    async fn learn(&self, issuer: &Issuer, notes: &IssuerNotes) -> Result<(), Error> {
        self.moves("learn").await;
        self.inner.learn(issuer, notes).await
    }

    async fn record(&self, key: &CredentialKey, event: &Event) -> Result<(), Error> {
        self.moves("record").await;
        self.inner.record(key, event).await
    }

    async fn events(&self, key: &CredentialKey, limit: usize) -> Result<Vec<Event>, Error> {
        self.moves("events").await;
        self.inner.events(key, limit).await
    }

    async fn login_outcome(&self, binding: BindingId) -> Result<Option<LoginOutcome>, Error> {
        self.moves("login_outcome").await;
        self.inner.login_outcome(binding).await
    }

    async fn put_login_outcome(
        &self,
        binding: BindingId,
        outcome: &LoginOutcome,
    ) -> Result<(), Error> {
        self.moves("put_login_outcome").await;
        self.inner.put_login_outcome(binding, outcome).await
    }

    async fn try_lock(&self, name: LockName) -> Result<Locked, Error> {
        self.moves("try_lock").await;
        self.inner.try_lock(name).await
    }

    async fn changes(&self) -> Result<u64, Error> {
        self.moves("changes").await;
        self.inner.changes().await
    }

    async fn is_shared(&self, key: &CredentialKey) -> bool {
        self.moves("is_shared").await;
        self.inner.is_shared(key).await
    }
}
