//! The well-known documents (RFC 8414, OpenID Connect Discovery).

use http::StatusCode;
use serde_json::{Value, json};

use super::AuthorizationServer;
use super::config::AuthorizationServerConfig;
use super::device::DEVICE_CODE;
use crate::exchange::{Response, merge};

impl AuthorizationServer {
    /// Tells whether a path is one of the well-known forms for this issuer, and which document it names.
    pub(super) fn well_known(&self, path: &str) -> Option<Document> {
        let inserted = |name: &str| format!("/.well-known/{name}{}", self.issuer_path);
        if path == inserted("oauth-authorization-server") {
            Some(Document::OAuth)
        } else if path == inserted("openid-configuration")
            || path == format!("{}/.well-known/openid-configuration", self.issuer_path)
        {
            Some(Document::OpenId)
        } else {
            path.contains("/.well-known/").then_some(Document::Unknown)
        }
    }

    pub(super) fn metadata(&self, document: Document) -> Response {
        let served = match document {
            Document::OAuth => self.config.serve_oauth_metadata,
            Document::OpenId => self.config.serve_openid_metadata,
            Document::Unknown => false,
        };
        if !served {
            return Response::json(StatusCode::NOT_FOUND, &json!({ "error": "not_found" }));
        }
        let mut body = describe(&self.issuer, &self.config);
        if document == Document::OpenId {
            merge(
                &mut body,
                &json!({
                    "jwks_uri": format!("{}/jwks", self.issuer),
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                }),
            );
        }
        merge(&mut body, &self.config.metadata_overrides);
        Response::json(StatusCode::OK, &body)
    }
}

/// A well-known document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    OAuth,
    OpenId,
    /// A well-known path that belongs to no document here, for instance the root form of an issuer that has a path.
    Unknown,
}

fn describe(issuer: &str, config: &AuthorizationServerConfig) -> Value {
    let mut scopes = config.scopes_supported.clone();
    if config.list_offline_access {
        scopes.push("offline_access".into());
    }
    let methods: Vec<_> = config
        .token_endpoint_auth_methods
        .iter()
        .map(|method| method.name())
        .collect();
    let mut body = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}{}", config.token_path),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": config.grant_types,
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "scopes_supported": scopes,
    });
    if !config.pkce_methods.is_empty() {
        body["code_challenge_methods_supported"] = json!(config.pkce_methods);
    }
    if config.dpop.is_some() {
        body["dpop_signing_alg_values_supported"] = json!(["EdDSA", "ES256"]);
    }
    if config.device.is_some() {
        body["device_authorization_endpoint"] = json!(format!("{issuer}/device"));
        if let Some(grants) = body["grant_types_supported"].as_array_mut() {
            grants.push(json!(DEVICE_CODE));
        }
    }
    if config.registration {
        body["registration_endpoint"] = json!(format!("{issuer}/register"));
    }
    if config.client_id_metadata_document_supported {
        body["client_id_metadata_document_supported"] = json!(true);
    }
    if config.advertise_iss {
        body["authorization_response_iss_parameter_supported"] = json!(true);
    }
    body
}
