//! Finds secrets where none may be: in logs, files, errors, argument lists.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Secrets that must not turn up anywhere, each with a name that may.
#[derive(Clone, Default)]
pub struct Canaries {
    canaries: Vec<Canary>,
}

impl Canaries {
    /// Makes an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret. One shorter than eight bytes would be found by chance, and is left out.
    pub fn add(&mut self, name: impl Into<String>, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        if secret.len() >= MIN_LENGTH {
            self.canaries.push(Canary {
                name: name.into(),
                forms: forms(secret),
            });
        }
    }

    /// Adds secrets, named by the letters before their first `-` and a number.
    pub fn extend<S: AsRef<str>>(&mut self, secrets: impl IntoIterator<Item = S>) {
        for secret in secrets {
            let secret = secret.as_ref();
            let prefix = secret.split('-').next().unwrap_or_default();
            let name = format!("{prefix} #{}", self.canaries.len() + 1);
            self.add(name, secret);
        }
    }

    /// Gives the number of secrets looked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.canaries.len()
    }

    /// Tells whether there is nothing to look for, so that nothing would be found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.canaries.is_empty()
    }

    /// Finds the secrets in some bytes: as they are, in base64 at any offset, in hexadecimal.
    #[must_use]
    pub fn find(&self, bytes: &[u8], what: &str) -> Vec<Leak> {
        let mut leaks = Vec::new();
        for canary in &self.canaries {
            let found = canary
                .forms
                .iter()
                .find(|form| contains(bytes, &form.bytes));
            if let Some(form) = found {
                leaks.push(Leak {
                    what: what.to_owned(),
                    canary: canary.name.clone(),
                    encoding: form.encoding,
                });
            }
        }
        leaks
    }

    /// Asserts that some bytes hold no secret.
    ///
    /// # Panics
    ///
    /// If they do; the message says which one, and shows none.
    #[track_caller]
    pub fn assert_absent(&self, bytes: impl AsRef<[u8]>, what: &str) {
        let leaks = self.find(bytes.as_ref(), what);
        assert!(leaks.is_empty(), "secrets leaked: {}", list(&leaks));
    }

    /// Finds the secrets in the names and contents of every file below a folder; links are not followed.
    ///
    /// # Errors
    ///
    /// A folder or a file cannot be read.
    pub fn scan_folder(&self, folder: impl AsRef<Path>) -> io::Result<Vec<Leak>> {
        let mut leaks = Vec::new();
        let mut folders: Vec<PathBuf> = vec![folder.as_ref().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let path = entry.path();
                let name = entry.file_name();
                leaks.extend(self.find(name.as_encoded_bytes(), "a file name"));
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    leaks.extend(self.find(&std::fs::read(&path)?, &path.display().to_string()));
                }
            }
        }
        Ok(leaks)
    }

    /// Asserts that no file below a folder holds a secret.
    ///
    /// # Panics
    ///
    /// If one does, or if the folder cannot be read.
    #[track_caller]
    pub fn assert_folder_clean(&self, folder: impl AsRef<Path>) {
        match self.scan_folder(&folder) {
            Ok(leaks) => assert!(leaks.is_empty(), "secrets leaked: {}", list(&leaks)),
            Err(error) => panic!("cannot scan {}: {error}", folder.as_ref().display()),
        }
    }
}

/// Shows names only.
impl fmt::Debug for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.canaries.iter().map(|canary| &canary.name);
        f.debug_list().entries(names).finish()
    }
}

/// A secret that was found where none may be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leak {
    /// Where: a file, or what the caller said it looked at.
    pub what: String,
    /// The name of the secret.
    pub canary: String,
    /// In which form it was found: `raw`, `base64`, `base64url`, `hex`.
    pub encoding: &'static str,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) in {}", self.canary, self.encoding, self.what)
    }
}

#[derive(Clone)]
struct Canary {
    name: String,
    forms: Vec<Form>,
}

#[derive(Clone)]
struct Form {
    encoding: &'static str,
    bytes: Vec<u8>,
}

const MIN_LENGTH: usize = 8;

/// Gives every form in which a secret is looked for.
fn forms(secret: &[u8]) -> Vec<Form> {
    let mut forms = vec![Form {
        encoding: "raw",
        bytes: secret.to_vec(),
    }];
    for skip in 0..3 {
        // Inside a longer text the secret may start at any of three places of a base64 group, so only the whole groups
        // are the same wherever it stands.
        let whole = (secret.len() - skip) / 3 * 3;
        let middle = &secret[skip..skip + whole];
        for (encoding, engine) in [("base64", STANDARD_NO_PAD), ("base64url", URL_SAFE_NO_PAD)] {
            let bytes = engine.encode(middle).into_bytes();
            if !forms.iter().any(|form| form.bytes == bytes) {
                forms.push(Form { encoding, bytes });
            }
        }
    }
    for encode in [
        |byte: &u8| format!("{byte:02x}"),
        |byte: &u8| format!("{byte:02X}"),
    ] {
        forms.push(Form {
            encoding: "hex",
            bytes: secret.iter().map(encode).collect::<String>().into_bytes(),
        });
    }
    forms
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else {
        return false;
    };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn list(leaks: &[Leak]) -> String {
    let lines: Vec<String> = leaks.iter().map(Leak::to_string).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn canaries() -> Canaries {
        let mut canaries = Canaries::new();
        canaries.add("refresh", "rt-0123456789abcdef~?");
        canaries
    }

    #[test]
    fn a_secret_is_found_in_every_encoding_at_every_offset() {
        let canaries = canaries();
        for before in ["", "a", "ab", "abc"] {
            let text = format!("{before}rt-0123456789abcdef~? and more");
            for bytes in [
                text.clone().into_bytes(),
                STANDARD.encode(&text).into_bytes(),
                URL_SAFE_NO_PAD.encode(&text).into_bytes(),
                text.bytes()
                    .map(|b| format!("{b:02x}"))
                    .collect::<String>()
                    .into_bytes(),
            ] {
                assert_eq!(canaries.find(&bytes, "text").len(), 1, "{before:?}");
            }
        }
    }

    #[test]
    fn other_text_is_clean() {
        canaries().assert_absent("rt-0123456789abcdeX~? rt- 0123", "a log");
    }

    #[test]
    fn a_leak_does_not_show_the_secret() {
        let canaries = canaries();
        let leaks = canaries.find(b"x rt-0123456789abcdef~? y", "a log");
        let shown = format!("{canaries:?} {leaks:?} {}", leaks[0]);
        canaries.assert_absent(shown, "the report");
    }

    #[test]
    fn short_strings_are_not_looked_for() {
        let mut canaries = Canaries::new();
        canaries.add("short", "abc");
        assert!(canaries.is_empty());
    }
}
