//! What has happened to processes, store and clocks. What a run may be excused by is looked up here, by instant: a seed's
//! faults excuse nothing, only what they did to this process, login or call.

use pilotlight_core::credential::Incarnation;

use super::store::Health;

/// A span of the run, in milliseconds; one that has not ended goes on for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) until: u64,
}

/// The store has lost what was written to a login's row within a span: from the first lost write to the loss.
pub(super) type Lost = Span;

/// One life of a process.
pub(super) type Life = (usize, u32);

/// What has happened.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// When which process was stopped.
    stops: Vec<(usize, Span)>,
    /// When store and spool took nothing.
    refusals: Vec<Span>,
    /// When the store was slow.
    stalls: Vec<Span>,
    /// What the store has lost, by login.
    lost: Vec<(usize, Lost)>,
    /// When neither store nor slot said that it had taken an attempt: by login, and of which run.
    unheld: Vec<(usize, usize, u64)>,
    /// Who held a login's lease, and when.
    leases: Vec<(usize, Life, Span)>,
    /// When which process took over another login than the one it held, and which.
    takeovers: Vec<(Life, usize, u64, Option<Incarnation>)>,
    /// When a refused repeat taught that the window for repeats is shorter.
    narrowed: Vec<u64>,
    /// When the machine's wall clock last jumped.
    pub(super) jumped_at: Option<u64>,
}

impl Span {
    fn open(from: u64) -> Self {
        let until = u64::MAX;
        Self { from, until }
    }

    pub(super) fn holds(&self, at: u64) -> bool {
        (self.from..self.until).contains(&at)
    }

    fn meets(&self, other: Self) -> bool {
        self.from < other.until && other.from < self.until
    }
}

impl Past {
    pub(super) fn stopped(&mut self, process: usize, now: u64) {
        self.stops.push((process, Span::open(now)));
    }

    /// A process goes on, or is killed while it is stopped.
    pub(super) fn goes_on(&mut self, process: usize, now: u64) {
        let open = |(of, span): &&mut (usize, Span)| *of == process && span.until == u64::MAX;
        if let Some((_, span)) = self.stops.iter_mut().rev().find(open) {
            span.until = now;
        }
    }

    pub(super) fn disk(&mut self, health: Health, now: u64) {
        if let Some(last) = self.refusals.last_mut() {
            last.until = last.until.min(now);
        }
        if health == Health::Broken {
            self.refusals.push(Span::open(now));
        }
    }

    pub(super) fn stalled(&mut self, now: u64, until: u64) {
        self.stalls.push(Span { from: now, until });
    }

    /// The store goes back to before a write, in one row.
    pub(super) fn rolled_back(&mut self, login: usize, written_at: u64, now: u64) {
        let lost = Span {
            from: written_at,
            until: now + 1,
        };
        self.lost.push((login, lost));
    }

    /// Store or slot did not say that it took an attempt of a run. After the store the slot is asked.
    pub(super) fn not_taken(&mut self, login: usize, run: usize, now: u64) {
        self.unheld.push((login, run, now));
    }

    /// The window for repeats has become shorter.
    pub(super) fn narrowed(&mut self, now: u64) {
        self.narrowed.push(now);
    }

    /// Whether that was learned within a span.
    pub(super) fn was_narrowed(&self, within: Span) -> bool {
        self.narrowed.iter().any(|at| within.holds(*at))
    }

    /// The slot took it instead.
    pub(super) fn taken_by_slot(&mut self, run: usize) {
        if let Some(last) = self.unheld.iter().rposition(|(_, of, _)| *of == run) {
            self.unheld.remove(last);
        }
    }

    /// What the store has lost of a login by then.
    pub(super) fn has_lost(&self, login: usize, written_at: u64, by: u64) -> bool {
        self.lost
            .iter()
            .any(|(of, lost)| *of == login && lost.holds(written_at) && lost.until <= by + 1)
    }

    /// Whether the store has gone back, in a login's row, since then.
    pub(super) fn went_back(&self, login: usize, since: u64) -> bool {
        let back = |(of, lost): &(usize, Lost)| *of == login && lost.until > since;
        self.lost.iter().any(back)
    }

    pub(super) fn was_stopped(&self, process: usize, from: u64, until: u64) -> bool {
        let within = Span { from, until };
        let met = |(of, span): &(usize, Span)| *of == process && span.meets(within);
        self.stops.iter().any(met)
    }

    /// Whether an attempt of a login could not be noted in time: refused, its note's answer lost, or late.
    pub(super) fn kept_from_noting(&self, login: usize, within: Span) -> bool {
        let unheld = |(of, _, at): &(usize, usize, u64)| *of == login && within.holds(*at);
        self.unheld.iter().any(unheld) || self.store_failed(within)
    }

    /// Whether the store took nothing, or took its time.
    pub(super) fn store_failed(&self, within: Span) -> bool {
        let mut failures = self.refusals.iter().chain(&self.stalls);
        failures.any(|span| span.meets(within))
    }

    /// A process holds another login than before.
    pub(super) fn takes_over(
        &mut self,
        life: Life,
        login: usize,
        now: u64,
        holds: Option<Incarnation>,
    ) {
        self.takeovers.push((life, login, now, holds));
    }

    /// Whether a process has held another login than this one since then: what it knew of this one is gone.
    pub(super) fn held_other(
        &self,
        life: Life,
        login: usize,
        since: u64,
        own: Incarnation,
    ) -> bool {
        let of = |(by, of, ..): &&(Life, usize, u64, _)| (*by, *of) == (life, login);
        let last = self.takeovers.iter().rfind(of);
        last.is_some_and(|(.., at, holds)| *at > since || *holds != Some(own))
    }

    /// A lease is given, or let go of.
    pub(super) fn leased(&mut self, login: usize, to: Option<Life>, now: u64) {
        let last = self.leases.iter_mut().rfind(|(of, ..)| *of == login);
        if let Some((.., span)) = last {
            span.until = span.until.min(now);
        }
        self.leases
            .extend(to.map(|life| (login, life, Span::open(now))));
    }

    /// Who held a login's lease within a span.
    pub(super) fn holders(&self, login: usize, within: Span) -> impl Iterator<Item = Life> {
        let held = self.leases.iter().rev();
        let held = held.filter(move |(of, _, span)| *of == login && span.meets(within));
        held.map(|(_, life, _)| *life)
    }

    /// Whether the store lost something of a login within a span.
    pub(super) fn lost_within(&self, login: usize, within: Span) -> bool {
        let lost = |(of, lost): &(usize, Lost)| *of == login && within.holds(lost.until - 1);
        self.lost.iter().any(lost)
    }

    /// How long a process could have saved something within a span, in milliseconds: neither stopped nor refused.
    pub(super) fn could_save(&self, process: usize, within: Span, calls: &[Span]) -> u64 {
        let stops = self.stops.iter().filter(|(of, _)| *of == process);
        let refused = self.refusals.iter();
        let late = refused.filter(|span| span.meets(within)).map(|span| Span {
            // It tries again with pauses of up to that. What was over before it had anything to save delayed nothing.
            until: span.until.saturating_add(NEXT_TRY),
            ..*span
        });
        let mut idle: Vec<Span> = stops
            .map(|(_, span)| *span)
            .chain(late)
            // A run does one thing at a time: what it has in memory is saved before its next call, or after it.
            .chain(calls.iter().filter(|span| span.meets(within)).copied())
            .chain(self.stalls.iter().copied())
            .collect();
        idle.sort_unstable_by_key(|span| span.from);
        let (mut at, mut could) = (within.from, 0);
        for span in idle {
            could += span.from.min(within.until).saturating_sub(at);
            at = at.max(span.until);
        }
        could + within.until.saturating_sub(at)
    }
}

/// The longest pause before what only memory holds is brought to the store again, and what that takes.
const NEXT_TRY: u64 = 34_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, until: u64) -> Span {
        Span { from, until }
    }

    /// I-20: a process is excused for the time in which it was stopped or the store took nothing, counted once, and no
    /// longer; another process's stop excuses nothing.
    #[test]
    fn only_the_time_that_was_lost_is_excused() {
        let mut past = Past::default();
        assert_eq!(past.could_save(1, span(10_000, 40_000), &[]), 30_000);
        past.stopped(1, 20_000);
        past.goes_on(1, 25_000);
        past.stopped(2, 30_000);
        assert_eq!(past.could_save(1, span(10_000, 40_000), &[]), 25_000);
        past.stalled(24_000, 31_000);
        assert_eq!(past.could_save(1, span(10_000, 40_000), &[]), 19_000);
        past.disk(Health::Full, 32_000);
        past.disk(Health::Well, 33_000);
        assert_eq!(past.could_save(1, span(10_000, 40_000), &[]), 19_000);
        past.disk(Health::Broken, 35_000);
        past.disk(Health::Well, 36_000);
        assert_eq!(past.could_save(1, span(10_000, 40_000), &[]), 14_000);
        assert_eq!(past.could_save(1, span(10_000, 80_000), &[]), 24_000);
        assert_eq!(past.could_save(1, span(36_000, 80_000), &[]), 44_000);
        let calls = [span(40_000, 50_000)];
        assert_eq!(past.could_save(1, span(36_000, 80_000), &calls), 34_000);
    }

    /// I-3: a roll-back forgets what was written since the write that it goes back to, and nothing before it; nor does it
    /// excuse what was sent before it.
    #[test]
    fn a_roll_back_forgets_what_was_written_since() {
        let mut past = Past::default();
        past.rolled_back(0, 500, 900);
        let lost = |login, written, by| past.has_lost(login, written, by);
        assert!(lost(0, 500, 900) && lost(0, 899, 1_000));
        assert!(!lost(0, 499, 1_000) && !lost(0, 901, 1_000));
        assert!(!lost(0, 600, 899) && !lost(1, 600, 1_000));
    }

    /// I-20: who held a lease counts while it held it; who took over another login is known to have, since then.
    #[test]
    fn a_lease_is_held_until_the_next() {
        let mut past = Past::default();
        let holders = |past: &Past, within| past.holders(0, within).collect::<Vec<_>>();
        past.leased(0, Some((1, 1)), 100);
        assert_eq!(holders(&past, span(500, 501)), [(1, 1)]);
        past.leased(0, Some((2, 1)), 600);
        past.leased(0, None, 700);
        assert_eq!(holders(&past, span(0, 601)), [(2, 1), (1, 1)]);
        assert!(holders(&past, span(700, 900)).is_empty());
        assert!(past.holders(1, span(0, 900)).next().is_none());
        let login = |byte| Incarnation([byte; 16]);
        past.takes_over((1, 1), 0, 300, Some(login(2)));
        let other = |life, of, since, own| past.held_other(life, of, since, login(own));
        // What was sent for the login before is forgotten with it, also where that leaves after it was replaced.
        assert!(other((1, 1), 0, 299, 1) && other((1, 1), 0, 300, 1) && other((1, 1), 0, 900, 1));
        assert!(!other((1, 1), 0, 300, 2) && other((1, 1), 0, 299, 2));
        assert!(!other((1, 2), 0, 0, 1) && !other((1, 1), 1, 0, 1));
    }

    /// F-06: a note that the slot took instead of the store is no excuse.
    #[test]
    fn a_note_in_the_slot_is_held() {
        let mut past = Past::default();
        past.not_taken(0, 7, 10);
        past.taken_by_slot(7);
        assert!(!past.kept_from_noting(0, span(0, 100)));
        past.not_taken(0, 7, 20);
        past.taken_by_slot(8);
        assert!(past.kept_from_noting(0, span(0, 100)));
        assert!(!past.kept_from_noting(1, span(0, 100)));
        assert!(!past.kept_from_noting(0, span(21, 100)));
    }
}
