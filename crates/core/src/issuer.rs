//! An authorization server's identity (RFC 8414 section 2, RFC 9207): compared exactly, never normalised (AUTH-64).

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    error::Error,
    resource::{clean, is_loopback},
};

/// An issuer identifier, octet for octet. Copies share it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Issuer(Arc<str>);

impl Issuer {
    /// Accepts an issuer identifier: `https` (or loopback `http`), no query, no fragment.
    ///
    /// # Errors
    /// `peer.metadata_invalid`, naming the field `issuer`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why| Error::MetadataInvalid {
            document: "issuer",
            field: "issuer",
            why,
        };
        let url = Url::parse(text).map_err(|_| bad("it is not a URL"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad(
                "an issuer has no query and no fragment (RFC 8414 section 2)",
            ));
        }
        if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
            return Err(bad(
                "an issuer is an https URL (or http on a loopback host)",
            ));
        }
        if url.host().is_none()
            || !url.username().is_empty()
            || url.password().is_some()
            || text != text.trim()
        {
            return Err(bad("it is not a plain URL"));
        }
        Ok(Self(text.into()))
    }

    /// The identifier, octet for octet.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identifier as a URL, for building others from it; never for comparing.
    #[must_use]
    pub fn url(&self) -> Option<Url> {
        Url::parse(&self.0).ok()
    }

    /// The places where its metadata may be, in the order to ask (AUTH-21, AUTH-22).
    ///
    /// A path issuer's root documents are never among them.
    #[must_use]
    pub fn metadata_urls(&self) -> Vec<Url> {
        let Some(base) = self.url() else {
            return Vec::new();
        };
        let path = base.path().trim_end_matches('/').to_owned();
        let at = |path: String| {
            let mut url = base.clone();
            url.set_path(&path);
            url
        };
        let mut urls = vec![
            at(format!("/.well-known/oauth-authorization-server{path}")),
            at(format!("/.well-known/openid-configuration{path}")),
        ];
        if !path.is_empty() {
            urls.push(at(format!("{path}/.well-known/openid-configuration")));
        }
        urls
    }
}

/// An issuer whose metadata names another, and that a person has accepted as it is, for one server (T-17).
///
/// From then on exactly this is required: the server names `published`, and what lies there says `metadata`. Whoever is
/// there may be another than the one whose name that is, and is taken for another: nothing of the one goes to the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerException {
    /// The issuer that the server names: its metadata is looked for there, and what it gives out is kept as its own (T-20).
    pub published: Issuer,
    /// The issuer that this metadata names: redirects carry it, and assertions are made out to it. It counts for nothing else.
    pub metadata: Issuer,
}

impl IssuerException {
    /// Reads `PUBLISHED=METADATA`. An issuer with a `=` in it cannot be written like that: there is none in the field.
    ///
    /// # Errors
    /// `config.value`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::ConfigValue {
            what: "the issuer to accept".into(),
            why: why.into(),
        };
        let halves = text
            .split_once('=')
            .filter(|(_, right)| !right.contains('='));
        let (published, metadata) =
            halves.ok_or_else(|| bad("write PUBLISHED=METADATA, as the error has it"))?;
        let issuer =
            |text: &str| Issuer::parse(text).map_err(|_| bad("both are issuers: https URLs"));
        Ok(Self {
            published: issuer(published)?,
            metadata: issuer(metadata)?,
        })
    }

    /// Whether it says nothing: an issuer is itself. That is how an exception is taken back.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.published == self.metadata
    }
}

impl fmt::Display for IssuerException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.published, self.metadata)
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(&self.0))
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({self})")
    }
}

impl TryFrom<String> for Issuer {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Issuer> for String {
    fn from(issuer: Issuer) -> Self {
        issuer.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(issuer: &str) -> Vec<String> {
        Issuer::parse(issuer)
            .unwrap()
            .metadata_urls()
            .into_iter()
            .map(String::from)
            .collect()
    }

    /// AUTH-20, AUTH-21, AUTH-22: the normative order, and never the root for a path issuer.
    #[test]
    fn metadata_is_looked_for_in_the_normative_order() {
        assert_eq!(
            urls("https://as.example"),
            [
                "https://as.example/.well-known/oauth-authorization-server",
                "https://as.example/.well-known/openid-configuration"
            ]
        );
        assert_eq!(
            urls("https://as.example/t"),
            [
                "https://as.example/.well-known/oauth-authorization-server/t",
                "https://as.example/.well-known/openid-configuration/t",
                "https://as.example/t/.well-known/openid-configuration"
            ]
        );
    }

    /// AUTH-64: two spellings are two issuers.
    #[test]
    fn comparison_is_exact() {
        assert_ne!(
            Issuer::parse("https://as.example").unwrap(),
            Issuer::parse("https://as.example/").unwrap()
        );
        assert_ne!(
            Issuer::parse("https://as.example").unwrap(),
            Issuer::parse("https://AS.example").unwrap()
        );
    }

    /// AUTH-25, AUTH-69: an issuer is an https URL without query or fragment.
    #[test]
    fn what_cannot_be_an_issuer_is_refused() {
        for bad in [
            "",
            "as.example",
            "http://as.example",
            "https://as.example?x",
            "https://as.example#x",
            "javascript:1",
            " https://as.example",
        ] {
            assert!(Issuer::parse(bad).is_err(), "{bad}");
        }
    }
}
