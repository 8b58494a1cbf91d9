//! What happens to a login: read, commit, burial, revocation. Each is one transaction; the spool is beside it.

use pilotlight_core::{
    Error,
    credential::{Credential, CredentialId, CredentialKey, Generation, Incarnation, Version},
    event::{Event, Happened},
    flow::{Buried, Commit, Committed, Expects, Registration},
    record::{Fact, Record},
    registration::ClientSource,
    time::Wall,
};
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use super::{
    Inner,
    error::sql,
    rows::{self, Stored},
    schema::hides_nothing,
    tables::{self, TakenName},
};
use crate::store::{
    QueuedRevocation,
    entry::Entry,
    rules::{Admission, together},
    seal::{Kind, Place, short},
};

impl Inner {
    pub(super) fn read(&self, key: &CredentialKey) -> Result<Option<Record>, Error> {
        let id = self.keys.lookup.credential(key);
        let newest = self.spooled(id)?.into_iter().next();
        let stored = self.reading(|connection| rows::load(connection, &self.keys, id))?;
        let held = stored.held();
        let stored = match stored {
            Stored::Login(record, _) => Some(*record),
            Stored::Buried(_) => Some(Record::default()),
            Stored::Nothing => None,
        };
        Ok(together(held, stored, newest.as_ref()))
    }

    pub(super) fn note(
        &self,
        key: &CredentialKey,
        version: Version,
        facts: &[Fact],
        event: Option<&Event>,
    ) -> Result<bool, Error> {
        let id = self.keys.lookup.credential(key);
        let noted = self.writing(|transaction| {
            let noted = rows::note(transaction, &self.keys, id, version, facts)?;
            if let (true, Some(event)) = (noted, event) {
                rows::add_event(transaction, &self.keys, id, event)?;
            }
            Ok(noted)
        })?;
        if noted && facts.iter().any(|fact| matches!(fact, Fact::Attempt(_))) {
            self.give_up_spooled_attempt(id, version);
        }
        Ok(noted)
    }

    pub(super) fn commit(&self, commit: &Commit) -> Result<Committed, Error> {
        let new = &commit.credential;
        let id = self.keys.lookup.credential(&new.key);
        let entries = self.spooled_if_readable(id);
        let (committed, length) = self.writing(|transaction| {
            let (stored, damaged) = match commit.expects {
                // A login never loses, least of all to what nobody can read any more.
                Expects::Anything => rows::load_or_damaged(transaction, &self.keys, id)?,
                _ => (rows::load(transaction, &self.keys, id)?, false),
            };
            let held = stored.held();
            let spooled = entries
                .first()
                .and_then(|entry| entry.counting(held))
                .map(|credential| credential.version);
            let (superseded, length) = match held.admits(spooled, commit.expects, new.version) {
                Admission::Moved => return Ok((Committed::Moved, None)),
                Admission::Already => (None, None),
                Admission::Write => {
                    let length =
                        rows::save(transaction, &self.keys, id, new, commit.forced.as_ref())?;
                    (superseded(stored, &entries, new.version), Some(length))
                }
            };
            if let Some(binding) = &commit.binding {
                tables::put_binding(transaction, &self.keys, binding, TakenName::Number)?;
            }
            if damaged {
                let event = damage(&commit.event);
                rows::add_event(transaction, &self.keys, id, &event)?;
            }
            rows::add_event(transaction, &self.keys, id, &commit.event)?;
            Ok((Committed::Done { superseded }, length))
        })?;
        if let Some(length) = length {
            self.make_room(id, length);
        }
        Ok(committed)
    }

    pub(super) fn bury(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<Option<Buried>, Error> {
        let id = self.keys.lookup.credential(key);
        let entries = self.spooled_if_readable(id);
        let now = self.clock.now().wall;
        let buried = self.writing(|transaction| {
            // The damage of another login is not in the way of this one's end.
            let (stored, damaged) = rows::load_or_damaged(transaction, &self.keys, id)?;
            if damaged {
                let what = format!("credential {}", short(&id.0));
                return Err(Error::StoreCorrupt { what });
            }
            // Only the newest: it was written knowing the other.
            let spooled = entries
                .first()
                .and_then(|entry| entry.counting(stored.held()))
                .cloned();
            let credential = match (spooled, stored) {
                (Some(credential), stored) => {
                    // A login that only the spool holds is over, and so is the one that it was about to replace.
                    if let Stored::Login(record, version) = stored
                        && version.incarnation != credential.version.incarnation
                        && let Some(replaced) = record.credential
                        && revoke
                    {
                        let replaced = Buried {
                            credential: replaced,
                            unshared: None,
                        };
                        self.queue(transaction, id, &replaced, now)?;
                    }
                    credential
                }
                (None, Stored::Login(record, _)) => match record.credential {
                    Some(credential) => credential,
                    None => return Ok(None),
                },
                (None, Stored::Buried(_) | Stored::Nothing) => return Ok(None),
            };
            rows::entomb(transaction, &self.keys, id, credential.version, now)?;
            let unshared = self.take_unshared_registration(transaction, id, &credential)?;
            let buried = Buried {
                credential,
                unshared,
            };
            if revoke {
                self.queue(transaction, id, &buried, now)?;
            }
            rows::add_event(transaction, &self.keys, id, event)?;
            forget_old(transaction, now)?;
            Ok(Some(buried))
        })?;
        if buried.is_some() {
            self.wipe_slot(id);
            if !revoke {
                self.empty_the_log();
            }
        }
        Ok(buried)
    }

    pub(super) fn bury_damaged(
        &self,
        key: &CredentialKey,
        event: &Event,
        revoke: bool,
    ) -> Result<bool, Error> {
        let id = self.keys.lookup.credential(key);
        let entries = self.spooled_if_readable(id);
        let now = self.clock.now().wall;
        let buried = self.writing(|transaction| {
            let (_, damaged) = rows::load_or_damaged(transaction, &self.keys, id)?;
            if !damaged {
                return Ok(false);
            }
            let kept = entries.first().and_then(|entry| entry.credential.clone());
            let version = rows::clear_version(transaction, id).unwrap_or(Version {
                incarnation: Incarnation(crate::crypto::random()),
                generation: Generation(0),
            });
            rows::entomb(transaction, &self.keys, id, version, now)?;
            if let Some(credential) = kept.filter(|_| revoke) {
                let unshared = None;
                let kept = Buried {
                    credential,
                    unshared,
                };
                self.queue(transaction, id, &kept, now)?;
            }
            rows::add_event(transaction, &self.keys, id, &damage(event))?;
            rows::add_event(transaction, &self.keys, id, event)?;
            forget_old(transaction, now)?;
            Ok(true)
        })?;
        if buried {
            self.wipe_slot(id);
            self.empty_the_log();
        }
        Ok(buried)
    }

    pub(super) fn revocations(&self) -> Result<Vec<QueuedRevocation>, Error> {
        self.reading(|connection| {
            hides_nothing(connection, "revocation", "revocation_login")?;
            let mut statement = connection
                .prepare_cached(
                    "SELECT id, login, queued_at, sealed FROM revocation ORDER BY queued_at, seq",
                )
                .map_err(|e| sql(&e))?;
            let rows = statement
                .query_map((), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })
                .map_err(|e| sql(&e))?;
            rows.map(|row| self.open_revocation(row.map_err(|e| sql(&e))?))
                .collect()
        })
    }

    pub(super) fn revoked(
        &self,
        key: &CredentialKey,
        incarnation: Incarnation,
    ) -> Result<(), Error> {
        let login = self.keys.lookup.credential(key);
        self.writing(|transaction| {
            let mut statement = transaction
                .prepare("SELECT id, login, queued_at, sealed FROM revocation WHERE login = ?1")
                .map_err(|e| sql(&e))?;
            let rows = statement
                .query_map([login.0], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })
                .map_err(|e| sql(&e))?;
            for row in rows {
                let row: ([u8; 32], [u8; 32], i64, Vec<u8>) = row.map_err(|e| sql(&e))?;
                let id = row.0;
                if self.open_revocation(row)?.credential.version.incarnation == incarnation {
                    transaction
                        .execute("DELETE FROM revocation WHERE id = ?1", [id])
                        .map_err(|e| sql(&e))?;
                }
            }
            Ok(())
        })?;
        self.empty_the_log();
        Ok(())
    }

    /// Takes out the registration that only this login used and that this program made.
    fn take_unshared_registration(
        &self,
        transaction: &Connection,
        id: CredentialId,
        credential: &Credential,
    ) -> Result<Option<Registration>, Error> {
        if credential.client.source != ClientSource::Dynamic {
            return Ok(None);
        }
        let client = self
            .keys
            .lookup
            .client(&credential.key.issuer, &credential.client.id);
        let shared = transaction
            .query_row(
                "SELECT 1 FROM credential WHERE client = ?1 AND id <> ?2 LIMIT 1",
                (client, id.0),
                |_| Ok(()),
            )
            .optional()
            .map_err(|e| sql(&e))?;
        if shared.is_some() {
            Ok(None)
        } else {
            tables::take_registration(transaction, &self.keys, &client)
        }
    }

    fn queue(
        &self,
        transaction: &Connection,
        id: CredentialId,
        buried: &Buried,
        now: Wall,
    ) -> Result<(), Error> {
        let (record, queued_at): ([u8; 32], i64) = (crate::crypto::random(), rows::instant(now));
        let clear: [&[u8]; 2] = [&id.0, &queued_at.to_be_bytes()];
        let place = Place {
            kind: Kind::Revocation,
            record: &record,
            version: None,
            clear: &clear,
        };
        let queued = Queued {
            credential: buried.credential.clone(),
            unshared: buried.unshared.clone(),
        };
        let sealed = self.keys.seal(&place, &queued)?;
        transaction
            .execute(
                "INSERT INTO revocation (id, login, queued_at, sealed) VALUES (?1, ?2, ?3, ?4)",
                (record, id.0, queued_at, sealed),
            )
            .map_err(|e| sql(&e))
            .map(drop)
    }

    fn open_revocation(
        &self,
        row: ([u8; 32], [u8; 32], i64, Vec<u8>),
    ) -> Result<QueuedRevocation, Error> {
        let (id, login, at, sealed) = row;
        let clear: [&[u8]; 2] = [&login, &at.to_be_bytes()];
        let place = Place {
            kind: Kind::Revocation,
            record: &id,
            version: None,
            clear: &clear,
        };
        let Queued {
            credential,
            unshared,
        } = self.keys.open(&place, &sealed)?;
        Ok(QueuedRevocation {
            credential,
            unshared,
            queued_at: Wall(u64::try_from(at).unwrap_or_default()),
        })
    }

    /// Moves the log into the file and empties it, so that what was deleted is nowhere. As well as it can be done: while
    /// another process reads, the log is emptied by a later call.
    fn empty_the_log(&self) {
        let connection = self.connection();
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
        {
            tracing::warn!(%error, "the log of the store could not be emptied");
        }
    }
}

/// What the history says before the event of whoever takes the place of a login that nobody can read.
fn damage(event: &Event) -> Event {
    Event {
        happened: Happened::Damaged,
        ..event.clone()
    }
}

/// What a row of the revocation queue holds.
#[derive(Serialize, Deserialize)]
struct Queued {
    credential: Credential,
    unshared: Option<Registration>,
}

/// The newest version of another incarnation that a commit replaces; where a login is spooled over a refresh that never
/// reached the store, that version lies in the other half.
fn superseded(stored: Stored, entries: &[Entry], new: Version) -> Option<Box<Credential>> {
    let held = stored.held();
    let Stored::Login(record, version) = stored else {
        return None;
    };
    if version.incarnation == new.incarnation {
        return None;
    }
    let spooled = entries
        .iter()
        .filter_map(|entry| entry.counting(held))
        .filter(|credential| credential.version.succeeds(&version))
        .max_by_key(|credential| credential.version.generation);
    spooled.cloned().or(record.credential).map(Box::new)
}

/// Forgets tombstones with their history, and revocations that nobody managed, after thirty days.
pub(super) fn forget_old(transaction: &Connection, now: Wall) -> Result<(), Error> {
    let before = rows::instant(Wall(now.0.saturating_sub(THIRTY_DAYS_MS)));
    let forget = |what: &str| transaction.execute(what, [before]).map_err(|e| sql(&e));
    forget("DELETE FROM event WHERE login IN (SELECT id FROM credential WHERE buried_at < ?1)")?;
    forget("DELETE FROM credential WHERE buried_at < ?1")?;
    forget("DELETE FROM revocation WHERE queued_at < ?1")?;
    Ok(())
}

const THIRTY_DAYS_MS: u64 = 30 * 86_400 * 1000;
