//! What an invocation of mcp-remote 0.15.1 means, so that its name in a host's configuration can be replaced by ours.
//!
//! Its arguments are read as it reads them, oddities included: the first of a repeated flag counts, the argument behind a
//! flag is its value whatever it looks like, and `--flag=value` is no flag. Where it would fail for no reason (a flag before
//! the URL) or keep silent (a flag that nobody knows), this goes on, or warns. `observed.json` beside the tests holds what
//! the published program was seen to do; `docs/guides/bridge.md` has the table for people.

mod arguments;
mod argv;
mod flags;
mod hash;
mod join;
mod parse;
mod pending;
mod read;
mod text;

use std::{path::PathBuf, time::Duration};

use http::HeaderMap;
use pilotlight_core::{
    registration::{Client, ClientAuthentication},
    scope::Scopes,
    secret::ClientSecret,
};
use pilotlight_relay::Transport;
use serde_json::{Map, Value};
use url::Url;

pub(crate) use argv::rearranged;
pub(crate) use flags::help;
pub(crate) use hash::LoginHash;
pub(crate) use join::{Joined, SHARED, join};
pub(crate) use pending::{AfterMcpRemote, passes};
pub(crate) use read::read;

/// What to do.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Be the bridge.
    Run(Box<Options>),
    /// Print this on stdout and end well.
    Print(String),
    /// Say this on stderr and end with 1, as mcp-remote does whatever is wrong.
    Refuse(Vec<String>),
}

/// Everything that an invocation says. Secrets and header values do not show in `Debug`.
#[derive(Debug)]
pub(crate) struct Options {
    /// The server.
    pub(crate) server: Url,
    /// The port that the redirect arrives at, where one was named: that one or none.
    pub(crate) port: Option<u16>,
    /// The host name in the redirect; the listener is on loopback whatever it says.
    pub(crate) host: String,
    /// The path of the redirect.
    pub(crate) callback_path: String,
    /// Where the person's browser is sent once the tokens are there.
    pub(crate) success_page: Option<Url>,
    /// How long the person has, where that was said.
    pub(crate) auth_timeout: Option<Duration>,
    /// The headers of every request to the server, `${NAME}` replaced; marked sensitive.
    pub(crate) headers: HeaderMap,
    /// Further parameters of the authorization request.
    pub(crate) authorize_params: Vec<Parameter>,
    /// The `resource` parameter (RFC 8707).
    pub(crate) resource: ResourceParameter,
    /// Which transports are tried, and in which order.
    pub(crate) transport: Transport,
    /// Whether a server of 2026-07-28 is looked for.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "the bridge looks for both; a test compares it with what mcp-remote made of the same arguments"
        )
    )]
    pub(crate) protocol: Protocol,
    /// How long a connection may take to stand.
    pub(crate) connect_timeout: Option<Duration>,
    /// How long the head of an answer may take.
    pub(crate) headers_timeout: Patience,
    /// How long an answer may pause.
    pub(crate) body_timeout: Patience,
    /// How often the server is pinged, if at all.
    pub(crate) ping_every: Option<Duration>,
    /// Whether only IPv4 addresses are used.
    pub(crate) ipv4: bool,
    /// A file with certificates to trust beside the system's, as Node.js has it.
    pub(crate) extra_ca: Option<PathBuf>,
    /// Whether cookies are kept, in memory.
    pub(crate) cookies: bool,
    /// Tools to hide, as globs.
    pub(crate) ignored_tools: Vec<String>,
    /// Members of the registration, laid over the usual ones.
    pub(crate) client_metadata: Option<Map<String, Value>>,
    /// A client that was registered by hand.
    pub(crate) client: Option<StaticClient>,
    /// The URL of a client ID metadata document.
    pub(crate) client_metadata_url: Option<Url>,
    /// How tokens are got.
    pub(crate) grant: Grant,
    /// Whether the ID token is presented in the place of the access token.
    pub(crate) id_token: bool,
    /// Whether everything is said, into a file as well.
    pub(crate) debug: bool,
    /// Whether nothing is said on stderr, unless `debug` is on.
    pub(crate) silent: bool,
    /// What mcp-remote keeps this login under.
    pub(crate) hash: LoginHash,
    /// The folder that mcp-remote keeps its logins below.
    pub(crate) folder: Option<PathBuf>,
    /// What to warn about: flags that nobody knows, values that are of no use. No secret is in them.
    pub(crate) warnings: Vec<String>,
}

/// A parameter whose value may be secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Its name.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: String,
}

impl std::fmt::Debug for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=[hidden]", self.name)
    }
}

/// The `resource` parameter of authorization and token requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResourceParameter {
    /// As the server's metadata has it.
    Published,
    /// This one.
    Given(String),
    /// None: the tokens are not limited to the server.
    LeftOut,
}

/// What is looked for at the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// A server of 2025-11-25 or before.
    #[default]
    Legacy,
    /// Either kind, by one question.
    Auto,
}

/// How long something is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Nothing was said: mcp-remote then waits 300 s.
    #[default]
    Usual,
    /// As long as it takes.
    Endless,
    /// So long.
    For(Duration),
}

/// How tokens are got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Grant {
    /// A person approves in a browser.
    #[default]
    Browser,
    /// A person approves on another device (RFC 8628).
    Device,
    /// The client logs in as itself (RFC 6749 section 4.4).
    ClientCredentials {
        /// The token endpoint, where there is no metadata that says it.
        token_endpoint: Option<Url>,
    },
}

/// A client that was registered by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StaticClient {
    /// Its ID.
    pub(crate) id: String,
    /// Its secret.
    pub(crate) secret: Option<ClientSecret>,
    /// How it authenticates, where that was said.
    pub(crate) authentication: Option<ClientAuthentication>,
}

impl Options {
    /// The port that mcp-remote listens at: the one that was named, else one that follows from the hash.
    pub(crate) fn callback_port(&self) -> u16 {
        self.port.unwrap_or_else(|| self.hash.port())
    }

    /// Whether no other port may be listened at: the client is known with this one.
    pub(crate) fn port_is_strict(&self) -> bool {
        self.port.is_some() || self.client.is_some() || self.client_metadata_url.is_some()
    }

    /// The scopes to ask for, where they were pinned.
    pub(crate) fn scopes(&self) -> Option<Scopes> {
        let text = self.client_metadata.as_ref()?.get("scope")?.as_str()?;
        Some(Scopes::parse(text)).filter(|scopes| !scopes.is_empty())
    }

    /// The client that was registered by hand. Where nobody has said how it shows its secret, that is what the issuer takes.
    pub(crate) fn own_client(&self) -> Option<Client> {
        let given = self.client.as_ref()?;
        Some(Client {
            secret: given.secret.clone(),
            authentication: given.authentication.unwrap_or(ClientAuthentication::None),
            ..Client::brought(given.id.clone())
        })
    }

    /// What was asked for and is not done here, or otherwise: said once, at the start.
    pub(crate) fn without_effect(&self) -> Vec<String> {
        let pinned = self.client_metadata.iter().flat_map(Map::keys);
        let beside_scope = pinned.filter(|name| *name != "scope").count() > 0;
        let given = matches!(self.resource, ResourceParameter::Given(_));
        let cases = [
            (
                given,
                "--resource: a new login sends the resource that the server publishes",
            ),
            (
                beside_scope,
                "--static-oauth-client-metadata: of it only scope counts",
            ),
            (
                self.id_token,
                "--use-id-token: it is the access token that is sent",
            ),
        ];
        let holds = cases.into_iter().filter(|(holds, _)| *holds);
        holds
            .map(|(_, what)| format!("without effect: {what}"))
            .collect()
    }

    /// Whether nothing is to be said on stderr.
    pub(crate) fn is_mute(&self) -> bool {
        self.silent && !self.debug
    }
}

#[cfg(test)]
mod tests;
