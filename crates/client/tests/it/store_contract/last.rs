//! The promises 6 to 9.

use super::*;

pub(super) async fn promise_6_nothing_deletes_a_refresh_token(world: &impl World) {
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
            &LoginOutcome::new(Wall(1), None),
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

pub(super) async fn promise_7_one_holder(world: &impl World) {
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

pub(super) async fn promise_7_many_tasks(world: &impl World) {
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

pub(super) async fn promise_8_reads_see_the_spool(world: &impl World) {
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

pub(super) async fn promise_8_spooled_after_spooled(world: &impl World) {
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

pub(super) async fn promise_8_a_login_supersedes_what_is_spooled(world: &impl World) {
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
    // A refresh of the login before, whose call was under way, does not displace it.
    store
        .spool(Some(version(2, 0)), &credential(1, version(2, 1)))
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

pub(super) async fn promise_9_debug_shows_nothing(world: &impl World) {
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
