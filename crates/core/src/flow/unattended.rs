//! A renewal without a person and without a refresh token: the grant of the login is made once more, by one among many
//! processes.
//!
//! ```text
//!  lock -> re-read -> (merge the spool) -> decide -> grant -> commit, else spool -> unlock
//!                        |                             |
//!                        +- newer and fresh: adopt     +- anything else: back off, nothing is lost
//!                        +- not due, pausing: stop
//! ```
//!
//! Nothing that is sent here is single-use. So there are no attempts, no labels and no windows as in
//! [`refresh`](super::refresh): a call whose answer was lost is simply made again, after its pause. What that flow has and
//! this one too is the lock, the re-read, the shared back-off and the limits on tokens that a server refuses. The endpoint
//! is the one pinned at login (T-15).

pub(in crate::flow) mod obtain;
mod settle;

use crate::{
    credential::{Credential, Version},
    error::{Error, LoginCause},
    event::{Event, Happened, Reason},
    flow::{
        Act, Answer, Commit, Committed, Expects, Flow, Lock, Reading, Step, Turn,
        refresh::{
            Gain, Outcome, Task,
            decide::{ForcedLimit, forced_limit},
        },
    },
    freshness::{DueReason, Freshness},
    notes::IssuerNotes,
    record::{Backoff, Kept, Record},
    time::Now,
    unattended::Unattended as Kind,
};
use obtain::{Obtain, Wanted};

/// The flow. See the [module](self).
#[derive(Debug)]
pub struct Unattended {
    task: Task,
    state: State,
    looks: u32,
    /// What a login has shown in vain.
    refused_at_login: Option<[u8; 32]>,
    /// The stored version, where the one in hand follows it and neither store nor spool takes it.
    stored: Option<Version>,
    /// What a merge of this run has replaced.
    superseded: Option<Box<Credential>>,
}

#[derive(Debug)]
enum State {
    Ready,
    ExpectLease,
    ExpectRecord {
        merged: bool,
    },
    ExpectMerge {
        reading: Box<Reading>,
        newer: Box<Credential>,
    },
    Obtaining(Box<Obtain>, Box<Call>),
    ExpectCommit(Box<Call>, Box<Credential>),
    ExpectSpool(Box<Call>, Box<Credential>),
    ExpectFacts(Box<Outcome>),
    ExpectTold(Box<Outcome>),
    ExpectUnlock(Box<Outcome>),
}

/// A grant under the lease: for which login, and why.
#[derive(Debug)]
struct Call {
    record: Record,
    notes: IssuerNotes,
    credential: Credential,
    reason: Reason,
    /// Whether calls pause, and this one is made because what was wrong may have been replaced.
    early: bool,
}

impl Unattended {
    /// Sets up the flow; nothing happens before [`Flow::start`].
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self {
            task,
            state: State::Ready,
            looks: 0,
            refused_at_login: None,
            stored: None,
            superseded: None,
        }
    }

    /// Tells which assertion a login, or a step-up, has shown in vain: it is never shown again (EXT-41).
    #[must_use]
    pub fn after_login(self, refused_at_login: Option<[u8; 32]>) -> Self {
        Self {
            refused_at_login,
            ..self
        }
    }

    fn next(self, state: State, act: Act) -> Turn<Self> {
        Turn::Next(Self { state, ..self }, Step::act(act))
    }

    fn reread(mut self, merged: bool) -> Turn<Self> {
        self.looks += 1;
        self.stored = None;
        if self.looks > MOST_LOOKS {
            let why = "it changes faster than it can be read".to_owned();
            return self.unlock(Outcome::unread(Error::StoreUnavailable { why }));
        }
        let key = self.task.key.clone();
        self.next(State::ExpectRecord { merged }, Act::Reread(key))
    }

    /// Decides, from what store and spool hold, whether to ask at all.
    fn decide(mut self, mut reading: Reading, merged: bool, now: Now) -> Turn<Self> {
        if let (Some(known), Some(record)) = (&self.task.remembered, &mut reading.record) {
            record.remember(known, now.boot);
        }
        let Some((record, credential)) = reading
            .record
            .as_ref()
            .and_then(|record| Some((record, record.credential.as_ref()?)))
        else {
            return self.stop(reading, Err(Error::login(LoginCause::Never)));
        };
        let version = credential.version;
        if !merged {
            let kept = self.task.unsaved.take();
            let kept = kept.filter(|kept| kept.is_ahead_of(credential, now.boot));
            let follows = record.spooled.map(|spooled| spooled.follows);
            let newer = match (kept, follows) {
                (Some(kept), _) => Some((*kept, Expects::Version(version))),
                (None, Some(Some(follows))) => {
                    Some((credential.clone(), Expects::Version(follows)))
                }
                (None, Some(None)) => Some((credential.clone(), Expects::Nothing)),
                (None, None) => None,
            };
            if let Some((newer, expects)) = newer {
                return self.merge(reading, newer, expects, now);
            }
        }
        let Some(grant) = credential.unattended.clone() else {
            // A login with a refresh token has taken this one's place: whoever asked looks again.
            return self.stop(reading, Ok(Gain::Adopted));
        };
        let refused = self.task.refused == Some(version);
        let reason = match credential.freshness(now, self.task.policy) {
            Freshness::Expired { .. } => Reason::Expired,
            _ if refused => Reason::Refused,
            Freshness::Due {
                reason: DueReason::Due,
                ..
            } => Reason::Due,
            Freshness::Due {
                reason: DueReason::AgeUnknown,
                ..
            } => Reason::AgeUnknown,
            Freshness::Fresh { .. } if self.task.asked && self.task.held == Some(version) => {
                Reason::Asked
            }
            Freshness::Fresh { .. } => {
                let same = self.task.held == Some(version);
                let gain = if same { Gain::Nothing } else { Gain::Adopted };
                return self.stop(reading, Ok(gain));
            }
        };
        if !reading.writable {
            let why =
                "a newer version of Pilotlight keeps this store; update this program".to_owned();
            return self.stop(reading, Err(Error::StoreUnavailable { why }));
        }
        let waits = matches!(reason, Reason::Refused | Reason::Expired | Reason::Asked);
        let early = match &record.backoff {
            None => false,
            Some(backoff) => match pause(backoff, waits, now) {
                Ok(early) => early,
                Err(error) => return self.stop(reading, Err(error)),
            },
        };
        if reason == Reason::Refused {
            match forced_limit(record, credential, now) {
                None => {}
                Some(ForcedLimit::Pause) => {
                    return self.stop(reading, Err(Error::DeniedByResource));
                }
                Some(ForcedLimit::Trip(forced, until)) => {
                    return self.trip(reading, version, forced, until, now);
                }
            }
        }
        let call = Call {
            record: record.clone(),
            notes: reading.notes.clone(),
            credential: credential.clone(),
            reason,
            early,
        };
        self.obtain(grant, call, now)
    }

    fn obtain(self, grant: Kind, call: Call, now: Now) -> Turn<Self> {
        let credential = &call.credential;
        let wanted = Wanted {
            grant,
            client: credential.client.clone(),
            issuer: credential.audience().clone(),
            token_endpoint: credential.pins.token_endpoint.clone(),
            resource: credential.pins.resource_parameter.clone(),
            scopes: credential.scopes_requested.clone(),
            proof_key: credential.proof_key.clone(),
            refused: self
                .refused_at_login
                .into_iter()
                .chain(call.record.backoff.as_ref().and_then(|known| known.refused))
                .collect(),
        };
        let turn = Obtain::new(wanted).start(now);
        self.obtaining(turn, Box::new(call), now)
    }

    fn obtaining(self, turn: Turn<Obtain>, call: Box<Call>, now: Now) -> Turn<Self> {
        match turn {
            Turn::Next(obtain, step) => {
                let state = State::Obtaining(Box::new(obtain), call);
                Turn::Next(Self { state, ..self }, step)
            }
            Turn::Done(Ok(obtained)) => self.granted(call, obtained, now),
            Turn::Done(Err(failed)) => self.back_off(*call, &failed, now),
        }
    }

    /// Brings a version that only spool or memory hold into the store, then looks again.
    fn merge(
        self,
        reading: Reading,
        credential: Credential,
        expects: Expects,
        now: Now,
    ) -> Turn<Self> {
        let happened = Happened::Merged {
            generation: credential.version.generation,
        };
        let forced = reading
            .record
            .as_ref()
            .and_then(|record| record.forced.clone());
        let (reading, newer) = (Box::new(reading), Box::new(credential.clone()));
        let commit = Commit {
            credential,
            expects,
            binding: None,
            forced,
            event: self.event(now, happened),
        };
        self.next(
            State::ExpectMerge { reading, newer },
            Act::Commit(Box::new(commit)),
        )
    }

    /// The store still refuses: what is kept is the newest version all the same, and what the server says is about that.
    fn decide_in_memory(mut self, mut reading: Reading, newer: Credential, now: Now) -> Turn<Self> {
        let held = reading.record.take().unwrap_or_default();
        let is_other = held.version() != Some(newer.version);
        self.stored = match held.spooled {
            Some(spooled) => spooled.follows,
            None => held.version().filter(|_| is_other),
        };
        // What is noted beside an older version is not about this one; what memory knows of it is.
        let known = self.task.memory.as_deref();
        let known = known.filter(|known| known.version() == Some(newer.version));
        reading.record = Some(Record {
            credential: Some(newer),
            spooled: held.spooled,
            attempt: None,
            suspicion: None,
            acceptance: known
                .and_then(|known| known.acceptance)
                .or(held.acceptance.filter(|_| !is_other)),
            backoff: known
                .and_then(|known| known.backoff.clone())
                .or(held.backoff.filter(|_| !is_other)),
            forced: known.and_then(|known| known.forced.clone()).or(held.forced),
        });
        self.decide(reading, true, now)
    }

    fn stop(self, reading: Reading, result: Result<Gain, Error>) -> Turn<Self> {
        let Reading { record, notes, .. } = reading;
        self.unlock(Outcome::known(record, notes, result))
    }

    fn unlock(mut self, mut outcome: Outcome) -> Turn<Self> {
        outcome.superseded = self.superseded.take();
        let key = self.task.key.clone();
        self.next(
            State::ExpectUnlock(Box::new(outcome)),
            Act::Unlock(Lock::Refresh(key)),
        )
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
        let head = self.task.entropy.iter().take(4);
        let number = head.fold(0u32, |n, byte| n << 8 | u32::from(*byte));
        f64::from(number) / (f64::from(u32::MAX) + 1.0)
    }
}

impl Flow for Unattended {
    type Outcome = Outcome;

    fn start(self, _now: Now) -> Turn<Self> {
        let key = self.task.key.clone();
        self.next(State::ExpectLease, Act::Lock(Lock::Refresh(key)))
    }

    fn handle(mut self, answer: Answer, now: Now) -> Turn<Self> {
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, answer) {
            (State::ExpectLease, Answer::Locked(Ok(_))) => self.reread(false),
            (State::ExpectLease, Answer::Locked(Err(error))) => Turn::Done(Outcome::unread(error)),
            (State::ExpectRecord { merged }, Answer::Read(Ok(reading))) => {
                self.decide(*reading, merged, now)
            }
            (State::ExpectRecord { .. }, Answer::Read(Err(error))) => {
                self.unlock(Outcome::unread(error))
            }
            (State::ExpectMerge { .. }, Answer::Committed(Ok(committed))) => {
                if let Committed::Done { superseded } = committed {
                    self.superseded = superseded.or(self.superseded);
                }
                self.reread(true)
            }
            (State::ExpectMerge { reading, newer }, Answer::Committed(Err(_))) => {
                self.decide_in_memory(*reading, *newer, now)
            }
            (State::Obtaining(obtain, call), answer) => {
                let turn = obtain.handle(answer, now);
                self.obtaining(turn, call, now)
            }
            (State::ExpectCommit(call, new), Answer::Committed(Ok(Committed::Done { .. }))) => {
                self.committed(*call, *new, Kept::Store, now)
            }
            // A login, a logout or a renewal came between, and counts. What was just got is of no worth to anybody else.
            (State::ExpectCommit(..), Answer::Committed(Ok(Committed::Moved))) => self.reread(true),
            (State::ExpectCommit(call, new), Answer::Committed(Err(_))) => {
                let act = Act::Spool {
                    follows: Some(self.stored.unwrap_or(call.credential.version)),
                    credential: new.clone(),
                };
                self.next(State::ExpectSpool(call, new), act)
            }
            (State::ExpectSpool(call, new), Answer::Done(spooled)) => {
                let kept = match spooled {
                    Ok(()) => Kept::Spool,
                    Err(_) => Kept::Memory,
                };
                self.committed(*call, *new, kept, now)
            }
            (State::ExpectFacts(mut outcome), Answer::Noted(noted)) => {
                outcome.unnoted = !matches!(noted, Ok(true));
                self.unlock(*outcome)
            }
            (State::ExpectTold(outcome), Answer::Done(_)) => self.unlock(*outcome),
            (State::ExpectUnlock(outcome), Answer::Done(_)) => Turn::Done(*outcome),
            _ => Turn::Done(Outcome::unread(Error::Bug {
                what: "unattended: an answer that nothing waits for",
            })),
        }
    }
}

/// Whether this would be a call before its time, or why none is made now.
///
/// Whoever waits may look whether the assertion has been replaced that the issuer refused: that costs a read of a file. But
/// where each look finds another one, a few calls an hour may come of that, and no more (I-9). For a client's own secret or
/// key nothing can be seen to have changed, so the pause binds, and no look at the issuer ends it: that something answers
/// there says nothing about a refusal.
fn pause(backoff: &Backoff, waits: bool, now: Now) -> Result<bool, Error> {
    let Some(retry_after) = backoff.binds(now) else {
        return Ok(false);
    };
    if waits && backoff.looks_elsewhere && Backoff::spares(Some(backoff), 1, now) {
        return Ok(true);
    }
    Err(match &backoff.denied {
        Some(error) => Error::DeniedByIssuer {
            error: error.clone(),
        },
        None => Error::BackingOff {
            code: backoff.code.clone(),
            retry_after,
        },
    })
}

const MOST_LOOKS: u32 = 4;

#[cfg(test)]
mod tests;
