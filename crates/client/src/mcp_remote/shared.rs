//! A store over another, in which some logins are shared with mcp-remote.

mod calls;
mod state;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use pilotlight_core::{
    Error,
    attempt::ProcessId,
    credential::{Credential, CredentialId, CredentialKey, Generation, Lifetime},
    error::Holder,
    event::{Event, Happened},
    flow::{Commit, Committed, Expects},
    record::{Record, Spooled},
    registration::ClientAuthentication,
    time::{BootId, Mono, Now, Stamp, Wall},
};

use super::{
    files::{Files, Fingerprint, StoredClient, Tokens, Unreadable},
    link::{Link, Theirs, is_issuer},
    marker::{Marker, Taken},
};
use crate::{
    cell::lock,
    clock::Clock,
    drive::poll_lock,
    hex::hex,
    store::{Lease, LockName, Locked, Store},
};
use state::{Both, State, blocking, unavailable, write};

/// A store in which some logins are shared with mcp-remote. Every process that shares the store underneath has to use it
/// through one of these, over the same folder of links. See the [module](super).
#[derive(Debug, Clone)]
pub struct Shared {
    inner: Arc<dyn Store>,
    state: Arc<State>,
}

impl Shared {
    /// Puts sharing over a store. `links` is a folder beside it; it is made where a login is first shared.
    #[must_use]
    pub fn over(inner: Arc<dyn Store>, links: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner,
            state: Arc::new(State {
                links,
                clock,
                held: Mutex::default(),
                watched: Mutex::default(),
                known: Mutex::default(),
                unwritten: Mutex::default(),
            }),
        }
    }

    /// Begins to share a login that was just brought in: `seen` is what it was made from. It is durable when this returns.
    ///
    /// # Errors
    /// `unavailable.store`.
    pub(super) async fn share(
        &self,
        id: CredentialId,
        files: Files,
        seen: Tokens,
    ) -> Result<(), Error> {
        let state = self.state.clone();
        let now = self.now();
        blocking(move || {
            let mut link = Link::new(&files, now);
            link.see(seen.fingerprint());
            link.write(&state.links, id, now)?;
            lock(&state.known).insert(id, files);
            Ok(())
        })
        .await
    }

    /// Notes that a login was copied and is not shared: once it has ended here, the same content is not brought in again.
    ///
    /// # Errors
    /// `unavailable.store`.
    pub(super) async fn was_copied(
        &self,
        id: CredentialId,
        files: Files,
        seen: Tokens,
    ) -> Result<(), Error> {
        let (state, now) = (self.state.clone(), self.now());
        blocking(move || {
            let mut link = Link::read(&state.links, id)?.unwrap_or_else(|| Link::new(&files, now));
            link.ended = true;
            link.see(seen.fingerprint());
            link.write(&state.links, id, now)
        })
        .await
    }

    /// Whether a content of mcp-remote's files was ours already, in a login that is shared no more: it is not brought in again.
    pub(super) async fn was_seen(&self, id: CredentialId, tokens: &Tokens) -> Result<bool, Error> {
        let (state, content) = (self.state.clone(), tokens.fingerprint());
        blocking(move || {
            let link = Link::read(&state.links, id)?;
            Ok(link.is_some_and(|link| link.ended && link.has_seen(&content)))
        })
        .await
    }

    /// Ends sharing: what is newest is brought over, mcp-remote's files of this login are deleted, and from then on the login
    /// is ours alone. Answers whether it was shared.
    ///
    /// # Errors
    /// `unavailable.lease_held` while somebody refreshes; `unavailable.store`.
    pub async fn keep_alone(&self, key: &CredentialKey) -> Result<bool, Error> {
        let id = self.inner.credential_id(key);
        if self.link(id).await?.is_none() {
            return Ok(false);
        }
        let until = self.state.clock.now().mono + LOCK_WAIT;
        let name = LockName::Refresh(id);
        let got = poll_lock(self, &*self.state.clock, name, until).await?;
        let _lease = got.map_err(|holder| Error::LeaseHeld { holder })?;
        // What is newest comes into our store by being read under the lock.
        drop(self.read(key).await?);
        let (state, now) = (self.state.clone(), self.now());
        blocking(move || {
            let Some(mut link) = Link::read(&state.links, id)? else {
                return Ok(false);
            };
            // First what says that it is ended: files that are deleted before would be made again after a crash.
            link.ended = true;
            link.write(&state.links, id, now)?;
            link.files().delete().map_err(unavailable)?;
            lock(&state.known).remove(&id);
            Ok(true)
        })
        .await
    }

    fn now(&self) -> Wall {
        self.state.clock.now().wall
    }

    /// The link of a login that is shared now.
    async fn link(&self, id: CredentialId) -> Result<Option<Link>, Error> {
        let state = self.state.clone();
        let link = blocking(move || {
            let link = Link::read(&state.links, id)?.filter(|link| !link.ended);
            let mut known = lock(&state.known);
            match &link {
                Some(link) => known.insert(id, link.files()),
                None => known.remove(&id),
            };
            Ok(link)
        });
        link.await
    }

    /// The marker, if this process holds it.
    fn held(&self, id: CredentialId) -> Option<Arc<Marker>> {
        lock(&self.state.held)
            .get(&id)
            .map(|held| held.marker.clone())
    }

    /// Reads a login whose record is `stored`, with what lies in mcp-remote's file.
    async fn together(
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
    async fn adopt(
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

    async fn remember(&self, id: CredentialId, link: Link) -> Result<(), Error> {
        let (state, now) = (self.state.clone(), self.now());
        blocking(move || link.write(&state.links, id, now)).await
    }

    /// Writes our version into mcp-remote's file. Where that fails it is tried again and again, with the marker held: until
    /// then mcp-remote would spend a token that is spent.
    async fn write_back(&self, id: CredentialId, ours: &Credential) {
        let is_tried = lock(&self.state.unwritten)
            .insert(id, ours.clone())
            .is_some();
        let Err(error) = write(&self.state, id).await else {
            return;
        };
        tracing::warn!(
            code = error.code(),
            "mcp-remote's file could not be written; it is tried again"
        );
        let state = self.state.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if is_tried {
            return;
        }
        drop(runtime.spawn(async move {
            let mut pause = RETRIED_EVERY;
            for _ in 0..RETRIES {
                tokio::time::sleep(pause).await;
                pause = (pause * 3 / 2).min(LONGEST_PAUSE);
                if write(&state, id).await.is_ok() {
                    break;
                }
            }
            lock(&state.unwritten).remove(&id);
            state.let_go(id);
        }));
    }

    /// A version of a shared login is durable: mcp-remote is to have it too, unless it is no longer the same login.
    async fn made(&self, credential: &Credential) {
        let id = self.inner.credential_id(&credential.key);
        let link = match self.link(id).await {
            Ok(Some(link)) => link,
            Ok(None) => return,
            Err(error) => {
                return tracing::warn!(
                    code = error.code(),
                    "whether the login is shared is not known"
                );
            }
        };
        let (theirs, client) = look(link.files()).await;
        let same = match client {
            // It keeps no client of its own where one was given to it.
            Ok(client) => client.is_none_or(|client| client.client.id == credential.client.id),
            // Later versions have the client that the login was shared with; a new login may have any.
            Err(error) => {
                tracing::warn!(%error, "which client mcp-remote has is not known");
                credential.version.generation > Generation(0)
            }
        };
        if !same || !is_writable(credential) {
            return self
                .end(id, link, "the login is one as another client")
                .await;
        }
        let theirs = match theirs {
            Ok(theirs) => link.compare(credential, theirs),
            Err(error) => {
                tracing::warn!(%error, "mcp-remote's file is written over");
                Theirs::Nothing
            }
        };
        match theirs {
            // Written while our call was on its way: it is taken over at the next look.
            Theirs::Newer(_) | Theirs::Foreign => {}
            Theirs::Ours | Theirs::Older | Theirs::Nothing => self.write_back(id, credential).await,
        }
    }

    /// The login is over here: nothing of it is shared any more.
    async fn ended(&self, key: &CredentialKey) -> Result<(), Error> {
        let id = self.inner.credential_id(key);
        if let Some(link) = self.link(id).await? {
            self.end(id, link, "the login has ended").await;
        }
        Ok(())
    }

    async fn end(&self, id: CredentialId, mut link: Link, why: &'static str) {
        link.ended = true;
        lock(&self.state.known).remove(&id);
        tracing::info!(why, "the login is no longer shared with mcp-remote");
        if let Err(error) = self.remember(id, link).await {
            tracing::warn!(
                code = error.code(),
                "that sharing has ended could not be noted"
            );
        }
    }

    /// Takes the marker of a login that is shared.
    async fn take(&self, id: CredentialId, files: Files) -> Result<Taken, Error> {
        let (state, now) = (self.state.clone(), self.state.clock.now());
        blocking(move || {
            let mut watched = lock(&state.watched).get(&id).cloned().flatten();
            let taken = Marker::take(&files, &tag(id), &mut watched, now).map_err(unavailable);
            lock(&state.watched).insert(id, watched);
            if matches!(&taken, Ok(Taken::Got(marker)) if marker.is_alone()) {
                tracing::warn!(
                    folder = %files.folder().display(),
                    "mcp-remote's folder is gone or takes no file: only our own lock is held"
                );
            }
            taken
        })
        .await
    }

    /// Who refreshes beside us, if anybody does.
    async fn bound(&self, id: CredentialId, files: Files) -> Result<Option<Holder>, Error> {
        let (state, now) = (self.state.clone(), self.state.clock.now());
        blocking(move || {
            let mut watched = lock(&state.watched).get(&id).cloned().flatten();
            let holder = Marker::holder(&files, &tag(id), &mut watched, now).map_err(unavailable);
            lock(&state.watched).insert(id, watched);
            holder
        })
        .await
    }

    /// Both locks, or neither.
    async fn try_both(&self, id: CredentialId, link: Link) -> Result<Locked, Error> {
        let files = link.files();
        if let Some(marker) = self.held(id)
            && marker.is_held()
        {
            // A version is still to be written: this process may go on, and writes the newer one.
            return Ok(match self.inner.try_lock(LockName::Refresh(id)).await? {
                Locked::Got(lease) => Locked::Got(self.both(id, lease)),
                held => held,
            });
        }
        if let Some(holder) = self.bound(id, files.clone()).await? {
            return Ok(Locked::HeldBy(holder));
        }
        let lease = match self.inner.try_lock(LockName::Refresh(id)).await? {
            Locked::Got(lease) => lease,
            held => return Ok(held),
        };
        // A token that lies there is never left to be spent by both: while there is one, it is kept up, however long nobody
        // else has written.
        let there = files.clone();
        if link.is_forsaken(self.now())
            && blocking(move || Ok(matches!(there.tokens(), Ok(None)))).await?
        {
            self.end(id, link, "nobody else has used it for 30 days")
                .await;
            return Ok(Locked::Got(lease));
        }
        match self.take(id, files).await? {
            Taken::HeldBy(holder) => Ok(Locked::HeldBy(holder)),
            Taken::Got(marker) => {
                self.state.hold(id, marker);
                Ok(Locked::Got(self.both(id, lease)))
            }
        }
    }

    fn both(&self, id: CredentialId, lease: Lease) -> Lease {
        let fence = lease.fence;
        let state = self.state.clone();
        if let Some(held) = lock(&state.held).get_mut(&id) {
            held.leases += 1;
        }
        Lease::new(fence, Both { state, id, lease })
    }

    /// Whether the marker is ours just before a call leaves; where it was taken from us, it is taken again, and the caller
    /// has to read again.
    async fn still_ours(&self, id: CredentialId) -> Result<bool, Error> {
        let Some(link) = self.link(id).await? else {
            return Ok(true);
        };
        if self.held(id).is_some_and(|marker| marker.is_held()) {
            return Ok(true);
        }
        for _ in 0..TAKEN_BACK_WITHIN {
            match self.take(id, link.files()).await? {
                Taken::Got(marker) => {
                    self.state.hold(id, marker);
                    return Ok(false);
                }
                Taken::HeldBy(_) => tokio::time::sleep(RETRIED_EVERY).await,
            }
        }
        Ok(false)
    }
}

/// Whether mcp-remote could use it: it knows bearer tokens only, and keeps what a person has approved.
fn is_writable(credential: &Credential) -> bool {
    credential.proof_key.is_none() && !credential.is_static() && credential.unattended.is_none()
}

/// Whether an access token still has some time. One that says nothing of it is given an hour.
fn works(credential: &Credential, now: Wall) -> bool {
    let life = credential.lifetime.map_or(AN_HOUR, Lifetime::span);
    credential
        .received_at
        .is_some_and(|received| now + SOME_TIME < received.wall + life)
}

/// What lies in mcp-remote's files. One that is just being written is looked at once more.
async fn look(files: Files) -> Found {
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

/// What our markers of a login begin with. Our own lock keeps us apart from each other: whoever has it need not heed a marker
/// that another process over the same store has left, to write what it could not write at once.
pub(super) fn tag(id: CredentialId) -> String {
    format!("pilotlight-{}-", hex(&id.0[..8]))
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
pub(super) fn received(at: Wall) -> Stamp {
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
const LOCK_WAIT: Duration = Duration::from_secs(75);
const RETRIED_EVERY: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// About ten minutes.
const RETRIES: u32 = 120;
/// How often the marker is asked for again: about two seconds.
const TAKEN_BACK_WITHIN: u32 = 4;
const UNREADABLE_FOR: u32 = 5;
