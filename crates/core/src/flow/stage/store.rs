//! The store of the stage, and its spool: they keep their promises.

use super::*;
use crate::record::Spooled;

impl Stage {
    pub(in crate::flow) fn record(&self) -> &Record {
        self.record.as_ref().expect("a record")
    }

    pub(in crate::flow) fn generation(&self) -> u64 {
        self.record().version().expect("a login").generation.0
    }

    /// The login as another process would commit it, right now.
    pub(in crate::flow) fn put(&mut self, credential: Credential) {
        self.record = Some(Record {
            credential: Some(credential),
            ..Record::default()
        });
    }

    pub(in crate::flow) fn read(&self) -> Reading {
        let (notes, writable) = (self.notes.clone(), !self.read_only);
        let stored = self.record.as_ref().and_then(Record::version);
        let mut record = match &self.spool {
            Some((after, credential))
                if after.contains(&stored) && self.may_become(credential.version) =>
            {
                let spooled = Some(Spooled { follows: stored });
                Some(Record {
                    credential: Some(credential.clone()),
                    spooled,
                    ..Record::default()
                })
            }
            _ => self.record.clone(),
        };
        if let (Some(record), Some((version, spooled))) = (&mut record, self.slot_attempt)
            && record.version() == Some(version)
            && record
                .attempt
                .is_none_or(|noted| spooled.number > noted.number)
        {
            record.attempt = Some(spooled);
        }
        Reading {
            record,
            notes,
            writable,
        }
    }

    fn may_become(&self, new: Version) -> bool {
        match self.record.as_ref().and_then(Record::version) {
            Some(held) => held.incarnation != new.incarnation || new.succeeds(&held),
            None => self.buried != Some(new.incarnation),
        }
    }

    pub(super) fn note(&mut self, version: Version, facts: &[Fact], event: Option<Event>) -> bool {
        let stored = self.record.as_mut();
        let Some(record) = stored.filter(|record| record.version() == Some(version)) else {
            return false;
        };
        record.apply(facts);
        self.events.extend(event);
        if facts.iter().any(|fact| matches!(fact, Fact::Attempt(_))) {
            self.keep_attempt(version, None);
        }
        true
    }

    pub(super) fn keep(&mut self, follows: Option<Version>, credential: Credential) {
        let own = credential.version.incarnation;
        let replaces = |after: &Option<Version>| after.is_some_and(|v| v.incarnation == own);
        if let Some((after, kept)) = &self.spool
            && kept.version.incarnation != own
            && after.iter().any(replaces)
        {
            return;
        }
        let mut after = vec![follows];
        if let Some((before, held)) = self.spool.take()
            && Some(held.version) == follows
        {
            after.extend(before);
        }
        self.spool = Some((after, credential));
    }

    pub(super) fn keep_attempt(&mut self, version: Version, attempt: Option<Attempt>) {
        match attempt {
            Some(attempt) => self.slot_attempt = Some((version, attempt)),
            None => drop(self.slot_attempt.take_if(|(of, _)| *of == version)),
        }
    }

    pub(super) fn commit(&mut self, commit: Commit) -> Committed {
        self.commits.push(commit.clone());
        let stored = self.record.as_ref().and_then(Record::version);
        let spooled = self
            .read()
            .record
            .filter(|r| r.spooled.is_some())
            .and_then(|r| r.version());
        let fits = match commit.expects {
            Expects::Version(version) => stored == Some(version) || spooled == Some(version),
            Expects::Nothing => stored.is_none(),
            Expects::Anything => true,
        };
        if !fits
            || (commit.expects != Expects::Anything && !self.may_become(commit.credential.version))
        {
            return Committed::Moved;
        }
        let other =
            |old: &Credential| old.version.incarnation != commit.credential.version.incarnation;
        let superseded = self
            .record
            .take()
            .and_then(|record| record.credential)
            .filter(other)
            .map(Box::new);
        let Commit {
            credential,
            forced,
            binding,
            event,
            ..
        } = commit;
        self.record = Some(Record {
            credential: Some(credential),
            forced,
            ..Record::default()
        });
        self.binding = binding.or(self.binding.take());
        self.spool = None;
        self.events.push(event);
        Committed::Done { superseded }
    }

    pub(super) fn bury(&mut self, event: Event, revoke: bool) -> Option<Box<Buried>> {
        let credential = self.record.take()?.credential;
        self.record = Some(Record::default());
        self.slot_attempt = None;
        let credential = credential?;
        self.buried = Some(credential.version.incarnation);
        self.events.push(event);
        if revoke {
            self.queue.push(credential.clone());
        }
        let unshared = self
            .registrations
            .iter()
            .find(|r| r.client.id == credential.client.id)
            .cloned();
        Some(Box::new(Buried {
            credential,
            unshared,
        }))
    }
}
