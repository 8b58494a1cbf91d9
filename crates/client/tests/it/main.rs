//! The integration tests of the client, in one binary.
#![allow(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, in its helpers too"
)]

mod net_callback;
mod net_egress;
mod net_http;
mod net_human;
mod sessions;
#[cfg(feature = "sqlite")]
mod store_contract;
#[cfg(feature = "sqlite")]
mod store_model;
#[cfg(feature = "sqlite")]
mod store_sqlite;
#[cfg(feature = "sqlite")]
mod store_support;
