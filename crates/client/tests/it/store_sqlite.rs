//! The store in a file, against the file system, other processes, and whoever edits or cuts the file.

use std::{
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use pilotlight::{
    Error,
    core::{
        credential::Binding,
        error::Holder,
        flow::{Commit, Committed, Expects},
        notes::IssuerNotes,
        record::Fact,
        time::Wall,
    },
    store::{LockName, Locked, LoginOutcome, SqliteStore, SqliteStoreConfig, Store},
};
use pilotlight_testkit::Canaries;
use rusqlite::Connection;
use rustix::{
    fs::Mode,
    process::{Pid, Signal, geteuid, kill_process, umask},
};

use crate::store_support::*;

#[path = "store_damage.rs"]
mod damage;

/// Writes one of everything.
async fn fill(store: &SqliteStore) {
    for n in [1, 2] {
        let login = Commit {
            binding: Some(binding(n, &format!("canary-name-{n}"))),
            ..commit(n, version(1, 0), Expects::Anything)
        };
        store.prepare_spool(&key(n)).await.unwrap();
        store.commit(&login).await.unwrap();
        store
            .commit(&commit(n, version(1, 1), Expects::Version(version(1, 0))))
            .await
            .unwrap();
        store
            .note(
                &key(n),
                version(1, 1),
                &[Fact::Attempt(Some(attempt(1)))],
                Some(&event(3)),
            )
            .await
            .unwrap();
        let outcome = LoginOutcome {
            at: Wall(1),
            code: Some("canary-outcome".into()),
        };
        store
            .put_login_outcome(store.binding_id(&binding_key(n)), &outcome)
            .await
            .unwrap();
    }
    store
        .put_registration(&registration("canary-other-client", 1))
        .await
        .unwrap();
    store
        .learn(&issuer(), &IssuerNotes::repeated_badly(Wall(1)))
        .await
        .unwrap();
    store
        .commit(&commit(3, version(1, 0), Expects::Anything))
        .await
        .unwrap();
    store.bury(&key(3), &event(4), true).await.unwrap();
    store
        .spool(Some(version(1, 1)), &credential(2, version(1, 2)))
        .await
        .unwrap();
    drop(
        store
            .try_lock(LockName::Refresh(store.credential_id(&key(1))))
            .await
            .unwrap(),
    );
}

/// Reads everything: all of it as [`fill`] left it, or the first error. Never an answer that is merely empty.
async fn read_all(store: &SqliteStore) -> Result<(), Error> {
    read_logins(store).await?;
    for n in [1, 2] {
        assert!(
            store
                .login_outcome(store.binding_id(&binding_key(n)))
                .await?
                .is_some()
        );
        assert_eq!(
            store.events(&key(n), 9).await?,
            [event(0), event(1), event(3)]
        );
    }
    assert_eq!(store.events(&key(3), 9).await?, [event(0), event(4)]);
    assert_eq!(store.registrations(&issuer()).await?.len(), 1);
    assert_eq!(
        store.notes(&issuer()).await?,
        IssuerNotes::repeated_badly(Wall(1))
    );
    Ok(())
}

/// The same for what must never seem to be absent.
async fn read_logins(store: &SqliteStore) -> Result<(), Error> {
    for n in [1, 2] {
        let found = store.binding(&binding_key(n)).await?;
        assert_eq!(found, Some(binding(n, &format!("canary-name-{n}"))));
        let record = store.read(&key(n)).await?.expect("a login");
        assert_eq!(
            record.version(),
            Some(version(1, if n == 2 { 2 } else { 1 }))
        );
    }
    assert_eq!(store.bindings().await?.len(), 2);
    assert_eq!(store.revocations().await?.len(), 1);
    assert_eq!(
        store.read(&key(3)).await?.expect("a tombstone").credential,
        None
    );
    Ok(())
}

async fn filled() -> Sqlite {
    let place = Sqlite::new();
    fill(&place.try_open().unwrap()).await;
    assert!(
        !place.file().with_extension("db-wal").exists(),
        "the last to close folds the log in"
    );
    place
}

/// Opens the store and reads all of it; the code of the error, or `ok`.
async fn verdict(place: &Sqlite) -> &'static str {
    match place.try_open() {
        Ok(store) => match read_all(&store).await {
            Ok(()) => "ok",
            Err(error) => error.code(),
        },
        Err(error) => error.code(),
    }
}

fn walk(folder: &Path, see: &mut impl FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        see(&path, &metadata);
        if metadata.is_dir() {
            walk(&path, see);
        }
    }
}

fn assert_private(root: &Path) {
    let mut seen = 0;
    walk(root, &mut |path, metadata| {
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o7777, expected, "{}", path.display());
        seen += 1;
    });
    assert!(seen > 8, "{seen} files");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

// ---- Other processes -------------------------------------------------------------------------------------------------

/// This test binary as another process in one of the roles of [`child`].
fn spawn(role: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store_sqlite::child",
            "--ignored",
            "--test-threads=1",
        ])
        .env("PILOTLIGHT_TEST_ROLE", role)
        .env("PILOTLIGHT_TEST_DIR", dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn wait_for(path: &Path) {
    let started = now();
    while !path.exists() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{} never came",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// No test: what [`spawn`] starts.
#[test]
#[ignore = "started by other tests"]
fn child() {
    let (Some(role), Some(dir)) = (
        variable("PILOTLIGHT_TEST_ROLE"),
        variable("PILOTLIGHT_TEST_DIR"),
    ) else {
        return;
    };
    let dir = PathBuf::from(dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (role, argument) = role.split_once(':').unwrap();
    runtime.block_on(async {
        match role {
            "umask" => {
                umask(Mode::from_raw_mode(
                    u32::from_str_radix(argument, 8).unwrap(),
                ));
                let store = SqliteStore::open(&config(&dir)).unwrap();
                fill(&store).await;
                assert_private(&dir);
            }
            "hold" => {
                let store = SqliteStore::open(&config(&dir)).unwrap();
                let lease = store
                    .try_lock(LockName::Refresh(store.credential_id(&key(1))))
                    .await
                    .unwrap();
                assert!(matches!(lease, Locked::Got(_)));
                fs::write(dir.join("held"), "").unwrap();
                std::thread::sleep(Duration::from_secs(600));
                drop(lease);
            }
            "race" => race(&dir, argument.parse().unwrap()).await,
            "write" => {
                let store = SqliteStore::open(&config(&dir)).unwrap();
                for n in 0.. {
                    store.record(&key(1), &event(n)).await.unwrap();
                    fs::write(dir.join("written"), n.to_string()).unwrap();
                }
            }
            other => panic!("no role {other}"),
        }
    });
}

#[expect(
    clippy::disallowed_methods,
    reason = "how a child of this binary learns its role"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[expect(clippy::disallowed_methods, reason = "tests measure")]
fn now() -> Instant {
    Instant::now()
}

/// Opens the stores of all rounds, each at the same moment as the other processes do.
async fn race(dir: &Path, me: u8) {
    for round in 0..ROUNDS {
        fs::write(dir.join(format!("ready-{round}-{me}")), "").unwrap();
        for other in 0..RACERS {
            wait_for(&dir.join(format!("ready-{round}-{other}")));
        }
        if round < SHARED {
            SqliteStore::open(&sharing(dir, round, me)).unwrap();
        }
        let store = SqliteStore::open(&config(&dir.join(round.to_string()))).unwrap();
        let mine = Binding {
            credential: None,
            ..binding(me, &format!("racer-{me}"))
        };
        store.put_binding(&mine).await.unwrap();
    }
}

/// A store of one racer's own, with the key file that all of them share.
fn sharing(dir: &Path, round: u32, me: u8) -> SqliteStoreConfig {
    let mut config = config(&dir.join(format!("own-{round}-{me}")));
    config.key_file = dir.join(format!("shared-{round}/key"));
    config
}

const ROUNDS: u32 = 50;
/// In how many of them each racer also makes a store of its own, with a key file that all share.
const SHARED: u32 = 10;
const RACERS: u8 = 8;

/// F-27, DESIGN.md section 4: eight processes that open an empty place at once make one store and one key.
#[tokio::test]
async fn a_race_to_open_makes_one_store_and_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let racers: Vec<Child> = (0..RACERS)
        .map(|me| spawn(&format!("race:{me}"), dir.path()))
        .collect();
    for mut racer in racers {
        assert!(racer.wait().unwrap().success());
    }
    for round in 0..ROUNDS {
        let place = dir.path().join(round.to_string());
        let store = SqliteStore::open(&config(&place)).unwrap();
        assert_eq!(
            store.bindings().await.unwrap().len(),
            usize::from(RACERS),
            "round {round}"
        );
        let names = |folder: &str| -> Vec<_> {
            fs::read_dir(place.join(folder))
                .unwrap()
                .map(|file| file.unwrap().file_name())
                .collect()
        };
        assert_eq!(
            names("state"),
            ["key"],
            "round {round}: nothing is left over"
        );
        for me in (0..RACERS).filter(|_| round < SHARED) {
            SqliteStore::open(&sharing(dir.path(), round, me)).unwrap();
        }
        assert!(
            names("data")
                .iter()
                .all(|name| !name.to_string_lossy().contains("new")),
            "round {round}"
        );
    }
}

/// F-11, promise 7: a lock ends with its holder's process, and says where that process is stopped.
#[tokio::test]
async fn a_killed_holder_lets_go_and_a_stopped_one_is_named() {
    let place = Sqlite::new();
    let mut holder = spawn("hold:", place.dir.path());
    wait_for(&place.dir.path().join("held"));
    let pid = Pid::from_child(&holder);
    let store = place.try_open().unwrap();
    let name = LockName::Refresh(store.credential_id(&key(1)));
    let held_by = async || -> Holder {
        match store.try_lock(name).await.unwrap() {
            Locked::HeldBy(holder) => holder,
            Locked::Got(_) => panic!("two holders"),
        }
    };
    let expected = Holder {
        pid: holder.id(),
        program: "pilotlight-test".into(),
        since: 1_800_000_000,
        stopped: false,
    };
    assert_eq!(held_by().await, expected);
    kill_process(pid, Signal::STOP).unwrap();
    let started = now();
    while !held_by().await.stopped {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    kill_process(pid, Signal::KILL).unwrap();
    holder.wait().unwrap();
    let Locked::Got(lease) = store.try_lock(name).await.unwrap() else {
        panic!("the dead hold nothing")
    };
    assert!(lease.fence > 1);
}

/// F-03, I-18: a process killed while it writes loses nothing that a call had answered, and the store opens clean.
#[tokio::test]
async fn a_killed_writer_loses_nothing_that_was_answered() {
    let place = Sqlite::new();
    for round in 0..6u64 {
        let mut writer = spawn("write:", place.dir.path());
        let mark = place.dir.path().join("written");
        wait_for(&mark);
        std::thread::sleep(Duration::from_millis(10 + 7 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let answered: Option<u64> = fs::read_to_string(&mark).unwrap().parse().ok();
        let store = place.try_open().unwrap();
        let events = store.events(&key(1), 1000).await.unwrap();
        let last = events.last().unwrap().at.0;
        assert!(
            answered.is_none_or(|answered| last >= answered),
            "{last} of {answered:?}"
        );
        fs::remove_file(&mark).unwrap();
    }
}

// ---- The file system -------------------------------------------------------------------------------------------------

/// T-36: folders are 0700 and files 0600, whatever the umask.
#[test]
fn permissions_do_not_depend_on_the_umask() {
    for umask in ["000", "022", "077", "777"] {
        let dir = tempfile::tempdir().unwrap();
        if umask == "777" && !geteuid().is_root() {
            continue;
        }
        assert!(
            spawn(&format!("umask:{umask}"), dir.path())
                .wait()
                .unwrap()
                .success(),
            "umask {umask}"
        );
        assert_private(dir.path());
    }
}

/// T-36: what others could read is closed at the next open, and the log says so.
#[tokio::test]
async fn open_permissions_are_repaired_and_said() {
    let place = filled().await;
    walk(place.dir.path(), &mut |path, metadata| {
        mode(path, if metadata.is_dir() { 0o755 } else { 0o644 })
    });
    let warnings = Warnings::default();
    let store = {
        let _guard = tracing::subscriber::set_default(warnings.clone());
        place.try_open().unwrap()
    };
    assert!(
        warnings.0.load(Ordering::Relaxed) >= 3,
        "data folder, store, key"
    );
    read_all(&store).await.unwrap();
    for n in [1, 2] {
        store.prepare_spool(&key(n)).await.unwrap();
        store
            .spool(Some(version(1, 1)), &credential(n, version(1, 2)))
            .await
            .unwrap();
        drop(
            store
                .try_lock(LockName::Refresh(store.credential_id(&key(n))))
                .await
                .unwrap(),
        );
    }
    let mut open = Vec::new();
    walk(place.dir.path(), &mut |path, metadata| {
        if metadata.mode() & 0o077 != 0 {
            open.push(path.strip_prefix(place.dir.path()).unwrap().to_owned());
        }
    });
    // The key's folder may be somebody's home: there only writing is taken from others.
    open.retain(|path| {
        path != Path::new("state")
            && !path.ends_with("init.lock")
            && !path.to_string_lossy().contains("refresh")
    });
    assert_eq!(open, Vec::<PathBuf>::new());
    mode(&place.dir.path().join("state"), 0o777);
    place.try_open().unwrap();
    assert_eq!(
        fs::metadata(place.dir.path().join("state")).unwrap().mode() & 0o777,
        0o755
    );
}

/// Counts warnings.
#[derive(Clone, Default)]
struct Warnings(std::sync::Arc<AtomicU32>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Puts something else in the place of a file.
type Plant = fn(&Path, &Path);

const PLANTS: [(&str, Plant); 5] = [
    ("a symbolic link", |target, place| {
        symlink(target, place).unwrap()
    }),
    ("a dangling link", |_, place| {
        symlink("/nowhere/at/all", place).unwrap()
    }),
    ("a hard link", |target, place| {
        fs::hard_link(target, place).unwrap()
    }),
    ("a FIFO", |_, place| {
        assert!(
            Command::new("mkfifo")
                .arg(place)
                .status()
                .unwrap()
                .success()
        )
    }),
    ("a folder", |_, place| fs::create_dir(place).unwrap()),
];

/// T-37: links, FIFOs and folders in the place of store and key are refused, without waiting and without touching what
/// they lead to.
#[tokio::test]
async fn planted_links_and_pipes_are_refused() {
    for (what, plant) in PLANTS {
        for file in ["data/store.db", "data/store.db-wal", "state/key"] {
            let place = filled().await;
            let (path, target) = (place.dir.path().join(file), place.dir.path().join("victim"));
            let content = fs::read(&path).unwrap_or_default();
            fs::write(&target, &content).unwrap();
            mode(&target, 0o644);
            let _ = fs::remove_file(&path);
            plant(&target, &path);
            let error = place.try_open().unwrap_err();
            assert_eq!(error.code(), "config.store", "{what} for {file}: {error}");
            assert_eq!(fs::read(&target).unwrap(), content);
            assert_eq!(
                fs::metadata(&target).unwrap().mode() & 0o777,
                0o644,
                "{what} for {file}"
            );
        }
    }
}

/// T-37: the same for the files of locks and of the spool, while the store is open.
#[tokio::test]
async fn planted_locks_and_slots_are_refused() {
    for (what, plant) in PLANTS {
        let place = Sqlite::new();
        let store = place.try_open().unwrap();
        let name = LockName::Refresh(store.credential_id(&key(1)));
        store.prepare_spool(&key(1)).await.unwrap();
        let target = place.dir.path().join("victim");
        fs::write(&target, "untouched").unwrap();
        for path in [place.only("locks"), place.only("spool")] {
            fs::remove_file(&path).unwrap();
            plant(&target, &path);
        }
        let locked = store.try_lock(name).await.map(drop).unwrap_err();
        assert_eq!(locked.code(), "config.store", "{what}: {locked}");
        let spooled = store
            .spool(None, &credential(1, version(1, 0)))
            .await
            .unwrap_err();
        assert_eq!(spooled.code(), "config.store", "{what}: {spooled}");
        let read = store.read(&key(1)).await.unwrap_err();
        assert_eq!(read.code(), "config.store", "{what}: {read}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    }
}

/// T-37: a data folder that is a link, or a file, is refused.
#[test]
fn a_data_folder_that_is_a_link_is_refused() {
    let place = Sqlite::new();
    let elsewhere = place.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &place.config.data_dir).unwrap();
    assert_eq!(place.try_open().unwrap_err().code(), "config.store");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    fs::remove_file(&place.config.data_dir).unwrap();
    fs::write(&place.config.data_dir, "").unwrap();
    assert_eq!(place.try_open().unwrap_err().code(), "config.store");
}

/// T-36: what belongs to another user is refused.
#[tokio::test]
async fn files_of_other_users_are_refused() {
    if !geteuid().is_root() {
        return skipped("only root can give a file away");
    }
    for file in ["data", "data/store.db", "state/key", "state"] {
        let place = filled().await;
        let path = place.dir.path().join(file);
        chown(&path, Some(12_345), None).unwrap();
        let error = place.try_open().unwrap_err();
        assert_eq!(error.code(), "config.store", "{file}: {error}");
    }
}

fn skipped(why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// `open_existing` makes nothing, and a store that was made opens with it.
#[tokio::test]
async fn open_existing_makes_nothing() {
    let place = Sqlite::new();
    assert!(SqliteStore::open_existing(&place.config).unwrap().is_none());
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0);
    fs::create_dir(&place.config.data_dir).unwrap();
    assert!(SqliteStore::open_existing(&place.config).unwrap().is_none());
    assert_eq!(fs::read_dir(&place.config.data_dir).unwrap().count(), 0);
    fs::remove_dir(&place.config.data_dir).unwrap();
    fill(&place.try_open().unwrap()).await;
    let store = SqliteStore::open_existing(&place.config).unwrap().unwrap();
    read_all(&store).await.unwrap();
    assert_eq!(store.key_slots(), ["keyfile"]);
}

/// DESIGN.md section 6: a command that only looks opens the store at once.
#[tokio::test]
async fn an_existing_store_opens_at_once() {
    let place = filled().await;
    let once = || {
        let started = now();
        SqliteStore::open_existing(&place.config).unwrap().unwrap();
        started.elapsed()
    };
    let best = (0..20).map(|_| once()).min().unwrap();
    assert!(best < Duration::from_millis(20), "{best:?}");
}

/// F-06: with the disk full the store refuses and the spool takes; afterwards what was spooled is merged.
#[tokio::test]
async fn the_spool_takes_what_a_full_disk_refuses() {
    let place = Sqlite::new();
    let disk = place.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "none"])
        .arg(&disk)
        .stderr(Stdio::null());
    if !mount.status().is_ok_and(|status| status.success()) {
        return skipped("no file system can be mounted here");
    }
    let _unmount = Unmount(disk.clone());
    let mut config = place.config.clone();
    config.data_dir = disk.join("data");
    let store = SqliteStore::open(&config).unwrap();
    store.prepare_spool(&key(1)).await.unwrap();
    store
        .commit(&commit(1, version(1, 0), Expects::Anything))
        .await
        .unwrap();
    let filler = fs::File::create(disk.join("filler")).unwrap();
    let mut offset = 0;
    for size in [65_536, 4096, 1] {
        while filler.write_all_at(&vec![1; size], offset).is_ok() {
            offset += size as u64;
        }
    }
    // The log still has room in the blocks that it has; when those are used up, every write is refused.
    let mut refused = None;
    for n in 0..2000 {
        if let Err(error) = store.record(&key(1), &event(n)).await {
            refused = Some(error);
            break;
        }
    }
    assert!(
        matches!(refused, Some(Error::StoreUnavailable { .. })),
        "{refused:?}"
    );
    let name = LockName::Refresh(store.credential_id(&key(1)));
    let lease = store.try_lock(name).await.unwrap();
    assert!(
        matches!(lease, Locked::Got(_)),
        "the lock needs no new block"
    );
    for generation in 1..4 {
        let next = commit(
            1,
            version(1, generation),
            Expects::Version(version(1, generation - 1)),
        );
        assert_eq!(
            store.commit(&next).await.unwrap_err().code(),
            "unavailable.store"
        );
        store
            .spool(Some(version(1, generation - 1)), &next.credential)
            .await
            .unwrap();
        assert_eq!(
            store.read(&key(1)).await.unwrap().unwrap().version(),
            Some(version(1, generation))
        );
    }
    drop((lease, store));
    fs::remove_file(disk.join("filler")).unwrap();
    let store = SqliteStore::open(&config).unwrap();
    let record = store.read(&key(1)).await.unwrap().unwrap();
    assert_eq!(
        record.credential,
        Some(credential(1, version(1, 3))),
        "the newest refresh token survives the restart"
    );
    let follows = record.spooled.unwrap().follows.unwrap();
    let merged = store
        .commit(&commit(1, version(1, 3), Expects::Version(follows)))
        .await
        .unwrap();
    assert_eq!(merged, Committed::Done { superseded: None });
    assert_eq!(store.read(&key(1)).await.unwrap().unwrap().spooled, None);
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// F-06: another writer that does not let go is a bad moment, not damage; reading goes on.
#[tokio::test]
async fn a_busy_store_is_unavailable_and_readable() {
    let mut place = filled().await;
    place.config.busy_timeout = Duration::from_millis(50);
    let store = place.try_open().unwrap();
    let other = Connection::open(place.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.record(&key(1), &event(1)).await.unwrap_err();
    assert_eq!(error.code(), "unavailable.store");
    read_all(&store).await.unwrap();
    read_all(&place.try_open().unwrap()).await.unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    store.record(&key(1), &event(1)).await.unwrap();
}
