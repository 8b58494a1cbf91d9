//! Grants without a person: client credentials, assertions of a workload, and the two halves of enterprise-managed
//! authorization.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::json;

use super::assertion::is_for;
use super::token::{Answer, Pair, bad};
use super::{AuthorizationServer, Grant};
use crate::exchange::{Fields, Response};
use crate::mint::fingerprint;

/// A token request without a person, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// When, Unix time in milliseconds.
    pub at_ms: u64,
    /// Its `grant_type`.
    pub grant_type: String,
    /// Its `scope`.
    pub scope: Option<String>,
    /// Its `resource`.
    pub resource: Option<String>,
    /// Its `assertion` or `subject_token`, by [`fingerprint`](crate::fingerprint()).
    pub shown: Option<String>,
    /// Whether it was answered with what was asked for.
    pub granted: bool,
}

/// What a server remembers of such requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Unattended {
    pub(super) asked: Vec<Asked>,
    /// The client assertions that were taken, by `jti`: none is taken twice.
    pub(super) taken: BTreeSet<String>,
}

impl AuthorizationServer {
    /// Gives the token requests without a person, oldest first, refused ones among them.
    #[must_use]
    pub fn asked(&self) -> &[Asked] {
        &self.unattended.asked
    }

    /// Answers a grant that is neither a code nor a refresh token.
    pub(super) fn without_a_person(
        &mut self,
        now_ms: u64,
        client_id: &str,
        fields: &Fields,
    ) -> Answer {
        let grant_type = fields.get("grant_type").unwrap_or_default();
        if !self
            .config
            .grant_types
            .iter()
            .any(|known| known == grant_type)
        {
            return Err(bad("unsupported_grant_type", "grant_type not supported"));
        }
        match grant_type {
            "client_credentials" if self.is_public(client_id) => {
                Err(bad("unauthorized_client", "a public client is nobody"))
            }
            "client_credentials" => self.grant_to(now_ms, client_id, fields),
            JWT_BEARER => {
                let resource = fields.get("resource").unwrap_or_default();
                let assertion = fields.get("assertion").unwrap_or_default();
                let keys = &self.config.believes;
                let claims = keys.iter().find_map(|key| key.claims(assertion));
                match claims {
                    Some(claims) if !is_for(&claims, &self.issuer, now_ms) => Err(bad(
                        "invalid_grant",
                        "the assertion is over, or for somebody else",
                    )),
                    Some(claims) if claims.get("resource").is_some_and(|of| of != resource) => Err(
                        bad("invalid_target", "the assertion is for another resource"),
                    ),
                    Some(_) => self.grant_to(now_ms, client_id, fields),
                    None => Err(bad(
                        "invalid_grant",
                        "nobody known has signed the assertion",
                    )),
                }
            }
            TOKEN_EXCHANGE => self.vouch(now_ms, client_id, fields),
            _ => Err(bad("unsupported_grant_type", "grant_type not supported")),
        }
    }

    /// Remembers such a request, and how it ended.
    pub(super) fn remember_asked(&mut self, now_ms: u64, fields: &Fields, granted: bool) {
        let text = |name: &str| fields.get(name).map(str::to_owned);
        let shown = fields
            .get("assertion")
            .or_else(|| fields.get("subject_token"));
        self.unattended.asked.push(Asked {
            at_ms: now_ms,
            grant_type: text("grant_type").unwrap_or_default(),
            scope: text("scope"),
            resource: text("resource"),
            shown: shown.map(fingerprint),
            granted,
        });
    }

    fn is_public(&self, client_id: &str) -> bool {
        let secret = self
            .client(client_id)
            .is_some_and(|client| client.secret.is_some());
        !secret && !self.config.client_keys.contains_key(client_id)
    }

    fn grant_to(&mut self, now_ms: u64, client_id: &str, fields: &Fields) -> Answer {
        self.check_resource(fields.get("resource"))
            .map_err(|(error, description)| bad(error, description))?;
        let scopes: Vec<String> = match fields.get("scope") {
            Some(scope) => scope.split_ascii_whitespace().map(Into::into).collect(),
            None => self.config.default_scopes.clone(),
        };
        if !scopes
            .iter()
            .all(|scope| self.config.scopes_supported.contains(scope))
        {
            return Err(bad("invalid_scope", "the scope is not known"));
        }
        self.last_family += 1;
        let family = self.last_family;
        self.grants.insert(
            family,
            Grant {
                client_id: client_id.to_owned(),
                scopes: scopes.clone(),
                resource: fields.get("resource").map(Into::into),
                revoked: None,
                key: None,
            },
        );
        let access_token = self.new_access_token(now_ms, family, scopes);
        Ok(Pair {
            access_token,
            refresh_token: None,
        })
    }

    /// As an identity provider: an identity of ours becomes an assertion for another issuer.
    fn vouch(&mut self, now_ms: u64, client_id: &str, fields: &Fields) -> Answer {
        let Some(platform) = self.config.vouches else {
            return Err(bad("unsupported_grant_type", "grant_type not supported"));
        };
        let subject = fields.get("subject_token").unwrap_or_default();
        let claims = platform.public().claims(subject);
        let Some(claims) = claims.filter(|claims| is_for(claims, client_id, now_ms)) else {
            return Err(bad("invalid_grant", "the identity is over, or not ours"));
        };
        if fields.get("requested_token_type") != Some(ID_JAG) {
            return Err(bad("invalid_request", "only an ID-JAG is given out"));
        }
        let (Some(audience), Some(resource)) = (fields.get("audience"), fields.get("resource"))
        else {
            return Err(bad("invalid_target", "audience and resource are required"));
        };
        let assertion = platform.token(&json!({
            "iss": self.issuer,
            "sub": claims["sub"],
            "aud": audience,
            "resource": resource,
            "exp": now_ms / 1000 + 300,
            "jti": self.mint("jag-"),
        }));
        self.issued.push(assertion.clone());
        Ok(Pair {
            access_token: assertion,
            refresh_token: None,
        })
    }

    /// The answer to a token exchange (RFC 8693 section 2.2.1).
    pub(super) fn vouched(pair: &Pair) -> Response {
        let body = json!({
            "access_token": pair.access_token,
            "issued_token_type": ID_JAG,
            "token_type": "N_A",
            "expires_in": 300,
        });
        Response::json(StatusCode::OK, &body).no_store()
    }
}

pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
