//! The MCP server's challenge, its metadata, and both wires.

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderName, Method, StatusCode};
use pilotlight_testkit::mcp_server::{Answers, McpServerConfig, TokenFacts, Wires};
use pilotlight_testkit::{Delivery, McpServer, Request, Response};
use serde_json::{Value, json};

const RESOURCE: &str = "http://mcp.test/mcp";

fn server(change: impl FnOnce(&mut McpServerConfig)) -> McpServer {
    let verifier = |_now: u64, token: &str| {
        let scope = match token {
            "live" | "elsewhere" => "mcp:tools",
            "admin" => "mcp:tools mcp:admin",
            _ => return None,
        };
        Some(TokenFacts {
            client_id: "c".into(),
            scope: scope.into(),
            exp: 1_800_000_000,
            resource: Some(match token {
                "elsewhere" => "http://other.test/mcp".into(),
                _ => RESOURCE.into(),
            }),
            key: None,
        })
    };
    let config = McpServerConfig::default().with(change);
    McpServer::new(RESOURCE.into(), config, verifier)
}

fn post(body: &Value, token: &str) -> Request {
    Request::json("/mcp", body)
        .with_header(ACCEPT, "application/json, text/event-stream")
        .with_header(AUTHORIZATION, &format!("Bearer {token}"))
}

fn rpc(id: u64, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn name(header: &'static str) -> HeaderName {
    HeaderName::from_static(header)
}

/// A request of the modern wire with everything it needs.
fn modern(method: &str, mut params: Value, token: &str) -> Request {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let tool = params["name"].as_str().unwrap_or_default().to_owned();
    let request = post(&rpc(1, method, &params), token)
        .with_header(name("mcp-protocol-version"), "2026-07-28")
        .with_header(name("mcp-method"), method);
    match tool.is_empty() {
        true => request,
        false => request.with_header(name("mcp-name"), &tool),
    }
}

fn initialize(server: &mut McpServer) -> String {
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {} });
    let response = server.handle(0, post(&rpc(0, "initialize", &params), "live"));
    assert_eq!(
        response.body_json()["result"]["protocolVersion"],
        "2025-11-25"
    );
    response.headers["mcp-session-id"]
        .to_str()
        .unwrap()
        .to_owned()
}

fn in_session(session: &str, body: &Value) -> Request {
    post(body, "live")
        .with_header(name("mcp-session-id"), session)
        .with_header(name("mcp-protocol-version"), "2025-11-25")
}

fn challenge(response: &Response) -> &str {
    response.headers["www-authenticate"].to_str().unwrap()
}

#[test]
fn the_challenge_names_the_metadata_and_blames_a_token_only_if_one_came() {
    let mut server = server(|_| {});
    let metadata =
        r#"resource_metadata="http://mcp.test/.well-known/oauth-protected-resource/mcp""#;
    let none = server.handle(0, Request::json("/mcp", &json!({})));
    assert_eq!(none.status, StatusCode::UNAUTHORIZED);
    assert_eq!(challenge(&none), format!("Bearer {metadata}"));
    for token in ["dead", "elsewhere"] {
        let bad = server.handle(0, post(&json!({}), token));
        assert_eq!(bad.status, StatusCode::UNAUTHORIZED, "{token}");
        assert!(challenge(&bad).starts_with("Bearer error=\"invalid_token\""));
        assert!(challenge(&bad).ends_with(metadata));
    }
    assert_eq!(server.stats().unauthorized, 3);

    server.config_mut().challenge_scope = Some("mcp:tools".into());
    server.config_mut().challenge_names_metadata = false;
    let none = server.handle(0, Request::json("/mcp", &json!({})));
    assert_eq!(challenge(&none), "Bearer scope=\"mcp:tools\"");
}

#[test]
fn the_resource_metadata_is_served_where_configured() {
    let mut server = server(|config| config.authorization_servers.push("http://as.test".into()));
    let at_path = "/.well-known/oauth-protected-resource/mcp";
    let at_root = "/.well-known/oauth-protected-resource";
    let body = server.handle(0, Request::get(at_path)).body_json();
    assert_eq!(body["resource"], RESOURCE);
    assert_eq!(body["authorization_servers"], json!(["http://as.test"]));
    assert_eq!(
        server.handle(0, Request::get(at_root)).status,
        StatusCode::NOT_FOUND
    );
    let config = server.config_mut();
    (config.metadata_at_path, config.metadata_at_root) = (false, true);
    config.metadata_overrides = json!({ "resource": "http://evil.test/mcp" });
    assert_eq!(
        server.handle(0, Request::get(at_path)).status,
        StatusCode::NOT_FOUND
    );
    let body = server.handle(0, Request::get(at_root)).body_json();
    assert_eq!(body["resource"], "http://evil.test/mcp");
}

#[test]
fn a_legacy_session_goes_from_initialize_to_delete() {
    let mut server = server(|_| {});
    let session = initialize(&mut server);
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let accepted = server.handle(0, in_session(&session, &initialized));
    assert_eq!(
        (accepted.status, accepted.body.len()),
        (StatusCode::ACCEPTED, 0)
    );

    let listed = server.handle(0, in_session(&session, &rpc(1, "tools/list", &json!({}))));
    let listed = listed.body_json();
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 4);
    assert!(
        listed["result"].get("resultType").is_none(),
        "that is of the other wire"
    );
    let call = rpc(
        2,
        "tools/call",
        &json!({ "name": "echo", "arguments": { "text": "hi" } }),
    );
    let called = server.handle(0, in_session(&session, &call)).body_json();
    assert_eq!(called["result"]["content"][0]["text"], "hi");
    let pong = server.handle(0, in_session(&session, &rpc(3, "ping", &json!({}))));
    assert_eq!(pong.body_json()["result"], json!({}));

    let bare = |method| {
        let mut request = in_session(&session, &json!({}));
        request.method = method;
        request
    };
    assert_eq!(
        server.handle(0, bare(Method::GET)).status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(
        server.handle(0, bare(Method::DELETE)).status,
        StatusCode::NO_CONTENT
    );
    let gone = server.handle(0, in_session(&session, &rpc(4, "ping", &json!({}))));
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let no_session = server.handle(0, post(&rpc(5, "tools/list", &json!({})), "live"));
    assert_eq!(no_session.status, StatusCode::BAD_REQUEST);
    assert_eq!(server.stats().by_token_tail["live"], 9);
}

#[test]
fn a_modern_request_stands_alone() {
    let mut server = server(|_| {});
    let found = server
        .handle(0, modern("server/discover", json!({}), "live"))
        .body_json();
    let result = &found["result"];
    assert_eq!(result["resultType"], "complete");
    assert_eq!(result["supportedVersions"][0], "2026-07-28");
    assert_eq!(
        (&result["ttlMs"], &result["cacheScope"]),
        (&json!(0), &json!("private"))
    );
    let listed = server
        .handle(0, modern("tools/list", json!({}), "live"))
        .body_json();
    assert_eq!(listed["result"]["tools"][0]["name"], "echo");
    let params = json!({ "name": "echo", "arguments": { "text": "hi" } });
    let called = server.handle(0, modern("tools/call", params, "live"));
    assert!(called.headers.get("mcp-session-id").is_none());
    assert_eq!(called.body_json()["result"]["content"][0]["text"], "hi");
    let ping = server.handle(0, modern("ping", json!({}), "live"));
    assert_eq!(
        (ping.status, &ping.body_json()["error"]["code"]),
        (StatusCode::NOT_FOUND, &json!(-32601))
    );
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {} });
    let request = post(&cancelled, "live")
        .with_header(name("mcp-protocol-version"), "2026-07-28")
        .with_header(name("mcp-method"), "notifications/cancelled");
    assert_eq!(server.handle(0, request).status, StatusCode::ACCEPTED);
}

#[test]
fn modern_requests_that_contradict_themselves_are_refused() {
    let mut server = server(|_| {});
    let code = |response: &Response| response.body_json()["error"]["code"].as_i64();
    let version = name("mcp-protocol-version");

    let differs =
        modern("tools/list", json!({}), "live").with_header(version.clone(), "2025-11-25");
    assert_eq!(code(&server.handle(0, differs)), Some(-32020));
    let no_method = modern("tools/list", json!({}), "live").with_header(name("mcp-method"), "ping");
    assert_eq!(code(&server.handle(0, no_method)), Some(-32020));
    let params = json!({ "name": "echo", "arguments": { "text": "x" } });
    let other_tool =
        modern("tools/call", params.clone(), "live").with_header(name("mcp-name"), "slow");
    assert_eq!(code(&server.handle(0, other_tool)), Some(-32020));
    let encoded =
        modern("tools/call", params, "live").with_header(name("mcp-name"), "=?base64?ZWNobw==?=");
    assert_eq!(code(&server.handle(0, encoded)), None);

    let meta = json!({ "_meta": {
        "io.modelcontextprotocol/protocolVersion": "1900-01-01",
        "io.modelcontextprotocol/clientCapabilities": {},
    }});
    let old = post(&rpc(1, "server/discover", &meta), "live").with_header(version, "1900-01-01");
    let refused = server.handle(0, old);
    assert_eq!(
        (refused.status, code(&refused)),
        (StatusCode::BAD_REQUEST, Some(-32022))
    );
    let data = &refused.body_json()["error"]["data"];
    assert_eq!(
        (&data["supported"][0], &data["requested"]),
        (&json!("2026-07-28"), &json!("1900-01-01"))
    );
    let bare = server.handle(0, post(&rpc(1, "server/discover", &json!({})), "live"));
    assert_eq!(code(&bare), Some(-32602));
}

#[test]
fn a_legacy_server_answers_discover_like_an_old_one() {
    let mut server = server(|config| config.wires = Wires::Legacy);
    let refused = server.handle(0, modern("server/discover", json!({}), "live"));
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let error = refused.body_json()["error"]["code"].as_i64().unwrap();
    assert!(
        ![-32020, -32021, -32022].contains(&error),
        "no modern code: {error}"
    );
    initialize(&mut server);
}

#[test]
fn a_modern_server_tells_an_old_client_what_it_speaks() {
    let mut server = server(|config| config.wires = Wires::Modern);
    let params = json!({ "protocolVersion": "2025-11-25" });
    let refused = server.handle(0, post(&rpc(0, "initialize", &params), "live"));
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        refused.body_json()["error"]["data"]["supported"],
        json!(["2026-07-28"])
    );
}

#[test]
fn answers_can_be_event_streams() {
    let mut server = server(|config| config.answers = Answers::EventStream);
    let response = server.handle(0, modern("tools/list", json!({}), "live"));
    assert_eq!(response.headers["content-type"], "text/event-stream");
    let text = String::from_utf8(response.body).unwrap();
    let data = text
        .strip_prefix("event: message\ndata: ")
        .unwrap()
        .strip_suffix("\n\n")
        .unwrap();
    let message: Value = serde_json::from_str(data).unwrap();
    assert_eq!(message["id"], 1);
}

#[test]
fn the_admin_tool_needs_its_scope() {
    let mut server = server(|_| {});
    let call = |token| modern("tools/call", json!({ "name": "admin" }), token);
    let refused = server.handle(0, call("live"));
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(challenge(&refused).contains(r#"error="insufficient_scope""#));
    assert!(challenge(&refused).contains(r#"scope="mcp:admin""#));
    assert_eq!(server.stats().forbidden, 1);
    assert_eq!(server.handle(0, call("admin")).status, StatusCode::OK);
}

#[test]
fn the_slow_tool_answers_late_and_whoami_tells_the_token() {
    let mut server = server(|_| {});
    let slow = json!({ "name": "slow", "arguments": { "ms": 250 } });
    let response = server.handle(0, modern("tools/call", slow, "live"));
    assert_eq!(response.deliver, Delivery::DelayMs(250));
    let response = server.handle(
        0,
        modern("tools/call", json!({ "name": "whoami" }), "admin"),
    );
    let text = response.body_json()["result"]["content"][0]["text"].to_string();
    assert!(
        text.contains("mcp:admin") && text.contains("token_tail"),
        "{text}"
    );
    let response = server.handle(
        0,
        modern("tools/call", json!({ "name": "nothing" }), "live"),
    );
    assert_eq!(response.body_json()["error"]["code"], -32602);
}

#[test]
fn live_tokens_can_be_rejected_for_a_while() {
    let mut server = server(|_| {});
    server.reject_next(2);
    let mut list = || {
        server
            .handle(0, modern("tools/list", json!({}), "live"))
            .status
    };
    assert_eq!(list(), StatusCode::UNAUTHORIZED);
    assert_eq!(list(), StatusCode::UNAUTHORIZED);
    assert_eq!(list(), StatusCode::OK);
}
