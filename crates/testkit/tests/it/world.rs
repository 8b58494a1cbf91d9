//! What the tests share: an issuer stepped by hand.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use pilotlight_testkit::authorization_server::AuthorizationServerConfig;
use pilotlight_testkit::{AuthorizationServer, Request, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

pub(crate) const ISSUER: &str = "http://issuer.test";
pub(crate) const RESOURCE: &str = "http://mcp.test/mcp";
pub(crate) const CALLBACK: &str = "http://127.0.0.1/callback";
pub(crate) const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters-0";

pub(crate) fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}

/// An issuer and a client that are stepped by hand; `now` is virtual.
pub(crate) struct World {
    pub(crate) server: AuthorizationServer,
    pub(crate) now: u64,
    pub(crate) client_id: String,
}

impl World {
    pub(crate) fn new(config: AuthorizationServerConfig) -> Self {
        let mut world = Self {
            server: AuthorizationServer::new(ISSUER.into(), config),
            now: 1_800_000_000_000,
            client_id: String::new(),
        };
        let registered = world.send(register(&json!({
            "client_name": "test",
            "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "none",
        })));
        if let Some(client_id) = registered.body_json()["client_id"].as_str() {
            world.client_id = client_id.into();
        }
        world
    }

    pub(crate) fn with(change: impl FnOnce(&mut AuthorizationServerConfig)) -> Self {
        Self::new(AuthorizationServerConfig::default().with(change))
    }

    pub(crate) fn send(&mut self, request: Request) -> Response {
        self.server.handle(self.now, request)
    }

    /// Asks for a code with the usual parameters, some of them replaced; an empty value leaves one out.
    pub(crate) fn authorize(&mut self, replaced: &[(&str, &str)]) -> Response {
        let client_id = self.client_id.clone();
        let challenge = challenge();
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", &client_id),
            ("redirect_uri", "http://127.0.0.1:4711/callback"),
            ("state", "st"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("resource", RESOURCE),
        ];
        replace(&mut fields, replaced);
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.send(Request::get(format!("/authorize?{query}")))
    }

    pub(crate) fn code(&mut self) -> String {
        let response = self.authorize(&[]);
        returned(&response, "code").expect("a code")
    }

    pub(crate) fn exchange(&mut self, code: &str, replaced: &[(&str, &str)]) -> Response {
        let client_id = self.client_id.clone();
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("client_id", &client_id),
            ("code", code),
            ("redirect_uri", "http://127.0.0.1:4711/callback"),
            ("code_verifier", VERIFIER),
            ("resource", RESOURCE),
        ];
        replace(&mut fields, replaced);
        self.send(Request::form("/token", &fields))
    }

    pub(crate) fn login(&mut self) -> Tokens {
        let code = self.code();
        let response = self.exchange(&code, &[]);
        assert_eq!(response.status, StatusCode::OK, "{}", response.body_json());
        Tokens::of(&response)
    }

    pub(crate) fn refresh_request(&self, refresh_token: &str) -> Request {
        Request::form(
            "/token",
            &[
                ("grant_type", "refresh_token"),
                ("client_id", &self.client_id),
                ("refresh_token", refresh_token),
                ("resource", RESOURCE),
            ],
        )
    }

    pub(crate) fn refresh(&mut self, refresh_token: &str) -> Response {
        let request = self.refresh_request(refresh_token);
        self.send(request)
    }

    pub(crate) fn active(&self, access_token: &str) -> bool {
        self.server.introspect(self.now, access_token).active
    }
}

/// The tokens of an answer; absent ones are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl Tokens {
    pub(crate) fn of(response: &Response) -> Self {
        let body = response.body_json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            access: text(&body["access_token"]),
            refresh: text(&body["refresh_token"]),
        }
    }
}

pub(crate) fn register(body: &Value) -> Request {
    Request::json("/register", body)
}

/// Reads a parameter of the redirect an answer makes.
pub(crate) fn returned(response: &Response, name: &str) -> Option<String> {
    let location = response.headers.get("location")?.to_str().ok()?;
    let url = Url::parse(location).ok()?;
    let found = url.query_pairs().find(|(found, _)| found == name)?;
    Some(found.1.into_owned())
}

pub(crate) fn error_of(response: &Response) -> String {
    let body = response.body_json();
    body["error"].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn get(path: &str) -> Request {
    Request::new(Method::GET, path)
}

fn replace<'a>(fields: &mut Vec<(&'a str, &'a str)>, replaced: &[(&'a str, &'a str)]) {
    fields.retain(|(name, _)| !replaced.iter().any(|(other, _)| other == name));
    fields.extend(replaced.iter().filter(|(_, value)| !value.is_empty()));
}
