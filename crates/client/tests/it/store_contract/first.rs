//! The promises 1 to 5.

use super::*;

pub(super) async fn promise_1_durable(world: &impl World) {
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

pub(super) async fn promise_2_atomic(world: &impl World) {
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

pub(super) async fn promise_3_compare_and_swap(world: &impl World) {
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

pub(super) async fn promise_3_one_of_many(world: &impl World) {
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

pub(super) async fn promise_3_a_login_never_loses(world: &impl World) {
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

pub(super) async fn promise_4_facts_belong_to_a_version(world: &impl World) {
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
        at: None,
    };
    let failed = Failed::once(&Error::DeniedByResource);
    let backoff = Backoff::after(None, &failed, 0.5, at(3));
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

pub(super) async fn promise_5_monotone(world: &impl World) {
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

fn at(wall: u64) -> pilotlight::core::time::Stamp {
    pilotlight::core::time::Stamp {
        wall: Wall(wall),
        ..Default::default()
    }
}
