//! The slow path: when a token is due, expired or refused, and the one refresh in flight that all callers wait on.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use pilotlight_core::{
    Error,
    credential::{Credential, Renewal, Version},
    error::{LoginCause, Waited},
    flow::{
        refresh::{Gain, Refresh},
        unattended::Unattended,
    },
    freshness::Freshness,
    memory::{Service, Want, tries_the_ended},
    time::{Mono, Now},
};

use crate::{
    cell::{Cell, Live, lock},
    session::Next,
};
use crate::{crypto, slot::Slot};

/// A refresh in flight, for any number of callers to wait on.
pub(crate) type Flight = Shared<BoxFuture<'static, Result<Gain, Error>>>;

/// A look at the store, for any number of callers to wait on.
pub(crate) type Look = Shared<BoxFuture<'static, Result<(), Error>>>;

/// For how long the store is looked at where memory has a token that works.
const QUICK_LOOK: Duration = Duration::from_secs(1);

/// Until when a caller waits, whatever for (I-17).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: tokio::time::Instant,
    limit: Duration,
}

impl Deadline {
    /// So long from now.
    pub(crate) fn after(limit: Duration) -> Self {
        Self {
            at: tokio::time::Instant::now() + limit,
            limit,
        }
    }

    /// The same, or sooner.
    fn or_in(self, limit: Duration) -> Self {
        let sooner = Self::after(limit);
        if sooner.at < self.at { sooner } else { self }
    }

    /// Waits for some work until then.
    pub(crate) async fn limit<T>(
        self,
        waited_for: Waited,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let done = tokio::time::timeout_at(self.at, work).await;
        done.unwrap_or(Err(Error::Timeout {
            waited_for,
            limit: self.limit,
        }))
    }
}

/// What somebody else has begun. That which has ended and is still there did not come to its end: it panicked, or its runtime
/// went away.
fn under_way<T: Clone>(
    begun: Option<&Shared<BoxFuture<'static, T>>>,
) -> Option<Shared<BoxFuture<'static, T>>> {
    begun.filter(|work| work.peek().is_none()).cloned()
}

impl Live {
    /// Whether a refresh is under way; one that panicked is not.
    pub(crate) fn is_calling(&self) -> bool {
        under_way(self.flight.as_ref()).is_some()
    }
}

impl Cell {
    /// Takes over what is stored. Where memory has a token that works, a store that fails or stands still is only a warning.
    pub(crate) async fn look_by(self: &Arc<Self>, by: Deadline) -> Result<Option<Error>, Error> {
        let now = self.inner.clock.now();
        let left = self.credential().ok().and_then(|held| held.expires_in(now));
        let works = left.is_some_and(|left| !left.is_zero());
        let by = if works { by.or_in(QUICK_LOOK) } else { by };
        match self.load_by(by).await {
            Err(error) if works && !matches!(error, Error::LoginRequired { .. }) => Ok(Some(error)),
            done => done.map(|()| None),
        }
    }

    /// Until when a caller waits that has just come.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.inner.limits.caller_wait)
    }

    /// The slow path: something needs looking at before the next use.
    pub(crate) async fn usable(self: &Arc<Self>, by: Deadline) -> Result<Arc<Slot>, Error> {
        if lock(&self.live).memory.version().is_none() {
            self.load_by(by).await?;
        }
        let now = self.inner.clock.now();
        let credential = self.credential()?;
        match credential.freshness(now, self.inner.limits.policy) {
            Freshness::Fresh { .. } => {
                self.show(&lock(&self.live), now);
            }
            Freshness::Due { expires_in, .. } => {
                self.due(&credential, expires_in, now, by).await;
            }
            Freshness::Expired { .. } => self.expired(credential.version, by).await?,
        }
        match self.slot.load() {
            Some(slot) => Ok(slot),
            // There is a login, and what its token needs cannot be read.
            None => Slot::of(&self.credential()?, Mono(0), None).map(Arc::new),
        }
    }

    /// Due: the caller goes on with the token there is, and a refresh starts in the background. A one-shot process starts
    /// none; with too little left it refreshes first, and a failure then only costs the attempt.
    pub(crate) async fn due(
        self: &Arc<Self>,
        credential: &Credential,
        expires_in: Option<Duration>,
        now: Now,
        by: Deadline,
    ) {
        let fresh_enough = |left: Duration| {
            let life = credential
                .lifetime
                .map_or(left, pilotlight_core::credential::Lifetime::span);
            left >= Duration::from_secs(60).min(life / 4)
        };
        if !self.inner.one_shot {
            if lock(&self.live).memory.may_refresh(now) {
                drop(self.flight(Want::default()));
            }
            self.show(&lock(&self.live), now);
        } else if !expires_in.is_some_and(fresh_enough)
            && let Err(error) = self.join(Want::default(), by).await
        {
            tracing::warn!(
                code = error.code(),
                "the token is used although refreshing it failed"
            );
        }
    }

    /// Expired: the caller waits for the one refresh in flight, up to its deadline. What came of that matters only where no
    /// token lives: somebody else may have brought one meanwhile (I-14). Where the issuer cannot be reached the ended token is
    /// tried all the same: the server decides (F-13).
    pub(crate) async fn expired(
        self: &Arc<Self>,
        version: Version,
        by: Deadline,
    ) -> Result<(), Error> {
        let Err(error) = self.join(Want::default(), by).await else {
            return Ok(());
        };
        // The login may have moved to another issuer, or have been ended: the binding tells.
        let is_over =
            matches!(error, Error::LoginRequired { .. }) && self.load_by(by).await.is_err();
        if !is_over && self.serves() {
            return Ok(());
        }
        if !tries_the_ended(&error) {
            return Err(error);
        }
        tracing::warn!(
            code = error.code(),
            generation = version.generation.0,
            "an ended token is tried: refreshing it failed"
        );
        Ok(())
    }

    /// Whether requests are served from memory now.
    fn serves(&self) -> bool {
        let (now, policy) = (self.inner.clock.now(), self.inner.limits.policy);
        let service = lock(&self.live).memory.service(now, policy);
        matches!(service, Ok(Service::Serve | Service::ServeAndRefresh))
    }

    /// Joins the refresh in flight, or starts one, and waits for it no longer than a caller may.
    pub(crate) async fn join(self: &Arc<Self>, want: Want, by: Deadline) -> Result<Gain, Error> {
        let waited = by.limit(Waited::Refresh, async {
            // A flight that another caller began, for a milder reason or one of its own, may end without telling what this
            // caller wants to know: then one more.
            loop {
                let (flight, started) = self.flight(want);
                let gain = flight.await;
                if started || self.answered_by(want, &gain) {
                    return gain;
                }
            }
        });
        waited.await
    }

    /// Reads what is stored, for no longer than a caller may wait: a store can stand still.
    pub(crate) async fn load_by(self: &Arc<Self>, by: Deadline) -> Result<(), Error> {
        by.limit(Waited::Store, self.looked()).await
    }

    /// Reads what is stored now, together with whoever else does.
    pub(crate) async fn looked(self: &Arc<Self>) -> Result<(), Error> {
        let (look, started) = self.looking();
        let done = look.await;
        if started {
            return done;
        }
        // What was under way may have been read before that which this caller came for: then one more.
        self.looking().0.await
    }

    /// The look at the store that is under way, and whether it was started by this call. It goes on in a task of its own: a
    /// call of a store that stands still may hold a thread, whoever waits for it, so there is one.
    fn looking(self: &Arc<Self>) -> (Look, bool) {
        let mut looking = lock(&self.looking);
        if let Some(look) = under_way(looking.as_ref()) {
            return (look, false);
        }
        let cell = Arc::clone(self);
        let task = self.inner.spawn_aside(async move {
            let done = cell.load().await;
            *lock(&cell.looking) = None;
            done
        });
        let look = task
            .map(|joined| joined.unwrap_or(Err(Error::ConfigRuntime)))
            .boxed()
            .shared();
        *looking = Some(look.clone());
        (look, true)
    }

    /// Whether a refresh that somebody else had begun says what this caller wants to know.
    fn answered_by(&self, want: Want, gain: &Result<Gain, Error>) -> bool {
        let (now, policy) = (self.inner.clock.now(), self.inner.limits.policy);
        lock(&self.live).memory.answers(want, gain, now, policy)
    }

    /// The refresh in flight, and whether it was started by this call.
    pub(crate) fn flight(self: &Arc<Self>, want: Want) -> (Flight, bool) {
        let mut live = lock(&self.live);
        if let Some(flight) = under_way(live.flight.as_ref()) {
            return (flight, false);
        }
        let cell = Arc::clone(self);
        let task = self.inner.spawn(async move {
            let result = cell.refresh(want).await;
            let mut live = lock(&cell.live);
            live.flight = None;
            let waits = live.memory.waits_for_store();
            drop(live);
            let id = cell.inner.store.binding_id(&cell.binding().key);
            let mut kept = lock(&cell.inner.kept);
            if waits {
                kept.insert(id, Arc::clone(&cell));
            } else {
                kept.remove(&id);
            }
            drop(kept);
            result
        });
        let flight = task
            .map(|joined| joined.unwrap_or(Err(Error::ConfigRuntime)))
            .boxed()
            .shared();
        live.flight = Some(flight.clone());
        (flight, true)
    }

    /// What a login, or a step-up, has shown in vain since the last that ended well (EXT-41).
    async fn refused_at_login(&self) -> Option<[u8; 32]> {
        let store = &self.inner.store;
        let id = store.binding_id(&self.binding().key);
        // A store that does not answer holds up no renewal: what it would tell is shown once more at worst.
        let outcome = tokio::time::timeout(QUICK_LOOK, store.login_outcome(id)).await;
        outcome.ok()?.ok()??.refused
    }

    pub(crate) async fn refresh(self: &Arc<Self>, want: Want) -> Result<Gain, Error> {
        let driver = self.inner.driver(self.http()?);
        let credential = self.credential()?;
        let issuer = credential.pins.token_endpoint.origin();
        let _turn = self.inner.turns.turn(issuer).await;
        let (task, mut held) = {
            let mut live = lock(&self.live);
            let (process, policy) = (self.inner.process, self.inner.limits.policy);
            let task = live.memory.task(want, process, crypto::random(), policy);
            (task, std::mem::take(&mut live.held))
        };
        let Some(task) = task else {
            return Err(Error::login(LoginCause::Never));
        };
        let generation = task.held.map_or(0, |version| version.generation.0);
        let mut outcome = match credential.renewal() {
            Renewal::Grant(_) => {
                let flow = Unattended::new(task).after_login(self.refused_at_login().await);
                Box::pin(driver.run_with(flow, &mut held)).await
            }
            Renewal::RefreshToken(_) | Renewal::Nothing => {
                Box::pin(driver.run_with(Refresh::new(task), &mut held)).await
            }
        };
        let superseded = outcome.superseded.take();
        let result = {
            let mut live = lock(&self.live);
            live.held = held;
            let (installed, result) = live.memory.settle(outcome, self.inner.clock.now().boot);
            self.installed(&live, installed);
            result
        };
        // What came out of the spool was a login, and this process the first to see it stored.
        if let (Some(old), Ok(new)) = (superseded, self.credential()) {
            self.inner.retire(*old, &new);
        }
        match &result {
            Ok(gain) => tracing::debug!(?gain, generation, "refresh ended"),
            Err(error) => tracing::warn!(code = error.code(), generation, "refresh ended"),
        }
        result
    }

    /// A 401: if the token that was refused is no longer the current one, in memory or in the store, the current one is
    /// next; else it is refreshed.
    pub(crate) async fn refused(self: &Arc<Self>, refused: Option<Version>, by: Deadline) -> Next {
        let current = |cell: &Self| cell.credential().map(|credential| credential.version);
        if current(self).ok() == refused
            && let Err(error) = self.load_by(by).await
        {
            return Next::Stop(error);
        }
        let refused = match (current(self), refused) {
            (Ok(version), Some(refused)) if version == refused => refused,
            (Ok(_), _) => return Next::Retry,
            (Err(error), _) => return Next::Stop(error),
        };
        let want = Want {
            asked: false,
            refused: Some(refused),
        };
        match self.join(want, by).await {
            Ok(_) if current(self).is_ok_and(|version| version != refused) => Next::Retry,
            Ok(_) => Next::Stop(Error::DeniedByResource),
            Err(error) => Next::Stop(error),
        }
    }
}
