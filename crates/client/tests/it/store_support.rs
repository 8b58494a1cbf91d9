//! What the tests of the stores share: logins full of canaries, a clock that is set by hand, stores that can be reopened.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pilotlight::{
    clock::Clock,
    core::{
        attempt::{Attempt, ProcessId},
        credential::{
            Account, Binding, BindingKey, Credential, CredentialKey, Generation, Incarnation,
            Lifetime, Pins, TokenType, Version,
        },
        event::{Event, Happened},
        flow::{Commit, Expects, Registration},
        issuer::Issuer,
        registration::{Client, ClientAuthentication, ClientSource, RegistrationManagement},
        resource::Resource,
        scope::Scopes,
        secret::{AccessToken, ClientSecret, RefreshToken},
        time::{Mono, Now, Stamp, Wall},
    },
    store::{MemoryStore, SqliteStore, SqliteStoreConfig, Store},
};

/// A clock that stands until it is set.
#[derive(Debug)]
pub(crate) struct HandClock(pub(crate) AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Now {
        let seconds = self.0.load(Ordering::Relaxed);
        Stamp {
            wall: Wall::from_unix_seconds(seconds),
            mono: Mono(seconds * 1000),
            ..Stamp::default()
        }
    }
}

pub(crate) fn clock() -> Arc<HandClock> {
    Arc::new(HandClock(AtomicU64::new(1_800_000_000)))
}

/// A place where a store can be opened, again and again, as by one process after or beside another.
pub(crate) trait World {
    fn open(&self) -> Arc<dyn Store>;
}

/// One store in memory: what a second process sees is the same.
pub(crate) struct Memory(pub(crate) Arc<MemoryStore>);

impl Memory {
    pub(crate) fn new() -> Self {
        Self(Arc::new(MemoryStore::new(clock())))
    }
}

impl World for Memory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::<MemoryStore>::clone(&self.0)
    }
}

/// A store in memory with sharing over it, where nothing is shared: each process has one of its own.
pub(crate) struct SharedMemory(Memory, tempfile::TempDir);

impl SharedMemory {
    pub(crate) fn new() -> Self {
        Self(Memory::new(), tempfile::tempdir().unwrap())
    }
}

impl World for SharedMemory {
    fn open(&self) -> Arc<dyn Store> {
        let links = self.1.path().join("links");
        Arc::new(pilotlight::mcp_remote::Shared::over(
            self.0.open(),
            links,
            clock(),
        ))
    }
}

/// A folder for a store in a file.
pub(crate) struct Sqlite {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: SqliteStoreConfig,
}

impl Sqlite {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        Self { dir, config }
    }

    pub(crate) fn try_open(&self) -> Result<SqliteStore, pilotlight::Error> {
        SqliteStore::open(&self.config)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.config.data_dir.join("store.db")
    }

    /// The only file in a folder of the store.
    pub(crate) fn only(&self, folder: &str) -> PathBuf {
        let mut files = std::fs::read_dir(self.config.data_dir.join(folder)).unwrap();
        files
            .find(|file| {
                !file
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with("init")
            })
            .unwrap()
            .unwrap()
            .path()
    }
}

impl World for Sqlite {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.try_open().unwrap())
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dir.path().fmt(f)
    }
}

pub(crate) fn config(dir: &Path) -> SqliteStoreConfig {
    SqliteStoreConfig::new(
        dir.join("data"),
        dir.join("state/key"),
        "pilotlight-test",
        clock(),
    )
    .with_busy_timeout(Duration::from_secs(10))
}

pub(crate) fn issuer() -> Issuer {
    Issuer::parse("https://canary-issuer.example").unwrap()
}

pub(crate) fn resource(n: u8) -> Resource {
    Resource::parse(&format!("https://canary-server-{n}.example/mcp")).unwrap()
}

pub(crate) fn key(n: u8) -> CredentialKey {
    CredentialKey {
        tenant: String::new(),
        resource: resource(n),
        issuer: issuer(),
        account: Account::parse("canary-account").unwrap(),
    }
}

pub(crate) fn version(incarnation: u8, generation: u64) -> Version {
    Version {
        incarnation: Incarnation([incarnation; 16]),
        generation: Generation(generation),
    }
}

pub(crate) fn client() -> Client {
    Client {
        id: "canary-client-id".into(),
        secret: Some(ClientSecret::new("canary-client-secret".into()).unwrap()),
        secret_ref: None,
        key: None,
        secret_expires_at: None,
        authentication: ClientAuthentication::Basic,
        source: ClientSource::Dynamic,
    }
}

pub(crate) fn credential(n: u8, version: Version) -> Credential {
    let name = format!("{n}-{}-{}", version.incarnation.0[0], version.generation.0);
    Credential {
        key: key(n),
        version,
        pins: Pins {
            resource_parameter: Some(resource(n).as_str().into()),
            token_endpoint: "https://canary-issuer.example/token".parse().unwrap(),
            revocation_endpoint: Some("https://canary-issuer.example/revoke".parse().unwrap()),
            called: None,
        },
        client: client(),
        access_token: AccessToken::new(format!("canary-access-{name}")).unwrap(),
        token_type: TokenType::Bearer,
        proof_key: None,
        unattended: None,
        refresh_token: Some(RefreshToken::new(format!("canary-refresh-{name}")).unwrap()),
        received_at: Some(Stamp::default()),
        lifetime: Some(Lifetime::Stated(Duration::from_secs(3600))),
        scopes_requested: Scopes::parse("canary-scope"),
        scopes_granted: Scopes::parse("canary-scope"),
        logged_in_at: Wall(1),
    }
}

pub(crate) fn event(n: u64) -> Event {
    let happened = Happened::RefreshFailed {
        code: "canary-event".into(),
        next: Wall(n),
    };
    Event {
        at: Wall(n),
        process: ProcessId::default(),
        happened,
    }
}

pub(crate) fn commit(n: u8, version: Version, expects: Expects) -> Commit {
    Commit {
        credential: credential(n, version),
        expects,
        binding: None,
        forced: None,
        event: event(version.generation.0),
    }
}

pub(crate) fn binding_key(n: u8) -> BindingKey {
    BindingKey::new(resource(n), Account::parse("canary-account").unwrap())
}

pub(crate) fn binding(n: u8, name: &str) -> Binding {
    Binding {
        key: binding_key(n),
        name: name.into(),
        credential: Some(key(n)),
        created_at: Wall(u64::from(n)),
        exception: None,
        without_resource_at: None,
        former: Vec::new(),
    }
}

pub(crate) fn registration(client_id: &str, at: u64) -> Registration {
    Registration {
        issuer: issuer(),
        client: Client {
            id: client_id.into(),
            ..client()
        },
        redirect_uris: vec!["http://127.0.0.1/callback".into()],
        management: Some(RegistrationManagement {
            uri: "https://canary-issuer.example/register/1".parse().unwrap(),
            token: AccessToken::new("canary-management".into()).unwrap(),
        }),
        registered_at: Wall(at),
    }
}

pub(crate) fn attempt(number: u32) -> Attempt {
    Attempt {
        generation: Generation(0),
        number,
        label: None,
        fence: 1,
        process: ProcessId::default(),
        first_sent_at: Stamp::default(),
        sent_at: Stamp::default(),
    }
}

/// Takes every revocation of a login off the queue, as if its issuer had answered.
pub(crate) async fn told(store: &(impl Store + ?Sized), n: u8) {
    for queued in store.revocations().await.unwrap() {
        if queued.credential.key == key(n) {
            let incarnation = queued.credential.version.incarnation;
            store.revoked(&key(n), incarnation).await.unwrap();
        }
    }
}
