use http::HeaderValue;

use super::*;

/// The key of RFC 9449's own examples (section 4.1); its private half is not published.
fn example() -> ProofKey {
    let part = |text: &str| -> [u8; 32] {
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        bytes.try_into().unwrap()
    };
    ProofKey::new(
        b"private",
        part("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs"),
        part("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"),
    )
    .unwrap()
}

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}

/// The header and the payload of a proof.
fn written(proof: &Proof<'_>) -> (Value, Value) {
    let compact = proof.unsigned(&example()).signed(b"");
    let mut parts = compact.split('.');
    let mut part = || {
        let bytes = URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    (part(), part())
}

/// EXT-30, RFC 9449 sections 4.2 and 6.1: the thumbprint of the RFC's key is the one that the RFC gives.
#[test]
fn the_thumbprint_is_that_of_the_standard() {
    let expected = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    assert_eq!(example().thumbprint(), expected);
}

/// EXT-30, RFC 9449 section 7: the hash of the RFC's access token is the one that the RFC gives.
#[test]
fn the_hash_of_a_token_is_that_of_the_standard() {
    let token = AccessToken::new("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU".into()).unwrap();
    let expected = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo";
    assert_eq!(token_hash(&token), expected);
}

/// EXT-30: a proof names the method and the URL without query, fragment and names; a token's hash and a nonce where there
/// are some; and the public half of the key only.
#[test]
fn a_proof_is_for_one_request() {
    let url = Url::parse("https://me:pw@mcp.example:8443/a/b?token=secret#part").unwrap();
    let bare = Proof {
        method: &Method::DELETE,
        url: &url,
        token_hash: None,
        nonce: None,
        jti: [7; 16],
        at: Wall(1_562_262_616_999),
    };
    let (header, payload) = written(&bare);
    assert_eq!(header["typ"], "dpop+jwt");
    assert_eq!(header["alg"], "ES256");
    assert_eq!(header["jwk"], example().jwk());
    assert_eq!(header["jwk"].as_object().unwrap().len(), 4);
    let expected = json!({
        "jti": URL_SAFE_NO_PAD.encode([7; 16]),
        "htm": "DELETE",
        "htu": "https://mcp.example:8443/a/b",
        "iat": 1_562_262_616,
    });
    assert_eq!(payload, expected);
    let full = Proof {
        token_hash: Some("hash"),
        nonce: Some("n-1"),
        ..bare
    };
    let (_, payload) = written(&full);
    assert_eq!(
        (&payload["ath"], &payload["nonce"]),
        (&json!("hash"), &json!("n-1"))
    );
}

/// EXT-32, T-33: a key is sealed whole and printed as its thumbprint.
#[test]
fn a_key_is_kept_and_not_shown() {
    let key = example();
    let text = serde_json::to_string(&key).unwrap();
    let back: ProofKey = serde_json::from_str(&text).unwrap();
    assert_eq!(back, key);
    assert_eq!(back.pkcs8().as_slice(), b"private");
    let shown = format!("{key:?}");
    assert!(!shown.contains(&STANDARD.encode("private")), "{shown}");
    assert!(ProofKey::new(b"", [0; 32], [0; 32]).is_err());
    let cut = text.replace("l8tFrhx-", "");
    assert!(serde_json::from_str::<ProofKey>(&cut).is_err());
}

/// EXT-31, RFC 9449 section 8.1: one nonce, of the characters that it may have; of two none is believed.
#[test]
fn a_nonce_is_one_and_printable() {
    let one = |value| headers(&[(NONCE_FIELD, value)]);
    assert_eq!(
        nonce(&one("eyJ7S_zG.eyJH0-Z~/+=")),
        Some("eyJ7S_zG.eyJH0-Z~/+=")
    );
    for bad in ["", "a b", "a\"b", "a\\b", "caf\u{e9}", &"n".repeat(1025)] {
        assert_eq!(nonce(&one(bad)), None, "{bad:?}");
    }
    assert_eq!(nonce(&HeaderMap::new()), None);
    let two = headers(&[(NONCE_FIELD, "a"), (NONCE_FIELD, "b")]);
    assert_eq!(nonce(&two), None);
}

/// EXT-31: what an issuer says in its body and a server in its challenge; other words, statuses and schemes are no refusal
/// of a proof.
#[test]
fn refusals_are_told_apart() {
    let by = |status, error: &str| {
        let body = json!({ "error": error }).to_string();
        Refused::by_issuer(status, body.as_bytes())
    };
    assert_eq!(by(400, "use_dpop_nonce"), Some(Refused::Nonce));
    assert_eq!(by(401, "use_dpop_nonce"), Some(Refused::Nonce));
    assert_eq!(by(400, "invalid_dpop_proof"), Some(Refused::Proof));
    assert_eq!(by(400, "invalid_grant"), None);
    assert_eq!(by(200, "use_dpop_nonce"), None);
    assert_eq!(by(503, "use_dpop_nonce"), None);
    assert_eq!(Refused::by_issuer(400, b"use_dpop_nonce"), None);
    let challenged = |text| Refused::by_resource(&headers(&[(WWW_AUTHENTICATE, text)]));
    let refused = challenged("DPoP error=\"use_dpop_nonce\", algs=\"ES256\"");
    assert_eq!(refused, Some(Refused::Nonce));
    let both = "Bearer error=\"invalid_token\", dpop error=invalid_dpop_proof";
    assert_eq!(challenged(both), Some(Refused::Proof));
    assert_eq!(challenged("DPoP error=\"invalid_token\""), None);
    assert_eq!(challenged("Bearer error=\"use_dpop_nonce\""), None);
}
