//! The spool: one preallocated slot per login, for the version and the attempt that the store refuses (F-06).
//!
//! A slot is a file of two equal halves that are written in turn, in place and durably, so that a full disk cannot refuse
//! the write and a crash in the middle of it costs nothing: the other half still holds what was there before.
//!
//! ```text
//!  half = "PLSPOOL1" | sequence (8, big endian) | length (4) | SHA-256 of all the others (32) | envelope | anything
//! ```
//!
//! The bytes on the disk are allocated by writing zeros, which every file system honours.

use std::{fs::File, io, os::unix::fs::FileExt as _, thread, time::Duration};

use pilotlight_core::Error;
use sha2::{Digest, Sha256};

use super::place::{Folder, failed, id_of};

/// One login's slot in the spool folder.
pub(super) struct Slot<'a> {
    folder: &'a Folder,
    name: String,
}

impl<'a> Slot<'a> {
    pub(super) fn new(folder: &'a Folder, id: &str) -> Self {
        Self {
            folder,
            name: format!("{id}.spool"),
        }
    }

    /// The envelopes that the slot holds, the newest first.
    ///
    /// # Errors
    /// `store.corrupt` where both halves are damaged: one can be torn by a crash, two cannot.
    pub(super) fn read(&self) -> Result<Vec<Vec<u8>>, Error> {
        let Some(file) = self.folder.file_to_read(&self.name)? else {
            return Ok(Vec::new());
        };
        let halves = self.halves(&file)?;
        if halves.iter().all(|half| matches!(half, Half::Torn)) {
            return Err(Error::StoreCorrupt {
                what: format!("spool slot {}", self.name),
            });
        }
        Ok(newest_first(halves))
    }

    /// Makes sure that the slot exists and has room for an envelope of `length` bytes twice over.
    pub(super) fn reserve(&self, length: usize) -> Result<(), Error> {
        let wanted = half_for(length);
        match self.folder.look(&self.name)? {
            Some(entry) if entry.size >= 2 * wanted => Ok(()),
            Some(_) => {
                let file = self.lock()?;
                self.grow(&file, wanted).map(drop)
            }
            None => self.make(wanted),
        }
    }

    /// Whether the slot exists.
    pub(super) fn exists(&self) -> Result<bool, Error> {
        self.folder.look(&self.name).map(|entry| entry.is_some())
    }

    /// Writes what `change` makes of the newest envelope over the older half, unless it makes nothing of it. No other writer
    /// comes between: a login spools without the lock that a refresh holds.
    pub(super) fn update(
        &self,
        change: impl FnOnce(Option<&[u8]>) -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<(), Error> {
        if !self.exists()? {
            self.make(SMALLEST_HALF)?;
        }
        let mut file = self.lock()?;
        let held = newest_first(self.halves(&file)?);
        let Some(envelope) = change(held.first().map(Vec::as_slice))? else {
            return Ok(());
        };
        let mut size = self.half_size(&file)?;
        if (HEAD + envelope.len()) as u64 > size {
            (file, size) = self.grow(&file, half_for(envelope.len()))?;
        }
        let halves = self.halves(&file)?;
        let sequence = halves.iter().map(Half::sequence).max().unwrap_or_default() + 1;
        let older = if halves[0].sequence() <= halves[1].sequence() {
            0
        } else {
            1
        };
        let bytes = half(sequence, &envelope);
        file.write_all_at(&bytes, older * size)
            .and_then(|()| file.sync_data())
            .map_err(|e| self.failed(e))
    }

    /// Overwrites all that the slot holds.
    pub(super) fn wipe(&self) -> Result<(), Error> {
        if !self.exists()? {
            return Ok(());
        }
        let file = self.lock()?;
        // The heads first, and durably: a power cut in the middle leaves halves that are empty, and none that is torn.
        let half = self.half_size(&file)?;
        [0, half]
            .into_iter()
            .try_for_each(|at| file.write_all_at(&[0; HEAD], at))
            .and_then(|()| file.sync_data())
            .map_err(|e| self.failed(e))?;
        let size = file.metadata().map_err(|e| self.failed(e))?.len();
        fill(&file, size).map_err(|e| self.failed(e))?;
        self.folder.remove(&self.growing())
    }

    /// Makes the slot, empty. Two processes may both try: the first wins.
    fn make(&self, half: u64) -> Result<(), Error> {
        let temporary = format!(
            "{}.{}.tmp",
            self.name,
            crate::hex::hex(&crate::crypto::random::<8>())
        );
        let Some(file) = self.folder.new_file(&temporary)? else {
            return Err(Error::Bug {
                what: "spool: a random name was taken",
            });
        };
        if let Err(error) = fill(&file, 2 * half) {
            self.folder.remove(&temporary)?;
            return Err(self.failed(error));
        }
        self.folder.rename_if_free(&temporary, &self.name).map(drop)
    }

    /// Puts a larger slot with the same newest envelope in place of this one, and locks it.
    fn grow(&self, file: &File, half_wanted: u64) -> Result<(File, u64), Error> {
        let size = self.half_size(file)?.max(half_wanted);
        let kept = newest_first(self.halves(file)?);
        let temporary = self.growing();
        self.folder.remove(&temporary)?;
        let Some(larger) = self.folder.new_file(&temporary)? else {
            return Err(Error::Bug {
                what: "spool: two processes hold one lock",
            });
        };
        larger.try_lock().map_err(|e| self.failed(e.into()))?;
        let written = fill(&larger, 2 * size).and_then(|()| match kept.first() {
            Some(envelope) => larger
                .write_all_at(&half(1, envelope), 0)
                .and_then(|()| larger.sync_all()),
            None => Ok(()),
        });
        if let Err(error) = written {
            self.folder.remove(&temporary)?;
            return Err(self.failed(error));
        }
        self.folder.rename(&temporary, &self.name)?;
        Ok((larger, size))
    }

    /// Opens the slot under its own lock; waits for another writer, who needs only moments.
    fn lock(&self) -> Result<File, Error> {
        for _ in 0..LOCK_TRIES {
            let Some(file) = self.folder.file(&self.name)? else {
                return Err(Error::StoreUnavailable {
                    why: "the spool slot vanished".into(),
                });
            };
            match file.try_lock() {
                Ok(()) => {
                    // Grown meanwhile: the name leads to another file.
                    let here = id_of(&file).map_err(|e| self.failed(e.into()))?;
                    if self
                        .folder
                        .look(&self.name)?
                        .is_some_and(|entry| entry.id == here)
                    {
                        return Ok(file);
                    }
                }
                Err(std::fs::TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
                Err(std::fs::TryLockError::Error(error)) => return Err(self.failed(error)),
            }
        }
        Err(Error::StoreUnavailable {
            why: "another process holds the spool slot".into(),
        })
    }

    /// The size of a half; nothing where the file has a size that no slot has: it was cut short.
    fn half_size(&self, file: &File) -> Result<u64, Error> {
        let size = file.metadata().map_err(|e| self.failed(e))?.len();
        Ok(
            if size >= 2 * SMALLEST_HALF && size.is_multiple_of(2 * PAGE) {
                size / 2
            } else {
                0
            },
        )
    }

    fn halves(&self, file: &File) -> Result<[Half; 2], Error> {
        let size = self.half_size(file)?;
        let read = |offset| read_half(file, offset, size).map_err(|e| self.failed(e));
        Ok([read(0)?, read(size)?])
    }

    fn growing(&self) -> String {
        format!("{}.new", self.name)
    }

    fn failed(&self, error: io::Error) -> Error {
        failed(&self.folder.path().join(&self.name), error)
    }
}

/// One half, as it was found.
enum Half {
    /// Never written, or wiped.
    Empty,
    /// Whole.
    Holds(u64, Vec<u8>),
    /// Written in part, or damaged.
    Torn,
}

impl Half {
    fn sequence(&self) -> u64 {
        match self {
            Self::Holds(sequence, _) => *sequence,
            Self::Empty | Self::Torn => 0,
        }
    }
}

fn newest_first(halves: [Half; 2]) -> Vec<Vec<u8>> {
    let mut held: Vec<(u64, Vec<u8>)> = halves
        .into_iter()
        .filter_map(|half| match half {
            Half::Holds(sequence, envelope) => Some((sequence, envelope)),
            Half::Empty | Half::Torn => None,
        })
        .collect();
    held.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
    held.into_iter().map(|(_, envelope)| envelope).collect()
}

fn read_half(file: &File, offset: u64, size: u64) -> io::Result<Half> {
    if size < HEAD as u64 {
        return Ok(Half::Torn);
    }
    let mut head = [0u8; HEAD];
    file.read_exact_at(&mut head, offset)?;
    if head == [0; HEAD] {
        return Ok(Half::Empty);
    }
    let Some((sequence, length, digest)) = parse(&head) else {
        return Ok(Half::Torn);
    };
    if length > size - HEAD as u64 {
        return Ok(Half::Torn);
    }
    let mut envelope = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut envelope, offset + HEAD as u64)?;
    Ok(if digest == checksum(sequence, &envelope) {
        Half::Holds(sequence, envelope)
    } else {
        Half::Torn
    })
}

fn parse(head: &[u8; HEAD]) -> Option<(u64, u64, [u8; 32])> {
    let rest = head.strip_prefix(MAGIC)?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (length, digest) = rest.split_first_chunk::<4>()?;
    Some((
        u64::from_be_bytes(*sequence),
        u64::from(u32::from_be_bytes(*length)),
        digest.try_into().ok()?,
    ))
}

fn half(sequence: u64, envelope: &[u8]) -> Vec<u8> {
    let length = u32::try_from(envelope.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    [
        MAGIC.as_slice(),
        &sequence.to_be_bytes(),
        &length,
        &checksum(sequence, envelope),
        envelope,
    ]
    .concat()
}

fn checksum(sequence: u64, envelope: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(MAGIC)
        .chain_update(sequence.to_be_bytes())
        .chain_update(envelope)
        .finalize()
        .into()
}

/// How large a half is for an envelope of this length: twice it, at least 16 KiB, in whole pages.
fn half_for(length: usize) -> u64 {
    ((2 * length + HEAD) as u64)
        .max(SMALLEST_HALF)
        .next_multiple_of(PAGE)
}

/// Writes zeros over the first `size` bytes, durably.
fn fill(file: &File, size: u64) -> io::Result<()> {
    let zeros = [0u8; 4096];
    let mut at = 0;
    while at < size {
        let part = zeros
            .len()
            .min(usize::try_from(size - at).unwrap_or(zeros.len()));
        file.write_all_at(&zeros[..part], at)?;
        at += part as u64;
    }
    file.sync_all()
}

const MAGIC: &[u8; 8] = b"PLSPOOL1";
const HEAD: usize = 8 + 8 + 4 + 32;
const SMALLEST_HALF: u64 = 16 * 1024;
const PAGE: u64 = 4096;
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
