//! A log that keeps the newest: of each program 1 MiB, of all programs ten.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::open;

/// The log of one program. It lies in two files of half the size, the older one with `.1` behind its name.
pub(super) struct Kept {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Kept {
    /// Begins a log, and removes those of programs that began long ago.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        make(folder)?;
        prune(folder, path);
        let file = open(path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            written,
        })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.written + line.len() as u64 > HALF {
            fs::rename(&self.path, older(&self.path))?;
            self.file = open(&self.path)?;
            self.written = 0;
        }
        self.written += line.len() as u64;
        self.file.write_all(line)
    }
}

fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Leaves room for one more.
fn prune(folder: &Path, own: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut logs: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path != own && path.extension().is_some_and(|kind| kind == "log"))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    logs.sort();
    let surplus = (logs.len() + 1).saturating_sub(FILES);
    for (_, path) in logs.into_iter().take(surplus) {
        // Another program may have removed it already.
        drop(fs::remove_file(older(&path)));
        drop(fs::remove_file(path));
    }
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

const HALF: u64 = 512 * 1024;
const FILES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// T-33: the log of a bridge is bounded, in size and in number.
    #[test]
    fn the_newest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("log");
        for number in 0..15 {
            let mut log = Kept::open(&folder.join(format!("a-{number:02}.log"))).unwrap();
            let line = format!("{}\n", "x".repeat(999));
            for _ in 0..2000 {
                log.write(line.as_bytes()).unwrap();
            }
            log.write(b"the last\n").unwrap();
        }
        let files: Vec<_> = fs::read_dir(&folder).unwrap().flatten().collect();
        let logs = files
            .iter()
            .filter(|file| file.path().extension().unwrap() == "log");
        assert_eq!(logs.count(), FILES);
        let sizes: u64 = files
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert!(sizes <= FILES as u64 * 2 * HALF, "{sizes}");
        let newest = fs::read_to_string(folder.join("a-14.log")).unwrap();
        assert!(newest.ends_with("the last\n"));
        assert!(!folder.join("a-00.log").exists() && !folder.join("a-00.log.1").exists());
    }
}
