//! Real processes over one store, killed, stopped and lied to, with the issuer's ledger as the oracle.

use std::time::Duration;

use pilotlight_testkit::{
    authorization_server::{Entry, Kind, Outcome},
    processes::{
        aftermath::{self, Left, Report},
        harness::{Harness, Program},
        oracle::Loss,
        said::Said,
        site::{Issuer, Site},
        testimony::Exit,
    },
};

mod chaos;
mod clocks;
mod disk;
mod dropped;
mod ended;
mod fleet;
mod held;
mod points;
mod stopped;
mod terminated;

/// The binary under test.
fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_harness"))
}

/// A site whose tokens live this long, where somebody is logged in.
async fn logged_in(token_life: Duration, grace: Duration) -> Site {
    let site = site(token_life, grace).await;
    log_in(&site).await;
    site
}

async fn site(token_life: Duration, grace: Duration) -> Site {
    let issuer = Issuer {
        token_life,
        grace,
        ..Issuer::default()
    };
    Site::open(&program(), issuer).await.unwrap()
}

async fn log_in(site: &Site) {
    let (exit, login) = site.run(site.start("login")).await.unwrap();
    assert_eq!(exit, Exit::Code(0), "{:?}", login.failure());
}

/// All processes have ended: everything is looked at, and must be as it should.
async fn aftermath(site: &Site, grace: Duration, left: Left) -> Report {
    let mut report = Report::default();
    aftermath::look_at(site, grace, left, &mut report).await;
    assert!(
        report.violations.is_empty(),
        "{:#?}\n{}",
        report.violations,
        report.story.join("\n")
    );
    report
}

/// The login is there, nothing was lost, and no spent refresh token was ever presented without knowing it.
async fn nothing_lost(site: &Site, grace: Duration) -> Report {
    let report = aftermath(site, grace, Left::Login).await;
    assert_eq!(report.judgement.loss, None::<Loss>);
    report
}

/// The refreshes that the issuer has processed.
fn refreshes(site: &Site) -> Vec<Entry> {
    site.lab.with_issuer(|issuer| {
        let entries = issuer.ledger().of(Kind::Refresh);
        entries
            .filter(|entry| entry.outcome == Outcome::Ok)
            .cloned()
            .collect()
    })
}

/// Waits until the issuer has processed this many refreshes.
async fn refreshed(site: &Site, count: usize) {
    let done = async {
        while refreshes(site).len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, done).await.is_ok(),
        "{count} refreshes do not come"
    );
}

/// Waits for a call that is answered.
async fn served(worker: &mut Harness) {
    let fine = |said: &Said| matches!(said, Said::Called { code: None, .. });
    worker.next(PATIENCE, fine).await.unwrap();
}

/// Ends a worker as a service manager does.
async fn terminate(worker: &mut Harness) {
    worker.signal(rustix::process::Signal::TERM);
    let exit = worker.end(PATIENCE).await.unwrap();
    assert_eq!(exit, Exit::Code(143), "{:?}", worker.testimony().failure());
}

/// Whether the long forms of these tests are wanted.
#[allow(clippy::disallowed_methods, reason = "the switch of the test script")]
fn slow() -> bool {
    std::env::var_os("PILOTLIGHT_SLOW").is_some()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const PATIENCE: Duration = Duration::from_secs(20);
const GRACES: [Duration; 2] = [Duration::ZERO, Duration::from_secs(30)];
