//! Logins without a desktop: on another device, and where the redirect arrives when the browser is far away.

use std::net::TcpListener;
use std::time::Duration;

use pilotlight_testkit::authorization_server::DeviceRules;
use pilotlight_testkit::{Lab, LabConfig, ScriptedHuman};
use tokio::runtime::Runtime;

use crate::support::{Home, Run, Running, read, until};

const SOON: Duration = Duration::from_secs(20);

/// A home on a machine without a display, and an issuer.
struct Machine {
    home: Home,
    lab: Lab,
    runtime: Runtime,
}

impl Machine {
    fn new(expires_in: Option<u64>) -> Self {
        let config = LabConfig::default().with(|lab| {
            lab.authorization_server.device = expires_in.map(|seconds| DeviceRules {
                interval: Duration::from_secs(1),
                expires_in: Duration::from_secs(seconds),
            });
        });
        let runtime = Runtime::new().unwrap();
        let lab = runtime.block_on(Lab::start(config)).unwrap();
        let home = Home::new();
        Self { home, lab, runtime }
    }

    fn login(&self, more: &[&str]) -> Run {
        let args = ["login", self.lab.resource_url(), "--json"];
        self.home.pilotlight(args).with(more)
    }

    /// The code that a login shows, which is the one that the issuer waits for.
    fn code(&self, login: &Running) -> String {
        until("a code is shown", SOON, || {
            let said = login.said();
            let codes = self.lab.with_issuer(|issuer| issuer.user_codes());
            codes.into_iter().find(|code| said.contains(code))
        })
    }

    fn decide(&self, code: &str, allow: bool) {
        let now = self.lab.clock().now_ms();
        let known = self
            .lab
            .with_issuer(|issuer| issuer.decide_device(now, code, allow));
        assert!(known, "{code}");
    }

    fn begun(&self) -> u64 {
        self.lab.with_issuer(|issuer| issuer.stats().device)
    }

    fn call(&self) {
        let args = ["call", self.lab.resource_url(), "whoami", "--json"];
        self.home.run(args).ok();
    }

    fn assert_no_leak(&self) {
        let secrets = self
            .lab
            .with_issuer(|issuer| issuer.issued_secrets().to_vec());
        self.home.assert_no_leak(&secrets);
    }

    /// The person at a browser, wherever that is.
    fn approve(&self, url: &str) {
        let visit = ScriptedHuman::allows().visit(url);
        self.runtime.block_on(visit).unwrap();
    }

    /// The same run at the far end of an SSH session.
    fn over_ssh(&self, run: Run) -> Run {
        let run = self.at_terminal(run);
        run.env("SSH_CONNECTION", "192.0.2.1 1 192.0.2.2 22")
    }

    /// The same run at a terminal of its own.
    fn at_terminal(&self, run: Run) -> Run {
        let line = format!(
            "exec script -qec \"'{}' $(printf \"'%s' \" \"$@\")\" /dev/null",
            env!("CARGO_BIN_EXE_pilotlight")
        );
        run.through(&self.home.script("terminal", &line))
    }
}

/// RFC 8628, T-33: the page and the code are shown, what is typed in there logs in here, and the login works. No secret is
/// printed.
#[test]
fn a_login_on_another_device() {
    let machine = Machine::new(Some(60));
    let login = machine.login(&["--device"]).start();
    let code = machine.code(&login);
    let page = format!("{}/device/page", machine.lab.issuer());
    let said = login.said();
    assert!(said.contains(&format!("\n  {page}\n")), "{said}");
    assert!(said.contains(&format!("\n  {code}\n")), "{said}");
    assert!(!said.contains("/authorize"), "{said}");
    machine.decide(&code, true);
    let done = login.wait().ok().json();
    assert_eq!(done["login"]["adopted"], false, "{done}");
    assert_eq!(done["login"]["state"], "ok", "{done}");
    machine.call();
    let stats = machine.lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!((stats.device, stats.authorize), (1, 0));
    machine.assert_no_leak();
}

/// F-01: of three processes one shows a code, and all of them go on when it is typed in.
#[test]
fn whoever_waits_goes_on() {
    let machine = Machine::new(Some(60));
    let logins: Vec<_> = (0..3)
        .map(|_| machine.login(&["--device"]).start())
        .collect();
    let code = until("a code is shown", SOON, || {
        let codes = machine.lab.with_issuer(|issuer| issuer.user_codes());
        let said: String = logins.iter().map(Running::said).collect();
        codes.into_iter().find(|code| said.contains(code))
    });
    machine.decide(&code, true);
    let done: Vec<_> = logins.into_iter().map(|login| login.wait().ok()).collect();
    let shown = done.iter().filter(|one| one.stderr.contains(&code));
    assert_eq!((shown.count(), machine.begun()), (1, 1));
    let adopted = done
        .iter()
        .filter(|one| one.json()["login"]["adopted"] == true);
    assert_eq!(adopted.count(), 2);
    machine.call();
    machine.assert_no_leak();
}

/// RFC 8628 section 3.5: each end has its own exit code, and what to do next.
#[test]
fn each_end_is_told() {
    let machine = Machine::new(Some(60));
    let login = machine.login(&["--device"]).start();
    machine.decide(&machine.code(&login), false);
    login.wait().refused(4, "denied.by_human");
    let login = machine.login(&["--device", "--timeout", "2s"]).run();
    login.refused(3, "login.abandoned");
    let machine = Machine::new(Some(2));
    let login = machine.login(&["--device"]).run();
    login.refused(3, "login.abandoned");
    let machine = Machine::new(None);
    let error = machine.login(&["--device"]).run();
    let error = error.refused(5, "peer.no_device_login");
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.ends_with(" --paste"), "{error}");
}

/// F-05: Ctrl-C while the person is awaited loses nothing, and leaves no lock behind.
#[test]
fn an_interrupted_login_leaves_nothing_behind() {
    let machine = Machine::new(Some(60));
    let login = machine.login(&["--device"]).start();
    machine.code(&login);
    login.interrupt();
    login.wait().refused(130, "interrupted");
    let login = machine.login(&["--device"]).start();
    let code = until("the second code", SOON, || {
        let codes = machine.lab.with_issuer(|issuer| issuer.user_codes());
        codes.into_iter().find(|code| login.said().contains(code))
    });
    machine.decide(&code, true);
    login.wait().ok();
    machine.call();
}

/// Where no browser is likely, another device is first, without a flag; where the issuer does not offer that, or a place for
/// the redirect was named, all is as it was. In a script nobody is asked.
#[test]
fn without_a_display_another_device_is_first() {
    let machine = Machine::new(Some(60));
    let login = machine.over_ssh(machine.login(&[])).start();
    machine.decide(&machine.code(&login), true);
    login.wait().ok();
    machine.call();

    let machine = Machine::new(Some(60));
    machine.login(&[]).run().refused(3, "login.never");
    let port = free_port();
    let login = machine.login(&["--callback-port", &port]);
    let login = machine.over_ssh(login).start();
    let url = url(&login);
    assert!(url.contains(&format!("127.0.0.1%3A{port}%2F")), "{url}");
    machine.approve(&url);
    login.wait().ok();
    assert_eq!(machine.begun(), 0);

    let machine = Machine::new(None);
    let login = machine.over_ssh(machine.login(&[])).start();
    machine.approve(&self::url(&login));
    login.wait().ok();
}

/// AUTH-36, AUTH-66, T-06: the redirect arrives at the host and the port that were named, registered as such, on either family:
/// so `ssh -L PORT:HOST:PORT` brings it here.
#[test]
fn the_redirect_arrives_where_it_was_named() {
    for (host, in_url) in [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("[::1]", "%5B%3A%3A1%5D"),
    ] {
        if host == "[::1]" && TcpListener::bind("[::1]:0").is_err() {
            eprintln!("not run: this machine has no IPv6");
            continue;
        }
        let machine = Machine::new(None);
        let port = free_port();
        let note = machine.home.beside("url");
        let browser = machine
            .home
            .script("browser", &format!("echo \"$1\" >'{}'", note.display()));
        let flags = ["--callback-host", host, "--callback-port", &port];
        let browser = ["--browser-command", browser.to_str().unwrap()];
        let login = machine
            .login(&[flags.as_slice(), &browser].concat())
            .start();
        let url = until("a browser opens", SOON, || {
            read(&note).lines().next().map(str::to_owned)
        });
        let want = format!("redirect_uri=http%3A%2F%2F{in_url}%3A{port}%2Fcallback");
        assert!(url.contains(&want), "{url}");
        machine.approve(&url);
        login.wait().ok();
        machine.call();
    }
}

/// No two ways at once.
#[test]
fn another_device_excludes_the_other_ways() {
    let machine = Machine::new(Some(60));
    for other in ["--browser", "--paste", "--no-interactive"] {
        let run = machine.login(&["--device", other]).run();
        assert_eq!(run.code, Some(2), "{other}");
    }
    for (flag, value) in [("--callback-port", "1"), ("--callback-host", "localhost")] {
        let run = machine.login(&["--device", flag, value]).run();
        assert_eq!(run.code, Some(2), "{flag}");
    }
    let run = machine.login(&["--callback-host", "192.0.2.1"]).run();
    assert_eq!(run.code, Some(2));
    assert_eq!(machine.begun(), 0);
}

/// RFC 8628: `device = true` in the configuration makes another device the way to log in to that server, although a browser is
/// at hand; a flag of the command counts for more, and where nobody looks nobody is asked. `device = false` turns it off where
/// it would be first.
#[test]
fn another_device_is_configured_for_a_server() {
    let machine = Machine::new(Some(60));
    let config = machine.home.beside("config.toml");
    let configure = |value: bool| {
        let url = machine.lab.resource_url();
        let text = format!("[servers.lab]\nurl = \"{url}\"\ndevice = {value}\n");
        std::fs::write(&config, text).unwrap();
    };
    let flags = ["--config", config.to_str().unwrap()];
    configure(true);
    let browser = machine.home.script("browser", "exit 1");
    let login = machine.at_terminal(machine.login(&flags).env("BROWSER", &browser));
    let login = login.start();
    machine.decide(&machine.code(&login), true);
    login.wait().ok();
    machine.call();

    let more = ["--scope", "mcp:admin"];
    let nobody = machine.login(&[&flags[..], &more].concat()).run();
    nobody.refused(3, "login.never");
    let paste = [&flags[..], &more, &["--paste"]].concat();
    let login = machine.at_terminal(machine.login(&paste)).start();
    machine.approve(&url(&login));
    login.wait().ok();
    let free = free_port();
    let port = ["--callback-port", &free, "--scope", "mcp:tools"];
    let port = [&flags[..], &port].concat();
    let login = machine.over_ssh(machine.login(&port)).start();
    machine.approve(&url(&login));
    login.wait().ok();
    assert_eq!(machine.begun(), 1);

    configure(false);
    let other = [
        &flags[..],
        &["--scope", "mcp:admin", "--scope", "mcp:tools"],
    ]
    .concat();
    let login = machine.over_ssh(machine.login(&other)).start();
    machine.approve(&url(&login));
    login.wait().ok();
    assert_eq!(machine.begun(), 1);
    machine.assert_no_leak();
}

fn free_port() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port().to_string()
}

/// The URL that a login shows.
fn url(login: &Running) -> String {
    until("a URL is shown", SOON, || {
        let said = login.said();
        let mut words = said.split_whitespace();
        words
            .find(|word| word.contains("/authorize?") && word.contains("state="))
            .map(str::to_owned)
    })
}
