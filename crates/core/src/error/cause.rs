//! Why a session needs a person.

use serde::{Deserialize, Serialize};

use crate::resource::clean;

/// Why a session needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "login", rename_all = "snake_case")]
#[non_exhaustive]
pub enum LoginCause {
    /// Nobody has logged in to this server yet, or the login was ended by `logout`.
    #[error("nobody is logged in to this server")]
    Never,
    /// The access token has ended and the issuer never gave a refresh token.
    #[error("the login has ended, and the authorization server never issued a refresh token")]
    NoRefreshToken,
    /// The issuer refused the refresh token with `invalid_grant` (RFC 6749 section 5.2).
    #[error("the authorization server refused to refresh the login{}", match .certainty { Certainty::Suspect => " (not yet certain)", Certainty::Certain => "" })]
    RefreshRejected {
        /// Whether the refusal is believed yet.
        certainty: Certainty,
        /// Whether the issuer named reuse or revocation.
        named: Option<Named>,
    },
    /// The server wants scopes that this login does not have (RFC 6750 section 3.1).
    #[error("the server asks for more permissions: {}", clean(&.scopes.join(" ")))]
    Scope {
        /// The scopes to ask for.
        scopes: Vec<String>,
    },
    /// The server now trusts another authorization server.
    #[error("the server has changed its authorization server: from {} to {}", clean(.former), clean(.issuer))]
    IssuerChanged {
        /// The issuer of the login there is.
        former: String,
        /// The issuer that the server names now.
        issuer: String,
    },
    /// The pinned token endpoint has gone to another origin.
    #[error("the authorization server has moved its token endpoint")]
    EndpointMoved,
    /// The issuer no longer knows this client (`invalid_client`).
    #[error("the authorization server has forgotten this client")]
    RegistrationGone,
    /// The server refuses the key that a person has brought.
    #[error("the server refuses the key that was stored for it")]
    StaticTokenRefused,
    /// A login was begun and not finished.
    #[error("the login was begun but not finished")]
    Abandoned,
}

/// Whether a refusal is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Refused once; probes will tell.
    Suspect,
    /// Refused at every probe, or the issuer named the reason.
    Certain,
}

/// What an issuer named as the reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// A spent refresh token was presented.
    Reuse,
    /// The grant was revoked.
    Revoked,
}

impl LoginCause {
    /// The stable, dotted code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Never => "login.never",
            Self::NoRefreshToken => "login.no_refresh_token",
            Self::RefreshRejected { .. } => "login.refresh_rejected",
            Self::Scope { .. } => "login.scope",
            Self::IssuerChanged { .. } => "login.issuer_changed",
            Self::EndpointMoved => "login.endpoint_moved",
            Self::RegistrationGone => "login.registration_gone",
            Self::StaticTokenRefused => "login.static_token_refused",
            Self::Abandoned => "login.abandoned",
        }
    }
}
