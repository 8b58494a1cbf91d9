//! A login in the middle of a session: one for all requests of the bridge, and, by the login lock, for all processes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use pilotlight::{LoginRequest, Sessions, clock::Clock, human::Human as _};
use pilotlight_core::{Error, credential::BindingKey, error::LoginCause, time::Wall};
use tokio::{sync::watch, task::AbortHandle};

use crate::{approver::Approver, config::Config, lock::lock, refusal::Fault};

/// The login that the bridge may ask for.
#[derive(Debug)]
pub(crate) struct Login {
    sessions: Sessions,
    clock: Arc<dyn Clock>,
    request: LoginRequest,
    wait: Duration,
    approver: Arc<Approver>,
    flight: Mutex<Option<Flight>>,
}

#[derive(Debug)]
struct Flight {
    done: watch::Receiver<Option<Result<(), Error>>>,
    task: AbortHandle,
}

/// Whether a login that begins by itself is the answer. Where the server has moved to another issuer, or wants another
/// key, a person has to begin it (T-20, T-28); more scopes the session asks for itself.
pub(crate) fn can_mend(error: &Error) -> bool {
    let Error::LoginRequired { cause } = error else {
        return false;
    };
    matches!(
        cause,
        LoginCause::Never
            | LoginCause::NoRefreshToken
            | LoginCause::RefreshRejected { .. }
            | LoginCause::RegistrationGone
            | LoginCause::Abandoned
    )
}

impl Login {
    pub(crate) fn new(
        sessions: Sessions,
        clock: Arc<dyn Clock>,
        approver: Arc<Approver>,
        config: &Config,
    ) -> Self {
        Self {
            sessions,
            clock,
            request: config.login.clone(),
            wait: config.login_wait,
            approver,
            flight: Mutex::default(),
        }
    }

    /// Asks for a login, or waits for the one that is under way.
    pub(crate) async fn settle(&self, error: Error) -> Result<(), Fault> {
        // A grant that needs no person goes by itself where nobody can be asked.
        let nobody = self.approver.refuses() && !self.request.may_need_nobody();
        if nobody || self.lately_refused().await? {
            return Err(error.into());
        }
        if self.was_in_vain(&error).await {
            return Err(Error::DeniedByResource.into());
        }
        let mut shown = self.approver.shown();
        let mut done = self.joined();
        let url = |shown: &watch::Receiver<Option<crate::approver::Shown>>| {
            let shown = shown.borrow();
            shown.as_ref().map(|shown| shown.url.clone())
        };
        let result = tokio::select! {
            biased;
            ended = done.wait_for(Option::is_some) => match ended.as_deref() {
                Ok(Some(result)) => result.clone(),
                _ => Err(Error::login(LoginCause::Abandoned)),
            },
            // Nothing has opened by itself: the person learns of it by the answer.
            Ok(_) = shown.wait_for(|shown| shown.as_ref().is_some_and(|shown| !shown.in_sight)) => {
                let url = url(&self.approver.shown());
                return Err(Fault::Login { error, url });
            }
            () = tokio::time::sleep(self.wait) => {
                let url = url(&self.approver.shown());
                return Err(Fault::Login { error, url });
            }
        };
        Ok(result?)
    }

    /// A login of any process was refused, or left, less than five minutes ago: nobody is asked again so soon. A store that
    /// cannot be read does not say that nobody has refused.
    async fn lately_refused(&self) -> Result<bool, Error> {
        let key = BindingKey::new(self.request.url.clone(), self.request.account.clone());
        let store = self.sessions.store();
        let Some(outcome) = store.login_outcome(store.binding_id(&key)).await? else {
            return Ok(false);
        };
        let refused = outcome
            .code
            .is_some_and(|code| REFUSALS.contains(&code.as_str()));
        let now = self.clock.now().wall;
        Ok(refused && outcome.at <= now && outcome.at.until(now) < PEACE)
    }

    /// What is said where the login that was just made has mended nothing.
    pub(crate) async fn unmended(&self, error: Error) -> Error {
        match self.was_in_vain(&error).await {
            true => Error::DeniedByResource,
            false => error,
        }
    }

    /// The server refuses the token of a login that is less than five minutes old and that it has never accepted: the next
    /// would fare no better (I-13). Where there is a refresh token the session finds that out by itself. A store that does not
    /// answer stops nobody here: it does so where the refusals are looked for.
    async fn was_in_vain(&self, error: &Error) -> bool {
        let cause = LoginCause::NoRefreshToken;
        if !matches!(error, Error::LoginRequired { cause: why } if *why == cause) {
            return false;
        }
        let key = BindingKey::new(self.request.url.clone(), self.request.account.clone());
        let Ok(Some(binding)) = self.sessions.store().binding(&key).await else {
            return false;
        };
        let Ok(status) = self.sessions.status(&binding).await else {
            return false;
        };
        let now = self.clock.now().wall;
        let young = |at: Wall| at <= now && at.until(now) < PEACE;
        status.last_accepted_at.is_none()
            && status.logged_in_at.is_some_and(young)
            && status.expires_at.is_none_or(|end| now < end)
    }

    fn joined(&self) -> watch::Receiver<Option<Result<(), Error>>> {
        let mut flight = lock(&self.flight);
        if let Some(flight) = flight.as_ref().filter(|flight| !flight.task.is_finished()) {
            return flight.done.clone();
        }
        let (tell, done) = watch::channel(None);
        let (sessions, request) = (self.sessions.clone(), self.request.clone());
        let approver = self.approver.clone();
        let task = tokio::spawn(async move {
            tracing::info!("a login is asked for");
            let ended = Box::pin(sessions.login(request)).await.map(drop);
            if let Err(error) = &ended {
                tracing::warn!(code = error.code(), "the login did not work");
            }
            approver.ended().await;
            tell.send_replace(Some(ended));
        });
        *flight = Some(Flight {
            done: done.clone(),
            task: task.abort_handle(),
        });
        done
    }

    /// Nobody waits for it any more.
    pub(crate) fn abandon(&self) {
        let flight = lock(&self.flight);
        if let Some(flight) = &*flight {
            flight.task.abort();
        }
    }
}

const REFUSALS: [&str; 3] = ["denied.by_human", "denied.by_issuer", "login.abandoned"];
/// For so long after a refusal no login begins by itself.
const PEACE: Duration = Duration::from_secs(300);
