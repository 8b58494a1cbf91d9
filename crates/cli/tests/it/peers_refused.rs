//! A token that the issuer takes back before it expires.

use crate::peers::{Calls, Peers, seconds};
use crate::support::{Home, until};

const LONG: &[(&str, &str)] = &[("ACCESS_TTL", "120")];

/// F-02, I-13: six calls at once in one process meet the refusal; one refresh serves them all.
#[test]
fn six_calls_at_once_after_the_token_is_taken_back_share_one_refresh() {
    let Some(peers) = Peers::start(LONG) else {
        return;
    };
    let home = Home::new();
    accepted_then_taken_back(&peers, &home);
    let args = ["call", peers.url(), "whoami", "--parallel", "6", "--json"];
    let calls = Calls::all_answered(home.run(args), 6);
    assert_eq!(calls.calls, 6);
    assert_one_refresh(&peers, &home);
}

/// F-02, I-1, I-13: six processes at once, each with a session of its own.
#[test]
fn six_processes_at_once_after_the_token_is_taken_back_share_one_refresh() {
    let Some(peers) = Peers::start(LONG) else {
        return;
    };
    let home = Home::new();
    accepted_then_taken_back(&peers, &home);
    let running: Vec<_> = (0..6).map(|_| peers.call(&home).start()).collect();
    for process in running {
        process.wait().ok();
    }
    assert_one_refresh(&peers, &home);
}

/// F-02, AUTH-84, I-13: six at once in the middle of the work of one process, the MCP session long open.
#[test]
fn a_running_loop_outlives_a_token_that_is_taken_back() {
    let Some(peers) = Peers::start(LONG) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    let six = peers.calls(&home, "loop", 6).with(&["--parallel", "6"]);
    let running = six.start();
    until("ten calls", seconds(10), || {
        (peers.server().tool_calls >= 10).then_some(())
    });
    peers.revoke_access();
    Calls::all_answered(running.wait(), 60);
    assert_one_refresh(&peers, &home);
}

fn accepted_then_taken_back(peers: &Peers, home: &Home) {
    peers.login(home);
    peers.call(home).run().ok();
    peers.revoke_access();
}

fn assert_one_refresh(peers: &Peers, home: &Home) {
    let issuer = peers.issuer();
    assert_eq!((issuer.refresh_ok, issuer.code_ok), (1, 1), "{issuer:?}");
    assert_ne!(peers.server().unauthorized, 0, "the refusal was met");
    let events = home.events(peers.url(), "refreshed");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["reason"], "refused", "{events:?}");
    assert_eq!(peers.browsers(home), 1, "only the login opened one");
    peers.assert_clean(home);
}
