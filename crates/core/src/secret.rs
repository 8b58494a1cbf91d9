//! The secrets of OAuth as types that cannot be printed.
//!
//! Each wraps a string that is wiped from memory when dropped, prints as `[redacted]`, is not `Display`, not
//! `Serialize`, and opens by one door: [`AccessToken::expose`] and its like. Comparing two is constant-time.

use std::fmt;

use serde::{Deserialize, Deserializer, Serializer};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Why a string cannot be a secret of OAuth: it holds a character that the wire does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("holds a character outside printable ASCII, or is empty")]
pub struct Unprintable;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name(String);

        impl $name {
            /// Accepts printable ASCII only (RFC 6749 appendix A, VSCHAR), so that a secret can never split a header.
            ///
            /// # Errors
            /// [`Unprintable`] for an empty string or any character outside `0x20..=0x7e`.
            pub fn new(mut value: String) -> Result<Self, Unprintable> {
                if !value.is_empty() && value.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
                    Ok(Self(value))
                } else {
                    value.zeroize();
                    Err(Unprintable)
                }
            }

            /// Opens the secret: the one door, so that a search for `expose` finds every use.
            #[must_use]
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
            }
        }

        impl Eq for $name {}

        impl SealedText for $name {
            fn open(&self) -> &str {
                &self.0
            }
            fn close(value: String) -> Result<Self, Unprintable> {
                Self::new(value)
            }
        }
    };
}

secret!(
    /// An access token (RFC 6749 section 1.4): what an MCP server is shown.
    AccessToken
);
secret!(
    /// A refresh token (RFC 6749 section 1.5): what only the token endpoint is shown.
    RefreshToken
);
secret!(
    /// A client secret (RFC 6749 section 2.3.1), from a registration or from the person.
    ClientSecret
);
secret!(
    /// A PKCE code verifier (RFC 7636 section 4.1).
    CodeVerifier
);
secret!(
    /// An authorization code (RFC 6749 section 1.3.1).
    AuthorizationCode
);
secret!(
    /// A device code (RFC 8628 section 3.2): what a login on another device is fetched with.
    DeviceCode
);
secret!(
    /// What somebody else has signed for us: a workload's token, a person's identity, an assertion for an issuer (RFC 7523,
    /// RFC 8693).
    Assertion
);
secret!(
    /// The private key that proofs of possession are signed with (RFC 9449): PKCS#8 in base64.
    ProofSecret
);
secret!(
    /// The `state` of one authorization request: unguessable, used once.
    StateParameter
);

/// What the sealed record may do with a secret that nothing else may: write it and read it back.
pub(crate) trait SealedText: Sized {
    fn open(&self) -> &str;
    fn close(value: String) -> Result<Self, Unprintable>;
}

/// Serde for secrets inside a record that is sealed before it leaves memory.
pub(crate) mod sealed {
    use super::{Deserialize, Deserializer, SealedText, Serializer};

    pub(crate) fn serialize<T: SealedText, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.open())
    }

    pub(crate) fn deserialize<'de, T: SealedText, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        T::close(String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// The same for a secret that may be absent.
pub(crate) mod sealed_option {
    use super::{Deserialize, Deserializer, SealedText, Serializer};

    pub(crate) fn serialize<T: SealedText, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_some(value.open()),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T: SealedText, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        Option::<String>::deserialize(from)?
            .map(T::close)
            .transpose()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T-33: no formatting door shows a secret.
    #[test]
    fn debug_never_shows_the_secret() {
        let token = RefreshToken::new("rt-canary-1234".into()).unwrap();
        assert_eq!(
            format!("{token:?} {:?}", Some(&token)),
            "RefreshToken([redacted]) Some(RefreshToken([redacted]))"
        );
    }

    /// T-30: a token that could split a header is refused where it enters.
    #[test]
    fn control_characters_and_emptiness_are_refused() {
        for bad in ["", "a\r\nX: y", "a\0", "caf\u{e9}", "tab\t"] {
            assert_eq!(AccessToken::new(bad.into()), Err(Unprintable), "{bad:?}");
        }
    }
}
