//! The store of a machine: one SQLite file that many processes share.
//!
//! ```text
//!  data folder (0700)                        elsewhere (0700)
//!    store.db   every row sealed (0600)        key      32 random bytes (0600)
//!    locks/     one file per lock
//!    spool/     one slot per login
//! ```
//!
//! WAL, `synchronous = FULL` and `secure_delete`: what a call has answered survives a power cut, and what was deleted is
//! gone. SQLite's calls block, so each runs on the runtime's blocking threads; a call that has begun is finished
//! even where its caller went away.

mod calls;
mod error;
mod lock;
mod logins;
mod open;
mod rows;
mod schema;
mod slots;
mod tables;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use pilotlight_core::{Error, time::Wall};
use rusqlite::{Connection, TransactionBehavior};

use super::{
    LockName, Locked,
    place::{Folder, Others},
    seal::Keys,
};
use crate::clock::Clock;
use error::sql;

/// Where a [`SqliteStore`] lies, and who opens it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteStoreConfig {
    /// The folder of the store, its locks and its spool.
    pub data_dir: PathBuf,
    /// The file with the key; it belongs outside `data_dir`, so that a copy of the data alone opens nothing.
    pub key_file: PathBuf,
    /// The program's name, for whoever waits on its locks.
    pub program: String,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// How long a call waits for another process that writes; 5 s by default.
    pub busy_timeout: Duration,
}

impl SqliteStoreConfig {
    /// A store in `data_dir` that `key_file` opens.
    #[must_use]
    pub fn new(data_dir: PathBuf, key_file: PathBuf, program: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            data_dir,
            key_file,
            program: program.to_owned(),
            clock,
            busy_timeout: Duration::from_secs(5),
        }
    }

    /// Sets how long a call waits for another process that writes.
    #[must_use]
    pub fn with_busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout;
        self
    }
}

/// A [`Store`](super::Store) in one SQLite file. See [`store`](crate::store) for what it promises.
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Mutex<Connection>,
    folder: Folder,
    keys: Keys,
    program: String,
    clock: Arc<dyn Clock>,
    writable: AtomicBool,
    changes: AtomicU32,
    slots: Vec<String>,
    created_at: Wall,
}

impl SqliteStore {
    /// Opens the store, and makes it (with its key) where there is none. Blocks, for a few milliseconds.
    ///
    /// # Errors
    /// `config.store` for a place that cannot be a store's; `store.key_missing`, `store.key_wrong`, `store.corrupt`,
    /// `store.foreign`, `store.newer_format` for a store that is there and does not open; `unavailable.store` for a bad
    /// moment.
    pub fn open(config: &SqliteStoreConfig) -> Result<Self, Error> {
        let config = &absolute(config)?;
        let folder = Folder::create(&config.data_dir, Others::Nothing)?;
        open::on_this_machine(&folder)?;
        let opened = match open::existing(&folder, config)? {
            Some(opened) => opened,
            None => {
                open::make(&folder, config)?;
                let vanished = || Error::StoreUnavailable {
                    why: "the store vanished as it was made".into(),
                };
                open::existing(&folder, config)?.ok_or_else(vanished)?
            }
        };
        Ok(Self::new(opened, folder, config))
    }

    /// Opens the store and makes nothing; `None` where there is none. Blocks, for a few milliseconds.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_existing(config: &SqliteStoreConfig) -> Result<Option<Self>, Error> {
        let config = &absolute(config)?;
        let Some(folder) = Folder::open(&config.data_dir, Others::Nothing)? else {
            return Ok(None);
        };
        open::on_this_machine(&folder)?;
        Ok(open::existing(&folder, config)?.map(|opened| Self::new(opened, folder, config)))
    }

    fn new(opened: open::Opened, folder: Folder, config: &SqliteStoreConfig) -> Self {
        let inner = Inner {
            connection: Mutex::new(opened.connection),
            folder,
            keys: opened.keys,
            program: config.program.clone(),
            clock: Arc::clone(&config.clock),
            writable: AtomicBool::new(opened.writable),
            changes: AtomicU32::new(0),
            slots: opened.slots,
            created_at: opened.created_at,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The kinds of the slots that open the store (`keyfile`; others that other versions know), in the header's order.
    #[must_use]
    pub fn key_slots(&self) -> &[String] {
        &self.inner.slots
    }

    /// When the store was made.
    #[must_use]
    pub fn created_at(&self) -> Wall {
        self.inner.created_at
    }

    /// Runs a call where it may block.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => Err(Error::StoreUnavailable {
                why: "the runtime is shutting down".into(),
            }),
            Err(_) => Err(Error::Bug {
                what: "store: a call panicked",
            }),
        }
    }
}

impl Inner {
    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A call that panicked has rolled its transaction back as it unwound.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads within one transaction, so that what is read belongs together.
    fn reading<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| sql(&e))?;
        self.check_versions(&transaction)?;
        work(&transaction)
    }

    /// Writes within one transaction that is durable when this returns.
    fn writing<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|e| sql(&e))?;
        self.check_versions(&transaction)?;
        if !self.writable.load(Ordering::Relaxed) {
            return Err(not_ours_to_write());
        }
        let done = work(&transaction)?;
        transaction.commit().map_err(|e| sql(&e))?;
        self.count_change();
        Ok(done)
    }

    /// Refuses to write beside the database where it may not be written either. Does not ask the database: this must
    /// work while that refuses.
    fn admit_writer(&self) -> Result<(), Error> {
        if self.writable.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(not_ours_to_write())
        }
    }

    /// Looks whether another version has raised what the store asks of its readers and writers, meanwhile (F-30).
    fn check_versions(&self, connection: &Connection) -> Result<(), Error> {
        let (min_reader, min_writer) = schema::required_versions(connection)?;
        if min_reader > schema::READER {
            return Err(Error::StoreNewerFormat {
                found: min_reader,
                known: schema::READER,
            });
        }
        self.writable
            .store(min_writer <= schema::WRITER, Ordering::Relaxed);
        Ok(())
    }

    fn count_change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// What others changed is counted by SQLite, what we changed by ourselves.
    fn changes(&self) -> Result<u64, Error> {
        let others: u32 = self
            .connection()
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row((), |row| row.get(0)))
            .map_err(|e| sql(&e))?;
        Ok(u64::from(others) << 32 | u64::from(self.changes.load(Ordering::Relaxed)))
    }

    fn try_lock(&self, name: LockName) -> Result<Locked, Error> {
        let locks = self.folder.sub(LOCKS)?;
        lock::try_lock(
            &locks,
            &lock::file_name(name),
            &self.program,
            self.clock.now().wall,
        )
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("data_dir", &self.inner.folder.path())
            .finish_non_exhaustive()
    }
}

fn absolute(config: &SqliteStoreConfig) -> Result<SqliteStoreConfig, Error> {
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).map_err(|e| super::place::refused(path, &e.to_string()))
    };
    Ok(SqliteStoreConfig {
        data_dir: absolute(&config.data_dir)?,
        key_file: absolute(&config.key_file)?,
        ..config.clone()
    })
}

fn not_ours_to_write() -> Error {
    Error::StoreUnavailable {
        why: "a newer version of the program has taken over writing to it; update this one".into(),
    }
}

const LOCKS: &str = "locks";

#[cfg(test)]
mod tests;
