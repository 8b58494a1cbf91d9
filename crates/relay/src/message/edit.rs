//! Writes some places of a message anew, and copies the rest.

use bytes::Bytes;

use super::json::{self, Span};
use super::parts::Object;
use super::{Id, Message};

/// What is to be written anew. New members come first in their object; what was there keeps its place.
#[derive(Debug)]
#[must_use]
pub struct Edit<'a> {
    message: &'a Message,
    id: Option<Id>,
    code: Option<i64>,
    whole_params: Option<Vec<u8>>,
    params: Changes,
    meta: Changes,
    result: Changes,
}

#[derive(Debug, Default)]
struct Changes {
    set: Vec<(&'static str, Vec<u8>)>,
    remove: Vec<&'static str>,
}

impl Changes {
    fn none(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

impl<'a> Edit<'a> {
    pub(super) fn new(message: &'a Message) -> Self {
        Self {
            message,
            id: None,
            code: None,
            whole_params: None,
            params: Changes::default(),
            meta: Changes::default(),
            result: Changes::default(),
        }
    }

    /// Another id, put in or written over.
    pub fn id(mut self, id: &Id) -> Self {
        self.id = Some(id.clone());
        self
    }

    /// Another code for the error, where there is one.
    pub fn code(mut self, code: i64) -> Self {
        self.code = Some(code);
        self
    }

    /// Other `params`, all of them.
    pub fn params(mut self, raw: impl Into<Vec<u8>>) -> Self {
        self.whole_params = Some(raw.into());
        self
    }

    /// A member of `params`, put in or written over. The value is JSON.
    pub fn param(mut self, name: &'static str, raw: impl Into<Vec<u8>>) -> Self {
        self.params.set.push((name, raw.into()));
        self
    }

    /// A member of `params` less.
    pub fn without_param(mut self, name: &'static str) -> Self {
        self.params.remove.push(name);
        self
    }

    /// A member of `params._meta`, put in or written over. The value is JSON.
    pub fn meta(mut self, name: &'static str, raw: impl Into<Vec<u8>>) -> Self {
        self.meta.set.push((name, raw.into()));
        self
    }

    /// A member of `params._meta` less. A `_meta` that had nothing else goes with it.
    pub fn without_meta(mut self, name: &'static str) -> Self {
        self.meta.remove.push(name);
        self
    }

    /// A member of the result, put in or written over. The value is JSON.
    pub fn result(mut self, name: &'static str, raw: impl Into<Vec<u8>>) -> Self {
        self.result.set.push((name, raw.into()));
        self
    }

    /// Writes the message. `params` that is an array stays as it is: no member can be put into it.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        let raw = &self.message.raw;
        let mut edits = Vec::new();
        let mut top = Changes::default();
        if let Some(id) = self.id.take() {
            top.set.push(("id", id.as_str().as_bytes().to_vec()));
        }
        if let (Some(code), Some(member)) = (
            self.code,
            self.message
                .error
                .as_ref()
                .and_then(|error| error.member("code")),
        ) {
            edits.push((member.value.clone(), code.to_string().into_bytes()));
        }
        if let Some(result) = &self.message.result {
            edits.extend(within(raw, result, self.result));
        }
        if let Some(whole) = self.whole_params {
            top.set.push(("params", whole));
        } else if self.message.takes_params() {
            match &self.message.meta {
                _ if self.meta.none() => {}
                Some(meta)
                    if self.meta.set.is_empty()
                        && !removed(raw, meta, &self.meta.remove).is_empty()
                        && all_removed(raw, meta, &self.meta.remove) =>
                {
                    self.params.remove.push("_meta");
                }
                Some(meta) => edits.extend(within(raw, meta, self.meta)),
                None if self.meta.set.is_empty() => {}
                None => self.params.set.push(("_meta", object(self.meta.set))),
            }
            match &self.message.params {
                _ if self.params.none() => {}
                Some(params) => edits.extend(within(raw, params, self.params)),
                None if self.params.set.is_empty() => {}
                None => top.set.push(("params", object(self.params.set))),
            }
        }
        edits.extend(within(raw, &self.message.top, top));
        apply(raw, edits)
    }
}

/// The places to be written anew in one object.
fn within(raw: &[u8], object: &Object, changes: Changes) -> Vec<(Span, Vec<u8>)> {
    let cuts = removed(raw, object, &changes.remove);
    let empties = all_removed(raw, object, &changes.remove);
    let mut edits: Vec<_> = cuts.into_iter().map(|cut| (cut, Vec::new())).collect();
    let mut fresh = Vec::new();
    for (name, value) in changes.set {
        match object.member(name) {
            Some(member) => edits.push((member.value.clone(), value)),
            None => fresh.push((name, value)),
        }
    }
    if !fresh.is_empty() {
        let mut text = inner(fresh);
        if !empties {
            text.push(b',');
        }
        let at = object.span.start + 1;
        edits.push((at..at, text));
    }
    edits
}

/// The places that go with some members: neighbours as one, each with one comma.
pub(super) fn removed(raw: &[u8], object: &Object, names: &[&str]) -> Vec<Span> {
    let mut spans: Vec<Span> = names
        .iter()
        .filter_map(|name| object.member(name))
        .map(|member| member.key.start..member.value.end)
        .collect();
    spans.sort_by_key(|span| span.start);
    let mut runs: Vec<Span> = Vec::new();
    for span in spans {
        match runs.last_mut() {
            Some(run)
                if after(raw, run.end)
                    .is_some_and(|comma| after_white(raw, comma) == span.start) =>
            {
                run.end = span.end;
            }
            _ => runs.push(span),
        }
    }
    for run in &mut runs {
        if let Some(comma) = after(raw, run.end) {
            run.end = comma;
        } else if let Some(comma) = before(raw, run.start) {
            run.start = comma;
        }
    }
    runs
}

/// Says whether nothing is left of an object, or nothing was in it.
fn all_removed(raw: &[u8], object: &Object, names: &[&str]) -> bool {
    let start = after_white(raw, object.span.start + 1);
    if raw[start] == b'}' {
        return true;
    }
    let runs = removed(raw, object, names);
    matches!(&*runs, [run] if run.start == start && raw[after_white(raw, run.end)] == b'}')
}

/// The place behind the comma that follows, if one does.
fn after(raw: &[u8], at: usize) -> Option<usize> {
    let at = after_white(raw, at);
    (raw.get(at) == Some(&b',')).then_some(at + 1)
}

/// The place of the comma that comes before, if one does.
fn before(raw: &[u8], at: usize) -> Option<usize> {
    let at = raw[..at]
        .iter()
        .rposition(|byte| !byte.is_ascii_whitespace())?;
    (raw[at] == b',').then_some(at)
}

fn after_white(raw: &[u8], at: usize) -> usize {
    raw[at..]
        .iter()
        .position(|byte| !byte.is_ascii_whitespace())
        .map_or(raw.len(), |skip| at + skip)
}

/// An object of these members.
pub(crate) fn object(members: Vec<(&'static str, Vec<u8>)>) -> Vec<u8> {
    let mut text = vec![b'{'];
    text.extend(inner(members));
    text.push(b'}');
    text
}

fn inner(members: Vec<(&'static str, Vec<u8>)>) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in members {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend(json::quoted(name).into_bytes());
        text.push(b':');
        text.extend(value);
    }
    text
}

/// Copies a text with some places written anew. The places do not overlap.
pub(crate) fn apply(raw: &[u8], mut edits: Vec<(Span, Vec<u8>)>) -> Bytes {
    edits.sort_by_key(|(span, _)| (span.start, span.end));
    let grows: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut text = Vec::with_capacity(raw.len() + grows);
    let mut at = 0;
    for (span, fresh) in edits {
        text.extend_from_slice(&raw[at..span.start]);
        text.extend(fresh);
        at = span.end;
    }
    text.extend_from_slice(&raw[at..]);
    text.into()
}
