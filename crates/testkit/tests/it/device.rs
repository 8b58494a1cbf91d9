//! Logins on another device, as the server sees them (RFC 8628): each rule refuses who breaks it.

use std::time::Duration;

use pilotlight_testkit::{
    AuthorizationServer, AuthorizationServerConfig, Request,
    authorization_server::{DeviceRules, StaticClient},
};
use serde_json::Value;

const ISSUER: &str = "https://as.example";
const MCP: &str = "https://mcp.example/mcp";
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const START: u64 = 1_000_000_000;

fn server() -> AuthorizationServer {
    let config = AuthorizationServerConfig::default().with(|config| {
        config.device = Some(DeviceRules {
            interval: Duration::from_secs(5),
            expires_in: Duration::from_secs(60),
        });
        let client = |id: &str, secret: Option<&str>| StaticClient {
            client_id: id.into(),
            client_secret: secret.map(Into::into),
            redirect_uris: Vec::new(),
        };
        config.clients = vec![client("one", None), client("two", Some("s"))];
    });
    AuthorizationServer::new(ISSUER.into(), config)
}

fn post(server: &mut AuthorizationServer, at: u64, path: &str, fields: &[(&str, &str)]) -> Value {
    server
        .handle(START + at, Request::form(path, fields))
        .body_json()
}

/// Begins a login; its two codes.
fn begin(server: &mut AuthorizationServer) -> (String, String) {
    let fields = [("client_id", "one"), ("resource", MCP)];
    let body = post(server, 0, "/device", &fields);
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    assert_eq!(
        (&body["interval"], &body["expires_in"]),
        (&5.into(), &60.into())
    );
    assert!(text("verification_uri_complete").ends_with(&text("user_code")));
    (text("device_code"), text("user_code"))
}

/// Asks what came of it, so many milliseconds after it was begun; the error, or nothing.
fn ask(server: &mut AuthorizationServer, at: u64, code: &str) -> String {
    let fields = [
        ("grant_type", DEVICE_CODE),
        ("client_id", "one"),
        ("device_code", code),
        ("resource", MCP),
    ];
    let body = post(server, at, "/token", &fields);
    assert_eq!(body["error"].is_null(), body["refresh_token"].is_string());
    body["error"].as_str().unwrap_or("").to_owned()
}

#[test]
fn it_is_off_by_default_and_listed_where_it_is_on() {
    let mut off = AuthorizationServer::new(ISSUER.into(), AuthorizationServerConfig::default());
    let metadata = |server: &mut AuthorizationServer| {
        let path = "/.well-known/oauth-authorization-server";
        server.handle(START, Request::get(path)).body_json()
    };
    assert!(metadata(&mut off)["device_authorization_endpoint"].is_null());
    let body = post(&mut off, 0, "/device", &[("client_id", "one")]);
    assert_eq!(body["error"], "not_found");
    assert_eq!(ask(&mut off, 0, "x"), "invalid_client");
    let on = metadata(&mut server());
    assert_eq!(
        on["device_authorization_endpoint"],
        "https://as.example/device"
    );
    let grants = on["grant_types_supported"].as_array().unwrap().clone();
    assert!(grants.contains(&DEVICE_CODE.into()));
}

/// Who asks too soon is told so, and has to wait five seconds longer each time, also once it is allowed.
#[test]
fn who_asks_too_soon_is_slowed_down() {
    let mut server = server();
    let (code, typed) = begin(&mut server);
    assert_eq!(ask(&mut server, 4_999, &code), "slow_down");
    assert_eq!(ask(&mut server, 14_998, &code), "slow_down");
    assert_eq!(ask(&mut server, 29_998, &code), "authorization_pending");
    assert!(server.decide_device(START + 30_000, &typed, true));
    assert_eq!(ask(&mut server, 44_998, &code), "");
}

#[test]
fn it_is_granted_once() {
    let mut server = server();
    let (code, typed) = begin(&mut server);
    assert_eq!(server.user_codes(), std::slice::from_ref(&typed));
    assert!(server.decide_device(START, &typed, true));
    assert!(
        !server.decide_device(START, &typed, true),
        "answered before"
    );
    assert!(server.user_codes().is_empty());
    assert_eq!(ask(&mut server, 5_000, &code), "");
    assert_eq!(server.live_grants(), 1);
    assert_eq!(ask(&mut server, 10_000, &code), "invalid_grant");
    assert_eq!(
        server.live_grants(),
        0,
        "a code used twice takes its tokens with it"
    );
}

#[test]
fn a_refusal_and_an_end_are_told() {
    let mut server = server();
    let (code, typed) = begin(&mut server);
    assert!(server.decide_device(START, &typed, false));
    assert_eq!(ask(&mut server, 5_000, &code), "access_denied");
    let (code, typed) = begin(&mut server);
    assert_eq!(ask(&mut server, 59_999, &code), "authorization_pending");
    assert!(!server.decide_device(START + 60_000, &typed, true));
    assert_eq!(ask(&mut server, 65_000, &code), "expired_token");
    assert_eq!(ask(&mut server, 65_000, "dc-000009-x"), "invalid_grant");
}

/// The client authenticates at both endpoints, and a code is its own.
#[test]
fn a_code_is_for_its_client_and_resource() {
    let mut server = server();
    let asked = [("client_id", "two"), ("resource", MCP)];
    assert_eq!(
        post(&mut server, 0, "/device", &asked)["error"],
        "invalid_client"
    );
    assert_eq!(
        post(&mut server, 0, "/device", &[("client_id", "one")])["error"],
        "invalid_target"
    );
    let unknown = [
        ("client_id", "one"),
        ("resource", MCP),
        ("scope", "nonsense"),
    ];
    assert_eq!(
        post(&mut server, 0, "/device", &unknown)["error"],
        "invalid_scope"
    );
    let (code, typed) = begin(&mut server);
    assert!(server.decide_device(START, &typed, true));
    let mut fields = vec![
        ("grant_type", DEVICE_CODE),
        ("client_id", "two"),
        ("client_secret", "s"),
        ("device_code", code.as_str()),
        ("resource", MCP),
    ];
    let error = |server: &mut AuthorizationServer, fields: &[(&str, &str)]| {
        post(server, 5_000, "/token", fields)["error"].clone()
    };
    assert_eq!(error(&mut server, &fields), "invalid_grant");
    fields[1] = ("client_id", "one");
    fields.remove(2);
    fields[3] = ("resource", "https://other.example");
    assert_eq!(error(&mut server, &fields), "invalid_target");
    assert_eq!(ask(&mut server, 5_000, &code), "");
}
