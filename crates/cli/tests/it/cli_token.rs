//! The token itself, for other programs: in each form, and of each kind.

use pilotlight_testkit::LabConfig;
use pilotlight_testkit::authorization_server::{NonceRule, ProofRules};
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

/// EXT-30: `login --bearer` takes a token that needs no proof from an issuer that would bind it: then there is a header for other
/// programs. The next login without the flag binds again, and a server that takes bound tokens only says so.
#[test]
fn a_login_may_ask_for_a_token_that_needs_no_proof() {
    let config = LabConfig::default().with(|lab| {
        lab.authorization_server.dpop = Some(ProofRules::default());
    });
    let machine = Machine::with(config);
    machine.login(&["--bearer"]);
    machine.call().ok();
    machine.home.run(["refresh", machine.url(), "--force"]).ok();
    let told = token(&machine, &["--json"]).ok();
    assert_eq!(told.json()["token_type"], "Bearer", "a refresh keeps to it");
    let header = token(&machine, &["--format", "header"]).ok().stdout;
    assert!(header.starts_with("Authorization: Bearer "), "a header");

    machine.login(&["--scope", "mcp:admin"]);
    let told = token(&machine, &["--json"]).ok();
    assert_eq!(told.json()["token_type"], "DPoP");
    machine.assert_nothing_lost();

    machine.lab.with_mcp(|server| {
        server.config_mut().metadata_overrides =
            json!({ "dpop_bound_access_tokens_required": true });
    });
    let refused = machine.start_login(&["--bearer"]).run();
    refused.refused(5, "peer.no_dpop");
    assert_eq!(machine.waiting_browsers(), 0, "nobody was asked in vain");
    machine.assert_nothing_lost();
}

/// EXT-31: where the server wants a nonce, the headers of a request that was refused for it are made once more, with what the
/// answer said: it is in the proof, and the server takes it. What can be no nonce is refused; a token that needs no proof needs
/// no nonce, and nothing is made of it.
#[test]
fn headers_are_made_with_the_servers_nonce() {
    let config = LabConfig::default().with(|lab| {
        lab.authorization_server.dpop = Some(ProofRules::default());
        lab.mcp_server.challenges_dpop = true;
        lab.mcp_server.dpop.nonces = NonceRule::Sudden(100);
    });
    let machine = Machine::with(config);
    machine.login(&[]);
    let headers = |more: &[&str]| token(&machine, &[&["--for", machine.url()], more].concat());
    let send = |made: &Outcome| {
        let made: Value = serde_json::from_str(&made.stdout).unwrap();
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
        let mut all = http::HeaderMap::new();
        for (name, value) in [
            ("authorization", made["Authorization"].as_str().unwrap()),
            ("dpop", made["DPoP"].as_str().unwrap()),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/list"),
        ] {
            all.insert(name, value.parse().unwrap());
        }
        let post = pilotlight_testkit::fetch::exchange(
            http::Method::POST,
            machine.url(),
            all,
            list.into(),
        );
        machine.block_on(post).unwrap()
    };
    let refused = send(&headers(&[]).ok());
    assert_eq!(refused.status.as_u16(), 401);
    let nonce = refused.headers["dpop-nonce"].to_str().unwrap().to_owned();
    let taken = send(&headers(&["--dpop-nonce", &nonce]).ok());
    assert_eq!(taken.status.as_u16(), 200);
    for bad in ["", "a b", "a\"b", "a\nb"] {
        headers(&["--dpop-nonce", bad, "--json"]).refused(2, "config.value");
    }
    let refreshes = machine.lab.with_issuer(|issuer| issuer.stats().refresh_ok);
    assert_eq!(refreshes, 0, "a proof that was refused refreshes nothing");
    machine.assert_nothing_lost();

    let plain = Machine::new();
    plain.login(&[]);
    let made = token(&plain, &["--for", plain.url(), "--dpop-nonce", "n"]);
    let made: Value = serde_json::from_str(&made.ok().stdout).unwrap();
    assert_eq!(made.as_object().unwrap().len(), 1, "only Authorization");
    let refreshes = plain.lab.with_issuer(|issuer| issuer.stats().refresh_ok);
    assert_eq!(refreshes, 0);
}
