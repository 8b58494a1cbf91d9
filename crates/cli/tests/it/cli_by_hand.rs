//! What a person decides by hand: a key of one's own, the document to host, a request without its resource.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use pilotlight_testkit::authorization_server::IssueRefreshToken;
use pilotlight_testkit::{LabConfig, ScriptedHuman};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};

use crate::cli::Machine;
use crate::support::{Home, Outcome, until};

/// Runs `pilotlight` with this on stdin.
fn fed(home: &Home, stdin: &[u8], args: &[&str]) -> Outcome {
    let file = home.beside("stdin");
    fs::write(&file, stdin).unwrap();
    let bin = env!("CARGO_BIN_EXE_pilotlight");
    let feed = format!("exec '{bin}' \"$@\" <'{}'", file.display());
    let done = home
        .pilotlight(args)
        .through(&home.script("feed", &feed))
        .run();
    fs::remove_file(file).unwrap();
    done
}

/// A key that the machine's server takes, got on another machine.
fn key(machine: &Machine) -> String {
    machine.login(&[]);
    let bare = machine.home.pilotlight(["token", machine.url()]).reveals();
    bare.run().ok().stdout.trim_end().to_owned()
}

/// DESIGN.md section 6, T-34: a key comes in on stdin, is listed as what it is, and works; refused, it says what to run. It shows
/// in nothing that is printed or kept.
#[test]
fn a_key_of_ones_own_is_used_until_it_is_refused() {
    let machine = Machine::new();
    let (key, home) = (key(&machine), Home::new());
    let url = machine.url();
    let told = fed(
        &home,
        format!("{key}\n").as_bytes(),
        &["login", url, "--with-token", "--name", "mine"],
    );
    let text = told.ok().stderr;
    assert!(
        text.contains("Stored the key for") && text.contains("nothing refreshes"),
        "{text}"
    );
    let session = home.session();
    assert_eq!(
        (&session["state"], &session["flags"]),
        (&json!("ok"), &json!(["static"]))
    );
    assert_eq!(
        (&session["name"], &session["refresh_token"]),
        (&json!("mine"), &json!(false))
    );
    let status = home.run(["status"]).ok().stdout;
    assert!(status.contains("static"), "{status}");
    home.run(["call", "mine", "whoami"]).ok();
    home.run(["status", "mine", "--check"]).ok();
    let tokens = machine.lab.with_issuer(|issuer| issuer.stats().token);

    machine.lab.with_issuer(|issuer| issuer.revoke_access());
    let refused = home.run(["call", "mine", "whoami", "--json"]);
    let error = refused.refused(3, "login.static_token_refused");
    assert_eq!(error["hint"], "pilotlight login mine --with-token");
    home.run(["logout", "mine"]).ok();
    home.run(["call", "mine", "whoami", "--json"])
        .refused(3, "login.never");
    let stats = machine.lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!((stats.token, stats.revocations), (tokens, 0));
    home.assert_no_leak(&[key]);
}

/// T-30, T-34: what is no key is refused before anything is stored, and is not repeated; an argument is never taken for one.
#[test]
fn what_is_no_key_is_not_stored() {
    let home = Home::new();
    let url = "https://mcp.example/mcp";
    for bad in [&b""[..], b"\n", b"canary-two\nlines", b"canary\x00nul"] {
        let done = fed(&home, bad, &["login", url, "--with-token", "--json"]);
        let error = done.refused(2, "config.value");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
    let done = fed(
        &home,
        b"k",
        &["login", url, "--with-token", "canary-key", "--json"],
    );
    assert!(
        !done
            .refused(2, "config.value")
            .to_string()
            .contains("canary")
    );
    let clash = home.run(["login", url, "--with-token", "--scope", "a"]);
    assert_eq!(clash.code, Some(2));
    let status = home.run(["status", "--json"]).ok().json();
    assert_eq!(status["sessions"], json!([]));
}

/// T-34: at a terminal the key is typed, and the terminal does not show it; afterwards it shows again what is typed.
#[test]
fn a_key_that_is_typed_is_not_shown() {
    let (home, canary) = (Home::new(), "canary-typed-0123456789");
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let name = PathBuf::from(name.to_str().unwrap());
    let slave = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&name)
        .unwrap();
    let shows = || {
        tcgetattr(&slave)
            .unwrap()
            .local_modes
            .contains(LocalModes::ECHO)
    };
    assert!(shows());
    let mut child = Command::new(env!("CARGO_BIN_EXE_pilotlight"))
        .args(["login", "https://mcp.example/mcp", "--with-token"])
        .env_clear()
        .env("HOME", home.beside("home"))
        .env("PILOTLIGHT_HOME", home.data())
        .stdin(slave.try_clone().unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut master = fs::File::from(master);
    until("it waits for the key", Duration::from_secs(20), || {
        (!shows()).then_some(())
    });
    master.write_all(format!("{canary}\n").as_bytes()).unwrap();
    let ended = child.wait().unwrap();
    let mut said = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(ended.success() && said.contains("Stored the key"), "{said}");
    assert!(shows(), "the terminal is as it was");
    // What the terminal has shown is what its other end can read by now.
    let mut screen = vec![0; 4096];
    let shown = master.read(&mut screen).unwrap();
    let screen = String::from_utf8_lossy(&screen[..shown]);
    assert!(
        !screen.contains("canary") && !said.contains("canary"),
        "{screen}"
    );
    assert_eq!(home.session()["flags"], json!(["static"]));
    home.assert_no_leak(&[canary.to_owned()]);
}

fn pem(home: &Home) -> PathBuf {
    let path = home.beside("key.pem");
    fs::write(&path, include_bytes!("../../../client/src/sign/ec.pem")).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// AUTH-33, AUTH-34, AUTH-66: the document to host comes on stdout, complete: its own URL, every loopback redirect, the grants, and
/// with a key its public half alone. Nothing is stored and nothing is sent.
#[test]
fn the_client_metadata_document_is_printed() {
    let home = Home::new();
    let id = "https://app.example/oauth/pilotlight.json";
    let args = [
        "login",
        "--print-client-metadata",
        "--client-metadata-url",
        id,
    ];
    let document: Value = serde_json::from_str(&home.run(args).ok().stdout).unwrap();
    assert_eq!(document["client_id"], id);
    let uris: Vec<_> = document["redirect_uris"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for uri in [
        "http://127.0.0.1/callback",
        "http://localhost/callback",
        "http://[::1]/callback",
        "http://127.0.0.1:33417/callback",
    ] {
        assert!(uris.contains(&uri), "{uri}: {uris:?}");
    }
    let device = "urn:ietf:params:oauth:grant-type:device_code";
    let grants = json!(["authorization_code", "refresh_token", device]);
    assert_eq!(document["grant_types"], grants);
    assert_eq!(document["token_endpoint_auth_method"], "none");

    let reference = format!("file:{}", pem(&home).display());
    let key = ["--client-key", &reference, "--client-key-id", "2026-11"];
    let keyed = home.pilotlight(args).with(&key).run().ok().stdout;
    let document: Value = serde_json::from_str(&keyed).unwrap();
    assert_eq!(document["token_endpoint_auth_method"], "private_key_jwt");
    let jwk = &document["jwks"]["keys"][0];
    assert_eq!(
        (&jwk["kty"], &jwk["kid"], &jwk["alg"]),
        (&json!("EC"), &json!("2026-11"), &json!("ES256"))
    );
    assert_eq!(jwk.get("d"), None, "the private half stays where it is");
    assert!(home.stores().is_empty());

    for bad in [
        "http://app.example/c",
        "https://app.example",
        "https://app.example/c#x",
        "https://u:p@app.example/c",
    ] {
        let args = [
            "login",
            "--print-client-metadata",
            "--client-metadata-url",
            bad,
            "--json",
        ];
        home.run(args).refused(2, "config.value");
    }
    home.run(["login", "--print-client-metadata", "--json"])
        .refused(2, "config.value");
}

/// AUTH-32, AUTH-33: the URL can be kept in the configuration: it is used where the issuer takes one, and it is checked before
/// anything is sent.
#[test]
fn the_document_is_a_configured_choice() {
    let machine = Machine::with(LabConfig::default().with(|lab| {
        lab.authorization_server
            .client_id_metadata_document_supported = true;
    }));
    let id = "https://app.example/pilotlight.json";
    let config = machine.home.beside("config.toml");
    let write = |id: &str| {
        let text = format!(
            "[servers.own]\nurl = \"{}\"\nclient_metadata_url = \"{id}\"\n",
            machine.url()
        );
        fs::write(&config, text).unwrap();
    };
    let flags = ["--config", config.to_str().unwrap()];
    write("http://app.example/pilotlight.json");
    let refused = machine.start_login(&flags).run();
    refused.refused(2, "config.value");
    write(id);
    machine.login(&flags);
    let ledger = machine.lab.with_issuer(|issuer| issuer.ledger().clone());
    assert_eq!(ledger.entries[0].client_id.as_deref(), Some(id));
    assert_eq!(
        machine
            .lab
            .with_issuer(|issuer| issuer.stats().registrations),
        0
    );
    machine.assert_nothing_lost();
    let print = ["login", "own", "--print-client-metadata"];
    let document = machine
        .home
        .pilotlight(print)
        .with(&flags)
        .run()
        .ok()
        .stdout;
    assert_eq!(
        serde_json::from_str::<Value>(&document).unwrap()["client_id"],
        id
    );
}

/// DESIGN.md section 6, T-24: without its resource a request is made only where a person says so; whoever approves reads both
/// hosts first, and the status says it from then on.
#[test]
fn a_request_without_its_resource_is_a_persons_wish() {
    let machine = Machine::with(LabConfig::default().with(|lab| {
        lab.authorization_server.allowed_resources = Some(Vec::new());
        lab.authorization_server.require_resource = false;
        lab.mcp_server.check_audience = false;
    }));
    let usual = machine.start_login(&[]).start();
    machine.answer(ScriptedHuman::allows());
    usual.wait().refused(4, "denied.by_issuer");

    let by_hand = machine.start_login(&["--quirk", "no-resource"]).start();
    machine.answer(ScriptedHuman::allows());
    let told = by_hand.wait().ok().stderr;
    let issuer = url::Url::parse(machine.lab.issuer()).unwrap();
    let warning = told
        .lines()
        .find(|line| line.contains("WARNING"))
        .unwrap_or_else(|| panic!("{told}"));
    assert!(
        warning.contains(machine.url()) && warning.contains(issuer.host_str().unwrap()),
        "{warning}"
    );
    assert_eq!(machine.home.session()["flags"], json!(["no_resource"]));
    let status = machine.home.run(["status"]).ok().stdout;
    assert!(status.contains("no_resource"), "{status}");
    machine.assert_nothing_lost();
}

/// DESIGN.md section 6: what a login has taught is said when it ends, with the reason, and stands in the history.
#[test]
fn a_login_says_what_it_has_learned() {
    let machine = Machine::with(LabConfig::default().with(|lab| {
        lab.authorization_server.issue_refresh_token = IssueRefreshToken::Never;
    }));
    let login = machine.start_login(&[]).start();
    machine.answer(ScriptedHuman::allows());
    let told = login.wait().ok().json();
    assert_eq!(told["login"]["learned"], json!(["prompt_consent"]));
    let learned = machine.home.events(machine.url(), "learned");
    assert_eq!(learned.len(), 1);
    assert_eq!(learned[0]["quirk"], "prompt_consent");
    let story = machine.home.run(["why", machine.url()]).ok().stdout;
    assert!(story.contains("prompt=consent"), "{story}");
    machine.assert_nothing_lost();
}
