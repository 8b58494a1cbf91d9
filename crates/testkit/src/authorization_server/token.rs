//! The token endpoint, and the rules of rotation and reuse.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::client::claimed_client;
use super::config::{IssueRefreshToken, RefreshScopes, Rotation};
use super::device::DEVICE_CODE;
use super::grants::TOKEN_EXCHANGE;
use super::ledger::{Kind, Outcome};
use super::{AccessToken, AuthorizationServer, Grant, RefreshToken, RevokedBy, millis};
use crate::exchange::{Fields, Request, Response};
use crate::faults::{Fault, oauth_error};
use crate::mint::fingerprint;

impl AuthorizationServer {
    /// Processes a token request; `fault` is one that lets it be processed.
    pub(super) fn token(
        &mut self,
        now_ms: u64,
        request: &Request,
        fault: Option<&Fault>,
    ) -> Response {
        if request.method != Method::POST {
            return Response::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        let fields = Fields::parse(&request.body);
        let about = self.about(now_ms, request, &fields);
        let proof = self.proof_of(now_ms, request, about.family);
        let answer = proof
            .clone()
            .and_then(|_| self.authenticate(now_ms, request, &fields))
            .and_then(|client_id| match about.kind {
                _ if fields.repeated.is_some() => Err(bad("invalid_request", "repeated parameter")),
                Kind::Code => self.exchange_code(now_ms, &client_id, &fields),
                Kind::Refresh => self.refresh(now_ms, &client_id, &fields),
                _ if fields.get("grant_type") == Some(DEVICE_CODE) => {
                    self.exchange_device(now_ms, &client_id, &fields)
                }
                _ => self.without_a_person(now_ms, &client_id, &fields),
            });
        if about.kind == Kind::Other && fields.get("grant_type") != Some(DEVICE_CODE) {
            self.remember_asked(now_ms, &fields, answer.is_ok());
        }
        if let (Ok(pair), Ok(Some(key)), Kind::Code | Kind::Other) = (&answer, proof, about.kind) {
            self.bind(&pair.access_token, key);
        }
        let answer = answer.map(|pair| match fields.get("grant_type") {
            Some(TOKEN_EXCHANGE) => Self::vouched(&pair),
            _ => self.token_response(now_ms, about.kind, &pair, fault),
        });

        let (response, outcome) = match answer {
            Ok(response) => (response, Outcome::Ok),
            Err(response) => {
                let error = response.body_json()["error"]
                    .as_str()
                    .unwrap_or("")
                    .to_owned();
                (*response, Outcome::Error(error))
            }
        };
        self.count(about.kind, &outcome);
        let grace_hit = about.spent_before && outcome == Outcome::Ok;
        // A code only has a family once it has been exchanged.
        let family = about.family.or_else(|| {
            let code = self.codes.get(fields.get("code")?)?;
            code.family
        });
        let entry = self.entry(now_ms, about.kind, request, outcome);
        about.write_to(entry);
        entry.family = family;
        entry.grace_hit = grace_hit;
        entry.answer_lost = fault == Some(&Fault::Lose);
        self.tell_nonce(response)
    }

    /// Records a token request that a fault answered.
    pub(super) fn token_not_processed(&mut self, now_ms: u64, request: &Request, fault: &Fault) {
        let fields = Fields::parse(&request.body);
        let about = self.about(now_ms, request, &fields);
        let outcome = Outcome::Fault(fault.name().into());
        about.write_to(self.entry(now_ms, about.kind, request, outcome));
    }

    fn exchange_code(&mut self, now_ms: u64, client_id: &str, fields: &Fields) -> Answer {
        let code = fields.get("code").unwrap_or_default();
        let Some(found) = self.codes.get(code).cloned() else {
            return Err(bad("invalid_grant", "the code is not known"));
        };
        if let Some(family) = found.family {
            // RFC 6749 section 4.1.2: a code used twice takes its tokens with it.
            self.revoke_family(family, RevokedBy::CodeReplay);
            return Err(bad("invalid_grant", "the code was used before"));
        }
        if found.client_id != client_id {
            return Err(bad(
                "invalid_grant",
                "the code was issued to another client",
            ));
        }
        if now_ms >= found.expires_at_ms {
            return Err(bad("invalid_grant", "the code has expired"));
        }
        let same_redirect = match fields.get("redirect_uri") {
            Some(uri) => uri == found.redirect_uri,
            // RFC 6749 section 4.1.3: required if the authorization request named it.
            None => !found.redirect_uri_named,
        };
        if !same_redirect {
            return Err(bad(
                "invalid_grant",
                "redirect_uri differs from the authorization request",
            ));
        }
        let verifier = fields.get("code_verifier").unwrap_or_default();
        if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != found.code_challenge {
            return Err(bad("invalid_grant", "code_verifier does not match"));
        }
        self.same_resource(fields, found.resource.as_deref())?;

        let (family, mut pair) = self.new_grant(now_ms, client_id, found.scopes, found.resource);
        let keeps = match self.config.issue_refresh_token {
            IssueRefreshToken::WithConsent => found.insists.consent,
            IssueRefreshToken::WithAccessType => found.insists.offline,
            _ => true,
        };
        pair.refresh_token = pair.refresh_token.filter(|_| keeps);
        if let Some(code) = self.codes.get_mut(code) {
            code.family = Some(family);
        }
        Ok(pair)
    }

    /// Makes the grant that a person has allowed, and its first tokens.
    pub(super) fn new_grant(
        &mut self,
        now_ms: u64,
        client_id: &str,
        scopes: Vec<String>,
        resource: Option<String>,
    ) -> (u64, Pair) {
        self.last_family += 1;
        let family = self.last_family;
        let wants_refresh = match self.config.issue_refresh_token {
            IssueRefreshToken::Always
            | IssueRefreshToken::WithConsent
            | IssueRefreshToken::WithAccessType => true,
            IssueRefreshToken::WithOfflineAccess => {
                scopes.iter().any(|scope| scope == "offline_access")
            }
            IssueRefreshToken::Never => false,
        };
        self.grants.insert(
            family,
            Grant {
                client_id: client_id.to_owned(),
                scopes: scopes.clone(),
                resource,
                revoked: None,
                key: None,
            },
        );
        let access_token = self.new_access_token(now_ms, family, scopes);
        let refresh_token = wants_refresh.then(|| self.new_refresh_token(now_ms, family));
        let pair = Pair {
            access_token,
            refresh_token,
        };
        (family, pair)
    }

    fn refresh(&mut self, now_ms: u64, client_id: &str, fields: &Fields) -> Answer {
        let presented = fields.get("refresh_token").unwrap_or_default();
        let Some(found) = self.refresh_tokens.get(presented).cloned() else {
            return Err(bad("invalid_grant", NOT_VALID));
        };
        let Some(grant) = self.grants.get(&found.family).cloned() else {
            return Err(bad("invalid_grant", NOT_VALID));
        };
        if grant.client_id != client_id {
            return Err(bad(
                "invalid_grant",
                "the refresh token was issued to another client",
            ));
        }
        if let Some(by) = grant.revoked {
            return Err(bad("invalid_grant", self.explain(by)));
        }
        self.same_resource(fields, grant.resource.as_deref())?;
        let named = fields.get("scope").is_some();
        let fits = match self.config.refresh_scopes {
            RefreshScopes::Any => true,
            RefreshScopes::Wanted => named,
            RefreshScopes::Refused => !named,
        };
        if !fits {
            return Err(bad(
                "invalid_scope",
                "the scopes must be named, or must not",
            ));
        }
        let scopes = match fields.get("scope") {
            None => grant.scopes.clone(),
            Some(scope) => {
                let asked: Vec<String> = scope.split_ascii_whitespace().map(Into::into).collect();
                if !asked.iter().all(|scope| grant.scopes.contains(scope)) {
                    return Err(bad("invalid_scope", "the scope was not granted"));
                }
                asked
            }
        };

        if let Some(spent) = found.spent {
            let grace_ms = self.config.reuse_grace.map_or(0, millis);
            if now_ms.saturating_sub(spent.at_ms) < grace_ms {
                return Ok(spent.successor);
            }
            self.revoke_family(found.family, RevokedBy::Reuse);
            return Err(bad("invalid_grant", self.explain(RevokedBy::Reuse)));
        }
        if found.expires_at_ms.is_some_and(|at| now_ms >= at) {
            return Err(bad("invalid_grant", "the refresh token has expired"));
        }

        let access_token = self.new_access_token(now_ms, found.family, scopes);
        if self.config.rotation == Rotation::Never || self.config.omit_refresh_token {
            // It was used, so its idle time starts again.
            let expires_at_ms = self.refresh_expiry(now_ms);
            if let Some(token) = self.refresh_tokens.get_mut(presented) {
                token.expires_at_ms = expires_at_ms;
            }
            return Ok(Pair {
                access_token,
                refresh_token: Some(presented.to_owned()),
            });
        }
        let pair = Pair {
            access_token,
            refresh_token: Some(self.new_refresh_token(now_ms, found.family)),
        };
        if let Some(token) = self.refresh_tokens.get_mut(presented) {
            token.spent = Some(Spent {
                at_ms: now_ms,
                successor: pair.clone(),
            });
        }
        Ok(pair)
    }

    /// Compares the resource of a token request to the granted one (RFC 8707 section 2.2).
    pub(super) fn same_resource(
        &self,
        fields: &Fields,
        granted: Option<&str>,
    ) -> Result<(), Box<Response>> {
        let resource = fields.get("resource");
        self.check_resource(resource)
            .map_err(|(error, description)| bad(error, description))?;
        match (resource, granted) {
            (Some(asked), Some(granted)) if asked != granted => {
                Err(bad("invalid_target", "the resource was not granted"))
            }
            _ => Ok(()),
        }
    }

    fn explain(&self, by: RevokedBy) -> &'static str {
        match by {
            RevokedBy::Reuse if self.config.names_reuse => {
                "refresh token reuse detected: the token was used before, all tokens of the grant are revoked"
            }
            _ => NOT_VALID,
        }
    }

    pub(super) fn new_access_token(
        &mut self,
        now_ms: u64,
        family: u64,
        scopes: Vec<String>,
    ) -> String {
        let mut token = self.mint("at-");
        let missing = self.config.access_token_bytes.saturating_sub(token.len());
        token.extend(std::iter::repeat_n('a', missing));
        let expires_at_ms = now_ms + millis(self.config.access_ttl);
        self.access_tokens.insert(
            token.clone(),
            AccessToken {
                family,
                scopes,
                expires_at_ms,
                revoked: false,
            },
        );
        token
    }

    /// Binds a grant to the key of its first proof.
    fn bind(&mut self, access_token: &str, key: String) {
        let family = self
            .access_tokens
            .get(access_token)
            .map(|access| access.family);
        if let Some(grant) = family.and_then(|family| self.grants.get_mut(&family)) {
            grant.key = Some(key);
        }
    }

    fn new_refresh_token(&mut self, now_ms: u64, family: u64) -> String {
        let token = self.mint("rt-");
        let expires_at_ms = self.refresh_expiry(now_ms);
        self.refresh_tokens.insert(
            token.clone(),
            RefreshToken {
                family,
                expires_at_ms,
                spent: None,
            },
        );
        token
    }

    fn refresh_expiry(&self, now_ms: u64) -> Option<u64> {
        self.config.refresh_ttl.map(|ttl| now_ms + millis(ttl))
    }

    fn token_response(
        &self,
        now_ms: u64,
        kind: Kind,
        pair: &Pair,
        fault: Option<&Fault>,
    ) -> Response {
        let mut body = json!({ "access_token": pair.access_token, "token_type": "Bearer" });
        if let Some(access) = self.access_tokens.get(&pair.access_token) {
            let grant = self.grants.get(&access.family);
            if grant.is_some_and(|grant| grant.key.is_some()) {
                body["token_type"] = json!("DPoP");
            }
            body["scope"] = json!(access.scopes.join(" "));
            if !self.config.omit_expires_in && fault != Some(&Fault::OmitExpiresIn) {
                let left_ms = access.expires_at_ms.saturating_sub(now_ms);
                body["expires_in"] = json!(left_ms / 1000);
            }
        }
        let omitted = (kind == Kind::Refresh && self.config.omit_refresh_token)
            || fault == Some(&Fault::OmitRefreshToken);
        if let (Some(refresh_token), false) = (&pair.refresh_token, omitted) {
            body["refresh_token"] = json!(refresh_token);
        }
        Response::json(StatusCode::OK, &body).no_store()
    }

    /// Reads from a token request what the ledger needs, before anything changes.
    fn about(&mut self, now_ms: u64, request: &Request, fields: &Fields) -> About {
        let kind = match fields.get("grant_type") {
            Some("authorization_code") => Kind::Code,
            Some("refresh_token") => Kind::Refresh,
            _ => Kind::Other,
        };
        let presented = (kind == Kind::Refresh)
            .then(|| fields.get("refresh_token"))
            .flatten();
        let found = presented.and_then(|token| self.refresh_tokens.get(token));
        let about = About {
            kind,
            client_id: claimed_client(request, fields),
            refresh_token: presented.map(fingerprint),
            spent_before: found
                .and_then(|token| token.spent.as_ref())
                .is_some_and(|spent| spent.at_ms <= now_ms),
            family: found.map(|token| token.family),
        };
        self.stats.spent_presented += u64::from(about.spent_before);
        about
    }

    fn count(&mut self, kind: Kind, outcome: &Outcome) {
        match (kind, outcome) {
            (Kind::Code, Outcome::Ok) => self.stats.code_ok += 1,
            (Kind::Refresh, Outcome::Ok) => self.stats.refresh_ok += 1,
            (Kind::Refresh, _) => self.stats.refresh_err += 1,
            _ => {}
        }
        if let Outcome::Error(error) = outcome {
            *self.stats.by_error.entry(error.clone()).or_default() += 1;
        }
    }
}

/// The tokens one answer carries.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
}

/// That a refresh token was spent, and what for.
#[derive(Debug, Clone)]
pub(super) struct Spent {
    at_ms: u64,
    successor: Pair,
}

/// What a token request is about.
struct About {
    kind: Kind,
    client_id: Option<String>,
    refresh_token: Option<String>,
    spent_before: bool,
    family: Option<u64>,
}

impl About {
    fn write_to(&self, entry: &mut super::ledger::Entry) {
        entry.client_id.clone_from(&self.client_id);
        entry.refresh_token.clone_from(&self.refresh_token);
        entry.spent_before = self.spent_before;
        entry.family = self.family;
    }
}

pub(super) type Answer = Result<Pair, Box<Response>>;

const NOT_VALID: &str = "the refresh token is not valid";

pub(super) fn bad(error: &str, description: &str) -> Box<Response> {
    Box::new(oauth_error(StatusCode::BAD_REQUEST, error, description))
}
