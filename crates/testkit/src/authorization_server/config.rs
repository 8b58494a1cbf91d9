//! How an authorization server behaves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::assertion::{Platform, PublicKey};
use super::device::DeviceRules;
use super::dpop::ProofRules;

/// Configures an [`AuthorizationServer`](super::AuthorizationServer); the default is a careful, modern one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AuthorizationServerConfig {
    /// How long an access token lives.
    pub access_ttl: Duration,
    /// How long a refresh token lives if it is not used; `None`: for ever.
    pub refresh_ttl: Option<Duration>,
    /// Whether a refresh spends the refresh token.
    pub rotation: Rotation,
    /// How long a spent refresh token still gives its successor again; `None`: not at all.
    pub reuse_grace: Option<Duration>,
    /// Whether the error description of a detected reuse says so.
    pub names_reuse: bool,
    /// Whether refresh responses leave the refresh token out (the old one stays valid).
    pub omit_refresh_token: bool,
    /// Who gets a refresh token.
    pub issue_refresh_token: IssueRefreshToken,
    /// What a refresh must say about scopes.
    pub refresh_scopes: RefreshScopes,
    /// Whether a login that asks for `offline_access` is refused, listed or not.
    pub refuses_offline_access: bool,
    /// Whether an authorization request with `prompt` or `access_type` is refused.
    pub refuses_insisting: bool,
    /// Where the token endpoint is, below the issuer; where it was before nothing is found.
    pub token_path: String,
    /// How many bytes an access token has at least.
    pub access_token_bytes: usize,
    /// Whether token responses leave `expires_in` out.
    pub omit_expires_in: bool,
    /// Whether the metadata promises the `iss` parameter (RFC 9207).
    pub advertise_iss: bool,
    /// Which `iss` parameter authorization responses carry.
    pub send_iss: SendIss,
    /// The scopes this server knows, `offline_access` not among them.
    pub scopes_supported: Vec<String>,
    /// The scopes granted when a request names none.
    pub default_scopes: Vec<String>,
    /// Whether the metadata lists `offline_access`; it is granted to who asks either way.
    pub list_offline_access: bool,
    /// The grant types that the metadata lists, and that are taken; codes and refresh tokens always are.
    pub grant_types: Vec<String>,
    /// Whose assertions are believed, by whatever key fits (RFC 7523 section 3).
    pub believes: Vec<PublicKey>,
    /// As whom it vouches for people at other issuers (RFC 8693); `None`: it is no identity provider.
    pub vouches: Option<Platform>,
    /// The keys of clients that sign their own assertions (`private_key_jwt`), by client id.
    pub client_keys: BTreeMap<String, PublicKey>,
    /// How people log in on another device (RFC 8628); `None`: they cannot.
    pub device: Option<DeviceRules>,
    /// How clients may authenticate at the token endpoint.
    pub token_endpoint_auth_methods: Vec<ClientAuthentication>,
    /// The PKCE methods the metadata lists; empty leaves the member out. `S256` is required either way.
    pub pkce_methods: Vec<String>,
    /// What proofs of possession have to be like; `None`: it knows nothing of them (RFC 9449).
    pub dpop: Option<ProofRules>,
    /// Whether a token request without a proof is refused.
    pub dpop_required: bool,
    /// Whether tokens are given out as bearer tokens all the same.
    pub dpop_answers_bearer: bool,
    /// Whether clients can register themselves (RFC 7591).
    pub registration: bool,
    /// Whether registered clients get a secret.
    pub confidential_clients: bool,
    /// Whether a client ID metadata document is accepted as a registration.
    pub client_id_metadata_document_supported: bool,
    /// The client ID metadata documents by URL. One that is not here is taken to list the usual loopback redirects.
    pub client_id_metadata_documents: BTreeMap<String, Value>,
    /// Clients known from the start.
    pub clients: Vec<StaticClient>,
    /// Whether a loopback redirect URI must have the registered port (RFC 8252 section 7.3 says it must not).
    pub exact_redirect_port: bool,
    /// Whether authorization and token requests must carry `resource` (RFC 8707).
    pub require_resource: bool,
    /// The resources tokens are issued for; `None`: any.
    pub allowed_resources: Option<Vec<String>>,
    /// Who approves.
    pub approval: Approval,
    /// Whether `/.well-known/oauth-authorization-server` is served (RFC 8414).
    pub serve_oauth_metadata: bool,
    /// Whether `/.well-known/openid-configuration` is served.
    pub serve_openid_metadata: bool,
    /// Merged into the metadata (RFC 7396), for hostile tests; `null` removes a member.
    pub metadata_overrides: Value,
    /// Whether every request is kept as it came, for tests that look for what must not have come.
    pub keep_requests: bool,
    /// How long an authorization code lives.
    pub code_ttl: Duration,
    /// Where the token strings come from: the same seed gives the same strings.
    pub seed: u64,
}

impl Default for AuthorizationServerConfig {
    fn default() -> Self {
        Self {
            access_ttl: Duration::from_secs(3600),
            refresh_ttl: None,
            rotation: Rotation::Always,
            reuse_grace: None,
            names_reuse: false,
            omit_refresh_token: false,
            issue_refresh_token: IssueRefreshToken::Always,
            refresh_scopes: RefreshScopes::Any,
            refuses_offline_access: false,
            refuses_insisting: false,
            token_path: "/token".into(),
            access_token_bytes: 0,
            omit_expires_in: false,
            advertise_iss: true,
            send_iss: SendIss::Issuer,
            scopes_supported: vec!["mcp:tools".into(), "mcp:admin".into()],
            default_scopes: vec!["mcp:tools".into()],
            list_offline_access: true,
            grant_types: vec!["authorization_code".into(), "refresh_token".into()],
            believes: Vec::new(),
            vouches: None,
            client_keys: BTreeMap::new(),
            device: None,
            token_endpoint_auth_methods: vec![
                ClientAuthentication::None,
                ClientAuthentication::Basic,
                ClientAuthentication::Post,
            ],
            pkce_methods: vec!["S256".into()],
            dpop: None,
            dpop_required: false,
            dpop_answers_bearer: false,
            registration: true,
            confidential_clients: false,
            client_id_metadata_document_supported: false,
            client_id_metadata_documents: BTreeMap::new(),
            clients: Vec::new(),
            exact_redirect_port: false,
            require_resource: true,
            allowed_resources: None,
            approval: Approval::Automatic,
            serve_oauth_metadata: true,
            serve_openid_metadata: false,
            metadata_overrides: Value::Object(serde_json::Map::new()),
            keep_requests: false,
            code_ttl: Duration::from_secs(60),
            seed: 1,
        }
    }
}

impl AuthorizationServerConfig {
    /// Changes settings in place: `AuthorizationServerConfig::default().with(|c| c.names_reuse = true)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// Whether a refresh spends the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Each refresh gives a new refresh token and spends the old one; presenting a spent one is reuse.
    Always,
    /// The refresh token stays the same.
    Never,
}

/// Who gets a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueRefreshToken {
    /// Everyone.
    Always,
    /// Who was granted `offline_access`.
    WithOfflineAccess,
    /// Who came with `prompt=consent`.
    WithConsent,
    /// Who came with `access_type=offline`.
    WithAccessType,
    /// Nobody.
    Never,
}

/// What a refresh must say about scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshScopes {
    /// Whatever it likes.
    Any,
    /// It must name them.
    Wanted,
    /// It must not.
    Refused,
}

/// Which `iss` parameter authorization responses carry (RFC 9207).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendIss {
    /// None.
    No,
    /// The issuer.
    Issuer,
    /// Some other text.
    Other(String),
}

/// Who approves an authorization request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// Approved at once, by a redirect.
    Automatic,
    /// Denied at once, by a redirect.
    Denied,
    /// A page with Allow and Deny asks a person, or a [`ScriptedHuman`](crate::ScriptedHuman).
    Page,
}

/// How a client authenticates at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `none`: a public client.
    None,
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
    /// `private_key_jwt`.
    PrivateKeyJwt,
}

impl ClientAuthentication {
    /// Gives the name the metadata uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }
}

/// A client known from the start.
#[derive(Debug, Clone)]
pub struct StaticClient {
    /// The client id.
    pub client_id: String,
    /// The client secret; `None` for a public client.
    pub client_secret: Option<String>,
    /// The redirect URIs.
    pub redirect_uris: Vec<String>,
}
