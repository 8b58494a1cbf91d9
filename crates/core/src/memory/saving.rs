//! When what only memory or the spool holds is brought to the store again.

use std::time::Duration;

use crate::{record::Kept, time::Mono};

/// The turns of one login: at once, and while the store refuses with doubling pauses, since every process of the machine
/// does the same. The caller asks once a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Saving {
    kept: Kept,
    next: Mono,
    pause: Duration,
}

impl Saving {
    /// Whether it is time for a try. A call that is under way takes no turn: what waits for its end is saved right after it. A
    /// store that went back, and the spool with it, leaves in memory alone what was spooled: that waits for no pause.
    pub fn turn(&mut self, kept: Kept, calling: bool, now: Mono) -> bool {
        if kept == Kept::Store || kept > self.kept {
            *self = Self::default();
        }
        self.kept = kept;
        if kept == Kept::Store || calling || now < self.next {
            return false;
        }
        self.pause = (2 * self.pause).clamp(Duration::from_secs(1), AT_LEAST_EVERY);
        self.next = now + self.pause;
        true
    }
}

/// The longest pause between two tries.
const AT_LEAST_EVERY: Duration = Duration::from_secs(32);

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    /// When, of so many seconds, it is tried.
    fn turns(saving: &mut Saving, kept: Kept, seconds: Range<u64>, calling: bool) -> Vec<u64> {
        let tries = |second: &u64| saving.turn(kept, calling, Mono(second * 1000));
        seconds.filter(tries).collect()
    }

    /// F-06, I-9: a store that refuses is tried at once and then ever less often, at least every 32 s.
    #[test]
    fn a_store_that_refuses_is_tried_with_doubling_pauses() {
        let mut saving = Saving::default();
        let tries = turns(&mut saving, Kept::Memory, 0..130, false);
        assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 95, 127]);
        assert!(turns(&mut saving, Kept::Store, 130..131, false).is_empty());
        let again = turns(&mut saving, Kept::Memory, 131..133, false);
        assert_eq!(again, [131, 132]);
    }

    /// I-20: a store that takes writes again while a call is under way gets what it missed as soon as that has ended, not a
    /// pause later: whoever held it may be gone by then.
    #[test]
    fn a_call_under_way_takes_no_turn() {
        let mut saving = Saving::default();
        turns(&mut saving, Kept::Spool, 0..16, false);
        assert!(turns(&mut saving, Kept::Spool, 16..90, true).is_empty());
        assert_eq!(turns(&mut saving, Kept::Spool, 90..100, false), [90]);
    }

    /// I-2, I-20: where the spool goes back beneath a full store, what it held is in memory alone, and another process may send
    /// the spent token at any moment: it is brought forward at once. What the spool has taken is in no such hurry.
    #[test]
    fn what_the_spool_has_lost_waits_for_no_pause() {
        let mut saving = Saving::default();
        turns(&mut saving, Kept::Spool, 0..16, false);
        assert_eq!(turns(&mut saving, Kept::Memory, 16..18, false), [16, 17]);
        assert!(turns(&mut saving, Kept::Spool, 18..19, false).is_empty());
    }
}
