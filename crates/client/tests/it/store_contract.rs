//! The store contract: each numbered promise of `pilotlight::store`, on every store.

use std::{sync::Arc, time::Duration};

use pilotlight::{
    Error,
    core::{
        credential::{Binding, Generation},
        error::LoginCause,
        flow::{Commit, Committed, Expects},
        notes::IssuerNotes,
        record::{Acceptance, Backoff, Fact, Forced, Record, Suspicion},
        time::Wall,
    },
    store::{Lease, LockName, Locked, LoginOutcome, Store},
};

use crate::store_support::*;

/// Makes one test of each promise for each store.
macro_rules! contract {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $($(#[$doc])* #[tokio::test] async fn $name() { super::$name(&Memory::new()).await; })*
        }
        mod sqlite {
            use super::*;
            $($(#[$doc])* #[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&Sqlite::new()).await; })*
        }
    };
}

contract! {
    /// Promise 1 (F-07, I-4): what was answered is there for whoever opens the store next.
    promise_1_durable,
    /// Promise 2 (I-8): what does not go through writes nothing at all.
    promise_2_atomic,
    /// Promise 3 (I-5): a commit goes through only over the version that it expects.
    promise_3_compare_and_swap,
    /// Promise 3 (I-5, F-31): of many commits over one version one goes through.
    promise_3_one_of_many,
    /// Promise 3 (I-5, F-31): a login goes through over anything, and says what it replaced.
    promise_3_a_login_never_loses,
    /// Promise 4: facts belong to the version they were written beside.
    promise_4_facts_belong_to_a_version,
    /// Promise 5 (I-5): within one login nothing goes back.
    promise_5_monotone,
    /// Promise 6 (I-6): a refresh token stays, whatever is written beside it.
    promise_6_nothing_deletes_a_refresh_token,
    /// Promise 7 (F-10, I-16): one holder at a time, each with a larger fence.
    promise_7_one_holder,
    /// Promise 7: many tasks that want one lock have it in turn.
    promise_7_many_tasks,
    /// Promise 8 (F-06): what the store refused is read from the spool while it follows.
    promise_8_reads_see_the_spool,
    /// Promise 8 (F-06): one spooled version may follow another that never reached the store.
    promise_8_spooled_after_spooled,
    /// Promise 8 (F-06, F-31): a login over a spooled refresh is told of the spooled one.
    promise_8_a_login_supersedes_what_is_spooled,
    /// Promise 9 (T-33): no store shows a secret when it is printed.
    promise_9_debug_shows_nothing,
    /// A logout leaves a tombstone, a queue entry, and no way back (F-31).
    a_burial_ends_a_login,
    /// A logout without the issuer leaves nothing to do.
    a_local_burial_queues_nothing,
    /// Only a registration that no other login uses goes with a login.
    a_shared_registration_stays,
    /// Bindings: by URL and account, oldest first, one name each.
    bindings_have_one_name_each,
    /// Registrations: newest first, one per client id.
    registrations_are_listed_newest_first,
    /// Notes on issuers and outcomes of logins are kept.
    notes_and_outcomes_are_kept,
    /// The history: in order, at most a thousand.
    the_history_is_capped,
    /// Every write shows in the number of changes, to every process.
    changes_are_counted,
}

async fn login(store: &Arc<dyn Store>, n: u8, incarnation: u8) {
    let done = store
        .commit(&commit(n, version(incarnation, 0), Expects::Anything))
        .await
        .unwrap();
    assert!(matches!(done, Committed::Done { .. }));
}

async fn refresh(store: &Arc<dyn Store>, n: u8, incarnation: u8, generation: u64) -> Committed {
    let expects = Expects::Version(version(incarnation, generation - 1));
    store
        .commit(&commit(n, version(incarnation, generation), expects))
        .await
        .unwrap()
}

async fn read(store: &Arc<dyn Store>, n: u8) -> Record {
    store.read(&key(n)).await.unwrap().unwrap()
}

async fn take(store: &Arc<dyn Store>, name: LockName) -> Lease {
    match store.try_lock(name).await.unwrap() {
        Locked::Got(lease) => lease,
        Locked::HeldBy(holder) => panic!("held by {holder}"),
    }
}

const NOT_THERE: Committed = Committed::Moved;
const DONE: Committed = Committed::Done { superseded: None };

async fn promise_1_durable(world: &impl World) {
    let store = world.open();
    let first = Commit {
        binding: Some(binding(1, "one")),
        ..commit(1, version(1, 0), Expects::Anything)
    };
    assert_eq!(store.commit(&first).await.unwrap(), DONE);
    assert!(
        store
            .note(
                &key(1),
                version(1, 0),
                &[Fact::Attempt(Some(attempt(1)))],
                None
            )
            .await
            .unwrap()
    );
    store.put_registration(&registration("a", 1)).await.unwrap();
    drop(store);
    let store = world.open();
    let record = read(&store, 1).await;
    assert_eq!(record.credential, Some(first.credential));
    assert_eq!(record.attempt, Some(attempt(1)));
    assert_eq!(
        store.binding(&binding_key(1)).await.unwrap(),
        Some(binding(1, "one"))
    );
    assert_eq!(
        store.registrations(&issuer()).await.unwrap(),
        [registration("a", 1)]
    );
    assert!(
        store
            .bury(&key(1), &event(9), true)
            .await
            .unwrap()
            .is_some()
    );
    drop(store);
    let store = world.open();
    assert_eq!(read(&store, 1).await, Record::default());
    assert_eq!(store.revocations().await.unwrap().len(), 1);
    assert_eq!(
        store.events(&key(1), 10).await.unwrap(),
        [event(0), event(9)]
    );
}

async fn promise_2_atomic(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    let before = (
        read(&store, 1).await,
        store.events(&key(1), 10).await.unwrap(),
    );
    let stale = Commit {
        binding: Some(binding(1, "one")),
        ..commit(1, version(1, 2), Expects::Version(version(1, 1)))
    };
    assert_eq!(store.commit(&stale).await.unwrap(), NOT_THERE);
    assert!(
        !store
            .note(
                &key(1),
                version(1, 1),
                &[Fact::Attempt(Some(attempt(1)))],
                Some(&event(5))
            )
            .await
            .unwrap()
    );
    assert_eq!(store.bury(&key(2), &event(5), true).await.unwrap(), None);
    assert_eq!(
        (
            read(&store, 1).await,
            store.events(&key(1), 10).await.unwrap()
        ),
        before
    );
    assert_eq!(store.bindings().await.unwrap(), []);
    assert_eq!(store.events(&key(2), 10).await.unwrap(), []);
    assert_eq!(store.revocations().await.unwrap(), []);
    let facts = [
        Fact::Attempt(Some(attempt(1))),
        Fact::Forced(Some(Forced::default())),
    ];
    assert!(
        store
            .note(&key(1), version(1, 0), &facts, Some(&event(6)))
            .await
            .unwrap()
    );
    let record = read(&store, 1).await;
    assert_eq!(
        (record.attempt, record.forced),
        (Some(attempt(1)), Some(Forced::default()))
    );
    assert_eq!(
        store.events(&key(1), 10).await.unwrap(),
        [event(0), event(6)]
    );
}

async fn promise_3_compare_and_swap(world: &impl World) {
    let store = world.open();
    assert_eq!(refresh(&store, 1, 1, 1).await, NOT_THERE);
    assert_eq!(
        store
            .commit(&commit(1, version(1, 0), Expects::Nothing))
            .await
            .unwrap(),
        DONE
    );
    assert_eq!(
        store
            .commit(&commit(1, version(2, 0), Expects::Nothing))
            .await
            .unwrap(),
        NOT_THERE
    );
    assert_eq!(
        refresh(&store, 1, 2, 1).await,
        NOT_THERE,
        "another incarnation"
    );
    assert_eq!(
        refresh(&store, 1, 1, 2).await,
        NOT_THERE,
        "a generation too far"
    );
    assert_eq!(refresh(&store, 1, 1, 1).await, DONE);
    assert_eq!(refresh(&store, 1, 1, 1).await, NOT_THERE, "twice");
    assert_eq!(
        read(&store, 1).await.credential,
        Some(credential(1, version(1, 1)))
    );
    assert_eq!(store.read(&key(2)).await.unwrap(), None);
}

async fn promise_3_one_of_many(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    let many = (0..8).map(|_| {
        let store = world.open();
        tokio::spawn(async move { refresh(&store, 1, 1, 1).await })
    });
    let mut done = 0;
    for one in many.collect::<Vec<_>>() {
        done += usize::from(one.await.unwrap() == DONE);
    }
    assert_eq!(done, 1);
}

async fn promise_3_a_login_never_loses(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    refresh(&store, 1, 1, 1).await;
    let second = store
        .commit(&commit(1, version(2, 0), Expects::Anything))
        .await
        .unwrap();
    assert_eq!(
        second,
        Committed::Done {
            superseded: Some(Box::new(credential(1, version(1, 1))))
        }
    );
    assert_eq!(
        refresh(&store, 1, 1, 2).await,
        NOT_THERE,
        "a refresh of the login before"
    );
    assert_eq!(read(&store, 1).await.version(), Some(version(2, 0)));
    // Another process merged it from the spool and has even refreshed it: the login is still told that it is in.
    refresh(&store, 1, 2, 1).await;
    let named = Commit {
        binding: Some(binding(1, "one")),
        ..commit(1, version(2, 0), Expects::Anything)
    };
    assert_eq!(store.commit(&named).await.unwrap(), DONE);
    assert_eq!(read(&store, 1).await.version(), Some(version(2, 1)));
    assert_eq!(store.bindings().await.unwrap(), [binding(1, "one")]);
    store.bury(&key(1), &event(1), false).await.unwrap();
    assert_eq!(
        store
            .commit(&commit(1, version(3, 0), Expects::Anything))
            .await
            .unwrap(),
        DONE
    );
    // Another server took the name while the person was logging in.
    let named = Commit {
        binding: Some(binding(2, "one")),
        ..commit(2, version(1, 0), Expects::Anything)
    };
    assert_eq!(store.commit(&named).await.unwrap(), DONE);
    assert_eq!(
        store.binding(&binding_key(2)).await.unwrap().unwrap().name,
        "one-2"
    );
}

async fn promise_4_facts_belong_to_a_version(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    let acceptance = Acceptance {
        generation: Generation(0),
        first_at: Wall(1),
        last_at: Wall(2),
    };
    let suspicion = Suspicion {
        cause: LoginCause::Abandoned,
        since: Wall(1),
        probes: 2,
        next_probe_at: None,
    };
    let backoff = Backoff::after(None, "unavailable.network", None, 0.5, Wall(3));
    let facts = [
        Fact::Attempt(Some(attempt(1))),
        Fact::Acceptance(Some(acceptance)),
        Fact::Suspicion(Some(suspicion)),
        Fact::Backoff(Some(backoff)),
        Fact::Forced(Some(Forced::default())),
    ];
    let mut expected = read(&store, 1).await;
    expected.apply(&facts);
    assert!(
        store
            .note(&key(1), version(1, 0), &facts, None)
            .await
            .unwrap()
    );
    assert_eq!(read(&store, 1).await, expected);
    let cleared = [
        Fact::Attempt(None),
        Fact::Attempt(Some(attempt(2))),
        Fact::Backoff(None),
    ];
    expected.apply(&cleared);
    assert!(
        store
            .note(&key(1), version(1, 0), &cleared, None)
            .await
            .unwrap()
    );
    assert_eq!(read(&store, 1).await, expected);
    let forced = Forced::default().once_more(Wall(5), Generation(1));
    let next = Commit {
        forced: Some(forced.clone()),
        ..commit(1, version(1, 1), Expects::Version(version(1, 0)))
    };
    store.commit(&next).await.unwrap();
    let fresh = Record {
        credential: Some(next.credential),
        forced: Some(forced),
        ..Record::default()
    };
    assert_eq!(read(&store, 1).await, fresh);
    assert!(
        !store
            .note(&key(1), version(1, 0), &facts, None)
            .await
            .unwrap()
    );
    assert!(
        !store
            .note(&key(2), version(1, 0), &facts, None)
            .await
            .unwrap()
    );
    assert_eq!(read(&store, 1).await, fresh);
    assert!(
        store
            .note(&key(1), version(1, 1), &[], Some(&event(7)))
            .await
            .unwrap()
    );
    store.bury(&key(1), &event(8), false).await.unwrap();
    assert!(
        !store
            .note(&key(1), version(1, 1), &facts, Some(&event(9)))
            .await
            .unwrap()
    );
}

async fn promise_5_monotone(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    for generation in 1..4 {
        refresh(&store, 1, 1, generation).await;
    }
    for (generation, expects) in [
        (2, Expects::Version(version(1, 3))),
        (3, Expects::Version(version(1, 3))),
        (2, Expects::Anything),
        (0, Expects::Anything),
    ] {
        store
            .commit(&commit(1, version(1, generation), expects))
            .await
            .unwrap();
        assert_eq!(
            read(&store, 1).await.version(),
            Some(version(1, 3)),
            "{generation} {expects:?}"
        );
    }
    store
        .spool(Some(version(1, 3)), &credential(1, version(1, 2)))
        .await
        .unwrap();
    assert_eq!(read(&store, 1).await.version(), Some(version(1, 3)));
}

async fn promise_6_nothing_deletes_a_refresh_token(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    store
        .put_registration(&registration("canary-client-id", 1))
        .await
        .unwrap();
    store
        .note(
            &key(1),
            version(1, 0),
            &[Fact::Attempt(Some(attempt(1)))],
            Some(&event(1)),
        )
        .await
        .unwrap();
    store
        .forget_registration(&registration("canary-client-id", 1))
        .await
        .unwrap();
    store
        .put_binding(&Binding {
            credential: None,
            ..binding(1, "one")
        })
        .await
        .unwrap();
    store
        .put_login_outcome(
            store.binding_id(&binding_key(1)),
            &LoginOutcome {
                at: Wall(1),
                code: None,
            },
        )
        .await
        .unwrap();
    store
        .learn(&issuer(), &IssuerNotes::default())
        .await
        .unwrap();
    store.record(&key(1), &event(2)).await.unwrap();
    store.prepare_spool(&key(1)).await.unwrap();
    told(&*store, 1).await;
    login(&store, 2, 1).await;
    store.bury(&key(2), &event(3), false).await.unwrap();
    assert_eq!(
        read(&store, 1).await.credential,
        Some(credential(1, version(1, 0)))
    );
}

async fn promise_7_one_holder(world: &impl World) {
    let (store, other) = (world.open(), world.open());
    let (refresh, login) = (
        LockName::Refresh(store.credential_id(&key(1))),
        LockName::Login(store.binding_id(&binding_key(1))),
    );
    let register = LockName::Register(store.issuer_id(&issuer()));
    let first = take(&store, refresh).await;
    for store in [&store, &other] {
        match store.try_lock(refresh).await.unwrap() {
            Locked::HeldBy(holder) => {
                assert_eq!(
                    (holder.pid, holder.since, holder.stopped),
                    (std::process::id(), 1_800_000_000, false)
                );
                assert!(!holder.program.is_empty());
            }
            Locked::Got(_) => panic!("two holders"),
        }
    }
    let others = (take(&other, login).await, take(&other, register).await);
    let mut fence = first.fence;
    drop((first, others));
    for store in [&other, &store, &world.open()] {
        let lease = take(store, refresh).await;
        assert!(lease.fence > fence, "{} after {fence}", lease.fence);
        fence = lease.fence;
    }
}

async fn promise_7_many_tasks(world: &impl World) {
    let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let tasks = (0..8).map(|_| {
        let (store, inside) = (world.open(), Arc::clone(&inside));
        tokio::spawn(async move {
            let name = LockName::Refresh(store.credential_id(&key(1)));
            let mut fences = Vec::new();
            while fences.len() < 5 {
                match store.try_lock(name).await.unwrap() {
                    Locked::Got(lease) => {
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        tokio::task::yield_now().await;
                        fences.push(lease.fence);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                    Locked::HeldBy(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
            fences
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await.unwrap());
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 40, "no fence twice");
}

async fn promise_8_reads_see_the_spool(world: &impl World) {
    let store = world.open();
    store.prepare_spool(&key(1)).await.unwrap();
    // A login that the store refused.
    store
        .spool(None, &credential(1, version(1, 0)))
        .await
        .unwrap();
    let record = read(&world.open(), 1).await;
    assert_eq!(record.version(), Some(version(1, 0)));
    assert_eq!(record.spooled.unwrap().follows, None);
    assert_eq!(
        store
            .commit(&commit(1, version(1, 0), Expects::Nothing))
            .await
            .unwrap(),
        DONE
    );
    assert_eq!(read(&store, 1).await.spooled, None);
    // A refresh that the store refused.
    let forced = Fact::Forced(Some(Forced::default()));
    store
        .note(
            &key(1),
            version(1, 0),
            &[Fact::Attempt(Some(attempt(1))), forced],
            None,
        )
        .await
        .unwrap();
    store
        .spool(Some(version(1, 0)), &credential(1, version(1, 1)))
        .await
        .unwrap();
    let record = read(&world.open(), 1).await;
    assert_eq!(record.credential, Some(credential(1, version(1, 1))));
    assert_eq!(record.spooled.unwrap().follows, Some(version(1, 0)));
    assert_eq!(
        (record.attempt, record.forced),
        (None, Some(Forced::default())),
        "an attempt belongs to its version"
    );
    assert!(
        !store.note(&key(1), version(1, 1), &[], None).await.unwrap(),
        "not stored yet"
    );
    assert_eq!(refresh(&store, 1, 1, 1).await, DONE);
    assert_eq!(read(&store, 1).await.spooled, None);
    // What follows another version than the stored one is not there.
    store
        .spool(Some(version(1, 0)), &credential(1, version(1, 7)))
        .await
        .unwrap();
    store
        .spool(Some(version(2, 1)), &credential(1, version(2, 2)))
        .await
        .unwrap();
    assert_eq!(read(&store, 1).await.version(), Some(version(1, 1)));
}

async fn promise_8_spooled_after_spooled(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    for generation in 1..6 {
        let follows = read(&store, 1).await.version();
        store
            .spool(follows, &credential(1, version(1, generation)))
            .await
            .unwrap();
        let record = read(&world.open(), 1).await;
        assert_eq!(record.version(), Some(version(1, generation)));
        assert_eq!(record.spooled.unwrap().follows, Some(version(1, 0)));
    }
    // The holder may also have refreshed from the spooled version without merging it first.
    assert_eq!(refresh(&store, 1, 1, 6).await, DONE);
    let record = read(&store, 1).await;
    assert_eq!(
        (record.version(), record.spooled),
        (Some(version(1, 6)), None)
    );
}

async fn promise_8_a_login_supersedes_what_is_spooled(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    store
        .spool(Some(version(1, 0)), &credential(1, version(1, 1)))
        .await
        .unwrap();
    let done = store
        .commit(&commit(1, version(2, 0), Expects::Anything))
        .await
        .unwrap();
    assert_eq!(
        done,
        Committed::Done {
            superseded: Some(Box::new(credential(1, version(1, 1))))
        }
    );
    // A login is spooled before it is committed: what it replaces is the login before, not itself.
    store
        .spool(Some(version(2, 0)), &credential(1, version(3, 0)))
        .await
        .unwrap();
    assert_eq!(read(&store, 1).await.version(), Some(version(3, 0)));
    let done = store
        .commit(&commit(1, version(3, 0), Expects::Anything))
        .await
        .unwrap();
    assert_eq!(
        done,
        Committed::Done {
            superseded: Some(Box::new(credential(1, version(2, 0))))
        }
    );
    // The same, over a refresh that never reached the store: the other half of the slot has it.
    store
        .spool(Some(version(3, 0)), &credential(1, version(3, 1)))
        .await
        .unwrap();
    store
        .spool(Some(version(3, 0)), &credential(1, version(4, 0)))
        .await
        .unwrap();
    let done = store
        .commit(&commit(1, version(4, 0), Expects::Anything))
        .await
        .unwrap();
    assert_eq!(
        done,
        Committed::Done {
            superseded: Some(Box::new(credential(1, version(3, 1))))
        }
    );
    // A logout of a version that only the spool holds.
    store
        .spool(Some(version(4, 0)), &credential(1, version(4, 1)))
        .await
        .unwrap();
    let buried = store.bury(&key(1), &event(1), true).await.unwrap().unwrap();
    assert_eq!(buried.credential, credential(1, version(4, 1)));
    assert_eq!(read(&store, 1).await, Record::default());
}

async fn promise_9_debug_shows_nothing(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    store
        .spool(None, &credential(1, version(1, 1)))
        .await
        .unwrap();
    let printed = format!(
        "{store:?} {:?}",
        take(&store, LockName::Login(store.binding_id(&binding_key(1)))).await
    );
    for secret in [
        "canary-access",
        "canary-refresh",
        "canary-client-secret",
        "canary-management",
    ] {
        assert!(!printed.contains(secret), "{secret}");
    }
}

async fn a_burial_ends_a_login(world: &impl World) {
    let store = world.open();
    store
        .put_registration(&registration("canary-client-id", 1))
        .await
        .unwrap();
    login(&store, 1, 1).await;
    let buried = store.bury(&key(1), &event(5), true).await.unwrap().unwrap();
    assert_eq!(buried.credential, credential(1, version(1, 0)));
    assert_eq!(buried.unshared, Some(registration("canary-client-id", 1)));
    assert_eq!(read(&store, 1).await, Record::default());
    assert_eq!(store.bury(&key(1), &event(6), true).await.unwrap(), None);
    // A login made meanwhile must not find a registration that is about to be deleted at the issuer.
    assert_eq!(store.registrations(&issuer()).await.unwrap(), []);
    let queued = store.revocations().await.unwrap();
    assert_eq!(queued.len(), 1);
    assert_eq!(
        (&queued[0].credential, &queued[0].unshared),
        (&buried.credential, &buried.unshared)
    );
    assert_eq!(queued[0].queued_at, Wall::from_unix_seconds(1_800_000_000));
    // What a refresh brings now belongs to nobody, by store or by spool.
    assert_eq!(refresh(&store, 1, 1, 1).await, NOT_THERE);
    for follows in [None, Some(version(1, 0))] {
        store
            .spool(follows, &credential(1, version(1, 1)))
            .await
            .unwrap();
        assert_eq!(read(&store, 1).await, Record::default());
    }
    told(&*store, 1).await;
    assert_eq!(store.revocations().await.unwrap(), []);
    assert_eq!(
        store.events(&key(1), 9).await.unwrap(),
        [event(0), event(5)]
    );
    login(&store, 1, 2).await;
    assert_eq!(read(&store, 1).await.version(), Some(version(2, 0)));
}

async fn a_local_burial_queues_nothing(world: &impl World) {
    let store = world.open();
    store
        .put_registration(&registration("canary-client-id", 1))
        .await
        .unwrap();
    login(&store, 1, 1).await;
    let buried = store
        .bury(&key(1), &event(5), false)
        .await
        .unwrap()
        .unwrap();
    assert!(buried.unshared.is_some());
    assert_eq!(store.revocations().await.unwrap(), []);
    assert_eq!(store.registrations(&issuer()).await.unwrap(), []);
}

async fn a_shared_registration_stays(world: &impl World) {
    let store = world.open();
    store
        .put_registration(&registration("canary-client-id", 1))
        .await
        .unwrap();
    login(&store, 1, 1).await;
    login(&store, 2, 1).await;
    assert_eq!(
        store
            .bury(&key(1), &event(5), true)
            .await
            .unwrap()
            .unwrap()
            .unshared,
        None
    );
    assert_eq!(store.registrations(&issuer()).await.unwrap().len(), 1);
    assert!(
        store
            .bury(&key(2), &event(5), true)
            .await
            .unwrap()
            .unwrap()
            .unshared
            .is_some()
    );
    assert_eq!(store.registrations(&issuer()).await.unwrap().len(), 0);
    // What a person registered is theirs.
    let mut own = commit(3, version(1, 0), Expects::Anything);
    own.credential.client.source = pilotlight::core::registration::ClientSource::PreRegistered;
    store
        .put_registration(&registration("canary-client-id", 1))
        .await
        .unwrap();
    store.commit(&own).await.unwrap();
    assert_eq!(
        store
            .bury(&key(3), &event(5), false)
            .await
            .unwrap()
            .unwrap()
            .unshared,
        None
    );
    assert_eq!(store.registrations(&issuer()).await.unwrap().len(), 1);
}

async fn bindings_have_one_name_each(world: &impl World) {
    let store = world.open();
    store.put_binding(&binding(2, "two")).await.unwrap();
    store.put_binding(&binding(1, "one")).await.unwrap();
    assert_eq!(
        store.bindings().await.unwrap(),
        [binding(1, "one"), binding(2, "two")]
    );
    let refused = store.put_binding(&binding(3, "two")).await;
    assert!(
        matches!(refused, Err(Error::ConfigValue { .. })),
        "{refused:?}"
    );
    assert_eq!(store.binding(&binding_key(3)).await.unwrap(), None);
    store.put_binding(&binding(2, "deux")).await.unwrap();
    store.put_binding(&binding(3, "two")).await.unwrap();
    assert_eq!(
        store.bindings().await.unwrap(),
        [binding(1, "one"), binding(2, "deux"), binding(3, "two")]
    );
}

async fn registrations_are_listed_newest_first(world: &impl World) {
    let store = world.open();
    for (id, at) in [("a", 5), ("b", 9), ("c", 7)] {
        store.put_registration(&registration(id, at)).await.unwrap();
    }
    let ids = async || -> Vec<String> {
        store
            .registrations(&issuer())
            .await
            .unwrap()
            .into_iter()
            .map(|r| r.client.id)
            .collect()
    };
    assert_eq!(ids().await, ["b", "c", "a"]);
    store
        .put_registration(&registration("a", 11))
        .await
        .unwrap();
    assert_eq!(ids().await, ["a", "b", "c"]);
    store
        .forget_registration(&registration("b", 9))
        .await
        .unwrap();
    assert_eq!(ids().await, ["a", "c"]);
    let elsewhere = pilotlight::core::issuer::Issuer::parse("https://other.example").unwrap();
    assert_eq!(store.registrations(&elsewhere).await.unwrap(), []);
}

async fn notes_and_outcomes_are_kept(world: &impl World) {
    let store = world.open();
    assert_eq!(
        store.notes(&issuer()).await.unwrap(),
        IssuerNotes::default()
    );
    let notes = IssuerNotes::repeated_badly(Wall(7));
    store.learn(&issuer(), &notes).await.unwrap();
    assert_eq!(store.notes(&issuer()).await.unwrap(), notes);
    let id = store.binding_id(&binding_key(1));
    assert_eq!(store.login_outcome(id).await.unwrap(), None);
    for code in [Some("denied.by_human".to_owned()), None] {
        let outcome = LoginOutcome { at: Wall(3), code };
        store.put_login_outcome(id, &outcome).await.unwrap();
        assert_eq!(store.login_outcome(id).await.unwrap(), Some(outcome));
    }
}

async fn the_history_is_capped(world: &impl World) {
    let store = world.open();
    for n in 0..1010 {
        store.record(&key(1), &event(n)).await.unwrap();
    }
    store.record(&key(2), &event(1)).await.unwrap();
    assert_eq!(
        store.events(&key(1), 3).await.unwrap(),
        [event(1007), event(1008), event(1009)]
    );
    let all = store.events(&key(1), usize::MAX).await.unwrap();
    assert_eq!((all.len(), &all[0]), (1000, &event(10)));
    assert_eq!(store.events(&key(2), 3).await.unwrap(), [event(1)]);
}

async fn changes_are_counted(world: &impl World) {
    let (store, other) = (world.open(), world.open());
    let mut last = (
        store.changes().await.unwrap(),
        other.changes().await.unwrap(),
    );
    assert_eq!(
        store.changes().await.unwrap(),
        last.0,
        "reading changes nothing"
    );
    for n in 0..3 {
        store.record(&key(1), &event(n)).await.unwrap();
        let now = (
            store.changes().await.unwrap(),
            other.changes().await.unwrap(),
        );
        assert!(now.0 != last.0 && now.1 != last.1, "{last:?} {now:?}");
        last = now;
    }
}
