//! The bridge over real sockets.
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

mod bytes;
mod ends;
mod eras;
mod login;
mod old_transport;
mod sessions;
mod streams;
mod support;
mod unreadable_store;
