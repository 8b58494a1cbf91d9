//! The pace of calls while they fail (I-9).
//!
//! A failure binds every process from when its back-off was noted until a roll-back forgets that note. One that no note told
//! of binds the life that saw it. It stands beside the version it was made for: where what a roll-back took away is brought
//! back, that is a version without one. Within one boot no clock matters. After a restart of the machine only the wall clock tells
//! how old a note is: there it binds whoever has the wall clock that its writer had, and a clock that jumped binds nobody.

use pilotlight_core::{credential::Version, record::Fact, time::Wall};

use super::{Run, World, judge::Judge, ms, network::Call};

/// The failures of one grant, since its last success.
#[derive(Debug, Clone, Default)]
pub(super) struct Failing {
    grant: usize,
    calls: Vec<Failure>,
    pause: Option<Pause>,
    /// The run that found the issuer back, where the store did not take that.
    early: Option<usize>,
}

/// The pause that was noted last, for all.
#[derive(Debug, Clone, Copy)]
struct Pause {
    version: Option<Version>,
    until: u64,
    noted_at: u64,
    clocks: Clocks,
}

#[derive(Debug, Clone)]
struct Failure {
    run: usize,
    version: Option<Version>,
    life: (usize, u32),
    sent_at: u64,
    ended_at: u64,
    /// Whether it counts for the hour: a refusal is no failure to get an answer.
    counts: bool,
    known: Known,
}

/// Who knows of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The life that saw it.
    Itself,
    /// Everybody, since then, told by these clocks.
    All { noted_at: u64, clocks: Clocks },
    /// It was noted, and the note is lost, or nobody can tell any more how old it is.
    Nobody,
}

/// What a back-off is told by: the boot, and, across boots, how far the wall clock is off; `None` where it has just jumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clocks {
    boot: u64,
    off: Option<i64>,
}

impl Clocks {
    fn agree(self, other: Self) -> bool {
        self.boot == other.boot || (self.off.is_some() && self.off == other.off)
    }
}

impl Failure {
    fn binds(&self, life: (usize, u32), clocks: Clocks) -> bool {
        match self.known {
            Known::Itself => self.life == life,
            Known::All { clocks: noted, .. } => noted.agree(clocks),
            Known::Nobody => false,
        }
    }
}

impl Failing {
    /// A run has noted how its calls ended, with what it knew of those before.
    fn noted(&mut self, run: usize, now: u64, clocks: Clocks) {
        for failure in &mut self.calls {
            failure.known = match failure.known {
                _ if failure.run == run => Known::All {
                    noted_at: now,
                    clocks,
                },
                Known::All {
                    noted_at,
                    clocks: before,
                } if before.agree(clocks) => Known::All { noted_at, clocks },
                Known::All { .. } => Known::Nobody,
                known => known,
            };
        }
    }

    /// The store has lost what was written since then.
    pub(super) fn forget(&mut self, written_at: u64) {
        self.pause = self.pause.filter(|pause| pause.noted_at < written_at);
        for failure in &mut self.calls {
            if matches!(failure.known, Known::All { noted_at, .. } if noted_at >= written_at) {
                failure.known = Known::Nobody;
            }
        }
    }
}

impl Judge {
    /// A token call has ended, for its sender.
    pub(super) fn answered(&mut self, call: &Call, status: u16, now: u64) {
        let Some((grant, _)) = call.presents else {
            return;
        };
        let granted = call
            .answer
            .as_ref()
            .is_some_and(|answer| answer.granted.is_some());
        let failing = &mut self.failing[call.login];
        let succeeded = status == 200 && granted && call.failed.is_none();
        if failing.grant != grant || succeeded {
            failing.grant = grant;
            failing.calls.clear();
            failing.pause = None;
        }
        if !succeeded {
            failing.calls.push(Failure {
                run: call.run,
                version: call.version,
                life: (call.process, call.epoch),
                sent_at: call.sent_at,
                ended_at: now,
                counts: !matches!(status, 400 | 401),
                known: Known::Itself,
            });
        }
    }
}

impl World {
    fn clocks(&self, run: &Run) -> Clocks {
        let jumped = self.judge.past.jumped_at;
        let off = self.machine.wall_offset + self.processes[run.process].skew;
        Clocks {
            boot: self.machine.boot,
            off: jumped.is_none_or(|at| at < run.began_at).then_some(off),
        }
    }

    /// A run has written, or tried to write, what it learned.
    pub(super) fn learned(&mut self, run: usize, login: usize, facts: &[Fact], taken: bool) {
        let ends = |fact: &Fact| matches!(fact, Fact::Backoff(Some(_)) | Fact::Suspicion(Some(_)));
        let Some(own) = self.runs[run].as_deref().filter(|_| facts.iter().any(ends)) else {
            return;
        };
        if taken {
            let clocks = self.clocks(own);
            let version = own.attempt.map(|(version, ..)| version);
            let pause = self.pause_in(facts, version, clocks);
            let failing = &mut self.judge.failing[login];
            failing.noted(run, self.now, clocks);
            failing.pause = pause.unwrap_or(failing.pause);
        } else {
            let ends = self.pause_in(facts, None, self.clocks(own));
            if matches!(ends, Some(None)) {
                self.judge.failing[login].early = Some(run);
            }
            self.judge.untold.push(run);
        }
    }

    /// What a note says of the pause; `None` where it leaves that as it is.
    fn pause_in(
        &self,
        facts: &[Fact],
        version: Option<Version>,
        clocks: Clocks,
    ) -> Option<Option<Pause>> {
        let backoff = facts.iter().find_map(|fact| match fact {
            Fact::Backoff(backoff) => Some(backoff.as_ref()),
            _ => None,
        })?;
        let Some(backoff) = backoff.filter(|backoff| backoff.not_before > Wall(0)) else {
            // A success, a refusal, or an issuer that is back.
            return Some(None);
        };
        let boot = self.machine.boot.to_be_bytes();
        let at = backoff.at.filter(|at| at.boot.0.starts_with(&boot))?;
        let until = self.when(at.mono) + ms(at.wall.until(backoff.not_before));
        Some(Some(Pause {
            version,
            until,
            noted_at: self.now,
            clocks,
        }))
    }

    /// I-9: the pace of calls while they fail.
    pub(super) fn check_pace(&mut self, run: usize, login: usize, version: Version, grant: usize) {
        let Some(own) = self.runs[run].as_deref() else {
            return;
        };
        let (life, clocks, now) = ((own.process, own.epoch), self.clocks(own), self.now);
        let failing = &mut self.judge.failing[login];
        if failing.grant != grant {
            return;
        }
        failing
            .calls
            .retain(|failure| now.saturating_sub(failure.sent_at) < HOUR);
        let pause = failing
            .pause
            .filter(|pause| pause.version == Some(version) && pause.clocks.agree(clocks))
            .filter(|_| failing.early != Some(run));
        let binding = || {
            let binds = |failure: &&Failure| {
                failure.version == Some(version) && failure.binds(life, clocks)
            };
            failing.calls.iter().filter(binds)
        };
        let last = binding().max_by_key(|failure| failure.ended_at);
        // The first repeat may follow sooner, whatever its label: where the store came back within the run, it may be new to it.
        let own = binding().filter(|failure| failure.run == run).count();
        let repeats = own == 1 && last.is_some_and(|last| last.run == run);
        let last = last.map(|failure| failure.ended_at);
        let calls = binding().filter(|failure| failure.counts).count();
        if !repeats && last.is_some_and(|at| now - at < 500) {
            self.broken("I-9", || {
                "a call follows a failure within half a second".into()
            });
        }
        if pause.is_some_and(|pause| pause.until > now) {
            self.broken("I-9", || {
                "a call within a pause that was noted for all".into()
            });
        }
        if calls >= CALLS_AN_HOUR {
            self.broken("I-9", || format!("{calls} failing calls within an hour"));
        }
    }
}

const HOUR: u64 = 3_600_000;
/// Repeats and calls because the issuer is back, five at most, are among them.
const CALLS_AN_HOUR: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST_BOOT: Clocks = Clocks {
        boot: 0,
        off: Some(0),
    };

    /// One failing call of run 7, in the first life of process 1.
    fn failing() -> Failing {
        let failure = Failure {
            run: 7,
            version: None,
            life: (1, 1),
            sent_at: 1_000,
            ended_at: 2_000,
            counts: true,
            known: Known::Itself,
        };
        Failing {
            calls: vec![failure],
            ..Failing::default()
        }
    }

    fn binds(failing: &Failing, life: (usize, u32), clocks: Clocks) -> bool {
        failing.calls[0].binds(life, clocks)
    }

    /// I-9: a failure binds the life that saw it, and everybody once it is noted: a full disk or a crash excuses no more
    /// than what was not noted, and another run's note is no note of it.
    #[test]
    fn a_failure_binds_everybody_once_it_is_noted() {
        let mut failing = failing();
        let bound = |failing: &Failing| {
            [(1, 1), (1, 2), (2, 1)].map(|life| binds(failing, life, FIRST_BOOT))
        };
        assert_eq!(bound(&failing), [true, false, false]);
        failing.noted(8, 3_000, FIRST_BOOT);
        assert_eq!(bound(&failing), [true, false, false]);
        failing.noted(7, 3_000, FIRST_BOOT);
        assert_eq!(bound(&failing), [true; 3]);
    }

    /// I-9: a roll-back frees whom it takes the note from, and nobody else.
    #[test]
    fn a_roll_back_takes_back_what_was_noted_since() {
        let mut failing = failing();
        failing.forget(0);
        assert!(binds(&failing, (1, 1), FIRST_BOOT), "it was not noted yet");
        failing.noted(7, 3_000, FIRST_BOOT);
        failing.forget(3_001);
        assert!(binds(&failing, (2, 1), FIRST_BOOT));
        failing.forget(3_000);
        assert!(!binds(&failing, (2, 1), FIRST_BOOT));
    }

    /// I-9, F-19: after a restart the wall clock tells: who has the writer's is bound, who has another or one that has just
    /// jumped is not; and what a writer with another clock could not tell is gone for good.
    #[test]
    fn after_a_restart_the_same_wall_clock_is_bound() {
        let mut failing = failing();
        failing.noted(7, 3_000, FIRST_BOOT);
        let at = |boot, off| Clocks { boot, off };
        assert!(binds(&failing, (2, 1), at(0, Some(9))), "the same boot");
        assert!(binds(&failing, (2, 2), at(1, Some(0))));
        assert!(!binds(&failing, (2, 2), at(1, Some(9))));
        assert!(!binds(&failing, (2, 2), at(1, None)));
        failing.noted(9, 4_000, at(1, Some(0)));
        assert!(binds(&failing, (2, 2), at(1, Some(9))), "told anew");
        failing.noted(10, 5_000, at(2, Some(9)));
        assert!(!binds(&failing, (2, 3), at(2, Some(9))));
    }
}
