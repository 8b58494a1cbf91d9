//! Attempts whose sender may be dead, and who could see that (F-03, F-11).

use pilotlight_core::{
    attempt::{Attempt, repeat_window},
    freshness::Policy,
};

use super::loss::Reuse;
use crate::world::{World, ms, network::CallId, past::Span};

/// An attempt that has stood for a few seconds, and a process that looks at it within the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// The call that it is the note of.
    pub(super) call: CallId,
    pub(super) seen_at: u64,
    /// Until when a repeat may leave, as far as anybody knows.
    pub(super) until: u64,
    /// Who looks, and has nothing that forbids a call.
    pub(super) by: usize,
    epoch: u32,
}

impl World {
    /// An attempt stands. The product promises a look to whoever has used the login within ten minutes; what pauses calls,
    /// or an attempt that is a repeat already, forbids more.
    pub(in crate::world) fn witness(&mut self, login: usize, attempt: &Attempt) {
        let Some(record) = self.store.rows[login].read(true) else {
            return;
        };
        let (Some(version), None, None, None) = (
            record.version(),
            record.backoff,
            record.suspicion,
            attempt.label,
        ) else {
            return;
        };
        let key = (version.incarnation, version.generation.0);
        let Some([sent]) = self.judge.calls.get(&key).map(Vec::as_slice) else {
            return;
        };
        let call = sent.call;
        let sender = (self.calls[call].process, self.calls[call].epoch);
        let by = (0..self.processes.len()).find(|process| {
            let own = &self.processes[*process];
            let cell = own.cells.get(login);
            let looks = cell.is_some_and(|cell| {
                // A second from now that must still be so.
                let used = cell.used_at > 0 && self.now - cell.used_at < 590_000;
                let holds = cell.memory.version() == Some(version) && !cell.memory.unnoted;
                used && holds && !cell.memory.unsaved
            });
            own.alive && !own.paused && (*process, own.epoch) != sender && looks
        });
        let Some(by) = by else {
            return;
        };
        let wall = self.clock(by).wall;
        let limit = Policy::default().repeat_limit;
        let window = repeat_window(self.store.notes.grace(wall), limit);
        let boot = attempt.first_sent_at.boot;
        if let Some(window) = window
            && boot.0.starts_with(&self.machine.boot.to_be_bytes())
        {
            let until = self.instant(attempt.first_sent_at) + ms(window);
            let seen_at = self.now;
            self.judge.standing.push(Standing {
                call,
                seen_at,
                until,
                by,
                epoch: self.processes[by].epoch,
            });
        }
    }

    /// Whether a process saw in time that the sender of the first call was dead, and did not repeat the call although
    /// nothing kept it from that and the issuer would have answered.
    pub(super) fn missed_takeover(&self, reuse: &Reuse<'_>) -> Option<String> {
        let Reuse { first, spender, .. } = *reuse;
        let died = self.died(first.process, first.epoch)?;
        let mut seen = self.judge.standing.iter();
        let standing = seen.find(|standing| standing.call == spender)?;
        // It is looked for each second; the dead hold no lock; and a few looks at the store come before the call.
        let due = (standing.seen_at + 1_000).max(died) + 1_000;
        let answered = due + 1_000 < reuse.spent_at.saturating_add(self.issuer.grace);
        let calm = Span {
            from: standing.seen_at,
            until: due,
        };
        let past = &self.judge.past;
        let epoch = standing.epoch;
        let with_lease = past.holders(reuse.login, calm);
        let mut needed = with_lease.chain([(standing.by, epoch)]);
        let sender = (first.process, first.epoch);
        // A sender that is killed while it is stopped keeps the lease until then.
        let hindered = needed.any(|(process, epoch)| {
            past.was_stopped(process, calm.from, calm.until)
                || (sender != (process, epoch)
                    && self.died(process, epoch).is_some_and(|at| calm.holds(at)))
        }) || past.lost_within(reuse.login, calm)
            || past.kept_from_noting(reuse.login, calm);
        let repeated = self.calls[spender + 1..]
            .iter()
            .any(|other| other.presents == first.presents && other.set_out_at <= standing.until);
        let hindered = hindered || repeated || past.was_narrowed(calm);
        (due < standing.until && answered && !hindered).then(|| {
            let (by, dead) = (standing.by, first.process);
            format!(
                "p{by} saw in time that p{dead} had died over call {spender}, and did not repeat it"
            )
        })
    }
}
