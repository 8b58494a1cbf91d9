//! The exchange, and how a login becomes durable.

use super::*;

fn again(
    status: u16,
    retry_after: &str,
) -> impl FnOnce(&Exchange, &mut Stage) -> Exchanged + 'static + use<> {
    with_headers(status, &[("retry-after", retry_after)], "")
}

/// F-12: an issuer that says that it did nothing is asked again with the same code, a few times and not at once.
#[test]
fn what_was_not_delivered_is_sent_again() {
    for first in [503, 429, 0] {
        let mut stage = stage();
        match first {
            0 => stage.page(TOKEN, unreachable),
            _ => stage.page(TOKEN, again(first, "2")),
        };
        stage.answer(tokens(0));
        login(&mut stage, task()).unwrap();
        let calls = sent_to(&stage, TOKEN);
        assert_eq!(
            (calls.len(), &calls[0].body),
            (2, &calls[1].body),
            "{first}"
        );
        assert_eq!(stage.count("wait"), 1);
    }
    let mut stage = stage();
    stage
        .page(TOKEN, again(503, "1"))
        .answer(again(503, "1"))
        .answer(again(503, "1"));
    assert_eq!(
        login(&mut stage, task()).unwrap_err().code(),
        "unavailable.server_error"
    );
    assert_eq!(sent_to(&stage, TOKEN).len(), 3);
}

/// RFC 6749 section 4.1.2: a code whose exchange may have happened is not presented again.
#[test]
fn an_ambiguous_exchange_is_not_repeated() {
    for (status, code) in [
        (0, "unavailable.network"),
        (1, "unavailable.timeout"),
        (500, "unavailable.server_error"),
        // Without Retry-After it may come from something in front of an issuer that went on: nothing says that it did not act.
        (503, "unavailable.server_error"),
    ] {
        let mut stage = stage();
        match status {
            0 => stage.page(TOKEN, broken),
            1 => stage.page(TOKEN, silent),
            _ => stage.page(TOKEN, reply(status, "")),
        };
        assert_eq!(login(&mut stage, task()).unwrap_err().code(), code);
        assert_eq!(sent_to(&stage, TOKEN).len(), 1);
    }
}

/// A refusal of the code is the issuer's.
#[test]
fn a_refused_code_is_told() {
    for error in ["invalid_grant", "unauthorized_client"] {
        let mut stage = stage();
        stage.page(TOKEN, oauth_error(error));
        assert_eq!(
            login(&mut stage, task()).unwrap_err(),
            Error::DeniedByIssuer {
                error: error.into()
            }
        );
        assert!(stage.record.is_none() && stage.spool.is_none());
    }
}

/// AUTH-56, RFC 6749 section 5.2: where the issuer does not grant the scopes, for the code or at the redirect, the error names
/// those that were asked for and says what a person can do; nothing is tried with others that nobody asked for.
#[test]
fn refused_scopes_are_named() {
    let scopes = vec!["a".to_owned(), "b".to_owned()];
    let wanted = Task {
        scopes: Some(Scopes::parse("a b")),
        ..task()
    };
    let mut stage = stage();
    stage.page(TOKEN, oauth_error("invalid_scope"));
    let error = login(&mut stage, wanted).unwrap_err();
    assert_eq!(error, Error::ScopeRefused { scopes });
    assert_eq!((error.code(), error.exit_code()), ("denied.scope", 4));
    assert!(error.to_string().contains("a b: ask for others"), "{error}");
    assert_eq!(sent_to(&stage, TOKEN).len(), 1);
}

/// AUTH-94: an issuer need not give a refresh token; the login is one all the same.
#[test]
fn a_refresh_token_is_not_required() {
    let mut stage = stage();
    stage.page(
        TOKEN,
        reply(
            200,
            r#"{"access_token":"at","token_type":"bearer","expires_in":60,"scope":"less"}"#,
        ),
    );
    let done = login(&mut stage, task()).unwrap();
    assert_eq!(
        (
            done.credential.refresh_token.clone(),
            done.credential.scopes_granted.to_string()
        ),
        (None, "less".into())
    );
    assert!(matches!(
        stage.events[0].happened,
        Happened::LoggedIn {
            refresh_token: false,
            former_issuer: None,
            ..
        }
    ));
}

/// I-5, F-31: a login commits whatever is there, as a new incarnation, and names what it replaced.
#[test]
fn a_login_replaces_whatever_is_there() {
    for record in [Some(credential(4)), None] {
        let mut stage = stage();
        stage.record = Some(Record {
            credential: record.clone(),
            ..Record::default()
        });
        let done = login(&mut stage, task()).unwrap();
        assert_eq!(done.superseded, record.clone().map(Box::new));
        assert_eq!(stage.record().credential, Some(done.credential.clone()));
        let follows = record.map_or("nothing", |_| "4");
        assert_eq!(stage.count(&format!("spool 0 after {follows}")), 1);
    }
}

/// I-5: a refresh that commits in the middle of it does not stop it.
#[test]
fn a_refresh_in_between_does_not_stop_a_login() {
    let mut stage = stage();
    stage.record = Some(Record {
        credential: Some(credential(4)),
        ..Record::default()
    });
    stage.before("lock", |stage| stage.put(credential(5)));
    stage.before("commit", |stage| stage.put(credential(6)));
    let done = login(&mut stage, task()).unwrap();
    assert_eq!(done.superseded, Some(Box::new(credential(6))));
    assert_eq!(stage.record().credential, Some(done.credential.clone()));
}

/// F-06, I-4: the spool has it before the lock is waited for, so that a crash there loses nothing.
#[test]
fn a_crash_after_the_exchange_loses_nothing() {
    let mut stage = stage();
    stage.record = Some(Record {
        credential: Some(credential(4)),
        ..Record::default()
    });
    stage.crash_after("spool", Login::new(task()));
    let read = stage.read().record.unwrap();
    assert_eq!(read.credential.unwrap().version.incarnation.0, [9; 16]);
    assert_eq!(read.spooled.unwrap().follows, Some(version(4)));
}

/// F-06: the slot exists before the person is asked; without one there is nobody to disappoint yet.
#[test]
fn without_a_spool_slot_nobody_is_asked() {
    let mut stage = stage();
    stage.fail("prepare-spool");
    assert!(matches!(
        login(&mut stage, task()).unwrap_err(),
        Error::StoreUnavailable { .. }
    ));
    assert_eq!((stage.count("show"), stage.count("close-callback")), (0, 1));
}

/// I-5: neither a spool that fails nor a lock that is held keeps a login from being committed.
#[test]
fn a_held_lock_does_not_lose_a_login() {
    for act in ["spool", "reread"] {
        let mut stage = stage();
        stage.fail(act);
        assert!(login(&mut stage, task()).is_ok(), "{act}");
    }
    let mut stage = stage();
    stage.registrations.push(registration("earlier", ANY_PORT));
    stage.fail("lock");
    assert!(login(&mut stage, task()).is_ok());
    assert_eq!(stage.count("commit 0 over anything"), 1);
}

/// F-06: a login that the store refuses is a login all the same: the spool has it, and the next refresh merges it.
#[test]
fn a_refused_commit_is_a_login_in_the_spool() {
    let mut stage = stage();
    stage.record = Some(Record {
        credential: Some(credential(4)),
        ..Record::default()
    });
    stage.fail("commit");
    assert!(login(&mut stage, task()).is_ok());
    assert_eq!(
        stage
            .read()
            .record
            .unwrap()
            .credential
            .unwrap()
            .version
            .incarnation
            .0,
        [9; 16]
    );
}

/// T-15, T-20: what is pinned is what was discovered at this login, under this issuer.
#[test]
fn the_pins_are_those_of_this_login() {
    let mut stage = stage();
    let done = login(&mut stage, task()).unwrap();
    let pins = &done.credential.pins;
    assert_eq!(pins.token_endpoint.as_str(), TOKEN);
    assert_eq!(
        pins.revocation_endpoint.as_ref().map(Url::as_str),
        Some("https://as.example/revoke")
    );
    assert_eq!(
        (
            done.credential.key.issuer.as_str(),
            done.credential.key.resource.as_str()
        ),
        ("https://as.example", "https://mcp.example")
    );
}

/// flow/mod.rs: an early wake-up is a no-op, and a wrong answer a bug, told and never a panic.
#[test]
fn a_wrong_answer_ends_in_a_bug() {
    let Turn::Next(flow, _) = Login::new(task()).start(start()) else {
        panic!()
    };
    let Turn::Done(Err(error)) = flow.handle(Answer::Woken, start()) else {
        panic!()
    };
    assert_eq!(error.code(), "bug.unreachable");

    let mut stage = stage();
    stage.page(TOKEN, unreachable).answer(tokens(0));
    let (mut turn, mut woken) = (Login::new(task()).start(stage.now), 0);
    while let Turn::Next(flow, Step { act, wake_at }) = turn {
        let answer = match act {
            Some(act) => stage.perform(act),
            None => {
                woken += 1;
                assert_eq!(sent_to(&stage, TOKEN).len(), 1);
                stage.pass(if woken > 2 {
                    stage.now.mono.until(wake_at.unwrap())
                } else {
                    Duration::from_millis(1)
                });
                Answer::Woken
            }
        };
        turn = flow.handle(answer, stage.now);
    }
    assert_eq!((woken, sent_to(&stage, TOKEN).len()), (3, 2));
}

/// F-06: where neither store nor spool takes the login, or nobody could find it again, that is told.
#[test]
fn a_login_that_nothing_keeps_is_told() {
    for refusing in ["spool", "bind"] {
        let mut stage = stage();
        stage.fail("commit").fail(refusing);
        assert!(matches!(
            login(&mut stage, task()).unwrap_err(),
            Error::StoreUnavailable { .. }
        ));
    }
}

/// AUTH-41, T-20: the secret of a client that a person brought goes to no other issuer than that of the login there is.
#[test]
fn a_brought_client_is_not_shown_to_another_issuer() {
    let mut stage = stage();
    let mut wanted = task();
    wanted.client = Some(registration("brought", ANY_PORT).client);
    let other = Issuer::parse("https://elsewhere.example").unwrap();
    wanted.binding.credential = Some(CredentialKey {
        issuer: other,
        ..key()
    });
    assert_eq!(
        login(&mut stage, wanted).unwrap_err(),
        Error::login(LoginCause::IssuerChanged {
            former: "https://elsewhere.example".into(),
            issuer: "https://as.example".into(),
        })
    );
    assert_eq!(stage.count("send token"), 0);
}
