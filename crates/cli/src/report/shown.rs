//! A login as it is shown: what the store says, or that a configured server has none yet.

use pilotlight::{Flag, Status};
use pilotlight_core::{
    credential::BindingKey, error::LoginCause, state::State, time::Wall, unattended::Unattended,
};
use serde_json::{Value, json};

use super::words::{cause_in_words, flag, rfc3339};
use crate::config::Server;

/// Where a login stands, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) key: BindingKey,
    pub(crate) issuer: Option<String>,
    /// `PUBLISHED=METADATA`, where a person has accepted that.
    pub(crate) exception: Option<String>,
    pub(crate) state: State,
    pub(crate) flags: Vec<Flag>,
    pub(crate) expires_at: Option<Wall>,
    pub(crate) next_refresh_at: Option<Wall>,
    pub(crate) last_accepted_at: Option<Wall>,
    pub(crate) logged_in_at: Option<Wall>,
    pub(crate) refresh_token: bool,
    /// The grant by which it renews itself without a person and without a refresh token.
    pub(crate) grant: Option<&'static str>,
    pub(crate) scopes: Vec<String>,
}

impl Shown {
    /// A server that nobody is logged in to.
    pub(crate) fn never(name: String, key: BindingKey) -> Self {
        Self {
            name,
            key,
            issuer: None,
            exception: None,
            state: State::LoginRequired {
                cause: LoginCause::Never,
            },
            flags: Vec::new(),
            expires_at: None,
            next_refresh_at: None,
            last_accepted_at: None,
            logged_in_at: None,
            refresh_token: false,
            grant: None,
            scopes: Vec::new(),
        }
    }

    /// A configured server without a login.
    pub(crate) fn configured(server: &Server) -> Self {
        let key = BindingKey::new(
            server.url.clone(),
            server.account.clone().unwrap_or_default(),
        );
        Self::never(server.name.clone(), key)
    }

    /// Whether there is, or was, a login behind it: not so after a logout.
    pub(crate) fn exists(&self) -> bool {
        self.state
            != State::LoginRequired {
                cause: LoginCause::Never,
            }
    }

    /// Why a person has to act, where one has to.
    pub(crate) fn cause(&self) -> Option<&LoginCause> {
        match &self.state {
            State::Suspect { cause } | State::LoginRequired { cause } => Some(cause),
            _ => None,
        }
    }

    /// Whether a person has to log in.
    pub(crate) fn needs_login(&self) -> bool {
        self.cause().is_some() || self.state == State::Unreadable
    }

    /// The session object of `--json`.
    pub(crate) fn to_json(&self) -> Value {
        let instant = |at: Option<Wall>| at.map(rfc3339);
        json!({
            "name": self.name,
            "url": self.key.url.as_str(),
            "account": self.key.account.as_str(),
            "issuer": self.issuer,
            "accept_issuer": self.exception,
            "state": self.state.word(),
            "flags": self.flags.iter().map(|one| flag(*one)).collect::<Vec<_>>(),
            "cause": self.cause().map(cause_to_json),
            "expires_at": instant(self.expires_at),
            "next_refresh_at": instant(self.next_refresh_at),
            "last_accepted_at": instant(self.last_accepted_at),
            "logged_in_at": instant(self.logged_in_at),
            "refresh_token": self.refresh_token,
            "grant": self.grant,
            "scopes": self.scopes,
        })
    }
}

impl From<&Status> for Shown {
    fn from(status: &Status) -> Self {
        Self {
            name: status.binding.name.clone(),
            key: status.binding.key.clone(),
            issuer: status
                .issuer
                .as_ref()
                .map(|issuer| issuer.as_str().to_owned()),
            exception: status
                .binding
                .exception
                .as_ref()
                .map(|one| format!("{}={}", one.published.as_str(), one.metadata.as_str())),
            state: status.state.clone(),
            flags: status.flags.clone(),
            expires_at: status.expires_at,
            next_refresh_at: status.next_refresh_at,
            last_accepted_at: status.last_accepted_at,
            logged_in_at: status.logged_in_at,
            refresh_token: status.refresh_token,
            grant: status.unattended.as_ref().map(Unattended::word),
            scopes: status.scopes.iter().map(str::to_owned).collect(),
        }
    }
}

/// A cause of `--json`.
pub(crate) fn cause_to_json(cause: &LoginCause) -> Value {
    json!({ "code": cause.code(), "message": cause_in_words(cause) })
}
