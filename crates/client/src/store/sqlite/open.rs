//! Opening the file, and making it.
//!
//! A store is made under another name and renamed into place when it is whole and durable, so that a `store.db` that
//! exists is a store: an empty one is damage, never a new beginning (F-27).

use std::{fs, io::Read as _, path::Path, thread, time::Duration};

use pilotlight_core::{Error, time::Wall};
use rusqlite::{Connection, OpenFlags};

use super::{
    SqliteStoreConfig,
    error::{first_look, sql},
    lock,
    schema::{Header, WRITER},
};
use crate::store::{
    Locked,
    key::SlotKey,
    place::{Folder, id_at, refused},
    seal::Keys,
};

/// A store that is open.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) keys: Keys,
    pub(super) writable: bool,
    pub(super) slots: Vec<String>,
    pub(super) created_at: Wall,
}

/// Refuses network file systems: their locks and their shared memory are promises that they do not keep.
pub(super) fn on_this_machine(folder: &Folder) -> Result<(), Error> {
    match folder.network_file_system()? {
        None => Ok(()),
        Some(name) => {
            let why = format!(
                "it lies on a network file system ({name}); choose a folder on a local disk"
            );
            Err(refused(folder.path(), &why))
        }
    }
}

/// Opens a store that exists; `None` where there is none.
pub(super) fn existing(
    folder: &Folder,
    config: &SqliteStoreConfig,
) -> Result<Option<Opened>, Error> {
    let Some(before) = folder.look(FILE)? else {
        return missing(folder).map(|()| None);
    };
    foreign(folder)?;
    let log = folder.look(&beside(FILE, "-wal"))?;
    folder.look(&beside(FILE, "-shm"))?;
    // Whoever cuts a database short leaves a torn page, or nothing at all (then SQLite would take it for a new one, and
    // throw its log away). While there is a log the file may rightly end in the middle of a page.
    let log_is_empty = log.is_none_or(|entry| entry.size == 0);
    if before.size == 0 || (log_is_empty && !before.size.is_multiple_of(PAGE_SIZE)) {
        return Err(cut_short(&folder.path().join(FILE), before.size));
    }
    let path = folder.path().join(FILE);
    let connection = connect(&path, config.busy_timeout)?;
    let header = Header::read(&connection, &path.display().to_string())?;
    // What was looked at is what was opened.
    if id_at(&path)? != before.id {
        return Err(refused(&path, "it was exchanged while it was opened"));
    }
    settle(&connection).map_err(|e| sql(&e))?;
    let root = header.unlock(&config.key_file)?;
    Ok(Some(Opened {
        connection,
        writable: header.min_writer <= WRITER,
        slots: header.slots()?.into_iter().map(|slot| slot.kind).collect(),
        created_at: header.created_at,
        keys: header.keys(root),
    }))
}

/// Makes the store, unless another process has made it meanwhile.
pub(super) fn make(folder: &Folder, config: &SqliteStoreConfig) -> Result<(), Error> {
    folder.sync_name()?;
    let locks = folder.sub(super::LOCKS)?;
    let _lease = wait_for_init(&locks, config)?;
    if folder.look(FILE)?.is_some() {
        return Ok(());
    }
    let key = SlotKey::read_or_make(&config.key_file)?;
    let header = Header::draw(&key, config.clock.now().wall)?;
    for ending in ["", "-journal", "-wal", "-shm"] {
        folder.remove(&beside(MAKING, ending))?;
    }
    let Some(file) = folder.new_file(MAKING)? else {
        return Err(Error::Bug {
            what: "store: two processes hold one lock",
        });
    };
    drop(file);
    build(&folder.path().join(MAKING), &header, config.busy_timeout).map_err(|e| sql(&e))?;
    if let Some(file) = folder.file(MAKING)? {
        file.sync_all()
            .map_err(|e| crate::store::place::failed(&folder.path().join(MAKING), e))?;
    }
    folder.rename(MAKING, FILE)
}

fn build(path: &Path, header: &Header, busy_timeout: Duration) -> rusqlite::Result<()> {
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(busy_timeout)?;
    connection.pragma_update(None, "page_size", PAGE_SIZE as i64)?;
    header.create(&mut connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

fn connect(path: &Path, busy_timeout: Duration) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connect = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(busy_timeout)?;
        Ok(connection)
    };
    connect().map_err(|e| first_look(&e, &path.display().to_string()))
}

/// What holds for one connection only.
fn settle(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "secure_delete", "ON", |_| Ok(()))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    connection.pragma_update(None, "fullfsync", "ON")?;
    connection.pragma_update(None, "checkpoint_fullfsync", "ON")
}

/// Waits for whoever makes the store: that takes moments, unless the process is stopped.
fn wait_for_init(locks: &Folder, config: &SqliteStoreConfig) -> Result<crate::store::Lease, Error> {
    let mut waited = Duration::ZERO;
    loop {
        match lock::try_lock(locks, INIT_LOCK, &config.program, config.clock.now().wall)? {
            Locked::Got(lease) => return Ok(lease),
            Locked::HeldBy(holder) if waited >= config.busy_timeout.max(PAUSE) => {
                return Err(Error::StoreUnavailable {
                    why: format!("it is being made by {holder}"),
                });
            }
            Locked::HeldBy(_) => {}
        }
        thread::sleep(PAUSE);
        waited += PAUSE;
    }
}

/// A store that was never made leaves nothing behind; one whose file is gone leaves the spare copies of its logins.
fn missing(folder: &Folder) -> Result<(), Error> {
    let spool = folder.path().join(super::slots::SPOOL);
    let mut entries = fs::read_dir(spool).into_iter().flatten().flatten();
    if entries.any(|entry| entry.file_name().to_string_lossy().ends_with(".spool")) {
        let what = format!(
            "{} is gone, and the spare copies beside it are not: put it back, or remove the folder",
            folder.path().join(FILE).display()
        );
        return Err(Error::StoreCorrupt { what });
    }
    Ok(())
}

/// Whatever does not begin as a database does is not ours; what begins so and ends too soon is judged later.
fn foreign(folder: &Folder) -> Result<(), Error> {
    let Some(mut file) = folder.file_to_read(FILE)? else {
        return Ok(());
    };
    let mut head = Vec::new();
    let path = folder.path().join(FILE);
    file.by_ref()
        .take(MAGIC.len() as u64)
        .read_to_end(&mut head)
        .map_err(|e| crate::store::place::failed(&path, e))?;
    if MAGIC.starts_with(&head) {
        return Ok(());
    }
    Err(Error::StoreForeign {
        path: path.display().to_string(),
    })
}

fn cut_short(path: &Path, size: u64) -> Error {
    Error::StoreCorrupt {
        what: format!("{} ends after {size} bytes", path.display()),
    }
}

fn beside(name: &str, ending: &str) -> String {
    format!("{name}{ending}")
}

/// The store's file.
pub(super) const FILE: &str = "store.db";
const MAKING: &str = "store.db.new";
const INIT_LOCK: &str = "init.lock";
const PAGE_SIZE: u64 = 4096;
/// What every SQLite file begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
const PAUSE: Duration = Duration::from_millis(5);
