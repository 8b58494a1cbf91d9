//! The origin, end to end: rmcp's own `AuthorizationManager` over the persisting store, through a restart.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, StatusCode};
use pilotlight_rmcp::PersistingStore;
use pilotlight_testkit::{
    AuthorizationServerConfig, Lab, LabConfig, ScriptedHuman, authorization_server::Kind, fetch,
};
use rmcp::transport::{AuthorizationManager, AuthorizationRequest, AuthorizationSession};
use serde_json::json;

use crate::support::{HostHttp, Keychain};

/// Issue 2 item 2, F-19, F-24: a restart in the middle of a token's life. Every token is refreshed before it ends, as the
/// issuer saw it; no call fails, and nobody logs in again.
///
/// With `PILOTLIGHT_SLOW` set the tokens live for 15 s, else for 6 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_costs_neither_a_call_nor_a_login() {
    let life = Duration::from_secs(if slow() { 15 } else { 6 });
    let lab = lab(|issuer| issuer.access_ttl = life).await;
    let keychain = Keychain::default();

    let (store, manager) = host(&lab, &keychain).await;
    let manager = log_in(manager).await;
    let mut failed = calls(&lab, &manager, life / 3).await;
    drop((store, manager));

    let (store, mut manager) = host(&lab, &keychain).await;
    assert!(store.install(&mut manager).await.unwrap(), "taken up");
    failed += calls(&lab, &manager, life * 5 / 3).await;

    assert_eq!(failed, 0, "failed calls");
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(
        (stats.code_ok, stats.authorize, stats.registrations),
        (1, 1, 1)
    );
    assert_eq!((stats.refresh_err, stats.spent_presented), (0, 0));
    let issued: Vec<u64> = lab.with_issuer(|issuer| {
        let tokens = issuer.ledger().entries.iter();
        tokens
            .filter(|e| matches!(e.kind, Kind::Code | Kind::Refresh))
            .map(|e| e.at_ms)
            .collect()
    });
    assert!((3..=4).contains(&issued.len()), "{issued:?}");
    let life_ms = u64::try_from(life.as_millis()).unwrap();
    for pair in issued.windows(2) {
        assert!(
            pair[1] - pair[0] < life_ms,
            "refreshed before expiry: {issued:?}"
        );
    }
    let received = keychain.load().unwrap().token_received_at.unwrap();
    let last = issued.last().unwrap() / 1000;
    assert!(
        (last.saturating_sub(2)..=last).contains(&received),
        "{received}, issued {last}"
    );
}

/// The needless refresh at connect: a stored token that is fresh is used as it is.
#[tokio::test]
async fn starting_with_a_fresh_token_refreshes_nothing() {
    let lab = lab(|_| {}).await;
    let keychain = Keychain::default();
    let (_, manager) = host(&lab, &keychain).await;
    drop(log_in(manager).await);

    let (store, mut manager) = host(&lab, &keychain).await;
    assert!(store.install(&mut manager).await.unwrap());
    assert_eq!(calls(&lab, &manager, Duration::ZERO).await, 0);
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().refresh_ok), 0);
}

/// AUTH-44: the secret of a dynamic registration reaches the host, and the refresh after a restart.
#[tokio::test]
async fn a_confidential_client_refreshes_after_a_restart() {
    let lab = lab(|issuer| issuer.confidential_clients = true).await;
    let keychain = Keychain::default();
    let (_, manager) = host(&lab, &keychain).await;
    drop(log_in(manager).await);
    assert!(keychain.load().unwrap().client_secret.is_some());

    for _ in 0..2 {
        let (store, mut manager) = host(&lab, &keychain).await;
        assert!(store.install(&mut manager).await.unwrap());
        manager.refresh_token().await.unwrap();
        assert!(keychain.load().unwrap().client_secret.is_some());
    }
    assert_eq!(
        lab.with_issuer(|issuer| (issuer.stats().refresh_ok, issuer.stats().code_ok)),
        (2, 1)
    );
}

/// AUTH-85, F-18: an issuer that never repeats the refresh token.
#[tokio::test]
async fn a_refresh_token_that_is_not_repeated_is_kept() {
    let lab = lab(|issuer| issuer.omit_refresh_token = true).await;
    let keychain = Keychain::default();
    let (_, manager) = host(&lab, &keychain).await;
    drop(log_in(manager).await);
    for _ in 0..2 {
        let (store, mut manager) = host(&lab, &keychain).await;
        assert!(store.install(&mut manager).await.unwrap());
        manager.refresh_token().await.unwrap();
    }
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().refresh_ok), 2);
}

/// F-06: while the host's storage refuses, refreshes go on with the newest token; once it is back, the newest is in it.
#[tokio::test]
async fn a_locked_keychain_costs_nothing() {
    let lab = lab(|_| {}).await;
    let keychain = Keychain::default();
    let (store, manager) = host(&lab, &keychain).await;
    let manager = log_in(manager).await;
    keychain.lock(true);
    for _ in 0..3 {
        manager.refresh_token().await.unwrap();
    }
    assert!(store.unpersisted().is_some());
    assert!(store.flush().await.is_err());
    keychain.lock(false);
    store.flush().await.unwrap();
    assert_eq!(store.unpersisted(), None);
    drop((store, manager));

    let (store, mut manager) = host(&lab, &keychain).await;
    assert!(store.install(&mut manager).await.unwrap());
    manager.refresh_token().await.unwrap();
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(
        (stats.refresh_ok, stats.spent_presented, stats.code_ok),
        (4, 0, 1)
    );
}

pub(crate) async fn lab(issuer: impl FnOnce(&mut AuthorizationServerConfig)) -> Lab {
    let mut config = LabConfig::default();
    issuer(&mut config.authorization_server);
    Lab::start(config).await.unwrap()
}

/// A host that starts: its stored login, the store over it, and rmcp's manager through our HTTP client.
pub(crate) async fn host(
    lab: &Lab,
    keychain: &Keychain,
) -> (PersistingStore, AuthorizationManager) {
    let store = PersistingStore::new(keychain.load(), keychain.clone());
    let http = store.http_client(Arc::new(HostHttp));
    let manager =
        AuthorizationManager::new_with_oauth_http_client(lab.resource_url(), Arc::new(http)).await;
    let mut manager = manager.unwrap();
    manager.set_credential_store(store.clone());
    (store, manager)
}

pub(crate) async fn log_in(mut manager: AuthorizationManager) -> AuthorizationManager {
    let metadata = manager.resolve_metadata().await.unwrap().metadata;
    manager.set_metadata(metadata);
    let request =
        AuthorizationRequest::new("http://127.0.0.1:1/callback").with_client_name("a terminal");
    let session = AuthorizationSession::new(manager, request)
        .await
        .map_err(|(_, error)| error)
        .unwrap();
    let human = ScriptedHuman::allows().without_callback();
    let redirect = human.visit(session.get_authorization_url()).await.unwrap();
    session.handle_callback_url(&redirect).await.unwrap();
    session.auth_manager
}

/// Calls a tool five times a second, at least once, and counts the failures.
async fn calls(lab: &Lab, manager: &AuthorizationManager, span: Duration) -> usize {
    let end = tokio::time::Instant::now() + span;
    let mut failed = 0;
    loop {
        let answered = match manager.get_access_token().await {
            Ok(token) => call(lab, &token).await == StatusCode::OK,
            Err(_) => false,
        };
        failed += usize::from(!answered);
        if tokio::time::Instant::now() >= end {
            return failed;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn call(lab: &Lab, token: &str) -> StatusCode {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("authorization", format!("Bearer {token}").as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "whoami"),
    ] {
        headers.insert(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"name": "whoami", "arguments": {}, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let answer = fetch::exchange(
        Method::POST,
        lab.resource_url(),
        headers,
        body.to_string().into_bytes(),
    )
    .await;
    answer.map_or(StatusCode::SERVICE_UNAVAILABLE, |answer| answer.status)
}

#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn slow() -> bool {
    std::env::var_os("PILOTLIGHT_SLOW").is_some()
}
