//! Messages on stdio: one on each line, kept as the bytes that came.

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::scan::{Peek, Scan};

/// Reads the lines that a host writes. Its buffer grows with a line and is given back after it.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    looked: usize,
    /// The line that is too long, as far as it has come.
    skipped: Option<Scan>,
    limit: usize,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A line, without its end.
    Message(Bytes),
    /// A line that is longer than allowed: its bytes were not kept.
    TooLong(TooLong),
}

/// A line was longer than allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message of {length} bytes is longer than the limit of {limit} bytes")]
pub struct TooLong {
    /// How long it was.
    pub length: u64,
    /// How long it may be.
    pub limit: usize,
    /// What was read of it on the way.
    pub peek: Peek,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads lines of at most `limit` bytes.
    pub fn new(from: R, limit: usize) -> Self {
        Self {
            from,
            buffer: BytesMut::new(),
            looked: 0,
            skipped: None,
            limit,
        }
    }

    /// Gives the next line that is not empty; nothing at the end. A last line without an end counts.
    ///
    /// Cancel-safe: what was read stays in the buffer.
    ///
    /// # Errors
    /// Those of the reader.
    pub async fn next(&mut self) -> std::io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.buffered() {
                return Ok(Some(frame));
            }
            // A buffer that one long line has grown is not kept for the short ones that follow.
            if self.buffer.is_empty() && self.buffer.capacity() > USUAL {
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(READ);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(self.last());
            }
        }
    }

    /// A line that is in the buffer already.
    fn buffered(&mut self) -> Option<Frame> {
        loop {
            let end = memchr(b'\n', &self.buffer[self.looked..]).map(|at| self.looked + at);
            let Some(end) = end else {
                if self.buffer.len() > self.limit || self.skipped.is_some() {
                    self.skip_rest();
                }
                self.looked = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(end + 1).freeze();
            self.looked = 0;
            if let Some(frame) = self.line(line.slice(..end)) {
                return Some(frame);
            }
        }
    }

    fn line(&mut self, line: Bytes) -> Option<Frame> {
        if let Some(mut scan) = self.skipped.take() {
            scan.feed(&line);
            return Some(self.too_long(&scan));
        }
        if line.len() > self.limit {
            let mut scan = Scan::default();
            scan.feed(&line);
            return Some(self.too_long(&scan));
        }
        let line = trimmed(line);
        (!line.is_empty()).then_some(Frame::Message(line))
    }

    fn last(&mut self) -> Option<Frame> {
        self.looked = 0;
        let line = std::mem::take(&mut self.buffer).freeze();
        self.line(line)
    }

    /// Reads what there is of a line that is too long, and lets go of it.
    fn skip_rest(&mut self) {
        let scan = self.skipped.get_or_insert_default();
        scan.feed(&self.buffer);
        self.buffer = BytesMut::new();
    }

    fn too_long(&self, scan: &Scan) -> Frame {
        Frame::TooLong(TooLong {
            length: scan.bytes(),
            limit: self.limit,
            peek: scan.end(),
        })
    }
}

/// Without the white space around it, and without a byte order mark.
fn trimmed(line: Bytes) -> Bytes {
    let inner = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
    let inner = inner.trim_ascii();
    line.slice_ref(inner)
}

const READ: usize = 8 * 1024;
const USUAL: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Id, Kind};
    use proptest::prelude::*;

    async fn read(text: &[u8], limit: usize) -> Vec<Frame> {
        let mut reader = FrameReader::new(text, limit);
        let mut all = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            all.push(frame);
        }
        all
    }

    fn message(text: &str) -> Frame {
        Frame::Message(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_line_is_a_message_and_stays_as_it_is() {
        let text = "\u{feff}{\"id\": 1.0}\r\n\n  \n{\"a\":\"\\u0041\"}";
        assert_eq!(
            read(text.as_bytes(), 100).await,
            [message("{\"id\": 1.0}"), message("{\"a\":\"\\u0041\"}")]
        );
    }

    /// TR-20, T-33: a line that is too long is not kept, and its id is known all the same.
    #[tokio::test]
    async fn a_line_that_is_too_long_is_told_by_its_id() {
        let long = format!(
            r#"{{"params":"{}","id":"x","method":"m"}}"#,
            "y".repeat(100_000)
        );
        let text = format!("{long}\n{{}}\n");
        let frames = read(text.as_bytes(), 1000).await;
        let [Frame::TooLong(first), second] = frames.as_slice() else {
            panic!("{frames:?}");
        };
        assert_eq!((first.length, first.limit), (long.len() as u64, 1000));
        assert_eq!(first.peek.kind, Kind::Request);
        assert_eq!(first.peek.id, Some(Id::new("\"x\"")));
        assert_eq!(*second, message("{}"));
    }

    #[tokio::test]
    async fn the_buffer_of_a_long_line_is_given_back() {
        let text = format!("\"{}\"\n1\n", "y".repeat(1_000_000));
        let mut reader = FrameReader::new(text.as_bytes(), 2_000_000);
        assert!(
            matches!(reader.next().await.unwrap(), Some(Frame::Message(line)) if line.len() == 1_000_002)
        );
        assert_eq!(reader.next().await.unwrap(), Some(message("1")));
        assert_eq!(reader.next().await.unwrap(), None);
        assert!(reader.buffer.capacity() <= USUAL);
    }

    proptest! {
        /// However the bytes arrive, the lines are the same; none is longer than the limit.
        #[test]
        fn pieces_do_not_matter(lines in prop::collection::vec("[a-z\"{}]{0,30}", 0..10), limit in 5_usize..40) {
            let text = lines.join("\n");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let frames = runtime.block_on(read(text.as_bytes(), limit));
            let wanted = lines.iter().filter(|line| !line.trim().is_empty());
            for (frame, line) in frames.iter().zip(wanted.clone()) {
                match frame {
                    Frame::Message(bytes) => prop_assert_eq!(bytes, line.as_bytes()),
                    Frame::TooLong(long) => prop_assert_eq!(long.length, line.len() as u64),
                }
            }
            prop_assert_eq!(frames.len(), wanted.count());
        }
    }
}
