//! Proofs of possession (RFC 9449, DPoP): a token that only the holder of a key can use.
//!
//! ```text
//!  token endpoint:  DPoP: proof(POST, endpoint)                                    -> the token is bound to the key
//!  each request:    Authorization: DPoP token, DPoP: proof(method, URL, ath = hash of the token)
//! ```
//!
//! The key is drawn for one login, so no two issuers ever see the same one, and lives and dies with its credential: a bound
//! refresh token is worth nothing without it (EXT-32). This crate writes what is to be signed; who holds randomness signs.

use std::fmt;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, HeaderName, Method, header::WWW_AUTHENTICATE};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    challenge::Challenge,
    jws::{JwsAlgorithm, Unsigned},
    secret::{self, AccessToken, ProofSecret, Unprintable},
    time::Wall,
    token::refusal,
};

/// The private key that a login's tokens are bound to, on the curve P-256, with its public half.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofKey {
    /// PKCS#8 in base64.
    #[serde(with = "secret::sealed")]
    secret: ProofSecret,
    #[serde(with = "coordinate")]
    x: [u8; 32],
    #[serde(with = "coordinate")]
    y: [u8; 32],
}

impl ProofKey {
    /// How proofs are signed. Every server that knows DPoP has it in its list, and it is the one whose keys are small and
    /// quickly drawn.
    pub const ALGORITHM: JwsAlgorithm = JwsAlgorithm::Es256;

    /// Takes a key as PKCS#8, and the point of its public half.
    ///
    /// # Errors
    /// [`Unprintable`] where there is no key.
    pub fn new(pkcs8: &[u8], x: [u8; 32], y: [u8; 32]) -> Result<Self, Unprintable> {
        let secret = ProofSecret::new(STANDARD.encode(pkcs8))?;
        Ok(Self { secret, x, y })
    }

    /// Opens the private key: PKCS#8.
    #[must_use]
    pub fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(STANDARD.decode(self.secret.expose()).unwrap_or_default())
    }

    /// The public key (RFC 7517, RFC 7518 section 6.2.1).
    #[must_use]
    pub fn jwk(&self) -> Value {
        let (x, y) = self.point();
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
    }

    /// What an issuer binds a token to (RFC 7638, RFC 9449 section 6.1).
    #[must_use]
    pub fn thumbprint(&self) -> String {
        // The members in the order of their names, without blanks (RFC 7638 section 3).
        let (x, y) = self.point();
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        URL_SAFE_NO_PAD.encode(Sha256::digest(text))
    }

    fn point(&self) -> (String, String) {
        let part = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        (part(self.x), part(self.y))
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProofKey({})", self.thumbprint())
    }
}

/// One proof, for one request (RFC 9449 section 4.2).
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    /// The method of the request.
    pub method: &'a Method,
    /// Where it goes; query and fragment are no part of a proof.
    pub url: &'a Url,
    /// The [hash](token_hash) of the access token that goes with it; none at the token endpoint.
    pub token_hash: Option<&'a str>,
    /// What the server wants to see again (RFC 9449 sections 8 and 9).
    pub nonce: Option<&'a str>,
    /// 16 random bytes that no other proof has.
    pub jti: [u8; 16],
    /// The time at the server.
    pub at: Wall,
}

impl Proof<'_> {
    /// Writes the proof, to be signed with `key`.
    #[must_use]
    pub fn unsigned(&self, key: &ProofKey) -> Unsigned {
        let mut header = Map::new();
        header.insert("typ".into(), TYPE.into());
        header.insert("jwk".into(), key.jwk());
        let mut payload = json!({
            "jti": URL_SAFE_NO_PAD.encode(self.jti),
            "htm": self.method.as_str(),
            "htu": target(self.url),
            "iat": self.at.0 / 1000,
        });
        if let Some(hash) = self.token_hash {
            payload["ath"] = hash.into();
        }
        if let Some(nonce) = self.nonce {
            payload["nonce"] = nonce.into();
        }
        Unsigned::new(ProofKey::ALGORITHM, header, &payload)
    }
}

/// `ath`: which token a proof is for (RFC 9449 section 4.2).
#[must_use]
pub fn token_hash(token: &AccessToken) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token.expose()))
}

/// `htu`: a URL without query and fragment (RFC 9449 section 4.2), and without what HTTP does not send either.
fn target(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Neither fails for a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// The nonce that an answer gives for the proofs to come, if it gives exactly one that can be one (RFC 9449 section 8.1).
#[must_use]
pub fn nonce(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(NONCE_FIELD).iter();
    let text = values.next()?.to_str().ok()?;
    let fits = !text.is_empty()
        && text.len() <= LONGEST_NONCE
        && text
            .bytes()
            .all(|b| (0x21..=0x7e).contains(&b) && b != b'"' && b != b'\\');
    (fits && values.next().is_none()).then_some(text)
}

/// How a server says that a proof does not do: nothing was done with the request, and nothing was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It lacks the nonce that the same answer gives (RFC 9449 sections 8 and 9).
    Nonce,
    /// Something else, often the clock (RFC 9449 sections 5 and 7.1).
    Proof,
}

impl Refused {
    /// Reads the answer of a token endpoint.
    #[must_use]
    pub fn by_issuer(status: u16, body: &[u8]) -> Option<Self> {
        if !matches!(status, 400 | 401) {
            return None;
        }
        Self::named(&refusal(body)?.0)
    }

    /// Reads the challenges of a 401.
    #[must_use]
    pub fn by_resource(headers: &HeaderMap) -> Option<Self> {
        Challenge::parse_all(headers.get_all(WWW_AUTHENTICATE))
            .iter()
            .filter(|challenge| challenge.is(SCHEME))
            .find_map(|challenge| Self::named(challenge.param("error")?))
    }

    /// Reads an error value.
    #[must_use]
    pub fn named(error: &str) -> Option<Self> {
        match error {
            "use_dpop_nonce" => Some(Self::Nonce),
            "invalid_dpop_proof" => Some(Self::Proof),
            _ => None,
        }
    }
}

/// The authentication scheme (RFC 9449 section 7.1).
pub const SCHEME: &str = "DPoP";
/// The field that carries a proof.
pub const PROOF_FIELD: HeaderName = HeaderName::from_static("dpop");
/// The field that gives a nonce.
pub const NONCE_FIELD: HeaderName = HeaderName::from_static("dpop-nonce");

const TYPE: &str = "dpop+jwt";
/// Some servers seal a time and more into theirs.
const LONGEST_NONCE: usize = 1024;

/// Serde for half a point, as JWK writes it.
mod coordinate {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&URL_SAFE_NO_PAD.encode(value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        URL_SAFE_NO_PAD
            .decode(String::deserialize(from)?)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(D::Error::custom("not 32 bytes in base64url"))
    }
}

#[cfg(test)]
mod tests;
