//! A logout on the stage.

use super::*;
use crate::{
    flow::{Registration, stage::*},
    record::Record,
    secret::AccessToken,
};

fn logout(local: bool) -> Logout {
    Logout::new(Task {
        key: key(),
        local,
        process: process(1),
    })
}

fn management() -> RegistrationManagement {
    let uri = "https://as.example/register/client-1".parse().unwrap();
    RegistrationManagement {
        uri,
        token: AccessToken::new("manage-1".into()).unwrap(),
    }
}

fn registered(stage: &mut Stage) {
    stage.registrations.push(Registration {
        issuer: issuer(),
        client: client("client-1"),
        redirect_uris: Vec::new(),
        management: Some(management()),
        registered_at: start().wall,
    });
}

/// F-31, I-6: the burial is durable, and its revocation queued, before anything is sent; no lock is held while it is.
#[test]
fn the_burial_comes_before_the_revocation() {
    let mut stage = Stage::with(credential(4));
    stage.answer(|exchange, stage| {
        assert_eq!(
            stage.record,
            Some(Record::default()),
            "a tombstone without secrets"
        );
        assert_eq!(stage.queue, [credential(4)]);
        reply(200, "")(exchange, stage)
    });
    assert_eq!(stage.run(logout(false)), Ok(Revocation::Revoked));
    assert_eq!(
        stage.log,
        [
            "lock",
            "bury",
            "unlock",
            "send revocation",
            "revoked",
            "record"
        ]
    );
    let exchange = &stage.exchanges[0];
    assert_eq!(
        (exchange.leg, exchange.url.as_str()),
        (Leg::Revocation, "https://as.example/revoke")
    );
    let body = "token=rt-4&token_type_hint=refresh_token&client_id=client-1";
    assert_eq!(String::from_utf8_lossy(&exchange.body), body);
    assert!(stage.queue.is_empty());
    let happened: Vec<_> = stage
        .events
        .iter()
        .map(|event| event.happened.clone())
        .collect();
    let outcome = Revocation::Revoked;
    assert_eq!(
        happened,
        [
            Happened::LoggedOut { local: false },
            Happened::Revocation { outcome }
        ]
    );
}

/// DESIGN.md section 6: an issuer that cannot be reached, or asks to wait, leaves the revocation in the queue.
#[test]
fn an_issuer_that_says_nothing_leaves_it_in_the_queue() {
    for status in [0, 1, 2, 302, 429, 500, 503] {
        let mut stage = Stage::with(credential(4));
        match status {
            0 => stage.answer(unreachable),
            1 => stage.answer(broken),
            2 => stage.answer(silent),
            _ => stage.answer(reply(status, "")),
        };
        assert_eq!(stage.run(logout(false)), Ok(Revocation::Queued), "{status}");
        assert_eq!(
            (stage.queue.len(), stage.record.clone()),
            (1, Some(Record::default()))
        );
    }
}

/// RFC 7009 section 2.2: what the issuer itself says ends the matter.
#[test]
fn what_the_issuer_says_ends_it() {
    for status in [200, 204, 400, 401, 404] {
        let mut stage = Stage::with(credential(4));
        let body = if status < 300 {
            ""
        } else {
            r#"{"error":"invalid_request"}"#
        };
        stage.answer(reply(status, body));
        assert_eq!(
            stage.run(logout(false)),
            Ok(Revocation::Revoked),
            "{status}"
        );
        assert!(stage.queue.is_empty());
    }
}

/// DESIGN.md section 6 (RFC 7592): a registration that no other login uses goes after the revocation, which still needs it.
#[test]
fn the_registration_goes_last() {
    let mut stage = Stage::with(credential(4));
    registered(&mut stage);
    stage.answer(reply(200, "")).answer(reply(204, ""));
    assert_eq!(stage.run(logout(false)), Ok(Revocation::Revoked));
    assert_eq!(
        stage.log[3..],
        ["send revocation", "send registration", "revoked", "record"]
    );
    let delete = &stage.exchanges[1];
    assert_eq!(
        (delete.method.as_str(), delete.url.as_str()),
        ("DELETE", "https://as.example/register/client-1")
    );
    assert_eq!(delete.headers["authorization"], "Bearer manage-1");
    let mut stage = Stage::with(credential(4));
    registered(&mut stage);
    stage.answer(unreachable);
    assert_eq!(stage.run(logout(false)), Ok(Revocation::Queued));
    assert_eq!(
        stage.exchanges.len(),
        1,
        "not while the revocation is still to come"
    );
}

/// Without a revocation endpoint nothing is revoked; without a refresh token it is the access token.
#[test]
fn what_can_be_revoked_is() {
    let mut bare = credential(4);
    bare.pins.revocation_endpoint = None;
    let mut stage = Stage::with(bare);
    assert_eq!(stage.run(logout(false)), Ok(Revocation::Unsupported));
    assert_eq!((stage.exchanges.len(), stage.queue.len()), (0, 0));
    let mut stage = Stage::with(Credential {
        refresh_token: None,
        ..credential(4)
    });
    stage.answer(reply(200, ""));
    assert_eq!(stage.run(logout(false)), Ok(Revocation::Revoked));
    assert_eq!(form(&stage.exchanges[0], "token").as_deref(), Some("at-4"));
    assert_eq!(
        form(&stage.exchanges[0], "token_type_hint").as_deref(),
        Some("access_token")
    );
}

/// DESIGN.md section 6: `--local` tells nobody.
#[test]
fn a_local_logout_tells_nobody() {
    let mut stage = Stage::with(credential(4));
    registered(&mut stage);
    assert_eq!(stage.run(logout(true)), Ok(Revocation::Local));
    assert_eq!(
        (stage.log.join(" ").as_str(), stage.queue.len()),
        ("lock bury unlock", 0)
    );
    assert!(matches!(
        stage.events[0].happened,
        Happened::LoggedOut { local: true }
    ));
}

/// No login, no lock, no store: told, and nothing is sent or left locked.
#[test]
fn failures_are_told() {
    assert_eq!(
        Stage::new().run(logout(false)),
        Err(Error::login(LoginCause::Never))
    );
    let mut stage = Stage::with(credential(4));
    stage.fail("lock");
    assert!(matches!(
        stage.run(logout(false)),
        Err(Error::LeaseHeld { .. })
    ));
    stage.heal().fail("bury");
    assert!(matches!(
        stage.run(logout(false)),
        Err(Error::StoreUnavailable { .. })
    ));
    assert_eq!((stage.exchanges.len(), stage.generation()), (0, 4));
}

/// DESIGN.md section 6: what waits in the queue is sent without a lock and without a second burial.
#[test]
fn the_queue_is_worked_off() {
    let mut stage = Stage::new();
    stage.queue.push(credential(4));
    stage.answer(reply(200, "")).answer(reply(204, ""));
    let task = Task {
        key: key(),
        local: false,
        process: process(2),
    };
    let flow = Logout::queued(task, credential(4), Some(management()));
    assert_eq!(stage.run(flow), Ok(Revocation::Revoked));
    assert_eq!(
        (stage.log.join(", ").as_str(), stage.queue.len()),
        ("send revocation, send registration, revoked, record", 0)
    );
}

/// flow/mod.rs: a wrong answer is a bug, told and never a panic.
#[test]
fn a_wrong_answer_ends_in_a_bug() {
    let Turn::Next(flow, _) = logout(false).start(start()) else {
        panic!()
    };
    let Turn::Done(Err(error)) = flow.handle(Answer::Woken, start()) else {
        panic!()
    };
    assert_eq!(error.code(), "bug.unreachable");
}
