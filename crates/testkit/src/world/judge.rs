//! The judge: invariants after every step, and the class of each loss. It knows what no program can.

use std::collections::HashMap;

use pilotlight_core::{
    credential::{Credential, Incarnation, Version},
    flow::{Act, Answer, Commit, Expects},
    record::Fact,
};

use super::{Level, World, lessons::Lessons, network::Call, pace::Failing, past::Past};

mod loss;
mod repeat;
mod send;
mod standing;

use send::Sent;
use standing::Standing;

/// What the judge remembers.
#[derive(Debug)]
pub(super) struct Judge {
    /// Grants that a spent refresh token ended: when.
    pub(super) deaths: Vec<(u64, usize)>,
    /// Lives of processes: when each ended.
    pub(super) died: HashMap<(usize, u32), u64>,
    /// What has happened to processes, store and clocks.
    pub(super) past: Past,
    /// When a request was last answered well, and when one failed, by login.
    served: Vec<u64>,
    missed: Vec<u64>,
    /// When what stood against a login was last lifted.
    pub(super) untold_at: Vec<u64>,
    /// The calls of each version.
    calls: HashMap<(Incarnation, u64), Vec<Sent>>,
    /// By login: when the last call failed, and the calls of this row of failures.
    pub(super) failing: Vec<Failing>,
    /// Runs whose end the store refused to note.
    pub(super) untold: Vec<usize>,
    /// Attempts that stood for so long that their sender may have been dead, and somebody who saw it.
    standing: Vec<Standing>,
    /// What was learned about the issuer's grace, by whom.
    pub(super) lessons: Lessons,
}

impl Judge {
    pub(super) fn new(logins: usize) -> Self {
        Self {
            deaths: Vec::new(),
            died: HashMap::new(),
            past: Past::default(),
            served: vec![0; logins],
            missed: vec![0; logins],
            untold_at: vec![0; logins],
            calls: HashMap::new(),
            failing: vec![Failing::default(); logins],
            untold: Vec::new(),
            standing: Vec::new(),
            lessons: Lessons::default(),
        }
    }

    pub(super) fn served(&mut self, login: usize, now: u64) {
        self.served[login] = now;
    }

    /// A request was not served: the first since one was is what counts.
    pub(super) fn missed(&mut self, login: usize, now: u64) {
        if self.missed[login] <= self.served[login] {
            self.missed[login] = now;
        }
    }

    /// The store has lost what was written to a login's row since then.
    pub(super) fn rolled_back(&mut self, login: usize, written_at: u64, now: u64) {
        self.past.rolled_back(login, written_at, now);
        self.failing[login].forget(written_at);
    }

    /// Store or slot have said whether they took an attempt.
    pub(super) fn attempt_answered(
        &mut self,
        (login, run): (usize, usize),
        about: AboutAttempt,
        answer: &Answer,
        now: u64,
    ) {
        match (about, answer) {
            // Of what only the slot holds the store takes no note, and says no more than that.
            (AboutAttempt::ForStore, Answer::Noted(Err(_)))
            | (AboutAttempt::ForSlot, Answer::Done(Err(_))) => self.past.not_taken(login, run, now),
            (AboutAttempt::ForSlot, Answer::Done(Ok(()))) => self.past.taken_by_slot(run),
            _ => {}
        }
    }
}

/// Where an act would keep an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AboutAttempt {
    ForStore,
    ForSlot,
    No,
}

impl AboutAttempt {
    pub(super) fn of(act: &Act) -> Self {
        let notes = |fact: &Fact| matches!(fact, Fact::Attempt(Some(_)));
        match act {
            Act::Note { facts, .. } if facts.iter().any(notes) => Self::ForStore,
            Act::SpoolAttempt {
                attempt: Some(_), ..
            } => Self::ForSlot,
            _ => Self::No,
        }
    }
}

/// The two numbers of a token: its grant, and which of it.
pub(super) fn number(token: &str) -> Option<(usize, usize)> {
    // As a set of one: a search for a lone character is made for long texts, and every request comes here.
    let mut parts = token.split(['.']).skip(1);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl World {
    /// A version is about to be written.
    pub(super) fn check_commit(&mut self, login: usize, commit: &Commit) {
        let new = &commit.credential;
        if new.received_at.is_none() {
            self.broken("F-19", || {
                format!("login {login}: stored without when it was received")
            });
        }
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

    /// I-8: a call that failed, or whose end nobody can know, changes nothing of the tokens: its run writes what was there.
    pub(super) fn check_material(&mut self, run: usize, login: usize, new: &Credential) {
        let last = self.calls.iter().rfind(|call| call.run == run);
        let granted = |call: &Call| {
            let answer = call.answer.as_ref().filter(|_| call.answered_at.is_some());
            answer.is_some_and(|answer| answer.granted.is_some())
        };
        if last.is_none_or(granted) {
            return;
        }
        let process = self.holder_of(run).0;
        let memory = self.memory(process, login).credential().ok().cloned();
        let row = &self.store.rows[login];
        let stored = row.record.as_ref().and_then(|r| r.credential.as_ref());
        let spooled = row.spool.as_ref().map(|(_, credential)| credential);
        let known = [stored, spooled, memory.as_ref()];
        let tokens = |c: &Credential| {
            let refresh = c.refresh_token.as_ref().map(|t| number(t.expose()));
            (c.version, refresh, number(c.access_token.expose()))
        };
        if !known.iter().flatten().any(|c| tokens(c) == tokens(new)) {
            self.broken("I-8", || {
                format!("login {login}: a call that failed changes the tokens")
            });
        }
    }

    /// A version was written: what was there before must not have been newer, or a later login's.
    pub(super) fn check_written(&mut self, login: usize, before: Option<Credential>) {
        let after = self.store.rows[login]
            .record
            .as_ref()
            .and_then(|record| record.credential.as_ref());
        let buried = self.store.rows[login].buried;
        if before.is_none() && after.is_some_and(|after| buried == Some(after.version.incarnation))
        {
            return self.broken("F-31", || {
                format!("login {login}: a logout loses to a refresh")
            });
        }
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
        self.judge_losses();
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

    /// Whether whoever asks is told why there is no token: a refusal stands, or the breaker is open.
    pub(super) fn is_told(&self, login: usize) -> bool {
        self.store.rows[login]
            .record
            .as_ref()
            .is_some_and(|record| {
                let forced = record.forced.as_ref();
                record.suspicion.is_some() || forced.is_some_and(|f| f.broken_until.is_some())
            })
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
        let told = self.is_told(login);
        let alive = self.issuer.families[family].ended.is_none() && self.issuer.knows(family);
        let missed = self.judge.missed[login];
        let silent = self.now - missed.max(self.judge.untold_at[login]).min(self.now);
        let told = told || self.targets[login].wants_more;
        let asked = missed > self.judge.served[login];
        if alive && !told && asked && silent > 600_000 {
            self.broken("I-12", || {
                format!("login {login}: alive, and not served for {silent} ms")
            });
        }
    }
}
