//! A login in the middle of a session: one for all requests of the bridge, and, by the login lock, for all processes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use pilotlight::{LoginRequest, Sessions, clock::Clock, human::Human as _};
use pilotlight_core::{Error, credential::BindingKey, error::LoginCause};
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
        if self.approver.refuses() || self.lately_refused().await? {
            return Err(error.into());
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
