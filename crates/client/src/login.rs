//! Logging in, once for all processes of the machine.
//!
//! ```text
//!  the login lock of the binding -> did another process just do it? adopt -> the flow -> store how it ended -> unlock
//! ```
//!
//! The lock is not the lease: a refresh goes on while a person thinks.

mod ask;
mod static_token;
pub(crate) mod told;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use pilotlight_core::{
    Error,
    credential::{Binding, BindingId, BindingKey, Credential, Version},
    error::{LoginCause, Waited},
    record::Record,
    scope::Scopes,
    time::Now,
};

use crate::{
    cell::{Cell, lock},
    config::{LoggedIn, LoginRequest},
    drive::poll_lock,
    flight::Deadline,
    sessions::Sessions,
    store::{Lease, LockName},
};

impl Sessions {
    /// Logs in, with a person's help where the grant needs one. Of several processes that ask at once, one shows the URL and all go on.
    ///
    /// # Errors
    /// `denied.*`, `peer.*`, `unavailable.*`, `login.abandoned`; `unavailable.login_in_progress` where nobody can be asked
    /// and another process is at it; `config.assertion` and `config.value` where what a grant without a person needs is not
    /// there, or is of no use.
    pub async fn login(&self, request: LoginRequest) -> Result<LoggedIn, Error> {
        let inner = &self.inner;
        let asked_at = inner.clock.now();
        let key = BindingKey::new(request.url.clone(), request.account.clone());
        let id = inner.store.binding_id(&key);
        let unanswered = self.cell(id).and_then(|cell| cell.take_unanswered());
        let refused = unanswered.as_ref().and_then(|one| one.refused);
        let challenge = unanswered.map(|one| one.challenge);
        let alone = inner.human.refuses();
        let patience = if !alone {
            request.timeout
        } else if request.may_need_nobody() {
            inner.limits.lock_wait
        } else {
            Duration::ZERO
        };
        let name = LockName::Login(id);
        let got = poll_lock(&*inner.store, &*inner.clock, name, asked_at.mono + patience).await?;
        let lease = got.map_err(|holder| Error::LoginInProgress { holder })?;
        if let Some(adopted) = self.adopt(&request, &key, id, refused, asked_at).await? {
            return Ok(adopted);
        }
        if alone && !request.may_need_nobody() {
            return Err(Error::login(LoginCause::Never));
        }
        let done = Box::pin(self.ask(request, lease, challenge, None)).await?;
        if let Some(cell) = self.cell(id) {
            drop(inner.spawn(async move { cell.looked().await }));
        }
        let token_host = done
            .credential
            .pins
            .token_endpoint
            .host_str()
            .unwrap_or_default()
            .to_owned();
        let stored = inner.store.binding(&key).await?.ok_or(Error::Bug {
            what: "login: no binding",
        })?;
        Ok(LoggedIn {
            status: inner.status(&stored).await?,
            adopted: false,
            token_host,
            offline_access_offered: done.offline_access_offered,
            former_issuer: done.former_issuer,
            learned: done.learned,
        })
    }

    /// What the sessions of a server share, if there are any.
    fn cell(&self, id: BindingId) -> Option<Arc<Cell>> {
        lock(&self.inner.cells).get(&id).and_then(Weak::upgrade)
    }

    /// The login lock, for a request: it waits for the store no longer than its caller may, and for another's login as long
    /// as a person may take.
    pub(crate) async fn login_lock(
        &self,
        id: BindingId,
        patience: Duration,
        by: Deadline,
    ) -> Result<Lease, Error> {
        let inner = &self.inner;
        let until = inner.clock.now().mono + patience;
        let (mut look, mut by) = (Duration::ZERO, by);
        loop {
            let now = inner.clock.now().mono;
            let end = until.min(now + look);
            let tried = poll_lock(&*inner.store, &*inner.clock, LockName::Login(id), end);
            let holder = match by.limit(Waited::Store, tried).await? {
                Ok(lease) => return Ok(lease),
                Err(holder) => holder,
            };
            let now = inner.clock.now().mono;
            // Given up before the time: its holder is stopped.
            if now >= until || now < end {
                return Err(Error::LoginInProgress { holder });
            }
            look = A_LOOK;
            by = Deadline::after(A_LOOK + inner.limits.caller_wait);
        }
    }

    /// Another process's login, where it ended while this one waited or a moment before, and covers what is asked.
    async fn adopt(
        &self,
        request: &LoginRequest,
        key: &BindingKey,
        id: BindingId,
        refused: Option<Version>,
        asked_at: Now,
    ) -> Result<Option<LoggedIn>, Error> {
        let store = &self.inner.store;
        let Some(outcome) = store.login_outcome(id).await? else {
            return Ok(None);
        };
        // What a request was refused with is no answer to it.
        let is_refused = |version: Version| {
            refused.map(|refused| refused.incarnation) == Some(version.incarnation)
        };
        let now = self.inner.clock.now().wall;
        if outcome.at > now {
            // The clock was set back since: nobody knows when that was (F-19).
            return Ok(None);
        }
        let while_waiting = outcome.at > asked_at.wall;
        if let Some(code) = outcome.code {
            let asked = outcome.authorizations.last();
            let scopes = asked.map_or_else(Scopes::default, |asked| asked.scopes.clone());
            let told = told::decided(&code, &scopes).filter(|_| while_waiting);
            return told.map_or(Ok(None), Err);
        }
        if !while_waiting && outcome.at.until(now) > JUST_NOW {
            return Ok(None);
        }
        if outcome.looked.is_some_and(|looked| looked.named.is_some()) {
            // The server has changed its issuer since: that login is over, however young it is.
            return Ok(None);
        }
        let Some(binding) = store.binding(key).await? else {
            return Ok(None);
        };
        let Some(credential_key) = &binding.credential else {
            return Ok(None);
        };
        let Some(credential) = readable(store.read(credential_key).await)? else {
            return Ok(None);
        };
        let covered = request
            .scopes
            .as_ref()
            .is_none_or(|scopes| credential.scopes_requested.covers(scopes))
            && request
                .client
                .as_ref()
                .is_none_or(|client| client.id == credential.client.id)
            && (request.unattended.is_none() || request.unattended == credential.unattended)
            && request.fits_issuer(&binding, &credential.key.issuer)
            && request.without_resource.is_none_or(|without| {
                without == (binding.without_resource_at.as_ref() == Some(&credential.key.issuer))
            })
            && !(request.bearer && credential.proof_key.is_some())
            && !credential.is_static();
        let status = self.inner.status(&binding).await?;
        if !covered || is_refused(credential.version) || status.state.error().is_some() {
            return Ok(None);
        }
        let token_host = credential
            .pins
            .token_endpoint
            .host_str()
            .unwrap_or_default()
            .to_owned();
        Ok(Some(LoggedIn {
            status,
            adopted: true,
            token_host,
            offline_access_offered: false,
            former_issuer: None,
            learned: Vec::new(),
        }))
    }

    /// The binding to log in for: the one there is, or a new one with a name that nobody has.
    pub(crate) async fn bind(
        &self,
        request: &LoginRequest,
        key: &BindingKey,
    ) -> Result<Binding, Error> {
        let store = &self.inner.store;
        let others = store.bindings().await?;
        let taken = |name: &str| {
            others
                .iter()
                .any(|other| other.name == name && other.key != *key)
        };
        if let Some(name) = request.name.as_ref().filter(|name| taken(name)) {
            let why = format!("{name} is the name of another server; choose another");
            return Err(Error::ConfigValue {
                what: "--name".into(),
                why,
            });
        }
        if let Some(mut binding) = others.iter().find(|other| other.key == *key).cloned() {
            if let Some(name) = &request.name {
                binding.name.clone_from(name);
            }
            if let Some(exception) = &request.exception {
                binding.exception = Some(exception.clone()).filter(|one| !one.is_none());
            }
            let held = match &binding.credential {
                Some(key) => readable(store.read(key).await)?,
                None => None,
            };
            if held.is_some_and(|held| held.is_static()) {
                // A key is nobody's login: what comes now is the first.
                binding = binding.unbound();
            }
            return Ok(binding);
        }
        let wanted = request
            .name
            .clone()
            .unwrap_or_else(|| key.url.url().host_str().unwrap_or("server").to_owned());
        let name = std::iter::once(wanted.clone())
            .chain((2..).map(|n| format!("{wanted}-{n}")))
            .find(|name| !taken(name))
            .ok_or(Error::Bug {
                what: "login: no name left",
            })?;
        Ok(Binding {
            key: key.clone(),
            name,
            credential: None,
            created_at: self.inner.clock.now().wall,
            exception: request.exception.clone().filter(|one| !one.is_none()),
            without_resource_at: None,
            former: Vec::new(),
        })
    }
}

/// The login that was read. One that nobody can read is none: another takes its place.
fn readable(read: Result<Option<Record>, Error>) -> Result<Option<Credential>, Error> {
    match read {
        Err(Error::StoreCorrupt { .. }) => Ok(None),
        read => Ok(read?.and_then(|record| record.credential)),
    }
}

/// A login this young is adopted by another `login` for the same server: both were meant as one.
const JUST_NOW: Duration = Duration::from_secs(10);
/// For so long the lock is tried before it is asked again whether the store answers at all: longer than a stopped holder
/// is waited for.
const A_LOOK: Duration = Duration::from_secs(5);
