//! The locks of a machine: one file each, locked by the operating system (promise 7).
//!
//! The kernel lets go of a lock when its holder dies and keeps it while the holder is stopped (F-11). The file itself is
//! never unlinked, since whoever waits on an unlinked file waits on nothing; it says who holds it, and counts the fence.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::FileExt as _,
};

use pilotlight_core::{Error, error::Holder, time::Wall};
use serde::{Deserialize, Serialize};

use crate::{
    hex::hex,
    store::{
        Lease, LockName, Locked,
        place::{Folder, failed},
    },
};

/// What a lock file holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Note {
    fence: u64,
    pid: u32,
    program: String,
    since: u64,
}

/// A lock file that is locked; let go explicitly, since a child that was forked meanwhile may share the description.
#[derive(Debug)]
pub(super) struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // Nothing to do where it fails: closing the file lets go as well.
        let _ = self.0.unlock();
    }
}

/// The file of a lock.
pub(super) fn file_name(name: LockName) -> String {
    match name {
        LockName::Refresh(id) => format!("refresh-{}.lock", hex(&id.0)),
        LockName::Login(id) => format!("login-{}.lock", hex(&id.0)),
        LockName::Register(id) => format!("register-{}.lock", hex(&id)),
    }
}

/// Makes a lock's file with room for its note, so that taking the lock needs no new block on a full disk.
pub(super) fn prepare(folder: &Folder, name: &str) -> Result<(), Error> {
    if folder
        .look(name)?
        .is_some_and(|entry| entry.size >= NOTE_SIZE as u64)
        && let Some(file) = folder.file(name)?
    {
        // Whoever made it may have died before it was durable.
        return file
            .sync_all()
            .map_err(|e| failed(&folder.path().join(name), e));
    }
    let file = folder.file_or_new(name)?;
    match file.try_lock() {
        Ok(()) => {
            let held = Held(file);
            // A note that cannot be read is left to whoever takes the lock: the fence must not start again.
            match read(&held.0) {
                Ok(Some(note)) => {
                    write(&held.0, &note).map_err(|e| failed(&folder.path().join(name), e))
                }
                _ => Ok(()),
            }
        }
        // Its holder writes the note.
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(failed(&folder.path().join(name), error)),
    }
}

/// Tries to take a lock.
pub(super) fn try_lock(
    folder: &Folder,
    name: &str,
    program: &str,
    now: Wall,
) -> Result<Locked, Error> {
    let failed = |error| failed(&folder.path().join(name), error);
    let file = folder.file_or_new(name)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Locked::HeldBy(holder(&file))),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let held = Held(file);
    let fence = match read(&held.0).map_err(failed)? {
        Some(note) => note.fence + 1,
        // A note that cannot be read: the clock is ahead of every count.
        None => now.0.max(1),
    };
    let note = Note {
        fence,
        pid: std::process::id(),
        program: program.to_owned(),
        since: now.unix_seconds(),
    };
    write(&held.0, &note).map_err(failed)?;
    Ok(Locked::Got(Lease::new(fence, held)))
}

fn holder(file: &File) -> Holder {
    let note = read(file).ok().flatten().unwrap_or_default();
    Holder {
        pid: note.pid,
        program: note.program,
        since: note.since,
        stopped: is_stopped(note.pid),
    }
}

/// Reads the note; the first one of all where the file is new, `None` where it cannot be read.
fn read(file: &File) -> io::Result<Option<Note>> {
    let mut bytes = [0u8; NOTE_SIZE];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    let text = bytes[..length].trim_ascii();
    if text.is_empty() {
        return Ok(Some(Note::default()));
    }
    Ok(serde_json::from_slice(text).ok())
}

/// Writes the note over the old one, in one block and durably.
fn write(file: &File, note: &Note) -> io::Result<()> {
    let mut program = note.program.clone();
    let mut end = program.len().min(128);
    while !program.is_char_boundary(end) {
        end -= 1;
    }
    program.truncate(end);
    let mut bytes = serde_json::to_vec(&Note {
        program,
        ..note.clone()
    })?;
    bytes.truncate(NOTE_SIZE - 1);
    bytes.resize(NOTE_SIZE - 1, b' ');
    bytes.push(b'\n');
    file.write_all_at(&bytes, 0)?;
    file.sync_data()
}

/// Whether a process is stopped (SIGSTOP, Ctrl-Z): the state is the field after the name, which may hold anything.
#[cfg(target_os = "linux")]
fn is_stopped(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| matches!(rest.trim_start().chars().next(), Some('T' | 't')))
}

#[cfg(not(target_os = "linux"))]
fn is_stopped(_: u32) -> bool {
    false
}

/// One block of a disk, so that a note is written whole or not at all. A program's name takes at most 128 bytes of it,
/// six times that where all of it has to be escaped.
const NOTE_SIZE: usize = 1024;
