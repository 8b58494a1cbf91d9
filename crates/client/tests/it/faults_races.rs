//! Logins and logouts that race a refresh: whatever comes first, a login never loses and a logout leaves nothing alive. And
//! a refresh whose process dies.

use std::time::Duration;

use futures_util::future::join_all;
use pilotlight::{
    Error, LoginRequest,
    clock::Clock as _,
    core::{
        attempt::{Attempt, Label, ProcessId},
        credential::{Account, Generation, Incarnation, Version},
        error::{Certainty, LoginCause},
        event::Happened,
        record::{Fact, Suspicion},
        secret::{AccessToken, RefreshToken},
    },
    store::Store,
};
use pilotlight_testkit::{Fault, authorization_server::Kind, fingerprint};

use crate::faults_support::{Dice, HOUR, World, ask, served, slow, until, until_async};

/// What the person does while a refresh is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Person {
    Logout,
    Login,
    Both,
}

/// F-31, I-5, I-6: a thousand refreshes, two at a time in two processes, race a login, a logout or both in a third. After
/// a logout nobody is served and nothing is alive at the issuer, not even what a late refresh brought; a login is the one
/// that counts for everybody. No spent refresh token is sent by anybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_or_logout_races_a_refresh() {
    let rounds = if slow() { 63 } else { 15 };
    join_all((0..8).map(|seed| races(seed, rounds))).await;
}

async fn races(seed: u64, rounds: u32) {
    let world = World::new(|_| {}).await;
    let (person, mut session) = world.logged_in().await;
    let others = [world.process(), world.process()];
    let mut dice = Dice::new(seed);
    for round in 0..rounds {
        // A login of the last ten seconds would be adopted instead of made.
        world.advance(Duration::from_secs(20));
        let does =
            [Person::Logout, Person::Login, Person::Both][usize::try_from(dice.roll(3)).unwrap()];
        let fault = match dice.roll(3) {
            0 => None,
            1 => Some(Fault::Delay { ms: dice.roll(15) }),
            _ => Some(Fault::DelayAnswer { ms: dice.roll(15) }),
        };
        let context = format!("seed {seed}, round {round}: {does:?}, {fault:?}");
        if let Some(fault) = fault {
            world.lab.with_issuer(|issuer| issuer.push_fault(fault));
        }
        let before = person.record(&world).await.version().unwrap();
        // Earlier logins as the same client stay alive at the issuer, which may hold one grant for all of them.
        let alive = || world.lab.with_issuer(|issuer| issuer.live_grants());
        let alive_before = alive();
        let mut refreshing = Vec::new();
        for other in &others {
            let refreshed = other.session(&world).await;
            let pause = Duration::from_micros(dice.roll(10_000));
            refreshing.push(async move {
                tokio::time::sleep(pause).await;
                refreshed.refresh(true).await
            });
        }
        let pause = Duration::from_micros(dice.roll(25_000));
        let acting = async {
            tokio::time::sleep(pause).await;
            if does != Person::Login {
                person.sessions.logout(&world.key(), false).await.unwrap();
            }
            if does != Person::Logout {
                let request = LoginRequest::new(world.url(), Account::default());
                let done = person.sessions.login(request).await.unwrap();
                assert!(!done.adopted, "{context}");
            }
        };
        let (ended, ()) = tokio::join!(join_all(refreshing), acting);
        for result in ended {
            match result {
                Ok(_) => {}
                Err(error) if error == Error::login(LoginCause::Never) => {
                    assert_ne!(does, Person::Login, "{context}");
                }
                Err(error) => panic!("{context}: {error:?}"),
            }
        }
        for process in others.iter().chain([&person]) {
            process.idle().await;
        }
        world.lab.with_issuer(|issuer| issuer.clear_faults());

        let stats = world.stats();
        assert_eq!(
            (stats.spent_presented, stats.reuse_revocations),
            (0, 0),
            "{context}"
        );
        let record = person.record(&world).await;
        let ended = usize::from(does != Person::Login);
        let begun = usize::from(does != Person::Logout);
        assert_eq!(alive() + ended, alive_before + begun, "{context}");
        if does == Person::Logout {
            assert_eq!(record.version(), None, "{context}");
            let never = Err(Error::login(LoginCause::Never));
            assert_eq!(ask(&session, &world).await, never, "{context}");
            assert!(person.store.revocations().await.unwrap().is_empty());
            world.advance(Duration::from_secs(20));
            session = person.log_in(&world).await;
        } else {
            let version = record.version().unwrap();
            assert_ne!(version.incarnation, before.incarnation, "{context}");
        }
        for other in &others {
            served(&other.session(&world).await, &world).await;
        }
        served(&session, &world).await;
    }
}

/// F-31: a logout during a refresh waits for what that brings, and revokes it: the newest token is what the issuer is told of.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_during_a_refresh_revokes_what_that_brought() {
    let world = World::new(|_| {}).await;
    let (one, session) = world.logged_in().await;
    let two = world.process();
    let other = two.session(&world).await;
    world
        .lab
        .with_issuer(|issuer| issuer.push_fault(Fault::DelayAnswer { ms: 400 }));
    let late = other.clone();
    let refreshing = tokio::spawn(async move { late.refresh(true).await.map(drop) });
    until("the rotation", || world.stats().refresh_ok == 1).await;
    one.sessions.logout(&world.key(), false).await.unwrap();
    refreshing.await.unwrap().unwrap();
    world.lab.with_issuer(|issuer| {
        assert_eq!(issuer.live_grants(), 0);
        let told: Vec<_> = issuer.ledger().of(Kind::Revoke).collect();
        let newest = issuer.issued_secrets();
        let newest = newest.iter().rfind(|secret| secret.starts_with("rt-"));
        let newest = newest.map(|secret| fingerprint(secret));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].refresh_token, newest);
    });
    for session in [&session, &other] {
        let never = Error::login(LoginCause::Never);
        assert_eq!(ask(session, &world).await, Err(never));
    }
    assert_eq!(one.record(&world).await.version(), None);
}

/// F-03, F-11: a process dies between its call and the answer. Another one that is in use repeats the call while the issuer
/// forgives that, although none of its requests needs a token yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_in_use_takes_over_from_a_dead_one() {
    let world = World::with_tokens_of(Duration::from_secs(40)).await;
    let (process, session) = world.logged_in().await;
    served(&session, &world).await;
    process.ticked().await;
    // Due, and nobody asks.
    world.advance(Duration::from_secs(31));
    let now = process.time.now();
    let key = process.binding(&world).await.credential.unwrap();
    let version = process.record(&world).await.version().unwrap();
    let attempt = Attempt {
        generation: version.generation,
        number: 1,
        label: None,
        fence: 1,
        process: ProcessId { pid: 1, nonce: 1 },
        first_sent_at: now,
        sent_at: now,
    };
    let fact = [Fact::Attempt(Some(attempt))];
    assert_eq!(
        process.store.note(&key, version, &fact, None).await,
        Ok(true)
    );
    assert_eq!(world.stats().refresh_ok, 0);
    world.advance(Duration::from_secs(4));
    until("the call to be repeated", || world.stats().refresh_ok == 1).await;
    process.idle().await;
    let repeated = |happened: &Happened| {
        let label = Some(Label::AfterCrash);
        matches!(happened, Happened::Refreshed { label: l, .. } if *l == label)
    };
    assert_eq!(process.count(&world, repeated).await, 1);
}

/// F-06: a login that only the spool had, since the store refused it, is brought to the store by whoever refreshes next: what it
/// replaced is revoked then, as a login would have done.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_out_of_the_spool_revokes_what_it_replaced() {
    let world = World::with_tokens_of(HOUR).await;
    let (process, _) = world.logged_in().await;
    let old = process.record(&world).await.credential.unwrap();
    let mut new = old.clone();
    new.version = Version {
        incarnation: Incarnation([7; 16]),
        generation: Generation(0),
    };
    new.client.id = "another-client".into();
    new.access_token = AccessToken::new("canary-new-access".into()).unwrap();
    new.refresh_token = RefreshToken::new("canary-new-refresh".into()).ok();
    process.store.spool(Some(old.version), &new).await.unwrap();
    let other = world.process();
    let session = other.session(&world).await;
    session.refresh(false).await.unwrap();
    other.idle().await;
    let stored = other.record(&world).await;
    assert_eq!(
        (stored.version(), stored.spooled),
        (Some(new.version), None)
    );
    assert_eq!(world.stats().revocations, 1);
    assert_eq!(world.lab.with_issuer(|issuer| issuer.live_grants()), 0);
}

/// T-39, I-2: somebody restores a copy of the store from before the last refresh while a process runs. It brings the store
/// forward at its next look, before anybody sends the spent token that lies there again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_copy_costs_no_login() {
    let world = World::with_tokens_of(HOUR).await;
    let (process, session) = world.logged_in().await;
    let other = world.process();
    let file = world.dir.path().join("data/store.db");
    let copy = world.dir.path().join("copy.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    let to = copy.to_str().unwrap();
    database.execute("VACUUM INTO ?1", [to]).unwrap();
    session.refresh(true).await.unwrap();
    served(&session, &world).await;
    process.idle().await;
    let refreshed = process.record(&world).await.version().unwrap();

    database.execute("ATTACH ?1 AS copy", [to]).unwrap();
    let tables: Vec<String> = {
        let tables =
            "SELECT name FROM copy.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let mut tables = database.prepare(tables).unwrap();
        let names = tables.query_map((), |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    };
    let each = tables.iter().map(|name| {
        format!("DELETE FROM main.{name}; INSERT INTO main.{name} SELECT * FROM copy.{name};")
    });
    let restore: String = each.collect();
    let restore = format!("PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE; {restore} COMMIT");
    database.execute_batch(&restore).unwrap();
    let restored = other.record(&world).await.version().unwrap();
    assert!(restored.generation < refreshed.generation, "it is restored");

    until_async("the store to be brought forward", async || {
        process.record(&world).await.version() == Some(refreshed)
    })
    .await;
    world.advance(2 * HOUR);
    let late = other.session(&world).await;
    served(&late, &world).await;
    served(&session, &world).await;
    assert_eq!(world.stats().refresh_ok, 2);
    world.assert_nothing_lost();
}

/// I-14: a caller whose token has ended waits for a run that finds another process's token, which lives, and that the issuer
/// refuses the next refresh. What came of the refresh is not what the caller wants to know.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_lives_is_served_whatever_came_of_the_refresh() {
    let world = World::with_tokens_of(Duration::from_secs(40)).await;
    let (first, _) = world.logged_in().await;
    let command = world.command();
    let late = command.session(&world).await;
    served(&late, &world).await;

    // Thirty seconds later another process has the next one, and has been refused the one after that.
    world.advance(Duration::from_secs(30));
    let other = world.command();
    let session = other.session(&world).await;
    assert!(session.refresh(true).await.unwrap().refreshed);
    let record = other.record(&world).await;
    let (key, version) = (other.binding(&world).await.credential, record.version());
    let now = first.time.now();
    let suspicion = Suspicion {
        cause: LoginCause::RefreshRejected {
            certainty: Certainty::Suspect,
            named: None,
        },
        since: now.wall,
        probes: 1,
        next_probe_at: Some(now.wall + HOUR),
        at: Some(now),
    };
    let fact = [Fact::Suspicion(Some(suspicion))];
    let noted = other
        .store
        .note(&key.unwrap(), version.unwrap(), &fact, None)
        .await;
    assert_eq!(noted, Ok(true));

    // The first has ended; the second is due, and has five seconds left.
    world.advance(Duration::from_secs(35));
    served(&late, &world).await;
    assert_eq!(world.stats().refresh_ok, 1);
}
