//! When a login has ended: a look at whom its server trusts now, at most once an hour for all processes.
//!
//! ```text
//!  login-ending error -> looked within the hour? what was found
//!      -> the login lock, without waiting: noted that somebody looks -> metadata, read-only -> what was found is noted
//! ```
//!
//! Nothing is decided by it and nothing is sent but requests for documents: a session lives on its pins until its own issuer
//! ends it (T-15). The person only learns that their next login is at another issuer.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use pilotlight_core::{
    Error,
    credential::{Binding, Credential},
    error::{Certainty, LoginCause, Waited},
    flow::look::{self, Look},
    issuer::Issuer,
    state::State,
};

use crate::{
    cell::Cell,
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
        let (cell, former, challenge) = (Arc::clone(self), issuer.clone(), answer.cloned());
        // It ends although its caller goes away: it is the only one for an hour.
        let work = self
            .inner
            .spawn_aside(async move { Box::pin(cell.named_instead_of(former, challenge)).await });
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

    async fn named_instead_of(
        &self,
        issuer: Issuer,
        challenge: Option<HeaderMap>,
    ) -> Result<Option<Issuer>, Error> {
        let binding = self.binding();
        let store = &self.inner.store;
        let id = store.binding_id(&binding.key);
        let now = self.inner.clock.now().wall;
        let lately = |looked: &LookedAt| {
            looked.issuer == issuer && looked.at <= now && looked.at.until(now) < AN_HOUR
        };
        let outcome = store.login_outcome(id).await?.unwrap_or_default();
        if let Some(looked) = outcome.looked.filter(lately) {
            return Ok(looked.named);
        }
        // Whoever logs in finds out anyway.
        let Locked::Got(lease) = store.try_lock(LockName::Login(id)).await? else {
            return Ok(None);
        };
        let mut outcome = store.login_outcome(id).await?.unwrap_or_default();
        if let Some(looked) = outcome.looked.filter(lately) {
            return Ok(looked.named);
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
        let Some(named) = Box::pin(driver.run(Look::new(task))).await? else {
            return Ok(None);
        };
        if let Locked::Got(_lease) = store.try_lock(LockName::Login(id)).await? {
            let mut outcome = store.login_outcome(id).await?.unwrap_or_default();
            if let Some(looked) = outcome.looked.as_mut().filter(|looked| lately(looked)) {
                looked.named = Some(named.clone());
                store.put_login_outcome(id, &outcome).await?;
            }
        }
        Ok(Some(named))
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

const AN_HOUR: Duration = Duration::from_secs(3600);
