use super::*;

fn part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn jwt(claims: &str) -> String {
    format!("{}.{}.c2ln", part(r#"{"alg":"ES256"}"#), part(claims))
}

/// EXT-11: `iss` and `sub` are the client, `aud` is the issuer octet for octet (a slash stays, and none is added), and it
/// lives for a minute.
#[test]
fn a_client_assertion_is_for_one_issuer_and_one_minute() {
    for issuer in [
        "https://as.example",
        "https://as.example/",
        "https://as.example/t/1",
    ] {
        let audience = Issuer::parse(issuer).unwrap();
        let now = Wall::from_unix_seconds(1_000_000);
        let algorithm = JwsAlgorithm::Es256;
        let made = client_assertion("client-1", &audience, algorithm, Some("k1"), [7; 16], now);
        let compact = made.signed(b"sig");
        let mut parts = compact.split('.');
        let header = object(parts.next().unwrap()).unwrap();
        let claims = object(parts.next().unwrap()).unwrap();
        assert_eq!(header["kid"], "k1");
        assert_eq!(
            (&claims["iss"], &claims["sub"]),
            (&json!("client-1"), &json!("client-1"))
        );
        assert_eq!(claims["aud"], issuer);
        assert_eq!(
            (&claims["iat"], &claims["exp"]),
            (&json!(1_000_000), &json!(1_000_060))
        );
        assert_eq!(claims["jti"], URL_SAFE_NO_PAD.encode([7; 16]));
        let own = read_claims(&compact).unwrap();
        assert_eq!(own.audiences, [issuer]);
        assert_eq!(own.expires_at, Some(Wall::from_unix_seconds(1_000_060)));
    }
}

/// EXT-40: an audience may be a text or a list, an expiry a fraction; what is missing is missing.
#[test]
fn claims_are_read_in_every_form_that_issuers_write() {
    let one = read_claims(&jwt(r#"{"aud":"https://as.example","exp":1000.5,"nbf":1}"#)).unwrap();
    assert_eq!(one.audiences, ["https://as.example"]);
    assert_eq!(
        (one.expires_at, one.not_before),
        (Some(Wall(1_000_500)), Some(Wall(1000)))
    );
    let several = read_claims(&jwt(r#"{"aud":["a",3,"b"],"exp":"soon"}"#)).unwrap();
    assert_eq!(several.audiences, ["a", "b"]);
    assert_eq!(several.expires_at, None);
    assert_eq!(read_claims(&jwt("{}")), Some(Claims::default()));
}

/// EXT-40, T-14: what is no JWT is told from one, whatever it holds.
#[test]
fn what_is_no_jwt_has_no_claims() {
    let long = jwt(&format!(r#"{{"a":"{}"}}"#, "x".repeat(LONGEST)));
    let four = format!("{}.x", jwt("{}"));
    for bad in [
        "",
        "a.b.c",
        "..",
        "not a token",
        &jwt("[]"),
        &jwt("{"),
        &four,
        &long,
        "e30.e30.",
        "e30.e30",
    ] {
        assert_eq!(read_claims(bad), None, "{:.40}", bad);
    }
    for odd in [r#"{"exp":-1}"#, r#"{"exp":1e300}"#, r#"{"exp":null}"#] {
        assert_eq!(read_claims(&jwt(odd)).unwrap().expires_at, None, "{odd}");
    }
}
