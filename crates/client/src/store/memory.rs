//! A store that ends with its process: for tests, and for hosts that want nothing on disk.
//!
//! It keeps every promise of [`Store`] but durability, within one process.

mod login;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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
    registration::ClientSource,
};
use zeroize::Zeroizing;

use super::{
    Lease, LockName, Locked, LoginOutcome, QueuedRevocation, Store, lookup::Lookup, name_taken,
    rules::Admission,
};
use crate::clock::Clock;
use login::{Login, Stored};

/// A [`Store`] in memory. See [`store`](crate::store) for what it promises.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    lookup: Lookup,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    logins: HashMap<CredentialId, Login>,
    bindings: Vec<(BindingId, Binding)>,
    registrations: Vec<Registration>,
    revocations: Vec<(CredentialId, QueuedRevocation)>,
    notes: Vec<(Issuer, IssuerNotes)>,
    outcomes: HashMap<BindingId, LoginOutcome>,
    locks: HashMap<LockName, Lock>,
    changes: u64,
}

#[derive(Debug, Default)]
struct Lock {
    fence: u64,
    holder: Option<Holder>,
}

/// Lets go of a lock when it is dropped.
struct Unlock {
    state: Arc<Mutex<State>>,
    name: LockName,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let lookup = Lookup::new(Zeroizing::new(crate::crypto::random()));
        Self {
            clock,
            lookup,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn changing(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.changes += 1;
        state
    }
}

impl State {
    fn name_owner(&self, name: &str) -> Option<BindingId> {
        self.bindings
            .iter()
            .find(|(_, binding)| binding.name == name)
            .map(|(id, _)| *id)
    }

    fn put_binding(&mut self, id: BindingId, binding: Binding) {
        match self.bindings.iter_mut().find(|(other, _)| *other == id) {
            Some((_, stored)) => *stored = binding,
            None => self.bindings.push((id, binding)),
        }
    }

    /// Takes out the registration that only this login used.
    fn take_unshared(&mut self, id: CredentialId, buried: &Credential) -> Option<Registration> {
        let same = |other: &Credential| {
            other.key.issuer == buried.key.issuer && other.client.id == buried.client.id
        };
        let shared = self
            .logins
            .iter()
            .filter(|(other, _)| **other != id)
            .any(|(_, login)| match &login.stored {
                Stored::Login(record, _) => record.credential.as_ref().is_some_and(same),
                Stored::Nothing | Stored::Buried(_) => false,
            });
        if shared || buried.client.source != ClientSource::Dynamic {
            return None;
        }
        let of_this =
            |r: &Registration| r.issuer == buried.key.issuer && r.client.id == buried.client.id;
        let position = self.registrations.iter().position(of_this)?;
        Some(self.registrations.remove(position))
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn credential_id(&self, key: &CredentialKey) -> CredentialId {
        self.lookup.credential(key)
    }

    fn binding_id(&self, key: &BindingKey) -> BindingId {
        self.lookup.binding(key)
    }

    fn issuer_id(&self, issuer: &Issuer) -> [u8; 32] {
        self.lookup.issuer(issuer)
    }

    fn writable(&self) -> bool {
        true
    }

    async fn binding(&self, key: &BindingKey) -> Result<Option<Binding>, Error> {
        let id = self.binding_id(key);
        Ok(self
            .state()
            .bindings
            .iter()
            .find(|(other, _)| *other == id)
            .map(|(_, binding)| binding.clone()))
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Error> {
        let mut bindings: Vec<_> = self
            .state()
            .bindings
            .iter()
            .map(|(_, binding)| binding.clone())
            .collect();
        bindings.sort_by_key(|binding| binding.created_at);
        Ok(bindings)
    }

    async fn put_binding(&self, binding: &Binding) -> Result<(), Error> {
        let id = self.binding_id(&binding.key);
        let mut state = self.changing();
        if state
            .name_owner(&binding.name)
            .is_some_and(|owner| owner != id)
        {
            return Err(name_taken());
        }
        state.put_binding(id, binding.clone());
        Ok(())
    }

    async fn read(&self, key: &CredentialKey) -> Result<Option<Record>, Error> {
        let id = self.credential_id(key);
        Ok(self.state().logins.get(&id).and_then(Login::read))
    }

    async fn note(
        &self,
        key: &CredentialKey,
        version: Version,
        facts: &[Fact],
        event: Option<&Event>,
    ) -> Result<bool, Error> {
        let id = self.credential_id(key);
        let mut state = self.changing();
        let Some(login) = state.logins.get_mut(&id) else {
            return Ok(false);
        };
        match &mut login.stored {
            Stored::Login(record, stored) if *stored == version => record.apply(facts),
            _ => return Ok(false),
        }
        if facts.iter().any(|fact| matches!(fact, Fact::Attempt(_))) {
            login.change_slot(|entry| entry.keep_attempt(version, None));
        }
        if let Some(event) = event {
            login.add(event);
        }
        Ok(true)
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, Error> {
        let new = &commit.credential;
        let id = self.credential_id(&new.key);
        let mut state = self.changing();
        let login = state.logins.entry(id).or_default();
        let spooled = login.counting().map(|credential| credential.version);
        let mut superseded = None;
        match login.held().admits(spooled, commit.expects, new.version) {
            Admission::Moved => return Ok(Committed::Moved),
            Admission::Already => {}
            Admission::Write => {
                superseded = login.superseded_by(new.version);
                let record = Record {
                    credential: Some(new.clone()),
                    forced: commit.forced.clone(),
                    ..Record::default()
                };
                login.stored = Stored::Login(Box::new(record), new.version);
            }
        }
        login.add(&commit.event);
        if let Some(binding) = &commit.binding {
            let id = self.binding_id(&binding.key);
            let mut binding = binding.clone();
            let wanted = binding.name.clone();
            let mut number = 1u64;
            while state
                .name_owner(&binding.name)
                .is_some_and(|owner| owner != id)
            {
                number += 1;
                binding.name = format!("{wanted}-{number}");
            }
            state.put_binding(id, binding);
        }
        Ok(Committed::Done { superseded })
    }

    async fn prepare_spool(&self, _: &CredentialKey) -> Result<(), Error> {
        Ok(())
    }

    async fn spool(&self, follows: Option<Version>, credential: &Credential) -> Result<(), Error> {
        let id = self.credential_id(&credential.key);
        let mut state = self.changing();
        let login = state.logins.entry(id).or_default();
        login.change_slot(|entry| entry.keep(follows, credential.clone()));
        Ok(())
    }

    async fn spool_attempt(
        &self,
        key: &CredentialKey,
        version: Version,
        attempt: Option<&Attempt>,
    ) -> Result<(), Error> {
        let id = self.credential_id(key);
        let mut state = self.changing();
        let login = state.logins.entry(id).or_default();
        login.change_slot(|entry| entry.keep_attempt(version, attempt));
        Ok(())
    }

    async fn bury(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<Option<Buried>, Error> {
        let (id, queued_at) = (self.credential_id(key), self.clock.now().wall);
        let mut state = self.changing();
        let Some(login) = state.logins.get_mut(&id) else {
            return Ok(None);
        };
        let Some(credential) = login.read().and_then(|record| record.credential) else {
            return Ok(None);
        };
        let stored = std::mem::replace(&mut login.stored, Stored::Buried(credential.version));
        login.spooled.clear();
        login.add(event);
        // A login that only the spool holds is over, and so is the one that it was about to replace.
        if let Stored::Login(record, version) = stored
            && version.incarnation != credential.version.incarnation
            && let Some(replaced) = record.credential
            && revoke
        {
            let queued = QueuedRevocation {
                credential: replaced,
                unshared: None,
                queued_at,
            };
            state.revocations.push((id, queued));
        }
        let unshared = state.take_unshared(id, &credential);
        if revoke {
            let queued = QueuedRevocation {
                credential: credential.clone(),
                unshared: unshared.clone(),
                queued_at,
            };
            state.revocations.push((id, queued));
        }
        Ok(Some(Buried {
            credential,
            unshared,
        }))
    }

    async fn revocations(&self) -> Result<Vec<QueuedRevocation>, Error> {
        let mut queued: Vec<_> = self
            .state()
            .revocations
            .iter()
            .map(|(_, queued)| queued.clone())
            .collect();
        queued.sort_by_key(|queued| queued.queued_at);
        Ok(queued)
    }

    async fn revoked(&self, key: &CredentialKey, incarnation: Incarnation) -> Result<(), Error> {
        let id = self.credential_id(key);
        self.changing().revocations.retain(|(other, queued)| {
            *other != id || queued.credential.version.incarnation != incarnation
        });
        Ok(())
    }

    async fn registrations(&self, issuer: &Issuer) -> Result<Vec<Registration>, Error> {
        let mut found: Vec<_> = self
            .state()
            .registrations
            .iter()
            .rev()
            .filter(|r| r.issuer == *issuer)
            .cloned()
            .collect();
        found.sort_by_key(|registration| std::cmp::Reverse(registration.registered_at));
        Ok(found)
    }

    async fn put_registration(&self, registration: &Registration) -> Result<(), Error> {
        let mut state = self.changing();
        state
            .registrations
            .retain(|other| !same(other, registration));
        state.registrations.push(registration.clone());
        Ok(())
    }

    async fn forget_registration(&self, registration: &Registration) -> Result<(), Error> {
        self.changing()
            .registrations
            .retain(|other| !same(other, registration));
        Ok(())
    }

    async fn notes(&self, issuer: &Issuer) -> Result<IssuerNotes, Error> {
        Ok(self
            .state()
            .notes
            .iter()
            .find(|(other, _)| other == issuer)
            .map(|(_, notes)| notes.clone())
            .unwrap_or_default())
    }

    async fn learn(&self, issuer: &Issuer, notes: &IssuerNotes) -> Result<(), Error> {
        let mut state = self.changing();
        let held = state.notes.iter_mut().find(|(other, _)| other == issuer);
        match held {
            Some((_, held)) => *held = held.joined(notes),
            None => state.notes.push((issuer.clone(), notes.clone())),
        }
        Ok(())
    }

    async fn record(&self, key: &CredentialKey, event: &Event) -> Result<(), Error> {
        let id = self.credential_id(key);
        self.changing().logins.entry(id).or_default().add(event);
        Ok(())
    }

    async fn events(&self, key: &CredentialKey, limit: usize) -> Result<Vec<Event>, Error> {
        let id = self.credential_id(key);
        let state = self.state();
        let events = state.logins.get(&id).map_or(&[][..], |login| &login.events);
        Ok(events[events.len().saturating_sub(limit)..].to_vec())
    }

    async fn login_outcome(&self, binding: BindingId) -> Result<Option<LoginOutcome>, Error> {
        Ok(self.state().outcomes.get(&binding).cloned())
    }

    async fn put_login_outcome(
        &self,
        binding: BindingId,
        outcome: &LoginOutcome,
    ) -> Result<(), Error> {
        self.changing().outcomes.insert(binding, outcome.clone());
        Ok(())
    }

    async fn try_lock(&self, name: LockName) -> Result<Locked, Error> {
        let since = self.clock.now().wall.unix_seconds();
        let mut state = self.state();
        let held = state.locks.entry(name).or_default();
        if let Some(holder) = &held.holder {
            return Ok(Locked::HeldBy(holder.clone()));
        }
        held.fence += 1;
        held.holder = Some(Holder {
            pid: std::process::id(),
            program: "this program".into(),
            since,
            stopped: false,
        });
        let guard = Unlock {
            state: Arc::clone(&self.state),
            name,
        };
        Ok(Locked::Got(Lease::new(held.fence, guard)))
    }

    async fn changes(&self) -> Result<u64, Error> {
        Ok(self.state().changes)
    }

    /// Nothing here is written where it could be damaged.
    async fn bury_damaged(&self, _: &CredentialKey, _: &Event, _: bool) -> Result<bool, Error> {
        Ok(false)
    }

    async fn is_shared(&self, _: &CredentialKey) -> bool {
        false
    }
}

impl Drop for Unlock {
    fn drop(&mut self) {
        if let Some(held) = lock(&self.state).locks.get_mut(&self.name) {
            held.holder = None;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn same(one: &Registration, other: &Registration) -> bool {
    one.issuer == other.issuer && one.client.id == other.client.id
}
