//! The revocation endpoint (RFC 7009).

use http::{Method, StatusCode};

use super::client::claimed_client;
use super::ledger::{Kind, Outcome};
use super::token::bad;
use super::{AuthorizationServer, RevokedBy};
use crate::exchange::{Fields, Request, Response};
use crate::mint::fingerprint;

impl AuthorizationServer {
    /// Processes a revocation request: a refresh token takes its whole grant along, an access token goes alone.
    pub(super) fn revoke(&mut self, now_ms: u64, request: &Request) -> Response {
        if request.method != Method::POST {
            return Response::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        let fields = Fields::parse(&request.body);
        let token = fields.get("token").unwrap_or_default();
        let family = self.refresh_tokens.get(token).map(|found| found.family);
        let result = self
            .authenticate(now_ms, request, &fields)
            .and_then(|client_id| {
                if token.is_empty() {
                    return Err(bad("invalid_request", "the token is missing"));
                }
                let holder = family.or(self.access_tokens.get(token).map(|found| found.family));
                let owner = holder.and_then(|family| self.grants.get(&family));
                if owner.is_some_and(|grant| grant.client_id != client_id) {
                    return Err(bad(
                        "invalid_request",
                        "the token belongs to another client",
                    ));
                }
                Ok(client_id)
            });
        let (response, outcome) = match result {
            Ok(_) => {
                if let Some(family) = family {
                    self.revoke_family(family, RevokedBy::Request);
                } else if let Some(access) = self.access_tokens.get_mut(token) {
                    access.revoked = true;
                }
                // An unknown token is no error (section 2.2).
                self.stats.revocations += 1;
                (Response::empty(StatusCode::OK).no_store(), Outcome::Ok)
            }
            Err(response) => {
                let error = response.body_json()["error"]
                    .as_str()
                    .unwrap_or("")
                    .to_owned();
                *self.stats.by_error.entry(error.clone()).or_default() += 1;
                (*response, Outcome::Error(error))
            }
        };
        let entry = self.entry(now_ms, Kind::Revoke, request, outcome);
        entry.client_id = claimed_client(request, &fields);
        entry.refresh_token = family.map(|_| fingerprint(token));
        entry.family = family;
        response
    }
}
