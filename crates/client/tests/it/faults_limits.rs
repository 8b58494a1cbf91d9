//! A process at its limits, and over a long time. Each test runs its client in a child process, a copy of this binary,
//! where no other test takes descriptors or memory.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use pilotlight::{
    Session, Sessions,
    core::{
        attempt::ProcessId,
        credential::Account,
        error::Action,
        event::{Event, Happened},
        flow::{Commit, Expects},
        resource::Resource,
        time::Wall,
    },
    store::{MemoryStore, SqliteStore, SqliteStoreConfig, Store},
};
use pilotlight_testkit::serve;
use serde_json::{Value, json};

use crate::faults_support::{MINUTE, Time, World, slow};

/// What a child needs to know; the name of the variable it comes in.
const PLACE: &str = "PILOTLIGHT_FAULTS_PLACE";
/// What the child reports begins with this.
const REPORT: &str = "REPORT ";

/// The login that a child works with.
struct Place {
    clock: serve::Clock,
    sessions: Sessions,
    session: Session,
    rounds: u64,
}

impl Place {
    /// Opens what the parent has named; `None` in the parent.
    #[allow(
        clippy::disallowed_methods,
        reason = "a test's child is told what to do by its environment"
    )]
    async fn named() -> Option<Self> {
        let told: Value = serde_json::from_str(&std::env::var(PLACE).ok()?).unwrap();
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let clock = serve::Clock::machine();
        let time = Time::new(&clock);
        let (data, key) = (PathBuf::from(text("data")), PathBuf::from(text("key")));
        let config = SqliteStoreConfig::new(data, key, "child", time.clone());
        let store = Arc::new(SqliteStore::open(&config).unwrap());
        let sessions = Sessions::builder(store).clock(time).open().unwrap();
        let url = Resource::parse(&text("url")).unwrap();
        let session = sessions.get(&url, &Account::default()).await.unwrap();
        Some(Self {
            clock,
            sessions,
            session,
            rounds: told["rounds"].as_u64().unwrap(),
        })
    }
}

#[allow(clippy::print_stdout, reason = "the child's report goes to its parent")]
fn report(figures: &Value) {
    println!("\n{REPORT}{figures}");
}

/// Runs one test of this binary as a child over the world's store; gives its report.
async fn child(world: &World, test: &str, rounds: u64) -> Value {
    let config = world.store_config(Time::new(world.lab.clock()));
    let place = json!({
        "data": config.data_dir, "key": config.key_file, "url": world.lab.resource_url(), "rounds": rounds,
    });
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(PLACE, place.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(3 * MINUTE, output).await;
    let output = output.expect("the child ends").unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{complained}");
    let line = said.lines().find_map(|line| line.strip_prefix(REPORT));
    serde_json::from_str(line.expect("a report")).unwrap()
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// F-34: with 32 descriptors, and none to many of them free, a refresh works or fails as not delivered: never in doubt,
/// never lost, and it works again as soon as there are some.
#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_a_refresh_is_not_delivered() {
    if let Some(place) = Place::named().await {
        return few_descriptors(place).await;
    }
    let world = World::new(|_| {}).await;
    let (process, _session) = world.logged_in().await;
    let name = "faults_limits::without_descriptors_a_refresh_is_not_delivered";
    let report = child(&world, name, 8).await;
    for (store, code) in [
        ("file", "unavailable.store"),
        ("memory", "unavailable.network"),
    ] {
        let outcomes: Vec<&str> = report[store]
            .as_array()
            .unwrap()
            .iter()
            .map(|outcome| outcome.as_str().unwrap())
            .collect();
        assert_eq!(outcomes.len(), 8, "{report}");
        for expected in [code, "ok"] {
            assert!(outcomes.contains(&expected), "{report}");
        }
        let known = |outcome: &&&str| [code, "ok"].contains(*outcome);
        assert_eq!(outcomes.iter().filter(known).count(), 8, "{report}");
    }
    // Each failure was followed by a refresh with descriptors again; nothing else was sent.
    assert_eq!(world.refreshes().len(), 16, "{report}");
    assert_eq!(world.stats().refresh_ok, 16, "{report}");
    let doubtful = |happened: &Happened| {
        matches!(
            happened,
            Happened::Ambiguous { .. } | Happened::Refreshed { label: Some(_), .. }
        )
    };
    assert_eq!(process.count(&world, doubtful).await, 0, "{report}");
    world.assert_nothing_lost();
}

async fn few_descriptors(place: Place) {
    use rustix::process::{Resource::Nofile, Rlimit, setrlimit};
    let few = Rlimit {
        current: Some(32),
        maximum: Some(32),
    };
    setrlimit(Nofile, few).unwrap();
    let file = starved(&place.session, &place).await;

    // A store in memory needs no descriptor: now it is the connection that gets none.
    let store = Arc::new(MemoryStore::new(Time::new(&place.clock)));
    let binding = place.session.status().await.unwrap().binding;
    let key = binding.credential.clone().unwrap();
    let record = place.sessions.store().read(&key).await.unwrap().unwrap();
    let moved = Commit {
        credential: record.credential.unwrap(),
        expects: Expects::Nothing,
        binding: Some(binding),
        forced: None,
        event: Event {
            at: Wall(0),
            process: ProcessId::default(),
            happened: Happened::Healed,
        },
    };
    store.commit(&moved).await.unwrap();
    let time = Time::new(&place.clock);
    let sessions = Sessions::builder(store).clock(time).open().unwrap();
    let account = Account::default();
    let session = sessions.get(&place.session.url(), &account).await.unwrap();
    let memory = starved(&session, &place).await;
    report(&json!({ "file": file, "memory": memory }));
}

/// Refreshes with none, one, two ... descriptors free, and after each failure with all of them; how each ended.
async fn starved(session: &Session, place: &Place) -> Vec<&'static str> {
    let mut outcomes = Vec::new();
    for free in 0..usize::try_from(place.rounds).unwrap() {
        let mut taken: Vec<File> =
            std::iter::from_fn(|| File::open(Path::new("/dev/null")).ok()).collect();
        assert!(taken.len() > free, "only {} were left", taken.len());
        taken.truncate(taken.len() - free);
        let result = session.refresh(true).await;
        drop(taken);
        match result {
            Ok(_) => outcomes.push("ok"),
            Err(error) => {
                assert_eq!(error.action(), Action::RetryLater, "{error:?}");
                outcomes.push(error.code());
                place.clock.advance(10 * MINUTE);
                assert!(session.refresh(true).await.unwrap().refreshed);
            }
        }
        place.clock.advance(10 * MINUTE);
    }
    outcomes
}

/// F-35: hundreds of refreshes (weeks of tokens that live for an hour), each after some requests, leave no descriptor open and take no
/// memory that stays; nor does the store grow with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_leaks_nothing() {
    if let Some(place) = Place::named().await {
        return long_run(place).await;
    }
    let world = World::new(|_| {}).await;
    let (process, _session) = world.logged_in().await;
    let rounds = if slow() { 1200 } else { 300 };
    let report = child(&world, "faults_limits::a_long_run_leaks_nothing", rounds).await;
    let figure = |name: &str| report[name].as_i64().unwrap();
    assert_eq!(world.stats().refresh_ok, rounds);
    assert!(
        figure("descriptors_after") <= figure("descriptors_before"),
        "{report}"
    );
    // At 24 refreshes a day so many rounds are weeks, in which a mebibyte a day would be dozens.
    let grown = figure("resident_after") - figure("resident_before");
    assert!(grown < 3 * 1024, "{report}");
    let data = world.store_config(process.time.clone()).data_dir;
    let stored: u64 = walk(&data).iter().sum();
    assert!(stored < 12 * 1024 * 1024, "{stored} bytes in the store");
    world.assert_nothing_lost();
}

/// The sizes of all files below a folder.
fn walk(folder: &Path) -> Vec<u64> {
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            sizes.extend(walk(&entry.path()));
        } else {
            sizes.push(metadata.len());
        }
    }
    sizes
}

async fn long_run(place: Place) {
    let mut before = (0, 0);
    // The first fifth fills pools, caches and the history.
    let warm = place.rounds / 5;
    for round in 0..place.rounds {
        if round == warm {
            before = (open_descriptors(), resident());
        }
        for _ in 0..20 {
            place.session.header().await.unwrap();
        }
        assert!(place.session.refresh(true).await.unwrap().refreshed);
        place.clock.advance(MINUTE);
    }
    place.sessions.drain(MINUTE).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = (open_descriptors(), resident());
    report(&json!({
        "rounds": place.rounds,
        "descriptors_before": before.0, "descriptors_after": after.0,
        "resident_before": before.1, "resident_after": after.1,
    }));
}

/// The memory that is resident, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}
