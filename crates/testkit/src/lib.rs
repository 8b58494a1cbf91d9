//! Pilotlight's test world: an OAuth authorization server and a protected MCP server that can misbehave in every known way.
//!
//! Both servers are pure models: a request and the time go in, a response and how to deliver it come out. A simulator
//! steps them with virtual time; [`Lab`] puts the same models on loopback sockets, for tests with real processes and for
//! `pilotlight demo`.
//!
//! ```text
//!   AuthorizationServer ─┐                       ┌─ a simulator (virtual time)
//!                        ├─ Service::handle ─────┤
//!   McpServer ───────────┘  (now, request)       └─ Loopback / Lab (127.0.0.1, real time)
//! ```
//!
//! - [`authorization_server`]: discovery, registration, authorization, tokens, revocation, and the ledger tests judge by;
//! - [`faults`]: what can be made to go wrong with one request;
//! - [`mcp_server`]: Streamable HTTP, both wires, behind bearer tokens;
//! - [`serve`]: the models on sockets;
//! - [`world`]: all of it simulated, from one seed: processes, store, issuer, network, people, and a judge;
//! - [`proxy`]: the network before a socket, with everything that can go wrong in it;
//! - [`human`]: a person who follows the login URL and clicks;
//! - [`leak`]: finds secrets where none may be.

pub mod authorization_server;
pub mod exchange;
pub mod faults;
pub mod fetch;
pub mod human;
pub mod lab;
pub mod leak;
pub mod mcp_server;
#[cfg(feature = "processes")]
pub mod processes;
pub mod proxy;
pub mod serve;
pub mod world;

mod mint;

pub use authorization_server::{AuthorizationServer, AuthorizationServerConfig};
pub use exchange::{Delivery, Request, Response, Service};
pub use faults::Fault;
pub use human::ScriptedHuman;
pub use lab::{Lab, LabConfig};
pub use leak::Canaries;
pub use mcp_server::{McpServer, McpServerConfig};
pub use mint::fingerprint;
pub use proxy::Proxy;
