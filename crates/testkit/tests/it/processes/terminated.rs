//! SIGTERM while a refresh is under way.

use std::time::Duration;

use pilotlight_testkit::{
    Fault,
    processes::{said::Said, testimony::Exit},
};
use rustix::process::Signal;

use super::{PATIENCE, logged_in, nothing_lost, refreshed, seconds};

/// F-05, I-4: a process that is told to end while its refresh is under way ends after the answer is durable, whether it
/// refreshed in the background or was asked to. At an issuer that repeats nothing, so that anything else is a loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_waits_for_the_answer_and_the_commit() {
    for command in ["work", "refresh"] {
        let site = logged_in(seconds(2), Duration::ZERO).await;
        site.lab
            .with_issuer(|issuer| issuer.push_fault(Fault::DelayAnswer { ms: 1200 }));
        let start = match command {
            "refresh" => site.start("refresh").arg("--force"),
            other => site.start(other).arg("--every-ms=50"),
        };
        let mut process = site.spawn(start).unwrap();
        refreshed(&site, 1).await;
        process.signal(Signal::TERM);
        let exit = process.end(PATIENCE).await.unwrap();
        assert_eq!(exit, Exit::Code(143), "{command}");
        let lines = process.testimony().lines();
        let place = |fits: fn(&Said) -> bool| lines.iter().position(|line| fits(&line.said));
        let durable = place(|said| matches!(said, Said::Durable { .. }));
        let drained = place(|said| matches!(said, Said::Drained));
        assert!(
            durable.is_some() && durable < drained,
            "{command}: {lines:?}"
        );
        let report = nothing_lost(&site, Duration::ZERO).await;
        assert_eq!(report.judgement.spent_labelled, 0, "{command}");
    }
}
