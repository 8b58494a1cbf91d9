//! The test world, tested: the issuer's rules, its faults, both MCP wires, and all of it on real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod authorization;
mod mcp;
mod refresh;
mod sockets;
mod world;
