//! What a disk holds after a power cut. See the [module](super) for the two models.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use super::{chance::Chance, record::Change};

/// What a file system promises about names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    /// ext4 and xfs: one order for the names of all folders.
    Journalled,
    /// POSIX and no more: each folder for itself.
    Strict,
}

/// Files and folders as the process sees them, with how much of it is on the disk.
pub(super) struct Disk {
    model: Model,
    nodes: Vec<Node>,
    /// The newest node of each inode number: the kernel gives a number away again.
    inodes: HashMap<u64, Id>,
    /// Changes of names that are not on the disk for certain, in order.
    renames: Vec<NameChange>,
}

/// A place in [`Disk::nodes`].
type Id = usize;

enum Node {
    File(File),
    Folder(Folder),
}

/// A file: what is on the disk, and what may be.
#[derive(Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

enum Pending {
    Write(usize, Arc<[u8]>),
    Truncate(usize),
}

#[derive(Default)]
struct Folder {
    /// As the process sees it.
    seen: Names,
    /// As the disk holds it.
    durable: Names,
}

type Names = BTreeMap<String, Id>;

struct NameChange {
    folder: Id,
    /// Whom it is about: a sync of that file or folder makes it durable too, in a journal.
    about: Id,
    what: What,
}

#[derive(Clone)]
enum What {
    Add(String, Id),
    Move(String, String),
    Remove(String),
}

impl Disk {
    pub(super) fn new(model: Model, root_inode: u64) -> Self {
        Self {
            model,
            nodes: vec![Node::Folder(Folder::default())],
            inodes: HashMap::from([(root_inode, ROOT)]),
            renames: Vec::new(),
        }
    }

    /// Carries out a change.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Mark(_) => {}
            Change::Create { path, inode } => {
                self.add(path, *inode, Node::File(File::default()));
            }
            Change::MakeFolder { path, inode } => {
                self.add(path, *inode, Node::Folder(Folder::default()));
            }
            Change::Write {
                inode,
                offset,
                data,
            } => {
                let offset = usize::try_from(*offset).unwrap();
                let write = Pending::Write(offset, Arc::clone(data));
                self.file(*inode).pending.push(write);
            }
            Change::Truncate { inode, size } => {
                let size = usize::try_from(*size).unwrap();
                self.file(*inode).pending.push(Pending::Truncate(size));
            }
            Change::Sync {
                path,
                inode,
                data_only,
            } => {
                let id = self.id(*inode, path);
                self.sync(id, *data_only);
            }
            Change::Link { from, to } => {
                let (folder, name) = self.above(from);
                let about = self.folder(folder).seen[name];
                let (folder, name) = self.above(to);
                self.rename(folder, about, What::Add(name.into(), about));
            }
            Change::Rename { from, to } => {
                let (folder, name) = self.above(from);
                let (folder_too, to) = self.above(to);
                assert_eq!(folder, folder_too, "renaming across folders has no model");
                let about = self.folder(folder).seen[name];
                self.rename(folder, about, What::Move(name.into(), to.into()));
            }
            Change::Unlink { path } => {
                let (folder, name) = self.above(path);
                let about = self.folder(folder).seen[name];
                self.rename(folder, about, What::Remove(name.into()));
            }
        }
    }

    /// Writes what a power cut now may leave into an empty folder.
    pub(super) fn cut(&self, chance: &mut Chance, into: &Path) {
        let names = self.surviving_names(chance);
        let mut left: Vec<(Id, std::path::PathBuf)> = vec![(ROOT, into.to_owned())];
        while let Some((folder, path)) = left.pop() {
            for (name, id) in &names[&folder] {
                let path = path.join(name);
                match &self.nodes[*id] {
                    Node::Folder(_) => {
                        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
                        left.push((*id, path));
                    }
                    Node::File(file) => {
                        let mut new = fs::OpenOptions::new();
                        let new = new.write(true).create_new(true).mode(0o600);
                        let mut new = new.open(&path).unwrap();
                        std::io::Write::write_all(&mut new, &file.surviving(chance)).unwrap();
                    }
                }
            }
        }
    }

    fn surviving_names(&self, chance: &mut Chance) -> HashMap<Id, Names> {
        let mut names: HashMap<Id, Names> = HashMap::new();
        for (id, node) in self.nodes.iter().enumerate() {
            if let Node::Folder(folder) = node {
                names.insert(id, folder.durable.clone());
            }
        }
        match self.model {
            Model::Journalled => {
                let survive = chance.up_to(self.renames.len());
                for change in &self.renames[..survive] {
                    change
                        .what
                        .carry_out(names.get_mut(&change.folder).unwrap());
                }
            }
            Model::Strict => {
                for (id, names) in &mut names {
                    let own: Vec<_> = self.renames.iter().filter(|c| c.folder == *id).collect();
                    for change in &own[..chance.up_to(own.len())] {
                        change.what.carry_out(names);
                    }
                }
            }
        }
        names
    }

    /// What a sync of this file or folder promises.
    fn sync(&mut self, id: Id, data_only: bool) {
        if let Node::File(file) = &mut self.nodes[id] {
            file.sync();
        }
        if data_only {
            return;
        }
        let concerns = |change: &NameChange| match self.model {
            Model::Journalled => change.folder == id || change.about == id,
            Model::Strict => change.folder == id,
        };
        let durable: Vec<NameChange> = match self.model {
            Model::Journalled => {
                let last = self.renames.iter().rposition(concerns);
                self.renames
                    .drain(..last.map_or(0, |last| last + 1))
                    .collect()
            }
            Model::Strict => self.renames.extract_if(.., |c| concerns(c)).collect(),
        };
        for change in durable {
            change
                .what
                .carry_out(&mut self.folder(change.folder).durable);
        }
    }

    fn add(&mut self, path: &str, inode: u64, node: Node) {
        let id = self.nodes.len();
        self.nodes.push(node);
        self.inodes.insert(inode, id);
        let (folder, name) = self.above(path);
        self.rename(folder, id, What::Add(name.into(), id));
    }

    fn rename(&mut self, folder: Id, about: Id, what: What) {
        what.carry_out(&mut self.folder(folder).seen);
        self.renames.push(NameChange {
            folder,
            about,
            what,
        });
    }

    /// The folder of a path, and the name in it.
    fn above<'a>(&self, path: &'a str) -> (Id, &'a str) {
        let (above, name) = path.rsplit_once('/').unwrap();
        let folder = above.split('/').skip(1).fold(ROOT, |id, name| {
            let Node::Folder(folder) = &self.nodes[id] else {
                panic!("{path} goes through a file")
            };
            folder.seen[name]
        });
        (folder, name)
    }

    fn id(&self, inode: u64, path: &str) -> Id {
        let known = self.inodes.get(&inode);
        *known.unwrap_or_else(|| panic!("{path} was made before the record began"))
    }

    fn file(&mut self, inode: u64) -> &mut File {
        let id = self.id(inode, "a file");
        match &mut self.nodes[id] {
            Node::File(file) => file,
            Node::Folder(_) => panic!("a write to a folder"),
        }
    }

    fn folder(&mut self, id: Id) -> &mut Folder {
        match &mut self.nodes[id] {
            Node::Folder(folder) => folder,
            Node::File(_) => panic!("a name in a file"),
        }
    }
}

impl What {
    fn carry_out(&self, names: &mut Names) {
        match self {
            Self::Add(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Move(from, to) => {
                let id = names.remove(from).unwrap();
                names.insert(to.clone(), id);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl File {
    fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            pending.carry_out(&mut self.durable);
        }
    }

    /// The content that a power cut leaves: one of several ways to lose what was not synced.
    fn surviving(&self, chance: &mut Chance) -> Vec<u8> {
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

const ROOT: Id = 0;
const SECTOR: usize = 512;
