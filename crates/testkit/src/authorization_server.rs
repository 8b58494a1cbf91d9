//! An OAuth 2.1 authorization server as a pure model: no socket, no clock, no randomness.
//!
//! ```text
//!   request ─ fault that answers in its place? ─ yes ─> that answer, nothing changed
//!                       │ no
//!                       ▼
//!   well-known · authorize · token · register · revoke ─> ledger, counters
//!                       │
//!                       ▼
//!             fault of delivery? (lost, late) ─> response
//! ```
//!
//! A *family* is one grant: a login and all refresh tokens that descend from it. Presenting a spent refresh token gives
//! the same successor again within the grace, and revokes the family after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use crate::exchange::{Request, Response, Service};
use crate::faults::{Endpoint, Fault, FaultQueue};
use crate::mint::Mint;

mod assertion;
mod authorize;
mod client;
mod config;
mod control;
mod device;
mod dpop;
mod grants;
mod ledger;
mod metadata;
mod revoke;
mod token;

pub use assertion::{Platform, PublicKey};
pub use config::{
    Approval, AuthorizationServerConfig, ClientAuthentication, IssueRefreshToken, RefreshScopes,
    Rotation, SendIss, StaticClient,
};
pub use device::DeviceRules;
pub(crate) use dpop::For;
pub use dpop::{NonceRule, ProofRules, Proofs, Taken};
pub use grants::Asked;
pub use ledger::{Entry, Kind, Ledger, Outcome, Stats};

/// An OAuth 2.1 authorization server.
#[derive(Debug)]
pub struct AuthorizationServer {
    issuer: String,
    issuer_path: String,
    config: AuthorizationServerConfig,
    mint: Mint,
    /// Every secret ever issued, so that tests can look for them where none may be.
    issued: Vec<String>,
    clients: BTreeMap<String, client::Client>,
    forgotten: BTreeSet<String>,
    pending: BTreeMap<String, authorize::Pending>,
    codes: BTreeMap<String, Code>,
    grants: BTreeMap<u64, Grant>,
    last_family: u64,
    access_tokens: BTreeMap<String, AccessToken>,
    refresh_tokens: BTreeMap<String, RefreshToken>,
    proofs: Proofs,
    unattended: grants::Unattended,
    devices: BTreeMap<String, device::DeviceLogin>,
    /// Every request, where they are kept.
    heard: Vec<String>,
    faults: FaultQueue,
    ledger: Ledger,
    stats: Stats,
}

impl AuthorizationServer {
    /// Makes a server with this issuer identifier; every endpoint is below it.
    #[must_use]
    pub fn new(issuer_url: String, config: AuthorizationServerConfig) -> Self {
        let issuer_path = url::Url::parse(&issuer_url)
            .map(|url| url.path().trim_end_matches('/').to_owned())
            .unwrap_or_default();
        let clients = config
            .clients
            .iter()
            .map(|client| (client.client_id.clone(), client::Client::fixed(client)))
            .collect();
        Self {
            issuer: issuer_url,
            issuer_path,
            mint: Mint::new(config.seed),
            issued: Vec::new(),
            clients,
            forgotten: BTreeSet::new(),
            pending: BTreeMap::new(),
            codes: BTreeMap::new(),
            grants: BTreeMap::new(),
            last_family: 0,
            access_tokens: BTreeMap::new(),
            refresh_tokens: BTreeMap::new(),
            proofs: Proofs::default(),
            unattended: grants::Unattended::default(),
            devices: BTreeMap::new(),
            heard: Vec::new(),
            faults: FaultQueue::default(),
            ledger: Ledger::default(),
            stats: Stats::default(),
            config,
        }
    }

    /// Gives the issuer identifier.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Gives the configuration.
    #[must_use]
    pub fn config(&self) -> &AuthorizationServerConfig {
        &self.config
    }

    /// Gives the configuration to change while the server runs; the seed and the clients count only at the start.
    pub fn config_mut(&mut self) -> &mut AuthorizationServerConfig {
        &mut self.config
    }

    /// Queues a fault for the next token request that has none yet.
    pub fn push_fault(&mut self, fault: Fault) {
        self.push_fault_at(Endpoint::Token, fault);
    }

    /// Queues a fault for the next request to an endpoint.
    pub fn push_fault_at(&mut self, at: Endpoint, fault: Fault) {
        self.faults.push(at, fault);
    }

    /// Makes an endpoint misbehave at each request that finds no queued fault; `None` heals it.
    pub fn set_standing_fault(&mut self, at: Endpoint, fault: Option<Fault>) {
        self.faults.set_standing(at, fault);
    }

    /// Forgets all faults.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Stops every access token and leaves refresh tokens alone; gives the number stopped.
    pub fn revoke_access(&mut self) -> usize {
        let mut stopped = 0;
        for token in self
            .access_tokens
            .values_mut()
            .filter(|token| !token.revoked)
        {
            token.revoked = true;
            stopped += 1;
        }
        stopped
    }

    /// Revokes every grant, as an administrator would; gives the number revoked.
    pub fn revoke_all(&mut self) -> usize {
        let live: Vec<u64> = self
            .grants
            .iter()
            .filter(|(_, grant)| grant.revoked.is_none())
            .map(|(family, _)| *family)
            .collect();
        for family in &live {
            self.revoke_family(*family, RevokedBy::Administrator);
        }
        live.len()
    }

    /// Forgets every client, so that each of them is answered `invalid_client` from now on; gives the number.
    pub fn forget_clients(&mut self) -> usize {
        self.forgotten
            .extend(std::mem::take(&mut self.clients).into_keys());
        let documents = self.grants.values().map(|grant| grant.client_id.clone());
        self.forgotten.extend(documents);
        self.forgotten.len()
    }

    /// Tells what an access token is worth now (in the manner of RFC 7662).
    #[must_use]
    pub fn introspect(&self, now_ms: u64, token: &str) -> Introspection {
        let live = self.access_tokens.get(token).and_then(|access| {
            let grant = self.grants.get(&access.family)?;
            let live = !access.revoked && grant.revoked.is_none() && now_ms < access.expires_at_ms;
            live.then(|| Introspection {
                active: true,
                scope: access.scopes.join(" "),
                exp: access.expires_at_ms / 1000,
                resource: grant.resource.clone(),
                client_id: grant.client_id.clone(),
                key: grant.key.clone(),
            })
        });
        live.unwrap_or_default()
    }

    /// Gives the number of grants that are not revoked.
    #[must_use]
    pub fn live_grants(&self) -> usize {
        let live = |grant: &&Grant| grant.revoked.is_none();
        self.grants.values().filter(live).count()
    }

    /// Gives every secret this server ever issued: tokens, codes, client secrets.
    #[must_use]
    pub fn issued_secrets(&self) -> &[String] {
        &self.issued
    }

    /// Gives every request that came while [`AuthorizationServerConfig::keep_requests`] was set, in full.
    #[must_use]
    pub fn heard(&self) -> &[String] {
        &self.heard
    }

    /// Gives the ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Gives the counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Answers a request that has just arrived; the same as [`Service::handle`].
    pub fn handle(&mut self, now_ms: u64, request: Request) -> Response {
        let endpoint = self.endpoint(request.path());
        if self.config.keep_requests {
            self.heard.push(request.in_words());
        }
        if endpoint == Some(Endpoint::Token) {
            self.stats.token += 1;
        }
        let fault = endpoint.and_then(|at| self.faults.draw(at));
        if let Some(fault) = &fault
            && let Some(response) = fault.instead()
        {
            self.stats.faults += 1;
            if endpoint == Some(Endpoint::Token) && !matches!(fault, Fault::Delay { .. }) {
                self.token_not_processed(now_ms, &request, fault);
            }
            return response;
        }
        self.process(now_ms, &request, fault.as_ref())
    }

    /// Answers a request that was held back; the same as [`Service::resume`].
    pub fn resume(&mut self, now_ms: u64, request: Request) -> Response {
        self.process(now_ms, &request, None)
    }

    fn process(&mut self, now_ms: u64, request: &Request, fault: Option<&Fault>) -> Response {
        let path = request.path();
        let mut response = match self.endpoint(path) {
            Some(Endpoint::Metadata) => {
                self.stats.discovery += 1;
                match self.well_known(path) {
                    Some(document) if request.method == Method::GET => self.metadata(document),
                    _ => Response::empty(StatusCode::METHOD_NOT_ALLOWED),
                }
            }
            Some(Endpoint::Authorize) if path.ends_with("/decision") => {
                self.decide(now_ms, request)
            }
            Some(Endpoint::Authorize) => self.authorize(now_ms, request),
            Some(Endpoint::Token) => self.token(now_ms, request, fault),
            Some(Endpoint::Device) => self.device_authorization(now_ms, request),
            Some(Endpoint::Register) if request.method == Method::POST => {
                self.register(now_ms, request)
            }
            Some(Endpoint::Register) => Response::empty(StatusCode::METHOD_NOT_ALLOWED),
            Some(Endpoint::Revoke) => self.revoke(now_ms, request),
            None => Response::json(StatusCode::NOT_FOUND, &json!({ "error": "not_found" })),
        };
        if let Some(fault) = fault {
            fault.afterwards(&mut response);
        }
        response
    }

    fn endpoint(&self, path: &str) -> Option<Endpoint> {
        if self.well_known(path).is_some() {
            return Some(Endpoint::Metadata);
        }
        match path.strip_prefix(self.issuer_path.as_str())? {
            "/authorize" | "/authorize/decision" => Some(Endpoint::Authorize),
            path if path == self.config.token_path => Some(Endpoint::Token),
            "/device" if self.config.device.is_some() => Some(Endpoint::Device),
            "/register" => Some(Endpoint::Register),
            "/revoke" => Some(Endpoint::Revoke),
            _ => None,
        }
    }

    fn mint(&mut self, prefix: &str) -> String {
        let minted = self.mint.next(prefix);
        if prefix != "client-" {
            self.issued.push(minted.clone());
        }
        minted
    }

    fn revoke_family(&mut self, family: u64, by: RevokedBy) {
        if let Some(grant) = self.grants.get_mut(&family)
            && grant.revoked.is_none()
        {
            grant.revoked = Some(by);
            self.stats.reuse_revocations += u64::from(by == RevokedBy::Reuse);
        }
    }

    /// Adds an entry to the ledger, for the caller to fill in.
    fn entry(&mut self, at_ms: u64, kind: Kind, request: &Request, outcome: Outcome) -> &mut Entry {
        let index = self.ledger.entries.len();
        self.ledger.entries.push(Entry {
            at_ms,
            kind,
            client_id: None,
            refresh_token: None,
            spent_before: false,
            grace_hit: false,
            family: None,
            outcome,
            answer_lost: false,
            label: request.header("x-pilotlight-attempt").map(Into::into),
        });
        &mut self.ledger.entries[index]
    }
}

impl Service for AuthorizationServer {
    fn handle(&mut self, now_ms: u64, request: Request) -> Response {
        Self::handle(self, now_ms, request)
    }

    fn resume(&mut self, now_ms: u64, request: Request) -> Response {
        Self::resume(self, now_ms, request)
    }

    fn control(&mut self, now_ms: u64, operation: &str, request: &Request) -> Option<Response> {
        control::control(self, now_ms, operation, request)
    }
}

/// What an access token is worth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Introspection {
    /// Whether it is accepted now; if not, nothing else is told.
    pub active: bool,
    /// The scopes, separated by spaces.
    pub scope: String,
    /// When it ends, Unix time in seconds.
    pub exp: u64,
    /// The resource it is for.
    pub resource: Option<String>,
    /// The client it was issued to.
    pub client_id: String,
    /// The thumbprint of the key that it is bound to (RFC 9449 section 6).
    pub key: Option<String>,
}

#[derive(Debug, Clone)]
struct Code {
    client_id: String,
    redirect_uri: String,
    redirect_uri_named: bool,
    code_challenge: String,
    scopes: Vec<String>,
    resource: Option<String>,
    insists: authorize::Insists,
    expires_at_ms: u64,
    /// The grant it was exchanged for.
    family: Option<u64>,
}

#[derive(Debug, Clone)]
struct Grant {
    client_id: String,
    scopes: Vec<String>,
    resource: Option<String>,
    revoked: Option<RevokedBy>,
    /// The thumbprint of the key that its tokens are bound to.
    key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RevokedBy {
    Reuse,
    CodeReplay,
    Request,
    Administrator,
}

#[derive(Debug, Clone)]
struct AccessToken {
    family: u64,
    scopes: Vec<String>,
    expires_at_ms: u64,
    revoked: bool,
}

#[derive(Debug, Clone)]
struct RefreshToken {
    family: u64,
    expires_at_ms: Option<u64>,
    spent: Option<token::Spent>,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4)
}
