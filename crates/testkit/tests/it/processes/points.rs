//! A process killed at each named point, at an issuer that repeats its answers and at one that does not.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt as _, stream};
use pilotlight_testkit::{
    Fault,
    processes::{
        aftermath::Left,
        fail_point::{Action, Deed, FailPoint, Point},
        harness::Start,
        oracle::Loss,
        site::Site,
        testimony::Exit,
    },
};

use super::{GRACES, aftermath, log_in, seconds, site};

/// F-03, F-06, F-31, I-4, I-6, I-18, I-20: a process killed at any named point leaves a store that opens clean, and a login
/// that a new process uses and refreshes. A session is lost only where the issuer had rotated, the process died before the
/// answer was durable, and the issuer repeats nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_point_loses_nothing_that_could_be_kept() {
    let cases = Point::all().flat_map(|point| GRACES.map(|grace| (point, grace)));
    let played = stream::iter(cases.collect::<Vec<_>>())
        .map(|(point, grace)| async move { (point, grace, killed_at(point, grace).await) })
        .buffer_unordered(4);
    let wrong: Vec<String> = played
        .filter_map(|(point, grace, loss)| async move {
            let dies = ANSWER_DIES.contains(&point) && grace.is_zero();
            let expected = dies.then_some(Loss::AnswerDiedWithItsProcess);
            (loss != expected).then(|| format!("{point} at grace {grace:?}: {loss:?}"))
        })
        .collect()
        .await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Where the answer of the issuer is in the process and nowhere else. What is learned of an issuer is learned from a repeat,
/// after such a death.
const ANSWER_DIES: [Point; 4] = [
    Point::Before(Deed::Commit),
    Point::Before(Deed::Spool),
    Point::Before(Deed::Learn),
    Point::After(Deed::Learn),
];

/// Kills a process at a point, and answers what was lost.
async fn killed_at(point: Point, grace: Duration) -> Option<Loss> {
    let merges = matches!(
        point,
        Point::Before(Deed::Merge) | Point::After(Deed::Merge)
    );
    let site = site(seconds(if merges { 2 } else { 60 }), grace).await;
    let mut left = Left::Login;
    match point {
        Point::Shown
        | Point::Before(
            Deed::Open
            | Deed::ReadOutcome
            | Deed::PrepareSpool
            | Deed::Register
            | Deed::LoginCommit
            | Deed::Outcome,
        )
        | Point::After(
            Deed::Open
            | Deed::ReadOutcome
            | Deed::PrepareSpool
            | Deed::Register
            | Deed::LoginCommit
            | Deed::Outcome,
        ) => {
            dies(&site, site.start("login"), &[], point).await;
            log_in(&site).await;
        }
        Point::Exit
        | Point::Before(Deed::Lock | Deed::Read | Deed::Attempt | Deed::Commit)
        | Point::After(Deed::Lock | Deed::Read | Deed::Attempt | Deed::Commit) => {
            log_in(&site).await;
            dies(&site, refresh(&site), &[], point).await;
        }
        Point::Before(Deed::SpoolAttempt) | Point::After(Deed::SpoolAttempt) => {
            log_in(&site).await;
            dies(&site, refresh(&site), &[Deed::Attempt], point).await;
        }
        Point::Before(Deed::Spool) | Point::After(Deed::Spool) => {
            log_in(&site).await;
            dies(&site, refresh(&site), &[Deed::Commit], point).await;
        }
        // Whoever works on brings in what is in the spool.
        Point::Before(Deed::Merge) | Point::After(Deed::Merge) => {
            log_in(&site).await;
            dies(&site, site.start("work"), &[Deed::Commit], point).await;
        }
        // The first call of a worker that is answered is noted.
        Point::Call | Point::Before(Deed::Fact) | Point::After(Deed::Fact) => {
            log_in(&site).await;
            dies(&site, site.start("work"), &[], point).await;
        }
        Point::Before(Deed::Learn) | Point::After(Deed::Learn) => {
            log_in(&site).await;
            refused_repeat(&site, point).await;
        }
        Point::Before(Deed::Bury | Deed::Revoked) | Point::After(Deed::Bury | Deed::Revoked) => {
            log_in(&site).await;
            dies(&site, site.start("logout"), &[], point).await;
            left = Left::Nothing;
        }
    }
    let report = aftermath(&site, grace, left).await;
    // The store is whole, the login works: and all of that although the process had really died there.
    assert!(
        report
            .blows
            .iter()
            .any(|blow| blow.starts_with(&format!("{point} "))),
        "{point} was not passed"
    );
    report.judgement.loss
}

fn refresh(site: &Site) -> Start {
    site.start("refresh").arg("--force")
}

/// Runs a process to its violent end at a point; before that the store refuses some deeds once.
async fn dies(site: &Site, start: Start, refused: &[Deed], point: Point) {
    let mut armed: Vec<FailPoint> = refused
        .iter()
        .map(|deed| FailPoint::new(Point::Before(*deed), Action::Refuse(1)))
        .collect();
    armed.push(FailPoint::new(point, Action::Kill));
    let (exit, process) = site.run(start.fail(&armed)).await.unwrap();
    assert!(
        process.was_killed(),
        "{} ended with {exit:?}: {:?}",
        process.name(),
        process.failure()
    );
}

/// A crash, then a repeat that the issuer refuses: what it says about the issuer's grace is learned, and that kills.
async fn refused_repeat(site: &Site, point: Point) {
    dies(site, refresh(site), &[], Point::Before(Deed::Commit)).await;
    let forgiving = site
        .lab
        .with_issuer(|issuer| issuer.config().reuse_grace.is_some());
    if forgiving {
        site.lab
            .with_issuer(|issuer| issuer.push_fault(Fault::InvalidGrant));
    }
    dies(site, refresh(site), &[], point).await;
    if forgiving {
        // F-14: the refusal was false; a minute later the first probe finds that out. Only after a restart of the machine is
        // the wall clock asked how long ago that was.
        let later = refresh(site).wall_shift_ms(61_000).env("PL_BOOT", "7");
        let (exit, probe) = site.run(later).await.unwrap();
        assert_eq!(exit, Exit::Code(0), "{:?}", probe.failure());
    }
}

/// The table above is of the size that it is said to be.
#[test]
fn there_are_enough_points() {
    let names: BTreeSet<String> = Point::all().map(|point| point.to_string()).collect();
    assert!(names.len() >= 14, "{names:?}");
}
