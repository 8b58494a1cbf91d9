//! The CLI as people and scripts meet it: the shipped binary, in an empty home, against servers on loopback.
#![allow(
    clippy::disallowed_methods,
    reason = "a test runs in real time and reads its own environment"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]
#![allow(clippy::print_stderr, reason = "a test that did not run must say so")]

mod bridged;
mod cli;
mod cli_by_hand;
mod cli_device;
mod cli_import;
mod cli_issuers;
mod cli_memory;
mod cli_moves;
mod cli_secrets;
mod cli_store;
mod cli_token;
mod cli_waiting;
mod embedded;
mod old_servers;
mod peers;
mod peers_device;
mod peers_faults;
mod peers_issuers;
mod peers_logins;
mod peers_logout;
mod peers_loss;
mod peers_refused;
mod peers_shared;
mod peers_steady;
mod peers_ways;
mod previous;
mod proxy;
mod storms;
mod support;
mod unattended;
mod wire;
