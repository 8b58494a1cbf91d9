//! What is not believed, and what ends discovery.

use super::*;

fn field(result: Result<Discovered, Error>) -> &'static str {
    match result {
        Err(Error::MetadataInvalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

/// T-16: whoever can block one document must not choose another: time-outs, 5xx, 429 and network failures end it, anywhere.
#[test]
fn what_is_no_completed_answer_ends_it() {
    for place in [
        MCP,
        RESOURCE_PATH,
        RESOURCE_ROOT,
        ORIGIN_OAUTH,
        ORIGIN_OPENID,
    ] {
        for (status, code) in [
            (500, "unavailable.server_error"),
            (503, "unavailable.server_error"),
            (408, "unavailable.server_error"),
            (425, "unavailable.server_error"),
            (429, "unavailable.rate_limited"),
            (1, "unavailable.timeout"),
            (2, "unavailable.network"),
            (3, "unavailable.network"),
        ] {
            let mut stage = challenged("Bearer");
            match status {
                1 => stage.page(place, silent),
                2 => stage.page(place, unreachable),
                3 => stage.page(place, broken),
                _ => stage.page(place, reply(status, "")),
            };
            let error = discover(&mut stage, task()).unwrap_err();
            assert_eq!(error.code(), code, "{place} {status}");
            assert_eq!(
                stage.asked().last().map(String::as_str),
                Some(place),
                "nothing is asked after it"
            );
        }
    }
}

/// T-16: `Retry-After` is handed on.
#[test]
fn retry_after_is_handed_on() {
    let mut stage = challenged("Bearer");
    stage.page(
        RESOURCE_PATH,
        with_headers(503, &[("retry-after", "7")], ""),
    );
    assert_eq!(
        discover(&mut stage, task()).unwrap_err().retry_after(),
        Some(secs(7))
    );
}

/// AUTH-17, T-16: no fallback to the oldest rules without a 401, or for a login that has an issuer.
#[test]
fn the_oldest_rules_need_a_401_and_no_issuer() {
    for status in [200, 202, 302, 400, 403, 404, 405] {
        let mut stage = challenged("Bearer");
        stage.page(MCP, reply(status, ""));
        assert_eq!(
            discover(&mut stage, task()).unwrap_err(),
            Error::NoOauth { status }
        );
        assert_eq!(documents(&stage), [RESOURCE_PATH, RESOURCE_ROOT]);
    }
    let mut stage = challenged("Bearer");
    assert_eq!(
        discover(&mut stage, bound("https://as.example")).unwrap_err(),
        Error::NoOauth { status: 401 }
    );
    assert_eq!(documents(&stage), [RESOURCE_PATH, RESOURCE_ROOT]);
}

/// AUTH-17, T-16: a server that says where its metadata is, or publishes it without an issuer, is no old server.
#[test]
fn a_server_that_knows_resource_metadata_is_no_old_server() {
    let mut stage = challenged(r#"Bearer resource_metadata="https://mcp.example/gone""#);
    assert_eq!(field(discover(&mut stage, task())), "document");
    assert_eq!(documents(&stage), ["https://mcp.example/gone"]);
    for issuers in ["[]", "null"] {
        let mut stage = challenged("Bearer");
        stage.page(RESOURCE_PATH, reply(200, &resource_document(MCP, issuers)));
        assert_eq!(field(discover(&mut stage, task())), "authorization_servers");
        assert_eq!(documents(&stage), [RESOURCE_PATH]);
    }
}

/// T-15: a server that has a login cannot send it to another host for its metadata; a first login can.
#[test]
fn a_bound_server_keeps_its_metadata_at_home() {
    let challenge = r#"Bearer resource_metadata="https://evil.example/prm""#;
    let mut stage = challenged(challenge);
    assert_eq!(
        field(discover(&mut stage, bound("https://as.example"))),
        "resource_metadata"
    );
    assert!(documents(&stage).is_empty());
    let mut stage = challenged(challenge);
    published(&mut stage);
    stage.page(
        "https://evil.example/prm",
        reply(200, &resource_document(MCP, r#"["https://as.example"]"#)),
    );
    assert!(discover(&mut stage, task()).is_ok());
}

/// AUTH-14, T-17: metadata for another resource is not used, and nothing else is tried in its stead.
#[test]
fn metadata_for_another_resource_is_refused() {
    for published in [
        "https://evil.example/mcp",
        "https://mcp.example/other",
        "https://mcp.example/mcp/below",
        "https://mcp.example/mc",
        "https://mcp.example:444/mcp",
        "http://mcp.example/mcp",
        "not a url",
    ] {
        let mut stage = challenged("Bearer");
        stage.page(
            RESOURCE_PATH,
            reply(
                200,
                &resource_document(published, r#"["https://as.example"]"#),
            ),
        );
        let want = Error::ResourceMismatch {
            published: published.into(),
        };
        assert_eq!(discover(&mut stage, task()).unwrap_err(), want);
        assert_eq!(documents(&stage), [RESOURCE_PATH]);
    }
}

/// AUTH-23, T-17: the issuer is compared to the octet, and a document that names another one ends it.
#[test]
fn another_issuer_is_refused() {
    for named in [
        "https://as.example/",
        "https://AS.example",
        "https://as.example:443",
        "https://evil.example",
        "",
    ] {
        let mut stage = challenged("Bearer");
        published(&mut stage);
        stage.page(OAUTH, reply(200, &server_document(named)));
        stage.page(OPENID, reply(200, &server_document("https://as.example")));
        let want = Error::MetadataMismatch {
            published: "https://as.example".into(),
            expected: "https://as.example".into(),
            got: named.into(),
        };
        assert_eq!(discover(&mut stage, task()).unwrap_err(), want);
        assert_eq!(documents(&stage), [RESOURCE_PATH, OAUTH]);
    }
}

/// AUTH-24, T-08: without PKCE S256 in the document there is no login by a code, at an old server neither.
#[test]
fn a_server_without_pkce_s256_is_refused() {
    for methods in [
        "",
        r#","code_challenge_methods_supported":["plain"]"#,
        r#","code_challenge_methods_supported":[]"#,
    ] {
        for (place, issuer) in [
            (OAUTH, "https://as.example"),
            (ORIGIN_OAUTH, "https://mcp.example"),
        ] {
            let mut stage = challenged("Bearer");
            if place == OAUTH {
                published(&mut stage);
            }
            let document = format!(
                r#"{{"issuer":"{issuer}","token_endpoint":"https://as.example/token"{methods}}}"#
            );
            stage.page(place, reply(200, &document));
            let found = discover(&mut stage, task()).unwrap();
            assert_eq!(found.server.require_pkce_s256(), Err(Error::NoPkceS256));
        }
    }
}

/// AUTH-25, T-02: an endpoint that is no https URL makes the document useless.
#[test]
fn an_unsafe_endpoint_is_refused() {
    for endpoint in [
        "http://as.example/token",
        "javascript:alert(1)",
        "file:///etc/passwd",
    ] {
        let mut stage = challenged("Bearer");
        published(&mut stage);
        stage.page(
            OAUTH,
            reply(
                200,
                &server_document("https://as.example")
                    .replace("https://as.example/token", endpoint),
            ),
        );
        assert_eq!(field(discover(&mut stage, task())), "token_endpoint");
    }
}

/// A server that answers every path with a page for people hides nothing: the next place is asked.
#[test]
fn a_page_is_no_document() {
    for page in [
        with_headers(200, &[("content-type", "text/html")], HTML),
        with_headers(200, &[], "  <html>"),
    ] {
        let mut stage = challenged("Bearer");
        stage.page(RESOURCE_PATH, page);
        stage.page(
            RESOURCE_ROOT,
            reply(200, &resource_document(MCP, r#"["https://as.example"]"#)),
        );
        stage.page(OAUTH, with_headers(200, &[], HTML));
        stage.page(OPENID, reply(200, &server_document("https://as.example")));
        assert!(discover(&mut stage, task()).is_ok());
        assert_eq!(
            documents(&stage),
            [RESOURCE_PATH, RESOURCE_ROOT, OAUTH, OPENID]
        );
    }
}

/// T-16: pages everywhere are no 404: neither the well-known places nor the origin's lead to the oldest rules.
#[test]
fn pages_everywhere_never_lead_to_the_oldest_rules() {
    let mut stage = challenged("Bearer");
    stage
        .page(RESOURCE_PATH, reply(200, HTML))
        .page(RESOURCE_ROOT, reply(200, HTML));
    assert_eq!(field(discover(&mut stage, task())), "document");
    assert_eq!(documents(&stage), [RESOURCE_PATH, RESOURCE_ROOT]);
    let mut stage = challenged("Bearer");
    stage
        .page(ORIGIN_OAUTH, reply(200, HTML))
        .page(ORIGIN_OPENID, reply(200, HTML));
    assert_eq!(field(discover(&mut stage, task())), "document");
}

/// DESIGN.md section 5: a server that answers 200 without any metadata asks for no OAuth.
#[test]
fn an_open_server_has_no_oauth() {
    let mut stage = challenged("Bearer");
    stage.page(MCP, reply(200, r#"{"jsonrpc":"2.0","id":0,"result":{}}"#));
    stage
        .page(RESOURCE_PATH, reply(200, HTML))
        .page(RESOURCE_ROOT, reply(200, HTML));
    let error = discover(&mut stage, task()).unwrap_err();
    assert_eq!(
        (error.clone(), error.code()),
        (Error::NoOauth { status: 200 }, "peer.no_oauth")
    );
}

/// F-17, T-14: garbage is told, naming the document, and nothing is guessed in its stead.
#[test]
fn garbage_ends_it() {
    for garbage in ["", "{", "[]", "null", "{}", "\u{0}\u{1}"] {
        let mut stage = challenged("Bearer");
        stage.page(RESOURCE_PATH, reply(200, garbage));
        assert!(
            matches!(
                discover(&mut stage, task()).unwrap_err().code(),
                "peer.metadata_invalid"
            ),
            "{garbage:?}"
        );
        assert_eq!(documents(&stage), [RESOURCE_PATH]);
    }
}

/// AUTH-16: an issuer whose metadata is nowhere is told; the server's own origin is not tried instead.
#[test]
fn an_issuer_without_metadata_is_told() {
    let mut stage = challenged("Bearer");
    stage.page(
        RESOURCE_PATH,
        reply(200, &resource_document(MCP, r#"["https://as.example"]"#)),
    );
    assert_eq!(field(discover(&mut stage, task())), "document");
    assert_eq!(documents(&stage), [RESOURCE_PATH, OAUTH, OPENID]);
}

/// flow/mod.rs: a wrong answer is a bug, told and never a panic.
#[test]
fn a_wrong_answer_ends_in_a_bug() {
    let Turn::Next(flow, _) = Discover::new(task()).start(start()) else {
        panic!()
    };
    let Turn::Done(Err(error)) = flow.handle(Answer::Woken, start()) else {
        panic!()
    };
    assert_eq!(error.code(), "bug.unreachable");
}
