//! Many sessions, and very short lives: no herd at the issuer, and one call for each life.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use pilotlight::{
    LoginRequest, Session, Sessions,
    core::{
        credential::{
            Account, Binding, BindingKey, Credential, CredentialKey, Generation, Incarnation,
            Lifetime, Pins, TokenType, Version,
        },
        event::{Event, Happened},
        flow::{Commit, Expects},
        issuer::Issuer,
        registration::{Client, ClientAuthentication, ClientSource},
        scope::Scopes,
        secret::{AccessToken, RefreshToken},
    },
    store::{MemoryStore, Store},
};
use pilotlight_testkit::Fault;
use tokio::time::Instant;

use crate::faults_support::{DAY, HOUR, MINUTE, Process, Time, World, ask, slow, until};

const SESSIONS: u64 = 1000;

/// The n-th account at the world's server, logged in a moment ago with a token of this life.
fn commit(world: &World, time: &Time, n: u64, life: Duration) -> Commit {
    let now = pilotlight::clock::Clock::now(time);
    let account = Account::parse(&format!("account-{n}")).unwrap();
    let issuer = Issuer::parse(world.lab.issuer()).unwrap();
    let key = CredentialKey {
        tenant: String::new(),
        resource: world.url(),
        issuer,
        account: account.clone(),
    };
    let mut incarnation = [0; 16];
    incarnation[8..].copy_from_slice(&n.to_be_bytes());
    let credential = Credential {
        key: key.clone(),
        version: Version {
            incarnation: Incarnation(incarnation),
            generation: Generation(0),
        },
        pins: Pins {
            resource_parameter: Some(world.url().as_str().into()),
            token_endpoint: format!("{}/token", world.lab.issuer()).parse().unwrap(),
            revocation_endpoint: None,
            called: None,
        },
        client: Client {
            id: format!("client-{n}"),
            secret: None,
            secret_ref: None,
            key: None,
            secret_expires_at: None,
            authentication: ClientAuthentication::None,
            source: ClientSource::Dynamic,
        },
        access_token: AccessToken::new(format!("access-{n}")).unwrap(),
        token_type: TokenType::Bearer,
        proof_key: None,
        unattended: None,
        refresh_token: Some(RefreshToken::new(format!("refresh-{n}")).unwrap()),
        received_at: Some(now),
        lifetime: Some(Lifetime::Stated(life)),
        scopes_requested: Scopes::default(),
        scopes_granted: Scopes::default(),
        logged_in_at: now.wall,
    };
    Commit {
        credential,
        expects: Expects::Nothing,
        binding: Some(Binding {
            key: BindingKey::new(world.url(), account),
            name: format!("server-{n}"),
            credential: Some(key),
            created_at: now.wall,
            exception: None,
            without_resource_at: None,
            former: Vec::new(),
        }),
        forced: None,
        event: Event {
            at: now.wall,
            process: Default::default(),
            happened: Happened::LoginFailed {
                code: "none".into(),
            },
        },
    }
}

/// The largest number of refresh points within one second, over every start, and the mean over the window.
fn peak_and_mean(points: &mut [u64], window: Duration) -> (usize, f64) {
    points.sort_unstable();
    let peak = points
        .iter()
        .enumerate()
        .map(|(i, from)| {
            points[i..]
                .iter()
                .take_while(|at| **at < from + 1000)
                .count()
        })
        .max();
    (peak.unwrap(), points.len() as f64 / window.as_secs_f64())
}

/// F-21, I-11, F-22: a thousand sessions that got their tokens in one minute come back spread over their window, at most
/// three times the mean in any second; a restart while they are fresh sends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sessions_are_no_herd() {
    for life in [HOUR, 8 * HOUR, DAY] {
        let world = World::new(|_| {}).await;
        let time = Time::new(world.lab.clock());
        let store = Arc::new(MemoryStore::new(time.clone()));
        for n in 0..SESSIONS {
            store.commit(&commit(&world, &time, n, life)).await.unwrap();
        }
        let start = || {
            let builder = Sessions::builder(store.clone()).clock(time.clone());
            builder.open().unwrap()
        };
        let all = |sessions: Sessions, world: &World| {
            let url = world.url();
            async move {
                let gets = (0..SESSIONS).map(|n| {
                    let (sessions, url) = (sessions.clone(), url.clone());
                    async move {
                        let account = Account::parse(&format!("account-{n}")).unwrap();
                        sessions.get(&url, &account).await.unwrap()
                    }
                });
                join_all(gets).await
            }
        };
        let sessions = all(start(), &world).await;
        let mut points = Vec::new();
        for session in &sessions {
            let status = session.status().await.unwrap();
            assert!(status.next_refresh_at < status.expires_at);
            points.push(status.next_refresh_at.unwrap().0);
        }
        // From the earliest that policy allows to the latest.
        let window = (life / 20).max(MINUTE);
        let (peak, mean) = peak_and_mean(&mut points, window);
        let spread = Duration::from_millis(points[points.len() - 1] - points[0]);
        assert!(spread <= window && spread >= window * 9 / 10, "{spread:?}");
        // Where there is less than one a second on average, a few at once are no herd.
        assert!(
            peak as f64 <= (3.0 * mean).max(8.0),
            "{life:?}: {peak} in a second, {mean:.2} on average"
        );

        // A restart of everything, half-way.
        world.advance(life / 2);
        let again = all(start(), &world).await;
        let headers = join_all(again.iter().map(Session::header)).await;
        assert!(headers.into_iter().all(|header| header.is_ok()));
        assert_eq!(world.proxy().accepted(), 0, "nothing was sent at all");
    }
}

/// F-24: tokens of five seconds are refreshed about once for each life, by two processes together, and no request fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_of_five_seconds_is_one_call_each() {
    let world = World::with_tokens_of(Duration::from_secs(5)).await;
    let (one, first) = world.logged_in().await;
    let two = world.process();
    let second = two.session(&world).await;
    let (begin, span) = (
        Instant::now(),
        Duration::from_secs(if slow() { 20 } else { 11 }),
    );
    let using = [&first, &second].map(|session| async {
        let mut answers = BTreeMap::new();
        while begin.elapsed() < span {
            let answer = ask(session, &world).await;
            *answers.entry(format!("{answer:?}")).or_insert(0) += 1;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        answers
    });
    for answers in join_all(using).await {
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(answers.contains_key("Ok(200)"), "{answers:?}");
    }
    let refused = world.lab.with_mcp(|server| server.stats().unauthorized);
    assert_eq!(refused, 1, "only before the login");
    // Due at 3.5 to 3.75 s, and looked at once a second then.
    let calls = world.refreshes().len() as f64;
    let lives = span.as_secs_f64();
    assert!(
        (lives / 5.0 - 1.0..=lives / 3.4 + 1.0).contains(&calls),
        "{calls} calls in {lives} s"
    );
    for process in [&one, &two] as [&Process; 2] {
        process.idle().await;
    }
    until("the last call", || world.proxy().connections() == 0).await;
    world.assert_nothing_lost();
}

/// I-9, F-21: at most eight token calls of one process are under way at one issuer.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_at_most_eight_calls_at_an_issuer() {
    let world = World::new(|_| {}).await;
    let process = world.process();
    let mut sessions = Vec::new();
    for n in 0..20 {
        let account = Account::parse(&format!("account-{n}")).unwrap();
        let request = LoginRequest::new(world.url(), account.clone());
        process.sessions.login(request).await.unwrap();
        sessions.push(process.sessions.get(&world.url(), &account).await.unwrap());
    }
    let slow = Fault::DelayAnswer { ms: 500 };
    world
        .lab
        .with_issuer(|issuer| issuer.set_standing_fault(Default::default(), Some(slow)));
    world.advance(HOUR);
    process.ticked().await;
    let headers = join_all(sessions.iter().map(|session| session.header())).await;
    assert!(headers.iter().all(Result::is_ok));
    // Each is under way for half a second from when the issuer saw it, however long its connection lingers.
    let mut at: Vec<u64> = world.refreshes().iter().map(|entry| entry.at_ms).collect();
    at.sort_unstable();
    assert_eq!(at.len(), 20);
    let ninth = at.windows(9).map(|nine| nine[8] - nine[0]).min();
    assert!(ninth >= Some(499), "nine at once: {at:?}");
}
