//! When what only memory or the spool holds is brought to the store again.

use std::time::Duration;

use crate::time::Mono;

/// The turns of one login: at once, and while the store refuses with doubling pauses, since every process of the machine
/// does the same. The caller asks once a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Saving {
    next: Mono,
    pause: Duration,
}

impl Saving {
    /// There is nothing to save.
    pub fn rest(&mut self) {
        *self = Self::default();
    }

    /// Whether it is time for a try. A call that is under way takes no turn: what waits for its end is saved right after it.
    pub fn turn(&mut self, calling: bool, now: Mono) -> bool {
        if calling || now < self.next {
            return false;
        }
        self.pause = (2 * self.pause).clamp(Duration::from_secs(1), AT_LEAST_EVERY);
        self.next = now + self.pause;
        true
    }

    /// Before that there is no turn.
    #[must_use]
    pub fn next(&self) -> Mono {
        self.next
    }
}

/// The longest pause between two tries.
const AT_LEAST_EVERY: Duration = Duration::from_secs(32);

#[cfg(test)]
mod tests {
    use super::*;

    /// When, of so many seconds, it is tried.
    fn turns(saving: &mut Saving, from: u64, to: u64, calling: bool) -> Vec<u64> {
        let tries = |second: &u64| saving.turn(calling, Mono(second * 1000));
        (from..to).filter(tries).collect()
    }

    /// F-06, I-9: a store that refuses is tried at once and then ever less often, at least every 32 s.
    #[test]
    fn a_store_that_refuses_is_tried_with_doubling_pauses() {
        let mut saving = Saving::default();
        let tries = turns(&mut saving, 0, 130, false);
        assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 95, 127]);
        saving.rest();
        assert_eq!(turns(&mut saving, 130, 132, false), [130, 131]);
    }

    /// I-20: a store that takes writes again while a call is under way gets what it missed as soon as that has ended, not a
    /// pause later: whoever held it may be gone by then.
    #[test]
    fn a_call_under_way_takes_no_turn() {
        let mut saving = Saving::default();
        turns(&mut saving, 0, 16, false);
        assert!(turns(&mut saving, 16, 90, true).is_empty());
        assert_eq!(turns(&mut saving, 90, 100, false), [90]);
    }
}
