//! The bridge over real sockets.
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

mod bytes;
mod corpora;
mod ends;
mod eras;
mod login;
mod old_transport;
mod redirects;
mod sessions;
mod streams;
mod support;
mod translated;
