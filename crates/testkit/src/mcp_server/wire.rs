//! The two wires: which one a request speaks, and how each is answered.

use http::StatusCode;
use serde_json::{Value, json};

use super::config::{Answers, LEGACY_VERSIONS, MODERN_VERSION};
use super::tools::{self, Called};
use super::{McpServer, TokenFacts};
use crate::exchange::{Delivery, Request, Response};

impl McpServer {
    /// Answers an authenticated POST.
    pub(super) fn post(&mut self, request: &Request, token: &str, facts: &TokenFacts) -> Response {
        let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
            return failure(
                StatusCode::BAD_REQUEST,
                &Value::Null,
                -32700,
                "not JSON",
                None,
            );
        };
        if !message.is_object() || message["jsonrpc"] != "2.0" {
            let text = "not a single JSON-RPC message";
            return failure(StatusCode::BAD_REQUEST, &Value::Null, -32600, text, None);
        }
        let method = message["method"].as_str().unwrap_or_default();
        if method.starts_with("tools/") {
            self.stats.tools += 1;
        }
        // Notifications need no `_meta`; the header field tells, as there is no session.
        let modern = message["params"]["_meta"].get(META_VERSION).is_some()
            || method == "server/discover"
            || (request.header(VERSION) == Some(MODERN_VERSION)
                && !request.headers.contains_key(SESSION));
        let modern_only = !self.config.wires.legacy();
        if self.config.wires.modern() && (modern || modern_only) {
            self.modern(request, &message, method, token, facts)
        } else {
            self.legacy(request, &message, method, token, facts)
        }
    }

    /// Ends a session of the legacy wire.
    pub(super) fn delete(&mut self, request: &Request) -> Response {
        if !self.config.wires.legacy() {
            return not_allowed();
        }
        match request.header(SESSION) {
            Some(id) if self.sessions.remove(id) => Response::empty(StatusCode::NO_CONTENT),
            Some(_) => session_not_found(&Value::Null),
            None => Response::empty(StatusCode::BAD_REQUEST),
        }
    }

    fn legacy(
        &mut self,
        request: &Request,
        message: &Value,
        method: &str,
        token: &str,
        facts: &TokenFacts,
    ) -> Response {
        let id = &message["id"];
        if method == "initialize" {
            return self.initialize(message);
        }
        match request.header(SESSION) {
            None => {
                let text = "no session: the first request must be initialize";
                return failure(StatusCode::BAD_REQUEST, id, -32000, text, None);
            }
            Some(session) if !self.sessions.contains(session) => return session_not_found(id),
            Some(_) => {}
        }
        // Absent is allowed: a server then assumes 2025-03-26.
        if let Some(version) = request.header(VERSION)
            && !self.config.legacy_versions.contains(&version)
        {
            let text = format!("unsupported protocol version {version}");
            return failure(StatusCode::BAD_REQUEST, id, -32000, &text, None);
        }
        // Notifications, and answers to requests this server never sends.
        if id.is_null() || method.is_empty() {
            return Response::empty(StatusCode::ACCEPTED);
        }
        match method {
            "ping" => self.success(id, json!({})),
            "tools/list" => self.success(id, json!({ "tools": tools::list() })),
            "tools/call" => self.call(message, token, facts, Era::Legacy),
            _ => failure(StatusCode::OK, id, -32601, "method not found", None),
        }
    }

    fn initialize(&mut self, message: &Value) -> Response {
        self.stats.initialize += 1;
        let asked = message["params"]["protocolVersion"].as_str();
        let version = asked
            .filter(|version| self.config.legacy_versions.contains(version))
            .or_else(|| self.config.legacy_versions.first().copied())
            .unwrap_or(LEGACY_VERSIONS[0]);
        let session = self.mint.next("session-");
        self.sessions.insert(session.clone());
        let result = json!({
            "protocolVersion": version,
            "capabilities": capabilities(),
            "serverInfo": server_info(),
        });
        self.success(&message["id"], result)
            .with_header(http::HeaderName::from_static(SESSION), &session)
    }

    fn modern(
        &mut self,
        request: &Request,
        message: &Value,
        method: &str,
        token: &str,
        facts: &TokenFacts,
    ) -> Response {
        let id = &message["id"];
        if method.is_empty() {
            let text = "clients send requests and notifications only";
            return failure(StatusCode::BAD_REQUEST, id, -32600, text, None);
        }
        if let Err(response) = self.check_modern(request, message, method) {
            return *response;
        }
        if id.is_null() {
            return Response::empty(StatusCode::ACCEPTED);
        }
        match method {
            "server/discover" => {
                self.stats.discover += 1;
                let mut result = complete(json!({
                    "supportedVersions": self.config.wires.versions(),
                    "capabilities": capabilities(),
                }));
                make_cacheable(&mut result);
                self.success(id, result)
            }
            "tools/list" => {
                let mut result = complete(json!({ "tools": tools::list() }));
                make_cacheable(&mut result);
                self.success(id, result)
            }
            "tools/call" => self.call(message, token, facts, Era::Modern),
            _ => failure(StatusCode::NOT_FOUND, id, -32601, "method not found", None),
        }
    }

    /// Checks what every message of the modern wire must say about itself.
    fn check_modern(
        &self,
        request: &Request,
        message: &Value,
        method: &str,
    ) -> Result<(), Box<Response>> {
        let id = &message["id"];
        let bad = |code: i64, text: &str, data: Option<Value>| {
            Err(Box::new(failure(
                StatusCode::BAD_REQUEST,
                id,
                code,
                text,
                data,
            )))
        };
        let supported = self.config.wires.versions();
        let unsupported = |requested: &str| {
            let data = json!({ "supported": supported, "requested": requested });
            bad(-32022, "Unsupported protocol version", Some(data))
        };

        let params = &message["params"];
        let meta = &params["_meta"];
        let header = request.header(VERSION);
        let is_request = message.get("id").is_some();
        let told = meta[META_VERSION].as_str();
        let Some(version) = told.or(header.filter(|_| !is_request)) else {
            // An old client, to be told what is spoken here.
            if method == "initialize" {
                return unsupported(params["protocolVersion"].as_str().unwrap_or_default());
            }
            return bad(-32602, "protocolVersion is missing in _meta", None);
        };
        if header != Some(version) {
            let text = "the MCP-Protocol-Version header field and _meta do not agree";
            return bad(-32020, text, None);
        }
        if version != MODERN_VERSION {
            return unsupported(version);
        }
        if is_request && !meta[META_CAPABILITIES].is_object() {
            return bad(-32602, "clientCapabilities are missing in _meta", None);
        }
        if self.config.check_headers {
            if request.header("mcp-method") != Some(method) {
                return bad(-32020, "Mcp-Method does not agree with the body", None);
            }
            let name = request.header("mcp-name").and_then(decoded_header);
            if method == "tools/call" && name.as_deref() != params["name"].as_str() {
                return bad(-32020, "Mcp-Name does not agree with the body", None);
            }
        }
        Ok(())
    }

    fn call(&mut self, message: &Value, token: &str, facts: &TokenFacts, era: Era) -> Response {
        let id = &message["id"];
        let params = &message["params"];
        match tools::call(params, &self.config.admin_scope, token, facts) {
            Called::Result(result, after_ms) => {
                let result = match era {
                    Era::Legacy => result,
                    Era::Modern => complete(result),
                };
                let mut response = self.success(id, result);
                if after_ms > 0 {
                    response.deliver = Delivery::DelayMs(after_ms);
                }
                response
            }
            Called::NeedsAdmin => self.forbidden(),
            Called::Unknown => failure(StatusCode::OK, id, -32602, "there is no such tool", None),
        }
    }

    fn success(&self, id: &Value, result: Value) -> Response {
        let message = json!({ "jsonrpc": "2.0", "id": id, "result": result });
        match self.config.answers {
            Answers::Json => Response::json(StatusCode::OK, &message),
            Answers::EventStream => Response::with_body(
                StatusCode::OK,
                "text/event-stream",
                format!("event: message\ndata: {message}\n\n"),
            )
            .no_store(),
        }
    }
}

/// Answers a method that HTTP knows and this endpoint does not.
pub(super) fn not_allowed() -> Response {
    Response::empty(StatusCode::METHOD_NOT_ALLOWED).with_header(http::header::ALLOW, "POST")
}

#[derive(Debug, Clone, Copy)]
enum Era {
    Legacy,
    Modern,
}

const SESSION: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

fn complete(mut result: Value) -> Value {
    result["resultType"] = json!("complete");
    result["_meta"] = json!({ "io.modelcontextprotocol/serverInfo": server_info() });
    result
}

fn make_cacheable(result: &mut Value) {
    result["ttlMs"] = json!(0);
    result["cacheScope"] = json!("private");
}

fn capabilities() -> Value {
    json!({ "tools": {} })
}

fn server_info() -> Value {
    json!({ "name": "pilotlight-testkit", "version": env!("CARGO_PKG_VERSION") })
}

fn session_not_found(id: &Value) -> Response {
    failure(StatusCode::NOT_FOUND, id, -32001, "session not found", None)
}

fn failure(status: StatusCode, id: &Value, code: i64, text: &str, data: Option<Value>) -> Response {
    let mut error = json!({ "code": code, "message": text });
    if let Some(data) = data {
        error["data"] = data;
    }
    Response::json(
        status,
        &json!({ "jsonrpc": "2.0", "id": id, "error": error }),
    )
}

/// Undoes `=?base64?...?=`, the form of header values that HTTP would not carry as they are.
fn decoded_header(value: &str) -> Option<String> {
    use base64::Engine as _;
    let Some(encoded) = value
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="))
    else {
        return Some(value.to_owned());
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
    String::from_utf8(bytes.ok()?).ok()
}
