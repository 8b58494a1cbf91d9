//! What the recorded process does: one promise after the other, each marked as soon as it is answered.

use std::{fs::File, io::Write as _, path::Path, sync::Arc};

use pilotlight::{
    Error,
    core::{
        attempt::Attempt,
        credential::{Binding, Credential, Version},
        event::Event,
        flow::{Commit, Expects, Registration},
        notes::IssuerNotes,
        record::{Acceptance, Backoff, Fact, Failed, Record},
        secret::AccessToken,
        time::Wall,
    },
    store::{LockName, Locked, LoginOutcome, MemoryStore, QueuedRevocation, SqliteStore, Store},
};

use super::record::MARKS;
use crate::store_support::*;

/// One thing that a store promises to have done once it answers. Logins are named by number.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Opens the store, after closing it where it was open.
    Open,
    Prepare(u8),
    Register(&'static str),
    Forget(&'static str),
    Learn,
    Name(u8, &'static str),
    Outcome(u8),
    /// The version, what it expects, and how long its access token is.
    Commit(u8, Version, Expects, usize),
    Note(u8, Version, Fact),
    Spool(u8, Version, Version, usize),
    SpoolAttempt(u8, Version, Option<Attempt>),
    Bury(u8, Revoke),
    Revoked(u8),
    Event(u8, u64),
    Lock(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Revoke {
    Yes,
    No,
}

/// A varied life, then a long one.
pub(super) fn script() -> Vec<Act> {
    [varied(), long()].concat()
}

/// One of everything, and what comes next to it.
pub(super) fn varied() -> Vec<Act> {
    use Act::*;
    let v = version;
    let after = |g| Expects::Version(version(1, g));
    let any = Expects::Anything;
    vec![
        Open,
        Prepare(1),
        Register("canary-client-id"),
        Commit(1, v(1, 0), any, SMALL),
        Outcome(1),
        Note(1, v(1, 0), Fact::Attempt(Some(attempt(1)))),
        Lock(1),
        Commit(1, v(1, 1), after(0), SMALL),
        Note(1, v(1, 1), accepted(1)),
        // The store refuses: an attempt and a chain of versions that only the spool holds.
        SpoolAttempt(1, v(1, 1), Some(attempt(1))),
        Spool(1, v(1, 1), v(1, 2), SMALL),
        Spool(1, v(1, 2), v(1, 3), SMALL),
        Note(1, v(1, 1), failing(1)),
        Spool(1, v(1, 3), v(1, 4), SMALL),
        SpoolAttempt(1, v(1, 4), Some(attempt(2))),
        SpoolAttempt(1, v(1, 4), None),
        Open,
        Commit(1, v(1, 4), after(1), SMALL),
        // Another login, and one over it that only the spool holds at first.
        Prepare(2),
        Commit(2, v(1, 0), any, SMALL),
        Name(2, "canary-name"),
        Spool(2, v(1, 0), v(7, 0), SMALL),
        Commit(2, v(7, 0), any, SMALL),
        Learn,
        // Records that outgrow their slot.
        Commit(1, v(1, 5), after(4), 6_000),
        Commit(1, v(1, 6), after(5), 9_000),
        Lock(1),
        Spool(1, v(1, 6), v(1, 7), 20_000),
        Commit(1, v(1, 7), after(6), 20_000),
        // Small again: what is large takes long to open.
        Spool(1, v(1, 7), v(1, 8), SMALL),
        Spool(1, v(1, 8), v(1, 9), SMALL),
        Commit(1, v(1, 9), after(7), SMALL),
        // Logouts.
        Register("canary-other-client"),
        Prepare(3),
        Commit(3, v(1, 0), any, SMALL),
        Spool(3, v(1, 0), v(1, 1), SMALL),
        Spool(3, v(1, 1), v(1, 2), SMALL),
        Bury(3, Revoke::Yes),
        Revoked(3),
        Commit(3, v(2, 0), any, SMALL),
        Prepare(4),
        Commit(4, v(1, 0), any, SMALL),
        Spool(4, v(1, 0), v(1, 1), SMALL),
        SpoolAttempt(4, v(1, 1), Some(attempt(3))),
        Bury(4, Revoke::No),
        Commit(4, v(2, 0), any, SMALL),
        Forget("canary-other-client"),
        Name(2, "canary-renamed"),
        Open,
    ]
}

/// Fills the log of the database until SQLite folds it into the file by itself and begins it again; then the end.
fn long() -> Vec<Act> {
    use Act::*;
    let v = version;
    let mut acts = vec![Prepare(5), Commit(5, v(1, 0), Expects::Anything, SMALL)];
    for g in 1..LONG_LIFE {
        acts.push(Lock(5));
        acts.push(Note(5, v(1, g - 1), Fact::Attempt(Some(attempt(1)))));
        if g % 8 == 0 {
            acts.push(Spool(5, v(1, g - 1), v(1, g), SMALL));
        }
        let after = Expects::Version(v(1, g - 1));
        acts.push(Commit(5, v(1, g), after, SMALL));
        acts.push(match g % 2 {
            0 => Note(5, v(1, g), accepted(g)),
            _ => Note(5, v(1, g), failing(g)),
        });
        acts.extend([Event(5, g), Event(5, g)]);
    }
    acts.extend([Open, Bury(5, Revoke::Yes), Bury(1, Revoke::No), Open]);
    acts
}

/// Does one thing; answers the fence of a lock.
pub(super) async fn perform(store: &dyn Store, act: &Act) -> Result<u64, Error> {
    match act {
        Act::Open => {}
        Act::Prepare(n) => store.prepare_spool(&key(*n)).await?,
        Act::Register(id) => store.put_registration(&registration(id, 1)).await?,
        Act::Forget(id) => store.forget_registration(&registration(id, 1)).await?,
        Act::Learn => store.learn(&issuer(), &learned()).await?,
        Act::Name(n, name) => store.put_binding(&binding(*n, name)).await?,
        Act::Outcome(n) => {
            let id = store.binding_id(&binding_key(*n));
            store.put_login_outcome(id, &outcome()).await?;
        }
        Act::Commit(n, version, expects, length) => {
            let commit = Commit {
                credential: grant(*n, *version, *length),
                binding: (*expects == Expects::Anything)
                    .then(|| binding(*n, &format!("canary-name-{n}"))),
                ..commit(*n, *version, *expects)
            };
            store.commit(&commit).await?;
        }
        Act::Note(n, version, fact) => {
            let (key, facts, event) = (key(*n), [fact.clone()], event(9));
            let noted = store.note(&key, *version, &facts, Some(&event));
            assert!(noted.await?, "the script knows what is stored");
        }
        Act::Spool(n, follows, version, length) => {
            let grant = grant(*n, *version, *length);
            store.spool(Some(*follows), &grant).await?;
        }
        Act::SpoolAttempt(n, version, attempt) => {
            store
                .spool_attempt(&key(*n), *version, attempt.as_ref())
                .await?;
        }
        Act::Bury(n, revoke) => {
            let revoke = *revoke == Revoke::Yes;
            store.bury(&key(*n), &event(8), revoke).await?;
        }
        Act::Revoked(n) => told(store, *n).await,
        Act::Event(n, at) => store.record(&key(*n), &event(*at)).await?,
        Act::Lock(n) => {
            let name = LockName::Refresh(store.credential_id(&key(*n)));
            match store.try_lock(name).await? {
                Locked::Got(lease) => return Ok(lease.fence),
                Locked::HeldBy(holder) => panic!("held by {holder}"),
            }
        }
    }
    Ok(0)
}

/// Plays the script on the store below `root` and marks each answer.
pub(super) async fn play(root: &Path, acts: &[Act]) {
    let mut marks = File::options()
        .create(true)
        .append(true)
        .open(root.join(&MARKS[1..]))
        .unwrap();
    let mut store: Option<SqliteStore> = None;
    for (number, act) in acts.iter().enumerate() {
        if matches!(act, Act::Open) {
            drop(store.take());
            store = Some(SqliteStore::open(&config(root)).unwrap());
        }
        let fence = perform(store.as_ref().unwrap(), act).await.unwrap();
        let mark = format!("{} {fence}\n", number + 1);
        marks.write_all(mark.as_bytes()).unwrap();
    }
}

/// All that a store can be asked about the logins of the script.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    bindings: Vec<Binding>,
    logins: Vec<(Option<Record>, Vec<Event>, Option<LoginOutcome>)>,
    revocations: Vec<QueuedRevocation>,
    registrations: Vec<Registration>,
    notes: IssuerNotes,
}

impl Snapshot {
    pub(super) async fn of(store: &dyn Store) -> Result<Self, Error> {
        let mut logins = Vec::new();
        for n in 1..=LOGINS {
            let outcome = store.login_outcome(store.binding_id(&binding_key(n)));
            logins.push((
                store.read(&key(n)).await?,
                store.events(&key(n), 1).await?,
                outcome.await?,
            ));
        }
        Ok(Self {
            bindings: store.bindings().await?,
            logins,
            revocations: store.revocations().await?,
            registrations: store.registrations(&issuer()).await?,
            notes: store.notes(&issuer()).await?,
        })
    }

    /// What there is after none, one, two ... of the acts, as the store in memory has it.
    pub(super) async fn after_each(acts: &[Act]) -> Vec<Arc<Self>> {
        let store = MemoryStore::new(clock());
        let mut after = vec![Arc::new(Self::of(&store).await.unwrap())];
        for act in acts {
            perform(&store, act).await.unwrap();
            after.push(Arc::new(Self::of(&store).await.unwrap()));
        }
        after
    }
}

fn grant(n: u8, version: Version, length: usize) -> Credential {
    let credential = credential(n, version);
    let token = format!("{:-<length$}", credential.access_token.expose());
    Credential {
        access_token: AccessToken::new(token).unwrap(),
        ..credential
    }
}

fn accepted(generation: u64) -> Fact {
    Fact::Acceptance(Some(Acceptance {
        generation: version(1, generation).generation,
        first_at: Wall(generation),
        last_at: Wall(generation),
    }))
}

fn failing(at: u64) -> Fact {
    let now = pilotlight::core::time::Stamp {
        wall: Wall(at),
        ..Default::default()
    };
    let failed = Failed::once(&Error::DeniedByResource);
    let mut backoff = Backoff::after(None, &failed, 0.5, now);
    backoff.code = "canary-code".into();
    Fact::Backoff(Some(backoff))
}

fn learned() -> IssuerNotes {
    IssuerNotes::default().repeated_badly(std::time::Duration::ZERO, Wall(1))
}

fn outcome() -> LoginOutcome {
    LoginOutcome::new(Wall(1), Some("canary-outcome".into()))
}

/// How many logins the script knows.
const LOGINS: u8 = 5;
const SMALL: usize = 100;
/// Enough for the log to reach the thousand pages at which SQLite folds it into the file by itself, and to begin again.
const LONG_LIFE: u64 = 75;
