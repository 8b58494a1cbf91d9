//! Server-sent events (WHATWG HTML, section 9.2), read in pieces: the data of an event is handed on as it arrives.
//!
//! Line ends may be CR, LF or CRLF and a byte order mark may come first. Of the fields only `data` may be long; the others are
//! cut off at [`LONGEST_FIELD`]. Comments and unknown fields are skipped.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use memchr::memchr2;

/// Reads a stream of events.
#[derive(Debug)]
pub struct Events {
    at: At,
    name: Vec<u8>,
    value: Vec<u8>,
    /// Whether the last byte was a CR: a LF after it belongs to it.
    after_cr: bool,
    has_data: bool,
    event: String,
    last_id: Option<String>,
    id: Option<String>,
    ready: VecDeque<Part>,
    /// How many bytes of a byte order mark have come.
    mark: usize,
}

/// A part of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Data. The line end between two `data` fields is handed on as one of its own.
    Data(Bytes),
    /// The event is over. Without data before it none is told.
    End(Event),
    /// How long to wait before a stream is opened again.
    Retry(Duration),
}

/// What is known of an event at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its type; empty for `message`.
    pub event: String,
    /// The last id of the stream so far.
    pub id: Option<String>,
    /// Whether it has data.
    pub has_data: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Mark,
    Name,
    /// After the colon: one space is left out.
    Space,
    Data,
    Value,
    Skip,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            at: At::Mark,
            name: Vec::new(),
            value: Vec::new(),
            after_cr: false,
            has_data: false,
            event: String::new(),
            last_id: None,
            id: None,
            ready: VecDeque::new(),
            mark: 0,
        }
    }
}

impl Events {
    /// Goes on with a stream that broke off after an event.
    #[must_use]
    pub fn after(last_id: &str) -> Self {
        Self {
            last_id: Some(last_id.to_owned()),
            ..Self::default()
        }
    }

    /// The id of the last event that ended.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The next part that is known.
    pub fn part(&mut self) -> Option<Part> {
        self.ready.pop_front()
    }

    /// Reads the next piece of the stream; take all parts with [`Events::part`] before the next call.
    pub fn feed(&mut self, mut piece: Bytes) {
        while !piece.is_empty() {
            let used = self.step(&piece);
            let _ = piece.split_to(used);
        }
    }

    fn step(&mut self, rest: &Bytes) -> usize {
        let first = rest[0];
        if std::mem::take(&mut self.after_cr) && first == b'\n' {
            return 1;
        }
        if self.at == At::Mark {
            if self.mark < MARK.len() && first == MARK[self.mark] {
                self.mark += 1;
                return 1;
            }
            self.at = At::Name;
            // What began like a mark and is none was part of a name that nobody knows.
            self.name.extend_from_slice(match self.mark {
                3 => b"",
                begun => &MARK[..begun],
            });
        }
        match self.at {
            At::Mark | At::Name => self.name(first),
            At::Space => {
                self.at = match self.name.as_slice() {
                    b"data" => self.begin_data(),
                    b"event" | b"id" | b"retry" => At::Value,
                    _ => At::Skip,
                };
                usize::from(first == b' ')
            }
            At::Data | At::Value | At::Skip => self.value(rest),
        }
    }

    fn name(&mut self, first: u8) -> usize {
        match first {
            b'\n' | b'\r' if self.name.is_empty() => self.end_event(),
            b'\n' | b'\r' => {
                // A field without a colon has an empty value.
                if self.name == b"data" {
                    self.at = self.begin_data();
                }
                self.end_field();
            }
            b':' => {
                self.at = At::Space;
                return 1;
            }
            _ => {
                if self.name.len() < LONGEST_NAME {
                    self.name.push(first);
                }
                return 1;
            }
        }
        self.after_cr = first == b'\r';
        1
    }

    fn begin_data(&mut self) -> At {
        if self.has_data {
            self.ready.push_back(Part::Data(Bytes::from_static(b"\n")));
        }
        self.has_data = true;
        At::Data
    }

    fn value(&mut self, rest: &Bytes) -> usize {
        let end = memchr2(b'\n', b'\r', rest);
        let text = rest.slice(..end.unwrap_or(rest.len()));
        match self.at {
            At::Data if !text.is_empty() => self.ready.push_back(Part::Data(text)),
            At::Value => {
                let left = LONGEST_FIELD.saturating_sub(self.value.len());
                self.value.extend_from_slice(&text[..text.len().min(left)]);
            }
            _ => {}
        }
        let Some(end) = end else {
            return rest.len();
        };
        self.end_field();
        self.after_cr = rest[end] == b'\r';
        end + 1
    }

    fn end_field(&mut self) {
        let value = std::mem::take(&mut self.value);
        match self.name.as_slice() {
            b"event" => self.event = String::from_utf8_lossy(&value).into_owned(),
            // One that was cut off, or has a NUL, names nothing.
            b"id" if value.len() < LONGEST_FIELD && !value.contains(&0) => {
                self.id = Some(String::from_utf8_lossy(&value).into_owned());
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let text = String::from_utf8_lossy(&value);
                let pause = Duration::from_millis(text.parse().unwrap_or(u64::MAX));
                self.ready.push_back(Part::Retry(pause));
            }
            _ => {}
        }
        self.name.clear();
        self.at = At::Name;
    }

    fn end_event(&mut self) {
        // The id counts although the event has no data: servers prime streams so (SEP-1699).
        if let Some(id) = self.id.take() {
            self.last_id = Some(id).filter(|id| !id.is_empty());
        }
        let event = std::mem::take(&mut self.event);
        let has_data = std::mem::take(&mut self.has_data);
        if has_data {
            self.ready.push_back(Part::End(Event {
                event,
                id: self.last_id.clone(),
                has_data,
            }));
        }
    }
}

/// Longer values of `id`, `event` and `retry` are cut off.
pub const LONGEST_FIELD: usize = 4096;
const LONGEST_NAME: usize = 16;
const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The whole events of a stream, with what they carry.
    fn read(text: &[u8], cut: usize) -> (Vec<(String, String)>, Option<String>, Vec<Duration>) {
        let mut events = Events::default();
        let (mut all, mut data, mut retries) = (Vec::new(), Vec::new(), Vec::new());
        for piece in text.chunks(cut) {
            events.feed(Bytes::copy_from_slice(piece));
            while let Some(part) = events.part() {
                match part {
                    Part::Data(bytes) => data.extend_from_slice(&bytes),
                    Part::End(event) => {
                        let text = String::from_utf8(std::mem::take(&mut data)).unwrap();
                        all.push((event.event, text));
                    }
                    Part::Retry(pause) => retries.push(pause),
                }
            }
        }
        (all, events.last_id().map(str::to_owned), retries)
    }

    fn event(kind: &str, data: &str) -> (String, String) {
        (kind.to_owned(), data.to_owned())
    }

    /// TR-02, TR-12, TR-35: every line end, comments, marks, fields in any order, in pieces of any size.
    #[test]
    fn a_stream_reads_the_same_in_pieces_of_any_size() {
        let text = "\u{feff}: hello\r\nid: 7\revent: message\ndata: {\"a\":\ndata:1}\r\n\r\nretry: 1500\nunknown: x\n\ndata\n\n\
                    id:8\ndata:  two spaces\nevent: endpoint\n\nid: 9\n\ndata: not ended\n";
        let wanted = vec![
            event("message", "{\"a\":\n1}"),
            event("", ""),
            event("endpoint", " two spaces"),
        ];
        for cut in 1..text.len() {
            let (all, last, retries) = read(text.as_bytes(), cut);
            assert_eq!(all, wanted, "in pieces of {cut}");
            assert_eq!(last.as_deref(), Some("9"));
            assert_eq!(retries, [Duration::from_millis(1500)]);
        }
    }

    /// T-33: fields other than data are bounded; an id that was cut off is not sent back as if it were one.
    #[test]
    fn long_fields_are_not_kept() {
        let text = format!(
            "id: 1\n\nid: {0}\nevent: {0}\ndata: x\n\n",
            "i".repeat(100_000)
        );
        let (all, last, _) = read(text.as_bytes(), 1000);
        assert_eq!(all[0].0.len(), LONGEST_FIELD);
        assert_eq!(last.as_deref(), Some("1"));
        let (_, last, _) = read(b"id: a\0b\ndata: x\n\nid: 3\n\nid\n\n", 3);
        assert_eq!(last, None, "an empty id takes the last one back");
    }

    /// The data of a long event comes before its end.
    #[test]
    fn data_is_handed_on_as_it_arrives() {
        let mut events = Events::default();
        events.feed(Bytes::from_static(b"data: abc"));
        assert_eq!(events.part(), Some(Part::Data(Bytes::from_static(b"abc"))));
        events.feed(Bytes::from_static(b"def"));
        assert_eq!(events.part(), Some(Part::Data(Bytes::from_static(b"def"))));
        assert_eq!(events.part(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 1_usize..50) {
            let mut events = Events::default();
            for piece in bytes.chunks(cut) {
                events.feed(Bytes::copy_from_slice(piece));
                while events.part().is_some() {}
            }
        }

        /// What is written as events is read as the same events.
        #[test]
        fn what_was_written_is_read(lines in prop::collection::vec("[a-z{}:, ]{0,20}", 1..6), cut in 1_usize..20) {
            let text: String = lines.iter().map(|line| format!("data: {line}\r\n")).collect();
            let (all, ..) = read(format!("{text}\r\n").as_bytes(), cut);
            prop_assert_eq!(all, vec![event("", &lines.join("\n"))]);
        }
    }
}
