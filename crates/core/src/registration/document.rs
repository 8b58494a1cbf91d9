//! The client ID metadata document: what a program says about itself at a URL of its own, which is its client ID.

use serde_json::{Map, Value, json};
use url::Url;

use crate::{
    error::Error,
    flow::Callback,
    grant::DEVICE_CODE,
    registration::{ApplicationType, ClientAuthentication},
    resource::clean,
};

/// Whether a URL can be a client ID (AUTH-33): `https`, with a path that names a document, and nothing in it that two issuers
/// could read differently.
///
/// # Errors
/// `config.value`, naming what is wrong.
pub fn document_url(url: &Url) -> Result<(), Error> {
    let plain = url.username().is_empty() && url.password().is_none();
    let why = if url.scheme() != "https" {
        "it must be https"
    } else if url.path() == "/" {
        "it must have a path: a host alone is no document"
    } else if url.fragment().is_some() {
        "it must have no fragment"
    } else if !plain {
        "it must have no user name or password"
    } else if url.query().is_some() {
        "it must have no query"
    } else if url.as_str().len() > LONGEST {
        "it is longer than a client ID should be"
    } else {
        return Ok(());
    };
    Err(Error::ConfigValue {
        what: format!("the client metadata URL {}", clean(url.as_str())),
        why: why.into(),
    })
}

/// The document to host at `url`, which then is the client ID, octet for octet (AUTH-33).
///
/// It lists every redirect URI that a login of ours can have: each host of a loopback listener without a port (RFC 8252 section
/// 7.3 lets an issuer take any), and with the fixed one for issuers that do not. With the public half of a key (a JWK) the
/// client authenticates by it (`private_key_jwt`, AUTH-34), else not at all: a secret in a public document is none.
///
/// # Errors
/// Those of [`document_url`].
pub fn document(
    url: &Url,
    client_name: &str,
    more_ports: &[u16],
    key: Option<&Value>,
) -> Result<Value, Error> {
    document_url(url)?;
    let ports: Vec<Option<u16>> = [None, Some(Callback::CONSOLE_PORT)]
        .into_iter()
        .chain(more_ports.iter().copied().map(Some))
        .collect();
    let path = Callback::default().path;
    let mut redirect_uris: Vec<String> = Vec::new();
    for port in ports {
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        for host in ["127.0.0.1", "[::1]", "localhost"] {
            let uri = format!("http://{host}{port}{path}");
            if !redirect_uris.contains(&uri) {
                redirect_uris.push(uri);
            }
        }
    }
    let authentication = match key {
        Some(_) => ClientAuthentication::PrivateKeyJwt,
        None => ClientAuthentication::None,
    };
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("client_id", json!(url.as_str()));
    put("client_name", json!(client_name));
    put("application_type", json!(ApplicationType::Native.as_str()));
    put("redirect_uris", json!(redirect_uris));
    put(
        "grant_types",
        json!(["authorization_code", "refresh_token", DEVICE_CODE]),
    );
    put("response_types", json!(["code"]));
    put("token_endpoint_auth_method", json!(authentication.as_str()));
    if let Some(key) = key {
        put("jwks", json!({ "keys": [key] }));
    }
    Ok(Value::Object(fields))
}

const LONGEST: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// AUTH-33: a client ID is an https URL with a path, without anything that two readers could take differently.
    #[test]
    fn what_can_be_a_client_id() {
        document_url(&url("https://app.example/pilotlight.json")).unwrap();
        document_url(&url("https://app.example:8443/oauth/client")).unwrap();
        for (bad, why) in [
            ("http://app.example/client.json", "https"),
            ("http://127.0.0.1/client.json", "https"),
            ("https://app.example", "path"),
            ("https://app.example/", "path"),
            ("https://app.example/c#x", "fragment"),
            ("https://me:pw@app.example/c", "user name"),
            ("https://me@app.example/c", "user name"),
            ("https://app.example/c?v=1", "query"),
        ] {
            let error = document_url(&url(bad)).unwrap_err();
            assert_eq!(error.code(), "config.value", "{bad}");
            assert!(error.to_string().contains(why), "{bad}: {error}");
        }
    }

    /// AUTH-33, AUTH-66, AUTH-91: the document names the client by its own URL, octet for octet, every loopback redirect of ours,
    /// and the grants of a login and its refresh.
    #[test]
    fn the_document_says_who_we_are() {
        let id = url("https://app.example/pilotlight.json");
        let document = document(&id, "Pilotlight", &[8085, 33417], None).unwrap();
        assert_eq!(document["client_id"], json!(id.as_str()));
        assert_eq!(document["client_name"], json!("Pilotlight"));
        let uris: Vec<_> = document["redirect_uris"]
            .as_array()
            .unwrap()
            .iter()
            .map(|u| u.as_str().unwrap())
            .collect();
        assert_eq!(
            uris,
            [
                "http://127.0.0.1/callback",
                "http://[::1]/callback",
                "http://localhost/callback",
                "http://127.0.0.1:33417/callback",
                "http://[::1]:33417/callback",
                "http://localhost:33417/callback",
                "http://127.0.0.1:8085/callback",
                "http://[::1]:8085/callback",
                "http://localhost:8085/callback",
            ]
        );
        assert_eq!(
            document["grant_types"],
            json!(["authorization_code", "refresh_token", DEVICE_CODE])
        );
        assert_eq!(document["token_endpoint_auth_method"], json!("none"));
        assert_eq!(document.get("jwks"), None);
    }

    /// AUTH-34: with a key the client authenticates by it, and the document has the public half.
    #[test]
    fn a_key_goes_into_the_document() {
        let key = json!({ "kty": "EC", "crv": "P-256", "x": "X", "y": "Y", "kid": "one" });
        let id = url("https://app.example/pilotlight.json");
        let document = document(&id, "Pilotlight", &[], Some(&key)).unwrap();
        assert_eq!(
            document["token_endpoint_auth_method"],
            json!("private_key_jwt")
        );
        assert_eq!(document["jwks"]["keys"], json!([key]));
    }
}
