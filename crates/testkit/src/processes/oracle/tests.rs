//! The judge, judged: each rule broken once.

use std::path::Path;

use pilotlight::core::{
    attempt::ProcessId,
    error::{Certainty, LoginCause, Named},
    time::Wall,
};
use rustix::process::Signal;

use super::*;
use crate::processes::{
    harness::{Program, Start},
    testimony::{Exit, lock},
};

/// A process that said these things, and how it ended.
fn process(pid: u32, killed: bool, said: Vec<(u64, Said)>) -> Arc<Testimony> {
    let start = Start::new(&Program::new("x"), "work", Path::new("/x"), "http://x");
    let testimony = Testimony::new(pid, start);
    *lock(&testimony.lines) = said
        .into_iter()
        .map(|(at_ms, said)| Line { at_ms, said })
        .collect();
    *lock(&testimony.fate) = Some(match killed {
        true => Exit::Signal(Signal::KILL.as_raw()),
        false => Exit::Code(0),
    });
    Arc::new(testimony)
}

fn attempt(token: &str, generation: u64, label: Option<Label>) -> Said {
    Said::Attempt {
        token: token.to_owned(),
        login: "login".to_owned(),
        generation,
        number: 1,
        label,
        durable: true,
    }
}

fn durable(token: &str, generation: u64) -> Said {
    Said::Durable {
        token: token.to_owned(),
        login: "login".to_owned(),
        generation,
        spooled: false,
    }
}

fn in_memory(token: &str, generation: u64) -> Said {
    Said::Held {
        token: token.to_owned(),
        login: "login".to_owned(),
        generation,
    }
}

/// A refresh as the issuer saw it: accepted, or refused as reuse.
fn refresh(at_ms: u64, token: &str, spent: bool) -> Entry {
    Entry {
        at_ms,
        kind: Kind::Refresh,
        client_id: None,
        refresh_token: Some(token.to_owned()),
        spent_before: spent,
        grace_hit: false,
        family: Some(1),
        outcome: match spent {
            true => Outcome::Error("invalid_grant".to_owned()),
            false => Outcome::Ok,
        },
        answer_lost: false,
        label: None,
    }
}

fn lost() -> Event {
    Event {
        at: Wall(0),
        process: ProcessId::default(),
        happened: Happened::Lost {
            cause: LoginCause::RefreshRejected {
                certainty: Certainty::Certain,
                named: Some(Named::Reuse),
            },
            label: Some(Label::AfterCrash),
        },
    }
}

fn judged(
    entries: Vec<Entry>,
    witnesses: &[Arc<Testimony>],
    stored: &str,
    events: &[Event],
) -> Judgement {
    judge(&Ledger { entries }, witnesses, Some(stored), events)
}

/// A refresh as it should be: nothing to say.
#[test]
fn a_clean_refresh_is_clean() {
    let said = vec![(10, attempt("a", 0, None)), (20, durable("b", 1))];
    let judgement = judged(
        vec![refresh(15, "a", false)],
        &[process(1, false, said)],
        "b",
        &[],
    );
    let clean = Judgement {
        refreshes: 1,
        ..Judgement::default()
    };
    assert_eq!(judgement, clean);
}

/// I-20: a process killed between the issuer's answer and the disk is inherent; one that lived is not, nor is a loss of
/// something that the store no longer holds.
#[test]
fn only_an_answer_that_died_is_inherent() {
    let repeat = || {
        process(
            2,
            false,
            vec![(30, attempt("a", 0, Some(Label::AfterCrash)))],
        )
    };
    let entries = || vec![refresh(15, "a", false), refresh(35, "a", true)];
    for (killed, stored, loss) in [
        (true, "a", Loss::AnswerDiedWithItsProcess),
        (false, "a", Loss::Avoidable),
        (true, "b", Loss::Avoidable),
    ] {
        let first = process(1, killed, vec![(10, attempt("a", 0, None))]);
        let judgement = judged(entries(), &[first, repeat()], stored, &[lost()]);
        assert_eq!(judgement.loss, Some(loss), "killed: {killed}, {stored}");
        assert_eq!(
            (judgement.spent_labelled, judgement.spent_unlabelled),
            (1, 0)
        );
        assert_eq!(judgement.violations, Vec::<String>::new());
    }
    // That a later one was killed over its repeat excuses nobody.
    let lived = process(1, false, vec![(10, attempt("a", 0, None))]);
    let crash = Some(Label::AfterCrash);
    let killed = process(2, true, vec![(30, attempt("a", 0, crash))]);
    let last = Some(Label::Uncertain);
    let last = process(3, false, vec![(40, attempt("a", 0, last))]);
    let judgement = judged(entries(), &[lived, killed, last], "a", &[lost()]);
    assert_eq!(judgement.loss, Some(Loss::Avoidable));
    let first = process(1, true, vec![(10, attempt("a", 0, None))]);
    let untold = judged(entries(), &[first, repeat()], "a", &[]);
    assert_eq!(untold.violations.len(), 1, "the history says nothing");
}

/// I-3, I-1: a repeat without a label, and the same label twice.
#[test]
fn a_repeat_needs_a_label_and_each_has_its_maximum() {
    let twice = |label| {
        let said = vec![(10, attempt("a", 0, None)), (30, attempt("a", 0, label))];
        let entries = vec![refresh(15, "a", false), refresh(35, "a", true)];
        judged(entries, &[process(1, true, said)], "a", &[lost()])
    };
    let unlabelled = twice(None);
    assert_eq!(unlabelled.spent_unlabelled, 1);
    assert!(unlabelled.violations.iter().any(|v| v.starts_with("I-3")));
    assert_eq!(twice(Some(Label::AfterCrash)).spent_unlabelled, 0);

    let said = vec![
        (10, attempt("a", 0, Some(Label::AfterCrash))),
        (30, attempt("a", 0, Some(Label::AfterCrash))),
    ];
    let again = judged(vec![], &[process(1, false, said)], "a", &[]);
    assert!(again.violations.iter().any(|v| v.starts_with("I-1")));
}

/// I-2: a generation spent when a later one of the same login is durable; what comes after it in time alone is fine.
#[test]
fn a_superseded_token_is_not_spent() {
    let other = process(1, false, vec![(20, durable("b", 1))]);
    let late = process(2, false, vec![(30, attempt("a", 0, None))]);
    let judgement = judged(
        vec![refresh(31, "a", false)],
        &[other.clone(), late],
        "b",
        &[],
    );
    assert!(judgement.violations.iter().any(|v| v.starts_with("I-2")));

    let before = process(2, false, vec![(10, attempt("a", 0, None))]);
    let judgement = judged(vec![refresh(11, "a", false)], &[other, before], "b", &[]);
    assert_eq!(judgement.violations, Vec::<String>::new());
}

/// DESIGN.md section 3, step 4: nothing is sent that was not noted; what the spool took in the store's place is one note.
#[test]
fn what_is_sent_was_noted() {
    let silent = judged(vec![refresh(15, "a", false)], &[], "a", &[]);
    assert_eq!(silent.violations.len(), 1);

    let refused = Said::Attempt {
        token: "a".to_owned(),
        login: "login".to_owned(),
        generation: 0,
        number: 1,
        label: None,
        durable: false,
    };
    let said = vec![(10, refused), (11, attempt("a", 0, None))];
    let entries = vec![refresh(15, "a", false), refresh(16, "a", false)];
    let judgement = judged(entries, &[process(1, false, said)], "a", &[]);
    assert_eq!(judgement.violations.len(), 1, "{judgement:?}");
}

/// F-06: what only one process had is durable when it ends, or dies with it; it is not left behind.
#[test]
fn what_only_memory_holds_is_not_left_behind() {
    let held = |killed, later: Option<Said>| {
        let said = [(10, in_memory("b", 1))].into_iter();
        let said = said.chain(later.map(|said| (20, said))).collect();
        judged(vec![], &[process(1, killed, said)], "a", &[])
    };
    let saved = Held {
        saved: 1,
        killed: 0,
    };
    assert_eq!(held(false, Some(durable("b", 1))).held, saved);
    let followed = held(false, Some(durable("c", 2)));
    assert_eq!(
        (followed.held, followed.violations.len()),
        (saved, 0),
        "its successor counts"
    );
    assert_eq!(held(true, None).held.killed, 1);
    assert_eq!(held(true, None).violations, Vec::<String>::new());
    for older in [None, Some(durable("a", 0))] {
        let left = held(false, older);
        assert!(left.violations.iter().any(|v| v.starts_with("F-06")));
    }
}

/// I-20, I-3: the use of a token that only a killed process had is unknowable, once; not where it lived, where the use was
/// noted, or where somebody else could know the token.
#[test]
fn only_what_the_dead_alone_had_is_spent_unknowably() {
    let unnoted = |token| match attempt(token, 1, None) {
        Said::Attempt {
            token,
            login,
            generation,
            number,
            label,
            ..
        } => Said::Attempt {
            token,
            login,
            generation,
            number,
            label,
            durable: false,
        },
        said => said,
    };
    let spent = |killed, alone: Said, first: Said, times: u64| {
        let dead = process(1, killed, vec![(10, alone), (20, first)]);
        let mut entries = vec![refresh(25, "b", false)];
        let mut later = Vec::new();
        for time in 0..times {
            entries.push(Entry {
                outcome: Outcome::Ok,
                grace_hit: true,
                ..refresh(45 + time, "b", true)
            });
            later.push((40 + time, attempt("b", 1, None)));
        }
        let judgement = judged(entries, &[dead, process(2, false, later)], "b", &[]);
        (judgement.spent_unknowably, judgement.spent_unlabelled)
    };
    let alone = || in_memory("b", 1);
    assert_eq!(spent(true, alone(), unnoted("b"), 1), (1, 0));
    assert_eq!(spent(true, alone(), unnoted("b"), 2), (1, 1), "once");
    assert_eq!(spent(false, alone(), unnoted("b"), 1), (0, 1), "it lived");
    let noted = attempt("b", 1, None);
    assert_eq!(spent(true, alone(), noted, 1), (0, 1), "it was noted");
    assert_eq!(spent(true, durable("b", 1), unnoted("b"), 1), (0, 1));
}
