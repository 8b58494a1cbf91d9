//! Rounds of chaos from fixed seeds; the binary `chaos` plays as many others as one likes.

use futures_util::{StreamExt as _, stream};
use pilotlight_testkit::processes::{oracle::Loss, plan::Plan, round};

use super::{GRACES, program, slow};

/// F-03, F-04, F-05, I-1 to I-6, I-18, I-20: whatever is killed, stopped or ended at random, no spent refresh token is
/// presented without a label, the store stays whole, no file shows a secret, and a new process works, unless the issuer
/// rotated for a process that died before the answer was durable, and repeats nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_of_chaos_lose_nothing_that_could_be_kept() {
    let rounds = if slow() { 40 } else { 12 };
    let program = program();
    for grace in GRACES {
        let played = stream::iter(1..=rounds).map(|seed| {
            let program = &program;
            async move { Box::pin(round::play(program, &Plan::draw(seed), grace)).await }
        });
        let reports: Vec<_> = played.buffer_unordered(4).collect().await;
        let wrong: Vec<String> = reports
            .iter()
            .filter(|report| !report.violations.is_empty())
            .map(|report| {
                format!(
                    "chaos --grace {} --replay {}: {:#?}",
                    grace.as_secs(),
                    report.seed,
                    report.violations
                )
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let struck = reports
            .iter()
            .filter(|report| !report.blows.is_empty())
            .count();
        assert!(
            struck as u64 * 2 > rounds,
            "only {struck} of {rounds} rounds were struck"
        );
        let losses = reports.iter().filter_map(|report| report.judgement.loss);
        assert!(
            losses
                .into_iter()
                .all(|loss| loss == Loss::AnswerDiedWithItsProcess && grace.is_zero())
        );
    }
}
