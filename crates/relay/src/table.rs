//! What is in flight: the requests that a host waits for, by their id.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::{era::Ticket, scan::Id};

/// The requests in flight.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Mutex<HashMap<Id, Arc<Ask>>>,
}

/// A request that somebody waits for.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) id: Id,
    pub(crate) method: String,
    /// Whether the answer is for the bridge: then nobody else sees it.
    pub(crate) own: bool,
    /// The POST of a machine that it is the answer to.
    pub(crate) ticket: Option<Ticket>,
    /// Whether it asks for a list from its beginning.
    pub(crate) first_page: bool,
    answered: AtomicBool,
    cancelled: AtomicBool,
    changed: Notify,
}

impl Ask {
    pub(crate) fn new(id: Id, method: &str, own: bool) -> Self {
        Self {
            id,
            method: method.to_owned(),
            own,
            ticket: None,
            first_page: true,
            answered: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Notes the answer; tells whether it is the first.
    pub(crate) fn answer(&self) -> bool {
        let first = !self.answered.swap(true, Ordering::AcqRel);
        self.changed.notify_waiters();
        first
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Waits until it is answered or cancelled.
    pub(crate) async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_answered() || self.is_cancelled() {
                return;
            }
            changed.await;
        }
    }
}

impl Table {
    /// Notes a request. One with the id of another takes its place: the host has only one to match an answer with.
    pub(crate) fn add(&self, ask: &Arc<Ask>) {
        self.entries().insert(ask.id.clone(), ask.clone());
    }

    pub(crate) fn find(&self, id: &Id) -> Option<Arc<Ask>> {
        self.entries().get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Ask>> {
        self.entries().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    /// Forgets a request, if it is still this one.
    pub(crate) fn remove(&self, ask: &Arc<Ask>) {
        let mut entries = self.entries();
        if entries
            .get(&ask.id)
            .is_some_and(|one| Arc::ptr_eq(one, ask))
        {
            entries.remove(&ask.id);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Id, Arc<Ask>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which request a `notifications/cancelled` is about.
pub(crate) fn cancelled(notification: &[u8]) -> Option<Id> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        #[serde(borrow)]
        request_id: &'a RawValue,
    }
    let message: Message<'_> = serde_json::from_slice(notification).ok()?;
    Some(Id::new(message.params.request_id.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_forgotten_only_if_it_is_still_the_same() {
        let table = Table::default();
        let ask = |method| Arc::new(Ask::new(Id::new("1"), method, false));
        let (old, new) = (ask("old"), ask("new"));
        table.add(&old);
        table.add(&new);
        table.remove(&old);
        assert_eq!(table.find(&Id::new("1")).unwrap().method, "new");
        table.remove(&new);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_cancelled_request_is_named_as_it_is_written() {
        let text =
            br#"{"method":"notifications/cancelled","params":{"reason":"x","requestId": 1.0}}"#;
        assert_eq!(cancelled(text), Some(Id::new("1.0")));
        assert_eq!(cancelled(b"{}"), None);
    }
}
