//! Servers of every revision (requirements/spec.md section 2): a whole login, a call, a refresh and another call at each.

use std::thread;
use std::time::Duration;

use pilotlight_testkit::LabConfig;
use pilotlight_testkit::mcp_server::Wires;

use crate::cli::Machine;

/// A server that speaks nothing newer than the first of these.
fn speaking(versions: &[&'static str], change: impl FnOnce(&mut LabConfig)) -> Machine {
    Machine::with(LabConfig::default().with(|lab| {
        lab.authorization_server.access_ttl = Duration::from_secs(2);
        lab.mcp_server.wires = Wires::Legacy;
        lab.mcp_server.legacy_versions = versions.to_vec();
        change(lab);
    }))
}

/// Logs in, calls, lets the token end, and calls once more; answers what the issuer and the server saw.
fn lives(machine: &Machine) -> (u64, u64, u64) {
    machine.login(&[]);
    machine.call().ok();
    thread::sleep(Duration::from_millis(2100));
    machine.call().ok();
    machine.assert_nothing_lost();
    let stats = machine.lab.with_issuer(|issuer| issuer.stats().clone());
    (stats.code_ok, stats.registrations, stats.refresh_ok)
}

fn of_2025_03_26(with_metadata: bool) -> Machine {
    speaking(&["2025-03-26"], |lab| {
        lab.own_issuer = true;
        lab.authorization_server.serve_oauth_metadata = with_metadata;
        lab.authorization_server.advertise_iss = false;
        lab.authorization_server.require_resource = false;
        lab.mcp_server.metadata_at_path = false;
        lab.mcp_server.challenge_names_metadata = false;
        lab.mcp_server.check_audience = false;
    })
}

/// AUTH-17, TR-30: a server of 2025-03-26 that publishes nothing is its own authorization server, at the places that revision
/// names; tokens are for no resource, since it knows of none.
#[test]
fn a_server_of_2025_03_26_without_metadata() {
    let machine = of_2025_03_26(false);
    assert_eq!(lives(&machine), (1, 1, 1));
    let opened = machine.lab.with_mcp(|server| server.stats().initialize);
    assert!(opened >= 2, "each command opens a session of its own");
}

/// AUTH-20, AUTH-22: one that publishes metadata at its origin is asked there, with the revision in the request, as that one wants.
#[test]
fn a_server_of_2025_03_26_with_metadata() {
    let machine = of_2025_03_26(true);
    assert_eq!(lives(&machine), (1, 1, 1));
}

/// AUTH-10, AUTH-11: a server of 2025-06-18 says in its challenge where its metadata is, and names an issuer of its own.
#[test]
fn a_server_of_2025_06_18() {
    let machine = speaking(&["2025-06-18", "2025-03-26"], |lab| {
        lab.authorization_server.advertise_iss = false;
    });
    assert_eq!(lives(&machine), (1, 1, 1));
}

/// AUTH-12, AUTH-20: one of 2025-11-25 may leave its metadata to the well-known places, and its issuer to OpenID Connect.
#[test]
fn a_server_of_2025_11_25() {
    let machine = speaking(&["2025-11-25", "2025-06-18", "2025-03-26"], |lab| {
        lab.mcp_server.challenge_names_metadata = false;
        lab.mcp_server.metadata_at_path = false;
        lab.mcp_server.metadata_at_root = true;
        lab.authorization_server.serve_oauth_metadata = false;
        lab.authorization_server.serve_openid_metadata = true;
    });
    assert_eq!(lives(&machine), (1, 1, 1));
}
