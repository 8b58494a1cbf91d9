//! The store in a file, against the file system, other processes, and whoever edits or cuts the file.

mod files;
mod race;
mod refusing;

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
        let outcome = LoginOutcome::new(Wall(1), Some("canary-outcome".into()));
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
        .learn(
            &issuer(),
            &IssuerNotes::default().repeated_badly(std::time::Duration::ZERO, Wall(1)),
        )
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
    store
        .spool_attempt(&key(2), version(1, 2), Some(&attempt(1)))
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
        IssuerNotes::default().repeated_badly(std::time::Duration::ZERO, Wall(1))
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
        assert_eq!(record.attempt, Some(attempt(1)));
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
        .args(["--exact", "store_sqlite::child", "--test-threads=1"])
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
            "refresh" => refusing::refresh(&dir, argument).await,
            "race" => race::race(&dir, argument.parse().unwrap()).await,
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
