use super::*;
use crate::{issuer::Issuer, resource::Resource};

const OURS: &str = "http://127.0.0.1:7777/callback";

fn asked() -> ClientMetadata {
    ClientMetadata {
        client_name: "Pilotlight".into(),
        redirect_uris: vec![OURS.into()],
        ..ClientMetadata::default()
    }
}

fn answered(answer: Value) -> Result<(Client, Option<RegistrationManagement>), Error> {
    parse_registration(answer.to_string().as_bytes(), &asked())
}

fn refused_field(answer: Value) -> &'static str {
    match answered(answer) {
        Err(Error::MetadataInvalid {
            document: "registration answer",
            field,
            ..
        }) => field,
        other => panic!("{other:?}"),
    }
}

fn metadata(methods: Option<&[&str]>) -> ServerMetadata {
    let body = json!({
        "issuer": "https://as.example",
        "token_endpoint": "https://as.example/token",
        "token_endpoint_auth_methods_supported": methods,
    });
    ServerMetadata::parse(
        body.to_string().as_bytes(),
        &Issuer::parse("https://as.example").unwrap(),
    )
    .unwrap()
}

/// AUTH-37, AUTH-91, AUTH-43: what the issuer is told.
#[test]
fn the_request_says_native_and_refresh() {
    let mut client = asked();
    let body: Value = serde_json::from_slice(&client.to_json(ClientAuthentication::None)).unwrap();
    assert_eq!(
        body,
        json!({
            "application_type": "native",
            "client_name": "Pilotlight",
            "redirect_uris": [OURS],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        })
    );
    client.scope = Some(Scopes::parse("a b"));
    client.software_id = Some("id".into());
    let body: Value = serde_json::from_slice(&client.to_json(ClientAuthentication::Post)).unwrap();
    assert_eq!(
        (&body["scope"], &body["software_id"]),
        (&json!("a b"), &json!("id"))
    );
    assert_eq!(body["token_endpoint_auth_method"], "client_secret_post");
}

/// AUTH-36, AUTH-44: the secret, its end and the answered method are kept.
#[test]
fn an_answer_is_read() {
    let (client, management) = answered(json!({
        "client_id": "c 1",
        "client_secret": "s3",
        "client_secret_expires_at": 2_000_000_000,
        "token_endpoint_auth_method": "client_secret_post",
        "redirect_uris": ["https://other.example/", OURS],
        "registration_client_uri": "https://as.example/register/c1",
        "registration_access_token": "rat",
    }))
    .unwrap();
    assert_eq!(client.id, "c 1");
    assert_eq!(client.secret, ClientSecret::new("s3".into()).ok());
    assert_eq!(
        client.secret_expires_at,
        Some(Wall::from_unix_seconds(2_000_000_000))
    );
    assert_eq!(
        (client.authentication, client.source),
        (ClientAuthentication::Post, ClientSource::Dynamic)
    );
    assert!(client.secret_expired(Wall::from_unix_seconds(2_000_000_000)));
    assert!(!client.secret_expired(Wall::from_unix_seconds(1_999_999_999)));
    let management = management.unwrap();
    assert_eq!(
        (management.uri.path(), management.token.expose()),
        ("/register/c1", "rat")
    );
    let delete = management.delete_request().unwrap();
    assert_eq!(
        (delete.method, delete.url.as_str()),
        (Method::DELETE, "https://as.example/register/c1")
    );
    assert_eq!(delete.headers[AUTHORIZATION], "Bearer rat");
    assert!(delete.headers[AUTHORIZATION].is_sensitive() && delete.body.is_empty());
}

/// AUTH-44: what an answer leaves out has the RFC's default, and 0 is never.
#[test]
fn what_an_answer_omits_has_a_default() {
    let (public, management) = answered(json!({"client_id": "c"})).unwrap();
    assert_eq!(
        (public.authentication, public.secret, management),
        (ClientAuthentication::None, None, None)
    );
    let (secret, _) =
        answered(json!({"client_id": "c", "client_secret": "s", "client_secret_expires_at": 0}))
            .unwrap();
    assert_eq!(
        (secret.authentication, secret.secret_expires_at),
        (ClientAuthentication::Basic, None)
    );
    let (odd, _) =
        answered(json!({"client_id": "c", "client_secret": "", "client_secret_expires_at": "7"}))
            .unwrap();
    assert_eq!(
        (odd.authentication, odd.secret_expires_at),
        (ClientAuthentication::None, None)
    );
}

/// T-19: a poisoned answer is refused, and the field is named.
#[test]
fn a_poisoned_answer_is_refused() {
    for id in [
        Value::Null,
        json!(""),
        json!(7),
        json!("a\u{0}b"),
        json!("caf\u{e9}"),
        json!("a\r\nX: y"),
        json!("x".repeat(2 << 20)),
    ] {
        assert_eq!(refused_field(json!({"client_id": id})), "client_id");
    }
    assert_eq!(refused_field(json!({})), "client_id");
    for uris in [
        json!([]),
        json!(["https://evil.example/cb"]),
        json!("http://127.0.0.1:7777/callback"),
        json!([7]),
    ] {
        assert_eq!(
            refused_field(json!({"client_id": "c", "redirect_uris": uris})),
            "redirect_uris"
        );
    }
    for secret in [json!("a\nb"), json!(7), json!("x".repeat(10_000))] {
        assert_eq!(
            refused_field(json!({"client_id": "c", "client_secret": secret})),
            "client_secret"
        );
    }
    for method in [
        json!("client_secret_basic"),
        json!("client_secret_post"),
        json!("private_key_jwt"),
        json!(7),
    ] {
        let answer = json!({"client_id": "c", "token_endpoint_auth_method": method});
        assert_eq!(refused_field(answer), "token_endpoint_auth_method");
    }
    for body in ["", "[]", "null", "<html>"] {
        assert!(
            parse_registration(body.as_bytes(), &asked()).is_err(),
            "{body}"
        );
    }
}

/// T-19: an issuer may write our redirect URI as its URL parser does, and nothing more.
#[test]
fn an_echo_is_compared_as_a_url() {
    let asked = ClientMetadata {
        redirect_uris: vec!["http://localhost:1".into()],
        ..ClientMetadata::default()
    };
    let read = |uri: &str| {
        parse_registration(
            json!({"client_id": "c", "redirect_uris": [uri]})
                .to_string()
                .as_bytes(),
            &asked,
        )
    };
    assert!(read("http://LOCALHOST:1/").is_ok());
    assert!(read("http://localhost:2/").is_err());
    assert!(read("http://localhost:1/x").is_err());
}

/// T-02, T-19: a management URL that must not be visited is dropped.
#[test]
fn an_unsafe_management_url_is_dropped() {
    for uri in [
        "http://as.example/r",
        "javascript:1",
        "",
        "https://u:p@as.example/r",
    ] {
        let answer = json!({"client_id": "c", "registration_client_uri": uri, "registration_access_token": "t"});
        assert_eq!(answered(answer).unwrap().1, None, "{uri}");
    }
}

/// AUTH-38: a refusal names the issuer, its own error, and what to enter by hand; what passes by itself is none.
#[test]
fn a_refusal_names_the_error() {
    let issuer = Issuer::parse("https://as.example").unwrap();
    let uri = "http://127.0.0.1:50000/callback".to_owned();
    let asked = ClientMetadata::new("Pilotlight".into(), vec![uri.clone()], None);
    let told = |status, body: &[u8]| parse_refusal(status, body, &issuer, &asked);
    let refused = |error: &str| Error::RegistrationRefused {
        issuer: issuer.as_str().to_owned(),
        error: error.into(),
        redirect_uris: vec![uri.clone()],
    };
    let body = br#"{"error":"invalid_redirect_uri","error_description":"\u001b]52;x"}"#;
    assert_eq!(told(400, body), refused("invalid_redirect_uri"));
    assert_eq!(told(403, b"<html>"), refused("HTTP 403"));
    assert_eq!(
        told(400, br#"{"error":"\u001b]52;c"}"#),
        refused("HTTP 400"),
        "T-21"
    );
    assert_eq!(
        told(503, body),
        Error::ServerError {
            status: 503,
            retry_after: None
        }
    );
    assert_eq!(told(429, b""), Error::RateLimited { retry_after: None });
}

/// AUTH-44: the method follows what the server offers; a silent document offers Basic.
#[test]
fn authentication_follows_the_offer() {
    use ClientAuthentication::{Basic, None as Public, Post};
    for (methods, with_secret, to_ask) in [
        (
            Some(&["none", "client_secret_post", "client_secret_basic"][..]),
            Basic,
            Public,
        ),
        (Some(&["client_secret_post", "none"]), Post, Public),
        (Some(&["client_secret_post"]), Post, Post),
        (Some(&["client_secret_basic"]), Basic, Basic),
        (Some(&["none"]), Public, Public),
        (Some(&["private_key_jwt"]), Basic, Public),
        (Some(&[]), Basic, Public),
        (None, Basic, Basic),
    ] {
        let server = metadata(methods);
        assert_eq!(
            choose_authentication(&server, true),
            with_secret,
            "{methods:?}"
        );
        assert_eq!(authentication_to_ask(&server), to_ask, "{methods:?}");
        assert_eq!(choose_authentication(&server, false), Public, "{methods:?}");
        assert_eq!(
            Client::pre_registered("c".into(), None, &server).authentication,
            Public,
            "{methods:?}"
        );
    }
    let legacy = ServerMetadata::legacy(&Resource::parse("https://x.example").unwrap());
    assert_eq!(authentication_to_ask(&legacy), Public);
    assert_eq!(choose_authentication(&legacy, true), Basic);
}

/// AUTH-31, AUTH-32, AUTH-33: pre-registered, then a metadata document where it can be one, then dynamic, then nothing.
#[test]
fn the_ways_have_an_order() {
    let url = |text: &str| Url::parse(text).unwrap();
    let document = url("https://client.example/client.json");
    let register = url("https://as.example/register");
    let mut server = metadata(None);
    let client = Client::pre_registered("c".into(), None, &server);
    assert_eq!(choose(None, Some(&document), &server), Way::Nothing);
    server.registration_endpoint = Some(register.clone());
    assert_eq!(
        choose(None, Some(&document), &server),
        Way::Dynamic(register.clone())
    );
    server.client_id_metadata_document = true;
    assert_eq!(
        choose(None, Some(&document), &server),
        Way::MetadataDocument(document.clone())
    );
    assert_eq!(
        choose(Some(&client), Some(&document), &server),
        Way::PreRegistered(client)
    );
    for no_id in [
        "http://localhost/client.json",
        "https://client.example",
        "https://client.example/c#f",
    ] {
        assert_eq!(
            choose(None, Some(&url(no_id)), &server),
            Way::Dynamic(register.clone()),
            "{no_id}"
        );
    }
    assert_eq!(choose(None, None, &server), Way::Dynamic(register));
}

/// EXT-32, T-33: the sealed form keeps the secret, no other form shows it.
#[test]
fn the_sealed_form_round_trips() {
    let (client, _) = answered(json!({"client_id": "c", "client_secret": "canary-s3"})).unwrap();
    let sealed = serde_json::to_string(&client).unwrap();
    assert_eq!(serde_json::from_str::<Client>(&sealed).unwrap(), client);
    assert!(sealed.contains("\"client_secret_basic\"") && sealed.contains("canary-s3"));
    assert!(!format!("{client:?}").contains("canary"));
    let document = Client::metadata_document(&Url::parse("https://client.example/c.json").unwrap());
    assert_eq!(
        (document.id.as_str(), document.authentication),
        ("https://client.example/c.json", ClientAuthentication::None)
    );
}
