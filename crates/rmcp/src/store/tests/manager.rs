//! Under rmcp's own `AuthorizationManager`, on a clock that the test turns.

use pilotlight_core::time::{Now, Stamp};
use rmcp::transport::{OAuthHttpClientFuture, OAuthHttpRequest};

use super::*;

/// An OAuth HTTP client that answers from a list. Each answer takes three seconds on the clock.
#[derive(Default)]
pub(super) struct Canned(Mutex<VecDeque<serde_json::Value>>, TestClock);

#[derive(Debug, Clone, Default)]
struct TestClock(Arc<Mutex<Stamp>>);

impl Clock for TestClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }
}

impl OAuthHttpClient for Canned {
    fn execute(&self, _: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            let mut now = self.1.0.lock().unwrap();
            *now = now.after(Duration::from_secs(3));
            let answer = self
                .0
                .lock()
                .unwrap()
                .pop_front()
                .expect("an answer is left");
            Ok(http::Response::new(answer.to_string().into_bytes()))
        })
    }
}

async fn manager(
    store: &PersistingStore,
    clock: &TestClock,
    answers: Vec<serde_json::Value>,
) -> AuthorizationManager {
    let canned = Canned(Mutex::new(answers.into()), clock.clone());
    let client = store
        .http_client(Arc::new(canned))
        .with_clock(clock.clone());
    let mut manager = AuthorizationManager::new_with_oauth_http_client(
        "https://mcp.example/mcp",
        Arc::new(client),
    )
    .await
    .unwrap();
    let metadata = json!({
        "issuer": "https://as.example",
        "authorization_endpoint": "https://as.example/authorize",
        "token_endpoint": "https://as.example/token",
        "registration_endpoint": "https://as.example/register",
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
    });
    manager.set_metadata(serde_json::from_value(metadata).unwrap());
    manager.set_credential_store(store.clone());
    manager
}

/// Issue 2 item 2, F-13: a login is stamped with the time its request left, and the secret of its registration is kept.
#[tokio::test]
async fn a_fresh_login_is_stamped_when_its_request_left() {
    let host = Host::failing([]);
    let store = PersistingStore::new(None, Arc::clone(&host));
    let clock = TestClock::default();
    let answers = vec![
        json!({"client_id": "made", "client_secret": "made-secret", "redirect_uris": []}),
        json!({"access_token": "a1", "token_type": "bearer", "expires_in": 60, "refresh_token": "r1"}),
        json!({"access_token": "a2", "token_type": "bearer", "expires_in": 60}),
    ];
    let mut manager = manager(&store, &clock, answers).await;
    manager
        .register_client("test", "http://127.0.0.1/callback", &[])
        .await
        .unwrap();
    let url = manager.get_authorization_url(&[]).await.unwrap();
    let state = url
        .split("state=")
        .nth(1)
        .and_then(|rest| rest.split('&').next())
        .unwrap();

    *clock.0.lock().unwrap() = Stamp::default().after(Duration::from_secs(1000));
    manager
        .exchange_code_for_token("code", state)
        .await
        .unwrap();
    let form = host.last();
    assert_eq!(
        form["token_received_at"], 1000,
        "neither 1003 nor the time of this test"
    );
    assert_eq!(
        (&form["client_id"], &form["client_secret"]),
        (&json!("made"), &json!("made-secret"))
    );

    manager.refresh_token().await.unwrap();
    let form = host.last();
    assert_eq!(form["token_received_at"], 1003);
    assert_eq!(
        (
            &form["token_response"]["refresh_token"],
            &form["client_secret"]
        ),
        (&json!("r1"), &json!("made-secret"))
    );
}

/// A login that brings no refresh token has none: the grant before it is another one.
#[tokio::test]
async fn a_new_login_does_not_inherit_the_old_refresh_token() {
    let host = Host::failing([]);
    let store = store(&host);
    let clock = TestClock::default();
    let answer = json!({"access_token": "a1", "token_type": "bearer", "expires_in": 60});
    let mut manager = manager(&store, &clock, vec![answer]).await;
    manager.configure_client_id("client").unwrap();
    let url = manager.get_authorization_url(&[]).await.unwrap();
    let state = url
        .split("state=")
        .nth(1)
        .and_then(|rest| rest.split('&').next())
        .unwrap();
    manager
        .exchange_code_for_token("code", state)
        .await
        .unwrap();
    let form = host.last();
    assert_eq!(form["token_response"].get("refresh_token"), None);
    assert_eq!(form["client_secret"], "secret", "the client is the same");
}
