//! Metadata of the protected resource (RFC 9728) and of the authorization server (RFC 8414, OpenID Connect Discovery).
//!
//! Both are documents that a stranger wrote. A URL in them is a place that this program or a browser may be sent to, so
//! every URL is judged here, once, even those that nothing uses (T-02); everything else that has a wrong type counts as
//! absent. Depth and size are bounded by the JSON reader and by the driver (T-14); of a repeated name the last counts.

use serde_json::{Map, Value};
use url::Url;

use crate::{
    dpop::ProofKey,
    error::Error,
    grant::DEVICE_CODE,
    issuer::Issuer,
    registration::ClientAuthentication,
    resource::{Resource, is_loopback},
    scope::Scopes,
};

/// Lists where a resource's metadata may be when no challenge says so, in the order to ask (AUTH-13): with the
/// resource's path, then at the root.
///
/// The query is dropped and so is a slash at the end of the path, as every server in the field expects.
#[must_use]
pub fn resource_metadata_urls(resource: &Resource) -> Vec<Url> {
    let path = resource.url().path().trim_end_matches('/');
    let at = |path: &str| origin_url(resource, &format!("{RESOURCE_WELL_KNOWN}{path}"));
    let mut urls = vec![at(path)];
    if !path.is_empty() {
        urls.push(at(""));
    }
    urls
}

/// What a protected resource says about itself (RFC 9728 section 2), as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceMetadata {
    /// The resource as published, octet for octet (AUTH-73).
    pub resource: Resource,
    /// The authorization servers that can be used, without repetitions; empty where the document names none.
    pub authorization_servers: Vec<Issuer>,
    /// The scopes that the resource knows.
    pub scopes_supported: Option<Scopes>,
    /// Whether only DPoP-bound tokens are taken (RFC 9728 section 2).
    pub dpop_required: bool,
}

impl ResourceMetadata {
    /// Reads a document that was fetched for `server`.
    ///
    /// # Errors
    /// [`Error::ResourceMismatch`] where it speaks for another resource (RFC 9728 section 3.3, AUTH-14);
    /// [`Error::MetadataInvalid`] where it is no such document, or names authorization servers but none that can be used.
    pub fn parse(body: &[u8], server: &Resource) -> Result<Self, Error> {
        let document = Document::read(RESOURCE_DOCUMENT, body)?;
        let published = document
            .text("resource")?
            .ok_or(document.bad("resource", "it is missing"))?;
        let resource = match Resource::parse(published) {
            Ok(resource) if server.is_within(&resource) => resource,
            _ => {
                return Err(Error::ResourceMismatch {
                    published: published.to_owned(),
                });
            }
        };
        let field = "authorization_servers";
        let mut authorization_servers = Vec::new();
        if let Some(value) = document.present(field) {
            let list = value
                .as_array()
                .ok_or(document.bad(field, "it is not a list"))?;
            for issuer in list
                .iter()
                .filter_map(Value::as_str)
                .filter_map(|text| Issuer::parse(text).ok())
            {
                if !authorization_servers.contains(&issuer)
                    && authorization_servers.len() < MOST_ISSUERS
                {
                    authorization_servers.push(issuer);
                }
            }
            if authorization_servers.is_empty() && !list.is_empty() {
                return Err(document.bad(field, "none of them is an https issuer"));
            }
        }
        Ok(Self {
            resource,
            authorization_servers,
            scopes_supported: document.list("scopes_supported").map(Scopes::from_list),
            dpop_required: document.flag("dpop_bound_access_tokens_required"),
        })
    }
}

/// What an authorization server says about itself (RFC 8414 section 2), as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMetadata {
    /// The issuer, octet for octet: the one whose document this is.
    pub issuer: Issuer,
    /// What the document calls it, where a person has accepted that this is not `issuer` (T-17).
    pub called: Option<Issuer>,
    /// Where a person approves; absent from servers without such a grant.
    pub authorization_endpoint: Option<Url>,
    /// Where a grant becomes a token.
    pub token_endpoint: Url,
    /// Where a program registers itself (RFC 7591).
    pub registration_endpoint: Option<Url>,
    /// Where a token is revoked (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// Where a login on another device begins (RFC 8628).
    pub device_authorization_endpoint: Option<Url>,
    /// The scopes that the server knows; a list that is published and empty is `Some` and empty.
    pub scopes_supported: Option<Scopes>,
    /// The PKCE methods; see [`ServerMetadata::require_pkce_s256`].
    pub pkce_methods: Option<Vec<String>>,
    /// The client authentication methods of the token endpoint; see [`ServerMetadata::offers`].
    pub token_auth_methods: Option<Vec<String>>,
    /// Those of the revocation endpoint; absent means the token endpoint's.
    pub revocation_auth_methods: Option<Vec<String>>,
    /// The grant types; see [`ServerMetadata::offers_grant`].
    pub grant_types: Option<Vec<String>>,
    /// How proofs of possession may be signed (RFC 9449 section 5.1); see [`ServerMetadata::binds_tokens`].
    pub dpop_algorithms: Option<Vec<String>>,
    /// Whether every authorization response carries `iss` (RFC 9207 section 3).
    pub iss_parameter: bool,
    /// Whether a client ID may be the URL of a metadata document (AUTH-32).
    pub client_id_metadata_document: bool,
    /// Whether there is no document and these are the default endpoints of the 2025-03-26 revision.
    pub legacy: bool,
}

impl ServerMetadata {
    /// Reads a document that was fetched for the issuer `expected`, from RFC 8414 or OpenID Connect Discovery alike.
    ///
    /// # Errors
    /// [`Error::IssuerMismatch`] unless its `issuer` is `expected` byte for byte (RFC 8414 section 3.3, AUTH-23);
    /// [`Error::MetadataInvalid`], naming the field, for a URL that must not be visited (AUTH-25, T-02).
    pub fn parse(body: &[u8], expected: &Issuer) -> Result<Self, Error> {
        Self::parse_of(body, expected, expected)
    }

    /// Reads a document of `issuer` that has to name `expected`: another only where a person has accepted exactly that.
    ///
    /// # Errors
    /// As [`ServerMetadata::parse`].
    pub fn parse_of(body: &[u8], issuer: &Issuer, expected: &Issuer) -> Result<Self, Error> {
        let document = Document::read(SERVER_DOCUMENT, body)?;
        let got = document
            .present("issuer")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if got != expected.as_str() {
            return Err(Error::IssuerMismatch {
                expected: expected.as_str().to_owned(),
                got: got.to_owned(),
            });
        }
        let local = issuer.url().is_some_and(|url| is_loopback(&url));
        for field in UNUSED_ENDPOINTS {
            document.endpoint(field, local)?;
        }
        for field in PAGES {
            document.page(field)?;
        }
        let token_endpoint = "token_endpoint";
        Ok(Self {
            issuer: issuer.clone(),
            called: (expected != issuer).then(|| expected.clone()),
            authorization_endpoint: document.endpoint("authorization_endpoint", local)?,
            token_endpoint: document
                .endpoint(token_endpoint, local)?
                .ok_or(document.bad(token_endpoint, "it is missing"))?,
            registration_endpoint: document.endpoint("registration_endpoint", local)?,
            revocation_endpoint: document.endpoint("revocation_endpoint", local)?,
            device_authorization_endpoint: document
                .endpoint("device_authorization_endpoint", local)?,
            scopes_supported: document.list("scopes_supported").map(Scopes::from_list),
            pkce_methods: document.list("code_challenge_methods_supported"),
            token_auth_methods: document.list("token_endpoint_auth_methods_supported"),
            revocation_auth_methods: document.list("revocation_endpoint_auth_methods_supported"),
            grant_types: document.list("grant_types_supported"),
            dpop_algorithms: document.list("dpop_signing_alg_values_supported"),
            iss_parameter: document.flag("authorization_response_iss_parameter_supported"),
            client_id_metadata_document: document.flag("client_id_metadata_document_supported"),
            legacy: false,
        })
    }

    /// Makes up the default endpoints of the 2025-03-26 revision for a server without any metadata (AUTH-17): its
    /// origin is the issuer, with `/authorize`, `/token` and `/register`.
    #[must_use]
    pub fn legacy(server: &Resource) -> Self {
        let origin = server.url().origin().ascii_serialization();
        Self {
            issuer: Issuer::parse(&origin)
                .expect("a resource's origin is https or loopback http, without a query"),
            called: None,
            authorization_endpoint: Some(origin_url(server, "/authorize")),
            token_endpoint: origin_url(server, "/token"),
            registration_endpoint: Some(origin_url(server, "/register")),
            revocation_endpoint: None,
            device_authorization_endpoint: None,
            scopes_supported: None,
            pkce_methods: None,
            token_auth_methods: None,
            revocation_auth_methods: None,
            grant_types: None,
            dpop_algorithms: None,
            iss_parameter: false,
            client_id_metadata_document: false,
            legacy: true,
        }
    }

    /// The name that the issuer goes by, in its redirects (RFC 9207) and as the audience of what is made out to it.
    #[must_use]
    pub fn name(&self) -> &Issuer {
        self.called.as_ref().unwrap_or(&self.issuer)
    }

    /// Refuses a server that does not offer PKCE with S256 (AUTH-24, T-08); only a server without any metadata, which
    /// by construction cannot say so, is exempt.
    ///
    /// # Errors
    /// [`Error::NoPkceS256`].
    pub fn require_pkce_s256(&self) -> Result<(), Error> {
        let offered = |methods: &Vec<String>| methods.iter().any(|method| method == "S256");
        if self.legacy || self.pkce_methods.as_ref().is_some_and(offered) {
            Ok(())
        } else {
            Err(Error::NoPkceS256)
        }
    }

    /// Whether tokens can be bound to a key of ours (RFC 9449 section 5.1).
    #[must_use]
    pub fn binds_tokens(&self) -> bool {
        let offered = ProofKey::ALGORITHM.as_str();
        self.dpop_algorithms
            .as_ref()
            .is_some_and(|names| names.iter().any(|name| name == offered))
    }

    /// Whether the token endpoint takes a method of client authentication.
    ///
    /// A document that is silent offers `client_secret_basic` (RFC 8414 section 2). Without any document every method
    /// may be tried.
    #[must_use]
    pub fn offers(&self, method: ClientAuthentication) -> bool {
        match &self.token_auth_methods {
            Some(methods) => methods.iter().any(|offered| offered == method.as_str()),
            None => self.legacy || method == ClientAuthentication::Basic,
        }
    }

    /// Whether a person can log in on another device: there is an endpoint for it, and a list of grants, if there is one, has it
    /// too (RFC 8628 section 4).
    #[must_use]
    pub fn offers_device_login(&self) -> bool {
        let listed = self.grant_types.is_none() || self.offers_grant(DEVICE_CODE);
        self.device_authorization_endpoint.is_some() && listed
    }

    /// Whether a grant type is offered; a document that is silent offers `authorization_code` (RFC 8414 section 2).
    #[must_use]
    pub fn offers_grant(&self, grant_type: &str) -> bool {
        match &self.grant_types {
            Some(types) => types.iter().any(|offered| offered == grant_type),
            None => grant_type == "authorization_code",
        }
    }
}

/// A JSON object and its name in messages.
struct Document {
    name: &'static str,
    fields: Map<String, Value>,
}

impl Document {
    fn read(name: &'static str, body: &[u8]) -> Result<Self, Error> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self { name, fields }),
            Ok(_) => Err(Error::MetadataInvalid {
                document: name,
                field: "document",
                why: "it is not a JSON object",
            }),
            Err(_) => Err(Error::MetadataInvalid {
                document: name,
                field: "document",
                why: "it is not JSON",
            }),
        }
    }

    fn bad(&self, field: &'static str, why: &'static str) -> Error {
        Error::MetadataInvalid {
            document: self.name,
            field,
            why,
        }
    }

    /// A field that is there and not null.
    fn present(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// A text that must be one if it is there; an empty one counts as absent.
    fn text(&self, field: &'static str) -> Result<Option<&str>, Error> {
        match self.present(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.bad(field, "it is not a text")),
        }
    }

    /// A list of texts; a wrong type counts as absent.
    fn list(&self, field: &str) -> Option<Vec<String>> {
        let list = self.present(field)?.as_array()?;
        Some(
            list.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        )
    }

    fn flag(&self, field: &str) -> bool {
        self.present(field) == Some(&Value::Bool(true))
    }

    /// A URL that requests may be sent to: `https`, or `http` where issuer and endpoint are both on this machine.
    fn endpoint(&self, field: &'static str, local: bool) -> Result<Option<Url>, Error> {
        let Some(text) = self.text(field)? else {
            return Ok(None);
        };
        if text.len() > LONGEST_URL {
            return Err(self.bad(field, "it is longer than a URL should be"));
        }
        let url = Url::parse(text).map_err(|_| self.bad(field, "it is not a URL"))?;
        if url.scheme() != "https" && !(url.scheme() == "http" && local && is_loopback(&url)) {
            return Err(self.bad(
                field,
                "it must be https (http only on a loopback host, for a loopback issuer)",
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.bad(field, "a user name or password does not belong in it"));
        }
        if url.fragment().is_some() {
            return Err(self.bad(field, "an endpoint has no fragment (RFC 6749 section 3.1)"));
        }
        Ok(Some(url))
    }

    /// A URL for people to read, which nothing here opens: any web page will do, and what is no absolute URL is nothing.
    fn page(&self, field: &'static str) -> Result<(), Error> {
        match Url::parse(self.text(field)?.unwrap_or_default()) {
            Ok(url) if !matches!(url.scheme(), "https" | "http") => {
                Err(self.bad(field, "it is not a web page"))
            }
            _ => Ok(()),
        }
    }
}

fn origin_url(resource: &Resource, path: &str) -> Url {
    let mut url = resource.url().clone();
    url.set_path(path);
    url.set_query(None);
    url
}

const RESOURCE_DOCUMENT: &str = "protected resource metadata";
const SERVER_DOCUMENT: &str = "authorization server metadata";
const RESOURCE_WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
const MOST_ISSUERS: usize = 64;
const LONGEST_URL: usize = 8 * 1024;

/// Endpoints of the registered metadata names that nothing here calls, and that must be safe all the same.
const UNUSED_ENDPOINTS: [&str; 8] = [
    "jwks_uri",
    "introspection_endpoint",
    "pushed_authorization_request_endpoint",
    "userinfo_endpoint",
    "end_session_endpoint",
    "check_session_iframe",
    "backchannel_authentication_endpoint",
    "challenge_endpoint",
];

/// Pages for people (RFC 8414 section 2, and what some servers put beside them).
const PAGES: [&str; 6] = [
    "service_documentation",
    "op_policy_uri",
    "op_tos_uri",
    "policy_uri",
    "tos_uri",
    "logo_uri",
];

#[cfg(test)]
mod tests;
