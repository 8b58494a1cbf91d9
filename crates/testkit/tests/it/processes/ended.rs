//! Tokens that end between the moment when they are put on a request and the moment when the server looks at them.

use std::time::Duration;

use pilotlight_testkit::processes::{
    fail_point::{Action, FailPoint, Point},
    said::Said,
};
use rustix::process::Signal;

use super::{PATIENCE, logged_in, nothing_lost, seconds, terminate};

/// F-02, F-04, I-12, I-13: a program that is stopped with a request in hand until its token has ended gets a new token for
/// it, each time: that the server refuses what has ended says nothing against the server, however often it happens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ended_on_its_way_is_replaced_however_often() {
    let site = logged_in(seconds(2), Duration::ZERO).await;
    // Each stopped call is followed by its repeat, which passes the same point.
    let stops = [1, 3, 5, 7, 9].map(|nth| FailPoint {
        point: Point::Call,
        nth,
        action: Action::Stop,
    });
    let start = site.start("work").arg("--step").fail(&stops);
    let mut worker = site.spawn(start).unwrap();
    for stop in 1..=stops.len() {
        worker.step().await.unwrap();
        worker.stopped(PATIENCE).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2100)).await;
        worker.signal(Signal::CONT);
        let called = |said: &Said| matches!(said, Said::Called { .. });
        let line = worker.next(PATIENCE, called).await.unwrap();
        assert!(
            matches!(
                line.said,
                Said::Called {
                    status: Some(200),
                    ..
                }
            ),
            "after stop {stop}: {line:?}\n{}",
            site.story().join("\n")
        );
    }
    terminate(&mut worker).await;
    nothing_lost(&site, Duration::ZERO).await;
}
