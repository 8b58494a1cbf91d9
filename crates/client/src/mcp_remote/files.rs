//! mcp-remote's files of one login: read leniently, written as it writes them, what is not understood kept.

use std::{
    fmt, fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use pilotlight_core::{
    credential::{Credential, Lifetime},
    registration::{Client, ClientAuthentication, ClientSource},
    scope::Scopes,
    secret::{AccessToken, ClientSecret, RefreshToken},
    time::{Wall, millis},
};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{crypto, hex::hex};

/// Where mcp-remote keeps one login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    folder: PathBuf,
    hash: String,
}

/// The tokens of a login, as mcp-remote stores them.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The access token.
    pub access_token: AccessToken,
    /// The refresh token, if there is one.
    pub refresh_token: Option<RefreshToken>,
    /// The access token's life, where that is known.
    pub lifetime: Option<Duration>,
    /// When they were received, as far as it can be told: by their end, else by the file's date.
    pub received_at: Wall,
    /// The scopes granted, where that is said.
    pub scopes: Option<Scopes>,
    /// The scopes asked for, where that is said.
    pub requested: Option<Scopes>,
    /// The issuer, where that is said.
    pub issuer: Option<String>,
}

/// A file that is there and holds nothing that could be understood, or that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} cannot be read: {why}")]
pub struct Unreadable {
    /// Which.
    pub path: String,
    /// Why.
    pub why: String,
}

/// What a content is known by: it tells two apart and shows nothing of either.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Fingerprint(String);

impl Fingerprint {
    fn of(access: &AccessToken, refresh: Option<&RefreshToken>) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"pilotlight mcp-remote 1\0");
        hash.update((access.expose().len() as u64).to_be_bytes());
        hash.update(access.expose());
        hash.update(refresh.map_or("", RefreshToken::expose));
        let digest: [u8; 32] = hash.finalize().into();
        Self(hex(&digest))
    }

    /// That of what our version would be as a file.
    pub(super) fn of_ours(credential: &Credential) -> Self {
        Self::of(&credential.access_token, credential.refresh_token.as_ref())
    }
}

impl Tokens {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.access_token, self.refresh_token.as_ref())
    }

    fn read(text: &str, modified: Wall) -> Option<Self> {
        let all: Map<String, Value> = serde_json::from_str(text).ok()?;
        let member = |name: &str| {
            all.get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let lifetime = all
            .get("expires_in")
            .and_then(number)
            .map(Duration::from_secs);
        let ends_at = all.get("expires_at").and_then(number).map(Wall);
        let received_at = match (ends_at, lifetime) {
            (Some(end), Some(life)) => Wall(end.0.saturating_sub(millis(life))),
            _ => modified,
        };
        // An end without a span: counted from the file's date.
        let lifetime = lifetime.or_else(|| ends_at.map(|end| modified.until(end)));
        Some(Self {
            access_token: AccessToken::new(member("access_token")?.to_owned()).ok()?,
            refresh_token: match member("refresh_token") {
                Some(text) => Some(RefreshToken::new(text.to_owned()).ok()?),
                None => None,
            },
            lifetime,
            received_at,
            scopes: member("scope").map(Scopes::parse),
            requested: member("requested_scope").map(Scopes::parse),
            issuer: member("issuer").map(str::to_owned),
        })
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("lifetime", &self.lifetime)
            .field("received_at", &self.received_at)
            .field("refresh_token", &self.refresh_token)
            .finish_non_exhaustive()
    }
}

/// A client as mcp-remote stores it, and who registered it, where that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredClient {
    pub(super) client: Client,
    pub(super) issuer: Option<String>,
    pub(super) redirect_uris: Vec<String>,
}

impl StoredClient {
    fn read(text: &str) -> Option<Self> {
        let all: Map<String, Value> = serde_json::from_str(text).ok()?;
        let member = |name: &str| {
            all.get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let secret = match member("client_secret") {
            Some(text) => Some(ClientSecret::new(text.to_owned()).ok()?),
            None => None,
        };
        let named = member("token_endpoint_auth_method").and_then(ClientAuthentication::from_name);
        let authentication = match (named, &secret) {
            (Some(method), _) if !method.needs_secret() || secret.is_some() => method,
            // Where nothing is said the issuer's metadata decides.
            _ => ClientAuthentication::None,
        };
        let ends = all.get("client_secret_expires_at").and_then(number);
        let redirect_uris = all.get("redirect_uris").and_then(Value::as_array);
        Some(Self {
            client: Client {
                secret,
                secret_expires_at: ends.filter(|end| *end > 0).map(Wall::from_unix_seconds),
                authentication,
                source: ClientSource::Dynamic,
                ..Client::brought(member("client_id")?.to_owned())
            },
            issuer: member("issuer").map(str::to_owned),
            redirect_uris: redirect_uris
                .into_iter()
                .flatten()
                .filter_map(|uri| uri.as_str().map(str::to_owned))
                .collect(),
        })
    }
}

impl Files {
    /// The files of the login of that hash below mcp-remote's own folder (`~/.mcp-auth`); `None` where the hash is none.
    #[must_use]
    pub fn new(base: &Path, hash: &str) -> Option<Self> {
        let is_hash =
            hash.len() == 32 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_hash.then(|| Self {
            folder: base.join(LAYOUT),
            hash: hash.to_owned(),
        })
    }

    /// The same login as an older layout has it, newest first: a folder for each version of the program.
    pub(super) fn older(&self) -> Vec<Self> {
        let Some(base) = self.folder.parent() else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name
                .to_str()
                .and_then(|name| name.strip_prefix("mcp-remote-"));
            let Some(version) =
                version.filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))
            else {
                continue;
            };
            let parts: Vec<u64> = version
                .split(['.', '-'])
                .map_while(|part| part.parse().ok())
                .collect();
            let files = Self {
                folder: entry.path(),
                hash: self.hash.clone(),
            };
            found.push((parts, files));
        }
        found.sort_by(|(one, _), (other, _)| other.cmp(one));
        found.into_iter().map(|(_, files)| files).collect()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the folder is not there: then nobody shares anything.
    pub(super) fn is_gone(&self) -> bool {
        fs::metadata(&self.folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether something that is no file stands where the tokens would be: nobody can have written any there.
    pub(super) fn is_blocked(&self) -> bool {
        fs::metadata(self.path(TOKENS)).is_ok_and(|entry| !entry.is_file())
    }

    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// The files in a folder that holds them without a layout's name before it.
    pub(super) fn in_folder(folder: PathBuf, hash: String) -> Self {
        Self { folder, hash }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}_{name}", self.hash))
    }

    /// Reads the tokens; `None` where there are none.
    ///
    /// # Errors
    /// [`Unreadable`]: that is never the same as absent.
    pub fn tokens(&self) -> Result<Option<Tokens>, Unreadable> {
        let path = self.path(TOKENS);
        let Some((text, modified)) = read(&path)? else {
            return Ok(None);
        };
        let tokens = Tokens::read(&text, modified);
        tokens
            .map(Some)
            .ok_or_else(|| unreadable(&path, "it holds no tokens"))
    }

    pub(super) fn client(&self) -> Result<Option<StoredClient>, Unreadable> {
        let path = self.path(CLIENT);
        let Some((text, _)) = read(&path)? else {
            return Ok(None);
        };
        let client = StoredClient::read(&text);
        client
            .map(Some)
            .ok_or_else(|| unreadable(&path, "it holds no client"))
    }

    /// What changes when anybody writes the tokens: cheap to ask.
    pub(super) fn trace(&self) -> u64 {
        let Ok(entry) = fs::metadata(self.path(TOKENS)) else {
            return 0;
        };
        let since = entry
            .modified()
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let at = since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0));
        at.rotate_left(7) ^ entry.len()
    }

    /// Puts our version into the tokens file, in the place of theirs; every other member stays.
    pub(super) fn write_tokens(&self, ours: &Credential, now: Wall) -> io::Result<()> {
        let path = self.path(TOKENS);
        let before = match read(&path) {
            Ok(Some((text, _))) => serde_json::from_str(&text).ok(),
            _ => None,
        };
        let mut all: Map<String, Value> = before.unwrap_or_default();
        all.insert("access_token".into(), ours.access_token.expose().into());
        all.entry("token_type").or_insert_with(|| "Bearer".into());
        match &ours.refresh_token {
            Some(token) => all.insert("refresh_token".into(), token.expose().into()),
            None => all.remove("refresh_token"),
        };
        if !ours.scopes_granted.is_empty() {
            all.insert("scope".into(), ours.scopes_granted.to_string().into());
        }
        match (ours.lifetime, ours.received_at) {
            (Some(Lifetime::Stated(life)), Some(received)) => {
                all.insert("expires_in".into(), life.as_secs().into());
                all.insert("expires_at".into(), (received.wall + life).0.into());
            }
            _ => {
                all.remove("expires_in");
                all.remove("expires_at");
            }
        }
        let text = Zeroizing::new(serde_json::to_string_pretty(&all)?);
        replace(&path, text.as_bytes(), now)
    }

    /// Deletes tokens and client.
    pub(super) fn delete(&self) -> io::Result<()> {
        for name in [TOKENS, CLIENT] {
            match fs::remove_file(self.path(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A whole number, or a string of one; what is negative or absurd is unknown.
fn number(value: &Value) -> Option<u64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (0.0..=LARGEST).contains(&number).then_some(number as u64)
}

fn read(path: &Path) -> Result<Option<(Zeroizing<String>, Wall)>, Unreadable> {
    let failed = |error: io::Error| unreadable(path, &error.to_string());
    let entry = match fs::metadata(path) {
        Ok(entry) => entry,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !entry.is_file() || entry.len() > MOST {
        return Err(unreadable(path, "it is no file of mcp-remote's"));
    }
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let since = entry
        .modified()
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Ok(Some((text, Wall(since.map_or(0, millis)))))
}

fn unreadable(path: &Path, why: &str) -> Unreadable {
    Unreadable {
        path: path.display().to_string(),
        why: why.to_owned(),
    }
}

/// Writes a file whole: under another name, durably, then in the place of the old one.
pub(super) fn replace(path: &Path, bytes: &[u8], now: Wall) -> io::Result<()> {
    let mut other = path.as_os_str().to_owned();
    // Two may write at once, in one process and in one millisecond.
    let nonce = u64::from_be_bytes(crypto::random());
    other.push(format!(
        ".{}.{}.{nonce:016x}.tmp",
        std::process::id(),
        now.0
    ));
    let other = PathBuf::from(other);
    let done = (|| {
        let mut file = private(
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true),
        )
        .open(&other)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&other, path)?;
        if let Some(folder) = path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    })();
    if done.is_err() {
        // Where it was renamed already there is nothing left to remove.
        let _ = fs::remove_file(&other);
    }
    done
}

/// For the owner's eyes only.
#[cfg(unix)]
pub(super) fn private(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.mode(0o600)
}

#[cfg(not(unix))]
pub(super) fn private(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    options
}

const LAYOUT: &str = "mcp-remote-v1";
const TOKENS: &str = "tokens.json";
const CLIENT: &str = "client_info.json";
const MOST: u64 = 1 << 20;
const LARGEST: f64 = 9_007_199_254_740_992.0;
