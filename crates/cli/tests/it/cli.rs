//! Bad input and interrupted logins: each gets its typed error, and nothing that was there is lost.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pilotlight_testkit::faults::Endpoint;
use pilotlight_testkit::{Fault, Lab, LabConfig, ScriptedHuman};
use tokio::runtime::Runtime;

use crate::support::{Home, Outcome, Run, read, until};
use crate::wire::Answers;

/// A home with a loopback issuer and MCP server, and a person whom the test plays.
pub(crate) struct Machine {
    pub(crate) home: Home,
    pub(crate) lab: Lab,
    runtime: Runtime,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(LabConfig::default())
    }

    pub(crate) fn with(config: LabConfig) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let lab = runtime
            .block_on(Lab::start(config))
            .expect("the lab starts");
        Self {
            home: Home::new(),
            lab,
            runtime,
        }
    }

    /// Waits for something that needs a runtime.
    pub(crate) fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    /// Begins something that goes on beside the test.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(work)
    }

    /// The MCP server's URL.
    pub(crate) fn url(&self) -> &str {
        self.lab.resource_url()
    }

    /// A login whose browser only notes the URL; [`Self::answer`] is the person.
    pub(crate) fn start_login(&self, more: &[&str]) -> Run {
        let note = self.urls();
        let browser = self
            .home
            .script("browser", &format!("echo \"$1\" >>'{}'", note.display()));
        let browser = browser.to_str().unwrap();
        let args = ["login", self.url(), "--browser-command", browser, "--json"];
        self.home.pilotlight(args).with(more)
    }

    /// Waits for the next URL that a browser was sent to, and opens it.
    pub(crate) fn answer(&self, human: ScriptedHuman) {
        let url = until("a browser opens", Duration::from_secs(20), || {
            read(&self.urls()).lines().next().map(str::to_owned)
        });
        fs::remove_file(self.urls()).unwrap();
        self.runtime.block_on(human.visit(&url)).expect("the visit");
    }

    /// How many browsers were opened and not yet answered.
    pub(crate) fn waiting_browsers(&self) -> usize {
        read(&self.urls()).lines().count()
    }

    fn urls(&self) -> PathBuf {
        self.home.beside("urls")
    }

    pub(crate) fn login(&self, more: &[&str]) {
        let login = self.start_login(more).start();
        self.answer(ScriptedHuman::allows());
        login.wait().ok();
    }

    pub(crate) fn call(&self) -> Outcome {
        let args = ["call", self.url(), "whoami", "--json"];
        self.home.run(args)
    }

    /// What each test of a bad thing ends with: the session that was there before still works, and nothing leaked.
    pub(crate) fn assert_nothing_lost(&self) {
        let logins = self.lab.with_issuer(|issuer| issuer.stats().code_ok);
        self.call().ok();
        let after = self.lab.with_issuer(|issuer| issuer.stats().code_ok);
        assert_eq!(after, logins, "without another login");
        let secrets = self
            .lab
            .with_issuer(|issuer| issuer.issued_secrets().to_vec());
        self.home.assert_no_leak(&secrets);
    }
}

/// AUTH-69, AUTH-101: what is no URL, or http to somewhere else, is refused before anything is sent.
#[test]
fn a_url_that_cannot_be_a_server_is_a_mistake_of_ours() {
    let home = Home::new();
    for url in [
        "https://",
        "https://exa mple.com/",
        "ftp://example.com/mcp",
        "http://example.com/mcp",
        "javascript:alert(1)",
    ] {
        home.run(["login", url, "--json"]).refused(2, "config.url");
    }
}

#[test]
fn an_unknown_target_is_named() {
    let machine = Machine::new();
    machine.login(&[]);
    let error = machine
        .home
        .run(["call", "nowhere", "whoami", "--json"])
        .refused(2, "config.target_unknown");
    assert!(
        error["message"].as_str().unwrap().contains("nowhere"),
        "{error}"
    );
    machine.assert_nothing_lost();
}

/// F-12: nobody there is a reason to try later, not to log in.
#[test]
fn a_host_that_does_not_answer_is_unavailable() {
    let home = Home::new();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{free}/mcp");
    login(&home, &url).refused(75, "unavailable.network");
}

#[test]
fn a_server_without_oauth_is_told_so() {
    let nothing = ["404 Not Found", "text/plain", "no"];
    for mcp in [["200 OK", "application/json", "{}"], nothing] {
        let server = Answers::start(mcp, nothing);
        login(&Home::new(), &server.url()).refused(5, "peer.no_oauth");
    }
}

/// AUTH-17, T-22: a page in place of the server's metadata, or of the issuer's, is no metadata.
#[test]
fn html_where_metadata_should_be_is_refused() {
    const PAGE: &str = "<!doctype html><title>Welcome to our Wi-Fi</title>";
    let page = ["200 OK", "text/html", PAGE];
    let captive = Answers::start(["401 Unauthorized", "text/html", PAGE], page);
    login(&Home::new(), &captive.url()).refused(5, "peer.metadata_invalid");

    let machine = Machine::new();
    machine.lab.with_issuer(|issuer| {
        let page = Fault::Raw200 {
            body: PAGE.to_owned(),
            content_type: Some("text/html".to_owned()),
        };
        issuer.set_standing_fault(Endpoint::Metadata, Some(page));
    });
    machine
        .start_login(&[])
        .run()
        .refused(5, "peer.metadata_invalid");
    assert_eq!(machine.waiting_browsers(), 0, "nobody was asked");
    machine.lab.with_issuer(|issuer| issuer.clear_faults());
    machine.login(&[]);
    machine.assert_nothing_lost();
}

/// T-06: the port that was asked for is taken: said before anybody is asked, and never another port instead.
#[test]
fn a_callback_port_that_is_taken() {
    let machine = Machine::new();
    machine.login(&[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = machine
        .start_login(&["--callback-port", &port, MORE[0], MORE[1]])
        .run()
        .refused(2, "config.callback_port");
    assert!(
        error["message"].as_str().unwrap().contains(&port),
        "{error}"
    );
    assert_eq!(machine.waiting_browsers(), 0, "nobody was asked");
    machine.assert_nothing_lost();
}

/// AUTH-61: the person says no. The login that was there stays.
#[test]
fn a_denied_consent() {
    let machine = Machine::with(LabConfig::default().with(|lab| {
        lab.authorization_server.approval =
            pilotlight_testkit::authorization_server::Approval::Page;
    }));
    machine.login(&[]);
    let login = machine.start_login(MORE).start();
    machine.answer(ScriptedHuman::denies());
    login.wait().refused(4, "denied.by_human");
    machine.assert_nothing_lost();
}

/// The browser was closed: the person's time runs out.
#[test]
fn a_closed_browser_ends_the_login_when_its_time_is_over() {
    let machine = Machine::new();
    machine.login(&[]);
    let login = machine.start_login(&["--timeout", "1s", MORE[0], MORE[1]]);
    login.run().refused(3, "login.abandoned");
    machine.assert_nothing_lost();
}

/// F-03: nobody answers, the person presses Ctrl-C.
#[test]
fn ctrl_c_while_the_browser_is_open() {
    let machine = Machine::new();
    machine.login(&[]);
    let login = machine.start_login(MORE).start();
    until("the browser opens", Duration::from_secs(20), || {
        (machine.waiting_browsers() == 1).then_some(())
    });
    login.interrupt();
    let outcome = login.wait();
    assert!(
        outcome.code == Some(130) && outcome.took < Duration::from_secs(20),
        "{outcome:#?}"
    );
    machine.assert_nothing_lost();
    fs::remove_file(machine.urls()).unwrap();
    machine.login(MORE);
    machine.assert_nothing_lost();
}

/// F-03: who stops a loop is told what it has come to: the same result as at its end.
#[test]
fn ctrl_c_in_a_loop_tells_the_tally() {
    let machine = Machine::new();
    machine.login(&[]);
    let posts = || machine.lab.with_mcp(|server| server.stats().posts);
    let before = posts();
    let args = ["call", machine.url(), "whoami", "--json"];
    let pace = ["--every", "50ms", "--for", "60s"];
    let looping = machine.home.pilotlight(args).with(&pace).start();
    until("some calls are made", Duration::from_secs(20), || {
        (posts() > before + 12).then_some(())
    });
    looping.interrupt();
    let outcome = looping.wait();
    outcome.refused(130, "interrupted");
    let tally = outcome.json();
    assert!(tally["calls"].as_u64() >= Some(3), "{tally}");
    assert_eq!(tally["failed_calls"], 0, "{tally}");
    machine.assert_nothing_lost();
}

/// F-03: the same, by SIGKILL: the lock goes with the process.
#[test]
fn a_login_killed_while_the_browser_is_open_blocks_nobody() {
    let machine = Machine::new();
    let mut login = machine.start_login(&[]).start();
    until("the browser opens", Duration::from_secs(20), || {
        (machine.waiting_browsers() == 1).then_some(())
    });
    assert!(login.kill());
    assert_eq!(login.wait().code, None, "it was killed");
    fs::remove_file(machine.urls()).unwrap();
    machine.call().refused(3, "login.never");
    machine.login(&[]);
    machine.assert_nothing_lost();
}

/// F-01: the second waits for the first and takes its outcome; with `--no-interactive` it does not wait.
#[test]
fn two_logins_at_once() {
    let machine = Machine::new();
    let first = machine.start_login(&[]).start();
    until("the browser opens", Duration::from_secs(20), || {
        (machine.waiting_browsers() == 1).then_some(())
    });
    let error = machine
        .home
        .run(["login", machine.url(), "--no-interactive", "--json"])
        .refused(75, "unavailable.login_in_progress");
    let pid = first.pid().to_string();
    assert!(
        error["message"].as_str().unwrap().contains(&pid),
        "it names the holder: {error}"
    );
    let second = machine.start_login(&[]).start();
    let started = Instant::now();
    until(
        "the second has had time to do something silly",
        Duration::from_secs(5),
        || {
            assert_eq!(machine.waiting_browsers(), 1, "one browser for both");
            (started.elapsed() > Duration::from_secs(1)).then_some(())
        },
    );
    machine.answer(ScriptedHuman::allows());
    first.wait().ok();
    second.wait().ok();
    assert_eq!(machine.lab.with_issuer(|issuer| issuer.stats().code_ok), 1);
    machine.assert_nothing_lost();
}

/// The candidates are named; nothing is guessed.
#[test]
fn an_ambiguous_target() {
    let machine = Machine::new();
    machine.login(&["--name", "tracker-one", "--account", "home"]);
    machine.login(&["--account", "work"]);
    let error = machine
        .home
        .run(["call", machine.url(), "whoami", "--json"])
        .refused(2, "config.target_ambiguous");
    for account in ["home", "work"] {
        assert!(
            error["message"].as_str().unwrap().contains(account),
            "{error}"
        );
    }
    machine
        .home
        .run(["call", "tracker-one@work", "whoami", "--json"])
        .ok();
    machine
        .home
        .run(["call", "track@home", "whoami", "--json"])
        .ok();
}

#[test]
fn a_call_before_any_login_says_which_command_to_run() {
    let machine = Machine::new();
    let error = machine.call().refused(3, "login.never");
    let hint = error["hint"].as_str().unwrap();
    assert!(
        hint.contains(&format!("pilotlight login {}", machine.url())),
        "{error}"
    );
    assert_eq!(error["action"], "log_in", "{error}");
}

/// A second login that asks for the same within seconds takes the first one's outcome; for more, it asks the person.
const MORE: &[&str] = &["--scope", "mcp:admin"];

/// A login whose browser would do nothing: it is to fail before.
fn login(home: &Home, url: &str) -> Outcome {
    home.run(["login", url, "--browser-command", "/bin/true", "--json"])
}
