//! Answers that are lost: what is repeated, under which label, and what waits.

use super::*;
use crate::{flow::stage::Sent, notes::ReuseGrace};

fn ambiguous_attempt(stage: &Stage) -> Attempt {
    stage.record().attempt.expect("an attempt")
}

/// I-1, I-3, F-03: a broken call is repeated exactly once, its label durable first, well inside the window.
#[test]
fn a_broken_call_is_repeated_once_under_its_label() {
    let mut stage = due();
    stage.answer(broken).answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    let order = [
        "lock",
        "reread",
        "note attempt",
        "send token",
        "wait",
        "note attempt retry_ambiguous",
        "send token",
    ];
    assert_eq!(stage.log[..7], order);
    assert_eq!(stage.labels(), [None, Some(Label::RetryAmbiguous)]);
    let [Sent { at: first, .. }, Sent { at: second, .. }] = &stage.sent[..] else {
        panic!()
    };
    let between = second.since(first).unwrap();
    assert!(
        between >= Duration::from_millis(200) && between < secs(2),
        "{between:?}"
    );
    let Happened::Refreshed { label, calls, .. } = stage.events[0].happened else {
        panic!()
    };
    assert_eq!((label, calls), (Some(Label::RetryAmbiguous), 2));
}

/// F-17, I-8: an unreadable 200 and a 5xx are as ambiguous as a broken connection.
#[test]
fn unreadable_answers_and_5xx_are_repeated_too() {
    for (status, body) in [
        (200, "<html>sign in</html>"),
        (200, "{\"access_token\":"),
        (200, ""),
        (500, "{}"),
        (503, ""),
    ] {
        let mut stage = due();
        stage.answer(reply(status, body)).answer(tokens(5));
        assert_eq!(
            stage.refresh().result,
            Ok(Gain::Refreshed),
            "{status} {body}"
        );
        assert_eq!(stage.labels(), [None, Some(Label::RetryAmbiguous)]);
    }
}

/// I-3, I-8, I-9: a call and its four repeats fail: nothing more is sent while the token works; once it has ended, as
/// `uncertain`.
#[test]
fn a_row_of_failures_waits_until_the_token_has_ended() {
    let mut stage = due();
    for _ in 0..5 {
        stage.answer(broken);
    }
    let outcome = stage.refresh();
    assert_eq!(outcome.result, Ok(Gain::Uncertain));
    let uncertain = Some(Label::Uncertain);
    let repeats = [Some(Label::RetryAmbiguous), uncertain, uncertain, uncertain];
    assert_eq!(
        stage.labels()[1..],
        repeats,
        "one fault more costs no login"
    );
    assert_eq!(
        stage.record().credential,
        Some(credential(4)),
        "served meanwhile, and nothing lost"
    );
    assert_eq!(ambiguous_attempt(&stage).label, uncertain);
    assert_eq!(outcome.record, stage.record);
    assert!(stage.record().backoff.is_some());
    stage.pass(secs(20));
    assert_eq!(stage.run(by(2)).result, Ok(Gain::Uncertain));
    assert_eq!(stage.sent.len(), 5);
    stage.pass(secs(300)).answer(broken).answer(broken);
    assert!(matches!(
        stage.run(by(2)).result,
        Err(Error::Network { .. })
    ));
    assert_eq!(
        stage.labels()[5..],
        [uncertain; 2],
        "a fifth repeat is the last of the hour"
    );
    assert!(
        matches!(stage.run(by(1)).result, Err(Error::BackingOff { .. })),
        "but at the pace of the back-off"
    );
    stage.pass(secs(8)).answer(tokens(5));
    assert_eq!(stage.run(by(3)).result, Ok(Gain::Refreshed));
    assert_eq!(stage.labels()[7..], [uncertain]);
}

/// DESIGN.md section 3 step 6: an issuer known to have no grace is not asked twice while the token works.
#[test]
fn without_grace_nothing_is_repeated() {
    let mut stage = due();
    stage.notes = IssuerNotes {
        reuse_grace: ReuseGrace::None,
        seen_at: stage.now.wall,
        ..IssuerNotes::default()
    };
    stage.answer(broken);
    assert_eq!(stage.refresh().result, Ok(Gain::Uncertain));
    assert_eq!(
        (stage.count("wait"), ambiguous_attempt(&stage).label),
        (0, None),
        "not even prepared"
    );
    assert_eq!(stage.labels(), [None]);
    stage.pass(secs(2));
    assert_eq!(stage.refresh().result, Ok(Gain::Uncertain));
    stage.pass(secs(300)).answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    assert_eq!(stage.labels(), [None, Some(Label::Uncertain)]);
}

/// DESIGN.md section 3 step 6: what was learned is forgotten after thirty days.
#[test]
fn an_old_note_binds_no_longer() {
    let mut stage = due();
    stage.notes = IssuerNotes {
        reuse_grace: ReuseGrace::None,
        seen_at: Wall(stage.now.wall.0 - 31 * 86_400_000),
        ..IssuerNotes::default()
    };
    stage.answer(broken).answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
}

/// DESIGN.md section 3 step 6: at the deadline the window is over; a repeat now would be the reuse.
#[test]
fn a_call_that_ran_into_its_deadline_is_not_repeated() {
    let mut stage = due();
    stage.answer(silent);
    assert_eq!(stage.refresh().result, Ok(Gain::Uncertain));
    assert_eq!(stage.labels(), [None]);
}

/// DESIGN.md section 3 step 6: a connection that broke late leaves no window either.
#[test]
fn a_call_that_broke_after_the_window_is_not_repeated() {
    let mut stage = due();
    stage.answer(|exchange, stage| {
        let sent_at = stage.now;
        stage.pass(secs(12));
        broken(exchange, stage).map_err(|failure| crate::exchange::Failure { sent_at, ..failure })
    });
    assert_eq!(stage.refresh().result, Ok(Gain::Uncertain));
    assert_eq!(stage.labels(), [None]);
}

/// flow/mod.rs: a wake-up that comes too early is a no-op.
#[test]
fn an_early_wake_up_sends_nothing() {
    let mut stage = due();
    stage.answer(broken).answer(tokens(5));
    let mut turn = Refresh::new(task(4)).start(stage.now);
    let mut early = 0;
    while let Turn::Next(flow, Step { act, wake_at }) = turn {
        let answer = match act {
            Some(act) => stage.perform(act),
            None => {
                early += 1;
                if early > 3 {
                    stage.pass(stage.now.mono.until(wake_at.unwrap()));
                }
                Answer::Woken
            }
        };
        turn = flow.handle(answer, stage.now);
    }
    assert_eq!((early, stage.sent.len()), (4, 2));
    assert!(stage.sent[1].at.since(&stage.sent[0].at).unwrap() >= Duration::from_millis(200));
}

/// I-3: a repeat that was not delivered does not undo the first call, which may have been.
#[test]
fn a_repeat_that_was_not_delivered_leaves_the_first_attempt() {
    let mut stage = due();
    stage.answer(broken);
    for _ in 0..4 {
        stage.answer(unreachable);
    }
    assert!(matches!(stage.refresh().result, Err(Error::Network { .. })));
    assert_eq!(ambiguous_attempt(&stage).label, None);
    assert_eq!(ambiguous_attempt(&stage).number, 1);
    stage.pass(secs(60));
    assert_eq!(stage.refresh().result, Ok(Gain::Uncertain));
    stage.pass(secs(300)).answer(tokens(5));
    stage.refresh();
    assert_eq!(
        stage.labels()[5..],
        [Some(Label::Uncertain)],
        "never a second time without a label"
    );
}

/// I-1: without a durable label there is no repeat.
#[test]
fn no_repeat_without_a_durable_label() {
    for mut stage in [due(), expired()] {
        stage.answer(broken).before("note attempt retry", |stage| {
            stage.fail("note").fail("spool");
        });
        let outcome = stage.refresh();
        assert!(outcome.unnoted, "{:?}", outcome.result);
        assert!(outcome.record.unwrap().backoff.is_some());
        assert_eq!(stage.labels(), [None]);
        assert!(stage.record().attempt.is_some(), "the first stays noted");
    }
}

/// F-03: whoever finds the attempt of a dead process inside the window repeats it at once, as `after_crash`.
#[test]
fn a_crash_is_repeated_once_inside_the_window() {
    let mut stage = due();
    stage.answer(tokens(5));
    stage.crash_after("send", by(1));
    stage.pass(secs(8)).answer(tokens(5));
    assert_eq!(stage.run(by(2)).result, Ok(Gain::Refreshed));
    assert_eq!(stage.labels(), [None, Some(Label::AfterCrash)]);
    assert_eq!((stage.generation(), stage.record().attempt), (5, None));
}

/// F-03, I-3: after the window it is uncertain: served, and sent once the token has ended.
#[test]
fn a_crash_found_late_waits_for_the_end_of_the_token() {
    let mut stage = due();
    stage.answer(tokens(5));
    stage.crash_after("send", by(1));
    stage.pass(secs(13));
    assert_eq!(stage.run(by(2)).result, Ok(Gain::Uncertain));
    assert_eq!(stage.labels(), [None]);
    stage.pass(secs(300)).answer(tokens(5));
    assert_eq!(stage.run(by(2)).result, Ok(Gain::Refreshed));
    assert_eq!(stage.labels(), [None, Some(Label::Uncertain)]);
}

/// F-03: a crash before the call left, too: the note alone tells no more.
#[test]
fn a_crash_before_the_call_is_repeated_like_one_after_it() {
    let mut stage = due();
    stage.crash_after("note", by(1));
    stage.answer(tokens(5));
    assert_eq!(stage.run(by(2)).result, Ok(Gain::Refreshed));
    assert_eq!(stage.labels(), [Some(Label::AfterCrash)]);
}

/// I-1: each label has its maximum, however many processes die within the window.
#[test]
fn every_label_has_its_maximum() {
    let mut stage = expired();
    for pid in 1..6 {
        stage.answer(tokens(5));
        stage.crash_after("send", by(pid));
        stage.pass(secs(1));
    }
    let after_crash = stage
        .labels()
        .iter()
        .filter(|label| **label == Some(Label::AfterCrash))
        .count();
    let bare = stage
        .labels()
        .iter()
        .filter(|label| label.is_none())
        .count();
    assert_eq!((bare, after_crash), (1, 1), "{:?}", stage.labels());
    assert!(
        stage
            .sent
            .iter()
            .all(|sent| sent.token == "rt-4" && sent.noted)
    );
}

/// I-8, F-12: what was not delivered clears the attempt durably and backs off; nobody calls before that is over.
#[test]
fn what_was_not_delivered_backs_off() {
    for (status, headers, code) in [
        (0, &[][..], "unavailable.network"),
        (
            429,
            &[("retry-after", "90")][..],
            "unavailable.rate_limited",
        ),
        (
            503,
            &[("retry-after", "90")][..],
            "unavailable.server_error",
        ),
        (404, &[][..], "unavailable.server_error"),
    ] {
        let mut stage = due();
        match status {
            0 => stage.answer(unreachable),
            _ => stage.answer(with_headers(status, headers, "")),
        };
        let error = stage.refresh().result.unwrap_err();
        assert_eq!((error.code(), stage.record().attempt), (code, None));
        assert_eq!(
            stage.record().credential,
            Some(credential(4)),
            "nothing is lost"
        );
        assert!(stage.log.contains(&"note no attempt, backoff".to_owned()));
        let pause = stage
            .now
            .wall
            .until(stage.record().backoff.as_ref().unwrap().not_before);
        assert!(if headers.is_empty() {
            pause > Duration::from_millis(400)
        } else {
            pause > secs(89)
        });
        let Err(Error::BackingOff { code: after, .. }) = stage.run(by(2)).result else {
            panic!()
        };
        assert_eq!(
            (after.as_str(), stage.sent.len()),
            (code, 1),
            "for another process, too"
        );
        stage.pass(pause).answer(tokens(5));
        assert_eq!(stage.run(by(2)).result, Ok(Gain::Refreshed));
        assert_eq!(stage.labels(), [None, None]);
        assert_eq!(stage.record().backoff, None, "success ends the row");
    }
}

/// I-3: an attempt that was found is put back where the repeat was not delivered.
#[test]
fn what_was_not_delivered_restores_the_attempt_that_was_found() {
    let mut stage = due();
    stage.answer(tokens(5));
    stage.crash_after("send", by(1));
    let before = ambiguous_attempt(&stage);
    for _ in 0..5 {
        stage.answer(unreachable);
    }
    assert!(stage.run(by(2)).result.is_err());
    assert_eq!(ambiguous_attempt(&stage), before);
}

/// F-19, I-12: a pause written by a clock that ran ahead, before a restart, binds nobody for ever.
#[test]
fn a_pause_from_the_far_future_is_not_believed() {
    let mut stage = due();
    stage.answer(unreachable);
    assert!(stage.refresh().result.is_err());
    stage.now.wall = Wall(stage.now.wall.0 - 3 * 86_400_000);
    stage.now.boot = crate::time::BootId([2; 16]);
    stage.answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
}

/// F-12, I-20: a call that is uncertain anyway may be the first that got through: where its connection breaks it is repeated
/// at once, since an issuer that forgives counts from there.
#[test]
fn an_uncertain_call_is_repeated_at_once() {
    let mut stage = due();
    stage.answer(tokens(5));
    stage.crash_after("send", by(1));
    stage.pass(secs(400)).answer(broken).answer(tokens(5));
    let before = stage.now;
    assert_eq!(stage.run(by(2)).result, Ok(Gain::Refreshed));
    assert_eq!(stage.labels()[1..], [Some(Label::Uncertain); 2]);
    let took = stage.now.since(&before).unwrap();
    assert!(took < secs(2), "{took:?}");
}
