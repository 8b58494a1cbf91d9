//! Any stream of events: in pieces of any size it reads the same, and as a reader does that has all of it before it.
//!
//! The first byte says how it is cut.

use std::time::Duration;

use bytes::Bytes;

use super::super::subject::sse::{Events, LONGEST_FIELD, Part};

pub(crate) fn run(input: &[u8]) {
    let Some((size, text)) = input.split_first() else {
        return;
    };
    let whole = simply(text);
    for size in [text.len().max(1), 1, usize::from(*size) + 1] {
        assert_eq!(read(text, size), whole, "in pieces of {size}");
    }
}

/// What a stream tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    events: Vec<One>,
    last_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum One {
    Retry(Duration),
    Event {
        kind: String,
        data: Vec<u8>,
        id: Option<String>,
    },
}

fn read(text: &[u8], size: usize) -> Told {
    let (mut events, mut told, mut data) = (Events::default(), Told::default(), Vec::new());
    for piece in text.chunks(size) {
        events.feed(Bytes::copy_from_slice(piece));
        while let Some(part) = events.part() {
            match part {
                Part::Data(piece) => data.extend_from_slice(&piece),
                Part::Retry(pause) => told.events.push(One::Retry(pause)),
                Part::End(event) => {
                    assert!(event.has_data, "an event without data is none");
                    told.events.push(One::Event {
                        kind: event.event,
                        data: std::mem::take(&mut data),
                        id: event.id,
                    });
                }
            }
        }
    }
    told.last_id = events.last_id().map(str::to_owned);
    told
}

/// The same, line by line, as the standard says it.
fn simply(text: &[u8]) -> Told {
    let mut told = Told::default();
    let mut rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let (mut kind, mut data, mut id) = (String::new(), None::<Vec<u8>>, None::<String>);
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = &rest[..end];
        let both = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(both)..];
        if line.is_empty() {
            if let Some(id) = id.take() {
                told.last_id = Some(id).filter(|id| !id.is_empty());
            }
            let kind = std::mem::take(&mut kind);
            if let Some(data) = data.take() {
                let id = told.last_id.clone();
                told.events.push(One::Event { kind, data, id });
            }
            continue;
        }
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = halves.next().unwrap_or_default();
        let value = halves.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let kept = &value[..value.len().min(LONGEST_FIELD)];
        let text = String::from_utf8_lossy(kept).into_owned();
        match name {
            b"data" => match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            },
            b"event" => kind = text,
            b"id" if value.len() < LONGEST_FIELD && !value.contains(&0) => id = Some(text),
            b"retry" if !kept.is_empty() && kept.iter().all(u8::is_ascii_digit) => {
                let pause = Duration::from_millis(text.parse().unwrap_or(u64::MAX));
                told.events.push(One::Retry(pause));
            }
            _ => {}
        }
    }
    told
}
