//! Outages: an issuer that fails for hours costs calls by the budget, no login, and no request that the server would take.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use pilotlight::{
    Session,
    core::{error::Action, event::Happened, state::State},
};
use pilotlight_testkit::Fault;

use crate::faults_support::{HOUR, MINUTE, Process, World, ask, served, until_async};

const PACE: Duration = Duration::from_secs(45);

/// The ways in which an issuer, or its token endpoint, is down.
#[derive(Debug, Clone)]
enum Outage {
    /// Nobody listens.
    Refused,
    /// The token endpoint answers with this.
    Answers(Fault),
}

fn status(status: u16, retry_after: Option<u64>, body: &str) -> Outage {
    Outage::Answers(Fault::Status {
        status,
        retry_after,
        body: (!body.is_empty()).then(|| body.to_owned()),
    })
}

impl Outage {
    async fn begin(&self, world: &World) {
        match self {
            Self::Refused => world.proxy().close().await,
            Self::Answers(fault) => world.lab.with_issuer(|issuer| {
                issuer.set_standing_fault(Default::default(), Some(fault.clone()));
            }),
        }
    }

    fn end(&self, world: &World) {
        world.proxy().open().unwrap();
        world.lab.with_issuer(|issuer| issuer.clear_faults());
    }
}

/// When the calls left, in milliseconds: those that the issuer saw, and those that never reached it.
async fn calls(world: &World, process: &Process) -> Vec<u64> {
    let mut calls: Vec<u64> = world.refreshes().iter().map(|call| call.at_ms).collect();
    let refused = process.history(world).await;
    calls.extend(refused.iter().filter_map(|event| match &event.happened {
        Happened::RefreshFailed { code, .. } if code == "unavailable.network" => Some(event.at.0),
        _ => None,
    }));
    calls.sort_unstable();
    calls
}

/// Six hours in which two processes over one store ask by turns, more than once a minute; then the issuer is back.
async fn six_hours(outage: Outage) {
    let world = World::new(|_| {}).await;
    let (one, first) = world.logged_in().await;
    let two = world.process();
    let second = two.session(&world).await;
    served(&first, &world).await;
    let expires_at = first.status().await.unwrap().expires_at;
    outage.begin(&world).await;
    world.advance(HOUR);
    one.ticked().await;
    two.ticked().await;

    let steps = 6 * HOUR.as_secs() / PACE.as_secs();
    for step in 0..steps {
        let session = [&first, &second][usize::try_from(step % 2).unwrap()];
        // Tried all the same: an outage never asks a person to log in (F-13).
        session.header().await.unwrap();
        if step % 40 == 0 {
            let error = ask(session, &world).await.unwrap_err();
            assert_eq!(error.action(), Action::RetryLater, "{error:?}");
        }
        world.advance(PACE);
    }
    let calls = calls(&world, &one).await;
    let hour = u64::try_from(HOUR.as_millis()).unwrap();
    for (i, from) in calls.iter().enumerate() {
        let within = calls[i..].iter().take_while(|at| **at < from + hour);
        let within = within.count();
        assert!(within <= 24, "{outage:?}: {within} an hour");
        // The first repeat of a lost answer is not a new try: it alone may come sooner.
        if i > 1 {
            assert!(from - calls[i - 1] >= 500, "{outage:?}: {calls:?}");
        }
    }
    assert!(calls.len() <= 150, "{outage:?}: {} calls", calls.len());
    assert!(calls.len() >= 6, "{outage:?}: {} calls", calls.len());
    let told = first.status().await.unwrap();
    assert_eq!(told.expires_at, expires_at, "{outage:?}: F-13");
    let failing = matches!(told.state, State::Retrying { .. } | State::Uncertain);
    assert!(failing, "{outage:?}: {:?}", told.state);

    outage.end(&world);
    recovers(&world, &first, &second).await;
}

/// The login is alive: after the pause that is stored both processes go on, and nobody logs in.
async fn recovers(world: &World, first: &Session, second: &Session) {
    let back = world.lab.clock().now_ms();
    while ask(first, world).await.is_err() {
        world.advance(Duration::from_secs(10));
        let waited = Duration::from_millis(world.lab.clock().now_ms() - back);
        assert!(waited < HOUR, "no recovery within the longest pause");
    }
    served(second, world).await;
    assert_eq!(first.status().await.unwrap().state, State::Ok);
    world.assert_nothing_lost();
}

/// F-12, F-26, I-8, I-9: nobody listens for six hours.
#[tokio::test(flavor = "multi_thread")]
async fn six_hours_of_refused_connections_cost_no_login() {
    six_hours(Outage::Refused).await;
}

/// F-12, F-26, I-8, I-9: six hours of 503 with a Retry-After: the issuer says that it did nothing.
#[tokio::test(flavor = "multi_thread")]
async fn six_hours_of_unavailable_cost_no_login() {
    six_hours(status(503, Some(1), "")).await;
}

/// F-12, F-26, I-8, I-9: six hours of 429.
#[tokio::test(flavor = "multi_thread")]
async fn six_hours_of_too_many_requests_cost_no_login() {
    six_hours(status(429, Some(20), "")).await;
}

/// F-12, F-17, I-8, I-9: six hours of a gateway's error page, after which nobody can know what was processed.
#[tokio::test(flavor = "multi_thread")]
async fn six_hours_of_bad_gateway_cost_no_login() {
    six_hours(status(502, None, "<html>Bad Gateway</html>")).await;
}

/// F-12, F-17, I-8, I-9: six hours of a login page with status 200, as a captive portal answers.
#[tokio::test(flavor = "multi_thread")]
async fn six_hours_of_a_captive_portal_cost_no_login() {
    let page = Fault::Raw200 {
        body: "<html><title>Welcome to the hotel</title></html>".into(),
        content_type: Some("text/html".into()),
    };
    six_hours(Outage::Answers(page)).await;
}

/// F-13: an ended token is still tried, and what the server takes counts; nobody pretends that it is fresh, and the recorded
/// expiry stays what it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_token_is_tried_and_never_made_fresh() {
    let world = World::new(|_| {}).await;
    // This process's clocks run two hours ahead: it takes for ended what the server still takes.
    let ahead = world.process();
    let session = ahead.log_in(&world).await;
    let before = session.status().await.unwrap();
    world.proxy().close().await;
    let two_hours = i64::try_from((2 * HOUR).as_millis()).unwrap();
    ahead.time.set_wall_off(two_hours);
    ahead.time.set_mono_off(two_hours);
    ahead.ticked().await;
    for _ in 0..3 {
        assert_eq!(ask(&session, &world).await, Ok(StatusCode::OK));
    }
    let after = session.status().await.unwrap();
    assert_eq!(after.expires_at, before.expires_at);
    assert!(matches!(after.state, State::Retrying { .. }), "{after:?}");
    let record = ahead.record(&world).await;
    assert_eq!(record.version().unwrap().generation.0, 0);
    assert!(
        session.ready().is_none(),
        "each use looks whether the issuer is back"
    );

    // Once the server refuses it, that is an outage, not a login that has ended.
    world.lab.with_issuer(|issuer| issuer.revoke_access());
    let error = ask(&session, &world).await.unwrap_err();
    assert_eq!(error.action(), Action::RetryLater, "{error:?}");
    world.proxy().open().unwrap();
    world.advance(6 * MINUTE);
    ahead.ticked().await;
    served(&session, &world).await;
    world.assert_nothing_lost();
}

/// F-12, I-14: an outage while the token works is not noticed by anybody: the refresh that was due is made when it is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_while_the_token_works_is_not_noticed() {
    let world = World::new(|_| {}).await;
    let (process, session) = world.logged_in().await;
    world.proxy().close().await;
    world.advance(55 * MINUTE);
    process.ticked().await;
    let failed = |happened: &Happened| matches!(happened, Happened::RefreshFailed { .. });
    until_async("the outage to be there", async || {
        served(&session, &world).await;
        process.idle().await;
        process.count(&world, failed).await >= 2
    })
    .await;
    world.proxy().open().unwrap();
    until_async("the end of the pause", async || {
        served(&session, &world).await;
        process.idle().await;
        world.stats().refresh_ok == 1
    })
    .await;
    let status = session.status().await.unwrap();
    assert_eq!(status.state, State::Ok);
    let refused = world.lab.with_mcp(|server| server.stats().unauthorized);
    assert_eq!(refused, 1, "only before the login");
    world.assert_nothing_lost();
}

/// How long after the end of an outage of this length somebody who asks every five seconds is served.
async fn recovery(whole: bool, outage: Duration) -> Duration {
    let world = World::new(|_| {}).await;
    let (process, session) = world.logged_in().await;
    let down = Fault::Status {
        status: 503,
        retry_after: Some(1),
        body: None,
    };
    match whole {
        true => world.proxy().close().await,
        false => world
            .lab
            .with_issuer(|issuer| issuer.set_standing_fault(Default::default(), Some(down))),
    }
    world.advance(HOUR);
    process.ticked().await;
    let pace = Duration::from_secs(5);
    for _ in 0..outage.as_secs() / pace.as_secs() {
        assert!(ask(&session, &world).await.is_err());
        world.advance(pace);
    }
    world.proxy().open().unwrap();
    world.lab.with_issuer(|issuer| issuer.clear_faults());
    let mut waited = Duration::ZERO;
    while ask(&session, &world).await.is_err() {
        world.advance(pace);
        waited += pace;
    }
    waited
}

/// F-12: when the whole issuer was down and somebody waits, the login works again within 30 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_reachable_issuer_is_noticed_within_half_a_minute() {
    let lengths = [11, 23, 37, 41, 47].map(|minutes| minutes * MINUTE);
    for waited in join_all(lengths.map(|length| recovery(true, length))).await {
        assert!(waited <= Duration::from_secs(30), "{waited:?}");
    }
}

/// F-12: when only the token endpoint was down, the login works again within six minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_is_back_is_noticed_within_six_minutes() {
    let lengths = [31, 34, 37, 40, 43, 46].map(|minutes| minutes * MINUTE);
    for waited in join_all(lengths.map(|length| recovery(false, length))).await {
        assert!(waited <= 6 * MINUTE, "{waited:?}");
    }
}

/// F-12, I-9: at most 24 token calls leave in an hour while the issuer fails, repeats and all.
#[tokio::test(flavor = "multi_thread")]
async fn repeats_count_among_the_calls_of_an_hour() {
    let world = World::new(|_| {}).await;
    let (process, session) = world.logged_in().await;
    let page = Fault::Status {
        status: 502,
        retry_after: None,
        body: Some("<html>Bad Gateway</html>".into()),
    };
    world
        .lab
        .with_issuer(|issuer| issuer.set_standing_fault(Default::default(), Some(page)));
    world.advance(HOUR);
    process.ticked().await;
    for _ in 0..120 {
        assert!(ask(&session, &world).await.is_err());
        world.advance(Duration::from_secs(30));
    }
    let calls = world.refreshes().len();
    assert!(calls <= 24, "{calls} calls");
}
