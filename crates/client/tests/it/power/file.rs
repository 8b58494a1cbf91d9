//! One file: what is on the disk for certain, and what a power cut may leave of the rest.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::chance::Chance;

/// A file: what is on the disk, and what may be.
#[derive(Default)]
pub(super) struct File {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

/// A change that no sync has covered.
pub(super) enum Pending {
    Write(usize, Arc<[u8]>),
    Truncate(usize),
}

impl File {
    pub(super) fn change(&mut self, pending: Pending) {
        self.pending.push(pending);
    }

    /// All of it is on the disk.
    pub(super) fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            pending.carry_out(&mut self.durable);
        }
    }

    /// The content that a power cut leaves: one of several ways to lose what was not synced.
    pub(super) fn surviving(&self, chance: &mut Chance) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let count = self.pending.len();
        if count == 0 {
            return bytes;
        }
        match chance.up_to(5) {
            0 => {}
            1 => self.pending.iter().for_each(|p| p.carry_out(&mut bytes)),
            // The first ones, and of the next its first sectors.
            2 => {
                let whole = chance.up_to(count - 1);
                for pending in &self.pending[..whole] {
                    pending.carry_out(&mut bytes);
                }
                self.pending[whole].torn(chance).carry_out(&mut bytes);
            }
            // Some, in whole or in part.
            3 => {
                for pending in &self.pending {
                    match chance.up_to(2) {
                        0 => {}
                        1 => pending.carry_out(&mut bytes),
                        _ => pending.torn(chance).carry_out(&mut bytes),
                    }
                }
            }
            // Each sector as it was at some moment since the last sync; so, too, a file that grew by nothing but zeros.
            _ => self.mixed(chance, &mut bytes),
        }
        bytes
    }

    /// Each sector has been through some of the changes to it, in order; the length is one of those there were.
    fn mixed(&self, chance: &mut Chance, bytes: &mut Vec<u8>) {
        let mut sizes = vec![bytes.len()];
        for pending in &self.pending {
            sizes.push(pending.size_after(*sizes.last().unwrap()));
        }
        let longest = *sizes.iter().max().unwrap();
        bytes.resize(longest, 0);
        let mut left: BTreeMap<usize, usize> = BTreeMap::new();
        for sector in self.pending.iter().flat_map(|p| p.sectors(longest)) {
            *left.entry(sector).or_default() += 1;
        }
        for count in left.values_mut() {
            *count = chance.up_to(*count);
        }
        for pending in &self.pending {
            for sector in pending.sectors(longest) {
                let left = left.get_mut(&sector).unwrap();
                if *left > 0 {
                    *left -= 1;
                    pending.carry_out_in(sector, bytes);
                }
            }
        }
        bytes.truncate(sizes[chance.up_to(sizes.len() - 1)]);
    }
}

impl Pending {
    fn carry_out(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::Truncate(size) => bytes.resize(*size, 0),
        }
    }

    fn size_after(&self, size: usize) -> usize {
        match self {
            Self::Write(offset, data) => size.max(offset + data.len()),
            Self::Truncate(size) => *size,
        }
    }

    /// The sectors that it changes, in a file of this length.
    fn sectors(&self, length: usize) -> Range<usize> {
        match self {
            Self::Write(offset, data) => offset / SECTOR..(offset + data.len()).div_ceil(SECTOR),
            Self::Truncate(size) => size / SECTOR..length.div_ceil(SECTOR),
        }
    }

    /// Carries out what concerns one sector; a file that is cut off has zeros there.
    fn carry_out_in(&self, sector: usize, bytes: &mut [u8]) {
        let (from, to) = (sector * SECTOR, bytes.len().min((sector + 1) * SECTOR));
        match self {
            Self::Write(offset, data) => {
                let (from, to) = (from.max(*offset), to.min(offset + data.len()));
                bytes[from..to].copy_from_slice(&data[from - offset..to - offset]);
            }
            Self::Truncate(size) => bytes[from.max(*size)..to].fill(0),
        }
    }

    /// The first sectors of a write; a new size is written whole or not at all.
    fn torn(&self, chance: &mut Chance) -> Self {
        match self {
            Self::Write(offset, data) => {
                let sectors = (offset + data.len()).div_ceil(SECTOR) - offset / SECTOR;
                let end = (offset / SECTOR + chance.up_to(sectors)) * SECTOR;
                let kept = end.saturating_sub(*offset).min(data.len());
                Self::Write(*offset, data[..kept].into())
            }
            Self::Truncate(size) => Self::Truncate(*size),
        }
    }
}

const SECTOR: usize = 512;
