//! What mcp-remote calls a login: an MD5 over everything that makes it another one.

use md5::{Digest as _, Md5};
use serde_json::Value;

use super::Parameter;

/// The name of a login in mcp-remote's folder: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoginHash(String);

/// What makes a login another one.
#[derive(Debug, Default)]
pub(super) struct Hashed<'a> {
    /// The URL, as typed.
    pub(super) server: &'a str,
    /// The `resource` parameter, as typed.
    pub(super) resource: Option<&'a str>,
    /// The parameters of the authorization request.
    pub(super) authorize_params: &'a [Parameter],
    /// The headers, before anything in them is replaced.
    pub(super) headers: &'a [Parameter],
    /// The client's URL, as typed.
    pub(super) client_metadata_url: Option<&'a str>,
    /// The token endpoint, as a URL writes itself.
    pub(super) token_endpoint: Option<&'a str>,
}

impl LoginHash {
    /// Hashes what is there, in this order, with `|` between.
    pub(super) fn of(what: &Hashed<'_>) -> Self {
        let mut parts = vec![what.server.to_owned()];
        parts.extend(what.resource.map(str::to_owned));
        parts.extend(object(what.authorize_params));
        parts.extend(object(what.headers));
        parts.extend(what.client_metadata_url.map(str::to_owned));
        parts.extend(what.token_endpoint.map(str::to_owned));
        let digest: [u8; 16] = Md5::digest(parts.join("|").as_bytes()).into();
        Self(format!("{:032x}", u128::from_be_bytes(digest)))
    }

    /// The 32 digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The port that is listened at unless one is named: it follows from the first four digits.
    pub(crate) fn port(&self) -> u16 {
        let head = self.0.get(..4).unwrap_or_default();
        let offset = u16::from_str_radix(head, 16).unwrap_or_default();
        FIRST_PORT + offset % PORTS
    }
}

/// A JSON object with its keys in order, as a JavaScript program sorts and writes them; nothing where it would be empty.
fn object(members: &[Parameter]) -> Option<String> {
    if members.is_empty() {
        return None;
    }
    let mut members: Vec<&Parameter> = members.iter().collect();
    members.sort_by(|one, other| one.name.encode_utf16().cmp(other.name.encode_utf16()));
    let text = |text: &str| Value::String(text.to_owned()).to_string();
    let members: Vec<String> = members
        .iter()
        .map(|one| format!("{}:{}", text(&one.name), text(&one.value)))
        .collect();
    Some(format!("{{{}}}", members.join(",")))
}

const FIRST_PORT: u16 = 3335;
const PORTS: u16 = 45_816;
