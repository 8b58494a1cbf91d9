//! The store in a file, cut, edited, exchanged, or without its key: damage is an error, never an empty answer.

use super::*;
use proptest::prelude::*;

/// F-27, promise 10: a file cut at any length is damage or no store at all, and never an empty one.
#[tokio::test]
async fn a_truncated_store_is_never_empty() {
    let place = filled().await;
    let whole = fs::read(place.file()).unwrap();
    let mut lengths: Vec<usize> = (0..200).chain((0..whole.len()).step_by(509)).collect();
    lengths.extend(
        (1..=whole.len() / 4096).flat_map(|page| [page * 4096 - 1, page * 4096, page * 4096 + 1]),
    );
    lengths.retain(|length| *length < whole.len());
    for length in lengths {
        fs::write(place.file(), &whole[..length]).unwrap();
        let verdict = verdict(&place).await;
        assert!(
            ["store.corrupt", "store.foreign"].contains(&verdict),
            "cut to {length} bytes: {verdict}"
        );
        assert_eq!(
            fs::metadata(place.file()).unwrap().len(),
            length as u64,
            "left as it was found"
        );
    }
    fs::write(place.file(), &whole).unwrap();
    assert_eq!(verdict(&place).await, "ok");
}

/// F-27: a store cut to nothing beside its log keeps the log: SQLite alone would throw it away.
#[tokio::test]
async fn an_emptied_store_keeps_its_log() {
    let place = Sqlite::new();
    let store = place.try_open().unwrap();
    store.record(&key(1), &event(1)).await.unwrap();
    let log = place.file().with_extension("db-wal");
    let kept = (fs::read(place.file()).unwrap(), fs::read(&log).unwrap());
    drop(store);
    fs::write(place.file(), "").unwrap();
    fs::write(&log, &kept.1).unwrap();
    mode(&log, 0o600);
    assert_eq!(place.try_open().unwrap_err().code(), "store.corrupt");
    assert_eq!(fs::read(&log).unwrap(), kept.1);
    fs::write(place.file(), &kept.0).unwrap();
    assert_eq!(
        place.try_open().unwrap().events(&key(1), 9).await.unwrap(),
        [event(1)]
    );
}

/// F-27: what is no store of ours is said to be none, and left as it is.
#[test]
fn a_foreign_file_is_said_to_be_one() {
    let place = Sqlite::new();
    fs::create_dir_all(&place.config.data_dir).unwrap();
    for content in [
        vec![b'x'; 10_000 / 4096 * 4096],
        b"{\"tokens\":[]}".repeat(1024),
        b"my own notes".to_vec(),
    ] {
        fs::write(place.file(), &content).unwrap();
        let path = place.file().display().to_string();
        assert_eq!(place.try_open().unwrap_err(), Error::StoreForeign { path });
        assert_eq!(fs::read(place.file()).unwrap(), content);
        fs::remove_file(place.file()).unwrap();
    }
    Connection::open(place.file())
        .unwrap()
        .execute_batch("CREATE TABLE theirs (x)")
        .unwrap();
    let path = place.file().display().to_string();
    assert_eq!(place.try_open().unwrap_err(), Error::StoreForeign { path });
}

/// F-27: a store whose file is gone is not begun anew while the spare copies of its logins are there.
#[tokio::test]
async fn a_store_whose_file_is_gone_is_not_begun_anew() {
    let place = filled().await;
    for ending in ["", "-wal", "-shm"] {
        let file = place.file().display().to_string() + ending;
        fs::remove_file(file).ok();
    }
    assert_eq!(place.try_open().unwrap_err().code(), "store.corrupt");
    assert!(!place.file().exists(), "no new store hides the loss");
}

/// DESIGN.md section 4: another key is said to be wrong, and no key is said to be missing: none is made in its place.
#[tokio::test]
async fn a_wrong_key_and_a_missing_key_are_told_apart() {
    let place = filled().await;
    let path = place.config.key_file.display().to_string();
    let right = fs::read(&place.config.key_file).unwrap();
    assert_eq!(right.len(), 32);
    for wrong in [
        vec![7; 32],
        vec![],
        right[..31].to_vec(),
        [&right[..], b"\n"].concat(),
    ] {
        fs::write(&place.config.key_file, &wrong).unwrap();
        assert_eq!(
            place.try_open().unwrap_err(),
            Error::KeyWrong { path: path.clone() },
            "{wrong:?}"
        );
        assert_eq!(fs::read(&place.config.key_file).unwrap(), wrong);
    }
    fs::remove_file(&place.config.key_file).unwrap();
    for _ in 0..2 {
        assert_eq!(
            place.try_open().unwrap_err(),
            Error::KeyMissing { path: path.clone() }
        );
        let existing = SqliteStore::open_existing(&place.config).map(drop);
        assert_eq!(
            existing.unwrap_err(),
            Error::KeyMissing { path: path.clone() }
        );
        assert_eq!(
            fs::read_dir(place.dir.path().join("state"))
                .unwrap()
                .count(),
            0
        );
    }
    fs::write(&place.config.key_file, &right).unwrap();
    assert_eq!(verdict(&place).await, "ok");
}

/// T-38: one bit changed in anything that is sealed, or in a clear column beside it, is damage.
#[tokio::test]
async fn each_edited_column_is_damage() {
    let place = filled().await;
    let whole = fs::read(place.file()).unwrap();
    for (table, column) in [
        ("credential", "sealed"),
        ("credential", "incarnation"),
        ("credential", "generation"),
        ("credential", "client"),
        ("credential", "buried_at"),
        ("credential", "attempt"),
        ("binding", "sealed"),
        ("binding", "name"),
        ("event", "sealed"),
        ("outcome", "sealed"),
        ("registration", "sealed"),
        ("issuer", "sealed"),
        ("revocation", "sealed"),
        ("revocation", "login"),
        ("revocation", "queued_at"),
    ] {
        for bit in [0usize, 3, 100, 260, 1000, 2000] {
            fs::write(place.file(), &whole).unwrap();
            if !flip(&place, table, column, bit) {
                continue;
            }
            // A tombstone is read by nobody but the one who asks for that login.
            assert_eq!(
                verdict(&place).await,
                "store.corrupt",
                "{table}.{column}, bit {bit}"
            );
        }
    }
}

/// Flips one bit of a column, in one row and those that are like it; `false` where the column is shorter.
fn flip(place: &Sqlite, table: &str, column: &str, bit: usize) -> bool {
    use rusqlite::types::Value;
    let connection = Connection::open(place.file()).unwrap();
    let select = format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL LIMIT 1");
    let value: Value = connection.query_row(&select, (), |row| row.get(0)).unwrap();
    let flipped = match value.clone() {
        Value::Blob(mut bytes) => {
            let Some(byte) = bytes.get_mut(bit / 8) else {
                return false;
            };
            *byte ^= 1 << (bit % 8);
            Value::Blob(bytes)
        }
        Value::Integer(number) if bit < 32 => Value::Integer(number ^ (1 << bit)),
        _ => return false,
    };
    let update = format!("UPDATE {table} SET {column} = ?1 WHERE {column} = ?2");
    assert!(connection.execute(&update, (flipped, value)).unwrap() > 0);
    true
}

/// T-38: rows that are exchanged, wholly or in one column, are damage, whatever they are.
#[tokio::test]
async fn exchanged_rows_are_damage() {
    let place = filled().await;
    let whole = fs::read(place.file()).unwrap();
    for (what, exchange) in [
        ("the sealed logins", exchanged("credential", "sealed", "id")),
        ("the ids of logins", exchanged("credential", "id", "sealed")),
        (
            "the attempts of logins",
            exchanged("credential", "attempt", "id"),
        ),
        ("the sealed bindings", exchanged("binding", "sealed", "id")),
        ("the names of bindings", exchanged("binding", "name", "id")),
        ("the outcomes", exchanged("outcome", "sealed", "binding")),
        ("two events", exchanged("event", "sealed", "login || n")),
        (
            "a login for a tombstone",
            "UPDATE credential SET buried_at = 1, client = NULL".into(),
        ),
        (
            "a tombstone for nothing",
            "UPDATE credential SET buried_at = NULL, client = zeroblob(32)".into(),
        ),
        ("an event taken out", "DELETE FROM event WHERE n = 2".into()),
        (
            "an attempt for a suspicion",
            "UPDATE credential SET suspicion = attempt".into(),
        ),
        (
            "a queued revocation for a login",
            "UPDATE credential SET sealed = (SELECT sealed FROM revocation)".into(),
        ),
    ] {
        fs::write(place.file(), &whole).unwrap();
        Connection::open(place.file())
            .unwrap()
            .execute_batch(&exchange)
            .unwrap();
        assert_eq!(verdict(&place).await, "store.corrupt", "{what}");
    }
}

/// Exchanges a column between the first two rows.
fn exchanged(table: &str, column: &str, order: &str) -> String {
    format!(
        "CREATE TEMP TABLE pair AS SELECT {column} AS v FROM {table} WHERE {column} IS NOT NULL ORDER BY {order} LIMIT 2;
         UPDATE {table} SET {column} = zeroblob(7) WHERE {column} = (SELECT min(v) FROM pair);
         UPDATE {table} SET {column} = (SELECT min(v) FROM pair) WHERE {column} = (SELECT max(v) FROM pair);
         UPDATE {table} SET {column} = (SELECT max(v) FROM pair) WHERE {column} = zeroblob(7);"
    )
}

/// F-27, T-38: a damaged or exchanged spool slot is damage, and a login goes through all the same.
#[tokio::test]
async fn a_damaged_slot_is_damage() {
    let place = filled().await;
    let slots: Vec<PathBuf> = fs::read_dir(place.config.data_dir.join("spool"))
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    let slot = slots
        .iter()
        .find(|slot| fs::read(slot).unwrap().iter().any(|byte| *byte != 0))
        .unwrap();
    let whole = fs::read(slot).unwrap();
    for position in [0, 9, 30, 60, 200, 600] {
        let mut damaged = whole.clone();
        damaged[position] ^= 1;
        damaged[whole.len() / 2] = 1;
        fs::write(slot, &damaged).unwrap();
        assert_eq!(verdict(&place).await, "store.corrupt", "byte {position}");
    }
    for length in [0, 1, 100, whole.len() / 2] {
        fs::write(slot, &whole[..length]).unwrap();
        assert_eq!(verdict(&place).await, "store.corrupt", "cut to {length}");
    }
    let store = place.try_open().unwrap();
    store
        .spool(Some(version(1, 1)), &credential(2, version(2, 0)))
        .await
        .unwrap();
    store
        .commit(&commit(2, version(2, 0), Expects::Anything))
        .await
        .unwrap();
    assert_eq!(
        store.read(&key(2)).await.unwrap().unwrap().version(),
        Some(version(2, 0))
    );
    let other = slots.iter().find(|other| *other != slot).unwrap();
    fs::write(other, &whole).unwrap();
    assert_eq!(
        verdict(&place).await,
        "store.corrupt",
        "the slot of another login"
    );
}

/// AUTH-83, AUTH-90, promise 9 (T-38 and the threat table's canaries): nothing that the store writes shows anything in the clear.
#[tokio::test]
async fn nothing_is_written_in_the_clear() {
    let place = Sqlite::new();
    let store = place.try_open().unwrap();
    fill(&store).await;
    let mut canaries = Canaries::new();
    for canary in [
        "canary-",
        "example/",
        "mcp.example",
        "refresh_token",
        "127.0.0.1",
    ] {
        canaries.add(canary, canary);
    }
    let scan = |moment: &str| {
        let mut scanned = 0;
        walk(place.dir.path(), &mut |path, metadata| {
            if metadata.is_file() {
                let bytes = fs::read(path).unwrap();
                scanned += bytes.len();
                let leaks = canaries.find(&bytes, moment);
                assert!(leaks.is_empty(), "{moment}: {} {leaks:?}", path.display());
            }
        });
        assert!(scanned > 50_000, "{scanned} bytes");
    };
    scan("while it is open");
    assert!(place.file().with_extension("db-wal").exists());
    drop(store);
    scan("after it was closed");
}

/// I-6, DESIGN.md section 6: once a logout is over, nothing of the login's secrets is left, sealed or not.
#[tokio::test]
async fn after_a_logout_nothing_is_left_to_open() {
    for revoke in [true, false] {
        let place = Sqlite::new();
        let store = place.try_open().unwrap();
        fill(&store).await;
        store
            .put_registration(&registration("canary-client-id", 1))
            .await
            .unwrap();
        store
            .commit(&commit(4, version(1, 0), Expects::Anything))
            .await
            .unwrap();
        store
            .spool(Some(version(1, 1)), &credential(1, version(1, 2)))
            .await
            .unwrap();
        let mut secrets = sealed(
            &place,
            "SELECT sealed FROM credential WHERE buried_at IS NULL",
        );
        secrets.extend(sealed(&place, "SELECT sealed FROM registration"));
        secrets.extend(sealed(&place, "SELECT sealed FROM revocation"));
        for n in [1, 2, 4] {
            assert!(
                store
                    .bury(&key(n), &event(5), revoke)
                    .await
                    .unwrap()
                    .is_some()
            );
        }
        secrets.extend(sealed(&place, "SELECT sealed FROM revocation"));
        for n in [1, 2, 3, 4] {
            told(&store, n).await;
        }
        assert!(secrets.len() >= 6);
        store
            .forget_registration(&registration("canary-other-client", 1))
            .await
            .unwrap();
        let incarnation = version(1, 0).incarnation;
        store.revoked(&key(4), incarnation).await.unwrap();
        assert_eq!(
            fs::metadata(place.file().with_extension("db-wal"))
                .unwrap()
                .len(),
            0
        );
        walk(&place.config.data_dir, &mut |path, metadata| {
            if metadata.is_file() {
                let bytes = fs::read(path).unwrap();
                for secret in &secrets {
                    // Any 40 bytes of an envelope are enough to know it by.
                    let parts = secret.chunks_exact(40).skip(1);
                    let left = parts
                        .filter(|part| bytes.windows(40).any(|window| window == *part))
                        .count();
                    assert_eq!(left, 0, "{} (revoke: {revoke})", path.display());
                }
                if path.starts_with(place.config.data_dir.join("spool")) {
                    assert!(bytes.iter().all(|byte| *byte == 0), "{}", path.display());
                }
            }
        });
        assert_eq!(store.read(&key(1)).await.unwrap().unwrap().credential, None);
    }
}

fn sealed(place: &Sqlite, select: &str) -> Vec<Vec<u8>> {
    let connection = Connection::open(place.file()).unwrap();
    let mut statement = connection.prepare(select).unwrap();
    statement
        .query_map((), |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// F-27, T-38: whatever a few bytes of the file are changed to, every login is there, or it is an error.
    #[test]
    fn changed_bytes_are_harmless_or_an_error(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        runtime().block_on(async {
            let place = Sqlite::new();
            for (path, bytes) in template() {
                let (path, mut bytes) = (place.dir.path().join(path), bytes.clone());
                if path == place.file() {
                    for (index, byte) in &changes {
                        let at = index.index(bytes.len());
                        bytes[at] = *byte;
                    }
                }
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, bytes).unwrap();
            }
            let verdict = match place.try_open() {
                Ok(store) => read_logins(&store).await.map_or_else(|error| error.code(), |()| "ok"),
                Err(error) => error.code(),
            };
            // A slot of a kind that nobody knows is named as such.
            prop_assert!(verdict == "ok" || verdict == "config.store" || verdict.starts_with("store."), "{}", verdict);
            Ok(())
        })?;
    }
}

/// The files of a store that was filled once for all cases.
fn template() -> &'static [(PathBuf, Vec<u8>)] {
    static TEMPLATE: std::sync::OnceLock<Vec<(PathBuf, Vec<u8>)>> = std::sync::OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let place = std::thread::spawn(|| runtime().block_on(filled()))
            .join()
            .unwrap();
        let mut files = Vec::new();
        walk(place.dir.path(), &mut |path, metadata| {
            if metadata.is_file() {
                files.push((
                    path.strip_prefix(place.dir.path()).unwrap().to_owned(),
                    fs::read(path).unwrap(),
                ));
            }
        });
        files
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}
