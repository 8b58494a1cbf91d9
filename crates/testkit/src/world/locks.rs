//! Locks: one holder each, freed by its end, kept while it is stopped.

use pilotlight_core::{
    Error,
    error::Holder,
    flow::{Answer, Lock},
};

use super::{Event, LOCK_WAIT, Variant, World, acts::AnyFlow};

impl World {
    /// The number of a lock that a run asks for: nobody asks for the lease of another login than its own.
    pub(super) fn lock_of(&self, run: usize, lock: &Lock) -> usize {
        match (lock, self.runs[run].as_deref()) {
            (Lock::Refresh(key), Some(run)) => {
                debug_assert_eq!(self.targets[run.login].key, *key);
                run.login
            }
            _ => self.targets.len(),
        }
    }

    pub(super) fn holder_of(&self, run: usize) -> (usize, u32) {
        self.runs[run]
            .as_deref()
            .map_or((0, 0), |run| (run.process, run.epoch))
    }

    pub(super) fn lock(&mut self, run: usize, step: u32, lock: &Lock) {
        let (lock, (process, epoch)) = (self.lock_of(run, lock), self.holder_of(run));
        let refresh = matches!(
            self.runs[run].as_deref().and_then(|run| run.flow.as_ref()),
            Some(AnyFlow::Refresh(_))
        );
        if self.is(Variant::Naive) && refresh {
            self.answer_at(run, self.now, Answer::Locked(Ok(0)));
            return;
        }
        let state = &mut self.locks[lock];
        let ours = state
            .holder
            .is_some_and(|(p, e, _)| (p, e) == (process, epoch));
        let kept = ours
            && self.processes[process]
                .cells
                .get(lock)
                .is_some_and(|cell| cell.holds_lease);
        if state.holder.is_none() || (kept && refresh) {
            self.grant(lock, run, 1);
        } else {
            state.waiting.push((run, step));
            self.after(2_100, Event::StillLocked { run, step });
        }
    }

    pub(super) fn grant(&mut self, lock: usize, run: usize, after: u64) {
        let (process, epoch) = self.holder_of(run);
        let state = &mut self.locks[lock];
        state.fence += 1;
        state.holder = Some((process, epoch, run));
        let fence = state.fence;
        self.judge
            .past
            .leased(lock, Some((process, epoch)), self.now);
        if self.is(Variant::ShortLease) {
            self.after(10_000, Event::LeaseEnds { lock, fence });
        }
        self.answer_at(run, self.now + after, Answer::Locked(Ok(fence)));
    }

    /// A lock has been waited for a while: its holder may be stopped, or the wait over.
    pub(super) fn still_locked(&mut self, run: usize, step: u32) {
        let Some(lock) = self
            .locks
            .iter()
            .position(|lock| lock.waiting.contains(&(run, step)))
        else {
            return;
        };
        let Some(own) = self.runs[run].as_deref() else {
            return;
        };
        let waited = self.now - own.began_at;
        let refresh = matches!(own.flow, Some(AnyFlow::Refresh(_)));
        let stopped = self.locks[lock].holder.is_some_and(|(process, ..)| {
            self.processes[process].paused && self.now - self.processes[process].paused_at > 2_000
        });
        let holder = Holder {
            pid: 0,
            program: String::new(),
            since: 0,
            stopped,
        };
        let answer = if self.is(Variant::UnlockedFallback) && refresh && waited >= 12_000 {
            Answer::Locked(Ok(0))
        } else if stopped || waited >= LOCK_WAIT {
            Answer::Locked(Err(Error::LeaseHeld { holder }))
        } else {
            self.after(2_000, Event::StillLocked { run, step });
            return;
        };
        self.locks[lock].waiting.retain(|waiter| waiter.0 != run);
        self.answer_at(run, self.now, answer);
    }

    pub(super) fn lease_ends(&mut self, lock: usize, fence: u64) {
        if self.locks[lock].fence == fence && self.locks[lock].holder.is_some() {
            self.let_go(lock);
        }
    }

    /// Lets go of a lock, if this is who holds it: a run, or a process with all it has.
    pub(super) fn unlock(&mut self, lock: usize, holds: impl Fn((usize, u32, usize)) -> bool) {
        if self.locks[lock].holder.is_some_and(holds) {
            self.let_go(lock);
        }
    }

    fn let_go(&mut self, lock: usize) {
        self.locks[lock].holder = None;
        self.judge.past.leased(lock, None, self.now);
        self.grant_next(lock);
    }

    fn grant_next(&mut self, lock: usize) {
        let mut waiting = std::mem::take(&mut self.locks[lock].waiting);
        waiting.retain(|(run, step)| {
            let own = self.runs[*run].as_deref().filter(|own| own.step == *step);
            own.is_some_and(|own| {
                let process = &self.processes[own.process];
                process.alive && process.epoch == own.epoch
            })
        });
        // Whoever is stopped asks for nothing.
        let awake: Vec<usize> = (0..waiting.len())
            .filter(|i| {
                self.runs[waiting[*i].0]
                    .as_deref()
                    .is_some_and(|own| !self.processes[own.process].paused)
            })
            .collect();
        if let Some(chosen) = awake.get(self.random.below(awake.len() as u64) as usize) {
            let (run, _) = waiting.remove(*chosen);
            let after = self.random.below(100);
            self.locks[lock].waiting = waiting;
            self.grant(lock, run, after);
        } else {
            self.locks[lock].waiting = waiting;
        }
    }
}
