//! Discovery, registration, authorization, code exchange, revocation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::AUTHORIZATION;
use pilotlight_testkit::authorization_server::{
    Approval, AuthorizationServerConfig, ClientAuthentication, IssueRefreshToken, Kind, Outcome,
    SendIss, StaticClient,
};
use pilotlight_testkit::{AuthorizationServer, Request};
use serde_json::json;

use crate::world::{CALLBACK, ISSUER, RESOURCE, Tokens, World, error_of, get, register, returned};

#[test]
fn metadata_says_what_the_server_does() {
    let mut world = World::with(|_| {});
    let body = world
        .send(get("/.well-known/oauth-authorization-server"))
        .body_json();
    assert_eq!(body["issuer"], ISSUER);
    assert_eq!(body["token_endpoint"], format!("{ISSUER}/token"));
    assert_eq!(body["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(body["authorization_response_iss_parameter_supported"], true);
    assert!(
        body["scopes_supported"]
            .as_array()
            .unwrap()
            .contains(&json!("offline_access"))
    );
    let openid = world.send(get("/.well-known/openid-configuration"));
    assert_eq!(openid.status, StatusCode::NOT_FOUND);
    assert_eq!(world.server.stats().discovery, 2);
}

#[test]
fn metadata_members_can_be_left_out_or_replaced() {
    let mut world = World::with(|config| {
        config.pkce_methods.clear();
        config.registration = false;
        config.advertise_iss = false;
        config.list_offline_access = false;
        config.metadata_overrides =
            json!({ "issuer": "https://evil.example", "revocation_endpoint": null });
    });
    let body = world
        .send(get("/.well-known/oauth-authorization-server"))
        .body_json();
    assert_eq!(body["issuer"], "https://evil.example");
    for absent in [
        "revocation_endpoint",
        "code_challenge_methods_supported",
        "registration_endpoint",
        "authorization_response_iss_parameter_supported",
    ] {
        assert!(body.get(absent).is_none(), "{absent}");
    }
    assert!(
        !body["scopes_supported"]
            .as_array()
            .unwrap()
            .contains(&json!("offline_access"))
    );
}

#[test]
fn an_issuer_with_a_path_serves_the_inserted_forms_only() {
    let config = AuthorizationServerConfig::default().with(|c| c.serve_openid_metadata = true);
    let mut server = AuthorizationServer::new(format!("{ISSUER}/t"), config);
    for (path, status) in [
        ("/.well-known/oauth-authorization-server/t", 200),
        ("/.well-known/openid-configuration/t", 200),
        ("/t/.well-known/openid-configuration", 200),
        ("/.well-known/oauth-authorization-server", 404),
        ("/t/.well-known/oauth-authorization-server", 404),
        ("/token", 404),
    ] {
        assert_eq!(server.handle(0, get(path)).status, status, "{path}");
    }
    let body = server
        .handle(0, get("/t/.well-known/openid-configuration"))
        .body_json();
    assert_eq!(
        body["authorization_endpoint"],
        format!("{ISSUER}/t/authorize")
    );
}

#[test]
fn a_login_gives_tokens_for_the_resource() {
    let mut world = World::with(|_| {});
    let redirect = world.authorize(&[]);
    assert_eq!(redirect.status, StatusCode::FOUND);
    assert_eq!(returned(&redirect, "state").as_deref(), Some("st"));
    assert_eq!(returned(&redirect, "iss").as_deref(), Some(ISSUER));
    let code = returned(&redirect, "code").unwrap();
    let response = world.exchange(&code, &[]);
    let body = response.body_json();
    assert_eq!(response.headers["cache-control"], "no-store");
    assert_eq!(
        (&body["token_type"], &body["expires_in"]),
        (&json!("Bearer"), &json!(3600))
    );
    let tokens = Tokens::of(&response);
    assert!(tokens.access.starts_with("at-") && tokens.refresh.starts_with("rt-"));
    let facts = world.server.introspect(world.now, &tokens.access);
    assert_eq!(facts.resource.as_deref(), Some(RESOURCE));
    assert_eq!(facts.scope, "mcp:tools");
    world.now += 3_600_000;
    assert!(!world.active(&tokens.access), "expired");
}

#[test]
fn the_same_seed_gives_the_same_tokens() {
    let login = |seed| World::with(|config| config.seed = seed).login();
    assert_eq!(login(7), login(7));
    assert_ne!(login(7), login(8));
}

#[test]
fn authorization_requests_without_pkce_or_resource_are_sent_back_with_an_error() {
    let mut world = World::with(|_| {});
    for (change, error) in [
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("resource", ""), "invalid_target"),
        (("resource", "http://a.test/#f"), "invalid_target"),
        (("response_type", "token"), "unsupported_response_type"),
        (("scope", "unheard-of"), "invalid_scope"),
    ] {
        let response = world.authorize(&[change]);
        assert_eq!(
            returned(&response, "error").as_deref(),
            Some(error),
            "{change:?}"
        );
        assert_eq!(returned(&response, "state").as_deref(), Some("st"));
    }
}

#[test]
fn an_unknown_client_or_redirect_is_never_redirected() {
    let mut world = World::with(|_| {});
    for change in [
        ("client_id", "nobody"),
        ("redirect_uri", "http://127.0.0.1:4711/other"),
        ("redirect_uri", "https://evil.example/callback"),
    ] {
        let response = world.authorize(&[change]);
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{change:?}");
        assert!(response.headers.get("location").is_none());
    }
    world.server.config_mut().exact_redirect_port = true;
    let response = world.authorize(&[]);
    assert_eq!(response.status, StatusCode::BAD_REQUEST, "another port");
}

#[test]
fn a_code_needs_its_verifier_redirect_client_and_resource() {
    for (change, error) in [
        (("code_verifier", "wrong"), "invalid_grant"),
        (("code_verifier", ""), "invalid_grant"),
        (
            ("redirect_uri", "http://127.0.0.1:4712/callback"),
            "invalid_grant",
        ),
        (("redirect_uri", ""), "invalid_grant"),
        (("resource", "http://other.test/mcp"), "invalid_target"),
        (("resource", ""), "invalid_target"),
        (("client_id", "nobody"), "invalid_client"),
    ] {
        let mut world = World::with(|_| {});
        let code = world.code();
        let response = world.exchange(&code, &[change]);
        assert_eq!(error_of(&response), error, "{change:?}");
        assert_eq!(world.server.stats().by_error[error], 1);
    }
}

#[test]
fn a_code_works_once_and_a_second_use_takes_the_tokens_with_it() {
    let mut world = World::with(|_| {});
    let code = world.code();
    let tokens = Tokens::of(&world.exchange(&code, &[]));
    assert_eq!(error_of(&world.exchange(&code, &[])), "invalid_grant");
    assert!(!world.active(&tokens.access));
    assert_eq!(
        world.server.stats().reuse_revocations,
        0,
        "no refresh token was reused"
    );

    let code = world.code();
    world.now += 60_000;
    assert_eq!(
        error_of(&world.exchange(&code, &[])),
        "invalid_grant",
        "too late"
    );
}

#[test]
fn the_consent_page_can_be_allowed_or_denied_once() {
    let mut world = World::with(|config| config.approval = Approval::Page);
    for (decision, got) in [("allow", "code"), ("deny", "error")] {
        let page = world.authorize(&[("scope", "mcp:tools offline_access")]);
        assert_eq!(page.status, StatusCode::OK);
        let html = String::from_utf8(page.body).unwrap();
        assert!(html.contains("offline_access") && html.contains(RESOURCE));
        let from = html.find("name=\"page\" value=\"").unwrap() + 19;
        let page_id = &html[from..from + html[from..].find('"').unwrap()];
        let fields = [("page", page_id), ("decision", decision)];
        let answer = || Request::form("/authorize/decision", &fields);
        let response = world.send(answer());
        assert!(returned(&response, got).is_some(), "{decision}");
        assert_eq!(
            world.send(answer()).status,
            StatusCode::BAD_REQUEST,
            "answered before"
        );
    }
}

#[test]
fn a_denied_login_says_access_denied() {
    let mut world = World::with(|config| config.approval = Approval::Denied);
    let response = world.authorize(&[]);
    assert_eq!(
        returned(&response, "error").as_deref(),
        Some("access_denied")
    );
}

#[test]
fn the_iss_parameter_can_be_left_out_or_wrong() {
    let mut world = World::with(|config| config.send_iss = SendIss::No);
    assert_eq!(returned(&world.authorize(&[]), "iss"), None);
    world.server.config_mut().send_iss = SendIss::Other("https://evil.example".into());
    let iss = returned(&world.authorize(&[]), "iss");
    assert_eq!(iss.as_deref(), Some("https://evil.example"));
}

#[test]
fn refresh_tokens_can_depend_on_offline_access_or_never_come() {
    for (rule, scope, comes) in [
        (IssueRefreshToken::WithOfflineAccess, "mcp:tools", false),
        (
            IssueRefreshToken::WithOfflineAccess,
            "mcp:tools offline_access",
            true,
        ),
        (IssueRefreshToken::Never, "mcp:tools offline_access", false),
    ] {
        let mut world = World::with(|config| config.issue_refresh_token = rule);
        let code = returned(&world.authorize(&[("scope", scope)]), "code").unwrap();
        let tokens = Tokens::of(&world.exchange(&code, &[]));
        assert_eq!(!tokens.refresh.is_empty(), comes, "{rule:?} {scope}");
    }
}

#[test]
fn registration_refuses_bad_redirects_and_can_be_closed() {
    let mut world = World::with(|_| {});
    for uris in [
        json!([]),
        json!(["http://evil.example/cb"]),
        json!(["https://a.example/cb#f"]),
        json!(["javascript:alert(1)"]),
    ] {
        let response = world.send(register(&json!({ "redirect_uris": uris })));
        assert_eq!(error_of(&response), "invalid_redirect_uri", "{uris}");
    }
    assert_eq!(world.server.stats().registrations, 1);
    assert_eq!(world.server.ledger().of(Kind::Register).count(), 5);
    world.server.config_mut().registration = false;
    let response = world.send(register(&json!({ "redirect_uris": [CALLBACK] })));
    assert_eq!(response.status, StatusCode::NOT_FOUND);
}

#[test]
fn a_confidential_client_must_authenticate_as_it_registered() {
    let mut world = World::with(|config| config.confidential_clients = true);
    let registered = world
        .send(register(&json!({ "redirect_uris": [CALLBACK] })))
        .body_json();
    assert_eq!(
        registered["token_endpoint_auth_method"],
        "client_secret_basic"
    );
    let secret = registered["client_secret"].as_str().unwrap().to_owned();
    world.client_id = registered["client_id"].as_str().unwrap().into();

    let code = world.code();
    let response = world.exchange(&code, &[]);
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
    assert!(response.headers.contains_key("www-authenticate"));
    let response = world.exchange(&code, &[("client_secret", &secret)]);
    assert_eq!(
        error_of(&response),
        "invalid_client",
        "it registered the other method"
    );

    let form = Request::form(
        "/token",
        &[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", "http://127.0.0.1:4711/callback"),
            ("code_verifier", crate::world::VERIFIER),
            ("resource", RESOURCE),
        ],
    );
    let pair = STANDARD.encode(format!("{}:{secret}", world.client_id));
    let response = world.send(form.with_header(AUTHORIZATION, &format!("Basic {pair}")));
    assert_eq!(response.status, StatusCode::OK, "{}", response.body_json());
    let last = world.server.ledger().entries.last().unwrap();
    assert_eq!(last.client_id.as_deref(), Some(world.client_id.as_str()));
    assert!(world.server.issued_secrets().contains(&secret));
}

#[test]
fn a_server_without_public_clients_refuses_them() {
    let mut world = World::with(|config| {
        config.token_endpoint_auth_methods = vec![ClientAuthentication::Post];
        config.clients = vec![StaticClient {
            client_id: "fixed".into(),
            client_secret: Some("a secret of the fixed client".into()),
            redirect_uris: vec![CALLBACK.into()],
        }];
    });
    world.client_id = "fixed".into();
    let code = world.code();
    assert_eq!(error_of(&world.exchange(&code, &[])), "invalid_client");
    let wrong = world.exchange(&code, &[("client_secret", "a guess")]);
    assert_eq!(error_of(&wrong), "invalid_client");
    let secret = ("client_secret", "a secret of the fixed client");
    assert_eq!(world.exchange(&code, &[secret]).status, StatusCode::OK);
}

#[test]
fn a_client_id_metadata_document_is_a_registration_where_supported() {
    let id = "https://client.example/metadata.json";
    let mut world = World::with(|config| config.client_id_metadata_document_supported = true);
    world.client_id = id.into();
    world.login();
    world
        .server
        .config_mut()
        .client_id_metadata_documents
        .insert(
            id.into(),
            json!({ "client_id": "https://other.example/", "redirect_uris": [CALLBACK] }),
        );
    assert_eq!(
        world.authorize(&[]).status,
        StatusCode::BAD_REQUEST,
        "it names another"
    );
    world
        .server
        .config_mut()
        .client_id_metadata_document_supported = false;
    assert_eq!(world.authorize(&[]).status, StatusCode::BAD_REQUEST);
}

#[test]
fn a_forgotten_client_is_invalid_and_its_grants_remain() {
    let mut world = World::with(|_| {});
    let tokens = world.login();
    world.server.forget_clients();
    assert_eq!(error_of(&world.refresh(&tokens.refresh)), "invalid_client");
    assert_eq!(world.authorize(&[]).status, StatusCode::BAD_REQUEST);
    assert!(world.active(&tokens.access));
}

#[test]
fn revoking_a_refresh_token_ends_the_grant_and_an_access_token_only_itself() {
    let mut world = World::with(|_| {});
    let (first, second) = (world.login(), world.login());
    let client_id = world.client_id.clone();
    let revoke =
        |token: &str| Request::form("/revoke", &[("token", token), ("client_id", &client_id)]);

    assert_eq!(world.send(revoke(&first.refresh)).status, StatusCode::OK);
    assert!(!world.active(&first.access));
    assert_eq!(error_of(&world.refresh(&first.refresh)), "invalid_grant");

    assert_eq!(world.send(revoke(&second.access)).status, StatusCode::OK);
    assert!(!world.active(&second.access));
    assert_eq!(world.refresh(&second.refresh).status, StatusCode::OK);

    assert_eq!(
        world.send(revoke("rt-unknown")).status,
        StatusCode::OK,
        "RFC 7009 section 2.2"
    );
    assert_eq!(world.server.stats().revocations, 3);
    assert_eq!(world.server.live_grants(), 1);
    let entry = world.server.ledger().of(Kind::Revoke).next().unwrap();
    assert_eq!((entry.family, &entry.outcome), (Some(1), &Outcome::Ok));
}
