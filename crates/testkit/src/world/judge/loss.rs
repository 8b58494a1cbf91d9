//! The class of a loss: why a grant ended that a spent refresh token ended.

use crate::world::{
    Loss, LossClass, World,
    issuer::Ended,
    ms,
    network::{Call, CallId, DEADLINE, Failed},
    past::Span,
};

/// The end of a grant: a token was spent, and then presented again.
struct Reuse<'a> {
    login: usize,
    at: u64,
    /// The call that spent the token.
    spender: CallId,
    first: &'a Call,
    /// When the issuer acted on it.
    spent_at: u64,
    /// What it brought: when that reached a living process, and which; and when it was durable.
    delivered: Option<(u64, usize, u32)>,
    durable_at: Option<u64>,
    /// The call that presented it again.
    again: CallId,
    killer: &'a Call,
}

impl World {
    /// The class of each loss so far.
    pub(super) fn judge_losses(&mut self) {
        for (at, family) in std::mem::take(&mut self.judge.deaths) {
            if let Some((class, story)) = self.class_of(family, at) {
                self.trace
                    .say(at, || format!("LOST grant {family}: {class:?}: {story}"));
                self.report.losses.push(Loss {
                    class,
                    at,
                    story: format!("grant {family}: {story}"),
                });
            }
        }
    }

    /// Why a grant ended that a spent refresh token ended; `None` where nobody lived from it any more.
    fn class_of(&self, family: usize, at: u64) -> Option<(LossClass, String)> {
        let grant = &self.issuer.families[family];
        let Some(Ended::Reuse { number, call }) = grant.ended else {
            return None;
        };
        let superseded = self.issuer.families[family + 1..].iter().any(|later| {
            later.login == grant.login
                && later.refresh[0]
                    .durable_at
                    .is_some_and(|durable| durable <= at)
        });
        if superseded {
            return None;
        }
        let (spent_at, spender) = grant.refresh[number].spent?;
        let successor = &grant.refresh[number + 1];
        // A version that memory alone held goes into the store with the one that followed it.
        let later = grant.refresh.iter().skip(number + 1);
        let durable_at = later.filter_map(|token| token.durable_at).min();
        let killer = &self.calls[call];
        Some(
            self.class_of_reuse(&Reuse {
                login: grant.login,
                at,
                spender,
                first: &self.calls[spender],
                spent_at,
                delivered: successor
                    .delivered
                    .filter(|(delivered, ..)| *delivered <= killer.sent_at),
                durable_at,
                again: call,
                killer,
            }),
        )
    }

    fn class_of_reuse(&self, reuse: &Reuse<'_>) -> (LossClass, String) {
        let Reuse { killer, again, .. } = *reuse;
        let lost = |written: Option<u64>| {
            written.is_some_and(|at| self.judge.past.has_lost(reuse.login, at, killer.sent_at))
        };
        if lost(reuse.durable_at) {
            return inherent("the store had lost the newer token");
        }
        let noted = self.sent(reuse.spender).filter(|_| reuse.first.noted);
        if lost(noted.map(|sent| sent.noted_at)) {
            return inherent(format!(
                "the store had lost the note of call {}",
                reuse.spender
            ));
        }
        if killer.stopped && killer.label.is_some() {
            let stopped = killer.process;
            return inherent(format!("p{stopped} was stopped as it sent its repeat"));
        }
        if reuse.spender == again {
            return inherent(format!("the network sent call {again} twice"));
        }
        if reuse.first.sent_at > killer.sent_at {
            return self.overtaken(reuse);
        }
        if let Some(delivered) = reuse.delivered {
            return self.delivered(reuse, delivered);
        }
        self.unanswered(reuse)
    }

    /// The repeat came first, and then the call that it repeats.
    fn overtaken(&self, reuse: &Reuse<'_>) -> (LossClass, String) {
        let Reuse { first, killer, .. } = *reuse;
        let in_time = reuse.at + 200 < self.set_out_at(reuse.again) + DEADLINE;
        let dead = matches!(killer.failed, Some((_, Failed::DeadPath)));
        let soon = first.sent_at - killer.sent_at <= self.repeat_limit();
        // Once the token has ended nothing is left to wait for: that is no trial of the issuer's grace.
        let uncertain = Some(pilotlight_core::attempt::Label::Uncertain);
        let repeats = first.run == killer.run || first.label != uncertain;
        let class = if in_time && dead && soon && repeats {
            LossClass::UnknownGrace
        } else {
            LossClass::Inherent
        };
        let (late, spender) = (reuse.again, reuse.spender);
        let story = format!("call {late}, given up, reached the issuer after call {spender}");
        (class, story)
    }

    /// The newer token had reached a process.
    fn delivered(
        &self,
        reuse: &Reuse<'_>,
        (delivered, process, epoch): (u64, usize, u32),
    ) -> (LossClass, String) {
        let (sent_at, label, call) = (reuse.killer.sent_at, reuse.killer.label, reuse.again);
        if reuse.durable_at.is_some_and(|durable| durable <= sent_at) {
            return avoidable(format!(
                "call {call} ({label:?}) sent a spent token although the newer one was durable"
            ));
        }
        let Some(died) = self.died(process, epoch).filter(|died| *died <= sent_at) else {
            return avoidable(format!(
                "call {call} ({label:?}) sent a spent token although p{process} held the newer one"
            ));
        };
        let within = Span {
            from: delivered,
            until: died.max(delivered),
        };
        let could = self.judge.past.could_save(process, within);
        if could > 2_000 {
            return avoidable(format!("p{process} had {could} ms to store what it got"));
        }
        if let Some(story) = self.missed_takeover(reuse) {
            return avoidable(story);
        }
        inherent(format!("p{process} died before the answer was durable"))
    }

    /// Nobody had the answer.
    fn unanswered(&self, reuse: &Reuse<'_>) -> (LossClass, String) {
        let Reuse { first, killer, .. } = *reuse;
        let (call, spender, label) = (reuse.again, reuse.spender, killer.label);
        let waiting = first
            .failed
            .is_none_or(|(gave_up, _)| gave_up > killer.sent_at)
            && self
                .died(first.process, first.epoch)
                .is_none_or(|died| died > killer.sent_at)
            && first
                .answered_at
                .is_none_or(|answered| answered > killer.sent_at);
        let readable = first.fate.spoilt.is_none();
        match (first.fate.replies, first.failed) {
            (Some(_), _) if waiting && readable => {
                return avoidable(format!(
                    "call {call} ({label:?}) left while the answer to call {spender} was on its way"
                ));
            }
            (Some(replies), Some((given_up, Failed::DeadPath)))
                if readable && replies <= self.set_out_at(spender) + DEADLINE =>
            {
                return self.given_up(reuse, replies, given_up);
            }
            _ => {}
        }
        if let Some(story) = self.missed_takeover(reuse) {
            return avoidable(story);
        }
        inherent(format!(
            "the answer to call {spender} was lost, and call {call} ({label:?}) came too late"
        ))
    }

    /// A path was found dead, and would have brought the answer after all.
    fn given_up(&self, reuse: &Reuse<'_>, replies: u64, given_up: u64) -> (LossClass, String) {
        let Reuse { first, killer, .. } = *reuse;
        let (call, spender, label) = (reuse.again, reuse.spender, killer.label);
        let limit = self.repeat_limit();
        let in_window = killer.sent_at - first.sent_at <= limit;
        let until = first.sent_at + limit;
        let to_repeat = Span {
            from: given_up,
            until,
        };
        // From when it left: the note of a repeat by somebody else counts, too.
        let whole = Span {
            from: first.sent_at,
            until: until.min(killer.sent_at),
        };
        let (past, process) = (&self.judge.past, first.process);
        // The rule was kept, and its repeat met a fault of its own.
        let repeated = self.calls[spender + 1..call].iter().any(|other| {
            let leaves = other.sent_at.saturating_sub(first.sent_at);
            let stayed = other.not_delivered && leaves <= limit + LONGEST_CONNECT;
            other.login == reuse.login && other.label.is_some() && (leaves <= limit || stayed)
        });
        if !in_window && past.kept_from_noting(reuse.login, whole) {
            return inherent(format!(
                "the store did not take the note of a repeat of call {spender}"
            ));
        }
        if label.is_none() && !first.noted {
            return inherent(format!("no note of call {spender} could be made"));
        }
        if repeated {
            return inherent(format!(
                "call {spender} met a dead path, and its repeat another fault"
            ));
        }
        let under_way = Span {
            from: first.sent_at,
            until: given_up + 200,
        };
        if !in_window && past.was_narrowed(under_way) {
            return inherent(format!(
                "while call {spender} was under way, a refusal taught that no repeat may follow"
            ));
        }
        if !in_window && past.was_stopped(process, to_repeat.from, to_repeat.until) {
            return inherent(format!(
                "p{process} was stopped when it was about to repeat call {spender}"
            ));
        }
        if self
            .died(process, first.epoch)
            .is_some_and(|died| died <= replies)
        {
            return inherent(format!("p{process} died before the path healed"));
        }
        if in_window && label.is_some() {
            let story =
                format!("call {call} repeated call {spender} on a path that was only slow to heal");
            return (LossClass::UnknownGrace, story);
        }
        avoidable(format!(
            "call {spender} was given up for nothing: call {call} ({label:?}) came too late to be a repeat"
        ))
    }

    /// Whether a process saw in time that the sender of the first call was dead, and did not repeat the call although
    /// nothing kept it from that and the issuer would have answered.
    fn missed_takeover(&self, reuse: &Reuse<'_>) -> Option<String> {
        let Reuse { first, spender, .. } = *reuse;
        let died = self.died(first.process, first.epoch)?;
        let mut seen = self.judge.standing.iter();
        let standing = seen.find(|standing| standing.call == spender)?;
        // It is looked for each second; the dead hold no lock; and a few looks at the store come before the call.
        let due = (standing.seen_at + 1_000).max(died) + 1_000;
        let answered = due + 1_000 < reuse.spent_at.saturating_add(self.issuer.grace);
        let calm = Span {
            from: first.sent_at,
            until: due,
        };
        let others = self
            .judge
            .died
            .iter()
            .any(|(life, died)| *life != (first.process, first.epoch) && calm.holds(*died));
        let repeated = self.calls[spender + 1..].iter().any(|other| {
            other.login == reuse.login && other.sent_at <= standing.until + LONGEST_CONNECT
        });
        let hindered = others || repeated || self.judge.past.was_troubled(calm);
        (due < standing.until && answered && !hindered).then(|| {
            let (by, dead) = (standing.by, first.process);
            format!(
                "p{by} saw in time that p{dead} had died over call {spender}, and did not repeat it"
            )
        })
    }

    fn died(&self, process: usize, epoch: u32) -> Option<u64> {
        self.judge.died.get(&(process, epoch)).copied()
    }

    fn set_out_at(&self, call: CallId) -> u64 {
        self.sent(call)
            .map_or(self.calls[call].sent_at, |sent| sent.set_out_at)
    }

    fn repeat_limit(&self) -> u64 {
        ms(self.setup.policy.repeat_limit)
    }
}

fn avoidable(story: impl Into<String>) -> (LossClass, String) {
    (LossClass::Avoidable, story.into())
}

fn inherent(story: impl Into<String>) -> (LossClass, String) {
    (LossClass::Inherent, story.into())
}

/// So long a connection may take to stand.
const LONGEST_CONNECT: u64 = 10_000;
