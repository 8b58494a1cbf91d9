//! Server-sent events out of a body, each bounded in size.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::ready, stream::BoxStream};
use pilotlight_core::Error;
use rmcp::transport::streamable_http_client::SseError;
use sse_stream::{Sse, SseStream};

/// A body as it arrives.
pub(super) trait Bytestream:
    Stream<Item = Result<Bytes, Error>> + Send + Unpin + 'static
{
}

impl<B: Stream<Item = Result<Bytes, Error>> + Send + Unpin + 'static> Bytestream for B {}

/// Reads the events of `body`. One that is larger than `limit` bytes ends the stream with an error; `too_large` then
/// learns the last event ID before it, which is `last_event` where this stream has none.
pub(super) fn events<B: Bytestream>(
    body: B,
    last_event: Option<String>,
    limit: usize,
    too_large: impl FnOnce(Option<String>) + Send + 'static,
) -> BoxStream<'static, Result<Sse, SseError>> {
    let bounded = body.scan(
        EventSize {
            limit,
            ..EventSize::default()
        },
        |size, chunk| {
            ready(match chunk {
                _ if size.exceeded => None,
                Ok(chunk) => Some(size.observe(&chunk).map(|()| chunk)),
                Err(error) => Some(Err(Broken::Body(error))),
            })
        },
    );
    let mut last_event = last_event;
    let mut too_large = Some(too_large);
    let events = SseStream::from_bytes_stream(bounded).inspect(move |event| match event {
        Ok(Sse { id: Some(id), .. }) => last_event = Some(id.clone()),
        Err(SseError::Body(error))
            if matches!(error.downcast_ref(), Some(Broken::TooLarge { .. })) =>
        {
            if let Some(too_large) = too_large.take() {
                too_large(last_event.take());
            }
        }
        _ => {}
    });
    events.boxed()
}

/// Why a stream of events ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The body broke.
    #[error(transparent)]
    Body(Error),
    /// An event is too large.
    #[error("an event is larger than {limit} bytes")]
    TooLarge { limit: usize },
}

/// Counts the bytes of the event that is being read, before anything keeps them. Comments count only while their line
/// lasts, since nothing of them is kept.
#[derive(Debug, Default)]
struct EventSize {
    limit: usize,
    /// Bytes of the event's finished lines.
    lines: usize,
    /// Bytes of the line so far.
    line: usize,
    comment: bool,
    after_cr: bool,
    exceeded: bool,
}

impl EventSize {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Broken> {
        for &byte in chunk {
            let crlf = byte == b'\n' && self.after_cr;
            self.after_cr = byte == b'\r';
            match byte {
                b'\n' if crlf => {}
                b'\n' | b'\r' => self.end_line(),
                _ => {
                    self.comment = if self.line == 0 {
                        byte == b':'
                    } else {
                        self.comment
                    };
                    self.line += 1;
                }
            }
            if self.lines + self.line > self.limit {
                self.exceeded = true;
                return Err(Broken::TooLarge { limit: self.limit });
            }
        }
        Ok(())
    }

    fn end_line(&mut self) {
        if self.line == 0 {
            self.lines = 0;
        } else if !self.comment {
            // Lines of one event are joined by a line feed.
            self.lines += self.line + 1;
        }
        self.line = 0;
        self.comment = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::stream;

    use super::*;

    async fn read(
        chunks: &'static [&'static str],
        limit: usize,
    ) -> (Vec<Result<String, String>>, Option<Option<String>>) {
        let (told, asked) = mpsc::channel();
        let body = stream::iter(
            chunks
                .iter()
                .map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))),
        );
        let events = events(body, Some("before".into()), limit, move |last| {
            told.send(last).unwrap()
        });
        let read = events.map(|event| {
            event
                .map(|e| e.data.unwrap_or_default())
                .map_err(|e| e.to_string())
        });
        (read.collect().await, asked.try_recv().ok())
    }

    /// T-14: an event at the limit passes, whatever the line ends and however it is cut; the count starts anew.
    #[tokio::test]
    async fn events_at_the_limit_pass() {
        let (events, told) = read(&["data: ab\r", "\n\r\ndata: cd\n\nda", "ta: ef\r\r"], 9).await;
        assert_eq!(events, ["ab", "cd", "ef"].map(|data| Ok(data.to_owned())));
        assert_eq!(told, None);
    }

    /// T-14: one byte more ends the stream, and names the event after which it may not be resumed.
    #[tokio::test]
    async fn a_larger_event_ends_the_stream() {
        let (events, told) = read(
            &[
                "id: 7\ndata: x\n\n",
                "data: aaaa",
                "aaaaaaaaaa",
                "\n\ndata: y\n\n",
            ],
            16,
        )
        .await;
        assert_eq!(events[0], Ok("x".to_owned()));
        assert!(
            matches!(&events[1], Err(why) if why.contains("larger than 16 bytes")),
            "{events:?}"
        );
        assert_eq!((events.len(), told), (2, Some(Some("7".to_owned()))));
        let (_, told) = read(&["data: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], 16).await;
        assert_eq!(told, Some(Some("before".to_owned())));
    }

    /// TR-12: heartbeats are comments, and any number of them is no event.
    #[tokio::test]
    async fn comments_do_not_add_up() {
        let (events, _) = read(&[": ping\n: ping\n: ping\n: ping\n: ping\ndata: x\n\n"], 10).await;
        assert_eq!(events, [Ok("x".to_owned())]);
    }
}
