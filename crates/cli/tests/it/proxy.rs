//! `proxy` as one process: how it begins and ends, and what it leaves behind.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::Duration,
};

use pilotlight_testkit::{Fault, ScriptedHuman, faults::Endpoint, fetch};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::bridged::{Bridged, browsers};
use crate::cli::Machine;
use crate::cli_import::{theirs, tokens};
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

/// Signals end it with their codes, also with a call under way.
#[test]
fn signals_end_it() {
    let machine = Machine::new();
    machine.login(&[]);
    for (times, signal, code) in [(1, Signal::TERM, 143), (2, Signal::INT, 130)] {
        let mut bridge = Bridged::ready(&machine);
        bridge.ask(
            "slow",
            "tools/call",
            &serde_json::json!({ "name": "slow", "arguments": { "ms": 60_000 } }),
        );
        called(&machine, times);
        kill_process(Pid::from_child(&bridge.child), signal).unwrap();
        assert_eq!(bridge.ended(), Some(code), "{}", bridge.errors());
    }
    machine.assert_nothing_lost();
}

/// A host that is killed, with a call under way, leaves nothing running: what it had open is closed, and that is the end.
#[test]
fn a_dead_host_ends_it() {
    let machine = Machine::new();
    machine.login(&[]);
    let home = &machine.home;
    let messages = [
        json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "h", "version": "1" } } }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "slow", "arguments": { "ms": 60_000 } } }),
    ];
    let lines: Vec<_> = messages.iter().map(Value::to_string).collect();
    std::fs::write(home.beside("home").join("lines"), lines.join("\n") + "\n").unwrap();
    // The bridge has the one end of each pipe, and the host alone the other.
    let host = "mkfifo to from && exec 3<>to 4<>from && cat lines >&3 || exit
        (\"$0\" proxy \"$1\"; echo $? >code.new && mv code.new code) <to >from 3>&- 4>&- &
        exec sleep 600";
    let mut host = Command::new("sh")
        .args(["-c", host, env!("CARGO_BIN_EXE_pilotlight"), machine.url()])
        .env_clear()
        .env("HOME", home.beside("home"))
        .env("PILOTLIGHT_HOME", home.data())
        .env("PATH", std::env::var("PATH").unwrap())
        .current_dir(home.beside("home"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    called(&machine, 1);
    host.kill().unwrap();
    host.wait().unwrap();
    let code = home.beside("home").join("code");
    until("the bridge ends", Duration::from_secs(20), || {
        code.exists().then_some(())
    });
    assert_eq!(read(&code), "0\n");
    machine.assert_nothing_lost();
}

/// Waits until so many calls of tools have reached the server.
fn called(machine: &Machine, times: u64) {
    until("the call arrives", Duration::from_secs(20), || {
        let calls = machine.lab.with_mcp(|server| server.stats().tools);
        (calls == times).then_some(())
    });
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
        .block_on(ScriptedHuman::allows().visit(&url))
        .unwrap();
    bridge.welcomed();
    bridge.call("1");
    bridge.echoed("1");
    assert_eq!(browsers(&machine), 1);
    machine.assert_nothing_lost();
}

/// mcp-remote's `--auth-success-url` and `--auth-timeout`: the browser ends at that page, with nothing of the redirect; and whoever
/// does not come in time is told so.
#[test]
fn a_login_ends_at_the_page_and_the_time_that_were_given() {
    let page = "https://example.com/welcome";
    let asked = |machine: &Machine, more: &[&str]| {
        let mut bridge = Bridged::start(machine, more);
        bridge.begin();
        let url = until("a browser opens", Duration::from_secs(20), || {
            let urls = read(&machine.home.beside("bridge-browsers"));
            urls.lines().next().map(str::to_owned)
        });
        (bridge, url)
    };
    // Of its own: after a login that ended in vain no browser opens for five minutes.
    let machine = Machine::new();
    let (mut late, _) = asked(&machine, &["--auth-timeout", "1"]);
    let answer = late.answer_within("init", Duration::from_secs(20));
    assert_eq!(
        answer["error"]["data"]["code"], "login.abandoned",
        "{answer}"
    );

    let machine = Machine::new();
    let (mut bridge, url) = asked(&machine, &["--auth-success-url", page]);
    let shown = machine.block_on(async {
        let human = ScriptedHuman::allows();
        let callback = human.without_callback().visit(&url).await.unwrap();
        fetch::get(&callback).await.unwrap()
    });
    assert_eq!(shown.status, 303);
    assert_eq!(shown.header("location"), Some(page));
    bridge.welcomed();
    assert!(
        !bridge.errors().contains("without effect"),
        "{}",
        bridge.errors()
    );
}

/// Node's variable: a file that is not there is warned about, as Node.js does; one that holds no certificate is an error.
#[test]
fn extra_certificates_are_nodes() {
    let machine = Machine::new();
    machine.login(&[]);
    let file = machine.home.beside("roots.pem");
    let start = || Bridged::start_with(&machine, &[], &[("NODE_EXTRA_CA_CERTS", file.as_os_str())]);
    let mut bridge = start();
    bridge.begin();
    bridge.welcomed();
    assert!(
        bridge.errors().contains("NODE_EXTRA_CA_CERTS"),
        "{}",
        bridge.errors()
    );
    std::fs::write(&file, "no certificate").unwrap();
    let mut bridge = start();
    bridge.begin();
    let answer = bridge.answer("init");
    assert_eq!(answer["error"]["data"]["code"], "config.value", "{answer}");
}

/// What is configured for a server counts for the login of its bridge, too: the client that was made by hand, and its port; a
/// client in mcp-remote's flags takes its place.
#[test]
fn a_login_is_the_one_that_is_configured() {
    let machine = Machine::new();
    let config = machine.home.beside("config.toml");
    let server = format!(
        "[servers.here]\nurl = \"{}\"\nclient_id = \"by-hand\"\ncallback_port = 28085\n",
        machine.url()
    );
    std::fs::write(&config, server).unwrap();
    let asked_with = |more: &[&str], number: usize| {
        let mut args = vec!["--config", config.to_str().unwrap()];
        args.extend(more);
        let mut bridge = Bridged::start(&machine, &args);
        bridge.begin();
        until("a browser opens", Duration::from_secs(20), || {
            let urls = read(&machine.home.beside("bridge-browsers"));
            urls.lines().nth(number).map(str::to_owned)
        })
    };
    let url = asked_with(&[], 0);
    assert!(url.contains("client_id=by-hand&"), "{url}");
    assert!(url.contains("%3A28085%2F"), "{url}");
    let client = "{\"client_id\":\"typed\"}";
    let url = asked_with(&["--static-oauth-client-info", client], 1);
    assert!(url.contains("client_id=typed&"), "{url}");
}

/// Storm case (e), the drop-in contract: mcp-remote is logged in, and at our first start the authorization server is down. No
/// browser opens, then or later: its login is brought in as soon as that can be done.
#[test]
fn an_outage_at_the_first_start_opens_no_browser() {
    let machine = Machine::new();
    let tokens = tokens(&machine);
    theirs(&machine, "mcp-remote-v1", &tokens);
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

/// The help of the bridge has every flag that mcp-remote was seen to take.
#[test]
fn help_lists_the_flags() {
    let help = crate::support::Home::new()
        .run(["proxy", "--help"])
        .ok()
        .stdout;
    let seen: Value =
        serde_json::from_str(include_str!("../../src/mcp_remote/observed.json")).unwrap();
    let ran = seen["observed"].as_array().unwrap().iter();
    let ran = ran.filter(|row| row["did"] == "ran");
    let words: BTreeSet<&str> = ran
        .flat_map(|row| row["args"].as_array().unwrap())
        .filter_map(Value::as_str)
        // Two that it passes over: one that nobody knows, and what is no flag because of its `=`.
        .filter(|word| word.starts_with("--") && *word != "--unknown" && !word.contains('='))
        .collect();
    assert!(words.len() > 25, "{words:?}");
    for flag in words {
        assert!(
            help.lines()
                .any(|line| line.split_whitespace().next() == Some(flag)),
            "{flag} in {help}"
        );
    }
    assert!(help.contains("docs/guides/bridge.md"), "{help}");
}
