//! Stores that earlier builds wrote, and what builds of different ages do on one store (F-30, I-18).
//!
//! `tests/corpus/store-vN` is a store as a build of format N left it: database, spool slots, locks and, beside them, the key
//! file. All that it holds are canaries. It is never written again; a new format adds a folder, and every later build opens
//! them all. `PILOTLIGHT_WRITE_CORPUS=FOLDER cargo test ... corpus::write` writes one.
//!
//! The tests named `previous_*` run only where `PILOTLIGHT_PREVIOUS` is the path of the previous build's program, as
//! `./test previous` sets it.

mod header;
mod previous;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use pilotlight::{
    core::{
        credential::Lifetime,
        flow::{Commit, Committed, Expects},
        notes::IssuerNotes,
        record::{Acceptance, Fact, Record, Spooled},
        time::{Stamp, Wall},
    },
    store::{LockName, Locked, LoginOutcome, SqliteStore, SqliteStoreConfig, Store},
};
use rusqlite::Connection;

use crate::store_support::*;

/// A copy of a corpus store that may be written to.
struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
        copy(&from.join(name), dir.path());
        Self { dir }
    }

    fn config(&self) -> SqliteStoreConfig {
        config(self.dir.path())
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open_existing(&self.config()).unwrap().unwrap()
    }
}

/// Copies a folder, with the permissions that a store has and a checkout has not.
fn copy(from: &Path, to: &Path) {
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// F-30, I-18: a store of format 1 is read as it was written: a login with its facts and history, one whose newest version
/// lies in the spool, a tombstone with its revocation, and all that lies beside them.
#[tokio::test]
async fn a_store_of_format_1_is_read() {
    let place = Copy::of("store-v1");
    let store = place.open();
    let first = store.read(&key(1)).await.unwrap().unwrap();
    assert_first(&first);
    assert_eq!(
        store.events(&key(1), 9).await.unwrap(),
        [event(0), event(1), event(3)]
    );
    let second = store.read(&key(2)).await.unwrap().unwrap();
    assert_eq!(second.version(), Some(version(1, 1)));
    let follows = Some(version(1, 0));
    assert_eq!(second.spooled, Some(Spooled { follows }));
    assert_eq!(second.attempt, Some(attempt(2)));
    assert_eq!(store.read(&key(3)).await.unwrap(), Some(Record::default()));
    assert_eq!(store.read(&key(4)).await.unwrap(), None);

    let revocations = store.revocations().await.unwrap();
    let [revocation] = revocations.as_slice() else {
        panic!("{revocations:?}")
    };
    let token = revocation.credential.refresh_token.as_ref().unwrap();
    assert_eq!(token.expose(), "canary-refresh-3-1-0");
    let found = store.binding(&binding_key(1)).await.unwrap().unwrap();
    assert_eq!(
        (found.name.as_str(), found.credential),
        ("canary-name-1", Some(key(1)))
    );
    assert_eq!(store.bindings().await.unwrap().len(), 3);
    let registrations = store.registrations(&issuer()).await.unwrap();
    let [registration] = registrations.as_slice() else {
        panic!("{registrations:?}")
    };
    assert_eq!(registration.client, client());
    assert!(registration.management.is_some());
    assert_eq!(store.notes(&issuer()).await.unwrap(), notes());
    let id = store.binding_id(&binding_key(1));
    assert_eq!(store.login_outcome(id).await.unwrap(), Some(outcome()));
}

/// F-30: this build goes on with a store of format 1: merges, refreshes, takes its locks with a larger fence, and logs out.
#[tokio::test]
async fn a_store_of_format_1_is_gone_on_with() {
    let place = Copy::of("store-v1");
    let store = place.open();
    let lock = LockName::Refresh(store.credential_id(&key(1)));
    match store.try_lock(lock).await.unwrap() {
        Locked::Got(lease) => assert_eq!(lease.fence, 2),
        Locked::HeldBy(holder) => panic!("{holder}"),
    }
    for (n, from, to) in [(1, 1, 2), (2, 0, 1), (2, 1, 2)] {
        let refresh = commit(n, version(1, to), Expects::Version(version(1, from)));
        let done = store.commit(&refresh).await.unwrap();
        assert_eq!(done, Committed::Done { superseded: None }, "{n} to {to}");
    }
    store
        .spool(Some(version(1, 2)), &credential(1, version(1, 3)))
        .await
        .unwrap();
    told(&store, 3).await;
    drop(store);
    let store = place.open();
    let versions = [(1, 3), (2, 2)];
    for (n, generation) in versions {
        let record = store.read(&key(n)).await.unwrap().unwrap();
        assert_eq!(record.version(), Some(version(1, generation)));
        store.bury(&key(n), &event(9), false).await.unwrap();
    }
    assert!(store.revocations().await.unwrap().is_empty());
}

/// T-33, T-38: the corpus holds no token, name or address in the clear, and no log that would hide one.
#[test]
fn the_corpus_is_sealed_and_folded_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files = Vec::new();
    list(&folder, &mut files);
    assert!(files.iter().any(|file| file.ends_with("data/store.db")));
    for file in files {
        assert!(!file.ends_with("store.db-wal"), "{}", file.display());
        let bytes = fs::read(&file).unwrap();
        let shows = bytes.windows(6).any(|part| part == b"canary");
        assert!(!shows, "{}", file.display());
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// What the first login is, field by field: a later build may know more fields.
fn assert_first(record: &Record) {
    let credential = record.credential.as_ref().unwrap();
    assert_eq!(
        (&credential.key, credential.version),
        (&key(1), version(1, 1))
    );
    assert_eq!(credential.access_token.expose(), "canary-access-1-1-1");
    let refresh_token = credential.refresh_token.as_ref().unwrap();
    assert_eq!(refresh_token.expose(), "canary-refresh-1-1-1");
    let pins = &credential.pins;
    assert_eq!(
        pins.token_endpoint.as_str(),
        "https://canary-issuer.example/token"
    );
    assert!(pins.revocation_endpoint.is_some() && pins.resource_parameter.is_some());
    assert_eq!(credential.client, client());
    assert_eq!(credential.received_at, Some(Stamp::default()));
    let hour = Duration::from_secs(3600);
    assert_eq!(credential.lifetime, Some(Lifetime::Stated(hour)));
    assert_eq!(credential.logged_in_at, Wall(1));
    assert_eq!(record.attempt, Some(attempt(1)));
    assert_eq!(record.acceptance, Some(acceptance()));
    assert_eq!(record.spooled, None);
}

/// No test: writes a corpus store where it is asked for one.
#[tokio::test]
async fn write() {
    let Some(folder) = variable("PILOTLIGHT_WRITE_CORPUS") else {
        return;
    };
    let folder = PathBuf::from(folder);
    fs::create_dir(&folder).unwrap();
    let store = SqliteStore::open(&config(&folder)).unwrap();
    for n in [1, 2, 3] {
        store.prepare_spool(&key(n)).await.unwrap();
        let login = Commit {
            binding: Some(binding(n, &format!("canary-name-{n}"))),
            ..commit(n, version(1, 0), Expects::Anything)
        };
        store.commit(&login).await.unwrap();
    }
    let refresh = commit(1, version(1, 1), Expects::Version(version(1, 0)));
    store.commit(&refresh).await.unwrap();
    let facts = [
        Fact::Attempt(Some(attempt(1))),
        Fact::Acceptance(Some(acceptance())),
    ];
    let (first, noted) = (key(1), event(3));
    let noted = store.note(&first, version(1, 1), &facts, Some(&noted));
    assert!(noted.await.unwrap());
    let id = store.credential_id(&first);
    drop(store.try_lock(LockName::Refresh(id)).await.unwrap());
    store
        .spool(Some(version(1, 0)), &credential(2, version(1, 1)))
        .await
        .unwrap();
    store
        .spool_attempt(&key(2), version(1, 1), Some(&attempt(2)))
        .await
        .unwrap();
    store.bury(&key(3), &event(4), true).await.unwrap();
    store
        .put_registration(&registration("canary-client-id", 1))
        .await
        .unwrap();
    store.learn(&issuer(), &notes()).await.unwrap();
    let binding = store.binding_id(&binding_key(1));
    store.put_login_outcome(binding, &outcome()).await.unwrap();
    drop(store);
    // Whoever closes last folds the log in; the one or the other is SQLite's to remove.
    assert!(!config(&folder).data_dir.join("store.db-wal").exists());
    let check: String = Connection::open(config(&folder).data_dir.join("store.db"))
        .unwrap()
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}

fn acceptance() -> Acceptance {
    Acceptance {
        generation: version(1, 1).generation,
        first_at: Wall(1),
        last_at: Wall(2),
    }
}

fn notes() -> IssuerNotes {
    IssuerNotes::default().repeated_badly(Duration::ZERO, Wall(1))
}

fn outcome() -> LoginOutcome {
    LoginOutcome::new(Wall(1), Some("canary-outcome".into()))
}

#[expect(clippy::disallowed_methods, reason = "how a test is asked for more")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
