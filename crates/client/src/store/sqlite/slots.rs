//! The spool slots of the logins: what each holds, sealed, beside the database and without asking it.

use pilotlight_core::{
    Error,
    attempt::Attempt,
    credential::{Credential, CredentialId, CredentialKey, Version},
};

use super::{Inner, LOCKS, lock};
use crate::{
    hex::hex,
    store::{
        LockName,
        entry::Entry,
        place::Folder,
        seal::{Kind, Place},
        spool::Slot,
    },
};

impl Inner {
    pub(super) fn prepare_spool(&self, key: &CredentialKey) -> Result<(), Error> {
        self.admit_writer()?;
        let id = self.keys.lookup.credential(key);
        let locks = self.folder.sub(LOCKS)?;
        lock::prepare(&locks, &lock::file_name(LockName::Refresh(id)))?;
        let folder = self.folder.sub(SPOOL)?;
        slot(&folder, id).reserve(0)?;
        // What was there already may be the work of a process that died before it was durable.
        locks.sync()?;
        folder.sync()?;
        self.folder.sync()
    }

    pub(super) fn spool(
        &self,
        follows: Option<Version>,
        credential: &Credential,
    ) -> Result<(), Error> {
        let id = self.keys.lookup.credential(&credential.key);
        self.change_slot(id, |entry| entry.keep(follows, credential.clone()))
    }

    pub(super) fn spool_attempt(
        &self,
        id: CredentialId,
        version: Version,
        attempt: Option<&Attempt>,
    ) -> Result<(), Error> {
        self.change_slot(id, |entry| entry.keep_attempt(version, attempt))
    }

    /// Clears an attempt that the database has taken. As well as it can be done: what stays is no later than what the
    /// database holds, or makes the next call a repeat under a label.
    pub(super) fn give_up_spooled_attempt(&self, id: CredentialId, version: Version) {
        let newest = self.spooled_if_readable(id).into_iter().next();
        if newest.and_then(|entry| entry.attempt_of(version)).is_none() {
            return;
        }
        if let Err(error) = self.spool_attempt(id, version, None) {
            tracing::warn!(%error, "an attempt could not be taken out of a spool slot");
        }
    }

    /// What the slot holds, newest first.
    pub(super) fn spooled(&self, id: CredentialId) -> Result<Vec<Entry>, Error> {
        let Some(folder) = self.folder.existing_sub(SPOOL)? else {
            return Ok(Vec::new());
        };
        let envelopes = slot(&folder, id).read()?;
        envelopes
            .iter()
            .map(|envelope| self.keys.open(&spool_place(&id.0), envelope))
            .collect()
    }

    /// The same for writers, whom a damaged slot must not stop: the store's own rules still hold, and a login or a
    /// logout is how a person gets out of the damage.
    pub(super) fn spooled_if_readable(&self, id: CredentialId) -> Vec<Entry> {
        self.spooled(id).unwrap_or_else(|error| {
            unreadable(&error);
            Vec::new()
        })
    }

    /// Grows the slot ahead of the next refresh, whose record will be about as long as this one.
    pub(super) fn make_room(&self, id: CredentialId, length: usize) {
        let grown = self
            .folder
            .existing_sub(SPOOL)
            .and_then(|folder| match folder {
                Some(folder) if slot(&folder, id).exists()? => {
                    slot(&folder, id).reserve(length + ENTRY_EXTRA)
                }
                _ => Ok(()),
            });
        if let Err(error) = grown {
            tracing::warn!(%error, "the spool slot of a login could not be made larger");
        }
    }

    pub(super) fn wipe_slot(&self, id: CredentialId) {
        let wiped = self
            .folder
            .sub(SPOOL)
            .and_then(|folder| slot(&folder, id).wipe());
        if let Err(error) = wiped {
            tracing::warn!(%error, "the spool slot of a login that was ended could not be wiped");
        }
    }

    /// Changes what the slot holds, unless `change` answers that it did not.
    fn change_slot(
        &self,
        id: CredentialId,
        change: impl FnOnce(&mut Entry) -> bool,
    ) -> Result<(), Error> {
        self.admit_writer()?;
        let folder = self.folder.sub(SPOOL)?;
        let place = spool_place(&id.0);
        slot(&folder, id).update(|newest| {
            let mut entry = match newest.map(|envelope| self.keys.open(&place, envelope)) {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    unreadable(&error);
                    Entry::default()
                }
                None => Entry::default(),
            };
            if !change(&mut entry) {
                return Ok(None);
            }
            self.keys.seal(&place, &entry).map(Some)
        })?;
        self.count_change();
        Ok(())
    }
}

fn unreadable(error: &Error) {
    tracing::warn!(%error, "a spool slot cannot be read");
}

fn slot(folder: &Folder, id: CredentialId) -> Slot<'_> {
    Slot::new(folder, &hex(&id.0))
}

fn spool_place(id: &[u8; 32]) -> Place<'_> {
    Place {
        kind: Kind::Spool,
        record: id,
        version: None,
        clear: &[],
    }
}

pub(super) const SPOOL: &str = "spool";
/// How much longer a spooled record can be than a stored one.
const ENTRY_EXTRA: usize = 1024;
