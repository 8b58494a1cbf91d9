//! How an MCP server behaves.

use serde_json::Value;

use crate::authorization_server::ProofRules;

/// Configures an [`McpServer`](super::McpServer).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct McpServerConfig {
    /// Which revisions of the protocol it speaks.
    pub wires: Wires,
    /// Which revisions with sessions, the newest first.
    pub legacy_versions: Vec<&'static str>,
    /// How it answers requests.
    pub answers: Answers,
    /// The issuers its metadata names; a [`Lab`](crate::Lab) puts its own issuer here when the list is empty.
    pub authorization_servers: Vec<String>,
    /// The scopes its metadata names.
    pub scopes_supported: Vec<String>,
    /// The `scope` of a 401 challenge; `None` leaves it out.
    pub challenge_scope: Option<String>,
    /// The scope the `admin` tool needs, and the `scope` of its 403 challenge.
    pub admin_scope: String,
    /// Whether every request is refused for the want of the admin scope, whatever its token has.
    pub forbid_all: bool,
    /// What proofs of possession have to be like (RFC 9449).
    pub dpop: ProofRules,
    /// Whether a 401 names the scheme `DPoP` instead of `Bearer`.
    pub challenges_dpop: bool,
    /// Whether challenges carry `resource_metadata` (RFC 9728 section 5.1).
    pub challenge_names_metadata: bool,
    /// Whether the metadata is served with the resource's path inserted (RFC 9728 section 3.1).
    pub metadata_at_path: bool,
    /// Whether the metadata is served at the origin's root.
    pub metadata_at_root: bool,
    /// Merged into the resource metadata (RFC 7396), for hostile tests; `null` removes a member.
    pub metadata_overrides: Value,
    /// Whether a token must have been issued for this resource.
    pub check_audience: bool,
    /// Whether `Mcp-Method` and `Mcp-Name` must be there and agree with the body on the modern wire.
    pub check_headers: bool,
    /// Where the session ids come from.
    pub seed: u64,
}

impl Default for McpServerConfig {
    fn default() -> Self {
        Self {
            wires: Wires::Both,
            legacy_versions: LEGACY_VERSIONS.to_vec(),
            answers: Answers::Json,
            authorization_servers: Vec::new(),
            scopes_supported: vec!["mcp:tools".into()],
            challenge_scope: None,
            admin_scope: "mcp:admin".into(),
            forbid_all: false,
            dpop: ProofRules::default(),
            challenges_dpop: false,
            challenge_names_metadata: true,
            metadata_at_path: true,
            metadata_at_root: false,
            metadata_overrides: Value::Object(serde_json::Map::new()),
            check_audience: true,
            check_headers: true,
            seed: 1,
        }
    }
}

impl McpServerConfig {
    /// Changes settings in place: `McpServerConfig::default().with(|c| c.wires = Wires::Legacy)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// Which revisions of MCP a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wires {
    /// 2025-11-25 and before: sessions opened by `initialize`.
    Legacy,
    /// 2026-07-28: every request stands alone.
    Modern,
    /// Each request as it comes.
    Both,
}

impl Wires {
    pub(super) fn legacy(self) -> bool {
        self != Self::Modern
    }

    pub(super) fn modern(self) -> bool {
        self != Self::Legacy
    }

    /// Gives the revisions spoken, the newest first.
    #[must_use]
    pub fn versions(self) -> Vec<&'static str> {
        match self {
            Self::Legacy => LEGACY_VERSIONS.to_vec(),
            Self::Modern => vec![MODERN_VERSION],
            Self::Both => {
                let mut versions = vec![MODERN_VERSION];
                versions.extend(LEGACY_VERSIONS);
                versions
            }
        }
    }
}

/// The revision without sessions.
pub const MODERN_VERSION: &str = "2026-07-28";

/// The revisions with sessions, the newest first.
pub const LEGACY_VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// `application/json`.
    Json,
    /// `text/event-stream` with one message, as Streamable HTTP allows.
    EventStream,
}
