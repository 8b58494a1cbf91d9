//! Grants without a person, as the server sees them: each rule refuses who breaks it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pilotlight_testkit::{
    AuthorizationServer, AuthorizationServerConfig, Request,
    authorization_server::{ClientAuthentication, Platform, StaticClient},
};
use serde_json::{Value, json};

const ISSUER: &str = "https://as.example";
const NOW_MS: u64 = 1_000_000_000;
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ASSERTED: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn server() -> AuthorizationServer {
    let config = AuthorizationServerConfig::default().with(|config| {
        config.grant_types = ["client_credentials", JWT_BEARER, TOKEN_EXCHANGE]
            .map(Into::into)
            .to_vec();
        config.token_endpoint_auth_methods = vec![
            ClientAuthentication::None,
            ClientAuthentication::PrivateKeyJwt,
        ];
        config.believes = vec![Platform::new(1).public()];
        config.vouches = Some(Platform::new(2));
        config
            .client_keys
            .insert("keyed".into(), Platform::new(3).public());
        config.clients = ["keyed", "job"]
            .map(|id| StaticClient {
                client_id: id.into(),
                client_secret: None,
                redirect_uris: Vec::new(),
            })
            .to_vec();
    });
    AuthorizationServer::new(ISSUER.into(), config)
}

/// Asks for a token; the error, or nothing.
fn ask(server: &mut AuthorizationServer, fields: &[(&str, &str)]) -> (String, Value) {
    let request = Request::form("/token", fields);
    let body = server.handle(NOW_MS, request).body_json();
    (body["error"].as_str().unwrap_or("").to_owned(), body)
}

fn assertion(aud: &str, sub: &str, exp: u64, jti: &str) -> String {
    Platform::new(3).token(&json!({
        "iss": "keyed", "sub": sub, "aud": aud, "exp": exp, "jti": jti,
    }))
}

/// EXT-10, EXT-11: an assertion of a client counts once, for this issuer, signed by its own key.
#[test]
fn a_client_assertion_is_checked_in_full() {
    let soon = NOW_MS / 1000 + 60;
    let jti = "0123456789abcdef";
    let good = assertion(ISSUER, "keyed", soon, jti);
    let stranger = Platform::new(4).token(&json!({
        "iss": "keyed", "sub": "keyed", "aud": ISSUER, "exp": soon, "jti": jti,
    }));
    let mut server = server();
    let mut asked = |assertion: &str| {
        ask(
            &mut server,
            &[
                ("grant_type", "client_credentials"),
                ("resource", "https://mcp.example"),
                ("client_assertion_type", ASSERTED),
                ("client_assertion", assertion),
            ],
        )
        .0
    };
    for bad in [
        assertion("https://as.example/", "keyed", soon, jti),
        assertion("https://as.example/token", "keyed", soon, jti),
        assertion(ISSUER, "other", soon, jti),
        assertion(ISSUER, "keyed", NOW_MS / 1000, jti),
        assertion(ISSUER, "keyed", soon + 3600, jti),
        assertion(ISSUER, "keyed", soon, ""),
        stranger,
        format!("{}x", good),
        "a.b.c".to_owned(),
    ] {
        assert_eq!(asked(&bad), "invalid_client", "{bad}");
    }
    assert_eq!(asked(&good), "");
    assert_eq!(asked(&good), "invalid_client", "used before");
}

/// EXT-40: a workload's token is believed if somebody known has signed it, for this issuer, and it is not over; a public client
/// alone is nobody.
#[test]
fn a_workload_token_is_checked_in_full() {
    let mut server = server();
    let token =
        |seed, aud: &str, exp: u64| Platform::new(seed).token(&json!({ "aud": aud, "exp": exp }));
    let soon = NOW_MS / 1000 + 60;
    for (token, error) in [
        (token(1, ISSUER, soon), ""),
        (token(2, ISSUER, soon), "invalid_grant"),
        (token(1, "https://as.example/", soon), "invalid_grant"),
        (token(1, ISSUER, NOW_MS / 1000), "invalid_grant"),
        ("a.b.c".to_owned(), "invalid_grant"),
    ] {
        let fields = [
            ("grant_type", JWT_BEARER),
            ("client_id", "job"),
            ("resource", "https://mcp.example"),
            ("assertion", &token),
        ];
        assert_eq!(ask(&mut server, &fields).0, error);
    }
    let alone = [("grant_type", "client_credentials"), ("client_id", "job")];
    assert_eq!(ask(&mut server, &alone).0, "unauthorized_client");
    assert_eq!(server.asked().len(), 6);
    assert_eq!(
        server.asked().iter().filter(|asked| asked.granted).count(),
        1
    );
}

/// EXT-20: an identity provider gives an assertion for the audience and the resource that were named, to whom the identity was
/// issued, and nothing else.
#[test]
fn an_identity_provider_vouches_for_its_own() {
    let mut server = server();
    let identity = |seed, aud: &str| {
        Platform::new(seed).token(&json!({ "sub": "alice", "aud": aud, "exp": NOW_MS }))
    };
    let mut asked = |token: &str, kind: &str| {
        ask(
            &mut server,
            &[
                ("grant_type", TOKEN_EXCHANGE),
                ("client_id", "job"),
                ("subject_token", token),
                ("requested_token_type", kind),
                ("audience", "https://other.example"),
                ("resource", "https://mcp.example"),
            ],
        )
    };
    let id_jag = "urn:ietf:params:oauth:token-type:id-jag";
    assert_eq!(asked(&identity(1, "job"), id_jag).0, "invalid_grant");
    assert_eq!(asked(&identity(2, "keyed"), id_jag).0, "invalid_grant");
    let access = "urn:ietf:params:oauth:token-type:access_token";
    assert_eq!(asked(&identity(2, "job"), access).0, "invalid_request");
    let (error, body) = asked(&identity(2, "job"), id_jag);
    assert_eq!((error.as_str(), &body["token_type"]), ("", &json!("N_A")));
    assert_eq!(body["issued_token_type"], id_jag);
    let claims = body["access_token"]
        .as_str()
        .unwrap()
        .split('.')
        .nth(1)
        .unwrap();
    let claims = URL_SAFE_NO_PAD.decode(claims);
    let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
    assert_eq!(claims["aud"], "https://other.example");
    assert_eq!(claims["resource"], "https://mcp.example");
}
