//! The judge: invariants after every step, and the class of each loss. It knows what no program can.

use std::collections::HashMap;

use pilotlight_core::{
    attempt::Label,
    credential::{Credential, Incarnation, Version},
    flow::{Commit, Expects},
    freshness::refresh_point,
};

use super::{
    Kind, Level, Loss, LossClass, World,
    issuer::Ended,
    ms,
    network::{CallId, DEADLINE, Failed},
    pace::Failing,
    store::Health,
};

/// What the judge remembers.
#[derive(Debug)]
pub(super) struct Judge {
    /// Grants that a spent refresh token ended: when.
    pub(super) deaths: Vec<(u64, usize)>,
    /// Lives of processes: when each ended.
    pub(super) died: HashMap<(usize, u32), u64>,
    /// When the store went back in time, by login.
    pub(super) rolled_back: Vec<Vec<u64>>,
    /// When a request was last answered well, and when one failed, by login.
    served: Vec<u64>,
    missed: Vec<u64>,
    /// The calls of each version.
    calls: HashMap<(Incarnation, u64), Vec<CallId>>,
    /// By login: when the last call failed, and the calls of this row of failures.
    pub(super) failing: Vec<Failing>,
    /// When which process was stopped.
    pub(super) stops: Vec<(usize, u64)>,
}

impl Judge {
    pub(super) fn new(logins: usize) -> Self {
        Self {
            deaths: Vec::new(),
            died: HashMap::new(),
            rolled_back: vec![Vec::new(); logins],
            served: vec![0; logins],
            missed: vec![0; logins],
            calls: HashMap::new(),
            failing: vec![Failing::default(); logins],
            stops: Vec::new(),
        }
    }

    pub(super) fn served(&mut self, login: usize, now: u64) {
        self.served[login] = now;
    }

    pub(super) fn missed(&mut self, login: usize, now: u64) {
        self.missed[login] = now;
    }
}

/// The two numbers of a token: its grant, and which of it.
pub(super) fn number(token: &str) -> Option<(usize, usize)> {
    // As a set of one: a search for a lone character is made for long texts, and every request comes here.
    let mut parts = token.split(['.']).skip(1);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl World {
    /// A token call is about to leave: which label it carries.
    pub(super) fn check_send(
        &mut self,
        run: usize,
        presents: Option<(usize, usize)>,
    ) -> (Option<Label>, bool) {
        let (Some(presented), Some(own)) = (presents, self.runs[run].as_deref()) else {
            return (None, true);
        };
        let (process, epoch, login, want) = (own.process, own.epoch, own.login, own.want);
        let Some((version, attempt, noted)) = own.attempt else {
            self.broken("I-1", || format!("p{process} sends without any attempt"));
            return (None, false);
        };
        let noted_while = own.noted_while;
        let label = attempt.label;
        // What a store has forgotten nobody can know.
        let since = match self.plan.has(Kind::RollBack) {
            true => u64::MAX,
            false => 0,
        };
        if self.locks[login].holder != Some((process, epoch, run)) {
            self.broken("I-16", || format!("p{process} sends without the lease"));
        }
        let row = &self.store.rows[login];
        let newer = row
            .newest()
            .is_some_and(|newest| newest.version.succeeds(&version));
        if newer {
            self.broken("I-2", || {
                format!("p{process} sends what is no longer the newest")
            });
        }
        if !noted && noted_while != Health::Broken {
            self.broken("I-1", || {
                format!("p{process} sends without a durable note of it ({label:?})")
            });
        }
        let id = self.calls.len();
        let key = (version.incarnation, version.generation.0);
        let earlier = self.judge.calls.entry(key).or_default();
        let before = earlier.clone();
        earlier.push(id);
        let unclear: Vec<CallId> = before
            .iter()
            .copied()
            .filter(|call| {
                let call = &self.calls[*call];
                !call.not_delivered && call.noted && call.sent_at >= since
            })
            .collect();
        let at_issuer = unclear.iter().any(|call| {
            let call = &self.calls[*call];
            call.processed_at.is_none() && call.fate.arrives.is_some_and(|at| at > self.now)
        });
        if label.is_none() {
            if at_issuer {
                self.broken("I-1", || {
                    format!("p{process}: two unlabelled calls at once")
                });
            } else if !unclear.is_empty() {
                self.broken("I-3", || {
                    format!("p{process} sends again what was sent, unlabelled")
                });
            }
        }
        let most = match label {
            Some(Label::RetryAmbiguous | Label::AfterCrash | Label::Restored) => 1,
            Some(Label::ProbeSuspect) => 4,
            _ => usize::MAX,
        };
        let same = unclear
            .iter()
            .filter(|call| self.calls[**call].label == label)
            .count();
        // What a store refuses to note of a probe, the next process cannot know.
        let noting = ![Kind::DiskFull, Kind::DiskBroken, Kind::StoreLostAnswer]
            .iter()
            .any(|kind| self.plan.has(*kind));
        if label.is_some() && same >= most && (noting || label != Some(Label::ProbeSuspect)) {
            self.broken("I-1", || format!("p{process}: one {label:?} too many"));
        }
        self.check_pace(login, presented.0, label);
        self.check_early(login, version, presented, label, want);
        (label, noted)
    }

    /// I-10: no refresh before its point, unless the token was refused or somebody asked.
    fn check_early(
        &mut self,
        login: usize,
        version: Version,
        presented: (usize, usize),
        label: Option<Label>,
        want: super::Want,
    ) {
        let odd = [Kind::NoLifetime, Kind::CachedToken, Kind::RollBack];
        // After a restart of the machine only the wall clock can tell an age, and it may be wrong.
        let unsure = self.plan.has(Kind::Reboot)
            && (self.plan.has(Kind::Skew) || self.plan.has(Kind::ClockJump));
        let odd = unsure || odd.iter().any(|kind| self.plan.has(*kind));
        if label.is_some() || want.refused.is_some() || odd {
            return;
        }
        let Some(credential) = self.store.rows[login]
            .newest()
            .filter(|newest| newest.version == version)
        else {
            return;
        };
        let grant = &self.issuer.families[presented.0];
        let Some(token) = grant.access.last() else {
            return;
        };
        // A token's life counts from when its request left; a program that has forgotten that has no excuse.
        let life = std::time::Duration::from_millis(self.issuer.lifetime);
        let from = credential
            .received_at
            .map_or(token.issued_at, |received| self.instant(received));
        let point = from + ms(refresh_point(life, credential.spread(), self.setup.policy));
        if grant.ended.is_none() && self.now + 2_000 < point {
            let early = point - self.now;
            self.broken("I-10", || {
                format!("login {login}: a refresh {early} ms before its point")
            });
        }
    }

    /// A version is about to be written.
    pub(super) fn check_commit(&mut self, login: usize, commit: &Commit) {
        let new = &commit.credential;
        let Some(old) = self.store.rows[login].newest() else {
            return;
        };
        let same = old.version.incarnation == new.version.incarnation;
        if same
            && old.refresh_token.is_some()
            && new.refresh_token.is_none()
            && commit.expects != Expects::Anything
        {
            self.broken("I-6", || {
                format!("login {login}: a refresh token is dropped")
            });
        }
    }

    /// A version was written: what was there before must not have been newer, or a later login's.
    pub(super) fn check_written(&mut self, login: usize, before: Option<Credential>) {
        let after = self.store.rows[login]
            .record
            .as_ref()
            .and_then(|record| record.credential.as_ref());
        let (Some(before), Some(after)) = (before, after) else {
            return;
        };
        let family = |credential: &Credential| {
            credential
                .refresh_token
                .as_ref()
                .and_then(|token| number(token.expose()))
        };
        if before.version.succeeds(&after.version) {
            self.broken("I-5", || {
                format!("login {login}: the stored generation goes back")
            });
        } else if family(&before).map(|(f, _)| f) > family(after).map(|(f, _)| f) {
            self.broken("I-5", || {
                format!("login {login}: a login loses to a refresh")
            });
        }
    }

    /// I-4: nobody sees a new token that is not durable, or known not to be.
    pub(super) fn check_settled(&mut self, process: usize, login: usize) {
        let memory = &self.processes[process].cells[login].memory;
        let Ok(credential) = memory.credential() else {
            return;
        };
        if memory.unsaved || self.is_durable(credential) {
            return;
        }
        let generation = credential.version.generation.0;
        self.broken("I-4", || {
            format!(
                "p{process} login {login}: generation {generation} is served, and nowhere durable"
            )
        });
    }

    fn is_durable(&self, credential: &Credential) -> bool {
        let token = credential
            .refresh_token
            .as_ref()
            .and_then(|token| number(token.expose()));
        token.is_none_or(|(family, number)| {
            self.issuer.families[family].refresh[number]
                .durable_at
                .is_some()
        })
    }

    pub(super) fn mark_durable(&mut self, credential: &Credential) {
        if let Some((family, number)) = credential
            .refresh_token
            .as_ref()
            .and_then(|token| number(token.expose()))
        {
            let now = self.now;
            self.issuer.families[family].refresh[number]
                .durable_at
                .get_or_insert(now);
        }
    }

    pub(super) fn mark_due(&mut self, process: usize, login: usize) {
        let token = self
            .memory(process, login)
            .credential()
            .ok()
            .and_then(|credential| number(credential.access_token.expose()));
        if let Some((family, access)) = token {
            self.mark_access_due(family, access);
        }
    }

    /// A token that is due, ended or refused is good for one refresh.
    pub(super) fn mark_access_due(&mut self, family: usize, access: usize) {
        let token = &mut self.issuer.families[family].access[access];
        if !std::mem::replace(&mut token.due, true) {
            self.report.intervals += 1;
        }
    }

    /// I-7: nothing is believed lost while the issuer would still take it.
    pub(super) fn check_believed(&mut self, login: usize, version: Version) {
        let newest = self.store.rows[login]
            .newest()
            .filter(|newest| newest.version == version)
            .and_then(|credential| credential.refresh_token.as_ref());
        let Some((family, _)) = newest.and_then(|token| number(token.expose())) else {
            return;
        };
        if self.issuer.families[family].ended.is_none() && self.issuer.knows(family) {
            self.broken("I-7", || {
                format!("login {login}: grant {family} is believed lost, and is not")
            });
        }
    }

    /// The end of a run.
    pub(super) fn finish(&mut self) {
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
        for login in 0..self.targets.len() {
            self.check_alive(login);
        }
        if self.setup.level == Level::Calm {
            let (refreshes, intervals) = (self.issuer.refreshes, self.report.intervals);
            if refreshes * 100 > intervals * 105 {
                self.broken("I-10", || {
                    format!("{refreshes} refreshes in {intervals} intervals")
                });
            }
            let failed = self.report.failed;
            if failed > 0 {
                self.broken("I-12", || {
                    format!("{failed} requests fail although nothing is wrong")
                });
            }
        }
    }

    /// I-12: when faults are over, every live session is served.
    fn check_alive(&mut self, login: usize) {
        let row = &self.store.rows[login];
        let Some(credential) = row.newest() else {
            return;
        };
        let token = credential
            .refresh_token
            .as_ref()
            .and_then(|token| number(token.expose()));
        let Some((family, _)) = token else {
            return self.broken("I-6", || {
                format!("login {login}: its refresh token is gone")
            });
        };
        let record = row.record.as_ref();
        let told = record.is_some_and(|record| {
            record.suspicion.is_some()
                || record
                    .forced
                    .as_ref()
                    .is_some_and(|f| f.broken_until.is_some())
        });
        let alive = self.issuer.families[family].ended.is_none() && self.issuer.knows(family);
        let silent = self.now.saturating_sub(self.judge.served[login]);
        let refused = self.plan.has(Kind::ServerRefusesAll) && self.plan.has(Kind::NoLifetime);
        let told = told || refused || self.targets[login].wants_more;
        let asked = self.judge.missed[login] > self.judge.served[login];
        if alive && !told && asked && silent > 600_000 {
            self.broken("I-12", || {
                format!("login {login}: alive, and not served for {silent} ms")
            });
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
        let (killer, (_, spender)) = (&self.calls[call], grant.refresh[number].spent?);
        let (first, successor) = (&self.calls[spender], &grant.refresh[number + 1]);
        let label = killer.label;
        let since = grant.refresh[number].durable_at.unwrap_or(0);
        if self.judge.rolled_back[grant.login]
            .iter()
            .any(|rolled| (since..=at).contains(rolled))
        {
            return Some((
                LossClass::Inherent,
                "the store had lost the newer token".into(),
            ));
        }
        if killer.stopped && label.is_some() {
            let story = format!("p{} was stopped as it sent its repeat", killer.process);
            return Some((LossClass::Inherent, story));
        }
        if spender == call {
            return Some((
                LossClass::Inherent,
                format!("the network sent call {call} twice"),
            ));
        }
        if first.sent_at > killer.sent_at {
            let in_time = at + 200 < killer.sent_at + DEADLINE;
            let dead = matches!(killer.failed, Some((_, Failed::DeadPath)));
            let soon = first.sent_at - killer.sent_at <= ms(self.setup.policy.repeat_limit);
            // Once the token has ended nothing is left to wait for: that is no trial of the issuer's grace.
            let repeats = first.run == killer.run || first.label != Some(Label::Uncertain);
            let class = if in_time && dead && soon && repeats {
                LossClass::UnknownGrace
            } else {
                LossClass::Inherent
            };
            return Some((
                class,
                format!("call {call}, given up, reached the issuer after call {spender}"),
            ));
        }
        if let Some((delivered, process, epoch)) =
            successor.delivered.filter(|(t, ..)| *t <= killer.sent_at)
        {
            if successor
                .durable_at
                .is_some_and(|durable| durable <= killer.sent_at)
            {
                return Some((
                    LossClass::Avoidable,
                    format!(
                        "call {call} ({label:?}) sent a spent token although the newer one was durable"
                    ),
                ));
            }
            let died = self
                .judge
                .died
                .get(&(process, epoch))
                .filter(|died| **died <= killer.sent_at);
            let Some(died) = died else {
                return Some((
                    LossClass::Avoidable,
                    format!(
                        "call {call} ({label:?}) sent a spent token although p{process} held the newer one"
                    ),
                ));
            };
            let slow = self.plan.has(Kind::Pause)
                || self.plan.has(Kind::DiskBroken)
                || self.plan.has(Kind::StoreStall);
            if died - delivered > 2_000 && !slow {
                return Some((
                    LossClass::Avoidable,
                    format!(
                        "p{process} had {} ms to store what it got",
                        died - delivered
                    ),
                ));
            }
            return Some((
                LossClass::Inherent,
                format!("p{process} died before the answer was durable"),
            ));
        }
        let waiting = first
            .failed
            .is_none_or(|(gave_up, _)| gave_up > killer.sent_at)
            && self
                .judge
                .died
                .get(&(first.process, first.epoch))
                .is_none_or(|died| *died > killer.sent_at);
        let readable = first.fate.spoilt.is_none();
        match (first.fate.replies, first.failed) {
            (Some(_), _)
                if waiting
                    && readable
                    && first
                        .answered_at
                        .is_none_or(|answered| answered > killer.sent_at) =>
            {
                Some((
                    LossClass::Avoidable,
                    format!(
                        "call {call} ({label:?}) left while the answer to call {spender} was on its way"
                    ),
                ))
            }
            (Some(replies), Some((given_up, Failed::DeadPath)))
                if readable && replies <= first.sent_at + DEADLINE =>
            {
                let died = self
                    .judge
                    .died
                    .get(&(first.process, first.epoch))
                    .is_some_and(|died| *died <= replies);
                let in_window =
                    killer.sent_at - first.sent_at <= ms(self.setup.policy.repeat_limit);
                let refusing = [
                    Kind::DiskFull,
                    Kind::DiskBroken,
                    Kind::StoreStall,
                    Kind::StoreLostAnswer,
                ]
                .iter()
                .any(|kind| self.plan.has(*kind));
                let window = first.sent_at + ms(self.setup.policy.repeat_limit);
                let mut stops = self.judge.stops.iter();
                let stopped = stops.any(|(process, at)| {
                    *process == first.process && (given_up..window).contains(at)
                });
                // The rule was kept, and its repeat met a fault of its own.
                let repeated = self.calls[spender + 1..call].iter().any(|other| {
                    let soon = other.sent_at - first.sent_at <= ms(self.setup.policy.repeat_limit);
                    other.login == grant.login && other.label.is_some() && soon
                });
                Some(match label {
                    _ if refusing && !in_window => (
                        LossClass::Inherent,
                        format!("the store did not take the note of a repeat of call {spender}"),
                    ),
                    None if refusing => (
                        LossClass::Inherent,
                        format!("no note of call {spender} could be made"),
                    ),
                    _ if repeated => (
                        LossClass::Inherent,
                        format!("call {spender} met a dead path, and its repeat another fault"),
                    ),
                    _ if stopped && !in_window => (
                        LossClass::Inherent,
                        format!(
                            "p{} was stopped when it was about to repeat call {spender}",
                            first.process
                        ),
                    ),
                    _ if died => (
                        LossClass::Inherent,
                        format!("p{} died before the path healed", first.process),
                    ),
                    Some(_) if in_window => (
                        LossClass::UnknownGrace,
                        format!(
                            "call {call} repeated call {spender} on a path that was only slow to heal"
                        ),
                    ),
                    _ => (
                        LossClass::Avoidable,
                        format!(
                            "call {spender} was given up for nothing: call {call} ({label:?}) came too late to be a repeat"
                        ),
                    ),
                })
            }
            _ => Some((
                LossClass::Inherent,
                format!(
                    "the answer to call {spender} was lost, and call {call} ({label:?}) came too late"
                ),
            )),
        }
    }
}
