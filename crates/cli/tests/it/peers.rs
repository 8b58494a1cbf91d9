//! Real peers, which nobody here wrote (`peers/`): an oidc-provider issuer and a TypeScript MCP server.
//!
//! The tests in `peers_*.rs` run only where `PILOTLIGHT_PEERS=1` (`./test` sets it: they need Node and take minutes).
//! They judge by the issuer's and the server's own counters, never by what our side says it did.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::support::{Home, Outcome, Run, instant, read};
use crate::wire::http;

/// How many times as long the steady tests run: `./test peers-long` sets the variable.
pub(crate) fn patience() -> u64 {
    if std::env::var("PILOTLIGHT_PEERS_LONG").is_ok() {
        6
    } else {
        1
    }
}

/// A call that takes longer than this waited for somebody, on a busy machine too.
pub(crate) const SLOW_MS: u64 = 1500;

/// One issuer and one MCP server that trusts it, on ports of their own.
pub(crate) struct Peers {
    issuer: Peer,
    server: Peer,
    /// Who hosts a client ID metadata document, where the issuer reads those.
    document: Option<Peer>,
}

impl Peers {
    /// Starts both with these switches (`peers/README.md`); none where peers are not wanted.
    pub(crate) fn start(switches: &[(&str, &str)]) -> Option<Self> {
        if std::env::var("PILOTLIGHT_PEERS").as_deref() != Ok("1") {
            eprintln!("not run: needs PILOTLIGHT_PEERS=1, as ./test sets it");
            return None;
        }
        let reads = switches.contains(&("CIMD", "1"));
        let document = reads.then(|| Peer::start(&["cimd"], &[]));
        let ca = document.as_ref().map(|host| host.fact("ca").to_owned());
        let trusted = ca.as_deref().map(|ca| ("NODE_EXTRA_CA_CERTS", ca));
        let switches: Vec<_> = switches.iter().copied().chain(trusted).collect();
        let issuer = Peer::start(&["issuer"], &switches);
        let server = Peer::start(&["mcp", issuer.fact("issuer")], &switches);
        Some(Self {
            issuer,
            server,
            document,
        })
    }

    /// The URL of the client ID metadata document.
    pub(crate) fn document(&self) -> &str {
        let host = self.document.as_ref().expect("started with CIMD=1");
        host.fact("client_id")
    }

    /// The MCP server's URL, which is every test's TARGET.
    pub(crate) fn url(&self) -> &str {
        self.server.fact("url")
    }

    /// The issuer's own name.
    pub(crate) fn issuer_name(&self) -> &str {
        self.issuer.fact("issuer")
    }

    pub(crate) fn issuer(&self) -> IssuerStats {
        serde_json::from_value(self.issuer.control("GET", "stats", "")).unwrap()
    }

    pub(crate) fn server(&self) -> ServerStats {
        serde_json::from_value(self.server.control("GET", "stats", "")).unwrap()
    }

    /// Every code, token and client secret that the issuer has handed out.
    pub(crate) fn secrets(&self) -> Vec<String> {
        serde_json::from_value(self.issuer.control("GET", "issued", "")).unwrap()
    }

    /// Queues faults, each for one request to the token endpoint.
    pub(crate) fn fault(&self, faults: &Value) {
        self.issuer.control("POST", "fault", &faults.to_string());
    }

    /// The access tokens that are out stop working, the refresh tokens stay.
    pub(crate) fn revoke_access(&self) {
        let answer = self.issuer.control("POST", "revoke-access", "");
        assert_ne!(answer["revoked"], 0, "a live token was taken back");
    }

    /// Every grant ends, as when the user withdraws it in the issuer's settings.
    pub(crate) fn revoke_all(&self) {
        let answer = self.issuer.control("POST", "revoke-all", "");
        assert_ne!(answer["revoked"], 0, "a live grant was taken back");
    }

    /// A browser for `home`: `peers/browser`, with a log that [`Self::browsers`] counts.
    pub(crate) fn browser(&self, home: &Home) -> PathBuf {
        self.person(home, "browser", "")
    }

    /// As [`Self::browser`], but the person says no.
    pub(crate) fn refusing_browser(&self, home: &Home) -> PathBuf {
        self.person(home, "refusing-browser", "--deny")
    }

    /// How many browsers were opened in `home`.
    pub(crate) fn browsers(&self, home: &Home) -> usize {
        let log = read(&home.beside("browser.log"));
        log.lines().filter(|line| *line == "opened").count()
    }

    /// Logs in and asserts that it worked.
    pub(crate) fn login(&self, home: &Home) -> Outcome {
        self.start_login(home).run().ok()
    }

    pub(crate) fn start_login(&self, home: &Home) -> Run {
        let browser = self.browser(home);
        let browser = browser.to_str().unwrap();
        home.pilotlight(["login", self.url(), "--browser-command", browser, "--json"])
    }

    /// One call of `whoami` by a process of its own, which could open a browser if it wanted to.
    pub(crate) fn call(&self, home: &Home) -> Run {
        home.pilotlight(["call", self.url(), "whoami", "--json"])
            .env("BROWSER", self.browser(home))
    }

    /// Calls `echo` with `text` over and over for so many seconds.
    pub(crate) fn calls(&self, home: &Home, text: &str, seconds: u64) -> Run {
        let (text, during) = (format!("text={text}"), format!("{seconds}s"));
        let args = [
            "call",
            self.url(),
            "echo",
            &text,
            "--every",
            "200ms",
            "--for",
            &during,
        ];
        home.pilotlight(args.into_iter().chain(["--json"]))
            .env("BROWSER", self.browser(home))
            .within(Duration::from_secs(seconds + 20))
    }

    /// "Refreshes as due": each token once, none before its refresh point, and the issuer counted as many (I-10).
    pub(crate) fn assert_refreshed_as_due(&self, home: &Home) {
        assert_eq!(self.renewals_as_due(home), self.issuer().refresh_ok);
    }

    /// How often a login was renewed: each token once, and none before its refresh point.
    pub(crate) fn renewals_as_due(&self, home: &Home) -> u64 {
        let events = home.events(self.url(), "refreshed");
        let generations: Vec<_> = events
            .iter()
            .map(|event| event["generation"].as_u64())
            .collect();
        assert!(
            generations.is_sorted_by(|one, next| one < next) && !generations.contains(&None),
            "each token is refreshed once: {generations:?}"
        );
        for event in &events {
            assert!(
                instant(&event["sent_at"]) >= instant(&event["previous_refresh_point"]),
                "not before its refresh point: {event}"
            );
        }
        events.len() as u64
    }

    /// What every test ends with: no spent token was ever presented, and no secret is to be found anywhere.
    pub(crate) fn assert_clean(&self, home: &Home) {
        let issuer = self.issuer();
        assert_eq!(
            (issuer.spent_presented, issuer.reuse_revocations),
            (0, 0),
            "{issuer:?}"
        );
        home.assert_no_leak(&self.secrets());
    }

    fn person(&self, home: &Home, name: &str, args: &str) -> PathBuf {
        let log = home.beside("browser.log");
        let body = format!(
            "PERSON_ARGS='{args}' PEERS_BROWSER_LOG='{}' exec '{}/browser' \"$1\"",
            log.display(),
            folder().display(),
        );
        home.script(name, &body)
    }
}

/// The issuer's own counters.
#[derive(Debug, Deserialize)]
pub(crate) struct IssuerStats {
    pub(crate) token: u64,
    pub(crate) code_ok: u64,
    pub(crate) refresh_ok: u64,
    pub(crate) refresh_err: u64,
    pub(crate) spent_presented: u64,
    pub(crate) reuse_revocations: u64,
    pub(crate) revocations: u64,
    pub(crate) registrations: u64,
    pub(crate) discovery: u64,
    pub(crate) service_ok: u64,
    pub(crate) bound_ok: u64,
    pub(crate) use_nonce: u64,
    /// Authorization requests by `code_challenge_method`.
    pub(crate) challenges: BTreeMap<String, u64>,
}

/// The MCP server's own counters.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerStats {
    pub(crate) tool_calls: u64,
    pub(crate) unauthorized: u64,
    pub(crate) forbidden: u64,
    pub(crate) discovery: u64,
    pub(crate) proofs: u64,
    pub(crate) bearers: u64,
    pub(crate) use_nonce: u64,
    /// `echo` calls by their text.
    pub(crate) echoed: BTreeMap<String, u64>,
}

/// The last line of `call --every --for --json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Calls {
    pub(crate) calls: u64,
    pub(crate) failed_calls: u64,
    pub(crate) slowest_ms: u64,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Calls {
    /// Reads a loop's figures, whatever became of its calls.
    pub(crate) fn of(outcome: &Outcome) -> Self {
        serde_json::from_value(outcome.json()).unwrap()
    }

    /// Asserts that a loop ran, for about this many calls, and that none failed.
    pub(crate) fn all_answered(outcome: Outcome, at_least: u64) -> Self {
        let calls = Self::of(&outcome.ok());
        assert_eq!(calls.failed_calls, 0, "{calls:?}");
        assert!(calls.calls >= at_least, "it really called: {calls:?}");
        calls
    }
}

struct Peer {
    child: Child,
    /// While we hold this end, the peer runs; the kernel lets go of it even when the test is killed.
    _tie: ChildStdin,
    ready: Value,
}

impl Peer {
    fn start(args: &[&str], switches: &[(&str, &str)]) -> Self {
        let mut child = Command::new(folder().join("start"))
            .args(args)
            .envs(switches.iter().copied())
            .env("PEERS_END_WITH_STDIN", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("peers/start runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .expect("a ready line");
        Self {
            _tie: child.stdin.take().unwrap(),
            child,
            ready: serde_json::from_str(&line).expect("the peer is ready (Node is installed?)"),
        }
    }

    fn fact(&self, name: &str) -> &str {
        self.ready[name].as_str().expect("in the ready line")
    }

    fn control(&self, method: &str, name: &str, body: &str) -> Value {
        let (status, _, answer) = http(method, &format!("{}{name}", self.fact("control")), body);
        assert_eq!(status, 200, "{name}: {answer}");
        serde_json::from_str(&answer).expect("JSON")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn seconds(value: u64) -> Duration {
    Duration::from_secs(value)
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../peers")
}
