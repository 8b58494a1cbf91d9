//! The way to the host: one call at a time, in order, and again until the newest version has arrived.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use pilotlight_core::legacy::PersistedCredentials;
use tokio::runtime::Handle;

use super::{Persist, PersistError};

/// What the clones of a store share.
pub(super) struct Shared {
    persist: Box<dyn Persist>,
    held: Mutex<Held>,
    /// Held while the host is called: one call at a time, in the order of `Held::waiting`.
    writing: tokio::sync::Mutex<()>,
    /// Held by whoever refreshes.
    pub(super) refreshing: Arc<tokio::sync::Mutex<()>>,
}

/// The copy in memory, and what the host does not know of it yet.
#[derive(Default)]
pub(super) struct Held {
    pub(super) newest: Option<PersistedCredentials>,
    /// What the host has not been called with yet, oldest first.
    waiting: VecDeque<Call>,
    pub(super) unpersisted: Option<Version>,
    versions: u64,
    retrying: bool,
}

#[derive(Clone)]
pub(super) struct Version {
    number: u64,
    pub(super) credentials: PersistedCredentials,
}

enum Call {
    Persist(Box<Version>),
    Cleared,
}

impl Held {
    /// Makes `next` the copy in memory, and lines it up for the host if it has tokens.
    pub(super) fn put(&mut self, next: PersistedCredentials) {
        self.newest = Some(next.clone());
        if next.token_response.is_some() {
            self.versions += 1;
            let version = Version {
                number: self.versions,
                credentials: next,
            };
            self.unpersisted = Some(version.clone());
            self.waiting.push_back(Call::Persist(Box::new(version)));
        }
    }

    pub(super) fn empty(&mut self) {
        self.newest = None;
        self.unpersisted = None;
        self.waiting.push_back(Call::Cleared);
    }
}

impl Shared {
    pub(super) fn new(loaded: Option<PersistedCredentials>, persist: impl Persist) -> Self {
        Self {
            persist: Box::new(persist),
            held: Mutex::new(Held {
                newest: loaded,
                ..Held::default()
            }),
            writing: tokio::sync::Mutex::new(()),
            refreshing: Arc::default(),
        }
    }

    /// Calls the host with everything that waits, in a task of its own: a caller that gives up does not stop it.
    pub(super) async fn forward(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let offered = async move { this.offer(false).await };
        let persisted = match Handle::try_current() {
            Ok(runtime) => matches!(runtime.spawn(offered).await, Ok(Ok(()))),
            Err(_) => offered.await.is_ok(),
        };
        if !persisted {
            tracing::warn!(
                "the host did not persist refreshed credentials; kept in memory, trying again"
            );
            self.retry();
        }
    }

    /// Calls the host in order, and `again` with the newest version if it was refused before.
    pub(super) async fn offer(&self, again: bool) -> Result<(), PersistError> {
        let _one_at_a_time = self.writing.lock().await;
        let mut outcome = Ok(());
        let mut again = again;
        loop {
            let call = self.held().waiting.pop_front();
            match call {
                Some(Call::Persist(version)) => {
                    again = false;
                    outcome = self.call(*version).await;
                }
                Some(Call::Cleared) => self.persist.cleared().await,
                None if again => {
                    again = false;
                    let refused = self.held().unpersisted.clone();
                    if let Some(version) = refused {
                        outcome = self.call(version).await;
                    }
                }
                None => return outcome,
            }
        }
    }

    async fn call(&self, version: Version) -> Result<(), PersistError> {
        self.persist.persist(version.credentials).await?;
        let mut held = self.held();
        if held
            .unpersisted
            .as_ref()
            .is_some_and(|newest| newest.number == version.number)
        {
            held.unpersisted = None;
        }
        Ok(())
    }

    /// Starts the one task that tries again, unless it runs.
    fn retry(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut held = self.held();
        if held.unpersisted.is_some() && !held.retrying {
            held.retrying = true;
            runtime.spawn(retry(Arc::downgrade(self)));
        }
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn retry(shared: Weak<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        // A task of its own, so that a callback that panics does not end the trying.
        let this = Arc::clone(&shared);
        let _ = tokio::spawn(async move { this.offer(true).await.is_ok() }).await;
        let mut held = shared.held();
        if held.unpersisted.is_none() {
            held.retrying = false;
            return;
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
