//! What the tests share.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use pilotlight_rmcp::{Persist, PersistError, PersistedCredentials};
use pilotlight_testkit::fetch;
use rmcp::transport::{OAuthHttpClient, OAuthHttpClientFuture, OAuthHttpRequest};

/// The host's OAuth HTTP client: the testkit's, which follows no redirects.
pub struct HostHttp;

impl OAuthHttpClient for HostHttp {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            let (parts, body) = request.request.into_parts();
            let answer =
                fetch::exchange(parts.method, &parts.uri.to_string(), parts.headers, body).await?;
            let mut response = http::Response::new(answer.body);
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(response)
        })
    }
}

/// The host's secure storage: one text, as it would lie in a keychain.
#[derive(Clone, Default)]
pub struct Keychain {
    entry: Arc<Mutex<Option<String>>>,
    locked: Arc<AtomicBool>,
}

impl Keychain {
    /// What a new process loads.
    pub fn load(&self) -> Option<PersistedCredentials> {
        let entry = self.entry.lock().unwrap();
        entry
            .as_deref()
            .map(|text| serde_json::from_str(text).unwrap())
    }

    /// From now on it refuses to write, or writes again.
    pub fn lock(&self, locked: bool) {
        self.locked.store(locked, Ordering::SeqCst);
    }
}

#[async_trait]
impl Persist for Keychain {
    async fn persist(&self, credentials: PersistedCredentials) -> Result<(), PersistError> {
        if self.locked.load(Ordering::SeqCst) {
            return Err("the keychain is locked".into());
        }
        *self.entry.lock().unwrap() = Some(serde_json::to_string(&credentials)?);
        Ok(())
    }

    async fn cleared(&self) {}
}
