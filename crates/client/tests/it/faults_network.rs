//! Connections that break, at every place where one can: a call that may have reached the issuer is repeated once, one that
//! cannot have cost anything is simply made again, and slow lines are waited for.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use pilotlight::core::{attempt::Label, event::Happened};
use pilotlight_testkit::proxy::{
    End::{Cut, HalfClose, Reset},
    Line, Way,
};

use crate::faults_support::{HOUR, World, ask, served};

/// What becomes of the token call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The issuer never saw it whole.
    Unseen,
    /// The issuer has rotated, and nobody heard of it.
    Processed,
    /// It arrives and is answered, if late.
    Answered,
}

/// F-12, I-1, I-8: wherever the connection of a token call breaks, in the request or in the answer, by FIN or by RST, the
/// login goes on: one repeat under its label, inside the issuer's grace, and no more calls than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_break_anywhere() {
    let mut cases = Vec::new();
    for end in [Cut, Reset, HalfClose] {
        // At the first byte, in the head, in the body.
        for after in [0, 30, 350] {
            cases.push((Line::up(Way::ending(after, end)), Fate::Unseen));
        }
        for after in [0, 30, 200] {
            cases.push((Line::down(Way::ending(after, end)), Fate::Processed));
        }
    }
    for way in [
        Way::delayed(Duration::from_millis(700)),
        Way::throttled(400),
    ] {
        cases.push((Line::up(way), Fate::Answered));
        cases.push((Line::down(way), Fate::Answered));
    }
    join_all(cases.into_iter().map(|(line, fate)| broken(line, fate))).await;
}

async fn broken(line: Line, fate: Fate) {
    let grace = Some(Duration::from_secs(30));
    let world = World::new(|lab| lab.authorization_server.reuse_grace = grace).await;
    let (process, session) = world.logged_in().await;
    world.advance(HOUR);
    process.ticked().await;
    world.proxy().push(line.clone());
    let before = world.proxy().accepted();
    let asked = ask(&session, &world).await;
    assert_eq!(asked, Ok(StatusCode::OK), "{line:?}");

    let stats = world.stats();
    let seen = 1 + u64::from(fate == Fate::Processed);
    assert_eq!(
        (stats.refresh_ok, stats.spent_presented),
        (seen, seen - 1),
        "{line:?}"
    );
    let calls = 1 + usize::from(fate != Fate::Answered);
    assert_eq!(world.proxy().accepted() - before, calls, "{line:?}");
    let label = (fate != Fate::Answered).then_some(Label::RetryAmbiguous);
    let brought = |happened: &Happened| matches!(happened, Happened::Refreshed { label: with, .. } if *with == label);
    assert_eq!(process.count(&world, brought).await, 1, "{line:?}");
    assert_eq!(
        (
            world.lab.with_issuer(|issuer| issuer.live_grants()),
            stats.reuse_revocations,
            stats.code_ok
        ),
        (1, 0, 1),
        "{line:?}"
    );
    world.advance(HOUR);
    process.ticked().await;
    served(&session, &world).await;
}

/// F-12, I-8: an issuer without any grace forgives no repeat, but what it never saw was no first call: a connection that
/// breaks in the request costs nothing there either.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_arrived_costs_nothing_without_grace() {
    join_all([Cut, Reset, HalfClose].map(|end| async move {
        let world = World::new(|_| {}).await;
        let (process, session) = world.logged_in().await;
        for after in [0, 30, 350] {
            world.advance(HOUR);
            process.ticked().await;
            world.proxy().push(Line::up(Way::ending(after, end)));
            served(&session, &world).await;
        }
        assert_eq!(world.stats().refresh_ok, 3);
        world.assert_nothing_lost();
    }))
    .await;
}
