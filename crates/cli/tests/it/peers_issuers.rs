//! Issuers with a way of their own: each session survives three expiries.

use crate::peers::{Calls, Peers, seconds};
use crate::support::{Home, until};

/// F-18, AUTH-85: the refresh answer never repeats the refresh token, which stays good.
#[test]
fn an_issuer_that_never_repeats_the_refresh_token() {
    let switches = [("ACCESS_TTL", "10"), ("ROTATE", "never"), ("OMIT_RT", "1")];
    let Some(peers) = Peers::start(&switches) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    let outcome = peers.calls(&home, "one", 40).run();
    Calls::all_answered(outcome, 150);
    assert_survived(&peers, &home, 3);
    assert_eq!(home.session()["refresh_token"], true);
    peers.assert_refreshed_as_due(&home);
}

/// F-18, I-13: nobody ever says how long a token lives; each refusal tells, and costs no call.
#[test]
fn an_issuer_that_never_says_how_long_a_token_lives() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "20"), ("OMIT_EXPIRES_IN", "1")]) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    let outcome = peers.calls(&home, "one", 70).run();
    Calls::all_answered(outcome, 280);
    assert_survived(&peers, &home, 3);
}

/// F-16, AUTH-39, AUTH-44: the secret of a dynamic registration is needed at each refresh after a restart.
#[test]
fn a_confidential_client_still_has_its_secret_after_a_restart() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "6"), ("NO_PUBLIC", "1")]) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    for _ in 0..3 {
        until("the token expires", seconds(15), || {
            (home.session()["state"] == "expired").then_some(())
        });
        peers.call(&home).run().ok();
    }
    assert_survived(&peers, &home, 3);
    assert_eq!(peers.issuer().registrations, 1);
    peers.assert_refreshed_as_due(&home);
}

fn assert_survived(peers: &Peers, home: &Home, expiries: u64) {
    let issuer = peers.issuer();
    assert!(issuer.refresh_ok >= expiries, "{issuer:?}");
    assert_eq!((issuer.code_ok, issuer.refresh_err), (1, 0), "{issuer:?}");
    assert_eq!(peers.browsers(home), 1, "only the login opened one");
    let session = home.session();
    assert!(
        session["state"] == "ok" || session["state"] == "due",
        "{session}"
    );
    peers.assert_clean(home);
}
