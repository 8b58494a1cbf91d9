//! Logins that are shared with mcp-remote, another program that keeps its own in the clear below `~/.mcp-auth`.
//!
//! ```text
//!   a flow -> Shared (a store) -> the store underneath            what counts
//!                 |  +-> refresh_in_progress.json                 its lock, taken after ours
//!                 |  +-> tokens.json, client_info.json            one more slot that a later version can come from
//!                 +----> links/<credential>.json                  what was seen there already
//! ```
//!
//! [`Shared`] is a [`Store`](crate::store::Store) over another; flows and sessions know nothing of it. How, why, and what
//! could break it: `docs/design/0006-shared-with-mcp-remote.md`.

mod files;
mod import;
mod link;
mod marker;
mod shared;

pub use files::{Files, Tokens, Unreadable};
pub use import::{Brought, Import};
pub use shared::Shared;
