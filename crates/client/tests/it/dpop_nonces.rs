//! Servers that want to see a nonce in each proof (RFC 9449 sections 8 and 9), or another time.

use std::{sync::Arc, time::Duration};

use pilotlight::{
    Error, Next,
    clock::{Clock, SystemClock},
    core::{
        event::Happened,
        time::{Now, Wall},
    },
};
use pilotlight_testkit::{
    Lab,
    authorization_server::{Kind, NonceRule, Outcome},
};

use crate::dpop::{ask, in_order, lab, log_in, logged_in, memory, process, refused, taken};

const NONCE: &str = "use_dpop_nonce";

/// Both servers follow this rule.
async fn lab_with(rule: NonceRule) -> Lab {
    lab(|lab| {
        lab.authorization_server.dpop.as_mut().unwrap().nonces = rule;
        lab.mcp_server.dpop.nonces = rule;
    })
    .await
}

fn issuer_wants(lab: &Lab, rule: NonceRule) {
    lab.with_issuer(|issuer| issuer.config_mut().dpop.as_mut().unwrap().nonces = rule);
}

fn server_wants(lab: &Lab, rule: NonceRule) {
    lab.with_mcp(|server| server.config_mut().dpop.nonces = rule);
}

/// EXT-31: each of the two servers is asked twice once, and its nonce remembered: also the one that comes with a success.
#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_is_learned_once() {
    let lab = lab_with(NonceRule::Next(3)).await;
    let (_, session) = logged_in(&lab).await;
    for _ in 0..10 {
        ask(&session, &lab).await.unwrap();
    }
    for _ in 0..5 {
        assert!(session.refresh(true).await.unwrap().refreshed);
    }
    assert_eq!(refused(&lab), (vec![NONCE], vec![NONCE]));
    let (issuer, server) = taken(&lab);
    assert_eq!((issuer.len(), server.len()), (6, 10));
    let (first, last) = (server[0].nonce.as_deref(), server[9].nonce.as_deref());
    assert_eq!((first, last), (Some("nonce-0"), Some("nonce-3")));
    in_order(&lab);
}

/// EXT-31: a nonce that has ended costs one repeat with a new proof, and nobody notices; many requests at once as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_that_has_ended_costs_one_repeat() {
    let lab = lab_with(NonceRule::Sudden(2)).await;
    let (_, session) = logged_in(&lab).await;
    for _ in 0..9 {
        ask(&session, &lab).await.unwrap();
    }
    let (_, server) = refused(&lab);
    assert_eq!(server, vec![NONCE; 5]);
    assert_eq!(taken(&lab).1.len(), 9);
    server_wants(&lab, NonceRule::Sudden(1000));
    let many = (0..20).map(|_| ask(&session, &lab));
    for asked in futures_util::future::join_all(many).await {
        asked.unwrap();
    }
    in_order(&lab);
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().refresh_ok), 0);
}

/// EXT-31: a nonce that the issuer misses is no part of the refresh: no other attempt, no label, nothing spent.
#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_at_the_issuer_is_no_attempt_of_its_own() {
    let lab = lab_with(NonceRule::Sudden(1)).await;
    let (sessions, session) = logged_in(&lab).await;
    for _ in 0..3 {
        assert!(session.refresh(true).await.unwrap().refreshed);
    }
    let outcomes: Vec<_> = lab.with_issuer(|issuer| {
        let refreshes = issuer.ledger().of(Kind::Refresh);
        refreshes.map(|entry| entry.outcome.clone()).collect()
    });
    let one = [Outcome::Error(NONCE.into()), Outcome::Ok];
    assert_eq!(outcomes, vec![one; 3].concat());
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().spent_presented), 0);
    let binding = session.status().await.unwrap().binding;
    let history = sessions.history(&binding, 100).await.unwrap();
    let refreshes: Vec<_> = history
        .iter()
        .filter_map(|event| match &event.happened {
            Happened::Refreshed { label, calls, .. } => Some((*label, *calls)),
            _ => None,
        })
        .collect();
    assert_eq!(refreshes, [(None, 1); 3]);
}

/// T-32, EXT-31: a server that wants another nonce each time gets two requests; that is no refused token, so nothing is
/// refreshed.
#[tokio::test(flavor = "multi_thread")]
async fn a_loop_of_nonces_at_the_server_ends_after_two() {
    let lab = lab_with(NonceRule::None).await;
    let (_, session) = logged_in(&lab).await;
    server_wants(&lab, NonceRule::Endless);
    assert_eq!(ask(&session, &lab).await, Err(Error::ProofRefused));
    assert_eq!(refused(&lab).1, [NONCE; 2]);
    server_wants(&lab, NonceRule::Untold);
    assert_eq!(ask(&session, &lab).await, Err(Error::ProofRefused));
    assert_eq!(
        refused(&lab).1.len(),
        3,
        "without a nonce there is nothing to repeat with"
    );
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().refresh_ok), 0);
    server_wants(&lab, NonceRule::None);
    ask(&session, &lab).await.unwrap();
}

/// T-32, EXT-31: the same at the issuer, at a login and at a refresh; the login that there is stays, and heals.
#[tokio::test(flavor = "multi_thread")]
async fn a_loop_of_nonces_at_the_issuer_ends_after_two() {
    let lab = lab_with(NonceRule::Endless).await;
    let sessions = process(&memory(), Arc::new(SystemClock));
    assert_eq!(
        log_in(&sessions, &lab).await.unwrap_err(),
        Error::ProofRefused
    );
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().token), 2);

    issuer_wants(&lab, NonceRule::None);
    server_wants(&lab, NonceRule::None);
    let session = log_in(&sessions, &lab).await.unwrap();
    issuer_wants(&lab, NonceRule::Endless);
    let before = lab.with_issuer(|issuer| issuer.stats().token);
    let error = session.refresh(true).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("peer.proof_refused", 5));
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().token) - before, 2);
    ask(&session, &lab).await.unwrap();
    issuer_wants(&lab, NonceRule::None);
    let healed = async {
        while session.refresh(true).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), healed)
        .await
        .unwrap();
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().spent_presented), 0);
    ask(&session, &lab).await.unwrap();
}

/// EXT-31, I-13: a nonce that is missed is not the one repeat of a refused token, whichever comes first.
#[tokio::test(flavor = "multi_thread")]
async fn a_missed_nonce_leaves_the_repeat_after_a_401() {
    let posts = |lab: &Lab| lab.with_mcp(|server| server.stats().posts);
    // The nonce, then the token.
    let lab = lab_with(NonceRule::Next(1000)).await;
    let (_, session) = logged_in(&lab).await;
    let before = posts(&lab);
    lab.with_mcp(|server| server.reject_next(1));
    ask(&session, &lab).await.unwrap();
    assert_eq!(posts(&lab) - before, 3);
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().refresh_ok), 1);
    in_order(&lab);

    // The token, then the nonce.
    let lab = lab_with(NonceRule::Sudden(1)).await;
    let (_, session) = logged_in(&lab).await;
    ask(&session, &lab).await.unwrap();
    let before = posts(&lab);
    lab.with_issuer(|issuer| issuer.revoke_access());
    ask(&session, &lab).await.unwrap();
    assert_eq!(posts(&lab) - before, 3);
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().refresh_ok), 1);
    in_order(&lab);

    // Of each one repeat, and no more.
    let before = posts(&lab);
    lab.with_mcp(|server| server.reject_next(1_000));
    assert_eq!(ask(&session, &lab).await, Err(Error::DeniedByResource));
    assert!(posts(&lab) - before <= 3);
}

/// EXT-31: a host with an HTTP stack of its own marks its repeats, and is told the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_its_own_repeats_alike() {
    let lab = lab_with(NonceRule::Endless).await;
    issuer_wants(&lab, NonceRule::None);
    let (_, session) = logged_in(&lab).await;
    let parts = || {
        let request = http::Request::post(lab.resource_url()).body(()).unwrap();
        request.into_parts().0
    };
    let answer = |challenge: &str, nonce: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("www-authenticate", challenge.parse().unwrap());
        headers.insert("dpop-nonce", nonce.parse().unwrap());
        headers
    };
    let status = http::StatusCode::UNAUTHORIZED;
    let missed = answer("DPoP error=\"use_dpop_nonce\"", "one");
    let first = session.authorize(&mut parts()).await.unwrap();
    assert_eq!(session.answered(&first, status, &missed).await, Next::Retry);
    let second = session.authorize(&mut parts()).await.unwrap();
    // Who does not say what it repeats has one repeat in all.
    let stopped = session.answered(&second.again(), status, &missed).await;
    assert_eq!(stopped, Next::Stop(Error::ProofRefused));
    let second = second.after(&first, status, &missed);
    // The token is refused: still its first repeat.
    let refused = answer("DPoP error=\"invalid_token\"", "two");
    assert_eq!(
        session.answered(&second, status, &refused).await,
        Next::Retry
    );
    let third = session.authorize(&mut parts()).await.unwrap();
    let third = third.after(&second, status, &refused);
    let stopped = session.answered(&third, status, &missed).await;
    assert_eq!(stopped, Next::Stop(Error::ProofRefused));
    let stopped = session.answered(&third, status, &refused).await;
    assert_eq!(stopped, Next::Stop(Error::DeniedByResource));
}

/// A wall clock that is off.
#[derive(Debug)]
struct Off(i64);

impl Clock for Off {
    fn now(&self) -> Now {
        let now = SystemClock.now();
        let wall = Wall(now.wall.0.saturating_add_signed(self.0));
        Now { wall, ..now }
    }
}

/// T-32: a clock that is an hour off is corrected by the servers' own, at the cost of one refused proof for each.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_an_hour_off_is_corrected() {
    for off in [3_600_000, -3_600_000] {
        let lab = lab_with(NonceRule::None).await;
        let sessions = process(&memory(), Arc::new(Off(off)));
        let session = log_in(&sessions, &lab).await.unwrap();
        for _ in 0..3 {
            ask(&session, &lab).await.unwrap();
        }
        assert!(session.refresh(true).await.unwrap().refreshed);
        let once = vec!["invalid_dpop_proof"];
        assert_eq!(refused(&lab), (once.clone(), once));
        in_order(&lab);
    }
}
