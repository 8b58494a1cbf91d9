//! Processes of one store whose wall clocks disagree.

use std::time::Duration;

use pilotlight_testkit::{
    Fault,
    processes::{harness::Harness, said::Said, site::Site},
};

use super::{PATIENCE, logged_in, nothing_lost, refreshes, seconds, served, terminate};

const MINUTES_10: i64 = 600_000;
const YEARS_10: i64 = 315_360_000_000;

/// F-19, F-20, I-10, I-12: processes whose wall clocks are off by ten minutes and ten years, and one whose clock jumps while
/// it works, refresh one token as often as processes that agree: at most 1.05 times for each refresh interval.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_wall_clocks_cost_no_refresh() {
    let life = seconds(2);
    let site = logged_in(life, Duration::ZERO).await;
    let mut workers = Vec::new();
    for shift in [0, MINUTES_10, -MINUTES_10, YEARS_10, -YEARS_10] {
        workers.push(work(&site, shift, None));
    }
    workers.push(work(&site, 0, Some("2500:315360000000")));
    workers.push(work(&site, 0, Some("4000:-600000")));
    for worker in &mut workers {
        served(worker).await;
    }
    super::refreshed(&site, 8).await;
    for worker in &mut workers {
        let heard = worker.testimony().lines().len();
        worker
            .next_after(heard, PATIENCE, |said| {
                matches!(said, Said::Called { code: None, .. })
            })
            .await
            .unwrap();
        terminate(worker).await;
    }
    let calls = refreshes(&site);
    // A refresh interval is at least 0.7 of a life: three quarters, less the jitter of a twentieth.
    let early = calls
        .windows(2)
        .filter(|pair| pair[1].at_ms - pair[0].at_ms < 1390)
        .count();
    assert!(
        early * 20 <= calls.len(),
        "{early} of {} refreshes came early",
        calls.len()
    );
    let report = nothing_lost(&site, Duration::ZERO).await;
    assert_eq!(report.judgement.spent_labelled, 0);
    assert_eq!(report.failed_calls, std::collections::BTreeMap::new());
}

/// F-19, F-12: a pause that a process with a wrong clock has set after a failure binds the others no longer than it should.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_set_by_a_wrong_clock_binds_nobody_for_long() {
    for shift in [MINUTES_10, -MINUTES_10, YEARS_10, -YEARS_10] {
        let site = logged_in(seconds(60), Duration::ZERO).await;
        let failure = Fault::Status {
            status: 503,
            retry_after: Some(1),
            body: None,
        };
        site.lab.with_issuer(|issuer| issuer.push_fault(failure));
        let wrong = site.start("refresh").arg("--force").wall_shift_ms(shift);
        let (exit, _) = site.run(wrong).await.unwrap();
        assert_eq!(
            exit,
            pilotlight_testkit::processes::testimony::Exit::Code(75)
        );
        let right = site.start("refresh").arg("--force").arg("--insist-ms=4000");
        let (exit, right) = site.run(right).await.unwrap();
        assert_eq!(
            exit,
            pilotlight_testkit::processes::testimony::Exit::Code(0),
            "{shift} ms: {:?}",
            right.failure()
        );
        nothing_lost(&site, Duration::ZERO).await;
    }
}

/// F-19: a machine that comes up again with a wrong clock refreshes once at most for it, and never in a loop: the token is
/// taken for what it is, for old, or for one of unknown age.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_a_wrong_clock_costs_one_refresh_at_most() {
    for shift in [
        0,
        MINUTES_10,
        -MINUTES_10,
        YEARS_10,
        -YEARS_10,
        -100 * YEARS_10,
    ] {
        let site = logged_in(seconds(60), Duration::ZERO).await;
        let start = site
            .start("work")
            .arg("--every-ms=20")
            .env("PL_BOOT", "7")
            .wall_shift_ms(shift);
        let mut worker = site.spawn(start).unwrap();
        for _ in 0..20 {
            served(&mut worker).await;
        }
        terminate(&mut worker).await;
        let calls = refreshes(&site).len();
        let at_most = usize::from(shift != 0);
        assert!(calls <= at_most, "{shift} ms: {calls} refreshes");
        nothing_lost(&site, Duration::ZERO).await;
    }
}

fn work(site: &Site, shift: i64, jump: Option<&str>) -> Harness {
    let start = site
        .start("work")
        .arg("--every-ms=100")
        .wall_shift_ms(shift);
    let start = match jump {
        Some(jump) => start.env("PL_WALL_JUMP", jump),
        None => start,
    };
    site.spawn(start).unwrap()
}
