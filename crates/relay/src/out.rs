//! What goes to the host: whole lines, one message on each, and nothing else.
//!
//! There is no queue: who has a message writes it, and waits where the host does not read.

use std::{io, pin::Pin};

use bytes::BytesMut;
use memchr::memchr2_iter;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::{Mutex, MutexGuard, watch},
};

use crate::scan::breaks_line;

/// The host's end of the bridge.
pub struct Out {
    sink: Mutex<Sink>,
    closed: watch::Sender<bool>,
}

struct Sink {
    to: Pin<Box<dyn AsyncWrite + Send>>,
    /// Whether a line was begun and not ended.
    open: bool,
    /// Small messages are put together with their line end, for one write.
    scratch: BytesMut,
}

impl Out {
    /// Writes to a host.
    pub fn new(to: impl AsyncWrite + Send + 'static) -> Self {
        Self {
            sink: Mutex::new(Sink {
                to: Box::pin(to),
                open: false,
                scratch: BytesMut::new(),
            }),
            closed: watch::Sender::new(false),
        }
    }

    /// Writes a message on a line of its own.
    ///
    /// # Errors
    /// Those of the writer: nobody reads any more.
    pub async fn message(&self, message: &[u8]) -> io::Result<()> {
        let mut sink = self.sink.lock().await;
        let written = sink.message(message).await;
        self.noted(written)
    }

    /// Begins a message that is written in pieces; until it is ended nobody else writes.
    ///
    /// # Errors
    /// Those of the writer.
    pub async fn open(&self) -> io::Result<Line<'_>> {
        let mut sink = self.sink.lock().await;
        let begun = sink.begin().await;
        self.noted(begun)?;
        Ok(Line { out: self, sink })
    }

    /// Waits until the host is known to read no more.
    pub async fn closed(&self) {
        // The sender lives as long as this does.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn noted<T>(&self, written: io::Result<T>) -> io::Result<T> {
        if written.is_err() {
            self.closed.send_replace(true);
        }
        written
    }
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Out")
    }
}

/// A message that is being written. One that is dropped before its end breaks off: the next begins on a line of its own.
pub struct Line<'a> {
    out: &'a Out,
    sink: MutexGuard<'a, Sink>,
}

impl Line<'_> {
    /// Writes the next piece.
    ///
    /// # Errors
    /// Those of the writer.
    pub async fn piece(&mut self, piece: &[u8]) -> io::Result<()> {
        let written = self.sink.piece(piece).await;
        self.out.noted(written)
    }

    /// Ends the line.
    ///
    /// # Errors
    /// Those of the writer.
    pub async fn end(mut self) -> io::Result<()> {
        let ended = self.sink.end().await;
        self.out.noted(ended)
    }
}

impl std::fmt::Debug for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

impl Sink {
    async fn message(&mut self, message: &[u8]) -> io::Result<()> {
        if message.len() <= SMALL {
            self.scratch.clear();
            if self.open {
                self.scratch.extend_from_slice(b"\n");
            }
            put_in_line(&mut self.scratch, message);
            self.scratch.extend_from_slice(b"\n");
            self.open = true;
            self.to.write_all(&self.scratch).await?;
            self.open = false;
            return self.to.flush().await;
        }
        self.begin().await?;
        self.piece(message).await?;
        self.end().await
    }

    async fn begin(&mut self) -> io::Result<()> {
        if self.open {
            self.to.write_all(b"\n").await?;
        }
        self.open = true;
        Ok(())
    }

    async fn piece(&mut self, piece: &[u8]) -> io::Result<()> {
        if !breaks_line(piece) {
            return self.to.write_all(piece).await;
        }
        for part in piece.chunks(SMALL) {
            self.scratch.clear();
            put_in_line(&mut self.scratch, part);
            self.to.write_all(&self.scratch).await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> io::Result<()> {
        self.to.write_all(b"\n").await?;
        self.open = false;
        self.to.flush().await
    }
}

/// Between the tokens of a JSON text a line end means no more than a space does; inside of strings there is none.
fn put_in_line(line: &mut BytesMut, message: &[u8]) {
    let mut from = 0;
    for end in memchr2_iter(b'\n', b'\r', message) {
        line.extend_from_slice(&message[from..end]);
        line.extend_from_slice(b" ");
        from = end + 1;
    }
    line.extend_from_slice(&message[from..]);
}

const SMALL: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tokio::io::AsyncReadExt as _;

    fn bridge() -> (Arc<Out>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64);
        (Arc::new(Out::new(ours)), theirs)
    }

    async fn all(out: Arc<Out>, mut host: tokio::io::DuplexStream) -> String {
        drop(out);
        let mut text = String::new();
        host.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_message_is_one_line_whatever_its_line_ends() {
        let (out, host) = bridge();
        let writer = tokio::spawn({
            let out = out.clone();
            async move {
                out.message(b"{\n \"a\":\r\n1}").await.unwrap();
                let mut line = out.open().await.unwrap();
                line.piece(b"[1,\n").await.unwrap();
                line.piece(b"2]").await.unwrap();
                line.end().await.unwrap();
            }
        });
        writer.await.unwrap();
        assert_eq!(all(out, host).await, "{  \"a\":  1}\n[1, 2]\n");
    }

    #[tokio::test]
    async fn what_broke_off_does_not_spoil_what_follows() {
        let (out, host) = bridge();
        let mut line = out.open().await.unwrap();
        line.piece(b"{\"a\":").await.unwrap();
        drop(line);
        out.message(b"{}").await.unwrap();
        assert_eq!(all(out, host).await, "{\"a\":\n{}\n");
    }

    /// A host that does not read holds its bridge up, and costs no memory.
    #[tokio::test]
    async fn who_cannot_write_waits() {
        let (out, mut host) = bridge();
        let big = vec![b'1'; 1_000_000];
        let mut writing = tokio::spawn({
            let (out, big) = (out.clone(), big.clone());
            async move { out.message(&big).await }
        });
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), &mut writing);
        assert!(waited.await.is_err(), "nobody has read");
        let mut got = vec![0; big.len() + 1];
        host.read_exact(&mut got).await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(got.ends_with(b"1\n"));
    }

    #[tokio::test]
    async fn a_host_that_is_gone_is_noticed() {
        let (out, host) = bridge();
        drop(host);
        assert!(out.message(b"{}").await.is_err());
        out.closed().await;
    }
}
