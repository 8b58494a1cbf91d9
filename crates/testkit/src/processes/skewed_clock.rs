//! A clock that is wrong, as a test wants it to be.

use std::time::Duration;

use pilotlight::{
    clock::{Clock, SystemClock},
    core::time::{BootId, Mono, Now, Wall},
};

/// The machine's clocks, with a wall clock that is off, may jump, and may belong to another boot.
#[derive(Debug, Clone)]
pub struct SkewedClock {
    began: Mono,
    shift_ms: i64,
    jump: Option<Jump>,
    boot: Option<u8>,
}

/// A step of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// How long after the start.
    pub after: Duration,
    /// By how much, in milliseconds.
    pub by_ms: i64,
}

impl SkewedClock {
    /// Starts it.
    #[must_use]
    pub fn new(shift_ms: i64, jump: Option<Jump>, boot: Option<u8>) -> Self {
        Self {
            began: SystemClock.now().mono,
            shift_ms,
            jump,
            boot,
        }
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Now {
        let mut now = SystemClock.now();
        let mut off = self.shift_ms;
        if let Some(jump) = self.jump
            && self.began.until(now.mono) >= jump.after
        {
            off = off.saturating_add(jump.by_ms);
        }
        now.wall = Wall(now.wall.0.saturating_add_signed(off));
        if let Some(boot) = self.boot {
            now.boot = BootId([boot; 16]);
        }
        now
    }
}

impl std::str::FromStr for Jump {
    type Err = String;

    /// Reads `after_ms:by_ms`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not after_ms:by_ms");
        let (after, by) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self {
            after: Duration::from_millis(after.parse().map_err(|_| wrong())?),
            by_ms: by.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F-19: only the wall clock is off, and a jump comes when it was said to.
    #[test]
    fn the_wall_clock_alone_is_off() {
        let true_now = SystemClock.now();
        let ahead = SkewedClock::new(600_000, None, None).now();
        assert!(ahead.wall.0 - true_now.wall.0 >= 600_000);
        assert!(ahead.mono.0 - true_now.mono.0 < 10_000);
        assert_eq!(ahead.boot, true_now.boot);

        let jumps = SkewedClock::new(0, Some("0:-3600000".parse().unwrap()), Some(7));
        let now = jumps.now();
        assert!(now.wall.0 < true_now.wall.0 - 3_500_000);
        assert_eq!(now.boot, BootId([7; 16]));
        assert!("5".parse::<Jump>().is_err());
    }
}
