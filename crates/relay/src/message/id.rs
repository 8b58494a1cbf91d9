//! A JSON-RPC id.

use std::hash::{Hash, Hasher};

use super::{Malformed, json};

/// An id, as it is written. `1`, `1.0` and `"1"` are written differently, and each goes back the way it came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(Box<str>);

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Id {
    /// An id of a text: of ours, for what the bridge asks itself.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self(json::quoted(text).into())
    }

    /// The id, as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether two ids name the same request. A peer that has read `1.0` or `"\u0061"` may write `1` or `"a"`.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self == other || self.meaning() == other.meaning()
    }

    /// What the id says, one way of writing for each meaning: what a table is keyed by.
    #[must_use]
    pub fn meaning(&self) -> String {
        if self.0.starts_with('"') {
            return match json::decoded(self.0.as_bytes()) {
                Some(text) => format!("\"{text}"),
                None => self.0.to_string(),
            };
        }
        if let Ok(whole) = self.0.parse::<i128>() {
            return whole.to_string();
        }
        match self.0.parse::<f64>() {
            Ok(number) if number.is_finite() => number.to_string(),
            _ => self.0.to_string(),
        }
    }

    /// Reads an id from a value; none for `null`.
    pub(super) fn read(raw: &[u8]) -> Result<Option<Self>, Malformed> {
        match raw.first() {
            Some(b'"' | b'-' | b'0'..=b'9') => {
                let text = std::str::from_utf8(raw).map_err(|_| Malformed::Id)?;
                Ok(Some(Self(text.into())))
            }
            Some(b'n') => Ok(None),
            _ => Err(Malformed::Id),
        }
    }

    /// Reads an id from any value; none for what is no id.
    pub(crate) fn of_value(raw: &[u8]) -> Option<Self> {
        Self::read(raw).ok().flatten()
    }
}
