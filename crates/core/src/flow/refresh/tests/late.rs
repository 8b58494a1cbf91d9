//! Calls and repeats that leave late, or not at all.

use super::*;

/// F-04: a repeat that a suspend or a slow disk has put off beyond its window is not sent.
#[test]
fn a_repeat_that_comes_too_late_is_not_sent() {
    let mut asleep = due();
    asleep.oversleep = secs(60);
    let mut slow = due();
    slow.before("note attempt retry", |stage| {
        stage.pass(secs(15));
    });
    for mut stage in [asleep, slow] {
        stage.answer(broken);
        assert_eq!(stage.refresh().result, Ok(Gain::Uncertain));
        assert_eq!(stage.labels(), [None]);
        stage.pass(secs(300)).answer(tokens(5));
        assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
        assert_eq!(
            stage.labels(),
            [None, Some(Label::Uncertain)],
            "{:?}",
            stage.log
        );
    }
}

/// F-04: an `after_crash` whose note took until after the window is not sent.
#[test]
fn an_after_crash_that_comes_too_late_is_not_sent() {
    let mut stage = due();
    stage.answer(tokens(5));
    stage.crash_after("send", by(1));
    stage.before("note attempt after_crash", |stage| {
        stage.pass(secs(15));
    });
    assert_eq!(stage.run(by(2)).result, Ok(Gain::Uncertain));
    assert_eq!(stage.labels(), [None]);
}

/// F-04, I-1: a repeat whose connection takes so long to come up that its window closes is not sent; one that is in time is.
#[test]
fn a_repeat_whose_connection_stands_too_late_is_not_sent() {
    for (broke_after, sent) in [(8, false), (2, true)] {
        let mut stage = due();
        stage.answer(breaks_after(secs(broke_after)));
        stage.answer(connects_slowly(tokens(5)));
        let gain = if sent {
            Gain::Refreshed
        } else {
            Gain::Uncertain
        };
        assert_eq!(stage.refresh().result, Ok(gain), "{:?}", stage.log);
        let presented = stage.sent.iter().filter(|sent| sent.delivered).count();
        assert_eq!(presented, if sent { 2 } else { 1 }, "{:?}", stage.sent);
        if !sent {
            stage.pass(secs(300)).answer(tokens(5));
            assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
            assert_eq!(stage.labels().last(), Some(&Some(Label::Uncertain)));
        }
    }
}

/// Section 3, step 6: the window counts from when the first call left, not from when its connection was asked for.
#[test]
fn the_window_opens_when_the_call_has_left() {
    let mut stage = due();
    stage.answer(|exchange, stage| {
        stage.pass(secs(8));
        dead_path(exchange, stage)
    });
    stage.answer(tokens(5));
    assert_eq!(
        stage.refresh().result,
        Ok(Gain::Refreshed),
        "{:?}",
        stage.log
    );
    assert_eq!(stage.labels(), [None, Some(Label::RetryAmbiguous)]);
}

/// F-10: whatever a call and its repeats meet, the lease is let go of within the 75 s that others wait for it: the last repeat
/// has what is left of that for its answer.
#[test]
fn the_lease_is_held_no_longer_than_others_wait_for_it() {
    let mut stage = due();
    stage.answer(connects_slowly(dead_path));
    stage.answer(silent);
    let begun = stage.now;
    assert_eq!(
        stage.refresh().result,
        Ok(Gain::Uncertain),
        "{:?}",
        stage.log
    );
    assert_eq!(stage.exchanges.len(), 2, "{:?}", stage.log);
    let held = stage.now.since(&begun).unwrap();
    assert!(held <= secs(75) && held > secs(70), "{held:?}");
}

/// F-04, F-25: the machine sleeps between the note of a call and its departure: the call has its whole time all the same.
#[test]
fn a_sleep_before_a_call_takes_nothing_from_its_time() {
    let mut stage = due();
    stage.before("send token", |stage| {
        stage.pass(secs(3600));
    });
    stage.answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    stage.before("note attempt", |stage| {
        stage.pass(secs(3600));
    });
    stage.pass(secs(3600)).answer(tokens(6));
    assert_eq!(stage.run(Refresh::new(task(5))).result, Ok(Gain::Refreshed));
    let within: Vec<_> = stage.exchanges.iter().map(|sent| sent.within).collect();
    assert_eq!(within, [secs(60), secs(60)]);
}

/// F-04, I-9: a repeat that does not leave is no news: the run ends with the failure before it, its pause and its event; and
/// what was put on trial for it is taken back, since nothing was tried.
#[test]
fn a_repeat_that_stays_leaves_the_failure_before_it() {
    let mut stage = due();
    stage.answer(dead_path).answer(connects_slowly(tokens(5)));
    assert_eq!(
        stage.refresh().result,
        Ok(Gain::Uncertain),
        "{:?}",
        stage.log
    );
    let record = stage.record();
    assert!(record.backoff.is_some() && record.attempt.is_some());
    assert!(!stage.notes.is_trying(stage.now.wall), "{:?}", stage.notes);
    let told = |event: &Event| matches!(&event.happened, Happened::Ambiguous { code, .. } if code == "unavailable.network");
    assert!(stage.events.iter().any(told), "{:?}", stage.events);
}
