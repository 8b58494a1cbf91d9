//! Stores that refuse every write, by a full disk or another writer that does not let go, and the spool slot that takes what
//! they refuse.

use std::sync::Arc;

use pilotlight::{
    LoginRequest, Session, Sessions,
    core::{
        attempt::Label,
        credential::{Account, CredentialKey},
        event::Happened,
        resource::Resource,
    },
};
use pilotlight_testkit::{Fault, Lab, ScriptedHuman};

use super::{files::skipped, *};
use crate::sessions::{Clicks, lab};

/// A disk of its own for a store, which can be filled to the last block.
struct Disk {
    config: SqliteStoreConfig,
    filler: PathBuf,
    _unmount: Unmount,
    _place: Sqlite,
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Disk {
    /// `None` where nothing can be mounted: that takes a privileged user.
    fn mount() -> Option<Self> {
        let place = Sqlite::new();
        let disk = place.dir.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "none"])
            .arg(&disk)
            .stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            skipped("no file system can be mounted here");
            return None;
        }
        let mut config = place.config.clone();
        config.data_dir = disk.join("data");
        Some(Self {
            config,
            filler: disk.join("filler"),
            _unmount: Unmount(disk),
            _place: place,
        })
    }

    /// Takes every block there is. The log still has room in those that it has: they are used up, too.
    async fn fill(&self, store: &SqliteStore) {
        let filler = fs::File::create(&self.filler).unwrap();
        let mut offset = 0;
        for size in [65_536, 4096, 1] {
            while filler.write_all_at(&vec![1; size], offset).is_ok() {
                offset += size as u64;
            }
        }
        for n in 0..2000 {
            if let Err(error) = store.record(&key(9), &event(n)).await {
                assert_eq!(error.code(), "unavailable.store");
                return;
            }
        }
        panic!("the disk is never full");
    }

    fn empty(&self) {
        fs::remove_file(&self.filler).unwrap();
    }
}

/// F-06: with the disk full the store refuses and the spool takes; afterwards what was spooled is merged.
#[tokio::test]
async fn the_spool_takes_what_a_full_disk_refuses() {
    let Some(disk) = Disk::mount() else { return };
    let store = SqliteStore::open(&disk.config).unwrap();
    store.prepare_spool(&key(1)).await.unwrap();
    store
        .commit(&commit(1, version(1, 0), Expects::Anything))
        .await
        .unwrap();
    disk.fill(&store).await;
    let name = LockName::Refresh(store.credential_id(&key(1)));
    let lease = store.try_lock(name).await.unwrap();
    assert!(
        matches!(lease, Locked::Got(_)),
        "the lock needs no new block"
    );
    for generation in 1..4 {
        let before = version(1, generation - 1);
        let spent = attempt(u32::try_from(generation).unwrap());
        let fact = [Fact::Attempt(Some(spent))];
        let noted = store.note(&key(1), before, &fact, None).await;
        // Where it holds another version it has nothing to write, and does not notice that it could not.
        if generation == 1 {
            assert_eq!(noted.unwrap_err().code(), "unavailable.store");
        } else {
            assert_eq!(noted, Ok(false));
        }
        let kept = store.spool_attempt(&key(1), before, Some(&spent)).await;
        kept.unwrap();
        let record = store.read(&key(1)).await.unwrap().unwrap();
        assert_eq!(record.attempt, Some(spent));
        assert_eq!(record.credential, Some(credential(1, before)));
        let next = commit(1, version(1, generation), Expects::Version(before));
        assert_eq!(
            store.commit(&next).await.unwrap_err().code(),
            "unavailable.store"
        );
        store.spool(Some(before), &next.credential).await.unwrap();
        let record = store.read(&key(1)).await.unwrap().unwrap();
        assert_eq!(
            (record.version(), record.attempt),
            (Some(version(1, generation)), None)
        );
    }
    drop((lease, store));
    disk.empty();
    let store = SqliteStore::open(&disk.config).unwrap();
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

/// Another writer that does not let go of the database until it is dropped.
struct Hog(Connection);

impl Hog {
    fn of(place: &Sqlite) -> Self {
        let connection = Connection::open(place.file()).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(connection)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

/// What the role `refresh` of a child does: one refresh, due or not.
pub(super) async fn refresh(dir: &Path, url: &str) {
    let sessions = process(&impatient(&config(dir)));
    let url = Resource::parse(url).unwrap();
    let session = sessions.get(&url, &Account::default()).await.unwrap();
    drop(session.refresh(true).await);
}

fn impatient(config: &SqliteStoreConfig) -> SqliteStoreConfig {
    config.clone().with_busy_timeout(Duration::from_millis(20))
}

fn process(config: &SqliteStoreConfig) -> Sessions {
    let store = Arc::new(SqliteStore::open(config).unwrap());
    Sessions::builder(store)
        .human(Arc::new(Clicks(ScriptedHuman::allows())))
        .program("test")
        .open()
        .unwrap()
}

/// A process that has logged in.
async fn logged_in(config: &SqliteStoreConfig, lab: &Lab) -> (Sessions, Session) {
    let (sessions, url) = (process(config), url(lab));
    let request = LoginRequest::new(url.clone(), Account::default());
    sessions.login(request).await.unwrap();
    let session = sessions.get(&url, &Account::default()).await.unwrap();
    (sessions, session)
}

fn url(lab: &Lab) -> Resource {
    Resource::parse(lab.resource_url()).unwrap()
}

async fn login_of(store: &SqliteStore) -> CredentialKey {
    let bindings = store.bindings().await.unwrap();
    bindings[0].credential.clone().unwrap()
}

/// Three rotations while the store takes nothing, then a restart with a store that does.
async fn rotate(session: &Session, lab: &Lab) {
    for rotation in 1..4 {
        let report = session.refresh(true).await;
        assert!(report.is_ok_and(|report| report.refreshed), "{rotation}");
        let stats = lab.with_issuer(|issuer| issuer.stats().clone());
        assert_eq!((stats.refresh_ok, stats.spent_presented), (rotation, 0));
    }
}

async fn assert_nothing_was_lost(config: &SqliteStoreConfig, lab: &Lab) {
    let sessions = process(config);
    let session = sessions.get(&url(lab), &Account::default()).await.unwrap();
    assert!(session.refresh(true).await.unwrap().refreshed);
    let store = SqliteStore::open(config).unwrap();
    let record = store.read(&login_of(&store).await).await.unwrap().unwrap();
    assert_eq!(record.version().unwrap().generation.0, 4);
    assert_eq!((record.spooled, record.attempt), (None, None));
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(
        (stats.refresh_ok, stats.refresh_err, stats.spent_presented),
        (4, 0, 0)
    );
}

/// F-06, I-1, I-3: three rotations with the disk full, each noted in the slot before it leaves; after the restart the newest
/// refresh token is the one that is used.
#[tokio::test(flavor = "multi_thread")]
async fn three_rotations_on_a_full_disk_cost_no_login() {
    let Some(disk) = Disk::mount() else { return };
    let lab = lab(|_| {}).await;
    let (sessions, session) = logged_in(&disk.config, &lab).await;
    disk.fill(&SqliteStore::open(&disk.config).unwrap()).await;
    rotate(&session, &lab).await;
    drop((session, sessions));
    disk.empty();
    assert_nothing_was_lost(&disk.config, &lab).await;
}

/// F-06, I-1, I-3: the same beside a writer that does not let go.
#[tokio::test(flavor = "multi_thread")]
async fn three_rotations_beside_a_stuck_writer_cost_no_login() {
    let place = Sqlite::new();
    let config = impatient(&place.config);
    let lab = lab(|_| {}).await;
    let (sessions, session) = logged_in(&config, &lab).await;
    let hog = Hog::of(&place);
    rotate(&session, &lab).await;
    drop((session, sessions, hog));
    assert_nothing_was_lost(&config, &lab).await;
}

/// F-29, F-06: an access token of 64 KiB, as some issuers' JWTs come to be, goes through store and slot like any other, with
/// the disk full; what lies outside the store is one small key, whatever is sealed with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_64_kib_fits_everywhere() {
    const LONG: usize = 64 * 1024;
    let Some(disk) = Disk::mount() else { return };
    let lab = lab(|issuer| issuer.access_token_bytes = LONG).await;
    let (sessions, session) = logged_in(&disk.config, &lab).await;
    disk.fill(&SqliteStore::open(&disk.config).unwrap()).await;
    rotate(&session, &lab).await;
    drop((session, sessions));
    disk.empty();
    assert_nothing_was_lost(&disk.config, &lab).await;
    let sessions = process(&disk.config);
    let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
    let token = session.token(None).await.unwrap();
    assert_eq!(token.access_token.expose().len(), LONG);
    assert!(fs::metadata(&disk.config.key_file).unwrap().len() < 256);
}

/// F-03, I-1, I-3: a process killed while its refresh is under way, which only the slot could note: the next one repeats the
/// call under its label, whether the store takes writes again or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_only_the_slot_noted_is_repeated_under_its_label() {
    for refusing in [false, true] {
        let place = Sqlite::new();
        let config = impatient(&place.config);
        let lab = lab(|issuer| issuer.reuse_grace = Some(Duration::from_secs(30))).await;
        drop(logged_in(&config, &lab).await);
        let hog = Hog::of(&place);
        lab.with_issuer(|issuer| issuer.push_fault(Fault::DelayAnswer { ms: 60_000 }));
        let mut child = spawn(&format!("refresh:{}", lab.resource_url()), place.dir.path());
        let started = now();
        while lab.with_issuer(|issuer| issuer.stats().refresh_ok) == 0 {
            assert!(started.elapsed() < Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = SqliteStore::open(&config).unwrap();
        let login = login_of(&store).await;
        let record = store.read(&login).await.unwrap().unwrap();
        let found = record.attempt.expect("the attempt that the slot took");
        assert_eq!((found.number, found.label), (1, None));
        let hog = Some(hog).filter(|_| refusing);
        let sessions = process(&config);
        let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
        assert!(session.refresh(true).await.unwrap().refreshed);
        let stats = lab.with_issuer(|issuer| issuer.stats().clone());
        assert_eq!((stats.spent_presented, stats.reuse_revocations), (1, 0));
        if hog.is_none() {
            let events = store.events(&login, 100).await.unwrap();
            let repeats = events.iter().filter_map(|event| match event.happened {
                Happened::Refreshed { label, calls, .. } => Some((label, calls)),
                _ => None,
            });
            assert_eq!(repeats.collect::<Vec<_>>(), [(Some(Label::AfterCrash), 2)]);
        }
    }
}

/// DESIGN.md section 3 step 4: a refresh that the store notes writes nothing into the slot.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_without_trouble_leaves_the_slot_alone() {
    let place = Sqlite::new();
    let lab = lab(|_| {}).await;
    let (_sessions, session) = logged_in(&place.config, &lab).await;
    let slot = place.only("spool");
    let look = || {
        let metadata = fs::metadata(&slot).unwrap();
        let written = (metadata.mtime(), metadata.mtime_nsec());
        (fs::read(&slot).unwrap(), written, metadata.ino())
    };
    let before = look();
    for _ in 0..3 {
        assert!(session.refresh(true).await.unwrap().refreshed);
    }
    let down = Fault::Status {
        status: 503,
        retry_after: Some(1),
        body: None,
    };
    lab.with_issuer(|issuer| issuer.push_fault(down));
    session.refresh(true).await.unwrap_err();
    assert!(look() == before);
}
