//! Logins on another device at an issuer that nobody here wrote.

use std::process::Command;
use std::thread;

use crate::peers::{Calls, Peers, seconds};
use crate::support::{Home, Running, until};

/// Types in the code of a login, as a person does who reads it from the terminal.
fn person(login: &Running, deny: bool) {
    let (page, code) = until("a code is shown", seconds(20), || {
        let said = login.said();
        let mut shown = said.lines().filter_map(|line| line.strip_prefix("  "));
        let page = shown.next()?.to_owned();
        Some((page, shown.next()?.to_owned()))
    });
    assert!(page.ends_with("/device"), "{page}");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../peers/person.mjs");
    let mut person = Command::new("node");
    person.arg(folder).args(deny.then_some("--deny"));
    let done = person.arg(format!("--code={code}")).arg(page).output();
    let done = done.expect("node runs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}");
}

/// RFC 8628, F-18: a code that is typed in elsewhere is a login that lives on through three expiries, in several processes.
#[test]
fn a_login_on_another_device_survives_three_expiries() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "10"), ("DEVICE", "1")]) else {
        return;
    };
    let home = Home::new();
    let logins: Vec<_> = (0..2).map(|_| login(&peers, &home).start()).collect();
    let shows = until("a code is shown", seconds(20), || {
        logins.iter().position(|one| one.said().contains("/device"))
    });
    person(&logins[shows], false);
    let done: Vec<_> = logins.into_iter().map(|one| one.wait().ok()).collect();
    let adopted = done
        .iter()
        .filter(|one| one.json()["login"]["adopted"] == true);
    assert_eq!(adopted.count(), 1);
    let both = thread::scope(|scope| {
        let runs = ["one", "two"].map(|text| scope.spawn(|| peers.calls(&home, text, 40).run()));
        runs.map(|run| run.join().unwrap())
    });
    for outcome in both {
        Calls::all_answered(outcome, 100);
    }
    let issuer = peers.issuer();
    assert!(issuer.refresh_ok >= 3, "{issuer:?}");
    assert_eq!((issuer.code_ok, issuer.refresh_err), (1, 0), "{issuer:?}");
    assert_eq!((issuer.registrations, peers.browsers(&home)), (1, 0));
    peers.assert_refreshed_as_due(&home);
    peers.assert_clean(&home);
}

/// A person who says no there is believed here, and a code that nobody types in ends by itself.
#[test]
fn a_refusal_and_an_end_on_another_device() {
    let Some(peers) = Peers::start(&[("DEVICE", "1"), ("DEVICE_TTL", "20")]) else {
        return;
    };
    let home = Home::new();
    let refused = login(&peers, &home).start();
    person(&refused, true);
    refused.wait().refused(4, "denied.by_human");
    login(&peers, &home).run().refused(3, "login.abandoned");
    assert_eq!(peers.issuer().code_ok, 0);
    let again = login(&peers, &home).start();
    person(&again, false);
    again.wait().ok();
    peers.call(&home).run().ok();
    peers.assert_clean(&home);
}

fn login(peers: &Peers, home: &Home) -> crate::support::Run {
    home.pilotlight(["login", peers.url(), "--device", "--json"])
}
