//! Sessions that a program lets go of while they hold what no store has taken.

use std::{sync::Arc, time::Duration};

use pilotlight::{
    Sessions,
    clock::SystemClock,
    core::{credential::Account, resource::Resource},
    store::{SqliteStore, SqliteStoreConfig, Store},
};
use pilotlight_testkit::processes::{
    fail_point::FailPoints, failing_store::FailingStore, said::Journal, testimony::Exit,
};

use super::{logged_in, nothing_lost, seconds};

/// F-05, F-06, I-4: a program that is asked for one refresh, and whose store and spool refuse it once, does not end before
/// it has tried them again: its answer is all that the issuer repeats to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_process_saves_what_its_store_had_refused() {
    let site = logged_in(seconds(60), Duration::ZERO).await;
    let refused = "before-commit=refuse:1,before-spool=refuse:1";
    let start = site.start("refresh").arg("--force").env("PL_FAIL", refused);
    let (exit, refresh) = site.run(start).await.unwrap();
    assert_eq!(exit, Exit::Code(0), "{:?}", refresh.failure());
    nothing_lost(&site, Duration::ZERO).await;
}

/// F-06, I-2, I-3: a program that drops its session while neither store nor spool has taken the newest refresh token, and
/// asks for the session again, does not spend the old one a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_session_takes_no_refresh_token_along() {
    let site = logged_in(seconds(60), Duration::ZERO).await;
    let (data, key) = (
        site.home().join("data"),
        site.home().join("state").join("store.key"),
    );
    let config = SqliteStoreConfig::new(data, key, "host", Arc::new(SystemClock));
    let store = SqliteStore::open(&config).unwrap();
    let refused = "before-commit=refuse:1,before-spool=refuse:1";
    let points = FailPoints::parse(refused, Journal::silent()).unwrap();
    let store: Arc<dyn Store> = Arc::new(FailingStore::new(
        store,
        Arc::new(points),
        Journal::silent(),
    ));
    let sessions = Sessions::builder(store).open().unwrap();
    let url = Resource::parse(site.lab.resource_url()).unwrap();
    let session = sessions.get(&url, &Account::default()).await.unwrap();
    assert!(session.refresh(true).await.unwrap().refreshed);
    drop(session);
    let session = sessions.get(&url, &Account::default()).await.unwrap();
    let again = session.refresh(true).await;
    let spent = site
        .lab
        .with_issuer(|issuer| issuer.stats().spent_presented);
    assert_eq!(spent, 0, "{again:?}");
    drop(session);
    sessions.drain(seconds(5)).await;
    drop(sessions);
    let (exit, refresh) = site
        .run(site.start("refresh").arg("--force"))
        .await
        .unwrap();
    assert_eq!(exit, Exit::Code(0), "{:?}", refresh.failure());
    assert!(!site.has_seen_reuse());
}
