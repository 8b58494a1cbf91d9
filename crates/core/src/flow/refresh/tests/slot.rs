//! Attempts that the store refuses and the spool slot takes.

use super::*;
use crate::record::Suspicion;

/// A stage that is due and whose store notes nothing.
fn refusing() -> Stage {
    let mut stage = due();
    stage.fail("note");
    stage
}

fn attempt(stage: &Stage) -> Option<Attempt> {
    stage.read().record.and_then(|record| record.attempt)
}

/// DESIGN.md section 3 step 4, I-1: what the store does not note is durable in the slot before the request leaves.
#[test]
fn the_slot_takes_the_attempt_that_the_store_refuses() {
    let mut stage = refusing();
    stage.answer(tokens(5));
    let outcome = stage.refresh();
    assert_eq!(outcome.result, Ok(Gain::Refreshed));
    assert!(!outcome.unnoted && !outcome.unsaved);
    let order = [
        "lock",
        "reread",
        "note attempt",
        "spool attempt",
        "send token",
        "commit 5 over 4",
        "unlock",
    ];
    assert_eq!(stage.log, order);
    assert!(stage.sent[0].noted);
    assert_eq!(attempt(&stage), None, "it belonged to what was spent");
}

/// DESIGN.md section 3 step 4: the slot is for trouble: a refresh that the store notes leaves it alone.
#[test]
fn what_the_store_notes_does_not_touch_the_slot() {
    for answers in [
        [Box::new(tokens(5)) as Scripted, Box::new(tokens(5))],
        [Box::new(broken), Box::new(unreachable)],
    ] {
        let mut stage = due();
        for answer in answers {
            stage.answer(answer);
        }
        for _ in 0..3 {
            stage.answer(unreachable);
        }
        drop(stage.refresh());
        assert_eq!(stage.count("spool"), 0, "{:?}", stage.log);
    }
}

/// F-03, I-1, I-3: whoever comes after a crash finds the attempt in the slot: a repeat has its label, early and late, and
/// whether the store notes again or not.
#[test]
fn a_crash_after_the_slot_took_it_is_repeated_under_a_label() {
    for (last, healed, age, labels) in [
        ("spool", false, 5, &[Some(Label::AfterCrash)][..]),
        ("send", false, 5, &[None, Some(Label::AfterCrash)]),
        ("send", true, 5, &[None, Some(Label::AfterCrash)]),
        ("send", false, 400, &[None, Some(Label::Uncertain)]),
        ("send", true, 400, &[None, Some(Label::Uncertain)]),
    ] {
        let mut stage = refusing();
        stage.answer(tokens(5));
        stage.crash_after(last, by(1));
        stage.clear();
        if healed {
            stage.heal();
        }
        stage.pass(secs(age)).answer(tokens(5));
        assert_eq!(stage.run(by(2)).result, Ok(Gain::Refreshed));
        assert_eq!(stage.labels(), labels, "{last}, {healed}, after {age} s");
        assert!(stage.sent.iter().all(|sent| sent.noted));
    }
}

/// DESIGN.md section 3 step 6, I-1: a repeat may leave once its label is in the slot, though the store notes nothing.
#[test]
fn a_repeat_leaves_under_a_label_that_the_slot_holds() {
    let mut stage = refusing();
    stage.answer(broken).answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    let order = [
        "spool attempt",
        "send token",
        "wait",
        "note attempt retry_ambiguous",
        "spool attempt retry_ambiguous",
        "send token",
    ];
    assert_eq!(stage.log[3..9], order);
    assert_eq!(stage.labels(), [None, Some(Label::RetryAmbiguous)]);
}

/// F-04: a repeat that the slot took too late is not sent.
#[test]
fn a_repeat_that_the_slot_took_too_late_is_not_sent() {
    let mut stage = refusing();
    stage.answer(broken).before("spool attempt retry", |stage| {
        stage.pass(secs(15));
    });
    assert_eq!(stage.refresh().result, Ok(Gain::Uncertain));
    assert_eq!(stage.labels(), [None]);
}

/// I-1, I-9: what neither store nor slot takes is no repeat; the first attempt stays where it is, and the failure binds this
/// process all the same.
#[test]
fn no_repeat_where_the_slot_refuses_its_label() {
    let mut stage = refusing();
    stage.answer(broken).before("spool attempt retry", |stage| {
        stage.fail("spool");
    });
    let outcome = stage.refresh();
    assert_eq!(
        (outcome.result, outcome.unnoted),
        (Ok(Gain::Uncertain), true)
    );
    let pause = outcome.record.unwrap().backoff.unwrap();
    assert!(pause.binds(stage.now).is_some());
    assert_eq!(stage.labels(), [None]);
    assert_eq!(attempt(&stage).map(|attempt| attempt.number), Some(1));
}

/// DESIGN.md section 3 step 4, I-8: what was not delivered is taken back, out of the slot too, by whoever can.
#[test]
fn what_was_not_delivered_is_taken_out_of_the_slot() {
    for healed in [false, true] {
        let mut stage = refusing();
        stage.answer(unreachable);
        if healed {
            stage.before("send", |stage| {
                stage.heal();
            });
        }
        let outcome = stage.refresh();
        assert!(matches!(outcome.result, Err(Error::Network { .. })));
        assert_eq!(stage.count("spool no attempt"), usize::from(!healed));
        assert_eq!((attempt(&stage), outcome.unnoted), (None, !healed));
        stage.pass(secs(2)).answer(tokens(5));
        assert_eq!(stage.run(by(2)).result, Ok(Gain::Refreshed));
        assert_eq!(stage.labels(), [None, None], "the first never left");
    }
}

/// I-3: an attempt that was found is put back into the slot where the repeat was not delivered.
#[test]
fn what_was_not_delivered_puts_back_the_attempt_that_was_found() {
    let mut stage = refusing();
    stage.answer(tokens(5));
    stage.crash_after("send", by(1));
    let before = attempt(&stage);
    for _ in 0..5 {
        stage.answer(unreachable);
    }
    assert!(stage.run(by(2)).result.is_err());
    let crash = Some(Label::AfterCrash);
    assert_eq!(stage.labels(), [None, crash, crash, crash, crash, crash]);
    assert!(before.is_some());
    assert_eq!(attempt(&stage), before);
}

/// I-3: an attempt that cannot be taken back makes the next call a repeat under a label, and nothing worse.
#[test]
fn an_attempt_that_cannot_be_taken_back_is_harmless() {
    let mut stage = refusing();
    stage.answer(unreachable).before("spool no", |stage| {
        stage.fail("spool");
    });
    assert!(matches!(stage.refresh().result, Err(Error::Network { .. })));
    assert!(attempt(&stage).is_some());
    stage.heal().pass(secs(2)).answer(tokens(5));
    assert_eq!(stage.run(by(2)).result, Ok(Gain::Refreshed));
    assert_eq!(stage.labels(), [None, Some(Label::AfterCrash)]);
}

/// I-1, I-3: a refusal that could not be noted leaves the attempt in the slot: the token has been seen. The note that goes
/// through clears it.
#[test]
fn a_refusal_keeps_the_attempt_until_it_is_noted() {
    let mut stage = refusing();
    stage.answer(oauth_error("invalid_grant"));
    let outcome = stage.refresh();
    assert_eq!(outcome.result.unwrap_err().code(), "login.refresh_rejected");
    assert!(outcome.unnoted && attempt(&stage).is_some());
    stage.pass(secs(20));
    assert_eq!(stage.run(by(2)).result, Ok(Gain::Uncertain));
    stage.heal().pass(secs(400));
    stage.answer(oauth_error("invalid_grant"));
    assert!(stage.run(by(2)).result.is_err());
    assert_eq!(stage.labels(), [None, Some(Label::Uncertain)]);
    assert!(stage.record().suspicion.is_some());
    assert_eq!(attempt(&stage), None);
}

/// F-06, I-2, I-3: a full disk has no objection to noting nothing: the version that only the spool holds is refreshed from
/// the slot, and a crash there is no unlabelled repeat either.
#[test]
fn a_spooled_version_is_refreshed_through_the_slot() {
    for crash in [false, true] {
        let mut stage = due();
        let five = Credential {
            received_at: Some(start()),
            ..credential(5)
        };
        stage.spool = Some((vec![Some(version(4))], five));
        stage.fail("commit").answer(tokens(6));
        let labels = if crash {
            stage.crash_after("send", by(1));
            assert_eq!(stage.count("spool attempt"), 1);
            assert_eq!(stage.read().record.unwrap().version(), Some(version(5)));
            stage.answer(tokens(6));
            assert_eq!(stage.run(by(2)).result, Ok(Gain::Refreshed));
            &[None, Some(Label::AfterCrash)][..]
        } else {
            assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
            &[None]
        };
        assert_eq!(stage.labels(), labels);
        let rt_5 = |sent: &Sent| sent.token == "rt-5" && sent.noted;
        assert!(stage.sent.iter().all(rt_5), "{:?}", stage.sent);
        assert_eq!(stage.read().record.unwrap().version(), Some(version(6)));
    }
}

/// I-9: the back-off of a version that the store does not hold is remembered by the process.
#[test]
fn the_back_off_of_a_spooled_version_is_remembered() {
    let mut stage = expired();
    let five = Credential {
        received_at: Some(start()),
        ..credential(5)
    };
    stage.spool = Some((vec![Some(version(4))], five));
    stage.fail("commit").answer(unreachable);
    let mut outcome = stage.refresh();
    for _ in 0..3 {
        assert!(outcome.unnoted);
        let remembered = outcome.record.map(Box::new);
        outcome = stage.run(Refresh::new(Task {
            remembered,
            ..task(5)
        }));
        assert!(matches!(outcome.result, Err(Error::BackingOff { .. })));
    }
    assert_eq!((stage.sent.len(), attempt(&stage)), (1, None));
}

/// I-3, F-06: what memory alone holds takes no place in the slot: there the attempt stays that says that the stored token is
/// spent.
#[test]
fn what_memory_alone_holds_does_not_displace_the_attempt() {
    let mut stage = refusing();
    stage.may_keep = true;
    stage.answer(tokens(5)).before("commit", |stage| {
        stage.fail("commit").fail("spool");
    });
    let outcome = stage.refresh();
    assert!(outcome.unsaved && attempt(&stage).is_some());
    let kept = outcome.record.unwrap().credential.map(Box::new);
    stage.answer(tokens(6)).before("note attempt", |stage| {
        stage.heal().fail("commit").fail("note");
    });
    let outcome = stage.run(Refresh::new(Task {
        unsaved: kept,
        refused: Some(version(5)),
        ..task(5)
    }));
    assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    let (of, _) = stage.slot_attempt.unwrap();
    assert_eq!((of, stage.count("spool attempt")), (version(4), 1));
}

/// I-1, F-14: a probe is counted in the store: where that refuses, none is sent, slot or no slot.
#[test]
fn no_probe_leaves_through_the_slot() {
    let mut stage = refusing();
    stage.record.as_mut().unwrap().suspicion = Some(Suspicion {
        cause: LoginCause::Abandoned,
        since: start().wall,
        probes: 1,
        next_probe_at: Some(start().wall),
        at: None,
    });
    assert!(matches!(
        stage.refresh().result,
        Err(Error::StoreUnavailable { .. })
    ));
    assert_eq!((stage.sent.len(), stage.count("spool")), (0, 0));
}

/// I-9: uncertain calls through the slot are spaced by the attempts themselves, for all processes: at most 24 an hour.
#[test]
fn uncertain_calls_through_the_slot_are_spaced() {
    let mut stage = expired();
    stage.fail("note");
    for pid in 0..360 {
        stage.answer(silent);
        drop(stage.run(by(pid)));
        stage.clear();
        stage.pass(secs(10));
    }
    let labels = stage.labels();
    assert_eq!(labels[0], None);
    assert!(labels[1..].iter().all(|l| *l == Some(Label::Uncertain)));
    let spans = stage.sent.windows(2).map(|two| two[1].at.since(&two[0].at));
    let least = spans.min().flatten().unwrap();
    assert!(least >= secs(150), "{least:?}");
    assert!(labels.len() > 15, "{} in {} calls", labels.len(), 360);
}

/// I-9, F-14: a refusal of a repeat is remembered where the store cannot note it, as that of a first call is.
#[test]
fn a_refused_repeat_is_remembered_too() {
    let mut stage = due();
    stage.answer(broken).answer(oauth_error("invalid_grant"));
    stage.before("note no attempt", |stage| {
        stage.fail("note");
    });
    let outcome = stage.refresh();
    assert_eq!(stage.count("learn"), 1);
    assert!(outcome.unnoted && outcome.record.unwrap().suspicion.is_some());
}
