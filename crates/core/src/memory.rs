//! What one process holds in memory of one login, and what it does with it when a request comes.
//!
//! The store is shared; this is the copy that requests are served from. It knows what no store has taken yet, and never
//! lets something older take the place of something newer. It waits for nothing and sends nothing: the caller runs the
//! refresh that it asks for, once for all requests that need it, and hands the outcome to [`Memory::settle`].

mod saving;

use std::time::Duration;

pub use saving::Saving;

use crate::{
    attempt::{Attempt, ProcessId, Ruling, repeat_window},
    credential::{Credential, CredentialKey, Version},
    error::{Action, Error, LoginCause, Waited},
    flow::refresh::{Gain, Outcome, Task},
    freshness::{Freshness, Policy},
    notes::IssuerNotes,
    record::{Acceptance, Kept, Record, Suspicion},
    time::{BootId, Now, Wall},
};

/// One process's copy of one login. See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The newest that is known; `None` before the first look at the store.
    pub record: Option<Record>,
    /// What is known of the issuer.
    pub notes: IssuerNotes,
    /// Whether neither store nor spool has taken the version in `record`.
    pub unsaved: bool,
    /// Whether `record` holds facts that the store could not note.
    pub unnoted: bool,
    /// The attempt and the refusal that the last refresh of this process has left standing. A store that shows neither any
    /// more has gone back: what was sent was sent, and what was refused was refused.
    standing: Standing,
}

/// What a refresh leaves standing of a version.
#[derive(Debug, Clone, Default)]
struct Standing {
    attempt: Option<Attempt>,
    suspicion: Option<Suspicion>,
}

/// What a caller wants of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// Whether a person or program asked, due or not.
    pub asked: bool,
    /// The version that the server refused, if that is why.
    pub refused: Option<Version>,
}

/// How a request gets its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// From memory, at once.
    Serve,
    /// From memory, at once; a refresh is due beside it.
    ServeAndRefresh,
    /// After the refresh in flight, or one that is started for it.
    Wait,
}

/// What became of something that was read or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// It is what memory held.
    Same,
    /// It is another version, and now the current one.
    Changed,
    /// Memory holds something newer of the same login: that has to go back to the store.
    Older,
}

impl Standing {
    fn of(record: &Record) -> Self {
        // What a server said of a key that a person has brought ends in any process where it takes it again.
        let key = record
            .credential
            .as_ref()
            .is_some_and(Credential::is_static);
        Self {
            attempt: record.attempt,
            suspicion: record.suspicion.clone().filter(|_| !key),
        }
    }

    fn is_any(&self) -> bool {
        self.attempt.is_some() || self.suspicion.is_some()
    }
}

impl Memory {
    /// The version in memory.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.record.as_ref().and_then(Record::version)
    }

    /// The login in memory.
    ///
    /// # Errors
    /// `login.never` where there is none.
    pub fn credential(&self) -> Result<&Credential, Error> {
        self.record
            .as_ref()
            .and_then(|record| record.credential.as_ref())
            .ok_or_else(|| Error::login(LoginCause::Never))
    }

    /// Takes over what was read or made, unless memory holds something newer of the same login. `boot` is this machine's.
    pub fn install(
        &mut self,
        record: Option<Record>,
        notes: Option<IssuerNotes>,
        unsaved: bool,
        boot: BootId,
    ) -> Installed {
        if let Some(notes) = notes {
            self.notes = notes;
        }
        let held = self.version();
        let found = record.as_ref().and_then(Record::version);
        let known = self.credential().ok();
        let read = record
            .as_ref()
            .and_then(|record| record.credential.as_ref());
        if matches!((known, read), (Some(known), Some(read)) if known.is_ahead_of(read, boot)) {
            // The store has gone back, or never got this version: memory is the newest copy, and is brought back to it.
            self.unsaved = true;
            return Installed::Older;
        }
        let mut record = record;
        if held != found {
            self.standing = Standing::default();
        } else if let Some(read) = &mut record {
            if read.suspicion.is_none() {
                read.attempt = Attempt::of_both(read.attempt, self.standing.attempt, boot);
            }
            let known = &self.standing.suspicion;
            read.suspicion = Suspicion::of_both(read.suspicion.take(), known, boot);
        }
        match (&self.record, &mut record) {
            // What the store could not note is known here all the same.
            (Some(known), Some(read)) if self.unnoted && held == found => {
                read.remember(known, boot);
            }
            _ => self.unnoted = false,
        }
        self.unsaved = unsaved;
        self.record = record;
        if held == found {
            Installed::Same
        } else {
            Installed::Changed
        }
    }

    /// Says how a request gets its token now.
    ///
    /// # Errors
    /// `login.never` where there is no login.
    pub fn service(&self, now: Now, policy: Policy) -> Result<Service, Error> {
        Ok(match self.credential()?.freshness(now, policy) {
            Freshness::Fresh { .. } => Service::Serve,
            Freshness::Due { .. } if self.may_refresh(now) => Service::ServeAndRefresh,
            Freshness::Due { .. } => Service::Serve,
            Freshness::Expired { .. } => Service::Wait,
        })
    }

    /// Whether a refresh now could do more than find out that none is allowed.
    #[must_use]
    pub fn may_refresh(&self, now: Now) -> bool {
        let Some(record) = &self.record else {
            return true;
        };
        let pausing = record
            .backoff
            .as_ref()
            .is_some_and(|backoff| backoff.binds(now).is_some());
        let refused = record
            .suspicion
            .as_ref()
            .is_some_and(|s| s.probe_in(now).is_none_or(|left| !left.is_zero()));
        let endless = record.credential.as_ref().is_some_and(Credential::is_final);
        !pausing && !refused && !endless
    }

    /// Whether memory now holds what a caller wants.
    fn satisfies(&self, want: Want, now: Now, policy: Policy) -> bool {
        self.credential().is_ok_and(|credential| {
            want.refused != Some(credential.version)
                && matches!(credential.freshness(now, policy), Freshness::Fresh { .. })
        })
    }

    /// Whether the end of a refresh that was under way already is what a caller who joined it wants to know. Else the caller
    /// begins one of its own: the other was for a milder reason, or refused for a reason of its own.
    #[must_use]
    pub fn answers(
        &self,
        want: Want,
        result: &Result<Gain, Error>,
        now: Now,
        policy: Policy,
    ) -> bool {
        match result {
            // What was only brought to the store is not what somebody asked for.
            Ok(Gain::Nothing | Gain::Uncertain) if want.asked => false,
            Ok(_) => self.satisfies(want, now, policy),
            Err(Error::DeniedByResource) => want.refused.is_some(),
            Err(_) => true,
        }
    }

    /// Where the newest version lies.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let spooled = self.record.as_ref().and_then(|record| record.spooled);
        match spooled {
            _ if self.unsaved => Kept::Memory,
            Some(_) => Kept::Spool,
            None => Kept::Store,
        }
    }

    /// Whether something waits to be brought to the store: a version that only memory or the spool holds.
    #[must_use]
    pub fn waits_for_store(&self) -> bool {
        self.kept() != Kept::Store
    }

    /// Whether somebody's attempt has stood for so long that its process may be dead, and can still be repeated in time: a
    /// refresh finds out, since the dead hold no lock (F-03, F-11).
    #[must_use]
    pub fn finds_abandoned(&self, now: Now, policy: Policy) -> bool {
        let Some(record) = &self.record else {
            return false;
        };
        let window = repeat_window(self.notes.grace(now.wall), policy.repeat_limit);
        record.attempt.is_some_and(|attempt| {
            let stands = now
                .since(&attempt.sent_at)
                .is_some_and(|age| age >= ABANDONED_AFTER);
            stands && matches!(attempt.ruling(now, window), Ruling::Send(_))
        }) && self.may_refresh(now)
    }

    /// What a refresh is to do; `None` where there is no login.
    #[must_use]
    pub fn task(
        &self,
        want: Want,
        process: ProcessId,
        entropy: [u8; 32],
        policy: Policy,
    ) -> Option<Task> {
        let credential = self.credential().ok()?;
        Some(Task {
            key: credential.key.clone(),
            held: Some(credential.version),
            refused: want.refused,
            asked: want.asked,
            unsaved: self.unsaved.then(|| Box::new(credential.clone())),
            memory: self.record.clone().map(Box::new),
            remembered: self
                .record
                .as_ref()
                .filter(|_| self.unnoted || self.standing.is_any())
                .cloned()
                .map(Box::new),
            process,
            entropy,
            policy,
        })
    }

    /// Takes over how a refresh ended.
    ///
    /// # Errors
    /// Those of the refresh.
    pub fn settle(&mut self, outcome: Outcome, boot: BootId) -> (Installed, Result<Gain, Error>) {
        let Outcome {
            record,
            notes,
            result,
            unsaved,
            unnoted,
            // Whoever runs the refresh has taken it.
            superseded: _,
        } = outcome;
        let mut installed = Installed::Same;
        if record.is_some() {
            (self.unnoted, self.standing) = (false, Standing::default());
            let standing = record.as_ref().map(Standing::of).unwrap_or_default();
            installed = self.install(record, Some(notes), unsaved, boot);
            self.unnoted = unnoted;
            if installed != Installed::Older {
                self.standing = standing;
            }
        }
        (installed, result)
    }

    /// Whether the server has lately refused a key that a person has brought: the next time that it takes it is to be noted.
    #[must_use]
    pub fn doubts_key(&self) -> bool {
        self.record.as_ref().is_some_and(|record| {
            let key = record
                .credential
                .as_ref()
                .is_some_and(Credential::is_static);
            key && record.suspicion.is_some()
        })
    }

    /// Takes note that the server has taken a key that it had refused; answers whose, where that is to be written beside it.
    pub fn key_accepted(&mut self, version: Version) -> Option<CredentialKey> {
        let doubted = self.doubts_key() && self.version() == Some(version);
        let record = self.record.as_mut().filter(|_| doubted)?;
        record.suspicion = None;
        record.credential.as_ref().map(|held| held.key.clone())
    }

    /// Takes note that the server accepted a token: what to write beside the login, at once for each generation and at
    /// most once a minute after that.
    pub fn accepted(&mut self, version: Version, now: Wall) -> Option<(CredentialKey, Acceptance)> {
        let record = self.record.as_mut()?;
        let credential = record.credential.as_ref()?;
        if credential.version != version {
            return None;
        }
        let seen = record
            .acceptance
            .filter(|seen| seen.generation == version.generation);
        if seen.is_some_and(|seen| seen.last_at.until(now) < A_MINUTE) {
            return None;
        }
        let key = credential.key.clone();
        let acceptance = Acceptance {
            generation: version.generation,
            first_at: seen.map_or(now, |seen| seen.first_at),
            last_at: now,
        };
        record.acceptance = Some(acceptance);
        Some((key, acceptance))
    }
}

/// Whether an ended token is tried although its refresh failed like this: the issuer cannot be reached, so the server
/// decides (F-13). Not while the refresh is still under way.
#[must_use]
pub fn tries_the_ended(error: &Error) -> bool {
    let under_way = matches!(
        error,
        Error::Timeout {
            waited_for: Waited::Refresh,
            ..
        }
    );
    !under_way && error.action() == Action::RetryLater
}

/// Most refreshes take a fraction of this.
const ABANDONED_AFTER: Duration = Duration::from_secs(3);
const A_MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
