//! The adapter against a real issuer and a real MCP server on loopback sockets, with rmcp's own client above it.

#![expect(clippy::unwrap_used, reason = "tests, and what helps them")]

mod leaks;
mod origin;
mod support;
mod transport;
mod transport_hostile;
mod transport_order;
mod transport_token;
