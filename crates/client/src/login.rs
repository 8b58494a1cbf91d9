//! Logging in, once for all processes of the machine.
//!
//! ```text
//!  the login lock of the binding -> did another process just do it? adopt -> the flow -> store how it ended -> unlock
//! ```
//!
//! The lock is not the lease: a refresh goes on while a person thinks.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use pilotlight_core::{
    Error,
    credential::{Binding, BindingId, BindingKey, Credential, Version},
    error::LoginCause,
    event::{Event, Happened},
    flow::{
        login::{self, Login},
        logout::{self, Logout},
        refresh::Gain,
    },
    time::Now,
};

use tokio::task::AbortHandle;

use crate::{
    cell::lock,
    config::{LoggedIn, LoginRequest},
    crypto, dpop,
    drive::poll_lock,
    secrets::Witness,
    sessions::Sessions,
    store::{Authorization, LockName},
};

impl Sessions {
    /// Logs in, with a person's help where the grant needs one. Of several processes that ask at once, one shows the URL and all go on.
    ///
    /// # Errors
    /// `denied.*`, `peer.*`, `unavailable.*`, `login.abandoned`; `unavailable.login_in_progress` where nobody can be asked
    /// and another process is at it; `config.assertion` and `config.value` where what a grant without a person needs is not
    /// there, or is of no use.
    pub async fn login(&self, mut request: LoginRequest) -> Result<LoggedIn, Error> {
        let inner = &self.inner;
        let asked_at = inner.clock.now();
        let key = BindingKey::new(request.url.clone(), request.account.clone());
        let id = inner.store.binding_id(&key);
        let cell = lock(&inner.cells).get(&id).and_then(Weak::upgrade);
        let unanswered = cell.and_then(|cell| cell.take_unanswered());
        request.refused = request
            .refused
            .or(unanswered.as_ref().and_then(|one| one.refused));
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
        if let Some(adopted) = self.adopt(&request, &key, id, asked_at).await? {
            return Ok(adopted);
        }
        if alone && !request.may_need_nobody() {
            return Err(Error::login(LoginCause::Never));
        }
        let binding = self.bind(&request, &key).await?;
        lock(&inner.requests).insert(id, request.clone());
        // From the person's answer on the login runs to its end, whoever goes away: the code is spent, and with some issuers
        // so is the login before it.
        let answered = Arc::new(AtomicBool::new(false));
        let (sessions, wanted, flag) = (self.clone(), request.clone(), answered.clone());
        let task = inner.spawn(async move {
            let _lease = lease;
            let before = sessions.inner.store.login_outcome(id).await;
            let mut before = before.ok().flatten().unwrap_or_default();
            let shown = Arc::new(Witness::new(sessions.inner.secrets.clone()));
            let attempt = Attempt {
                refused: before.refused,
                secrets: shown.clone(),
                answered: flag,
            };
            let done = Box::pin(sessions.run_login(&wanted, binding, challenge, attempt)).await;
            match &done {
                Ok(_) => before.refused = None,
                Err(Error::DeniedByIssuer { .. }) => {
                    before.refused = shown.last(&wanted).or(before.refused);
                }
                Err(_) => {}
            }
            let asked = Authorization {
                scopes: match &done {
                    Ok(done) => done.credential.scopes_requested.clone(),
                    Err(_) => wanted.scopes.clone().unwrap_or_default(),
                },
                at: sessions.inner.clock.now().wall,
                code: done.as_ref().err().map(|error| error.code().to_owned()),
                step_up: wanted.step_up,
            };
            let outcome = before.then(asked);
            if let Err(error) = sessions.inner.store.put_login_outcome(id, &outcome).await {
                tracing::warn!(
                    code = error.code(),
                    "how the login ended could not be stored"
                );
            }
            done
        });
        let _unless_answered = AbortUnlessAnswered {
            task: task.abort_handle(),
            answered,
        };
        let done = task.await.unwrap_or(Err(Error::ConfigRuntime));
        let done = done?;
        if let Some(cell) = lock(&inner.cells).get(&id).and_then(Weak::upgrade) {
            let task = inner.spawn(async move { cell.load().await.map(|()| Gain::Adopted) });
            drop(task);
        }
        let token_host = done
            .credential
            .pins
            .token_endpoint
            .host_str()
            .unwrap_or_default()
            .to_owned();
        let offline_access_offered = done.offline_access_offered;
        if let Some(old) = done.superseded {
            self.retire(*old, &done.credential);
        }
        let stored = inner.store.binding(&key).await?.ok_or(Error::Bug {
            what: "login: no binding",
        })?;
        Ok(LoggedIn {
            status: inner.status(&stored).await?,
            adopted: false,
            token_host,
            offline_access_offered,
        })
    }

    /// Another process's login, where it ended while this one waited or a moment before, and covers what is asked.
    async fn adopt(
        &self,
        request: &LoginRequest,
        key: &BindingKey,
        id: BindingId,
        asked_at: Now,
    ) -> Result<Option<LoggedIn>, Error> {
        let store = &self.inner.store;
        let Some(outcome) = store.login_outcome(id).await? else {
            return Ok(None);
        };
        // What a request was refused with is no answer to it.
        let is_refused = |version: Version| {
            let refused = request.refused.map(|refused| refused.incarnation);
            refused == Some(version.incarnation)
        };
        let now = self.inner.clock.now().wall;
        let while_waiting = outcome.at >= asked_at.wall;
        if let Some(code) = outcome.code {
            return match code.as_str() {
                "denied.by_human" if while_waiting => Err(Error::DeniedByHuman),
                "login.abandoned" if while_waiting => Err(Error::login(LoginCause::Abandoned)),
                "denied.by_issuer" if while_waiting => Err(Error::DeniedByIssuer {
                    error: "as another process was just told".into(),
                }),
                _ => Ok(None),
            };
        }
        if !while_waiting && outcome.at.until(now) > JUST_NOW {
            return Ok(None);
        }
        let Some(binding) = store.binding(key).await? else {
            return Ok(None);
        };
        let Some(credential_key) = &binding.credential else {
            return Ok(None);
        };
        let Some(credential) = store
            .read(credential_key)
            .await?
            .and_then(|record| record.credential)
        else {
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
            && (request.unattended.is_none() || request.unattended == credential.unattended);
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
        }))
    }

    /// The binding to log in for: the one there is, or a new one with a name that nobody has.
    async fn bind(&self, request: &LoginRequest, key: &BindingKey) -> Result<Binding, Error> {
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
        })
    }

    async fn run_login(
        &self,
        request: &LoginRequest,
        binding: Binding,
        challenge: Option<HeaderMap>,
        attempt: Attempt,
    ) -> Result<Box<login::LoggedIn>, Error> {
        let inner = &self.inner;
        let former = binding.credential.clone();
        let task = login::Task {
            binding,
            challenge,
            scopes: request.scopes.clone(),
            client: request.client.clone(),
            unattended: request.unattended.clone(),
            refused: attempt.refused,
            client_metadata_url: request.client_metadata_url.clone(),
            client_name: inner.client_name.clone(),
            callback: request.callback.clone(),
            process: inner.process,
            proof_key: Some(dpop::new_key()?),
            entropy: [crypto::random(), crypto::random(), crypto::random()],
        };
        let mut driver = inner.driver(inner.http_for(&request.url)?);
        driver.human_wait = request.timeout;
        driver.answered = attempt.answered;
        driver.secrets = attempt.secrets;
        let done = Box::pin(driver.run(Login::new(task))).await;
        if let (Err(error), Some(former)) = (&done, former) {
            let happened = Happened::LoginFailed {
                code: error.code().to_owned(),
            };
            let event = Event {
                at: inner.clock.now().wall,
                process: inner.process,
                happened,
            };
            if let Err(error) = inner.store.record(&former, &event).await {
                tracing::debug!(code = error.code(), "a failed login was not recorded");
            }
        }
        done
    }

    /// Revokes a superseded login in the background, where the issuer surely keeps it apart from the new one: issuers that
    /// hold one grant for each user and client would end the new login with the old.
    fn retire(&self, old: Credential, new: &Credential) {
        if old.client.id == new.client.id {
            return;
        }
        let inner = self.inner.clone();
        drop(self.inner.spawn(async move {
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

/// What one run of a login is given beside what was asked for.
struct Attempt {
    refused: Option<[u8; 32]>,
    secrets: Arc<Witness>,
    answered: Arc<AtomicBool>,
}

/// Ends a login whose caller went away before the person answered; the listener and the lock go with it.
struct AbortUnlessAnswered {
    task: AbortHandle,
    answered: Arc<AtomicBool>,
}

impl Drop for AbortUnlessAnswered {
    fn drop(&mut self) {
        if !self.answered.load(Ordering::Acquire) {
            self.task.abort();
        }
    }
}

/// A login this young is adopted by another `login` for the same server: both were meant as one.
const JUST_NOW: Duration = Duration::from_secs(10);
