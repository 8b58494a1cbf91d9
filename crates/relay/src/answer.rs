//! What a server sends, put together to messages: held while they are short, streamed to the host when they are long.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use pilotlight::Body;
use pilotlight_core::{Error, error::Waited};

use crate::{
    batch,
    config::Limits,
    out::{Line, Out},
    refusal::Fault,
    scan::{Peek, Scan},
    sse::{Events, Part},
};

/// A message of the server.
#[derive(Debug)]
pub(crate) enum Message {
    /// It is here, and nobody has seen it yet.
    Held(Bytes, Peek),
    /// It was long: the host has it already.
    Written(Peek),
}

/// Puts one message together.
pub(crate) struct Assembly<'a> {
    out: &'a Out,
    limits: Limits,
    /// Whether nothing may be streamed, since it has to be known whole.
    whole: bool,
    scan: Scan,
    held: Held,
    line: Option<Line<'a>>,
}

/// Pieces of a message. One that came in one piece is not copied.
enum Held {
    One(Bytes),
    Many(BytesMut),
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(out: &'a Out, limits: Limits, whole: bool) -> Self {
        Self {
            out,
            limits,
            whole,
            scan: Scan::default(),
            held: Held::One(Bytes::new()),
            line: None,
        }
    }

    pub(crate) async fn piece(&mut self, piece: Bytes) -> Result<(), Fault> {
        self.scan.feed(&piece);
        if let Some(line) = &mut self.line {
            return Ok(line.piece(&piece).await?);
        }
        match &mut self.held {
            Held::One(held) if held.is_empty() => *held = piece,
            Held::One(held) => {
                let mut many = BytesMut::with_capacity(held.len() + piece.len());
                many.extend_from_slice(held);
                many.extend_from_slice(&piece);
                self.held = Held::Many(many);
            }
            Held::Many(held) => held.extend_from_slice(&piece),
        }
        let held = self.held.as_slice();
        let length = held.len();
        // A batch comes to the host in its parts (TR-38).
        let whole = self.whole || length > self.limits.hold && batch::is_batch(held);
        if whole && length > self.limits.whole {
            return Err(Fault::TooLarge(self.limits.whole));
        }
        if !whole && length > self.limits.hold {
            let mut line = self.out.open().await?;
            line.piece(self.held.as_slice()).await?;
            self.held = Held::One(Bytes::new());
            self.line = Some(line);
        }
        Ok(())
    }

    /// Ends the message; nothing where it is none. One that breaks off is not ended on its line: no host takes it for whole.
    pub(crate) async fn end(&mut self) -> Result<Option<Message>, Fault> {
        let peek = std::mem::take(&mut self.scan).end();
        let held = std::mem::replace(&mut self.held, Held::One(Bytes::new())).into_bytes();
        let line = self.line.take();
        if !peek.whole {
            if line.is_some() || !held.trim_ascii().is_empty() {
                tracing::warn!("the server sent something that is no message");
            }
            return Ok(None);
        }
        match line {
            Some(line) => {
                line.end().await?;
                Ok(Some(Message::Written(peek)))
            }
            None => Ok(Some(Message::Held(held, peek))),
        }
    }

    /// Takes what is held, which is no message.
    fn take(&mut self) -> Bytes {
        self.scan = Scan::default();
        self.line = None;
        std::mem::replace(&mut self.held, Held::One(Bytes::new())).into_bytes()
    }
}

impl Held {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::One(held) => held,
            Self::Many(held) => held,
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::One(held) => held,
            Self::Many(held) => held.freeze(),
        }
    }
}

/// The next piece of a body, which may not be silent for longer than `within`.
pub(crate) async fn piece(
    body: &mut Body,
    within: Option<Duration>,
) -> Result<Option<Bytes>, Fault> {
    let next = match within {
        None => body.next().await,
        Some(limit) => tokio::time::timeout(limit, body.next())
            .await
            .map_err(|_| Error::Timeout {
                waited_for: Waited::Answer,
                limit,
            })?,
    };
    Ok(next.transpose()?)
}

/// Reads the messages of an SSE body.
pub(crate) struct Stream<'a> {
    body: Body,
    events: Events,
    assembly: Assembly<'a>,
    within: Option<Duration>,
    /// How long to wait before it is opened again, if the server has said.
    pub(crate) retry: Option<Duration>,
}

/// What came on a stream.
#[derive(Debug)]
pub(crate) enum Came {
    Message(Message),
    /// An event of another type: its type and its data.
    Other(String, Bytes),
}

impl<'a> Stream<'a> {
    pub(crate) fn new(body: Body, assembly: Assembly<'a>, within: Option<Duration>) -> Self {
        Self {
            body,
            events: Events::default(),
            assembly,
            within,
            retry: None,
        }
    }

    /// Goes on where another broke off.
    pub(crate) fn resumes(&mut self, last_id: &str, retry: Option<Duration>) {
        self.events = Events::after(last_id);
        self.retry = retry;
    }

    /// The id of the last event that was whole.
    pub(crate) fn last_id(&self) -> Option<&str> {
        self.events.last_id()
    }

    /// The next message; nothing at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Came>, Fault> {
        loop {
            while let Some(part) = self.events.part() {
                match part {
                    Part::Data(data) => self.assembly.piece(data).await?,
                    Part::Retry(pause) => self.retry = Some(pause),
                    Part::End(event) if matches!(event.event.as_str(), "" | "message") => {
                        if let Some(message) = self.assembly.end().await? {
                            return Ok(Some(Came::Message(message)));
                        }
                    }
                    Part::End(event) => {
                        return Ok(Some(Came::Other(event.event, self.assembly.take())));
                    }
                }
            }
            match piece(&mut self.body, self.within).await? {
                Some(bytes) => self.events.feed(bytes),
                None => return Ok(None),
            }
        }
    }
}
