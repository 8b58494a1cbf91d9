//! The driver: does what a flow's steps ask for, one at a time, and reports back what came of each.
//!
//! It decides nothing. A lock is polled with jitter; the redirect comes from the listener, the person or the program, whichever
//! is first; locks and listener end with the run, however it ends.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pilotlight_core::{
    Error,
    error::{Holder, LoginCause},
    exchange::{Delivery, Exchange, Exchanged, Failure, Fault},
    flow::{Act, Answer, Flow, Lock, Prompt, Reading, Step, Turn},
    time::Mono,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use url::{Origin, Url};

use crate::{
    callback::{Deliveries, Listener},
    cell::lock,
    clock::Clock,
    crypto,
    dpop::{Peers, Role},
    http::Http,
    human::Human,
    secrets::{self, Secrets},
    store::{Lease, LockName, Locked, Store},
};

/// What a flow is driven with.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) http: Arc<dyn Http>,
    pub(crate) human: Arc<dyn Human>,
    /// The redirects that the embedding program hands in.
    pub(crate) deliveries: Arc<Deliveries>,
    /// Whose login it is, where a redirect is handed in.
    pub(crate) owner: Option<String>,
    pub(crate) secrets: Arc<dyn Secrets>,
    pub(crate) peers: Peers,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a lock is waited for.
    pub(crate) lock_wait: Duration,
    /// How long a person is waited for.
    pub(crate) human_wait: Duration,
    /// Where the browser is sent on.
    pub(crate) success_url: Option<Url>,
    /// Set once a person has answered: from then on the flow must run to its end.
    pub(crate) answered: Arc<AtomicBool>,
}

/// The refreshes that are under way: at most eight of this process at each issuer, and so no more token calls (I-9).
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Origin, Arc<Semaphore>>>);

impl Turns {
    /// Waits for a turn at an issuer: before the lease, so that neither another process nor a repeat, whose window closes,
    /// ever waits for it.
    pub(crate) async fn turn(&self, issuer: Origin) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut all = lock(&self.0);
            all.entry(issuer)
                .or_insert_with(|| Arc::new(Semaphore::new(MOST_AT_ONCE)))
                .clone()
        };
        turns.acquire_owned().await.ok()
    }
}

const MOST_AT_ONCE: usize = 8;

/// What a run holds and lets go of; what a flow ends without letting go of stays with its caller.
#[derive(Debug, Default)]
pub(crate) struct Held {
    locks: Vec<(Lock, Lease)>,
    listener: Option<Listener>,
    /// Whether the issuer is being asked what came of a code that was shown.
    asking: bool,
}

impl Driver {
    /// Drives a flow to its outcome; whatever it held is let go of.
    pub(crate) async fn run<F: Flow>(&self, flow: F) -> F::Outcome {
        self.run_with(flow, &mut Held::default()).await
    }

    /// Drives a flow to its outcome with what an earlier run left held.
    pub(crate) async fn run_with<F: Flow>(&self, flow: F, held: &mut Held) -> F::Outcome {
        let mut turn = flow.start(self.clock.now());
        loop {
            match turn {
                Turn::Done(outcome) => return outcome,
                Turn::Next(flow, Step { act, wake_at }) => {
                    let answer = match act {
                        Some(act) => Box::pin(self.perform(act, held)).await,
                        None => {
                            if held.asking {
                                self.answered.store(false, Ordering::Release);
                            }
                            self.wait_until(wake_at).await
                        }
                    };
                    turn = flow.handle(answer, self.clock.now());
                }
            }
        }
    }

    async fn wait_until(&self, at: Option<Mono>) -> Answer {
        if let Some(at) = at {
            tokio::time::sleep(self.clock.now().mono.until(at)).await;
        }
        Answer::Woken
    }

    async fn perform(&self, act: Act, held: &mut Held) -> Answer {
        let store = &self.store;
        match act {
            Act::Send(exchange) => {
                if held.asking {
                    // It may bring the tokens.
                    self.answered.store(true, Ordering::Release);
                }
                Answer::Exchanged(self.send_proven(*exchange).await)
            }
            Act::Lock(lock) if held.locks.iter().any(|(name, _)| *name == lock) => {
                let fence = held
                    .locks
                    .iter()
                    .find(|(name, _)| *name == lock)
                    .map(|(_, lease)| lease.fence);
                Answer::Locked(Ok(fence.unwrap_or_default()))
            }
            Act::Lock(lock) => match self.lock(&lock).await {
                Ok(lease) => {
                    let fence = lease.fence;
                    held.locks.push((lock, lease));
                    Answer::Locked(Ok(fence))
                }
                Err(error) => Answer::Locked(Err(error)),
            },
            Act::Unlock(lock) => {
                held.locks.retain(|(name, _)| *name != lock);
                Answer::Done(Ok(()))
            }
            Act::Reread(key) => Answer::Read(match store.read(&key).await {
                Ok(record) => {
                    // Notes only tune a policy: where they cannot be read, nothing is known.
                    let notes = store.notes(&key.issuer).await.unwrap_or_default();
                    Ok(Box::new(Reading {
                        record,
                        notes,
                        writable: store.writable(),
                    }))
                }
                Err(error) => Err(error),
            }),
            Act::Note {
                key,
                version,
                facts,
                event,
            } => Answer::Noted(store.note(&key, version, &facts, event.as_ref()).await),
            Act::Commit(commit) => Answer::Committed(store.commit(&commit).await),
            Act::Spool {
                follows,
                credential,
            } => Answer::Done(store.spool(follows, &credential).await),
            Act::SpoolAttempt {
                key,
                version,
                attempt,
            } => Answer::Done(store.spool_attempt(&key, version, attempt.as_ref()).await),
            Act::PrepareSpool(key) => Answer::Done(store.prepare_spool(&key).await),
            Act::Learn(issuer, notes) => Answer::Done(store.learn(&issuer, &notes).await),
            Act::FindRegistrations(issuer) => {
                Answer::Registered(store.registrations(&issuer).await)
            }
            Act::KeepRegistration(registration) => {
                Answer::Done(store.put_registration(&registration).await)
            }
            Act::ForgetRegistration(registration) => {
                Answer::Done(store.forget_registration(&registration).await)
            }
            Act::OpenCallback(callback) => {
                Answer::CallbackOpen(match Listener::open(&callback).await {
                    Ok(listener) => {
                        let listener = listener.sending_on_to(self.success_url.clone());
                        let uri = listener.redirect_uri();
                        held.listener = Some(listener);
                        Ok(uri)
                    }
                    Err(error) => Err(error),
                })
            }
            Act::Show(prompt) => {
                // It may be the second one of a login.
                self.answered.store(false, Ordering::Release);
                let redirect = self.show(&prompt, held.listener.as_mut()).await;
                self.answered.store(true, Ordering::Release);
                Answer::Redirected(redirect)
            }
            Act::ShowCode(prompt) => {
                held.asking = true;
                Answer::Done(self.human.show_code(&prompt).await)
            }
            Act::CloseCallback => {
                held.listener = None;
                Answer::Done(Ok(()))
            }
            Act::Bury { key, event, revoke } => Answer::Buried(
                store
                    .bury(&key, &event, revoke)
                    .await
                    .map(|buried| buried.map(Box::new)),
            ),
            Act::Revoked(key, incarnation) => Answer::Done(store.revoked(&key, incarnation).await),
            Act::PutBinding(binding) => Answer::Done(store.put_binding(&binding).await),
            Act::Record(key, event) => Answer::Done(store.record(&key, &event).await),
            Act::ReadSecret(reference) => {
                Answer::Secret(secrets::read_line(&*self.secrets, &reference).await)
            }
        }
    }

    /// Sends a request, with what it was ordered without: signed as it departs, so that each repeat has an assertion of its
    /// own, dated by the issuer's clock as far as that is known. What cannot be completed is not sent; the time that it takes
    /// is part of the exchange's.
    pub(crate) async fn send(&self, mut exchange: Exchange) -> Exchanged {
        let orders = &exchange.orders;
        if orders.secret.is_none() && orders.assertion.is_none() {
            return self.http.send(exchange).await;
        }
        let (now, within, begun) = (self.clock.now(), exchange.within, Instant::now());
        let host = exchange.host();
        let not_sent = |fault| {
            let delivery = Delivery::NotDelivered;
            Err(Failure {
                delivery,
                fault,
                host,
                sent_at: now,
            })
        };
        let peer = self.peers.of(Role::Issuer, &exchange.url.origin());
        let completed = secrets::complete(&*self.secrets, &mut exchange, peer.time(now.wall));
        match tokio::time::timeout(within, completed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return not_sent(Fault::Unsigned(Box::new(error))),
            Err(_) => return not_sent(Fault::Deadline(within)),
        }
        exchange.within = within.saturating_sub(begun.elapsed());
        let mut sent = self.http.send(exchange).await;
        if let Err(Failure {
            fault: Fault::Deadline(limit),
            ..
        }) = &mut sent
        {
            *limit = within;
        }
        sent
    }

    /// Shows the URL and waits for the redirect: at the listener, pasted by the person, or handed in by the program, whichever is
    /// first.
    async fn show(
        &self,
        prompt: &Prompt,
        listener: Option<&mut Listener>,
    ) -> Result<Vec<(String, String)>, Error> {
        let listened = async {
            match listener {
                Some(listener) => listener.wait(&prompt.state).await,
                None => std::future::pending().await,
            }
        };
        let mut delivered = self.deliveries.expect(&prompt.state, self.owner.as_deref());
        tokio::select! {
            redirect = listened => redirect,
            redirect = delivered.wait() => Ok(redirect),
            pasted = self.human.approve(prompt) => pasted,
            () = tokio::time::sleep(self.human_wait) => Err(Error::login(LoginCause::Abandoned)),
        }
    }

    async fn lock(&self, lock: &Lock) -> Result<Lease, Error> {
        let name = match lock {
            Lock::Refresh(key) => LockName::Refresh(self.store.credential_id(key)),
            Lock::Register(issuer) => LockName::Register(self.store.issuer_id(issuer)),
        };
        let until = self.clock.now().mono + self.lock_wait;
        poll_lock(&*self.store, &*self.clock, name, until)
            .await?
            .map_err(|holder| Error::LeaseHeld { holder })
    }
}

/// Tries a lock until it is got or the time is over, with growing, jittered pauses; answers the holder in the latter case,
/// at once where the holder is stopped and cannot go on by itself.
pub(crate) async fn poll_lock(
    store: &dyn Store,
    clock: &dyn Clock,
    name: LockName,
    until: Mono,
) -> Result<Result<Lease, Holder>, Error> {
    let mut pause = Duration::from_millis(4);
    let mut stopped_for = Duration::ZERO;
    loop {
        match store.try_lock(name).await? {
            Locked::Got(lease) => return Ok(Ok(lease)),
            Locked::HeldBy(holder) => {
                stopped_for = if holder.stopped {
                    stopped_for + pause
                } else {
                    Duration::ZERO
                };
                if clock.now().mono >= until || stopped_for > STOPPED_LIMIT {
                    return Ok(Err(holder));
                }
            }
        }
        tokio::time::sleep(pause.mul_f64(0.5 + crypto::draw())).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(100));
    }
}

/// How long a stopped holder is waited for.
const STOPPED_LIMIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    /// I-9, F-21: of all the logins of a process at most eight are refreshed at one issuer at once; another issuer is not held
    /// up.
    #[tokio::test]
    async fn eight_refreshes_at_once_for_each_issuer() {
        let (turns, soon) = (Turns::default(), Duration::from_millis(50));
        let one = || Url::parse("https://as.example/token").unwrap().origin();
        let mut taken = Vec::new();
        for _ in 0..MOST_AT_ONCE {
            taken.push(turns.turn(one()).await);
        }
        let ninth = tokio::time::timeout(soon, turns.turn(one()));
        assert!(ninth.await.is_err());
        let other = Url::parse("https://as.other/token").unwrap().origin();
        assert!(turns.turn(other).await.is_some());
        drop(taken.pop());
        let next = tokio::time::timeout(soon, turns.turn(one()));
        assert!(next.await.is_ok());
    }
}
