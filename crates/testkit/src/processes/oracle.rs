//! The judge: what the issuer saw, beside what the processes noted before they sent.
//!
//! The product cannot cheat here: the ledger is the issuer's own. A refresh carries no label on the wire; that a call was
//! a knowing repeat is shown by the attempt that the store had made durable before it left, which the harness's store
//! reports, and by the login's history.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pilotlight::core::{
    attempt::Label,
    event::{Event, Happened},
};

use super::{
    said::{Line, Said},
    testimony::Testimony,
};
use crate::authorization_server::{Entry, Kind, Ledger, Outcome};

mod held;

pub use held::Held;

/// What became of a login, and of the rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// Refreshes that the issuer processed.
    pub refreshes: u64,
    /// Spent refresh tokens presented under a label.
    pub spent_labelled: u64,
    /// Spent refresh tokens presented without one: never allowed.
    pub spent_unlabelled: u64,
    /// Those whose first use nobody could know of: only a process that was killed had the token, while neither store nor
    /// spool took anything, not even the note of that use. *Inherent*.
    pub spent_unknowably: u64,
    /// What became of the versions that for a while only one process had.
    pub held: Held,
    /// Whether the issuer ended a family because of reuse, and whether that could be helped.
    pub loss: Option<Loss>,
    /// Every rule that was broken, in words.
    pub violations: Vec<String>,
}

/// Why a session was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The issuer rotated, and the process died before the answer was durable anywhere; the issuer repeats nothing.
    /// Nobody could have saved it: *inherent*.
    AnswerDiedWithItsProcess,
    /// Anything else: *avoidable*.
    Avoidable,
}

impl Loss {
    /// What tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswerDiedWithItsProcess => "inherent",
            Self::Avoidable => "avoidable",
        }
    }
}

/// One refresh token's life, from both sides.
#[derive(Debug, Default)]
struct Life<'a> {
    presented: Vec<&'a Entry>,
    noted: Vec<Noted<'a>>,
}

/// Something that a process said about a refresh token.
#[derive(Debug, Clone, Copy)]
struct Noted<'a> {
    at_ms: u64,
    by: &'a Testimony,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Attempt { label: Option<Label>, durable: bool },
    Cleared,
    Durable,
    Held,
}

/// Judges what happened to the logins of one store. `stored` is the refresh token found there in the end, `events` its
/// history.
#[must_use]
pub fn judge(
    ledger: &Ledger,
    witnesses: &[Arc<Testimony>],
    stored: Option<&str>,
    events: &[Event],
) -> Judgement {
    let said: Vec<(&Testimony, Vec<Line>)> = witnesses
        .iter()
        .map(|witness| (witness.as_ref(), witness.lines()))
        .collect();
    let lives = lives(ledger, &said);
    let mut judgement = Judgement::default();
    for (token, life) in &lives {
        judgement.refreshes += life
            .presented
            .iter()
            .filter(|entry| entry.outcome == Outcome::Ok)
            .count() as u64;
        life.judge(token, &mut judgement);
    }
    superseded(&said, &mut judgement);
    held::look_at(&said, &mut judgement);
    let reuse: Vec<&Entry> = reuse(ledger).collect();
    if let Some(last) = reuse.last() {
        let token = last.refresh_token.as_deref().unwrap_or_default();
        let inherent = lives.get(token).is_some_and(Life::answer_died) && stored == Some(token);
        judgement.loss = Some(if inherent {
            Loss::AnswerDiedWithItsProcess
        } else {
            Loss::Avoidable
        });
        for (token, life) in &lives {
            // Whoever was told of the refusal and lived has written it down, and nobody asks again.
            let asked = reuse
                .iter()
                .filter(|entry| entry.refresh_token.as_deref() == Some(token))
                .count();
            if asked > life.killed_senders().max(1) {
                judgement.violations.push(format!(
                    "I-7: {token} was presented {asked} times after it was spent"
                ));
            }
        }
        if !events.iter().any(names_the_lost_answer) {
            judgement
                .violations
                .push("the history names no repeat of a call whose answer was lost".into());
        }
    }
    if judgement.spent_unlabelled > 0 {
        judgement.violations.push(format!(
            "I-3: {} spent refresh tokens presented without a label",
            judgement.spent_unlabelled
        ));
    }
    judgement
}

/// I-2: a refresh token is never spent when a later one of the same login is durable already.
fn superseded(said: &[(&Testimony, Vec<Line>)], judgement: &mut Judgement) {
    let lines = || {
        said.iter()
            .flat_map(|(by, lines)| lines.iter().map(move |line| (by, line)))
    };
    let durable: Vec<(u64, &str, u64)> = lines()
        .filter_map(|(_, line)| match &line.said {
            Said::Durable {
                login, generation, ..
            } => Some((line.at_ms, login.as_str(), *generation)),
            _ => None,
        })
        .collect();
    for (by, line) in lines() {
        if let Said::Attempt {
            login, generation, ..
        } = &line.said
            && let Some((_, _, newer)) = durable
                .iter()
                .find(|(at_ms, of, its)| *at_ms < line.at_ms && of == login && its > generation)
        {
            judgement.violations.push(format!(
                "I-2: {} spends generation {generation} when {newer} is durable",
                by.name()
            ));
        }
    }
}

/// The presentations of spent refresh tokens that ended a session. What a fault answered was not processed.
pub fn reuse(ledger: &Ledger) -> impl Iterator<Item = &Entry> {
    let processed = |entry: &&Entry| matches!(entry.outcome, Outcome::Error(_));
    ledger.reuse().filter(processed)
}

/// Whether an event says that a call was refused which repeated one whose answer nobody had.
fn names_the_lost_answer(event: &Event) -> bool {
    matches!(
        &event.happened,
        Happened::Lost { label: Some(_), .. } | Happened::Suspected { label: Some(_), .. }
    )
}

fn lives<'a>(
    ledger: &'a Ledger,
    said: &'a [(&'a Testimony, Vec<Line>)],
) -> BTreeMap<&'a str, Life<'a>> {
    let mut lives: BTreeMap<&str, Life<'a>> = BTreeMap::new();
    for entry in ledger
        .of(Kind::Refresh)
        .filter(|entry| !matches!(entry.outcome, Outcome::Fault(_)))
    {
        let token = entry.refresh_token.as_deref().unwrap_or_default();
        lives.entry(token).or_default().presented.push(entry);
    }
    for (by, lines) in said {
        for line in lines {
            let (token, what) = match &line.said {
                Said::Attempt {
                    token,
                    label,
                    durable,
                    ..
                } => (
                    token,
                    What::Attempt {
                        label: *label,
                        durable: *durable,
                    },
                ),
                Said::Cleared { token } => (token, What::Cleared),
                Said::Durable { token, .. } => (token, What::Durable),
                Said::Held { token, .. } => (token, What::Held),
                _ => continue,
            };
            let noted = &mut lives.entry(token).or_default().noted;
            // What the store refused and the spool took is one attempt.
            let refused = What::Attempt {
                label: label_of(what),
                durable: false,
            };
            let taken = matches!(what, What::Attempt { durable: true, .. });
            let before = noted.last().filter(|last| last.what == refused);
            if taken && before.is_some_and(|last| std::ptr::eq(last.by, *by)) {
                noted.pop();
            }
            noted.push(Noted {
                at_ms: line.at_ms,
                by,
                what,
            });
        }
    }
    for life in lives.values_mut() {
        // What one process says is in order already; a stable sort keeps it so.
        life.noted.sort_by_key(|noted| noted.at_ms);
    }
    lives
}

fn label_of(what: What) -> Option<Label> {
    match what {
        What::Attempt { label, .. } => label,
        _ => None,
    }
}

impl Life<'_> {
    fn attempts(&self) -> impl Iterator<Item = (&Noted<'_>, Option<Label>, bool)> {
        self.noted.iter().filter_map(|noted| match noted.what {
            What::Attempt { label, durable } => Some((noted, label, durable)),
            _ => None,
        })
    }

    fn judge(&self, token: &str, judgement: &mut Judgement) {
        let spent = self
            .presented
            .iter()
            .filter(|entry| entry.spent_before)
            .count() as u64;
        let labels = self
            .attempts()
            .filter(|(_, label, _)| label.is_some())
            .count() as u64;
        let unlabelled = spent.saturating_sub(labels);
        let unknowable = unlabelled.min(self.died_unknown().into());
        judgement.spent_labelled += spent.min(labels);
        judgement.spent_unknowably += unknowable;
        judgement.spent_unlabelled += unlabelled - unknowable;

        let mut may_be_spent = false;
        for noted in &self.noted {
            match noted.what {
                // What is not durable is known to nobody else; that it was sent shows in the ledger.
                What::Attempt { durable: false, .. } | What::Durable | What::Held => {}
                What::Attempt { label, .. } => {
                    if may_be_spent && label.is_none() {
                        judgement.violations.push(format!("I-3: {} noted a call with {token} that repeats another, without a label", noted.by.name()));
                    }
                    may_be_spent = true;
                }
                What::Cleared => may_be_spent = false,
            }
        }
        for (label, most) in [
            (Label::RetryAmbiguous, 1),
            (Label::AfterCrash, 1),
            (Label::Restored, 1),
        ] {
            let count = self
                .attempts()
                .filter(|(_, its, _)| *its == Some(label))
                .count();
            if count > most {
                judgement
                    .violations
                    .push(format!("I-1: {count} calls with {token} as {label:?}"));
            }
        }
        for (number, entry) in self.presented.iter().enumerate() {
            let noted = self
                .attempts()
                .filter(|(noted, ..)| noted.at_ms <= entry.at_ms)
                .count();
            if noted <= number {
                judgement.violations.push(format!(
                    "{token} was sent for the {}. time, with {noted} attempts noted",
                    number + 1
                ));
            }
        }
        let repeats_unnoted = self
            .attempts()
            .any(|(_, label, durable)| label.is_some() && !durable);
        if repeats_unnoted && spent > 0 {
            judgement.violations.push(format!(
                "I-1: a repeat with {token} whose label was not durable"
            ));
        }
    }

    /// How many processes that were about to send it were killed.
    fn killed_senders(&self) -> usize {
        let killed = self.attempts().filter(|(noted, ..)| noted.by.was_killed());
        killed
            .map(|(noted, ..)| noted.by.pid)
            .collect::<BTreeSet<u32>>()
            .len()
    }

    /// Whether its first use died with the only process that had the token, and of which nothing durable knew.
    fn died_unknown(&self) -> bool {
        let Some((first, _, false)) = self.attempts().next() else {
            return false;
        };
        let before = |noted: &&Noted<'_>| noted.at_ms <= first.at_ms;
        let only_one = self
            .noted
            .iter()
            .filter(before)
            .any(|noted| noted.what == What::Held && std::ptr::eq(noted.by, first.by));
        let nobody_else = !self
            .noted
            .iter()
            .filter(before)
            .any(|noted| noted.what == What::Durable);
        first.by.was_killed() && only_one && nobody_else
    }

    /// Whether the issuer rotated this token for a process that was killed before anything else.
    fn answer_died(&self) -> bool {
        let rotated = |entry: &&&Entry| entry.outcome == Outcome::Ok && !entry.spent_before;
        let Some(rotated) = self.presented.iter().find(rotated) else {
            return false;
        };
        let senders: Vec<&Noted<'_>> = self.attempts().map(|(noted, ..)| noted).collect();
        // Whoever was refused in the end is the last; one of those before it had the answer, if it had asked by then.
        let before_the_last = senders
            .split_last()
            .map(|(_, earlier)| earlier)
            .unwrap_or_default();
        before_the_last
            .iter()
            .any(|noted| noted.at_ms <= rotated.at_ms && noted.by.was_killed())
    }
}

#[cfg(test)]
mod tests;
