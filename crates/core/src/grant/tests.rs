use super::*;
use crate::registration::ClientSource;

fn client(authentication: ClientAuthentication, secret: Option<&str>) -> Client {
    Client {
        id: "client:1 \u{e4}".into(),
        secret: secret.map(|s| ClientSecret::new(s.into()).unwrap()),
        secret_ref: None,
        key: None,
        secret_expires_at: None,
        authentication,
        source: ClientSource::PreRegistered,
    }
}

fn issuer() -> Issuer {
    Issuer::parse("https://as.example/t/").unwrap()
}

fn pairs(request: &FormRequest) -> Vec<(String, String)> {
    form_urlencoded::parse(&request.body).into_owned().collect()
}

fn owned(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

const RESOURCE: &str = "HTTPS://MCP.example:443";

/// AUTH-60, AUTH-70, AUTH-73: a code goes with its verifier, and the resource as it was published.
#[test]
fn a_code_goes_with_verifier_and_resource() {
    let code = AuthorizationCode::new("c&d=e+f".into()).unwrap();
    let verifier = CodeVerifier::new("v".into()).unwrap();
    let grant = Grant::AuthorizationCode {
        code: &code,
        redirect_uri: "http://127.0.0.1:1/callback",
        verifier: &verifier,
    };
    let request = token_request(
        &grant,
        &client(ClientAuthentication::None, None),
        &issuer(),
        Some(RESOURCE),
    );
    assert_eq!(
        pairs(&request),
        owned(&[
            ("grant_type", "authorization_code"),
            ("code", "c&d=e+f"),
            ("redirect_uri", "http://127.0.0.1:1/callback"),
            ("code_verifier", "v"),
            ("resource", RESOURCE),
            ("client_id", "client:1 \u{e4}"),
        ])
    );
    assert_eq!(
        request.headers[CONTENT_TYPE],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(request.headers[ACCEPT], "application/json");
    assert!(!request.headers.contains_key(AUTHORIZATION));
}

/// AUTH-70: a refresh is a token request too; an empty scope is no scope.
#[test]
fn a_refresh_carries_the_resource() {
    let token = RefreshToken::new("r".into()).unwrap();
    let public = client(ClientAuthentication::None, None);
    let fewer = Scopes::parse("a b");
    let request = |scope, resource| {
        pairs(&token_request(
            &Grant::Refresh {
                token: &token,
                scope,
            },
            &public,
            &issuer(),
            resource,
        ))
    };
    let start = [("grant_type", "refresh_token"), ("refresh_token", "r")];
    let id = ("client_id", "client:1 \u{e4}");
    assert_eq!(
        request(None, Some(RESOURCE)),
        owned(&[start[0], start[1], ("resource", RESOURCE), id])
    );
    assert_eq!(
        request(Some(&fewer), None),
        owned(&[start[0], start[1], ("scope", "a b"), id])
    );
    assert_eq!(
        request(Some(&Scopes::default()), None),
        owned(&[start[0], start[1], id])
    );
}

/// AUTH-44: Basic has both halves form-encoded (RFC 6749 section 2.3.1), is marked sensitive and goes alone.
#[test]
fn basic_encodes_both_halves() {
    let request = revocation_request(
        "t",
        "refresh_token",
        &client(ClientAuthentication::Basic, Some("s:/ +%")),
        &issuer(),
    );
    let header = &request.headers[AUTHORIZATION];
    let coded = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
    assert_eq!(
        STANDARD.decode(coded).unwrap(),
        b"client%3A1+%C3%A4:s%3A%2F+%2B%25"
    );
    assert!(header.is_sensitive());
    assert_eq!(
        pairs(&request),
        owned(&[("token", "t"), ("token_type_hint", "refresh_token")])
    );
}

/// AUTH-44: in the body, ID and secret; a method without its secret sends the ID alone.
#[test]
fn post_goes_in_the_body() {
    let request = |authentication, secret| {
        let client = client(authentication, secret);
        let request = revocation_request("t", "access_token", &client, &issuer());
        assert!(!request.headers.contains_key(AUTHORIZATION));
        pairs(&request).split_off(2)
    };
    let id = ("client_id", "client:1 \u{e4}");
    assert_eq!(
        request(ClientAuthentication::Post, Some("s&t")),
        owned(&[id, ("client_secret", "s&t")])
    );
    assert_eq!(
        request(ClientAuthentication::None, Some("kept, not sent")),
        owned(&[id])
    );
    for method in [ClientAuthentication::Post, ClientAuthentication::Basic] {
        assert_eq!(request(method, None), owned(&[id]));
    }
}

/// T-33: neither a request nor a grant shows a secret, and the body never outgrows the room made for it.
#[test]
fn no_secret_is_shown_or_left_behind() {
    let token = RefreshToken::new("rt-canary-\"%%%".into()).unwrap();
    let grant = Grant::Refresh {
        token: &token,
        scope: None,
    };
    for method in [ClientAuthentication::Basic, ClientAuthentication::Post] {
        let request = token_request(
            &grant,
            &client(method, Some("s-canary-\"\"%%")),
            &issuer(),
            Some(RESOURCE),
        );
        let shown = format!("{request:?} {grant:?} {:?}", request.headers);
        assert!(
            !shown.contains("canary") && !shown.contains("Basic"),
            "{shown}"
        );
        let pairs = pairs(&request);
        let room: usize = pairs.iter().map(|(n, v)| n.len() + 3 * v.len() + 2).sum();
        assert!(request.body.len() <= room);
    }
}

/// AUTH-52, AUTH-60, AUTH-61, AUTH-70: what an authorization request says.
#[test]
fn an_authorization_request_is_complete() {
    let state = StateParameter::new("st".into()).unwrap();
    let url = |endpoint: &str, scopes: &str, resource| {
        let endpoint = Url::parse(endpoint).unwrap();
        let scopes = Scopes::parse(scopes);
        let request = AuthorizationRequest {
            endpoint: &endpoint,
            client_id: "c&1",
            redirect_uri: "http://127.0.0.1:1/callback",
            scopes: &scopes,
            state: &state,
            challenge: "ch",
            resource,
            extra: &[],
        };
        assert!(!format!("{request:?}").contains("\"st\""));
        String::from(request.url())
    };
    let ours =
        "response_type=code&client_id=c%261&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcallback";
    let end = "state=st&code_challenge=ch&code_challenge_method=S256";
    assert_eq!(
        url(
            "https://as.example/authorize",
            "a b",
            Some("https://x.example")
        ),
        format!(
            "https://as.example/authorize?{ours}&scope=a+b&{end}&resource=https%3A%2F%2Fx.example"
        )
    );
    assert_eq!(
        url("https://as.example/?t=%41%2f&u", "", None),
        format!("https://as.example/?t=%41%2f&u&{ours}&{end}")
    );
}

/// T-01: what a person adds to the request is in it, once, and never in the place of a parameter of the flow.
#[test]
fn added_parameters_stand_in_for_none() {
    let endpoint = Url::parse("https://as.example/a").unwrap();
    let state = StateParameter::new("st".into()).unwrap();
    let request = AuthorizationRequest {
        endpoint: &endpoint,
        client_id: "c",
        redirect_uri: "http://127.0.0.1:1/",
        scopes: &Scopes::default(),
        state: &state,
        challenge: "ch",
        resource: None,
        extra: &[
            ("audience", "https://api.example"),
            ("state", "evil"),
            ("scope", "evil"),
            ("audience", "evil"),
        ],
    };
    let url = request.url();
    let all: Vec<_> = url.query_pairs().collect();
    assert!(!url.as_str().contains("evil"), "{url}");
    assert_eq!(all.iter().filter(|(name, _)| name == "audience").count(), 1);
}

/// AUTH-67, T-01: a parameter that the endpoint's query brings along cannot stand in for ours.
#[test]
fn an_endpoint_cannot_set_our_parameters() {
    let endpoint = Url::parse(
        "https://as.example/a?tenant=t&client_id=evil&state=evil&%73cope=evil&resource=evil",
    )
    .unwrap();
    let state = StateParameter::new("st".into()).unwrap();
    let scopes = Scopes::default();
    let request = AuthorizationRequest {
        endpoint: &endpoint,
        client_id: "c",
        redirect_uri: "http://127.0.0.1:1/",
        scopes: &scopes,
        state: &state,
        challenge: "ch",
        resource: None,
        extra: &[],
    };
    let url = request.url();
    assert!(!url.as_str().contains("evil"), "{url}");
    assert_eq!(
        url.query_pairs()
            .filter(|(name, _)| name == "client_id")
            .count(),
        1
    );
    assert!(
        url.query_pairs()
            .any(|pair| pair == ("tenant".into(), "t".into()))
    );
}

/// T-33: no grant shows what is exchanged: not a platform's token, not a person's identity, not a code or a refresh token.
#[test]
fn debug_never_shows_what_is_exchanged() {
    let assertion = crate::secret::Assertion::new("jwt-canary".into()).unwrap();
    let token = RefreshToken::new("rt-canary".into()).unwrap();
    let device = crate::secret::DeviceCode::new("dc-canary".into()).unwrap();
    let issuer = Issuer::parse("https://as.example").unwrap();
    for grant in [
        Grant::JwtBearer {
            assertion: &assertion,
            scope: None,
        },
        Grant::TokenExchange {
            subject: &assertion,
            subject_type: "id_token",
            audience: &issuer,
            scope: None,
        },
        Grant::Refresh {
            token: &token,
            scope: None,
        },
        Grant::Device { code: &device },
    ] {
        let shown = format!("{grant:?}");
        assert!(
            shown.contains("[redacted]") && !shown.contains("canary"),
            "{shown}"
        );
    }
}
