//! A disk that is full while the issuer rotates.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pilotlight_testkit::processes::{
    harness::Harness,
    said::Said,
    site::{Issuer, Site},
    testimony::Exit,
};
use rustix::process::Signal;

use super::{PATIENCE, log_in, nothing_lost, program, refreshed, refreshes, seconds, served};

/// F-06, I-4, I-6: the disk is full over three rotations and the process is killed in the middle of it: the newest refresh
/// token survives in the spool, at an issuer that repeats nothing. Calls go on all the while.
///
/// On a small file system of its own where one can be mounted; a limit on the size of files does for a full disk always.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_over_three_rotations_loses_nothing() {
    let mut disks = vec![Disk::limited()];
    disks.extend(Disk::mounted());
    for disk in disks {
        full_over_three_rotations(disk).await;
    }
}

async fn full_over_three_rotations(mut disk: Disk) {
    let issuer = Issuer {
        token_life: seconds(1),
        ..Issuer::default()
    };
    let site = Site::open_in(&program(), issuer, disk.home())
        .await
        .unwrap();
    log_in(&site).await;
    let start = site.start("work").arg("--every-ms=50");
    let mut worker = site.spawn(start).unwrap();
    served(&mut worker).await;
    // As much is in the log as makes the next write one that has to grow it.
    let log = site.home().join("data").join("store.db-wal");
    while fs::metadata(&log).map_or(0, |log| log.len()) < MUCH {
        refreshed(&site, refreshes(&site).len() + 1).await;
    }
    let kept = |said: &Said| matches!(said, Said::Durable { .. });
    let heard = worker.testimony().lines().len();
    worker.next_after(heard, PATIENCE, kept).await.unwrap();
    disk.fill(&worker);
    let heard = worker.testimony().lines().len();
    // Killed before its answers are durable, it would take them along.
    worker.next_after(heard, PATIENCE, kept).await.unwrap();
    for _ in 0..3 {
        worker.next(PATIENCE, kept).await.unwrap();
    }
    served(&mut worker).await;

    let lines = worker.testimony().lines();
    let meanwhile: Vec<&Said> = lines[heard..].iter().map(|line| &line.said).collect();
    let rotations = meanwhile
        .iter()
        .filter(|said| matches!(said, Said::Durable { .. }));
    let stored = rotations.filter(|said| matches!(said, Said::Durable { spooled: false, .. }));
    assert_eq!(stored.count(), 0, "{}: {meanwhile:?}", disk.name);
    // Nothing leaves before the note of it is durable, be it in the spool.
    let noted = meanwhile
        .iter()
        .filter(|said| matches!(said, Said::Attempt { durable: true, .. }));
    assert!(noted.count() >= 4, "{}: {meanwhile:?}", disk.name);
    let failed = meanwhile
        .iter()
        .filter(|said| matches!(said, Said::Called { code: Some(_), .. }));
    assert_eq!(failed.count(), 0, "{}: {meanwhile:?}", disk.name);

    worker.signal(Signal::KILL);
    worker.end(PATIENCE).await.unwrap();
    // Whoever starts while it is full still may fail, but finds no login lost.
    let (exit, early) = site.run(site.start("token")).await.unwrap();
    assert!(
        matches!(exit, Exit::Code(0 | 75)),
        "{}: {exit:?} {:?}",
        disk.name,
        early.failure()
    );
    disk.empty();
    let report = nothing_lost(&site, Duration::ZERO).await;
    assert_eq!(report.judgement.spent_labelled, 0, "{}", disk.name);
}

/// Somewhere that can be full.
struct Disk {
    name: &'static str,
    folder: tempfile::TempDir,
    mounted: bool,
    filler: Option<PathBuf>,
}

impl Disk {
    /// One that is full for a process whose files may not grow.
    fn limited() -> Self {
        Self {
            name: "limited",
            folder: tempfile::tempdir().unwrap(),
            mounted: false,
            filler: None,
        }
    }

    /// Two mebibytes of memory, where the system lets us mount them.
    fn mounted() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|mount| mount.status.success());
        mounted.then_some(Self {
            name: "mounted",
            folder,
            mounted,
            filler: None,
        })
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn fill(&mut self, worker: &Harness) {
        if self.mounted {
            let filler = self.folder.path().join("filler");
            let mut file = File::create(&filler).unwrap();
            while file.write_all(&[7; 4096]).is_ok() {}
            self.filler = Some(filler);
        } else {
            worker.limit_file_size(Some(LIMIT)).unwrap();
        }
    }

    fn empty(&mut self) {
        if let Some(filler) = self.filler.take() {
            fs::remove_file(filler).unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let path: &Path = self.folder.path();
            // Lazily: what still uses it lets go of it in a moment.
            drop(Command::new("umount").arg("-l").arg(path).output());
        }
    }
}

/// More than a spool slot: those were allocated before.
const LIMIT: u64 = 36 * 1024;
const MUCH: u64 = 48 * 1024;
