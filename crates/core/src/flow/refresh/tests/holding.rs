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
    // Its own repeat was noted, and may have left.
    let mut stage = Stage::with(credential(4));
    stage.pass(secs(10));
    stage.answer(broken).answer(tokens(5));
    let forced = Refresh::new(Task {
        process: process(9),
        ..refused(4)
    });
    stage.crash_after("note attempt retry", forced);
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

/// I-2, I-5: the store went back, and nobody has looked since: a run whose process holds the newer version brings that back,
/// and what it knows of it; what the store holds is spent, and never sent.
#[test]
fn a_run_brings_back_what_the_store_has_lost() {
    let mut stage = due();
    let attempt = Attempt {
        generation: version(5).generation,
        number: 1,
        label: None,
        fence: 1,
        process: process(2),
        first_sent_at: stage.now,
        sent_at: stage.now,
    };
    let memory = Record {
        credential: Some(credential(5)),
        attempt: Some(attempt),
        ..Record::default()
    };
    stage.pass(secs(300)).answer(tokens(6));
    let outcome = stage.run(Refresh::new(Task {
        memory: Some(Box::new(memory)),
        ..task(5)
    }));
    assert_eq!(outcome.result, Ok(Gain::Refreshed), "{:?}", stage.log);
    assert_eq!(stage.generation(), 6);
    let sent: Vec<_> = stage
        .sent
        .iter()
        .map(|sent| (sent.token.as_str(), sent.label))
        .collect();
    assert_eq!(sent, [("rt-5", Some(Label::Uncertain))]);
}

/// I-2: it went back, and another process has gone on with what it holds since: that is what the issuer knows, and it is
/// refreshed; what memory holds has a higher number, and was spent by that.
#[test]
fn a_run_takes_over_what_the_store_went_on_with() {
    let mut stage = due();
    let memory = Record {
        credential: Some(credential(6)),
        ..Record::default()
    };
    stage.pass(secs(300)).answer(tokens(7));
    let received = stage.now;
    let stored = stage.record.as_mut().unwrap().credential.as_mut().unwrap();
    let generation = stored.version.generation;
    stored.received_at = Some(received);
    stage.pass(secs(3600));
    let outcome = stage.run(Refresh::new(Task {
        memory: Some(Box::new(memory)),
        ..task(6)
    }));
    assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    let sent: Vec<_> = stage.sent.iter().map(|sent| sent.token.as_str()).collect();
    assert_eq!(sent, [format!("rt-{}", generation.0)], "{:?}", stage.log);
}

/// I-2: it goes back once more, between the merge of what memory held and the look after it: that is brought back again, and
/// what the store has gone back to is not sent.
#[test]
fn a_store_that_goes_back_behind_a_merge_is_brought_forward_again() {
    let mut stage = due();
    let memory = Record {
        credential: Some(credential(5)),
        ..Record::default()
    };
    stage.pass(secs(3700)).answer(tokens(6));
    stage.before("commit", |stage| {
        stage.before("reread", |stage| {
            stage.record.as_mut().unwrap().credential = Some(credential(2));
        });
    });
    let outcome = stage.run(Refresh::new(Task {
        memory: Some(Box::new(memory)),
        ..task(5)
    }));
    assert_eq!(outcome.result, Ok(Gain::Refreshed), "{:?}", stage.log);
    let sent: Vec<_> = stage.sent.iter().map(|sent| sent.token.as_str()).collect();
    assert_eq!(sent, ["rt-5"], "{:?}", stage.log);
}

/// I-2: it goes back in the middle of a run, between two looks: the same.
#[test]
fn a_store_that_goes_back_under_a_run_is_brought_forward() {
    let mut stage = due();
    stage.answer(broken).answer(tokens(5));
    stage.before("note attempt retry", |stage| {
        // Too late to be a repeat: the run looks once more.
        stage.pass(secs(15));
        stage.record.as_mut().unwrap().credential = Some(credential(2));
        stage.record.as_mut().unwrap().attempt = None;
    });
    let memory = stage.record.clone();
    let outcome = stage.run(Refresh::new(Task {
        memory: memory.map(Box::new),
        ..task(4)
    }));
    assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    let sent: Vec<_> = stage.sent.iter().map(|sent| sent.token.as_str()).collect();
    assert!(!sent.contains(&"rt-2"), "{sent:?}");
    assert!(stage.generation() >= 4, "{:?}", stage.log);
}

/// I-3: neither store nor slot took the note of a call for what only memory holds, and its answer was lost; then the store
/// takes the version. The same run sends nothing again but under a label.
#[test]
fn a_call_that_nothing_could_note_is_not_forgotten_by_its_run() {
    let mut stage = expired();
    stage.may_keep = true;
    for act in ["commit", "spool", "note"] {
        stage.fail(act);
    }
    stage.answer(|exchange, stage| {
        stage.heal();
        broken(exchange, stage)
    });
    stage.answer(tokens(6));
    let old = Credential {
        received_at: Some(start()),
        ..credential(5)
    };
    let outcome = stage.run(Refresh::new(Task {
        unsaved: Some(Box::new(old)),
        ..task(5)
    }));
    assert_eq!(outcome.result, Ok(Gain::Refreshed), "{:?}", stage.log);
    assert_eq!(stage.labels().first(), Some(&None));
    assert!(
        stage.labels()[1].is_some(),
        "{:?} {:?}",
        stage.labels(),
        stage.log
    );
}

/// I-1, I-3: the same, and the store cannot even be read then: memory keeps what has left, and the next run sends nothing
/// again but under a label.
#[test]
fn a_call_that_nothing_could_note_survives_an_unreadable_store() {
    let mut stage = expired();
    stage.may_keep = true;
    for act in ["commit", "spool", "note"] {
        stage.fail(act);
    }
    stage.answer(|exchange, stage| {
        stage.heal();
        stage.fail("reread");
        broken(exchange, stage)
    });
    let old = Credential {
        received_at: Some(start()),
        ..credential(5)
    };
    let outcome = stage.run(Refresh::new(Task {
        unsaved: Some(Box::new(old)),
        ..task(5)
    }));
    assert!(
        outcome.result.is_err() && outcome.unnoted,
        "{:?}",
        stage.log
    );
    let kept = outcome.record.expect("what has left is known");
    assert_eq!(stage.labels(), [None]);
    assert!(kept.attempt.is_some() && kept.version() == Some(version(5)));
}
