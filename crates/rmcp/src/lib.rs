//! Pilotlight for rmcp, the official Rust SDK of the Model Context Protocol.
//!
//! Two seats, by who owns the login:
//!
//! - **Pilotlight does** (the full product): [`connect`] gives a running rmcp client over a
//!   [`Session`](pilotlight::Session), and [`Transport`] is the `StreamableHttpClient` under it, for those who build
//!   rmcp's worker themselves. One refresh among all processes, before expiry, crash-proof; one retry after a 401.
//!   [`cause`] finds the session's own error in rmcp's.
//! - **The host does**, with its own secure storage and rmcp's `AuthorizationManager`: [`PersistingStore`] is the
//!   `CredentialStore` that makes rmcp refresh in time after a restart too, and loses no rotated token on the way to
//!   the host's [`Persist`]. [`NotingHttpClient`] beside it notes when a token's request left.
//!
//! ```no_run
//! # async fn call(session: pilotlight::Session) -> Result<(), Box<dyn std::error::Error>> {
//! let client = pilotlight_rmcp::connect(session, ()).await?;
//! for tool in client.list_all_tools().await? {
//!     let _ = tool.name;
//! }
//! # Ok(()) }
//! ```
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use pilotlight_rmcp::{PersistedCredentials, PersistingStore, Persist};
//! # use rmcp::transport::{AuthError, AuthorizationManager};
//! # async fn start(url: &str, loaded: Option<PersistedCredentials>, keychain: impl Persist) -> Result<(), AuthError> {
//! let store = PersistingStore::new(loaded, keychain);
//! let http = store.http_client(Arc::new(rmcp::transport::auth::default_oauth_http_client()?));
//! let mut manager = AuthorizationManager::new_with_oauth_http_client(url, Arc::new(http)).await?;
//! if !store.install(&mut manager).await? {
//!     // a person logs in, by rmcp's `AuthorizationSession`
//! }
//! # Ok(()) }
//! ```
//!
//! The major version follows rmcp's.

mod connect;
mod noting;
mod store;
mod transport;

pub use connect::{ConnectError, Wire, cause, connect, connect_on};
pub use noting::NotingHttpClient;
pub use pilotlight_core::legacy::{PersistedCredentials, PersistedTokens};
pub use store::{Persist, PersistError, PersistingStore, unix_now};
pub use transport::Transport;
