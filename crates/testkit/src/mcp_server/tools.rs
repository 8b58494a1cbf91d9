//! The tools: `echo`, `whoami`, `slow`, `admin`.

use serde_json::{Value, json};

use super::TokenFacts;

/// What a tool call gives.
pub(super) enum Called {
    /// A result, after this many milliseconds.
    Result(Value, u64),
    /// The token lacks the scope of the `admin` tool.
    NeedsAdmin,
    /// There is no such tool.
    Unknown,
}

pub(super) fn list() -> Value {
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        json!({
            "name": name,
            "description": description,
            "inputSchema": { "type": "object", "properties": properties, "required": required },
        })
    };
    json!([
        tool(
            "echo",
            "Gives its text back.",
            json!({ "text": { "type": "string" } }),
            &["text"]
        ),
        tool("whoami", "Tells what the access token is.", json!({}), &[]),
        tool(
            "slow",
            "Answers after a number of milliseconds.",
            json!({ "ms": { "type": "integer", "minimum": 0, "maximum": MAX_SLOW_MS } }),
            &["ms"]
        ),
        tool("admin", "Needs one more scope.", json!({}), &[]),
    ])
}

pub(super) fn call(params: &Value, admin_scope: &str, token: &str, facts: &TokenFacts) -> Called {
    let arguments = &params["arguments"];
    match params["name"].as_str().unwrap_or_default() {
        "echo" => match arguments["text"].as_str() {
            Some(text) => Called::Result(content(text, false), 0),
            None => Called::Result(content("echo: `text` must be a string", true), 0),
        },
        "whoami" => {
            let told = json!({
                "client_id": facts.client_id,
                "scopes": facts.scopes().collect::<Vec<_>>(),
                "exp": facts.exp,
                "resource": facts.resource,
                "token_tail": tail(token),
            });
            Called::Result(content(&told.to_string(), false), 0)
        }
        "slow" => match arguments["ms"].as_u64().filter(|ms| *ms <= MAX_SLOW_MS) {
            Some(ms) => Called::Result(content(&format!("slept {ms}"), false), ms),
            None => Called::Result(content("slow: `ms` must be 0 to 600000", true), 0),
        },
        "admin" if facts.scopes().any(|scope| scope == admin_scope) => {
            Called::Result(content("admin ok", false), 0)
        }
        "admin" => Called::NeedsAdmin,
        _ => Called::Unknown,
    }
}

/// Names a token by its last eight characters.
pub(super) fn tail(token: &str) -> String {
    let skipped = token.chars().count().saturating_sub(8);
    token.chars().skip(skipped).collect()
}

const MAX_SLOW_MS: u64 = 600_000;

fn content(text: &str, is_error: bool) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": is_error })
}
