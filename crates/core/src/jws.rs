//! JSON Web Signatures (RFC 7515) as far as a client makes them: compact, signed elsewhere, since this crate holds no keys.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a signature is made (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JwsAlgorithm {
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl JwsAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Es256, Self::Rs256, Self::EdDsa];

    /// The registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of a registered name; `None` for one that this program does not have.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }
}

/// A token that lacks its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    algorithm: JwsAlgorithm,
    input: String,
}

impl Unsigned {
    /// Writes header and payload; `alg` is put into the header.
    #[must_use]
    pub fn new(
        algorithm: JwsAlgorithm,
        mut header: serde_json::Map<String, Value>,
        payload: &Value,
    ) -> Self {
        header.insert("alg".into(), algorithm.as_str().into());
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&Value::Object(header)), part(payload));
        Self { algorithm, input }
    }

    /// How it is to be signed.
    #[must_use]
    pub fn algorithm(&self) -> JwsAlgorithm {
        self.algorithm
    }

    /// What is to be signed (RFC 7515 section 5.1, step 8).
    #[must_use]
    pub fn input(&self) -> &[u8] {
        self.input.as_bytes()
    }

    /// The compact form, with its signature as the algorithm has it: for ES256 the 64 bytes of R and S (RFC 7518 section
    /// 3.4), not DER.
    #[must_use]
    pub fn signed(self, signature: &[u8]) -> String {
        let mut compact = self.input;
        compact.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut compact);
        compact
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// RFC 7515 section 3.1: three parts, base64url without padding; the header names the algorithm, whatever it was told.
    #[test]
    fn the_compact_form_has_three_parts() {
        let mut header = serde_json::Map::new();
        header.insert("typ".into(), "dpop+jwt".into());
        header.insert("alg".into(), "none".into());
        for algorithm in JwsAlgorithm::ALL {
            let token = Unsigned::new(algorithm, header.clone(), &json!({"jti": "1"}));
            let input = token.input().to_vec();
            let compact = token.signed(&[0xff, 0xfe, 0xfd]);
            assert_eq!(compact.as_bytes().get(..input.len()), Some(&input[..]));
            let parts: Vec<_> = compact.split('.').collect();
            assert_eq!((parts.len(), parts[2]), (3, "__79"));
            let header: Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
            assert_eq!(header["alg"], algorithm.as_str());
            assert_eq!(header["typ"], "dpop+jwt");
            assert_eq!(JwsAlgorithm::from_name(algorithm.as_str()), Some(algorithm));
        }
        assert_eq!(JwsAlgorithm::from_name("HS256"), None);
        assert_eq!(JwsAlgorithm::from_name("none"), None);
    }
}
