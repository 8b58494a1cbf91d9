//! Log in once, stay connected: the OAuth sessions of MCP (Model Context Protocol) clients, kept alive.
//!
//! A program opens [`Sessions`] over a [`store::Store`], asks for the [`Session`] of a server, and puts
//! [`Session::header`] on its requests. What a person did once lasts for as long as the issuer allows: tokens are
//! refreshed before they end, once for all processes that share the store, and every loss has a reason.
//!
//! - *Cancel-safe*: every future here can be dropped at any await point; a refresh under way goes on (F-05).
//! - *No hidden runtime*: what runs in the background runs on the tokio runtime that [`Sessions`] was opened on.
//! - *No globals*: no environment, no home folder, no terminal; the caller passes what it wants used.

pub mod callback;
mod cell;
pub mod clock;
mod config;
pub mod crypto;
mod dpop;
mod drive;
pub mod egress;
mod extensions;
mod flight;
mod hex;
pub mod http;
pub mod human;
mod login;
mod logout;
mod look;
pub mod mcp_remote;
pub mod secrets;
mod session;
mod sessions;
mod sign;
mod slot;
mod step_up;
pub mod store;
mod traffic;

pub use pilotlight_core as core;
pub use pilotlight_core::Error;

pub use config::{Flag, Limits, LoggedIn, LoginRequest, Status};
pub use session::{Next, RefreshReport, Sent, Session, Token};
pub use sessions::{Changed, Sessions, SessionsBuilder};
pub use traffic::Body;
