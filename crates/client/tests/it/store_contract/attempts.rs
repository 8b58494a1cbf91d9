//! Promise 8, for attempts.

use super::*;
use pilotlight::core::credential::Version;

async fn number(store: &Arc<dyn Store>, n: u8) -> Option<u32> {
    read(store, n).await.attempt.map(|attempt| attempt.number)
}

async fn keep(store: &Arc<dyn Store>, version: Version, number: u32) {
    let attempt = attempt(number);
    let kept = store.spool_attempt(&key(1), version, Some(&attempt)).await;
    kept.unwrap();
}

async fn note(store: &Arc<dyn Store>, version: Version, fact: Fact) -> bool {
    store.note(&key(1), version, &[fact], None).await.unwrap()
}

pub(super) async fn promise_8_reads_see_a_spooled_attempt(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    login(&store, 2, 1).await;
    keep(&store, version(1, 0), 1).await;
    let expected = Record {
        credential: Some(credential(1, version(1, 0))),
        attempt: Some(attempt(1)),
        ..Record::default()
    };
    assert_eq!(read(&store, 1).await, expected);
    drop(store);
    let store = world.open();
    assert_eq!(read(&store, 1).await, expected, "it is durable");
    assert_eq!(number(&store, 2).await, None, "another login");
    keep(&store, version(1, 0), 2).await;
    assert_eq!(number(&store, 1).await, Some(2), "a repeat");
    // It belongs to its version and to no other.
    keep(&store, version(2, 0), 3).await;
    assert_eq!(number(&store, 1).await, None);
    keep(&store, version(1, 0), 4).await;
    let take_back = |version| {
        let store = store.clone();
        async move { store.spool_attempt(&key(1), version, None).await.unwrap() }
    };
    take_back(version(1, 1)).await;
    assert_eq!(number(&store, 1).await, Some(4), "another was meant");
    take_back(version(1, 0)).await;
    take_back(version(1, 0)).await;
    assert_eq!(number(&store, 1).await, None);
    assert_eq!(number(&world.open(), 1).await, None);
    // A logout ends it with the rest, and what comes later belongs to nobody.
    keep(&store, version(1, 0), 5).await;
    store.bury(&key(1), &event(1), true).await.unwrap();
    assert_eq!(read(&store, 1).await, Record::default());
    keep(&store, version(1, 0), 6).await;
    assert_eq!(read(&store, 1).await, Record::default());
}

pub(super) async fn promise_8_version_and_attempt_share_the_slot(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    keep(&store, version(1, 0), 1).await;
    let follows = Some(version(1, 0));
    store
        .spool(follows, &credential(1, version(1, 1)))
        .await
        .unwrap();
    assert_eq!(number(&store, 1).await, None, "its version is over");
    keep(&store, version(1, 1), 1).await;
    let record = read(&world.open(), 1).await;
    assert_eq!(record.credential, Some(credential(1, version(1, 1))));
    assert_eq!(record.spooled.unwrap().follows, follows);
    assert_eq!(record.attempt, Some(attempt(1)));
    // Another version after it: it still follows what the one before followed.
    store
        .spool(Some(version(1, 1)), &credential(1, version(1, 2)))
        .await
        .unwrap();
    keep(&store, version(1, 2), 7).await;
    let record = read(&world.open(), 1).await;
    assert_eq!(record.version(), Some(version(1, 2)));
    assert_eq!(record.attempt, Some(attempt(7)));
    // The merge brings the version in and not its end: its refresh token may be spent.
    let merge = commit(1, version(1, 2), Expects::Version(version(1, 0)));
    assert_eq!(store.commit(&merge).await.unwrap(), DONE);
    let record = read(&world.open(), 1).await;
    assert_eq!(
        (record.version(), record.spooled, record.attempt),
        (Some(version(1, 2)), None, Some(attempt(7)))
    );
    assert_eq!(refresh(&store, 1, 1, 3).await, DONE);
    assert_eq!(number(&store, 1).await, None);
}

pub(super) async fn promise_8_a_note_rules_over_the_slot(world: &impl World) {
    let store = world.open();
    login(&store, 1, 1).await;
    let at = version(1, 0);
    // Of two the later one counts.
    assert!(note(&store, at, Fact::Attempt(Some(attempt(1)))).await);
    keep(&store, at, 2).await;
    assert_eq!(number(&store, 1).await, Some(2));
    assert!(note(&store, at, Fact::Forced(None)).await);
    assert_eq!(number(&store, 1).await, Some(2), "another fact");
    assert!(!note(&store, version(1, 1), Fact::Attempt(None)).await);
    assert_eq!(number(&store, 1).await, Some(2), "what was not noted");
    // What is put back or cleared is so in the slot, too.
    for (kept, noted) in [(3, Some(4)), (5, Some(1)), (6, None)] {
        keep(&store, at, kept).await;
        let fact = Fact::Attempt(noted.map(attempt));
        assert!(note(&store, at, fact).await);
        assert_eq!(number(&world.open(), 1).await, noted);
    }
    keep(&store, at, 1).await;
    assert!(note(&store, at, Fact::Attempt(Some(attempt(3)))).await);
    keep(&store, at, 2).await;
    assert_eq!(number(&store, 1).await, Some(3), "the store's is later");
}

pub(super) async fn promise_8_two_writers_of_one_slot_lose_nothing(world: &impl World) {
    const ROUNDS: u32 = 40;
    let store = world.open();
    login(&store, 1, 1).await;
    let last = version(1, ROUNDS.into());
    // A login spools without the lock that a refresh holds.
    let (one, two) = (world.open(), world.open());
    let versions = tokio::spawn(async move {
        for generation in 1..=ROUNDS {
            let new = credential(1, version(1, generation.into()));
            one.spool(Some(version(1, 0)), &new).await.unwrap();
        }
    });
    let attempts = tokio::spawn(async move {
        for number in 1..=ROUNDS {
            keep(&two, last, number).await;
        }
    });
    versions.await.unwrap();
    attempts.await.unwrap();
    let record = read(&store, 1).await;
    assert_eq!(
        (record.version(), record.attempt),
        (Some(last), Some(attempt(ROUNDS)))
    );
}
