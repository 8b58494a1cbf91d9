//! Grants that need no person: what is stored of them, so that each renewal makes the same grant again.
//!
//! None of them brings a refresh token. What proves who asks lies elsewhere (a secret, a key, a token that somebody else
//! has signed), is read at each use, and never enters the store.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use crate::{
    assertion::{Claims, read_claims},
    error::Error,
    exchange::Reply,
    grant::ID_JAG,
    issuer::Issuer,
    reference::SecretRef,
    registration::Client,
    secret::Assertion,
    time::Wall,
};

/// A grant without a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "grant", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unattended {
    /// As the client itself (RFC 6749 section 4.4), which authenticates with its secret or key.
    ClientCredentials,
    /// As a workload: with a JWT that its platform has made for this issuer (RFC 7523 section 2.1).
    Workload {
        /// Where the token lies.
        token: SecretRef,
    },
    /// As a person of an enterprise, whom its identity provider vouches for: an identity is exchanged there for an assertion
    /// (RFC 8693), which the server's own issuer takes.
    Enterprise(Box<IdentityProvider>),
}

/// An identity provider, and as whom it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IdentityProvider {
    /// Its issuer identifier.
    pub issuer: Issuer,
    /// Where it exchanges tokens.
    pub token_endpoint: Url,
    /// This program, as the provider knows it.
    pub client: Client,
    /// Where the person's identity lies.
    pub subject: SecretRef,
    /// What kind of token that is: [`ID_TOKEN`] or [`SAML2`].
    pub subject_type: String,
}

impl IdentityProvider {
    /// A provider that exchanges tokens at this place, and the client and the ID token with which it is asked.
    #[must_use]
    pub fn new(issuer: Issuer, token_endpoint: Url, client: Client, subject: SecretRef) -> Self {
        Self {
            issuer,
            token_endpoint,
            client,
            subject,
            subject_type: ID_TOKEN.to_owned(),
        }
    }
}

/// An ID token of OpenID Connect, as a token type (RFC 8693 section 3).
pub const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// A SAML 2.0 assertion, as a token type (RFC 8693 section 3).
pub const SAML2: &str = "urn:ietf:params:oauth:token-type:saml2";

impl Unattended {
    /// Its word, as in settings and events.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::Workload { .. } => "workload",
            Self::Enterprise(_) => "enterprise",
        }
    }

    /// The extension of MCP that describes it, by name (EXT-01); a workload's token is not an extension's yet.
    #[must_use]
    pub fn extension(&self) -> Option<&'static str> {
        match self {
            Self::ClientCredentials => Some("io.modelcontextprotocol/oauth-client-credentials"),
            Self::Workload { .. } => None,
            Self::Enterprise(_) => Some("io.modelcontextprotocol/enterprise-managed-authorization"),
        }
    }

    /// What has to be read before anything can be sent.
    #[must_use]
    pub fn subject(&self) -> Option<&SecretRef> {
        match self {
            Self::ClientCredentials => None,
            Self::Workload { token } => Some(token),
            Self::Enterprise(provider) => Some(&provider.subject),
        }
    }
}

/// What one assertion is known by without being kept.
#[must_use]
pub fn digest(assertion: &str) -> [u8; 32] {
    Sha256::digest(assertion.as_bytes()).into()
}

/// Looks at a token that somebody else has signed before it is sent to `issuer`: one that cannot be taken is shown to nobody
/// (EXT-40), and neither is one that was refused before (EXT-41).
///
/// # Errors
/// `config.assertion`, naming the claim.
pub fn check_workload(
    token: &str,
    reference: &SecretRef,
    issuer: &Issuer,
    refused: &[[u8; 32]],
    now: Wall,
) -> Result<(), Error> {
    let unusable = |why: String| unusable(reference, why);
    let claims = read_claims(token).ok_or_else(|| unusable("it is no JWT".into()))?;
    let end = claims
        .expires_at
        .ok_or_else(|| unusable("it has no exp, and so no end".into()))?;
    not_over(end, reference, now)?;
    has_begun(&claims, reference, now)?;
    if !claims.audiences.iter().any(|aud| aud == issuer.as_str()) {
        return Err(unusable(format!(
            "its aud must be {issuer}, the authorization server's issuer, to the letter; it is {}",
            match claims.audiences.as_slice() {
                [] => "missing".to_owned(),
                some => crate::resource::clean(&some.join(", ")),
            }
        )));
    }
    never_again(token, reference, refused)
}

/// Looks at a person's identity before it is exchanged: an ID token can be seen to be over; whether it is for this provider,
/// the provider knows better.
///
/// # Errors
/// `config.assertion`.
pub fn check_subject(
    token: &str,
    provider: &IdentityProvider,
    refused: &[[u8; 32]],
    now: Wall,
) -> Result<(), Error> {
    let reference = &provider.subject;
    if provider.subject_type == ID_TOKEN {
        let claims =
            read_claims(token).ok_or_else(|| unusable(reference, "it is no JWT".into()))?;
        if let Some(end) = claims.expires_at {
            not_over(end, reference, now)?;
        }
        has_begun(&claims, reference, now)?;
    }
    never_again(token, reference, refused)
}

fn not_over(end: Wall, reference: &SecretRef, now: Wall) -> Result<(), Error> {
    if end.unix_seconds() > now.unix_seconds() + SKEW {
        return Ok(());
    }
    let ago = now.unix_seconds().saturating_sub(end.unix_seconds());
    let why = format!("its exp has passed ({ago} s ago, if the clock of this machine is right)");
    Err(unusable(reference, why))
}

/// Whoever made a token may have a clock that is ahead. What is refused for that would never be shown again, so it waits.
fn has_begun(claims: &Claims, reference: &SecretRef, now: Wall) -> Result<(), Error> {
    let Some(begin) = claims.not_before.filter(|begin| *begin > now) else {
        return Ok(());
    };
    let ahead = now.until(begin).as_millis().div_ceil(1000);
    let why = format!("its nbf is {ahead} s ahead, if the clock of this machine is right");
    Err(unusable(reference, why))
}

fn never_again(token: &str, reference: &SecretRef, refused: &[[u8; 32]]) -> Result<(), Error> {
    if refused.contains(&digest(token)) {
        let why = "it was refused before; it is not shown again, and has to be replaced";
        return Err(unusable(reference, why.into()));
    }
    Ok(())
}

fn unusable(reference: &SecretRef, why: String) -> Error {
    Error::ConfigAssertion {
        what: reference.to_string(),
        why,
    }
}

/// Reads the answer to a token exchange (RFC 8693 section 2.2.1): an assertion for another issuer, and nothing else. What is
/// called an access token there is none (EXT-21). One that is for somebody else is not passed on: whoever got it here could
/// use it there.
///
/// # Errors
/// `peer.metadata_invalid`, naming the field.
pub fn read_id_jag(reply: &Reply, issuer: &Issuer) -> Result<Assertion, Error> {
    let bad = |field, why| Error::MetadataInvalid {
        document: "token exchange answer",
        field,
        why,
    };
    let answer: Value =
        serde_json::from_slice(&reply.body).map_err(|_| bad("document", "it is not JSON"))?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    if text("issued_token_type") != Some(ID_JAG) {
        return Err(bad(
            "issued_token_type",
            "it is not the assertion that was asked for",
        ));
    }
    if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("N_A")) {
        return Err(bad(
            "token_type",
            "an assertion is no access token: it must be N_A",
        ));
    }
    let assertion = text("access_token").unwrap_or_default();
    let claims = read_claims(assertion).ok_or(bad("access_token", "it is no JWT"))?;
    if !claims.audiences.iter().any(|aud| aud == issuer.as_str()) {
        let why = "its aud is not the authorization server's issuer: it is for another one";
        return Err(bad("access_token", why));
    }
    Assertion::new(assertion.to_owned()).map_err(|_| bad("access_token", "it is no JWT"))
}

/// A token that ends within so many seconds would end on its way.
const SKEW: u64 = 5;

#[cfg(test)]
mod tests;
