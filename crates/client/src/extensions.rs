//! The extensions of MCP that a login makes use of.

use crate::session::Session;

impl Session {
    /// Names the extensions of MCP that the login makes use of, for a host to announce among its capabilities (EXT-01); none
    /// while there is no login.
    #[must_use]
    pub fn extensions(&self) -> Vec<&'static str> {
        let credential = self.cell.credential().ok();
        let grant = credential.and_then(|credential| credential.unattended);
        grant
            .and_then(|grant| grant.extension())
            .into_iter()
            .collect()
    }
}
