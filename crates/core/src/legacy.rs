//! The credential formats of other programs: so far the terminal's, which is rmcp's with a client secret beside it.
//!
//! Every version ever written is read: fields that came later may be missing, null or of an odd type, and then nothing
//! is assumed (a token of unknown age is refreshed once, never called expired). What is not understood is written back.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{
    scope::Scopes,
    secret::{self, AccessToken, ClientSecret, RefreshToken, SealedText},
    time::Wall,
};

/// The terminal's stored form of one login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedCredentials {
    /// The client ID.
    pub client_id: String,
    /// The token response as it last came; `None` while only the registration is known.
    #[serde(default)]
    pub token_response: Option<PersistedTokens>,
    /// The scopes that were granted.
    #[serde(default, deserialize_with = "null_is_default")]
    pub granted_scopes: Scopes,
    /// When the access token was received, in seconds since the Unix epoch; `None` in forms older than the field.
    #[serde(default, deserialize_with = "lenient_number")]
    pub token_received_at: Option<u64>,
    /// The client secret of a registration; an empty one counts as none.
    #[serde(
        default,
        serialize_with = "secret::sealed_option::serialize",
        deserialize_with = "empty_is_none"
    )]
    pub client_secret: Option<ClientSecret>,
    /// The issuer, as text: older programs wrote what they were told.
    #[serde(default, deserialize_with = "empty_text_is_none")]
    pub issuer: Option<String>,
    /// What a later version added: kept as it is.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A token response (RFC 6749 section 5.1) as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedTokens {
    /// The access token.
    #[serde(with = "secret::sealed")]
    pub access_token: AccessToken,
    /// The token type, as sent.
    #[serde(default = "bearer")]
    pub token_type: String,
    /// The lifetime in seconds, read from a number or a string of one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient_number"
    )]
    pub expires_in: Option<u64>,
    /// The refresh token; an empty one counts as none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "secret::sealed_option::serialize",
        deserialize_with = "empty_is_none"
    )]
    pub refresh_token: Option<RefreshToken>,
    /// The scopes, one text on the wire; a list is read as well.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "joined",
        deserialize_with = "text_or_list"
    )]
    pub scope: Option<Scopes>,
    /// Further fields of the response (`id_token` and the like): kept as they are, never shown.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl PersistedCredentials {
    /// What is stored of a client before its first token.
    #[must_use]
    pub fn new(client_id: String) -> Self {
        Self {
            client_id,
            token_response: None,
            granted_scopes: Scopes::default(),
            token_received_at: None,
            client_secret: None,
            issuer: None,
            extra: Map::new(),
        }
    }

    /// Puts tokens in, together with the time they were received: the one without the other is what makes a session
    /// end after a restart.
    #[must_use]
    pub fn with_tokens(mut self, tokens: PersistedTokens, received_at: Wall) -> Self {
        if let Some(scope) = &tokens.scope {
            self.granted_scopes = scope.clone();
        }
        self.token_response = Some(tokens);
        self.token_received_at = Some(received_at.unix_seconds());
        self
    }

    /// Puts the client secret in.
    #[must_use]
    pub fn with_client_secret(mut self, secret: Option<ClientSecret>) -> Self {
        self.client_secret = secret;
        self
    }

    /// Puts the issuer in.
    #[must_use]
    pub fn with_issuer(mut self, issuer: Option<String>) -> Self {
        self.issuer = issuer;
        self
    }

    /// Keeps of the `previous` form what this one leaves out (RFC 6749 section 6): refresh token, client secret and
    /// issuer, and the received time if it is still the same access token.
    ///
    /// Nothing is kept of another client's, or another issuer's, login (T-20).
    pub fn carry_forward(&mut self, previous: &Self) {
        let both = self
            .issuer
            .as_ref()
            .filter(|own| !own.is_empty())
            .zip(previous.issuer.as_ref());
        if self.client_id != previous.client_id
            || both.is_some_and(|(own, old)| own != old && !old.is_empty())
        {
            return;
        }
        if let (Some(own), Some(old)) = (&mut self.token_response, &previous.token_response) {
            if own.refresh_token.is_none() {
                own.refresh_token.clone_from(&old.refresh_token);
            }
            if own.access_token == old.access_token && self.token_received_at.is_none() {
                self.token_received_at = previous.token_received_at;
            }
        }
        if self.client_secret.is_none() {
            self.client_secret.clone_from(&previous.client_secret);
        }
        if self.issuer.as_ref().is_none_or(String::is_empty) {
            self.issuer.clone_from(&previous.issuer);
        }
    }

    /// When the access token was received; `None` where the form does not say.
    #[must_use]
    pub fn received_at(&self) -> Option<Wall> {
        self.token_received_at.map(Wall::from_unix_seconds)
    }
}

impl PersistedTokens {
    /// A bearer token response with nothing but an access token.
    #[must_use]
    pub fn new(access_token: AccessToken) -> Self {
        let extra = Map::new();
        Self {
            access_token,
            token_type: bearer(),
            expires_in: None,
            refresh_token: None,
            scope: None,
            extra,
        }
    }
}

impl fmt::Debug for PersistedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistedCredentials")
            .field("client_id", &self.client_id)
            .field("token_response", &self.token_response)
            .field("granted_scopes", &self.granted_scopes)
            .field("token_received_at", &self.token_received_at)
            .field("client_secret", &self.client_secret)
            .field("issuer", &self.issuer)
            .field("extra", &names(&self.extra))
            .finish()
    }
}

impl fmt::Debug for PersistedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistedTokens")
            .field("access_token", &self.access_token)
            .field("token_type", &self.token_type)
            .field("expires_in", &self.expires_in)
            .field("refresh_token", &self.refresh_token)
            .field("scope", &self.scope)
            .field("extra", &names(&self.extra))
            .finish()
    }
}

/// The names only: what a stranger added may be a secret (`id_token` is).
fn names(extra: &Map<String, Value>) -> Vec<&String> {
    extra.keys().collect()
}

fn bearer() -> String {
    "bearer".to_owned()
}

fn null_is_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A whole number of seconds, or a string of one; what is negative, absurd or something else is unknown.
fn lenient_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let number = match Value::deserialize(from)? {
        Value::Number(number) => number
            .as_u64()
            .map_or(number.as_f64(), |whole| Some(whole as f64)),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    Ok(number
        .filter(|number| (0.0..=LARGEST).contains(number))
        .map(|number| number as u64))
}

fn empty_text_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
}

fn empty_is_none<'de, T: SealedText, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    empty_text_is_none(from)?
        .map(T::close)
        .transpose()
        .map_err(serde::de::Error::custom)
}

fn joined<S: Serializer>(scopes: &Option<Scopes>, to: S) -> Result<S::Ok, S::Error> {
    match scopes {
        Some(scopes) => to.collect_str(scopes),
        None => to.serialize_none(),
    }
}

fn text_or_list<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Scopes>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => Some(Scopes::parse(&text)),
        Value::Array(list) => Some(Scopes::from_list(list.iter().filter_map(Value::as_str))),
        _ => None,
    })
}

/// 2^53: the largest number that every JSON reader keeps exactly.
const LARGEST: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests;
