//! A disk that takes nothing, neither in the store nor in the spool: for a while one process alone has the newest version.

use std::time::Duration;

use pilotlight::core::{
    attempt::Label,
    error::{LoginCause, Named},
    event::Happened,
};
use pilotlight_testkit::processes::{
    aftermath::Left,
    fail_point::{Action, Deed, FailPoint, Point},
    harness::{Harness, Start},
    oracle::Loss,
    said::Said,
    site::Site,
    testimony::Exit,
};
use rustix::process::Signal;

use super::{GRACES, PATIENCE, aftermath, logged_in, nothing_lost, seconds, served, terminate};

/// F-06, I-20: the disk comes back, and what only memory held is in the store; calls go on all the while, and nobody else
/// sends what the store still holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_comes_back_gets_what_memory_held() {
    let site = logged_in(seconds(4), Duration::ZERO).await;
    // It calls when it is told to, so that the refresh is the holder's.
    let mut other = site.spawn(site.start("work").arg("--step")).unwrap();
    other.step().await.unwrap();
    served(&mut other).await;
    let mut holder = site
        .spawn(refresher(&site, Duration::from_millis(1500)))
        .unwrap();
    held(&mut holder).await;
    other.step().await.unwrap();
    served(&mut other).await;
    durable(&mut holder).await;
    served(&mut holder).await;
    for worker in [&mut holder, &mut other] {
        terminate(worker).await;
    }
    clean(&site).await;
}

/// F-05, F-06: a process that is told to end while it alone has the newest version does not end before the disk has it:
/// whether the disk comes back while it waits, or is back already and the next try to save was to come later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_waits_for_the_disk() {
    // The second is told between the first try, a second after the refresh at most, and the second one, a second later.
    for (away_ms, told_after_ms) in [(1500, 0), (1100, 1150)] {
        let site = logged_in(seconds(4), Duration::ZERO).await;
        let away = Duration::from_millis(away_ms);
        let mut holder = site.spawn(refresher(&site, away)).unwrap();
        held(&mut holder).await;
        tokio::time::sleep(Duration::from_millis(told_after_ms)).await;
        terminate(&mut holder).await;
        clean(&site).await;
    }
}

/// F-05, F-06: the same for a process that was started for one refresh and has nothing else to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_waits_for_the_disk() {
    let site = logged_in(seconds(60), Duration::ZERO).await;
    let command = site.start("refresh").arg("--force");
    let command = command.fail(&outage(Duration::from_millis(700)));
    let (exit, testimony) = site.run(command).await.unwrap();
    assert_eq!(exit, Exit::Code(0), "{:?}", testimony.failure());
    clean(&site).await;
}

/// F-03, F-06, I-20: killed, it takes along what nobody else had. That is inherent: the next process repeats under a label
/// the call whose answer died. An issuer that repeats its answer saves the login, and any other ends it for reuse, which the
/// history tells apart from every other end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_takes_along_what_only_memory_held() {
    for grace in GRACES {
        let site = logged_in(seconds(4), grace).await;
        let mut holder = site.spawn(refresher(&site, seconds(60))).unwrap();
        held(&mut holder).await;
        holder.signal(Signal::KILL);
        holder.end(PATIENCE).await.unwrap();
        let report = aftermath(&site, grace, Left::Login).await;
        let judgement = report.judgement;
        let dies = grace.is_zero().then_some(Loss::AnswerDiedWithItsProcess);
        assert_eq!(judgement.loss, dies, "{grace:?}");
        assert_eq!((judgement.held.saved, judgement.held.killed), (0, 1));
        assert_eq!(
            (judgement.spent_labelled, judgement.spent_unlabelled),
            (1, 0),
            "{grace:?}"
        );
        let events = site.look().await.unwrap().events;
        let named = events
            .iter()
            .any(|event| tells_of_the_crash(&event.happened));
        assert_eq!(named, grace.is_zero(), "{grace:?}: {events:?}");
    }
}

/// What `why` tells from: the refused call repeated one whose process had ended in the middle of it.
fn tells_of_the_crash(happened: &Happened) -> bool {
    matches!(
        happened,
        Happened::Lost {
            cause: LoginCause::RefreshRejected {
                named: Some(Named::Reuse),
                ..
            },
            label: Some(Label::AfterCrash),
        }
    )
}

fn worker(site: &Site) -> Start {
    site.start("work").arg("--every-ms=50")
}

/// A worker whose disk is away, from its first commit on.
fn refresher(site: &Site, away: Duration) -> Start {
    worker(site).fail(&outage(away))
}

fn outage(length: Duration) -> [FailPoint; 3] {
    [Deed::Commit, Deed::Spool, Deed::Merge]
        .map(|deed| FailPoint::new(Point::Before(deed), Action::Outage(length)))
}

async fn held(worker: &mut Harness) {
    let alone = |said: &Said| matches!(said, Said::Held { .. });
    worker.next(PATIENCE, alone).await.unwrap();
}

async fn durable(worker: &mut Harness) {
    let kept = |said: &Said| matches!(said, Said::Durable { .. });
    worker.next(PATIENCE, kept).await.unwrap();
}

/// Nothing was lost, and no spent refresh token was presented at all.
async fn clean(site: &Site) {
    let judgement = nothing_lost(site, Duration::ZERO).await.judgement;
    assert_eq!((judgement.held.saved, judgement.held.killed), (1, 0));
    assert_eq!(
        (judgement.spent_labelled, judgement.spent_unlabelled),
        (0, 0)
    );
}
