//! A store that stands still, is busy, or breaks in the middle of a call.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use pilotlight::{
    LoginRequest, Sessions,
    clock::SystemClock,
    core::{
        credential::Account,
        event::{Event, Happened},
        time::Wall,
    },
    store::{MemoryStore, Store},
};
use pilotlight_testkit::ScriptedHuman;
use tokio::time::Instant;

use crate::{
    faults_callers::{Work, waits},
    faults_support::{HOUR, MINUTE, World, until},
    sessions::Clicks,
    stalling_store::{Stall, StallingStore},
};

/// I-17, F-22, F-25: a store that stands still delays nobody whose token works; the others wait for their own deadline in all,
/// store and refresh together, and go on once it moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stands_still_costs_no_more_than_a_deadline() {
    let world = World::new(|_| {}).await;
    let (process, _) = world.logged_in().await;
    let store = Arc::new(StallingStore::new(process.store.clone()));
    let limit = Duration::from_millis(2500);
    let sessions = Sessions::builder(store.clone())
        .clock(process.time.clone())
        .limits(waits(limit))
        .one_shot(true)
        .open()
        .unwrap();
    let session = sessions
        .get(&world.url(), &Account::default())
        .await
        .unwrap();
    store.stall(Stall::Everything);
    let since = Instant::now();
    session.header().await.unwrap();
    assert!(
        since.elapsed() < Duration::from_millis(500),
        "a token that works"
    );
    let token = session.token(None).await.unwrap();
    assert_eq!(token.warning.unwrap().code(), "unavailable.timeout");
    assert!(since.elapsed() < limit, "a look, and no longer");

    world.advance(HOUR);
    let calls: [Work<'_>; 3] = [
        Box::pin(async { session.header().await.err() }),
        Box::pin(async { session.token(None).await.err() }),
        Box::pin(async { session.refresh(true).await.err() }),
    ];
    for call in calls {
        let since = Instant::now();
        assert_eq!(call.await.unwrap().code(), "unavailable.timeout");
        let took = since.elapsed();
        assert!(
            took >= limit && took < limit + Duration::from_secs(1),
            "{took:?}"
        );
    }
    store.stall(Stall::Nothing);
    session.header().await.unwrap();
    assert_eq!(world.refreshes().len(), 1);
    world.assert_nothing_lost();
}

/// I-14, F-22: a token that is due is refreshed beside the requests, however often the store changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_store_keeps_no_due_token_from_its_refresh() {
    // Which moment the watcher looks at is chance: several, so that one of them is a bad one.
    for refreshed in join_all((0..6).map(|_| busy_store())).await {
        assert!(refreshed, "four seconds of use, and no refresh");
    }
}

/// Uses a login while its store changes all the time; whether it was refreshed when it was due.
async fn busy_store() -> bool {
    let world = World::with_tokens_of(Duration::from_secs(24)).await;
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let sessions = Sessions::builder(store.clone())
        .human(Arc::new(Clicks(ScriptedHuman::allows())))
        .open()
        .unwrap();
    let request = LoginRequest::new(world.url(), Account::default());
    let binding = sessions.login(request).await.unwrap().status.binding;
    let account = Account::default();
    let session = sessions.get(&world.url(), &account).await.unwrap();
    let since = Instant::now();
    // Due at 18 s at the latest; it lives for 24.
    while since.elapsed() < Duration::from_secs(22) {
        session.header().await.unwrap();
        let event = Event {
            at: Wall(0),
            process: Default::default(),
            happened: Happened::LoginFailed {
                code: "none".into(),
            },
        };
        let key = binding.credential.as_ref().unwrap();
        store.record(key, &event).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sessions.drain(MINUTE).await;
    world.stats().refresh_ok == 1
}

/// I-17: while a store stands still, however many calls look at it once, and then at it again, one of them is under way: each
/// may cost its process a thread for as long as the store stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stands_still_is_looked_at_once() {
    let world = World::new(|_| {}).await;
    let (process, _) = world.logged_in().await;
    let store = Arc::new(StallingStore::new(process.store.clone()));
    let sessions = Sessions::builder(store.clone())
        .clock(process.time.clone())
        .one_shot(true)
        .open()
        .unwrap();
    let account = Account::default();
    let session = sessions.get(&world.url(), &account).await.unwrap();
    store.stall(Stall::Everything);
    for _ in 0..2 {
        for token in join_all((0..20).map(|_| session.token(None))).await {
            assert_eq!(
                token.unwrap().warning.unwrap().code(),
                "unavailable.timeout"
            );
        }
        assert_eq!(store.begun(), 1, "calls that the store has yet to answer");
    }
    let made = process.session(&world).await.refresh(true).await.unwrap();
    assert!(made.refreshed);
    store.stall(Stall::Nothing);
    let token = session.token(None).await.unwrap();
    assert_eq!(token.warning, None);
    let stored = process.record(&world).await.credential.unwrap();
    assert_eq!(
        token.access_token, stored.access_token,
        "what is stored now"
    );
}

/// F-02, I-17: what a look at the store has read before a caller came is no answer to that caller: it sees what was stored by
/// then, and not what was there before.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_was_under_way_is_followed_by_another() {
    let world = World::new(|_| {}).await;
    let (process, other) = world.logged_in().await;
    let store = Arc::new(StallingStore::new(process.store.clone()));
    let sessions = Sessions::builder(store.clone())
        .clock(process.time.clone())
        .limits(waits(MINUTE))
        .one_shot(true)
        .open()
        .unwrap();
    let account = Account::default();
    let session = sessions.get(&world.url(), &account).await.unwrap();
    store.stall(Stall::Answers("read"));
    let early = tokio::spawn({
        let session = session.clone();
        async move { session.refresh(false).await }
    });
    until("a look", || store.begun() == 1).await;
    assert!(other.refresh(true).await.unwrap().refreshed);
    let (late, ()) = tokio::join!(session.token(None), async {
        store.stall(Stall::Nothing);
    });
    let stored = process.record(&world).await.credential.unwrap();
    assert_eq!(late.unwrap().access_token, stored.access_token);
    early.await.unwrap().unwrap();
}

/// I-17: a refresh that panics is told to whoever waits for it, and the next caller's is a new one: the login is not lost for
/// the life of the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_panics_is_followed_by_another() {
    let world = World::new(|_| {}).await;
    let (process, _) = world.logged_in().await;
    let store = Arc::new(StallingStore::new(process.store.clone()));
    let sessions = Sessions::builder(store.clone())
        .clock(process.time.clone())
        .open()
        .unwrap();
    let account = Account::default();
    let session = sessions.get(&world.url(), &account).await.unwrap();
    store.stall(Stall::Panics("try_lock"));
    let error = session.refresh(true).await.unwrap_err();
    assert_eq!(error.code(), "config.runtime");
    assert!(session.refresh(true).await.unwrap().refreshed);
}
