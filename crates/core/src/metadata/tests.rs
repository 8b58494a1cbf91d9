use proptest::prelude::*;
use serde_json::json;

use super::*;

fn resource(text: &str) -> Resource {
    Resource::parse(text).unwrap()
}

fn issuer(text: &str) -> Issuer {
    Issuer::parse(text).unwrap()
}

fn invalid(document: &'static str, got: Result<impl std::fmt::Debug, Error>) -> &'static str {
    match got {
        Err(Error::MetadataInvalid {
            document: named,
            field,
            ..
        }) if named == document => field,
        other => panic!("{other:?}"),
    }
}

/// The metadata of `issuer_text` with some fields replaced.
fn server(issuer_text: &str, fields: Value) -> Result<ServerMetadata, Error> {
    let mut document = json!({
        "issuer": issuer_text,
        "authorization_endpoint": format!("{issuer_text}/authorize"),
        "token_endpoint": format!("{issuer_text}/token"),
    });
    for (name, value) in fields.as_object().unwrap() {
        document[name] = value.clone();
    }
    ServerMetadata::parse(document.to_string().as_bytes(), &issuer(issuer_text))
}

const AS: &str = "https://as.example";

/// AUTH-13: the path form, then the root; never the same place twice, never a query.
#[test]
fn resource_metadata_is_looked_for_in_the_normative_order() {
    let urls = |text| {
        resource_metadata_urls(&resource(text))
            .into_iter()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let root = "https://x.example/.well-known/oauth-protected-resource";
    assert_eq!(urls("https://x.example"), [root]);
    assert_eq!(urls("https://x.example/?a=b"), [root]);
    assert_eq!(
        urls("https://x.example/a%20b/mcp?c=d"),
        [&format!("{root}/a%20b/mcp"), root]
    );
    assert_eq!(
        urls("https://x.example/mcp/"),
        [&format!("{root}/mcp"), root]
    );
    assert_eq!(
        urls("http://localhost:81/m")[1],
        "http://localhost:81/.well-known/oauth-protected-resource"
    );
}

/// AUTH-14, T-17: a document speaks for its own resource and for what is below it.
#[test]
fn a_document_for_another_resource_is_refused() {
    let server = resource("https://x.example/a/mcp");
    let parse = |published: &str| {
        let body = json!({"resource": published, "authorization_servers": [AS]}).to_string();
        ResourceMetadata::parse(body.as_bytes(), &server)
    };
    for good in [
        "https://x.example/a/mcp",
        "https://x.example/a",
        "https://x.example/",
        "HTTPS://X.example:443",
    ] {
        assert_eq!(
            parse(good).unwrap().resource.as_str(),
            good,
            "the text is kept (AUTH-73)"
        );
    }
    for bad in [
        "https://x.example/a/mcp/deeper",
        "https://x.example/b",
        "https://x.example/a/mc",
        "https://evil.example/a/mcp",
        "http://x.example/a/mcp",
        "https://x.example:444/a/mcp",
        "not a url",
    ] {
        assert_eq!(
            parse(bad),
            Err(Error::ResourceMismatch {
                published: bad.to_owned()
            }),
            "{bad}"
        );
    }
}

/// AUTH-15, AUTH-69, T-02: issuers that cannot be used are left out, and only if none is left it is an error.
#[test]
fn unusable_authorization_servers_are_left_out() {
    let server = resource("https://x.example/mcp");
    let parse = |servers: Value| {
        let body = json!({"resource": "https://x.example/mcp", "authorization_servers": servers})
            .to_string();
        ResourceMetadata::parse(body.as_bytes(), &server)
    };
    let mixed = parse(json!([
        "javascript:1",
        7,
        AS,
        "http://as.example",
        AS,
        "https://b.example/t"
    ]))
    .unwrap();
    assert_eq!(
        mixed.authorization_servers,
        [issuer(AS), issuer("https://b.example/t")]
    );
    for none in [json!([]), Value::Null] {
        assert_eq!(parse(none).unwrap().authorization_servers, []);
    }
    for bad in [
        json!(["file:///x"]),
        json!([null]),
        json!("https://as.example"),
        json!({}),
    ] {
        assert_eq!(
            invalid(RESOURCE_DOCUMENT, parse(bad)),
            "authorization_servers"
        );
    }
}

/// AUTH-51: the optional fields are read where they have their type and ignored where not.
#[test]
fn optional_fields_of_a_wrong_type_are_absent() {
    let server = resource("https://x.example");
    let parse = |scopes: Value, dpop: Value| {
        let body = json!({"resource": "https://x.example", "scopes_supported": scopes,
            "dpop_bound_access_tokens_required": dpop});
        ResourceMetadata::parse(body.to_string().as_bytes(), &server).unwrap()
    };
    let found = parse(json!(["a", 1, "b"]), json!(true));
    assert_eq!(
        (found.scopes_supported, found.dpop_required),
        (Some(Scopes::parse("a b")), true)
    );
    let found = parse(json!("a b"), json!("true"));
    assert_eq!((found.scopes_supported, found.dpop_required), (None, false));
}

/// AUTH-23, T-17: the issuer is compared byte for byte, and no metadata of another one is used.
#[test]
fn another_issuer_is_refused() {
    for got in [
        "https://as.example/",
        "https://AS.example",
        "https://as.example:443",
        "https://evil",
        "",
    ] {
        let want = Error::IssuerMismatch {
            expected: AS.into(),
            got: got.into(),
        };
        assert_eq!(server(AS, json!({"issuer": got})), Err(want));
    }
    let want = Error::IssuerMismatch {
        expected: AS.into(),
        got: String::new(),
    };
    assert_eq!(server(AS, json!({"issuer": null})), Err(want));
    let twice = br#"{"issuer":"https://as.example","token_endpoint":"https://as.example/t","issuer":"https://evil"}"#;
    assert!(matches!(
        ServerMetadata::parse(twice, &issuer(AS)),
        Err(Error::IssuerMismatch { .. })
    ));
}

/// T-01, T-02, AUTH-25, AUTH-67: whatever a URL field says, only https gets through, and the field is named.
#[test]
fn every_url_field_is_judged() {
    let schemes = [
        "javascript:alert(1)",
        " javascript:alert(1)",
        "java\tscript:alert(1)",
        "file:///etc/passwd",
        "data:text/html,x",
        "vbscript:x",
        "ms-msdt:/id",
        "smb://evil/x",
        "zed://x",
    ];
    let endpoints = [
        "authorization_endpoint",
        "token_endpoint",
        "registration_endpoint",
        "revocation_endpoint",
        "device_authorization_endpoint",
    ];
    for field in endpoints.iter().chain(&UNUSED_ENDPOINTS) {
        let odd = [
            "http://as.example/x",
            "http://127.0.0.1/x",
            "https://u:p@as.example/",
            "https://as.example/#f",
            "--upload-pack=x",
            "\\\\evil\\x",
            "/x",
        ];
        for url in schemes.iter().chain(&odd) {
            assert_eq!(
                invalid(SERVER_DOCUMENT, server(AS, json!({*field: url}))),
                *field,
                "{url}"
            );
        }
        assert_eq!(
            invalid(SERVER_DOCUMENT, server(AS, json!({*field: 7}))),
            *field
        );
        let long = format!("https://as.example/{}", "x".repeat(64 * 1024));
        assert_eq!(
            invalid(SERVER_DOCUMENT, server(AS, json!({*field: long}))),
            *field
        );
    }
    for field in PAGES {
        for url in schemes {
            assert_eq!(
                invalid(SERVER_DOCUMENT, server(AS, json!({field: url}))),
                field,
                "{url}"
            );
        }
        for harmless in ["http://as.example/terms", "/terms", ""] {
            assert!(
                server(AS, json!({field: harmless})).is_ok(),
                "{field} {harmless}"
            );
        }
    }
}

/// T-01: what is left of a URL full of shell is a URL that starts with https.
#[test]
fn shell_words_survive_only_as_a_url() {
    for payload in [
        "https://a.example/$(calc.exe)/`id`",
        "https://a.example/\"&calc&\"\r\nX: y",
        "https://a.example/|a b",
    ] {
        let url = server(AS, json!({"authorization_endpoint": payload}))
            .unwrap()
            .authorization_endpoint
            .unwrap();
        assert!(url.as_str().starts_with("https://a.example/"));
        assert!(!url.as_str().contains([' ', '"', '\r', '\n']), "{url}");
    }
    assert_eq!(
        invalid(
            SERVER_DOCUMENT,
            server(AS, json!({"token_endpoint": "http://a$(calc.exe)/"}))
        ),
        "token_endpoint"
    );
}

/// AUTH-25, AUTH-101: plain http needs a loopback issuer and a loopback endpoint.
#[test]
fn http_is_for_loopback_issuers_only() {
    let local = "http://127.0.0.1:9000";
    assert!(server(local, json!({})).is_ok());
    assert!(server(local, json!({"token_endpoint": "http://localhost:1/t"})).is_ok());
    let out = server(local, json!({"token_endpoint": "http://as.example/t"}));
    assert_eq!(invalid(SERVER_DOCUMENT, out), "token_endpoint");
}

/// T-18: an endpoint on another https origin is allowed by RFC 8414; showing and pinning it is the login's affair.
#[test]
fn endpoints_may_be_on_another_origin() {
    let found = server(AS, json!({"token_endpoint": "https://tokens.example/t"})).unwrap();
    assert_eq!(found.token_endpoint.host_str(), Some("tokens.example"));
}

/// AUTH-20: what RFC 8414 and OpenID Connect Discovery publish is read alike.
#[test]
fn a_full_document_is_read() {
    let found = server(
        AS,
        json!({
            "registration_endpoint": "https://as.example/register",
            "revocation_endpoint": "https://as.example/revoke",
            "device_authorization_endpoint": "https://as.example/device",
            "jwks_uri": "https://as.example/jwks",
            "scopes_supported": ["a", "offline_access"],
            "code_challenge_methods_supported": ["plain", "S256"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "grant_types_supported": ["refresh_token"],
            "authorization_response_iss_parameter_supported": true,
            "client_id_metadata_document_supported": true,
            "dpop_signing_alg_values_supported": ["RS256", "ES256"],
            "response_types_supported": 7,
            "x": {"y": []},
        }),
    )
    .unwrap();
    assert_eq!(
        found.registration_endpoint.as_ref().map(Url::as_str),
        Some("https://as.example/register")
    );
    assert_eq!(
        found.revocation_endpoint.as_ref().map(Url::as_str),
        Some("https://as.example/revoke")
    );
    assert_eq!(
        found
            .device_authorization_endpoint
            .as_ref()
            .map(Url::as_str),
        Some("https://as.example/device")
    );
    assert_eq!(
        found.scopes_supported,
        Some(Scopes::parse("a offline_access"))
    );
    assert_eq!(found.revocation_auth_methods, Some(vec!["none".to_owned()]));
    assert!(found.iss_parameter && found.client_id_metadata_document && !found.legacy);
    assert!(found.offers(ClientAuthentication::None) && found.offers(ClientAuthentication::Post));
    assert!(
        !found.offers(ClientAuthentication::Basic),
        "a published list has no default beside it"
    );
    assert!(found.offers_grant("refresh_token") && !found.offers_grant("authorization_code"));
    assert!(found.binds_tokens());
    let silent = server(AS, json!({"token_endpoint_auth_methods_supported": null})).unwrap();
    assert!(
        silent.offers(ClientAuthentication::Basic) && !silent.offers(ClientAuthentication::None),
        "AUTH-44"
    );
    assert!(!silent.binds_tokens());
}

/// AUTH-24, T-08: no S256, no login; only a server without metadata is exempt.
#[test]
fn a_server_without_s256_is_refused() {
    for methods in [
        Value::Null,
        json!([]),
        json!(["plain"]),
        json!(["s256"]),
        json!("S256"),
        json!([["S256"]]),
    ] {
        let found = server(AS, json!({"code_challenge_methods_supported": methods})).unwrap();
        assert_eq!(
            found.require_pkce_s256(),
            Err(Error::NoPkceS256),
            "{methods}"
        );
    }
    let found = server(AS, json!({"code_challenge_methods_supported": ["S256"]})).unwrap();
    assert_eq!(found.require_pkce_s256(), Ok(()));
    assert_eq!(
        ServerMetadata::legacy(&resource("https://x.example/mcp")).require_pkce_s256(),
        Ok(())
    );
}

/// AUTH-17: the 2025-03-26 endpoints are at the origin, whatever path and query the server has.
#[test]
fn legacy_endpoints_are_at_the_origin() {
    let found = ServerMetadata::legacy(&resource("https://X.example:443/a/mcp?q=1"));
    assert_eq!(found.issuer.as_str(), "https://x.example");
    assert_eq!(
        found.authorization_endpoint.as_ref().map(Url::as_str),
        Some("https://x.example/authorize")
    );
    assert_eq!(found.token_endpoint.as_str(), "https://x.example/token");
    assert_eq!(
        found.registration_endpoint.as_ref().map(Url::as_str),
        Some("https://x.example/register")
    );
    assert!(found.legacy);
    for local in [
        "http://localhost:3000/mcp",
        "http://[::1]:8/",
        "http://127.1/",
    ] {
        assert_eq!(
            ServerMetadata::legacy(&resource(local))
                .token_endpoint
                .path(),
            "/token"
        );
    }
}

/// T-17: what is no document says so, a depth bomb included.
#[test]
fn what_is_no_document_is_refused() {
    let bomb = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("{{\"issuer\":\"{AS}\",\"x\":{bomb}}}");
    for body in ["", "[]", "null", "{", "<html>", "\"x\"", &bomb, &deep] {
        assert_eq!(
            invalid(
                SERVER_DOCUMENT,
                ServerMetadata::parse(body.as_bytes(), &issuer(AS))
            ),
            "document"
        );
        let parsed = ResourceMetadata::parse(body.as_bytes(), &resource("https://x.example"));
        assert_eq!(invalid(RESOURCE_DOCUMENT, parsed), "document");
    }
    for missing in [json!({}), json!({"resource": ""}), json!({"resource": 7})] {
        let parsed = ResourceMetadata::parse(
            missing.to_string().as_bytes(),
            &resource("https://x.example"),
        );
        assert_eq!(invalid(RESOURCE_DOCUMENT, parsed), "resource");
    }
    assert_eq!(
        invalid(SERVER_DOCUMENT, server(AS, json!({"token_endpoint": null}))),
        "token_endpoint"
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "(https|http|file|javascript)://?(localhost|x.example|\\[::1\\]|u@x)?(:[0-9]{1,6})?/?[ -~]{0,9}"
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,6}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

const FIELDS: [&str; 16] = [
    "authorization_endpoint",
    "token_endpoint",
    "registration_endpoint",
    "revocation_endpoint",
    "device_authorization_endpoint",
    "jwks_uri",
    "op_tos_uri",
    "scopes_supported",
    "code_challenge_methods_supported",
    "token_endpoint_auth_methods_supported",
    "grant_types_supported",
    "authorization_response_iss_parameter_supported",
    "client_id_metadata_document_supported",
    "authorization_servers",
    "resource",
    "dpop_bound_access_tokens_required",
];

proptest! {
    /// T-02, T-17: whatever the fields hold, both readers answer, and what they let through is https.
    #[test]
    fn any_document_is_judged(fields in prop::collection::btree_map(prop::sample::select(&FIELDS[..]), any_json(), 0..10)) {
        let server = resource("https://x.example/mcp");
        let mut document: Value = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        document["issuer"] = json!(AS);
        if let Ok(found) = ServerMetadata::parse(document.to_string().as_bytes(), &issuer(AS)) {
            let urls = [&found.authorization_endpoint, &found.registration_endpoint, &found.revocation_endpoint];
            prop_assert!(urls.into_iter().flatten().chain([&found.token_endpoint]).all(|url| url.scheme() == "https"));
        }
        if let Ok(found) = ResourceMetadata::parse(document.to_string().as_bytes(), &server) {
            prop_assert!(server.is_within(&found.resource));
            prop_assert!(found.authorization_servers.iter().all(|i| Issuer::parse(i.as_str()).is_ok()));
        }
    }

    /// T-17: any bytes are read without a panic.
    #[test]
    fn any_bytes_are_judged(body in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(ServerMetadata::parse(&body, &issuer(AS)).is_err());
        prop_assert!(ResourceMetadata::parse(&body, &resource("https://x.example")).is_err());
    }
}
