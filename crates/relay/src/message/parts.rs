//! Where the members of a message lie that somebody asks for.

use super::json::{Cursor, Key, Span};
use super::{
    CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, Malformed, PROTOCOL_VERSION, SERVER_INFO,
    SUBSCRIPTION_ID,
};

pub(super) const TOP: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: &[&str] = &[
    "_meta",
    "name",
    "uri",
    "arguments",
    "cursor",
    "inputResponses",
    "requestState",
    "requestId",
    "progressToken",
    "level",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "notifications",
    "elicitationId",
    "mode",
];
const META: &[&str] = &[
    PROTOCOL_VERSION,
    CLIENT_INFO,
    CLIENT_CAPABILITIES,
    LOG_LEVEL,
    SUBSCRIPTION_ID,
    SERVER_INFO,
    "progressToken",
];
const RESULT: &[&str] = &[
    "_meta",
    "resultType",
    "inputRequests",
    "requestState",
    "tools",
    "nextCursor",
    "supportedVersions",
    "protocolVersion",
    "capabilities",
    "serverInfo",
    "instructions",
    "ttlMs",
    "cacheScope",
];
const ERROR: &[&str] = &["code", "message", "data"];

/// A member: its name with quotes, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) key: Span,
    pub(crate) value: Span,
}

/// An object, and those of its members that are asked for somewhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object {
    pub(crate) span: Span,
    pub(crate) known: Vec<(&'static str, Member)>,
}

impl Object {
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        self.known
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, member)| member)
    }
}

/// The inner objects, while the outer one is being read.
#[derive(Default)]
pub(super) struct Found {
    pub(super) params: Option<Object>,
    pub(super) meta: Option<Object>,
    pub(super) result: Option<Object>,
    pub(super) error: Option<Object>,
}

impl Found {
    pub(super) fn read(
        &mut self,
        raw: &[u8],
        cursor: &mut Cursor<'_>,
        name: &str,
    ) -> Result<Span, Malformed> {
        if cursor.next() != Some(b'{') {
            return cursor.value();
        }
        let (slot, names) = match name {
            "params" => {
                let meta = &mut self.meta;
                let object = known(raw, cursor, PARAMS, &mut |cursor, name| {
                    if name != "_meta" || cursor.next() != Some(b'{') {
                        return cursor.value();
                    }
                    let object = known(raw, cursor, META, &mut |cursor, _| cursor.value())?;
                    let span = object.span.clone();
                    *meta = Some(object);
                    Ok(span)
                })?;
                let span = object.span.clone();
                self.params = Some(object);
                return Ok(span);
            }
            "result" => (&mut self.result, RESULT),
            "error" => (&mut self.error, ERROR),
            _ => return cursor.value(),
        };
        let object = known(raw, cursor, names, &mut |cursor, _| cursor.value())?;
        let span = object.span.clone();
        *slot = Some(object);
        Ok(span)
    }
}

/// Reads an object, keeps the members of these names, and refuses one that is there twice.
pub(super) fn known(
    raw: &[u8],
    cursor: &mut Cursor<'_>,
    names: &'static [&'static str],
    value: &mut dyn FnMut(&mut Cursor<'_>, &'static str) -> Result<Span, Malformed>,
) -> Result<Object, Malformed> {
    let mut object = Object::default();
    object.span = cursor.object(&mut |cursor, key: Key| {
        let Some(name) = names.iter().copied().find(|name| key.is(raw, name)) else {
            return cursor.value().map(drop);
        };
        if object.member(name).is_some() {
            return Err(Malformed::Duplicate { name });
        }
        let value = value(cursor, name)?;
        object.known.push((
            name,
            Member {
                key: key.span,
                value,
            },
        ));
        Ok(())
    })?;
    Ok(object)
}
