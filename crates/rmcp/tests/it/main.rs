//! The adapter against a real issuer and a real MCP server on loopback sockets, with rmcp's own client above it.

mod origin;
mod support;
