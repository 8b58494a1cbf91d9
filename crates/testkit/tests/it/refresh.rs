//! Rotation, reuse, grace, and what can go wrong on the way.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use pilotlight_testkit::authorization_server::{Kind, Outcome, Rotation};
use pilotlight_testkit::faults::Endpoint;
use pilotlight_testkit::{Delivery, Fault, fingerprint};

use crate::world::{Tokens, World, error_of, get};

#[test]
fn rotation_spends_the_old_token_and_keeps_the_old_access_token_alive() {
    let mut world = World::with(|_| {});
    let first = world.login();
    world.now += 1000;
    let second = Tokens::of(&world.refresh(&first.refresh));
    assert_ne!(first.refresh, second.refresh);
    assert!(world.active(&first.access) && world.active(&second.access));
    let entry = world.server.ledger().of(Kind::Refresh).last().unwrap();
    assert_eq!(
        entry.refresh_token.as_deref(),
        Some(fingerprint(&first.refresh).as_str())
    );
    assert_eq!(
        (entry.spent_before, entry.grace_hit, entry.family),
        (false, false, Some(1))
    );
    assert_eq!(entry.label, None);
}

#[test]
fn without_rotation_the_refresh_token_stays() {
    let mut world = World::with(|config| config.rotation = Rotation::Never);
    let first = world.login();
    for _ in 0..3 {
        let next = Tokens::of(&world.refresh(&first.refresh));
        assert_eq!(next.refresh, first.refresh);
    }
    assert_eq!(world.server.stats().spent_presented, 0);
}

#[test]
fn an_omitted_refresh_token_stays_valid() {
    let mut world = World::with(|config| config.omit_refresh_token = true);
    let first = world.login();
    for _ in 0..2 {
        let response = world.refresh(&first.refresh);
        assert_eq!(response.status, StatusCode::OK);
        assert!(response.body_json().get("refresh_token").is_none());
    }
}

#[test]
fn reuse_without_grace_revokes_the_family_at_once() {
    let mut world = World::with(|_| {});
    let (first, other) = (world.login(), world.login());
    let second = Tokens::of(&world.refresh(&first.refresh));
    let refused = world.refresh(&first.refresh);
    assert_eq!(error_of(&refused), "invalid_grant");
    let text = refused.body_json()["error_description"].to_string();
    assert!(!text.contains("reuse"), "{text}");

    assert!(!world.active(&first.access) && !world.active(&second.access));
    assert_eq!(error_of(&world.refresh(&second.refresh)), "invalid_grant");
    assert!(world.active(&other.access), "another family is not touched");
    assert_eq!(world.server.stats().reuse_revocations, 1);
    assert_eq!(world.server.stats().spent_presented, 1);
    assert_eq!(world.server.ledger().reuse().count(), 1);
}

#[test]
fn reuse_is_named_where_the_issuer_names_it() {
    let mut world = World::with(|config| config.names_reuse = true);
    let first = world.login();
    let second = Tokens::of(&world.refresh(&first.refresh));
    for token in [&first.refresh, &second.refresh] {
        let text = world.refresh(token).body_json()["error_description"].to_string();
        assert!(text.contains("reuse"), "{text}");
    }
}

#[test]
fn within_the_grace_the_same_successor_comes_again() {
    let mut world = World::with(|config| config.reuse_grace = Some(Duration::from_secs(30)));
    let first = world.login();
    let second = Tokens::of(&world.refresh(&first.refresh));
    world.now += 29_999;
    let again = world.refresh(&first.refresh);
    assert_eq!(Tokens::of(&again), second);
    assert_eq!(
        again.body_json()["expires_in"],
        3570,
        "the rest of its life"
    );
    let entry = world.server.ledger().entries.last().unwrap();
    assert!(entry.spent_before && entry.grace_hit);
    assert_eq!(world.server.ledger().reuse().count(), 0);

    world.now += 1;
    assert_eq!(error_of(&world.refresh(&first.refresh)), "invalid_grant");
    assert!(!world.active(&second.access));
    assert_eq!(world.server.ledger().reuse().count(), 1);
}

#[test]
fn a_refresh_token_can_expire_when_idle() {
    let mut world = World::with(|config| config.refresh_ttl = Some(Duration::from_secs(60)));
    let first = world.login();
    world.now += 59_000;
    let second = Tokens::of(&world.refresh(&first.refresh));
    world.now += 59_000;
    assert_eq!(
        world.refresh(&second.refresh).status,
        StatusCode::OK,
        "used in time"
    );
    world.now += 60_000;
    assert_eq!(error_of(&world.refresh(&second.refresh)), "invalid_grant");
}

#[test]
fn revoking_access_leaves_refresh_tokens_and_revoking_all_does_not() {
    let mut world = World::with(|_| {});
    let first = world.login();
    assert_eq!(world.server.revoke_access(), 1);
    assert!(!world.active(&first.access));
    let second = Tokens::of(&world.refresh(&first.refresh));
    assert!(world.active(&second.access));
    assert_eq!(world.server.revoke_all(), 1);
    assert!(!world.active(&second.access));
    assert_eq!(error_of(&world.refresh(&second.refresh)), "invalid_grant");
    assert_eq!(world.server.stats().reuse_revocations, 0);
}

#[test]
fn a_status_fault_processes_nothing_and_is_used_up() {
    let mut world = World::with(|_| {});
    let first = world.login();
    world.server.push_fault(Fault::Status {
        status: 503,
        retry_after: Some(7),
        body: None,
    });
    let response = world.refresh(&first.refresh);
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers["retry-after"], "7");
    let entry = world.server.ledger().entries.last().unwrap();
    assert_eq!(entry.outcome, Outcome::Fault("status".into()));
    assert_eq!(entry.family, Some(1));
    assert_eq!(world.refresh(&first.refresh).status, StatusCode::OK);
    assert_eq!(world.server.stats().spent_presented, 0);
}

#[test]
fn a_false_invalid_grant_revokes_nothing() {
    let mut world = World::with(|_| {});
    let first = world.login();
    world.server.push_fault(Fault::InvalidGrant);
    assert_eq!(error_of(&world.refresh(&first.refresh)), "invalid_grant");
    assert!(world.active(&first.access));
    assert_eq!(world.refresh(&first.refresh).status, StatusCode::OK);
}

#[test]
fn a_lost_answer_was_processed() {
    let mut world = World::with(|_| {});
    let first = world.login();
    world.server.push_fault(Fault::Lose);
    let response = world.refresh(&first.refresh);
    assert_eq!(response.deliver, Delivery::LoseAnswer);
    let entry = world.server.ledger().entries.last().unwrap();
    assert!(entry.answer_lost && entry.outcome == Outcome::Ok);
    assert_eq!(
        error_of(&world.refresh(&first.refresh)),
        "invalid_grant",
        "it was spent"
    );
}

#[test]
fn a_delayed_request_is_processed_when_it_is_resumed() {
    let mut world = World::with(|_| {});
    let first = world.login();
    world.server.push_fault(Fault::Delay { ms: 500 });
    world.server.push_fault(Fault::Close);
    let request = world.refresh_request(&first.refresh);
    let held = world.send(request.clone());
    assert_eq!(held.deliver, Delivery::HoldMs(500));
    assert_eq!(
        world.server.ledger().of(Kind::Refresh).count(),
        0,
        "not yet"
    );
    world.now += 500;
    let response = world.server.resume(world.now, request);
    assert_eq!(
        response.status,
        StatusCode::OK,
        "the next fault is for the next request"
    );
    assert_eq!(world.refresh("rt-any").deliver, Delivery::Close);
    assert_eq!(world.server.stats().token, 3, "login, held, closed");
}

#[test]
fn token_responses_can_lack_members_or_be_garbage() {
    let mut world = World::with(|_| {});
    let first = world.login();
    world.server.push_fault(Fault::OmitRefreshToken);
    world.server.push_fault(Fault::OmitExpiresIn);
    world.server.push_fault(Fault::DelayAnswer { ms: 9 });
    world.server.push_fault(Fault::Raw200 {
        body: "<html>sign in".into(),
        content_type: Some("text/html".into()),
    });
    let body = world.refresh(&first.refresh).body_json();
    assert!(body.get("refresh_token").is_none() && body.get("expires_in").is_some());
    let tokens = world.login();
    let late = world.refresh(&tokens.refresh);
    assert_eq!(late.deliver, Delivery::DelayMs(9));
    let raw = world.refresh(&Tokens::of(&late).refresh);
    assert_eq!(
        (raw.status, raw.body),
        (StatusCode::OK, b"<html>sign in".to_vec())
    );
    assert_eq!(raw.headers["content-type"], "text/html");
    assert_eq!(
        world.refresh(&Tokens::of(&late).refresh).status,
        StatusCode::OK
    );
}

#[test]
fn a_standing_fault_stays_until_it_is_taken_away() {
    let mut world = World::with(|_| {});
    world
        .server
        .set_standing_fault(Endpoint::Metadata, Some(Fault::Close));
    let path = "/.well-known/oauth-authorization-server";
    for _ in 0..3 {
        assert_eq!(world.send(get(path)).deliver, Delivery::Close);
    }
    world.login();
    world.server.set_standing_fault(Endpoint::Metadata, None);
    assert_eq!(world.send(get(path)).status, StatusCode::OK);
}

#[test]
fn the_ledger_reads_the_label_of_a_test_client() {
    let mut world = World::with(|_| {});
    let first = world.login();
    let name = HeaderName::from_static("x-pilotlight-attempt");
    let request = world
        .refresh_request(&first.refresh)
        .with_header(name, "after_crash");
    world.send(request);
    let entry = world.server.ledger().entries.last().unwrap();
    assert_eq!(entry.label.as_deref(), Some("after_crash"));
}

#[test]
fn a_refresh_may_narrow_scopes_and_not_widen_them() {
    let mut world = World::with(|config| config.default_scopes.push("mcp:admin".into()));
    let first = world.login();
    let scoped = |world: &mut World, token: &str, scope: &str| {
        let mut request = world.refresh_request(token);
        request.body.extend(format!("&scope={scope}").into_bytes());
        world.send(request)
    };
    let narrowed = scoped(&mut world, &first.refresh, "mcp:tools");
    assert_eq!(narrowed.body_json()["scope"], "mcp:tools");
    let widened = scoped(&mut world, &Tokens::of(&narrowed).refresh, "mcp:tools+more");
    assert_eq!(error_of(&widened), "invalid_scope");
    assert_eq!(
        world.refresh(&Tokens::of(&narrowed).refresh).status,
        StatusCode::OK
    );
}
