//! When an issuer does end a login: one verdict, one cause, no browser by itself, and a login heals.

use crate::peers::{Calls, Peers, seconds};
use crate::support::{Home, until};

/// AUTH-94, I-7: no refresh token was ever issued. Everybody is told: at the login, in `status`, at the expiry.
#[test]
fn a_login_without_a_refresh_token_says_so_from_the_start() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "8"), ("ISSUE_RT", "never")]) else {
        return;
    };
    let home = Home::new();
    let browser = peers.browser(&home);
    let args = [
        "login",
        peers.url(),
        "--browser-command",
        browser.to_str().unwrap(),
    ];
    let login = home.run(args).ok();
    let said = (login.stdout + &login.stderr).to_lowercase();
    assert!(
        said.contains("no refresh token"),
        "the login says so: {said}"
    );

    let session = home.session();
    assert_eq!(session["state"], "ending", "{session}");
    assert_eq!(session["refresh_token"], false, "{session}");
    peers.call(&home).run().ok();

    until("the login ends", seconds(15), || {
        (home.session()["state"] == "login_required").then_some(())
    });
    let error = peers.call(&home).run().refused(3, "login.no_refresh_token");
    let command = format!("pilotlight login {}", peers.url());
    let hint = error["hint"].as_str().unwrap_or_default();
    assert!(
        hint.contains("pilotlight login"),
        "{command} or by name: {error}"
    );
    assert_eq!(peers.browsers(&home), 1, "only the login opened one");
    assert_eq!(peers.issuer().token, 1, "nothing but the login");
    peers.assert_clean(&home);
}

/// F-15, F-32, I-7, I-9: the grant is withdrawn under three running processes, and a login heals them all.
#[test]
fn a_withdrawn_grant_is_one_verdict_and_a_login_heals_every_process() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "60")]) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    let names = ["a", "b", "c"];
    let running = names.map(|name| peers.calls(&home, name, 40).start());
    all_get_through(&peers, names);

    peers.revoke_all();
    until("the verdict", seconds(10), || {
        (home.session()["state"] == "suspect").then_some(())
    });
    let session = home.session();
    assert_eq!(
        session["cause"]["code"], "login.refresh_rejected",
        "{session}"
    );
    let refused = peers.call(&home).run();
    refused.refused(3, "login.refresh_rejected");
    let why = home.run(["why", peers.url(), "--json"]).ok().json();
    assert_eq!(why["state"], "suspect", "{why}");
    assert_eq!(why["cause"]["code"], "login.refresh_rejected", "{why}");
    // Long enough for each process to have asked again many times, had it wanted to.
    let unauthorized = peers.server().unauthorized;
    let met = home.events(peers.url(), "suspected");
    assert_eq!(met.len(), 1, "{met:?}");
    assert_eq!(
        peers.issuer().refresh_err,
        1,
        "one question, one answer ({unauthorized} refusals)"
    );
    assert_eq!(peers.browsers(&home), 1, "no browser by itself");

    peers.login(&home);
    all_get_through(&peers, names);
    for process in running {
        let calls = Calls::of(&process.wait());
        assert_ne!(calls.failed_calls, 0, "the loss was told: {calls:?}");
        let codes: Vec<_> = calls.errors.keys().map(String::as_str).collect();
        assert_eq!(codes, ["login.refresh_rejected"], "{calls:?}");
    }
    assert_eq!(home.session()["state"], "ok");
    let issuer = peers.issuer();
    assert_eq!((issuer.code_ok, issuer.refresh_err), (2, 1), "{issuer:?}");
    peers.assert_clean(&home);
}

/// Waits until each process has had calls answered that were not answered before.
fn all_get_through(peers: &Peers, names: [&str; 3]) {
    let before = peers.server().echoed;
    until("every process gets through", seconds(15), || {
        let now = peers.server().echoed;
        let more = |name: &&str| {
            now.get(*name).copied() >= before.get(*name).map_or(Some(2), |n| Some(n + 2))
        };
        names.iter().all(more).then_some(())
    });
}
