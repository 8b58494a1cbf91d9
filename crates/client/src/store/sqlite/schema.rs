//! The tables, and the header that says what the file is and which key opens it.
//!
//! Clear columns are ids (keyed hashes), versions, and instants that order rows; all of them are bound into what is
//! sealed beside them.

use std::path::Path;

use hmac::Mac;
use pilotlight_core::{Error, time::Wall};
use rusqlite::{Connection, OptionalExtension as _};
use zeroize::Zeroizing;

use super::error::{first_look, sql};
use crate::store::{
    key::{KEY_FILE, RootKey, Slot, SlotKey},
    lookup::{framed, hmac},
    seal::{Keys, derive},
};

/// `application_id` of the file: "Plit".
pub(super) const APPLICATION_ID: i32 = 0x506c_6974;
/// The format that this program writes.
const FORMAT: u32 = 1;
/// What this program is as a reader: it reads stores whose `min_reader` is at most this.
pub(super) const READER: u32 = 1;
/// What this program is as a writer.
pub(super) const WRITER: u32 = 1;
const MAGIC: &str = "pilotlight";

const TABLES: &str = "
CREATE TABLE header (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    magic TEXT NOT NULL,
    format INTEGER NOT NULL,
    store_id BLOB NOT NULL,
    min_reader INTEGER NOT NULL,
    min_writer INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    slots TEXT NOT NULL,
    key_id INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT;
-- A login, or (buried_at set) its tombstone. The facts are JSON behind a MAC.
CREATE TABLE credential (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    incarnation BLOB NOT NULL,
    generation INTEGER NOT NULL,
    client BLOB,
    buried_at INTEGER,
    sealed BLOB NOT NULL,
    attempt BLOB,
    acceptance BLOB,
    suspicion BLOB,
    backoff BLOB,
    forced BLOB
) STRICT;
CREATE UNIQUE INDEX credential_id ON credential (id);
CREATE INDEX credential_client ON credential (client);
CREATE TABLE binding (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    name BLOB NOT NULL UNIQUE,
    sealed BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX binding_id ON binding (id);
CREATE TABLE registration (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    issuer BLOB NOT NULL,
    sealed BLOB NOT NULL
) STRICT;
CREATE INDEX registration_issuer ON registration (issuer);
CREATE TABLE revocation (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    login BLOB NOT NULL,
    queued_at INTEGER NOT NULL,
    sealed BLOB NOT NULL
) STRICT;
CREATE INDEX revocation_login ON revocation (login);
CREATE TABLE issuer (
    id BLOB PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;
CREATE TABLE event (
    login BLOB NOT NULL,
    n INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (login, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE outcome (
    binding BLOB PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;
";

/// The header row.
pub(super) struct Header {
    pub(super) store_id: [u8; 16],
    pub(super) min_reader: u32,
    pub(super) min_writer: u32,
    pub(super) created_at: Wall,
    key_id: u32,
    format: u32,
    pub(super) slots_text: String,
    mac: Vec<u8>,
}

impl Header {
    /// Draws a new store: its id, its root key, and the slot that the key file opens.
    pub(super) fn draw(key: &SlotKey, created_at: Wall) -> Result<Self, Error> {
        let (store_id, root): ([u8; 16], RootKey) = (
            crate::crypto::random(),
            Zeroizing::new(crate::crypto::random()),
        );
        let key_id = 1;
        let slots =
            serde_json::to_string(&[key.wrap(&root, &store_id, key_id)?]).map_err(|_| {
                Error::Bug {
                    what: "header: slots that are no JSON",
                }
            })?;
        let mut header = Self {
            store_id,
            min_reader: READER,
            min_writer: WRITER,
            created_at,
            key_id,
            format: FORMAT,
            slots_text: slots,
            mac: Vec::new(),
        };
        header.sign(&root);
        Ok(header)
    }

    /// Authenticates the header anew.
    pub(super) fn sign(&mut self, root: &RootKey) {
        self.mac = self.authenticated(root).finalize().into_bytes().to_vec();
    }

    /// Writes tables and header into an empty file.
    pub(super) fn create(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.pragma_update(None, "user_version", FORMAT)?;
        let transaction = connection.transaction()?;
        transaction.execute_batch(TABLES)?;
        self.write(&transaction)?;
        transaction.commit()
    }

    /// Writes the header row.
    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.execute(
            "INSERT OR REPLACE INTO header VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            (
                MAGIC,
                self.format,
                self.store_id,
                self.min_reader,
                self.min_writer,
                i64::try_from(self.created_at.0).unwrap_or(i64::MAX),
                &self.slots_text,
                self.key_id,
                &self.mac,
            ),
        )?;
        Ok(())
    }

    /// Reads the header of a file that may be anything.
    pub(super) fn read(connection: &Connection, path: &str) -> Result<Self, Error> {
        let application: i64 = connection
            .pragma_query_value(None, "application_id", |row| row.get(0))
            .map_err(|e| first_look(&e, path))?;
        if application != i64::from(APPLICATION_ID) {
            return Err(Error::StoreForeign {
                path: path.to_owned(),
            });
        }
        // The one column that every format keeps: a newer format may have another header.
        let (min_reader, _) = required_versions(connection)?;
        if min_reader > READER {
            return Err(Error::StoreNewerFormat {
                found: min_reader,
                known: READER,
            });
        }
        let row = connection
            .query_row(
                "SELECT magic, format, store_id, min_reader, min_writer, created_at, slots, key_id, mac FROM header",
                (),
                |row| {
                    let created_at = u64::try_from(row.get::<_, i64>(5)?).unwrap_or_default();
                    let header = Self {
                        format: row.get(1)?,
                        store_id: row.get(2)?,
                        min_reader: row.get(3)?,
                        min_writer: row.get(4)?,
                        created_at: Wall(created_at),
                        slots_text: row.get(6)?,
                        key_id: row.get(7)?,
                        mac: row.get(8)?,
                    };
                    Ok((row.get::<_, String>(0)?, header))
                },
            )
            .map_err(|e| sql(&e))?;
        match row {
            (magic, header) if magic == MAGIC => Ok(header),
            _ => Err(Error::StoreForeign {
                path: path.to_owned(),
            }),
        }
    }

    /// The slots, whatever their kind.
    pub(super) fn slots(&self) -> Result<Vec<Slot>, Error> {
        serde_json::from_str(&self.slots_text).map_err(|_| damaged())
    }

    /// Opens the store's root key with the key file, and checks the header under it.
    pub(super) fn unlock(&self, key_file: &Path) -> Result<RootKey, Error> {
        let path = || key_file.display().to_string();
        let slots = self.slots()?;
        let Some(slot) = slots.iter().find(|slot| slot.kind == KEY_FILE) else {
            let kinds: Vec<&str> = slots.iter().map(|slot| slot.kind.as_str()).collect();
            return Err(Error::ConfigStore {
                path: path(),
                why: format!(
                    "this version opens stores by key file only; this one is opened by: {}",
                    kinds.join(", ")
                ),
            });
        };
        let key = SlotKey::read(key_file)?.ok_or_else(|| Error::KeyMissing { path: path() })?;
        let root = key.unwrap(slot, &self.store_id, self.key_id, key_file)?;
        self.authenticated(&root)
            .verify_slice(&self.mac)
            .map_err(|_| damaged())?;
        Ok(root)
    }

    /// The keys of the store, from its root key.
    pub(super) fn keys(&self, root: RootKey) -> Keys {
        Keys::new(root, self.store_id, self.key_id)
    }

    fn authenticated(&self, root: &RootKey) -> hmac::Hmac<sha2::Sha256> {
        let mut mac = hmac(&derive(root, &self.store_id, &[b"header/v1"]));
        let numbers =
            [self.format, self.min_reader, self.min_writer, self.key_id].map(u32::to_be_bytes);
        for field in [
            b"pilotlight/header1".as_slice(),
            MAGIC.as_bytes(),
            &self.store_id,
            self.slots_text.as_bytes(),
        ] {
            framed(&mut mac, field);
        }
        for number in &numbers {
            framed(&mut mac, number);
        }
        framed(&mut mac, &self.created_at.0.to_be_bytes());
        mac
    }
}

/// Makes sure, before somebody is told that there is nothing, that a damaged tree hides nothing: the table and its index
/// must agree on how much there is (promise 10).
pub(super) fn hides_nothing(
    connection: &Connection,
    table: &str,
    index: &str,
) -> Result<(), Error> {
    let count = |how: &str| {
        connection
            .prepare_cached(&format!("SELECT count(*) FROM {table} {how}"))
            .and_then(|mut statement| statement.query_row((), |row| row.get::<_, i64>(0)))
            .map_err(|e| sql(&e))
    };
    if count("NOT INDEXED")? == count(&format!("INDEXED BY {index}"))? {
        Ok(())
    } else {
        Err(Error::StoreCorrupt {
            what: format!("the index of {table}"),
        })
    }
}

/// The oldest reader and writer that the store admits just now.
pub(super) fn required_versions(connection: &Connection) -> Result<(u32, u32), Error> {
    connection
        .prepare_cached("SELECT min_reader, min_writer FROM header WHERE id = 1")
        .and_then(|mut statement| {
            statement
                .query_row((), |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
        .map_err(|e| sql(&e))?
        .ok_or_else(damaged)
}

fn damaged() -> Error {
    Error::StoreCorrupt {
        what: "the header".into(),
    }
}
