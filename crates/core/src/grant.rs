//! Grants as requests to the token endpoint (RFC 6749 sections 4.1.3 and 6), revocation (RFC 7009), and the
//! authorization request that comes before (RFC 6749 section 4.1.1).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use crate::{
    pkce::Pkce,
    registration::{Client, ClientAuthentication},
    scope::Scopes,
    secret::{AuthorizationCode, ClientSecret, CodeVerifier, RefreshToken, StateParameter},
};

/// What is exchanged at the token endpoint.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Grant<'a> {
    /// An authorization code (RFC 6749 section 4.1.3) with its verifier (RFC 7636 section 4.5).
    AuthorizationCode {
        /// The code.
        code: &'a AuthorizationCode,
        /// The redirect URI of the authorization request, octet for octet.
        redirect_uri: &'a str,
        /// The verifier that belongs to the challenge of the authorization request.
        verifier: &'a CodeVerifier,
    },
    /// A refresh token (RFC 6749 section 6).
    Refresh {
        /// The token.
        token: &'a RefreshToken,
        /// Fewer scopes than were granted; `None` asks for the same ones.
        scope: Option<&'a Scopes>,
    },
}

/// A form to be posted: headers and body, both of which may hold secrets.
#[derive(Clone)]
pub struct FormRequest {
    /// `Content-Type`, `Accept`, and `Authorization` (marked sensitive) where the client authenticates by Basic.
    pub headers: HeaderMap,
    /// The body, wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for FormRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FormRequest({} bytes)", self.body.len())
    }
}

/// Writes the request that exchanges a grant; `resource` goes along whenever there is one (RFC 8707 section 2.2,
/// AUTH-70), octet for octet (AUTH-73), in a refresh too.
#[must_use]
pub fn token_request(grant: &Grant<'_>, client: &Client, resource: Option<&str>) -> FormRequest {
    let mut pairs = Vec::new();
    match grant {
        Grant::AuthorizationCode {
            code,
            redirect_uri,
            verifier,
        } => pairs.extend([
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier.expose()),
        ]),
        Grant::Refresh { token, .. } => {
            pairs.extend([
                ("grant_type", "refresh_token"),
                ("refresh_token", token.expose()),
            ]);
        }
    }
    let scope = match grant {
        Grant::Refresh {
            scope: Some(scope), ..
        } if !scope.is_empty() => Some(scope.to_string()),
        _ => None,
    };
    pairs.extend(scope.as_deref().map(|scope| ("scope", scope)));
    pairs.extend(resource.map(|resource| ("resource", resource)));
    form(pairs, client)
}

/// Writes the request that revokes a token (RFC 7009 section 2.1); `hint` is `refresh_token` or `access_token`.
#[must_use]
pub fn revocation_request(token: &str, hint: &'static str, client: &Client) -> FormRequest {
    form(vec![("token", token), ("token_type_hint", hint)], client)
}

/// An authorization request (RFC 6749 section 4.1.1), with PKCE always.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizationRequest<'a> {
    /// The authorization endpoint, from validated metadata.
    pub endpoint: &'a Url,
    /// The client ID.
    pub client_id: &'a str,
    /// Where the person comes back to.
    pub redirect_uri: &'a str,
    /// The scopes; none leaves `scope` out (AUTH-52).
    pub scopes: &'a Scopes,
    /// The `state` (AUTH-61).
    pub state: &'a StateParameter,
    /// The S256 challenge (AUTH-60).
    pub challenge: &'a str,
    /// The resource, octet for octet (AUTH-70, AUTH-73).
    pub resource: Option<&'a str>,
}

impl AuthorizationRequest<'_> {
    /// The URL to open: the endpoint with its own query kept (RFC 6749 section 3.1) and ours after it.
    ///
    /// What the endpoint's query says under one of our names is dropped, since no parameter may come twice.
    #[must_use]
    pub fn url(&self) -> Url {
        let scopes = self.scopes.to_string();
        let pairs = [
            ("response_type", Some("code")),
            ("client_id", Some(self.client_id)),
            ("redirect_uri", Some(self.redirect_uri)),
            (
                "scope",
                Some(scopes.as_str()).filter(|scopes| !scopes.is_empty()),
            ),
            ("state", Some(self.state.expose())),
            ("code_challenge", Some(self.challenge)),
            ("code_challenge_method", Some(Pkce::METHOD)),
            ("resource", self.resource),
        ];
        let ours = |name: &str| pairs.iter().any(|(own, _)| *own == name);
        let mut url = self.endpoint.clone();
        if url.query_pairs().any(|(name, _)| ours(&name)) {
            let kept: Vec<_> = self
                .endpoint
                .query_pairs()
                .filter(|(name, _)| !ours(name))
                .collect();
            url.query_pairs_mut().clear().extend_pairs(kept);
        }
        let present = pairs
            .iter()
            .filter_map(|(name, value)| Some((name, (*value)?)));
        url.query_pairs_mut().extend_pairs(present);
        url
    }
}

/// Adds the client's authentication (RFC 6749 section 2.3.1) and encodes.
///
/// Basic goes alone: the ID is not repeated in the body, since some servers take that for a second authentication. A
/// method that needs a secret which is not there falls back to the ID alone.
fn form<'a>(mut pairs: Vec<(&'static str, &'a str)>, client: &'a Client) -> FormRequest {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    match (client.authentication, &client.secret) {
        (ClientAuthentication::Basic, Some(secret)) => {
            headers.insert(AUTHORIZATION, basic(&client.id, secret));
        }
        (ClientAuthentication::Post, Some(secret)) => {
            pairs.extend([
                ("client_id", client.id.as_str()),
                ("client_secret", secret.expose()),
            ]);
        }
        _ => pairs.push(("client_id", client.id.as_str())),
    }
    // Room for every byte escaped: a string that grew would leave unwiped copies of the secrets behind.
    let room = pairs
        .iter()
        .map(|(name, value)| name.len() + 3 * value.len() + 2)
        .sum();
    let body = form_urlencoded::Serializer::new(String::with_capacity(room))
        .extend_pairs(pairs)
        .finish();
    FormRequest {
        headers,
        body: Zeroizing::new(body.into_bytes()),
    }
}

/// `Basic` with both halves form-encoded first, so that neither can hold the colon that parts them.
fn basic(id: &str, secret: &ClientSecret) -> HeaderValue {
    let (id, secret) = (id.as_bytes(), secret.expose().as_bytes());
    let mut pair = Zeroizing::new(String::with_capacity(3 * (id.len() + secret.len()) + 1));
    pair.extend(form_urlencoded::byte_serialize(id));
    pair.push(':');
    pair.extend(form_urlencoded::byte_serialize(secret));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut value = HeaderValue::from_str(&text).expect("base64 is printable");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests;
