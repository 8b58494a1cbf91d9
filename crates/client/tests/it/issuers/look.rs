//! What a look at the server costs, and whom.

use pilotlight::Sessions;

use super::*;
use crate::stalling_store::{Stall, StallingStore};

/// T-45, I-17: what a look has found is known for its hour: a server that goes on to refuse costs no read of the store for each of its
/// answers, and a store that stands still holds none of them up.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_is_known_without_the_store() {
    let world = World::with_tokens_of(Duration::from_secs(3600)).await;
    let (process, _) = world.logged_in().await;
    let store = Arc::new(StallingStore::new(process.store.clone()));
    let sessions = Sessions::builder(store.clone())
        .clock(process.time.clone())
        .one_shot(true)
        .open()
        .unwrap();
    let session = sessions.get(&world.url(), &Account::default()).await;
    let session = session.unwrap();
    served(&session, &world).await;
    let new = another(&world, |_| {}).await;
    world.lab.trust(&new);
    let error = ask(&session, &world).await.unwrap_err();
    assert_eq!(error, changed(&world.lab, &new));

    store.stall(Stall::Only("login_outcome"));
    for _ in 0..20 {
        assert_eq!(ask(&session, &world).await.unwrap_err(), error);
    }
    assert_eq!(store.begun(), 0, "it was asked again");
    store.stall(Stall::Nothing);

    // An hour later it is looked at again: the server has gone back meanwhile.
    world.lab.with_mcp(|server| {
        server.config_mut().authorization_servers = vec![world.lab.issuer().to_owned()]
    });
    world.advance(Duration::from_secs(3700));
    let later = ask(&session, &world).await.unwrap_err();
    assert_eq!(later, Error::DeniedByResource);
}
