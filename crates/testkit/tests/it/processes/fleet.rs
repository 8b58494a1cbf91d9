//! Many processes that need a token at the same moment.

use std::time::Duration;

use futures_util::future::join_all;
use pilotlight_testkit::processes::{harness::Harness, said::Said, site::Site};

use super::{PATIENCE, logged_in, nothing_lost, refreshes, seconds, slow};

/// F-01, I-1, I-10, I-20: processes that all come to an expired token together make one token call for each expiry, and none
/// presents a spent refresh token; at an issuer that repeats nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_meet_an_expiry_together_make_one_call() {
    let (processes, expiries, life) = if slow() {
        (50, 20, seconds(3))
    } else {
        (8, 10, seconds(2))
    };
    let site = logged_in(life, Duration::ZERO).await;
    let start = || site.start("work").arg("--step");
    let mut workers: Vec<Harness> = (0..processes)
        .map(|_| site.spawn(start()).unwrap())
        .collect();
    for worker in &mut workers {
        worker
            .next(PATIENCE, |said| matches!(said, Said::Ready))
            .await
            .unwrap();
    }
    let mut hurried = 0;
    for expiry in 1..=expiries {
        expired(&site, life).await;
        let began_ms = site.lab.clock().now_ms();
        for worker in &mut workers {
            worker.step().await.unwrap();
        }
        let called = workers
            .iter_mut()
            .map(|worker| worker.next(PATIENCE, |said| matches!(said, Said::Called { .. })));
        for line in join_all(called).await {
            let line = line.unwrap();
            assert!(
                matches!(
                    line.said,
                    Said::Called {
                        status: Some(200),
                        ..
                    }
                ),
                "expiry {expiry}: {line:?}\n{}",
                site.story().join("\n")
            );
        }
        // On a machine too busy the next token came to its refresh point while some still asked for this one.
        let took = site.lab.clock().now_ms() - began_ms;
        hurried += usize::from(Duration::from_millis(took) > life * 6 / 10);
    }
    for worker in &mut workers {
        worker.close();
        worker.end(PATIENCE).await.unwrap();
    }
    let calls = refreshes(&site);
    assert!(
        (expiries..=expiries + hurried).contains(&calls.len()),
        "{} calls for {expiries} expiries, {hurried} of them hurried",
        calls.len()
    );
    assert!(
        hurried * 4 <= expiries,
        "the machine is too busy for this test: {hurried} of {expiries} rounds took too long"
    );
    for pair in calls.windows(2) {
        let apart = Duration::from_millis(pair[1].at_ms - pair[0].at_ms);
        assert!(
            apart >= life * 6 / 10,
            "a token is refreshed {apart:?} after it was made"
        );
    }
    let report = nothing_lost(&site, Duration::ZERO).await;
    assert_eq!(
        (
            report.judgement.spent_labelled,
            report.judgement.spent_unlabelled
        ),
        (0, 0)
    );
}

/// Waits until the newest access token has really ended.
async fn expired(site: &Site, life: Duration) {
    let made_ms = site
        .lab
        .with_issuer(|issuer| issuer.ledger().entries.last().map(|entry| entry.at_ms))
        .unwrap_or_default();
    let over_ms = made_ms + u64::try_from(life.as_millis()).unwrap() + 20;
    let left = over_ms.saturating_sub(site.lab.clock().now_ms());
    tokio::time::sleep(Duration::from_millis(left)).await;
}
