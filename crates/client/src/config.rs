//! What an embedding program decides about its sessions: plain values with defaults.

use std::time::Duration;

use pilotlight_core::{
    assertion::ClientKey,
    credential::{Account, Binding},
    flow::{Device, Redirect},
    freshness::Policy,
    issuer::{Issuer, IssuerException},
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
    /// A grant that needs no person. One that shows a secret, or an identity, needs [`LoginRequest::issuer`] beside it.
    pub unattended: Option<Unattended>,
    /// The URL of a hosted client ID metadata document.
    pub client_metadata_url: Option<Url>,
    /// The private key whose public half is in that document (AUTH-34).
    pub client_key: Option<ClientKey>,
    /// Whether `resource` is left out of every request to the issuer of this login, or no longer; `None`: as it was. The tokens are
    /// then not limited to the server, and the person is told so. Never for a login without a person.
    pub without_resource: Option<bool>,
    /// The issuer to log in at, where the server names several, or where a client was made at this one; `None`: that of the
    /// login there is, else the first that there is a way to become a client of.
    pub issuer: Option<Issuer>,
    /// Whether a secret, or an identity, may go to whichever issuer the server names, and a client with a secret or a key may log
    /// in as itself where that issuer lets nobody log in by a browser (default: no; [`LoginRequest::issuer`] says where).
    ///
    /// Whoever runs the server, or can speak for it, can then name an issuer of their own and be sent the secret, with nobody
    /// to see it. For tests, and where server and client are one's own.
    pub trusts_server: bool,
    /// An issuer to accept although its metadata names another: kept with the server's name, for this login and all that
    /// follow. One whose halves are equal takes it back; `None`: as it was.
    pub exception: Option<IssuerException>,
    /// Whether the tokens are to be bearer tokens although the issuer would bind them to a key (DPoP): such a one can be handed
    /// to a program as a header, and whoever gets hold of it can use it (default: no).
    pub bearer: bool,
    /// Where the redirect arrives.
    pub redirect: Redirect,
    /// Where the browser is sent on once the loopback redirect has come; `None`: our own page (default).
    pub success_url: Option<Url>,
    /// Whose login it is, where the redirect comes to a page that more than one person can open: what
    /// [`deliver_for`](crate::Sessions::deliver_for) has to be told. The name by which the program knows the browser's own session,
    /// not its cookie; it stays in the process (default: nobody's in particular).
    pub owner: Option<String>,
    /// Whether the person logs in on another device, with a code (RFC 8628). Its [`Human`](crate::human::Human) has to be able to
    /// show one.
    pub device: Device,
    /// Further parameters of the authorization request, for an issuer that wants them (`audience` and the like); one that has the
    /// name of a parameter of the flow is left out.
    pub authorize_params: Vec<(String, String)>,
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
            issuer: None,
            trusts_server: false,
            exception: None,
            bearer: false,
            redirect: Redirect::default(),
            success_url: None,
            owner: None,
            device: Device::default(),
            authorize_params: Vec::new(),
            timeout: Duration::from_secs(600),
            step_up: false,
        }
    }

    /// Whether a login at that issuer is what is asked for.
    pub(crate) fn fits_issuer(&self, binding: &Binding, issuer: &Issuer) -> bool {
        let chosen = self.issuer.as_ref().is_none_or(|chosen| chosen == issuer);
        let accepted = self.exception.as_ref().is_none_or(|exception| {
            binding.exception.as_ref() == Some(exception).filter(|one| !one.is_none())
        });
        chosen && accepted
    }

    /// The same, and the person logs in as for that one: by which redirect or device, for whom, with what is said besides, in how
    /// much time.
    #[must_use]
    pub(crate) fn asking_as(self, other: &Self) -> Self {
        Self {
            redirect: other.redirect.clone(),
            success_url: other.success_url.clone(),
            owner: other.owner.clone(),
            device: other.device,
            authorize_params: other.authorize_params.clone(),
            timeout: other.timeout,
            ..self
        }
    }

    /// Whether it may end well although nobody can be asked.
    #[must_use]
    pub fn may_need_nobody(&self) -> bool {
        let confidential = self.client.as_ref().is_some_and(Client::is_confidential);
        self.unattended.is_some() || (self.trusts_server && confidential)
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
    /// The issuer of the login before, where the server has changed it.
    pub former_issuer: Option<Issuer>,
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

impl Status {
    /// Of a login that cannot be read.
    pub(crate) fn unreadable(binding: Binding) -> Self {
        Self {
            issuer: binding.credential.as_ref().map(|key| key.issuer.clone()),
            binding,
            state: State::Unreadable,
            flags: Vec::new(),
            expires_at: None,
            next_refresh_at: None,
            last_accepted_at: None,
            logged_in_at: None,
            scopes: Scopes::default(),
            refresh_token: false,
            unattended: None,
        }
    }
}

/// What else is to be known about a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flag {
    /// Several configured servers share it.
    Shared,
    /// Its newest version is not in the store yet.
    Degraded,
    /// A person has accepted that the metadata of its issuer names another ([`Binding::exception`]).
    IssuerException,
    /// It is a key that a person has brought: nothing renews it, and it is used until the server refuses it.
    Static,
    /// Its tokens are not limited to the server: a person has asked to leave `resource` out.
    NoResource,
    /// mcp-remote uses it as well ([`mcp_remote::Shared`](crate::mcp_remote::Shared)).
    WithMcpRemote,
}
