//! Assertions: the JWT by which a client shows who it is (RFC 7523 section 2.2), and what can be read off a JWT that
//! somebody else has signed.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    issuer::Issuer,
    jws::{JwsAlgorithm, Unsigned},
    reference::SecretRef,
    time::Wall,
};

/// The private key of a client, as far as a login knows it: where it lies, and how it signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClientKey {
    /// Where it is read from, at each use.
    pub reference: SecretRef,
    /// How it must sign; `None` takes what suits the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<JwsAlgorithm>,
    /// The `kid` by which the issuer finds the public half (RFC 7515 section 4.1.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

impl ClientKey {
    /// The key that lies there and signs in the way that suits it.
    #[must_use]
    pub fn new(reference: SecretRef) -> Self {
        Self {
            reference,
            algorithm: None,
            key_id: None,
        }
    }
}

/// Writes the assertion by which a client authenticates (RFC 7523 section 3): good for a minute, for one use, and for this
/// issuer alone.
///
/// The audience is the issuer identifier, octet for octet, and never an endpoint: else a server that names another's
/// endpoint as its own could use it there (EXT-11).
#[must_use]
pub fn client_assertion(
    client_id: &str,
    audience: &Issuer,
    algorithm: JwsAlgorithm,
    key_id: Option<&str>,
    jti: [u8; 16],
    now: Wall,
) -> Unsigned {
    let mut header = Map::new();
    header.insert("typ".into(), json!("JWT"));
    if let Some(key_id) = key_id {
        header.insert("kid".into(), json!(key_id));
    }
    let seconds = now.0 / 1000;
    let payload = json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience.as_str(),
        "jti": URL_SAFE_NO_PAD.encode(jti),
        "iat": seconds,
        "exp": seconds + LIFE.as_secs(),
    });
    Unsigned::new(algorithm, header, &payload)
}

/// What `client_assertion_type` says of such an assertion (RFC 7523 section 2.2).
pub const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

const LIFE: Duration = Duration::from_secs(60);

/// What a JWT says about itself; nothing of it is verified, since only its reader can.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// `aud`, as one text or a list of them.
    pub audiences: Vec<String>,
    /// `exp`.
    pub expires_at: Option<Wall>,
    /// `nbf`.
    pub not_before: Option<Wall>,
}

/// Reads the claims of a compact JWT; `None` where it is none: not three parts, no JSON object within, or over 64 KiB.
#[must_use]
pub fn read_claims(jwt: &str) -> Option<Claims> {
    if jwt.len() > LONGEST {
        return None;
    }
    let mut parts = jwt.split('.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || signature.is_empty() {
        return None;
    }
    object(header)?;
    let claims = object(payload)?;
    let audiences = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => several
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    let instant = |name: &str| {
        let seconds = claims.get(name)?.as_f64()?;
        (seconds.is_finite() && (0.0..=LATEST).contains(&seconds))
            .then(|| Wall(0) + Duration::from_secs_f64(seconds))
    };
    Some(Claims {
        audiences,
        expires_at: instant("exp"),
        not_before: instant("nbf"),
    })
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
    match serde_json::from_slice(&bytes).ok()? {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

const LONGEST: usize = 64 * 1024;

/// The year 9999, in seconds.
const LATEST: f64 = 253_402_300_799.0;

#[cfg(test)]
mod tests;
