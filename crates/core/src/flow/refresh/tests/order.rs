//! What happens in which order, what is on the wire, and when nothing is sent.

use base64::Engine as _;

use super::*;
use crate::{
    credential::{Incarnation, Lifetime},
    registration::ClientAuthentication,
    secret::ClientSecret,
};

const ALL: [&str; 7] = [
    "lock",
    "reread",
    "note attempt",
    "send token",
    "commit 5 over 4",
    "unlock",
    "",
];

/// DESIGN.md section 3, I-4, I-16, F-01: the lock before the re-read, the note before the call, the commit before the end.
#[test]
fn the_order_is_lock_reread_note_send_commit_unlock() {
    let mut stage = due();
    stage.answer(tokens(5));
    let outcome = stage.refresh();
    assert_eq!(outcome.result, Ok(Gain::Refreshed));
    assert!(!outcome.unsaved);
    assert_eq!(stage.log, ALL[..6]);
    assert!(
        stage.sent[0].noted,
        "the attempt is durable when the token leaves"
    );
    assert_eq!(outcome.record, stage.record);
    assert_eq!((stage.generation(), stage.record().attempt), (5, None));
}

/// AUTH-70, AUTH-73: the refresh carries the resource to the octet; AUTH-44: a public client's ID goes in the body.
#[test]
fn a_public_client_sends_exactly_this() {
    let mut stage = due();
    stage.answer(tokens(5));
    stage.refresh();
    let exchange = &stage.exchanges[0];
    let body = "grant_type=refresh_token&refresh_token=rt-4&resource=https%3A%2F%2Fmcp.example&client_id=client-1";
    assert_eq!(String::from_utf8_lossy(&exchange.body), body);
    assert_eq!(
        (
            exchange.leg,
            exchange.method.as_str(),
            exchange.url.as_str()
        ),
        (Leg::Token, "POST", "https://as.example/token")
    );
    assert_eq!(
        exchange.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    assert!(!exchange.headers.contains_key("authorization"));
}

/// AUTH-44: a client with a secret shows it in the header or in the body, never in both.
#[test]
fn a_client_with_a_secret_authenticates_as_it_is_registered() {
    for (authentication, in_body) in [
        (ClientAuthentication::Basic, false),
        (ClientAuthentication::Post, true),
    ] {
        let mut old = credential(4);
        old.client.secret = ClientSecret::new("s&cret".into()).ok();
        old.client.authentication = authentication;
        let mut stage = Stage::with(old);
        stage.pass(secs(3400)).answer(tokens(5));
        stage.refresh();
        let exchange = &stage.exchanges[0];
        assert_eq!(
            form(exchange, "client_secret").as_deref(),
            in_body.then_some("s&cret")
        );
        assert_eq!(
            form(exchange, "client_id").as_deref(),
            in_body.then_some("client-1")
        );
        let pair = base64::engine::general_purpose::STANDARD.encode("client-1:s%26cret");
        let header = exchange
            .headers
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header, (!in_body).then(|| format!("Basic {pair}")));
    }
}

/// AUTH-70: without a published resource (2025-03-26) none is made up.
#[test]
fn no_resource_is_invented() {
    let mut old = credential(4);
    old.pins.resource_parameter = None;
    let mut stage = Stage::with(old);
    stage.pass(secs(3400)).answer(tokens(5));
    stage.refresh();
    assert_eq!(form(&stage.exchanges[0], "resource"), None);
}

/// T-15, T-16, I-15: the token goes to the pin, whatever key and resource say, and no metadata is asked.
#[test]
fn only_the_pinned_endpoint_sees_the_token() {
    let mut old = credential(4);
    old.pins.token_endpoint = "https://tokens.elsewhere.example/t?v=2".parse().unwrap();
    old.pins.resource_parameter = Some("HTTPS://MCP.example:443/".into());
    let mut stage = Stage::with(old);
    stage.pass(secs(3400)).answer(tokens(5));
    stage.refresh();
    assert_eq!(stage.asked(), ["https://tokens.elsewhere.example/t?v=2"]);
    assert_eq!(
        form(&stage.exchanges[0], "resource").as_deref(),
        Some("HTTPS://MCP.example:443/")
    );
    let new = stage.record().credential.clone().unwrap();
    assert_eq!(
        new.pins.token_endpoint.as_str(),
        "https://tokens.elsewhere.example/t?v=2",
        "the pin is carried on"
    );
}

/// F-01, F-02, I-2: what another process made is adopted, without the network.
#[test]
fn a_newer_and_fresh_generation_is_adopted() {
    let mut stage = Stage::with(Credential {
        received_at: Some(start().after(secs(3390))),
        ..credential(5)
    });
    stage.pass(secs(3400));
    let outcome = stage.refresh();
    assert_eq!(outcome.result, Ok(Gain::Adopted));
    assert_eq!(
        outcome.record.and_then(|record| record.version()),
        Some(version(5))
    );
    assert_eq!(stage.log, ["lock", "reread", "unlock"]);
    let outcome = stage.run(Refresh::new(refused(4)));
    assert_eq!(
        outcome.result,
        Ok(Gain::Adopted),
        "a 401 for the one before is no reason to refresh this one"
    );
    let outcome = stage.run(Refresh::new(Task {
        asked: true,
        ..task(4)
    }));
    assert_eq!(
        outcome.result,
        Ok(Gain::Adopted),
        "nor is a person who asked while holding the one before"
    );
    assert!(stage.sent.is_empty());
}

/// I-5: another incarnation always wins over memory, also one of a lower generation.
#[test]
fn another_login_wins_over_memory() {
    let mut stage = Stage::with(other_login("client-2"));
    stage.pass(secs(3400));
    let kept = Box::new(credential(5));
    let outcome = stage.run(Refresh::new(Task {
        unsaved: Some(kept),
        ..task(5)
    }));
    assert_eq!(outcome.result, Ok(Gain::Adopted));
    assert_eq!(
        outcome.record.unwrap().credential,
        Some(other_login("client-2"))
    );
    assert!(stage.commits.is_empty() && stage.sent.is_empty());
}

/// I-10, F-22: nothing is sent before the refresh point.
#[test]
fn nothing_is_done_while_it_is_fresh() {
    let mut stage = Stage::with(credential(4));
    stage.pass(secs(3000));
    assert_eq!(stage.refresh().result, Ok(Gain::Nothing));
    assert_eq!(stage.log, ["lock", "reread", "unlock"]);
}

/// DESIGN.md section 6 (`refresh --force`): who asks gets a refresh of the version that it holds.
#[test]
fn asking_refreshes_what_is_fresh() {
    let mut stage = Stage::with(credential(4));
    stage.pass(secs(10)).answer(tokens(5));
    assert_eq!(
        stage
            .run(Refresh::new(Task {
                asked: true,
                ..task(4)
            }))
            .result,
        Ok(Gain::Refreshed)
    );
    let Happened::Refreshed {
        reason,
        label,
        calls,
        ..
    } = &stage.events[0].happened
    else {
        panic!()
    };
    assert_eq!((*reason, *label, *calls), (Reason::Asked, None, 1));
}

/// F-18, F-19: an unknown age is due at once, and the refresh fills it in: no loop.
#[test]
fn an_unknown_age_is_filled_in_once() {
    for received_at in [
        None,
        Some(Now {
            wall: Wall(u64::MAX / 2),
            boot: crate::time::BootId([9; 16]),
            ..start()
        }),
    ] {
        let mut stage = Stage::with(Credential {
            received_at,
            ..credential(4)
        });
        stage.answer(tokens(5));
        assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
        assert_eq!(stage.run(Refresh::new(task(5))).result, Ok(Gain::Nothing));
        let Happened::Refreshed {
            reason: Reason::AgeUnknown,
            previous_refresh_point,
            ..
        } = stage.events[0].happened
        else {
            panic!()
        };
        assert_eq!(previous_refresh_point.is_none(), received_at.is_none());
    }
}

/// F-18, AUTH-85, I-6: what the answer omits is carried forward; expiry counts from the moment the request left.
#[test]
fn what_the_answer_omits_is_carried_forward() {
    for (body, refresh_token) in [
        (r#"{"access_token":"at-5","expires_in":"60"}"#, "rt-4"),
        (
            r#"{"access_token":"at-5","expires_in":60,"refresh_token":""}"#,
            "rt-4",
        ),
        (
            r#"{"access_token":"at-5","expires_in":60,"refresh_token":null}"#,
            "rt-4",
        ),
        (
            r#"{"access_token":"at-5","expires_in":60,"refresh_token":"rt-5"}"#,
            "rt-5",
        ),
    ] {
        let mut stage = due();
        stage.answer(reply(200, body));
        stage.refresh();
        let (old, new) = (credential(4), stage.record().credential.clone().unwrap());
        assert_eq!(new.refresh_token.unwrap().expose(), refresh_token, "{body}");
        assert_eq!(
            (new.scopes_granted, new.scopes_requested),
            (old.scopes_granted, old.scopes_requested)
        );
        assert_eq!(
            (new.client, new.pins, new.logged_in_at),
            (old.client, old.pins, old.logged_in_at)
        );
        assert_eq!(new.lifetime, Some(Lifetime::Stated(secs(60))));
        assert_eq!(
            new.received_at,
            Some(stage.sent[0].at),
            "from the send, not from the answer"
        );
    }
}

/// AUTH-94, F-15: without a refresh token nothing can be sent; while the token works that is no error.
#[test]
fn without_a_refresh_token_nothing_is_sent() {
    let bare = Credential {
        refresh_token: None,
        ..credential(4)
    };
    let mut stage = Stage::with(bare.clone());
    stage.pass(secs(3400));
    assert_eq!(stage.refresh().result, Ok(Gain::Nothing));
    stage.pass(secs(300));
    assert_eq!(
        stage.refresh().result,
        Err(Error::login(LoginCause::NoRefreshToken))
    );
    let mut stage = Stage::with(bare);
    assert_eq!(
        stage.run(Refresh::new(refused(4))).result,
        Err(Error::login(LoginCause::NoRefreshToken))
    );
    assert!(stage.sent.is_empty());
}

/// DESIGN.md section 4 (`min_writer`), F-30: a process that may not write serves and never refreshes.
#[test]
fn a_read_only_store_never_sends() {
    for mut stage in [due(), expired()] {
        stage.read_only = true;
        let outcome = stage.refresh();
        assert!(matches!(
            outcome.result,
            Err(Error::StoreUnavailable { .. })
        ));
        assert_eq!(
            outcome.record.and_then(|record| record.version()),
            Some(version(4)),
            "it still serves"
        );
        assert!(stage.sent.is_empty() && stage.commits.is_empty());
    }
}

/// F-31, I-6: no login and a tombstone need a person; nothing is written over either.
#[test]
fn no_login_and_a_tombstone_need_a_person() {
    for record in [None, Some(Record::default())] {
        let mut stage = Stage::holding(record.clone());
        assert_eq!(stage.refresh().result, Err(Error::login(LoginCause::Never)));
        assert_eq!(stage.record, record);
        assert_eq!(stage.log, ["lock", "reread", "unlock"]);
    }
}

/// F-10, I-16: a lock that cannot be had is an error that names its holder, never permission.
#[test]
fn without_the_lock_nothing_is_sent() {
    let mut stage = expired();
    stage.fail("lock");
    assert!(matches!(
        stage.refresh().result,
        Err(Error::LeaseHeld { .. })
    ));
    assert_eq!(stage.log, ["lock"]);
}

/// F-27: what cannot be read is not absent, and is not refreshed.
#[test]
fn an_unreadable_store_is_an_error() {
    let mut stage = expired();
    stage.fail("reread");
    let outcome = stage.refresh();
    assert!(matches!(
        outcome.result,
        Err(Error::StoreUnavailable { .. })
    ));
    assert_eq!(
        (outcome.record, stage.log.join(" ").as_str()),
        (None, "lock reread unlock")
    );
}

/// I-2: a login that comes between the re-read and the note is seen, and the old token stays here.
#[test]
fn a_login_between_read_and_note_is_adopted() {
    let mut stage = due();
    stage.before("note", |stage| stage.put(other_login("client-1")));
    assert_eq!(stage.refresh().result, Ok(Gain::Adopted));
    assert_eq!(
        stage.log,
        ["lock", "reread", "note attempt", "reread", "unlock"]
    );
    assert!(stage.sent.is_empty());
}

/// I-12: a store that moves at every look ends the flow instead of holding the lock for ever.
#[test]
fn a_store_that_never_rests_ends_the_flow() {
    fn move_on(stage: &mut Stage) {
        let next = stage.record().version().unwrap().incarnation.0[0].wrapping_add(1);
        let version = Version {
            incarnation: Incarnation([next; 16]),
            ..version(0)
        };
        stage.put(Credential {
            version,
            ..credential(0)
        });
        stage.before("note", move_on);
    }
    let mut stage = expired();
    stage.before("note", move_on);
    assert!(matches!(
        stage.refresh().result,
        Err(Error::StoreUnavailable { .. })
    ));
    assert!(stage.count("reread") < 10 && stage.sent.is_empty());
}
