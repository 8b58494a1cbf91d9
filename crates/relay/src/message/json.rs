//! Where the parts of a JSON text lie: a strict reader (RFC 8259) that decodes nothing and remembers positions.
//!
//! It goes over each byte once, keeps one bit for each open bracket, and has a limit on how many may be open. So a
//! text of brackets costs no more than any other, and no stack.

use std::borrow::Cow;
use std::ops::Range;

use super::Malformed;

/// Where a value lies in its text.
pub(crate) type Span = Range<usize>;

/// How many brackets may be open at once. What people send has about ten; a reader that recurses breaks at some thousands.
pub(crate) const MAX_DEPTH: usize = 512;

/// A member's name, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// With its quotes.
    pub(crate) span: Span,
    /// Whether it has escapes, and so has to be decoded before it is compared.
    escaped: bool,
}

impl Key {
    /// Says whether the name is this one. Escapes are decoded: `"na\u006de"` is `name` to whoever reads it next.
    pub(crate) fn is(&self, text: &[u8], name: &str) -> bool {
        let inner = &text[self.span.start + 1..self.span.end - 1];
        if self.escaped {
            decoded(&text[self.span.clone()]).is_some_and(|found| found == name)
        } else {
            inner == name.as_bytes()
        }
    }
}

/// A place in a text that is known to be UTF-8.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at a place of a text.
    pub(crate) fn at(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// Skips white space and says which byte comes next.
    pub(crate) fn next(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Asserts that nothing but white space is left.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        match self.next() {
            None => Ok(()),
            Some(_) => Err(self.broken()),
        }
    }

    /// Reads an object, and hands each name to `each`, which has to read the value.
    pub(crate) fn object(
        &mut self,
        each: &mut dyn FnMut(&mut Self, Key) -> Result<(), Malformed>,
    ) -> Result<Span, Malformed> {
        self.expect(b'{')?;
        let start = self.at - 1;
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(start..self.at);
        }
        loop {
            let key = self.name()?;
            each(self, key)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(start..self.at);
                }
                _ => return Err(self.broken()),
            }
        }
    }

    /// Reads an array, and hands where each element lies to `each`.
    pub(crate) fn array(
        &mut self,
        each: &mut dyn FnMut(Span) -> Result<(), Malformed>,
    ) -> Result<Span, Malformed> {
        self.expect(b'[')?;
        let start = self.at - 1;
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(start..self.at);
        }
        loop {
            each(self.value()?)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(start..self.at);
                }
                _ => return Err(self.broken()),
            }
        }
    }

    /// Reads one value of any kind.
    pub(crate) fn value(&mut self) -> Result<Span, Malformed> {
        self.next();
        let start = self.at;
        let mut open = Open::default();
        loop {
            match self.next() {
                Some(b'{') => {
                    self.at += 1;
                    if self.next() != Some(b'}') {
                        open.push(true)
                            .map_err(|()| Malformed::TooDeep { at: self.at })?;
                        self.name()?;
                        continue;
                    }
                    self.at += 1;
                }
                Some(b'[') => {
                    self.at += 1;
                    if self.next() != Some(b']') {
                        open.push(false)
                            .map_err(|()| Malformed::TooDeep { at: self.at })?;
                        continue;
                    }
                    self.at += 1;
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => return Err(self.broken()),
            }
            loop {
                let Some(object) = open.top() else {
                    return Ok(start..self.at);
                };
                match self.next() {
                    Some(b',') => {
                        self.at += 1;
                        if object {
                            self.name()?;
                        }
                        break;
                    }
                    Some(b'}') if object => self.at += 1,
                    Some(b']') if !object => self.at += 1,
                    _ => return Err(self.broken()),
                }
                open.pop();
            }
        }
    }

    /// Reads a member's name and its colon.
    fn name(&mut self) -> Result<Key, Malformed> {
        if self.next() != Some(b'"') {
            return Err(self.broken());
        }
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    fn string(&mut self) -> Result<Key, Malformed> {
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            self.plain();
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Key {
                        span: start..self.at,
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.broken()),
            }
        }
    }

    /// Goes over what needs no look, eight bytes at a time.
    fn plain(&mut self) {
        const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
        const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
        const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
        const SLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
        let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        while let Some(Ok(eight)) = self.text.get(self.at..self.at + 8).map(<[u8; 8]>::try_from) {
            let word = u64::from_ne_bytes(eight);
            let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
            if zero(word ^ QUOTES) | zero(word ^ SLASHES) | control != 0 {
                break;
            }
            self.at += 8;
        }
        while self
            .text
            .get(self.at)
            .is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f))
        {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let digits = self
                    .text
                    .get(self.at + 2..self.at + 6)
                    .ok_or_else(|| self.broken())?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(self.broken());
                }
                self.at += 6;
                Ok(())
            }
            _ => Err(self.broken()),
        }
    }

    fn number(&mut self) -> Result<(), Malformed> {
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.broken())
        } else {
            Ok(())
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Malformed> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.broken())
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.next() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.broken())
        }
    }

    fn broken(&self) -> Malformed {
        Malformed::NotJson { at: self.at }
    }
}

/// The open brackets, a bit each: set for an object.
#[derive(Default)]
struct Open {
    bits: [u64; MAX_DEPTH / 64],
    depth: usize,
}

impl Open {
    fn push(&mut self, object: bool) -> Result<(), ()> {
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        let word = self.bits.get_mut(word).ok_or(())?;
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        Ok(())
    }

    fn top(&self) -> Option<bool> {
        let at = self.depth.checked_sub(1)?;
        Some(self.bits[at / 64] & (1 << (at % 64)) != 0)
    }

    fn pop(&mut self) {
        self.depth -= 1;
    }
}

/// Decodes a string that is written with its quotes. None for what is no string, or has a surrogate without its other half:
/// such a text is legal JSON that no `str` can hold.
pub(crate) fn decoded(raw: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(raw).ok()?;
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(text).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Writes a string as JSON, with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Each member of the object at a place of a text that has been read before; nothing if there is no object.
pub(crate) fn members(text: &[u8], span: &Span, mut each: impl FnMut(Key, Span)) {
    if text.get(span.start) == Some(&b'{') {
        let found = Cursor::at(text, span.start).object(&mut |cursor, key| {
            let value = cursor.value()?;
            each(key, value);
            Ok(())
        });
        debug_assert!(
            found.is_ok_and(|found| found == *span),
            "the text has been read before"
        );
    }
}

/// Each element of the array at a place of a text that has been read before; nothing if there is no array.
pub(crate) fn elements(text: &[u8], span: &Span, mut each: impl FnMut(Span)) {
    if text.get(span.start) == Some(&b'[') {
        let found = Cursor::at(text, span.start).array(&mut |value| {
            each(value);
            Ok(())
        });
        debug_assert!(
            found.is_ok_and(|found| found == *span),
            "the text has been read before"
        );
    }
}

/// Where the member of this name lies in the object at a place of a text; of several the last, as most readers take it.
pub(crate) fn member(text: &[u8], span: &Span, name: &str) -> Option<Span> {
    let mut found = None;
    members(text, span, |key, value| {
        if key.is(text, name) {
            found = Some(value);
        }
    });
    found
}
