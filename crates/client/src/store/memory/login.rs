//! One login in memory: what is stored of it, and what its spool slot holds.

use pilotlight_core::{
    credential::{Credential, Version},
    event::Event,
    record::Record,
};

use crate::store::{
    entry::Entry,
    rules::{Held, together},
};

#[derive(Debug, Default)]
pub(super) struct Login {
    pub(super) stored: Stored,
    /// The two halves of a slot, newest first.
    pub(super) spooled: Vec<Entry>,
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Default)]
pub(super) enum Stored {
    #[default]
    Nothing,
    Buried(Version),
    Login(Box<Record>, Version),
}

impl Login {
    pub(super) fn held(&self) -> Held {
        match &self.stored {
            Stored::Nothing => Held::Nothing,
            Stored::Buried(version) => Held::Buried(version.incarnation),
            Stored::Login(_, version) => Held::Login(*version),
        }
    }

    /// The spooled version, if it counts.
    pub(super) fn counting(&self) -> Option<&Credential> {
        self.spooled.first()?.counting(self.held())
    }

    /// Changes what the slot holds, unless `change` answers that it did not: the older half is written over.
    pub(super) fn change_slot(&mut self, change: impl FnOnce(&mut Entry) -> bool) {
        let mut entry = self.spooled.first().cloned().unwrap_or_default();
        if change(&mut entry) {
            self.spooled.insert(0, entry);
            self.spooled.truncate(2);
        }
    }

    /// The newest version of the stored login, in store or spool, where `new` is of another.
    pub(super) fn superseded_by(&self, new: Version) -> Option<Box<Credential>> {
        let Stored::Login(record, version) = &self.stored else {
            return None;
        };
        if version.incarnation == new.incarnation {
            return None;
        }
        let held = self.held();
        let spooled = self.spooled.iter().filter_map(|entry| entry.counting(held));
        let newest = spooled
            .filter(|c| c.version.succeeds(version))
            .max_by_key(|c| c.version.generation);
        newest.or(record.credential.as_ref()).cloned().map(Box::new)
    }

    pub(super) fn read(&self) -> Option<Record> {
        let stored = match &self.stored {
            Stored::Nothing => None,
            Stored::Buried(_) => Some(Record::default()),
            Stored::Login(record, _) => Some((**record).clone()),
        };
        together(self.held(), stored, self.spooled.first())
    }

    pub(super) fn add(&mut self, event: &Event) {
        self.events.push(event.clone());
        let surplus = self.events.len().saturating_sub(EVENTS_KEPT);
        self.events.drain(..surplus);
    }
}

const EVENTS_KEPT: usize = 1000;
