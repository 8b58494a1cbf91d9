//! What we know of a login that is shared: whose files, and which contents of them we have seen.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use pilotlight_core::{
    Error,
    credential::{Credential, CredentialId},
    time::Wall,
};
use serde::{Deserialize, Serialize};

use super::files::{Files, Fingerprint, Tokens, replace};
use crate::hex::hex;

/// A login that is shared, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    folder: PathBuf,
    hash: String,
    /// What was read or written there, newest last: none of it is ever newer than what we have.
    seen: Vec<Fingerprint>,
    /// When somebody else last wrote there.
    pub(super) others_at: Wall,
    /// Whether sharing has ended: then the files are left alone, and what was seen is not imported again.
    #[serde(default)]
    pub(super) ended: bool,
}

/// What lies in the shared file, seen from our version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Theirs {
    /// Our version.
    Ours,
    /// Something older: ours is to be written there.
    Older,
    /// Nothing: it was refused there, or deleted.
    Nothing,
    /// A later version of the same login.
    Newer(Box<Tokens>),
    /// Something that is not ours to read or replace: of another issuer.
    Foreign,
}

impl Link {
    pub(super) fn new(files: &Files, others_at: Wall) -> Self {
        Self {
            folder: files.folder().to_owned(),
            hash: files.hash().to_owned(),
            seen: Vec::new(),
            others_at,
            ended: false,
        }
    }

    pub(super) fn files(&self) -> Files {
        Files::in_folder(self.folder.clone(), self.hash.clone())
    }

    pub(super) fn has_seen(&self, content: &Fingerprint) -> bool {
        self.seen.contains(content)
    }

    /// Remembers a content; answers whether that is new.
    pub(super) fn see(&mut self, content: Fingerprint) -> bool {
        if self.seen.contains(&content) {
            return false;
        }
        self.seen.push(content);
        let surplus = self.seen.len().saturating_sub(MOST_SEEN);
        self.seen.drain(..surplus);
        true
    }

    /// Compares what lies there with our version.
    pub(super) fn compare(&self, ours: &Credential, theirs: Option<Tokens>) -> Theirs {
        let Some(theirs) = theirs else {
            return Theirs::Nothing;
        };
        let content = theirs.fingerprint();
        if content == Fingerprint::of_ours(ours) {
            return Theirs::Ours;
        }
        if theirs
            .issuer
            .as_deref()
            .is_some_and(|issuer| !is_issuer(issuer, ours))
        {
            return Theirs::Foreign;
        }
        // A folder that was restored: what it held then is spent.
        let restored = ours
            .received_at
            .is_some_and(|received| theirs.received_at.until(received.wall) > A_DAY);
        if self.has_seen(&content) || restored {
            return Theirs::Older;
        }
        Theirs::Newer(Box::new(theirs))
    }

    /// Whether nobody but us has written there for a long time. That alone does not say that nobody uses it: while we renew
    /// the login, mcp-remote has no need to write.
    pub(super) fn is_forsaken(&self, now: Wall) -> bool {
        self.others_at.until(now) > FORSAKEN_AFTER
    }

    pub(super) fn read(links: &Path, id: CredentialId) -> Result<Option<Self>, Error> {
        let path = file(links, id);
        let failed = |why: String| Error::StoreUnavailable {
            why: format!("{}: {why}", path.display()),
        };
        match fs::read(&path) {
            Ok(bytes) => {
                let link = serde_json::from_slice(&bytes);
                link.map(Some).map_err(|error| failed(error.to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Makes it durable.
    pub(super) fn write(&self, links: &Path, id: CredentialId, now: Wall) -> Result<(), Error> {
        let done = (|| -> io::Result<()> {
            make_private(links)?;
            replace(&file(links, id), &serde_json::to_vec(self)?, now)
        })();
        done.map_err(|error| Error::StoreUnavailable {
            why: format!("{}: {error}", links.display()),
        })
    }
}

/// Whether a text names the issuer of a login. A slash at the end is no difference here: older programs wrote a URL.
pub(super) fn is_issuer(text: &str, ours: &Credential) -> bool {
    let bare = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
    bare(text) == bare(ours.key.issuer.as_str())
}

fn file(links: &Path, id: CredentialId) -> PathBuf {
    links.join(format!("{}.json", hex(&id.0)))
}

#[cfg(unix)]
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

#[cfg(not(unix))]
fn make_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// With tokens of three minutes more than a day, which is what [`A_DAY`] leaves over.
const MOST_SEEN: usize = 512;
const A_DAY: Duration = Duration::from_secs(86_400);
const FORSAKEN_AFTER: Duration = Duration::from_secs(30 * 86_400);
