//! Whether what was lost was asked for again as the rule says (F-04, F-11; docs/design/0003): in time, by its sender, unless
//! something kept it from that. The rule is the contract's, whatever the program goes by.

use pilotlight_core::{
    attempt::{Label, repeat_window},
    freshness::Policy,
};

use super::loss::{Reuse, avoidable, inherent};
use crate::world::{
    LossClass, World, ms,
    network::{Call, CallId, DEADLINE, Failed},
    past::Span,
};

/// A call whose sender gave its connection up, although that would have brought the answer; and the call that came next.
struct GivenUp {
    call: CallId,
    at: u64,
    replies: u64,
    next: CallId,
}

impl World {
    /// The repeat came first, and then the call that it repeats.
    pub(super) fn overtaken(&self, reuse: &Reuse<'_>) -> (LossClass, String) {
        let Reuse { first, killer, .. } = *reuse;
        let (late, spender) = (reuse.again, reuse.spender);
        let after = |end: Option<u64>| end.is_none_or(|at| at > first.sent_at);
        let waits = after(killer.failed.map(|(at, _)| at)) && after(killer.answered_at);
        if waits && after(self.died(killer.process, killer.epoch)) {
            return avoidable(format!(
                "call {spender} ({:?}) left while call {late} was under way",
                first.label
            ));
        }
        let ends = self.set_out_at(late) + DEADLINE;
        let dead = matches!(killer.failed, Some((_, Failed::DeadPath)));
        let dead = dead && reuse.at + 200 < ends;
        let soon = first.sent_at - killer.sent_at <= repeat_limit();
        if let (Some((at, _)), Some(replies)) = (killer.failed, killer.fate.replies)
            && dead
            && !soon
            && replies <= ends
        {
            let given_up = GivenUp {
                call: late,
                at,
                replies,
                next: spender,
            };
            return self.given_up(reuse.login, &given_up);
        }
        // Once the token has ended nothing is left to wait for: that is no trial of the issuer's grace.
        let repeats = first.run == killer.run || first.label != Some(Label::Uncertain);
        // Nor is it one where the sender is dead: without a repeat, what the late call brings would have reached nobody.
        let lives = after(self.died(killer.process, killer.epoch));
        let class = if dead && soon && repeats && lives {
            LossClass::UnknownGrace
        } else {
            LossClass::Inherent
        };
        let story = format!("call {late}, given up, reached the issuer after call {spender}");
        (class, story)
    }

    /// A path was found dead that would have brought the answer after all; `None` where it would not.
    pub(super) fn given_up_for_nothing(&self, reuse: &Reuse<'_>) -> Option<(LossClass, String)> {
        let Reuse { first, spender, .. } = *reuse;
        let (Some(replies), Some((at, Failed::DeadPath))) = (first.fate.replies, first.failed)
        else {
            return None;
        };
        let brings = first.fate.spoilt.is_none() && replies <= self.set_out_at(spender) + DEADLINE;
        brings.then(|| {
            let (call, next) = (spender, reuse.again);
            self.given_up(
                reuse.login,
                &GivenUp {
                    call,
                    at,
                    replies,
                    next,
                },
            )
        })
    }

    fn given_up(&self, login: usize, given_up: &GivenUp) -> (LossClass, String) {
        let GivenUp {
            call,
            at,
            replies,
            next,
        } = *given_up;
        let (lost, then) = (&self.calls[call], &self.calls[next]);
        let (past, process, label) = (&self.judge.past, lost.process, then.label);
        let until = lost.sent_at + repeat_limit();
        let in_window = then.sent_at <= until;
        let died = self
            .died(process, lost.epoch)
            .filter(|died| *died <= replies.max(at + LONGEST_PAUSE));
        // Where its sender has died, the note of a repeat by somebody else counts, too.
        let to_note = Span {
            from: if died.is_some() { lost.sent_at } else { at },
            until: until.min(then.sent_at),
        };
        if !in_window && past.kept_from_noting(login, to_note) {
            return inherent(format!(
                "the store did not take the note of a repeat of call {call}"
            ));
        }
        if label.is_none() && !lost.noted {
            return inherent(format!("no note of call {call} could be made"));
        }
        let between = self.calls[call.min(next) + 1..call.max(next)].iter();
        let repeats = between.filter(|other| {
            let stayed = other.not_delivered && other.sent_at <= until + LONGEST_CONNECT;
            let of_it = other.presents == lost.presents && other.label.is_some();
            of_it && (other.sent_at <= until || stayed)
        });
        for repeat in repeats {
            // The rule was kept, and its repeat met a fault of its own.
            if repeat.met_a_fault() {
                return inherent(format!(
                    "call {call} met a dead path, and its repeat another fault"
                ));
            }
            let died = self.died(repeat.process, repeat.epoch);
            if repeat.answered_at.is_none() && died.is_some_and(|died| died <= then.sent_at) {
                return inherent(format!(
                    "call {call} met a dead path, and the sender of its repeat died before the answer"
                ));
            }
            // An issuer may rotate at the one and not at the other.
            if repeat.processed_at < lost.processed_at {
                let story = format!("call {call}, given up, reached the issuer after its repeat");
                return (LossClass::UnknownGrace, story);
            }
        }
        let under_way = Span {
            from: lost.sent_at,
            until: at + 200,
        };
        let no_repeat = !in_window || label == Some(Label::Uncertain);
        if no_repeat && past.was_narrowed(under_way) {
            return inherent(format!(
                "while call {call} was under way, a refusal taught that no repeat may follow"
            ));
        }
        // A sender that is stopped finds out when it goes on.
        let found = lost.fate.fails.map_or(at, |(fails, _)| fails.min(at));
        if !in_window && past.was_stopped(process, found, until) {
            return inherent(format!(
                "p{process} was stopped when it was about to repeat call {call}"
            ));
        }
        if died.is_some() {
            return inherent(format!("p{process} died before the path healed"));
        }
        if in_window && label.is_some() {
            let story =
                format!("call {next} repeated call {call} on a path that was only slow to heal");
            return (LossClass::UnknownGrace, story);
        }
        avoidable(format!(
            "call {call} was given up for nothing: call {next} ({label:?}) came too late to be a repeat"
        ))
    }

    /// Whether a living sender knew in time that its answer was lost, nothing kept it from a repeat, the issuer would have
    /// answered that, and none was made.
    pub(super) fn missed_repeat(&self, reuse: &Reuse<'_>) -> Option<String> {
        let Reuse { first, spender, .. } = *reuse;
        let lost_at = match (first.failed, first.answered_at) {
            (Some((at, Failed::Broken | Failed::DeadPath)), _) => at,
            (None, Some(at)) if first.fate.spoilt.is_some() => at,
            _ => return None,
        };
        let sent = self.sent(spender)?;
        let window = ms(repeat_window(sent.grace, Policy::default().repeat_limit)?);
        let due = lost_at + (1_000 << first.nth.saturating_sub(2).min(8)) + 200;
        let in_time = due < sent.window_from + window;
        let answered = due + 1_000 < reuse.spent_at.saturating_add(self.issuer.grace);
        if !in_time || !answered || !self.may_be_repeated(first, lost_at) {
            return None;
        }
        let to_repeat = Span {
            from: lost_at,
            until: due,
        };
        let (past, process) = (&self.judge.past, first.process);
        let narrowed = Span {
            from: first.sent_at,
            until: due,
        };
        let hindered = past.kept_from_noting(reuse.login, to_repeat)
            || past.was_stopped(process, lost_at, due)
            || past.was_narrowed(narrowed)
            || self.died(process, first.epoch).is_some_and(|at| at <= due);
        let repeated = self.calls[spender + 1..].iter().any(|other| {
            other.presents == first.presents && other.label.is_some() && other.set_out_at <= due
        });
        (!hindered && !repeated).then(|| {
            format!("p{process} knew in time that the answer to call {spender} was lost, and did not repeat it")
        })
    }

    /// What the rule leaves out: probes have a time of their own, a look allows one call, a row of failures gets two repeats
    /// and none where it is uncertain already; and an hour has few.
    fn may_be_repeated(&self, call: &Call, lost_at: u64) -> bool {
        let failing = call.answered_at.is_some()
            && call
                .fate
                .spoilt
                .as_ref()
                .is_some_and(|page| page.status >= 500);
        let most = match (failing, call.label) {
            (_, Some(Label::ProbeSuspect | Label::Restored)) => 0,
            (true, Some(Label::Uncertain)) if call.nth == 1 => 0,
            (true, _) => 2,
            (false, _) => u64::from(Policy::default().most_repeats),
        };
        let before = self.calls.iter().filter(|other| {
            other.presents == call.presents
                && other.run != call.run
                && other.sent_at < lost_at
                && lost_at - other.sent_at < HOUR
        });
        let (mut calls, mut extra) = (0, 0);
        for other in before {
            calls += 1;
            extra += u64::from(other.nth > 1 || other.early);
        }
        let spare = extra + call.nth <= EXTRA_AN_HOUR && calls + call.nth < CALLS_AN_HOUR;
        !call.early && call.nth <= most && spare
    }

    pub(super) fn set_out_at(&self, call: CallId) -> u64 {
        self.calls[call].set_out_at
    }
}

/// The contract's, in milliseconds.
pub(super) fn repeat_limit() -> u64 {
    ms(Policy::default().repeat_limit)
}

/// So long the first repeat may wait, and be noted.
const LONGEST_PAUSE: u64 = 1_200;

/// So long a connection may take to stand.
pub(super) const LONGEST_CONNECT: u64 = 10_000;
const HOUR: u64 = 3_600_000;
/// Repeats and calls because the issuer is back (I-9), and all calls.
const EXTRA_AN_HOUR: u64 = 5;
const CALLS_AN_HOUR: u64 = 24;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::world::{Grace, Level, LossClass, Setup, Variant, simulate};

    /// F-04, I-20: a program that never repeats a call loses logins that a repeat would have kept, and nothing else is said of
    /// it; where the issuer takes nothing spent, no repeat would have.
    #[test]
    fn a_repeat_that_was_not_made_is_missed() {
        let avoidable = |grace: Duration, variant| {
            let mut setup = Setup::new(Grace(grace), Level::Harsh);
            (setup.variant, setup.processes) = (variant, Some(2));
            let reports = (0..12).map(|seed| simulate(&setup, seed));
            let (mut avoidable, mut broken) = (0, 0);
            for report in reports {
                avoidable += report.count(LossClass::Avoidable);
                broken += report.broken.len();
            }
            (avoidable, broken)
        };
        let never = Some(Variant::NeverRepeats);
        let (missed, broken) = avoidable(Duration::from_secs(30), never);
        assert!(
            missed > 0 && broken == 0,
            "{missed} missed, {broken} broken"
        );
        assert_eq!(avoidable(Duration::ZERO, never), (0, 0));
        assert_eq!(avoidable(Duration::from_secs(30), None), (0, 0));
    }
}
