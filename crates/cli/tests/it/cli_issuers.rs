//! Issuers through the command line: servers that change theirs, metadata that names another, answers from a stranger.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use pilotlight_testkit::authorization_server::{IssueRefreshToken, SendIss};
use pilotlight_testkit::{Lab, LabConfig, ScriptedHuman};
use serde_json::json;

use crate::cli::Machine;
use crate::support::{Home, Outcome, until};

/// A login in words, not in JSON: what a person reads.
fn reads(machine: &Machine, more: &[&str]) -> Outcome {
    let note = machine.home.beside("urls");
    let browser = machine
        .home
        .script("browser", &format!("echo \"$1\" >>'{}'", note.display()));
    let args = [
        "login",
        machine.url(),
        "--browser-command",
        browser.to_str().unwrap(),
    ];
    let login = machine.home.pilotlight(args).with(more).start();
    machine.answer(ScriptedHuman::allows());
    login.wait()
}

fn names(machine: &Machine, says: &str) {
    let (overrides, send) = (json!({ "issuer": says }), SendIss::Other(says.into()));
    machine.lab.with_issuer(|issuer| {
        let config = issuer.config_mut();
        (config.metadata_overrides, config.send_iss) = (overrides, send);
    });
}

/// T-17, AUTH-23: metadata that names another issuer is refused, and the hint is the flag that accepts just these two. With it, and from
/// then on without, the login works; `status` says so, and taking it back is the same flag.
#[test]
fn an_issuer_that_names_another_is_accepted_by_hand_alone() {
    let machine = Machine::new();
    let inner = format!("{}/inner", machine.lab.issuer());
    names(&machine, &inner);
    let flag = format!("{}={inner}", machine.lab.issuer());
    let refused = machine.start_login(&[]).run();
    let error = refused.refused(5, "peer.issuer_mismatch");
    let hint = format!("pilotlight login {} --accept-issuer {flag}", machine.url());
    assert_eq!(error["hint"], hint.as_str());
    assert_eq!(machine.waiting_browsers(), 0);

    machine.login(&["--accept-issuer", &flag]);
    machine.call().ok();
    let session = machine.home.session();
    assert_eq!(session["accept_issuer"], flag.as_str());
    assert_eq!(session["flags"], json!(["issuer exception"]));
    assert_eq!(
        session["issuer"],
        machine.lab.issuer(),
        "as the server names it"
    );
    let status = machine.home.run(["status"]).ok().stdout;
    assert!(
        status.contains(&flag) && status.contains("issuer exception"),
        "{status}"
    );

    names(&machine, &format!("{inner}/other"));
    // A login that was just made is adopted by another within ten seconds, unless it asks for something else.
    let other = ["--accept-issuer", &format!("{flag}x")];
    machine
        .start_login(&other)
        .run()
        .refused(5, "peer.issuer_mismatch");
    machine.call().ok();
    assert_eq!(
        machine.home.session()["accept_issuer"],
        flag.as_str(),
        "a login that failed changes nothing"
    );

    machine.lab.with_issuer(|issuer| {
        let config = issuer.config_mut();
        (config.metadata_overrides, config.send_iss) = (json!({}), SendIss::Issuer);
    });
    let none = format!("{0}={0}", machine.lab.issuer());
    machine.login(&["--accept-issuer", &none]);
    assert_eq!(machine.home.session()["accept_issuer"], json!(null));
}

/// T-17: what is no such pair is refused before anything is done; in the configuration, too.
#[test]
fn an_exception_is_two_issuers() {
    let home = Home::new();
    for wrong in [
        "",
        "https://a.example",
        "https://a.example=http://b.example",
        "a=b=c",
    ] {
        let login = home.run([
            "login",
            "https://x.example",
            "--accept-issuer",
            wrong,
            "--json",
        ]);
        assert_eq!(login.code, Some(2), "{login:?}");
    }
    std::fs::create_dir_all(home.data()).unwrap();
    let config = home.beside("config.toml");
    let text =
        "[servers.x]\nurl = \"https://x.example/mcp\"\naccept_issuer = \"https://a.example\"\n";
    std::fs::write(&config, text).unwrap();
    let listed = home.run(["list", "--config", config.to_str().unwrap(), "--json"]);
    let error = listed.refused(2, "config.value");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("PUBLISHED=METADATA"),
        "{error}"
    );
}

/// T-17, AUTH-15: issuer and exception may stand in the configuration, with the server.
#[test]
fn the_configuration_names_issuer_and_exception() {
    let machine = Machine::new();
    let inner = format!("{}/inner", machine.lab.issuer());
    names(&machine, &inner);
    machine.lab.with_mcp(|server| {
        server
            .config_mut()
            .authorization_servers
            .insert(0, "https://first.example".into());
    });
    let config = machine.home.beside("config.toml");
    let text = format!(
        "[servers.lab]\nurl = \"{0}\"\nissuer = \"{1}\"\naccept_issuer = \"{1}={inner}\"\n",
        machine.url(),
        machine.lab.issuer()
    );
    std::fs::write(&config, text).unwrap();
    machine.login(&["--config", config.to_str().unwrap()]);
    machine.call().ok();
    assert_eq!(machine.home.session()["issuer"], machine.lab.issuer());
}

/// AUTH-16, AUTH-40, T-15, T-20: a server that changes its issuer: `call` ends with both names and exit 3, `status` has the cause, the
/// prompt of the next login names both, and its history says so. Back again nobody is asked.
#[test]
fn a_person_is_told_that_the_issuer_has_changed() {
    let machine = Machine::with(LabConfig::default().with(|lab| {
        lab.authorization_server.issue_refresh_token = IssueRefreshToken::Never;
        lab.authorization_server.access_ttl = Duration::from_secs(3600);
    }));
    let new = machine.block_on(Lab::start(LabConfig::default().with(|lab| {
        lab.authorization_server.keep_requests = true;
        lab.authorization_server.seed = 9;
    })));
    let new = new.expect("another issuer");
    machine.login(&[]);
    machine.call().ok();
    machine.lab.trust(&new);

    let error = machine.call().refused(3, "login.issuer_changed");
    let message = error["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains(machine.lab.issuer()) && message.contains(new.issuer()),
        "{message}"
    );
    assert_eq!(error["hint"], "pilotlight login 127.0.0.1");

    let done = reads(&machine, &["--timeout", "30s"]).ok();
    for issuer in [machine.lab.issuer(), new.issuer()] {
        assert!(done.stderr.contains(issuer), "{}", done.stderr);
    }
    assert!(
        done.stderr.contains("Approve only if you expected that."),
        "{}",
        done.stderr
    );
    machine.call().ok();
    let [event] = &machine.home.events(machine.url(), "logged_in")[..] else {
        panic!("one login at this issuer")
    };
    assert_eq!(event["former_issuer"], machine.lab.issuer());
    let why = machine.home.run(["why", machine.url()]).ok().stdout;
    assert!(
        why.contains(&format!("instead of {}", machine.lab.issuer())),
        "{why}"
    );

    machine.lab.trust(&machine.lab);
    machine.call().refused(3, "login.issuer_changed");
    // The choice makes it another login than the one of a moment ago.
    let back = machine.home.run([
        "login",
        machine.url(),
        "--issuer",
        machine.lab.issuer(),
        "--json",
        "--browser-command",
        "/bin/false",
    ]);
    let back = back.ok().json();
    assert_eq!(back["login"]["former_issuer"], new.issuer());
    machine.call().ok();
    let secrets = machine
        .lab
        .with_issuer(|issuer| issuer.issued_secrets().to_vec());
    let heard = new.with_issuer(|issuer| issuer.heard().to_vec());
    assert!(!heard.iter().any(|request| {
        secrets
            .iter()
            .any(|secret| request.contains(secret.as_str()))
    }));
    machine.home.assert_no_leak(&secrets);
}

/// AUTH-15, AUTH-41: an issuer that the server does not name is refused with those that it names, and a client that somebody brought is
/// not tried out among several.
#[test]
fn an_issuer_is_chosen_among_those_that_are_named() {
    let machine = Machine::new();
    let unnamed = ["--issuer", "https://unnamed.example"];
    let error = machine
        .start_login(&unnamed)
        .run()
        .refused(2, "config.value");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(machine.lab.issuer()), "{message}");
    machine.lab.with_mcp(|server| {
        server
            .config_mut()
            .authorization_servers
            .push("https://second.example".into());
    });
    let error = machine
        .start_login(&["--client-id", "mine"])
        .run()
        .refused(2, "config.value");
    let hint = format!("pilotlight login {} --issuer ISSUER", machine.url());
    assert_eq!(error["hint"], hint.as_str());
    assert_eq!(machine.waiting_browsers(), 0);
    machine.login(&["--issuer", machine.lab.issuer()]);
    machine.call().ok();
}

/// AUTH-65, T-05, T-09: an error answer that does not come from the issuer is not acted on, and its text is shown nowhere: not on the
/// terminal, not in a log however detailed, not in the history, not on the page in the browser.
#[test]
fn the_text_of_a_strangers_error_is_shown_nowhere() {
    let canaries = ["canary-error", "canary-description", "canary-uri"];
    for iss in [Some("https://evil.example"), None] {
        let machine = Machine::new();
        machine.login(&[]);
        let log = machine.home.beside("log");
        let login = machine
            .start_login(&["-vvv", "--scope", "mcp:admin"])
            .env("PILOTLIGHT_LOG", &log)
            .env("RUST_LOG", "trace")
            .start();
        let shown = until("a browser opens", Duration::from_secs(20), || {
            let urls = std::fs::read_to_string(machine.home.beside("urls")).ok()?;
            urls.lines().next().map(str::to_owned)
        });
        let page = redirect(&shown, iss, &canaries);
        let ended = login.wait();
        let error = ended.refused(5, "peer.issuer_mismatch");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains(machine.lab.issuer())
        );
        let why = machine
            .home
            .run(["why", machine.url(), "--json"])
            .ok()
            .stdout;
        let mut said = vec![page, ended.stdout, ended.stderr, why];
        said.push(std::fs::read_to_string(&log).unwrap_or_default());
        let files = machine.home.files();
        said.extend(
            files
                .iter()
                .map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()),
        );
        for canary in canaries {
            assert!(
                !said.iter().any(|text| text.contains(canary)),
                "{canary}: {said:#?}"
            );
        }
        machine.assert_nothing_lost();
    }
}

/// Sends the browser back with an error, as this issuer; the page that it sees.
fn redirect(shown: &str, iss: Option<&str>, canaries: &[&str; 3]) -> String {
    let shown = url::Url::parse(shown).unwrap();
    let of = |name: &str| {
        let mut pairs = shown.query_pairs();
        pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
    };
    let mut back = url::Url::parse(&of("redirect_uri")).unwrap();
    let [error, description, uri] = canaries;
    back.query_pairs_mut()
        .append_pair("state", &of("state"))
        .append_pair("error", error)
        .append_pair("error_description", description)
        .append_pair("error_uri", uri);
    if let Some(iss) = iss {
        back.query_pairs_mut().append_pair("iss", iss);
    }
    let address = (back.host_str().unwrap(), back.port().unwrap());
    let mut stream = TcpStream::connect(address).unwrap();
    let path = &back[url::Position::BeforePath..];
    let host = &back[url::Position::BeforeHost..url::Position::AfterPort];
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}
