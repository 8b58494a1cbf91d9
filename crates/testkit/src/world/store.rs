//! The store that all processes of a run share: it keeps the numbered promises, except where a fault says otherwise.

use std::collections::VecDeque;

use pilotlight_core::{
    Error,
    attempt::Attempt,
    credential::{Binding, Credential, Incarnation, Version},
    error::LoginCause,
    flow::{Buried, Commit, Committed, Expects, Reading, Registration},
    notes::IssuerNotes,
    record::{Fact, Record, Spooled},
};

/// What is stored about one login.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// `None` where there never was one; a record without a credential is a tombstone.
    pub(super) record: Option<Record>,
    /// The login that a logout has ended last.
    pub(super) buried: Option<Incarnation>,
    pub(super) spool: Option<(Vec<Option<Version>>, Credential)>,
    spooled_attempt: Option<(Version, Attempt)>,
    pub(super) binding: Option<Binding>,
}

/// How the store fails just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Health {
    #[default]
    Well,
    /// The disk is full: only what was preallocated can be written.
    Full,
    /// Nothing can be written.
    Broken,
}

/// The store of one run.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) rows: Vec<Row>,
    pub(super) notes: IssuerNotes,
    pub(super) registrations: Vec<Registration>,
    pub(super) health: Health,
    /// How many logins and generations were written.
    pub(super) commits: u64,
    /// The rows before each of the last writes, and when that was, where they may be lost again.
    pub(super) history: Option<VecDeque<(u64, usize, Row)>>,
    /// The time, for the history.
    pub(super) now: u64,
}

impl Row {
    pub(super) fn version(&self) -> Option<Version> {
        self.record.as_ref().and_then(Record::version)
    }

    fn may_become(&self, new: Version) -> bool {
        match self.version() {
            Some(held) => held.incarnation != new.incarnation || new.succeeds(&held),
            None => self.buried != Some(new.incarnation),
        }
    }

    fn spooled(&self) -> Option<&Credential> {
        let (after, credential) = self.spool.as_ref()?;
        let counts = after.contains(&self.version()) && self.may_become(credential.version);
        counts.then_some(credential)
    }

    /// The newest version that store and spool hold.
    pub(super) fn newest(&self) -> Option<&Credential> {
        self.spooled()
            .or_else(|| self.record.as_ref()?.credential.as_ref())
    }

    /// The attempt that is durable for a version.
    pub(super) fn noted_attempt(&self, version: Version) -> Option<Attempt> {
        let spooled = self
            .spooled_attempt
            .filter(|(of, _)| *of == version)
            .map(|(_, attempt)| attempt);
        let noted = self
            .record
            .as_ref()
            .filter(|record| record.version() == Some(version))
            .and_then(|record| record.attempt);
        spooled.or(noted)
    }

    /// Store and spool together (promise 8).
    pub(super) fn read(&self, with_spool: bool) -> Option<Record> {
        let mut record = match self.spooled().filter(|_| with_spool) {
            Some(credential) => Some(Record {
                credential: Some(credential.clone()),
                spooled: Some(Spooled {
                    follows: self.version(),
                }),
                ..Record::default()
            }),
            None => self.record.clone(),
        };
        if let (Some(record), Some((version, attempt))) = (&mut record, &self.spooled_attempt)
            && with_spool
            && record.version() == Some(*version)
            && record
                .attempt
                .is_none_or(|noted| noted.number <= attempt.number)
        {
            record.attempt = Some(*attempt);
        }
        record
    }
}

impl Store {
    pub(super) fn refuses(&self) -> Error {
        Error::StoreUnavailable {
            why: format!("{:?}", self.health),
        }
    }

    fn writes(&mut self, login: usize) -> Result<&mut Row, Error> {
        if self.health != Health::Well {
            return Err(self.refuses());
        }
        if let Some(history) = &mut self.history {
            history.push_back((self.now, login, self.rows[login].clone()));
            if history.len() > 8 {
                history.pop_front();
            }
        }
        Ok(&mut self.rows[login])
    }

    pub(super) fn read(&self, login: usize, with_spool: bool) -> Reading {
        Reading {
            record: self.rows[login].read(with_spool),
            notes: self.notes.clone(),
            writable: true,
        }
    }

    pub(super) fn note(
        &mut self,
        login: usize,
        version: Version,
        facts: &[Fact],
    ) -> Result<bool, Error> {
        // A store whose disk is full has no objection to writing nothing.
        if self.rows[login].version() != Some(version) && self.health == Health::Full {
            return Ok(false);
        }
        let row = self.writes(login)?;
        let about_attempt = facts.iter().any(|fact| matches!(fact, Fact::Attempt(_)));
        let Some(record) = row.record.as_mut().filter(|r| r.version() == Some(version)) else {
            return Ok(false);
        };
        record.apply(facts);
        if about_attempt {
            row.spooled_attempt = None;
        }
        Ok(true)
    }

    /// Writes a version; `forced` writes it whatever is there.
    pub(super) fn commit(
        &mut self,
        login: usize,
        commit: Commit,
        forced: bool,
    ) -> Result<Committed, Error> {
        let row = self.writes(login)?;
        let (stored, new) = (row.version(), commit.credential.version);
        let spooled = row.spooled().map(|credential| credential.version);
        let admitted = match commit.expects {
            _ if forced => true,
            Expects::Version(version) => {
                (stored == Some(version) || spooled == Some(version)) && row.may_become(new)
            }
            Expects::Nothing => stored.is_none() && row.may_become(new),
            Expects::Anything => {
                let already = stored.is_some_and(|held| {
                    held.incarnation == new.incarnation && held.generation >= new.generation
                });
                if already {
                    return Ok(Committed::Done { superseded: None });
                }
                row.may_become(new)
            }
        };
        if !admitted {
            return Ok(Committed::Moved);
        }
        let superseded = row
            .record
            .take()
            .and_then(|record| record.credential)
            .filter(|old| old.version.incarnation != new.incarnation)
            .map(Box::new);
        row.record = Some(Record {
            credential: Some(commit.credential),
            forced: commit.forced,
            ..Record::default()
        });
        row.binding = commit.binding.or(row.binding.take());
        row.spool = None;
        // An attempt in the slot counts beside the version that it belongs to, wherever that is.
        row.spooled_attempt = row.spooled_attempt.filter(|(of, _)| *of == new);
        self.commits += 1;
        Ok(Committed::Done { superseded })
    }

    pub(super) fn spool(
        &mut self,
        login: usize,
        follows: Option<Version>,
        credential: Credential,
    ) -> Result<(), Error> {
        if self.health == Health::Broken {
            return Err(self.refuses());
        }
        let row = &mut self.rows[login];
        let own = credential.version.incarnation;
        let replaces = |after: &Option<Version>| after.is_some_and(|v| v.incarnation == own);
        if let Some((after, kept)) = &row.spool
            && kept.version.incarnation != own
            && after.iter().any(replaces)
        {
            return Ok(());
        }
        let mut after = vec![follows];
        if let Some((before, held)) = row.spool.take() {
            let follows_held = Some(held.version) == follows;
            let replaces_held =
                credential.version.generation.0 == 0 && held.version.incarnation != own;
            if replaces_held {
                after.push(Some(held.version));
            }
            if follows_held || replaces_held {
                after.extend(before);
            }
        }
        row.spool = Some((after, credential));
        Ok(())
    }

    pub(super) fn spool_attempt(
        &mut self,
        login: usize,
        version: Version,
        attempt: Option<Attempt>,
    ) -> Result<(), Error> {
        if self.health == Health::Broken {
            return Err(self.refuses());
        }
        self.rows[login].spooled_attempt = attempt.map(|attempt| (version, attempt));
        Ok(())
    }

    pub(super) fn bury(&mut self, login: usize) -> Result<Option<Box<Buried>>, Error> {
        let row = self.writes(login)?;
        let credential = row.newest().cloned();
        row.record = row.record.as_ref().map(|_| Record::default());
        (row.spool, row.spooled_attempt) = (None, None);
        let Some(credential) = credential else {
            return Ok(None);
        };
        row.record = Some(Record::default());
        row.buried = Some(credential.version.incarnation);
        self.commits += 1;
        Ok(Some(Box::new(Buried {
            credential,
            unshared: None,
        })))
    }

    /// Forgets the last writes; which logins that changed, and when each write was.
    pub(super) fn roll_back(&mut self, writes: usize) -> Vec<(usize, u64)> {
        let mut changed = Vec::new();
        for _ in 0..writes {
            let Some((written_at, login, row)) = self.history.as_mut().and_then(VecDeque::pop_back)
            else {
                break;
            };
            let binding = self.rows[login].binding.clone();
            self.rows[login] = Row { binding, ..row };
            changed.push((login, written_at));
        }
        changed
    }

    /// Deletes what is stored of a login, as only a known-bad program does.
    pub(super) fn delete(&mut self, login: usize) {
        self.rows[login].record = None;
        self.rows[login].spool = None;
    }

    /// What whoever asks for a login that is not there is told.
    pub(super) fn never() -> Error {
        Error::login(LoginCause::Never)
    }
}
