//! A token endpoint that is no longer where a login pinned it, through the command line.

use std::sync::Arc;
use std::time::Duration;

use pilotlight::core::credential::Account;
use pilotlight::core::resource::Resource;
use pilotlight::human::Refuse;
use pilotlight::{Error, LoginRequest};
use pilotlight_testkit::{LabConfig, ScriptedHuman};
use serde_json::json;
use tokio::sync::mpsc;

use crate::cli::Machine;
use crate::embedded::{LongAgo, Opens, sessions};

const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// A login of two hours ago, at an issuer whose endpoint was taken away soon after: for half an hour another program asked in
/// vain. The issuer can also be reached at another origin, which is returned with the machine.
fn gone() -> (Machine, String) {
    let machine = Machine::with(LabConfig::default().with(|lab| {
        lab.issuer_proxied = true;
        lab.authorization_server.access_ttl = Duration::from_secs(600);
        lab.authorization_server.keep_requests = true;
    }));
    // The redirect finds its listener here, so the test's browser goes to it.
    let (clock, url) = (LongAgo::new(Duration::from_secs(7200)), machine.url());
    let url = Resource::parse(url).unwrap();
    let (sender, mut opened) = mpsc::unbounded_channel();
    machine.block_on(async {
        let sessions = sessions(&machine.home, clock.clone(), Arc::new(Opens(sender)));
        let request = LoginRequest::new(url.clone(), Account::default());
        let (done, ()) = tokio::join!(sessions.login(request), async {
            let page = opened.recv().await.unwrap();
            ScriptedHuman::allows().visit(&page).await.unwrap();
        });
        done.unwrap();
    });
    machine.lab.with_issuer(|issuer| {
        issuer.config_mut().token_path = "/v2/token".into();
        issuer.revoke_access();
    });
    machine.block_on(async {
        let sessions = sessions(&machine.home, clock.clone(), Arc::new(Refuse));
        let session = sessions.get(&url, &Account::default()).await.unwrap();
        clock.advance(Duration::from_secs(700));
        for _ in 0..6 {
            let failed: Error = session.refresh(false).await.unwrap_err();
            assert_eq!(failed.action(), pilotlight::core::error::Action::RetryLater);
            sessions.drain(FIVE_MINUTES).await;
            clock.advance(FIVE_MINUTES);
        }
    });
    let refreshes = refreshes(&machine);
    assert_eq!(refreshes, 0, "nothing came of it");
    let control = machine.lab.issuer_control();
    let (origin, _) = control.split_once("/__ctl").unwrap();
    (machine, origin.to_owned())
}

fn refreshes(machine: &Machine) -> usize {
    use pilotlight_testkit::authorization_server::Kind;
    let count = |kind| {
        machine
            .lab
            .with_issuer(|issuer| issuer.ledger().of(kind).count())
    };
    count(Kind::Refresh)
}

/// T-15: within its origin: the next command looks, pins the login anew and goes on. `why` says so, with both places, and
/// nobody is asked.
#[test]
fn an_endpoint_that_moved_within_its_origin_is_found_again() {
    let (machine, _) = gone();
    machine.call().ok();
    let events = machine.home.events(machine.url(), "repinned");
    let [event] = &events[..] else {
        panic!("one event: {events:?}")
    };
    let (from, to) = (format!("{}/token", machine.lab.issuer()), "/v2/token");
    assert_eq!(event["from"], from.as_str());
    assert!(event["to"].as_str().unwrap().ends_with(to), "{event}");
    let why = machine.home.run(["why", machine.url()]).ok().stdout;
    assert!(why.contains(&from) && why.contains(to), "{why}");
    assert_eq!((refreshes(&machine), machine.waiting_browsers()), (1, 0));
    machine.assert_nothing_lost();
}

/// T-15, I-15: to another origin: nothing is sent there before a person has logged in, which the error says, with the
/// command for it; the login that was there is kept until then. That login works at the new place.
#[test]
fn an_endpoint_that_moved_away_is_a_persons_to_confirm() {
    let (machine, elsewhere) = gone();
    let elsewhere = format!("{elsewhere}/v2/token");
    assert!(!elsewhere.starts_with(machine.lab.issuer()));
    machine.lab.with_issuer(|issuer| {
        issuer.config_mut().metadata_overrides = json!({ "token_endpoint": elsewhere });
    });
    let error = machine.call().refused(3, "login.endpoint_moved");
    assert_eq!(error["hint"], "pilotlight login 127.0.0.1");
    assert_eq!(machine.home.session()["refresh_token"], true);
    let again = machine.call().refused(3, "login.endpoint_moved");
    assert_eq!(again["action"], "log_in");
    assert_eq!(refreshes(&machine), 0);
    let check = machine.home.run(["status", "--check"]);
    assert_eq!(check.code, Some(3), "{check:?}");

    machine.login(&[]);
    machine.call().ok();
    machine.home.run(["refresh", machine.url(), "--force"]).ok();
    assert_eq!(refreshes(&machine), 1, "at the new place");
    machine.assert_nothing_lost();
}
