//! What a login makes use of, among the capabilities that a client declares (EXT-01): in `initialize`, and since 2026-07-28
//! in the `_meta` of each request.
//!
//! It is put in as the message leaves, since a host may build its client before anybody is logged in.

use rmcp::model::{ClientCapabilities, ClientJsonRpcMessage, ClientRequest, GetMeta as _};

/// Adds extensions to the capabilities that a message declares, if it declares any. What the host says of one stays.
pub(super) fn with_extensions(
    mut message: ClientJsonRpcMessage,
    extensions: &[&'static str],
) -> ClientJsonRpcMessage {
    if extensions.is_empty() {
        return message;
    }
    if let ClientJsonRpcMessage::Request(request) = &mut message {
        if let ClientRequest::InitializeRequest(initialize) = &mut request.request {
            add(&mut initialize.params.capabilities, extensions);
        } else if let Some(mut all) = request.request.get_meta().client_capabilities() {
            add(&mut all, extensions);
            request.request.get_meta_mut().set_client_capabilities(all);
        }
    }
    message
}

fn add(to: &mut ClientCapabilities, extensions: &[&'static str]) {
    let all = to.extensions.get_or_insert_default();
    for name in extensions {
        all.entry((*name).to_owned()).or_default();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const OURS: &str = "io.modelcontextprotocol/oauth-client-credentials";

    fn sent(message: Value, extensions: &[&'static str]) -> Value {
        let message: ClientJsonRpcMessage = serde_json::from_value(message).unwrap();
        json!(with_extensions(message, extensions))
    }

    fn initialize(capabilities: Value) -> Value {
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": capabilities,
            "clientInfo": {"name": "host", "version": "1"},
        }})
    }

    /// EXT-01: both wires say it where they say what a client can do; what else the host has said stays as it is.
    #[test]
    fn a_login_is_declared_where_capabilities_are() {
        let own = json!({"roots": {}, "extensions": {"example/own": {"a": 1}}});
        let told = sent(initialize(own.clone()), &[OURS]);
        let want = json!({"roots": {}, "extensions": {"example/own": {"a": 1}, OURS: {}}});
        assert_eq!(told["params"]["capabilities"], want);

        let modern = |meta: Value| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}});
        let key = "io.modelcontextprotocol/clientCapabilities";
        let told = sent(modern(json!({key: own, "x": 1})), &[OURS]);
        assert_eq!(told["params"]["_meta"], json!({key: want, "x": 1}));

        // A message of an older wire declares nothing, and still does not.
        let bare = modern(json!({"x": 1}));
        assert_eq!(sent(bare.clone(), &[OURS]), sent(bare, &[]));
        let said = initialize(json!({"extensions": {OURS: {"mine": true}}}));
        let told = sent(said.clone(), &[OURS]);
        assert_eq!(
            told["params"]["capabilities"],
            said["params"]["capabilities"]
        );
    }
}
