//! The demo: an issuer and an MCP server on loopback sockets, one login, three processes of the shipped client code that
//! keep calling a tool, and everything that usually costs people their logins.
//!
//! ```text
//!   this process                                 three processes, `demo-worker`
//!     Lab: issuer and MCP server  <---- HTTP ----  Session + rmcp, five calls a second
//!     Mishaps: 503, lost answer,                        |
//!       SIGKILL, refused token                          | one sqlite store, in a temporary folder
//!     Display, Figures            <---- why ------------+
//! ```
//!
//! There is no retry here: a call that fails is counted as failed.

mod display;
mod figures;
mod fleet;
mod mishaps;
pub(crate) mod worker;
mod world;

pub(crate) use display::Display;
pub(crate) use figures::Figures;
pub(crate) use fleet::Fleet;
pub(crate) use mishaps::Mishaps;
pub(crate) use world::World;
