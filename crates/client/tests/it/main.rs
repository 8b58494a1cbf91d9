//! The integration tests of the client, in one binary.
#![allow(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, in its helpers too"
)]

#[cfg(feature = "sqlite")]
mod corpus;
#[cfg(feature = "sqlite")]
mod damaged_logins;
#[cfg(feature = "sqlite")]
mod device;
mod dpop;
mod dpop_nonces;
mod endpoint;
#[cfg(feature = "sqlite")]
mod faults_answers;
#[cfg(feature = "sqlite")]
mod faults_callers;
#[cfg(feature = "sqlite")]
mod faults_clock;
#[cfg(feature = "sqlite")]
mod faults_herd;
#[cfg(feature = "sqlite")]
mod faults_limits;
#[cfg(feature = "sqlite")]
mod faults_network;
#[cfg(feature = "sqlite")]
mod faults_outage;
#[cfg(feature = "sqlite")]
mod faults_races;
#[cfg(feature = "sqlite")]
mod faults_refusal;
#[cfg(feature = "sqlite")]
mod faults_stall;
#[cfg(feature = "sqlite")]
mod faults_support;
#[cfg(feature = "sqlite")]
mod hosted;
#[cfg(feature = "sqlite")]
mod issuers;
#[cfg(unix)]
mod mcp_remote;
mod net_callback;
mod net_departure;
mod net_egress;
mod net_http;
mod net_human;
#[cfg(all(feature = "sqlite", target_os = "linux", target_arch = "x86_64"))]
mod power;
mod quirks;
mod sessions;
mod sessions_scopes;
#[cfg(feature = "sqlite")]
mod stalling_store;
mod static_tokens;
#[cfg(feature = "sqlite")]
mod store_contract;
#[cfg(feature = "sqlite")]
mod store_model;
#[cfg(feature = "sqlite")]
mod store_sqlite;
#[cfg(feature = "sqlite")]
mod store_support;
#[cfg(feature = "sqlite")]
mod unattended;
