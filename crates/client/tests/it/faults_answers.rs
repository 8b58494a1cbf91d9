//! Odd answers of a token endpoint: what cannot be read loses nothing, what is left out is carried forward.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use pilotlight::core::{
    attempt::Label,
    credential::{Credential, Lifetime},
    event::Happened,
    record::Record,
};
use pilotlight_testkit::{
    Fault,
    authorization_server::{Entry, Outcome, Rotation},
};

use crate::faults_support::{HOUR, MINUTE, Process, World, ask, called, served};

fn raw(body: &str) -> Fault {
    Fault::Raw200 {
        body: body.to_owned(),
        content_type: None,
    }
}

/// Bodies of a 200 that hold no token that could be used: whether the issuer rotated, nobody knows.
const UNREADABLE: [&str; 28] = [
    "",
    " ",
    "\u{0}\u{0}\u{0}\u{0}",
    "{",
    "}",
    "null",
    "true",
    "17",
    "\"access_token\"",
    "[]",
    r#"[{"access_token":"a","token_type":"Bearer"}]"#,
    "{}",
    "<html><title>Log in to the hotel</title></html>",
    "<?xml version=\"1.0\"?><access_token>a</access_token>",
    "access_token=a&token_type=bearer&expires_in=3600",
    "Service temporarily unavailable",
    r#"{"access_token":"cut off","token_ty"#,
    r#"{"access_token":"a","token_type":"Bearer","expires_in":3600"#,
    r#"{"access_token":""}"#,
    r#"{"access_token":null,"token_type":"Bearer"}"#,
    r#"{"access_token":7,"token_type":"Bearer"}"#,
    r#"{"access_token":["a"],"token_type":"Bearer"}"#,
    r#"{"access_token":{"value":"a"},"token_type":"Bearer"}"#,
    r#"{"access_token":"a\r\nX-Injected: y","token_type":"Bearer"}"#,
    r#"{"access_token":"a","token_type":"mac"}"#,
    r#"{"access_token":"a","token_type":"Bearer","refresh_token":"b\u0000c"}"#,
    r#"{"token_type":"Bearer","expires_in":3600,"refresh_token":"only this"}"#,
    r#"{"error":"temporarily_unavailable"}"#,
];

/// Bodies of a 200 with a token and something odd, and the life that is read from them.
const READABLE: [(&str, Option<u64>); 14] = [
    (r#"{"access_token":"a","expires_in":"3600"}"#, Some(3600)),
    (r#"{"access_token":"a","expires_in":" 60 "}"#, Some(60)),
    (r#"{"access_token":"a","expires_in":60.0}"#, Some(60)),
    (r#"{"access_token":"a","expires_in":-1}"#, None),
    (r#"{"access_token":"a","expires_in":0}"#, None),
    (r#"{"access_token":"a","expires_in":1e20}"#, None),
    (r#"{"access_token":"a","expires_in":null}"#, None),
    (r#"{"access_token":"a","expires_in":"soon"}"#, None),
    (r#"{"access_token":"a","expires_in":{}}"#, None),
    (r#"{"access_token":"a","expires_in":[3600]}"#, None),
    (
        r#"{"access_token":"a","token_type":"BEARER","expires_in":60}"#,
        Some(60),
    ),
    (
        r#"{"access_token":"a","token_type":"","expires_in":60}"#,
        Some(60),
    ),
    (
        r#"{"access_token":"a","refresh_token":null,"expires_in":60}"#,
        Some(60),
    ),
    (
        r#"  {"access_token":"a","expires_in":60,"unknown":{"deep":[1]}}  "#,
        Some(60),
    ),
];

/// F-17, I-8: each of 28 unreadable answers is repeated once, under its label, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_answer_is_asked_for_once_more() {
    join_all(UNREADABLE.map(unreadable)).await;
}

async fn unreadable(body: &str) {
    let world = World::new(|_| {}).await;
    let (process, session) = world.logged_in().await;
    world.lab.with_issuer(|issuer| issuer.push_fault(raw(body)));
    world.advance(HOUR);
    process.ticked().await;
    assert_eq!(
        ask(&session, &world).await.map(|s| s.as_u16()),
        Ok(200),
        "{body}"
    );
    let outcomes: Vec<_> = world.refreshes().into_iter().map(|c| c.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::Fault("raw200".into()), Outcome::Ok],
        "{body}"
    );
    let repeated = |happened: &Happened| {
        matches!(
            happened,
            Happened::Refreshed {
                label: Some(Label::RetryAmbiguous),
                calls: 2,
                ..
            }
        )
    };
    assert_eq!(process.count(&world, repeated).await, 1, "{body}");
    world.assert_nothing_lost();
}

/// F-17: an issuer that gives only unreadable answers costs no token either: the login is in doubt, not lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_cannot_be_read_costs_no_token() {
    let world = World::new(|_| {}).await;
    let (process, session) = world.logged_in().await;
    let before = process.record(&world).await.credential;
    let page = raw(UNREADABLE[12]);
    world
        .lab
        .with_issuer(|issuer| issuer.set_standing_fault(Default::default(), Some(page)));
    world.advance(57 * MINUTE);
    process.ticked().await;
    // It is there, and answers: the hour's repeats are kept for answers that are lost.
    let calls = 3;
    called(&world, &process, &session, calls).await;
    // Beyond every grace one call more could only do harm.
    world.advance(Duration::from_secs(15));
    process.ticked().await;
    assert_eq!(session.status().await.unwrap().state.word(), "uncertain");
    served(&session, &world).await;
    process.idle().await;
    assert_eq!(world.refreshes().len(), calls);
    assert_eq!(process.record(&world).await.credential, before, "I-8");

    world.lab.with_issuer(|issuer| issuer.clear_faults());
    world.advance(10 * MINUTE);
    process.ticked().await;
    served(&session, &world).await;
    world.assert_nothing_lost();
}

/// F-17: each of 14 odd but readable answers is taken, with the life that can be read from it; the login goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn an_odd_answer_that_holds_a_token_is_taken() {
    join_all(READABLE.map(|(body, life)| readable(body, life))).await;
}

async fn readable(body: &str, life: Option<u64>) {
    let (world, process, record) = answered(raw(body)).await;
    let credential = record.credential.unwrap();
    let stated = life.map(|seconds| Lifetime::Stated(Duration::from_secs(seconds)));
    assert_eq!(credential.lifetime, stated, "{body}");
    assert_eq!(credential.access_token.expose(), "a", "{body}");
    // Such a token is of no use at our server: its refusal is met by a refresh with what was carried forward.
    let session = process.session(&world).await;
    assert_eq!(ask(&session, &world).await.unwrap().as_u16(), 200, "{body}");
    world.assert_nothing_lost();
}

/// Logs in, and has one refresh answered like this; what is stored then.
async fn answered(fault: Fault) -> (World, Process, Record) {
    let world = World::new(|_| {}).await;
    let (process, session) = world.logged_in().await;
    world.lab.with_issuer(|issuer| issuer.push_fault(fault));
    let report = session.refresh(true).await.unwrap();
    assert!(report.refreshed);
    let record = process.record(&world).await;
    (world, process, record)
}

/// F-18, AUTH-85, I-6 (RFC 6749 section 6): what an answer leaves out, or leaves empty, is carried forward; what it states
/// anew is taken.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_leaves_out_is_carried_forward() {
    let jwt = URL_SAFE_NO_PAD.encode(r#"{"iat":1000,"exp":1900}"#);
    let hinted = format!(r#"{{"access_token":"h.{jwt}.s"}}"#);
    type Check = fn(&Credential, &Credential);
    let same_refresh_token: Check = |old, new| assert_eq!(old.refresh_token, new.refresh_token);
    let table: [(&str, Fault, Check); 8] = [
        (
            "refresh token omitted",
            raw(r#"{"access_token":"a","expires_in":60}"#),
            same_refresh_token,
        ),
        (
            "refresh token empty",
            raw(r#"{"access_token":"a","refresh_token":"","expires_in":60}"#),
            same_refresh_token,
        ),
        (
            "omitted although rotated",
            Fault::OmitRefreshToken,
            same_refresh_token,
        ),
        (
            "another refresh token",
            raw(r#"{"access_token":"a","refresh_token":"new","expires_in":60}"#),
            |_, new| assert_eq!(new.refresh_token.as_ref().unwrap().expose(), "new"),
        ),
        (
            "scope omitted",
            raw(r#"{"access_token":"a","expires_in":60}"#),
            |old, new| assert_eq!(old.scopes_granted, new.scopes_granted),
        ),
        (
            "scope changed",
            raw(r#"{"access_token":"a","scope":"less","expires_in":60}"#),
            |old, new| {
                assert_eq!(new.scopes_granted.to_string(), "less");
                assert_eq!(old.scopes_requested, new.scopes_requested);
            },
        ),
        ("life omitted", raw(r#"{"access_token":"a"}"#), |_, new| {
            assert_eq!(new.lifetime, None);
        }),
        ("life only in a JWT", raw(&hinted), |_, new| {
            let hint = Lifetime::Hint(Duration::from_secs(900));
            assert_eq!(new.lifetime, Some(hint));
        }),
    ];
    let cases = table.map(|(name, fault, check)| async move {
        let world = World::new(|_| {}).await;
        let (process, session) = world.logged_in().await;
        let old = process.record(&world).await.credential.unwrap();
        world.lab.with_issuer(|issuer| issuer.push_fault(fault));
        let sent = world.lab.clock().now_ms();
        assert!(session.refresh(true).await.unwrap().refreshed, "{name}");
        let new = process.record(&world).await.credential.unwrap();
        check(&old, &new);
        assert!(new.version.succeeds(&old.version), "{name}");
        assert_ne!(new.access_token, old.access_token, "{name}");
        let received = new.received_at.unwrap().wall.0;
        assert!((sent..sent + 5000).contains(&received), "{name}");
        assert_eq!(
            (&new.pins, &new.client, new.logged_in_at),
            (&old.pins, &old.client, old.logged_in_at),
            "{name}"
        );
    });
    join_all(cases).await;
}

/// F-18: an issuer whose refresh token stays the same, left out of each answer or not, is refreshed from for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_stays_the_same_is_kept() {
    join_all([false, true].map(unrotated)).await;
}

async fn unrotated(omitted: bool) {
    let world = World::new(|lab| {
        let issuer = &mut lab.authorization_server;
        issuer.rotation = Rotation::Never;
        issuer.omit_refresh_token = omitted;
    })
    .await;
    let (process, session) = world.logged_in().await;
    for _ in 0..5 {
        world.advance(HOUR);
        process.ticked().await;
        served(&session, &world).await;
    }
    let calls = world.refreshes();
    assert_eq!(calls.len(), 5);
    let same = |pair: &[Entry]| pair[0].refresh_token == pair[1].refresh_token;
    assert!(calls.windows(2).all(same));
    world.assert_nothing_lost();
}

/// F-18: an issuer that never says how long its tokens live is learned from: the first 401 tells, and from then on at most
/// every other token is used until it is refused. No request fails, and a day's refreshes are not twice those it needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_nobody_states_is_learned_from_refusals() {
    let world = World::new(|lab| lab.authorization_server.omit_expires_in = true).await;
    // A process that looks at the clock at each use, as commands do: a day is short.
    let process = world.command();
    let session = process.log_in(&world).await;
    let refused = || world.lab.with_mcp(|server| server.stats().unauthorized);
    let before = refused();
    for _ in 0..12 * 24 {
        world.advance(5 * MINUTE);
        served(&session, &world).await;
        process.idle().await;
    }
    let (refused, refreshed) = (refused() - before, world.stats().refresh_ok);
    assert!((23..=40).contains(&refreshed), "{refreshed} refreshes");
    assert!(
        (1..=refreshed / 2 + 1).contains(&refused),
        "{refused} refusals, {refreshed} refreshes"
    );
    world.assert_nothing_lost();
}
