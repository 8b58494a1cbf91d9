//! Logging out: everything that is stored for a server, at whichever issuer, is over here, and its issuer is told (RFC 7009).
//!
//! What is damaged keeps nobody from logging out: it is buried as it is, and its issuer cannot be told.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use pilotlight_core::{
    Error,
    credential::{BindingKey, Credential, CredentialKey},
    error::LoginCause,
    event::{Event, Happened, Revocation},
    flow::{
        logout::{self, Logout},
        refresh::Gain,
    },
};

use crate::{
    cell::lock,
    drive::poll_lock,
    sessions::{Inner, Sessions},
    store::LockName,
};

impl Sessions {
    /// Logs out: a tombstone here, a revocation at the issuer (RFC 7009) unless `local`. Logins at issuers that the server has
    /// left are ended with it.
    ///
    /// # Errors
    /// `login.never` where nobody is logged in; `unavailable.store`.
    pub async fn logout(&self, key: &BindingKey, local: bool) -> Result<Revocation, Error> {
        let inner = &self.inner;
        let binding = inner
            .store
            .binding(key)
            .await?
            .ok_or(Error::login(LoginCause::Never))?;
        let credential = binding.credential.ok_or(Error::login(LoginCause::Never))?;
        let mut former = binding.former;
        if !former.is_empty() {
            // What another server's entry still lives on is not over with this one.
            let others = inner.store.bindings().await?;
            former.retain(|former| {
                let mut held = others.iter().filter_map(|other| other.credential.as_ref());
                !held.any(|held| held == former)
            });
        }
        let mut unreadable = false;
        for key in std::iter::once(&credential).chain(&former) {
            unreadable |= inner.bury_damaged(key, local).await?;
        }
        let task = logout::Task {
            key: credential,
            local,
            process: inner.process,
        };
        let driver = inner.driver(inner.http_for(&key.url)?);
        let flow = Logout::new(task).and_former(former);
        let done = Box::pin(driver.run(flow)).await;
        let id = inner.store.binding_id(key);
        lock(&inner.requests).remove(&id);
        let cell = lock(&inner.cells).get(&id).and_then(Weak::upgrade);
        if let Some(cell) = cell {
            // A tombstone is what it finds: the session in memory ends too.
            drop(cell.load().await);
        }
        match done {
            Ok(_) if unreadable && !local => Ok(Revocation::Unreadable),
            Err(error) if unreadable && error == Error::login(LoginCause::Never) => {
                Ok(match local {
                    true => Revocation::Local,
                    false => Revocation::Unreadable,
                })
            }
            done => done,
        }
    }

    /// Works off the revocations that an earlier logout could not deliver; answers how many the issuers took.
    ///
    /// # Errors
    /// `unavailable.store`.
    pub async fn retry_revocations(&self) -> Result<usize, Error> {
        let inner = &self.inner;
        let mut done = 0;
        for waiting in inner.store.revocations().await? {
            let key = waiting.credential.key.clone();
            let incarnation = waiting.credential.version.incarnation;
            let management = waiting
                .unshared
                .and_then(|registration| registration.management);
            if waiting.queued_at.until(inner.clock.now().wall) > GIVEN_UP_AFTER {
                inner.store.revoked(&key, incarnation).await?;
                continue;
            }
            let task = logout::Task {
                key: key.clone(),
                local: false,
                process: inner.process,
            };
            let driver = inner.driver(inner.http_for(&key.resource)?);
            let ended =
                Box::pin(driver.run(Logout::queued(task, waiting.credential, management))).await?;
            done += usize::from(ended != Revocation::Queued);
        }
        Ok(done)
    }
}

impl Inner {
    /// Buries a login that cannot be read any more, if it is one; answers whether it was.
    async fn bury_damaged(&self, key: &CredentialKey, local: bool) -> Result<bool, Error> {
        let Err(Error::StoreCorrupt { .. }) = self.store.read(key).await else {
            return Ok(false);
        };
        let name = LockName::Refresh(self.store.credential_id(key));
        let now = self.clock.now();
        let until = now.mono + self.limits.lock_wait;
        let _lease = poll_lock(&*self.store, &*self.clock, name, until)
            .await?
            .map_err(|holder| Error::LeaseHeld { holder })?;
        let event = Event {
            at: now.wall,
            process: self.process,
            happened: Happened::LoggedOut { local },
        };
        self.store.bury_damaged(key, &event, !local).await
    }

    /// Revokes a superseded login in the background, where the issuer surely keeps it apart from the new one: issuers that
    /// hold one grant for each user and client would end the new login with the old.
    pub(crate) fn retire(self: &Arc<Self>, old: Credential, new: &Credential) {
        if old.client.id == new.client.id || old.is_static() {
            return;
        }
        let inner = self.clone();
        drop(self.spawn(async move {
            let task = logout::Task {
                key: old.key.clone(),
                local: false,
                process: inner.process,
            };
            let driver = inner.driver(inner.http_for(&old.key.resource)?);
            Box::pin(driver.run(Logout::queued(task, old, None)))
                .await
                .map(|_| Gain::Nothing)
        }));
    }
}

/// For so long an issuer that cannot be reached is tried.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(7 * 86_400);
