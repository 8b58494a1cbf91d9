//! A protected MCP server as a pure model: Streamable HTTP, both wires, behind bearer tokens.
//!
//! ```text
//!   POST /mcp ─ bearer token verified? ─ no ─> 401 and a challenge (RFC 6750, RFC 9728)
//!                      │ yes
//!                      ▼
//!     modern `_meta`? ─ yes ─> 2026-07-28: the request stands alone
//!                      │ no
//!                      ▼
//!                 2025-11-25: `initialize` opens a session, every later request names it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::authorization_server::Proofs;
use crate::exchange::{Request, Response, Service, merge};
use crate::mint::Mint;

mod config;
mod dpop;
mod tools;
mod wire;

pub use config::{Answers, LEGACY_VERSIONS, MODERN_VERSION, McpServerConfig, Wires};

/// A protected MCP server.
pub struct McpServer {
    resource: String,
    /// The path of the MCP endpoint.
    path: String,
    origin: String,
    config: McpServerConfig,
    verifier: Box<dyn Verifier>,
    mint: Mint,
    sessions: BTreeSet<String>,
    reject_next: u64,
    proofs: Proofs,
    stats: Stats,
}

impl McpServer {
    /// Makes a server whose endpoint, and resource identifier, is `resource_url`.
    pub fn new(
        resource_url: String,
        config: McpServerConfig,
        verifier: impl Verifier + 'static,
    ) -> Self {
        let (origin, path) = match url::Url::parse(&resource_url) {
            Ok(url) => (
                url.origin().ascii_serialization(),
                url.path().trim_end_matches('/').to_owned(),
            ),
            Err(_) => (String::new(), String::new()),
        };
        Self {
            resource: resource_url,
            path,
            origin,
            verifier: Box::new(verifier),
            mint: Mint::new(config.seed),
            sessions: BTreeSet::new(),
            reject_next: 0,
            proofs: Proofs::default(),
            stats: Stats::default(),
            config,
        }
    }

    /// Gives the resource identifier, which is also the URL to connect to.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Gives the configuration.
    #[must_use]
    pub fn config(&self) -> &McpServerConfig {
        &self.config
    }

    /// Gives the configuration to change while the server runs.
    pub fn config_mut(&mut self) -> &mut McpServerConfig {
        &mut self.config
    }

    /// Believes somebody else about tokens from now on.
    pub fn verify_by(&mut self, verifier: impl Verifier + 'static) {
        self.verifier = Box::new(verifier);
    }

    /// Answers the next `count` requests that carry a live token with 401 all the same.
    pub fn reject_next(&mut self, count: u64) {
        self.reject_next = count;
    }

    /// Forgets all sessions, as a restart does; gives the number forgotten.
    pub fn forget_sessions(&mut self) -> usize {
        std::mem::take(&mut self.sessions).len()
    }

    /// Gives the counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Answers a request; the same as [`Service::handle`].
    pub fn handle(&mut self, now_ms: u64, request: Request) -> Response {
        let path = request.path().trim_end_matches('/');
        if let Some(at) = path.strip_prefix(WELL_KNOWN) {
            let served = (at == self.path && self.config.metadata_at_path)
                || (at.is_empty() && self.config.metadata_at_root);
            self.stats.metadata += 1;
            return match served && request.method == Method::GET {
                true => self.metadata(),
                false => not_found(),
            };
        }
        if path != self.path {
            return not_found();
        }
        if request.method == Method::POST {
            self.stats.posts += 1;
        }
        let presented = request.bearer().or_else(|| request.token_of("dpop"));
        let Some(token) = presented.map(str::to_owned) else {
            return self.unauthorized(false);
        };
        let Some(facts) = self.verified(now_ms, &token) else {
            return self.unauthorized(true);
        };
        if let Err(refused) = self.presented(now_ms, &request, &token, &facts) {
            return *refused;
        }
        if self.reject_next > 0 {
            self.reject_next -= 1;
            return self.unauthorized(true);
        }
        if self.config.forbid_all {
            return self.forbidden();
        }
        *self
            .stats
            .by_token_tail
            .entry(tools::tail(&token))
            .or_default() += 1;
        let answer = match request.method {
            Method::POST => self.post(&request, &token, &facts),
            Method::DELETE => self.delete(&request),
            _ => wire::not_allowed(),
        };
        match facts.key {
            Some(_) => self.proofs.tell(self.config.dpop.nonces, false, answer),
            None => answer,
        }
    }

    fn verified(&mut self, now_ms: u64, token: &str) -> Option<TokenFacts> {
        let facts = self.verifier.verify(now_ms, token)?;
        let for_us = facts.resource.as_deref() == Some(self.resource.as_str());
        (for_us || !self.config.check_audience).then_some(facts)
    }

    fn unauthorized(&mut self, token_sent: bool) -> Response {
        self.stats.unauthorized += 1;
        let mut parameters = Vec::new();
        if token_sent {
            parameters.push(("error", "invalid_token"));
            parameters.push(("error_description", "the access token is not accepted"));
        }
        let scope = self.config.challenge_scope.as_deref();
        parameters.extend(scope.map(|scope| ("scope", scope)));
        let scheme = match self.config.challenges_dpop {
            true => "DPoP",
            false => "Bearer",
        };
        self.challenge(scheme, StatusCode::UNAUTHORIZED, &parameters)
    }

    fn forbidden(&mut self) -> Response {
        self.stats.forbidden += 1;
        let parameters = [
            ("error", "insufficient_scope"),
            ("error_description", "the tool needs one more scope"),
            ("scope", self.config.admin_scope.as_str()),
        ];
        self.challenge("Bearer", StatusCode::FORBIDDEN, &parameters)
    }

    /// Answers with a `WWW-Authenticate` field (RFC 6750 section 3, RFC 9449 section 7.1).
    fn challenge(&self, scheme: &str, status: StatusCode, parameters: &[(&str, &str)]) -> Response {
        let metadata_url = format!("{}{WELL_KNOWN}{}", self.origin, self.path);
        let mut parts: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        if self.config.challenge_names_metadata {
            parts.push(format!("resource_metadata=\"{metadata_url}\""));
        }
        let header = format!("{scheme} {}", parts.join(", "));
        let error = parameters.iter().find(|(name, _)| *name == "error");
        let error = error.map_or("unauthorized", |(_, code)| *code);
        Response::json(status, &json!({ "error": error }))
            .with_header(http::header::WWW_AUTHENTICATE, header.trim_end())
    }

    fn metadata(&self) -> Response {
        let mut body = json!({
            "resource": self.resource,
            "authorization_servers": self.config.authorization_servers,
            "scopes_supported": self.config.scopes_supported,
            "bearer_methods_supported": ["header"],
        });
        merge(&mut body, &self.config.metadata_overrides);
        Response::json(StatusCode::OK, &body)
    }
}

impl fmt::Debug for McpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServer")
            .field("resource", &self.resource)
            .field("config", &self.config)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Service for McpServer {
    fn handle(&mut self, now_ms: u64, request: Request) -> Response {
        Self::handle(self, now_ms, request)
    }

    /// `GET stats` · `POST reject-next/N` · `POST forget-sessions`
    fn control(&mut self, _now_ms: u64, operation: &str, request: &Request) -> Option<Response> {
        let body = match (&request.method, operation.split_once('/')) {
            (&Method::GET, None) if operation == "stats" => json!(self.stats),
            (&Method::POST, None) if operation == "forget-sessions" => {
                json!({ "forgotten": self.forget_sessions() })
            }
            (&Method::POST, Some(("reject-next", count))) => {
                self.reject_next(count.parse().ok()?);
                json!({ "reject_next": self.reject_next })
            }
            _ => return None,
        };
        Some(Response::json(StatusCode::OK, &body))
    }
}

/// Whoever can tell what an access token is worth.
///
/// Any closure `FnMut(now_ms, token) -> Option<TokenFacts>` is one; `None` means that the token is not accepted.
pub trait Verifier: Send {
    /// Tells the facts about a token that is live now.
    fn verify(&mut self, now_ms: u64, token: &str) -> Option<TokenFacts>;
}

impl<F: FnMut(u64, &str) -> Option<TokenFacts> + Send> Verifier for F {
    fn verify(&mut self, now_ms: u64, token: &str) -> Option<TokenFacts> {
        self(now_ms, token)
    }
}

/// What is known about a live access token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// The client it was issued to.
    pub client_id: String,
    /// The scopes, separated by spaces.
    pub scope: String,
    /// When it ends, Unix time in seconds.
    pub exp: u64,
    /// The resource it was issued for.
    pub resource: Option<String>,
    /// The thumbprint of the key that it is bound to (RFC 9449 section 6).
    pub key: Option<String>,
}

impl TokenFacts {
    /// Gives the scopes one by one.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.split_ascii_whitespace()
    }
}

/// The counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// POST requests that arrived at the endpoint.
    pub posts: u64,
    /// Requests answered 401.
    pub unauthorized: u64,
    /// Requests that carried a bound token as a bearer token.
    #[serde(default)]
    pub bound_as_bearer: u64,
    /// Requests answered 403.
    pub forbidden: u64,
    /// `tools/...` requests that carried a live token.
    pub tools: u64,
    /// `initialize` requests.
    pub initialize: u64,
    /// `server/discover` requests that were answered.
    pub discover: u64,
    /// Requests for the resource metadata.
    pub metadata: u64,
    /// Accepted requests by the last eight characters of the token.
    pub by_token_tail: BTreeMap<String, u64>,
}

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

fn not_found() -> Response {
    Response::json(StatusCode::NOT_FOUND, &json!({ "error": "not_found" }))
}
