//! A store that cannot be used: a typed error, never a new login silently over it, and all is well once it is back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::cli::Machine;
use crate::support::Home;

/// F-27: a store without its key is not a new store.
#[test]
fn a_missing_key_is_not_replaced() {
    let machine = Machine::new();
    machine.login(&[]);
    let key = key(&machine.home);
    let bytes = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    machine.call().refused(6, "store.key_missing");
    machine
        .home
        .run(["status", "--json"])
        .refused(6, "store.key_missing");
    assert!(!key.exists(), "no new key was made");
    fs::write(&key, bytes).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    machine.assert_nothing_lost();
}

/// F-27: another store's key is told from a damaged store.
#[test]
fn a_wrong_key_is_named() {
    let (machine, other) = (Machine::new(), Machine::new());
    machine.login(&[]);
    other.login(&[]);
    let key_file = key(&machine.home);
    let bytes = fs::read(&key_file).unwrap();
    fs::write(&key_file, fs::read(key(&other.home)).unwrap()).unwrap();
    machine.call().refused(6, "store.key_wrong");
    fs::write(&key_file, bytes).unwrap();
    machine.assert_nothing_lost();
}

/// F-27: cut short anywhere, emptied, or full of something else.
#[test]
fn a_damaged_store_is_left_as_it_is() {
    let machine = Machine::new();
    machine.login(&[]);
    let store = store(&machine.home);
    let whole = fs::read(&store).unwrap();
    // Another program's database: the same but for SQLite's application id.
    let mut other = whole.clone();
    other[68..72].fill(0);
    let cases: [(&[u8], &str); 6] = [
        (&[], "store.corrupt"),
        (&whole[..50], "store.corrupt"),
        (&whole[..whole.len() / 2], "store.corrupt"),
        (&b"a shopping list\n".repeat(512), "store.foreign"),
        (&[0x5a; 8192], "store.foreign"),
        (&other, "store.foreign"),
    ];
    for (bytes, code) in cases {
        fs::write(&store, bytes).unwrap();
        machine.call().refused(6, code);
        machine
            .home
            .run(["login", machine.url(), "--json"])
            .refused(6, code);
        assert_eq!(fs::read(&store).unwrap(), bytes, "it was not touched");
    }
    fs::write(&store, whole).unwrap();
    machine.assert_nothing_lost();
}

/// F-06: no room at the login: said before anybody is asked.
#[test]
fn a_full_disk_at_login_is_said_before_the_browser_opens() {
    let machine = Machine::new();
    let pilotlight = env!("CARGO_BIN_EXE_pilotlight");
    // Files that may not grow answer like a full disk; the signal that comes with it would end the process instead.
    let full = machine.home.script(
        "full",
        &format!("trap '' XFSZ; ulimit -f 0; exec '{pilotlight}' \"$@\""),
    );
    machine
        .start_login(&[])
        .through(&full)
        .run()
        .refused(75, "unavailable.store");
    assert_eq!(machine.waiting_browsers(), 0, "nobody was asked");
    machine.login(&[]);
    machine.assert_nothing_lost();
}

/// T-36: what others could read is closed again, or refused; never used as it is.
#[test]
fn a_store_open_to_others_is_not_used_as_it_is() {
    let machine = Machine::new();
    machine.login(&[]);
    for file in [store(&machine.home), key(&machine.home)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let outcome = machine.call();
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert!(
            mode == 0o600 || outcome.code == Some(2),
            "{mode:o} {outcome:#?}"
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    machine.assert_nothing_lost();
}

fn store(home: &Home) -> PathBuf {
    home.stores().pop().expect("a store")
}

fn key(home: &Home) -> PathBuf {
    home.keys().pop().expect("a key")
}
