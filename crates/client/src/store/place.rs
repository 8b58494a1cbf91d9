//! Folders and files that are ours alone.
//!
//! Made 0700 and 0600 whatever the umask says, and looked at again at each open (T-36, T-37): a plain file, one name, our
//! own user, no symbolic link. Everything goes through the descriptor of a folder that has been checked.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use pilotlight_core::Error;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat},
    io::Errno,
};

/// A folder, checked and held open.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// What other users may do in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Nothing: the folder is the store's own.
    Nothing,
    /// Look, but not write: the folder that the key file lies in may be somebody's home.
    Look,
}

/// Which file on which device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// A file as its folder shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) id: FileId,
    pub(super) size: u64,
}

impl Folder {
    /// Opens a folder; `None` where there is none.
    pub(super) fn open(path: &Path, others: Others) -> Result<Option<Self>, Error> {
        Self::open_at(CWD, path, path.to_owned(), others)
    }

    /// Opens a folder, and makes it (and those above it) where it is missing.
    pub(super) fn create(path: &Path, others: Others) -> Result<Self, Error> {
        make(path)?;
        Self::open(path, others)?.ok_or_else(|| vanished(path))
    }

    /// Opens a folder in this one, and makes it where it is missing.
    pub(super) fn sub(&self, name: &str) -> Result<Self, Error> {
        let path = self.path.join(name);
        if let Some(folder) =
            Self::open_at(&self.fd, Path::new(name), path.clone(), Others::Nothing)?
        {
            return Ok(folder);
        }
        match rustix::fs::mkdirat(&self.fd, name, PRIVATE_FOLDER) {
            Ok(()) => rustix::fs::chmodat(&self.fd, name, PRIVATE_FOLDER, AtFlags::empty())
                .map_err(|e| failed(&path, e))?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(&path, error)),
        }
        self.sync()?;
        Self::open_at(&self.fd, Path::new(name), path.clone(), Others::Nothing)?
            .ok_or_else(|| vanished(&path))
    }

    /// Opens a folder in this one; `None` where there is none.
    pub(super) fn existing_sub(&self, name: &str) -> Result<Option<Self>, Error> {
        Self::open_at(
            &self.fd,
            Path::new(name),
            self.path.join(name),
            Others::Nothing,
        )
    }

    fn open_at(
        at: impl AsFd,
        name: &Path,
        path: PathBuf,
        others: Others,
    ) -> Result<Option<Self>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(at, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(refused(
                    &path,
                    "it is a symbolic link or no folder; give the folder itself",
                ));
            }
            Err(error) => return Err(failed(&path, error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| failed(&path, e))?;
        let own = stat.st_uid == rustix::process::geteuid().as_raw();
        let roots = others == Others::Look && stat.st_uid == 0;
        if !(own || roots) {
            return Err(refused(&path, "the folder belongs to another user"));
        }
        let unwanted = Mode::from_raw_mode(stat.st_mode) & others.unwanted();
        if !unwanted.is_empty() {
            if !own {
                return Err(refused(&path, "other users can write in the folder"));
            }
            tracing::warn!(path = %path.display(), "the folder was open to other users; closed it");
            let mode = Mode::from_raw_mode(stat.st_mode) - others.unwanted();
            rustix::fs::fchmod(&fd, mode).map_err(|e| failed(&path, e))?;
        }
        Ok(Some(Self { fd, path }))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the network file system that the folder lies on, if it does.
    pub(super) fn network_file_system(&self) -> Result<Option<&'static str>, Error> {
        network_file_system(&self.fd).map_err(|e| failed(&self.path, e))
    }

    /// Looks at a file without opening it, and closes it to other users; `None` where there is none.
    ///
    /// Nothing is opened because closing *any* descriptor of a database drops the locks that SQLite holds on it.
    pub(super) fn look(&self, name: &str) -> Result<Option<Entry>, Error> {
        let path = self.path.join(name);
        let stat = match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(&path, error)),
        };
        if check(&path, &stat)? {
            rustix::fs::chmodat(&self.fd, name, PRIVATE_FILE, AtFlags::empty())
                .map_err(|e| failed(&path, e))?;
        }
        Ok(Some(entry(&stat)))
    }

    /// Opens a file to read and write; `None` where there is none.
    pub(super) fn file(&self, name: &str) -> Result<Option<File>, Error> {
        match self.open_file(name, OFlags::RDWR) {
            Ok(file) => Ok(Some(file)),
            Err(Refusal::Absent) => Ok(None),
            Err(Refusal::Error(error)) => Err(error),
        }
    }

    /// Opens a file to read; `None` where there is none.
    pub(super) fn file_to_read(&self, name: &str) -> Result<Option<File>, Error> {
        match self.open_file(name, OFlags::RDONLY) {
            Ok(file) => Ok(Some(file)),
            Err(Refusal::Absent) => Ok(None),
            Err(Refusal::Error(error)) => Err(error),
        }
    }

    /// Opens a file to read and write, and makes it where it is missing.
    pub(super) fn file_or_new(&self, name: &str) -> Result<File, Error> {
        loop {
            if let Some(file) = self.file(name)? {
                return Ok(file);
            }
            if let Some(file) = self.new_file(name)? {
                self.sync()?;
                return Ok(file);
            }
        }
    }

    /// Makes a file; `None` where there is one already.
    pub(super) fn new_file(&self, name: &str) -> Result<Option<File>, Error> {
        let path = self.path.join(name);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, PRIVATE_FILE) {
            Ok(fd) => {
                rustix::fs::fchmod(&fd, PRIVATE_FILE).map_err(|e| failed(&path, e))?;
                Ok(Some(File::from(fd)))
            }
            Err(Errno::EXIST) => Ok(None),
            Err(error) => Err(failed(&path, error)),
        }
    }

    fn open_file(&self, name: &str, access: OFlags) -> Result<File, Refusal> {
        let path = self.path.join(name);
        // Non-blocking, so that a FIFO in its place is refused and not waited for.
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(Refusal::Absent),
            Err(Errno::LOOP) => {
                return Err(Refusal::Error(refused(&path, "it is a symbolic link")));
            }
            Err(Errno::ISDIR | Errno::NXIO) => {
                return Err(Refusal::Error(refused(&path, "it is no plain file")));
            }
            Err(error) => return Err(Refusal::Error(failed(&path, error))),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| Refusal::Error(failed(&path, e)))?;
        if check(&path, &stat).map_err(Refusal::Error)? {
            rustix::fs::fchmod(&fd, PRIVATE_FILE).map_err(|e| Refusal::Error(failed(&path, e)))?;
        }
        Ok(File::from(fd))
    }

    /// Gives a file another name, whatever had that name.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(|e| failed(&self.path.join(to), e))?;
        self.sync()
    }

    /// Gives a file another name unless that is taken; answers whether it was free.
    pub(super) fn rename_if_free(&self, from: &str, to: &str) -> Result<bool, Error> {
        let done =
            match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
                // Some file systems (NFS, where a home with the key file may lie) know no such renaming: link and unlink.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty())
                        .and_then(|()| rustix::fs::unlinkat(&self.fd, from, AtFlags::empty()))
                }
                done => done,
            };
        match done {
            Ok(()) => self.sync().map(|()| true),
            Err(Errno::EXIST) => self.remove(from).map(|()| false),
            Err(error) => Err(failed(&self.path.join(to), error)),
        }
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(&self.path.join(name), error)),
        }
    }

    /// Makes the folder's own name durable, whoever made it: that process may have died before it could.
    pub(super) fn sync_name(&self) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, "..", flags, Mode::empty()) {
            Ok(above) => rustix::fs::fsync(&above).map_err(|e| failed(&self.path, e)),
            // A folder above that is closed to us was not made by us.
            Err(Errno::ACCESS) => Ok(()),
            Err(error) => Err(failed(&self.path, error)),
        }
    }

    /// Makes new names in the folder durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        rustix::fs::fsync(&self.fd).map_err(|e| failed(&self.path, e))
    }
}

/// Which file a descriptor is.
pub(super) fn id_of(file: &File) -> Result<FileId, Errno> {
    rustix::fs::fstat(file).map(|stat| entry(&stat).id)
}

/// Which file a path leads to.
pub(super) fn id_at(path: &Path) -> Result<FileId, Error> {
    let stat =
        rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(path, e))?;
    Ok(entry(&stat).id)
}

/// The error for an operation of the operating system that failed.
pub(super) fn failed(path: &Path, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let place = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidFilename => refused(path, &error.to_string()),
        _ => Error::StoreUnavailable {
            why: format!("{place}: {error}"),
        },
    }
}

/// The error for a place that cannot be a store's.
pub(super) fn refused(path: &Path, why: &str) -> Error {
    Error::ConfigStore {
        path: path.display().to_string(),
        why: why.to_owned(),
    }
}

enum Refusal {
    Absent,
    Error(Error),
}

impl Others {
    fn unwanted(self) -> Mode {
        match self {
            Self::Nothing => Mode::RWXG | Mode::RWXO,
            Self::Look => Mode::WGRP | Mode::WOTH,
        }
    }
}

/// Makes a folder and those above it, 0700 each and durably; what exists is left as it is.
fn make(path: &Path) -> Result<(), Error> {
    match rustix::fs::mkdirat(CWD, path, PRIVATE_FOLDER) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::NOENT) => {
            let Some(above) = path.parent() else {
                return Err(failed(path, Errno::NOENT));
            };
            make(above)?;
            return make(path);
        }
        Err(error) => return Err(failed(path, error)),
    }
    rustix::fs::chmodat(CWD, path, PRIVATE_FOLDER, AtFlags::empty())
        .map_err(|e| failed(path, e))?;
    if let Some(above) = path.parent()
        && let Ok(fd) = rustix::fs::openat(
            CWD,
            above,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    {
        rustix::fs::fsync(&fd).map_err(|e| failed(above, e))?;
    }
    Ok(())
}

/// Refuses what is not our own plain file under one name; answers whether its permissions are to be repaired.
fn check(path: &Path, stat: &Stat) -> Result<bool, Error> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(refused(path, "it is a symbolic link")),
        _ => return Err(refused(path, "it is no plain file")),
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(refused(path, "the file belongs to another user"));
    }
    if stat.st_nlink > 1 {
        return Err(refused(path, "the file has a second name (a hard link)"));
    }
    let open = Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO);
    if open {
        tracing::warn!(path = %path.display(), "the file was open to other users; closed it");
    }
    Ok(open)
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the fields' types depend on the platform"
)]
fn entry(stat: &Stat) -> Entry {
    Entry {
        id: FileId {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
        },
        size: u64::try_from(stat.st_size).unwrap_or_default(),
    }
}

fn vanished(path: &Path) -> Error {
    Error::StoreUnavailable {
        why: format!("{}: the folder vanished", path.display()),
    }
}

#[cfg(target_os = "linux")]
fn network_file_system(fd: &OwnedFd) -> Result<Option<&'static str>, Errno> {
    let kind = rustix::fs::fstatfs(fd)?.f_type;
    let kind = u64::try_from(kind).unwrap_or_default() & 0xffff_ffff;
    Ok(NETWORK_FILE_SYSTEMS
        .iter()
        .find(|(magic, _)| *magic == kind)
        .map(|(_, name)| *name))
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_: &OwnedFd) -> Result<Option<&'static str>, Errno> {
    Ok(None)
}

const PRIVATE_FOLDER: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// `f_type` of statfs(2), and what people call it. FUSE is not among them: most of what it carries is local.
#[cfg(target_os = "linux")]
const NETWORK_FILE_SYSTEMS: [(u64, &str); 9] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
];
