//! Clients: registration (RFC 7591) and authentication (RFC 6749 section 2.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::AuthorizationServer;
use super::assertion::is_for;
use super::config::{AuthorizationServerConfig, ClientAuthentication};
use super::ledger::{Kind, Outcome};
use crate::exchange::{Fields, Request, Response};
use crate::faults::oauth_error;

/// A client as the server knows it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) name: String,
    pub(super) secret: Option<String>,
    pub(super) redirect_uris: Vec<String>,
    /// The method it registered; `None`: any that the server supports.
    pub(super) authentication: Option<ClientAuthentication>,
}

impl Client {
    pub(super) fn fixed(client: &super::config::StaticClient) -> Self {
        Self {
            name: client.client_id.clone(),
            secret: client.client_secret.clone(),
            redirect_uris: client.redirect_uris.clone(),
            authentication: None,
        }
    }

    /// Compares a redirect URI to the registered ones: exactly, but for the port of a loopback address.
    pub(super) fn may_redirect_to(&self, uri: &str, exact_port: bool) -> bool {
        self.redirect_uris.iter().any(|registered| {
            registered == uri || (!exact_port && same_but_loopback_port(registered, uri))
        })
    }
}

impl AuthorizationServer {
    /// Finds a client, by registration or by its metadata document.
    pub(super) fn client(&self, client_id: &str) -> Option<Client> {
        if let Some(client) = self.clients.get(client_id) {
            return Some(client.clone());
        }
        if !self.config.client_id_metadata_document_supported || self.forgotten.contains(client_id)
        {
            return None;
        }
        client_of_document(&self.config, client_id)
    }

    /// Authenticates the client of a token or revocation request.
    pub(super) fn authenticate(
        &mut self,
        now_ms: u64,
        request: &Request,
        fields: &Fields,
    ) -> Result<String, Box<Response>> {
        if let Some(assertion) = fields.get("client_assertion") {
            return self.asserted(now_ms, fields, assertion);
        }
        let (client_id, secret, used) = match basic_credentials(request) {
            Some((client_id, secret)) => {
                if fields.get("client_secret").is_some() {
                    return Err(Box::new(oauth_error(
                        StatusCode::BAD_REQUEST,
                        "invalid_request",
                        "more than one client authentication",
                    )));
                }
                (client_id, Some(secret), ClientAuthentication::Basic)
            }
            None => match (fields.get("client_id"), fields.get("client_secret")) {
                (Some(client_id), Some(secret)) => (
                    client_id.to_owned(),
                    Some(secret.to_owned()),
                    ClientAuthentication::Post,
                ),
                (Some(client_id), None) => (client_id.to_owned(), None, ClientAuthentication::None),
                (None, _) => return Err(invalid_client("client_id is missing")),
            },
        };
        let Some(client) = self.client(&client_id) else {
            return Err(invalid_client("the client is not known"));
        };
        if !self.config.token_endpoint_auth_methods.contains(&used) {
            return Err(invalid_client("authentication method not supported"));
        }
        if client.secret != secret {
            return Err(invalid_client("client authentication failed"));
        }
        if client.authentication.is_some_and(|method| method != used) {
            return Err(invalid_client("not the registered authentication method"));
        }
        Ok(client_id)
    }

    /// Who a client is that has signed so itself (RFC 7523 section 3); each assertion counts once.
    fn asserted(
        &mut self,
        now_ms: u64,
        fields: &Fields,
        assertion: &str,
    ) -> Result<String, Box<Response>> {
        let methods = &self.config.token_endpoint_auth_methods;
        let typed = fields.get("client_assertion_type")
            == Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        if !methods.contains(&ClientAuthentication::PrivateKeyJwt) || !typed {
            return Err(invalid_client("authentication method not supported"));
        }
        let keys = self.config.client_keys.iter();
        let signed = keys
            .filter_map(|(id, key)| Some((id.clone(), key.claims(assertion)?)))
            .find(|(id, claims)| claims["iss"] == **id && claims["sub"] == **id);
        let Some((client_id, claims)) = signed else {
            return Err(invalid_client(
                "no key of the client has signed the assertion",
            ));
        };
        if fields
            .get("client_id")
            .is_some_and(|named| named != client_id)
        {
            return Err(invalid_client("another client is named beside it"));
        }
        let soon = claims["exp"].as_u64().unwrap_or_default() * 1000 <= now_ms + 300_000;
        if claims["aud"] != self.issuer() || !is_for(&claims, self.issuer(), now_ms) || !soon {
            return Err(invalid_client(
                "the assertion is over, or not for this issuer",
            ));
        }
        let jti = claims["jti"].as_str().unwrap_or_default().to_owned();
        if jti.len() < 16 || !self.unattended.taken.insert(jti) {
            return Err(invalid_client("the assertion was used before"));
        }
        if self.client(&client_id).is_none() {
            return Err(invalid_client("the client is not known"));
        }
        Ok(client_id)
    }

    pub(super) fn register(&mut self, now_ms: u64, request: &Request) -> Response {
        if !self.config.registration {
            return Response::json(StatusCode::NOT_FOUND, &json!({ "error": "not_found" }));
        }
        let wanted: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let response = match self.registration(now_ms, &wanted) {
            Ok(body) => {
                self.stats.registrations += 1;
                Response::json(StatusCode::CREATED, &body).no_store()
            }
            Err((error, description)) => {
                *self.stats.by_error.entry(error.into()).or_default() += 1;
                oauth_error(StatusCode::BAD_REQUEST, error, description)
            }
        };
        let body = response.body_json();
        let outcome = match body["error"].as_str() {
            Some(error) => Outcome::Error(error.into()),
            None => Outcome::Ok,
        };
        let entry = self.entry(now_ms, Kind::Register, request, outcome);
        entry.client_id = body["client_id"].as_str().map(Into::into);
        response
    }

    fn registration(&mut self, now_ms: u64, wanted: &Value) -> Result<Value, Refusal> {
        let Value::Object(members) = wanted else {
            return Err(("invalid_client_metadata", "the body is not a JSON object"));
        };
        let redirect_uris = strings(&wanted["redirect_uris"]);
        if redirect_uris.is_empty() || !redirect_uris.iter().all(|uri| acceptable_redirect(uri)) {
            return Err((
                "invalid_redirect_uri",
                "redirect URIs must be https, loopback http or a private scheme, without a fragment",
            ));
        }
        let authentication =
            self.registered_authentication(&wanted["token_endpoint_auth_method"])?;
        let client_id = self.mint("client-");
        let secret = (authentication != ClientAuthentication::None).then(|| self.mint("cs-"));

        let mut body = members.clone();
        body.insert("client_id".into(), json!(client_id));
        body.insert("client_id_issued_at".into(), json!(now_ms / 1000));
        body.insert(
            "token_endpoint_auth_method".into(),
            json!(authentication.name()),
        );
        body.entry("grant_types")
            .or_insert_with(|| json!(["authorization_code"]));
        body.entry("response_types")
            .or_insert_with(|| json!(["code"]));
        if let Some(secret) = &secret {
            body.insert("client_secret".into(), json!(secret));
            body.insert("client_secret_expires_at".into(), json!(0));
        }
        let name = wanted["client_name"].as_str().unwrap_or(&client_id);
        self.clients.insert(
            client_id.clone(),
            Client {
                name: name.to_owned(),
                secret,
                redirect_uris,
                authentication: Some(authentication),
            },
        );
        Ok(Value::Object(body))
    }

    /// Chooses how a new client authenticates: as it asks, within what this server supports.
    fn registered_authentication(&self, asked: &Value) -> Result<ClientAuthentication, Refusal> {
        let supported = &self.config.token_endpoint_auth_methods;
        let secret_based = || {
            supported
                .iter()
                .copied()
                .find(|method| *method != ClientAuthentication::None)
        };
        // RFC 7591 section 2: the default is client_secret_basic.
        let asked = asked.as_str().unwrap_or("client_secret_basic");
        let asked = supported.iter().copied().find(|m| m.name() == asked);
        let public = supported.contains(&ClientAuthentication::None);
        let chosen = if self.config.confidential_clients || !public {
            asked
                .filter(|method| *method != ClientAuthentication::None)
                .or_else(secret_based)
        } else {
            Some(ClientAuthentication::None)
        };
        chosen.ok_or((
            "invalid_client_metadata",
            "no supported token_endpoint_auth_method",
        ))
    }
}

/// Gives the client id a request claims, authenticated or not.
pub(super) fn claimed_client(request: &Request, fields: &Fields) -> Option<String> {
    let claimed = basic_credentials(request).map(|(client_id, _)| client_id);
    claimed.or_else(|| fields.get("client_id").map(Into::into))
}

type Refusal = (&'static str, &'static str);

fn client_of_document(config: &AuthorizationServerConfig, client_id: &str) -> Option<Client> {
    let url = Url::parse(client_id).ok()?;
    if url.scheme() != "https" || url.path() == "/" || url.fragment().is_some() {
        return None;
    }
    let (name, redirect_uris) = match config.client_id_metadata_documents.get(client_id) {
        // The document must name itself exactly.
        Some(document) if document["client_id"] == json!(client_id) => (
            document["client_name"].as_str().unwrap_or(client_id),
            strings(&document["redirect_uris"]),
        ),
        Some(_) => return None,
        None => (
            client_id,
            ["127.0.0.1", "localhost", "[::1]"]
                .map(|host| format!("http://{host}/callback"))
                .to_vec(),
        ),
    };
    Some(Client {
        name: name.to_owned(),
        secret: None,
        redirect_uris,
        authentication: Some(ClientAuthentication::None),
    })
}

/// Reads `Authorization: Basic`, each half of it form-encoded (RFC 6749 section 2.3.1).
fn basic_credentials(request: &Request) -> Option<(String, String)> {
    let (scheme, encoded) = request.header("authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (client_id, secret) = pair.split_once(':')?;
    Some((form_decode(client_id), form_decode(secret)))
}

fn form_decode(half: &str) -> String {
    url::form_urlencoded::parse(format!("v={half}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

fn invalid_client(description: &str) -> Box<Response> {
    Box::new(
        oauth_error(StatusCode::UNAUTHORIZED, "invalid_client", description)
            .with_header(http::header::WWW_AUTHENTICATE, "Basic realm=\"token\""),
    )
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect()
}

fn acceptable_redirect(uri: &str) -> bool {
    let Ok(url) = Url::parse(uri) else {
        return false;
    };
    url.fragment().is_none()
        && match url.scheme() {
            "https" => true,
            "http" => is_loopback(&url),
            scheme => scheme.contains('.'), // RFC 8252 section 7.1: reverse domain names
        }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn same_but_loopback_port(registered: &str, presented: &str) -> bool {
    let (Ok(mut registered), Ok(mut presented)) = (Url::parse(registered), Url::parse(presented))
    else {
        return false;
    };
    if registered.scheme() != "http" || !is_loopback(&registered) || !is_loopback(&presented) {
        return false;
    }
    // A host that is loopback can always carry a port, so neither call can fail.
    registered.set_port(None).is_ok() && presented.set_port(None).is_ok() && registered == presented
}
