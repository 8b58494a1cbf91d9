//! Every way a session can fail, by who must act.
//!
//! One enum, `Clone + PartialEq` so that tests assert failures exactly. Each error answers three questions: its stable
//! [`code`](Error::code) (the same in the command line, logs and `docs/errors.md`), who must [act](Error::action), and
//! when to [try again](Error::retry_after).

mod cause;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cause::{Certainty, LoginCause, Named};

use crate::{dpop::Refused, resource::clean};

/// Why something did not work, and who must act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A person has to log in (again).
    #[error("{cause}")]
    LoginRequired {
        /// Why the session cannot go on by itself.
        cause: LoginCause,
    },

    /// The person pressed the refusing button.
    #[error("the login was refused in the browser")]
    DeniedByHuman,
    /// The issuer answered the authorization request with an error (RFC 6749 section 4.1.2.1).
    #[error("the authorization server refused: {0}", clean(.error))]
    DeniedByIssuer {
        /// The `error` value, as sent.
        error: String,
    },
    /// The issuer grants none of the scopes asked for, or not all (`invalid_scope`, RFC 6749 section 5.2): a person asks for
    /// others, or has the client's allowed at the issuer.
    #[error(
        "the authorization server does not grant the permissions that were asked for{}{}: ask for others, or have these allowed for this client there",
        if .scopes.is_empty() { "" } else { ", " },
        clean(&.scopes.join(" "))
    )]
    ScopeRefused {
        /// What was asked for.
        scopes: Vec<String>,
    },
    /// The server refuses a token that its issuer has just given out.
    #[error("the server refuses fresh tokens from its own authorization server")]
    DeniedByResource,

    /// No connection, or it broke.
    #[error("cannot reach {0}: {why}", clean(.host))]
    Network {
        /// The host that could not be reached.
        host: String,
        /// What went wrong, in words.
        why: NetworkFault,
    },
    /// A deadline passed.
    #[error("no answer within {} s ({waited_for})", .limit.as_secs())]
    Timeout {
        /// What was waited for.
        waited_for: Waited,
        /// The deadline that passed.
        limit: Duration,
    },
    /// The other side asks for fewer requests (HTTP 429, or 503 with Retry-After).
    #[error("the authorization server asks to wait")]
    RateLimited {
        /// How long to wait.
        retry_after: Option<Duration>,
    },
    /// The authorization server failed (HTTP 5xx, or an answer that cannot be read).
    #[error("the authorization server failed (HTTP {status})")]
    ServerError {
        /// The HTTP status.
        status: u16,
        /// When the next try is allowed.
        retry_after: Option<Duration>,
    },
    /// The last try failed and the next is not allowed yet (the back-off is shared by all processes).
    #[error("refreshing failed, the next try is in {} s", .retry_after.as_secs().max(1))]
    BackingOff {
        /// The code of the error that the last try ended with.
        code: String,
        /// How long until the next try.
        retry_after: Duration,
    },
    /// Another process refreshes this login and holds the lock longer than the wait.
    #[error("another process is refreshing this login: {holder}")]
    LeaseHeld {
        /// Who holds it.
        holder: Holder,
    },
    /// Another process has a login for this server open.
    #[error("a login for this server is already open: {holder}")]
    LoginInProgress {
        /// Who holds it.
        holder: Holder,
    },
    /// The store could not be read or written just now (busy, full disk, read-only).
    #[error("the store cannot be used just now: {why}")]
    StoreUnavailable {
        /// What the operating system said.
        why: String,
    },

    /// Metadata or an authorization response names another issuer than it must (RFC 8414 section 3.3, RFC 9207).
    #[error("the issuer does not match: expected {}, got {}", clean(.expected), clean(.got))]
    IssuerMismatch {
        /// The issuer that was recorded.
        expected: String,
        /// What came instead; empty where it was missing.
        got: String,
    },
    /// What lies where an issuer has its metadata names another issuer (RFC 8414 section 3.3); a person may accept just that
    /// for one server (T-17).
    #[error(
        "the metadata of {} names another issuer: expected {}, got {}; that is to be accepted only where whoever runs it confirms it",
        clean(.published), clean(.expected), clean(.got)
    )]
    MetadataMismatch {
        /// The issuer that the server names.
        published: String,
        /// What its metadata must name: the same, or what was accepted instead.
        expected: String,
        /// What it names; empty where it names none.
        got: String,
    },
    /// The redirect carried no `state`, or another one.
    #[error("the redirect does not belong to this login (state differs)")]
    StateMismatch,
    /// A proof of possession was refused: the first, where nothing could be done otherwise, else a second as well (RFC 9449
    /// sections 5 and 7.1).
    #[error(
        "the proof of possession (DPoP) is refused: the clock may be wrong, or a proxy may show the server another URL than the \
         one that it was made for"
    )]
    ProofRefused,
    /// The protected resource metadata speaks for another server (RFC 9728 section 3.3).
    #[error("the server's metadata is for another server: {}", clean(.published))]
    ResourceMismatch {
        /// The `resource` value of the document.
        published: String,
    },
    /// A metadata document or registration answer cannot be used.
    #[error("the {document} cannot be used: {field}: {why}")]
    MetadataInvalid {
        /// Which document.
        document: &'static str,
        /// Which of its fields.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A URL leads to an address that this program does not talk to (T-11).
    #[error("{} leads to the address {} that is not allowed here", clean(.field), clean(.address))]
    AddressForbidden {
        /// What led there: a metadata field or the URL's host.
        field: String,
        /// The address.
        address: String,
    },

    /// The server asks for no OAuth login.
    #[error("the server does not ask for OAuth (HTTP {status})")]
    NoOauth {
        /// What it answered to a request without a token.
        status: u16,
    },
    /// The authorization server does not offer PKCE with S256 (AUTH-24).
    #[error("the authorization server does not offer PKCE with S256")]
    NoPkceS256,
    /// The server takes only tokens that are bound to a key, and its issuer binds none (RFC 9728 section 2, RFC 9449).
    #[error(
        "the server takes only tokens that are bound to a key (DPoP), and this login has none: its authorization server does \
         not bind them with ES256, or bearer tokens were asked for"
    )]
    NoDpop,
    /// The authorization server offers no login on another device (RFC 8628).
    #[error("the authorization server offers no login on another device")]
    NoDeviceLogin,
    /// There is no way to become a client of this issuer by oneself (AUTH-31).
    #[error(
        "{} lets no program register itself; make a client in its console, with the redirect URI {}",
        clean(.issuer),
        clean(&.redirect_uris.join(" "))
    )]
    NoRegistrationWay {
        /// The issuer.
        issuer: String,
        /// Where the issuer has to send people back to, octet for octet.
        redirect_uris: Vec<String>,
    },
    /// The issuer refused the registration (RFC 7591 section 3.2.2).
    #[error(
        "{} refused to register this client: {}; make one in its console, with the redirect URI {}",
        clean(.issuer),
        clean(.error),
        clean(&.redirect_uris.join(" "))
    )]
    RegistrationRefused {
        /// The issuer.
        issuer: String,
        /// The `error` value, or the HTTP status in words.
        error: String,
        /// Where the issuer has to send people back to, octet for octet.
        redirect_uris: Vec<String>,
    },

    /// Not a URL that can be a server.
    #[error("{url} cannot be used as a server: {why}")]
    ConfigUrl {
        /// The text, cleaned.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The store's place or permissions are wrong.
    #[error("the store at {path} cannot be opened: {why}")]
    ConfigStore {
        /// Where.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Called outside the runtime it was built for.
    #[error("no async runtime with time and network is running")]
    ConfigRuntime,
    /// The callback port is taken.
    #[error("port {port} for the login's redirect is taken")]
    ConfigCallbackPort {
        /// The port.
        port: u16,
    },
    /// More than one login fits what was typed.
    #[error("{} could be any of: {}", clean(.target), .candidates.join(", "))]
    TargetAmbiguous {
        /// What was typed.
        target: String,
        /// What it could be.
        candidates: Vec<String>,
    },
    /// No login fits what was typed, and it is not a URL.
    #[error("no server is called {}", clean(.target))]
    TargetUnknown {
        /// What was typed.
        target: String,
    },
    /// A token was asked for by itself that is of use only with a proof for each request (RFC 9449).
    #[error(
        "this login's token is bound to a key (DPoP): each request needs a proof of its own, a header alone is refused"
    )]
    ConfigProofNeeded,
    /// An assertion that somebody else has signed for us is of no use: nothing was sent (RFC 7523 section 3).
    #[error("the token of {what} cannot be used: {why}")]
    ConfigAssertion {
        /// Where it lies.
        what: String,
        /// Which of its claims is wrong, or what was said of it before.
        why: String,
    },
    /// A setting or an argument that cannot be.
    #[error("{what}: {why}")]
    ConfigValue {
        /// Which setting.
        what: String,
        /// What is wrong.
        why: String,
    },

    /// The store is there, its key is not.
    #[error("the store's key is missing: {path}")]
    KeyMissing {
        /// Where the key should be.
        path: String,
    },
    /// The key is not this store's.
    #[error("the key at {path} does not open this store")]
    KeyWrong {
        /// Where the key is.
        path: String,
    },
    /// Stored bytes fail their authentication or their structure.
    #[error("the store is damaged: {what}")]
    StoreCorrupt {
        /// Which part.
        what: String,
    },
    /// The file is not a Pilotlight store.
    #[error("{path} is not a Pilotlight store")]
    StoreForeign {
        /// Where.
        path: String,
    },
    /// A newer Pilotlight wrote the store.
    #[error(
        "the store was written by a newer version (format {found}, this program reads {known})"
    )]
    StoreNewerFormat {
        /// The oldest reader the store admits.
        found: u32,
        /// What this program is.
        known: u32,
    },

    /// A state that cannot be reached was reached.
    #[error("internal error: {what}")]
    Bug {
        /// Where.
        what: &'static str,
    },
}

/// What broke on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NetworkFault {
    /// The name does not resolve.
    #[error("its name does not resolve")]
    Dns,
    /// No connection.
    #[error("the connection is refused or does not come up")]
    Connect,
    /// TLS failed.
    #[error("TLS fails (certificate, name or version)")]
    Tls,
    /// The connection broke after it stood.
    #[error("the connection broke")]
    Broken,
    /// The connection stands but carries nothing any more.
    #[error("the path is dead")]
    DeadPath,
    /// A redirect where none is followed.
    #[error("it redirects where no redirect is followed")]
    Redirect,
    /// The body is longer than allowed.
    #[error("its answer is too large")]
    TooLarge,
}

/// What a caller waited for when its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Waited {
    /// The refresh in flight.
    #[error("waiting for the refresh")]
    Refresh,
    /// The store.
    #[error("waiting for the store")]
    Store,
    /// An HTTP answer.
    #[error("waiting for an answer")]
    Answer,
    /// The person.
    #[error("waiting for the person")]
    Human,
}

/// The process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The program's name.
    pub program: String,
    /// Since when, in seconds of Unix time.
    pub since: u64,
    /// Whether the process is stopped (SIGSTOP, Ctrl-Z).
    pub stopped: bool,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", clean(&self.program), self.pid)?;
        if self.stopped {
            f.write_str(", the process is stopped: fg or kill it")?;
        }
        Ok(())
    }
}

/// Who must act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// A person logs in.
    LogIn,
    /// Nobody: it was refused.
    Stop,
    /// The caller, later.
    RetryLater,
    /// The server's owner; a security event.
    ReportToServer,
    /// The user, in the configuration (a client ID, another server).
    Configure,
    /// The user, on the own side.
    FixOwnSide,
    /// The user, at the store: `pilotlight paths`.
    InspectStore,
    /// Us.
    ReportBug,
}

impl Error {
    /// A login is required because of `cause`.
    #[must_use]
    pub fn login(cause: LoginCause) -> Self {
        Self::LoginRequired { cause }
    }

    /// What a token endpoint refused with `error` (RFC 6749 section 5.2).
    #[must_use]
    pub fn refused(error: String) -> Self {
        match Refused::named(&error) {
            Some(_) => Self::ProofRefused,
            None => Self::DeniedByIssuer { error },
        }
    }

    /// The stable, dotted code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::LoginRequired { cause } => cause.code(),
            Self::DeniedByHuman => "denied.by_human",
            Self::DeniedByIssuer { .. } => "denied.by_issuer",
            Self::ScopeRefused { .. } => "denied.scope",
            Self::DeniedByResource => "denied.by_resource",
            Self::Network { .. } => "unavailable.network",
            Self::Timeout { .. } => "unavailable.timeout",
            Self::RateLimited { .. } => "unavailable.rate_limited",
            Self::ServerError { .. } => "unavailable.server_error",
            Self::BackingOff { code, .. } => PAUSED_FOR
                .iter()
                .find(|known| *known == code)
                .unwrap_or(&"unavailable.server_error"),
            Self::LeaseHeld { .. } => "unavailable.lease_held",
            Self::LoginInProgress { .. } => "unavailable.login_in_progress",
            Self::StoreUnavailable { .. } => "unavailable.store",
            Self::IssuerMismatch { .. } | Self::MetadataMismatch { .. } => "peer.issuer_mismatch",
            Self::StateMismatch => "peer.state_mismatch",
            Self::ProofRefused => "peer.proof_refused",
            Self::ResourceMismatch { .. } => "peer.resource_mismatch",
            Self::MetadataInvalid { .. } => "peer.metadata_invalid",
            Self::AddressForbidden { .. } => "peer.address_forbidden",
            Self::NoOauth { .. } => "peer.no_oauth",
            Self::NoPkceS256 => "peer.no_pkce_s256",
            Self::NoDpop => "peer.no_dpop",
            Self::NoDeviceLogin => "peer.no_device_login",
            Self::NoRegistrationWay { .. } => "peer.no_registration_way",
            Self::RegistrationRefused { .. } => "peer.registration_refused",
            Self::ConfigUrl { .. } => "config.url",
            Self::ConfigStore { .. } => "config.store",
            Self::ConfigRuntime => "config.runtime",
            Self::ConfigCallbackPort { .. } => "config.callback_port",
            Self::TargetAmbiguous { .. } => "config.target_ambiguous",
            Self::TargetUnknown { .. } => "config.target_unknown",
            Self::ConfigProofNeeded => "config.proof_needed",
            Self::ConfigAssertion { .. } => "config.assertion",
            Self::ConfigValue { .. } => "config.value",
            Self::KeyMissing { .. } => "store.key_missing",
            Self::KeyWrong { .. } => "store.key_wrong",
            Self::StoreCorrupt { .. } => "store.corrupt",
            Self::StoreForeign { .. } => "store.foreign",
            Self::StoreNewerFormat { .. } => "store.newer_format",
            Self::Bug { .. } => "bug.unreachable",
        }
    }

    /// Who must act.
    #[must_use]
    pub fn action(&self) -> Action {
        let code = self.code();
        match code.split('.').next().unwrap_or_default() {
            "login" => Action::LogIn,
            "denied" => Action::Stop,
            "unavailable" => Action::RetryLater,
            "peer" if code.starts_with("peer.no_") || code == "peer.registration_refused" => {
                Action::Configure
            }
            "peer" => Action::ReportToServer,
            "config" => Action::FixOwnSide,
            "store" => Action::InspectStore,
            _ => Action::ReportBug,
        }
    }

    /// When trying again makes sense, where the other side said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::ServerError { retry_after, .. } => {
                *retry_after
            }
            Self::BackingOff { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// The exit code of a command that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.action() {
            Action::LogIn => 3,
            Action::Stop => 4,
            Action::RetryLater => 75,
            Action::ReportToServer | Action::Configure => 5,
            Action::FixOwnSide => 2,
            Action::InspectStore => 6,
            Action::ReportBug => 70,
        }
    }
}

/// What a refresh can pause for, which is whatever an exchange or a reading can end with: whoever asks meanwhile is told the
/// same code.
const PAUSED_FOR: [&str; 14] = [
    "unavailable.network",
    "unavailable.timeout",
    "unavailable.rate_limited",
    "unavailable.server_error",
    "unavailable.store",
    "denied.by_issuer",
    "peer.proof_refused",
    "peer.metadata_invalid",
    "peer.address_forbidden",
    "config.assertion",
    "config.value",
    "config.runtime",
    "store.corrupt",
    "bug.unreachable",
];

#[cfg(test)]
mod tests;
