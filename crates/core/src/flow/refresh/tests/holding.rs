//! The only copy of a version: who holds it keeps the lock, and nothing older takes its place.

use super::*;

/// F-06, I-2: the store cannot even be read: the lock stays with the only copy, and nobody sends what the store holds.
#[test]
fn a_read_that_fails_keeps_the_lock_of_the_only_copy() {
    let mut stage = due();
    stage.may_keep = true;
    stage.fail("reread");
    let kept = || Task {
        unsaved: Some(Box::new(five())),
        ..task(5)
    };
    let outcome = stage.run(Refresh::new(kept()));
    assert!(outcome.result.is_err() && outcome.record.is_none());
    assert!(outcome.unsaved && !stage.locks.is_empty());
    stage.heal();
    let outcome = stage.run(Refresh::new(kept()));
    assert_eq!(outcome.result, Ok(Gain::Nothing));
    assert!(!outcome.unsaved && stage.locks.is_empty());
    assert_eq!((stage.generation(), stage.sent.len()), (5, 0));
}

/// I-2, I-5: the store was restored from a copy while a call was under way: what the call brought goes into it, and what the
/// copy holds is never sent.
#[test]
fn a_store_that_went_back_gets_what_was_granted() {
    let mut stage = due();
    stage.answer(tokens(5)).before("commit", |stage| {
        stage.record.as_mut().unwrap().credential = Some(credential(2));
        stage.record.as_mut().unwrap().attempt = None;
    });
    let outcome = stage.refresh();
    assert!(
        matches!(outcome.result, Ok(Gain::Adopted | Gain::Nothing)),
        "{:?}",
        outcome.result
    );
    assert_eq!((stage.generation(), stage.sent.len()), (5, 1));
    assert!(!outcome.unsaved);
}

/// I-2, F-06: and where it cannot be read just then, memory holds it, with the lock.
#[test]
fn what_was_granted_survives_an_unreadable_store() {
    let mut stage = due();
    stage.may_keep = true;
    stage.answer(tokens(5)).before("commit", |stage| {
        stage.record.as_mut().unwrap().credential = Some(credential(2));
        stage.fail("reread");
    });
    let outcome = stage.refresh();
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Refreshed), true)
    );
    let generation = outcome.record.unwrap().version().unwrap().generation;
    assert_eq!(generation, version(5).generation);
    assert!(!stage.locks.is_empty());
}

/// F-03, F-11: a process died over a refresh that a 401 or a person had asked for, and the token is fresh by the record: its
/// call is repeated all the same, while that may help.
#[test]
fn a_dead_ones_forced_refresh_is_repeated_in_time() {
    let mut stage = Stage::with(credential(4));
    stage.pass(secs(10));
    stage.answer(tokens(5));
    let forced = Refresh::new(Task {
        process: process(9),
        ..refused(4)
    });
    stage.crash_after("send", forced);
    stage.pass(secs(4)).answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    assert_eq!(stage.labels(), [None, Some(Label::AfterCrash)]);
    // Too late, it is left until the token is needed.
    let mut stage = Stage::with(credential(4));
    stage.answer(tokens(5));
    let forced = Refresh::new(Task {
        process: process(9),
        ..refused(4)
    });
    stage.crash_after("send", forced);
    stage.pass(secs(20));
    assert_eq!(stage.refresh().result, Ok(Gain::Nothing));
}
