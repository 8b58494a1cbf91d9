//! What is checked as a token call leaves: its label, its note, its pace, its time.

use std::time::Duration;

use pilotlight_core::{
    attempt::{Attempt, Label, repeat_window},
    credential::{Credential, Lifetime, Version},
    freshness::refresh_point,
    notes::ReuseGrace,
    time::{Now, Stamp},
};

use crate::world::{World, ms, network::CallId, past::Life, store::Health};

/// A call that has left, and what may be known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) call: CallId,
    run: usize,
    life: Life,
    /// When its sender set out: the connection may take its time.
    set_out_at: u64,
    /// When the note of it was made.
    pub(super) noted_at: u64,
    /// From when its sender counted the window for repeats.
    pub(super) window_from: u64,
    /// What its sender had read about the issuer's grace.
    pub(super) grace: ReuseGrace,
}

impl World {
    /// A token call is about to leave: which label it carries.
    pub(in crate::world) fn check_send(
        &mut self,
        run: usize,
        presents: Option<(usize, usize)>,
        nth: u64,
        leaves: u64,
    ) -> (Option<Label>, bool) {
        let (Some(presented), Some(own)) = (presents, self.runs[run].as_deref()) else {
            return (None, true);
        };
        let (process, epoch, login, want) = (own.process, own.epoch, own.login, own.want);
        let (began_at, held) = (own.began_at, own.held);
        let Some((version, attempt, noted)) = own.attempt else {
            self.broken("I-1", || format!("p{process} sends without any attempt"));
            return (None, false);
        };
        let (noted_while, noted_at) = (own.noted_while, own.noted_at);
        let notes = own.notes.clone();
        let grace = notes.grace(self.clock(process).wall);
        let label = attempt.label;
        if self.locks[login].holder != Some((process, epoch, run)) {
            self.broken("I-16", || format!("p{process} sends without the lease"));
        }
        let row = &self.store.rows[login];
        let newer = row
            .newest()
            .is_some_and(|newest| newest.version.succeeds(&version));
        let received = row.newest().and_then(|newest| newest.received_at);
        if newer {
            self.broken("I-2", || {
                format!("p{process} sends what is no longer the newest")
            });
        }
        // Where the store went back, and somebody has gone on with it since, that is what the issuer knows.
        let gone_on = |own: Option<Stamp>| {
            let both = received.zip(own);
            both.is_some_and(|(stored, own)| stored.boot == own.boot && stored.mono > own.mono)
        };
        if held.is_some_and(|(held, own)| held.succeeds(&version) && !gone_on(own)) {
            self.broken("I-2", || {
                format!("p{process} sends what its process had a newer one of")
            });
        }
        if !noted && noted_while != Health::Broken {
            self.broken("I-1", || {
                format!("p{process} sends without a durable note of it ({label:?})")
            });
        }
        let sent = Sent {
            call: self.calls.len(),
            run,
            life: (process, epoch),
            set_out_at: self.now,
            noted_at,
            window_from: self.window_from(run, &attempt, nth, leaves),
            grace,
        };
        self.check_window(&sent, &attempt, nth, leaves);
        self.check_label(login, version, label, sent);
        self.check_pace(run, login, version, presented.0);
        if label.is_none() && want.refused != Some(version) {
            self.check_early(process, login, version, presented.0, began_at);
        }
        (label, noted)
    }

    /// I-1, I-3: what was sent before, and can be known to have been, is sent again under a label only, and not too often.
    fn check_label(&mut self, login: usize, version: Version, label: Option<Label>, sent: Sent) {
        let process = sent.life.0;
        let key = (version.incarnation, version.generation.0);
        let earlier = self.judge.calls.entry(key).or_default();
        let before = earlier.clone();
        earlier.push(sent);
        // A call is made for a version after that was received: what left before was for one that the store has lost.
        let newest = self.store.rows[login].newest();
        let newest = newest.filter(|newest| newest.version == version);
        let received = newest.and_then(|newest| newest.received_at);
        let received = received.filter(|at| at.boot == self.clock(process).boot);
        let since = received.map_or(0, |at| self.instant(at));
        let known = |before: &&Sent| {
            before.set_out_at >= since && self.is_known(before, sent.life, login, version)
        };
        let unclear: Vec<Sent> = before.iter().filter(known).copied().collect();
        let at_issuer = unclear.iter().any(|sent| {
            let call = &self.calls[sent.call];
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
        let same = unclear.iter().filter(|before| {
            // How a probe ended, and so that it was one more, is told by another note, after it; that may be lost, too.
            let lost = self.judge.past.went_back(login, before.set_out_at);
            let told = !self.judge.untold.contains(&before.run) && !lost;
            let told = told || before.life == sent.life;
            let counts = label != Some(Label::ProbeSuspect) || told;
            counts && self.calls[before.call].label == label
        });
        if label.is_some() && same.count() >= most {
            self.broken("I-1", || format!("p{process}: one {label:?} too many"));
        }
    }

    /// Whether a life can know that a call was sent: by its note, while the store has that, or, where none could be made,
    /// because it sent it itself.
    fn is_known(&self, sent: &Sent, to: Life, login: usize, version: Version) -> bool {
        let call = &self.calls[sent.call];
        let past = &self.judge.past;
        let held = call.noted && !past.has_lost(login, sent.noted_at, self.now);
        // A later login takes the place of what was known of the one before.
        let took_over = past.held_other(to, login, sent.set_out_at, version.incarnation);
        let own = sent.life == to && !took_over;
        (held || own) && !call.not_delivered
    }

    /// From when a call counts the window in which it may be repeated: from the first of its row that left, or, where a dead
    /// process had made that, from the note of it, as the clock of its sender tells.
    fn window_from(&mut self, run: usize, attempt: &Attempt, nth: u64, leaves: u64) -> u64 {
        let last = self.calls.iter().rposition(|call| call.run == run);
        match last.and_then(|call| self.sent(call)).filter(|_| nth > 1) {
            Some(before) => before.window_from,
            None if attempt.label == Some(Label::AfterCrash) => {
                let now = self.clock(self.holder_of(run).0);
                let age = now.since(&attempt.first_sent_at).map_or(u64::MAX, ms);
                self.now.saturating_sub(age)
            }
            None => leaves,
        }
    }

    /// F-04, F-03, I-1: a repeat leaves while its window is open, however long its connection takes: by what its sender had
    /// read of the issuer's grace, and, where somebody else made the first call, as its own clock counts.
    fn check_window(&mut self, sent: &Sent, attempt: &Attempt, nth: u64, leaves: u64) {
        let after_crash = attempt.label == Some(Label::AfterCrash);
        if nth == 1 && !after_crash {
            return;
        }
        let label = attempt.label;
        let Some(window) = repeat_window(sent.grace, self.setup.policy.repeat_limit) else {
            return self.broken("I-1", || {
                format!("a repeat ({label:?}) leaves although the issuer takes none")
            });
        };
        let age = leaves.saturating_sub(sent.window_from);
        if age > ms(window) {
            self.broken("I-1", || {
                format!(
                    "a repeat ({label:?}) leaves {age} ms after its call, in a window of {window:?}"
                )
            });
        }
    }

    /// I-10: no refresh before its point, unless the token was refused or somebody asked.
    fn check_early(
        &mut self,
        process: usize,
        login: usize,
        version: Version,
        family: usize,
        began_at: u64,
    ) {
        let Some(credential) = self.store.rows[login]
            .newest()
            .filter(|newest| newest.version == version)
            .cloned()
        else {
            return;
        };
        if self.issuer.families[family].ended.is_some() {
            return;
        }
        let now = self.clock(process);
        let Some(age) = self.age(&credential, family, began_at, now) else {
            return;
        };
        let Some(life) = self.life(&credential) else {
            return self.broken("I-10", || {
                format!("login {login}: a refresh, and nobody has said when it is due")
            });
        };
        let point = ms(refresh_point(life, credential.spread(), self.setup.policy));
        if age + 2_000 < point {
            let early = point - age;
            self.broken("I-10", || {
                format!("login {login}: a refresh {early} ms before its point")
            });
        }
    }

    /// How old a token is, in milliseconds, as whoever refreshes it must believe; `None` where nobody can tell. Its life
    /// counts from when its request left; a program that has forgotten that has no excuse. After a restart of the machine
    /// only the wall clock can tell, and what it tells is believed.
    fn age(&self, credential: &Credential, family: usize, began_at: u64, now: Now) -> Option<u64> {
        let Some(received) = credential.received_at else {
            let token = self.issuer.families[family].access.last()?;
            return Some(self.now - token.issued_at);
        };
        let boot = received.boot.0.first_chunk().copied();
        let restarted = boot.is_some_and(|boot| u64::from_be_bytes(boot) < self.machine.boot);
        if !restarted {
            return Some(self.now.saturating_sub(self.instant(received)));
        }
        // It may have told another time when that was decided.
        let jumped = self.judge.past.jumped_at;
        let ago = self.now - began_at;
        let told = jumped.is_none_or(|at| at < began_at) && received.wall.0 + ago <= now.wall.0;
        told.then(|| now.since(&received).map(ms))?
    }

    /// How long a token lives: as long as the issuer says, or, where it says nothing or gives out what it has, as long as
    /// the program was told or has learned.
    fn life(&self, credential: &Credential) -> Option<Duration> {
        if self.issuer.states_lifetime && !self.issuer.caches {
            return Some(Duration::from_millis(self.issuer.lifetime));
        }
        credential.lifetime.map(Lifetime::span)
    }

    /// What is kept of a call that has left.
    pub(super) fn sent(&self, call: CallId) -> Option<&Sent> {
        let version = self.calls[call].version?;
        let key = (version.incarnation, version.generation.0);
        let sent = self.judge.calls.get(&key)?;
        sent.iter().find(|sent| sent.call == call)
    }
}
