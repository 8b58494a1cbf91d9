//! The class of a loss: why a grant ended that a spent refresh token ended.

use crate::world::{
    Loss, LossClass, World,
    issuer::Ended,
    network::{Call, CallId},
    past::Span,
};

/// The end of a grant: a token was spent, and then presented again.
pub(super) struct Reuse<'a> {
    pub(super) login: usize,
    pub(super) at: u64,
    /// The call that spent the token.
    pub(super) spender: CallId,
    pub(super) first: &'a Call,
    /// When the issuer acted on it.
    pub(super) spent_at: u64,
    /// What it brought: when that reached a living process, and which; and when it was durable.
    pub(super) delivered: Option<(u64, usize, u32)>,
    pub(super) durable_at: Option<u64>,
    /// The call that presented it again.
    pub(super) again: CallId,
    pub(super) killer: &'a Call,
}

impl World {
    /// The class of each loss so far.
    pub(super) fn judge_losses(&mut self) {
        for (at, family) in std::mem::take(&mut self.judge.deaths) {
            if let Some((class, story)) = self.class_of(family, at) {
                let untaught = class == LossClass::UnknownGrace && self.judge.lessons.lost(family);
                self.report.unlearned += u64::from(untaught);
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
        // Who made it knows of it all the same.
        let other = (killer.process, killer.epoch) != (reuse.first.process, reuse.first.epoch);
        let noted = self.sent(reuse.spender);
        let noted = noted.filter(|_| reuse.first.noted && other);
        if lost(noted.map(|sent| sent.noted_at)) {
            return inherent(format!(
                "the store had lost the note of call {}",
                reuse.spender
            ));
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
        if waiting && first.fate.replies.is_some() && first.fate.spoilt.is_none() {
            return avoidable(format!(
                "call {call} ({label:?}) left while the answer to call {spender} was on its way"
            ));
        }
        if let Some(end) = self.given_up_for_nothing(reuse) {
            return end;
        }
        let missed = self.missed_repeat(reuse);
        if let Some(story) = missed.or_else(|| self.missed_takeover(reuse)) {
            return avoidable(story);
        }
        inherent(format!(
            "the answer to call {spender} was lost, and call {call} ({label:?}) came too late"
        ))
    }

    pub(super) fn died(&self, process: usize, epoch: u32) -> Option<u64> {
        self.judge.died.get(&(process, epoch)).copied()
    }
}

pub(super) fn avoidable(story: impl Into<String>) -> (LossClass, String) {
    (LossClass::Avoidable, story.into())
}

pub(super) fn inherent(story: impl Into<String>) -> (LossClass, String) {
    (LossClass::Inherent, story.into())
}
