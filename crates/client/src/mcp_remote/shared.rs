//! A store over another, in which some logins are shared with mcp-remote.

mod calls;
mod locks;
mod state;
pub(super) mod theirs;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use pilotlight_core::{
    Error,
    credential::{Credential, CredentialId, CredentialKey, Generation},
    time::Wall,
};

use super::{
    files::{Files, Tokens},
    link::{Link, Theirs},
    marker::Marker,
};
use crate::{
    cell::lock,
    clock::Clock,
    drive::poll_lock,
    store::{LockName, Store},
};
use state::{State, blocking, unavailable, write};
use theirs::look;

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
}

/// Whether mcp-remote could use it: it knows bearer tokens only, and keeps what a person has approved.
fn is_writable(credential: &Credential) -> bool {
    credential.proof_key.is_none() && !credential.is_static() && credential.unattended.is_none()
}

const LOCK_WAIT: Duration = Duration::from_secs(75);
const RETRIED_EVERY: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// About ten minutes.
const RETRIES: u32 = 120;
