//! When a login has ended: a look at whom its server trusts now, at most once an hour for all processes.
//!
//! ```text
//!  login-ending error -> known in memory? that; else looked within the hour? what was found
//!      -> the login lock, without waiting: noted that somebody looks -> metadata, read-only -> what was found is noted
//! ```
//!
//! Nothing is decided by it and nothing is sent but requests for documents: a session lives on its pins until its own issuer
//! ends it (T-15). The person only learns that their next login is at another issuer.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use pilotlight_core::{
    Error,
    credential::{Binding, Credential, Incarnation},
    error::{Certainty, LoginCause, Waited},
    flow::look::{self, Look},
    issuer::Issuer,
    state::State,
    time::Wall,
};

use crate::{
    cell::{Cell, lock},
    flight::Deadline,
    sessions::Inner,
    store::{LockName, Locked, LookedAt},
};

impl Cell {
    /// The same error, or what lies behind it: the server has changed its issuer. `answer` has the headers of a 401 that the
    /// server has just given, so that it need not be asked.
    pub(crate) async fn explained(
        self: &Arc<Self>,
        error: Error,
        answer: Option<&HeaderMap>,
        by: Deadline,
    ) -> Error {
        let Some(credential) = self.credential().ok().filter(|_| has_ended(&error)) else {
            return error;
        };
        let issuer = credential.key.issuer;
        let login = credential.version.incarnation;
        if let Some(named) = self.found(login) {
            return named.map_or(error, |named| changed(&issuer, &named));
        }
        let (cell, former, challenge) = (Arc::clone(self), issuer.clone(), answer.cloned());
        // It ends although its caller goes away: it is the only one for an hour.
        let work = self.inner.spawn_aside(async move {
            let found = Box::pin(cell.named_instead_of(former, challenge)).await?;
            let named = found.named.clone();
            *lock(&cell.found) = Some((login, found));
            Ok(named)
        });
        let named = by.limit(Waited::Answer, async {
            work.await.unwrap_or(Err(Error::ConfigRuntime))
        });
        match named.await {
            Ok(Some(named)) => changed(&issuer, &named),
            Ok(None) => error,
            Err(unknown) => {
                tracing::debug!(code = unknown.code(), "whom the server trusts is not known");
                error
            }
        }
    }

    /// What is known without the store: who goes on to be refused does not ask it each time (T-45).
    fn found(&self, login: Incarnation) -> Option<Option<Issuer>> {
        let now = self.inner.clock.now().wall;
        let found = lock(&self.found);
        let (of, found) = found.as_ref()?;
        let holds = *of == login && found.since <= now && found.since.until(now) < found.lasts;
        holds.then(|| found.named.clone())
    }

    async fn named_instead_of(
        &self,
        issuer: Issuer,
        challenge: Option<HeaderMap>,
    ) -> Result<Found, Error> {
        let binding = self.binding();
        let store = &self.inner.store;
        let id = store.binding_id(&binding.key);
        let now = self.inner.clock.now().wall;
        let lately = |looked: &LookedAt| {
            looked.issuer == issuer && looked.at <= now && looked.at.until(now) < AN_HOUR
        };
        let outcome = store.login_outcome(id).await?.unwrap_or_default();
        if let Some(looked) = outcome.looked.filter(lately) {
            return Ok(Found::by_another(looked, now));
        }
        // Whoever logs in finds out anyway.
        let Locked::Got(lease) = store.try_lock(LockName::Login(id)).await? else {
            return Ok(Found {
                named: None,
                since: now,
                lasts: A_MOMENT,
            });
        };
        let mut outcome = store.login_outcome(id).await?.unwrap_or_default();
        if let Some(looked) = outcome.looked.filter(lately) {
            return Ok(Found::by_another(looked, now));
        }
        outcome.looked = Some(LookedAt::new(now, issuer.clone()));
        store.put_login_outcome(id, &outcome).await?;
        // Nobody who wants to log in waits for the documents.
        drop(lease);
        let task = look::Task {
            server: binding.key.url.clone(),
            issuer: issuer.clone(),
            exception: binding.exception,
            challenge,
        };
        let driver = self.inner.driver(self.http()?);
        let named = Box::pin(driver.run(Look::new(task))).await?;
        let found = Found {
            named,
            since: now,
            lasts: AN_HOUR,
        };
        let Some(named) = found.named.clone() else {
            return Ok(found);
        };
        if let Locked::Got(_lease) = store.try_lock(LockName::Login(id)).await? {
            let mut outcome = store.login_outcome(id).await?.unwrap_or_default();
            if let Some(looked) = outcome.looked.as_mut().filter(|looked| lately(looked)) {
                looked.named = Some(named.clone());
                store.put_login_outcome(id, &outcome).await?;
            }
        }
        Ok(found)
    }
}

/// What a look has found, and how long that is taken for known.
#[derive(Debug)]
pub(crate) struct Found {
    named: Option<Issuer>,
    since: Wall,
    lasts: Duration,
}

impl Found {
    /// Somebody else looked: where they have found nothing they may just not be done.
    fn by_another(looked: LookedAt, now: Wall) -> Self {
        let LookedAt { at, named, .. } = looked;
        let (since, lasts) = match named {
            Some(_) => (at, AN_HOUR),
            None => (now, A_MOMENT),
        };
        Self {
            named,
            since,
            lasts,
        }
    }
}

impl Inner {
    /// The state, with what a look has found since the login ended.
    pub(crate) async fn told_more(
        &self,
        state: State,
        binding: &Binding,
        credential: Option<&Credential>,
    ) -> Result<State, Error> {
        let (Some(credential), Some(error)) = (credential, state.error()) else {
            return Ok(state);
        };
        if !has_ended(&error) {
            return Ok(state);
        }
        let id = self.store.binding_id(&binding.key);
        let outcome = self.store.login_outcome(id).await?;
        let looked = outcome.and_then(|outcome| outcome.looked);
        let looked = looked.filter(|looked| looked.issuer == credential.key.issuer);
        Ok(match looked.and_then(|looked| looked.named) {
            Some(named) => State::LoginRequired {
                cause: cause(&credential.key.issuer, &named),
            },
            None => state,
        })
    }
}

/// Whether nothing but a person helps any more.
fn has_ended(error: &Error) -> bool {
    match error {
        Error::DeniedByResource => true,
        Error::LoginRequired { cause } => matches!(
            cause,
            LoginCause::NoRefreshToken
                | LoginCause::RegistrationGone
                | LoginCause::EndpointMoved
                | LoginCause::RefreshRejected {
                    certainty: Certainty::Certain,
                    ..
                }
        ),
        _ => false,
    }
}

fn changed(former: &Issuer, named: &Issuer) -> Error {
    Error::login(cause(former, named))
}

fn cause(former: &Issuer, named: &Issuer) -> LoginCause {
    LoginCause::IssuerChanged {
        former: former.as_str().to_owned(),
        issuer: named.as_str().to_owned(),
    }
}

/// For so long nobody asks again whether a look has ended.
const A_MOMENT: Duration = Duration::from_secs(5);
const AN_HOUR: Duration = Duration::from_secs(3600);
