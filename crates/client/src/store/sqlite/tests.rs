use super::{
    schema::{Header, READER, WRITER},
    *,
};
use crate::{clock::SystemClock, store::Store as _};
use pilotlight_core::{
    credential::{Account, CredentialKey, Generation, Incarnation, Version},
    event::Event,
    issuer::Issuer,
    notes::IssuerNotes,
    record::Record,
    resource::Resource,
    time::{Mono, Now},
};

struct Place {
    _dir: tempfile::TempDir,
    config: SqliteStoreConfig,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let config = SqliteStoreConfig::new(
        dir.path().join("data"),
        dir.path().join("state/key"),
        "test",
        Arc::new(SystemClock),
    );
    SqliteStore::open(&config).unwrap();
    Place { _dir: dir, config }
}

impl Place {
    fn database(&self) -> Connection {
        Connection::open(self.config.data_dir.join(open::FILE)).unwrap()
    }

    /// Changes the header as a version of this program that knows the key would.
    fn change_header(&self, change: impl FnOnce(&mut Header)) {
        let connection = self.database();
        let mut header = Header::read(&connection, "").unwrap();
        let root = header.unlock(&self.config.key_file).unwrap();
        change(&mut header);
        header.sign(&root);
        header.write(&connection).unwrap();
    }

    fn open(&self) -> Result<SqliteStore, Error> {
        SqliteStore::open(&self.config)
    }
}

fn key() -> CredentialKey {
    CredentialKey {
        tenant: String::new(),
        resource: Resource::parse("https://mcp.example/").unwrap(),
        issuer: Issuer::parse("https://as.example").unwrap(),
        account: Account::default(),
    }
}

fn event() -> Event {
    Event {
        at: Wall(1),
        process: pilotlight_core::attempt::ProcessId::default(),
        happened: pilotlight_core::event::Happened::Healed,
    }
}

fn is_refused<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::StoreUnavailable { .. }))
}

/// F-30: a store that admits only newer writers is served from and never written to, even when it came to that while it
/// was open.
#[tokio::test]
async fn below_min_writer_a_program_serves_and_writes_nothing() {
    let place = place();
    let early = place.open().unwrap();
    early.record(&key(), &event()).await.unwrap();
    assert!(early.writable());
    place.change_header(|header| header.min_writer = WRITER + 1);
    let late = place.open().unwrap();
    assert!(!late.writable());
    let version = Version {
        incarnation: Incarnation([1; 16]),
        generation: Generation(0),
    };
    for store in [&early, &late] {
        assert_eq!(store.events(&key(), 10).await.unwrap(), [event()]);
        assert!(is_refused(store.record(&key(), &event()).await));
        assert!(is_refused(store.note(&key(), version, &[], None).await));
        assert!(is_refused(store.bury(&key(), &event(), true).await));
        assert!(is_refused(store.prepare_spool(&key()).await));
        assert!(is_refused(store.spool_attempt(&key(), version, None).await));
        assert!(is_refused(
            store.revoked(&key(), Incarnation([1; 16])).await
        ));
        assert!(is_refused(
            store.learn(&key().issuer, &IssuerNotes::default()).await
        ));
        assert!(!store.writable());
    }
}

/// F-30: a store that admits only newer readers says which it wants, whatever else its header holds.
#[tokio::test]
async fn below_min_reader_a_program_says_so() {
    let place = place();
    let early = place.open().unwrap();
    place.change_header(|header| header.min_reader = READER + 6);
    let expected = Error::StoreNewerFormat {
        found: READER + 6,
        known: READER,
    };
    assert_eq!(place.open().unwrap_err(), expected);
    assert_eq!(early.bindings().await.unwrap_err(), expected);
    place
        .database()
        .execute_batch("UPDATE header SET slots = 'what a later format may write'")
        .unwrap();
    assert_eq!(place.open().unwrap_err(), expected);
}

/// T-38: each field of the header is authenticated; damage is told from a wrong key.
#[test]
fn a_changed_header_is_damage() {
    for change in [
        "store_id = x'00000000000000000000000000000000'",
        "created_at = created_at + 1",
        "min_writer = 0",
        "format = 9",
        "key_id = 2",
        "mac = zeroblob(32)",
        "mac = x''",
        "slots = '[]'",
        "slots = 'no json'",
        "slots = replace(slots, '\"wrapped\":\"', '\"wrapped\":\"A')",
        "slots = replace(slots, '\"check\":\"', '\"check\":\"A')",
    ] {
        let place = place();
        place
            .database()
            .execute_batch(&format!("UPDATE header SET {change}"))
            .unwrap();
        let expected = if change == "slots = '[]'" {
            "config.store"
        } else {
            "store.corrupt"
        };
        assert_eq!(place.open().unwrap_err().code(), expected, "{change}");
    }
    let place = place();
    place
        .database()
        .execute_batch("DELETE FROM header")
        .unwrap();
    assert_eq!(place.open().unwrap_err().code(), "store.corrupt");
}

/// DESIGN.md section 4: the slots are an open list: kinds that this version does not know are named, not fatal.
#[test]
fn slots_of_other_versions_are_listed() {
    let place = place();
    place.change_header(|header| {
        header.slots_text =
            header
                .slots_text
                .replacen('[', r#"[{"kind":"passphrase","salt":"x","m":65536},"#, 1);
    });
    assert_eq!(place.open().unwrap().key_slots(), ["passphrase", "keyfile"]);
    place.change_header(|header| header.slots_text = r#"[{"kind":"keychain"}]"#.into());
    let Error::ConfigStore { why, .. } = place.open().unwrap_err() else {
        panic!()
    };
    assert!(why.contains("keychain"), "{why}");
}

/// DESIGN.md section 4: a tombstone, its history and a revocation that nobody managed are forgotten after thirty days.
#[tokio::test]
async fn old_tombstones_are_forgotten() {
    #[derive(Debug, Default)]
    struct Days(AtomicU32);
    impl Clock for Days {
        fn now(&self) -> Now {
            let wall = Wall(u64::from(self.0.load(Ordering::Relaxed)) * 86_400_000);
            Now {
                wall,
                mono: Mono(wall.0),
                ..Now::default()
            }
        }
    }
    let mut place = place();
    let days = Arc::new(Days(AtomicU32::new(100)));
    place.config.clock = Arc::clone(&days) as Arc<dyn Clock>;
    let store = place.open().unwrap();
    let version = Version {
        incarnation: Incarnation([1; 16]),
        generation: Generation(0),
    };
    let id = store.credential_id(&key());
    store
        .call(move |inner| {
            inner.writing(|t| rows::entomb(t, &inner.keys, id, version, Wall(100 * 86_400_000)))
        })
        .await
        .unwrap();
    store.record(&key(), &event()).await.unwrap();
    let forget = |store: &SqliteStore| {
        let now = store.inner.clock.now().wall;
        store.inner.writing(|t| logins::forget_old(t, now)).unwrap();
    };
    days.0.store(129, Ordering::Relaxed);
    forget(&store);
    assert_eq!(store.read(&key()).await.unwrap(), Some(Record::default()));
    days.0.store(131, Ordering::Relaxed);
    forget(&store);
    assert_eq!(store.read(&key()).await.unwrap(), None);
    assert_eq!(store.events(&key(), 9).await.unwrap(), []);
}
