//! The headers in which the stateless wire (2026-07-28) repeats parts of a message, so that who stands between can route
//! it without reading it (TR-03, TR-05 to TR-07).
//!
//! What a header cannot hold goes into it as `=?base64?...?=`. Both directions are here: the bridge writes them, and
//! [`check`] says of a message and its headers whether a server has to refuse them.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::message::{Message, PROTOCOL_VERSION, json};
use crate::tools::Mirror;

/// The protocol version, on every request (TR-03).
pub const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The method (TR-05).
pub const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// The name of a tool or prompt, or the URI of a resource (TR-05).
pub const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
/// What the headers for arguments of tools begin with (TR-06).
pub const MCP_PARAM: &str = "mcp-param-";

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";
/// The largest whole number that each reader of JSON tells from its neighbours (2^53 - 1).
const SAFE: i128 = 9_007_199_254_740_991;

/// Why a message cannot be sent with its headers, or does not fit them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// The method is nothing a header can hold; there is no sentinel for it.
    #[error("the method cannot stand in a header")]
    Method,
    /// A header that the message needs is not there.
    #[error("the header {0} is missing")]
    Missing(HeaderName),
    /// A header says something else than the message, or nothing that can be read.
    #[error("the header {0} does not say what the message says")]
    Differs(HeaderName),
}

/// Writes a value so that a header can hold it and gives it back unchanged (TR-07).
#[must_use]
pub fn encode(value: &str) -> Cow<'_, str> {
    let plain = !value.is_empty()
        && value.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
        && !value.starts_with(' ')
        && !value.ends_with(' ')
        && !sentinel(value);
    if plain {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(format!("{OPEN}{}{CLOSE}", STANDARD.encode(value)))
    }
}

/// Reads a value that a header holds; nothing for what no one may have written.
#[must_use]
pub fn decode(value: &HeaderValue) -> Option<Cow<'_, str>> {
    let text = value.to_str().ok()?;
    let Some(inner) = text
        .strip_prefix(OPEN)
        .and_then(|text| text.strip_suffix(CLOSE))
    else {
        return Some(Cow::Borrowed(text));
    };
    String::from_utf8(STANDARD.decode(inner).ok()?)
        .ok()
        .map(Cow::Owned)
}

/// The headers of a request: the version, the method, its name, and the arguments that the tool wants to see (TR-03,
/// TR-05, TR-06).
///
/// # Errors
/// [`Mismatch::Method`], before anything is sent.
pub fn of(
    message: &Message,
    version: &str,
    mirrors: &[Mirror],
) -> Result<Vec<(HeaderName, HeaderValue)>, Mismatch> {
    let version =
        HeaderValue::from_str(version).map_err(|_| Mismatch::Differs(MCP_PROTOCOL_VERSION))?;
    let method = message.method();
    if method.is_empty() || encode(&method) != *method {
        return Err(Mismatch::Method);
    }
    let mut headers = vec![
        (MCP_PROTOCOL_VERSION, version),
        (MCP_METHOD, value(&method)?),
    ];
    if let Some(name) = message.name() {
        headers.push((MCP_NAME, value(&encode(&name))?));
    }
    if method == "tools/call" {
        for mirror in mirrors {
            if let Some(text) = argument(message, mirror) {
                headers.push((mirror.header.clone(), value(&encode(&text))?));
            }
        }
    }
    Ok(headers)
}

/// Says whether the headers say what the message says, as a server has to ask before it believes either (TR-03, TR-06).
/// Headers for arguments that no mirror knows are somebody else's (TR-19).
///
/// # Errors
/// [`Mismatch`]: the first header that is missing or differs.
pub fn check(headers: &HeaderMap, message: &Message, mirrors: &[Mirror]) -> Result<(), Mismatch> {
    let version = message.meta(PROTOCOL_VERSION).and_then(json::decoded);
    same(headers, &MCP_PROTOCOL_VERSION, version.as_deref(), str::eq)?;
    same(headers, &MCP_METHOD, Some(&message.method()), str::eq)?;
    same(headers, &MCP_NAME, message.name().as_deref(), str::eq)?;
    let call = message.method() == "tools/call";
    for mirror in mirrors.iter().filter(|_| call) {
        same(
            headers,
            &mirror.header,
            argument(message, mirror).as_deref(),
            |one, other| {
                one == other
                    || number(one).is_some_and(|number| Some(number) == self::number(other))
            },
        )?;
    }
    Ok(())
}

fn same(
    headers: &HeaderMap,
    name: &HeaderName,
    wanted: Option<&str>,
    equal: impl Fn(&str, &str) -> bool,
) -> Result<(), Mismatch> {
    let mut found = headers.get_all(name).iter();
    match (found.next(), wanted) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Mismatch::Missing(name.clone())),
        (Some(value), Some(wanted)) if found.next().is_none() => match decode(value) {
            Some(text) if equal(&text, wanted) => Ok(()),
            _ => Err(Mismatch::Differs(name.clone())),
        },
        _ => Err(Mismatch::Differs(name.clone())),
    }
}

/// The argument at a mirror's path, as a header says it; nothing where it is not there, `null`, or no value that headers
/// are for.
fn argument(message: &Message, mirror: &Mirror) -> Option<String> {
    let raw = message.raw();
    let arguments = raw.slice_ref(message.param("arguments")?);
    let mut span = 0..arguments.len();
    for name in &*mirror.path {
        span = json::member(&arguments, &span, name)?;
    }
    let text = &arguments[span];
    match text.first()? {
        b'"' => json::decoded(text).map(Cow::into_owned),
        b't' | b'f' => std::str::from_utf8(text).ok().map(str::to_owned),
        b'-' | b'0'..=b'9' => decimal(std::str::from_utf8(text).ok()?),
        _ => None,
    }
}

/// A number as headers say it: whole numbers in decimal, however they were written, and only where every reader gets the
/// same one.
fn decimal(text: &str) -> Option<String> {
    match number(text) {
        Some(whole) if (-SAFE..=SAFE).contains(&whole) => Some(whole.to_string()),
        Some(_) => None,
        None => {
            let number: f64 = text.parse().ok()?;
            (number.is_finite() && number.fract() != 0.0).then(|| text.to_owned())
        }
    }
}

/// The whole number that a text says (`42`, `42.0`, `4.2e1`).
fn number(text: &str) -> Option<i128> {
    if let Ok(whole) = text.parse() {
        return Some(whole);
    }
    let number: f64 = text.parse().ok()?;
    // Beyond 2^63 a float says nothing exact, and nobody may send it.
    (number.fract() == 0.0 && number.abs() < 9.3e18).then_some(number as i128)
}

fn sentinel(value: &str) -> bool {
    value.starts_with(OPEN) && value.ends_with(CLOSE)
}

fn value(text: &str) -> Result<HeaderValue, Mismatch> {
    HeaderValue::from_str(text).map_err(|_| Mismatch::Method)
}

#[cfg(test)]
mod tests;
