//! What the proxy does to a connection: a value for each direction.

use std::time::Duration;

/// What happens to one connection, direction by direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// From the client to the server.
    pub up: Way,
    /// From the server to the client.
    pub down: Way,
}

/// What happens to one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Way {
    /// How long each piece is kept before it goes on.
    pub delay: Duration,
    /// How many bytes go on in a second; `None` for no limit.
    pub rate: Option<u32>,
    /// After how many bytes it ends, and how.
    pub end: Option<(u64, End)>,
}

/// How a direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The next byte closes the connection in both directions, in good order (FIN).
    Cut,
    /// The next byte resets the connection in both directions (RST).
    Reset,
    /// The next byte closes this direction; the other goes on.
    HalfClose,
    /// Whatever comes is read and thrown away; nobody is told.
    Lose,
    /// Nothing more is read, until the proxy is healed.
    Stall,
}

impl Way {
    /// Keeps each piece for a while.
    #[must_use]
    pub fn delayed(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// Carries so many bytes in a second.
    #[must_use]
    pub fn throttled(bytes_a_second: u32) -> Self {
        Self {
            rate: Some(bytes_a_second),
            ..Self::default()
        }
    }

    /// Carries so many bytes, then ends.
    #[must_use]
    pub fn ending(after: u64, end: End) -> Self {
        Self {
            end: Some((after, end)),
            ..Self::default()
        }
    }
}

impl Line {
    /// Carries everything.
    #[must_use]
    pub fn pass() -> Self {
        Self::default()
    }

    /// Does something to what the client sends.
    #[must_use]
    pub fn up(up: Way) -> Self {
        Self {
            up,
            down: Way::default(),
        }
    }

    /// Does something to what the server answers.
    #[must_use]
    pub fn down(down: Way) -> Self {
        Self {
            up: Way::default(),
            down,
        }
    }

    /// Accepts and reads, never answers and never closes: the server sees nothing.
    #[must_use]
    pub fn black_hole() -> Self {
        Self::up(Way::ending(0, End::Lose))
    }

    /// Lets the request through and does this to the answer: the server has done what it was asked.
    #[must_use]
    pub fn answer_lost(end: End) -> Self {
        Self::down(Way::ending(0, end))
    }
}
