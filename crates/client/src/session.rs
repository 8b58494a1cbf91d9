//! One login kept alive in memory: a token when asked, a refresh when due, one retry after a 401.
//!
//! Every clone of a [`Session`] for the same server and account shares one slot, one copy of what is stored, and one
//! refresh in flight (F-02). A refresh runs in a task of its own: a caller that goes away does not cancel it (F-05).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION, request::Parts};
use pilotlight_core::{
    Error,
    challenge::Demand,
    credential::{Binding, Credential, Version},
    error::{LoginCause, Waited},
    flow::refresh::{self, Gain, Outcome, Refresh},
    freshness::Freshness,
    notes::IssuerNotes,
    record::{Acceptance, Fact, Record},
    resource::Resource,
    secret::AccessToken,
    time::{Mono, Now, Wall},
};

use crate::{
    config::Status,
    crypto,
    drive::Held,
    http::HttpClient,
    sessions::{Changed, Inner},
    slot::{Slot, SlotCell},
};

/// A login kept alive. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) cell: Arc<Cell>,
}

/// What the clones of a session share.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) inner: Arc<Inner>,
    /// The server, as configured; as a URL and as the URI of the usual request.
    url: Resource,
    uri: Option<http::Uri>,
    binding: Mutex<Binding>,
    slot: SlotCell,
    live: Mutex<Live>,
    http: Mutex<Option<Arc<HttpClient>>>,
    /// Until when, on the coarse clock, an acceptance of the token in the slot needs no noting.
    accepted_until: AtomicU64,
    /// Set by each use, cleared by the ticker: an idle session costs no look at the store.
    pub(crate) used: AtomicBool,
}

/// What is known of the login, and the refresh in flight.
#[derive(Default)]
struct Live {
    record: Option<Record>,
    notes: IssuerNotes,
    unsaved: bool,
    /// Whether the record holds facts that the store could not note.
    unnoted: bool,
    /// The lock of a refresh whose outcome only memory holds.
    held: Held,
    flight: Option<Flight>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("record", &self.record)
            .field("unsaved", &self.unsaved)
            .finish_non_exhaustive()
    }
}

/// A refresh in flight, for any number of callers to wait on.
type Flight = Shared<BoxFuture<'static, Result<Gain, Error>>>;

/// What an answer to a request means for the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Take the answer as it is.
    Done,
    /// Send the request once more: [`Session::authorize`] puts another token on it. Only for a body that can be replayed.
    Retry,
    /// Neither: a person or the caller must act.
    Stop(Error),
}

/// Which token went out with a request; hand it back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    version: Version,
    retried: bool,
}

impl Sent {
    /// Marks the token of a request that is being sent for the second time.
    #[must_use]
    pub fn again(self) -> Self {
        Self {
            retried: true,
            ..self
        }
    }
}

/// An access token, handed out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Token {
    /// The token.
    pub access_token: AccessToken,
    /// When it ends, where that is known.
    pub expires_at: Option<Wall>,
    /// Why a refresh that would have been better did not work.
    pub warning: Option<Error>,
}

/// What asking for a refresh came to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RefreshReport {
    /// Whether a new token was made, or adopted from another process.
    pub refreshed: bool,
    /// Where the login stands now.
    pub status: Status,
}

impl Session {
    /// The server, as configured.
    #[must_use]
    pub fn url(&self) -> Resource {
        self.cell.binding().key.url
    }

    /// Gives the value of an `Authorization` header. While the token is fresh no await point is hit.
    ///
    /// # Errors
    /// `login.*` where a person must act; `unavailable.timeout` where an ended token was not replaced in time.
    pub async fn header(&self) -> Result<HeaderValue, Error> {
        self.cell.in_use();
        if let Some(header) = self.ready() {
            return Ok(header);
        }
        Ok(Box::pin(self.cell.usable()).await?.header.clone())
    }

    /// Gives the header at once if the token is fresh: one atomic load and one clone.
    #[must_use]
    pub fn ready(&self) -> Option<HeaderValue> {
        self.cell.slot.quiet(&self.cell.inner.coarse)
    }

    /// Puts the token on a request (RFC 6750 section 2.1). A request that the login's resource does not cover is refused.
    ///
    /// # Errors
    /// Those of [`Session::header`]; `config.url` for a request to another place (T-24).
    pub async fn authorize(&self, request: &mut Parts) -> Result<Sent, Error> {
        self.cell.in_use();
        self.cell.covers(request)?;
        let slot = match self.cell.slot.load() {
            Some(slot) if self.cell.inner.coarse.now() < slot.quiet_until => slot,
            _ => Box::pin(self.cell.usable()).await?,
        };
        request.headers.insert(AUTHORIZATION, slot.header.clone());
        Ok(Sent {
            version: slot.version,
            retried: false,
        })
    }

    /// Says what an answer means. On a 401 it brings a newer token if there is one, else refreshes, once.
    ///
    /// Call it with every answer: acceptance is how a fresh token is told from one that the server refuses.
    pub async fn answered(&self, sent: &Sent, status: StatusCode, headers: &HeaderMap) -> Next {
        match status {
            StatusCode::UNAUTHORIZED if sent.retried => Next::Stop(Error::DeniedByResource),
            StatusCode::UNAUTHORIZED => Box::pin(self.cell.refused(sent.version)).await,
            StatusCode::FORBIDDEN => self.cell.forbidden(headers),
            status if status.is_success() => {
                self.cell.accepted(sent.version);
                Next::Done
            }
            _ => Next::Done,
        }
    }

    /// Gives a token with at least `min_valid` left (default: the smaller of 60 s and a quarter of its life).
    ///
    /// With less it refreshes first; if that fails while the token is still valid, the token comes with a warning.
    ///
    /// # Errors
    /// Those of [`Session::header`].
    pub async fn token(&self, min_valid: Option<Duration>) -> Result<Token, Error> {
        self.cell.load().await?;
        let now = self.cell.inner.clock.now();
        let credential = self.cell.credential()?;
        let left = credential.expires_in(now);
        let wanted = min_valid.unwrap_or_else(|| {
            let life = credential.lifetime.map_or(
                Duration::from_secs(240),
                pilotlight_core::credential::Lifetime::span,
            );
            Duration::from_secs(60).min(life / 4)
        });
        let mut warning = None;
        if left.is_some_and(|left| left < wanted) || credential.received_at.is_none() {
            let ended = left.is_some_and(|left| left.is_zero());
            let gained = self
                .cell
                .join(Want {
                    asked: true,
                    refused: None,
                })
                .await;
            match gained {
                Ok(_) => {}
                Err(error) if ended => return Err(error),
                Err(error) => warning = Some(error),
            }
        }
        let credential = self.cell.credential()?;
        let now = self.cell.inner.clock.now();
        Ok(Token {
            expires_at: credential.expires_in(now).map(|left| now.wall + left),
            access_token: credential.access_token,
            warning,
        })
    }

    /// Refreshes what is due; with `force` also what is not.
    ///
    /// # Errors
    /// `login.*` where a person must act, `unavailable.*` where the issuer cannot be reached.
    pub async fn refresh(&self, force: bool) -> Result<RefreshReport, Error> {
        self.cell.load().await?;
        let now = self.cell.inner.clock.now();
        let fresh = matches!(
            self.cell
                .credential()?
                .freshness(now, self.cell.inner.limits.policy),
            Freshness::Fresh { .. }
        );
        let mut refreshed = false;
        if force || !fresh {
            let gain = self
                .cell
                .join(Want {
                    asked: force,
                    refused: None,
                })
                .await?;
            refreshed = matches!(gain, Gain::Refreshed | Gain::Adopted);
        }
        Ok(RefreshReport {
            refreshed,
            status: self.status().await?,
        })
    }

    /// Says where the login stands, as stored now.
    ///
    /// # Errors
    /// `unavailable.store`, `store.corrupt`.
    pub async fn status(&self) -> Result<Status, Error> {
        let binding = self.cell.binding();
        self.cell.inner.status(&binding).await
    }
}

/// What a caller wants of a refresh.
#[derive(Debug, Clone, Copy, Default)]
struct Want {
    asked: bool,
    refused: Option<Version>,
}

impl Cell {
    pub(crate) fn new(inner: Arc<Inner>, binding: Binding) -> Self {
        Self {
            inner,
            url: binding.key.url.clone(),
            uri: binding.key.url.url().as_str().parse().ok(),
            binding: Mutex::new(binding),
            accepted_until: AtomicU64::new(0),
            slot: SlotCell::default(),
            live: Mutex::default(),
            http: Mutex::default(),
            used: AtomicBool::new(false),
        }
    }

    /// Tells the ticker that the session is used.
    fn in_use(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn binding(&self) -> Binding {
        lock(&self.binding).clone()
    }

    /// The HTTP stack of this server: its egress policy is its own.
    pub(crate) fn http(&self) -> Result<Arc<HttpClient>, Error> {
        let mut http = lock(&self.http);
        if let Some(client) = &*http {
            return Ok(client.clone());
        }
        let client = self.inner.http_for(&self.binding().key.url)?;
        *http = Some(client.clone());
        Ok(client)
    }

    /// Whether the login's server covers a request. The usual request is for the configured URL itself: that costs a
    /// comparison and no more.
    fn covers(&self, request: &Parts) -> Result<(), Error> {
        if self.uri.as_ref() == Some(&request.uri) {
            return Ok(());
        }
        let text = request.uri.to_string();
        if url::Url::parse(&text).is_ok_and(|url| self.url.covers(&url)) {
            return Ok(());
        }
        let url = pilotlight_core::resource::clean(&text);
        let why = "it lies outside the server that this login is for";
        Err(Error::ConfigUrl { url, why })
    }

    fn credential(&self) -> Result<Credential, Error> {
        let live = lock(&self.live);
        live.record
            .as_ref()
            .and_then(|record| record.credential.clone())
            .ok_or(Error::login(LoginCause::Never))
    }

    /// Reads the store and, where it holds something newer or there is nothing in memory, takes it over.
    pub(crate) async fn load(&self) -> Result<(), Error> {
        let key = self.binding().key;
        let binding = self
            .inner
            .store
            .binding(&key)
            .await?
            .ok_or(Error::login(LoginCause::Never))?;
        let credential = binding
            .credential
            .clone()
            .ok_or(Error::login(LoginCause::Never))?;
        let record = self.inner.store.read(&credential).await?;
        *lock(&self.binding) = binding;
        self.install(record, None, false);
        Ok(())
    }

    /// Takes over what was read or made, unless memory holds something newer of the same login.
    fn install(&self, record: Option<Record>, notes: Option<IssuerNotes>, unsaved: bool) {
        let now = self.inner.clock.now();
        let mut live = lock(&self.live);
        if let Some(notes) = notes {
            live.notes = notes;
        }
        let held = live.record.as_ref().and_then(Record::version);
        let found = record.as_ref().and_then(Record::version);
        let older = matches!((held, found), (Some(held), Some(found)) if held.succeeds(&found));
        if older {
            // The store has gone back, or never got this version: memory is the newest copy, and is brought back to it.
            live.unsaved = true;
            return;
        }
        live.unsaved = unsaved;
        if held != found {
            self.accepted_until.store(0, Ordering::Relaxed);
            self.inner.changed(&self.binding().key, record.as_ref());
        }
        live.record = record;
        self.show(&live, now);
    }

    /// Puts the token into the slot, quiet until something needs looking at.
    fn show(&self, live: &Live, now: Now) {
        let slot = live
            .record
            .as_ref()
            .and_then(|record| record.credential.as_ref())
            .and_then(|credential| {
                let quiet_until = match credential.freshness(now, self.inner.limits.policy) {
                    // A one-shot process has no ticker: it looks each time.
                    _ if !self.inner.ticking() => Mono(0),
                    Freshness::Fresh { due_in: None } => Mono(u64::MAX),
                    Freshness::Fresh { due_in: Some(left) } => now.mono + left,
                    Freshness::Due { expires_in, .. } => {
                        now.mono + expires_in.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN))
                    }
                    Freshness::Expired { .. } => Mono(0),
                };
                Slot::of(credential, quiet_until)
            });
        self.slot.set(slot);
    }

    /// The slow path: something needs looking at before the next use.
    async fn usable(self: &Arc<Self>) -> Result<Arc<Slot>, Error> {
        if lock(&self.live)
            .record
            .as_ref()
            .and_then(Record::version)
            .is_none()
        {
            self.load().await?;
        }
        let now = self.inner.clock.now();
        let credential = self.credential()?;
        match credential.freshness(now, self.inner.limits.policy) {
            Freshness::Fresh { .. } => {
                self.show(&lock(&self.live), now);
            }
            Freshness::Due { expires_in, .. } => self.due(&credential, expires_in, now).await,
            Freshness::Expired { .. } => self.expired(credential.version).await?,
        }
        self.slot.load().ok_or(Error::login(LoginCause::Never))
    }

    /// Due: the caller goes on with the token there is, and a refresh starts in the background. A one-shot process starts
    /// none; with too little left it refreshes first, and a failure then only costs the attempt.
    async fn due(
        self: &Arc<Self>,
        credential: &Credential,
        expires_in: Option<Duration>,
        now: Now,
    ) {
        let fresh_enough = |left: Duration| {
            let life = credential
                .lifetime
                .map_or(left, pilotlight_core::credential::Lifetime::span);
            left >= Duration::from_secs(60).min(life / 4)
        };
        if !self.inner.one_shot {
            self.show(&lock(&self.live), now);
            if self.may_refresh(now) {
                drop(self.flight(Want::default()));
            }
        } else if !expires_in.is_some_and(fresh_enough)
            && let Err(error) = self.join(Want::default()).await
        {
            tracing::warn!(
                code = error.code(),
                "the token is used although refreshing it failed"
            );
        }
    }

    /// Whether a refresh now could do more than find out that none is allowed.
    fn may_refresh(&self, now: Now) -> bool {
        let live = lock(&self.live);
        let Some(record) = &live.record else {
            return true;
        };
        let pausing = record
            .backoff
            .as_ref()
            .is_some_and(|backoff| backoff.binds(now.wall).is_some());
        let refused = record
            .suspicion
            .as_ref()
            .is_some_and(|s| s.next_probe_at.is_none_or(|at| at > now.wall));
        let endless = record
            .credential
            .as_ref()
            .is_some_and(|credential| credential.refresh_token.is_none());
        live.flight.is_none() && !pausing && !refused && !endless
    }

    /// Expired: the caller waits for the one refresh in flight, up to its deadline. Where the issuer cannot be reached the
    /// ended token is tried all the same: the server decides (F-13).
    async fn expired(self: &Arc<Self>, version: Version) -> Result<(), Error> {
        let joined = match self.join(Want::default()).await {
            // The login may have moved to another issuer meanwhile: the binding tells.
            Err(Error::LoginRequired { .. })
                if self.load().await.is_ok() && self.content(Want::default()) =>
            {
                return Ok(());
            }
            joined => joined,
        };
        match joined {
            Ok(_) => Ok(()),
            Err(
                error @ Error::Timeout {
                    waited_for: Waited::Refresh,
                    ..
                },
            ) => Err(error),
            Err(error) if error.action() == pilotlight_core::error::Action::RetryLater => {
                tracing::warn!(
                    code = error.code(),
                    generation = version.generation.0,
                    "an ended token is tried: refreshing it failed"
                );
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Joins the refresh in flight, or starts one, and waits for it no longer than a caller may.
    async fn join(self: &Arc<Self>, want: Want) -> Result<Gain, Error> {
        let limit = self.inner.limits.caller_wait;
        let waited = tokio::time::timeout(limit, async {
            // A flight that was under way for a milder reason may end well without what this caller wants: then one more.
            let (flight, started) = self.flight(want);
            let gain = flight.await;
            if started || gain.is_err() || self.content(want) {
                gain
            } else {
                self.flight(want).0.await
            }
        });
        waited.await.unwrap_or(Err(Error::Timeout {
            waited_for: Waited::Refresh,
            limit,
        }))
    }

    /// Whether memory now holds what the caller wants.
    fn content(&self, want: Want) -> bool {
        let now = self.inner.clock.now();
        self.credential().is_ok_and(|credential| {
            want.refused != Some(credential.version)
                && matches!(
                    credential.freshness(now, self.inner.limits.policy),
                    Freshness::Fresh { .. }
                )
        })
    }

    /// The refresh in flight, and whether it was started by this call.
    fn flight(self: &Arc<Self>, want: Want) -> (Flight, bool) {
        let mut live = lock(&self.live);
        if let Some(flight) = &live.flight {
            return (flight.clone(), false);
        }
        let cell = Arc::clone(self);
        let task = self.inner.spawn(async move {
            let result = cell.refresh(want).await;
            lock(&cell.live).flight = None;
            result
        });
        let flight = task
            .map(|joined| joined.unwrap_or(Err(Error::ConfigRuntime)))
            .boxed()
            .shared();
        live.flight = Some(flight.clone());
        (flight, true)
    }

    async fn refresh(self: &Arc<Self>, want: Want) -> Result<Gain, Error> {
        let (record, unsaved, unnoted, mut held) = {
            let mut live = lock(&self.live);
            (
                live.record.clone(),
                live.unsaved,
                live.unnoted,
                std::mem::take(&mut live.held),
            )
        };
        let credential = record.as_ref().and_then(|record| record.credential.clone());
        let Some(credential) = credential else {
            return Err(Error::login(LoginCause::Never));
        };
        let task = refresh::Task {
            key: credential.key.clone(),
            held: Some(credential.version),
            refused: want.refused,
            asked: want.asked,
            unsaved: unsaved.then(|| Box::new(credential.clone())),
            remembered: record.filter(|_| unnoted).map(Box::new),
            process: self.inner.process,
            entropy: crypto::random(),
            policy: self.inner.limits.policy,
        };
        let driver = self.inner.driver(self.http()?);
        let Outcome {
            record,
            notes,
            result,
            unsaved,
            unnoted,
        } = Box::pin(driver.run_with(Refresh::new(task), &mut held)).await;
        lock(&self.live).held = held;
        if record.is_some() {
            self.install(record, Some(notes), unsaved);
            lock(&self.live).unnoted = unnoted;
        }
        match &result {
            Ok(gain) => tracing::debug!(
                ?gain,
                generation = credential.version.generation.0,
                "refresh ended"
            ),
            Err(error) => tracing::warn!(
                code = error.code(),
                generation = credential.version.generation.0,
                "refresh ended"
            ),
        }
        result
    }

    /// A 401: if the token that was refused is no longer the current one, in memory or in the store, the current one is
    /// next; else it is refreshed.
    async fn refused(self: &Arc<Self>, refused: Version) -> Next {
        let current = |cell: &Self| cell.credential().map(|credential| credential.version);
        if current(self).is_ok_and(|version| version == refused)
            && let Err(error) = self.load().await
        {
            return Next::Stop(error);
        }
        match current(self) {
            Ok(version) if version != refused => return Next::Retry,
            Ok(_) => {}
            Err(error) => return Next::Stop(error),
        }
        match self
            .join(Want {
                asked: false,
                refused: Some(refused),
            })
            .await
        {
            Ok(_) if current(self).is_ok_and(|version| version != refused) => Next::Retry,
            Ok(_) => Next::Stop(Error::DeniedByResource),
            Err(error) => Next::Stop(error),
        }
    }

    /// A 403: more scopes are wanted (RFC 6750 section 3.1), or the answer is the server's own affair.
    fn forbidden(&self, headers: &HeaderMap) -> Next {
        let demand = Demand::from_headers(headers);
        if demand.error.as_deref() != Some("insufficient_scope") {
            return Next::Done;
        }
        let requested = self
            .credential()
            .map(|credential| credential.scopes_requested)
            .unwrap_or_default();
        let scopes = requested.union(&demand.scope.unwrap_or_default());
        Next::Stop(Error::login(LoginCause::Scope {
            scopes: scopes.iter().map(str::to_owned).collect(),
        }))
    }

    /// The server has accepted a token: noted at once for each generation, then at most once a minute, off the path of the
    /// request.
    fn accepted(self: &Arc<Self>, version: Version) {
        let coarse = self.inner.coarse.now();
        if coarse.0 < self.accepted_until.load(Ordering::Relaxed) {
            return;
        }
        let now = self.inner.clock.now().wall;
        let mut live = lock(&self.live);
        let Some(record) = &mut live.record else {
            return;
        };
        let Some(credential) = record.credential.as_ref().filter(|c| c.version == version) else {
            return;
        };
        let key = credential.key.clone();
        let seen = record
            .acceptance
            .filter(|seen| seen.generation == version.generation);
        if seen.is_some_and(|seen| seen.last_at.until(now) < A_MINUTE) {
            return;
        }
        let first_at = seen.map_or(now, |seen| seen.first_at);
        let acceptance = Acceptance {
            generation: version.generation,
            first_at,
            last_at: now,
        };
        record.acceptance = Some(acceptance);
        if self.inner.ticking() {
            self.accepted_until
                .store((coarse + A_MINUTE).0, Ordering::Relaxed);
        }
        let store = self.inner.store.clone();
        drop(live);
        drop(self.inner.spawn(async move {
            if let Err(error) = store
                .note(&key, version, &[Fact::Acceptance(Some(acceptance))], None)
                .await
            {
                tracing::debug!(code = error.code(), "an acceptance was not noted");
            }
        }));
    }

    /// The ticker's look at a session in use: what another process stored is taken over.
    pub(crate) async fn look(self: &Arc<Self>) {
        if let Err(error) = self.load().await {
            tracing::debug!(code = error.code(), "the store could not be looked at");
        }
    }

    /// Brings to the store what only memory or the spool holds, if anything.
    pub(crate) fn save(self: &Arc<Self>) {
        let waiting = {
            let live = lock(&self.live);
            let spooled = |record: &Record| record.spooled.is_some();
            live.unsaved || live.record.as_ref().is_some_and(spooled)
        };
        if waiting {
            drop(self.flight(Want::default()));
        }
    }
}

/// A lock that no panic of another holder can spoil: what it guards is always replaced whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a due token is handed out before the next look.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const A_MINUTE: Duration = Duration::from_secs(60);

/// What a session tells whoever subscribed.
impl Inner {
    fn changed(&self, key: &pilotlight_core::credential::BindingKey, record: Option<&Record>) {
        let change = match record.and_then(|record| record.credential.as_ref()) {
            Some(credential) => Changed::Token {
                key: key.clone(),
                version: credential.version,
            },
            None => Changed::LoggedOut { key: key.clone() },
        };
        self.tell(change);
    }
}
