//! The flags of a login without a person. A secret is never among them: only where it lies.

use std::{convert::Infallible, str::FromStr};

use clap::Args;
use pilotlight::core::reference::SecretRef;
use url::Url;

use super::OWN;
use crate::config::{Grant, Kind};

/// Whatever is given here counts for more than what `config.toml` says.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Without a person")]
pub(crate) struct GrantFlags {
    /// Where the client's private key lies (private_key_jwt)
    #[arg(long, value_name = "REF", help_heading = OWN)]
    pub(crate) client_key: Option<Reference>,
    /// How the key signs: ES256, RS256 or EdDSA
    #[arg(long, value_name = "ALG", requires = "client_key", help_heading = OWN)]
    pub(crate) client_key_algorithm: Option<String>,
    /// The kid by which the issuer knows the key
    #[arg(long, value_name = "KID", requires = "client_key", help_heading = OWN)]
    pub(crate) client_key_id: Option<String>,
    /// The grant: client_credentials (with a secret or a key), workload (with a token that the platform signs) or enterprise
    /// (an identity provider vouches for a person)
    #[arg(long, value_enum, value_name = "GRANT", hide_possible_values = true)]
    pub(crate) grant: Option<Kind>,
    /// Where the platform puts this workload's token
    #[arg(long, value_name = "REF")]
    pub(crate) workload_token: Option<Reference>,
    /// The issuer identifier of the identity provider
    #[arg(long, value_name = "URL")]
    pub(crate) idp_issuer: Option<String>,
    /// Where the identity provider exchanges tokens
    #[arg(long, value_name = "URL")]
    pub(crate) idp_token_endpoint: Option<Url>,
    /// This program's ID at the identity provider
    #[arg(long, value_name = "ID")]
    pub(crate) idp_client_id: Option<String>,
    /// Where its secret there lies
    #[arg(long, value_name = "REF")]
    pub(crate) idp_client_secret: Option<Reference>,
    /// Where the person's identity lies
    #[arg(long, value_name = "REF")]
    pub(crate) subject_token: Option<Reference>,
    /// What kind of token that is: id_token or saml2
    #[arg(long, value_name = "TYPE", requires = "subject_token")]
    pub(crate) subject_token_type: Option<String>,
}

/// Where a secret lies. What is no reference is forgotten as it is read: it may be the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference(pub(crate) Option<SecretRef>);

impl FromStr for Reference {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(SecretRef::parse(text).ok()))
    }
}

impl GrantFlags {
    /// What they say, as the configuration would say it.
    ///
    /// # Errors
    /// `config.value` for what cannot be, without what may be a secret.
    pub(crate) fn settings(&self) -> Result<Grant, pilotlight_core::Error> {
        Grant::from_flags(self)
    }
}
