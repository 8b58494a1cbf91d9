use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use zeroize::Zeroizing;

use super::*;
use crate::time::Now;

const NOW: u64 = 1_000_000;

fn jwt(claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.c2ln", part(r#"{"alg":"ES256"}"#), part(claims))
}

fn issuer() -> Issuer {
    Issuer::parse("https://as.example").unwrap()
}

fn place() -> SecretRef {
    SecretRef::file("/run/token").unwrap()
}

fn checked(token: &str, refused: Option<[u8; 32]>) -> Result<(), String> {
    let now = Wall::from_unix_seconds(NOW);
    check_workload(token, &place(), &issuer(), refused.as_slice(), now).map_err(|error| {
        assert_eq!(error.code(), "config.assertion");
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(
            text.contains("file:/run/token") && !text.contains(token),
            "{text}"
        );
        text
    })
}

/// EXT-40: what would be refused is not sent, and the message names the claim: the end, five seconds before it comes; the
/// audience, to the letter and alone or among others.
#[test]
fn a_token_that_cannot_be_taken_is_told_from_one_that_can() {
    let with = |exp: u64, aud: &str| jwt(&format!(r#"{{"exp":{exp},"aud":{aud}}}"#));
    let good = r#""https://as.example""#;
    assert_eq!(checked(&with(NOW + 6, good), None), Ok(()));
    assert_eq!(
        checked(&with(NOW + 6, r#"["x","https://as.example"]"#), None),
        Ok(())
    );
    for exp in [NOW + 5, NOW, NOW - 3600] {
        assert!(checked(&with(exp, good), None).unwrap_err().contains("exp"));
    }
    for aud in [
        r#""https://as.example/""#,
        r#""https://AS.example""#,
        r#""https://as.example/token""#,
        r#"["https://mcp.example"]"#,
        "[]",
        "null",
    ] {
        let why = checked(&with(NOW + 60, aud), None).unwrap_err();
        assert!(
            why.contains("aud") && why.contains("https://as.example"),
            "{why}"
        );
    }
    assert!(
        checked(&jwt(r#"{"aud":"https://as.example"}"#), None)
            .unwrap_err()
            .contains("exp")
    );
    assert!(checked("opaque", None).unwrap_err().contains("JWT"));
}

/// EXT-41: what was refused is not shown again; what replaces it is.
#[test]
fn a_refused_token_is_never_shown_again() {
    let token = |n: u64| {
        jwt(&format!(
            r#"{{"exp":{},"aud":"https://as.example"}}"#,
            NOW + 60 + n
        ))
    };
    let refused = Some(digest(&token(1)));
    assert!(
        checked(&token(1), refused)
            .unwrap_err()
            .contains("refused before")
    );
    assert_eq!(checked(&token(2), refused), Ok(()));
}

/// EXT-40, F-19: a token of a platform whose clock is ahead is not sent before its time, which would have it refused; it has
/// begun to the millisecond.
#[test]
fn a_token_waits_for_its_time() {
    let from = |nbf: &str| {
        jwt(&format!(
            r#"{{"exp":{},"nbf":{nbf},"aud":"https://as.example"}}"#,
            NOW + 600
        ))
    };
    let why = checked(&from(&format!("{NOW}.2")), None).unwrap_err();
    assert!(why.contains("nbf is 1 s ahead"), "{why}");
    assert!(
        checked(&from(&(NOW + 3).to_string()), None)
            .unwrap_err()
            .contains("3 s ahead")
    );
    assert_eq!(checked(&from(&NOW.to_string()), None), Ok(()));
    let provider = IdentityProvider::new(
        issuer(),
        Url::parse("https://idp.example/token").unwrap(),
        Client::brought("at-idp".into()),
        place(),
    );
    let now = Wall::from_unix_seconds(NOW);
    assert!(check_subject(&from(&(NOW + 3).to_string()), &provider, &[], now).is_err());
}

/// EXT-20: an ID token that is over is not exchanged; a SAML assertion is nothing that can be looked into.
#[test]
fn an_identity_that_is_over_is_not_exchanged() {
    let client = serde_json::from_value(serde_json::json!({
        "id": "idp-client", "secret": null, "authentication": "none", "source": "pre_registered",
    }));
    let mut provider = IdentityProvider {
        issuer: Issuer::parse("https://idp.example").unwrap(),
        token_endpoint: Url::parse("https://idp.example/token").unwrap(),
        client: client.unwrap(),
        subject: place(),
        subject_type: ID_TOKEN.into(),
    };
    let now = Wall::from_unix_seconds(NOW);
    let over = jwt(&format!(r#"{{"exp":{NOW}}}"#));
    let error = check_subject(&over, &provider, &[], now).unwrap_err();
    assert_eq!(error.code(), "config.assertion");
    let error = check_subject("PHNhbWw-", &provider, &[], now).unwrap_err();
    assert_eq!(error.code(), "config.assertion");
    let good = jwt(&format!(r#"{{"exp":{}}}"#, NOW + 60));
    assert_eq!(check_subject(&good, &provider, &[], now), Ok(()));
    assert!(check_subject(&good, &provider, &[[0; 32], digest(&good)], now).is_err());
    provider.subject_type = SAML2.into();
    assert_eq!(check_subject("PHNhbWw-", &provider, &[], now), Ok(()));
}

/// EXT-21: only the assertion that was asked for is taken, and never as a token of ours.
#[test]
fn a_token_exchange_brings_an_assertion_or_nothing() {
    let read = |body: &str| {
        let reply = Reply {
            status: 200,
            headers: http::HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
            sent_at: Now::default(),
        };
        read_id_jag(&reply, &issuer()).map(|text| text.expose().to_owned())
    };
    let foreign = jwt(r#"{"aud":"https://as.other"}"#);
    let endless = jwt(r#"{"exp":1}"#);
    let good = jwt(r#"{"aud":"https://as.example"}"#);
    let answer = |kind: &str, of: &str, token: &str| {
        format!(r#"{{"issued_token_type":"{of}","token_type":"{kind}","access_token":"{token}"}}"#)
    };
    assert_eq!(read(&answer("N_A", ID_JAG, &good)), Ok(good.clone()));
    assert_eq!(read(&answer("n_a", ID_JAG, &good)), Ok(good.clone()));
    for (body, field) in [
        (answer("Bearer", ID_JAG, &good), "token_type"),
        (
            answer(
                "N_A",
                "urn:ietf:params:oauth:token-type:access_token",
                &good,
            ),
            "issued_token_type",
        ),
        (answer("N_A", ID_JAG, "opaque"), "access_token"),
        (answer("N_A", ID_JAG, &foreign), "access_token"),
        (answer("N_A", ID_JAG, &endless), "access_token"),
        (
            format!(r#"{{"access_token":"{good}"}}"#),
            "issued_token_type",
        ),
        ("<html>".to_owned(), "document"),
    ] {
        match read(&body) {
            Err(Error::MetadataInvalid { field: got, .. }) => assert_eq!(got, field),
            other => panic!("{other:?}"),
        }
    }
}

/// What is stored of a grant is read back, and holds no secret but a reference.
#[test]
fn a_grant_is_stored_by_reference() {
    let grant = Unattended::Workload { token: place() };
    let text = serde_json::to_string(&grant).unwrap();
    assert_eq!(text, r#"{"grant":"workload","token":"file:/run/token"}"#);
    assert_eq!(serde_json::from_str::<Unattended>(&text).unwrap(), grant);
    let text = serde_json::to_string(&Unattended::ClientCredentials).unwrap();
    assert_eq!(text, r#"{"grant":"client_credentials"}"#);
    assert_eq!(
        serde_json::from_str::<Unattended>(&text).unwrap(),
        Unattended::ClientCredentials
    );
}
