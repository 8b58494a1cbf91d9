//! What a server's tools want to see in headers, and which of them the host is not to see.
//!
//! A tool may mark arguments with `x-mcp-header`, and then refuses calls that lack those headers; so the bridge remembers
//! what each list said (TR-06). A tool that marks them wrongly is hidden (TR-08), and so is what the person asked to hide
//! (`--ignore-tool`). The other tools of a list stay as they were, byte for byte.

mod schema;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::HeaderName;

use crate::message::Message;
use crate::message::json::{self, Span};
pub use schema::Invalid;

/// How many tools are remembered. Only those that want headers are.
const MAX_TOOLS: usize = 4096;
/// How many headers all of them may want together.
const MAX_MIRRORS: usize = 16_384;

/// An argument that a header repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The header.
    pub header: HeaderName,
    /// Where the argument lies: the names of the properties, from the outermost on.
    pub path: Box<[Box<str>]>,
}

/// A tool that a list had and the host does not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: Why,
}

/// Why a tool is hidden.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The person asked for it.
    #[error("ignored by request")]
    Ignored,
    /// It marks arguments in a way that no client may follow.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// What became of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The message for the host.
    pub raw: Bytes,
    /// What it lacks now.
    pub hidden: Vec<Hidden>,
}

/// What is known of a server's tools.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    ignore: Vec<String>,
    mirrors: BTreeMap<String, Vec<Mirror>>,
    count: usize,
    /// What the pages of the list that is being read have named so far.
    listed: BTreeSet<String>,
}

impl Tools {
    /// Knows nothing yet, and hides what these patterns say. `*` stands for anything, upper and lower case are the same.
    #[must_use]
    pub fn new(ignore: &[String]) -> Self {
        Self {
            ignore: ignore
                .iter()
                .map(|pattern| pattern.to_lowercase())
                .collect(),
            ..Self::default()
        }
    }

    /// Says whether a tool is hidden because the person asked for it; a call of it is not to be sent.
    #[must_use]
    pub fn ignored(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.ignore.iter().any(|pattern| matches(pattern, &name))
    }

    /// The headers that calls of a tool want.
    #[must_use]
    pub fn mirrors(&self, name: &str) -> &[Mirror] {
        self.mirrors.get(name).map_or(&[], Vec::as_slice)
    }

    /// Takes a page of a list: remembers what its tools want, and takes out what is to be hidden. `first` says that it
    /// answers a request without a cursor. Only lists of the stateless wire have tools that are hidden for their marks:
    /// before it, nobody sent the headers.
    #[must_use]
    pub fn list(&mut self, message: &Message, first: bool, stateless: bool) -> Listed {
        let raw = message.raw();
        let Some(tools) = message.result_member("tools") else {
            return Listed {
                raw: raw.clone(),
                hidden: Vec::new(),
            };
        };
        if first {
            self.listed.clear();
        }
        let tools = raw.slice_ref(tools);
        let mut parts = Vec::new();
        json::elements(&tools, &(0..tools.len()), |span| parts.push(span));
        let mut hidden = Vec::new();
        let mut kept: Vec<Span> = Vec::new();
        let all = parts.len();
        for part in parts {
            match self.tool(&tools, &part, stateless) {
                Ok(()) => kept.push(part),
                Err(tool) => hidden.push(tool),
            }
        }
        if message
            .result_member("nextCursor")
            .is_none_or(|cursor| cursor == b"null")
        {
            self.forget_unlisted();
        }
        if kept.len() == all {
            return Listed {
                raw: raw.clone(),
                hidden,
            };
        }
        let start = tools.as_ptr() as usize - raw.as_ptr() as usize;
        Listed {
            raw: without(raw, start, &tools, &kept),
            hidden,
        }
    }

    /// Takes one tool, or says why not.
    fn tool(&mut self, tools: &[u8], span: &Span, stateless: bool) -> Result<(), Hidden> {
        let Some(name) =
            json::member(tools, span, "name").and_then(|name| json::decoded(&tools[name]))
        else {
            return Ok(()); // The host is the one to judge what has no name.
        };
        if self.ignored(&name) {
            return Err(Hidden {
                name: name.into_owned(),
                why: Why::Ignored,
            });
        }
        if !stateless {
            return Ok(());
        }
        let schema = json::member(tools, span, "inputSchema");
        let mirrors = schema.map_or(Ok(Vec::new()), |schema| schema::mirrors(&tools[schema]));
        let name = name.into_owned();
        self.forget(&name);
        match mirrors {
            Ok(mirrors) => {
                self.remember(name, mirrors);
                Ok(())
            }
            Err(why) => Err(Hidden {
                name,
                why: why.into(),
            }),
        }
    }

    fn remember(&mut self, name: String, mirrors: Vec<Mirror>) {
        let full = |tools: &Self| {
            tools.mirrors.len() >= MAX_TOOLS || tools.count + mirrors.len() > MAX_MIRRORS
        };
        if full(self) && self.listed.len() < self.mirrors.len() {
            // What an older list said makes room for what this one says.
            self.forget_unlisted();
        }
        if mirrors.is_empty() || full(self) {
            return;
        }
        self.count += mirrors.len();
        self.listed.insert(name.clone());
        self.mirrors.insert(name, mirrors);
    }

    fn forget(&mut self, name: &str) {
        if let Some(mirrors) = self.mirrors.remove(name) {
            self.count -= mirrors.len();
        }
    }

    /// Forgets what a whole list did not name.
    fn forget_unlisted(&mut self) {
        let listed = std::mem::take(&mut self.listed);
        let gone: Vec<_> = self
            .mirrors
            .keys()
            .filter(|name| !listed.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            self.forget(&name);
        }
        self.listed = listed;
    }
}

/// Takes out elements of an array: the kept ones with the text between them that was theirs.
fn without(raw: &Bytes, start: usize, tools: &[u8], kept: &[Span]) -> Bytes {
    let mut text = Vec::with_capacity(raw.len());
    text.extend_from_slice(&raw[..start]);
    text.push(b'[');
    for (at, span) in kept.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&tools[span.clone()]);
    }
    text.push(b']');
    text.extend_from_slice(&raw[start + tools.len()..]);
    text.into()
}

/// Says whether a pattern fits a name. Linear but for the product of both lengths; no back-tracking beyond the last `*`.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(char) if *char == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|char| *char == '*')
}

/// The request for a list that the bridge asks itself, when a server says that headers do not fit (TR-09).
#[must_use]
pub(crate) fn refresh(id: &str, meta: &[(&'static str, Vec<u8>)], cursor: Option<&[u8]>) -> Bytes {
    let mut text =
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list","params":{{"#).into_bytes();
    if let Some(cursor) = cursor {
        text.extend_from_slice(b"\"cursor\":");
        text.extend_from_slice(cursor);
        text.push(b',');
    }
    text.extend_from_slice(b"\"_meta\":");
    text.extend(crate::message::object(meta.to_vec()));
    text.extend_from_slice(b"}}");
    text.into()
}

#[cfg(test)]
mod tests;
