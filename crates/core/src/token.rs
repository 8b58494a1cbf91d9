//! Token responses and errors (RFC 6749 sections 5.1 and 5.2), and the verdict on a token call.
//!
//! The verdict decides everything: *not delivered* backs off, *ambiguous* may be repeated once, *definitive* acts
//! (F-12 to F-17). Numbers are read leniently, presence strictly: a 200 without an access token is no answer at all.

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use crate::{
    credential::{Lifetime, TokenType},
    dpop,
    error::{Error, Named},
    exchange::{Delivery, Exchanged, Reply},
    scope::Scopes,
    secret::{AccessToken, RefreshToken},
};

/// A token response that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAnswer {
    /// The access token.
    pub access_token: AccessToken,
    /// How it is presented; `None` where the response does not say.
    pub token_type: Option<TokenType>,
    /// How long it lives, from the moment the request left.
    pub lifetime: Option<Lifetime>,
    /// The refresh token; `None` where the response has none, or an empty one.
    pub refresh_token: Option<RefreshToken>,
    /// The scopes; `None` where the response is silent.
    pub scopes: Option<Scopes>,
}

/// What a token call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Tokens.
    Granted(Box<TokenAnswer>),
    /// The issuer did nothing: keep everything, back off.
    NotDelivered {
        /// For people.
        error: Error,
        /// What the issuer asked for.
        retry_after: Option<Duration>,
    },
    /// The issuer may have done it: the refresh token may be spent.
    Ambiguous {
        /// For people.
        error: Error,
        /// Whether the connection broke, so that a repeat may leave at once.
        broken: bool,
        /// Whether the issuer did it for certain: its 200 came, and only cannot be read.
        acted: bool,
    },
    /// `invalid_grant`: the issuer refuses this grant.
    InvalidGrant {
        /// Whether it named reuse or revocation.
        named: Option<Named>,
    },
    /// `invalid_client`: the issuer does not know this client (any more).
    InvalidClient,
    /// Another OAuth error: nothing was spent, and a repeat of the same request is answered the same way.
    Refused {
        /// The `error` value.
        error: String,
    },
}

impl Verdict {
    /// Judges what came of a token call.
    #[must_use]
    pub fn of(exchanged: &Exchanged) -> Self {
        let reply = match exchanged {
            Ok(reply) => reply,
            Err(failure) => {
                let error = failure.error();
                return match failure.delivery {
                    Delivery::NotDelivered => Self::NotDelivered {
                        error,
                        retry_after: None,
                    },
                    Delivery::Ambiguous => {
                        let broken = !matches!(failure.fault, crate::exchange::Fault::Deadline(_));
                        Self::Ambiguous {
                            error,
                            broken,
                            acted: false,
                        }
                    }
                };
            }
        };
        let retry_after = reply.retry_after();
        let server_error = Error::ServerError {
            status: reply.status,
            retry_after,
        };
        match reply.status {
            200..=299 => match TokenAnswer::parse(reply) {
                Some(answer) => Self::Granted(Box::new(answer)),
                None => Self::Ambiguous {
                    error: server_error,
                    broken: true,
                    acted: is_cut_short(reply),
                },
            },
            429 => Self::NotDelivered {
                error: Error::RateLimited { retry_after },
                retry_after,
            },
            503 if reply.headers.contains_key(http::header::RETRY_AFTER) => Self::NotDelivered {
                error: server_error,
                retry_after,
            },
            400 | 401 | 403 => match refusal(&reply.body) {
                Some((error, description)) => match error.as_str() {
                    "invalid_grant" => Self::InvalidGrant {
                        named: named(&description),
                    },
                    "invalid_client" => Self::InvalidClient,
                    _ => Self::Refused { error },
                },
                // No OAuth error: a proxy spoke, perhaps after the issuer had.
                None => Self::Ambiguous {
                    error: server_error,
                    broken: true,
                    acted: false,
                },
            },
            408 | 500.. => Self::Ambiguous {
                error: server_error,
                broken: true,
                acted: false,
            },
            // Redirects (a captive portal) and other refusals: no token endpoint took the request.
            _ => Self::NotDelivered {
                error: server_error,
                retry_after,
            },
        }
    }
}

impl TokenAnswer {
    /// Reads a token response (F-17, F-18): `None` where it has no usable access token.
    #[must_use]
    pub fn parse(reply: &Reply) -> Option<Self> {
        let value: Value = serde_json::from_slice(&reply.body).ok()?;
        let text = |name: &str| {
            value
                .get(name)
                .and_then(Value::as_str)
                .filter(|s| !s.is_empty())
        };
        let access_token = AccessToken::new(text("access_token")?.to_owned()).ok()?;
        let token_type = match text("token_type") {
            None => None,
            Some(kind) if kind.eq_ignore_ascii_case("bearer") => Some(TokenType::Bearer),
            Some(kind) if kind.eq_ignore_ascii_case(dpop::SCHEME) => Some(TokenType::Dpop),
            Some(_) => return None,
        };
        // An unprintable refresh token makes the whole answer unusable: without it the session would end silently.
        let refresh_token = match text("refresh_token") {
            Some(token) => Some(RefreshToken::new(token.to_owned()).ok()?),
            None => None,
        };
        let lifetime = value
            .get("expires_in")
            .and_then(lenient_seconds)
            .map(Lifetime::Stated)
            .or_else(|| jwt_lifetime(access_token.expose()).map(Lifetime::Hint));
        Some(Self {
            access_token,
            token_type,
            lifetime,
            refresh_token,
            scopes: text("scope").map(Scopes::parse),
        })
    }
}

/// Whether a 200 that cannot be read began as a token response: no captive portal's page does.
fn is_cut_short(reply: &Reply) -> bool {
    let named = b"\"access_token\"";
    reply.body.trim_ascii_start().starts_with(b"{")
        && reply.body.windows(named.len()).any(|part| part == named)
}

/// Seconds as a number or a string of one; zero, negative, absurd or absent is `None`: unknown, not expired.
pub(crate) fn lenient_seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse::<f64>().ok()?,
        _ => return None,
    };
    (seconds.is_finite() && (1.0..=TEN_YEARS).contains(&seconds))
        .then(|| Duration::from_secs_f64(seconds))
}

/// The span between `iat` and `exp` of a JWT access token; nothing is validated, since it is only a hint.
fn jwt_lifetime(token: &str) -> Option<Duration> {
    let payload = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .ok()?;
    let claims: Value = serde_json::from_slice(&bytes).ok()?;
    let seconds = claims.get("exp")?.as_f64()? - claims.get("iat")?.as_f64()?;
    (seconds.is_finite() && (1.0..=TEN_YEARS).contains(&seconds))
        .then(|| Duration::from_secs_f64(seconds))
}

/// The `error` and `error_description` of an OAuth error response (RFC 6749 section 5.2).
#[must_use]
pub fn refusal(body: &[u8]) -> Option<(String, String)> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error")?.as_str()?;
    let fits = !error.is_empty()
        && error.len() <= 64
        && error
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.');
    let description = value
        .get("error_description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    fits.then(|| (error.to_owned(), description.to_owned()))
}

/// What an issuer names in its description; the description itself goes no further (T-33).
fn named(description: &str) -> Option<Named> {
    let words = description.to_ascii_lowercase();
    if [
        "reuse",
        "re-use",
        "already used",
        "already been used",
        "replay",
    ]
    .iter()
    .any(|w| words.contains(w))
    {
        Some(Named::Reuse)
    } else if words.contains("revoked") {
        Some(Named::Revoked)
    } else {
        None
    }
}

const TEN_YEARS: f64 = 10.0 * 366.0 * 86_400.0;

#[cfg(test)]
mod tests;
