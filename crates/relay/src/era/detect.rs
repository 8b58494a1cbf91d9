//! Which era a server speaks, told by how it answers a first request (TR-14, TR-15, TR-50, TR-51).
//!
//! A server of the new era answers `server/discover`, or refuses it with an error that only that era has. Anything else
//! that is a refusal means old; a server that does not know POST at all is HTTP+SSE. An authorization challenge and a
//! server that is in trouble mean nothing: one logs in, or waits, and asks again.

use bytes::Bytes;

use super::{
    HEADER_MISMATCH, Identity, METHOD_NOT_FOUND, MISSING_CAPABILITY, NEW, OLD, UNSUPPORTED_VERSION,
};
use crate::message::{
    CLIENT_CAPABILITIES, CLIENT_INFO, Id, Kind, Message, PROTOCOL_VERSION, SERVER_INFO, json,
    object,
};

/// Which request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `server/discover`, or any request of the new era.
    New,
    /// `initialize`.
    Initialize,
}

/// What an answer says about the server's era.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is new. What it says of itself, if it did.
    Modern(Option<Discovery>),
    /// It is old: `initialize`.
    Legacy,
    /// It may be HTTP+SSE: GET, and see whether the first event is `endpoint`.
    TrySse,
    /// It wants a login first. That is no verdict (TR-51).
    Challenge,
    /// It is new, and wants another version.
    Retry(String),
    /// It is new, and speaks no version that is spoken here.
    NoCommonVersion(Vec<String>),
    /// Nothing can be told: it is in trouble, or the answer is a redirect.
    Unavailable,
}

/// What a server of the new era says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// The versions it speaks.
    pub versions: Vec<String>,
    /// What it can do, as it is written.
    pub capabilities: Option<Bytes>,
    /// Who it is, as it is written.
    pub info: Option<Bytes>,
    /// What it wants the model to know, as it is written.
    pub instructions: Option<Bytes>,
}

impl Discovery {
    /// Reads the answer to `server/discover`.
    #[must_use]
    pub fn read(answer: &Message) -> Option<Self> {
        let versions = texts(answer.result_member("supportedVersions")?)?;
        let part = |raw: Option<&[u8]>| {
            raw.filter(|raw| *raw != b"null")
                .map(|raw| answer.slice(raw))
        };
        Some(Self {
            versions,
            capabilities: part(answer.result_member("capabilities")),
            info: part(
                answer
                    .result_meta(SERVER_INFO)
                    .or_else(|| answer.result_member("serverInfo")),
            ),
            instructions: part(answer.result_member("instructions")),
        })
    }
}

/// The request that tells the eras apart: `server/discover`, in the name of the host as far as its first message names it.
#[must_use]
pub fn probe(id: &Id, first: Option<&Message>, bridge: &Identity) -> Bytes {
    let said = |meta, param| {
        first
            .and_then(|first| first.meta(meta).or_else(|| first.param(param)))
            .map(<[u8]>::to_vec)
    };
    discover(
        id,
        said(CLIENT_INFO, "clientInfo").unwrap_or_else(|| bridge.json()),
        said(CLIENT_CAPABILITIES, "capabilities").unwrap_or_else(|| b"{}".to_vec()),
    )
}

pub(crate) fn discover(id: &Id, info: Vec<u8>, capabilities: Vec<u8>) -> Bytes {
    let meta = object(vec![
        (PROTOCOL_VERSION, json::quoted(NEW).into_bytes()),
        (CLIENT_INFO, info),
        (CLIENT_CAPABILITIES, capabilities),
    ]);
    super::call(
        Some(id),
        b"\"server/discover\"",
        Some(&object(vec![("_meta", meta)])),
    )
}

/// What an answer says about the server's era.
#[must_use]
pub fn detect(asked: Asked, status: u16, body: &Bytes) -> Verdict {
    let message = Message::read(body.clone()).ok();
    let error = message
        .as_ref()
        .filter(|message| message.kind() == Kind::Error);
    if let Some(verdict) = error.and_then(|error| recognised(error, status)) {
        return verdict;
    }
    match (asked, status) {
        (_, 401 | 403) => Verdict::Challenge,
        (Asked::New, 200..=299) => match message.as_ref().and_then(Discovery::read) {
            Some(said) if said.versions.iter().any(|version| version == NEW) => {
                Verdict::Modern(Some(said))
            }
            Some(said)
                if said
                    .versions
                    .iter()
                    .any(|version| OLD.contains(&&**version)) =>
            {
                Verdict::Legacy
            }
            Some(said) => Verdict::NoCommonVersion(said.versions),
            None => Verdict::Legacy,
        },
        (Asked::Initialize, 200..=299) => Verdict::Legacy,
        (_, 408 | 425 | 429) => Verdict::Unavailable,
        // Who does not know POST is no server of either era; the others may only dislike what they do not know.
        (Asked::New, 405) => Verdict::TrySse,
        (Asked::New, 400..=499) => Verdict::Legacy,
        (Asked::Initialize, 400..=499) => Verdict::TrySse,
        // Some servers stumble over a method they do not know; one that says so in JSON-RPC is there.
        (Asked::New, 500 | 501) if error.is_some() => Verdict::Legacy,
        _ => Verdict::Unavailable,
    }
}

/// Whether an answer to `initialize` opens no session, in spite of its status: an error, or a version that has none (TR-18).
pub(crate) fn opens_nothing(answer: &Bytes) -> bool {
    let Ok(message) = Message::read(answer.clone()) else {
        return false;
    };
    let version = message.result_member("protocolVersion");
    message.kind() == Kind::Error || version.and_then(json::decoded).is_some_and(|it| it == NEW)
}

/// An error that only the new era has (TR-14).
fn recognised(error: &Message, status: u16) -> Option<Verdict> {
    match error.error_code()? {
        HEADER_MISMATCH | MISSING_CAPABILITY => Some(Verdict::Modern(None)),
        // An old server says the same in a 200; over HTTP only the new era has the status as well.
        METHOD_NOT_FOUND if status == 404 => Some(Verdict::Modern(None)),
        UNSUPPORTED_VERSION => {
            let versions = error
                .error_data("supported")
                .and_then(texts)
                .unwrap_or_default();
            Some(match versions.iter().find(|version| *version == NEW) {
                Some(version) => Verdict::Retry(version.clone()),
                None if versions.iter().any(|version| OLD.contains(&&**version)) => Verdict::Legacy,
                None => Verdict::NoCommonVersion(versions),
            })
        }
        _ => None,
    }
}

/// A list of texts.
fn texts(raw: &[u8]) -> Option<Vec<String>> {
    serde_json::from_slice(raw).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(asked: Asked, status: u16, body: &str) -> Verdict {
        detect(asked, status, &Bytes::copy_from_slice(body.as_bytes()))
    }

    fn refusal(code: i64, data: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"x","data":{data}}}}}"#
        )
    }

    /// TR-15: a server of the new era is known by its answer, with all it says of itself.
    #[test]
    fn a_discovery_is_modern() {
        let body = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","supportedVersions":["2026-07-28"],
            "capabilities":{"tools":{ }},"instructions":"a\u0062",
            "_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}}}"#;
        let Verdict::Modern(Some(said)) = told(Asked::New, 200, body) else {
            panic!()
        };
        assert_eq!(said.capabilities.unwrap(), r#"{"tools":{ }}"#);
        assert_eq!(said.info.unwrap(), r#"{"name":"s"}"#);
        assert_eq!(said.instructions.unwrap(), r#""a\u0062""#);
        let old = body.replace("2026-07-28", "2025-11-25");
        assert_eq!(told(Asked::New, 200, &old), Verdict::Legacy);
        let other = body.replace("2026-07-28", "2031-01-01");
        assert_eq!(
            told(Asked::New, 200, &other),
            Verdict::NoCommonVersion(vec!["2031-01-01".to_owned()])
        );
    }

    /// TR-14: errors that only the new era has keep the server modern, whatever was asked.
    #[test]
    fn modern_errors_are_no_reason_to_fall_back() {
        for asked in [Asked::New, Asked::Initialize] {
            assert_eq!(
                told(asked, 400, &refusal(-32020, "null")),
                Verdict::Modern(None)
            );
            assert_eq!(
                told(asked, 400, &refusal(-32021, "{}")),
                Verdict::Modern(None)
            );
            assert_eq!(
                told(asked, 404, &refusal(-32601, "null")),
                Verdict::Modern(None)
            );
            let supported = |versions: &str| {
                refusal(
                    -32022,
                    &format!("{{\"supported\":[{versions}],\"requested\":\"x\"}}"),
                )
            };
            assert_eq!(
                told(asked, 400, &supported("\"2025-11-25\",\"2026-07-28\"")),
                Verdict::Retry("2026-07-28".to_owned())
            );
            assert_eq!(
                told(asked, 400, &supported("\"2025-11-25\"")),
                Verdict::Legacy
            );
            assert_eq!(
                told(asked, 400, &supported("\"9\"")),
                Verdict::NoCommonVersion(vec!["9".to_owned()])
            );
            assert_eq!(
                told(asked, 400, &refusal(-32022, "null")),
                Verdict::NoCommonVersion(vec![])
            );
        }
    }

    /// TR-15, TR-50: other refusals mean old, and then HTTP+SSE; who does not know POST is asked by GET at once.
    #[test]
    fn other_refusals_fall_back_step_by_step() {
        for body in [
            "",
            "Not Found",
            "{}",
            "[]",
            "null",
            &refusal(-32000, "null"),
            &refusal(-32602, "null"),
        ] {
            for status in [400, 404, 406, 415, 422] {
                assert_eq!(
                    told(Asked::New, status, body),
                    Verdict::Legacy,
                    "{status} {body}"
                );
                assert_eq!(
                    told(Asked::Initialize, status, body),
                    Verdict::TrySse,
                    "{status} {body}"
                );
            }
            assert_eq!(told(Asked::New, 405, body), Verdict::TrySse);
        }
        assert_eq!(
            told(Asked::New, 200, &refusal(-32601, "null")),
            Verdict::Legacy
        );
        assert_eq!(
            told(Asked::New, 500, &refusal(-32603, "null")),
            Verdict::Legacy
        );
    }

    /// TR-51: a challenge, a server in trouble and a redirect say nothing about the era.
    #[test]
    fn a_challenge_is_no_verdict() {
        for asked in [Asked::New, Asked::Initialize] {
            assert_eq!(told(asked, 401, ""), Verdict::Challenge);
            assert_eq!(told(asked, 403, "no"), Verdict::Challenge);
            for status in [302, 408, 429, 500, 502, 503, 504] {
                assert_eq!(told(asked, status, "<html>"), Verdict::Unavailable);
            }
        }
    }

    /// TR-04: the probe speaks in the host's name, byte for byte, and in the bridge's where the host has none.
    #[test]
    fn the_probe_speaks_for_the_host() {
        let bridge = Identity {
            name: "b".to_owned(),
            version: "1".to_owned(),
        };
        let first = br#"{"id":1,"method":"initialize","params":{"clientInfo":{"name" :"h"},"capabilities":{"x":1.0}}}"#;
        let first = Message::read(Bytes::from_static(first)).unwrap();
        let probe = Message::read(probe(&Id::of_text("p"), Some(&first), &bridge)).unwrap();
        assert_eq!(probe.meta(CLIENT_INFO).unwrap(), br#"{"name" :"h"}"#);
        assert_eq!(probe.meta(CLIENT_CAPABILITIES).unwrap(), br#"{"x":1.0}"#);
        assert_eq!(probe.meta(PROTOCOL_VERSION).unwrap(), br#""2026-07-28""#);
        let probe = Message::read(super::probe(&Id::of_text("p"), None, &bridge)).unwrap();
        assert_eq!(
            probe.meta(CLIENT_INFO).unwrap(),
            br#"{"name":"b","version":"1"}"#
        );
        assert_eq!(probe.meta(CLIENT_CAPABILITIES).unwrap(), b"{}");
    }
}
