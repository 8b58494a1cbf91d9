//! Secrets by reference: `file:PATH`, `fd:NUMBER`, `env:NAME`. A secret itself is never an argument or a setting.

use std::{
    io::{Read, Write as _},
    path::Path,
};

use async_trait::async_trait;
use pilotlight::secrets::{FileSecrets, SecretRef, Secrets};
use pilotlight_core::{Error, secret::ClientSecret};
use zeroize::Zeroizing;

use super::{Environment, bad_value};

/// Reads the secret that a reference names.
///
/// # Errors
/// `config.value`, without the secret.
pub(crate) fn read_secret(
    reference: &str,
    environment: &Environment,
) -> Result<ClientSecret, Error> {
    match reference.split_once(':') {
        Some(("file", path)) => secret(reference, open(reference, Path::new(path))?),
        Some(("fd", number)) if number.parse::<u32>().is_ok() => secret(
            reference,
            open(reference, &Path::new("/dev/fd").join(number))?,
        ),
        Some(("env", name)) if is_variable(name) => match environment.value(name) {
            Some(value) => secret(reference, value.as_bytes()),
            None => Err(bad_value(reference, "the variable is not set")),
        },
        _ => Err(bad_value(
            "client_secret",
            "write file:PATH, fd:NUMBER or env:NAME",
        )),
    }
}

/// Reads the secret in the file that `--client-secret-file` names. Its name is not repeated: it may be the secret.
///
/// # Errors
/// `config.value`, with neither.
pub(crate) fn secret_in(file: &Path) -> Result<ClientSecret, Error> {
    const FLAG: &str = "--client-secret-file";
    let file = std::fs::File::open(file).map_err(|error| bad_value(FLAG, error.to_string()))?;
    secret(FLAG, file)
}

/// Reads the secret that comes on stdin.
///
/// # Errors
/// `config.value`, without the secret.
pub(crate) fn secret_on_stdin() -> Result<ClientSecret, Error> {
    secret("--client-secret-stdin", std::io::stdin().lock())
}

/// Whether this can be a variable. `env:$TOKEN`, written in haste, is the token itself: that is not repeated.
pub(super) fn is_variable(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whoever reads what the references of logins stand for, at each use and in each process anew.
#[derive(Debug)]
pub(crate) struct Referred(pub(crate) Environment);

#[async_trait]
impl Secrets for Referred {
    async fn read(&self, reference: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Error> {
        let unfit = |why: &str| bad_value(reference.to_string(), why);
        match reference.scheme() {
            "file" => FileSecrets.read(reference).await,
            "env" => {
                let value = self.0.value(reference.rest());
                let value = value.ok_or_else(|| unfit("the variable is not set"))?;
                Ok(Zeroizing::new(value.as_bytes().to_vec()))
            }
            "fd" => {
                let what = reference.to_string();
                let path = Path::new("/dev/fd").join(reference.rest());
                tokio::task::spawn_blocking(move || whole(&what, open(&what, &path)?, LONGEST))
                    .await
                    .map_err(|_| Error::ConfigRuntime)?
            }
            _ => Err(unfit("write file:PATH, env:NAME or fd:NUMBER")),
        }
    }
}

fn open(reference: &str, path: &Path) -> Result<std::fs::File, Error> {
    std::fs::File::open(path).map_err(|error| bad_value(reference, error.to_string()))
}

fn secret(what: &str, source: impl Read) -> Result<ClientSecret, Error> {
    let bytes = whole(what, source, LIMIT)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(LIMIT));
    // One line break at the end is the editor's, not the secret's.
    let text = bytes.strip_suffix(b"\n").map_or(bytes.as_slice(), |line| {
        line.strip_suffix(b"\r").unwrap_or(line)
    });
    plain
        .write_all(text)
        .map_err(|error| bad_value(what, error.to_string()))?;
    let text = String::from_utf8(std::mem::take(&mut *plain))
        .map_err(|_| bad_value(what, "it is not UTF-8"))?;
    if text.is_empty() {
        return Err(bad_value(what, "it is empty"));
    }
    ClientSecret::new(text)
        .map_err(|_| bad_value(what, "it holds characters outside printable ASCII"))
}

/// Reads to the end, which must come soon.
fn whole(what: &str, source: impl Read, limit: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    source
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| bad_value(what, error.to_string()))?;
    if bytes.len() > limit {
        return Err(bad_value(what, "it is longer than a secret should be"));
    }
    Ok(bytes)
}

const LIMIT: usize = 8192;
/// Keys and tokens are longer than secrets.
const LONGEST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// T-28: a login's references are read when they are needed, in the environment of whoever needs them.
    #[tokio::test]
    async fn what_a_login_refers_to_is_read_at_each_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let secrets = Referred(Environment::made_up(&[("MY_TOKEN", "canary-1")]));
        let read = async |text: &str| secrets.read(&SecretRef::parse(text).unwrap()).await;
        let file = format!("file:{}", path.display());
        assert_eq!(read(&file).await.unwrap().as_slice(), b"one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(read(&file).await.unwrap().as_slice(), b"two");
        assert_eq!(read("env:MY_TOKEN").await.unwrap().as_slice(), b"canary-1");
        for bad in ["env:OTHER", "fd:987654", "vault:a/b", "file:relative"] {
            let error = read(bad).await.unwrap_err();
            assert_eq!(error.code(), "config.value", "{bad}");
        }
        assert!(!format!("{secrets:?}").contains("canary"));
    }

    #[test]
    fn each_kind_of_reference_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\r\n").unwrap();
        let environment = Environment::made_up(&[("MY_SECRET", "other")]);
        let read = |reference: &str| {
            read_secret(reference, &environment).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(
            read(&format!("file:{}", file.path().display())).unwrap(),
            "s3cret"
        );
        assert_eq!(read("env:MY_SECRET").unwrap(), "other");
        for bad in ["env:NOT_SET", "file:/does/not/exist", "fd:x", "plain"] {
            assert_eq!(read(bad).unwrap_err().code(), "config.value", "{bad}");
        }
    }
}
