//! Secrets by reference: `file:PATH`, `fd:NUMBER`, `env:NAME`. A secret itself is never an argument or a setting.

use std::{
    io::{Read, Write as _},
    path::Path,
};

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
        Some(("env", name)) => match environment.value(name) {
            Some(value) => secret(reference, value.as_bytes()),
            None => Err(bad_value(reference, "the variable is not set")),
        },
        Some(("stdin", "")) => secret("--client-secret-stdin", std::io::stdin().lock()),
        _ => Err(bad_value(
            "client_secret",
            "write file:PATH, fd:NUMBER or env:NAME",
        )),
    }
}

fn open(reference: &str, path: &Path) -> Result<std::fs::File, Error> {
    std::fs::File::open(path).map_err(|error| bad_value(reference, error.to_string()))
}

fn secret(what: &str, source: impl Read) -> Result<ClientSecret, Error> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT + 1));
    source
        .take(LIMIT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| bad_value(what, error.to_string()))?;
    if bytes.len() > LIMIT {
        return Err(bad_value(what, "it is longer than a secret should be"));
    }
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

const LIMIT: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

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
