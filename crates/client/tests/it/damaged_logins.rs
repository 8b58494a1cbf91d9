//! Logins whose row in the store cannot be read any more: they are errors for whoever wants to use them, and in nobody's way who
//! logs in or out.

use std::{sync::Arc, time::Duration};

use pilotlight::{
    Error, LoginRequest, Sessions,
    core::{
        credential::{Account, BindingKey},
        error::LoginCause,
        event::{Happened, Revocation},
        resource::Resource,
    },
    mcp_remote::{Brought, Files, Import, Shared},
    store::Store,
};
use pilotlight_testkit::{Lab, LabConfig};
use rusqlite::Connection;

use crate::faults_support::{Process, World, served};

/// What can be wrong with a row: what is sealed, what is bound to it, and what is no longer of its type.
const DAMAGES: [&str; 4] = [
    "sealed = zeroblob(400)",
    "generation = generation + 1",
    "acceptance = zeroblob(60)",
    "incarnation = zeroblob(3)",
];

/// Damages the rows of all logins that are there.
fn damage(world: &World, process: &Process, how: &str) {
    let config = world.store_config(process.time.clone());
    let file = config.data_dir.join("store.db");
    let connection = Connection::open(file).unwrap();
    let damage = format!("UPDATE credential SET {how}");
    assert!(connection.execute(&damage, ()).unwrap() > 0);
}

fn request(world: &World) -> LoginRequest {
    LoginRequest::new(world.url(), Account::default())
}

async fn told(process: &Process, world: &World) -> usize {
    let damaged = |happened: &Happened| matches!(happened, Happened::Damaged);
    process.count(world, damaged).await
}

/// F-27, promise 10, I-6: a login that cannot be read is an error for whoever wants its token, and the next login takes its place
/// as if it were the first: the history says so once.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_login_is_replaced_by_the_next() {
    for how in DAMAGES {
        let world = World::new(|_| {}).await;
        let (process, session) = world.logged_in().await;
        served(&session, &world).await;
        process.idle().await;
        damage(&world, &process, how);
        let later = world.process();
        let got = later.sessions.get(&world.url(), &Account::default()).await;
        assert_eq!(got.unwrap_err().code(), "store.corrupt", "{how}");

        later.sessions.login(request(&world)).await.unwrap();
        served(&later.session(&world).await, &world).await;
        assert_eq!(told(&later, &world).await, 1, "{how}");
        world.advance(Duration::from_secs(60));
        later.sessions.login(request(&world)).await.unwrap();
        assert_eq!(told(&later, &world).await, 1, "{how}");
    }
}

/// F-27: one damaged login hides no other from whoever lists them, and is told as what it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_login_hides_no_other() {
    for how in DAMAGES {
        let world = World::new(|_| {}).await;
        let (process, _) = world.logged_in().await;
        let work = Account::parse("work").unwrap();
        let other = LoginRequest::new(world.url(), work.clone());
        process.sessions.login(other).await.unwrap();
        process.idle().await;
        let one = "WHERE rowid = (SELECT min(rowid) FROM credential)";
        damage(&world, &process, &format!("{how} {one}"));

        let later = world.process();
        let statuses = later.sessions.statuses().await.unwrap();
        let states: Vec<_> = statuses.iter().map(|login| login.state.word()).collect();
        assert_eq!(states, ["unreadable", "ok"], "{how}");
        assert!(statuses[0].issuer.is_some());
        let session = later.sessions.get(&world.url(), &work).await.unwrap();
        served(&session, &world).await;
    }
}

/// F-27, promise 10: the same login is buried by a logout: nobody can be told of it, and that is said. Then nobody is logged in,
/// and a login begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_login_can_be_logged_out() {
    for (how, local) in DAMAGES.into_iter().zip([false, true, false, true]) {
        let world = World::new(|_| {}).await;
        let (process, session) = world.logged_in().await;
        served(&session, &world).await;
        process.idle().await;
        damage(&world, &process, how);
        let later = world.process();
        let outcome = match local {
            true => Revocation::Local,
            false => Revocation::Unreadable,
        };
        let done = later.sessions.logout(&world.key(), local).await;
        assert_eq!(done, Ok(outcome), "{how}");
        assert_eq!(told(&later, &world).await, 1, "{how}");
        let nobody = Error::login(LoginCause::Never);
        let header = later.session(&world).await.header().await;
        assert_eq!(header.map(drop), Err(nobody.clone()), "{how}");
        let again = later.sessions.logout(&world.key(), false).await;
        assert_eq!(again, Err(nobody));
        later.sessions.login(request(&world)).await.unwrap();
        served(&later.session(&world).await, &world).await;
    }
}

/// F-27, promise 10: a store over another hides no damage. A damaged login that is shared with mcp-remote can be logged out, too;
/// sharing ends with it, and what was ours is not brought in again.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_login_that_is_shared_can_be_logged_out() {
    let world = World::new(|_| {}).await;
    let folder = tempfile::tempdir().unwrap();
    let (process, _) = world.logged_in().await;
    let made = process.record(&world).await.credential.unwrap();
    let files = Files::new(folder.path(), &"0".repeat(32)).unwrap();
    let layout = folder.path().join("mcp-remote-v1");
    std::fs::create_dir(&layout).unwrap();
    let tokens = serde_json::json!({
        "access_token": made.access_token.expose(),
        "refresh_token": made.refresh_token.as_ref().unwrap().expose(),
        "expires_in": 3600,
    });
    let client = serde_json::json!({ "client_id": made.client.id });
    for (name, content) in [("tokens", tokens), ("client_info", client)] {
        let file = layout.join(format!("{}_{name}.json", "0".repeat(32)));
        std::fs::write(file, content.to_string()).unwrap();
    }
    process.sessions.logout(&world.key(), true).await.unwrap();

    let later = world.process();
    let links = folder.path().join("links");
    let shared = Shared::over(later.store.clone(), links, later.time.clone());
    let sessions = Sessions::builder(Arc::new(shared.clone()))
        .clock(later.time.clone())
        .open()
        .unwrap();
    let bring = || sessions.bring(&shared, Import::new(world.url(), files.clone()));
    let brought = bring().await.unwrap();
    assert!(matches!(brought, Brought::Shared(_)), "{brought:?}");
    let key = later.binding(&world).await.credential.unwrap();
    assert!(shared.is_shared(&key).await);

    damage(&world, &later, DAMAGES[0]);
    let done = sessions.logout(&world.key(), true).await;
    assert_eq!(done, Ok(Revocation::Local));
    assert_eq!(told(&later, &world).await, 1);
    assert!(!shared.is_shared(&key).await);
    let again = bring().await.unwrap();
    assert!(matches!(again, Brought::Nothing), "{again:?}");
}

/// RFC 7009: what the spool slot still tells of a damaged login is revoked all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_still_be_read_is_revoked() {
    let world = World::new(|_| {}).await;
    let (process, _) = world.logged_in().await;
    let stored = process.record(&world).await.credential.unwrap();
    let mut next = stored.clone();
    next.version = next.version.next();
    process
        .store
        .spool(Some(stored.version), &next)
        .await
        .unwrap();
    damage(&world, &process, DAMAGES[0]);
    let later = world.process();
    let done = later.sessions.logout(&world.key(), false).await;
    assert_eq!(done, Ok(Revocation::Unreadable));
    assert_eq!(later.sessions.retry_revocations().await, Ok(1));
    assert_eq!(world.lab.with_issuer(|issuer| issuer.live_grants()), 0);
}

/// F-27: the damage of one login is nobody else's: a first login at another server goes through, a damaged row beside it or not,
/// and touches nothing there.
#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_logged_in_to_all_the_same() {
    let world = World::new(|_| {}).await;
    let (process, _) = world.logged_in().await;
    damage(&world, &process, DAMAGES[0]);
    let config = LabConfig::default().with(|lab| lab.clock = world.lab.clock().clone());
    let other = Lab::start(config).await.unwrap();
    let url = Resource::parse(other.resource_url()).unwrap();
    let later = world.process();
    let request = LoginRequest::new(url.clone(), Account::default());
    later.sessions.login(request).await.unwrap();
    let key = BindingKey::new(url, Account::default());
    assert_eq!(
        later.sessions.logout(&key, false).await,
        Ok(Revocation::Revoked)
    );
    let got = later.sessions.get(&world.url(), &Account::default()).await;
    assert_eq!(got.unwrap_err().code(), "store.corrupt");
    assert_eq!(told(&later, &world).await, 0);
}

/// F-27: nor is it in the way of a logout from a server whose login never reached the store: that is `login.never`, and no damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_from_nothing_is_not_damage() {
    let world = World::new(|_| {}).await;
    let (process, _) = world.logged_in().await;
    let mut other = process.binding(&world).await;
    other.key.account = Account::parse("other").unwrap();
    other.name = "other".into();
    let credential = other.credential.as_mut().unwrap();
    credential.account = other.key.account.clone();
    process.store.put_binding(&other).await.unwrap();
    damage(&world, &process, DAMAGES[0]);
    let later = world.process();
    let done = later.sessions.logout(&other.key, false).await;
    assert_eq!(done, Err(Error::login(LoginCause::Never)));
}
