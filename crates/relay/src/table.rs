//! What is in flight: the requests that a host waits for, by their id.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::{era::Ticket, lock::lock, scan::Id};

/// The requests in flight.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// By what the id means: whoever asks as `1` may cancel `1.0`.
    entries: Mutex<HashMap<String, Arc<Ask>>>,
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
    /// Whether it may have been sent.
    begun: AtomicBool,
    answered: AtomicBool,
    lost: AtomicBool,
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
            begun: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Whether only the bridge wants to know: then no person is asked for a login.
    pub(crate) fn is_ping(&self) -> bool {
        self.own && self.ticket.is_none()
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

    /// It goes out from here on.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Notes that its answer has nowhere to come from, if it was sent; tells whether somebody has to be told.
    pub(crate) fn lose(&self) -> bool {
        if !self.begun.load(Ordering::Acquire) || self.is_answered() {
            return false;
        }
        self.lost.store(true, Ordering::Release);
        self.answer()
    }

    /// Waits until it is lost.
    pub(crate) async fn is_lost(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lost.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
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
        self.entries().insert(ask.id.meaning(), ask.clone());
    }

    pub(crate) fn find(&self, id: &Id) -> Option<Arc<Ask>> {
        self.entries().get(&id.meaning()).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Ask>> {
        self.entries().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    /// Forgets a request, if it is still this one.
    pub(crate) fn remove(&self, ask: &Arc<Ask>) {
        let (mut entries, id) = (self.entries(), ask.id.meaning());
        if entries.get(&id).is_some_and(|one| Arc::ptr_eq(one, ask)) {
            entries.remove(&id);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Arc<Ask>>> {
        lock(&self.entries)
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

    /// TR-37: a request is found by what its id means, however it is written.
    #[test]
    fn a_request_is_found_by_what_its_id_means() {
        let table = Table::default();
        for (asked, named, other) in [
            ("1", "1.0", "\"1\""),
            ("\"a\"", "\"\\u0061\"", "\"A\""),
            (
                "18446744073709551616",
                "18446744073709551616",
                "18446744073709551617",
            ),
        ] {
            let ask = Arc::new(Ask::new(Id::new(asked), "x", false));
            table.add(&ask);
            assert!(table.find(&Id::new(named)).is_some(), "{asked} as {named}");
            assert!(table.find(&Id::new(other)).is_none(), "{asked} as {other}");
            table.remove(&ask);
        }
    }

    #[test]
    fn the_cancelled_request_is_named_as_it_is_written() {
        let text =
            br#"{"method":"notifications/cancelled","params":{"reason":"x","requestId": 1.0}}"#;
        assert_eq!(cancelled(text), Some(Id::new("1.0")));
        assert_eq!(cancelled(b"{}"), None);
    }
}
