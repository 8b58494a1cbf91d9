//! Logouts of servers that have changed their issuer.

use pilotlight::core::{credential::CredentialKey, event::Revocation};

use super::*;

/// A server that has moved from its issuer to another, with a login at each.
struct Moved {
    world: World,
    new: Lab,
    process: Process,
    /// The login at the former issuer.
    former: CredentialKey,
}

async fn moved() -> Moved {
    let world = World::new(|_| {}).await;
    let process = process(&world, &Remembers::new());
    process.sessions.login(request(&world)).await.unwrap();
    let former = process.binding(&world).await.credential.unwrap();
    let new = another(&world, |_| {}).await;
    world.lab.trust(&new);
    world.advance(Duration::from_secs(60));
    process.sessions.login(request(&world)).await.unwrap();
    let binding = process.binding(&world).await;
    assert_eq!(binding.former, std::slice::from_ref(&former));
    Moved {
        world,
        new,
        process,
        former,
    }
}

impl Moved {
    async fn log_out(&self, local: bool) -> Result<Revocation, Error> {
        let key = self.world.key();
        self.process.sessions.logout(&key, local).await
    }

    /// The grants that live at the former issuer and at the one in force.
    fn alive(&self) -> (usize, usize) {
        let alive = |lab: &Lab| lab.with_issuer(|issuer| issuer.live_grants());
        (alive(&self.world.lab), alive(&self.new))
    }

    /// Whether the store still has a login under this key.
    async fn holds(&self, key: &CredentialKey) -> bool {
        let record = self.process.store.read(key).await.unwrap();
        record.is_some_and(|record| record.credential.is_some())
    }

    async fn holds_any(&self) -> bool {
        let current = self.process.binding(&self.world).await.credential.unwrap();
        self.holds(&self.former).await || self.holds(&current).await
    }
}

/// F-31, AUTH-16, T-20: a logout ends the login at the former issuer as well: each issuer is told of its own grant and of nothing
/// else, and nothing of either stays here. A second logout finds nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_ends_the_former_login_too() {
    let moved = moved().await;
    assert_eq!(moved.alive(), (1, 1));
    assert_eq!(moved.log_out(false).await, Ok(Revocation::Revoked));
    assert_eq!(moved.alive(), (0, 0));
    assert!(!moved.holds_any().await);
    assert_nothing_leaked(&moved.world.lab, &moved.new);
    assert!(moved.process.store.revocations().await.unwrap().is_empty());
    let events = moved
        .process
        .store
        .events(&moved.former, 100)
        .await
        .unwrap();
    let told = |kind: fn(&Happened) -> bool| events.iter().any(|event| kind(&event.happened));
    assert!(told(|happened| matches!(
        happened,
        Happened::LoggedOut { .. }
    )));
    assert!(told(|happened| matches!(
        happened,
        Happened::Revocation { .. }
    )));
    let nobody = Error::login(LoginCause::Never);
    assert_eq!(moved.log_out(false).await, Err(nobody));
}

/// DESIGN.md section 6: `--local` forgets both and tells neither issuer.
#[tokio::test(flavor = "multi_thread")]
async fn a_local_logout_tells_no_issuer() {
    let moved = moved().await;
    assert_eq!(moved.log_out(true).await, Ok(Revocation::Local));
    assert_eq!(moved.alive(), (1, 1));
    assert!(!moved.holds_any().await);
    assert!(moved.process.store.revocations().await.unwrap().is_empty());
}

/// RFC 7009, DESIGN.md section 6: a former issuer that cannot be reached is told later; the person learns that something is left,
/// and the one in force is told at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_issuer_that_is_away_is_told_later() {
    let moved = moved().await;
    moved.world.proxy().close().await;
    assert_eq!(moved.log_out(false).await, Ok(Revocation::Queued));
    assert_eq!(moved.alive(), (1, 0));
    assert!(!moved.holds_any().await);
    moved.world.proxy().open().unwrap();
    let told = moved.process.sessions.retry_revocations().await;
    assert_eq!((told, moved.alive()), (Ok(1), (0, 0)));
}

/// DESIGN.md section 4: a login that another entry for the same server still lives on is not ended with this one.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_server_lives_on_stays() {
    let moved = moved().await;
    let mut other = moved.process.binding(&moved.world).await;
    let mut url = moved.world.url().url().clone();
    url.set_query(Some("other"));
    other.key.url = pilotlight::core::resource::Resource::parse(url.as_str()).unwrap();
    other.name = "other".into();
    other.credential = Some(moved.former.clone());
    other.former.clear();
    moved.process.store.put_binding(&other).await.unwrap();
    assert_eq!(moved.log_out(false).await, Ok(Revocation::Revoked));
    assert_eq!(moved.alive(), (1, 0));
    assert!(moved.holds(&moved.former).await);
}

/// DESIGN.md section 6: a key in the place of a login leaves that login where it was; the logout that forgets the key ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_ends_the_login_that_a_key_has_replaced() {
    let moved = moved().await;
    let key = pilotlight::core::secret::AccessToken::new("canary-static-key".into()).unwrap();
    let (url, account) = (moved.world.url(), Account::default());
    let sessions = &moved.process.sessions;
    sessions
        .put_static(&url, &account, None, key)
        .await
        .unwrap();
    assert_eq!(moved.log_out(false).await, Ok(Revocation::Local));
    assert_eq!(moved.alive(), (0, 0));
    assert!(!moved.holds_any().await);
}
