//! Processes that are stopped or die while they hold the lock of a refresh.

use std::time::Duration;

use pilotlight_testkit::{
    Fault,
    authorization_server::Kind,
    processes::{
        fail_point::{Action, Deed, FailPoint, Point},
        harness::Harness,
        said::Said,
        site::Site,
    },
};
use rustix::process::Signal;

use super::{
    GRACES, PATIENCE, logged_in, nothing_lost, refreshed, refreshes, seconds, served, slow,
    terminate,
};

/// F-04, I-2, I-16: a process stopped anywhere between taking the lock and the end of its refresh, for longer than the token
/// lives, sends nothing that others have superseded: nobody presents a spent refresh token, not even knowingly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_between_lease_and_send_supersedes_nothing() {
    let points = [
        Point::After(Deed::Lock),
        Point::After(Deed::Read),
        Point::Before(Deed::Attempt),
        Point::After(Deed::Attempt),
        Point::Before(Deed::Commit),
        Point::After(Deed::Commit),
    ];
    let pause = seconds(if slow() { 12 } else { 3 });
    let played = points.map(|point| async move {
        let site = logged_in(seconds(2), Duration::ZERO).await;
        let (mut holder, mut other) = holder_and_other(&site, point).await;
        tokio::time::sleep(pause).await;
        holder.signal(Signal::CONT);
        let heard = holder.testimony().lines().len();
        let fine = |said: &Said| matches!(said, Said::Called { code: None, .. });
        holder.next_after(heard, PATIENCE, fine).await.unwrap();
        served(&mut other).await;
        terminate(&mut holder).await;
        terminate(&mut other).await;
        let report = nothing_lost(&site, Duration::ZERO).await;
        assert_eq!(report.judgement.spent_labelled, 0, "stopped at {point}");
    });
    futures_util::future::join_all(played).await;
}

/// F-11, I-14, I-17: while the holder of the lock is stopped, the others serve the live token; past its end they say who
/// holds the lock and that it is stopped, and call nobody. When it goes on, so does everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_holder_is_named_and_nobody_goes_around_it() {
    let site = logged_in(seconds(4), Duration::ZERO).await;
    let (mut holder, mut other) = holder_and_other(&site, Point::After(Deed::Attempt)).await;
    let seen = calls_with_refresh_token(&site);
    served(&mut other).await;

    let held = |said: &Said| matches!(said, Said::Called { code: Some(code), .. } if code == "unavailable.lease_held");
    let line = other.next(PATIENCE, held).await.unwrap();
    let Said::Called {
        words: Some(words), ..
    } = line.said
    else {
        panic!("{line:?}")
    };
    let (pid, program) = (format!("pid {}", holder.pid()), "harness");
    for part in [pid.as_str(), program, "stopped", "fg or kill it"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    tokio::time::sleep(seconds(if slow() { 15 } else { 2 })).await;
    assert_eq!(
        calls_with_refresh_token(&site),
        seen,
        "nobody refreshes without the lock"
    );
    // Until the token's end every call was served.
    let lines = other.testimony().lines();
    let calls = lines.iter().filter_map(|line| match &line.said {
        Said::Called { code, .. } => Some(code.clone()),
        _ => None,
    });
    let codes: std::collections::BTreeSet<String> = calls.flatten().collect();
    assert_eq!(
        codes.into_iter().collect::<Vec<_>>(),
        ["unavailable.lease_held"]
    );

    holder.signal(Signal::CONT);
    let heard = other.testimony().lines().len();
    let fine = |said: &Said| matches!(said, Said::Called { code: None, .. });
    other.next_after(heard, PATIENCE, fine).await.unwrap();
    terminate(&mut holder).await;
    terminate(&mut other).await;
    let report = nothing_lost(&site, Duration::ZERO).await;
    assert_eq!(report.judgement.spent_labelled, 0);
}

/// F-11, F-03: the kernel frees the lock of a holder that is killed: the next refresh leaves within a second, knowing that
/// it may repeat one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_killed_holder_the_next_refresh_leaves_within_a_second() {
    for grace in GRACES {
        let site = logged_in(seconds(2), grace).await;
        let before_the_send = grace.is_zero();
        let (mut holder, mut other) = if before_the_send {
            holder_and_other(&site, Point::After(Deed::Attempt)).await
        } else {
            // The issuer has rotated, and keeps its answer back.
            site.lab
                .with_issuer(|issuer| issuer.push_fault(Fault::DelayAnswer { ms: 5000 }));
            let mut workers = [work(&site, &[]), work(&site, &[])];
            refreshed(&site, 1).await;
            let spends = |worker: &Harness| {
                let lines = worker.testimony().lines();
                lines
                    .iter()
                    .any(|line| matches!(line.said, Said::Attempt { .. }))
            };
            workers.sort_by_key(|worker| !spends(worker));
            let [holder, other] = workers;
            (holder, other)
        };
        let calls = calls_with_refresh_token(&site);
        holder.signal(Signal::KILL);
        holder.end(PATIENCE).await.unwrap();
        let killed_at_ms = site.lab.clock().now_ms();
        refreshed(&site, calls + 1).await;
        let next = refreshes(&site).last().map(|entry| entry.at_ms).unwrap();
        let took = next.saturating_sub(killed_at_ms);
        assert!(took < 1000, "{took} ms");
        served(&mut other).await;
        terminate(&mut other).await;
        let report = nothing_lost(&site, grace).await;
        assert_eq!(report.judgement.spent_labelled, u64::from(!before_the_send));
    }
}

/// A worker stopped at a point of its refresh, and one that would like to refresh as well.
async fn holder_and_other(site: &Site, point: Point) -> (Harness, Harness) {
    let mut holder = work(site, &[FailPoint::new(point, Action::Stop)]);
    served(&mut holder).await;
    // The one that is armed refreshes first: the other begins when it is stopped.
    holder.stopped(PATIENCE).await.unwrap();
    let mut other = work(site, &[]);
    let ready = |said: &Said| matches!(said, Said::Ready);
    other.next(PATIENCE, ready).await.unwrap();
    (holder, other)
}

fn work(site: &Site, armed: &[FailPoint]) -> Harness {
    let start = site
        .start("work")
        .arg("--every-ms=50")
        .arg("--caller-wait-ms=4000");
    site.spawn(start.fail(armed)).unwrap()
}

fn calls_with_refresh_token(site: &Site) -> usize {
    site.lab
        .with_issuer(|issuer| issuer.ledger().of(Kind::Refresh).count())
}
