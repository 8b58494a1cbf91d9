//! What the promises leave open: burials, lists, counts.

use super::*;

pub(super) async fn a_burial_ends_a_login(world: &impl World) {
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

pub(super) async fn a_local_burial_queues_nothing(world: &impl World) {
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

pub(super) async fn a_shared_registration_stays(world: &impl World) {
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

pub(super) async fn bindings_have_one_name_each(world: &impl World) {
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

pub(super) async fn registrations_are_listed_newest_first(world: &impl World) {
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

pub(super) async fn notes_and_outcomes_are_kept(world: &impl World) {
    let store = world.open();
    assert_eq!(
        store.notes(&issuer()).await.unwrap(),
        IssuerNotes::default()
    );
    let notes = IssuerNotes::default().repeated_badly(std::time::Duration::ZERO, Wall(7));
    store.learn(&issuer(), &notes).await.unwrap();
    assert_eq!(store.notes(&issuer()).await.unwrap(), notes);
    let id = store.binding_id(&binding_key(1));
    assert_eq!(store.login_outcome(id).await.unwrap(), None);
    for code in [Some("denied.by_human".to_owned()), None] {
        let outcome = LoginOutcome::new(Wall(3), code);
        store.put_login_outcome(id, &outcome).await.unwrap();
        assert_eq!(store.login_outcome(id).await.unwrap(), Some(outcome));
    }
}

pub(super) async fn the_history_is_capped(world: &impl World) {
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

pub(super) async fn changes_are_counted(world: &impl World) {
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
