//! The storm: many bridges, many calls, one login, and an issuer with single-use refresh tokens that forgives nothing. Every call
//! is answered with a result, no spent token is presented, no browser opens.

use std::thread;
use std::time::{Duration, Instant};

use pilotlight_testkit::faults::Endpoint;
use pilotlight_testkit::{Fault, LabConfig, authorization_server::Kind};

use crate::bridged::{Bridged, browsers};
use crate::cli::Machine;

/// A machine with a login whose first access token lives so long; those after it live for an hour.
fn machine(first: Duration) -> Machine {
    let config = LabConfig::default().with(|lab| lab.authorization_server.access_ttl = first);
    let machine = Machine::with(config);
    machine.login(&[]);
    machine
        .lab
        .with_issuer(|issuer| issuer.config_mut().access_ttl = HOUR);
    machine
}

/// Nothing went wrong, with this many refreshes.
fn assert_calm(machine: &Machine, refreshes: u64) {
    machine.lab.with_issuer(|issuer| {
        let stats = issuer.stats();
        assert_eq!(
            (
                stats.refresh_ok,
                stats.spent_presented,
                stats.reuse_revocations
            ),
            (refreshes, 0, 0),
            "{stats:?}"
        );
    });
    assert_eq!(browsers(machine), 0, "no browser opens");
    machine.assert_nothing_lost();
}

fn all_answer(bridges: &mut [Bridged], calls: usize) {
    for bridge in &mut *bridges {
        for call in 0..calls {
            bridge.call(&format!("call-{call}"));
        }
    }
    for bridge in bridges {
        for call in 0..calls {
            bridge.echoed(&format!("call-{call}"));
        }
    }
}

fn begin(machine: &Machine, count: usize) -> Vec<Bridged> {
    let mut bridges: Vec<_> = (0..count).map(|_| Bridged::start(machine, &[])).collect();
    bridges.iter_mut().for_each(Bridged::begin);
    bridges.iter_mut().for_each(Bridged::welcomed);
    bridges
}

/// Case (a), F-02, I-2: eight bridges start on an expired token: one refresh.
#[test]
fn eight_start_on_an_expired_token() {
    let machine = machine(Duration::from_secs(1));
    thread::sleep(Duration::from_millis(1500));
    let mut bridges = begin(&machine, 8);
    all_answer(&mut bridges, 2);
    assert_calm(&machine, 1);
}

/// Case (b), F-10, I-16: the issuer takes 33 s to answer: the bridges wait for the one that asks.
#[test]
fn three_start_while_the_issuer_takes_its_time() {
    if !slow() {
        return;
    }
    let machine = machine(Duration::from_secs(1));
    thread::sleep(Duration::from_millis(1500));
    machine
        .lab
        .with_issuer(|issuer| issuer.push_fault(Fault::DelayAnswer { ms: 33_000 }));
    let mut bridges = begin(&machine, 3);
    all_answer(&mut bridges, 1);
    machine
        .lab
        .with_issuer(|issuer| assert_eq!(issuer.stats().spent_presented, 0));
    assert_calm(&machine, 1);
}

/// Case (c), F-04: 64 calls at once meet a token that was revoked, in one process.
#[test]
fn sixty_four_calls_meet_a_revoked_token() {
    let machine = machine(HOUR);
    let mut bridges = begin(&machine, 1);
    machine.lab.with_issuer(|issuer| issuer.revoke_access());
    all_answer(&mut bridges, 64);
    assert_calm(&machine, 1);
}

/// Case (d), F-04, I-2: the same in three, and in eight processes.
#[test]
fn many_processes_meet_a_revoked_token() {
    for count in [3, 8] {
        let machine = machine(HOUR);
        let mut bridges = begin(&machine, count);
        machine.lab.with_issuer(|issuer| issuer.revoke_access());
        all_answer(&mut bridges, 8);
        assert_calm(&machine, 1);
    }
}

/// Case (e), F-06, I-6: the whole issuer answers 503 while the token expires: calls wait or get a typed error, and all is well
/// within 30 s of its return.
#[test]
fn an_outage_of_the_issuer_is_no_loss() {
    if !slow() {
        return;
    }
    let machine = machine(Duration::from_secs(10));
    let mut bridges = begin(&machine, 2);
    let down = Fault::Status {
        status: 503,
        retry_after: None,
        body: None,
    };
    machine.lab.with_issuer(|issuer| {
        for at in [Endpoint::Token, Endpoint::Metadata] {
            issuer.set_standing_fault(at, Some(down.clone()));
        }
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_secs(5));
        for (number, bridge) in bridges.iter_mut().enumerate() {
            bridge.call(&format!("{number}-{}", began.elapsed().as_secs()));
        }
    }
    machine.lab.with_issuer(|issuer| issuer.clear_faults());
    let back = Instant::now();
    loop {
        let mut well = true;
        for bridge in &mut bridges {
            let id = format!("after-{}", back.elapsed().as_millis());
            bridge.call(&id);
            let answer = bridge.answer(&id);
            match answer["error"]["data"]["code"].as_str() {
                None => assert!(answer["result"].is_object(), "{answer}"),
                Some(code) => {
                    assert!(code.starts_with("unavailable."), "{answer}");
                    well = false;
                }
            }
        }
        if well {
            break;
        }
        assert!(back.elapsed() < Duration::from_secs(30), "not well in time");
        thread::sleep(Duration::from_millis(500));
    }
    machine.lab.with_issuer(|issuer| {
        let stats = issuer.stats();
        assert_eq!(
            (stats.spent_presented, stats.reuse_revocations),
            (0, 0),
            "{stats:?}"
        );
    });
    assert_eq!(browsers(&machine), 0, "no browser opens");
    machine.assert_nothing_lost();
}

/// Case (f): five start on a token that is unexpired by the clock and refused by the server.
#[test]
fn five_start_on_a_token_that_is_refused() {
    let machine = machine(HOUR);
    machine.lab.with_issuer(|issuer| issuer.revoke_access());
    let mut bridges = begin(&machine, 5);
    all_answer(&mut bridges, 2);
    assert_calm(&machine, 1);
}

/// Case (g), F-13, F-15: the answer to a refresh is lost; an issuer with 30 s of grace is asked once more, under a label.
#[test]
fn a_lost_answer_is_asked_for_once_more() {
    let machine = machine(HOUR);
    let mut bridges = begin(&machine, 3);
    machine.lab.with_issuer(|issuer| {
        issuer.config_mut().reuse_grace = Some(Duration::from_secs(30));
        issuer.revoke_access();
        issuer.push_fault(Fault::Lose);
    });
    all_answer(&mut bridges, 4);
    machine.lab.with_issuer(|issuer| {
        let sent: Vec<_> = issuer.ledger().of(Kind::Refresh).collect();
        let seen: Vec<_> = sent
            .iter()
            .map(|entry| (entry.answer_lost, entry.grace_hit))
            .collect();
        assert_eq!(seen, [(true, false), (false, true)], "{sent:?}");
        let stats = issuer.stats();
        assert_eq!(
            (stats.spent_presented, stats.reuse_revocations),
            (1, 0),
            "{stats:?}"
        );
    });
    // What is sent anew has its reason in the history, once.
    let refreshed = machine.home.events(machine.url(), "refreshed");
    let labels: Vec<_> = refreshed.iter().map(|event| &event["label"]).collect();
    assert_eq!(labels, ["retry_ambiguous"], "{refreshed:?}");
    assert_eq!(browsers(&machine), 0, "no browser opens");
    machine.assert_nothing_lost();
}

/// Case (g) without grace: at most one more request, one verdict, one login that is offered; every call is answered, with a
/// typed error if need be.
#[test]
fn a_lost_answer_without_grace_is_one_verdict() {
    let machine = machine(HOUR);
    let mut bridges = begin(&machine, 3);
    machine.lab.with_issuer(|issuer| {
        issuer.revoke_access();
        issuer.push_fault(Fault::Lose);
    });
    for bridge in &mut bridges {
        bridge.call("1");
    }
    let url = crate::support::until("a login is offered", Duration::from_secs(40), || {
        let urls = crate::support::read(&machine.home.beside("bridge-browsers"));
        urls.lines().next().map(str::to_owned)
    });
    machine
        .block_on(pilotlight_testkit::ScriptedHuman::allows().visit(&url))
        .unwrap();
    for bridge in &mut bridges {
        bridge.echoed("1");
    }
    assert_eq!(browsers(&machine), 1, "one login is offered");
    machine.lab.with_issuer(|issuer| {
        let stats = issuer.stats();
        assert!(stats.spent_presented <= 1, "{stats:?}");
    });
}

/// Case (h), F-01, I-14: short tokens and steady calls: each token is refreshed once, and not before its time.
#[test]
fn short_tokens_are_refreshed_once_each() {
    let (life, calls) = match slow() {
        true => (Duration::from_secs(20), 100_u32),
        false => (Duration::from_secs(6), 20),
    };
    let config = LabConfig::default().with(|lab| lab.authorization_server.access_ttl = life);
    let machine = Machine::with(config);
    machine.login(&[]);
    let mut bridge = Bridged::ready(&machine);
    let began = Instant::now();
    let pause = life * 6 / 100;
    let pause = if slow() { pause } else { life / 10 };
    for call in 0..calls {
        let id = format!("call-{call}");
        bridge.call(&id);
        bridge.echoed(&id);
        thread::sleep(pause);
    }
    // The refresh point lies at most a quarter and a twentieth before the end.
    let most = (began.elapsed().as_secs_f64() / (life.as_secs_f64() * 0.69)).ceil() as u64 + 1;
    machine.lab.with_issuer(|issuer| {
        let stats = issuer.stats();
        assert!((1..=most).contains(&stats.refresh_ok), "{most}: {stats:?}");
        assert_eq!(stats.spent_presented, 0);
    });
    assert_eq!(browsers(&machine), 0);
    drop(bridge);
    machine.assert_nothing_lost();
}

/// Case (i), I-13: a server that refuses every token: at most two refreshes, one login that is offered, a typed error, no loop.
#[test]
fn a_server_that_refuses_every_token_is_no_loop() {
    let machine = machine(HOUR);
    let mut bridge = Bridged::ready(&machine);
    machine.lab.with_mcp(|server| server.reject_next(u64::MAX));
    for call in 0..5 {
        let id = format!("call-{call}");
        bridge.call(&id);
        let answer = bridge.answer(&id);
        assert_eq!(answer["error"]["code"], -32001, "{answer}");
        assert!(answer["error"]["data"]["code"].is_string(), "{answer}");
    }
    machine.lab.with_issuer(|issuer| {
        let stats = issuer.stats();
        assert!(
            stats.refresh_ok <= 2 && stats.spent_presented == 0,
            "{stats:?}"
        );
    });
    assert!(browsers(&machine) <= 1);
    let posts = machine.lab.with_mcp(|server| server.stats().posts);
    assert!(posts < 20, "{posts} requests");
}

fn slow() -> bool {
    std::env::var("PILOTLIGHT_SLOW").is_ok_and(|value| value == "1")
}

const HOUR: Duration = Duration::from_secs(3600);
