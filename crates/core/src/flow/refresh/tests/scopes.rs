//! Scopes at a refresh: one refusal, once more the other way, and remembered for thirty days.

use super::*;
use crate::quirks::Quirk;

const DAY: u64 = 86_400;

fn scopes_sent(stage: &Stage) -> Vec<Option<String>> {
    let tokens = stage.exchanges.iter().filter(|e| e.leg == Leg::Token);
    tokens.map(|exchange| form(exchange, "scope")).collect()
}

fn learned(stage: &Stage) -> Vec<Quirk> {
    let quirk = |event: &Event| match event.happened {
        Happened::Learned { quirk } => Some(quirk),
        _ => None,
    };
    stage.events.iter().filter_map(quirk).collect()
}

/// The issuer refuses what names no scopes, or what does.
fn wants_scopes(
    wanted: bool,
    generation: u64,
) -> impl FnOnce(&Exchange, &mut Stage) -> crate::exchange::Exchanged + 'static {
    move |exchange, stage| {
        if form(exchange, "scope").is_some() == wanted {
            tokens(generation)(exchange, stage)
        } else {
            oauth_error("invalid_scope")(exchange, stage)
        }
    }
}

/// DESIGN.md section 6, I-3: an issuer that wants scopes at a refresh refuses one call; the next, noted like any other, names
/// what was granted and nothing else, and brings the tokens. From then on each call names them, for thirty days. The
/// resource goes along in every one (AUTH-70), octet for octet (AUTH-73).
#[test]
fn scopes_that_are_wanted_are_named_from_then_on() {
    let mut stage = due();
    for generation in [5, 5, 6] {
        stage.answer(wants_scopes(true, generation));
    }
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    assert_eq!(scopes_sent(&stage), [None, Some("a".into())]);
    let tail = [
        "note attempt",
        "send token",
        "note attempt",
        "send token",
        "commit 5 over 4",
        "record",
        "learn",
        "unlock",
    ];
    assert_eq!(stage.log[2..], tail);
    assert!(
        stage
            .sent
            .iter()
            .all(|sent| sent.noted && sent.label.is_none())
    );
    assert_eq!(learned(&stage), [Quirk::ScopesAtRefresh]);
    // The next refresh knows it, and the one after thirty days asks as at any other issuer.
    stage.pass(secs(3600));
    assert_eq!(stage.run(Refresh::new(task(5))).result, Ok(Gain::Refreshed));
    assert_eq!(scopes_sent(&stage).len(), 3);
    stage.pass(secs(31 * DAY));
    stage
        .answer(wants_scopes(true, 7))
        .answer(wants_scopes(true, 7));
    assert_eq!(stage.run(Refresh::new(task(6))).result, Ok(Gain::Refreshed));
    let named = Some("a".to_owned());
    assert_eq!(scopes_sent(&stage)[2..], [named.clone(), None, named]);
    for exchange in stage.exchanges.iter().filter(|e| e.leg == Leg::Token) {
        assert_eq!(
            form(exchange, "resource").as_deref(),
            Some("https://mcp.example")
        );
    }
}

/// DESIGN.md section 6: an issuer that has come to refuse scopes at a refresh is asked without them, and that is remembered.
#[test]
fn scopes_that_are_refused_are_left_out_again() {
    let mut stage = due();
    let at = stage.now.wall;
    stage.notes.quirks = stage.notes.quirks.with_scopes_at_refresh(true, at);
    stage
        .answer(wants_scopes(false, 5))
        .answer(wants_scopes(false, 5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    assert_eq!(scopes_sent(&stage), [Some("a".into()), None]);
    assert_eq!(learned(&stage), [Quirk::NoScopesAtRefresh]);
    assert!(!stage.notes.quirks.names_scopes(stage.now.wall));
}

/// F-12, I-9: an issuer that refuses both forms is asked twice, not on and on; nothing is lost, nothing is learned, and the next
/// call waits. Its attempt stands nowhere, since neither call was acted on.
#[test]
fn one_that_refuses_both_forms_is_left_in_peace() {
    let mut stage = due();
    stage
        .answer(oauth_error("invalid_scope"))
        .answer(oauth_error("invalid_scope"));
    let denied = Error::refused("invalid_scope".into());
    assert_eq!(stage.refresh().result, Err(denied));
    assert_eq!((stage.sent.len(), learned(&stage)), (2, vec![]));
    assert_eq!(stage.notes, IssuerNotes::default());
    let record = stage.record();
    assert_eq!(
        (
            record.attempt,
            record
                .backoff
                .as_ref()
                .map(|b| b.calls.len() + b.extra.len())
        ),
        (None, Some(2))
    );
    assert_eq!(record.credential, Some(credential(4)));
}

/// DESIGN.md section 6, T-24: `invalid_target` and every other refusal change nothing of what is asked: the `resource` is in
/// each call to its last octet, however often it is refused.
#[test]
fn no_refusal_takes_the_resource_away() {
    for error in [
        "invalid_target",
        "invalid_request",
        "unauthorized_client",
        "invalid_scope",
    ] {
        let mut stage = due();
        for _ in 0..40 {
            stage.answer(oauth_error(error));
        }
        for _ in 0..20 {
            let _ = stage.refresh().result;
            stage.pass(secs(600));
        }
        let calls: Vec<_> = stage
            .exchanges
            .iter()
            .filter(|e| e.leg == Leg::Token)
            .collect();
        assert!(calls.len() > 2, "{error}");
        for call in calls {
            assert_eq!(
                form(call, "resource").as_deref(),
                Some("https://mcp.example")
            );
        }
        assert!(stage.notes.quirks.is_empty());
    }
}

/// I-1, F-04: the call in the other form is one like any other: where its answer is lost, it is repeated once, under its label,
/// in its window; where its process dies, whoever comes finds its attempt.
#[test]
fn the_second_form_is_a_call_like_any_other() {
    let mut stage = due();
    stage
        .answer(wants_scopes(true, 5))
        .answer(broken)
        .answer(wants_scopes(true, 5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    assert_eq!(stage.labels(), [None, None, Some(Label::RetryAmbiguous)]);
    assert_eq!(learned(&stage), [Quirk::ScopesAtRefresh]);

    let mut stage = due();
    stage.answer(wants_scopes(true, 5)).answer(broken);
    stage.crash_after("send token", Refresh::new(task(4)));
    assert!(stage.record().attempt.is_some());
    stage.clear();
    // Whoever finds it does not know that it was refused: the careful side. It learns the same under the label.
    stage
        .answer(wants_scopes(true, 5))
        .answer(wants_scopes(true, 5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    assert_eq!(
        stage.labels(),
        [None, Some(Label::AfterCrash), Some(Label::Uncertain)]
    );
}

/// I-7, F-14: a probe of a login that is suspect is one call: what it is refused with teaches nothing about scopes.
#[test]
fn a_probe_is_not_asked_in_two_forms() {
    let mut stage = expired();
    stage.answer(oauth_error("invalid_grant"));
    assert!(stage.refresh().result.is_err());
    stage.pass(secs(61));
    stage.answer(oauth_error("invalid_scope"));
    assert!(stage.refresh().result.is_err());
    assert_eq!(stage.labels(), [None, Some(Label::ProbeSuspect)]);
}
