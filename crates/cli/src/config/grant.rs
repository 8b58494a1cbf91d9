//! Grants without a person: what `[servers.NAME]` and the flags of `login` say, and the grant that it makes.
//!
//! Secrets are references throughout. They are read at each use, by whichever process renews the login then: so what is
//! relative is made absolute here, once.

use std::path::{Path, absolute};

use clap::ValueEnum;
use pilotlight::core::{
    assertion::ClientKey,
    issuer::Issuer,
    jws::JwsAlgorithm,
    reference::SecretRef,
    registration::{Client, ClientAuthentication},
    unattended::{ID_TOKEN, IdentityProvider, SAML2, Unattended},
};
use pilotlight_core::Error;
use url::Url;

use super::{bad_value, reference::is_variable};
use crate::args::{GrantFlags, Reference};

/// Which grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// As the client itself, with its secret or its private key (RFC 6749 section 4.4)
    ClientCredentials,
    /// As a workload, with a token that its platform has signed (RFC 7523 section 2.1)
    Workload,
    /// As a person of an enterprise, whose identity provider vouches for them (RFC 8693)
    Enterprise,
}

/// What is said about a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) kind: Option<Kind>,
    pub(crate) client_key: Option<SecretRef>,
    pub(crate) client_key_algorithm: Option<JwsAlgorithm>,
    pub(crate) client_key_id: Option<String>,
    pub(crate) workload_token: Option<SecretRef>,
    pub(crate) idp_issuer: Option<Issuer>,
    pub(crate) idp_token_endpoint: Option<Url>,
    pub(crate) idp_client_id: Option<String>,
    pub(crate) idp_client_secret: Option<SecretRef>,
    pub(crate) subject_token: Option<SecretRef>,
    pub(crate) subject_token_type: Option<&'static str>,
}

/// The keys of `[servers.NAME]` that belong to a grant.
pub(super) const KEYS: [&str; 11] = [
    "grant",
    "client_key",
    "client_key_algorithm",
    "client_key_id",
    "workload_token",
    "idp_issuer",
    "idp_token_endpoint",
    "idp_client_id",
    "idp_client_secret",
    "subject_token",
    "subject_token_type",
];

impl Grant {
    /// Reads the keys of a server; paths count from the file's own folder.
    pub(super) fn from_file<'a>(
        place: &str,
        folder: Option<&Path>,
        text: impl Fn(&str) -> Result<Option<&'a str>, Error>,
    ) -> Result<Self, Error> {
        let what = |key: &str| format!("{place}: {key}");
        let reference = |key: &str| -> Result<Option<SecretRef>, Error> {
            let Some(text) = text(key)? else {
                return Ok(None);
            };
            admitted(&what(key), SecretRef::parse(text).ok(), folder).map(Some)
        };
        let kind =
            |text: &str| Kind::from_str(text, false).map_err(|_| unknown_kind(&what("grant")));
        let endpoint = |text: &str| {
            let why = "it is not a URL";
            Url::parse(text).map_err(|_| bad_value(what("idp_token_endpoint"), why))
        };
        Ok(Self {
            kind: text("grant")?.map(kind).transpose()?,
            client_key: reference("client_key")?,
            client_key_algorithm: text("client_key_algorithm")?
                .map(|name| algorithm(&what("client_key_algorithm"), name))
                .transpose()?,
            client_key_id: text("client_key_id")?.map(str::to_owned),
            workload_token: reference("workload_token")?,
            idp_issuer: text("idp_issuer")?
                .map(|text| issuer(&what("idp_issuer"), text))
                .transpose()?,
            idp_token_endpoint: text("idp_token_endpoint")?.map(endpoint).transpose()?,
            idp_client_id: text("idp_client_id")?.map(str::to_owned),
            idp_client_secret: reference("idp_client_secret")?,
            subject_token: reference("subject_token")?,
            subject_token_type: text("subject_token_type")?
                .map(|text| token_type(&what("subject_token_type"), text))
                .transpose()?,
        })
    }

    /// Reads flags; paths count from where the process stands.
    pub(crate) fn from_flags(flags: &GrantFlags) -> Result<Self, Error> {
        let reference = |flag: &str, given: &Option<Reference>| {
            let given = given.clone();
            given.map(|given| admitted(flag, given.0, None)).transpose()
        };
        Ok(Self {
            kind: flags.grant,
            client_key: reference("--client-key", &flags.client_key)?,
            client_key_algorithm: flags
                .client_key_algorithm
                .as_deref()
                .map(|name| algorithm("--client-key-algorithm", name))
                .transpose()?,
            client_key_id: flags.client_key_id.clone(),
            workload_token: reference("--workload-token", &flags.workload_token)?,
            idp_issuer: flags
                .idp_issuer
                .as_deref()
                .map(|text| issuer("--idp-issuer", text))
                .transpose()?,
            idp_token_endpoint: flags.idp_token_endpoint.clone(),
            idp_client_id: flags.idp_client_id.clone(),
            idp_client_secret: reference("--idp-client-secret", &flags.idp_client_secret)?,
            subject_token: reference("--subject-token", &flags.subject_token)?,
            subject_token_type: flags
                .subject_token_type
                .as_deref()
                .map(|text| token_type("--subject-token-type", text))
                .transpose()?,
        })
    }

    /// The same, with `other` for what is not said here.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            kind: self.kind.or(other.kind),
            // A key's algorithm and name are that key's.
            client_key_algorithm: match self.client_key {
                Some(_) => self.client_key_algorithm,
                None => other.client_key_algorithm,
            },
            client_key_id: match self.client_key {
                Some(_) => self.client_key_id,
                None => other.client_key_id,
            },
            client_key: self.client_key.or(other.client_key),
            workload_token: self.workload_token.or(other.workload_token),
            idp_issuer: self.idp_issuer.or(other.idp_issuer),
            idp_token_endpoint: self.idp_token_endpoint.or(other.idp_token_endpoint),
            idp_client_id: self.idp_client_id.or(other.idp_client_id),
            idp_client_secret: self.idp_client_secret.or(other.idp_client_secret),
            subject_token: self.subject_token.or(other.subject_token),
            subject_token_type: self.subject_token_type.or(other.subject_token_type),
        }
    }

    /// Whether a login is made without a person.
    pub(super) fn asks_nobody(&self) -> bool {
        !matches!(self.unattended(), Ok(None))
    }

    /// The client's private key, if one is named: good for logins of people, too (AUTH-34).
    pub(crate) fn key(&self) -> Option<ClientKey> {
        let mut key = ClientKey::new(self.client_key.clone()?);
        key.algorithm = self.client_key_algorithm;
        key.key_id.clone_from(&self.client_key_id);
        Some(key)
    }

    /// The grant that all this makes; `None` where a person logs in.
    ///
    /// # Errors
    /// `config.value`, naming the key that is missing or one too many.
    pub(crate) fn unattended(&self) -> Result<Option<Unattended>, Error> {
        let workload = self.workload_token.is_some();
        let enterprise = self.idp_issuer.is_some()
            || self.idp_token_endpoint.is_some()
            || self.idp_client_id.is_some()
            || self.idp_client_secret.is_some()
            || self.subject_token.is_some()
            || self.subject_token_type.is_some();
        let kind = match self.kind {
            Some(kind) => kind,
            None if enterprise => Kind::Enterprise,
            None if workload => Kind::Workload,
            None => return Ok(None),
        };
        if workload && kind != Kind::Workload {
            return Err(bad_value(
                "workload_token",
                "only grant = \"workload\" takes one",
            ));
        }
        if enterprise && kind != Kind::Enterprise {
            let why = "only grant = \"enterprise\" takes them";
            return Err(bad_value("idp_* and subject_token", why));
        }
        Ok(Some(match kind {
            Kind::ClientCredentials => Unattended::ClientCredentials,
            Kind::Workload => Unattended::Workload {
                token: needed("workload_token", kind, self.workload_token.as_ref())?,
            },
            Kind::Enterprise => Unattended::Enterprise(Box::new(self.provider(kind)?)),
        }))
    }

    fn provider(&self, kind: Kind) -> Result<IdentityProvider, Error> {
        let mut client =
            Client::brought(needed("idp_client_id", kind, self.idp_client_id.as_ref())?);
        client.secret_ref.clone_from(&self.idp_client_secret);
        if client.secret_ref.is_some() {
            // Nothing is discovered at the provider; every one takes this (RFC 6749 section 2.3.1).
            client.authentication = ClientAuthentication::Basic;
        }
        let mut provider = IdentityProvider::new(
            needed("idp_issuer", kind, self.idp_issuer.as_ref())?,
            needed("idp_token_endpoint", kind, self.idp_token_endpoint.as_ref())?,
            client,
            needed("subject_token", kind, self.subject_token.as_ref())?,
        );
        if let Some(subject_type) = self.subject_token_type {
            provider.subject_type = subject_type.to_owned();
        }
        Ok(provider)
    }
}

/// The reference to a file that a flag names, and that can be opened: else its name, which may be the secret, would be kept
/// and repeated.
pub(crate) fn secret_file(path: &Path) -> Result<SecretRef, Error> {
    std::fs::File::open(path)
        .map_err(|error| bad_value("--client-secret-file", error.to_string()))?;
    let reference = path.to_str().and_then(|path| SecretRef::file(path).ok());
    admitted("--client-secret-file", reference, None)
}

/// A reference that this program can follow, with an absolute path.
pub(super) fn admitted(
    what: &str,
    reference: Option<SecretRef>,
    folder: Option<&Path>,
) -> Result<SecretRef, Error> {
    let good = match &reference {
        Some(one) if one.scheme() == "file" => {
            let path = folder.unwrap_or(Path::new("")).join(one.rest());
            let path = absolute(path).map_err(|error| bad_value(what, error.to_string()))?;
            path.to_str().map(SecretRef::file).transpose()?
        }
        Some(one) if one.scheme() == "env" && is_variable(one.rest()) => reference,
        Some(one) if one.scheme() == "fd" && one.rest().parse::<u32>().is_ok() => reference,
        _ => None,
    };
    // The value is not repeated: it may be the secret.
    good.ok_or_else(|| {
        let why = "write file:PATH, env:NAME or fd:NUMBER, not the secret";
        bad_value(what, why)
    })
}

fn needed<T: Clone>(key: &str, kind: Kind, value: Option<&T>) -> Result<T, Error> {
    value.cloned().ok_or_else(|| {
        let word = kind.to_possible_value();
        let word = word.as_ref().map_or("", |word| word.get_name());
        let why = format!("grant = \"{word}\" needs it (--{})", key.replace('_', "-"));
        bad_value(key, why)
    })
}

fn unknown_kind(what: &str) -> Error {
    bad_value(what, "write client_credentials, workload or enterprise")
}

fn algorithm(what: &str, name: &str) -> Result<JwsAlgorithm, Error> {
    JwsAlgorithm::from_name(name).ok_or_else(|| bad_value(what, "write ES256, RS256 or EdDSA"))
}

fn issuer(what: &str, text: &str) -> Result<Issuer, Error> {
    Issuer::parse(text).map_err(|_| bad_value(what, "it is no issuer identifier (https://...)"))
}

fn token_type(what: &str, text: &str) -> Result<&'static str, Error> {
    [ID_TOKEN, SAML2]
        .into_iter()
        .find(|full| *full == text || full.rsplit(':').next() == Some(text))
        .ok_or_else(|| bad_value(what, "write id_token or saml2"))
}

#[cfg(test)]
mod tests;
