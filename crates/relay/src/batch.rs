//! Several messages in one JSON text, as 2025-03-26 allowed them and nobody else (TR-38).
//!
//! Whoever spoke of that version must be able to take them. The bridge takes them apart, and treats each message as if it
//! had come alone; the bytes of each stay what they were.

use bytes::Bytes;

use crate::message::{Malformed, json::Cursor};

/// How many messages a batch may have. Each costs a task and an entry in a table, which a text of `1,1,1` gets for two bytes.
pub const MAX: usize = 1024;

/// Says whether a text is a batch, by its first byte.
#[must_use]
pub fn is_batch(raw: &[u8]) -> bool {
    Cursor::at(raw, 0).next() == Some(b'[')
}

/// Takes a batch apart. The messages share the bytes of the batch; each has still to be read.
///
/// # Errors
/// [`Malformed`], also for a batch that is empty or has more than [`MAX`] messages.
pub fn split(raw: &Bytes) -> Result<Vec<Bytes>, Malformed> {
    std::str::from_utf8(raw).map_err(|error| Malformed::NotUtf8 {
        at: error.valid_up_to(),
    })?;
    if !is_batch(raw) {
        return Err(Malformed::NotAMessage);
    }
    let mut parts = Vec::new();
    let mut cursor = Cursor::at(raw, 0);
    cursor.array(&mut |span| {
        if parts.len() == MAX {
            return Err(Malformed::BatchSize { count: MAX + 1 });
        }
        parts.push(raw.slice(span));
        Ok(())
    })?;
    cursor.end()?;
    if parts.is_empty() {
        Err(Malformed::BatchSize { count: 0 })
    } else {
        Ok(parts)
    }
}

/// Puts messages together again: the answers to the requests of a batch.
#[must_use]
pub fn join(parts: &[Bytes]) -> Bytes {
    let mut text = vec![b'['];
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(part);
    }
    text.push(b']');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TR-38: a batch comes apart into its messages, byte for byte, and together again.
    #[test]
    fn a_batch_comes_apart_and_together() {
        let raw = Bytes::from_static(b" [ {\"id\":1.0,\"result\":{}} ,{\"method\":\"a,]\"},[1]]\n");
        let parts = split(&raw).unwrap();
        assert_eq!(
            parts,
            [
                &b"{\"id\":1.0,\"result\":{}}"[..],
                b"{\"method\":\"a,]\"}",
                b"[1]"
            ]
        );
        assert_eq!(split(&join(&parts)).unwrap(), parts);
    }

    /// TR-38: what is no batch, or an absurd one, is said to be so.
    #[test]
    fn empty_huge_and_broken_batches_are_refused() {
        assert_eq!(
            split(&Bytes::from_static(b"[ ]")),
            Err(Malformed::BatchSize { count: 0 })
        );
        assert_eq!(
            split(&Bytes::from_static(b"{}")),
            Err(Malformed::NotAMessage)
        );
        assert_eq!(
            split(&Bytes::from_static(b"[1,]")),
            Err(Malformed::NotJson { at: 3 })
        );
        assert_eq!(
            split(&Bytes::from_static(b"[1] 2")),
            Err(Malformed::NotJson { at: 4 })
        );
        assert_eq!(
            split(&Bytes::from_static(b"[\"\xff\"]")),
            Err(Malformed::NotUtf8 { at: 2 })
        );
        let huge = Bytes::from(format!("[{}1]", "1,".repeat(MAX)));
        assert_eq!(split(&huge), Err(Malformed::BatchSize { count: MAX + 1 }));
    }
}
