//! Reads the marks that a tool's schema puts on its arguments (`x-mcp-header`, TR-06, TR-08).

use std::collections::BTreeSet;

use http::HeaderName;
use serde_json::{Map, Value};

use super::Mirror;
use crate::headers::MCP_PARAM;

/// The mark.
const MARK: &str = "x-mcp-header";

/// Keywords under which a schema lies that does not speak of one fixed argument: a mark there makes the tool invalid.
/// What is data to JSON Schema (`const`, `enum`, `default`, `examples`) may say anything.
const ELSEWHERE: &[&str] = &[
    "items",
    "prefixItems",
    "contains",
    "additionalItems",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "propertyNames",
    "oneOf",
    "anyOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
];
/// The same, with a schema for each name.
const ELSEWHERE_BY_NAME: &[&str] = &[
    "patternProperties",
    "dependentSchemas",
    "$defs",
    "definitions",
];

/// Why a tool's marks cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// The schema cannot be read: it is nested too deeply.
    #[error("its schema cannot be read")]
    Unreadable,
    /// The mark is no text, or an empty one.
    #[error("x-mcp-header is empty or no text")]
    Empty,
    /// The mark is no token, and so no part of a header's name.
    #[error("x-mcp-header {0:?} is no header name")]
    NotAToken(String),
    /// Two marks are the same but for upper and lower case.
    #[error("x-mcp-header {0:?} is there twice")]
    Duplicate(String),
    /// The argument is no string, integer or boolean.
    #[error("x-mcp-header {0:?} is on an argument that is no string, integer or boolean")]
    Type(String),
    /// The mark is not on an argument that a chain of `properties` leads to.
    #[error("x-mcp-header is not on a property that can be reached by names alone")]
    Unreachable,
}

/// The marks of a schema.
///
/// # Errors
/// [`Invalid`]: the first one that cannot be followed.
pub(super) fn mirrors(schema: &[u8]) -> Result<Vec<Mirror>, Invalid> {
    // Most schemas have no mark; an escape may hide one.
    if !contains(schema, MARK.as_bytes()) && !schema.contains(&b'\\') {
        return Ok(Vec::new());
    }
    let schema: Value = match serde_json::from_slice(schema) {
        Ok(schema) => schema,
        Err(_) if contains(schema, MARK.as_bytes()) => return Err(Invalid::Unreadable),
        Err(_) => return Ok(Vec::new()),
    };
    let mut found = Found::default();
    found.schema(&schema, true)?;
    Ok(found.mirrors)
}

#[derive(Default)]
struct Found {
    mirrors: Vec<Mirror>,
    names: BTreeSet<String>,
    path: Vec<Box<str>>,
}

impl Found {
    /// Goes through a schema; the reader of JSON has limited its depth.
    fn schema(&mut self, schema: &Value, reachable: bool) -> Result<(), Invalid> {
        let Value::Object(schema) = schema else {
            return Ok(());
        };
        if let Some(mark) = schema.get(MARK) {
            if !reachable || self.path.is_empty() {
                return Err(Invalid::Unreachable);
            }
            self.mark(mark, schema)?;
        }
        if let Some(Value::Object(properties)) = schema.get("properties") {
            for (name, property) in properties {
                self.path.push(name.as_str().into());
                self.schema(property, reachable)?;
                self.path.pop();
            }
        }
        for inner in ELSEWHERE.iter().filter_map(|name| schema.get(*name)) {
            match inner {
                Value::Array(several) => several
                    .iter()
                    .try_for_each(|inner| self.schema(inner, false))?,
                one => self.schema(one, false)?,
            }
        }
        for inner in ELSEWHERE_BY_NAME
            .iter()
            .filter_map(|name| schema.get(*name))
        {
            if let Value::Object(several) = inner {
                several
                    .values()
                    .try_for_each(|inner| self.schema(inner, false))?;
            }
        }
        Ok(())
    }

    fn mark(&mut self, mark: &Value, schema: &Map<String, Value>) -> Result<(), Invalid> {
        let Some(mark) = mark.as_str().filter(|mark| !mark.is_empty()) else {
            return Err(Invalid::Empty);
        };
        let name = mark.to_ascii_lowercase();
        // `HeaderName` knows what a token is; in lower case it takes exactly those.
        let header = HeaderName::from_bytes(format!("{MCP_PARAM}{name}").as_bytes())
            .map_err(|_| Invalid::NotAToken(mark.to_owned()))?;
        if !self.names.insert(name) {
            return Err(Invalid::Duplicate(mark.to_owned()));
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("string" | "integer" | "boolean") => {}
            _ => return Err(Invalid::Type(mark.to_owned())),
        }
        self.mirrors.push(Mirror {
            header,
            path: self.path.clone().into(),
        });
        Ok(())
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
