//! The authorization request (RFC 6749 section 4.1.1), and the redirect that answers it (section 4.1.2, RFC 9207).

use url::Url;

use crate::{
    error::Error,
    flow::discover::Discovered,
    grant::AuthorizationRequest,
    issuer::Issuer,
    pkce::Pkce,
    registration::Client,
    resource::is_loopback,
    scope::Scopes,
    secret::{AuthorizationCode, StateParameter},
};

/// One authorization request: the issuer is recorded with the verifier and the state, and so is the name that it goes by
/// (AUTH-62).
#[derive(Debug)]
pub(super) struct Request {
    pub(super) discovered: Discovered,
    pub(super) client: Client,
    pub(super) redirect_uri: String,
    pub(super) scopes: Scopes,
    /// Whether `offline_access` is among them because we added it.
    pub(super) adds_offline_access: bool,
    pub(super) pkce: Pkce,
    pub(super) state: StateParameter,
    pub(super) issuer: Issuer,
}

impl Request {
    /// What this request was refused with, at the redirect, for its code or on another device.
    pub(super) fn refused(&self, error: String) -> Error {
        refused_for(&self.scopes, error)
    }

    /// Where the tokens come from, as the person is told.
    pub(super) fn token_host(&self) -> String {
        let endpoint = &self.discovered.server.token_endpoint;
        endpoint.host_str().unwrap_or_default().to_owned()
    }

    /// The authorization URL (RFC 6749 section 4.1.1), with what is said on top.
    pub(super) fn url(
        &self,
        asked: &[(String, String)],
        learned: &[(&'static str, &'static str)],
    ) -> Result<Url, Error> {
        let invalid = |why| Error::MetadataInvalid {
            document: "authorization server metadata",
            field: "authorization_endpoint",
            why,
        };
        let endpoint = self.discovered.server.authorization_endpoint.as_ref();
        let endpoint = endpoint.ok_or(invalid("it is missing"))?;
        if endpoint.scheme() != "https" && !is_loopback(endpoint) {
            return Err(invalid("it is no https URL"));
        }
        let asked = asked.iter().map(|(name, value)| (&**name, &**value));
        let extra: Vec<(&str, &str)> = asked.chain(learned.iter().copied()).collect();
        Ok(AuthorizationRequest {
            endpoint,
            client_id: &self.client.id,
            redirect_uri: &self.redirect_uri,
            scopes: &self.scopes,
            state: &self.state,
            challenge: &self.pkce.challenge,
            resource: self.discovered.resource_parameter.as_deref(),
            extra: &extra,
        }
        .url())
    }
}

/// What a login that asks for these scopes was refused with.
pub(super) fn refused_for(scopes: &Scopes, error: String) -> Error {
    match error.as_str() {
        "invalid_scope" => Error::ScopeRefused {
            scopes: scopes.iter().map(str::to_owned).collect(),
        },
        _ => Error::refused(error),
    }
}

/// The code of a redirect that belongs to this request and comes from its issuer.
pub(super) fn judge_redirect(
    request: &Request,
    parameters: &[(String, String)],
) -> Result<AuthorizationCode, Error> {
    let one = |name: &str| {
        let mut values = parameters
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        (values.next(), values.next().is_some())
    };
    let (state, twice) = one("state");
    let state = state.and_then(|text| StateParameter::new(text.to_owned()).ok());
    if twice || state.as_ref() != Some(&request.state) {
        return Err(Error::StateMismatch);
    }
    let expected = request.discovered.server.name().as_str();
    let mismatch = |got: &str| Error::IssuerMismatch {
        expected: expected.to_owned(),
        got: got.to_owned(),
    };
    match one("iss") {
        (Some(iss), false) if iss == expected => {}
        (None, _) if !request.discovered.server.iss_parameter => {}
        (iss, _) => return Err(mismatch(iss.unwrap_or_default())),
    }
    if let (Some(error), _) = one("error") {
        return Err(match error {
            "access_denied" => Error::DeniedByHuman,
            other => Error::DeniedByIssuer {
                error: other.to_owned(),
            },
        });
    }
    let missing = Error::DeniedByIssuer {
        error: "the redirect carries neither code nor error".into(),
    };
    match one("code") {
        (Some(code), false) => AuthorizationCode::new(code.to_owned()).map_err(|_| missing),
        _ => Err(missing),
    }
}
