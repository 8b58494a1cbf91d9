use http::HeaderName;
use proptest::prelude::*;

use super::*;

fn parse(value: &str) -> Vec<Challenge> {
    Challenge::parse_all([&HeaderValue::from_str(value).unwrap()])
}

fn challenge(scheme: &str, token68: Option<&str>, params: &[(&str, &str)]) -> Challenge {
    let params = params
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    Challenge {
        scheme: scheme.to_owned(),
        token68: token68.map(str::to_owned),
        params,
    }
}

fn demand(values: &[&str]) -> Demand {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(
            WWW_AUTHENTICATE,
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    Demand::from_headers(&headers)
}

/// AUTH-11: the grammar of RFC 9110 section 11.6.1, with the examples of that section.
#[test]
fn the_grammar_is_read() {
    for (value, want) in [
        ("Bearer", vec![challenge("bearer", None, &[])]),
        (
            "Negotiate YWJj+/==",
            vec![challenge("negotiate", Some("YWJj+/=="), &[])],
        ),
        (
            "Bearer realm=\"a\"",
            vec![challenge("bearer", None, &[("realm", "a")])],
        ),
        (
            "BEARER Realm = a ,  Error=\"b\"",
            vec![challenge("bearer", None, &[("realm", "a"), ("error", "b")])],
        ),
        (
            "Bearer a=\"x, y=\\\"z\\\\\", b=",
            vec![challenge("bearer", None, &[("a", "x, y=\"z\\")])],
        ),
        (
            "Basic realm=\"simple\", Newauth realm=\"apps\", type=1, title=\"Login to \\\"apps\\\"\"",
            vec![
                challenge("basic", None, &[("realm", "simple")]),
                challenge(
                    "newauth",
                    None,
                    &[
                        ("realm", "apps"),
                        ("type", "1"),
                        ("title", "Login to \"apps\""),
                    ],
                ),
            ],
        ),
        (
            "Negotiate, Bearer error=\"x\" , , DPoP algs=\"ES256\",",
            vec![
                challenge("negotiate", None, &[]),
                challenge("bearer", None, &[("error", "x")]),
                challenge("dpop", None, &[("algs", "ES256")]),
            ],
        ),
        (
            "A b=, C d==",
            vec![
                challenge("a", Some("b="), &[]),
                challenge("c", Some("d=="), &[]),
            ],
        ),
        ("A b=c=d", vec![challenge("a", None, &[("b", "c=d")])]),
        (
            "Bearer a=\"\"",
            vec![challenge("bearer", None, &[("a", "")])],
        ),
    ] {
        assert_eq!(parse(value), want, "{value}");
    }
}

/// AUTH-12, T-22: what servers in the field get wrong still tells where the metadata is.
#[test]
fn common_mistakes_are_forgiven() {
    for value in [
        "Bearer resource_metadata=https://x.example/m?a=b&c=d",
        "Bearer error=\"invalid_token\" resource_metadata=\"https://x.example/m?a=b&c=d\"",
        "Bearer scope=read write, resource_metadata=\"https://x.example/m?a=b&c=d\"",
        "Bearer, resource_metadata=\"https://x.example/m?a=b&c=d\"",
        "Bearer (junk \"a, Basic b\") , resource_metadata=\"https://x.example/m?a=b&c=d\"",
    ] {
        let want = Url::parse("https://x.example/m?a=b&c=d").ok();
        assert_eq!(demand(&[value]).resource_metadata, want, "{value}");
    }
}

/// T-22: nothing inside a quoted string, and nothing in another header, adds to a challenge.
#[test]
fn quoted_text_and_other_headers_add_nothing() {
    for values in [
        &["Basic realm=\"x, Bearer resource_metadata=\\\"https://evil/\\\"\""][..],
        &["Basic realm=\"never closed, Bearer resource_metadata=https://evil/"],
        &["Bearer", "resource_metadata=\"https://evil/\""],
        &["Basic resource_metadata=\"https://evil/\""],
        &["resource_metadata=\"https://evil/\""],
    ] {
        assert_eq!(demand(values).resource_metadata, None, "{values:?}");
    }
}

/// AUTH-11, AUTH-12, AUTH-50: what a 401 says is found in any of several headers, Bearer before DPoP.
#[test]
fn a_demand_prefers_bearer_and_notes_dpop() {
    let found = demand(&[
        "DPoP algs=\"ES256\", scope=\"d\", error=\"use_dpop_nonce\"",
        "Negotiate, Bearer realm=\"mcp\"",
        "bearer resource_metadata=\"https://x.example/custom/m.json\", scope=\"a b a\"",
    ]);
    assert_eq!(
        found,
        Demand {
            resource_metadata: Url::parse("https://x.example/custom/m.json").ok(),
            scope: Some(Scopes::parse("a b")),
            error: Some("use_dpop_nonce".into()),
            dpop: true,
        }
    );
    assert!(!demand(&["Bearer"]).dpop);
}

/// AUTH-56: only the very word asks for a step-up.
#[test]
fn insufficient_scope_is_recognised() {
    assert!(demand(&["Bearer error=\"insufficient_scope\", scope=\"a\""]).is_insufficient_scope());
    assert!(!demand(&["Bearer error=\"invalid_token\""]).is_insufficient_scope());
}

/// AUTH-69, AUTH-101, T-02: only an https or a loopback http URL is a place to read metadata from.
#[test]
fn a_metadata_url_is_https_or_loopback() {
    let found = |url: &str| {
        demand(&[&format!("Bearer resource_metadata=\"{url}\"")])
            .resource_metadata
            .is_some()
    };
    for good in [
        "https://x.example/m",
        "http://127.0.0.1:8/m",
        "http://localhost/m",
        "http://[::1]/m",
    ] {
        assert!(found(good), "{good}");
    }
    for bad in [
        "http://x.example/m",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:application/json,x",
        "/m",
        "",
        "https://u:p@x.example/m",
        "http://127.0.0.1.evil.example/",
    ] {
        assert!(!found(bad), "{bad}");
    }
}

/// T-22: 256 KiB of any pattern is read in one pass (a quadratic parser would not end within the test's patience).
#[test]
fn long_headers_are_read_in_one_pass() {
    for pattern in [
        "a",
        "a ",
        "a,",
        "a=",
        "\"",
        "\\\"",
        "a=\"\\",
        ",",
        " ",
        "\t=",
        "(",
        "a b=c,",
        "a b==,",
        "a    ",
        "Bearer \"",
        "=\"\",",
    ] {
        for prefix in ["", "Bearer ", "Bearer a=\"", "(\""] {
            let mut text = String::from(prefix);
            while text.len() < 1 << 18 {
                text.push_str(pattern);
            }
            Challenge::parse_all([&HeaderValue::from_str(&text).unwrap()]);
        }
    }
}

fn token() -> impl Strategy<Value = String> {
    "[a-z!#$%&'*+.^_`|~-][a-z0-9-]{0,8}"
}

proptest! {
    /// T-22: any bytes that can be a header are read without a panic, and no name keeps an upper-case letter.
    #[test]
    fn any_bytes_are_read(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4)) {
        let mut headers = HeaderMap::new();
        for bytes in &values {
            if let Ok(value) = HeaderValue::from_bytes(bytes) {
                headers.append(HeaderName::from_static("www-authenticate"), value);
            }
        }
        for found in Challenge::parse_all(headers.get_all(WWW_AUTHENTICATE)) {
            prop_assert!(!found.scheme.is_empty() && !found.scheme.bytes().any(|b| b.is_ascii_uppercase()));
            prop_assert!(found.params.iter().all(|(n, _)| !n.is_empty() && !n.bytes().any(|b| b.is_ascii_uppercase())));
        }
        let _ = Demand::from_headers(&headers);
    }

    /// T-22: bytes that are nearly a challenge are read without a panic.
    #[test]
    fn nearly_challenges_are_read(text in "((Bearer|DPoP|a|=|,| |\"|\\\\|x=\"y\"|\\(|resource_metadata=|https://x/)){0,40}") {
        parse(&text);
        demand(&[&text]);
    }

    /// AUTH-11: what the grammar can write is read back the same, quoted or not.
    #[test]
    fn what_is_written_is_read_back(
        list in prop::collection::vec((token(), prop::collection::vec((token(), "[ -~]{0,12}"), 0..4)), 0..5)
    ) {
        let written: Vec<String> = list.iter().map(|(scheme, params)| {
            let params: Vec<String> = params.iter().map(|(name, value)| {
                format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
            }).collect();
            format!("{scheme} {}", params.join(", ")).trim_end().to_owned()
        }).collect();
        let want: Vec<Challenge> = list.into_iter()
            .map(|(scheme, params)| Challenge { scheme, token68: None, params })
            .collect();
        prop_assert_eq!(parse(&written.join(", ")), want);
    }
}
