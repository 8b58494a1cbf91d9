//! `proxy` as one process: how it begins and ends, and what it leaves behind.

use std::time::Duration;

use md5::{Digest as _, Md5};
use pilotlight_testkit::{Fault, faults::Endpoint};
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

/// Storm case (e), the drop-in contract: mcp-remote is logged in, and at our first start the authorization server is down. No
/// browser opens, then or later: its login is brought in as soon as that can be done.
#[test]
fn an_outage_at_the_first_start_opens_no_browser() {
    let machine = Machine::new();
    machine.login(&[]);
    let token = machine.home.run(["token", machine.url()]).ok().stdout;
    let hash: String = Md5::digest(machine.url().as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let folder = machine.home.beside("home").join(".mcp-auth/mcp-remote-v1");
    std::fs::create_dir_all(&folder).unwrap();
    let tokens = serde_json::json!({
        "access_token": token.trim(),
        "token_type": "Bearer",
        "expires_in": 3600,
        "refresh_token": "unused",
    });
    let client = serde_json::json!({ "client_id": "theirs" });
    for (name, content) in [("tokens", tokens), ("client_info", client)] {
        let file = folder.join(format!("{hash}_{name}.json"));
        std::fs::write(file, content.to_string()).unwrap();
    }
    let down = |fault| {
        machine
            .lab
            .with_issuer(|issuer| issuer.set_standing_fault(Endpoint::Metadata, fault));
    };
    down(Some(Fault::Status {
        status: 503,
        retry_after: None,
        body: None,
    }));
    let store = machine.home.beside("another-store");
    let mut bridge = Bridged::start(&machine, &["--store", store.to_str().unwrap()]);
    bridge.begin();
    let answer = bridge.answer("init");
    assert!(answer["error"].is_object(), "{answer}");
    down(None);
    until("it is brought in", Duration::from_secs(30), || {
        bridge.begin();
        bridge.answer("init")["result"].is_object().then_some(())
    });
    bridge.say(&serde_json::json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    bridge.call("1");
    bridge.echoed("1");
    assert_eq!(browsers(&machine), 0, "{}", bridge.errors());
}

/// What was typed wrong is told as every command of ours tells it, with code, hint and exit code 2, and nothing of it is repeated;
/// called by mcp-remote's name it is that program's line and its 1.
#[test]
fn wrong_arguments_are_told_in_the_caller_s_way() {
    let home = crate::support::Home::new();
    for (args, why) in [
        (vec!["proxy", "--json"], "is missing"),
        (vec!["proxy", "--json", "canary"], "is none"),
        (
            vec!["proxy", "--json", "http://canary.example/mcp"],
            "--allow-http",
        ),
    ] {
        let said = home.run(&args);
        assert_eq!(said.code, Some(2), "{said:?}");
        let told: serde_json::Value = serde_json::from_str(&said.stderr).expect("one object");
        assert_eq!(told["error"]["code"], "config.value", "{told}");
        assert!(
            told["error"]["message"].as_str().unwrap().contains(why),
            "{told}"
        );
        assert_eq!(told["error"]["hint"], "pilotlight proxy --help", "{told}");
        assert!(!said.stderr.contains("canary") && !said.stderr.contains("Usage: mcp-remote"));
    }
    let link = home.beside("mcp-remote");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pilotlight"), &link).unwrap();
    let said = std::process::Command::new(&link)
        .env("HOME", home.beside("home"))
        .output()
        .unwrap();
    let stderr = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("Usage: mcp-remote"), "{stderr}");
}

/// The help of the bridge has every flag that its parser knows.
#[test]
fn help_lists_the_flags() {
    let help = crate::support::Home::new()
        .run(["proxy", "--help"])
        .ok()
        .stdout;
    for flag in [
        "--header ",
        "--transport ",
        "--ignore-tool ",
        "--silent ",
        "--allow-http ",
    ] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
    assert!(help.contains("docs/guides/bridge.md"), "{help}");
}
