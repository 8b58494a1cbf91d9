//! Faults as callers meet them: many 401s at once, callers that go away, issuers that are slow or never answer.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::future::join_all;
use http::StatusCode;
use pilotlight::{
    Error, Limits, LoginRequest, Session, Sessions,
    clock::SystemClock,
    core::{
        credential::Account,
        event::{Event, Happened},
        time::Wall,
    },
    store::{MemoryStore, Store},
};
use pilotlight_testkit::{
    Fault, ScriptedHuman,
    proxy::{End, Line, Way},
};
use tokio::time::Instant;

use crate::{
    faults_support::{Dice, HOUR, MINUTE, World, ask, served, slow, until},
    sessions::Clicks,
    stalling_store::{Stall, StallingStore},
};

fn waits(limit: Duration) -> Limits {
    let mut limits = Limits::default();
    limits.caller_wait = limit;
    limits
}

/// F-02, I-13: 500 requests that are refused together cost one refresh and one repeat each; nobody fails. Another process,
/// which still holds the refused token, repeats with the one in the store and refreshes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_refused_requests_are_one_refresh() {
    let world = World::new(|_| {}).await;
    let (_process, session) = world.logged_in().await;
    let other = world.process();
    let late = other.session(&world).await;
    served(&session, &world).await;
    served(&late, &world).await;
    world.lab.with_issuer(|issuer| {
        issuer.revoke_access();
        // Long enough for all of them to be refused before there is a new token.
        issuer.push_fault(Fault::DelayAnswer { ms: 2500 });
    });
    let before = world.lab.with_mcp(|server| server.stats().clone());

    let answers = join_all((0..500).map(|_| ask(&session, &world))).await;
    let failed: Vec<_> = answers
        .iter()
        .filter(|answer| **answer != Ok(StatusCode::OK))
        .collect();
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
    let after = world.lab.with_mcp(|server| server.stats().clone());
    assert_eq!(
        (
            after.unauthorized - before.unauthorized,
            after.posts - before.posts
        ),
        (500, 1000),
        "each was refused once and repeated once"
    );
    assert_eq!(world.refreshes().len(), 1);

    let answers = join_all((0..50).map(|_| ask(&late, &world))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(StatusCode::OK)));
    assert_eq!(world.refreshes().len(), 1, "the newer token was there");
    world.assert_nothing_lost();
}

/// Polls a future at most so many times, then drops it.
async fn drop_after<T>(polls: u64, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

type Work<'a> = Pin<Box<dyn Future<Output = Option<Error>> + Send + 'a>>;

/// F-05: callers that go away at any await point, a thousand times (fewer where that takes too long), lose nothing: each refresh that began ends, and what it
/// brought is in the store. The issuer forgives no reuse, so one lost rotation would be the end of the login.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_that_go_away_lose_nothing() {
    let world = World::new(|_| {}).await;
    let (one, session) = world.logged_in().await;
    let command = world.command();
    let commanded = command.session(&world).await;
    let mut dice = Dice::new(5);
    let mut dropped = 0;
    let times = if slow() { 1000 } else { 200 };
    while dropped < times {
        let caller: &Session = if dice.roll(2) == 0 {
            &session
        } else {
            &commanded
        };
        let work: Work<'_> = match dice.roll(4) {
            0 => Box::pin(async { caller.refresh(true).await.err() }),
            1 => Box::pin(async { caller.token(Some(2 * HOUR)).await.err() }),
            2 => {
                world.advance(61 * MINUTE);
                Box::pin(async { caller.header().await.err() })
            }
            _ => {
                world.lab.with_issuer(|issuer| issuer.revoke_access());
                world.advance(MINUTE);
                Box::pin(async { ask(caller, &world).await.err() })
            }
        };
        match drop_after(dice.roll(6), work).await {
            None => dropped += 1,
            // The breaker (T-45): the last caller went away before it could use what its 401 had brought.
            Some(None | Some(Error::DeniedByResource)) => {}
            // An hour has passed while it waited for the other process.
            Some(Some(Error::LeaseHeld { .. })) => {}
            Some(Some(error)) => panic!("{error:?}"),
        }
    }
    one.idle().await;
    command.idle().await;
    let stats = world.stats();
    assert!(stats.refresh_ok > 50, "{} refreshes", stats.refresh_ok);
    assert_eq!(
        one.count(&world, |happened| matches!(
            happened,
            Happened::Refreshed { label: Some(_), .. }
        ))
        .await,
        0,
        "no call was ever in doubt"
    );
    world.advance(61 * MINUTE);
    one.ticked().await;
    served(&session, &world).await;
    served(&commanded, &world).await;
    world.assert_nothing_lost();
}

/// F-10, I-1, I-17: an issuer that is slow but alive is called once, by however many callers and processes; who cannot wait
/// so long is told, and the refresh goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_issuer_is_called_once() {
    let mut delays = vec![0, 300, 2000];
    if slow() {
        delays.push(20_000);
    }
    let faults: [fn(u64) -> Fault; 2] = [|ms| Fault::Delay { ms }, |ms| Fault::DelayAnswer { ms }];
    let cases = delays
        .into_iter()
        .flat_map(|ms| faults.map(|fault| (ms, fault(ms))));
    join_all(cases.map(|(ms, fault)| slow_issuer(ms, fault))).await;
}

async fn slow_issuer(ms: u64, fault: Fault) {
    let world = World::new(|_| {}).await;
    let (one, first) = world.logged_in().await;
    let two = world.process();
    let second = two.session(&world).await;
    world
        .lab
        .with_issuer(|issuer| issuer.push_fault(fault.clone()));
    world.advance(HOUR);
    one.ticked().await;
    two.ticked().await;
    let since = Instant::now();
    let calls = (0..20).map(|i| if i % 2 == 0 { &first } else { &second }.header());
    for answer in join_all(calls).await {
        match answer {
            Ok(_) => {}
            Err(error) => panic!("{fault:?}: {error:?}"),
        }
    }
    let waited = since.elapsed();
    let slack = Duration::from_secs(5);
    assert!(waited < Duration::from_millis(ms) + slack, "{waited:?}");
    one.idle().await;
    two.idle().await;
    assert_eq!(world.refreshes().len(), 1, "{fault:?}");
    served(&first, &world).await;
    served(&second, &world).await;
    world.assert_nothing_lost();
}

/// F-25, I-14: while the token endpoint accepts and never answers, a hundred callers whose token still works are served at
/// once: 99 of 100 calls take less than 5 ms.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_issuer_delays_nobody_whose_token_works() {
    let world = World::new(|_| {}).await;
    let (process, session) = world.logged_in().await;
    world.proxy().set(Line::black_hole());
    world.advance(57 * MINUTE);
    process.ticked().await;
    // The one whose call begins the refresh is among them.
    let calls = (0..100).map(|_| async {
        let mut took = Vec::new();
        while took.len() < 40 || world.proxy().connections() == 0 {
            let since = Instant::now();
            session.header().await.unwrap();
            took.push(since.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        took
    });
    let mut took: Vec<_> = join_all(calls).await.concat();
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(5), "p99 is {p99:?}");
    let longest = took[took.len() - 1];
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert_eq!(world.proxy().connections(), 1, "it is still under way");
    assert_eq!(world.refreshes().len(), 0);
}

/// F-25, I-17: a hundred callers whose token has ended wait for their own deadline, no longer, and are told so; an issuer
/// that comes back meanwhile answers whoever still waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_issuer_costs_the_others_their_own_deadline() {
    let world = World::new(|_| {}).await;
    let limit = Duration::from_millis(1500);
    let process = world.process_with(|builder| builder.limits(waits(limit)));
    let session = process.log_in(&world).await;
    let patient = world.process_with(|builder| builder.limits(waits(30 * limit)));
    let waiting = patient.session(&world).await;
    // Nothing is read until it is healed.
    world.proxy().set(Line::up(Way::ending(0, End::Stall)));
    world.advance(HOUR);
    process.ticked().await;
    patient.ticked().await;
    let since = Instant::now();
    let calls = (0..100).map(|_| async {
        let answer = session.header().await;
        (answer, since.elapsed())
    });
    for (answer, took) in join_all(calls).await {
        let error = answer.unwrap_err();
        assert_eq!(error.code(), "unavailable.timeout");
        assert!(
            took >= limit && took < limit + Duration::from_secs(1),
            "{took:?}"
        );
    }
    let patients = tokio::spawn(async move {
        let header = waiting.header().await;
        (header, waiting)
    });
    until("the call to stand", || world.proxy().connections() > 0).await;
    world.proxy().heal();
    let (header, waiting) = patients.await.unwrap();
    header.unwrap();
    process.idle().await;
    assert_eq!(world.refreshes().len(), 1, "one call served everybody");
    served(&session, &world).await;
    served(&waiting, &world).await;
    world.assert_nothing_lost();
}

/// F-26, I-9: however hard callers press, half a second passes between a failure and the next call, for all processes
/// together.
#[tokio::test(flavor = "multi_thread")]
async fn callers_cannot_press_an_issuer_that_fails() {
    let world = World::new(|_| {}).await;
    let (one, first) = world.logged_in().await;
    let two = world.process();
    let second = two.session(&world).await;
    let down = Fault::Status {
        status: 503,
        retry_after: Some(0),
        body: None,
    };
    world
        .lab
        .with_issuer(|issuer| issuer.set_standing_fault(Default::default(), Some(down)));
    world.advance(HOUR);
    one.ticked().await;
    two.ticked().await;
    let since = Instant::now();
    let pressing = (0..20).map(|i| {
        let session = if i % 2 == 0 { &first } else { &second };
        async move {
            while since.elapsed() < Duration::from_secs(4) {
                // An ended token is tried while the issuer is down (F-13): that is no failure here.
                session.header().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    join_all(pressing).await;
    let calls: Vec<u64> = world.refreshes().iter().map(|call| call.at_ms).collect();
    assert!(calls.len() >= 2, "{calls:?}");
    for pair in calls.windows(2) {
        assert!(pair[1] - pair[0] >= 500, "{calls:?}");
    }
}

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
