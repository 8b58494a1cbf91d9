//! Many processes that come to one expired token together.

#![allow(clippy::print_stdout, reason = "the script's log keeps the figures")]

use std::time::Duration;

use futures_util::future::join_all;
use pilotlight_testkit::{
    authorization_server::{Kind, Outcome},
    processes::{harness::Harness, said::Said, site::Site},
};

use super::{PATIENCE, logged_in, nothing_lost, refreshes, seconds};

/// F-01, I-1, I-10, I-20: processes that all come to an expired token together make one token call for each expiry, and none
/// presents a spent refresh token; at an issuer that rotates, detects reuse and repeats nothing. Stage `herd` has 50 processes
/// meet 200 expiries.
///
/// In each round every process makes its call after the token has expired by the issuer's clock, and the round is over when
/// all were served. Where one of them was served only when the next token had come to its own refresh point, the second call
/// of that round is as it should be, and so the round proves nothing: another is played in its place, and it is told apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_meet_an_expiry_together_make_one_call() {
    let (processes, expiries) = if herd() { (50, 200) } else { (8, 10) };
    let life = seconds(2);
    let site = logged_in(life, Duration::ZERO).await;
    let mut workers = start(&site, processes).await;
    let (mut met, mut hurried, mut extra) = (0, 0, 0);
    let mut took_ms = Vec::new();
    while met < expiries {
        let before = expired(&site, life).await;
        meet(&site, &mut workers).await;
        let over_ms = site.lab.clock().now_ms();
        // What a late call began in the background has ended when the newest token has.
        let after = expired(&site, life).await;
        let calls: Vec<u64> = refreshes(&site)[before.calls..]
            .iter()
            .map(|entry| entry.at_ms)
            .collect();
        assert_eq!(calls.len(), after.calls - before.calls);
        let first_ms = calls[0];
        assert!(first_ms >= before.at_ms, "a call before the expiry");
        took_ms.push(over_ms - before.at_ms);
        if over_ms < first_ms + earliest_refresh_ms(life) {
            met += 1;
            assert_eq!(calls.len(), 1, "expiry {met}\n{}", site.story().join("\n"));
        } else {
            hurried += 1;
            extra += calls.len();
            for pair in calls.windows(2) {
                assert!(
                    pair[1] - pair[0] >= earliest_refresh_ms(life),
                    "{calls:?}: before its refresh point"
                );
            }
            assert!(
                hurried * 10 <= expiries,
                "the machine is too busy for this test: {hurried} rounds took too long, {met} did not"
            );
        }
    }
    for worker in &mut workers {
        worker.close();
        worker.end(PATIENCE).await.unwrap();
    }
    let calls = all_token_calls(&site);
    took_ms.sort_unstable();
    println!(
        "{processes} processes, {met} expiries: {} token calls; {hurried} rounds more were hurried, with {extra} calls; \
         a round took {} ms (median), {} ms at most",
        calls - extra,
        took_ms[took_ms.len() / 2],
        took_ms[took_ms.len() - 1],
    );
    assert_eq!(calls - extra, expiries, "one token call for each expiry");
    let report = nothing_lost(&site, Duration::ZERO).await;
    assert_eq!(
        (
            report.judgement.spent_labelled,
            report.judgement.spent_unlabelled
        ),
        (0, 0)
    );
}

/// Starts processes that have their login open and wait for their turn.
async fn start(site: &Site, processes: usize) -> Vec<Harness> {
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
    workers
}

/// Every process makes its call, and every one is served.
async fn meet(site: &Site, workers: &mut [Harness]) {
    for worker in &mut *workers {
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
            "{line:?}\n{}",
            site.story().join("\n")
        );
    }
}

/// The moment when the newest access token had ended, and how many refreshes there had been.
struct Expired {
    at_ms: u64,
    calls: usize,
}

/// Waits until the newest access token has really ended.
async fn expired(site: &Site, life: Duration) -> Expired {
    loop {
        let newest_ms = site.lab.with_issuer(|issuer| {
            let made = issuer.ledger().entries.iter().rev();
            made.filter(|entry| entry.outcome == Outcome::Ok)
                .map(|entry| entry.at_ms)
                .next()
                .unwrap()
        });
        let over_ms = newest_ms + u64::try_from(life.as_millis()).unwrap() + 20;
        let now_ms = site.lab.clock().now_ms();
        if now_ms >= over_ms {
            return Expired {
                at_ms: now_ms,
                calls: refreshes(site).len(),
            };
        }
        tokio::time::sleep(Duration::from_millis(over_ms - now_ms)).await;
    }
}

/// Everything that came to the token endpoint with a refresh token, whatever was answered.
fn all_token_calls(site: &Site) -> usize {
    site.lab
        .with_issuer(|issuer| issuer.ledger().of(Kind::Refresh).count())
}

/// No token of so short a life comes to its refresh point before this: a quarter is kept in hand, a fifth of that is for the
/// spread, and its age counts from when it was asked for.
fn earliest_refresh_ms(life: Duration) -> u64 {
    u64::try_from((life * 6 / 10).as_millis()).unwrap()
}

/// Whether the herd is wanted at its full size.
#[allow(clippy::disallowed_methods, reason = "the switch of the test script")]
fn herd() -> bool {
    std::env::var_os("PILOTLIGHT_HERD").is_some()
}
