//! The history of a login: what happened, when and why. It holds no secret and travels in the write it belongs to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    attempt::{Label, ProcessId},
    credential::{Generation, TokenType},
    error::LoginCause,
    quirks::Quirk,
    scope::Scopes,
    time::Wall,
};

/// One thing that happened to a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Wall,
    /// In which process.
    pub process: ProcessId,
    /// What.
    #[serde(flatten)]
    pub happened: Happened,
}

/// What can happen to a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Happened {
    /// A person logged in.
    LoggedIn {
        /// Who issued the tokens.
        issuer: String,
        /// The scopes granted.
        scopes: Scopes,
        /// The access token's life.
        lifetime: Option<Duration>,
        /// Whether there is a refresh token.
        refresh_token: bool,
        /// Who issued the login before, where the server has changed its issuer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        former_issuer: Option<String>,
    },
    /// The server has gone back to an issuer whose login is still there: it is used again, and nobody was asked.
    IssuerChanged {
        /// The issuer of the login so far.
        from: String,
        /// The issuer of this one.
        to: String,
    },
    /// The issuer has moved its token endpoint within the same origin: its own metadata says so.
    Repinned {
        /// Where refresh tokens went so far.
        from: String,
        /// Where they go from now on.
        to: String,
    },
    /// A login ended without success.
    LoginFailed {
        /// The error's code.
        code: String,
    },
    /// A refresh brought a new generation.
    Refreshed {
        /// The new generation.
        generation: Generation,
        /// Why it was made.
        reason: Reason,
        /// Whether the call repeated an earlier one.
        label: Option<Label>,
        /// How many calls it took.
        calls: u32,
        /// When the call that brought it left.
        sent_at: Wall,
        /// The refresh point of the token it replaced, if that was known.
        previous_refresh_point: Option<Wall>,
        /// The new access token's life.
        lifetime: Option<Duration>,
    },
    /// A refresh has brought a token of another kind: bound to a key where it was not, or the other way round.
    TokenTypeChanged {
        /// How tokens were presented so far.
        from: TokenType,
        /// How this one is.
        to: TokenType,
    },
    /// What was stored of the login could not be read any more: a login or a logout has taken its place.
    Damaged,
    /// Something was learned about the issuer, and is minded from now on.
    Learned {
        /// What, and so why.
        quirk: Quirk,
    },
    /// A generation that was kept in the spool has reached the store.
    Merged {
        /// Which.
        generation: Generation,
    },
    /// A call to refresh did not bring tokens; nothing was lost.
    RefreshFailed {
        /// The error's code.
        code: String,
        /// When the next is allowed.
        next: Wall,
    },
    /// The answer to a call was lost: the refresh token may be spent.
    Ambiguous {
        /// The error's code.
        code: String,
        /// Whether it was itself the repeat of a lost call.
        repeated: bool,
    },
    /// The issuer refused the refresh token; it is asked again.
    Suspected {
        /// What is reported meanwhile.
        cause: LoginCause,
        /// When the next probe is allowed.
        next_probe_at: Option<Wall>,
        /// Whether the call that was refused repeated an earlier one.
        label: Option<Label>,
    },
    /// A probe was answered with tokens: the refusal was false.
    Healed,
    /// The login is lost, for one cause.
    Lost {
        /// The cause.
        cause: LoginCause,
        /// Whether the call that was refused repeated an earlier one.
        label: Option<Label>,
    },
    /// The server refuses even fresh tokens: no forced refresh until then.
    BreakerTripped {
        /// Until when.
        until: Wall,
    },
    /// A person logged out: nothing of the login is used any more.
    LoggedOut {
        /// Whether the issuer is left alone.
        local: bool,
    },
    /// What became of the grant at the issuer after a logout.
    Revocation {
        /// What it came to.
        outcome: Revocation,
    },
}

/// Why a refresh was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The refresh point had passed.
    Due,
    /// The token had ended.
    Expired,
    /// Nobody knew the token's age.
    AgeUnknown,
    /// The server refused the token.
    Refused,
    /// A person or program asked for it.
    Asked,
}

/// What became of the grant at the issuer when a person logged out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Revocation {
    /// The issuer answered 200 (RFC 7009 section 2.2).
    Revoked,
    /// The issuer has no revocation endpoint.
    Unsupported,
    /// The issuer could not be reached: queued, and tried for seven days.
    Queued,
    /// The person asked for a local logout only.
    Local,
    /// What was stored could not be read any more, so there was nothing to show the issuer.
    Unreadable,
}
