//! A login that another program finishes, and commands that wait for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotlight::LoginRequest;
use pilotlight::clock::SystemClock;
use pilotlight::core::credential::Account;
use pilotlight::core::flow::Redirect;
use pilotlight::core::resource::Resource;
use pilotlight_testkit::authorization_server::Approval;
use pilotlight_testkit::{LabConfig, ScriptedHuman};
use tokio::sync::mpsc;

use crate::cli::Machine;
use crate::embedded::{Opens, sessions};
use crate::support::until;

/// F-01, RFC 8252 section 7.1: a program whose redirect the system hands in has a login open; three commands wait for it,
/// each a process of its own, and open no browser. When it is handed in they all go on with it; when the person has refused,
/// they all end as that login did.
#[test]
fn whoever_waits_for_another_programs_login_goes_on() {
    for (human, allowed) in [
        (ScriptedHuman::allows(), true),
        (ScriptedHuman::denies(), false),
    ] {
        let machine = Machine::with(
            LabConfig::default().with(|lab| lab.authorization_server.approval = Approval::Page),
        );
        let (sender, mut opened) = mpsc::unbounded_channel();
        let host = {
            let open = async {
                sessions(
                    &machine.home,
                    Arc::new(SystemClock),
                    Arc::new(Opens(sender)),
                )
            };
            machine.block_on(open)
        };
        let url = Resource::parse(machine.url()).unwrap();
        let mut request = LoginRequest::new(url, Account::default());
        request.redirect = Redirect::Hosted("com.example.app:/oauth".into());
        let hosted = {
            let host = host.clone();
            machine.spawn(async move { host.login(request).await })
        };
        let page = machine.block_on(opened.recv()).unwrap();

        let waiting: Vec<_> = (0..3).map(|_| machine.start_login(&[]).start()).collect();
        // That they wait is seen by one that would not.
        let busy = ["login", machine.url(), "--no-interactive", "--json"];
        let busy = machine.home.run(busy);
        busy.refused(75, "unavailable.login_in_progress");
        let started = Instant::now();
        until(
            "they had time for something silly",
            Duration::from_secs(5),
            || {
                assert_eq!(machine.waiting_browsers(), 0, "one person, one page");
                (started.elapsed() > Duration::from_secs(1)).then_some(())
            },
        );
        let back = machine.block_on(human.without_callback().visit(&page));
        assert!(host.deliver(&back.unwrap()));

        let hosted = machine.block_on(hosted).unwrap();
        assert_eq!(hosted.is_ok(), allowed, "{hosted:?}");
        for one in waiting {
            let done = one.wait();
            if allowed {
                assert_eq!(done.ok().json()["login"]["adopted"], true);
            } else {
                done.refused(4, "denied.by_human");
            }
        }
        assert_eq!(machine.waiting_browsers(), 0);
        let logins = machine.lab.with_issuer(|issuer| issuer.stats().code_ok);
        assert_eq!(logins, u64::from(allowed));
        if allowed {
            machine.assert_nothing_lost();
        }
    }
}
