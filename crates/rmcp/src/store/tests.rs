use std::{collections::VecDeque, sync::Mutex, time::Duration};

mod manager;

use pilotlight_core::secret::{AccessToken, ClientSecret, RefreshToken};
use serde_json::json;
use tokio::sync::Notify;

use super::*;

/// A host's secure storage: what it was told, in order, and how often it fails first.
#[derive(Default)]
struct Host {
    told: Mutex<Vec<Told>>,
    failures: Mutex<VecDeque<Failure>>,
    /// When set, each call waits for one permit.
    gate: Option<Notify>,
    busy: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, PartialEq)]
enum Told {
    Persist(serde_json::Value),
    Cleared,
}

enum Failure {
    Error,
    Panic,
}

#[async_trait]
impl Persist for Arc<Host> {
    async fn persist(&self, credentials: PersistedCredentials) -> Result<(), PersistError> {
        let _alone = self.busy.try_lock().expect("called twice at once");
        tokio::task::yield_now().await;
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        let failure = self.failures.lock().unwrap().pop_front();
        match failure {
            Some(Failure::Error) => return Err("the keychain is locked".into()),
            Some(Failure::Panic) => panic!("a host's bug"),
            None => {}
        }
        self.told
            .lock()
            .unwrap()
            .push(Told::Persist(serde_json::to_value(&credentials)?));
        Ok(())
    }

    async fn cleared(&self) {
        self.told.lock().unwrap().push(Told::Cleared);
    }
}

impl Host {
    fn failing(failures: impl IntoIterator<Item = Failure>) -> Arc<Self> {
        Arc::new(Self {
            failures: Mutex::new(failures.into_iter().collect()),
            ..Self::default()
        })
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    fn last(&self) -> serde_json::Value {
        match self.told().pop() {
            Some(Told::Persist(form)) => form,
            other => panic!("{other:?}"),
        }
    }

    fn access_tokens(&self) -> Vec<String> {
        let access = |told: &Told| match told {
            Told::Persist(form) => form["token_response"]["access_token"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            Told::Cleared => "cleared".to_owned(),
        };
        self.told().iter().map(access).collect()
    }
}

/// What rmcp saves.
fn saved(access: &str, refresh: Option<&str>, received_at: Option<u64>) -> StoredCredentials {
    let mut tokens = json!({"access_token": access, "token_type": "bearer", "expires_in": 60});
    if let Some(refresh) = refresh {
        tokens["refresh_token"] = refresh.into();
    }
    let tokens = serde_json::from_value(tokens).unwrap();
    StoredCredentials::new(
        "client".into(),
        Some(tokens),
        vec!["mcp:tools".into()],
        received_at,
    )
    .with_issuer(Some("https://as.example".into()))
}

/// What the host had stored.
fn loaded() -> PersistedCredentials {
    let form = json!({
        "client_id": "client",
        "token_response": {"access_token": "a0", "token_type": "bearer", "expires_in": 60, "refresh_token": "r0"},
        "granted_scopes": ["mcp:tools"],
        "token_received_at": 1_700_000_000,
        "client_secret": "secret",
        "issuer": "https://as.example",
    });
    serde_json::from_value(form).unwrap()
}

fn store(host: &Arc<Host>) -> PersistingStore {
    PersistingStore::new(Some(loaded()), Arc::clone(host))
}

/// Issue 2 item 2: what was loaded is what rmcp is given after a restart, received time included.
#[tokio::test]
async fn round_trip_through_serde_keeps_the_received_time() {
    let host = Host::failing([]);
    let store = PersistingStore::new(None, Arc::clone(&host));
    store
        .save(saved("a1", Some("r1"), Some(1_700_000_123)))
        .await
        .unwrap();

    let text = host.last().to_string();
    let restarted = PersistingStore::new(serde_json::from_str(&text).unwrap(), Host::failing([]));
    let stored = restarted.load().await.unwrap().unwrap();
    assert_eq!(stored.token_received_at, Some(1_700_000_123));
    assert_eq!(stored.issuer.as_deref(), Some("https://as.example"));
    assert_eq!(stored.granted_scopes, ["mcp:tools"]);
    let tokens = serde_json::to_value(stored.token_response).unwrap();
    assert_eq!(
        tokens,
        serde_json::to_value(saved("a1", Some("r1"), None).token_response).unwrap()
    );
}

/// Issue 2 item 2, F-30: a form older than the received time loads, and nothing is made up for it.
#[tokio::test]
async fn the_legacy_form_without_the_received_time_still_loads_as_none() {
    let form = r#"{"client_id":"client","token_response":{"access_token":"a0","token_type":"bearer","refresh_token":"r0"}}"#;
    let store = PersistingStore::new(serde_json::from_str(form).unwrap(), Host::failing([]));
    let stored = store.load().await.unwrap().unwrap();
    assert_eq!(stored.token_received_at, None);
    assert!(stored.token_response.is_some());
}

/// Issue 2 item 2: the host gets the time the token was received, before `save` returns.
#[tokio::test]
async fn save_forwards_the_received_time() {
    let host = Host::failing([]);
    store(&host)
        .save(saved("a1", Some("r1"), Some(1_700_000_123)))
        .await
        .unwrap();
    assert_eq!(host.last()["token_received_at"], json!(1_700_000_123));
}

/// Issue 2 item 2: no time is no time, not now.
#[tokio::test]
async fn save_forwards_none_when_it_is_none() {
    let host = Host::failing([]);
    store(&host)
        .save(saved("a1", Some("r1"), None))
        .await
        .unwrap();
    assert_eq!(host.last()["token_received_at"], json!(null));
}

/// Issue 2 item 2: a registration without a login is no reason to touch secure storage.
#[tokio::test]
async fn save_persists_nothing_without_a_token_response() {
    let host = Host::failing([]);
    let store = store(&host);
    store
        .save(StoredCredentials::new(
            "client".into(),
            None,
            Vec::new(),
            None,
        ))
        .await
        .unwrap();
    assert_eq!(host.told(), []);
    assert!(
        store
            .load()
            .await
            .unwrap()
            .unwrap()
            .token_response
            .is_none(),
        "rmcp gets what it saved"
    );
    assert_eq!(store.unpersisted(), None);
}

/// Issue 2 item 2, AUTH-85, F-18: what a refresh response omits is kept; its own received time goes through.
#[tokio::test]
async fn save_carries_the_refresh_token_forward_and_keeps_the_received_time() {
    let host = Host::failing([]);
    let store = store(&host);
    store
        .save(saved("a1", None, Some(1_700_000_123)).with_issuer(None))
        .await
        .unwrap();
    let form = host.last();
    assert_eq!(form["token_response"]["refresh_token"], "r0");
    assert_eq!(form["token_received_at"], 1_700_000_123);
    assert_eq!(
        (&form["client_secret"], &form["issuer"]),
        (&json!("secret"), &json!("https://as.example"))
    );
    let tokens = store.load().await.unwrap().unwrap().token_response;
    assert_eq!(
        serde_json::to_value(tokens).unwrap()["refresh_token"],
        "r0",
        "rmcp sees it too"
    );
}

/// Issue 2 item 2: the helper tells seconds of this decade.
#[test]
fn the_clock_helper_tells_recent_unix_time() {
    let now = unix_now();
    assert!((1_750_000_000..4_000_000_000).contains(&now), "{now}");
}

/// F-06: a host that fails loses nothing; the store tries again by itself, and the newest is what arrives.
#[tokio::test(start_paused = true)]
async fn a_rotated_token_survives_a_host_that_fails() {
    let host = Host::failing([Failure::Error, Failure::Panic, Failure::Error]);
    let store = store(&host);
    store.save(saved("a1", Some("r1"), Some(1))).await.unwrap();
    assert_eq!(host.told(), []);
    let held = store.load().await.unwrap().unwrap();
    assert_eq!(
        serde_json::to_value(held.token_response).unwrap()["refresh_token"],
        "r1"
    );
    let refresh = |held: Option<PersistedCredentials>| held?.token_response?.refresh_token;
    assert_eq!(
        refresh(store.unpersisted()),
        RefreshToken::new("r1".into()).ok()
    );

    store.save(saved("a2", Some("r2"), Some(2))).await.unwrap();
    assert_eq!(
        refresh(store.unpersisted()),
        RefreshToken::new("r2".into()).ok()
    );
    let refused = store.flush().await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the keychain is locked",
        "flush gives the host its own error"
    );

    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        host.access_tokens(),
        ["a2"],
        "once, and never the superseded one"
    );
    assert_eq!(store.unpersisted(), None);
}

/// F-06, F-26: the pauses between tries start at half a second and double, for as long as the store lives.
#[tokio::test(start_paused = true)]
async fn retries_back_off_and_end_with_the_store() {
    let host = Host::failing(std::iter::repeat_with(|| Failure::Error).take(1000));
    let left = || host.failures.lock().unwrap().len();
    let store = store(&host);
    store.save(saved("a1", Some("r1"), None)).await.unwrap();
    assert_eq!(left(), 999);
    tokio::time::sleep(Duration::from_millis(499)).await;
    assert_eq!(left(), 999);
    tokio::time::sleep(Duration::from_secs(32)).await;
    assert_eq!(left(), 993, "at 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!((975..985).contains(&left()), "{}", left());
    drop(store);
    let then = left();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(left(), then);
}

/// Issue 2 item 2: versions reach the host one at a time and in the order in which they came to be.
#[tokio::test]
async fn saves_reach_the_host_in_order_and_one_at_a_time() {
    let host = Host::failing([]);
    let store = store(&host);
    let saves = (0..50).map(|n| store.save(saved(&format!("a{n}"), Some("r"), None)));
    let outcomes = futures_util::future::join_all(saves).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let expected: Vec<_> = (0..50).map(|n| format!("a{n}")).collect();
    assert_eq!(host.access_tokens(), expected);
}

/// F-05, F-07: `save` returns after the host does, and a caller that gives up meanwhile stops nothing.
#[tokio::test(start_paused = true)]
async fn save_waits_for_the_host_and_a_cancelled_one_still_arrives() {
    let host = Arc::new(Host {
        gate: Some(Notify::new()),
        ..Host::default()
    });
    let store = store(&host);
    let given_up = tokio::time::timeout(
        Duration::from_secs(1),
        store.save(saved("a1", Some("r1"), None)),
    )
    .await;
    assert!(given_up.is_err(), "the host has not finished");
    let held = store.load().await.unwrap().unwrap().token_response;
    assert_eq!(
        serde_json::to_value(held).unwrap()["refresh_token"],
        "r1",
        "in memory at once"
    );

    host.gate.as_ref().unwrap().notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(host.access_tokens(), ["a1"]);
}

/// Issue 2 item 2: `clear` empties the copy in memory, tells the host, in its place in the order, and deletes nothing.
#[tokio::test(start_paused = true)]
async fn clear_empties_memory_and_tells_the_host() {
    let host = Host::failing([]);
    let store = store(&host);
    store.save(saved("a1", Some("r1"), None)).await.unwrap();
    host.failures.lock().unwrap().push_back(Failure::Error);
    store.save(saved("a2", Some("r2"), None)).await.unwrap();
    store.clear().await.unwrap();
    assert!(store.load().await.unwrap().is_none());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(
        host.access_tokens(),
        ["a1", "cleared"],
        "what was cleared is not written afterwards"
    );

    store.save(saved("a3", None, None)).await.unwrap();
    let form = host.last();
    assert_eq!(
        form["token_response"].get("refresh_token"),
        None,
        "nothing comes back from before"
    );
    assert_eq!(form["client_secret"], json!(null));
}

/// T-20, AUTH-40: nothing of another client or another issuer is carried forward.
#[tokio::test]
async fn nothing_is_carried_from_another_issuer() {
    let host = Host::failing([]);
    let elsewhere = saved("a1", None, None).with_issuer(Some("https://other.example".into()));
    store(&host).save(elsewhere).await.unwrap();
    let form = host.last();
    assert_eq!(
        (
            form["token_response"].get("refresh_token"),
            &form["client_secret"]
        ),
        (None, &json!(null))
    );
}

/// F-02: two refreshes of one process never overlap.
#[tokio::test]
async fn the_refresh_guard_is_exclusive_among_clones() {
    let host = Host::failing([]);
    let store = store(&host);
    let guard = store.acquire_refresh_guard().await.unwrap().unwrap();
    let second = store.clone();
    let second = second.acquire_refresh_guard();
    tokio::pin!(second);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), &mut second)
            .await
            .is_err()
    );
    drop(guard);
    assert!(second.await.unwrap().is_some());
}

/// T-33: neither the store nor the client shows a secret.
#[test]
fn debug_output_shows_no_secret() {
    let host = Host::failing([]);
    let store = store(&host);
    let client = store.http_client(Arc::new(manager::Canned::default()));
    let shown = format!("{store:?} {client:?}");
    for secret in ["a0", "r0", "secret"] {
        assert!(!shown.contains(&format!("\"{secret}\"")), "{shown}");
    }
    assert_eq!(
        AccessToken::new("a0".into()).ok(),
        store
            .credentials()
            .and_then(|c| Some(c.token_response?.access_token))
    );
    assert_eq!(
        ClientSecret::new("secret".into()).ok(),
        store.credentials().and_then(|c| c.client_secret)
    );
}
