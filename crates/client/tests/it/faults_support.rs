//! What the tests of the fault table share: an issuer behind a proxy, one store in a folder, and any number of processes
//! over it, each with a clock of its own that the test sets.
//!
//! A process is a `Sessions` with its own connection to the store: it shares nothing else with the others.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use pilotlight::{
    Error, LoginRequest, Session, Sessions, SessionsBuilder,
    clock::Clock,
    core::{
        credential::{Account, Binding, BindingKey},
        event::{Event, Happened},
        record::Record,
        resource::Resource,
        time::{BootId, Mono, Now, Stamp, Wall},
    },
    store::{SqliteStore, SqliteStoreConfig, Store},
};
use pilotlight_testkit::{
    Lab, LabConfig, Proxy, ScriptedHuman,
    authorization_server::{Entry, Kind, Stats},
    serve,
};
use tokio::time::Instant;

use crate::sessions::Clicks;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Whether the tests that take long are to be as long as they can be.
#[allow(
    clippy::disallowed_methods,
    reason = "the switch that ./test sets is in the environment"
)]
pub(crate) fn slow() -> bool {
    std::env::var_os("PILOTLIGHT_SLOW").is_some()
}

/// The clocks of one process. The truth is the issuer's clock; each may be off, by as much as the test says.
#[derive(Debug)]
pub(crate) struct Time {
    truth: serve::Clock,
    wall_off_ms: AtomicI64,
    mono_off_ms: AtomicI64,
    boot: AtomicU8,
}

impl Time {
    pub(crate) fn new(truth: &serve::Clock) -> Arc<Self> {
        Arc::new(Self {
            truth: truth.clone(),
            wall_off_ms: AtomicI64::new(0),
            mono_off_ms: AtomicI64::new(0),
            boot: AtomicU8::new(1),
        })
    }

    /// Sets the wall clock right, but for so many milliseconds.
    pub(crate) fn set_wall_off(&self, ms: i64) {
        self.wall_off_ms.store(ms, Ordering::SeqCst);
    }

    /// Sets the boot clock off by so many milliseconds, as where a machine goes on from a snapshot.
    pub(crate) fn set_mono_off(&self, ms: i64) {
        self.mono_off_ms.store(ms, Ordering::SeqCst);
    }

    /// Starts the machine anew: another boot, whose clock counts from zero.
    pub(crate) fn reboot(&self) {
        self.boot.fetch_add(1, Ordering::SeqCst);
        let now = i64::try_from(self.truth.now_ms()).unwrap();
        self.set_mono_off(-now);
    }
}

impl Clock for Time {
    fn now(&self) -> Now {
        let truth = self.truth.now_ms();
        let off = |by: &AtomicI64| truth.saturating_add_signed(by.load(Ordering::SeqCst));
        Stamp {
            wall: Wall(off(&self.wall_off_ms)),
            mono: Mono(off(&self.mono_off_ms)),
            boot: BootId([self.boot.load(Ordering::SeqCst); 16]),
        }
    }
}

/// The clocks as one process reads them. It counts the ticks: the ticker is the first task that reads the time.
#[derive(Debug)]
struct Watched {
    time: Arc<Time>,
    starter: Option<tokio::task::Id>,
    ticker: OnceLock<tokio::task::Id>,
    ticks: AtomicU64,
}

impl Clock for Watched {
    fn now(&self) -> Now {
        let now = self.time.now();
        if let Some(reader) = tokio::task::try_id()
            && self.starter != Some(reader)
            && *self.ticker.get_or_init(|| reader) == reader
        {
            self.ticks.fetch_add(1, Ordering::SeqCst);
        }
        now
    }
}

/// An issuer behind a proxy, a server, and a folder with a store.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    /// A careful issuer with tokens of an hour, but for what `change` says.
    pub(crate) async fn new(change: impl FnOnce(&mut LabConfig)) -> Self {
        let config = LabConfig::default().with(|lab| {
            lab.issuer_proxied = true;
            change(lab);
        });
        Self {
            lab: Lab::start(config).await.unwrap(),
            dir: quick_folder(),
        }
    }

    /// The same, and tokens of this life.
    pub(crate) async fn with_tokens_of(life: Duration) -> Self {
        Self::new(|lab| lab.authorization_server.access_ttl = life).await
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        self.lab.issuer_proxy().unwrap()
    }

    pub(crate) fn url(&self) -> Resource {
        Resource::parse(self.lab.resource_url()).unwrap()
    }

    pub(crate) fn key(&self) -> BindingKey {
        BindingKey::new(self.url(), Account::default())
    }

    /// Lets time pass, for issuer, server and every process.
    pub(crate) fn advance(&self, by: Duration) {
        self.lab.clock().advance(by);
    }

    /// Starts a process.
    pub(crate) fn process(&self) -> Process {
        self.process_with(|builder| builder)
    }

    /// Starts a process that is set up otherwise.
    pub(crate) fn process_with(
        &self,
        change: impl FnOnce(SessionsBuilder) -> SessionsBuilder,
    ) -> Process {
        self.start(Time::new(self.lab.clock()), true, change)
    }

    /// Starts a process with clocks of its own.
    pub(crate) fn process_at(&self, time: &Arc<Time>) -> Process {
        self.start(time.clone(), true, |builder| builder)
    }

    /// Starts a process as commands are: it has no ticker, and looks at the clock at each use.
    pub(crate) fn command(&self) -> Process {
        let time = Time::new(self.lab.clock());
        self.start(time, false, |builder| builder.one_shot(true))
    }

    fn start(
        &self,
        time: Arc<Time>,
        ticking: bool,
        change: impl FnOnce(SessionsBuilder) -> SessionsBuilder,
    ) -> Process {
        let store = Arc::new(SqliteStore::open(&self.store_config(time.clone())).unwrap());
        let clock = Arc::new(Watched {
            time: time.clone(),
            starter: tokio::task::try_id(),
            ticker: OnceLock::new(),
            ticks: AtomicU64::new(0),
        });
        let builder = Sessions::builder(store.clone())
            .human(Arc::new(Clicks(ScriptedHuman::allows())))
            .clock(clock.clone())
            .program("test");
        let sessions = change(builder).open().unwrap();
        // The ticker runs on another thread; until it has begun no other task may read the time.
        while ticking && clock.ticker.get().is_none() {
            std::thread::yield_now();
        }
        Process {
            sessions,
            store,
            time,
            clock,
        }
    }

    pub(crate) fn store_config(&self, clock: Arc<dyn Clock>) -> SqliteStoreConfig {
        let (data, key) = (
            self.dir.path().join("data"),
            self.dir.path().join("key/key"),
        );
        // Many processes on two cores take turns at writing.
        SqliteStoreConfig::new(data, key, "test", clock).with_busy_timeout(MINUTE)
    }

    /// Starts a process and logs in with it.
    pub(crate) async fn logged_in(&self) -> (Process, Session) {
        let process = self.process();
        let session = process.log_in(self).await;
        (process, session)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lab.with_issuer(|issuer| issuer.stats().clone())
    }

    /// The refreshes that the issuer has seen, fault or not.
    pub(crate) fn refreshes(&self) -> Vec<Entry> {
        self.lab
            .with_issuer(|issuer| issuer.ledger().of(Kind::Refresh).cloned().collect())
    }

    /// Nothing was lost: one login is alive at the issuer, and it never saw a spent refresh token.
    pub(crate) fn assert_nothing_lost(&self) {
        let stats = self.stats();
        assert_eq!(
            (stats.spent_presented, stats.reuse_revocations),
            (0, 0),
            "a spent refresh token was sent"
        );
        assert_eq!(self.lab.with_issuer(|issuer| issuer.live_grants()), 1);
        assert_eq!(stats.code_ok, 1, "nobody had to log in again");
    }
}

/// A folder in memory, where there is such a place: what is tested here is not whether a disk keeps its promises, and each
/// refresh waits for it three times.
fn quick_folder() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.or_else(|_| tempfile::tempdir()).unwrap()
}

/// One process: its sessions, its connection to the store, its clock.
pub(crate) struct Process {
    pub(crate) sessions: Sessions,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) time: Arc<Time>,
    clock: Arc<Watched>,
}

impl Process {
    pub(crate) async fn log_in(&self, world: &World) -> Session {
        let request = LoginRequest::new(world.url(), Account::default());
        self.sessions.login(request).await.unwrap();
        self.session(world).await
    }

    pub(crate) async fn session(&self, world: &World) -> Session {
        let account = Account::default();
        self.sessions.get(&world.url(), &account).await.unwrap()
    }

    /// Waits until the ticker has seen what time it is.
    pub(crate) async fn ticked(&self) {
        let seen = self.clock.ticks.load(Ordering::SeqCst);
        // The second look begins after this call, and the first has been written down by then.
        until("two ticks", || {
            self.clock.ticks.load(Ordering::SeqCst) > seen + 1
        })
        .await;
    }

    /// Waits until no refresh is under way.
    pub(crate) async fn idle(&self) {
        self.sessions.drain(MINUTE).await;
    }

    pub(crate) async fn binding(&self, world: &World) -> Binding {
        self.store.binding(&world.key()).await.unwrap().unwrap()
    }

    /// What is stored of the login.
    pub(crate) async fn record(&self, world: &World) -> Record {
        let key = self.binding(world).await.credential.unwrap();
        self.store.read(&key).await.unwrap().unwrap()
    }

    pub(crate) async fn history(&self, world: &World) -> Vec<Event> {
        let binding = self.binding(world).await;
        self.sessions.history(&binding, 10_000).await.unwrap()
    }

    /// How many events of a kind the history has.
    pub(crate) async fn count(&self, world: &World, kind: impl Fn(&Happened) -> bool) -> usize {
        let history = self.history(world).await;
        history.iter().filter(|event| kind(&event.happened)).count()
    }
}

/// One request with a token on it: what the server answered.
pub(crate) async fn ask(session: &Session, world: &World) -> Result<StatusCode, Error> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{
        "io.modelcontextprotocol/protocolVersion":"2026-07-28",
        "io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let request = Request::post(world.lab.resource_url())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "server/discover")
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap();
    let answer = session.send(request).await?;
    let status = answer.status();
    // Read to the end, so that the connection can be used again.
    answer.into_body().collect(64 * 1024).await?;
    Ok(status)
}

/// One request, which must be served.
pub(crate) async fn served(session: &Session, world: &World) {
    assert_eq!(ask(session, world).await, Ok(StatusCode::OK));
}

/// Uses a session whose token is due until the issuer has been called so often, and answered.
pub(crate) async fn called(world: &World, process: &Process, session: &Session, times: usize) {
    until_async("a refresh beside the requests", async || {
        served(session, world).await;
        process.idle().await;
        world.refreshes().len() >= times
    })
    .await;
    assert_eq!(world.refreshes().len(), times);
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < MINUTE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Does something until it answers true.
pub(crate) async fn until_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !condition().await {
        assert!(since.elapsed() < MINUTE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A generator of numbers for tests: the same seed gives the same numbers.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides` (splitmix64).
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}
