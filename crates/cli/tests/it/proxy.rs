//! `proxy` as one process: how it begins and ends, and what it leaves behind.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::bridged::{Bridged, browsers};
use crate::cli::Machine;
use crate::support::{read, until};

/// TR-16, TR-32: the end of stdin ends it with 0, and the server is told.
#[test]
fn the_end_of_stdin_is_the_end() {
    let machine = Machine::new();
    machine.login(&[]);
    let mut bridge = Bridged::ready(&machine);
    bridge.call("1");
    bridge.echoed("1");
    drop(bridge.stdin.take());
    assert_eq!(bridge.ended(), Some(0), "{}", bridge.errors());
    machine
        .lab
        .with_mcp(|server| assert_eq!(server.forget_sessions(), 0, "the session was ended"));
    machine.assert_nothing_lost();
}

/// A host that is killed leaves nothing running; signals end it with their codes.
#[test]
fn signals_and_a_dead_host_end_it() {
    let machine = Machine::new();
    machine.login(&[]);
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut bridge = Bridged::ready(&machine);
        bridge.ask(
            "slow",
            "tools/call",
            &serde_json::json!({ "name": "slow", "arguments": { "ms": 60_000 } }),
        );
        machine.lab.with_mcp(|server| server.stats().tools);
        kill_process(Pid::from_child(&bridge.child), signal).unwrap();
        assert_eq!(bridge.ended(), Some(code), "{}", bridge.errors());
    }
    machine.assert_nothing_lost();
}

/// A refresh under way when the host hangs up is finished and stored.
#[test]
fn a_refresh_under_way_is_stored() {
    let machine = Machine::new();
    machine.login(&[]);
    let mut bridge = Bridged::ready(&machine);
    machine.lab.with_issuer(|issuer| {
        issuer.revoke_access();
        issuer.push_fault(pilotlight_testkit::Fault::DelayAnswer { ms: 3000 });
    });
    bridge.call("1");
    until("the refresh is sent", Duration::from_secs(10), || {
        machine
            .lab
            .with_issuer(|issuer| (issuer.stats().refresh_ok == 1).then_some(()))
    });
    drop(bridge.stdin.take());
    assert_eq!(bridge.ended(), Some(0), "{}", bridge.errors());
    machine.call().ok();
    machine.lab.with_issuer(|issuer| {
        assert_eq!(
            (issuer.stats().refresh_ok, issuer.stats().spent_presented),
            (1, 0)
        );
    });
    machine.assert_nothing_lost();
}

/// T-33: stderr may be lost under a host: the first line names a log of its own, which holds no secret.
#[test]
fn its_log_is_named_first() {
    let machine = Machine::new();
    machine.login(&[]);
    let mut bridge = Bridged::ready(&machine);
    machine.lab.with_issuer(|issuer| issuer.revoke_access());
    bridge.call("1");
    bridge.echoed("1");
    drop(bridge.stdin.take());
    bridge.ended();
    let errors = bridge.errors();
    let first = errors.lines().next().unwrap();
    let log = first.split("log in ").nth(1).unwrap();
    assert!(!read(log.as_ref()).is_empty(), "{first}");
    machine.assert_nothing_lost();
    assert_eq!(browsers(&machine), 0);
}

/// Without a login one browser opens, and the host's first request is answered when the person has approved.
#[test]
fn a_first_login_is_asked_for_by_itself() {
    let machine = Machine::new();
    let mut bridge = Bridged::start(&machine, &[]);
    bridge.begin();
    let url = until("a browser opens", Duration::from_secs(20), || {
        let urls = read(&machine.home.beside("bridge-browsers"));
        urls.lines().next().map(str::to_owned)
    });
    machine
        .block_on(pilotlight_testkit::ScriptedHuman::allows().visit(&url))
        .unwrap();
    bridge.welcomed();
    bridge.call("1");
    bridge.echoed("1");
    assert_eq!(browsers(&machine), 1);
    machine.assert_nothing_lost();
}
