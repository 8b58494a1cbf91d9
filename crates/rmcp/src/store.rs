//! The persisting store: rmcp's `CredentialStore` for a host that owns its secure storage.
//!
//! ```text
//!   secure storage ── loaded ──> PersistingStore <── save, load ── rmcp's AuthorizationManager
//!         ^                        │         ^                            │
//!         └────── Persist ─────────┘         └── notes ── NotingHttpClient ── token endpoint
//! ```
//!
//! The copy in memory is what rmcp sees, and it is always the newest. Each version of it goes to the host's [`Persist`],
//! one at a time and in order, and `save` returns when that is done. What a token response leaves out is carried
//! forward before it goes: rmcp's own form has no client secret, and a response may have no refresh token.
//!
//! **When the host cannot persist**, the token has been rotated all the same: failing `save` would fail the call that
//! waits for it and bring nothing back. So `save` keeps the version in memory, says `Ok`, logs a warning, and the store
//! tries again by itself (after 0.5 s, doubling up to 5 min) until the host takes this version or a newer one;
//! [`PersistingStore::unpersisted`] tells what is outstanding and [`PersistingStore::flush`] tries at once. These
//! retries end with the last handle of the store: keep one, and flush it before exit. The same holds when the future
//! of `save` is dropped: the version is in memory and on its way from the first poll on.
//!
//! **The received time** is passed on as rmcp gives it, none included. If the token came through
//! [`PersistingStore::http_client`], it is the time its request left, which is never later than the truth.
//!
//! What this seat cannot do is what rmcp decides outside it: see `docs/design/0001-origin.md`.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use pilotlight::clock::{Clock, SystemClock};
use pilotlight_core::{
    legacy::{PersistedCredentials, PersistedTokens},
    scope::Scopes,
};
use rmcp::transport::{
    AuthError, AuthorizationManager, CredentialRefreshGuard, CredentialStore, OAuthHttpClient,
    StoredCredentials, auth::OAuthClientConfig,
};

use crate::noting::{Grant, Notes, NotingHttpClient};

mod forward;

use forward::Shared;

/// The host's secure storage, as the store sees it.
#[async_trait]
pub trait Persist: Send + Sync + 'static {
    /// Writes one version of the credentials durably; it replaces every earlier one.
    ///
    /// Called once at a time, in the order in which the versions came to be. Until it has returned `Ok` the version
    /// counts as unpersisted and is offered again.
    async fn persist(&self, credentials: PersistedCredentials) -> Result<(), PersistError>;

    /// Learns that the copy in memory has been emptied: rmcp does so when the server has changed its issuer.
    ///
    /// Nothing has to be deleted: what is persisted stays until the host decides.
    async fn cleared(&self);
}

/// Why the host could not persist; handed back by [`PersistingStore::flush`], never logged.
pub type PersistError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps rmcp's credentials in memory and forwards every change to the host. Clones share one copy.
#[derive(Clone)]
pub struct PersistingStore {
    shared: Arc<Shared>,
    notes: Notes,
}

impl PersistingStore {
    /// Starts from what the host has `loaded`, received time included; `None` before the first login.
    ///
    /// A record without tokens is of use too: it brings the secret of a client that was registered before.
    #[must_use]
    pub fn new(loaded: Option<PersistedCredentials>, persist: impl Persist) -> Self {
        let shared = Shared::new(loaded, persist);
        Self {
            shared: Arc::new(shared),
            notes: Notes::default(),
        }
    }

    /// Wraps the host's OAuth HTTP client, so that the store knows when token requests left and what secrets
    /// registrations brought. It goes to
    /// [`AuthorizationManager::new_with_oauth_http_client`]; without it rmcp's own time stays.
    #[must_use]
    pub fn http_client(&self, inner: Arc<dyn OAuthHttpClient>) -> NotingHttpClient {
        NotingHttpClient::new(inner, self.notes.clone())
    }

    /// Puts the store into `manager` and takes up the stored login; `false` where a person must log in.
    ///
    /// Like [`AuthorizationManager::initialize_from_store`], which discovers the issuer's metadata, but a client secret
    /// is taken up too. Nothing is refreshed: the received time says when that is due.
    ///
    /// # Errors
    /// What rmcp's discovery answers; the stored login is untouched.
    pub async fn install(&self, manager: &mut AuthorizationManager) -> Result<bool, AuthError> {
        manager.set_credential_store(self.clone());
        if !manager.initialize_from_store().await? {
            return Ok(false);
        }
        if let Some(PersistedCredentials {
            client_id,
            client_secret: Some(secret),
            ..
        }) = self.credentials()
        {
            // A refresh has no redirect URI; rmcp's configuration merely wants one.
            let config = OAuthClientConfig::new(client_id, UNUSED_REDIRECT)
                .with_client_secret(secret.expose());
            manager.configure_client(config)?;
        }
        Ok(true)
    }

    /// The copy in memory.
    #[must_use]
    pub fn credentials(&self) -> Option<PersistedCredentials> {
        self.shared.held().newest.clone()
    }

    /// The newest version, if the host has not yet confirmed that it is persisted.
    #[must_use]
    pub fn unpersisted(&self) -> Option<PersistedCredentials> {
        self.shared
            .held()
            .unpersisted
            .as_ref()
            .map(|version| version.credentials.clone())
    }

    /// Offers what is unpersisted to the host once more, now.
    ///
    /// # Errors
    /// The host's own error; the version stays in memory and is retried.
    pub async fn flush(&self) -> Result<(), PersistError> {
        self.shared.offer(true).await
    }

    /// The version that follows on `previous` from what rmcp saves.
    fn next(
        &self,
        saved: StoredCredentials,
        previous: Option<&PersistedCredentials>,
    ) -> Result<PersistedCredentials, AuthError> {
        let mut next = from_rmcp(saved)?;
        let noted = next
            .token_response
            .as_ref()
            .and_then(|tokens| self.notes.of_token(&tokens.access_token));
        if let Some((_, sent_at)) = noted {
            next.token_received_at = Some(sent_at.unix_seconds());
        }
        next.client_secret = self.notes.secret_of(&next.client_id);
        let Some(previous) = previous else {
            return Ok(next);
        };
        let is_login = matches!(noted, Some((Grant::Login, _)));
        let granted = next
            .token_response
            .as_ref()
            .is_some_and(|tokens| tokens.refresh_token.is_some());
        next.carry_forward(previous);
        if let Some(tokens) = &mut next.token_response
            && is_login
            && !granted
        {
            // A new grant that came without a refresh token: the old grant's is not its own.
            tokens.refresh_token = None;
        }
        if next.client_id == previous.client_id {
            next.extra.clone_from(&previous.extra);
        }
        Ok(next)
    }
}

#[async_trait]
impl CredentialStore for PersistingStore {
    async fn load(&self) -> Result<Option<StoredCredentials>, AuthError> {
        self.credentials().map(to_rmcp).transpose()
    }

    async fn save(&self, credentials: StoredCredentials) -> Result<(), AuthError> {
        let persists = credentials.token_response.is_some();
        {
            let mut held = self.shared.held();
            let next = self.next(credentials, held.newest.as_ref())?;
            held.put(next);
        }
        if persists {
            self.shared.forward().await;
        }
        Ok(())
    }

    async fn clear(&self) -> Result<(), AuthError> {
        self.shared.held().empty();
        self.shared.forward().await;
        Ok(())
    }

    /// One refresh at a time among the clones of this store, in this process.
    async fn acquire_refresh_guard(&self) -> Result<Option<CredentialRefreshGuard>, AuthError> {
        let guard = Arc::clone(&self.shared.refreshing).lock_owned().await;
        Ok(Some(CredentialRefreshGuard::new(guard)))
    }
}

impl fmt::Debug for PersistingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.shared.held();
        f.debug_struct("PersistingStore")
            .field("credentials", &held.newest)
            .field("unpersisted", &held.unpersisted.is_some())
            .finish_non_exhaustive()
    }
}

/// Tells the present time in whole seconds since the Unix epoch: the unit of `token_received_at`.
#[must_use]
pub fn unix_now() -> u64 {
    SystemClock.now().wall.unix_seconds()
}

fn from_rmcp(saved: StoredCredentials) -> Result<PersistedCredentials, AuthError> {
    let tokens = saved.token_response.as_ref().map(|tokens| {
        let value = serde_json::to_value(tokens)?;
        serde_json::from_value::<PersistedTokens>(value)
    });
    let mut next = PersistedCredentials::new(saved.client_id);
    next.token_response = tokens.transpose().map_err(unreadable)?;
    next.granted_scopes = Scopes::from(saved.granted_scopes);
    next.token_received_at = saved.token_received_at;
    next.issuer = saved.issuer;
    Ok(next)
}

fn to_rmcp(held: PersistedCredentials) -> Result<StoredCredentials, AuthError> {
    let tokens = held
        .token_response
        .as_ref()
        .map(|tokens| serde_json::from_value(serde_json::to_value(tokens)?));
    let tokens = tokens.transpose().map_err(unreadable)?;
    let scopes = held.granted_scopes.into();
    Ok(
        StoredCredentials::new(held.client_id, tokens, scopes, held.token_received_at)
            .with_issuer(held.issuer),
    )
}

/// The error without its words, which may quote a token.
fn unreadable(error: serde_json::Error) -> AuthError {
    AuthError::CredentialStoreError(format!(
        "the token response cannot be stored ({:?})",
        error.classify()
    ))
}

const UNUSED_REDIRECT: &str = "http://127.0.0.1/callback";

#[cfg(test)]
mod tests;
