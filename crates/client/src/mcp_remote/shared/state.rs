//! What a process holds of the logins that it shares: markers, and versions that are still to be written.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use pilotlight_core::{
    Error,
    credential::{Credential, CredentialId},
};

use super::locks::tag;
use crate::{
    cell::lock,
    clock::Clock,
    mcp_remote::{
        files::{Files, Fingerprint},
        link::Link,
        marker::{Marker, RENEWED_EVERY, Taken, Watched},
    },
    store::Lease,
};

#[derive(Debug)]
pub(super) struct State {
    pub(super) links: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    /// The markers that this process holds.
    pub(super) held: Mutex<HashMap<CredentialId, Held>>,
    /// The markers of others, and since when we see them.
    pub(super) watched: Mutex<HashMap<CredentialId, Option<Watched>>>,
    /// The files of the logins that this process has read.
    pub(super) known: Mutex<HashMap<CredentialId, Files>>,
    /// The versions that are still to be written into mcp-remote's files.
    pub(super) unwritten: Mutex<HashMap<CredentialId, Credential>>,
}

/// A marker that this process holds, and how many leases need it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) marker: Arc<Marker>,
    pub(super) leases: u32,
}

/// Our lock and the marker; let go of together, the marker first.
#[derive(Debug)]
pub(super) struct Both {
    pub(super) state: Arc<State>,
    pub(super) id: CredentialId,
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) lease: Lease,
}

impl State {
    /// Keeps a marker, and renews it for as long as it is kept.
    pub(super) fn hold(&self, id: CredentialId, marker: Marker) {
        let marker = Arc::new(marker);
        let (renewed, clock) = (Arc::downgrade(&marker), self.clock.clone());
        let mut all = lock(&self.held);
        let leases = all.get(&id).map_or(0, |held| held.leases);
        all.insert(id, Held { marker, leases });
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        drop(runtime.spawn(async move {
            loop {
                tokio::time::sleep(RENEWED_EVERY).await;
                match renewed.upgrade() {
                    Some(marker) if marker.renew(clock.now().wall) => {}
                    _ => return,
                }
            }
        }));
    }

    /// Lets go of a marker that nothing needs any more: no lease, and no version that is still to be written.
    pub(super) fn let_go(&self, id: CredentialId) {
        let mut all = lock(&self.held);
        let is_needed = all.get(&id).is_some_and(|held| held.leases > 0);
        if !is_needed && !lock(&self.unwritten).contains_key(&id) {
            all.remove(&id);
        }
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        if let Some(held) = lock(&self.state.held).get_mut(&self.id) {
            held.leases = held.leases.saturating_sub(1);
        }
        self.state.let_go(self.id);
    }
}

/// Writes what is to be written, and remembers it as seen.
pub(super) async fn write(state: &Arc<State>, id: CredentialId) -> Result<(), Error> {
    let (state, now) = (state.clone(), state.clock.now().wall);
    blocking(move || {
        let Some(ours) = lock(&state.unwritten).get(&id).cloned() else {
            return Ok(());
        };
        // Whoever has taken the marker from us may have written something newer.
        let marker = lock(&state.held).get(&id).map(|held| held.marker.clone());
        let marker = marker.filter(|marker| marker.is_held());
        let link = Link::read(&state.links, id)?.filter(|link| !link.ended);
        let (Some(mut link), Some(marker)) = (link, marker) else {
            lock(&state.unwritten).remove(&id);
            return Ok(());
        };
        let files = link.files();
        if marker.is_alone() && !may_write(&state, id, &link)? {
            lock(&state.unwritten).remove(&id);
            return Ok(());
        }
        files.write_tokens(&ours, now).map_err(unavailable)?;
        if link.see(Fingerprint::of_ours(&ours)) {
            link.write(&state.links, id, now)?;
        }
        let mut unwritten = lock(&state.unwritten);
        if unwritten
            .get(&id)
            .is_some_and(|one| one.version == ours.version)
        {
            unwritten.remove(&id);
        }
        Ok(())
    })
    .await
}

/// Whether our version is to be written where no marker could be made: in a folder that is there, with the marker as soon as
/// one can be made, and over nothing that somebody has written meanwhile.
fn may_write(state: &State, id: CredentialId, link: &Link) -> Result<bool, Error> {
    let files = link.files();
    if files.is_gone() {
        return Ok(false);
    }
    let taken = Marker::take(&files, &tag(id), &mut None, state.clock.now());
    let Taken::Got(marker) = taken.map_err(unavailable)? else {
        return Ok(false);
    };
    if !marker.is_alone() {
        state.hold(id, marker);
    }
    let theirs = files.tokens();
    Ok(!matches!(theirs, Ok(Some(theirs)) if !link.has_seen(&theirs.fingerprint())))
}

pub(super) fn unavailable(error: std::io::Error) -> Error {
    Error::StoreUnavailable {
        why: format!("mcp-remote's folder: {error}"),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::ConfigRuntime))
}
