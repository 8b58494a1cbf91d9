//! When the body of a request leaves. What matters of a token call is in its body, so that moment, and not the one when a
//! connection was asked for, is when the call is made, and decides whether it is in time (F-04).

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pilotlight_core::time::{Mono, Now};

use crate::clock::Clock;

/// Tells when a body left, or that it was too late. The stack asks for a body once its connection stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Departure(Arc<OnceLock<Result<Now, TooLate>>>);

impl Departure {
    /// When it left; nothing where it did not.
    pub(super) fn at(&self) -> Option<Now> {
        self.0.get().and_then(|left| left.as_ref().ok()).copied()
    }

    /// Whether it stayed because it was too late.
    pub(super) fn is_too_late(&self) -> bool {
        matches!(self.0.get(), Some(Err(TooLate)))
    }
}

/// A body in one piece that notes when it leaves, and stays where it is too late to.
pub(super) struct Departing {
    bytes: Option<Bytes>,
    not_after: Option<Mono>,
    clock: Arc<dyn Clock>,
    departure: Departure,
}

impl Departing {
    pub(super) fn new(
        bytes: Bytes,
        not_after: Option<Mono>,
        clock: Arc<dyn Clock>,
        departure: &Departure,
    ) -> Self {
        Self {
            bytes: Some(bytes),
            not_after,
            clock,
            departure: departure.clone(),
        }
    }
}

impl Body for Departing {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        let Some(bytes) = self.bytes.take() else {
            return Poll::Ready(None);
        };
        let now = self.clock.now();
        let late = self.not_after.is_some_and(|end| now.mono >= end);
        let left = if late { Err(TooLate) } else { Ok(now) };
        self.departure.0.get_or_init(|| left);
        Poll::Ready(Some(left.map(|_| Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// The connection stood too late for what was to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct TooLate;

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection stood too late")
    }
}

impl StdError for TooLate {}
