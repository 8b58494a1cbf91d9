//! What is shown, and how the redirect is judged.

use super::*;

const SUPPORTED: &str = r#","authorization_response_iss_parameter_supported":true"#;

/// The whole order with a new registration: discovery, callback, registration under its lock, spool slot, person, exchange,
/// spool, lock, commit (DESIGN.md section 3; I-4, I-5, AUTH-30, AUTH-60).
#[test]
fn a_login_from_nothing() {
    let mut stage = stage();
    let done = login(&mut stage, task()).unwrap();
    let order = [
        "send challenge",
        "send metadata",
        "send metadata",
        "reread",
        "find-registrations",
        "open-callback",
        "lock registering",
        "find-registrations",
        "send registration",
        "keep-registration",
        "unlock registering",
        "prepare-spool",
        "show",
        "close-callback",
        "send token",
        "reread",
        "bind",
        "spool 0 after nothing",
        "lock",
        "commit 0 over anything",
        "unlock",
    ];
    assert_eq!(stage.log, order);
    assert_eq!(stage.record().credential, Some(done.credential.clone()));
    assert_eq!(
        (
            done.credential.version.incarnation.0,
            done.credential.version.generation.0
        ),
        ([9; 16], 0)
    );
    assert_eq!(
        done.credential.key,
        CredentialKey {
            resource: server(),
            ..key()
        }
    );
    assert_eq!(
        stage.binding.as_ref().and_then(|b| b.credential.clone()),
        Some(done.credential.key.clone())
    );
    assert!(done.superseded.is_none() && !done.offline_access_offered);
    assert!(matches!(
        stage.events[..],
        [Event {
            happened: Happened::LoggedIn {
                refresh_token: true,
                former_issuer: None,
                ..
            },
            ..
        }]
    ));
}

/// AUTH-60, AUTH-70, AUTH-73: challenge and verifier belong together, and the resource goes in both requests as published.
#[test]
fn the_two_requests_belong_together() {
    let mut stage = stage();
    let done = login(&mut stage, task()).unwrap();
    let pkce = Pkce::from_entropy(&[1; 32]);
    let exchange = sent_to(&stage, TOKEN)[0];
    for (name, value) in [
        ("grant_type", "authorization_code"),
        ("code", "code-1"),
        ("redirect_uri", ANY_PORT),
        ("code_verifier", pkce.verifier.expose()),
        ("client_id", "client-1"),
        ("resource", "https://mcp.example"),
    ] {
        assert_eq!(form(exchange, name).as_deref(), Some(value), "{name}");
    }
    for (name, value) in [
        ("tenant", "t"),
        ("response_type", "code"),
        ("client_id", "client-1"),
        ("redirect_uri", ANY_PORT),
        ("code_challenge", pkce.challenge.as_str()),
        ("code_challenge_method", "S256"),
        ("resource", "https://mcp.example"),
        ("state", state_from_entropy(&[2; 32]).expose()),
    ] {
        assert_eq!(shown(&stage, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(
        stage.prompt.as_ref().unwrap().token_host,
        "as.example",
        "T-18: the person is told where tokens go"
    );
    assert_eq!(
        done.credential.pins.resource_parameter.as_deref(),
        Some("https://mcp.example")
    );
    let age = stage
        .now
        .since(&done.credential.received_at.unwrap())
        .unwrap();
    assert!(
        age >= Duration::from_millis(50),
        "it counts from the send, not from the answer"
    );
}

/// AUTH-17: without metadata there is no resource to send, in neither request.
#[test]
fn an_old_server_gets_no_resource() {
    let mut stage = Stage::new();
    stage.page(MCP, reply(401, ""));
    for _ in 0..4 {
        stage.answer(reply(404, ""));
    }
    stage.page(
        "https://mcp.example/register",
        reply(201, r#"{"client_id":"old"}"#),
    );
    stage.page("https://mcp.example/token", tokens(0));
    let done = login(&mut stage, task()).unwrap();
    assert_eq!(shown(&stage, "resource"), None);
    assert_eq!(
        form(sent_to(&stage, "https://mcp.example/token")[0], "resource"),
        None
    );
    assert_eq!(done.credential.pins.resource_parameter, None);
}

/// AUTH-50, AUTH-51, AUTH-52, AUTH-53, AUTH-92, AUTH-93: which scopes are asked for.
#[test]
fn the_scopes_follow_the_table() {
    const OFFLINE: &str = r#","scopes_supported":["x","offline_access"]"#;
    let resource = r#"{"resource":"https://mcp.example","authorization_servers":["https://as.example"],"scopes_supported":["r1","r2"]}"#;
    for (asked, challenge, published, issuers, want) in [
        (None, r#"Bearer scope="c1 c2""#, true, "", Some("c1 c2")),
        (None, "Bearer", true, "", Some("r1 r2")),
        (None, "Bearer", false, "", None),
        (None, "Bearer", false, OFFLINE, None),
        (
            None,
            r#"Bearer scope="c1""#,
            true,
            OFFLINE,
            Some("c1 offline_access"),
        ),
        (
            None,
            r#"Bearer scope="c1""#,
            true,
            r#","scopes_supported":["x"]"#,
            Some("c1"),
        ),
        (Some("mine"), r#"Bearer scope="c1""#, true, "", Some("mine")),
    ] {
        let mut stage = with_metadata(issuers);
        stage.page(
            MCP,
            with_headers(401, &[("www-authenticate", challenge)], ""),
        );
        if published {
            stage.page(RESOURCE, reply(200, resource));
        }
        let done = login(
            &mut stage,
            Task {
                scopes: asked.map(Scopes::parse),
                ..task()
            },
        )
        .unwrap();
        assert_eq!(
            shown(&stage, "scope").as_deref(),
            want,
            "{asked:?} {challenge} {issuers}"
        );
        assert_eq!(
            done.credential.scopes_requested.to_string(),
            want.unwrap_or_default()
        );
        assert_eq!(done.offline_access_offered, issuers == OFFLINE);
    }
}

/// T-05, AUTH-62, AUTH-63, AUTH-64: the table of `iss`, octet for octet, before any code leaves.
#[test]
fn the_iss_table_holds() {
    let ok = "https://as.example";
    for (more, iss, goes_on) in [
        (SUPPORTED, vec![ok], true),
        (SUPPORTED, vec![], false),
        ("", vec![ok], true),
        ("", vec![], true),
        ("", vec!["https://evil.example"], false),
        (SUPPORTED, vec!["https://evil.example"], false),
        (SUPPORTED, vec!["https://as.example/"], false),
        (SUPPORTED, vec!["https://AS.example"], false),
        (SUPPORTED, vec!["https://as.example:443"], false),
        (SUPPORTED, vec!["https://as%2Eexample"], false),
        ("", vec![""], false),
        (SUPPORTED, vec![ok, ok], false),
        ("", vec![ok, "https://evil.example"], false),
    ] {
        for secret in ["code", "error"] {
            let mut stage = with_metadata(more);
            let mut pairs = vec![("state", STATE), (secret, "access_denied")];
            pairs.extend(iss.iter().map(|iss| ("iss", *iss)));
            stage.redirect = redirect(&pairs);
            let result = login(&mut stage, task()).map(|_| ());
            let calls = sent_to(&stage, TOKEN).len();
            match (goes_on, secret) {
                (true, "code") => assert_eq!((result, calls), (Ok(()), 1)),
                (true, _) => assert_eq!((result, calls), (Err(Error::DeniedByHuman), 0)),
                // AUTH-65: the error text of a stranger is neither acted on nor shown.
                (false, _) => {
                    let error = result.unwrap_err();
                    let got = iss.first().copied().unwrap_or_default().to_owned();
                    assert_eq!(
                        error,
                        Error::IssuerMismatch {
                            expected: ok.into(),
                            got
                        },
                        "{more} {iss:?}"
                    );
                    assert!(!error.to_string().contains("access_denied"));
                    assert_eq!(calls, 0);
                }
            }
        }
    }
}

/// T-04, AUTH-61: without the right `state`, once, nothing else of the redirect is even looked at.
#[test]
fn state_goes_first() {
    for state in [
        vec![],
        vec!["wrong"],
        vec![""],
        vec![STATE, STATE],
        vec![STATE, "wrong"],
        vec!["wrong", STATE],
    ] {
        let mut stage = stage();
        let mut pairs = vec![
            ("error", "access_denied"),
            ("code", "stolen"),
            ("iss", "https://evil.example"),
        ];
        pairs.extend(state.iter().map(|state| ("state", *state)));
        stage.redirect = redirect(&pairs);
        assert_eq!(
            login(&mut stage, task()).unwrap_err(),
            Error::StateMismatch,
            "{state:?}"
        );
        assert!(sent_to(&stage, TOKEN).is_empty());
        assert_eq!(stage.log.last().map(String::as_str), Some("close-callback"));
    }
}

/// RFC 6749 section 4.1.2.1: who refused is told; a redirect with neither code nor error is no login.
#[test]
fn refusals_are_told_apart() {
    let neither = "the redirect carries neither code nor error";
    for (pairs, want) in [
        (vec![("error", "access_denied")], Error::DeniedByHuman),
        (
            vec![("error", "access_denied"), ("code", "c")],
            Error::DeniedByHuman,
        ),
        (
            vec![("error", "invalid_scope")],
            Error::ScopeRefused { scopes: Vec::new() },
        ),
        (
            vec![],
            Error::DeniedByIssuer {
                error: neither.into(),
            },
        ),
        (
            vec![("code", "")],
            Error::DeniedByIssuer {
                error: neither.into(),
            },
        ),
        (
            vec![("code", "a"), ("code", "b")],
            Error::DeniedByIssuer {
                error: neither.into(),
            },
        ),
        (
            vec![("code", "a\r\nb")],
            Error::DeniedByIssuer {
                error: neither.into(),
            },
        ),
    ] {
        let mut stage = stage();
        let mut all = vec![("state", STATE)];
        all.extend(pairs);
        stage.redirect = redirect(&all);
        assert_eq!(login(&mut stage, task()).unwrap_err(), want);
        assert!(sent_to(&stage, TOKEN).is_empty());
        assert_eq!(stage.count("close-callback"), 1);
    }
}

/// A person who never comes back ends it, and the listener is closed.
#[test]
fn an_abandoned_login_closes_the_listener() {
    let mut stage = stage();
    stage.redirect = Some(Err(Error::login(LoginCause::Abandoned)));
    assert_eq!(
        login(&mut stage, task()).unwrap_err(),
        Error::login(LoginCause::Abandoned)
    );
    assert_eq!(stage.log.last().map(String::as_str), Some("close-callback"));
    assert!(stage.record.is_none());
}

/// T-01, AUTH-67: metadata without an authorization endpoint, or with an unsafe one, shows nothing.
#[test]
fn no_unsafe_url_is_ever_shown() {
    for endpoint in [
        "\"javascript:alert(1)\"",
        "\"http://as.example/authorize\"",
        "null",
    ] {
        let mut stage = stage();
        let document = format!(
            r#"{{"issuer":"https://as.example","authorization_endpoint":{endpoint},"token_endpoint":"{TOKEN}",
            "registration_endpoint":"{REGISTER}","code_challenge_methods_supported":["S256"]}}"#
        );
        stage.page(METADATA, reply(200, &document));
        stage.page(REGISTER, reply(201, r#"{"client_id":"c"}"#));
        let error = login(&mut stage, task()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::MetadataInvalid {
                    field: "authorization_endpoint",
                    ..
                }
            ),
            "{endpoint}"
        );
        assert_eq!(stage.count("show"), 0);
    }
}

/// T-16: a login that has an issuer never falls back to the oldest rules; one without may.
#[test]
fn a_known_issuer_forbids_the_fallback() {
    let mut stage = Stage::new();
    stage.page(MCP, reply(401, ""));
    stage.answer(reply(404, "")).answer(reply(404, ""));
    let binding = Binding {
        credential: Some(key()),
        ..task().binding
    };
    assert_eq!(
        login(&mut stage, Task { binding, ..task() }).unwrap_err(),
        Error::NoOauth { status: 401 }
    );
}
