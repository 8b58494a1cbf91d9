//! Log in once, stay connected: the OAuth sessions of MCP clients, kept alive.

pub mod clock;
pub mod crypto;
pub mod store;

pub use pilotlight_core as core;
pub use pilotlight_core::Error;
