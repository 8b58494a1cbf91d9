//! Signed assertions: those that a platform or an identity provider makes, and what a server checks of one (RFC 7523
//! section 3).
//!
//! Written from the text of the RFC, and with keys that only tests have.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Value, json};

/// Whoever signs assertions that others believe: a platform for its workloads, an identity provider for its people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    seed: [u8; 32],
}

impl Platform {
    /// Makes one: the same seed has the same key.
    #[must_use]
    pub fn new(seed: u8) -> Self {
        Self { seed: [seed; 32] }
    }

    /// Signs a JWT with these claims.
    ///
    /// # Panics
    /// Never: every 32 bytes are an Ed25519 key.
    #[must_use]
    pub fn token(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "alg": "EdDSA", "typ": "JWT" });
        let input = format!("{}.{}", part(&header), part(claims));
        let signature = self.key().sign(input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Gives the public half of its key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey {
            algorithm: "EdDSA",
            bytes: self.key().public_key().as_ref().to_vec(),
        }
    }

    fn key(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.seed).expect("every 32 bytes are a key")
    }
}

/// A key that signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// `ES256`, `RS256` or `EdDSA`.
    pub algorithm: &'static str,
    /// As ring writes it: a point, an RSA public key in DER, 32 bytes.
    pub bytes: Vec<u8>,
}

impl PublicKey {
    /// Reads the claims of a JWT that this key has signed, in its one way.
    pub(super) fn claims(&self, jwt: &str) -> Option<Value> {
        let (input, signature) = jwt.rsplit_once('.')?;
        let (header, payload) = input.split_once('.')?;
        let json = |part: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        if json(header)?["alg"] != self.algorithm {
            return None;
        }
        let rule: &dyn VerificationAlgorithm = match self.algorithm {
            "ES256" => &ECDSA_P256_SHA256_FIXED,
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            _ => &ED25519,
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        UnparsedPublicKey::new(rule, &self.bytes)
            .verify(input.as_bytes(), &signature)
            .ok()?;
        json(payload)
    }
}

/// Whether claims are for this audience and not over.
pub(super) fn is_for(claims: &Value, audience: &str, now_ms: u64) -> bool {
    let named = match &claims["aud"] {
        Value::Array(list) => list.iter().any(|one| one == audience),
        one => one == audience,
    };
    named
        && claims["exp"]
            .as_u64()
            .is_some_and(|end| end * 1000 > now_ms)
}
