//! References to secrets: where a secret lies, never what it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{error::Error, resource::clean};

/// Where a secret is read from each time it is needed: `file:PATH`, or another scheme that the program knows.
///
/// A login holds the reference, so that the store never holds the secret, and one that is replaced where it lies is the
/// new one at the next use.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretRef(String);

impl SecretRef {
    /// Accepts `SCHEME:REST`: a scheme of lower-case letters, and something after it.
    ///
    /// # Errors
    /// `config.value`. The text is not in it: who writes the secret itself in place of a reference must not find it in a
    /// log.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fits = text.split_once(':').is_some_and(|(scheme, rest)| {
            !scheme.is_empty()
                && scheme.bytes().all(|b| b.is_ascii_lowercase())
                && !rest.is_empty()
                && !text.chars().any(char::is_control)
        });
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::ConfigValue {
                what: "a reference to a secret".into(),
                why: "it has the form file:PATH; secrets themselves are not taken here".into(),
            })
        }
    }

    /// The reference to a file.
    ///
    /// # Errors
    /// `config.value` for an empty path, or one with control characters.
    pub fn file(path: &str) -> Result<Self, Error> {
        Self::parse(&format!("file:{path}"))
    }

    /// What comes before the colon.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }

    /// What comes after it.
    #[must_use]
    pub fn rest(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, rest)| rest)
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(&self.0))
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRef({}:...)", self.scheme())
    }
}

impl TryFrom<String> for SecretRef {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<SecretRef> for String {
    fn from(reference: SecretRef) -> Self {
        reference.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T-33: a secret that was written where a reference belongs is refused, and the refusal does not repeat it.
    #[test]
    fn what_is_no_reference_is_refused_without_being_shown() {
        for bad in [
            "",
            "hunter2canary",
            "File:/x",
            "file:",
            ":canary",
            "-----BEGIN canary",
            "file:/a\nb",
        ] {
            let error = SecretRef::parse(bad).unwrap_err();
            assert_eq!(error.code(), "config.value", "{bad:?}");
            assert!(!error.to_string().contains("canary"));
        }
        let good = SecretRef::parse("file:/run/secrets/a:b").unwrap();
        assert_eq!((good.scheme(), good.rest()), ("file", "/run/secrets/a:b"));
        assert_eq!(SecretRef::file("/run/secrets/a:b").unwrap(), good);
        assert_eq!(format!("{good:?}"), "SecretRef(file:...)");
    }
}
