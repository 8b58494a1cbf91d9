//! Eight people at once on an empty machine: `login URL`, all at the same time, some of them killed.

use std::thread;
use std::time::Duration;

use crate::peers::{Peers, patience};
use crate::support::Home;

/// F-01, AUTH-62: one store, one key, one registration, one login, in every round.
#[test]
fn eight_logins_at_once_are_one_login_50_times() {
    // Most of a round is waiting: two worlds side by side take half the time.
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| eight_logins_at_once(25 * patience()));
        }
    });
}

fn eight_logins_at_once(rounds: u64) {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "600")]) else {
        return;
    };
    for round in 0..rounds {
        let home = Home::new();
        let before = peers.issuer();
        let running: Vec<_> = (0..8).map(|_| peers.start_login(&home).start()).collect();
        for process in running {
            process.wait().ok();
        }
        let after = peers.issuer();
        let registrations = after.registrations - before.registrations;
        let logins = after.code_ok - before.code_ok;
        assert_eq!((registrations, logins), (1, 1), "round {round}");
        assert_eq!(peers.browsers(&home), 1, "round {round}");
        assert_one_machine(&peers, &home);
    }
}

/// F-03, F-11, I-18: whoever is killed leaves the others able to log in, and nothing twice.
#[test]
fn eight_logins_at_once_survive_kills_at_random() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "600")]) else {
        return;
    };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..20 * patience() {
        let home = Home::new();
        let before = peers.issuer();
        let mut running: Vec<_> = (0..8).map(|_| peers.start_login(&home).start()).collect();
        let mut killed = 0;
        for _ in 0..=random.below(3) {
            thread::sleep(Duration::from_millis(random.below(300)));
            let mut victim = running.swap_remove(random.below(running.len() as u64) as usize);
            killed += u64::from(victim.kill());
        }
        for process in running {
            process.wait().ok();
        }
        let after = peers.issuer();
        let allowed = 1..=1 + killed;
        let registrations = after.registrations - before.registrations;
        let logins = after.code_ok - before.code_ok;
        assert!(
            allowed.contains(&registrations) && allowed.contains(&logins),
            "round {round}: {killed} killed, {registrations} registrations, {logins} logins"
        );
        assert_one_machine(&peers, &home);
    }
}

/// T-06: a person who says no is believed: exit 4, and nothing is stored.
#[test]
fn a_denied_consent_ends_the_login() {
    let Some(peers) = Peers::start(&[]) else {
        return;
    };
    let home = Home::new();
    let browser = peers.refusing_browser(&home);
    let args = [
        "login",
        peers.url(),
        "--browser-command",
        browser.to_str().unwrap(),
        "--json",
    ];
    home.run(args).refused(4, "denied.by_human");
    assert_eq!(peers.issuer().code_ok, 0);
    peers.call(&home).run().refused(3, "login.never");
    peers.login(&home);
    peers.call(&home).run().ok();
    peers.assert_clean(&home);
}

/// One store, one key, one session, and it works.
fn assert_one_machine(peers: &Peers, home: &Home) {
    assert_eq!(home.stores().len(), 1, "one store");
    assert_eq!(home.keys().len(), 1, "one key: {:?}", home.keys());
    assert_eq!(home.session()["state"], "ok");
    let code_ok = peers.issuer().code_ok;
    peers.call(home).run().ok();
    assert_eq!(
        peers.issuer().code_ok,
        code_ok,
        "no further login is needed"
    );
    peers.assert_clean(home);
}

/// xorshift64: a round that fails fails again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
