//! The front door: every login of one store, and the sessions that keep them alive.

mod builder;

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pilotlight_core::{
    Error,
    attempt::ProcessId,
    credential::{Account, Binding, BindingId, BindingKey, Credential, Version},
    error::LoginCause,
    event::Event,
    freshness::refresh_point,
    memory::Want,
    notes::ReuseGrace,
    resource::Resource,
    state::State,
    time::{Now, Wall},
};
use tokio::{runtime::Handle, sync::broadcast, task::JoinHandle};

use crate::{
    callback::Deliveries,
    cell::{Cell, lock},
    clock::Clock,
    config::{Flag, Limits, LoginRequest, Status},
    dpop::Peers,
    drive::{Driver, Turns},
    egress::{Cidr, Egress},
    http::{HttpClient, HttpConfig},
    human::Human,
    secrets::Secrets,
    session::{Session, is_never},
    slot::CoarseClock,
    store::Store,
};

pub use builder::SessionsBuilder;

/// Every login of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    pub(crate) inner: Arc<Inner>,
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) process: ProcessId,
    pub(crate) one_shot: bool,
    pub(crate) coarse: CoarseClock,
    pub(crate) human: Arc<dyn Human>,
    /// The logins that wait for a redirect.
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) secrets: Arc<dyn Secrets>,
    pub(crate) client_name: String,
    http: HttpConfig,
    allow_private: Vec<Cidr>,
    runtime: Handle,
    pub(crate) cells: Mutex<HashMap<BindingId, Weak<Cell>>>,
    /// How the last login of this process that worked was asked for, without its client: a step-up asks in the same way.
    pub(crate) requests: Mutex<HashMap<BindingId, LoginRequest>>,
    /// Cells that hold what no store has taken: they live on although no session does (F-06).
    pub(crate) kept: Mutex<HashMap<BindingId, Arc<Cell>>>,
    pub(crate) turns: Turns,
    /// What servers want to see in proofs of possession.
    pub(crate) peers: Peers,
    changes: broadcast::Sender<Changed>,
    at_work: AtomicUsize,
    idle: tokio::sync::Notify,
}

/// What has happened to a login.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Changed {
    /// There is another token; it is durable.
    Token {
        /// Whose.
        key: BindingKey,
        /// Which version.
        version: Version,
    },
    /// The login is over.
    LoggedOut {
        /// Whose.
        key: BindingKey,
    },
}

impl Sessions {
    /// Begins to build sessions over a store.
    #[must_use]
    pub fn builder(store: Arc<dyn Store>) -> SessionsBuilder {
        SessionsBuilder::over(store)
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// Gives the session of a server. It reads the store and sends nothing.
    ///
    /// # Errors
    /// `login.never` where nobody is logged in; `unavailable.store`, `store.corrupt`.
    pub async fn get(&self, url: &Resource, account: &Account) -> Result<Session, Error> {
        let key = BindingKey::new(url.clone(), account.clone());
        let id = self.inner.store.binding_id(&key);
        let known = lock(&self.inner.cells).get(&id).and_then(Weak::upgrade);
        let cell = match known {
            Some(cell) if cell.credential().is_ok() => cell,
            known => {
                let binding = self.inner.store.binding(&key).await?;
                let binding = binding.ok_or(Error::login(LoginCause::Never))?;
                let cell =
                    known.unwrap_or_else(|| Arc::new(Cell::new(self.inner.clone(), binding)));
                cell.load().await?;
                self.shared(id, cell)
            }
        };
        Ok(Session {
            cell,
            bare: false,
            endpoint: None,
        })
    }

    /// Gives the session of a server, whether there is a login or not. Without one requests go out bare, for not every
    /// server wants a token; a 401 then ends in `login.never`, and after a [`login`](Self::login) the same session goes on.
    ///
    /// # Errors
    /// `unavailable.store`, `store.corrupt`; `login.*` where there is a login that a person must renew.
    pub async fn open(&self, url: &Resource, account: &Account) -> Result<Session, Error> {
        match self.get(url, account).await {
            Ok(session) => Ok(Session {
                bare: true,
                ..session
            }),
            Err(error) if is_never(&error) => {
                let key = BindingKey::new(url.clone(), account.clone());
                let id = self.inner.store.binding_id(&key);
                let unbound = Binding {
                    key,
                    name: String::new(),
                    credential: None,
                    created_at: self.inner.clock.now().wall,
                    exception: None,
                    without_resource_at: None,
                    former: Vec::new(),
                };
                let cell = self.shared(id, Arc::new(Cell::new(self.inner.clone(), unbound)));
                Ok(Session {
                    cell,
                    bare: true,
                    endpoint: None,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The one cell of a server that all its sessions share: two callers may have come here together.
    fn shared(&self, id: BindingId, cell: Arc<Cell>) -> Arc<Cell> {
        let mut cells = lock(&self.inner.cells);
        if let Some(other) = cells.get(&id).and_then(Weak::upgrade) {
            return other;
        }
        cells.insert(id, Arc::downgrade(&cell));
        cell
    }

    /// Hands in a redirect that came to the program itself ([`Redirect::Hosted`](crate::core::flow::Redirect::Hosted)); tells
    /// whether a login of this process waited for it, which its `state` says. Any other is nothing to us, and ends no login
    /// (T-04): so a program may hand in whatever it is opened with.
    ///
    /// That is enough where the system opens the program of the person at the desk. A page on the web is opened by whichever
    /// browser was sent there: a program with more than one person needs [`deliver_for`](Self::deliver_for) (T-10).
    #[must_use]
    pub fn deliver(&self, redirect: &str) -> bool {
        self.inner.deliveries.deliver(redirect, None)
    }

    /// The same, for a login with this [`owner`](LoginRequest::owner): what comes with another's browser is nothing to it, and
    /// neither ends it nor uses it up. Else somebody could begin a login, have another person approve it, and be logged in as
    /// them (T-10).
    #[must_use]
    pub fn deliver_for(&self, redirect: &str, owner: &str) -> bool {
        self.inner.deliveries.deliver(redirect, Some(owner))
    }

    /// Says where every login stands, in the order in which they were made. One that cannot be read hides no other: it is
    /// [`State::Unreadable`].
    ///
    /// # Errors
    /// `unavailable.store`, `store.corrupt`.
    pub async fn statuses(&self) -> Result<Vec<Status>, Error> {
        let mut all = Vec::new();
        for binding in self.inner.store.bindings().await? {
            all.push(self.status(&binding).await?);
        }
        let keys: Vec<_> = all
            .iter()
            .map(|status| status.binding.credential.clone())
            .collect();
        for status in &mut all {
            let own = &status.binding.credential;
            if own.is_some() && keys.iter().filter(|key| *key == own).count() > 1 {
                status.flags.push(Flag::Shared);
            }
        }
        Ok(all)
    }

    /// Says where one login stands; one that cannot be read is [`State::Unreadable`].
    ///
    /// # Errors
    /// `unavailable.store`.
    pub async fn status(&self, binding: &Binding) -> Result<Status, Error> {
        match self.inner.status(binding).await {
            Err(Error::StoreCorrupt { .. }) => Ok(Status::unreadable(binding.clone())),
            status => status,
        }
    }

    /// The history of a login, oldest first.
    ///
    /// # Errors
    /// `unavailable.store`, `store.corrupt`.
    pub async fn history(&self, binding: &Binding, limit: usize) -> Result<Vec<Event>, Error> {
        match &binding.credential {
            Some(key) => self.inner.store.events(key, limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// Subscribes to what happens to the logins of this process's sessions.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.inner.changes.subscribe()
    }

    /// Waits until no refresh is under way and no version lives in memory only, at most `limit`: call it before the process
    /// ends, so that a rotation under way reaches the store.
    pub async fn drain(&self, limit: Duration) {
        let cells = || -> Vec<Arc<Cell>> {
            lock(&self.inner.cells)
                .values()
                .filter_map(Weak::upgrade)
                .collect()
        };
        for cell in cells() {
            cell.save();
        }
        let done = async {
            let mut pause = SAVED_AT_THE_END_EVERY;
            loop {
                self.inner.idle().await;
                // With this process the only copy would end: the disk is asked until it is back.
                let unsaved: Vec<Arc<Cell>> = cells()
                    .into_iter()
                    .filter(|cell| lock(&cell.live).memory.unsaved)
                    .collect();
                if unsaved.is_empty() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(LOOK);
                for cell in unsaved {
                    drop(cell.flight(Want::default()));
                }
            }
        };
        if tokio::time::timeout(limit, done).await.is_err() {
            tracing::warn!("a refresh was still under way at the end, or could not be stored");
        }
    }
}

impl Inner {
    /// Waits until nothing is under way.
    async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.at_work.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Whether a ticker advances the coarse clock.
    pub(crate) fn ticking(&self) -> bool {
        !self.one_shot
    }

    pub(crate) fn tell(&self, change: Changed) {
        // Nobody may be listening.
        drop(self.changes.send(change));
    }

    pub(crate) fn http_for(&self, server: &Resource) -> Result<Arc<HttpClient>, Error> {
        let egress = Egress::for_server(server, &self.allow_private);
        let config = HttpConfig {
            egress,
            ..self.http.clone()
        };
        Ok(Arc::new(HttpClient::new(config, self.clock.clone())?))
    }

    /// The last login of this process.
    pub(crate) fn last_request(&self, key: &BindingKey) -> Option<LoginRequest> {
        let id = self.store.binding_id(key);
        lock(&self.requests).get(&id).cloned()
    }

    pub(crate) fn driver(&self, http: Arc<HttpClient>) -> Driver {
        Driver {
            store: self.store.clone(),
            http,
            human: self.human.clone(),
            deliveries: self.deliveries.clone(),
            owner: None,
            peers: self.peers.clone(),
            secrets: self.secrets.clone(),
            clock: self.clock.clone(),
            lock_wait: self.limits.lock_wait,
            human_wait: Duration::from_secs(600),
            success_url: None,
            answered: Arc::default(),
        }
    }

    /// Runs work that must end although its caller goes away; [`Sessions::drain`] waits for it.
    pub(crate) fn spawn<F>(self: &Arc<Self>, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.at_work.fetch_add(1, Ordering::AcqRel);
        let guard = AtWork(self.clone());
        self.runtime.spawn(async move {
            let _guard = guard;
            work.await
        })
    }

    /// Runs work that several callers wait on and that nothing is lost with.
    pub(crate) fn spawn_aside<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(work)
    }

    pub(crate) async fn status(&self, binding: &Binding) -> Result<Status, Error> {
        let now = self.clock.now();
        let policy = self.limits.policy;
        let (record, grace) = match &binding.credential {
            Some(key) => {
                let grace = self.store.notes(&key.issuer).await?.grace(now.wall);
                (self.store.read(key).await?.unwrap_or_default(), grace)
            }
            None => (
                pilotlight_core::record::Record::default(),
                ReuseGrace::Unknown,
            ),
        };
        let state = State::of(&record, grace, now, policy);
        let credential = record.credential.as_ref();
        let state = self.told_more(state, binding, credential).await?;
        let in_wall = |after: Duration, received: Now| -> Option<Wall> {
            let age = now.since(&received)?;
            Some(if after >= age {
                now.wall + (after - age)
            } else {
                Wall(
                    now.wall
                        .0
                        .saturating_sub(pilotlight_core::time::millis(age - after)),
                )
            })
        };
        let shared = match credential {
            Some(credential) => self.store.is_shared(&credential.key).await,
            None => false,
        };
        let issuer = credential.map(|c| &c.key.issuer);
        let without_resource = binding.without_resource_at.as_ref();
        let flags = [
            // What mcp-remote has just refreshed lies in its file: that is where a shared login is kept, too.
            (record.spooled.is_some() && !shared, Flag::Degraded),
            (binding.exception.is_some(), Flag::IssuerException),
            (credential.is_some_and(Credential::is_static), Flag::Static),
            (
                issuer.is_some() && without_resource == issuer,
                Flag::NoResource,
            ),
            (shared, Flag::WithMcpRemote),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(holds, flag)| holds.then_some(flag))
            .collect();
        let times = credential.and_then(|c| Some((c, c.received_at?, c.lifetime?.span())));
        Ok(Status {
            binding: binding.clone(),
            issuer: credential.map(|c| c.key.issuer.clone()),
            state,
            flags,
            expires_at: times.and_then(|(_, received, life)| in_wall(life, received)),
            next_refresh_at: times.filter(|(c, ..)| !c.is_final()).and_then(
                |(c, received, life)| in_wall(refresh_point(life, c.spread(), policy), received),
            ),
            last_accepted_at: record.acceptance.map(|seen| seen.last_at),
            logged_in_at: credential.map(|c| c.logged_in_at),
            scopes: credential
                .map(|c| c.scopes_granted.clone())
                .unwrap_or_default(),
            refresh_token: credential.is_some_and(|c| c.refresh_token.is_some()),
            unattended: credential.and_then(|c| c.unattended.clone()),
        })
    }
}

/// Counts work that must end.
struct AtWork(Arc<Inner>);

impl Drop for AtWork {
    fn drop(&mut self) {
        if self.0.at_work.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// Advances the coarse clock, and waits for nothing else: a store that stands still must not make a token look fresh.
async fn tick(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        inner.coarse.set(inner.clock.now().mono);
        drop(inner);
        tokio::time::sleep(TICK).await;
    }
}

/// Once a second: what only memory holds is saved, and the sessions in use look at a store that has changed.
async fn watch(inner: Weak<Inner>) {
    let mut seen = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(inner) = inner.upgrade() else { return };
        let cells: Vec<Arc<Cell>> = {
            let mut cells = lock(&inner.cells);
            cells.retain(|_, cell| cell.strong_count() > 0);
            cells.values().filter_map(Weak::upgrade).collect()
        };
        for cell in &cells {
            cell.save();
        }
        let cells: Vec<Arc<Cell>> = cells
            .into_iter()
            .filter(|cell| cell.lately_used())
            .collect();
        if cells.is_empty() {
            continue;
        }
        let changes = inner.store.changes().await.ok();
        if changes != seen || changes.is_none() {
            seen = changes;
            for cell in &cells {
                cell.look().await;
            }
        }
        for cell in cells {
            cell.take_over();
        }
    }
}

/// The first pause between two tries of a process that is about to end; they double up to a second.
const SAVED_AT_THE_END_EVERY: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_secs(1);
