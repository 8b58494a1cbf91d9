//! The previous build's program on a store that this build wrote.

use std::{
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use pilotlight::{
    LoginRequest, Sessions,
    clock::{Clock as _, SystemClock},
    core::{credential::Account, issuer::Issuer, notes::IssuerNotes, resource::Resource},
    store::{SqliteStore, SqliteStoreConfig, Store as _},
};
use pilotlight_testkit::{Lab, ScriptedHuman};
use serde_json::Value;

use super::{Copy, header::raise_min_writer, variable};
use crate::{
    sessions::{Clicks, lab},
    store_support::config,
};

/// The previous build's program, and a store.
struct Previous {
    program: String,
    config: SqliteStoreConfig,
}

impl Previous {
    /// `None` where there is no previous build.
    fn on(config: SqliteStoreConfig) -> Option<Self> {
        let program = variable("PILOTLIGHT_PREVIOUS")?;
        Some(Self { program, config })
    }

    fn run(&self, args: &[&str]) -> Output {
        let home = self.config.data_dir.parent().unwrap();
        Command::new(&self.program)
            .args(args)
            .arg("--json")
            .arg("--store")
            .arg(&self.config.data_dir)
            .arg("--key-file")
            .arg(&self.config.key_file)
            .env_clear()
            .env("HOME", home)
            .env("PILOTLIGHT_HOME", home)
            .env("PILOTLIGHT_NO_INTERACTIVE", "1")
            .output()
            .unwrap()
    }

    /// The JSON of a run that must succeed.
    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The message of a run that must fail in this way.
    fn refused(&self, args: &[&str], exit: i32, code: &str) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let mut errors = stderr
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let error: Value = errors.next_back().unwrap_or_default();
        assert_eq!(
            (output.status.code(), error["error"]["code"].as_str()),
            (Some(exit), Some(code)),
            "{args:?}: {output:?}"
        );
        error["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// F-30, I-18: the previous build reads what this one wrote: every login, the spooled one too.
#[test]
fn previous_reads_the_corpus() {
    let place = Copy::of("store-v1");
    let Some(previous) = Previous::on(place.config()) else {
        return;
    };
    let status = previous.json(&["status"]);
    let sessions = status["sessions"].as_array().unwrap();
    let names: Vec<_> = sessions
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["canary-name-1", "canary-name-2"],
        "the third was logged out"
    );
    assert!(
        sessions.iter().all(|s| s["refresh_token"] == true),
        "{status}"
    );
}

/// A store in which this build has logged in at a loopback issuer.
async fn logged_in(access_ttl: Duration) -> (tempfile::TempDir, SqliteStoreConfig, Lab) {
    let lab = lab(|issuer| issuer.access_ttl = access_ttl).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.clock = Arc::new(SystemClock);
    let store = Arc::new(SqliteStore::open(&config).unwrap());
    let human = Arc::new(Clicks(ScriptedHuman::allows()));
    let sessions = Sessions::builder(store).human(human).program("test").open();
    let resource = Resource::parse(lab.resource_url()).unwrap();
    let request = LoginRequest::new(resource, Account::default());
    sessions.unwrap().login(request).await.unwrap();
    (dir, config, lab)
}

/// F-30: what this build learns about an issuer does not keep the previous one from refreshing there.
#[tokio::test(flavor = "multi_thread")]
async fn previous_refreshes_whatever_was_learned() {
    let (_dir, config, lab) = logged_in(Duration::from_secs(3600)).await;
    let Some(previous) = Previous::on(config.clone()) else {
        return;
    };
    let url = lab.resource_url();
    let issuer = Issuer::parse(lab.issuer()).unwrap();
    let store = SqliteStore::open(&config).unwrap();
    let now = SystemClock.now().wall;
    let (known, span) = (IssuerNotes::default(), Duration::from_secs(9));
    let lessons = [
        known.clone(),
        known.repeated_well(span, now),
        known.repeated_badly(span, now),
        known.repeated_badly(Duration::ZERO, now),
    ];
    for (refreshed, learned) in (1..).zip(lessons) {
        store.learn(&issuer, &learned).await.unwrap();
        previous.json(&["refresh", url, "--force"]);
        let stats = lab.with_issuer(|issuer| issuer.stats().clone());
        assert_eq!(
            (stats.refresh_ok, stats.spent_presented),
            (refreshed, 0),
            "{learned:?}"
        );
    }
}

/// F-30: below `min_writer` the previous build serves the token that it finds, says why it writes nothing, and sends the
/// refresh token nowhere, not even once the access token has expired.
#[tokio::test(flavor = "multi_thread")]
async fn previous_below_min_writer_serves_and_never_refreshes() {
    let life = Duration::from_secs(8);
    let (_dir, config, lab) = logged_in(life).await;
    let Some(previous) = Previous::on(config.clone()) else {
        return;
    };
    let url = lab.resource_url();
    raise_min_writer(&config, 2);
    let present = SqliteStore::open(&config).unwrap();
    assert!(!present.writable(), "the header is signed as it should be");

    let before = lab.with_issuer(|issuer| issuer.stats().token);
    previous.json(&["call", url, "whoami"]);
    let cases: [&[&str]; 3] = [
        &["refresh", url, "--force"],
        &["logout", url],
        &["rename", url, "canary"],
    ];
    for args in cases {
        let message = previous.refused(args, 75, "unavailable.store");
        assert!(message.contains("newer version"), "{args:?}: {message}");
    }
    tokio::time::sleep(life).await;
    let message = previous.refused(&["call", url, "whoami"], 75, "unavailable.store");
    assert!(message.contains("newer version"), "{message}");
    let after = lab.with_issuer(|issuer| issuer.stats().token);
    assert_eq!(after, before, "nothing was sent to the token endpoint");

    raise_min_writer(&config, 1);
    previous.json(&["call", url, "whoami"]);
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(
        (stats.refresh_ok, stats.spent_presented, stats.code_ok),
        (1, 0, 1),
        "and nothing was lost"
    );
}
