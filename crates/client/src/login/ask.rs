//! Asking the person, under the login lock.
//!
//! ```text
//!  discovery, registration (machines: a request waits no longer than its caller) -> shown -> the person (as long as the
//!     login allows) -> answered: from here on it runs to its end, whoever goes away -> how it ended is noted -> unlock
//! ```

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::HeaderMap;
use pilotlight_core::{
    Error,
    credential::{Binding, BindingId, BindingKey},
    error::{LoginCause, Waited},
    event::{Event, Happened},
    flow::{
        CodePrompt, Prompt,
        login::{self, Login, ShownInVain},
    },
};
use tokio::sync::{oneshot, watch};

use crate::{
    cell::lock,
    config::LoginRequest,
    crypto, dpop,
    flight::Deadline,
    human::Human,
    sessions::Sessions,
    store::{Authorization, Lease},
};

type Ended = Result<Box<login::LoggedIn>, Error>;

impl Sessions {
    /// Asks the person; the lock is held until it is noted how that ended. A request waits for machines until `by`, and then
    /// for the person; whoever called `login` waits for both.
    pub(crate) async fn ask(
        &self,
        request: LoginRequest,
        lease: Lease,
        challenge: Option<HeaderMap>,
        by: Option<Deadline>,
    ) -> Ended {
        let inner = &self.inner;
        let key = BindingKey::new(request.url.clone(), request.account.clone());
        let id = inner.store.binding_id(&key);
        let cell = self.cell(id);
        // Those who wait for the lock learn of it before they have it.
        let failed = |error: Error| {
            if let (Some(cell), Some(scopes)) = (&cell, &request.scopes) {
                cell.step_up_failed(scopes, &error);
            }
            error
        };
        let bound = self.bind(&request, &key);
        let binding = match by {
            Some(by) => by.limit(Waited::Store, bound).await.map_err(failed)?,
            None => bound.await?,
        };
        let patience = request.timeout + inner.limits.caller_wait;
        let (here, left) = oneshot::channel::<()>();
        let (shown, mut is_shown) = watch::channel(false);
        let (sessions, wanted, was_shown) = (self.clone(), request.clone(), is_shown.clone());
        let task = inner.spawn(async move {
            let _lease = lease;
            let answered = Arc::new(AtomicBool::new(false));
            let in_vain = ShownInVain::default();
            let attempt = Attempt {
                shown,
                in_vain: in_vain.clone(),
                answered: answered.clone(),
            };
            let flow = sessions.run_login(&wanted, binding, challenge, attempt);
            let ended = tokio::select! {
                biased;
                () = gone(left, &answered) => None,
                ended = Box::pin(flow) => Some(ended),
            };
            // Whose caller goes away before anybody was asked leaves no trace. Where there is no person it is the issuer who
            // is asked, by whatever is sent.
            if ended.is_some() || *was_shown.borrow() || wanted.unattended.is_some() {
                Box::pin(sessions.note_end(id, wanted, ended.as_ref(), &in_vain)).await;
            }
            ended.unwrap_or(Err(Error::login(LoginCause::Abandoned)))
        });
        let mut ended = pin!(async move { task.await.unwrap_or(Err(Error::ConfigRuntime)) });
        let ended = match by {
            None => ended.await,
            Some(by) => {
                let early = by.limit(Waited::Answer, async {
                    Ok(tokio::select! {
                        biased;
                        ended = &mut ended => Some(ended),
                        Ok(_) = is_shown.wait_for(|shown| *shown) => None,
                    })
                });
                match early.await {
                    Ok(Some(ended)) => ended,
                    Ok(None) => Deadline::after(patience).limit(Waited::Answer, ended).await,
                    Err(late) => Err(failed(late)),
                }
            }
        };
        drop(here);
        let mut done = ended?;
        if let Some(old) = done.superseded.take() {
            inner.retire(*old, &done.credential);
        }
        Ok(done)
    }

    async fn run_login(
        &self,
        request: &LoginRequest,
        binding: Binding,
        challenge: Option<HeaderMap>,
        attempt: Attempt,
    ) -> Ended {
        let inner = &self.inner;
        let former = binding.credential.clone();
        let refused = match request.unattended {
            Some(_) => {
                let id = inner.store.binding_id(&binding.key);
                // Where the store does not tell, nothing is shown: it might be what was refused (EXT-41).
                let before = self.in_time(inner.store.login_outcome(id)).await?;
                before.and_then(|before| before.refused)
            }
            None => None,
        };
        let task = login::Task {
            binding,
            challenge,
            scopes: request.scopes.clone(),
            client: request.client.clone(),
            unattended: request.unattended.clone(),
            refused,
            client_metadata_url: request.client_metadata_url.clone(),
            client_key: request.client_key.clone(),
            without_resource: request.without_resource,
            issuer: request.issuer.clone(),
            trusts_server: request.trusts_server,
            client_name: inner.client_name.clone(),
            redirect: request.redirect.clone(),
            device: request.device,
            authorize_params: request.authorize_params.clone(),
            human_wait: request.timeout,
            process: inner.process,
            proof_key: match request.bearer {
                true => None,
                false => Some(dpop::new_key()?),
            },
            entropy: [crypto::random(), crypto::random(), crypto::random()],
        };
        let mut driver = inner.driver(inner.http_for(&request.url)?);
        driver.human_wait = request.timeout;
        driver.success_url.clone_from(&request.success_url);
        driver.owner.clone_from(&request.owner);
        driver.answered = attempt.answered;
        driver.human = Arc::new(Shown {
            human: driver.human,
            shown: attempt.shown,
        });
        let flow = Login::new(task).leaving(attempt.in_vain);
        let done = Box::pin(driver.run(flow)).await;
        if let (Err(error), Some(former)) = (&done, former) {
            let happened = Happened::LoginFailed {
                code: error.code().to_owned(),
            };
            let event = Event {
                at: inner.clock.now().wall,
                process: inner.process,
                happened,
            };
            if let Err(error) = self.in_time(inner.store.record(&former, &event)).await {
                tracing::debug!(code = error.code(), "a failed login was not recorded");
            }
        }
        done
    }

    /// Notes how a login ended; `None` where its caller did not wait for the person.
    async fn note_end(
        &self,
        id: BindingId,
        request: LoginRequest,
        ended: Option<&Ended>,
        in_vain: &ShownInVain,
    ) {
        let inner = &self.inner;
        let cell = self.cell(id);
        let wanted = || request.scopes.clone().unwrap_or_default();
        let (scopes, code) = match ended {
            Some(Ok(done)) => (done.credential.scopes_requested.clone(), None),
            Some(Err(error)) => (wanted(), Some(error.code())),
            None => (wanted(), Some(Authorization::LEFT)),
        };
        if let (Some(Err(error)), Some(cell), true) = (ended, &cell, request.step_up) {
            cell.step_up_failed(&scopes, error);
        }
        let now = inner.clock.now().wall;
        let mut asked = Authorization::new(scopes, now, code.map(str::to_owned));
        asked.step_up = request.step_up;
        if let Some(Ok(_)) = ended {
            let next = LoginRequest::new(request.url.clone(), request.account.clone());
            lock(&inner.requests).insert(id, next.asking_as(&request));
        }
        let noted = self.in_time(async {
            let stored = inner.store.login_outcome(id).await?.unwrap_or_default();
            let mut before = match &cell {
                Some(cell) => cell.with_unnoted(stored),
                None => stored,
            };
            before.refused = match ended {
                Some(Ok(_)) => None,
                // A refusal is of what was shown; where nothing was, what was refused before still is.
                _ => in_vain.get().copied().or(before.refused),
            };
            if let Some(Ok(_)) = ended {
                before.looked = None;
            }
            let outcome = match ended {
                Some(_) => before.then(asked.clone()),
                // Nobody waits for the end of what was given up.
                None => before.and(asked.clone()),
            };
            inner.store.put_login_outcome(id, &outcome).await
        });
        let unnoted = match noted.await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(
                    code = error.code(),
                    "how the login ended could not be stored"
                );
                Some(asked)
            }
        };
        if let Some(cell) = cell {
            cell.noted(unnoted);
        }
    }

    /// Waits for a store as long as a caller waits for anything: what it is told here can be done without.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let by = Deadline::after(self.inner.limits.caller_wait);
        by.limit(Waited::Store, work).await
    }
}

/// What one run of a login is given beside what was asked for.
struct Attempt {
    shown: watch::Sender<bool>,
    in_vain: ShownInVain,
    answered: Arc<AtomicBool>,
}

/// Tells when the person is asked.
#[derive(Debug)]
struct Shown {
    human: Arc<dyn Human>,
    shown: watch::Sender<bool>,
}

#[async_trait]
impl Human for Shown {
    fn refuses(&self) -> bool {
        self.human.refuses()
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        self.shown.send_replace(true);
        self.human.approve(prompt).await
    }

    async fn show_code(&self, prompt: &CodePrompt) -> Result<(), Error> {
        self.shown.send_replace(true);
        self.human.show_code(prompt).await
    }
}

/// Waits until the caller has gone away before the person answered. After that the code is spent, and with some issuers so
/// is the login before it: then nobody's leaving ends it. The same goes for each question about a login on another device,
/// until its answer is there.
async fn gone(left: oneshot::Receiver<()>, answered: &AtomicBool) {
    let _ = left.await;
    while answered.load(Ordering::Acquire) {
        tokio::time::sleep(A_MOMENT).await;
    }
}

/// How soon it is noticed that a question was answered by no more than that the person is still awaited.
const A_MOMENT: Duration = Duration::from_millis(50);
