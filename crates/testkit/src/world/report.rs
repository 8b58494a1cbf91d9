//! What came of a run, and of many.

use std::collections::BTreeMap;

/// Why a session was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossClass {
    /// A policy with the same information, not knowing the grace, would have kept it.
    Avoidable,
    /// A labelled repeat on a path that was judged dead by the rule, at an issuer whose grace did not cover it.
    UnknownGrace,
    /// The issuer rotated, and nobody durable saw the answer.
    Inherent,
    /// The issuer's own decision.
    Revoked,
}

/// A lost session.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The class.
    pub class: LossClass,
    /// When, in milliseconds of the run.
    pub at: u64,
    /// What happened.
    pub story: String,
}

/// An invariant that did not hold.
#[derive(Debug, Clone)]
pub struct Broken {
    /// Its id.
    pub id: &'static str,
    /// When, in milliseconds of the run.
    pub at: u64,
    /// What was seen.
    pub what: String,
}

/// What came of one run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Which faults the seed switched on.
    pub faults: super::Faults,
    /// The hash of everything that happened.
    pub trace: u64,
    /// The log, where it was asked for.
    pub log: Vec<String>,
    /// Logins that a person completed.
    pub sessions: u64,
    /// Sessions that were lost.
    pub losses: Vec<Loss>,
    /// Invariants that did not hold.
    pub broken: Vec<Broken>,
    /// Requests that programs made, and those that did not get through although there was a login.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Refreshes that the issuer granted.
    pub refreshes: u64,
    /// Tokens that were used at or after their refresh point, or were refused: each is good for one refresh.
    pub intervals: u64,
    /// Token calls.
    pub calls: u64,
    /// Token calls that carried a label.
    pub labelled: u64,
    /// Unknown-grace losses whose lesson was not kept: the disk did not take it, the clock left its month, another refusal
    /// hid it, or another login was on trial just then.
    pub unlearned: u64,
    /// When each call to refresh left, in milliseconds of the run.
    pub calls_at: Vec<u64>,
    /// Events that were processed.
    pub events: u64,
}

impl Report {
    /// Whether the run shows a fault of the program.
    #[must_use]
    pub fn failed_us(&self) -> bool {
        !self.broken.is_empty()
            || self.count(LossClass::Avoidable) > 0
            || self.taught_by_losses() > 1
    }

    /// How many losses taught something about the issuer's grace: one is enough.
    #[must_use]
    pub fn taught_by_losses(&self) -> u64 {
        let unknown = self.count(LossClass::UnknownGrace);
        unknown.saturating_sub(self.unlearned)
    }

    /// How many sessions were lost in a class.
    #[must_use]
    pub fn count(&self, class: LossClass) -> u64 {
        self.losses
            .iter()
            .filter(|loss| loss.class == class)
            .count() as u64
    }
}

/// The sum of many runs.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// How many runs.
    pub runs: u64,
    /// Completed logins.
    pub sessions: u64,
    /// Losses by class.
    pub losses: BTreeMap<LossClass, u64>,
    /// Broken invariants by id.
    pub broken: BTreeMap<&'static str, u64>,
    /// Requests made, and failed.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Refreshes granted.
    pub refreshes: u64,
    /// Refresh intervals.
    pub intervals: u64,
    /// Token calls, and those with a label.
    pub calls: u64,
    /// Token calls that carried a label.
    pub labelled: u64,
    /// Events processed.
    pub events: u64,
    /// Seeds that show a fault of the program, the smallest first.
    pub bad_seeds: Vec<u64>,
    /// The largest number of unknown-grace losses in one run, which has one issuer and its notes; those aside whose lesson
    /// the disk did not take or the clock made old.
    pub most_unknown_grace: u64,
}

impl Totals {
    /// Adds one run.
    pub fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.sessions += report.sessions;
        for loss in &report.losses {
            *self.losses.entry(loss.class).or_default() += 1;
        }
        for broken in &report.broken {
            *self.broken.entry(broken.id).or_default() += 1;
        }
        self.requests += report.requests;
        self.failed += report.failed;
        self.refreshes += report.refreshes;
        self.intervals += report.intervals;
        self.calls += report.calls;
        self.labelled += report.labelled;
        self.events += report.events;
        if report.failed_us() {
            self.bad_seeds.push(report.seed);
        }
        self.most_unknown_grace = self.most_unknown_grace.max(report.taught_by_losses());
    }

    /// Adds the runs of another worker.
    pub fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.sessions += other.sessions;
        for (class, count) in other.losses {
            *self.losses.entry(class).or_default() += count;
        }
        for (id, count) in other.broken {
            *self.broken.entry(id).or_default() += count;
        }
        self.requests += other.requests;
        self.failed += other.failed;
        self.refreshes += other.refreshes;
        self.intervals += other.intervals;
        self.calls += other.calls;
        self.labelled += other.labelled;
        self.events += other.events;
        self.bad_seeds.extend(other.bad_seeds);
        self.bad_seeds.sort_unstable();
        self.most_unknown_grace = self.most_unknown_grace.max(other.most_unknown_grace);
    }

    /// How many sessions were lost in a class.
    #[must_use]
    pub fn lost(&self, class: LossClass) -> u64 {
        self.losses.get(&class).copied().unwrap_or_default()
    }
}
