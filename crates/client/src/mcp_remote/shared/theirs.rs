//! What lies in mcp-remote's files beside ours: whichever is later is adopted.

use std::time::Duration;

use pilotlight_core::{
    Error,
    attempt::ProcessId,
    credential::{Credential, CredentialId, CredentialKey, Lifetime},
    event::{Event, Happened},
    flow::{Commit, Committed, Expects},
    record::{Record, Spooled},
    registration::ClientAuthentication,
    time::{BootId, Mono, Now, Stamp, Wall},
};

use super::{Shared, is_writable};
use crate::{
    cell::lock,
    mcp_remote::{
        files::{Files, Fingerprint, StoredClient, Tokens, Unreadable},
        link::{Link, Theirs, is_issuer},
    },
};

impl Shared {
    /// Reads a login whose record is `stored`, with what lies in mcp-remote's file.
    pub(super) async fn together(
        &self,
        key: &CredentialKey,
        id: CredentialId,
        mut link: Link,
        stored: Record,
    ) -> Result<Option<Record>, Error> {
        let Some(ours) = stored
            .credential
            .clone()
            .filter(|_| stored.spooled.is_none())
        else {
            return Ok(Some(stored));
        };
        let holds = self.held(id).is_some();
        let files = link.files();
        let (theirs, client) = look(files.clone()).await;
        let theirs = match theirs {
            Ok(theirs) => theirs,
            // What cannot be read may be newer, and what we would spend may be spent: not while there is no need.
            Err(error) if holds && !files.is_blocked() && works(&ours, self.now()) => {
                return Err(Error::StoreUnavailable {
                    why: error.to_string(),
                });
            }
            Err(error) => {
                tracing::warn!(%error, "mcp-remote's file is left out");
                return Ok(Some(stored));
            }
        };
        // The tokens count by themselves: later ones are of the client that the login was shared with, as far as anybody knows.
        let client = client.unwrap_or_else(|error| {
            tracing::warn!(%error, "which client mcp-remote has is not known");
            None
        });
        match link.compare(&ours, theirs) {
            Theirs::Newer(tokens) => {
                let Some(next) = adopted(&ours, &tokens, client.as_ref(), self.state.clock.now())
                else {
                    return Ok(Some(stored));
                };
                if !holds {
                    return Ok(Some(spooled(&stored, next)));
                }
                self.adopt(key, id, &mut link, &stored, next).await
            }
            Theirs::Ours if holds => {
                if link.see(Fingerprint::of_ours(&ours)) {
                    self.remember(id, link).await?;
                }
                Ok(Some(stored))
            }
            // A crash lay between our commit and this: until now mcp-remote had a token that is spent.
            Theirs::Older if holds && is_writable(&ours) => {
                self.write_back(id, &ours).await;
                Ok(Some(stored))
            }
            _ => Ok(Some(stored)),
        }
    }

    /// Under the lock: a later version is made durable in our store before its refresh token can be spent (I-2, I-4).
    pub(super) async fn adopt(
        &self,
        key: &CredentialKey,
        id: CredentialId,
        link: &mut Link,
        stored: &Record,
        next: Credential,
    ) -> Result<Option<Record>, Error> {
        let Some(follows) = stored.version() else {
            return Ok(Some(stored.clone()));
        };
        lock(&self.state.unwritten).remove(&id);
        link.see(Fingerprint::of_ours(&next));
        link.others_at = self.now();
        let generation = next.version.generation;
        let commit = Commit {
            credential: next.clone(),
            expects: Expects::Version(follows),
            binding: None,
            forced: stored.forced.clone(),
            event: Event {
                at: self.now(),
                process: ProcessId {
                    pid: std::process::id(),
                    nonce: 0,
                },
                happened: Happened::Merged { generation },
            },
        };
        match self.inner.commit(&commit).await {
            Ok(Committed::Done { .. }) => {
                tracing::info!(
                    generation = generation.0,
                    "a refresh that mcp-remote has made is taken over"
                );
                self.remember(id, link.clone()).await?;
                self.inner.read(key).await
            }
            Ok(Committed::Moved) => self.inner.read(key).await,
            // The flow knows what to do with a version that the store refuses.
            Err(error) => {
                tracing::warn!(
                    code = error.code(),
                    "what mcp-remote has refreshed cannot be stored"
                );
                Ok(Some(spooled(stored, next)))
            }
        }
    }
}

/// Whether an access token still has some time. One that says nothing of it is given an hour.
fn works(credential: &Credential, now: Wall) -> bool {
    let life = credential.lifetime.map_or(AN_HOUR, Lifetime::span);
    credential
        .received_at
        .is_some_and(|received| now + SOME_TIME < received.wall + life)
}

/// What lies in mcp-remote's files. One that is just being written is looked at once more.
pub(super) async fn look(files: Files) -> Found {
    let mut found = look_once(files.clone()).await;
    for _ in 1..UNREADABLE_FOR {
        if found.0.is_ok() && found.1.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        found = look_once(files.clone()).await;
    }
    found
}

async fn look_once(files: Files) -> Found {
    let read = tokio::task::spawn_blocking(move || (files.tokens(), files.client()));
    read.await.unwrap_or_else(|error| {
        let lost = Unreadable {
            path: "mcp-remote's folder".to_owned(),
            why: error.to_string(),
        };
        (Err(lost.clone()), Err(lost))
    })
}

/// The version that follows ours, with what mcp-remote has got. `None` where its client is of another issuer.
fn adopted(
    ours: &Credential,
    tokens: &Tokens,
    client: Option<&StoredClient>,
    now: Now,
) -> Option<Credential> {
    let client = match client {
        Some(theirs) if theirs.client.id != ours.client.id => {
            if theirs
                .issuer
                .as_deref()
                .is_some_and(|issuer| !is_issuer(issuer, ours))
            {
                return None;
            }
            let mut client = theirs.client.clone();
            if client.secret.is_some() && client.authentication == ClientAuthentication::None {
                // Nobody has said how it shows its secret: as it did so far.
                client.authentication = match ours.client.authentication {
                    ClientAuthentication::Basic => ClientAuthentication::Basic,
                    _ => ClientAuthentication::Post,
                };
            }
            client
        }
        _ => ours.client.clone(),
    };
    Some(Credential {
        version: ours.version.next(),
        client,
        access_token: tokens.access_token.clone(),
        refresh_token: tokens
            .refresh_token
            .clone()
            .or_else(|| ours.refresh_token.clone()),
        received_at: Some(since_boot(tokens.received_at, now)),
        lifetime: tokens.lifetime.map(Lifetime::Stated),
        scopes_granted: tokens
            .scopes
            .clone()
            .unwrap_or_else(|| ours.scopes_granted.clone()),
        ..ours.clone()
    })
}

/// The same instant on both clocks, where it lies after this machine's restart: what is told by the wall clock alone counts as
/// older than what is not, and the version that it follows is not.
fn since_boot(at: Wall, now: Now) -> Stamp {
    let ago = now.wall.0.saturating_sub(at.0);
    match now.mono.0.checked_sub(ago) {
        Some(mono) => Stamp {
            wall: at,
            mono: Mono(mono),
            boot: now.boot,
        },
        None => received(at),
    }
}

/// An instant that only the wall clock knows.
pub(in crate::mcp_remote) fn received(at: Wall) -> Stamp {
    Stamp {
        wall: at,
        mono: Mono(0),
        boot: BootId([0; 16]),
    }
}

/// The same, as it is read while nobody holds the lock.
fn spooled(stored: &Record, next: Credential) -> Record {
    Record {
        spooled: Some(Spooled {
            follows: stored.version(),
        }),
        credential: Some(next),
        forced: stored.forced.clone(),
        ..Record::default()
    }
}

/// What was found, one file beside the other: where one cannot be read, the other still counts.
type Found = (
    Result<Option<Tokens>, Unreadable>,
    Result<Option<StoredClient>, Unreadable>,
);

const AN_HOUR: Duration = Duration::from_secs(3600);
/// As long as mcp-remote goes on with a token before its end, and less than a call may take.
const SOME_TIME: Duration = Duration::from_secs(30);
const UNREADABLE_FOR: u32 = 5;
