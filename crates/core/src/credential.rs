//! What is stored about one login, and how its versions compare.
//!
//! A *binding* ties what a person configured (a URL and an account) to what metadata said and to the login in force. A
//! *credential* is that login: tokens, client and pins. Each login starts a new *incarnation*; each refresh
//! within it is a new *generation*. Generations compare only within one incarnation (I-5).

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    dpop::ProofKey,
    error::Error,
    event::Happened,
    issuer::{Issuer, IssuerException},
    registration::{Client, ClientSource},
    resource::{Resource, clean},
    scope::Scopes,
    secret::{self, AccessToken, RefreshToken},
    time::{BootId, Stamp, Wall},
    token::TokenAnswer,
    unattended::Unattended,
};

/// A local label for one login among several to the same server. Copies share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Account(Arc<str>);

impl Account {
    /// Accepts a label of 1 to 64 characters without `@`, spaces or control characters.
    ///
    /// # Errors
    /// `config.value`.
    pub fn parse(label: &str) -> Result<Self, Error> {
        let fits = (1..=64).contains(&label.chars().count())
            && label
                .chars()
                .all(|c| !c.is_control() && !c.is_whitespace() && c != '@');
        if fits {
            Ok(Self(label.into()))
        } else {
            Err(Error::ConfigValue {
                what: "account".into(),
                why: "1 to 64 characters, no spaces and no @".into(),
            })
        }
    }

    /// The label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Account {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(&self.0))
    }
}

impl TryFrom<String> for Account {
    type Error = Error;
    fn try_from(label: String) -> Result<Self, Error> {
        Self::parse(&label)
    }
}

impl From<Account> for String {
    fn from(account: Account) -> Self {
        account.as_str().to_owned()
    }
}

/// What a person configured: the key of a binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingKey {
    /// Whose login; empty in an embedded store.
    pub tenant: String,
    /// The server's URL as configured.
    pub url: Resource,
    /// Which of several logins.
    pub account: Account,
}

impl BindingKey {
    /// The key of `url` and `account` in an embedded store.
    #[must_use]
    pub fn new(url: Resource, account: Account) -> Self {
        Self {
            tenant: String::new(),
            url,
            account,
        }
    }
}

/// The key of a credential. It includes the issuer, so that nothing of one issuer is ever used at another (T-20).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialKey {
    /// Whose login; empty in an embedded store.
    pub tenant: String,
    /// The resource as published.
    pub resource: Resource,
    /// The issuer, exactly.
    pub issuer: Issuer,
    /// Which of several logins.
    pub account: Account,
}

/// What the store knows a credential by: a keyed hash of its [`CredentialKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CredentialId(pub [u8; 32]);

/// What the store knows a binding by: a keyed hash of its [`BindingKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BindingId(pub [u8; 32]);

/// A configured server, what its metadata said, and the login in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// What was configured.
    pub key: BindingKey,
    /// The local alias, unique in the store.
    pub name: String,
    /// The credential in force; moved only by a completed login.
    pub credential: Option<CredentialKey>,
    /// When it was made.
    pub created_at: Wall,
    /// An issuer that a person has accepted although its metadata names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<IssuerException>,
    /// The issuer at which a person has asked to leave `resource` out for this server: its tokens are not limited to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_resource_at: Option<Issuer>,
    /// The credentials that were in force before, of other issuers or none: they lie where they were, and a logout ends them,
    /// too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<CredentialKey>,
}

impl Binding {
    /// The binding with this credential in force. The one before it is remembered where it is another.
    #[must_use]
    pub fn moved_to(&self, credential: CredentialKey) -> Self {
        let mut binding = self.clone().unbound();
        binding.former.retain(|former| *former != credential);
        binding.credential = Some(credential);
        binding
    }

    /// The binding with no credential in force; the one that was is remembered.
    #[must_use]
    pub fn unbound(mut self) -> Self {
        if let Some(held) = self.credential.take()
            && !self.former.contains(&held)
        {
            self.former.push(held);
        }
        self
    }
}

/// One login's random name: 128 bits, new at each login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub [u8; 16]);

/// How many refreshes lie between the login and this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// Which version of which login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The login.
    pub incarnation: Incarnation,
    /// The refresh.
    pub generation: Generation,
}

impl Version {
    /// Whether `self` is a later version of the same login.
    #[must_use]
    pub fn succeeds(&self, other: &Self) -> bool {
        self.incarnation == other.incarnation && self.generation > other.generation
    }

    /// What the next refresh brings.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            generation: Generation(self.generation.0 + 1),
            ..self
        }
    }
}

/// How the access token is presented (RFC 6750, RFC 9449).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TokenType {
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: DPoP`, with a proof of the key beside it.
    Dpop,
}

/// Where the credential may be sent, fixed at login (T-15, T-16): a refresh never asks metadata again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// The `resource` parameter, octet for octet; `None` where the server published none (2025-03-26).
    pub resource_parameter: Option<String>,
    /// The token endpoint.
    pub token_endpoint: Url,
    /// The revocation endpoint (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// What the issuer calls itself, where a person has accepted that this is not its own name (T-17).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called: Option<Issuer>,
}

/// One version of one login: what is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Whose login, at which server, from which issuer.
    pub key: CredentialKey,
    /// Which version.
    pub version: Version,
    /// Where it may be sent.
    pub pins: Pins,
    /// The client it was issued to.
    pub client: Client,
    /// The access token.
    #[serde(with = "secret::sealed")]
    pub access_token: AccessToken,
    /// How the access token is presented.
    pub token_type: TokenType,
    /// The key that the tokens are bound to, if the issuer binds them: it goes wherever they go (EXT-32).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_key: Option<ProofKey>,
    /// How a new access token is got without a person and without a refresh token, if that is how this one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattended: Option<Unattended>,
    /// The refresh token, if one was ever issued.
    #[serde(with = "secret::sealed_option")]
    pub refresh_token: Option<RefreshToken>,
    /// When the request that brought the access token left; `None` where an older format did not say.
    pub received_at: Option<Stamp>,
    /// How long the access token lives, counted from `received_at`.
    pub lifetime: Option<Lifetime>,
    /// The scopes that were asked for.
    pub scopes_requested: Scopes,
    /// The scopes that were granted.
    pub scopes_granted: Scopes,
    /// When the person logged in.
    pub logged_in_at: Wall,
}

/// What brings the next access token of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal<'a> {
    /// Its refresh token.
    RefreshToken(&'a RefreshToken),
    /// The same grant once more: nobody is needed for it.
    Grant(&'a Unattended),
    /// Nothing: the login ends with its access token.
    Nothing,
}

/// How a token is presented that an issuer calls `said`: without a key there is nothing to prove, whatever it says.
#[must_use]
pub fn presented(said: TokenType, key: Option<&ProofKey>) -> TokenType {
    match key {
        Some(_) => said,
        None => TokenType::Bearer,
    }
}

/// An access token's life, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// `expires_in` of the token response (RFC 6749 section 5.1).
    Stated(Duration),
    /// The `exp` claim of a JWT: good for refreshing early, not for refusing to serve.
    Hint(Duration),
}

impl Lifetime {
    /// The span itself.
    #[must_use]
    pub fn span(self) -> Duration {
        match self {
            Self::Stated(span) | Self::Hint(span) => span,
        }
    }
}

impl Credential {
    /// What brings the next access token.
    #[must_use]
    pub fn renewal(&self) -> Renewal<'_> {
        match (&self.unattended, &self.refresh_token) {
            (Some(grant), _) => Renewal::Grant(grant),
            (None, Some(token)) => Renewal::RefreshToken(token),
            (None, None) => Renewal::Nothing,
        }
    }

    /// Whether it is a key that a person has brought: it is used as it is, until the server refuses it.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.client.source == ClientSource::Static
    }

    /// The name that its issuer goes by: what is signed for it is made out to that.
    #[must_use]
    pub fn audience(&self) -> &Issuer {
        self.pins.called.as_ref().unwrap_or(&self.key.issuer)
    }

    /// Whether the login ends with its access token.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.renewal() == Renewal::Nothing
    }

    /// Makes the next generation from a token response: what the response omits is carried forward (RFC 6749
    /// section 6), and the lifetime counts from the moment the request left.
    #[must_use]
    pub fn succeeded_by(&self, answer: TokenAnswer, sent_at: Stamp) -> Self {
        Self {
            version: Version {
                incarnation: self.version.incarnation,
                generation: Generation(self.version.generation.0 + 1),
            },
            access_token: answer.access_token,
            token_type: presented(
                answer.token_type.unwrap_or(self.token_type),
                self.proof_key.as_ref(),
            ),
            refresh_token: answer.refresh_token.or_else(|| self.refresh_token.clone()),
            received_at: Some(sent_at),
            lifetime: answer.lifetime,
            scopes_granted: answer.scopes.unwrap_or_else(|| self.scopes_granted.clone()),
            ..self.clone()
        }
    }

    /// The event of a renewal that has changed how the token is presented: whoever relies on tokens that are bound to a key is
    /// to learn that they no longer are.
    #[must_use]
    pub fn presented_otherwise(&self, renewed: &Self) -> Option<Happened> {
        let (from, to) = (self.token_type, renewed.token_type);
        (from != to).then_some(Happened::TokenTypeChanged { from, to })
    }

    /// Whether a store that holds `stored` has gone back behind this one. Where the store's was received later it has gone
    /// on since: another process, which did not know this one, has refreshed what it found there, and the issuer has moved on
    /// with that. `boot` is this machine's.
    #[must_use]
    pub fn is_ahead_of(&self, stored: &Self, boot: BootId) -> bool {
        let later = match (self.received_at, stored.received_at) {
            (Some(own), Some(stored)) => stored.is_later_than(&own, boot),
            _ => false,
        };
        self.version.succeeds(&stored.version) && !later
    }

    /// A number in `0.0..1.0` that all processes agree on and no two versions share: the source of refresh jitter.
    #[must_use]
    pub fn spread(&self) -> f64 {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(self.version.incarnation.0);
        hash.update(self.version.generation.0.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let (head, _) = digest.split_at(4);
        let number = head.iter().fold(0u32, |n, b| n << 8 | u32::from(*b));
        f64::from(number) / (f64::from(u32::MAX) + 1.0)
    }
}
