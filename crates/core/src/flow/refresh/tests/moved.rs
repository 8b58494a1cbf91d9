//! A token endpoint that is no longer where it was pinned.

use super::*;
use crate::{
    error::NetworkFault,
    exchange::{Delivery, Exchanged, Failure, Fault},
    flow::Expects,
};

const WELL_KNOWN: &str = "https://as.example/.well-known/oauth-authorization-server";
const OPENID: &str = "https://as.example/.well-known/openid-configuration";
const PINNED: &str = "https://as.example/token";

fn unknown_name(exchange: &Exchange, stage: &mut Stage) -> Exchanged {
    Err(Failure {
        delivery: Delivery::NotDelivered,
        fault: Fault::Network(NetworkFault::Dns),
        host: exchange.host(),
        sent_at: stage.now,
    })
}

/// An ended login whose endpoint has answered like this this many times, over this long.
fn gone(calls: u32, over: Duration, answer: fn(&Exchange, &mut Stage) -> Exchanged) -> Stage {
    let mut stage = expired();
    for call in 0..calls {
        if call > 0 {
            stage.pass(over / (calls - 1));
        }
        stage.answer(answer);
        assert!(stage.refresh().result.is_err());
    }
    stage.pass(secs(300));
    (stage.sent, stage.exchanges, stage.log) = Default::default();
    stage.events.clear();
    stage
}

fn not_found(exchange: &Exchange, stage: &mut Stage) -> Exchanged {
    reply(404, "<h1>Nothing here</h1>")(exchange, stage)
}

fn document(token_endpoint: &str) -> String {
    format!(
        r#"{{"issuer":"https://as.example","authorization_endpoint":"https://as.example/authorize",
        "token_endpoint":"{token_endpoint}","revocation_endpoint":"https://as.example/v2/revoke"}}"#
    )
}

/// F-10: what the look took counts for the lease: others wait 75 s for it, whatever documents and repeats meet.
#[test]
fn a_slow_look_leaves_less_for_repeats() {
    let mut stage = gone(5, HOUR, not_found);
    for place in [WELL_KNOWN, OPENID] {
        stage.page(place, |exchange: &Exchange, stage: &mut Stage| {
            stage.pass(secs(5));
            not_found(exchange, stage)
        });
    }
    let began = stage.now;
    stage.answer(|exchange: &Exchange, stage: &mut Stage| {
        stage.pass(secs(8));
        broken(exchange, stage)
    });
    stage.answer(tokens(5));
    assert_eq!(
        stage.refresh().result,
        Ok(Gain::Refreshed),
        "{:?}",
        stage.log
    );
    assert_eq!(stage.sent.len(), 2);
    let repeat = stage.exchanges.last().unwrap();
    let until = stage.now.since(&began).unwrap() + repeat.within;
    assert!(until <= secs(75), "{until:?}");
}

/// T-15: the pinned issuer itself says where on the same origin its endpoint is now: pinned in a new generation, with
/// the tokens as they are and an event that names both places, before anything goes there. Then the refresh goes on.
#[test]
fn an_endpoint_that_moves_within_its_origin_is_followed() {
    for answer in [not_found, unknown_name] {
        let mut stage = gone(5, HOUR, answer);
        stage.page(
            WELL_KNOWN,
            reply(200, &document("https://as.example/v2/token")),
        );
        stage.answer(tokens(6));
        assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
        assert_eq!(stage.asked(), [WELL_KNOWN, "https://as.example/v2/token"]);
        assert_eq!(stage.sent.len(), 1);
        assert_eq!(stage.sent[0].token, "rt-4");
        let commits: Vec<_> = stage.commits.iter().map(|commit| commit.expects).collect();
        let [.., repinned, refreshed] = &commits[..] else {
            panic!("{commits:?}")
        };
        assert_eq!(
            (*repinned, *refreshed),
            (Expects::Version(version(4)), Expects::Version(version(5)))
        );
        let pins = &stage.record().credential.as_ref().unwrap().pins;
        assert_eq!(pins.token_endpoint.as_str(), "https://as.example/v2/token");
        let revocation = pins.revocation_endpoint.as_ref().map(url::Url::as_str);
        assert_eq!(revocation, Some("https://as.example/v2/revoke"));
        assert!(matches!(
            &stage.events[0].happened,
            Happened::Repinned { from, to } if from == PINNED && to == "https://as.example/v2/token"
        ));
    }
}

/// T-15, I-15: an endpoint on another origin is not followed, whoever names it: a person confirms it by logging in. Nothing is
/// sent, and the refresh token stays.
#[test]
fn an_endpoint_on_another_origin_is_for_a_person() {
    for elsewhere in [
        "https://evil.example/token",
        "https://as.example:8443/token",
        "https://tokens.as.example/token",
    ] {
        let mut stage = gone(5, HOUR, not_found);
        stage.page(WELL_KNOWN, reply(200, &document(elsewhere)));
        let want = Error::login(LoginCause::EndpointMoved);
        assert_eq!(stage.refresh().result, Err(want.clone()));
        assert_eq!(
            (stage.asked(), stage.sent.len()),
            (vec![WELL_KNOWN.to_owned()], 0)
        );
        let kept = stage.record().credential.clone().unwrap();
        assert!(kept.refresh_token.is_some() && kept.pins.token_endpoint.as_str() == PINNED);
        // It stays so, without another look.
        stage.pass(secs(7200));
        assert_eq!(stage.refresh().result, Err(want));
        assert_eq!(stage.exchanges.len(), 1);
    }
}

/// T-15, I-15: metadata is asked for only after five such answers in a row, over an hour; before that, and after any other answer,
/// a refresh asks nobody but the endpoint.
#[test]
fn metadata_is_asked_for_only_when_the_endpoint_is_gone() {
    let busy = |exchange: &Exchange, stage: &mut Stage| reply(429, "")(exchange, stage);
    let refusing = |exchange: &Exchange, stage: &mut Stage| unreachable(exchange, stage);
    let mut interrupted = gone(4, HOUR, not_found);
    interrupted.answer(unreachable);
    assert!(interrupted.refresh().result.is_err());
    interrupted.pass(secs(300)).exchanges.clear();
    for (what, mut stage) in [
        ("too few", gone(4, 2 * HOUR, not_found)),
        ("too soon", gone(5, HOUR / 2, not_found)),
        ("a busy one", gone(6, 2 * HOUR, busy)),
        ("an unreachable one", gone(6, 2 * HOUR, refusing)),
        ("not in a row", interrupted),
    ] {
        stage.answer(tokens(5));
        drop(stage.refresh());
        let asked = stage.asked();
        assert!(asked.iter().all(|url| url == PINNED), "{what}: {asked:?}");
    }
}

/// T-15, T-17: where the metadata says nothing new, cannot be read or is somebody else's, the call is made as ever, at the
/// pinned place; the next look is after another such hour.
#[test]
fn what_says_nothing_changes_nothing() {
    type Answers = Box<dyn FnOnce(&Exchange, &mut Stage) -> Exchanged>;
    let evil = document("https://as.example/v2/token").replace(
        r#""issuer":"https://as.example""#,
        r#""issuer":"https://evil.example""#,
    );
    let answers: Vec<Answers> = vec![
        Box::new(reply(200, &document(PINNED))),
        Box::new(reply(200, &evil)),
        Box::new(reply(200, "{}")),
        Box::new(reply(503, "")),
        Box::new(unreachable),
        Box::new(silent),
    ];
    for answer in answers {
        let mut stage = gone(5, HOUR, not_found);
        stage.page(WELL_KNOWN, answer).answer(not_found);
        assert!(stage.refresh().result.is_err());
        assert_eq!(stage.asked(), [WELL_KNOWN, PINNED]);
        stage.pass(secs(600)).answer(not_found);
        assert!(stage.refresh().result.is_err());
        assert_eq!(stage.asked().len(), 3, "no second look");
    }
    let mut stage = gone(5, HOUR, not_found);
    stage
        .answer(reply(404, ""))
        .answer(reply(404, ""))
        .answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    assert_eq!(stage.asked(), [WELL_KNOWN, OPENID, PINNED]);
}

/// I-1, I-3: while an attempt stands nothing is pinned anew: its label belongs to the generation that it spends.
#[test]
fn an_attempt_that_stands_keeps_its_generation() {
    let mut stage = gone(5, HOUR, not_found);
    let record = stage.record.as_mut().unwrap();
    record.attempt = Some(crate::attempt::Attempt {
        generation: version(4).generation,
        number: 1,
        label: None,
        fence: 1,
        process: process(2),
        first_sent_at: start(),
        sent_at: start(),
    });
    stage.answer(tokens(5));
    drop(stage.refresh());
    assert_eq!(stage.asked(), [PINNED]);
}

/// I-4: a store that does not take the new place leaves the old one in force: what is not durable is not used.
#[test]
fn a_place_that_is_not_stored_is_not_used() {
    let mut stage = gone(5, HOUR, not_found);
    stage.page(
        WELL_KNOWN,
        reply(200, &document("https://as.example/v2/token")),
    );
    stage.fail("commit").answer(not_found);
    assert!(stage.refresh().result.is_err());
    assert_eq!(stage.asked(), [WELL_KNOWN, PINNED]);
}

/// T-45: a refresh for a token that the server refused is one for it still after the endpoint was pinned anew.
#[test]
fn a_refused_token_is_replaced_after_the_move() {
    let mut stage = Stage::with(credential(4));
    stage.pass(secs(60));
    let mut backoff = gone(5, HOUR, not_found).record().backoff.clone().unwrap();
    backoff.at = None;
    backoff.gone_since = Some(Wall(start().wall.0 - 7_200_000));
    backoff.not_before = Wall(0);
    stage.record.as_mut().unwrap().backoff = Some(backoff);
    stage.page(
        WELL_KNOWN,
        reply(200, &document("https://as.example/v2/token")),
    );
    stage.answer(tokens(6));
    let outcome = stage.run(Refresh::new(refused(4)));
    assert_eq!(outcome.result, Ok(Gain::Refreshed));
    assert_eq!(stage.asked().len(), 2);
}
