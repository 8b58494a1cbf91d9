//! When the body of a request leaves. What matters of a token call is in its body, so that moment, and not the one when a
//! connection was asked for, is when the call is made, and decides whether it is in time (F-04), and whether a path that dies
//! under it is given up.

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

/// Tells when a body left, or why it stayed. The stack asks for a body once its connection stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Departure(Arc<OnceLock<Result<Now, Stayed>>>);

impl Departure {
    /// When it left; nothing where it did not.
    pub(super) fn at(&self) -> Option<Now> {
        self.0.get().and_then(|left| left.as_ref().ok()).copied()
    }

    /// Why it stayed; nothing where it left, or nobody has asked for it.
    pub(super) fn stayed(&self) -> Option<Stayed> {
        self.0.get().and_then(|left| left.as_ref().err()).copied()
    }
}

/// Until when a body may leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// Afterwards it stays for good.
    pub(super) not_after: Option<Mono>,
    /// From then on it stays for a connection that waits for a dead path.
    pub(super) patient_from: Option<Mono>,
}

impl Ends {
    fn leaves(self, now: Now) -> Result<Now, Stayed> {
        let passed = |end: Option<Mono>| end.is_some_and(|end| now.mono >= end);
        if passed(self.not_after) {
            Err(Stayed::TooLate)
        } else if passed(self.patient_from) {
            Err(Stayed::Impatient)
        } else {
            Ok(now)
        }
    }
}

/// A body in one piece that notes when it leaves, and stays where it is too late to.
pub(super) struct Departing {
    bytes: Option<Bytes>,
    ends: Ends,
    clock: Arc<dyn Clock>,
    departure: Departure,
}

impl Departing {
    pub(super) fn new(
        bytes: Bytes,
        ends: Ends,
        clock: Arc<dyn Clock>,
        departure: &Departure,
    ) -> Self {
        Self {
            bytes: Some(bytes),
            ends,
            clock,
            departure: departure.clone(),
        }
    }
}

impl Body for Departing {
    type Data = Bytes;
    type Error = Stayed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stayed>>> {
        let Some(bytes) = self.bytes.take() else {
            return Poll::Ready(None);
        };
        let left = self.ends.leaves(self.clock.now());
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

/// Why a body did not leave although its connection stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stayed {
    /// It is too late for what was to be sent.
    TooLate,
    /// Nothing would follow from giving a dead path up any more, and this connection would.
    Impatient,
}

impl fmt::Display for Stayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection stood too late")
    }
}

impl StdError for Stayed {}
