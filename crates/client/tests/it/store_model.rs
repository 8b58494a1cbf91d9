//! Sequences of calls, drawn at random, on each store and on a model of a page (promises 1, 3, 4, 5, 8; I-5, I-6, F-31).

use std::sync::Arc;

use pilotlight::{
    core::{
        credential::Version,
        flow::{Committed, Expects},
        record::Fact,
    },
    store::Store,
};
use proptest::prelude::*;

use crate::store_support::*;

/// One call.
#[derive(Debug, Clone)]
enum Call {
    Commit(u8, Version, Expects),
    /// Of this version, or of the current one.
    Note(u8, Option<Version>, Option<u32>),
    Spool(u8, Option<Version>, Version),
    /// Of this version, or of the current one.
    SpoolAttempt(u8, Option<Version>, Option<u32>),
    Bury(u8, bool),
    Revoked(u8),
    Reopen,
}

/// What the model knows of one login.
#[derive(Debug, Default, Clone)]
struct Login {
    stored: Option<Version>,
    tombstone: Option<Version>,
    attempt: Option<u32>,
    /// The two halves of the slot, newest first.
    spool: Vec<Half>,
    events: usize,
    queued: usize,
}

/// What one half of a slot holds.
#[derive(Debug, Default, Clone)]
struct Half {
    after: Vec<Option<Version>>,
    version: Option<Version>,
    attempt: Option<(Version, u32)>,
}

impl Login {
    fn spooled(&self) -> Option<Version> {
        self.spool.first().and_then(|half| self.counting(half))
    }

    /// The number of the attempt that counts.
    fn known_attempt(&self) -> Option<u32> {
        let noted = self.attempt.filter(|_| self.spooled().is_none());
        let kept = self.spool.first().and_then(|half| half.attempt);
        let kept = kept.filter(|(of, _)| self.current() == Some(*of));
        noted.max(kept.map(|(_, number)| number))
    }

    fn write(&mut self, change: impl FnOnce(&mut Half)) {
        let mut half = self.spool.first().cloned().unwrap_or_default();
        change(&mut half);
        self.spool.insert(0, half);
        self.spool.truncate(2);
    }

    /// Keeps or takes back an attempt; what changes nothing is not written.
    fn keep(&mut self, at: Version, number: Option<u32>) {
        let newest = self.spool.first().and_then(|half| half.attempt);
        let found = newest.filter(|(of, _)| *of == at).map(|(_, found)| found);
        if found != number {
            self.write(|half| half.attempt = number.map(|number| (at, number)));
        }
    }

    fn counting(&self, Half { after, version, .. }: &Half) -> Option<Version> {
        let spooled = (*version)?;
        let resurrects = self
            .tombstone
            .is_some_and(|buried| buried.incarnation == spooled.incarnation);
        let goes_back = self.stored.is_some_and(|v| {
            v.incarnation == spooled.incarnation && spooled.generation <= v.generation
        });
        (after.contains(&self.stored) && !resurrects && !goes_back).then_some(spooled)
    }

    fn current(&self) -> Option<Version> {
        self.spooled().or(self.stored)
    }

    /// `None` where the commit is refused, else the incarnation that it replaces.
    fn commit(&mut self, new: Version, expects: Expects) -> Option<Option<Version>> {
        let stored_already = self
            .stored
            .is_some_and(|v| v.incarnation == new.incarnation && v.generation >= new.generation);
        let resurrects = self
            .tombstone
            .is_some_and(|buried| buried.incarnation == new.incarnation);
        let fits = match expects {
            Expects::Anything => !resurrects,
            Expects::Nothing => self.stored.is_none() && !resurrects,
            Expects::Version(v) => {
                (self.stored == Some(v) || self.spooled() == Some(v))
                    && !stored_already
                    && !resurrects
            }
        };
        if !fits {
            return None;
        }
        self.events += 1;
        if stored_already {
            return Some(None);
        }
        let spooled = self.spool.iter().filter_map(|entry| self.counting(entry));
        let later = spooled.filter(|s| self.stored.is_some_and(|v| s.succeeds(&v)));
        let before = later.max_by_key(|s| s.generation).or(self.stored);
        let replaced = before.filter(|v| v.incarnation != new.incarnation);
        (self.stored, self.tombstone, self.attempt) = (Some(new), None, None);
        Some(replaced)
    }
}

fn versions() -> impl Strategy<Value = Version> {
    (1u8..4, 0u64..4).prop_map(|(incarnation, generation)| version(incarnation, generation))
}

fn mostly_current() -> impl Strategy<Value = Option<Version>> {
    prop_oneof![3 => Just(None), 1 => versions().prop_map(Some)]
}

fn calls() -> impl Strategy<Value = Call> {
    let expects = prop_oneof![
        6 => versions().prop_map(Expects::Version),
        1 => Just(Expects::Nothing),
        1 => Just(Expects::Anything),
    ];
    prop_oneof![
        6 => (1u8..3, versions(), expects).prop_map(|(n, new, expects)| Call::Commit(n, new, expects)),
        3 => (1u8..3, mostly_current(), prop::option::of(1u32..9)).prop_map(|(n, at, number)| Call::Note(n, at, number)),
        4 => (1u8..3, mostly_current(), prop::option::of(1u32..9)).prop_map(|(n, at, number)| Call::SpoolAttempt(n, at, number)),
        4 => (1u8..3, prop::option::of(versions()), versions()).prop_map(|(n, follows, new)| Call::Spool(n, follows, new)),
        1 => (1u8..3, any::<bool>()).prop_map(|(n, revoke)| Call::Bury(n, revoke)),
        1 => (1u8..3).prop_map(Call::Revoked),
        1 => Just(Call::Reopen),
    ]
}

async fn run(world: &impl World, calls: &[Call]) {
    let mut store = world.open();
    let mut logins = [Login::default(), Login::default()];
    for call in calls {
        step(world, &mut store, &mut logins, call).await;
        for (n, login) in [1u8, 2].into_iter().zip(&logins) {
            check(&store, n, login, call).await;
        }
    }
}

async fn step(
    world: &impl World,
    store: &mut Arc<dyn Store>,
    logins: &mut [Login; 2],
    call: &Call,
) {
    match call.clone() {
        Call::Commit(n, new, expects) => {
            let modelled = logins[usize::from(n) - 1].commit(new, expects);
            let got = match store.commit(&commit(n, new, expects)).await.unwrap() {
                Committed::Done { superseded } => {
                    Some(superseded.map(|credential| credential.version))
                }
                Committed::Moved => None,
            };
            assert_eq!(got, modelled, "{call:?}");
        }
        Call::Note(n, at, number) => {
            let login = &mut logins[usize::from(n) - 1];
            let at = at.or(login.current()).unwrap_or(version(1, 0));
            let fits = login.stored == Some(at);
            let fact = [Fact::Attempt(number.map(attempt))];
            assert_eq!(
                store
                    .note(&key(n), at, &fact, Some(&event(0)))
                    .await
                    .unwrap(),
                fits,
                "{call:?}"
            );
            if fits {
                login.attempt = number;
                login.keep(at, None);
                login.events += 1;
            }
        }
        Call::Spool(n, follows, new) => {
            let login = &mut logins[usize::from(n) - 1];
            store.spool(follows, &credential(n, new)).await.unwrap();
            // A login in the slot is not displaced by a refresh of the one that it replaces.
            let own = |after: &Option<Version>| {
                after.is_some_and(|after| after.incarnation == new.incarnation)
            };
            let displaces = login.spool.first().is_some_and(|half| {
                let other = |kept: Version| kept.incarnation != new.incarnation;
                half.version.is_some_and(other) && half.after.iter().any(own)
            });
            if displaces {
                return;
            }
            login.write(|half| {
                let before = std::mem::replace(&mut half.after, vec![follows]);
                let Some(kept) = half.version.replace(new) else {
                    return;
                };
                // A login replaces what was spooled while it was under way.
                let login = new.generation.0 == 0 && kept.incarnation != new.incarnation;
                let chained = Some(kept) == follows;
                if login && !chained {
                    half.after.push(Some(kept));
                }
                if login || chained {
                    half.after.extend(before);
                }
            });
        }
        Call::SpoolAttempt(n, at, number) => {
            let login = &mut logins[usize::from(n) - 1];
            let at = at.or(login.current()).unwrap_or(version(1, 0));
            let kept = number.map(attempt);
            store
                .spool_attempt(&key(n), at, kept.as_ref())
                .await
                .unwrap();
            login.keep(at, number);
        }
        Call::Bury(n, revoke) => {
            let login = &mut logins[usize::from(n) - 1];
            let buried = store.bury(&key(n), &event(0), revoke).await.unwrap();
            assert_eq!(
                buried.map(|buried| buried.credential.version),
                login.current(),
                "{call:?}"
            );
            if let Some(current) = login.current() {
                let replaced = login
                    .stored
                    .is_some_and(|v| v.incarnation != current.incarnation);
                login.queued += usize::from(revoke && replaced);
                (login.stored, login.tombstone, login.spool, login.attempt) =
                    (None, Some(current), Vec::new(), None);
                login.events += 1;
                login.queued += usize::from(revoke);
            }
        }
        Call::Revoked(n) => {
            told(&**store, n).await;
            logins[usize::from(n) - 1].queued = 0;
        }
        Call::Reopen => *store = world.open(),
    }
}

async fn check(store: &Arc<dyn Store>, n: u8, login: &Login, call: &Call) {
    let record = store.read(&key(n)).await.unwrap();
    let exists = login.current().is_some() || login.tombstone.is_some();
    assert_eq!(record.is_some(), exists, "{n} after {call:?}");
    let record = record.unwrap_or_default();
    assert_eq!(
        record.credential,
        login.current().map(|v| credential(n, v)),
        "{n} after {call:?}"
    );
    assert_eq!(
        record.spooled.map(|s| s.follows),
        login.spooled().map(|_| login.stored),
        "{n} after {call:?}"
    );
    assert_eq!(
        record.attempt.map(|attempt| attempt.number),
        login.known_attempt(),
        "{n} after {call:?}"
    );
    assert_eq!(
        store.events(&key(n), 99).await.unwrap().len(),
        login.events,
        "{n} after {call:?}"
    );
    let queued = store.revocations().await.unwrap();
    assert_eq!(
        queued.iter().filter(|q| q.credential.key == key(n)).count(),
        login.queued,
        "{n} after {call:?}"
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_does_as_the_model(calls in prop::collection::vec(calls(), 1..40)) {
        runtime().block_on(run(&Memory::new(), &calls));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_does_as_the_model(calls in prop::collection::vec(calls(), 1..30)) {
        runtime().block_on(run(&Sqlite::new(), &calls));
    }
}
