//! Other ways to a login than registering and asking a person, each lived with for three expiries.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::peers::{Calls, Peers, patience, seconds};
use crate::support::{Home, until};

/// EXT-30, EXT-31, EXT-32, I-10: both servers want a proof for each request, and a nonce in it that they change. Four processes on
/// one login get through three expiries: every token is bound, no request goes out with a bare one, and the key outlives each
/// process.
#[test]
fn a_bound_login_with_nonces_everywhere() {
    let switches = [
        ("ACCESS_TTL", "15"),
        ("AT_FORMAT", "jwt"),
        ("DPOP", "1"),
        ("DPOP_NONCE", "1"),
    ];
    let Some(peers) = Peers::start(&switches) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    together(&peers, &home, 4, 50 * patience());
    let (issuer, server) = (peers.issuer(), peers.server());
    assert!(issuer.refresh_ok >= 3 * patience(), "{issuer:?}");
    assert_eq!(
        (issuer.code_ok, issuer.refresh_err),
        (1, issuer.use_nonce - 1),
        "{issuer:?}"
    );
    assert_eq!(
        issuer.bound_ok,
        issuer.code_ok + issuer.refresh_ok,
        "{issuer:?}"
    );
    assert_eq!(
        issuer.token,
        issuer.bound_ok + issuer.use_nonce,
        "{issuer:?}"
    );
    assert_eq!(server.bearers, 0, "{server:?}");
    assert!(server.use_nonce >= 4 && server.proofs > 500, "{server:?}");
    assert_eq!(peers.browsers(&home), 1);
    peers.assert_refreshed_as_due(&home);

    // For other programs: the headers of one request, made by a process that has never met the server.
    let (url, args) = (peers.url(), ["--format", "headers", "--for", peers.url()]);
    let made = home
        .pilotlight(["token", url])
        .with(&args)
        .reveals()
        .run()
        .ok();
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    assert!(made["Authorization"].as_str().unwrap().starts_with("DPoP "));
    assert!(made["DPoP"].is_string());
    let bare = home.pilotlight(["token", url]).reveals().run().ok();
    assert!(
        bare.stderr.contains("bound to a key (DPoP)"),
        "{}",
        bare.stderr
    );
    peers.assert_clean(&home);
}

/// EXT-30, EXT-32: without nonces, and with a new process after each expiry: each has the key from the store.
#[test]
fn a_bound_login_after_restarts() {
    let switches = [("ACCESS_TTL", "6"), ("AT_FORMAT", "jwt"), ("DPOP", "1")];
    let Some(peers) = Peers::start(&switches) else {
        return;
    };
    let home = Home::new();
    peers.login(&home);
    three_restarts(&peers, &home);
    let (issuer, server) = (peers.issuer(), peers.server());
    assert_eq!(
        (issuer.code_ok, issuer.refresh_ok, issuer.bound_ok),
        (1, 3, 4),
        "{issuer:?}"
    );
    assert_eq!((server.bearers, server.use_nonce), (0, 0), "{server:?}");
    peers.assert_clean(&home);
}

/// AUTH-30, AUTH-32, AUTH-42: an issuer that registers nobody and reads the document at the client's own URL. Three processes, three
/// expiries, no registration.
#[test]
fn a_client_by_its_metadata_document() {
    let switches = [("ACCESS_TTL", "15"), ("CIMD", "1"), ("DCR", "0")];
    let Some(peers) = Peers::start(&switches) else {
        return;
    };
    let home = Home::new();
    let document = ["--client-metadata-url", peers.document()];
    peers.start_login(&home).with(&document).run().ok();
    let who = peers.call(&home).run().ok();
    assert!(who.stdout.contains(peers.document()), "{}", who.stdout);
    together(&peers, &home, 3, 50 * patience());
    let issuer = peers.issuer();
    assert!(issuer.refresh_ok >= 3 * patience(), "{issuer:?}");
    assert_eq!((issuer.code_ok, issuer.registrations), (1, 0), "{issuer:?}");
    assert_eq!(peers.browsers(&home), 1);
    peers.assert_refreshed_as_due(&home);
    peers.assert_clean(&home);
}

/// EXT-10, I-9, I-10: a service with a secret in a file: four processes that begin at once in an empty home make the first grant
/// once, and one of them each renewal.
#[test]
fn a_service_with_a_secret() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "15"), ("DCR", "0")]) else {
        return;
    };
    let home = Home::new();
    put(&home, "secret", "service-secret\n");
    configure(
        &peers,
        &home,
        "client_id = \"service\"\nclient_secret = \"file:secret\"",
    );
    lives_by_grants(&peers, &home);
    fs::remove_file(home.data().join("secret")).unwrap();
    home.assert_no_leak(&["service-secret".to_owned()]);
}

/// EXT-10, EXT-11: the same with a private key: the issuer takes each assertion once, so each renewal signs anew.
#[test]
fn a_service_with_a_key() {
    let key = include_str!("../../../client/src/sign/ec.pem");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    fs::write(&path, key).unwrap();
    let path = path.to_str().unwrap();
    let switches = [("ACCESS_TTL", "15"), ("DCR", "0"), ("SERVICE_KEY", path)];
    let Some(peers) = Peers::start(&switches) else {
        return;
    };
    let home = Home::new();
    put(&home, "key.pem", key);
    configure(
        &peers,
        &home,
        "client_id = \"keyed\"\nclient_key = \"file:key.pem\"\nclient_key_algorithm = \"ES256\"",
    );
    lives_by_grants(&peers, &home);
    fs::remove_file(home.data().join("key.pem")).unwrap();
    let line = key.lines().nth(1).unwrap();
    home.assert_no_leak(&[line.to_owned()]);
}

/// AUTH-54, AUTH-56, AUTH-57, AUTH-60: a tool that wants more than the login has is refused with the command that asks for it; after
/// that command, and through three expiries, the tool answers. Each authorization had a challenge by S256.
#[test]
fn more_scopes_for_one_tool() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "15")]) else {
        return;
    };
    let home = Home::new();
    let only = ["--scope", "mcp:tools"];
    peers.start_login(&home).with(&only).run().ok();
    let admin = || {
        let args = ["call", peers.url(), "admin", "--json"];
        home.pilotlight(args)
            .env("BROWSER", peers.browser(&home))
            .run()
    };
    let error = admin().refused(3, "login.scope");
    let hint = error["hint"].as_str().unwrap().to_owned();
    assert!(
        hint.contains("mcp:admin") && hint.contains("mcp:tools"),
        "{hint}"
    );
    assert_eq!(
        (peers.browsers(&home), peers.issuer().code_ok),
        (1, 1),
        "a call opens none"
    );

    let words: Vec<_> = hint.split(' ').skip(1).collect();
    let browser = peers.browser(&home);
    let login = home.pilotlight(words);
    let login = login.with(&["--browser-command", browser.to_str().unwrap()]);
    login.run().ok();
    admin().ok();
    together(&peers, &home, 3, 50 * patience());
    admin().ok();
    let issuer = peers.issuer();
    assert_eq!((issuer.code_ok, issuer.refresh_err), (2, 0), "{issuer:?}");
    assert!(issuer.refresh_ok >= 3 * patience(), "{issuer:?}");
    assert_eq!(issuer.challenges.get("S256"), Some(&2), "{issuer:?}");
    assert_eq!(issuer.challenges.len(), 1, "{issuer:?}");
    assert_eq!(peers.server().forbidden, 1);
    peers.assert_clean(&home);
}

fn put(home: &Home, name: &str, text: &str) {
    let path = home.data().join(name);
    fs::create_dir_all(home.data()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Path::new(&path).is_absolute());
}

fn configure(peers: &Peers, home: &Home, keys: &str) {
    let (url, issuer) = (peers.url(), peers.issuer_name());
    let text = format!(
        "[servers.tracker]\nurl = \"{url}\"\nissuer = \"{issuer}\"\ngrant = \"client_credentials\"\nscopes = [\"mcp:tools\"]\n{keys}\n"
    );
    put(home, "config.toml", &text);
}

/// Several processes call all the time, and none of their calls fails.
fn together(peers: &Peers, home: &Home, processes: u64, span: u64) {
    let running: Vec<_> = (0..processes)
        .map(|number| {
            peers
                .calls(home, &format!("process {number}"), span)
                .start()
        })
        .collect();
    for process in running {
        Calls::all_answered(process.wait(), 3 * span);
    }
    assert_eq!(
        peers.server().echoed.len() as u64,
        processes,
        "each got through"
    );
}

/// A service in an empty home: no command but calls, no person, one grant for each life of a token.
fn lives_by_grants(peers: &Peers, home: &Home) {
    together(peers, home, 4, 50 * patience());
    let issuer = peers.issuer();
    assert_eq!(
        (issuer.code_ok, issuer.refresh_ok, issuer.registrations),
        (0, 0, 0),
        "{issuer:?}"
    );
    assert!(
        (4..=5 * patience()).contains(&issuer.service_ok),
        "{issuer:?}"
    );
    assert_eq!(issuer.token, issuer.service_ok, "{issuer:?}");
    assert_eq!(peers.renewals_as_due(home), issuer.service_ok - 1);
    assert_eq!(peers.browsers(home), 0);
    let session = home.session();
    assert_eq!(
        (&session["grant"], &session["refresh_token"]),
        (&"client_credentials".into(), &false.into())
    );
    home.assert_no_leak(&peers.secrets());
}

fn three_restarts(peers: &Peers, home: &Home) {
    for _ in 0..3 {
        peers.call(home).run().ok();
        until("the token expires", seconds(15), || {
            (home.session()["state"] == "expired").then_some(())
        });
        peers.call(home).run().ok();
    }
}
