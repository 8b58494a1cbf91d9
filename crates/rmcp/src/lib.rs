//! Pilotlight for rmcp, the official Rust SDK of the Model Context Protocol.
mod noting;
mod store;

pub use noting::NotingHttpClient;
pub use store::{Persist, PersistError, PersistingStore, unix_now};
