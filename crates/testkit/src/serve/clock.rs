//! Unix time for the servers, with a test's thumb on the hand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Tells the servers the time. Clones share one hand.
#[derive(Clone)]
pub struct Clock {
    read: Arc<dyn Fn() -> u64 + Send + Sync>,
    ahead_ms: Arc<AtomicU64>,
}

impl Clock {
    /// Makes a clock from a function that gives Unix time in milliseconds.
    pub fn new(read: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            read: Arc::new(read),
            ahead_ms: Arc::default(),
        }
    }

    /// Makes a clock that goes with the machine's.
    #[must_use]
    pub fn machine() -> Self {
        Self::new(machine_now_ms)
    }

    /// Gives Unix time in milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        (self.read)().saturating_add(self.ahead_ms.load(Ordering::SeqCst))
    }

    /// Puts the clock forward, so that tokens expire without anybody waiting.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX / 4);
        self.ahead_ms.fetch_add(by, Ordering::SeqCst);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::machine()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("ahead_ms", &self.ahead_ms)
            .finish_non_exhaustive()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "servers on real sockets live in real time; this is their one door to it"
)]
fn machine_now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // A machine set to before 1970 lives in 1970.
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
