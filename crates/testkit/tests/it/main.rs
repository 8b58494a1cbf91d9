//! The test world, tested: the issuer's rules, its faults, both MCP wires, and all of it on real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod authorization;
mod device;
mod grants;
mod mcp;
#[cfg(feature = "processes")]
mod processes;
mod proxy;
mod refresh;
mod simulation;
mod sockets;
mod world;
