//! Puts fresh tokens on other programs' traffic: the bridge between a host on stdio and an MCP server over HTTP.
//!
//! [`Bridge::run`] carries messages from a host's lines to the server and back, over a
//! [`Session`](pilotlight::Session) that keeps the login alive. How a message travels, where it waits and what bounds it is
//! told in `docs/design/0005-bridge.md`.

mod answer;
pub mod approver;
pub mod batch;
mod bridge;
mod config;
mod cookies;
pub mod era;
mod exchange;
pub mod frame;
pub mod headers;
mod listen;
mod lock;
mod login;
pub mod message;
pub mod out;
mod redirect;
mod refusal;
pub mod scan;
pub mod sse;
pub mod stdio;
mod table;
pub mod tools;
mod translate;
mod turns;
mod upstream;
mod wire;

pub use bridge::{Bridge, Ended, Ground};
pub use config::{Config, Limits, Transport};
