//! Two builds of the program on one store: the previous one, from this repository's history, and this one.
//!
//! The tests run only where `PILOTLIGHT_PREVIOUS` is the path of the previous build's binary (`./test previous` builds the
//! commit that `compat/previous` names, and sets it). The issuer's own counters judge: a refresh token that is presented
//! twice is a session lost, whichever build did it. What the previous build does below `min_writer` is tested where a
//! header can be signed, with the store (`corpus.rs` of the client).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pilotlight_testkit::authorization_server::Stats;
use pilotlight_testkit::faults::Endpoint;
use pilotlight_testkit::{Fault, Lab, LabConfig, ScriptedHuman};
use tokio::runtime::Runtime;

use crate::peers::Calls;
use crate::support::{Home, Outcome, Run, read, until};

/// Which build runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    Previous,
    Present,
}

use Build::{Present, Previous};

/// One home that both builds use, and a loopback issuer and MCP server.
struct Shared {
    home: Home,
    lab: Lab,
    runtime: Runtime,
    previous: PathBuf,
}

impl Shared {
    /// `None` where there is no previous build.
    fn start(access_ttl: u64, reuse_grace: Option<u64>) -> Option<Self> {
        let Some(previous) = std::env::var_os("PILOTLIGHT_PREVIOUS") else {
            eprintln!("not run: needs PILOTLIGHT_PREVIOUS, as ./test sets it");
            return None;
        };
        let config = LabConfig::default().with(|lab| {
            lab.authorization_server.access_ttl = Duration::from_secs(access_ttl);
            lab.authorization_server.reuse_grace = reuse_grace.map(Duration::from_secs);
        });
        let runtime = Runtime::new().expect("a runtime");
        let lab = runtime
            .block_on(Lab::start(config))
            .expect("the lab starts");
        Some(Self {
            home: Home::new(),
            lab,
            runtime,
            previous: previous.into(),
        })
    }

    fn run(&self, build: Build, args: &[&str]) -> Run {
        let run = self.home.pilotlight(args).with(&["--json"]);
        match build {
            Previous => run.through(&self.previous),
            Present => run,
        }
    }

    fn login(&self, build: Build) {
        let urls = self.home.beside("urls");
        let browser = self
            .home
            .script("browser", &format!("echo \"$1\" >>'{}'", urls.display()));
        let browser = browser.to_str().unwrap();
        let args = ["login", self.url(), "--browser-command", browser];
        let login = self.run(build, &args).start();
        let url = until("a browser opens", Duration::from_secs(20), || {
            read(&urls).lines().next().map(str::to_owned)
        });
        fs::remove_file(urls).unwrap();
        let visit = ScriptedHuman::allows().visit(&url);
        self.runtime.block_on(visit).expect("the visit");
        login.wait().ok();
    }

    fn call(&self, build: Build) -> Outcome {
        self.run(build, &["call", self.url(), "whoami"]).run()
    }

    fn refresh(&self, build: Build) -> Outcome {
        let args = ["refresh", self.url(), "--force"];
        self.run(build, &args).run().ok()
    }

    /// Calls over and over for so many seconds.
    fn calls(&self, build: Build, seconds: u64) -> Run {
        let (text, during) = (format!("text={build:?}"), format!("{seconds}s"));
        let every = ["--every", "100ms", "--for", during.as_str()];
        let args = ["call", self.url(), "echo", text.as_str()];
        self.run(build, &[&args[..], &every].concat())
            .within(Duration::from_secs(seconds + 30))
    }

    /// `pilotlight` of this build on a disk that is full: no file may grow beyond what a spool slot has.
    fn full_disk(&self, args: &[&str]) -> Run {
        let pilotlight = env!("CARGO_BIN_EXE_pilotlight");
        // The signal that comes with the refusal would end the process.
        let body = format!("trap '' XFSZ; ulimit -f 32; exec '{pilotlight}' \"$@\"");
        let full = self.home.script("full", &body);
        self.run(Present, args).through(&full)
    }

    fn url(&self) -> &str {
        self.lab.resource_url()
    }

    fn issuer(&self) -> Stats {
        self.lab.with_issuer(|issuer| issuer.stats().clone())
    }

    /// What each test ends with: one login, no token presented twice, and no secret to be found.
    fn assert_clean(&self) {
        let issuer = self.issuer();
        assert_eq!(
            (
                issuer.spent_presented,
                issuer.reuse_revocations,
                issuer.refresh_err
            ),
            (0, 0, 0),
            "{issuer:?}"
        );
        assert_eq!(issuer.code_ok, 1, "one login is enough for both builds");
        self.assert_no_leak();
    }

    fn assert_no_leak(&self) {
        let secrets = self
            .lab
            .with_issuer(|issuer| issuer.issued_secrets().to_vec());
        self.home.assert_no_leak(&secrets);
    }
}

/// F-30, I-18: each build uses and refreshes what the other has stored, back and forth, and shows the same history.
#[test]
fn previous_and_present_take_turns() {
    for (first, second) in [(Previous, Present), (Present, Previous)] {
        let Some(shared) = Shared::start(3600, None) else {
            return;
        };
        shared.login(first);
        for _ in 0..3 {
            for build in [second, first] {
                shared.call(build).ok();
                shared.refresh(build);
                shared.call(build).ok();
            }
        }
        assert_eq!(shared.issuer().refresh_ok, 6);
        for build in [first, second] {
            let args = ["why", shared.url()];
            let why = shared.run(build, &args).run().ok().json();
            let events = why["events"].as_array().expect("events");
            let refreshed = events.iter().filter(|e| e["event"] == "refreshed").count();
            assert_eq!(refreshed, 6, "{build:?}: {why}");
        }
        shared.assert_clean();
    }
}

/// F-01, F-30, I-2: two processes of each build at once, over several expiries: nobody notices, and no token is spent twice.
#[test]
fn previous_and_present_share_a_login_over_expiries() {
    let Some(shared) = Shared::start(3, None) else {
        return;
    };
    shared.login(Previous);
    // Long enough for the others to come to the same decision meanwhile.
    let slow = Some(Fault::DelayAnswer { ms: 400 });
    let token = Endpoint::Token;
    shared
        .lab
        .with_issuer(|issuer| issuer.set_standing_fault(token, slow));
    let running = [Previous, Present, Previous, Present].map(|b| shared.calls(b, 20).start());
    for running in running {
        Calls::all_answered(running.wait(), 60);
    }
    let refreshed = shared.issuer().refresh_ok;
    assert!(
        (5..=20).contains(&refreshed),
        "{refreshed} refreshes in 20 s"
    );
    shared.assert_clean();
}

/// F-31, F-30: each build sees at once that the other has logged out, and may log in again.
#[test]
fn previous_and_present_see_each_others_logout() {
    for (first, second) in [(Previous, Present), (Present, Previous)] {
        let Some(shared) = Shared::start(3600, None) else {
            return;
        };
        shared.login(first);
        shared.call(second).ok();
        shared.run(second, &["logout", shared.url()]).run().ok();
        for build in [first, second] {
            shared.call(build).refused(3, "login.never");
        }
        assert_ne!(shared.issuer().revocations, 0, "the issuer was told");
        shared.login(first);
        shared.call(second).ok();
        let issuer = shared.issuer();
        assert_eq!(
            (issuer.code_ok, issuer.spent_presented),
            (2, 0),
            "{issuer:?}"
        );
        shared.assert_no_leak();
    }
}

/// F-06, F-30, I-4: a refresh that this build could only spool is the one that the previous build goes on with.
#[test]
fn previous_goes_on_with_what_the_present_spooled() {
    let Some(shared) = Shared::start(3600, None) else {
        return;
    };
    shared.login(Previous);
    // While somebody has the store open its log stays, and is longer than a file may be on the full disk.
    let open = shared.calls(Previous, 600).start();
    let before = shared.fill_the_log();
    shared
        .full_disk(&["refresh", shared.url(), "--force"])
        .run()
        .ok();
    assert_eq!(shared.issuer().refresh_ok, 1);
    assert_ne!(
        shared.slot(),
        before,
        "the store refused, and the slot took it"
    );
    shared.call(Previous).ok();
    shared.refresh(Previous);
    shared.call(Present).ok();
    shared.refresh(Present);
    drop(open);
    assert_eq!(shared.issuer().refresh_ok, 3);
    shared.assert_clean();
}

/// F-03, F-06, F-30: a process of this build dies with nothing but its attempt in the spool slot. The previous build, which
/// knows no such entry, leaves it alone and serves; this build finds it and repeats the call under its label.
#[test]
fn previous_leaves_alone_an_attempt_that_the_present_spooled() {
    let Some(shared) = Shared::start(3600, Some(60)) else {
        return;
    };
    shared.login(Previous);
    let open = shared.calls(Previous, 600).start();
    let before = shared.fill_the_log();
    let late = Fault::DelayAnswer { ms: 60_000 };
    shared.lab.with_issuer(|issuer| issuer.push_fault(late));
    let mut dies = shared
        .full_disk(&["refresh", shared.url(), "--force"])
        .start();
    until(
        "the issuer has processed it",
        Duration::from_secs(20),
        || (shared.issuer().refresh_ok == 1).then_some(()),
    );
    assert!(dies.kill());
    assert_ne!(
        shared.slot(),
        before,
        "the store refused, and the slot took it"
    );
    shared.call(Previous).ok();
    shared.run(Previous, &["status"]).run().ok();
    shared.refresh(Present);
    shared.call(Previous).ok();
    drop(open);
    let issuer = shared.issuer();
    assert_eq!(
        (
            issuer.spent_presented,
            issuer.reuse_revocations,
            issuer.code_ok
        ),
        (1, 0, 1),
        "repeated once, within the grace: {issuer:?}"
    );
    shared.assert_no_leak();
}

impl Shared {
    /// What the spool slot holds. A login is written there first; a refresh only where the store refuses.
    fn slot(&self) -> Vec<u8> {
        let files = self.home.files().into_iter();
        let mut slots = files.filter(|(path, _)| path.extension().is_some_and(|e| e == "spool"));
        slots.next().expect("a slot").1
    }

    /// Writes to the store until its log is longer than [`Self::full_disk`] lets a file be; answers what the slot holds.
    fn fill_the_log(&self) -> Vec<u8> {
        let log = self.home.stores().remove(0).with_extension("db-wal");
        until("the log is long", Duration::from_secs(30), || {
            for name in ["one-name", "another-name"] {
                let args = ["rename", self.url(), name];
                self.run(Present, &args).run().ok();
            }
            (fs::metadata(&log).ok()?.len() > 64 * 1024).then_some(())
        });
        self.slot()
    }
}
