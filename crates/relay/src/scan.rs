//! What has to be known of a message, read while it passes: the top level of a JSON text, in pieces of any size.
//!
//! Nothing is kept but the `id`, the `method` and which members there are; nothing is decoded or checked beyond what that
//! takes. A message that is cut off is told from a whole one.

use memchr::memchr2;

use crate::message;

/// Reads a message in pieces.
#[derive(Debug)]
pub struct Scan {
    at: At,
    depth: u32,
    key: Vec<u8>,
    field: Field,
    id: Captured,
    method: Captured,
    has: Has,
    batch: bool,
    bytes: u64,
}

/// What a message says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peek {
    /// What it is.
    pub kind: Kind,
    /// The `id` as it is written.
    pub id: Option<Id>,
    /// The `method`; empty where there is none.
    pub method: String,
    /// Whether it is one whole JSON text and nothing else.
    pub whole: bool,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A method and an id.
    Request,
    /// A method and no id.
    Notification,
    /// A result or an error.
    Response,
    /// Several messages (2025-03-26).
    Batch,
    /// Anything else.
    Unknown,
}

/// A JSON-RPC id, as it is written: `1`, `1.0` and `"1"` are three.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Id(Box<str>);

impl Id {
    /// Takes an id as it is written.
    #[must_use]
    pub fn new(raw: &str) -> Self {
        Self(raw.into())
    }

    /// The id, as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it says, one way of writing for each meaning.
    pub(crate) fn meaning(&self) -> String {
        match message::Id::of_value(self.0.as_bytes()) {
            Some(id) => id.meaning(),
            None => self.0.to_string(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nothing but white space came so far.
    Start,
    /// Before the name of a member, or the end of the object.
    Name,
    InName {
        escaped: bool,
    },
    Colon,
    /// In a value of the top level, outside strings.
    Value,
    InString {
        escaped: bool,
    },
    /// The text is over.
    Done,
    /// It is no object and no array, or something follows it.
    Odd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Method,
    Other,
}

#[derive(Debug, Clone, Copy, Default)]
struct Has {
    id: bool,
    method: bool,
    answer: bool,
}

/// The text of a value, if it is short enough to be one of ours.
#[derive(Debug, Default)]
struct Captured {
    text: Vec<u8>,
    too_long: bool,
}

impl Captured {
    fn put(&mut self, bytes: &[u8]) {
        if self.text.len() + bytes.len() > LONGEST {
            self.too_long = true;
        } else {
            self.text.extend_from_slice(bytes);
        }
    }

    fn as_str(&self) -> Option<&str> {
        if self.too_long {
            return None;
        }
        Some(std::str::from_utf8(&self.text).ok()?.trim_ascii())
    }
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            at: At::Start,
            depth: 0,
            key: Vec::new(),
            field: Field::Other,
            id: Captured::default(),
            method: Captured::default(),
            has: Has::default(),
            batch: false,
            bytes: 0,
        }
    }
}

impl Scan {
    /// Reads a whole message.
    #[must_use]
    pub fn of(message: &[u8]) -> Peek {
        let mut scan = Self::default();
        scan.feed(message);
        scan.end()
    }

    /// How much has come so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        let mut rest = piece;
        while !rest.is_empty() {
            let used = self.step(rest);
            rest = &rest[used..];
        }
    }

    /// Tells what it was.
    #[must_use]
    pub fn end(&self) -> Peek {
        let method = self.method.as_str().filter(|_| self.has.method);
        let method = method.and_then(|text| serde_json::from_str::<String>(text).ok());
        let id = self.id.as_str().filter(|_| self.has.id).map(Id::new);
        let kind = match () {
            () if self.batch => Kind::Batch,
            () if method.is_some() && self.has.id => Kind::Request,
            () if method.is_some() => Kind::Notification,
            () if self.has.answer => Kind::Response,
            () => Kind::Unknown,
        };
        Peek {
            kind,
            id,
            method: method.unwrap_or_default(),
            whole: self.at == At::Done,
        }
    }

    /// Reads a part of what is left, at least a byte; tells how much.
    fn step(&mut self, rest: &[u8]) -> usize {
        let first = rest[0];
        match self.at {
            At::Start | At::Done | At::Odd if first.is_ascii_whitespace() => 1,
            At::Start => {
                self.batch = first == b'[';
                self.depth = 1;
                self.at = match first {
                    b'{' => At::Name,
                    b'[' => At::Value,
                    _ => At::Odd,
                };
                1
            }
            At::Done | At::Odd => {
                self.at = At::Odd;
                rest.len()
            }
            At::Name => {
                match first {
                    b'"' => {
                        self.key.clear();
                        self.at = At::InName { escaped: false };
                    }
                    b'}' => self.at = At::Done,
                    _ => {}
                }
                1
            }
            At::InName { escaped } => {
                self.at = match first {
                    b'"' if !escaped => At::Colon,
                    _ => At::InName {
                        escaped: first == b'\\' && !escaped,
                    },
                };
                if self.key.len() < LONGEST_NAME {
                    self.key.push(first);
                }
                1
            }
            At::Colon => {
                if first == b':' {
                    self.begin_value();
                }
                1
            }
            At::Value => self.value(rest),
            At::InString { escaped } => self.string(rest, escaped),
        }
    }

    /// The last of several members with one name counts, as it does for most readers.
    fn begin_value(&mut self) {
        self.at = At::Value;
        self.field = match self.key.as_slice() {
            b"id\"" => {
                self.id = Captured::default();
                self.has.id = true;
                Field::Id
            }
            b"method\"" => {
                self.method = Captured::default();
                self.has.method = true;
                Field::Method
            }
            b"result\"" | b"error\"" => {
                self.has.answer = true;
                Field::Other
            }
            _ => Field::Other,
        };
    }

    fn capture(&mut self, bytes: &[u8]) {
        match self.field {
            Field::Id => self.id.put(bytes),
            Field::Method => self.method.put(bytes),
            Field::Other => {}
        }
    }

    fn value(&mut self, rest: &[u8]) -> usize {
        let top = |depth| depth == 1;
        for (used, &byte) in rest.iter().enumerate() {
            match byte {
                b',' if top(self.depth) && !self.batch => {
                    self.capture(&rest[..used]);
                    self.at = At::Name;
                    return used + 1;
                }
                b'}' | b']' => {
                    if top(self.depth) {
                        self.capture(&rest[..used]);
                        let matches = (byte == b']') == self.batch;
                        self.at = if matches { At::Done } else { At::Odd };
                        return used + 1;
                    }
                    self.depth -= 1;
                }
                b'{' | b'[' => match self.depth.checked_add(1) {
                    Some(depth) => self.depth = depth,
                    None => {
                        self.at = At::Odd;
                        return rest.len();
                    }
                },
                b'"' => {
                    self.capture(&rest[..=used]);
                    self.at = At::InString { escaped: false };
                    return used + 1;
                }
                _ => {}
            }
        }
        self.capture(rest);
        rest.len()
    }

    fn string(&mut self, rest: &[u8], escaped: bool) -> usize {
        let (used, next) = if escaped {
            (1, At::InString { escaped: false })
        } else {
            match memchr2(b'"', b'\\', rest) {
                Some(at) if rest[at] == b'"' => (at + 1, At::Value),
                Some(at) => (at + 1, At::InString { escaped: true }),
                None => (rest.len(), self.at),
            }
        };
        self.capture(&rest[..used]);
        self.at = next;
        used
    }
}

/// Whether a piece of a message has bytes that would end the line it is written on.
#[must_use]
pub fn breaks_line(piece: &[u8]) -> bool {
    memchr2(b'\n', b'\r', piece).is_some()
}

/// Longer is no id of ours and no method of MCP.
const LONGEST: usize = 1024;
const LONGEST_NAME: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> Option<Id> {
        Some(Id::new(text))
    }

    /// The id stays as it is written, wherever it stands, and what lies deeper is not taken for the top.
    #[test]
    fn the_top_level_is_read_and_nothing_else() {
        let peek = Scan::of(
            br#" {"params":{"id":9,"method":"no","x":"}\"]"},"id": 1.0 ,"method":"tools\/call"} "#,
        );
        assert_eq!(peek.kind, Kind::Request);
        assert_eq!((peek.id, peek.method.as_str()), (id("1.0"), "tools/call"));
        assert!(peek.whole);
        let peek = Scan::of(br#"{"result":{"a":[1,{"b":[]}]},"id":"a,\"}","jsonrpc":"2.0"}"#);
        assert_eq!((peek.kind, peek.id), (Kind::Response, id(r#""a,\"}""#)));
        let peek = Scan::of(br#"{"method":"notifications/initialized"}"#);
        assert_eq!((peek.kind, peek.id), (Kind::Notification, None));
        let peek = Scan::of(br#"{"id":null,"error":{"code":-1}}"#);
        assert_eq!((peek.kind, peek.id), (Kind::Response, id("null")));
        assert_eq!(Scan::of(br#"[{"id":1},{"id":2}]"#).kind, Kind::Batch);
        assert_eq!(Scan::of(b"7").kind, Kind::Unknown);
    }

    /// A text that is cut off, or followed by another, is not whole.
    #[test]
    fn what_is_cut_off_is_not_whole() {
        let text =
            br#"{"jsonrpc":"2.0","id":18446744073709551616,"result":{"t":"a\\\"b","n":[1,[2]]}}"#;
        assert!(Scan::of(text).whole);
        for end in 0..text.len() {
            assert!(!Scan::of(&text[..end]).whole, "cut at {end}");
        }
        assert!(!Scan::of(b"{} {}").whole);
        assert!(!Scan::of(b"{]").whole);
        assert!(
            !Scan::of(&[b'['; 100_000]).whole,
            "a depth bomb is no trouble"
        );
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "\\PC*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map("[a-z\"\\\\]{0,4}", inner, 0..5)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        /// However a message is cut into pieces, what is read of it is what a JSON reader finds.
        #[test]
        fn pieces_do_not_matter(result in json(), number in any::<u64>(), cuts in prop::collection::vec(1_usize..40, 1..20)) {
            let text = serde_json::json!({ "a": result, "id": number, "result": result }).to_string();
            let mut scan = Scan::default();
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let cut = (*cuts.next().unwrap()).min(rest.len());
                scan.feed(&rest[..cut]);
                rest = &rest[cut..];
            }
            prop_assert_eq!(scan.end(), Peek { kind: Kind::Response, id: id(&number.to_string()), method: String::new(), whole: true });
        }

        /// Nothing makes it panic.
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Scan::of(&bytes);
        }
    }
}
