//! An issuer that stumbles while the access token still works: no call may notice.

use serde_json::json;

use crate::peers::{Calls, Peers, SLOW_MS, seconds};
use crate::support::{Home, instant};

/// F-12, I-8, I-9, I-14: two 503 with Retry-After at the refresh.
#[test]
fn two_503_with_retry_after_cost_no_call() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "30")]) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    let fault = json!({ "status": 503, "retry_after": 1 });
    peers.fault(&json!([fault, fault]));
    let outcome = peers.calls(&home, "one", 40).run();
    let calls = Calls::all_answered(outcome, 150);
    assert!(calls.slowest_ms < SLOW_MS, "{calls:?}");
    let issuer = peers.issuer();
    assert_eq!((issuer.code_ok, issuer.refresh_ok), (1, 1), "{issuer:?}");
    assert_eq!(issuer.token, 4, "login, two refusals, refresh: {issuer:?}");
    peers.assert_refreshed_as_due(&home);
    peers.assert_clean(&home);
}

/// F-25, I-14: the token endpoint takes 10 s to answer; the token that is still valid goes on serving.
#[test]
fn a_token_endpoint_that_stalls_slows_no_call() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "60")]) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    peers.fault(&json!({ "delay_ms": 10_000 }));
    let outcome = peers.calls(&home, "one", 62).run();
    let calls = Calls::all_answered(outcome, 250);
    assert!(calls.slowest_ms < SLOW_MS, "{calls:?}");
    let issuer = peers.issuer();
    assert_eq!(
        (issuer.token, issuer.refresh_ok),
        (2, 1),
        "asked once: {issuer:?}"
    );
    let refreshed = &home.events(peers.url(), "refreshed")[0];
    let stalled = instant(&refreshed["at"]) - instant(&refreshed["sent_at"]);
    assert!(
        stalled >= seconds(10).as_secs_f64(),
        "it did stall: {refreshed}"
    );
    peers.assert_refreshed_as_due(&home);
    peers.assert_clean(&home);
}
