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
    assertion::CLIENT_ASSERTION_TYPE,
    exchange::{AssertionOrder, Orders, SecretOrder},
    issuer::Issuer,
    pkce::Pkce,
    registration::{Client, ClientAuthentication},
    scope::Scopes,
    secret::{
        Assertion, AuthorizationCode, ClientSecret, CodeVerifier, DeviceCode, RefreshToken,
        StateParameter,
    },
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
    /// What a person does on another device (RFC 8628 section 3.4).
    Device {
        /// The code of the login.
        code: &'a DeviceCode,
    },
    /// The client's own authentication (RFC 6749 section 4.4).
    ClientCredentials {
        /// The scopes to ask for.
        scope: Option<&'a Scopes>,
    },
    /// An assertion that somebody else has signed (RFC 7523 section 2.1).
    JwtBearer {
        /// The assertion.
        assertion: &'a Assertion,
        /// The scopes to ask for.
        scope: Option<&'a Scopes>,
    },
    /// A person's identity, exchanged at an identity provider for an assertion that another issuer takes (RFC 8693).
    TokenExchange {
        /// What shows who the person is.
        subject: &'a Assertion,
        /// Its type (RFC 8693 section 3).
        subject_type: &'a str,
        /// The issuer that is to take the assertion.
        audience: &'a Issuer,
        /// The scopes to ask for.
        scope: Option<&'a Scopes>,
    },
}

impl Grant<'_> {
    /// The registered name.
    #[must_use]
    pub fn grant_type(&self) -> &'static str {
        match self {
            Self::AuthorizationCode { .. } => "authorization_code",
            Self::Refresh { .. } => "refresh_token",
            Self::Device { .. } => DEVICE_CODE,
            Self::ClientCredentials { .. } => "client_credentials",
            Self::JwtBearer { .. } => JWT_BEARER,
            Self::TokenExchange { .. } => "urn:ietf:params:oauth:grant-type:token-exchange",
        }
    }

    fn scope(&self) -> Option<&Scopes> {
        let scope = match self {
            Self::AuthorizationCode { .. } | Self::Device { .. } => None,
            Self::Refresh { scope, .. }
            | Self::ClientCredentials { scope }
            | Self::JwtBearer { scope, .. }
            | Self::TokenExchange { scope, .. } => *scope,
        };
        scope.filter(|scope| !scope.is_empty())
    }
}

/// The name of the grant for a login on another device (RFC 8628 section 3.4).
pub const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The name of the grant that takes an assertion (RFC 7523 section 2.1).
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The type of an assertion that an identity provider makes for another issuer (ID-JAG).
pub const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";

/// A form to be posted: headers and body, both of which may hold secrets.
#[derive(Clone)]
pub struct FormRequest {
    /// `Content-Type`, `Accept`, and `Authorization` (marked sensitive) where the client authenticates by Basic.
    pub headers: HeaderMap,
    /// The body, wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
    /// What of the client's authentication is still to be put in, where it needs something that no flow holds.
    pub orders: Orders,
}

impl fmt::Debug for FormRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FormRequest({} bytes)", self.body.len())
    }
}

/// Writes the request that exchanges a grant; `resource` goes along whenever there is one (RFC 8707 section 2.2,
/// AUTH-70), octet for octet (AUTH-73), in a refresh too. `issuer` is whose endpoint it is for.
#[must_use]
pub fn token_request(
    grant: &Grant<'_>,
    client: &Client,
    issuer: &Issuer,
    resource: Option<&str>,
) -> FormRequest {
    let mut pairs = vec![("grant_type", grant.grant_type())];
    match grant {
        Grant::AuthorizationCode {
            code,
            redirect_uri,
            verifier,
        } => pairs.extend([
            ("code", code.expose()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier.expose()),
        ]),
        Grant::Refresh { token, .. } => pairs.push(("refresh_token", token.expose())),
        Grant::Device { code } => pairs.push(("device_code", code.expose())),
        Grant::ClientCredentials { .. } => {}
        Grant::JwtBearer { assertion, .. } => pairs.push(("assertion", assertion.expose())),
        Grant::TokenExchange {
            subject,
            subject_type,
            audience,
            ..
        } => pairs.extend([
            ("subject_token", subject.expose()),
            ("subject_token_type", subject_type),
            ("requested_token_type", ID_JAG),
            ("audience", audience.as_str()),
        ]),
    }
    let scope = grant.scope().map(Scopes::to_string);
    pairs.extend(scope.as_deref().map(|scope| ("scope", scope)));
    pairs.extend(resource.map(|resource| ("resource", resource)));
    form(pairs, client, issuer)
}

/// Writes the request that begins a login on another device (RFC 8628 section 3.1). The client shows who it is as it does at
/// the token endpoint; the resource goes along as in an authorization request (AUTH-70).
#[must_use]
pub fn device_request(
    client: &Client,
    issuer: &Issuer,
    scopes: &Scopes,
    resource: Option<&str>,
) -> FormRequest {
    let scope = Some(scopes.to_string()).filter(|scope| !scope.is_empty());
    let mut pairs = Vec::new();
    pairs.extend(scope.as_deref().map(|scope| ("scope", scope)));
    pairs.extend(resource.map(|resource| ("resource", resource)));
    form(pairs, client, issuer)
}

/// Writes the request that revokes a token (RFC 7009 section 2.1); `hint` is `refresh_token` or `access_token`.
#[must_use]
pub fn revocation_request(
    token: &str,
    hint: &'static str,
    client: &Client,
    issuer: &Issuer,
) -> FormRequest {
    let pairs = vec![("token", token), ("token_type_hint", hint)];
    form(pairs, client, issuer)
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
    /// What is said on top, for an issuer that wants it; what has one of the names above is left out.
    pub extra: &'a [(&'a str, &'a str)],
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
        let mut pairs = Vec::from(pairs);
        for (name, value) in self.extra {
            // No parameter may come twice (RFC 6749 section 3.1), and ours are not to be set from outside (T-01).
            if !pairs.iter().any(|(own, _)| own == name) {
                pairs.push((name, Some(value)));
            }
        }
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
/// Basic goes alone: the ID is not repeated in the body, since some servers take that for a second authentication; nor is it
/// beside an assertion, which names it (EXT-11). A method that needs a secret which is not there falls back to the ID alone.
fn form<'a>(
    mut pairs: Vec<(&'static str, &'a str)>,
    client: &'a Client,
    issuer: &Issuer,
) -> FormRequest {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let mut orders = Orders::default();
    let elsewhere = |in_body| {
        let reference = client.secret_ref.clone()?;
        Some(SecretOrder {
            reference,
            client_id: client.id.clone(),
            in_body,
        })
    };
    match (client.authentication, &client.secret, &client.key) {
        (ClientAuthentication::Basic, Some(secret), _) => {
            headers.insert(AUTHORIZATION, basic(&client.id, secret));
        }
        (ClientAuthentication::Post, Some(secret), _) => {
            pairs.extend(in_body(&client.id, secret));
        }
        (ClientAuthentication::Basic, None, _) if client.secret_ref.is_some() => {
            orders.secret = elsewhere(false);
        }
        (ClientAuthentication::Post, None, _) if client.secret_ref.is_some() => {
            orders.secret = elsewhere(true);
        }
        (ClientAuthentication::PrivateKeyJwt, _, Some(key)) => {
            orders.assertion = Some(AssertionOrder {
                key: key.clone(),
                client_id: client.id.clone(),
                audience: issuer.clone(),
            });
        }
        _ => pairs.push(("client_id", client.id.as_str())),
    }
    FormRequest {
        headers,
        body: encoded(Vec::new(), &pairs),
        orders,
    }
}

/// The client's ID and secret as they go into a form.
fn in_body<'a>(id: &'a str, secret: &'a ClientSecret) -> [(&'static str, &'a str); 2] {
    [("client_id", id), ("client_secret", secret.expose())]
}

/// Puts a client secret into a request that was written without it.
pub fn put_secret(
    order: &SecretOrder,
    secret: &ClientSecret,
    headers: &mut HeaderMap,
    body: &mut Zeroizing<Vec<u8>>,
) {
    if order.in_body {
        *body = encoded(
            std::mem::take(&mut **body),
            &in_body(&order.client_id, secret),
        );
    } else {
        headers.insert(AUTHORIZATION, basic(&order.client_id, secret));
    }
}

/// Puts a signed assertion into a form that was written without it (RFC 7523 section 2.2).
pub fn put_assertion(assertion: &str, body: &mut Zeroizing<Vec<u8>>) {
    let pairs = [
        ("client_assertion_type", CLIENT_ASSERTION_TYPE),
        ("client_assertion", assertion),
    ];
    *body = encoded(std::mem::take(&mut **body), &pairs);
}

/// Appends pairs to a form.
///
/// Room for every byte escaped: a string that grew would leave unwiped copies of the secrets behind.
fn encoded(before: Vec<u8>, pairs: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let before = Zeroizing::new(before);
    let room: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + 3 * value.len() + 2)
        .sum();
    let mut form = String::with_capacity(before.len() + room);
    form.push_str(std::str::from_utf8(&before).unwrap_or_default());
    let start = 0;
    let form = form_urlencoded::Serializer::for_suffix(form, start)
        .extend_pairs(pairs)
        .finish();
    Zeroizing::new(form.into_bytes())
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
