//! Stores that refuse, and logins and logouts that come between.

use super::*;
use crate::flow::stage::Sent;

fn unsaved(generation: u64) -> Task {
    Task {
        unsaved: Some(Box::new(credential(generation))),
        ..task(generation)
    }
}

/// F-06, I-4: what the store refuses goes to the spool before anybody sees it; the next flow merges it first.
#[test]
fn the_spool_takes_what_the_store_refuses_and_is_merged() {
    let mut stage = due();
    stage.answer(tokens(5)).before("commit", |stage| {
        stage.fail("commit");
    });
    let outcome = stage.refresh();
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Refreshed), false)
    );
    assert_eq!(
        stage.log[4..],
        ["commit 5 over 4", "spool 5 after 4", "reread", "unlock"]
    );
    assert_eq!(
        outcome.record.unwrap().spooled,
        Some(crate::record::Spooled {
            follows: Some(version(4))
        })
    );
    assert_eq!(stage.generation(), 4);
    stage.heal().log.clear();
    let outcome = stage.run(Refresh::new(Task {
        process: process(2),
        ..task(4)
    }));
    assert_eq!(outcome.result, Ok(Gain::Adopted));
    assert_eq!(
        stage.log,
        ["lock", "reread", "commit 5 over 4", "reread", "unlock"]
    );
    assert_eq!((stage.generation(), stage.spool.is_none()), (5, true));
    assert!(
        matches!(stage.events.last().unwrap().happened, Happened::Merged { generation } if generation.0 == 5)
    );
    assert_eq!(stage.sent.len(), 1, "the spent token never leaves again");
}

/// I-2, F-06: the disk is full, and the store went back while the call was under way: the slot's entry follows what the store
/// holds now, so that the next flow finds it, and the spent token does not leave again.
#[test]
fn the_spool_follows_what_the_store_has_gone_back_to() {
    let mut stage = due();
    stage.answer(tokens(5)).before("commit", |stage| {
        stage.fail("commit");
        stage.record.as_mut().unwrap().credential = Some(credential(2));
    });
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    assert_eq!(
        stage.log[5..],
        [
            "spool 5 after 4",
            "reread",
            "spool 5 after 2",
            "reread",
            "unlock"
        ]
    );
    let outcome = stage.run(Refresh::new(Task {
        process: process(2),
        ..task(2)
    }));
    assert_eq!(outcome.result, Ok(Gain::Adopted));
    assert_eq!(stage.sent.len(), 1, "{:?}", stage.log);
}

/// F-06, I-2: while the store still refuses, the spool's version is served, and refreshed from once it has ended.
#[test]
fn a_refusing_store_is_served_from_the_spool() {
    let mut stage = due();
    stage.spool = Some((vec![Some(version(4))], five()));
    stage.fail("commit").fail("note");
    assert_eq!(stage.refresh().result, Ok(Gain::Adopted));
    stage.pass(secs(3500)).answer(tokens(6));
    let outcome = stage.refresh();
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Refreshed), false)
    );
    let [Sent { token, noted, .. }] = &stage.sent[..] else {
        panic!("{:?}", stage.sent)
    };
    assert_eq!((token.as_str(), *noted), ("rt-5", true));
    stage.heal();
    assert_eq!(stage.run(Refresh::new(task(6))).result, Ok(Gain::Nothing));
    assert_eq!(
        stage.generation(),
        6,
        "a chain of spooled versions reaches the store"
    );
}

/// I-3, F-06: a login lies in the slot of a full disk, and while it is refreshed the slot goes back to what it held before
/// the login. The new entry follows what the store holds, so it is found, and the token spent before that does not leave.
#[test]
fn a_slot_that_goes_back_behind_a_login_costs_no_login() {
    let mut stage = due();
    let login = other_login("client-1");
    let (base, refreshed) = (login.version, login.version.next());
    stage.spool = Some((vec![Some(version(5)), Some(version(4))], login));
    stage.fail("commit").fail("note");
    stage.pass(secs(7000)).answer(tokens(7));
    stage.before("send token", |stage| {
        stage.spool = Some((vec![Some(version(4))], five()));
    });
    let outcome = stage.run(Refresh::new(Task {
        held: Some(base),
        ..task(4)
    }));
    assert_eq!(outcome.result, Ok(Gain::Refreshed), "{:?}", stage.log);
    stage.heal();
    let outcome = stage.run(Refresh::new(Task {
        held: Some(refreshed),
        ..task(4)
    }));
    assert_eq!(outcome.result, Ok(Gain::Nothing));
    assert_eq!(stage.record().version(), Some(refreshed));
    assert_eq!(stage.sent.len(), 1, "{:?}", stage.log);
}

/// F-06, I-4: where neither takes it, it is served from memory and said to be unsaved; the next flow saves it first.
#[test]
fn what_nothing_takes_is_unsaved_and_saved_later() {
    let mut stage = due();
    stage.may_keep = true;
    stage.answer(tokens(5)).before("commit", |stage| {
        stage.fail("commit").fail("spool");
    });
    let outcome = stage.refresh();
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Refreshed), true)
    );
    let kept = outcome.record.unwrap().credential.unwrap();
    assert_eq!(kept.version, version(5));
    assert_eq!(
        stage.count("unlock"),
        0,
        "nobody else may send what the store still holds"
    );
    stage.heal();
    let outcome = stage.run(Refresh::new(Task {
        unsaved: Some(Box::new(kept)),
        ..task(5)
    }));
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Nothing), false)
    );
    assert_eq!((stage.generation(), stage.sent.len()), (5, 1));
}

/// F-06, I-2, I-3: while nothing takes it, memory still holds the newest version: the store's is spent and never sent.
#[test]
fn the_spent_token_is_never_sent_while_memory_holds_its_successor() {
    let mut stage = due();
    stage.may_keep = true;
    stage.record.as_mut().unwrap().attempt = Some(Attempt {
        generation: version(4).generation,
        number: 1,
        label: None,
        fence: 1,
        process: process(1),
        first_sent_at: start(),
        sent_at: start(),
    });
    stage.fail("commit").fail("note").fail("spool");
    let again = |stage: &mut Stage| {
        stage.run(Refresh::new(Task {
            unsaved: Some(Box::new(five())),
            ..task(5)
        }))
    };
    let outcome = again(&mut stage);
    assert_eq!((outcome.result, outcome.unsaved), (Ok(Gain::Nothing), true));
    assert_eq!(outcome.record.unwrap().version(), Some(version(5)));
    stage.pass(secs(3500));
    let outcome = again(&mut stage);
    assert!(
        matches!(outcome.result, Err(Error::StoreUnavailable { .. })),
        "due: not refreshed without a note"
    );
    assert_eq!(
        (outcome.record.unwrap().version(), outcome.unsaved),
        (Some(version(5)), true)
    );
    stage.pass(secs(200)).answer(tokens(6));
    let outcome = again(&mut stage);
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Refreshed), true)
    );
    let [Sent { token, .. }] = &stage.sent[..] else {
        panic!("{:?}", stage.sent)
    };
    assert_eq!(token, "rt-5");
    let six = outcome.record.unwrap().credential.unwrap();
    stage.heal();
    let outcome = stage.run(Refresh::new(Task {
        unsaved: Some(Box::new(six)),
        ..task(6)
    }));
    assert_eq!((outcome.result, stage.generation()), (Ok(Gain::Nothing), 6));
}

/// F-06: a store that takes writes again in the middle takes what memory held first.
#[test]
fn a_store_that_recovers_midway_gets_both() {
    let mut stage = due();
    stage
        .fail("commit")
        .fail("spool")
        .pass(secs(3800))
        .answer(tokens(6));
    stage.before("note attempt", |stage| {
        stage.heal();
    });
    let outcome = stage.run(Refresh::new(Task {
        unsaved: Some(Box::new(five())),
        ..task(5)
    }));
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Refreshed), false)
    );
    let merged = [
        "note attempt",
        "reread",
        "commit 5 over 4",
        "reread",
        "note attempt",
        "send token",
        "commit 6 over 5",
    ];
    assert_eq!(stage.log[4..11], merged, "{:?}", stage.log);
    assert!(stage.sent[0].noted);
}

/// F-06, I-5: what follows a version that only memory held is committed over the version that is really stored.
#[test]
fn a_commit_from_memory_expects_what_is_stored() {
    let mut stage = due();
    stage.fail("commit").fail("spool").fail("note");
    stage.pass(secs(3800)).answer(tokens(6));
    stage.before("send token", |stage| {
        stage.heal();
    });
    let outcome = stage.run(Refresh::new(Task {
        unsaved: Some(Box::new(five())),
        ..task(5)
    }));
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Refreshed), false)
    );
    assert_eq!((stage.count("commit 6 over 4"), stage.generation()), (1, 6));
}

/// F-06, F-17, I-9: the store had taken what memory held, and only its answer was lost: a refusal of that version is one, and
/// stands. Nobody newer is there to adopt.
#[test]
fn a_refusal_of_what_the_store_had_taken_after_all_stands() {
    let mut stage = due();
    stage.fail("commit").fail("spool").pass(secs(3800));
    stage.answer(oauth_error("invalid_grant"));
    stage.before("note attempt", |stage| {
        stage.heal().record.as_mut().unwrap().credential = Some(five());
    });
    let outcome = stage.run(Refresh::new(Task {
        unsaved: Some(Box::new(five())),
        ..task(5)
    }));
    assert!(
        matches!(outcome.result, Err(Error::LoginRequired { .. })),
        "{:?}",
        outcome.result
    );
    assert!(stage.record.as_ref().unwrap().suspicion.is_some());
    assert!(stage.record.as_ref().unwrap().attempt.is_none());
}

/// F-31: what memory kept of a login that was logged out is revoked, and never comes back.
#[test]
fn what_memory_kept_of_a_logged_out_login_is_revoked() {
    let mut stage = Stage::holding(Some(Record::default()));
    stage.answer(reply(200, ""));
    assert_eq!(
        stage.run(Refresh::new(unsaved(5))).result,
        Err(Error::login(LoginCause::Never))
    );
    assert_eq!(form(&stage.exchanges[0], "token").as_deref(), Some("rt-5"));
    assert_eq!(
        (stage.asked(), stage.commits.len()),
        (vec!["https://as.example/revoke".to_owned()], 0)
    );
}

/// DESIGN.md section 3 step 7: where neither store nor slot takes the note, only a token that is of no use any more is refreshed.
#[test]
fn without_any_note_only_an_ended_token_is_refreshed() {
    let mut stage = due();
    stage.fail("note").fail("spool");
    assert!(matches!(
        stage.refresh().result,
        Err(Error::StoreUnavailable { .. })
    ));
    assert!(stage.sent.is_empty());
    stage.pass(secs(300)).answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    assert!(!stage.sent[0].noted);
}

/// F-31, I-6: a refresh that lost against a logout hands back what it got, and is over.
#[test]
fn a_refresh_that_lost_against_a_logout_revokes_what_it_got() {
    let mut stage = due();
    stage.answer(tokens(5)).answer(reply(200, ""));
    stage.before("commit", |stage| {
        stage.record = Some(Record::default());
        stage.buried = Some(version(4).incarnation);
    });
    assert_eq!(stage.refresh().result, Err(Error::login(LoginCause::Never)));
    assert_eq!(
        stage.log[4..],
        [
            "commit 5 over 4",
            "reread",
            "send revocation",
            "reread",
            "unlock"
        ]
    );
    let body = "token=rt-5&token_type_hint=refresh_token&client_id=client-1";
    assert_eq!(String::from_utf8_lossy(&stage.exchanges[1].body), body);
    assert_eq!(stage.record, Some(Record::default()));
}

/// F-31, I-5: against another login it is adopted; only as another client is the old grant handed back, since as the same
/// one the new grant could end with it (docs/design/0002).
#[test]
fn a_refresh_that_lost_against_a_login_adopts_it() {
    for (client_id, revokes) in [("client-1", 0), ("client-2", 1)] {
        let mut stage = due();
        stage.answer(tokens(5)).answer(reply(200, ""));
        stage.before("commit", |stage| stage.put(other_login(client_id)));
        let outcome = stage.refresh();
        assert_eq!(outcome.result, Ok(Gain::Adopted));
        assert_eq!(stage.record().credential, Some(other_login(client_id)));
        assert_eq!(stage.count("send revocation"), revokes, "{client_id}");
    }
}

/// F-09: a commit that went through although its answer was lost is no defeat, and nothing is revoked.
#[test]
fn a_commit_that_had_gone_through_is_a_success() {
    let mut stage = due();
    stage.answer(tokens(5));
    stage.before("commit", |stage| {
        let sent_at = stage.sent[0].at;
        stage.put(Credential {
            received_at: Some(sent_at),
            ..credential(5)
        });
    });
    let outcome = stage.refresh();
    assert_eq!(outcome.result, Ok(Gain::Refreshed));
    assert_eq!(
        (stage.count("send revocation"), outcome.record),
        (0, stage.record.clone())
    );
}

/// I-12: commits that lose again and again end the flow.
#[test]
fn commits_that_always_lose_end_the_flow() {
    fn expired_again(stage: &mut Stage) {
        let seconds = u8::try_from(stage.commits.len()).unwrap() + 10;
        let version = Version {
            incarnation: crate::credential::Incarnation([seconds; 16]),
            ..version(0)
        };
        stage.put(Credential {
            version,
            ..credential(0)
        });
        stage.answer(tokens(9)).before("commit", expired_again);
    }
    let mut stage = expired();
    stage.answer(tokens(5)).before("commit", expired_again);
    assert!(stage.refresh().result.is_err());
    assert!(stage.sent.len() < 6);
}

/// flow/mod.rs: an answer that a state does not wait for is a bug, told and never a panic.
#[test]
fn a_wrong_answer_ends_in_a_bug() {
    let stage = due();
    let Turn::Next(flow, _) = Refresh::new(task(4)).start(stage.now) else {
        panic!()
    };
    let Turn::Done(outcome) = flow.handle(Answer::Woken, stage.now) else {
        panic!()
    };
    assert!(matches!(outcome.result, Err(Error::Bug { .. })));
    let Turn::Done(outcome) = Refresh::new(task(4)).handle(Answer::Done(Ok(())), stage.now) else {
        panic!()
    };
    assert_eq!(outcome.result.unwrap_err().code(), "bug.unreachable");
}

/// I-1, I-3, I-9: what nothing could note is remembered by the process, through runs that only look: no second unlabelled
/// call, no hurried one.
#[test]
fn what_the_store_could_not_note_is_remembered() {
    let mut stage = due();
    stage.pass(secs(4000)).fail("note").fail("spool");
    stage.answer(reply(502, "")).answer(reply(502, ""));
    let mut outcome = stage.refresh();
    assert!(outcome.result.is_err() && outcome.unnoted);
    let record = outcome.record.as_ref().unwrap();
    assert!(
        record.attempt.is_some(),
        "the first call may have been delivered"
    );
    let sent = stage.sent.len();
    for pause in [0, 0, 0, 400, 0] {
        stage.pass(secs(pause));
        let remembered = outcome.record.filter(|_| outcome.unnoted).map(Box::new);
        outcome = stage.run(Refresh::new(Task {
            remembered,
            ..task(4)
        }));
        assert!(outcome.result.is_err());
        assert_eq!(stage.sent.len(), sent, "no repeat without a durable label");
    }
}

/// I-2, F-06: a refusal of what only memory holds leaves it there, with the lock: what the store still holds is older, not
/// newer, and spent.
#[test]
fn a_refusal_does_not_bring_the_spent_version_back() {
    let mut stage = due();
    stage.may_keep = true;
    stage.fail("commit").fail("note").fail("spool");
    let held = Task {
        unsaved: Some(Box::new(five())),
        ..task(5)
    };
    stage.pass(secs(3700)).answer(oauth_error("invalid_grant"));
    let outcome = stage.run(Refresh::new(held));
    assert!(matches!(outcome.result, Err(Error::LoginRequired { .. })));
    assert_eq!(outcome.record.unwrap().version(), Some(version(5)));
    assert!(outcome.unsaved, "and the lock is kept");
}

/// I-5: the disk is full, and a person's login went into the slot while the call was under way: what the call brought does
/// not displace it.
#[test]
fn a_refresh_does_not_displace_a_login_in_the_slot() {
    let mut stage = due();
    stage.fail("commit").fail("note");
    stage.before("commit", |stage| {
        stage.spool = Some((vec![Some(version(4))], other_login("client-1")));
    });
    stage.answer(tokens(5));
    let outcome = stage.refresh();
    assert_eq!(outcome.result, Ok(Gain::Adopted));
    let login = other_login("client-1").version;
    assert_eq!(outcome.record.unwrap().version(), Some(login));
    assert_eq!(stage.read().record.unwrap().version(), Some(login));
}

/// F-06: a login that only the spool had is merged by a refresh: what it has replaced is handed to whoever runs that, once, so
/// that its issuer is told. What follows the same login replaces none.
#[test]
fn a_merged_login_hands_out_what_it_replaced() {
    let mut stage = due();
    stage.spool = Some((vec![Some(version(4))], other_login("client-2")));
    let outcome = stage.refresh();
    assert_eq!(outcome.result, Ok(Gain::Adopted));
    assert_eq!(outcome.superseded.as_deref(), Some(&credential(4)));
    assert_eq!(stage.refresh().superseded, None);
    let mut stage = due();
    stage.spool = Some((vec![Some(version(4))], five()));
    let outcome = stage.refresh();
    assert_eq!(
        (outcome.result, outcome.superseded),
        (Ok(Gain::Adopted), None)
    );
}
