//! The token itself, for other programs: in each form, and of each kind.

use pilotlight_testkit::LabConfig;
use pilotlight_testkit::authorization_server::ProofRules;
use serde_json::{Value, json};

use crate::cli::Machine;
use crate::support::Outcome;

fn token(machine: &Machine, more: &[&str]) -> Outcome {
    let args = ["token", machine.url()];
    machine.home.pilotlight(args).with(more).reveals().run()
}

/// An issuer that binds tokens to a key, and a login at it.
fn bound() -> Machine {
    let config = LabConfig::default().with(|lab| {
        lab.authorization_server.dpop = Some(ProofRules::default());
        lab.mcp_server.challenges_dpop = true;
    });
    let machine = Machine::with(config);
    machine.login(&[]);
    machine
}

/// DESIGN.md section 6: a bearer token comes in four forms, and nothing else is said.
#[test]
fn a_bearer_token_comes_in_each_form() {
    let machine = Machine::new();
    machine.login(&[]);
    let told = token(&machine, &["--json"]).ok().json();
    assert_eq!(told["token_type"], "Bearer");
    let bearer = format!("Bearer {}", told["access_token"].as_str().unwrap());
    let form = |format: &str| token(&machine, &["--format", format]).ok();
    assert_eq!(form("header").stdout, format!("Authorization: {bearer}\n"));
    let headers: Value = serde_json::from_str(&form("headers").stdout).unwrap();
    assert_eq!(headers, json!({ "Authorization": bearer }));
    let bare = token(&machine, &[]).ok();
    assert_eq!(format!("Bearer {}", bare.stdout.trim_end()), bearer);
    assert_eq!(bare.stderr, "");
    machine.assert_nothing_lost();
}

/// EXT-30, EXT-32: the token of a login that is bound to a key is told with its kind, and that it is of no use by itself; a
/// header with it is not made, for every server would refuse it. Each command is a process of its own, so the key was
/// stored; calls prove it.
#[test]
fn a_bound_token_makes_no_header() {
    let machine = bound();
    machine.call().ok();
    let json = token(&machine, &["--json"]).ok();
    assert_eq!(json.json()["token_type"], "DPoP");
    let bare = token(&machine, &[]).ok();
    assert_eq!(
        Some(bare.stdout.trim_end()),
        json.json()["access_token"].as_str()
    );
    for said in [&json.stderr, &bare.stderr] {
        assert!(said.contains("bound to a key (DPoP)"), "{said}");
    }
    for format in ["header", "headers"] {
        let refused = token(&machine, &["--format", format, "--json"]);
        refused.refused(2, "config.proof_needed");
        assert_eq!(refused.stdout, "", "{format}");
    }
    machine.assert_nothing_lost();
}
