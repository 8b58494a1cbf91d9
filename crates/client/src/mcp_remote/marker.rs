//! mcp-remote's `refresh_in_progress.json`: who is spending the refresh token.
//!
//! Taken, judged and let go of as mcp-remote does, so that both keep out of each other's way; renewed while it is held, since
//! a call may take longer than the 30 s after which anybody may remove it.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use pilotlight_core::{
    error::Holder,
    time::{Mono, Now, Wall, millis},
};
use serde::{Deserialize, Serialize};

use super::files::{Files, private};
use crate::{crypto, hex::hex};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pid: u32,
    nonce: String,
    at: u64,
}

/// A marker that somebody else holds, and since when we have seen it like that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    content: Content,
    since: Mono,
}

/// The marker, ours until it is dropped.
#[derive(Debug)]
pub(super) struct Marker {
    path: PathBuf,
    nonce: String,
    /// Where no file could be made: what lay in its place then. While that is so, nobody has come between.
    alone: Option<Option<Content>>,
}

/// What came of trying to take it.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is ours.
    Got(Marker),
    /// Somebody else has it.
    HeldBy(Holder),
}

impl Marker {
    /// Tries once. `watched` is what an earlier try has seen, and is kept up; a marker that begins with `tag` binds nobody who
    /// has our own lock.
    pub(super) fn take(
        files: &Files,
        tag: &str,
        watched: &mut Option<Watched>,
        now: Now,
    ) -> io::Result<Taken> {
        Self::take_by(files, tag, watched, now, |path, nonce| {
            create(path, nonce, now.wall, |other, path| {
                fs::hard_link(other, path)
            })
        })
    }

    /// The same, with the way that the file is made.
    ///
    /// Where the folder is gone, or takes no file, mcp-remote has no marker there either, and nothing keeps us but our own
    /// lock: a login that nobody renews any more would be worse.
    fn take_by(
        files: &Files,
        tag: &str,
        watched: &mut Option<Watched>,
        now: Now,
        make: impl Fn(&Path, &str) -> io::Result<()>,
    ) -> io::Result<Taken> {
        let path = files.path(NAME);
        for _ in 0..TRIES {
            let nonce = format!("{tag}{}", nonce());
            match make(&path, &nonce) {
                Ok(()) => {
                    let own = read(&path)?.is_some_and(|content| content.nonce == nonce);
                    if own {
                        *watched = None;
                        let alone = None;
                        return Ok(Taken::Got(Self { path, nonce, alone }));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if let Some(holder) = bound_by(&path, tag, watched, now)? {
                        return Ok(Taken::HeldBy(holder));
                    }
                    match remove_abandoned(&path, watched.take()) {
                        Err(error) if takes_no_file(&error) => {
                            return Self::alone(path, nonce, tag, watched, now);
                        }
                        removed => removed?,
                    }
                }
                Err(error) if takes_no_file(&error) => {
                    return Self::alone(path, nonce, tag, watched, now);
                }
                Err(error) => return Err(error),
            }
        }
        // Others come and go faster than we look.
        Ok(Taken::HeldBy(Holder {
            program: PROGRAM.to_owned(),
            ..Holder::default()
        }))
    }

    /// Ours without a file, unless somebody binds us.
    fn alone(
        path: PathBuf,
        nonce: String,
        tag: &str,
        watched: &mut Option<Watched>,
        now: Now,
    ) -> io::Result<Taken> {
        if let Some(holder) = bound_by(&path, tag, watched, now)? {
            return Ok(Taken::HeldBy(holder));
        }
        let alone = Some(read(&path)?);
        Ok(Taken::Got(Self { path, nonce, alone }))
    }

    /// Whether there is no file that says it.
    pub(super) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// Who holds it, if it binds anybody; nothing is changed.
    pub(super) fn holder(
        files: &Files,
        tag: &str,
        watched: &mut Option<Watched>,
        now: Now,
    ) -> io::Result<Option<Holder>> {
        bound_by(&files.path(NAME), tag, watched, now)
    }

    /// Whether it is still ours.
    pub(super) fn is_held(&self) -> bool {
        match (&self.alone, read(&self.path)) {
            (None, Ok(Some(content))) => content.nonce == self.nonce,
            (Some(before), Ok(now)) => *before == now,
            _ => false,
        }
    }

    /// Says anew that we are at it; answers whether it is still ours. It is written in place: what somebody has removed
    /// meanwhile is not made again.
    pub(super) fn renew(&self, now: Wall) -> bool {
        if self.is_alone() {
            return self.is_held();
        }
        let renewed = (|| -> io::Result<bool> {
            let mut file = fs::OpenOptions::new().write(true).open(&self.path)?;
            if !self.is_held() {
                return Ok(false);
            }
            file.write_all(text(&self.nonce, now)?.as_bytes())?;
            Ok(true)
        })();
        renewed.unwrap_or(false) && self.is_held()
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        if !self.is_alone() && self.is_held() {
            // Nothing to do where it fails: it ends with this process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Who is bound to be waited for: a process that lives, and has said so in the last 30 s by its clock and by ours.
fn bound_by(
    path: &Path,
    tag: &str,
    watched: &mut Option<Watched>,
    now: Now,
) -> io::Result<Option<Holder>> {
    let Some(content) = read(path)? else {
        *watched = None;
        // mcp-remote makes its file empty and fills it then. One that another user has made says nothing but its date.
        let closed = fs::read(path).is_err_and(|error| is_closed(&error));
        let limit = if closed { BINDS_FOR } else { NEWBORN };
        let newborn = age_of(path, now.wall).is_some_and(|age| age < limit);
        return Ok(newborn.then(|| Holder {
            program: PROGRAM.to_owned(),
            ..Holder::default()
        }));
    };
    let since = match watched {
        Some(known) if known.content == content => known.since,
        _ => now.mono,
    };
    let age = now.wall.0.saturating_sub(content.at);
    let binds = !content.nonce.starts_with(tag)
        && u128::from(age) < BINDS_FOR.as_millis()
        && since.until(now.mono) < BINDS_FOR
        && is_alive(content.pid);
    let holder = Holder {
        pid: content.pid,
        program: PROGRAM.to_owned(),
        since: content.at / 1000,
        stopped: false,
    };
    *watched = Some(Watched { content, since });
    Ok(binds.then_some(holder))
}

/// Takes away what binds nobody: under another name first, so that a new one that has come into its place is not lost.
fn remove_abandoned(path: &Path, judged: Option<Watched>) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.{}.tmp", std::process::id(), nonce()));
    let aside = PathBuf::from(aside);
    match fs::rename(path, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let moved = read(&aside)?;
    if moved.is_some() && moved != judged.map(|known| known.content) {
        // Somebody was quicker; where yet another one has come, that one is as good.
        let _ = fs::hard_link(&aside, path);
    }
    fs::remove_file(&aside)
}

/// Makes the file with its content at once: an empty one is what others take for abandoned.
///
/// `link` gives a file its second name. Not every file system can: there it is made empty, as mcp-remote makes its own.
fn create(
    path: &Path,
    nonce: &str,
    now: Wall,
    link: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let mut other = path.as_os_str().to_owned();
    other.push(format!(".{nonce}.tmp"));
    let other = PathBuf::from(other);
    let made = (|| {
        let mut file = private(fs::OpenOptions::new().write(true).create_new(true)).open(&other)?;
        file.write_all(text(nonce, now)?.as_bytes())?;
        match link(&other, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let mut file =
                    private(fs::OpenOptions::new().write(true).create_new(true)).open(path)?;
                let written = file.write_all(text(nonce, now)?.as_bytes());
                if written.is_err() {
                    // Half a marker is one that nobody needs to heed.
                    let _ = fs::remove_file(path);
                }
                written
            }
            done => done,
        }
    })();
    // It has its right name now, or it is of no use.
    let _ = fs::remove_file(&other);
    made
}

fn text(nonce: &str, now: Wall) -> io::Result<String> {
    let content = Content {
        pid: std::process::id(),
        nonce: nonce.to_owned(),
        at: now.0,
    };
    Ok(serde_json::to_string_pretty(&content)?)
}

/// Whether the reason is a folder that is gone, or that takes no file from anybody like us.
fn takes_no_file(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::NotFound | Kind::ReadOnlyFilesystem | Kind::StorageFull | Kind::QuotaExceeded
    ) || is_closed(error)
}

/// Whether the reason is that it belongs to somebody else.
fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Reads it; what cannot be understood counts as none, as it does there.
fn read(path: &Path) -> io::Result<Option<Content>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_closed(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How long ago a file was written; `None` where there is none, or where that lies in the future.
fn age_of(path: &Path, now: Wall) -> Option<Duration> {
    let at = fs::metadata(path).ok()?.modified().ok()?;
    let at = millis(at.duration_since(UNIX_EPOCH).ok()?);
    now.0.checked_sub(at).map(Duration::from_millis)
}

/// A random name in the form of a UUID.
fn nonce() -> String {
    let bytes: [u8; 16] = crypto::random();
    let hex = hex(&bytes);
    let mut parts = Vec::new();
    let mut rest = hex.as_str();
    for length in [8, 4, 4, 4] {
        let (head, tail) = rest.split_at(length);
        parts.push(head);
        rest = tail;
    }
    parts.push(rest);
    parts.join("-")
}

/// Whether there is such a process; one that we may not signal lives as well.
#[cfg(unix)]
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn is_alive(_: u32) -> bool {
    true
}

const NAME: &str = "refresh_in_progress.json";
/// What holders are called: it may as well be another of us, whose own lock says so.
const PROGRAM: &str = "mcp-remote";
const BINDS_FOR: Duration = Duration::from_secs(30);
/// How often a marker that is held is renewed.
pub(super) const RENEWED_EVERY: Duration = Duration::from_secs(5);
const TRIES: u32 = 4;
const NEWBORN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
