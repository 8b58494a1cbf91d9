//! The ordinary day: one login, then calls before and after every expiry.

use std::thread;

use crate::peers::{Calls, Peers, patience, seconds};
use crate::support::{Home, Running, contains, until};

/// I-1, I-3, I-10, F-22, F-24, AUTH-85, AUTH-86: 75 s of calls on tokens that live for 15 s, rotated each time.
#[test]
fn one_process_for_75_seconds_never_fails_and_refreshes_as_due() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "15"), ("ROTATE", "always")]) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    let outcome = peers.calls(&home, "one", 75 * patience()).run();
    Calls::all_answered(outcome, 300 * patience());
    assert_steady(&peers, &home);
}

/// F-01, I-1, I-2, I-3, I-10, T-34: eight processes over one store cost the issuer no more than one.
#[test]
fn eight_processes_for_75_seconds_share_each_refresh() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "15"), ("ROTATE", "always")]) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    let running: Vec<_> = (0..8)
        .map(|number| {
            peers
                .calls(&home, &format!("process {number}"), 75 * patience())
                .start()
        })
        .collect();
    until("three refreshes", seconds(60), || {
        (peers.issuer().refresh_ok >= 3).then_some(())
    });
    assert_nothing_in_proc(&running, &peers.secrets());
    for process in running {
        Calls::all_answered(process.wait(), 200 * patience());
    }
    assert_eq!(peers.server().echoed.len(), 8, "each of them got through");
    assert_steady(&peers, &home);
}

/// F-22, AUTH-85: a process that starts after the expiry refreshes once and needs nobody.
#[test]
fn started_after_the_expiry_one_refresh_and_no_browser() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "6")]) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    peers.call(&home).run().ok();
    for restart in 1..=2 {
        until("the token expires", seconds(15), || {
            (home.session()["state"] == "expired").then_some(())
        });
        peers.call(&home).run().ok();
        let issuer = peers.issuer();
        assert_eq!(
            (issuer.refresh_ok, issuer.code_ok),
            (restart, 1),
            "{issuer:?}"
        );
    }
    assert_eq!(peers.browsers(&home), 1, "only the login opened one");
    peers.assert_refreshed_as_due(&home);
    peers.assert_clean(&home);
}

/// I-10: a process that starts while the token is fresh asks the issuer nothing at all.
#[test]
fn started_while_fresh_no_refresh_and_no_discovery() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "300")]) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    let (issuer, server) = (peers.issuer(), peers.server());
    for _ in 0..3 {
        peers.call(&home).run().ok();
    }
    let (issuer_after, server_after) = (peers.issuer(), peers.server());
    assert_eq!(issuer_after.token, issuer.token, "no token request");
    assert_eq!(issuer_after.discovery, issuer.discovery, "no metadata read");
    assert_eq!(
        server_after.discovery, server.discovery,
        "none of the server's"
    );
    assert_eq!(
        server_after.unauthorized, server.unauthorized,
        "no 401 either"
    );
    assert_eq!(server_after.tool_calls, server.tool_calls + 3);
    peers.assert_clean(&home);
}

fn assert_steady(peers: &Peers, home: &Home) {
    let issuer = peers.issuer();
    assert_eq!(issuer.code_ok, 1, "one login: {issuer:?}");
    assert!(
        (5 * patience()..=7 * patience()).contains(&issuer.refresh_ok),
        "{issuer:?}"
    );
    assert_eq!(
        (issuer.refresh_err, issuer.revocations),
        (0, 0),
        "{issuer:?}"
    );
    assert_eq!(
        issuer.token,
        issuer.code_ok + issuer.refresh_ok,
        "{issuer:?}"
    );
    assert_eq!(peers.browsers(home), 1, "only the login opened one");
    peers.assert_refreshed_as_due(home);
    peers.assert_clean(home);
}

/// What every user of the machine can see of a process holds no secret.
fn assert_nothing_in_proc(running: &[Running], secrets: &[String]) {
    thread::scope(|scope| {
        for process in running {
            scope.spawn(|| {
                for file in ["cmdline", "environ"] {
                    let path = format!("/proc/{}/{file}", process.pid());
                    // A process that has made itself undumpable refuses this to all but root: as good.
                    let shown = std::fs::read(path).unwrap_or_default();
                    for secret in secrets {
                        assert!(!contains(&shown, secret.as_bytes()), "a secret in {file}");
                    }
                }
            });
        }
    });
}
