//! From arguments, environment and the files they name to [`Options`], in mcp-remote's order.

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::config::Environment;

use super::{
    Grant, Invocation, Options, Parameter, ResourceParameter,
    arguments::{Arguments, HEADERS},
    hash::{Hashed, LoginHash},
    parse, text,
};

/// Says what the arguments behind the program's name mean.
pub(crate) fn read(arguments: Vec<String>, environment: &Environment) -> Invocation {
    let has = |word: &str| arguments.iter().any(|one| one == word);
    if has("--help") || has("-h") {
        return Invocation::Print(USAGE.to_owned());
    }
    if has("--version") {
        return Invocation::Print(STANDS_IN_FOR.to_owned());
    }
    match options(arguments, environment) {
        Ok(options) => Invocation::Run(Box::new(options)),
        Err(why) => Invocation::Refuse(why),
    }
}

fn options(words: Vec<String>, environment: &Environment) -> Result<Options, Vec<String>> {
    let (mut warnings, mut lines) = (Vec::new(), Vec::new());
    let arguments = Arguments::without(words, |flag, value| {
        if !HEADERS.contains(&flag) {
            return Ok(false);
        }
        let found = match flag {
            "--header" => text::header(value).map_or_else(
                || {
                    warnings.push("a --header that is not Name: Value is ignored".to_owned());
                    Vec::new()
                },
                |one| vec![one],
            ),
            _ => header_file(value, &mut warnings)?,
        };
        for one in found {
            text::put(&mut lines, one);
        }
        Ok(true)
    })
    .map_err(only)?;
    let positionals = arguments.positionals();
    warnings.extend(positionals.warnings);
    let port = positionals
        .port
        .as_deref()
        .and_then(|text| port(text, &mut warnings));

    let allow_http = arguments.has("--allow-http");
    let success_page = parse::success_page(&arguments, allow_http).map_err(only)?;
    let client_metadata = parse::client_metadata(&arguments).map_err(only)?;
    let client = parse::client(&arguments, environment, &mut warnings).map_err(only)?;
    let client_metadata_url = parse::client_metadata_url(&arguments, &mut warnings);
    let grant = parse::grant(&arguments).map_err(only)?;
    let resource = parse::resource(&arguments, &mut warnings).map_err(only)?;
    let authorize_params = parse::authorize_params(&arguments, &mut warnings).map_err(only)?;
    let times = parse::times(&arguments, &mut warnings);
    let (host, callback_path) = parse::redirect(&arguments, &mut warnings);
    let (transport, protocol) = parse::wires(&arguments, &mut warnings);

    let typed = positionals.server.ok_or_else(|| vec![USAGE.to_owned()])?;
    let server = server(&typed, allow_http)?;
    let token_endpoint = match &grant {
        Grant::ClientCredentials { token_endpoint } => token_endpoint.as_ref(),
        _ => None,
    };
    let hash = LoginHash::of(&Hashed {
        server: &typed,
        resource: match &resource {
            ResourceParameter::Given(resource) => Some(resource),
            _ => None,
        },
        authorize_params: &authorize_params,
        headers: &lines,
        client_metadata_url: client_metadata_url
            .as_ref()
            .map(|(typed, _)| typed.as_str()),
        token_endpoint: token_endpoint.map(Url::as_str),
    });
    let headers = headers(&lines, environment, &mut warnings).map_err(only)?;
    Ok(Options {
        server,
        port,
        host,
        callback_path,
        success_page,
        auth_timeout: times.auth,
        headers,
        authorize_params,
        resource,
        transport,
        protocol,
        connect_timeout: times.connect,
        headers_timeout: times.headers,
        body_timeout: times.body,
        ping_every: times.ping,
        ipv4: arguments.has("--ipv4"),
        extra_ca: environment.value("NODE_EXTRA_CA_CERTS").map(PathBuf::from),
        cookies: !arguments.has("--disable-cookies"),
        ignored_tools: parse::owned(arguments.values("--ignore-tool")),
        client_metadata,
        client,
        client_metadata_url: client_metadata_url.map(|(_, url)| url),
        grant,
        id_token: arguments.has("--use-id-token"),
        debug: arguments.has("--debug"),
        silent: arguments.has("--silent"),
        hash,
        folder: folder(environment),
        warnings,
    })
}

/// One reason and no more.
fn only(why: String) -> Vec<String> {
    vec![why]
}

/// The server: https, or this machine, or whatever `--allow-http` lets through.
fn server(typed: &str, allow_http: bool) -> Result<Url, Vec<String>> {
    let url = Url::parse(typed)
        .map_err(|_| only("what stands for the URL of the server is none".to_owned()))?;
    let here = matches!(url.host_str(), Some("localhost" | "127.0.0.1"));
    match url.scheme() {
        "https" => Ok(url),
        "http" if here || allow_http => Ok(url),
        "http" => Err(vec![
            "a server is talked to over http only on localhost, or with --allow-http".to_owned(),
            USAGE.to_owned(),
        ]),
        _ => Err(vec![
            "the URL of a server is https".to_owned(),
            USAGE.to_owned(),
        ]),
    }
}

/// A port, as far as there is one in the text; 0 is none.
fn port(text: &str, warnings: &mut Vec<String>) -> Option<u16> {
    let number = text::whole_number(text, true).filter(|number| *number != 0)?;
    let port = u16::try_from(number).ok();
    if port.is_none() {
        warnings.push(format!("{number} is no port; it is ignored"));
    }
    port
}

fn header_file(path: &str, warnings: &mut Vec<String>) -> Result<Vec<Parameter>, String> {
    let shown = pilotlight_core::resource::clean(path);
    let read = std::fs::read(path)
        .map_err(|error| format!("the header file {shown} cannot be read: {error}"))?;
    let mut found = Vec::new();
    for (index, line) in String::from_utf8_lossy(&read).split('\n').enumerate() {
        let line = text::trimmed(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match text::header(line) {
            Some(one) => found.push(one),
            None => warnings.push(format!(
                "line {} of {shown} is not Name: Value; it is ignored",
                index + 1
            )),
        }
    }
    Ok(found)
}

/// The headers to send. One octet for each character, as a browser's `fetch` has it.
fn headers(
    lines: &[Parameter],
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for Parameter { name, value } in lines {
        let missing = |variable: &str| {
            let variable = pilotlight_core::resource::clean(variable);
            warnings.push(format!(
                "{variable} is not set; header {name} is sent as it stands"
            ));
        };
        let value = text::expand(value, |name| variable(environment, name), missing);
        let octets: Option<Vec<u8>> = value
            .trim_matches([' ', '\t', '\r', '\n'])
            .chars()
            .map(|c| u8::try_from(u32::from(c)).ok())
            .collect();
        let bad = || format!("the value of header {name} cannot be sent");
        let parsed = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
        let mut value = HeaderValue::from_bytes(&octets.ok_or_else(bad)?).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.append(parsed, value);
    }
    Ok(headers)
}

/// A variable as it is, even if it is empty.
pub(super) fn variable(environment: &Environment, name: &str) -> Option<String> {
    let mut all = environment.all();
    let (_, value) = all.find(|(one, _)| one == name)?;
    Some(value.to_string_lossy().into_owned())
}

/// The folder that mcp-remote keeps its logins below.
fn folder(environment: &Environment) -> Option<PathBuf> {
    let given = environment
        .value("MCP_REMOTE_CONFIG_DIR")
        .map(PathBuf::from);
    given.or_else(|| {
        environment
            .value("HOME")
            .map(|home| PathBuf::from(home).join(".mcp-auth"))
    })
}

const USAGE: &str = "Usage: mcp-remote <https://server-url> [callback-port] [--debug]";
/// The version that this is a stand-in for: hosts ask for it.
const STANDS_IN_FOR: &str = "0.15.1";
