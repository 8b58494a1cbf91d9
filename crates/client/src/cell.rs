//! What the clones of a session share: the slot, the copy of what is stored, the acceptance.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, header::WWW_AUTHENTICATE, request::Parts};
use pilotlight_core::{
    Error,
    credential::{Binding, Credential, Incarnation, Version},
    error::LoginCause,
    event::{Event, Happened},
    freshness::Freshness,
    memory::{Installed, Memory, Saving, Want},
    record::{Fact, Record},
    resource::Resource,
    time::{Mono, Now},
};

use crate::flight::{Flight, Look};
use crate::{
    drive::Held,
    http::HttpClient,
    look::Found,
    sessions::{Changed, Inner},
    slot::{Slot, SlotCell},
    step_up::Asked,
};

/// What the clones of a session share.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) inner: Arc<Inner>,
    /// The server, as configured; as a URL and as the URI of the usual request.
    pub(crate) url: Resource,
    pub(crate) uri: Option<http::Uri>,
    pub(crate) binding: Mutex<Binding>,
    pub(crate) slot: SlotCell,
    pub(crate) live: Mutex<Live>,
    pub(crate) http: Mutex<Option<Arc<HttpClient>>>,
    /// The look at the store that is under way.
    pub(crate) looking: Mutex<Option<Look>>,
    /// The last 401 or 403 that only a login can answer.
    unanswered: Mutex<Option<Unanswered>>,
    /// What people were asked for, as far as the store does not tell.
    pub(crate) asked: Mutex<Asked>,
    /// What the last look at the server has found, and of which login.
    pub(crate) found: Mutex<Option<(Incarnation, Found)>>,
    /// Until when, on the coarse clock, an acceptance of the token in the slot needs no noting.
    pub(crate) accepted_until: AtomicU64,
    /// When the next try to save may be.
    pub(crate) saving: Mutex<Saving>,
    /// Set by each use, cleared by the ticker: an idle session costs no look at the store.
    pub(crate) used: AtomicBool,
    /// When the ticker last found it used, on the coarse clock.
    used_at: AtomicU64,
}

/// What is known of the login, and the refresh in flight.
#[derive(Default)]
pub(crate) struct Live {
    pub(crate) memory: Memory,
    /// The lock of a refresh whose outcome only memory holds.
    pub(crate) held: Held,
    pub(crate) flight: Option<Flight>,
}

/// A 401 or 403 that only a login can answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    at: Now,
    /// What was refused; nothing where the request went out bare.
    pub(crate) refused: Option<Version>,
    /// The `WWW-Authenticate` fields: the login need not ask for them.
    pub(crate) challenge: HeaderMap,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

impl Cell {
    pub(crate) fn new(inner: Arc<Inner>, binding: Binding) -> Self {
        Self {
            inner,
            url: binding.key.url.clone(),
            uri: binding.key.url.url().as_str().parse().ok(),
            binding: Mutex::new(binding),
            looking: Mutex::default(),
            unanswered: Mutex::default(),
            asked: Mutex::default(),
            found: Mutex::default(),
            accepted_until: AtomicU64::new(0),
            slot: SlotCell::default(),
            live: Mutex::default(),
            http: Mutex::default(),
            saving: Mutex::default(),
            used: AtomicBool::new(false),
            used_at: AtomicU64::new(0),
        }
    }

    /// Tells the ticker that the session is used.
    pub(crate) fn in_use(&self) {
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
    pub(crate) fn covers(&self, request: &Parts) -> Result<(), Error> {
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

    pub(crate) fn credential(&self) -> Result<Credential, Error> {
        lock(&self.live).memory.credential().cloned()
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
        let mut live = lock(&self.live);
        let installed = live
            .memory
            .install(record, None, false, self.inner.clock.now().boot);
        self.installed(&live, installed);
        Ok(())
    }

    /// Takes over a login that was just made and cannot be read back: it is stored, or at least spooled.
    pub(crate) fn take_over_login(&self, credential: Credential) {
        lock(&self.binding).credential = Some(credential.key.clone());
        let mut live = lock(&self.live);
        let held = live.memory.version();
        if held.is_some_and(|held| held.incarnation == credential.version.incarnation) {
            // Read already, and perhaps refreshed since.
            return;
        }
        let record = Record {
            credential: Some(credential),
            ..Record::default()
        };
        let installed = live
            .memory
            .install(Some(record), None, false, self.inner.clock.now().boot);
        self.installed(&live, installed);
    }

    /// Shows requests and subscribers what memory has taken over.
    pub(crate) fn installed(&self, live: &Live, installed: Installed) {
        match installed {
            Installed::Older => return,
            Installed::Changed => {
                self.accepted_until.store(0, Ordering::Relaxed);
                let key = &self.binding().key;
                self.inner.changed(key, live.memory.record.as_ref());
            }
            Installed::Same if live.memory.doubts_key() => {
                self.accepted_until.store(0, Ordering::Relaxed);
            }
            Installed::Same => {}
        }
        self.show(live, self.inner.clock.now());
    }

    /// Puts the token into the slot, quiet until something needs looking at.
    pub(crate) fn show(&self, live: &Live, now: Now) {
        let before = self.slot.load();
        let slot = live.memory.credential().ok().and_then(|credential| {
            let quiet_until = match credential.freshness(now, self.inner.limits.policy) {
                // A one-shot process has no ticker: it looks each time.
                _ if !self.inner.ticking() => Mono(0),
                Freshness::Fresh { due_in: None } => Mono(u64::MAX),
                Freshness::Fresh { due_in: Some(left) } => now.mono + left,
                // While a refresh is under way, or none is allowed: else the next use begins one.
                Freshness::Due { expires_in, .. }
                    if live.flight.is_some() || !live.memory.may_refresh(now) =>
                {
                    now.mono + expires_in.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN))
                }
                Freshness::Due { .. } | Freshness::Expired { .. } => Mono(0),
            };
            Slot::of(credential, quiet_until, before.as_deref()).ok()
        });
        self.slot.set(slot);
    }

    /// Remembers a 401 or 403 that only a login can answer.
    pub(crate) fn unanswered(&self, refused: Option<Version>, headers: &HeaderMap) {
        let kept = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .map(|value| (WWW_AUTHENTICATE, value.clone()));
        *lock(&self.unanswered) = Some(Unanswered {
            at: self.inner.clock.now(),
            refused,
            challenge: kept.collect(),
        });
    }

    /// What a login is to answer: taken, so that the next one asks again.
    pub(crate) fn take_unanswered(&self) -> Option<Unanswered> {
        let unanswered = lock(&self.unanswered).take()?;
        let age = self.inner.clock.now().since(&unanswered.at)?;
        (age < A_MINUTE).then_some(unanswered)
    }

    /// The server has accepted a token: noted at once for each generation, then at most once a minute, off the path of the
    /// request.
    pub(crate) fn accepted(self: &Arc<Self>, version: Version) {
        let coarse = self.inner.coarse.now();
        if coarse.0 < self.accepted_until.load(Ordering::Relaxed) {
            return;
        }
        let now = self.inner.clock.now().wall;
        let (healed, accepted) = {
            let memory = &mut lock(&self.live).memory;
            (memory.key_accepted(version), memory.accepted(version, now))
        };
        let mut facts = Vec::new();
        if let Some((_, acceptance)) = &accepted {
            facts.push(Fact::Acceptance(Some(*acceptance)));
        }
        let happened = healed.as_ref().map(|_| {
            facts.push(Fact::Suspicion(None));
            Event {
                at: now,
                process: self.inner.process,
                happened: Happened::Healed,
            }
        });
        let Some(key) = healed.or(accepted.map(|(key, _)| key)) else {
            return;
        };
        if self.inner.ticking() {
            self.accepted_until
                .store((coarse + A_MINUTE).0, Ordering::Relaxed);
        }
        let store = self.inner.store.clone();
        drop(self.inner.spawn(async move {
            if let Err(error) = store.note(&key, version, &facts, happened.as_ref()).await {
                tracing::debug!(code = error.code(), "an acceptance was not noted");
            }
        }));
    }

    /// Whether it was used lately; called once a second.
    pub(crate) fn lately_used(&self) -> bool {
        let now = self.inner.coarse.now();
        if self.used.swap(false, Ordering::Relaxed) {
            self.used_at.store(now.0, Ordering::Relaxed);
        }
        let used_at = Mono(self.used_at.load(Ordering::Relaxed));
        used_at != Mono(0) && used_at.until(now) < LATELY
    }

    /// Repeats, in time, the call of a process that may have died over it.
    pub(crate) fn take_over(self: &Arc<Self>) {
        let (now, policy) = (self.inner.clock.now(), self.inner.limits.policy);
        let live = lock(&self.live);
        let abandoned = live.flight.is_none() && live.memory.finds_abandoned(now, policy);
        drop(live);
        if abandoned {
            drop(self.flight(Want::default()));
        }
    }

    /// The ticker's look at a session in use: what another process stored is taken over.
    pub(crate) async fn look(self: &Arc<Self>) {
        if let Err(error) = self.looked().await {
            tracing::debug!(code = error.code(), "the store could not be looked at");
        }
    }

    /// Brings to the store what only memory or the spool holds, if anything, when it is time for that.
    pub(crate) fn save(self: &Arc<Self>) {
        let live = lock(&self.live);
        let (kept, calling) = (live.memory.kept(), live.is_calling());
        drop(live);
        if lock(&self.saving).turn(kept, calling, self.inner.coarse.now()) {
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
/// For so long a session that was used sees what other processes do.
const LATELY: Duration = Duration::from_secs(600);
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
