//! What each flag may be set to.

use std::time::Duration;

use pilotlight_core::{registration::ClientAuthentication, resource::clean, secret::ClientSecret};
use pilotlight_relay::Transport;
use serde_json::{Map, Value};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::config::Environment;

use super::{
    Grant, Parameter, Patience, Protocol, ResourceParameter, StaticClient, arguments::Arguments,
    read::variable, text,
};

/// How long things may take.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) auth: Option<Duration>,
    pub(super) connect: Option<Duration>,
    pub(super) headers: Patience,
    pub(super) body: Patience,
    pub(super) ping: Option<Duration>,
}

pub(super) fn times(arguments: &Arguments, warnings: &mut Vec<String>) -> Times {
    let mut seconds = |flag: &str, may_be_zero: bool| {
        let typed = arguments.value(flag)?;
        let number = text::number(typed).filter(|n| *n > 0.0 || (may_be_zero && *n == 0.0));
        let span = number.and_then(|n| Duration::try_from_millis_rounded(n * 1000.0));
        if span.is_none() {
            warnings.push(format!("{flag} {} is no time; it is ignored", clean(typed)));
        }
        span
    };
    let patience = |span: Option<Duration>| match span {
        None => Patience::Usual,
        Some(Duration::ZERO) => Patience::Endless,
        Some(span) => Patience::For(span),
    };
    let connect = seconds("--connect-timeout", false);
    let body = patience(seconds("--body-timeout", true));
    let headers = patience(seconds("--headers-timeout", true));
    let interval = seconds("--ping-interval", false);
    let ping = interval.or(arguments.has("--keep-alive").then_some(PING_EVERY));
    let auth = arguments.value("--auth-timeout").and_then(|typed| {
        let whole = text::whole_number(typed, false).and_then(|n| u64::try_from(n).ok());
        let span = whole.filter(|n| *n > 0).map(Duration::from_secs);
        if span.is_none() {
            warnings.push(format!(
                "--auth-timeout {} is no time; it is ignored",
                clean(typed)
            ));
        }
        span
    });
    Times {
        auth,
        connect,
        headers,
        body,
        ping,
    }
}

/// A span from a number of milliseconds that need not be whole.
trait Rounded: Sized {
    fn try_from_millis_rounded(milliseconds: f64) -> Option<Self>;
}

impl Rounded for Duration {
    fn try_from_millis_rounded(milliseconds: f64) -> Option<Self> {
        let whole = (milliseconds + 0.5).floor();
        (0.0..=LONGEST)
            .contains(&whole)
            .then(|| Self::from_millis(whole as u64))
    }
}

/// Host and path of the redirect.
pub(super) fn redirect(arguments: &Arguments, warnings: &mut Vec<String>) -> (String, String) {
    let host = arguments.value("--host").unwrap_or(HOST).to_owned();
    let path = arguments.value("--callback-path").filter(|path| {
        let reserved = RESERVED_PATHS.contains(path);
        if !path.starts_with('/') || reserved {
            let why = match reserved {
                true => "is mcp-remote's own",
                false => "does not begin with /",
            };
            warnings.push(format!(
                "--callback-path {} {why}; it is ignored",
                clean(path)
            ));
            return false;
        }
        true
    });
    (host, path.unwrap_or(CALLBACK_PATH).to_owned())
}

pub(super) fn wires(arguments: &Arguments, warnings: &mut Vec<String>) -> (Transport, Protocol) {
    let mut ignored = |flag: &str, typed: &str| {
        warnings.push(format!("{flag} {} is unknown; it is ignored", clean(typed)));
    };
    let transport = match arguments.value("--transport") {
        Some("http-first") | None => Transport::HttpFirst,
        Some("sse-first") => Transport::SseFirst,
        Some("http-only") => Transport::HttpOnly,
        Some("sse-only") => Transport::SseOnly,
        Some(other) => {
            ignored("--transport", other);
            Transport::default()
        }
    };
    let protocol = match arguments.value("--protocol") {
        Some("legacy") | None => Protocol::Legacy,
        Some("auto") => Protocol::Auto,
        Some(other) => {
            ignored("--protocol", other);
            Protocol::default()
        }
    };
    (transport, protocol)
}

/// The page that the person's browser ends at.
pub(super) fn success_page(arguments: &Arguments, allow_http: bool) -> Result<Option<Url>, String> {
    const FLAG: &str = "--auth-success-url";
    if !arguments.has(FLAG) {
        return Ok(None);
    }
    let typed = arguments
        .value(FLAG)
        .filter(|typed| !typed.is_empty() && !typed.starts_with("--"));
    let url = typed.and_then(|typed| {
        let url = Url::parse(typed).ok()?;
        let secure = match url.scheme() {
            "https" => true,
            "http" => allow_http || is_here(&url),
            _ => false,
        };
        let plain =
            url.username().is_empty() && url.password().is_none() && !typed.contains(['?', '#']);
        (secure && plain).then_some(url)
    });
    match url {
        Some(url) if arguments.count(FLAG) == 1 => Ok(Some(url)),
        _ => Err(format!(
            "{FLAG} takes one https URL (http on this machine, or with --allow-http) without credentials, query or fragment"
        )),
    }
}

/// What is laid over the registration: JSON, or `@` and the file that holds it.
pub(super) fn client_metadata(arguments: &Arguments) -> Result<Option<Map<String, Value>>, String> {
    const FLAG: &str = "--static-oauth-client-metadata";
    let Some(typed) = arguments.value(FLAG) else {
        return Ok(None);
    };
    match serde_json::from_str(&text_or_file(FLAG, typed)?) {
        Ok(Value::Object(members)) => Ok(Some(members)),
        Ok(Value::Null) => Ok(None),
        _ => Err(format!("{FLAG} is no JSON object")),
    }
}

/// A client that was registered by hand: JSON, or `@` and the file that holds it, with each `${NAME}` replaced first.
pub(super) fn client(
    arguments: &Arguments,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Option<StaticClient>, String> {
    const FLAG: &str = "--static-oauth-client-info";
    let Some(typed) = arguments.value(FLAG) else {
        return Ok(None);
    };
    let raw = text_or_file(FLAG, typed)?;
    let missing = |name: &str| {
        warnings.push(format!(
            "{} is not set; {FLAG} stands as it is",
            clean(name)
        ));
    };
    let text = Zeroizing::new(text::expand(
        &raw,
        |name| variable(environment, name),
        missing,
    ));
    let members = match serde_json::from_str(&text) {
        Ok(Value::Object(members)) => members,
        Ok(Value::Null) => return Ok(None),
        _ => return Err(format!("{FLAG} is no JSON object")),
    };
    let member = |name: &str| {
        members
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let id = member("client_id")
        .ok_or_else(|| format!("{FLAG} has no client_id"))?
        .to_owned();
    let secret = member("client_secret").map(|secret| {
        ClientSecret::new(secret.to_owned())
            .map_err(|_| format!("{FLAG} has a client_secret that cannot be sent"))
    });
    Ok(Some(StaticClient {
        id,
        secret: secret.transpose()?,
        authentication: member("token_endpoint_auth_method")
            .and_then(ClientAuthentication::from_name),
    }))
}

/// The text itself, or what the file holds that it names with an `@`.
fn text_or_file(flag: &str, typed: &str) -> Result<Zeroizing<String>, String> {
    let Some(path) = typed.strip_prefix('@') else {
        return Ok(Zeroizing::new(typed.to_owned()));
    };
    let read = std::fs::read(path);
    let bytes = Zeroizing::new(
        read.map_err(|error| format!("{flag}: {} cannot be read: {error}", clean(path)))?,
    );
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The URL that is the client's ID, as typed and as a URL.
pub(super) fn client_metadata_url(
    arguments: &Arguments,
    warnings: &mut Vec<String>,
) -> Option<(String, Url)> {
    let typed = text::trimmed(arguments.value("--client-metadata-url")?);
    let url = Url::parse(typed).ok();
    let url = url.filter(|url| url.scheme() == "https" && url.path() != "/");
    if url.is_none() {
        warnings
            .push("--client-metadata-url is no https URL with a path; it is ignored".to_owned());
    }
    Some((typed.to_owned(), url?))
}

pub(super) fn grant(arguments: &Arguments) -> Result<Grant, String> {
    const ENDPOINT: &str = "--token-endpoint";
    let as_itself = arguments.has("--client-credentials");
    let mut token_endpoint = None;
    if arguments.has(ENDPOINT) {
        let typed = arguments
            .value(ENDPOINT)
            .filter(|typed| !typed.starts_with("--"));
        let typed = typed.ok_or_else(|| format!("{ENDPOINT} needs an https URL"))?;
        if !as_itself {
            return Err(format!("{ENDPOINT} is for --client-credentials only"));
        }
        let url = Url::parse(text::trimmed(typed)).map_err(|_| format!("{ENDPOINT} is no URL"))?;
        let secure = url.scheme() == "https" || (url.scheme() == "http" && is_here(&url));
        if !secure {
            return Err(format!("{ENDPOINT} must be https, or http on this machine"));
        }
        let plain = url.username().is_empty() && url.password().is_none();
        if !plain || url.fragment().is_some_and(|fragment| !fragment.is_empty()) {
            return Err(format!(
                "{ENDPOINT} must have neither credentials nor a fragment"
            ));
        }
        token_endpoint = Some(url);
    }
    Ok(match arguments.has("--device-code") {
        // Both flags: mcp-remote tries the device first.
        true if token_endpoint.is_none() => Grant::Device,
        _ if as_itself => Grant::ClientCredentials { token_endpoint },
        _ => Grant::Browser,
    })
}

pub(super) fn resource(
    arguments: &Arguments,
    warnings: &mut Vec<String>,
) -> Result<ResourceParameter, String> {
    let typed = arguments.value("--resource").map(text::trimmed);
    let left_out = arguments.has("--disable-resource-parameter") || typed == Some("");
    match typed.filter(|typed| !typed.is_empty()) {
        given if left_out => {
            if given.is_some() {
                warnings.push(
                    "--resource is ignored: --disable-resource-parameter leaves it out".to_owned(),
                );
            }
            Ok(ResourceParameter::LeftOut)
        }
        None => Ok(ResourceParameter::Published),
        Some(given) => match Url::parse(given) {
            Ok(_) => Ok(ResourceParameter::Given(given.to_owned())),
            Err(_) => Err("--resource must be an absolute URI (RFC 8707 section 2)".to_owned()),
        },
    }
}

pub(super) fn authorize_params(
    arguments: &Arguments,
    warnings: &mut Vec<String>,
) -> Result<Vec<Parameter>, String> {
    const FLAG: &str = "--authorize-param";
    let mut found = Vec::new();
    for typed in arguments.values(FLAG) {
        let pair = typed.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = pair.ok_or_else(|| format!("{FLAG} takes name=value"))?;
        let name = text::trimmed(name).to_owned();
        if OWN_PARAMETERS.contains(&name.as_str()) {
            return Err(format!(
                "{FLAG} cannot set {name}: each login makes its own"
            ));
        }
        if name == "resource" {
            warnings.push(format!(
                "{FLAG} resource is in the authorization request only; use --resource"
            ));
        }
        let value = value.to_owned();
        text::put(&mut found, Parameter { name, value });
    }
    Ok(found)
}

pub(super) fn owned(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

/// Whether a URL leads to this machine by one of the three names that count.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address == std::net::Ipv4Addr::LOCALHOST,
        Some(Host::Ipv6(address)) => address == std::net::Ipv6Addr::LOCALHOST,
        None => false,
    }
}

const PING_EVERY: Duration = Duration::from_secs(30);
/// Ten years: whatever is longer is no time.
const LONGEST: f64 = 315_576_000_000.0;
const CALLBACK_PATH: &str = "/oauth/callback";
const RESERVED_PATHS: [&str; 2] = ["/wait-for-auth", "/.mcp-remote/id"];
#[cfg(not(windows))]
const HOST: &str = "localhost";
#[cfg(windows)]
const HOST: &str = "127.0.0.1";
/// What the flow makes for each request.
const OWN_PARAMETERS: [&str; 6] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "state",
    "code_challenge",
    "code_challenge_method",
];
