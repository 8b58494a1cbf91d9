//! What an embedding program decides about its sessions: plain values with defaults.

use std::time::Duration;

use pilotlight_core::{
    assertion::ClientKey,
    credential::{Account, Binding},
    flow::{Device, Redirect},
    freshness::Policy,
    issuer::Issuer,
    quirks::Quirk,
    registration::Client,
    resource::Resource,
    scope::Scopes,
    state::State,
    time::Wall,
    unattended::Unattended,
};
use url::Url;

/// How long things may take, and when a refresh is due.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// When a refresh is due (default: a quarter of the token's life before its end, at most 5 min).
    pub policy: Policy,
    /// How long a call of a [`Session`](crate::Session) may wait in all, for the store and for a refresh where its token is of
    /// no use (default 30 s).
    pub caller_wait: Duration,
    /// How long a refresh waits for another process's (default 75 s).
    pub lock_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            caller_wait: Duration::from_secs(30),
            lock_wait: Duration::from_secs(75),
        }
    }
}

/// A login that is wanted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoginRequest {
    /// The server.
    pub url: Resource,
    /// Which of several logins.
    pub account: Account,
    /// The local alias; by default the server's host.
    pub name: Option<String>,
    /// The scopes to ask for, instead of those that the server names.
    pub scopes: Option<Scopes>,
    /// A client that was registered by hand at the issuer.
    pub client: Option<Client>,
    /// A grant that needs no person. Without one, a client with a secret or a key logs in by a browser where the issuer lets
    /// anybody do that, and else by its own authentication alone (RFC 6749 section 4.4).
    pub unattended: Option<Unattended>,
    /// The URL of a hosted client ID metadata document.
    pub client_metadata_url: Option<Url>,
    /// The private key whose public half is in that document (AUTH-34).
    pub client_key: Option<ClientKey>,
    /// Whether `resource` is left out of every request to the issuer of this login, or no longer; `None`: as it was. The tokens are
    /// then not limited to the server, and the person is told so. Never for a login without a person.
    pub without_resource: Option<bool>,
    /// Where the redirect arrives.
    pub redirect: Redirect,
    /// Whether the person logs in on another device, with a code (RFC 8628). Its [`Human`](crate::human::Human) has to be able to
    /// show one.
    pub device: Device,
    /// How long the person has (default 10 min).
    pub timeout: Duration,
    /// Whether a request has asked for it, rather than a person.
    pub(crate) step_up: bool,
}

impl LoginRequest {
    /// A login with every default.
    #[must_use]
    pub fn new(url: Resource, account: Account) -> Self {
        Self {
            url,
            account,
            name: None,
            scopes: None,
            client: None,
            unattended: None,
            client_metadata_url: None,
            client_key: None,
            without_resource: None,
            redirect: Redirect::default(),
            device: Device::default(),
            timeout: Duration::from_secs(600),
            step_up: false,
        }
    }

    /// Whether it may end well although nobody can be asked.
    pub(crate) fn may_need_nobody(&self) -> bool {
        self.unattended.is_some() || self.client.as_ref().is_some_and(Client::is_confidential)
    }
}

/// What a login got.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoggedIn {
    /// Where the login stands.
    pub status: Status,
    /// Whether another process made it while this one waited.
    pub adopted: bool,
    /// The host that the refresh token will be sent to.
    pub token_host: String,
    /// Whether the issuer lists `offline_access`: asking for it would have brought a refresh token.
    pub offline_access_offered: bool,
    /// What the login has taught about the issuer: what the next one does otherwise, and why.
    pub learned: Vec<Quirk>,
}

/// Where a login stands, for people.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// What was configured, and its name.
    pub binding: Binding,
    /// Who issued the login.
    pub issuer: Option<Issuer>,
    /// The state.
    pub state: State,
    /// What else is to be known.
    pub flags: Vec<Flag>,
    /// When the access token ends.
    pub expires_at: Option<Wall>,
    /// When a refresh is due.
    pub next_refresh_at: Option<Wall>,
    /// When the server last accepted the token, to within a minute.
    pub last_accepted_at: Option<Wall>,
    /// When the person logged in.
    pub logged_in_at: Option<Wall>,
    /// The scopes granted.
    pub scopes: Scopes,
    /// Whether there is a refresh token.
    pub refresh_token: bool,
    /// The grant that renews it without a person and without a refresh token, if that is how it was made.
    pub unattended: Option<Unattended>,
}

/// What else is to be known about a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flag {
    /// Several configured servers share it.
    Shared,
    /// Its newest version is not in the store yet.
    Degraded,
    /// It is a key that a person has brought: nothing renews it, and it is used until the server refuses it.
    Static,
    /// Its tokens are not limited to the server: a person has asked to leave `resource` out.
    NoResource,
}
