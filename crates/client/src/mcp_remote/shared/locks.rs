//! Two locks for a shared login: ours, and the marker that mcp-remote heeds.

use pilotlight_core::{Error, credential::CredentialId, error::Holder};

use super::{
    RETRIED_EVERY, Shared,
    state::{Both, blocking, unavailable},
};
use crate::{
    cell::lock,
    hex::hex,
    mcp_remote::{
        files::Files,
        link::Link,
        marker::{Marker, Taken},
    },
    store::{Lease, LockName, Locked},
};

impl Shared {
    /// Takes the marker of a login that is shared.
    pub(super) async fn take(&self, id: CredentialId, files: Files) -> Result<Taken, Error> {
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
    pub(super) async fn bound(
        &self,
        id: CredentialId,
        files: Files,
    ) -> Result<Option<Holder>, Error> {
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
    pub(super) async fn try_both(&self, id: CredentialId, link: Link) -> Result<Locked, Error> {
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

    pub(super) fn both(&self, id: CredentialId, lease: Lease) -> Lease {
        let fence = lease.fence;
        let state = self.state.clone();
        if let Some(held) = lock(&state.held).get_mut(&id) {
            held.leases += 1;
        }
        Lease::new(fence, Both { state, id, lease })
    }

    /// Whether the marker is ours just before a call leaves; where it was taken from us, it is taken again, and the caller
    /// has to read again.
    pub(super) async fn still_ours(&self, id: CredentialId) -> Result<bool, Error> {
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

/// What our markers of a login begin with. Our own lock keeps us apart from each other: whoever has it need not heed a marker
/// that another process over the same store has left, to write what it could not write at once.
pub(super) fn tag(id: CredentialId) -> String {
    format!("pilotlight-{}-", hex(&id.0[..8]))
}

/// How often the marker is asked for again: about two seconds.
const TAKEN_BACK_WITHIN: u32 = 4;
