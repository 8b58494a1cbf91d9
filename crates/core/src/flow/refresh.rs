//! A refresh, one among many processes (RFC 6749 section 6).
//!
//! ```text
//!  lock -> re-read -> (merge the spool) -> decide -> note the attempt -> send -> judge
//!                        |                               ^                |
//!                        +- newer and fresh: adopt       +-- repeat ------+- ambiguous, inside the window
//!                        +- pausing: is the issuer back?                  |
//!                        +- endpoint gone for an hour: moved?             |
//!                        +- not due, not allowed: stop                    +- refused: re-read, note the suspicion
//!                                                                         +- not delivered: back off
//!                                                                         +- tokens: commit, else spool -> unlock
//! ```
//!
//! The attempt is noted in the store, else kept in the spool slot; only a token that is of no use any more is sent without.
//! The token endpoint is the one pinned at login, never one that was just discovered (T-15, T-16); where it has been gone for
//! an hour, the pinned issuer itself may say where on the same origin it is now (`refresh/moved.rs`). Nothing is sent
//! without the lock (I-16), nothing that the store does not hold (I-2), and no refresh token twice but under a label that
//! was durable first (I-1, I-3).

mod ambiguous;
pub(in crate::flow) mod decide;
mod ending;
mod moved;
mod note;
mod reach;
mod refusal;
mod scopes;
pub(in crate::flow) mod settle;

use std::collections::VecDeque;

use url::Url;

use crate::{
    attempt::{Attempt, ProcessId},
    credential::{Credential, CredentialKey, Version},
    error::{Error, LoginCause, Named},
    event::{Event, Happened, Reason},
    exchange::Fault,
    flow::{Act, Answer, Committed, Flow, Lock, Reading, Step, Turn},
    freshness::Policy,
    notes::IssuerNotes,
    record::Record,
    time::{BootId, Mono, Now},
    token::Verdict,
};
use ending::Then;

/// What is to be refreshed, and why.
#[derive(Debug)]
pub struct Task {
    /// Whose login.
    pub key: CredentialKey,
    /// The version that the caller holds in memory.
    pub held: Option<Version>,
    /// The version whose access token the server refused, if that is why.
    pub refused: Option<Version>,
    /// Whether a person or program asked, due or not.
    pub asked: bool,
    /// A version that neither store nor spool has taken yet.
    pub unsaved: Option<Box<Credential>>,
    /// What memory holds: where the store turns out to have gone back, that is the newest copy.
    pub memory: Option<Box<Record>>,
    /// What an earlier run learned and the store could not note: it counts while its version is the stored one.
    pub remembered: Option<Box<Record>>,
    /// Which process this is.
    pub process: ProcessId,
    /// 32 random bytes, for jitter.
    pub entropy: [u8; 32],
    /// When a refresh is due.
    pub policy: Policy,
}

/// How a refresh ended.
#[derive(Debug)]
pub struct Outcome {
    /// What is known to be stored now; `None` where it could not be read.
    pub record: Option<Record>,
    /// What is known of the issuer.
    pub notes: IssuerNotes,
    /// What was gained, or why nothing.
    pub result: Result<Gain, Error>,
    /// Whether the newest version lives in memory only.
    pub unsaved: bool,
    /// Whether facts of the record could not be noted: the next run must be told of them.
    pub unnoted: bool,
    /// The login that one out of the spool has replaced in the store: nobody uses it any more, and its issuer is to be told.
    pub superseded: Option<Box<Credential>>,
}

impl Outcome {
    /// An end at which memory knows nothing that the store does not.
    pub(in crate::flow) fn known(
        record: impl Into<Option<Record>>,
        notes: IssuerNotes,
        result: Result<Gain, Error>,
    ) -> Self {
        Self {
            record: record.into(),
            notes,
            result,
            unsaved: false,
            unnoted: false,
            superseded: None,
        }
    }

    /// An end at which nothing could be read.
    pub(in crate::flow) fn unread(error: Error) -> Self {
        Self::known(None::<Record>, IssuerNotes::default(), Err(error))
    }
}

/// What a refresh gained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gain {
    /// A new generation.
    Refreshed,
    /// A generation or login that another process made.
    Adopted,
    /// Nothing needed doing.
    Nothing,
    /// A call was lost and must not be repeated yet; the access token still works.
    Uncertain,
}

/// The flow. See the [module](self).
#[derive(Debug)]
pub struct Refresh {
    task: Task,
    state: State,
    /// How often store and spool were read: whoever is overtaken again and again gives up.
    looks: u32,
    /// The stored version, where the one in hand follows it and lives in memory only.
    stored: Option<Version>,
    /// Whether the store refused to note facts in this run.
    unnoted: bool,
    /// Whether the spool slot holds an attempt of this run, because the store refused it.
    in_slot: bool,
    /// Whether the call comes before its time, because the issuer is back.
    early: bool,
    /// Since when the issuer's metadata was asked for in this run: once is enough.
    asked_issuer: Option<Now>,
    /// What is known of the calls of this run, and may have been noted nowhere.
    known: Option<Box<(Record, IssuerNotes)>>,
    /// What a merge of this run has replaced.
    superseded: Option<Box<Credential>>,
}

#[derive(Debug)]
enum State {
    Ready,
    ExpectLease,
    ExpectRecord {
        fence: u64,
        merged: bool,
    },
    ExpectMerge {
        fence: u64,
        reading: Box<Reading>,
        unsaved: bool,
    },
    ExpectKept {
        fence: u64,
        reading: Box<Reading>,
    },
    ExpectIssuer {
        fence: u64,
        reading: Box<Reading>,
    },
    ExpectPinnedMetadata {
        fence: u64,
        reading: Box<Reading>,
        left: Vec<Url>,
    },
    ExpectRepinned {
        fence: u64,
        reading: Box<Reading>,
    },
    ExpectNote(Box<Call>),
    ExpectSlot(Box<Call>, Error),
    ExpectToken(Box<Call>),
    ExpectTrialNotes(Box<Call>, Error),
    ExpectTrial(Box<Call>, Mono),
    ExpectPause(Box<Call>, Mono),
    ExpectCommit(Box<Call>, Box<Credential>),
    ExpectSpool(Box<Call>, Box<Credential>),
    ExpectSpooled(Box<Call>, Box<Credential>),
    ExpectReread(Box<Call>, Option<Named>),
    ExpectOvertaken {
        fence: u64,
        new: Box<Credential>,
        notes: IssuerNotes,
    },
    ExpectFacts {
        outcome: Box<Outcome>,
        then: Then,
    },
    ExpectMoved {
        outcome: Box<Outcome>,
        then: Then,
    },
    ExpectTakenBack(Box<Outcome>),
    ExpectDiscard {
        fence: u64,
    },
    ExpectLearn(Box<Outcome>),
    ExpectForgotten(Box<Outcome>),
    ExpectTold(Box<Outcome>, Then, VecDeque<Happened>),
    ExpectUnlock(Box<Outcome>),
}

/// A token call under the lease: why, with what, under which label.
#[derive(Debug)]
struct Call {
    reading: Reading,
    record: Record,
    credential: Credential,
    reason: Reason,
    attempt: Attempt,
    /// The attempt that may have been delivered before, to be put back where this call turns out not to have been.
    found: Option<Attempt>,
    /// How many calls left in this run.
    sent: u32,
    /// Whether it repeats a call of this run.
    repeats: bool,
    /// Since when the window is counted in which it may be repeated: the first call that left, or, where that is uncertain
    /// already, the first of this run.
    window_from: Now,
    /// When the latest call of this run left.
    left_at: Now,
    /// When the first was decided, or the issuer's metadata asked for: from then on the lease is held for calls.
    begun_at: Now,
    /// Whether nobody had called before this run.
    is_first: bool,
    /// How the latest call of this run failed.
    failed: Option<Error>,
    /// When the first of this run left on which the issuer has acted for certain.
    acted: Option<Now>,
    /// Whether the request names its scopes.
    names_scopes: bool,
    /// Whether that is otherwise than it was in the first call, which the issuer refused.
    asked_otherwise: bool,
}

impl Refresh {
    /// Sets up the flow; nothing happens before [`Flow::start`].
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self {
            task,
            state: State::Ready,
            looks: 0,
            stored: None,
            unnoted: false,
            in_slot: false,
            early: false,
            asked_issuer: None,
            known: None,
            superseded: None,
        }
    }

    fn next(self, state: State, act: Act) -> Turn<Self> {
        Turn::Next(Self { state, ..self }, Step::act(act))
    }

    /// The store did not take what the issuer has granted: the spool may.
    fn spool(self, call: Box<Call>, new: Box<Credential>) -> Turn<Self> {
        let act = Act::Spool {
            follows: self.follows(&call),
            credential: new.clone(),
        };
        self.next(State::ExpectSpool(call, new), act)
    }

    /// What the store holds while a version waits in spool or memory: the entry is found there, even where the slot has
    /// gone back with the store, and what was called with lies in neither.
    fn follows(&self, call: &Call) -> Option<Version> {
        match (self.stored, &call.record.spooled) {
            (Some(stored), _) => Some(stored),
            (None, Some(spooled)) => spooled.follows,
            (None, None) => Some(call.credential.version),
        }
    }

    /// Neither store nor spool took what the issuer has granted: memory holds it, and the lock with it.
    fn hold(self, notes: IssuerNotes, new: Credential) -> Turn<Self> {
        let record = Record {
            credential: Some(new),
            ..Record::default()
        };
        self.unlock(Outcome {
            unsaved: true,
            ..Outcome::known(record, notes, Ok(Gain::Refreshed))
        })
    }

    fn reread(self, fence: u64, merged: bool) -> Turn<Self> {
        self.look(State::ExpectRecord { fence, merged })
    }

    fn look(mut self, state: State) -> Turn<Self> {
        self.stored = None;
        self.looks += 1;
        if self.looks > MOST_LOOKS {
            return self.unlock(Outcome::unread(Error::StoreUnavailable {
                why: "it changes faster than it can be read".to_owned(),
            }));
        }
        let key = self.task.key.clone();
        self.next(state, Act::Reread(key))
    }

    /// The store has gone back behind what memory holds, and nobody has looked since: what it holds now is spent, and never
    /// sent (I-2). Memory brings its own back, with what it knows of it; answers whether it has to.
    fn bring_back(&mut self, reading: &Reading, boot: BootId) -> bool {
        let stored = reading
            .record
            .as_ref()
            .and_then(|record| record.credential.as_ref());
        let held = self
            .task
            .memory
            .as_ref()
            .and_then(|known| Some((known, known.credential.as_ref()?)));
        let (Some((known, held)), Some(stored)) = (held, stored) else {
            return false;
        };
        if !held.is_ahead_of(stored, boot) {
            return false;
        }
        let copy = Some(Box::new(held.clone()));
        let known = known.clone();
        self.task.unsaved = self.task.unsaved.take().or(copy);
        self.task.remembered = self.task.remembered.take().or(Some(known));
        true
    }

    /// What this run has sent may be noted nowhere: a second look at the store must not forget it (I-3).
    fn keep_in_mind(&mut self, call: &Call) {
        if call.sent > 0 {
            let record = Record {
                attempt: call.found,
                ..call.record.clone()
            };
            self.task.remembered = Some(Box::new(record.clone()));
            self.known = Some(Box::new((record, call.reading.notes.clone())));
        }
    }

    fn event(&self, now: Now, happened: Happened) -> Event {
        Event {
            at: now.wall,
            process: self.task.process,
            happened,
        }
    }

    /// A number in `0.0..1.0` from the flow's entropy.
    fn fraction(&self) -> f64 {
        let head = self
            .task
            .entropy
            .iter()
            .take(4)
            .fold(0u32, |n, byte| n << 8 | u32::from(*byte));
        f64::from(head) / (f64::from(u32::MAX) + 1.0)
    }
}

impl Flow for Refresh {
    type Outcome = Outcome;

    fn start(self, _now: Now) -> Turn<Self> {
        let key = self.task.key.clone();
        self.next(State::ExpectLease, Act::Lock(Lock::Refresh(key)))
    }

    fn handle(mut self, answer: Answer, now: Now) -> Turn<Self> {
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, answer) {
            (State::ExpectLease, Answer::Locked(Ok(fence))) => self.reread(fence, false),
            (State::ExpectLease, Answer::Locked(Err(error))) => Turn::Done(Outcome::unread(error)),
            (State::ExpectRecord { fence, merged }, Answer::Read(Ok(reading))) => {
                let merged = !self.bring_back(&reading, now.boot) && merged;
                self.decide(fence, *reading, merged, now)
            }
            (State::ExpectRecord { .. }, Answer::Read(Err(error))) => {
                self.unlock(Outcome::unread(error))
            }
            (State::ExpectMerge { fence, .. }, Answer::Committed(Ok(committed))) => {
                if let Committed::Done { superseded } = committed {
                    self.superseded = superseded.or(self.superseded);
                }
                self.reread(fence, true)
            }
            // The store still refuses: what spool or memory hold is served and, if need be, refreshed from.
            (
                State::ExpectMerge {
                    fence,
                    reading,
                    unsaved: false,
                },
                Answer::Committed(Err(_)),
            ) => self.decide(fence, *reading, true, now),
            (
                State::ExpectMerge {
                    fence,
                    reading,
                    unsaved: true,
                },
                Answer::Committed(Err(_)),
            ) => self.keep(fence, reading, now),
            (State::ExpectKept { fence, .. }, Answer::Done(Ok(()))) => self.reread(fence, true),
            (State::ExpectKept { fence, reading }, Answer::Done(Err(_))) => {
                self.decide_in_memory(fence, *reading, now)
            }
            (State::ExpectIssuer { fence, reading }, Answer::Exchanged(exchanged)) => {
                self.looked(fence, *reading, &exchanged, now)
            }
            (
                State::ExpectPinnedMetadata {
                    fence,
                    reading,
                    left,
                },
                Answer::Exchanged(exchanged),
            ) => self.metadata_told(fence, reading, left, &exchanged, now),
            (State::ExpectRepinned { fence, reading }, Answer::Committed(committed)) => {
                self.repinned(fence, *reading, committed, now)
            }
            (State::ExpectNote(call), Answer::Noted(noted)) => {
                self.keep_in_mind(&call);
                self.noted(call, noted, now)
            }
            (State::ExpectSlot(call, refused), Answer::Done(spooled)) => {
                self.spooled_attempt(call, refused, spooled, now)
            }
            (State::ExpectToken(mut call), Answer::Exchanged(Err(failure)))
                if failure.fault == Fault::TooLate =>
            {
                call.sent = call.sent.saturating_sub(1);
                self.stays(call, now)
            }
            // A file that is not there keeps nobody from asking as soon as it is: nothing has left.
            (State::ExpectToken(mut call), Answer::Exchanged(Err(failure)))
                if matches!(failure.fault, Fault::Unsigned(_)) =>
            {
                call.sent = call.sent.saturating_sub(1);
                self.back_off(*call, failure.error(), None, now)
            }
            (State::ExpectToken(mut call), Answer::Exchanged(exchanged)) => {
                let sent_at = match &exchanged {
                    Ok(reply) => reply.sent_at,
                    Err(failure) => failure.sent_at,
                };
                call.leaves(sent_at);
                self.judge(call, Verdict::of(&exchanged), sent_at, now)
            }
            (State::ExpectTrial(call, at), Answer::Done(_)) => self.pause(call, at),
            (State::ExpectPause(call, at), Answer::Woken) if now.mono < at => self.pause(call, at),
            (State::ExpectPause(mut call, _), Answer::Woken) => {
                call.attempt.sent_at = now;
                self.note(*call)
            }
            (State::ExpectCommit(call, new), Answer::Committed(Ok(Committed::Done { .. }))) => {
                self.committed(*call, *new, false, now)
            }
            (State::ExpectCommit(call, new), Answer::Committed(Ok(Committed::Moved))) => {
                self.look(State::ExpectOvertaken {
                    fence: call.attempt.fence,
                    new,
                    notes: call.reading.notes,
                })
            }
            (State::ExpectOvertaken { fence, new, .. }, Answer::Read(Ok(reading))) => {
                self.overtaken(fence, &new, *reading, now)
            }
            // Whether it is still wanted will be seen when the store can be read: until then memory holds it.
            (State::ExpectOvertaken { new, notes, .. }, Answer::Read(Err(_))) => {
                self.hold(notes, *new)
            }
            (State::ExpectCommit(call, new), Answer::Committed(Err(_))) => self.spool(call, new),
            // A login may have gone into the slot before: that one counts, and never loses.
            (State::ExpectSpool(call, new), Answer::Done(Ok(()))) => {
                let key = self.task.key.clone();
                self.next(State::ExpectSpooled(call, new), Act::Reread(key))
            }
            (State::ExpectSpooled(call, new), Answer::Read(Ok(reading)))
                if version_of(&reading.record)
                    .is_some_and(|read| read.incarnation != new.version.incarnation) =>
            {
                self.overtaken(call.attempt.fence, &new, *reading, now)
            }
            // The store has gone back behind what the entry follows, or had taken that version after all: nobody would find
            // it there.
            (State::ExpectSpooled(call, new), Answer::Read(Ok(reading)))
                if version_of(&reading.record).is_some_and(|read| {
                    let follows = self.follows(&call);
                    let taken = read == call.credential.version && follows != Some(read);
                    let behind = follows.is_some_and(|followed| followed.succeeds(&read));
                    new.version.succeeds(&read) && (behind || taken)
                }) =>
            {
                self.stored = version_of(&reading.record);
                self.spool(call, new)
            }
            (State::ExpectSpooled(call, new), Answer::Read(_)) => {
                self.committed(*call, *new, true, now)
            }
            (State::ExpectSpool(call, new), Answer::Done(Err(_))) => {
                self.hold(call.reading.notes, *new)
            }
            (State::ExpectReread(call, named), Answer::Read(read)) => {
                let stored = read.as_ref().ok().and_then(|r| version_of(&r.record));
                // What only memory holds is newer than what it follows in the store.
                let own = call.credential.version;
                let expected = self.stored.unwrap_or(own);
                let known = |stored: Version| {
                    stored == own || stored == expected || expected.succeeds(&stored)
                };
                match read {
                    // Somebody newer: adopt it.
                    Ok(reading) if !stored.is_some_and(known) => {
                        let gain = stored
                            .map(|_| Gain::Adopted)
                            .ok_or(Error::login(LoginCause::Never));
                        self.stop(*reading, gain)
                    }
                    _ => self.refused(*call, named, now),
                }
            }
            (State::ExpectFacts { outcome, then }, Answer::Noted(noted)) => {
                self.noted_facts(outcome, then, noted)
            }
            (State::ExpectMoved { outcome, then }, Answer::Read(read)) => {
                self.moved(outcome, then, read)
            }
            (State::ExpectDiscard { fence }, Answer::Exchanged(_)) => self.reread(fence, true),
            (
                State::ExpectLearn(outcome)
                | State::ExpectForgotten(outcome)
                | State::ExpectTakenBack(outcome),
                Answer::Done(_),
            ) => self.unlock(*outcome),
            (State::ExpectTold(outcome, then, left), Answer::Done(_)) => {
                self.tell(outcome, then, left, now)
            }
            (State::ExpectTrialNotes(call, error), Answer::Read(read)) => {
                self.dead_path(call, error, read.ok(), now)
            }
            (State::ExpectUnlock(outcome), Answer::Done(_)) => Turn::Done(*outcome),
            _ => Turn::Done(Outcome::unread(Error::Bug {
                what: "refresh: an answer that nothing waits for",
            })),
        }
    }
}

fn version_of(record: &Option<Record>) -> Option<Version> {
    record.as_ref().and_then(Record::version)
}

const MOST_LOOKS: u32 = 4;
#[cfg(test)]
mod tests;
