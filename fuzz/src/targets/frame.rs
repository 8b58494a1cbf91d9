//! Any bytes on stdin: in pieces of any size the lines are the same, and as a reader finds them that has all of it before it. What
//! is too long is not kept, and told by the same id.
//!
//! The first byte is the limit, the second says how the rest is cut.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::super::subject::{
    frame::{Frame, FrameReader, TooLong},
    scan::Scan,
};

pub(crate) fn run(input: &[u8]) {
    let [limit, size, text @ ..] = input else {
        return;
    };
    let limit = usize::from(*limit) + 1;
    let lines = simply(text, limit);
    for size in [text.len().max(1), 1, usize::from(*size) + 1] {
        assert_eq!(read(text, limit, size), lines, "in pieces of {size}");
    }
}

/// Gives a text in pieces.
struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = self.1.min(self.0.len()).min(buffer.remaining());
        let (piece, rest) = self.0.split_at(size);
        buffer.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

fn read(text: &[u8], limit: usize, size: usize) -> Vec<Frame> {
    let mut reader = FrameReader::new(Pieces(text, size), limit);
    let mut frames = Vec::new();
    loop {
        let next = pin!(reader.next());
        match next.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Some(frame))) => frames.push(frame),
            Poll::Ready(Ok(None)) => return frames,
            other => panic!("a reader that is always ready: {other:?}"),
        }
    }
}

fn simply(text: &[u8], limit: usize) -> Vec<Frame> {
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    let frames = lines.into_iter().filter_map(|line| {
        if line.len() > limit {
            return Some(Frame::TooLong(TooLong {
                length: line.len() as u64,
                limit,
                peek: Scan::of(line),
            }));
        }
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let line = line.trim_ascii();
        (!line.is_empty()).then(|| Frame::Message(Bytes::copy_from_slice(line)))
    });
    frames.collect()
}
