//! Refusals: false ones heal by themselves, true ones are one loss with one cause, a forgotten client needs one login.

use std::time::Duration;

use futures_util::future::join_all;
use pilotlight::{
    Error, LoginRequest, Session,
    core::{
        credential::Account,
        error::{Certainty, LoginCause},
        event::Happened,
        state::State,
    },
};
use pilotlight_testkit::Fault;
use tokio::time::timeout;

use crate::faults_support::{HOUR, MINUTE, Process, World, ask, called, served};

fn rejected(certainty: Certainty) -> Error {
    Error::login(LoginCause::RefreshRejected {
        certainty,
        named: None,
    })
}

fn lost(happened: &Happened) -> bool {
    matches!(happened, Happened::Lost { .. })
}

/// Several processes with a session each.
struct Fleet {
    processes: Vec<Process>,
    sessions: Vec<Session>,
}

impl Fleet {
    /// Of so many processes the first has logged in.
    async fn of(count: usize, world: &World) -> Self {
        let (first, session) = world.logged_in().await;
        let (mut processes, mut sessions) = (vec![first], vec![session]);
        for _ in 1..count {
            let process = world.process();
            sessions.push(process.session(world).await);
            processes.push(process);
        }
        Self {
            processes,
            sessions,
        }
    }

    async fn ticked(&self) {
        join_all(self.processes.iter().map(Process::ticked)).await;
    }
}

/// F-14, I-7: a false `invalid_grant`, once or three times, is reported as suspect, probed at its pace, and heals: no login,
/// one event, and no token was sent more often than the probes allow.
#[tokio::test(flavor = "multi_thread")]
async fn a_false_refusal_heals_by_itself() {
    for falsely in [1, 3] {
        let world = World::new(|_| {}).await;
        let fleet = Fleet::of(2, &world).await;
        world.lab.with_issuer(|issuer| {
            for _ in 0..falsely {
                issuer.push_fault(Fault::InvalidGrant);
            }
        });
        world.advance(HOUR);
        fleet.ticked().await;
        let (mut minutes, mut refused) = (0, 0);
        loop {
            let session = &fleet.sessions[minutes % 2];
            match ask(session, &world).await {
                Ok(_) => break,
                Err(error) => {
                    assert_eq!(error, rejected(Certainty::Suspect));
                    let status = session.status().await.unwrap();
                    assert!(matches!(status.state, State::Suspect { .. }), "{status:?}");
                    refused += 1;
                }
            }
            world.advance(MINUTE);
            minutes += 1;
            assert!(minutes < 60, "{falsely}: it never heals");
        }
        // After 1 minute; after 1, 5 and 30 minutes, seen by who asks once a minute.
        let expected = if falsely == 1 { 1..=2 } else { 36..=39 };
        assert!(expected.contains(&refused), "{falsely}: {refused}");
        for session in &fleet.sessions {
            served(session, &world).await;
        }
        let healed = |happened: &Happened| *happened == Happened::Healed;
        let first = &fleet.processes[0];
        assert_eq!(first.count(&world, healed).await, 1);
        assert_eq!(first.count(&world, lost).await, 0);
        assert_eq!(world.refreshes().len(), falsely + 1);
        world.assert_nothing_lost();
    }
}

/// F-14, I-14: while the access token works a false refusal disturbs nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_false_refusal_disturbs_nobody_whose_token_works() {
    let world = World::new(|_| {}).await;
    let (process, session) = world.logged_in().await;
    world
        .lab
        .with_issuer(|issuer| issuer.push_fault(Fault::InvalidGrant));
    world.advance(56 * MINUTE);
    process.ticked().await;
    called(&world, &process, &session, 1).await;
    assert!(matches!(
        session.status().await.unwrap().state,
        State::Suspect { .. }
    ));
    for _ in 0..10 {
        served(&session, &world).await;
    }
    world.advance(2 * MINUTE);
    process.ticked().await;
    called(&world, &process, &session, 2).await;
    assert_eq!(session.status().await.unwrap().state, State::Ok);
    world.assert_nothing_lost();
}

/// F-15, I-6, I-7: a grant that is really revoked costs three processes at most five calls in seven hours; it is one loss
/// with one cause, told at once and for ever, and what was lost stays sealed in the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_true_refusal_costs_five_calls_and_is_lost_once() {
    let world = World::new(|_| {}).await;
    let fleet = Fleet::of(3, &world).await;
    let first = &fleet.processes[0];
    let token = first.record(&world).await.credential.unwrap().refresh_token;
    world.lab.with_issuer(|issuer| issuer.revoke_all());
    let mut told = Vec::new();
    for minute in 0..7 * 60 {
        let error = ask(&fleet.sessions[minute % 3], &world).await.unwrap_err();
        told.push(error);
        world.advance(MINUTE);
    }
    let calls = world.refreshes();
    assert_eq!(calls.len(), 5, "{calls:?}");
    let gaps: Vec<u64> = calls
        .windows(2)
        .map(|pair| (pair[1].at_ms - pair[0].at_ms) / 60_000)
        .collect();
    for (gap, at_least) in gaps.iter().zip([1, 5, 30, 360]) {
        assert!((at_least..at_least + 3).contains(gap), "{gaps:?}");
    }
    let suspect = told
        .iter()
        .take_while(|error| **error == rejected(Certainty::Suspect));
    let suspect = suspect.count();
    assert!((396..400).contains(&suspect), "{suspect} minutes of doubt");
    for error in &told[suspect..] {
        assert_eq!(*error, rejected(Certainty::Certain));
    }
    assert_eq!(first.count(&world, lost).await, 1);

    for _ in 0..20 {
        world.advance(6 * HOUR);
        for session in &fleet.sessions {
            let error = ask(session, &world).await.unwrap_err();
            assert_eq!(error, rejected(Certainty::Certain));
        }
    }
    assert_eq!(world.refreshes().len(), 5, "lost is lost");
    assert_eq!(first.count(&world, lost).await, 1);
    let kept = first.record(&world).await.credential.unwrap();
    assert_eq!(kept.refresh_token, token, "I-6: nothing deletes it");
}

/// F-32: an issuer that ends the grant while three processes work ends it for all within a second of their next request,
/// with one cause and no browser; one login heals all three without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_one_event_and_one_login_heals_everybody() {
    let world = World::new(|_| {}).await;
    let fleet = Fleet::of(3, &world).await;
    for session in &fleet.sessions {
        served(session, &world).await;
    }
    world.lab.with_issuer(|issuer| issuer.revoke_all());
    let asked = fleet.sessions.iter().map(|session| async {
        let since = tokio::time::Instant::now();
        (ask(session, &world).await, since.elapsed())
    });
    for (answer, took) in join_all(asked).await {
        assert_eq!(answer.unwrap_err(), rejected(Certainty::Suspect));
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    for _ in 0..50 {
        for session in &fleet.sessions {
            let error = ask(session, &world).await.unwrap_err();
            assert_eq!(error.code(), "login.refresh_rejected");
        }
    }
    assert_eq!(world.refreshes().len(), 1, "one verdict for all");
    assert_eq!(world.stats().authorize, 1, "no browser but the first");
    let suspected = |happened: &Happened| matches!(happened, Happened::Suspected { .. });
    let first = &fleet.processes[0];
    assert_eq!(first.count(&world, suspected).await, 1);

    fleet.processes[1].log_in(&world).await;
    for session in &fleet.sessions {
        let since = tokio::time::Instant::now();
        served(session, &world).await;
        assert!(since.elapsed() < Duration::from_secs(1));
    }
    assert_eq!(world.stats().authorize, 2);
    assert_eq!(first.count(&world, suspected).await, 1);
}

/// F-32: a refresh token that has reached the end of its life is refused like a revoked one.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_has_ended_is_refused_once() {
    let idle = Duration::from_secs(7 * 86_400);
    let world = World::new(|lab| lab.authorization_server.refresh_ttl = Some(idle)).await;
    let fleet = Fleet::of(2, &world).await;
    world.advance(idle);
    fleet.ticked().await;
    for session in &fleet.sessions {
        let error = ask(session, &world).await.unwrap_err();
        assert_eq!(error, rejected(Certainty::Suspect));
    }
    assert_eq!(world.refreshes().len(), 1);
    fleet.processes[0].log_in(&world).await;
    for session in &fleet.sessions {
        served(session, &world).await;
    }
}

/// F-16, I-6: an issuer that has forgotten the client costs no token, is asked once, and is never registered at again by
/// itself, however many requests of however many processes meet that.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_client_is_asked_once_and_keeps_its_tokens() {
    let world = World::new(|_| {}).await;
    let fleet = Fleet::of(2, &world).await;
    let first = &fleet.processes[0];
    let kept = first.record(&world).await.credential;
    world.lab.with_issuer(|issuer| {
        issuer.forget_clients();
        issuer.revoke_access();
    });
    for _ in 0..50 {
        for session in &fleet.sessions {
            let error = ask(session, &world).await.unwrap_err();
            assert_eq!(error, Error::login(LoginCause::RegistrationGone));
            let status = session.status().await.unwrap();
            assert!(matches!(status.state, State::LoginRequired { .. }));
        }
        world.advance(7 * MINUTE);
    }
    let stats = world.stats();
    assert_eq!(
        (stats.refresh_err, stats.registrations, stats.authorize),
        (1, 1, 1),
        "no loop"
    );
    assert_eq!(first.record(&world).await.credential, kept);
    assert_eq!(first.count(&world, lost).await, 1);
}

/// F-16: after `invalid_client` the next login registers once, shows a page that works, and everybody goes on.
#[tokio::test(flavor = "multi_thread")]
async fn the_login_after_a_forgotten_client_registers_anew() {
    let world = World::new(|_| {}).await;
    let (process, session) = world.logged_in().await;
    world.lab.with_issuer(|issuer| {
        issuer.forget_clients();
        issuer.revoke_access();
    });
    let error = ask(&session, &world).await.unwrap_err();
    assert_eq!(error.code(), "login.registration_gone");
    let request = LoginRequest::new(world.url(), Account::default());
    let login = timeout(Duration::from_secs(20), process.sessions.login(request));
    login.await.expect("the page works").unwrap();
    let stats = world.stats();
    assert_eq!(
        (stats.registrations, stats.code_ok, stats.authorize),
        (2, 2, 2)
    );
    served(&session, &world).await;
}
