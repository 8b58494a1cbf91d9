//! The public half of a client's key, as a client ID metadata document has it (RFC 7517, RFC 7518 section 6, RFC 8037).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pilotlight_core::{Error, assertion::ClientKey};
use ring::{rsa::PublicKeyComponents, signature::KeyPair as _};
use serde_json::{Value, json};

use super::SigningKey;
use crate::secrets::Secrets;

/// Gives the public half of a client's private key as a JWK: what issuers check its assertions by (AUTH-34).
///
/// # Errors
/// `config.value` where the key cannot be read, or does not sign as it is configured to.
pub async fn public_key(secrets: &dyn Secrets, key: &ClientKey) -> Result<Value, Error> {
    let pem = secrets.read(&key.reference).await?;
    let what = key.reference.to_string();
    let private = SigningKey::from_pem(&what, &pem)?;
    let algorithm = private.algorithm();
    if let Some(wanted) = key.algorithm.filter(|wanted| *wanted != algorithm) {
        let (is, wanted) = (algorithm.as_str(), wanted.as_str());
        let why = format!("it signs with {is}, and {wanted} is configured");
        return Err(Error::ConfigValue { what, why });
    }
    let mut jwk = private.public().ok_or(Error::Bug {
        what: "sign: a key without a public half",
    })?;
    jwk["use"] = json!("sig");
    jwk["alg"] = json!(algorithm.as_str());
    if let Some(id) = &key.key_id {
        jwk["kid"] = json!(id);
    }
    Ok(jwk)
}

impl SigningKey {
    fn public(&self) -> Option<Value> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        Some(match self {
            Self::Es256(_) => {
                let (x, y) = self.point()?;
                json!({ "kty": "EC", "crv": "P-256", "x": text(&x), "y": text(&y) })
            }
            Self::EdDsa(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref()) })
            }
            Self::Rs256(key) => {
                let PublicKeyComponents { n, e } =
                    PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "n": text(&n), "e": text(&e) })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_core::jws::{JwsAlgorithm, Unsigned};
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
        UnparsedPublicKey,
    };

    use super::*;
    use crate::secrets::{SecretRef, Zeroizing};

    #[derive(Debug)]
    struct Held(&'static [u8]);

    #[async_trait::async_trait]
    impl Secrets for Held {
        async fn read(&self, _: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Error> {
            Ok(Zeroizing::new(self.0.to_vec()))
        }
    }

    fn key(algorithm: Option<JwsAlgorithm>) -> ClientKey {
        let mut key = ClientKey::new(SecretRef::parse("file:/key.pem").unwrap());
        key.algorithm = algorithm;
        key.key_id = Some("one".into());
        key
    }

    /// AUTH-34: what the document has checks what the key signs, by nothing but what it says; and of the private half it says
    /// nothing.
    #[tokio::test]
    async fn the_public_half_checks_what_the_key_signs() {
        let keys: [&[u8]; 3] = [
            include_bytes!("ec.pem"),
            include_bytes!("ed25519.pem"),
            include_bytes!("rsa.pem"),
        ];
        for pem in keys {
            let private = SigningKey::from_pem("key", pem).unwrap();
            let jwk = public_key(&Held(pem), &key(None)).await.unwrap();
            let unsigned = Unsigned::new(private.algorithm(), serde_json::Map::new(), &json!({}));
            let compact = private.sign(unsigned).unwrap();
            let (input, signature) = compact.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
            let checked = match jwk["kty"].as_str().unwrap() {
                "EC" => {
                    let point = [&[4][..], &part("x"), &part("y")].concat();
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                        .verify(input.as_bytes(), &signature)
                }
                "OKP" => {
                    UnparsedPublicKey::new(&ED25519, part("x")).verify(input.as_bytes(), &signature)
                }
                _ => RsaPublicKeyComponents {
                    n: part("n"),
                    e: part("e"),
                }
                .verify(&RSA_PKCS1_2048_8192_SHA256, input.as_bytes(), &signature),
            };
            checked.unwrap();
            let fields = jwk.as_object().unwrap();
            assert!(!fields.contains_key("d") && fields["kid"] == "one" && fields["use"] == "sig");
            assert_eq!(fields["alg"], private.algorithm().as_str());
        }
    }

    /// A key of another kind than the one that is configured goes into no document.
    #[tokio::test]
    async fn a_key_of_another_kind_is_refused() {
        let ec = Held(include_bytes!("ec.pem"));
        let error = public_key(&ec, &key(Some(JwsAlgorithm::Rs256)))
            .await
            .unwrap_err();
        assert_eq!(error.code(), "config.value");
        assert!(error.to_string().contains("ES256"));
    }
}
