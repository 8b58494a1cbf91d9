//! An authorization server and an MCP server together, on loopback ports.

use std::io;
use std::sync::{Arc, Mutex};

use crate::authorization_server::{AuthorizationServer, AuthorizationServerConfig};
use crate::exchange::{Request, Response, Service};
use crate::mcp_server::{McpServer, McpServerConfig, TokenFacts, Verifier};
use crate::proxy::Proxy;
use crate::serve::{Bound, Clock, Loopback, lock};

/// Configures a [`Lab`]. The default is an issuer and an MCP server as they should be, on ports the system chooses.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LabConfig {
    /// The authorization server.
    pub authorization_server: AuthorizationServerConfig,
    /// The MCP server.
    pub mcp_server: McpServerConfig,
    /// The path of the issuer identifier, for instance `/tenant`; empty for none.
    pub issuer_path: String,
    /// The issuer's port; 0 lets the system choose.
    pub issuer_port: u16,
    /// Whether the MCP server is its own authorization server, at its own origin, as those of 2025-03-26 are.
    pub own_issuer: bool,
    /// Whether a [`Proxy`] stands before the issuer: then its port is the issuer's, in the metadata too.
    pub issuer_proxied: bool,
    /// The MCP server's port; 0 lets the system choose.
    pub mcp_port: u16,
    /// The time both live in.
    pub clock: Clock,
}

impl LabConfig {
    /// Changes settings in place: `LabConfig::default().with(|lab| lab.issuer_path = "/tenant".into())`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// A running authorization server and a running MCP server that trusts it. Both stop when it is dropped.
#[derive(Debug)]
pub struct Lab {
    issuer: String,
    resource_url: String,
    clock: Clock,
    authorization_server: Arc<Mutex<AuthorizationServer>>,
    mcp_server: Arc<Mutex<McpServer>>,
    issuer_loopback: Loopback,
    mcp_loopback: Loopback,
    issuer_proxy: Option<Proxy>,
}

impl Lab {
    /// Starts both servers. It must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// A port is taken, or no socket can be made.
    pub async fn start(config: LabConfig) -> io::Result<Self> {
        let (issuer_bound, issuer_proxy) = if config.issuer_proxied {
            let behind = Bound::new(0).await?;
            let proxy = Proxy::start(config.issuer_port, behind.address()).await?;
            (behind, Some(proxy))
        } else {
            (Bound::new(config.issuer_port).await?, None)
        };
        let mcp_bound = Bound::new(config.mcp_port).await?;
        let issuer_origin = match &issuer_proxy {
            Some(proxy) => proxy.origin(),
            None => issuer_bound.origin(),
        };
        let issuer = match config.own_issuer {
            true => mcp_bound.origin(),
            false => format!("{issuer_origin}{}", config.issuer_path),
        };
        let resource_url = format!("{}/mcp", mcp_bound.origin());

        let server = AuthorizationServer::new(issuer.clone(), config.authorization_server);
        let authorization_server = Arc::new(Mutex::new(server));
        let mut mcp_config = config.mcp_server;
        if mcp_config.authorization_servers.is_empty() {
            mcp_config.authorization_servers.push(issuer.clone());
        }
        let verifier = verifier(&authorization_server);
        let server = McpServer::new(resource_url.clone(), mcp_config, verifier);
        let mcp_server = Arc::new(Mutex::new(server));

        let clock = config.clock;
        let mcp_loopback = match config.own_issuer {
            true => {
                let both = Both {
                    authorization_server: Arc::clone(&authorization_server),
                    mcp_server: Arc::clone(&mcp_server),
                };
                mcp_bound.serve(Arc::new(Mutex::new(both)), clock.clone())
            }
            false => mcp_bound.serve(Arc::clone(&mcp_server), clock.clone()),
        };
        Ok(Self {
            issuer,
            resource_url,
            issuer_loopback: issuer_bound.serve(Arc::clone(&authorization_server), clock.clone()),
            mcp_loopback,
            authorization_server,
            mcp_server,
            issuer_proxy,
            clock,
        })
    }

    /// Gives the issuer identifier.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Gives the URL of the MCP endpoint, which is also its resource identifier.
    #[must_use]
    pub fn resource_url(&self) -> &str {
        &self.resource_url
    }

    /// Gives the proxy before the issuer, if there is one.
    #[must_use]
    pub fn issuer_proxy(&self) -> Option<&Proxy> {
        self.issuer_proxy.as_ref()
    }

    /// Gives the URL of the issuer's control endpoints, past any proxy; an operation's name is appended to it.
    #[must_use]
    pub fn issuer_control(&self) -> String {
        format!("{}/__ctl/", self.issuer_loopback.origin())
    }

    /// Gives the URL of the MCP server's control endpoints.
    #[must_use]
    pub fn mcp_control(&self) -> String {
        format!("{}/__ctl/", self.mcp_loopback.origin())
    }

    /// Gives the clock both servers live by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Works on the authorization server. Do not call [`with_mcp`](Self::with_mcp) inside: the MCP server asks the
    /// authorization server while it is locked itself.
    pub fn with_issuer<R>(&self, work: impl FnOnce(&mut AuthorizationServer) -> R) -> R {
        work(&mut lock(&self.authorization_server))
    }

    /// Works on the MCP server.
    pub fn with_mcp<R>(&self, work: impl FnOnce(&mut McpServer) -> R) -> R {
        work(&mut lock(&self.mcp_server))
    }

    /// Lets the MCP server trust the authorization server of another lab, and only that: its metadata says so, and its tokens are
    /// what is taken from now on. With the lab itself that is taken back.
    pub fn trust(&self, other: &Self) {
        let verifier = verifier(&other.authorization_server);
        self.with_mcp(|server| {
            server.config_mut().authorization_servers = vec![other.issuer.clone()];
            server.verify_by(verifier);
        });
    }

    /// Stops both servers and waits until every connection is closed.
    pub async fn stop(self) {
        self.mcp_loopback.stop().await;
        self.issuer_loopback.stop().await;
    }
}

/// Tells what an access token of this server is worth.
fn verifier(trusted: &Arc<Mutex<AuthorizationServer>>) -> impl Verifier + 'static {
    let trusted = Arc::clone(trusted);
    move |now_ms: u64, token: &str| {
        let told = lock(&trusted).introspect(now_ms, token);
        told.active.then_some(TokenFacts {
            client_id: told.client_id,
            scope: told.scope,
            exp: told.exp,
            resource: told.resource,
            key: told.key,
        })
    }
}

/// Both at one origin: the endpoint and its metadata are the MCP server's, all else the authorization server's.
#[derive(Debug)]
struct Both {
    authorization_server: Arc<Mutex<AuthorizationServer>>,
    mcp_server: Arc<Mutex<McpServer>>,
}

impl Both {
    fn is_for_mcp(request: &Request) -> bool {
        let path = request.path();
        path == "/mcp" || path.starts_with("/.well-known/oauth-protected-resource")
    }
}

impl Service for Both {
    fn handle(&mut self, now_ms: u64, request: Request) -> Response {
        match Self::is_for_mcp(&request) {
            true => lock(&self.mcp_server).handle(now_ms, request),
            false => lock(&self.authorization_server).handle(now_ms, request),
        }
    }

    fn resume(&mut self, now_ms: u64, request: Request) -> Response {
        lock(&self.authorization_server).resume(now_ms, request)
    }
}
