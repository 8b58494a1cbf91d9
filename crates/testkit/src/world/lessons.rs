//! What is learned about the issuer's grace, and which lesson is not: each excuses the one loss that was to teach it.

use std::time::Duration;

use pilotlight_core::{
    attempt::{Label, repeat_window},
    credential::Incarnation,
    notes::{IssuerNotes, ReuseGrace},
};

use super::{
    World,
    network::{Call, Failed},
    store::Health,
};

/// Which grants have taught something, or were to.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    /// Those that taught what is known.
    taught_by: Vec<usize>,
    /// Those whose lesson was not kept.
    lost: Vec<usize>,
    /// The grant on trial, and since when.
    trying: Option<(usize, u64)>,
}

impl Lessons {
    pub(super) fn lost(&self, grant: usize) -> bool {
        self.lost.contains(&grant)
    }
}

impl World {
    /// A run writes what it knows of the issuer.
    pub(super) fn learn(&mut self, run: usize, notes: &IssuerNotes) {
        let own = self.calls.iter().rfind(|call| call.run == run);
        let grant = own.and_then(|call| call.presents).map(|(grant, _)| grant);
        let wall = self.clock(self.holder_of(run).0).wall;
        let stored = &self.store.notes;
        if stored.reuse_grace != stored.grace(wall) {
            // The clock has left the month for which the lesson was good.
            let lessons = &mut self.judge.lessons;
            lessons.lost.append(&mut lessons.taught_by);
        }
        if self.store.health == Health::Well {
            self.trace.say(self.now, || format!("learned: {notes:?}"));
            let limit = self.setup.policy.repeat_limit;
            let window = |notes: &IssuerNotes| repeat_window(notes.grace(wall), limit);
            let learned = stored.joined(notes);
            match (stored.trial, learned.trial, self.judge.lessons.trying) {
                // Its clock is minutes from that of whoever began it: it ends early.
                (Some(trial), None, Some((of, since))) if trial.is_over(wall) => {
                    let spent = Duration::from_millis(self.now - since);
                    if !trial.is_over(trial.at + spent) {
                        self.judge.lessons.lost.push(of);
                    }
                }
                (before, Some(trial), _) if before != Some(trial) => {
                    self.judge.lessons.trying = grant.map(|of| (of, self.now));
                }
                _ => {}
            }
            if window(&learned) < window(stored) {
                self.judge.past.narrowed(self.now);
                self.judge.lessons.taught_by.extend(grant);
            }
            self.store.notes = learned;
            return;
        }
        let bound = |notes: &IssuerNotes| {
            let known = matches!(
                notes.reuse_grace,
                ReuseGrace::Below { .. } | ReuseGrace::None
            );
            known.then_some(notes.reuse_grace)
        };
        let refused = bound(notes).is_some() && bound(notes) != bound(stored);
        if refused || (notes.trial.is_some() && notes.trial != stored.trial) {
            self.judge.lessons.lost.extend(grant);
        }
    }

    /// A repeat is about to leave, and another login is on trial, or was as its sender looked: two paths died together, and
    /// this one teaches nothing.
    pub(super) fn leaves_beside_a_trial(&mut self, call: &Call) {
        let before = self.calls.iter().rfind(|other| other.run == call.run);
        let dead = before.is_some_and(|call| matches!(call.failed, Some((_, Failed::DeadPath))));
        let own = call.version.map(|version| version.incarnation);
        let read = self.runs[call.run]
            .as_deref()
            .and_then(|run| run.notes.trial);
        let read = read.map(|trial| trial.version.incarnation);
        let mut trials = self.on_trial().into_iter().chain(read);
        let other = trials.any(|trial| Some(trial) != own);
        if dead && other && call.label == Some(Label::RetryAmbiguous) {
            let grant = call.presents.map(|(grant, _)| grant);
            self.judge.lessons.lost.extend(grant);
        }
    }

    /// The issuer refuses everybody for a reason of its own: what an open trial would have taught is hidden by that.
    pub(super) fn trial_is_hidden(&mut self) {
        let Some(trial) = self.on_trial() else {
            return;
        };
        let of_it = |call: &&Call| call.version.is_some_and(|v| v.incarnation == trial);
        let grant = self
            .calls
            .iter()
            .rfind(of_it)
            .and_then(|call| call.presents);
        self.judge
            .lessons
            .lost
            .extend(grant.map(|(grant, _)| grant));
    }

    fn on_trial(&self) -> Option<Incarnation> {
        let trial = self.store.notes.trial?;
        Some(trial.version.incarnation)
    }
}
