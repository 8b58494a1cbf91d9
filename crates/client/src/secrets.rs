//! Secrets that lie elsewhere: read when a request departs that needs one, and never kept.

use std::{
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use pilotlight_core::{
    Error,
    assertion::client_assertion,
    exchange::{AssertionOrder, Exchange, SecretOrder},
    grant::{put_assertion, put_secret},
    secret::ClientSecret,
    time::Wall,
};
use rustix::fs::{FileType, Mode, OFlags, Stat};

pub use crate::sign::public_key;
pub use pilotlight_core::reference::SecretRef;
pub use zeroize::Zeroizing;

use crate::{crypto, sign::SigningKey};

/// Whoever knows what a reference to a secret stands for. A role, so that hosts bring their own: a vault, an agent.
#[async_trait]
pub trait Secrets: Send + Sync + fmt::Debug + 'static {
    /// Reads a secret, as it is now: at each use, since it may be replaced at any time. It is given ten seconds.
    ///
    /// # Errors
    /// `config.value`, without a byte of the secret.
    async fn read(&self, reference: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Error>;
}

/// Secrets in files: `file:PATH`, with an absolute path, at most 64 KiB.
///
/// A file that another user could have written is refused, and so is a private key of our own that others can read (T-36).
/// Symbolic links are followed: that is how Kubernetes replaces a token. What is no plain file is refused without waiting
/// for it (T-37).
#[derive(Debug, Clone, Copy, Default)]
pub struct FileSecrets;

#[async_trait]
impl Secrets for FileSecrets {
    async fn read(&self, reference: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Error> {
        if reference.scheme() != "file" {
            let why = "this program reads secrets from files only: file:PATH";
            return Err(unfit(reference, why));
        }
        let path = PathBuf::from(reference.rest());
        // Where a process stands says nothing about the next one.
        if !path.is_absolute() {
            return Err(unfit(reference, "the path must be absolute"));
        }
        let reference = reference.clone();
        tokio::task::spawn_blocking(move || read_file(&reference, &path))
            .await
            .map_err(|_| Error::ConfigRuntime)?
    }
}

fn read_file(reference: &SecretRef, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed =
        |error: rustix::io::Errno| unfit(reference, &std::io::Error::from(error).to_string());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let own = rustix::process::geteuid().as_raw();
    admit(&stat, own).map_err(|why| unfit(reference, why))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT + 1));
    File::from(fd)
        .take(LIMIT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unfit(reference, &error.to_string()))?;
    if bytes.len() > LIMIT {
        return Err(unfit(reference, "it is longer than 64 KiB"));
    }
    if stat.st_uid == own && stat.st_mode & 0o077 != 0 {
        // Whoever runs as root has a key mounted for them as they have it; one of our own can be closed.
        if contains(&bytes, b"PRIVATE KEY-----") {
            let why = "other users can read this private key; chmod 600 it";
            return Err(unfit(reference, why));
        }
        tracing::debug!(%reference, "other users can read this secret");
    }
    Ok(bytes)
}

/// Whether a file can hold a secret of ours.
fn admit(stat: &Stat, own: u32) -> Result<(), &'static str> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("it is no plain file");
    }
    if stat.st_uid != own && stat.st_uid != 0 {
        return Err("it belongs to another user");
    }
    if stat.st_mode & 0o022 != 0 {
        return Err("other users can write to it; chmod go-w it");
    }
    Ok(())
}

/// Reads a secret, or gives up: whoever has it may hang, and a refresh holds its lock meanwhile.
async fn read(secrets: &dyn Secrets, reference: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Error> {
    tokio::time::timeout(PATIENCE, secrets.read(reference))
        .await
        .unwrap_or_else(|_| Err(unfit(reference, "it could not be read within 10 s")))
}

/// Reads a secret that is one line of text: a line break at the end is the editor's.
pub(crate) async fn read_line(
    secrets: &dyn Secrets,
    reference: &SecretRef,
) -> Result<Zeroizing<String>, Error> {
    let bytes = read(secrets, reference).await?;
    let line = bytes.trim_ascii_end();
    let printable = line.iter().all(|byte| (0x20..=0x7e).contains(byte));
    match std::str::from_utf8(line) {
        Ok("") => Err(unfit(reference, "it is empty")),
        Ok(line) if printable => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(unfit(reference, "it is not one line of printable ASCII")),
    }
}

/// Puts into a request what it was ordered without.
///
/// # Errors
/// `config.value` where a secret cannot be read or does not fit.
pub(crate) async fn complete(
    secrets: &dyn Secrets,
    exchange: &mut Exchange,
    now: Wall,
) -> Result<(), Error> {
    if let Some(order) = exchange.orders.secret.take() {
        secret(secrets, exchange, &order).await?;
    }
    if let Some(order) = exchange.orders.assertion.take() {
        assertion(secrets, exchange, &order, now).await?;
    }
    Ok(())
}

async fn secret(
    secrets: &dyn Secrets,
    exchange: &mut Exchange,
    order: &SecretOrder,
) -> Result<(), Error> {
    let mut line = read_line(secrets, &order.reference).await?;
    let secret = ClientSecret::new(std::mem::take(&mut *line))
        .map_err(|_| unfit(&order.reference, "it is no client secret"))?;
    put_secret(order, &secret, &mut exchange.headers, &mut exchange.body);
    Ok(())
}

async fn assertion(
    secrets: &dyn Secrets,
    exchange: &mut Exchange,
    order: &AssertionOrder,
    now: Wall,
) -> Result<(), Error> {
    let pem = read(secrets, &order.key.reference).await?;
    let key = SigningKey::from_pem(&order.key.reference.to_string(), &pem)?;
    let algorithm = order.key.algorithm.unwrap_or(key.algorithm());
    let unsigned = client_assertion(
        &order.client_id,
        &order.audience,
        algorithm,
        order.key.key_id.as_deref(),
        crypto::random(),
        now,
    );
    let signed = Zeroizing::new(key.sign(unsigned)?);
    put_assertion(&signed, &mut exchange.body);
    Ok(())
}

fn unfit(reference: &SecretRef, why: &str) -> Error {
    Error::ConfigValue {
        what: reference.to_string(),
        why: why.to_owned(),
    }
}

pub(crate) fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

const LIMIT: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
