//! Step-ups over a store that stands still, or takes nothing.

use std::sync::Arc;

use futures_util::future::join_all;
use pilotlight::{Limits, Next, Session, Sessions, core::credential::Account, store::MemoryStore};
use pilotlight_testkit::{Lab, ScriptedHuman};
use tokio::time::Instant;

use super::{
    Counts, Duration,
    herd::{code, lab_with, stored, wants},
    process, request, store, url,
};
use crate::stalling_store::{Stall, StallingStore};

const LIMIT: Duration = Duration::from_millis(1500);

/// A login, and a process whose store can stand still.
struct Stalling {
    lab: Lab,
    inner: Arc<MemoryStore>,
    store: Arc<StallingStore>,
    human: Arc<Counts>,
    session: Session,
}

impl Stalling {
    async fn new() -> Self {
        let lab = lab_with(["a".into(), "b".into()]).await;
        let (inner, human) = (store(), Counts::new(ScriptedHuman::allows()));
        process(&inner, &human).login(request(&lab)).await.unwrap();
        let store = Arc::new(StallingStore::new(inner.clone()));
        let mut limits = Limits::default();
        limits.caller_wait = LIMIT;
        let sessions = Sessions::builder(store.clone())
            .human(human.clone())
            .limits(limits)
            .open()
            .unwrap();
        let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
        Self {
            lab,
            inner,
            store,
            human,
            session,
        }
    }

    async fn wants(&self, scope: &str) -> Next {
        let done = tokio::time::timeout(20 * LIMIT, wants(&self.session, &self.lab, scope));
        done.await.expect("a request waits for ever")
    }
}

/// I-17: until the person is asked, a request that meets a 403 waits for the store no longer than its caller may, whichever
/// call it is that stands still; and it goes on when the store does.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_up_waits_for_the_store_no_longer_than_its_caller() {
    let world = Stalling::new().await;
    let calls = [
        "binding",
        "login_outcome",
        "try_lock",
        "bindings",
        "registrations",
        "prepare_spool",
    ];
    for call in calls {
        world.store.stall(Stall::Only(call));
        let since = Instant::now();
        let answer = world.wants("a").await;
        assert_eq!(code(&answer), "unavailable.timeout", "{call}");
        let took = since.elapsed();
        assert!(
            took >= LIMIT && took < 2 * LIMIT,
            "{took:?} because of {call}"
        );
        assert_eq!(world.human.asked(), 1, "{call}");
        world.store.stall(Stall::Nothing);
    }
    assert_eq!(world.wants("a").await, Next::Retry);
    assert_eq!(world.human.asked(), 2);
}

/// I-17: what one request has found out about the store the others that wait for its login need not find out in turn.
#[tokio::test(flavor = "multi_thread")]
async fn many_step_ups_wait_for_the_store_together() {
    let world = Stalling::new().await;
    for call in ["login_outcome", "bindings", "prepare_spool"] {
        world.store.stall(Stall::Only(call));
        let since = Instant::now();
        for answer in join_all((0..8).map(|_| world.wants("a"))).await {
            assert_eq!(code(&answer), "unavailable.timeout", "{call}");
        }
        let took = since.elapsed();
        assert!(took < 2 * LIMIT, "{took:?} because of {call}");
        world.store.stall(Stall::Nothing);
    }
    assert_eq!(world.human.asked(), 1);
}

/// I-17, AUTH-56: a login that worked is used although the store stands still from then on, and nobody is asked again for a
/// server that refuses it too.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_worked_needs_no_store_to_be_used() {
    let world = Stalling::new().await;
    let before = world.session.header().await.unwrap();
    world.store.stall(Stall::After("commit"));
    assert_eq!(world.wants("a").await, Next::Retry);
    let made = stored(&world.inner).await;
    let header = world.session.header().await.unwrap();
    assert_ne!(header, before);
    assert_eq!(
        header.to_str().unwrap(),
        format!("Bearer {}", made.access_token.expose())
    );
    assert_eq!(
        code(&world.wants("a").await),
        "unavailable.timeout",
        "the repeated request"
    );
    assert_eq!(world.human.asked(), 2);
    world.store.stall(Stall::Nothing);
    assert_eq!(world.wants("b").await, Next::Retry);
    let requested = stored(&world.inner).await.scopes_requested;
    assert_eq!(requested.to_string(), "mcp:tools offline_access a b");
}

/// T-31: what people were asked for counts although no store has taken note of it.
#[tokio::test(flavor = "multi_thread")]
async fn prompts_that_cannot_be_noted_count() {
    let world = Stalling::new().await;
    world.store.stall(Stall::Only("put_login_outcome"));
    for _ in 0..3 {
        assert_eq!(world.wants("a").await, Next::Retry);
    }
    for _ in 0..3 {
        assert_eq!(code(&world.wants("a").await), "denied.by_resource");
    }
    assert_eq!(world.human.asked(), 1 + 3);
}

/// T-31: requests whose callers go away count too: each has opened a browser.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_away_do_not_ask_for_ever() {
    let mut world = Stalling::new().await;
    let slow = Counts::new(ScriptedHuman::allows().without_callback());
    let sessions = Sessions::builder(world.inner.clone())
        .human(slow.clone())
        .open()
        .unwrap();
    let account = Account::default();
    world.session = sessions.get(&url(&world.lab), &account).await.unwrap();
    let mut last = None;
    for asked in 1..=8 {
        tokio::select! {
            answer = world.wants("a") => last = Some(answer),
            () = crate::faults_support::until("a prompt", || slow.asked() == asked) => {}
        }
        sessions.drain(20 * LIMIT).await;
    }
    assert_eq!(slow.asked(), 3);
    assert_eq!(code(&last.unwrap()), "login.scope");
}
