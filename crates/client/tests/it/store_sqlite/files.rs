//! The file system: permissions, planted files, other writers.

use super::*;

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

pub(super) fn skipped(why: &str) {
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
