//! What a disk holds after a power cut. See the [module](super) for the two models.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::{
    chance::Chance,
    file::{File, Pending},
    record::Change,
};

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
                let write = Pending::Write(offset, data.clone());
                self.file(*inode).change(write);
            }
            Change::Truncate { inode, size } => {
                let size = usize::try_from(*size).unwrap();
                self.file(*inode).change(Pending::Truncate(size));
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

    fn surviving_names(&self, chance: &mut Chance) -> BTreeMap<Id, Names> {
        let mut names: BTreeMap<Id, Names> = BTreeMap::new();
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

const ROOT: Id = 0;
