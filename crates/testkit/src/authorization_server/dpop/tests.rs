//! That each check can fail: a good proof, and one thing wrong with it.

use http::{HeaderValue, Method};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const URL: &str = "https://as.test/token";

fn key() -> EcdsaKeyPair {
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap()
}

fn header(key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    let (x, y) = (
        URL_SAFE_NO_PAD.encode(&point[1..33]),
        URL_SAFE_NO_PAD.encode(&point[33..]),
    );
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
    json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk })
}

fn claims(jti: &str) -> Value {
    json!({ "jti": jti, "htm": "POST", "htu": URL, "iat": NOW_MS / 1000 })
}

fn signed(key: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", part(header), part(claims));
    let signature = key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn request(proofs: &[String]) -> Request {
    let mut request = Request::new(Method::POST, "/token?tenant=1");
    for proof in proofs {
        let value = HeaderValue::from_str(proof).unwrap();
        request.headers.append(PROOF, value);
    }
    request
}

fn check(proofs: &mut Proofs, rule: NonceRule, all: &[String]) -> Result<String, Refusal> {
    let rules = ProofRules {
        nonces: rule,
        ..ProofRules::default()
    };
    let what = For {
        url: URL,
        token: None,
    };
    proofs.check(NOW_MS, &rules, &request(all), what)
}

/// EXT-30, RFC 9449 section 4.3: the checker takes a good proof once, and refuses one for each thing that can be wrong.
#[test]
fn each_part_of_a_proof_is_checked() {
    let (key, other) = (key(), key());
    let mut proofs = Proofs::default();
    let good = signed(&key, &header(&key), &claims("a"));
    let mut refuses = |why: &str, all: &[String]| {
        let got = check(&mut proofs, NonceRule::None, all);
        assert!(matches!(got, Err((INVALID, _))), "{why}: {got:?}");
    };
    refuses("two", &[good.clone(), good.clone()]);
    refuses("none", &[]);
    refuses("cut", &[good.rsplit_once('.').unwrap().0.to_owned()]);
    refuses(
        "of another key",
        &[signed(&other, &header(&key), &claims("b"))],
    );
    for (part, value) in [
        ("typ", json!("JWT")),
        ("alg", json!("none")),
        ("jwk", json!({})),
    ] {
        let mut header = header(&key);
        header[part] = value;
        refuses(part, &[signed(&key, &header, &claims("c"))]);
    }
    let mut private = header(&key);
    private["jwk"]["d"] = json!("secret");
    refuses("a private key", &[signed(&key, &private, &claims("c"))]);
    for (part, value) in [
        ("jti", Value::Null),
        ("htm", json!("GET")),
        ("htu", json!("https://as.test/token?tenant=1")),
        ("iat", json!(NOW_MS / 1000 - 62)),
        ("iat", json!(NOW_MS / 1000 + 62)),
        ("ath", json!("hash")),
    ] {
        let mut claims = claims("d");
        claims[part] = value;
        refuses(part, &[signed(&key, &header(&key), &claims)]);
    }
    let first = check(&mut proofs, NonceRule::None, std::slice::from_ref(&good));
    assert!(first.is_ok(), "{first:?}");
    let again = check(&mut proofs, NonceRule::None, &[good]);
    assert_eq!(again, Err((INVALID, "jti was used before")));
}

/// EXT-31: a nonce that is wanted must be the current one.
#[test]
fn a_nonce_must_be_the_current_one() {
    let key = key();
    let mut proofs = Proofs::default();
    let with = |jti: &str, nonce: &str| {
        let mut claims = claims(jti);
        claims["nonce"] = json!(nonce);
        [signed(&key, &header(&key), &claims)]
    };
    let rule = NonceRule::Sudden(1);
    let missed = Err((USE_NONCE, "the nonce"));
    let without = [signed(&key, &header(&key), &claims("a"))];
    assert_eq!(check(&mut proofs, rule, &without), missed);
    assert!(check(&mut proofs, rule, &with("b", "nonce-0")).is_ok());
    assert_eq!(check(&mut proofs, rule, &with("c", "nonce-0")), missed);
    assert!(check(&mut proofs, rule, &with("d", "nonce-1")).is_ok());
    assert_eq!(
        check(&mut proofs, NonceRule::Endless, &with("e", "nonce-1")),
        missed
    );
}
