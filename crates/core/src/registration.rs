//! How an issuer comes to know this client: pre-registered, by the URL of a metadata document, or by dynamic
//! registration (RFC 7591), in that order (AUTH-31).

mod authentication;
mod document;

use std::borrow::Cow;

use http::{HeaderValue, Method, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    assertion::ClientKey,
    error::Error,
    exchange::{Exchange, Leg},
    grant::DEVICE_CODE,
    issuer::Issuer,
    metadata::ServerMetadata,
    reference::SecretRef,
    resource::is_loopback,
    scope::Scopes,
    secret::{self, AccessToken, ClientSecret},
    time::Wall,
    token::refusal,
};

pub use authentication::{authentication_to_ask, choose_authentication};
pub use document::{document, document_url};

/// How a client proves at the token endpoint who it is (RFC 7591 section 2, AUTH-44).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// Not at all: a public client, with its ID in the body.
    #[serde(rename = "none")]
    None,
    /// With its secret in an `Authorization: Basic` header (RFC 6749 section 2.3.1).
    #[serde(rename = "client_secret_basic")]
    Basic,
    /// With its secret in the body.
    #[serde(rename = "client_secret_post")]
    Post,
    /// With an assertion that its private key signs (RFC 7523 section 2.2).
    #[serde(rename = "private_key_jwt")]
    PrivateKeyJwt,
}

impl ClientAuthentication {
    /// The registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }

    /// The method of a registered name; `None` for one that this program does not have.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Basic, Self::Post, Self::PrivateKeyJwt]
            .into_iter()
            .find(|method| method.as_str() == name)
    }

    /// Whether the method is nothing without a secret.
    #[must_use]
    pub fn needs_secret(self) -> bool {
        matches!(self, Self::Basic | Self::Post)
    }
}

/// Who gave a client its ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientSource {
    /// A person registered it at the issuer (AUTH-35).
    PreRegistered,
    /// The ID is the URL of its metadata document; the same at every issuer (AUTH-42).
    MetadataDocument,
    /// The issuer, by RFC 7591; good at that issuer only (AUTH-39).
    Dynamic,
    /// Nobody: a person has brought a key that the server takes as it is, and there is no client.
    Static,
}

/// A client as one issuer knows it: what is sealed beside the tokens that were issued to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The client ID.
    pub id: String,
    /// The secret, if it has one.
    #[serde(default, with = "secret::sealed_option")]
    pub secret: Option<ClientSecret>,
    /// Where the secret lies, if it is not to be stored: read at each use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// The private key, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ClientKey>,
    /// When the issuer forgets the secret; `None` is never.
    #[serde(default)]
    pub secret_expires_at: Option<Wall>,
    /// How it authenticates.
    pub authentication: ClientAuthentication,
    /// Where it comes from.
    pub source: ClientSource,
}

impl Client {
    /// A client that a person registered, as far as its ID goes: add what it has to show, and the issuer's metadata will say how
    /// it does that.
    #[must_use]
    pub fn brought(id: String) -> Self {
        Self {
            id,
            secret: None,
            secret_ref: None,
            key: None,
            secret_expires_at: None,
            authentication: ClientAuthentication::None,
            source: ClientSource::PreRegistered,
        }
    }

    /// A client that a person registered: authenticates by what the server offers if it has a secret, else not at all.
    #[must_use]
    pub fn pre_registered(
        id: String,
        secret: Option<ClientSecret>,
        metadata: &ServerMetadata,
    ) -> Self {
        let authentication = choose_authentication(metadata, secret.is_some());
        Self {
            id,
            secret,
            secret_ref: None,
            key: None,
            secret_expires_at: None,
            authentication,
            source: ClientSource::PreRegistered,
        }
    }

    /// The client that a metadata document describes: its URL is the ID, and it is public.
    #[must_use]
    pub fn metadata_document(url: &Url) -> Self {
        Self {
            id: url.as_str().to_owned(),
            secret: None,
            secret_ref: None,
            key: None,
            secret_expires_at: None,
            authentication: ClientAuthentication::None,
            source: ClientSource::MetadataDocument,
        }
    }

    /// Whether it can show who it is: by a secret, wherever that lies, or by a key.
    #[must_use]
    pub fn is_confidential(&self) -> bool {
        self.has_secret() || self.key.is_some()
    }

    /// Whether it shows a secret, wherever that lies, which whoever sees it could use elsewhere; a key's signature is for one
    /// reader only.
    #[must_use]
    pub fn shows_secret(&self) -> bool {
        self.has_secret()
    }

    /// Whether what it authenticates with is read from elsewhere at each use, and may so be another the next time.
    #[must_use]
    pub fn shows_what_lies_elsewhere(&self) -> bool {
        let stored = self.authentication.needs_secret() && self.secret.is_some();
        self.authentication != ClientAuthentication::None
            && !stored
            && (self.secret_ref.is_some() || self.key.is_some())
    }

    fn has_secret(&self) -> bool {
        self.secret.is_some() || self.secret_ref.is_some()
    }

    /// Whether the issuer has forgotten the secret by `now` (RFC 7591 section 3.2.1).
    #[must_use]
    pub fn secret_expired(&self, now: Wall) -> bool {
        self.secret.is_some() && self.secret_expires_at.is_some_and(|end| end <= now)
    }
}

/// What kind of program a client is (OpenID Connect Registration section 2): it decides which redirect URIs an issuer takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ApplicationType {
    /// On a person's machine, with redirect URIs on loopback (AUTH-37).
    #[default]
    Native,
    /// Hosted; some issuers take loopback URIs from these only.
    Web,
}

impl ApplicationType {
    /// The registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Web => "web",
        }
    }
}

/// What a client says about itself when it registers (RFC 7591 section 2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientMetadata {
    /// The name that a person sees at the issuer.
    pub client_name: String,
    /// Where the issuer may send a person back to (AUTH-43).
    pub redirect_uris: Vec<String>,
    /// What kind of program it is.
    pub application_type: ApplicationType,
    /// Whether a person may log in on another device, too (RFC 8628).
    pub device_login: bool,
    /// The scopes that it may ask for.
    pub scope: Option<Scopes>,
    /// The page of the program.
    pub client_uri: Option<String>,
    /// The program, the same in every installation.
    pub software_id: Option<String>,
    /// Its version.
    pub software_version: Option<String>,
}

impl ClientMetadata {
    /// A client of this name that is sent back to these URIs and asks for at most these scopes.
    #[must_use]
    pub fn new(client_name: String, redirect_uris: Vec<String>, scope: Option<Scopes>) -> Self {
        Self {
            client_name,
            redirect_uris,
            scope,
            ..Self::default()
        }
    }

    /// Writes the registration request: an application that refreshes (AUTH-91) and uses codes only.
    #[must_use]
    pub fn to_json(&self, authentication: ClientAuthentication) -> Vec<u8> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        put("application_type", json!(self.application_type.as_str()));
        put("client_name", json!(self.client_name));
        put("redirect_uris", json!(self.redirect_uris));
        let mut grants = vec!["authorization_code", "refresh_token"];
        if self.device_login {
            grants.push(DEVICE_CODE);
        }
        put("grant_types", json!(grants));
        put("response_types", json!(["code"]));
        put("token_endpoint_auth_method", json!(authentication.as_str()));
        if let Some(scope) = self.scope.as_ref().filter(|scope| !scope.is_empty()) {
            put("scope", json!(scope.to_string()));
        }
        let texts = [
            ("client_uri", &self.client_uri),
            ("software_id", &self.software_id),
            ("software_version", &self.software_version),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                put(name, json!(text));
            }
        }
        Value::Object(fields).to_string().into_bytes()
    }
}

/// Where and with what a dynamic registration can be deleted (RFC 7592).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationManagement {
    /// `registration_client_uri`.
    pub uri: Url,
    /// `registration_access_token`: a bearer token for that URL only.
    #[serde(with = "secret::sealed")]
    pub token: AccessToken,
}

impl RegistrationManagement {
    /// Writes the request that deletes the registration (RFC 7592 section 2.3); `None` only where the token fits no
    /// header, which its type rules out.
    #[must_use]
    pub fn delete_request(&self) -> Option<Exchange> {
        let text = Zeroizing::new(format!("Bearer {}", self.token.expose()));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        let mut exchange = Exchange::get(
            Leg::Registration,
            self.uri.clone(),
            "registration_client_uri",
        );
        exchange.method = Method::DELETE;
        exchange.headers.insert(AUTHORIZATION, value);
        Some(exchange)
    }
}

/// Reads the answer to a dynamic registration (RFC 7591 section 3.2.1); `asked` is what was sent.
///
/// Only what was asked for is believed (T-19): an ID of printable ASCII and sane length, our own redirect URIs if any
/// are echoed, and a method of authentication that can be carried out. The method that the issuer answers is followed;
/// where it answers none, a secret is sent as `client_secret_basic` (the default of RFC 7591 section 2).
///
/// # Errors
/// [`Error::MetadataInvalid`], naming the field.
pub fn parse_registration(
    body: &[u8],
    asked: &ClientMetadata,
) -> Result<(Client, Option<RegistrationManagement>), Error> {
    let Ok(Value::Object(answer)) = serde_json::from_slice(body) else {
        return Err(bad("document", "it is not a JSON object"));
    };
    let id = text(&answer, "client_id")?.ok_or(bad("client_id", "it is missing"))?;
    if id.len() > LONGEST_ID {
        return Err(bad("client_id", "it is longer than a client ID should be"));
    }
    if !id.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        return Err(bad(
            "client_id",
            "it holds characters outside printable ASCII",
        ));
    }
    if let Some(echoed) = answer.get("redirect_uris").filter(|value| !value.is_null()) {
        let echoed = echoed
            .as_array()
            .ok_or(bad("redirect_uris", "it is not a list"))?;
        let echoed: Vec<_> = echoed
            .iter()
            .filter_map(Value::as_str)
            .map(same_form)
            .collect();
        if !asked
            .redirect_uris
            .iter()
            .all(|own| echoed.contains(&same_form(own)))
        {
            return Err(bad(
                "redirect_uris",
                "our own redirect URI is not among them",
            ));
        }
    }
    let secret = match text(&answer, "client_secret")? {
        None => None,
        Some(secret) if secret.len() > LONGEST_SECRET => {
            return Err(bad("client_secret", "it is longer than a secret should be"));
        }
        Some(secret) => Some(ClientSecret::new(secret.to_owned()).map_err(|_| {
            bad(
                "client_secret",
                "it holds characters outside printable ASCII",
            )
        })?),
    };
    let method = "token_endpoint_auth_method";
    let authentication = match text(&answer, method)? {
        Some(name) => ClientAuthentication::from_name(name)
            .filter(|method| *method != ClientAuthentication::PrivateKeyJwt)
            .ok_or(bad(
                method,
                "it is not one of none, client_secret_basic and client_secret_post",
            ))?,
        None if secret.is_some() => ClientAuthentication::Basic,
        None => ClientAuthentication::None,
    };
    if authentication.needs_secret() && secret.is_none() {
        return Err(bad(method, "it needs a secret, and none was issued"));
    }
    let secret_expires_at = secret
        .as_ref()
        .and_then(|_| expiry(answer.get("client_secret_expires_at")?));
    let client = Client {
        id: id.to_owned(),
        secret,
        secret_ref: None,
        key: None,
        secret_expires_at,
        authentication,
        source: ClientSource::Dynamic,
    };
    Ok((client, management(&answer)))
}

/// Reads a refusal to register (RFC 7591 section 3.2.2).
///
/// An answer that is no verdict (429, 5xx) is an error that passes by itself; everything else is
/// [`Error::RegistrationRefused`] with the issuer's own `error` (AUTH-38), or the HTTP status where it gives none.
#[must_use]
pub fn parse_refusal(status: u16, body: &[u8], issuer: &Issuer, asked: &ClientMetadata) -> Error {
    match status {
        429 => Error::RateLimited { retry_after: None },
        500.. => Error::ServerError {
            status,
            retry_after: None,
        },
        _ => {
            let error = refusal(body).map_or_else(|| format!("HTTP {status}"), |(error, _)| error);
            Error::RegistrationRefused {
                issuer: issuer.as_str().to_owned(),
                error,
                redirect_uris: asked.redirect_uris.clone(),
            }
        }
    }
}

/// A way to become a client of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// As this client, which exists.
    PreRegistered(Client),
    /// With the URL of our metadata document as the ID.
    MetadataDocument(Url),
    /// By a request to this registration endpoint.
    Dynamic(Url),
    /// Not without a person who brings a client ID.
    Nothing,
}

/// Chooses the way to become a client (AUTH-31): pre-registered, then metadata document, then dynamic.
///
/// `pre` must be registered at this very issuer: nothing here compares issuers (AUTH-39, AUTH-41). A metadata document
/// counts only where the server takes one (AUTH-32) and its URL is `https` with a path (AUTH-33).
#[must_use]
pub fn choose(pre: Option<&Client>, cimd: Option<&Url>, metadata: &ServerMetadata) -> Way {
    if let Some(client) = pre {
        return Way::PreRegistered(client.clone());
    }
    let can_be_id = |url: &&Url| document_url(url).is_ok();
    match (cimd.filter(can_be_id), &metadata.registration_endpoint) {
        (Some(url), _) if metadata.client_id_metadata_document => {
            Way::MetadataDocument(url.clone())
        }
        (_, Some(endpoint)) => Way::Dynamic(endpoint.clone()),
        _ => Way::Nothing,
    }
}

fn bad(field: &'static str, why: &'static str) -> Error {
    Error::MetadataInvalid {
        document: "registration answer",
        field,
        why,
    }
}

/// A text that must be one if it is there; an empty one counts as absent.
fn text<'a>(answer: &'a Map<String, Value>, field: &'static str) -> Result<Option<&'a str>, Error> {
    match answer.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(bad(field, "it is not a text")),
    }
}

/// A redirect URI as issuers compare it that put it through a URL parser before they echo it.
fn same_form(uri: &str) -> Cow<'_, str> {
    Url::parse(uri).map_or(Cow::Borrowed(uri), |url| Cow::Owned(url.into()))
}

/// Seconds since the epoch, as a number or a string of one; 0 is never.
fn expiry(value: &Value) -> Option<Wall> {
    let seconds = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    seconds
        .filter(|seconds| *seconds > 0)
        .map(Wall::from_unix_seconds)
}

/// RFC 7592 is a courtesy: what cannot be used is dropped without a word.
fn management(answer: &Map<String, Value>) -> Option<RegistrationManagement> {
    let field = |name| answer.get(name).and_then(Value::as_str);
    let uri = Url::parse(field("registration_client_uri")?).ok()?;
    let safe = uri.scheme() == "https" || (uri.scheme() == "http" && is_loopback(&uri));
    let plain = uri.username().is_empty() && uri.password().is_none();
    let token = AccessToken::new(field("registration_access_token")?.to_owned()).ok()?;
    (safe && plain).then_some(RegistrationManagement { uri, token })
}

const LONGEST_ID: usize = 2048;
const LONGEST_SECRET: usize = 8192;

#[cfg(test)]
mod tests;
