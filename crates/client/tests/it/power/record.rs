//! Records what a real process does to its files: builds the recorder, runs a child under it, reads what it wrote.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

/// One change, as the kernel carried it out.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// The process said that it has an answer: a line in a file of its own beside the store.
    Mark(String),
    Create {
        path: String,
        inode: u64,
    },
    MakeFolder {
        path: String,
        inode: u64,
    },
    Write {
        inode: u64,
        offset: u64,
        data: Arc<[u8]>,
    },
    Truncate {
        inode: u64,
        size: u64,
    },
    Sync {
        path: String,
        inode: u64,
        /// fdatasync: what is not needed to read the data may be left behind.
        data_only: bool,
    },
    Rename {
        from: String,
        to: String,
    },
    Link {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
}

/// The recorder itself, compiled.
pub(super) struct Shim {
    place: tempfile::TempDir,
}

impl Shim {
    pub(super) fn build() -> Self {
        let shim = Self {
            place: tempfile::tempdir().unwrap(),
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/power/record.c");
        let built = Command::new("cc")
            .args([
                "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o",
            ])
            .args([&shim.library(), &source])
            .status()
            .expect("cc, which the linker needs anyway");
        assert!(built.success(), "the recorder does not compile");
        shim
    }

    fn library(&self) -> PathBuf {
        self.place.path().join("record.so")
    }
}

/// A folder whose changes are recorded, and the record.
pub(super) struct Recorder<'a> {
    shim: &'a Shim,
    place: tempfile::TempDir,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(shim: &'a Shim) -> Self {
        let place = tempfile::tempdir_in(fast()).unwrap();
        fs::create_dir(place.path().join("root")).unwrap();
        Self { shim, place }
    }

    /// What is recorded: the store's folder and its key file's lie in it.
    pub(super) fn root(&self) -> PathBuf {
        self.place.path().join("root")
    }

    pub(super) fn root_inode(&self) -> u64 {
        fs::metadata(self.root()).unwrap().ino()
    }

    /// Runs [`super::child`] in a role; `kill_at` is the change that it does not live to make.
    pub(super) fn run(&self, role: &str, kill_at: Option<u64>) -> Output {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "power::child", "--test-threads=1", "--nocapture"])
            .env("PILOTLIGHT_TEST_POWER", role)
            .env("PILOTLIGHT_TEST_DIR", self.root())
            .env("LD_PRELOAD", self.shim.library())
            .env("RECORD_ROOT", self.root())
            .env("RECORD_LOG", self.place.path().join("record"));
        if let Some(kill_at) = kill_at {
            child.env("RECORD_KILL", kill_at.to_string());
        }
        child.output().unwrap()
    }

    /// All that was recorded so far.
    pub(super) fn changes(&self) -> Vec<Change> {
        let bytes = fs::read(self.place.path().join("record")).unwrap();
        let mut rest = bytes.as_slice();
        let mut changes = Vec::new();
        while !rest.is_empty() {
            changes.extend(next(&mut rest));
        }
        changes
    }
}

/// The file, beside the store, that a child writes its marks to.
pub(super) const MARKS: &str = "/marks";

/// A folder in memory where there is one: thousands of stores are opened, and each waits for the disk otherwise.
pub(super) fn fast() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match tempfile::tempdir_in(memory) {
        Ok(_) => memory.to_owned(),
        Err(_) => std::env::temp_dir(),
    }
}

fn next(rest: &mut &[u8]) -> Option<Change> {
    let number = |rest: &mut &[u8]| {
        let (bytes, after) = rest.split_first_chunk::<4>().unwrap();
        *rest = after;
        u32::from_ne_bytes(*bytes)
    };
    let long = |rest: &mut &[u8]| {
        let (bytes, after) = rest.split_first_chunk::<8>().unwrap();
        *rest = after;
        u64::from_ne_bytes(*bytes)
    };
    let [kind, path, path2, flags] = [(); 4].map(|()| number(rest));
    let [inode, offset, length] = [(); 3].map(|()| long(rest));
    let mut text = |length: u32| {
        let (bytes, after) = rest.split_at(length as usize);
        *rest = after;
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let (path, path2) = (text(path), text(path2));
    let is_mark = path == MARKS;
    Some(match kind {
        1 if is_mark => return None,
        1 => Change::Create { path, inode },
        2 => Change::MakeFolder { path, inode },
        3 => {
            let (data, after) = rest.split_at(usize::try_from(length).unwrap());
            *rest = after;
            if is_mark {
                Change::Mark(String::from_utf8(data.to_vec()).unwrap())
            } else {
                let data = data.into();
                Change::Write {
                    inode,
                    offset,
                    data,
                }
            }
        }
        4 => Change::Truncate {
            inode,
            size: offset,
        },
        5 => Change::Sync {
            path,
            inode,
            data_only: flags != 0,
        },
        // 1 is RENAME_NOREPLACE: it replaced nothing, or it would not be here.
        6 if flags <= 1 => Change::Rename {
            from: path,
            to: path2,
        },
        7 => Change::Link {
            from: path,
            to: path2,
        },
        8 => Change::Unlink { path },
        _ => panic!(
            "system call {flags} on {path} (kind {kind}): what would a power cut leave of it?"
        ),
    })
}
