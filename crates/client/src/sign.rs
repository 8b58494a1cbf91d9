//! Keys and the signatures made with them: client assertions (RFC 7523) and proofs of possession (RFC 9449).

mod public;

use std::fmt;

use pilotlight_core::{
    Error,
    jws::{JwsAlgorithm, Unsigned},
};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

pub use public::public_key;

use crate::secrets::contains;

/// A private key, ready to sign in the one way that suits it.
pub(crate) enum SigningKey {
    /// P-256.
    Es256(EcdsaKeyPair),
    /// RSA, 2048 to 4096 bits.
    Rs256(Box<RsaKeyPair>),
    /// Ed25519.
    EdDsa(Ed25519KeyPair),
}

impl SigningKey {
    /// Reads a private key in PEM: PKCS#8 for each kind, PKCS#1 for RSA as well.
    ///
    /// # Errors
    /// `config.value`, with what to run where the key has to be written in another form.
    pub(crate) fn from_pem(what: &str, pem: &[u8]) -> Result<Self, Error> {
        let unfit = |why: &str| Error::ConfigValue {
            what: what.to_owned(),
            why: why.to_owned(),
        };
        if contains(pem, b"ENCRYPTED") {
            return Err(unfit(
                "the key is encrypted; write it without: openssl pkey -in KEY -out PLAIN",
            ));
        }
        match PrivateKeyDer::from_pem_slice(pem) {
            Ok(PrivateKeyDer::Pkcs8(der)) => {
                let der = der.secret_pkcs8_der();
                Self::from_pkcs8(der).ok_or_else(|| {
                    unfit(
                        "it is no key that can be used: P-256, Ed25519, or RSA of 2048 to 4096 bits; an EC key must \
                         hold its public half: openssl pkey -in KEY -out KEY",
                    )
                })
            }
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .map(|key| Self::Rs256(Box::new(key)))
                .map_err(|_| unfit("it is no RSA key of 2048 to 4096 bits")),
            Ok(PrivateKeyDer::Sec1(_)) => Err(unfit(
                "the key is in SEC 1 form; write it as PKCS#8: openssl pkcs8 -topk8 -nocrypt -in KEY -out KEY.pem",
            )),
            Ok(_) => Err(unfit("it is no kind of key that can be used")),
            Err(_) => Err(unfit("it holds no private key in PEM form")),
        }
    }

    /// Reads a private key as PKCS#8 (RFC 5208).
    pub(crate) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let random = SystemRandom::new();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
            .map(Self::Es256)
            .or_else(|_| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self::EdDsa))
            .or_else(|_| RsaKeyPair::from_pkcs8(der).map(|key| Self::Rs256(Box::new(key))))
            .ok()
    }

    /// In which way it signs.
    pub(crate) fn algorithm(&self) -> JwsAlgorithm {
        match self {
            Self::Es256(_) => JwsAlgorithm::Es256,
            Self::Rs256(_) => JwsAlgorithm::Rs256,
            Self::EdDsa(_) => JwsAlgorithm::EdDsa,
        }
    }

    /// Signs a token, in its compact form.
    ///
    /// # Errors
    /// `config.value` where the key is of another kind than the token names; `bug` where the system gives no randomness.
    pub(crate) fn sign(&self, token: Unsigned) -> Result<String, Error> {
        if token.algorithm() != self.algorithm() {
            return Err(Error::ConfigValue {
                what: "the client's key".into(),
                why: format!(
                    "it signs with {}, and {} is wanted",
                    self.algorithm().as_str(),
                    token.algorithm().as_str()
                ),
            });
        }
        let random = SystemRandom::new();
        let failed = |_| Error::Bug {
            what: "sign: no signature was made",
        };
        let input = token.input();
        let signature = match self {
            Self::Es256(key) => key.sign(&random, input).map_err(failed)?.as_ref().to_vec(),
            Self::EdDsa(key) => key.sign(input).as_ref().to_vec(),
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, input, &mut signature)
                    .map_err(failed)?;
                signature
            }
        };
        Ok(token.signed(&signature))
    }

    /// The public half of a P-256 key: X and Y (RFC 7518 section 6.2.1).
    pub(crate) fn point(&self) -> Option<([u8; 32], [u8; 32])> {
        let Self::Es256(key) = self else { return None };
        let (form, rest) = key.public_key().as_ref().split_first()?;
        let (x, y) = rest.split_at_checked(32)?;
        (*form == 4).then_some((x.try_into().ok()?, y.try_into().ok()?))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.algorithm().as_str())
    }
}

/// Draws a P-256 key; gives it as PKCS#8.
///
/// # Errors
/// `bug` where the system gives no randomness.
pub(crate) fn new_p256() -> Result<Zeroizing<Vec<u8>>, Error> {
    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map(|document| Zeroizing::new(document.as_ref().to_vec()))
        .map_err(|_| Error::Bug {
            what: "sign: no key was drawn",
        })
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    };
    use serde_json::json;

    use super::*;

    const EC: &[u8] = include_bytes!("sign/ec.pem");
    const EC_SEC1: &[u8] = include_bytes!("sign/ec-sec1.pem");
    const ED25519_KEY: &[u8] = include_bytes!("sign/ed25519.pem");
    const RSA: &[u8] = include_bytes!("sign/rsa.pem");
    const RSA_PKCS1: &[u8] = include_bytes!("sign/rsa-pkcs1.pem");
    const RSA_SHORT: &[u8] = include_bytes!("sign/rsa-1024.pem");
    const ENCRYPTED: &[u8] = include_bytes!("sign/encrypted.pem");

    fn token(algorithm: JwsAlgorithm) -> Unsigned {
        Unsigned::new(
            algorithm,
            serde_json::Map::new(),
            &json!({"sub": "client-1"}),
        )
    }

    fn why(pem: &[u8]) -> String {
        let error = SigningKey::from_pem("client_key", pem).unwrap_err();
        assert_eq!(error.code(), "config.value");
        error.to_string()
    }

    /// EXT-10: keys that openssl has made sign in the way of RFC 7518: a verifier of another make takes the signature, and no
    /// other text with it.
    #[test]
    fn each_kind_of_key_signs() {
        for (pem, algorithm) in [
            (EC, JwsAlgorithm::Es256),
            (ED25519_KEY, JwsAlgorithm::EdDsa),
            (RSA, JwsAlgorithm::Rs256),
            (RSA_PKCS1, JwsAlgorithm::Rs256),
        ] {
            let key = SigningKey::from_pem("client_key", pem).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            let compact = key.sign(token(algorithm)).unwrap();
            let (input, signature) = compact.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let public = match &key {
                SigningKey::Es256(key) => key.public_key().as_ref().to_vec(),
                SigningKey::EdDsa(key) => key.public_key().as_ref().to_vec(),
                SigningKey::Rs256(key) => key.public_key().as_ref().to_vec(),
            };
            let verifier = UnparsedPublicKey::new(
                match algorithm {
                    JwsAlgorithm::Es256 => {
                        &ECDSA_P256_SHA256_FIXED as &dyn ring::signature::VerificationAlgorithm
                    }
                    JwsAlgorithm::EdDsa => &ED25519,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                },
                public,
            );
            verifier.verify(input.as_bytes(), &signature).unwrap();
            assert!(verifier.verify(b"another text", &signature).is_err());
            assert!(!format!("{key:?}").contains("PRIVATE"));
        }
    }

    /// A key that cannot be used says so, and what to run; one that does not fit the algorithm never signs.
    #[test]
    fn a_key_that_does_not_fit_is_refused() {
        assert!(why(EC_SEC1).contains("openssl pkcs8 -topk8"));
        assert!(why(ENCRYPTED).contains("openssl pkey"));
        assert!(why(RSA_SHORT).contains("2048"));
        assert!(why(b"no key").contains("PEM"));
        assert!(why(b"").contains("PEM"));
        let key = SigningKey::from_pem("client_key", EC).unwrap();
        let error = key.sign(token(JwsAlgorithm::Rs256)).unwrap_err();
        assert_eq!(error.code(), "config.value");
    }

    /// EXT-30: each drawn key is another, and comes back from its PKCS#8 form with the same public half.
    #[test]
    fn a_drawn_key_comes_back() {
        let (one, two) = (new_p256().unwrap(), new_p256().unwrap());
        assert_ne!(one, two);
        let point = SigningKey::from_pkcs8(&one).unwrap().point().unwrap();
        assert_eq!(SigningKey::from_pkcs8(&one).unwrap().point(), Some(point));
        assert_ne!(SigningKey::from_pkcs8(&two).unwrap().point(), Some(point));
    }
}
