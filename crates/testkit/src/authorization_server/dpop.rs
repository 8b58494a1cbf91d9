//! Proofs of possession as a server checks them (RFC 9449 section 4.3), and tokens that are bound to a key.
//!
//! Written from the text of the RFC and with another library than the client's, so that both would have to err alike.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, StatusCode};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::AuthorizationServer;
use super::token::bad;
use crate::exchange::{Request, Response};

/// What a server wants to see in proofs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProofRules {
    /// The nonces it wants.
    pub nonces: NonceRule,
    /// By how much `iat` may differ from its clock.
    pub tolerance: Duration,
}

impl Default for ProofRules {
    fn default() -> Self {
        Self {
            nonces: NonceRule::None,
            tolerance: Duration::from_secs(60),
        }
    }
}

/// The nonces that a server wants (RFC 9449 sections 8 and 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonceRule {
    /// None.
    None,
    /// One, and the next after so many proofs, told with the last answer.
    Next(u64),
    /// One, and the next after so many proofs, told to nobody before it is missed.
    Sudden(u64),
    /// Another each time: no proof ever does.
    Endless,
    /// One that it never tells.
    Untold,
}

/// A proof that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// `jti`.
    pub jti: String,
    /// `htm`.
    pub method: String,
    /// `htu`.
    pub url: String,
    /// `iat`, Unix time in seconds.
    pub iat: u64,
    /// `nonce`.
    pub nonce: Option<String>,
    /// The thumbprint of the key (RFC 7638).
    pub key: String,
}

/// What a server remembers of proofs.
#[derive(Debug, Default)]
pub struct Proofs {
    /// The proofs that were taken, oldest first.
    pub taken: Vec<Taken>,
    /// The proofs that were refused: the error, and why.
    pub refused: Vec<(&'static str, &'static str)>,
    seen: BTreeSet<String>,
    nonces: u64,
    uses: u64,
}

/// What a proof is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct For<'a> {
    /// The URL without its query, as the server knows it.
    pub(crate) url: &'a str,
    /// The access token beside it.
    pub(crate) token: Option<&'a str>,
}

/// Why a proof does not do.
pub(crate) type Refusal = (&'static str, &'static str);

impl Proofs {
    /// Checks the one proof of a request; gives the thumbprint of its key.
    pub(crate) fn check(
        &mut self,
        now_ms: u64,
        rules: &ProofRules,
        request: &Request,
        what: For<'_>,
    ) -> Result<String, Refusal> {
        let checked = self.checked(now_ms, rules, request, what);
        match &checked {
            Ok(taken) => {
                self.taken.push(taken.clone());
                self.uses += 1;
            }
            Err(refusal) => self.refused.push(*refusal),
        }
        checked.map(|taken| taken.key)
    }

    fn checked(
        &mut self,
        now_ms: u64,
        rules: &ProofRules,
        request: &Request,
        what: For<'_>,
    ) -> Result<Taken, Refusal> {
        let bad = |why| (INVALID, why);
        let mut fields = request.headers.get_all(PROOF).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return Err(bad("there must be exactly one proof"));
        };
        let proof = field.to_str().map_err(|_| bad("not text"))?;
        let parts: Vec<_> = proof.split('.').collect();
        let [header, payload, signature] = *parts else {
            return Err(bad("not three parts"));
        };
        let input = proof.get(..header.len() + 1 + payload.len());
        let decoded = |part| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| bad("not base64url"))
        };
        let read = |part| -> Result<Value, Refusal> {
            serde_json::from_slice(&decoded(part)?).map_err(|_| bad("not JSON"))
        };
        let (header, payload) = (read(header)?, read(payload)?);
        if header["typ"] != "dpop+jwt" || header["alg"] != "ES256" {
            return Err(bad("typ or alg"));
        }
        let jwk = &header["jwk"];
        if jwk["kty"] != "EC" || jwk["crv"] != "P-256" || !jwk["d"].is_null() {
            return Err(bad("jwk: no public P-256 key"));
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (Some(x), Some(y)) = (text(&jwk["x"]), text(&jwk["y"])) else {
            return Err(bad("jwk: no point"));
        };
        let point = [vec![4], decoded(&x)?, decoded(&y)?].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(input.unwrap_or_default().as_bytes(), &decoded(signature)?)
            .map_err(|_| bad("signature"))?;
        let key = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let taken = Taken {
            jti: text(&payload["jti"]).ok_or(bad("jti"))?,
            method: text(&payload["htm"]).ok_or(bad("htm"))?,
            url: text(&payload["htu"]).ok_or(bad("htu"))?,
            iat: payload["iat"].as_u64().ok_or(bad("iat"))?,
            nonce: text(&payload["nonce"]),
            key: URL_SAFE_NO_PAD.encode(Sha256::digest(key)),
        };
        if taken.method != request.method.as_str() || taken.url != what.url {
            return Err(bad("htm or htu"));
        }
        if (taken.iat * 1000).abs_diff(now_ms) > super::millis(rules.tolerance) + 1000 {
            return Err(bad("iat"));
        }
        let hash = what
            .token
            .map(|token| URL_SAFE_NO_PAD.encode(Sha256::digest(token)));
        if text(&payload["ath"]) != hash {
            return Err(bad("ath"));
        }
        // A proof that only lacks the nonce was seen, too.
        if !self.seen.insert(taken.jti.clone()) {
            return Err(bad("jti was used before"));
        }
        self.nonce_fits(rules.nonces, taken.nonce.as_deref())?;
        Ok(taken)
    }

    fn nonce_fits(&mut self, rule: NonceRule, nonce: Option<&str>) -> Result<(), Refusal> {
        let wanted = match rule {
            NonceRule::None => return Ok(()),
            NonceRule::Next(uses) | NonceRule::Sudden(uses) => {
                if self.uses >= uses {
                    (self.nonces, self.uses) = (self.nonces + 1, 0);
                }
                Some(self.nonce())
            }
            NonceRule::Endless => {
                self.nonces += 1;
                None
            }
            NonceRule::Untold => None,
        };
        match (wanted, nonce) {
            (Some(wanted), Some(nonce)) if wanted == nonce => Ok(()),
            _ => Err((USE_NONCE, "the nonce")),
        }
    }

    fn nonce(&self) -> String {
        format!("nonce-{}", self.nonces)
    }

    /// Puts the nonce into an answer that must or may carry it.
    pub(crate) fn tell(&self, rule: NonceRule, refused: bool, mut answer: Response) -> Response {
        let told = match rule {
            NonceRule::None | NonceRule::Untold => None,
            NonceRule::Endless => Some(self.nonce()),
            NonceRule::Sudden(_) => refused.then(|| self.nonce()),
            NonceRule::Next(uses) if !refused && self.uses >= uses => {
                Some(format!("nonce-{}", self.nonces + 1))
            }
            NonceRule::Next(_) => Some(self.nonce()),
        };
        if let Some(nonce) = told {
            answer = answer.with_header(NONCE, &nonce);
        }
        answer
    }
}

impl AuthorizationServer {
    /// Gives what was seen of proofs.
    #[must_use]
    pub fn proofs(&self) -> &Proofs {
        &self.proofs
    }

    /// Checks the proof of a token request, if it has one or needs one; gives what to bind its tokens to.
    pub(super) fn proof_of(
        &mut self,
        now_ms: u64,
        request: &Request,
        family: Option<u64>,
    ) -> Result<Option<String>, Box<Response>> {
        let bound = family.and_then(|family| self.grants.get(&family)?.key.clone());
        let Some(rules) = self.config.dpop.clone() else {
            return Ok(None);
        };
        if !request.headers.contains_key(PROOF) {
            return match bound {
                Some(_) => Err(bad("invalid_grant", "the refresh token is bound to a key")),
                None if self.config.dpop_required => Err(bad(INVALID, "a proof is required")),
                None => Ok(None),
            };
        }
        let url = format!("{}/token", self.issuer);
        let what = For {
            url: &url,
            token: None,
        };
        match self.proofs.check(now_ms, &rules, request, what) {
            Ok(key) if bound.as_ref().is_some_and(|bound| *bound != key) => Err(bad(
                "invalid_grant",
                "the refresh token is bound to another key",
            )),
            Ok(key) => Ok(Some(key).filter(|_| !self.config.dpop_answers_bearer)),
            Err((error, why)) => {
                let answer = bad(error, why);
                Err(Box::new(self.proofs.tell(rules.nonces, true, *answer)))
            }
        }
    }

    /// Puts the next nonce into an answer of the token endpoint.
    pub(super) fn tell_nonce(&self, answer: Response) -> Response {
        let told = answer.headers.contains_key(NONCE);
        match &self.config.dpop {
            Some(rules) if !told && answer.status == StatusCode::OK => {
                self.proofs.tell(rules.nonces, false, answer)
            }
            _ => answer,
        }
    }
}

pub(crate) const PROOF: HeaderName = HeaderName::from_static("dpop");
pub(crate) const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
pub(crate) const USE_NONCE: &str = "use_dpop_nonce";
const INVALID: &str = "invalid_dpop_proof";

#[cfg(test)]
mod tests;
