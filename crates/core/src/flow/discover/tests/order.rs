//! The normative order of places.

use super::*;

/// AUTH-10, AUTH-11: the server is asked without a token, by a message that starts no session.
#[test]
fn the_server_is_asked_without_a_token() {
    let mut stage = challenged("Bearer");
    published(&mut stage);
    let found = discover(&mut stage, task()).unwrap();
    let first = &stage.exchanges[0];
    assert_eq!(
        (first.leg, first.method.as_str(), first.url.as_str()),
        (Leg::Challenge, "POST", MCP)
    );
    assert!(!first.headers.contains_key("authorization"));
    assert_eq!(
        first.headers["accept"],
        "application/json, text/event-stream"
    );
    assert!(
        stage.exchanges[1..]
            .iter()
            .all(|e| e.leg == Leg::Metadata && e.method == "GET" && e.body.is_empty())
    );
    assert_eq!(
        found.server.token_endpoint.as_str(),
        "https://as.example/token"
    );
    assert_eq!(found.resource_scopes, Some(Scopes::parse("r1 r2")));
}

/// AUTH-12: the challenge's URL is used, wherever it leads, and neither well-known place is touched.
#[test]
fn the_challenges_url_goes_first_and_alone() {
    let mut stage = challenged(
        r#"Bearer resource_metadata="https://mcp.example/custom/location.json", scope="c1 c2""#,
    );
    published(&mut stage);
    let document = resource_document(MCP, r#"["https://as.example"]"#);
    stage.page(
        "https://mcp.example/custom/location.json",
        reply(200, &document),
    );
    let found = discover(&mut stage, task()).unwrap();
    assert_eq!(
        documents(&stage),
        ["https://mcp.example/custom/location.json", OAUTH]
    );
    assert_eq!(found.challenged, Some(Scopes::parse("c1 c2")));
}

/// AUTH-13: first the place with the path; the root is not touched when that one answered.
#[test]
fn the_path_goes_before_the_root() {
    let mut stage = challenged("Bearer");
    published(&mut stage);
    stage.page(
        RESOURCE_ROOT,
        reply(
            200,
            &resource_document("https://evil.example", r#"["https://evil.example"]"#),
        ),
    );
    discover(&mut stage, task()).unwrap();
    assert_eq!(documents(&stage), [RESOURCE_PATH, OAUTH]);
}

/// AUTH-13, AUTH-14, AUTH-73: the root comes second, may speak for the origin, and is sent exactly as published.
#[test]
fn the_root_comes_second_and_may_speak_for_the_origin() {
    for (published, absent) in [
        ("https://mcp.example", 404),
        ("HTTPS://mcp.example:443/", 405),
        (MCP, 401),
        (MCP, 403),
    ] {
        let mut stage = challenged("Bearer");
        stage.page(RESOURCE_PATH, reply(absent, ""));
        stage.page(
            RESOURCE_ROOT,
            reply(
                200,
                &resource_document(published, r#"["https://as.example"]"#),
            ),
        );
        stage.page(OAUTH, reply(200, &server_document("https://as.example")));
        let found = discover(&mut stage, task()).unwrap();
        assert_eq!(documents(&stage), [RESOURCE_PATH, RESOURCE_ROOT, OAUTH]);
        assert_eq!(found.resource_parameter.as_deref(), Some(published));
        assert_eq!(found.resource.as_str(), published);
    }
}

/// AUTH-20, AUTH-22: without a path RFC 8414 goes first, OpenID Connect Discovery second.
#[test]
fn an_issuer_without_a_path_has_two_places() {
    let mut stage = challenged("Bearer");
    published(&mut stage);
    stage.page(OAUTH, reply(404, ""));
    stage.page(OPENID, reply(200, &server_document("https://as.example")));
    discover(&mut stage, task()).unwrap();
    assert_eq!(documents(&stage), [RESOURCE_PATH, OAUTH, OPENID]);
}

/// AUTH-21: an issuer with a path has three, none of them at the root.
#[test]
fn an_issuer_with_a_path_has_three_places() {
    let mut stage = challenged("Bearer");
    stage.page(
        RESOURCE_PATH,
        reply(200, &resource_document(MCP, r#"["https://as.example/t"]"#)),
    );
    let last = "https://as.example/t/.well-known/openid-configuration";
    stage.page(last, reply(200, &server_document("https://as.example/t")));
    stage.page(OAUTH, reply(200, &server_document("https://as.example/t")));
    discover(&mut stage, task()).unwrap();
    let places = [
        RESOURCE_PATH,
        &format!("{OAUTH}/t"),
        &format!("{OPENID}/t"),
        last,
    ]
    .map(str::to_owned);
    assert_eq!(documents(&stage), places);
}

/// AUTH-15, AUTH-16: of several issuers the one of the login there is, else the first.
#[test]
fn of_several_issuers_the_known_one_is_chosen() {
    for (task, chosen) in [
        (task(), "https://one.example"),
        (bound("https://as.example"), "https://as.example"),
        (bound("https://as.example/"), "https://one.example"),
    ] {
        let mut stage = challenged("Bearer");
        let issuers = r#"["https://one.example","https://as.example"]"#;
        stage.page(RESOURCE_PATH, reply(200, &resource_document(MCP, issuers)));
        let place = format!("{chosen}/.well-known/oauth-authorization-server");
        let registers = r#"{"registration_endpoint":"https://as.example/register","#;
        let document = server_document(chosen).replacen('{', registers, 1);
        stage.page(&place, reply(200, &document));
        let found = discover(&mut stage, task).unwrap();
        assert_eq!(found.server.issuer.as_str(), chosen);
        assert_eq!(documents(&stage), [RESOURCE_PATH.to_owned(), place]);
    }
}

/// AUTH-17: an old server is its own issuer: its origin's metadata first, its default endpoints only where there is none. The
/// requests for it name the revision (2025-03-26, authorization section 2.3.1), and no others do.
#[test]
fn an_old_server_is_its_own_issuer() {
    let mut stage = challenged("Bearer");
    stage.page(
        ORIGIN_OAUTH,
        reply(200, &server_document("https://mcp.example")),
    );
    let found = discover(&mut stage, task()).unwrap();
    assert_eq!(
        documents(&stage),
        [RESOURCE_PATH, RESOURCE_ROOT, ORIGIN_OAUTH]
    );
    assert_eq!(
        (found.server.issuer.as_str(), found.server.legacy),
        ("https://mcp.example", false)
    );
    assert_eq!(found.resource_parameter.as_deref(), Some(MCP), "AUTH-70");
    let named: Vec<_> = stage
        .exchanges
        .iter()
        .filter(|exchange| exchange.headers.contains_key("mcp-protocol-version"))
        .map(|exchange| exchange.url.as_str())
        .collect();
    assert_eq!(named, [ORIGIN_OAUTH]);

    let mut stage = challenged("Bearer");
    let found = discover(&mut stage, task()).unwrap();
    assert_eq!(
        documents(&stage),
        [RESOURCE_PATH, RESOURCE_ROOT, ORIGIN_OAUTH, ORIGIN_OPENID]
    );
    assert!(found.server.legacy && found.resource_parameter.is_none());
    assert_eq!(
        found.server.token_endpoint.as_str(),
        "https://mcp.example/token"
    );
    assert_eq!(
        found.server.authorization_endpoint.unwrap().as_str(),
        "https://mcp.example/authorize"
    );
}

/// AUTH-12: a server at the root has one place only, and nothing is asked twice.
#[test]
fn a_server_at_the_root_has_one_place() {
    let mut stage = Stage::new();
    stage.page("https://mcp.example/", reply(401, ""));
    missing(&mut stage);
    discover(
        &mut stage,
        Task {
            server: server(),
            ..task()
        },
    )
    .unwrap();
    assert_eq!(
        documents(&stage),
        [RESOURCE_ROOT, ORIGIN_OAUTH, ORIGIN_OPENID]
    );
}
