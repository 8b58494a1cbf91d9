//! The states people see: exactly one for each login, plus flags.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    attempt::{Attempt, Ruling, repeat_window},
    credential::Credential,
    error::{Certainty, Error, LoginCause},
    freshness::{Freshness, Policy},
    notes::ReuseGrace,
    record::Record,
    time::{Now, Wall},
};

/// Where a login stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// The token is fresh.
    Ok,
    /// The token works; a refresh is due.
    Due,
    /// The token has ended; the next use refreshes it.
    Expired,
    /// Refreshing fails for now.
    Retrying {
        /// Since when.
        since: Wall,
        /// When the next try is allowed.
        next: Wall,
    },
    /// A refresh was sent and its answer never came; the old refresh token may be spent.
    Uncertain,
    /// The issuer refused once; it is asked again.
    Suspect {
        /// What to report.
        cause: LoginCause,
    },
    /// A person has to log in.
    LoginRequired {
        /// Why.
        cause: LoginCause,
    },
    /// Nothing would bring another token: the login ends with the access token.
    Ending {
        /// When, where it is known.
        at: Option<Wall>,
    },
    /// Imported and not yet checked.
    Unverified,
    /// It is in the store and cannot be read ([`Error::StoreCorrupt`]): nobody is served by it. A login takes its place, a logout
    /// its space.
    Unreadable,
}

impl State {
    /// The state's word, as in `--json`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Due => "due",
            Self::Expired => "expired",
            Self::Retrying { .. } => "retrying",
            Self::Uncertain => "uncertain",
            Self::Suspect { .. } => "suspect",
            Self::LoginRequired { .. } => "login_required",
            Self::Ending { .. } => "ending",
            Self::Unverified => "unverified",
            Self::Unreadable => "unreadable",
        }
    }

    /// The error that a caller without a usable token gets in this state, if it is one.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        match self {
            Self::Suspect { cause } | Self::LoginRequired { cause } => {
                Some(Error::login(cause.clone()))
            }
            _ => None,
        }
    }

    /// Reads the state off what is stored.
    #[must_use]
    pub fn of(record: &Record, grace: ReuseGrace, now: Now, policy: Policy) -> Self {
        let Some(credential) = &record.credential else {
            return Self::LoginRequired {
                cause: LoginCause::Never,
            };
        };
        if let Some(suspicion) = &record.suspicion {
            let cause = suspicion.cause.clone();
            return match &cause {
                LoginCause::RefreshRejected {
                    certainty: Certainty::Suspect,
                    ..
                } => Self::Suspect { cause },
                _ => Self::LoginRequired { cause },
            };
        }
        let freshness = credential.freshness(now, policy);
        if credential.is_static() {
            return Self::Ok;
        }
        if credential.is_final() {
            return ending(credential, freshness, now);
        }
        if let Some(attempt) = &record.attempt
            && is_uncertain(
                attempt,
                credential,
                repeat_window(grace, policy.repeat_limit),
                now,
            )
        {
            return Self::Uncertain;
        }
        if let Some(backoff) = &record.backoff {
            return Self::Retrying {
                since: backoff.since,
                next: backoff.not_before,
            };
        }
        match freshness {
            Freshness::Fresh { .. } => Self::Ok,
            Freshness::Due { .. } => Self::Due,
            Freshness::Expired { .. } => Self::Expired,
        }
    }
}

fn ending(credential: &Credential, freshness: Freshness, now: Now) -> State {
    match freshness {
        Freshness::Expired { .. } => State::LoginRequired {
            cause: LoginCause::NoRefreshToken,
        },
        _ => State::Ending {
            at: credential.expires_in(now).map(|left| now.wall + left),
        },
    }
}

fn is_uncertain(
    attempt: &Attempt,
    credential: &Credential,
    window: Option<Duration>,
    now: Now,
) -> bool {
    attempt.generation == credential.version.generation
        && attempt.ruling(now, window) == Ruling::Uncertain
}
