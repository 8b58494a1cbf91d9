//! What a machine has said to the host, in that order, until the host takes it.

use std::{collections::VecDeque, sync::Mutex};

use bytes::Bytes;
use tokio::sync::watch;

use super::Permit;
use crate::{lock::lock, out::Out};

/// Lines for the host. It is as long as its writers allow: an answer of the server is waited for by whoever read it, and what
/// answers the host at once keeps the room of the message that it answers.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<VecDeque<(Bytes, Option<Permit>)>>,
    /// How many lines have come.
    added: watch::Sender<u64>,
    /// How many of them the host has taken.
    written: watch::Sender<u64>,
}

impl Outbox {
    pub(super) fn add(&self, line: Bytes, room: Option<Permit>) {
        lock(&self.waiting).push_back((line, room));
        self.added.send_modify(|count| *count += 1);
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// The number of the last line.
    pub(super) fn last(&self) -> u64 {
        *self.added.borrow()
    }

    /// Waits until the host has taken the line of this number.
    pub(super) async fn written(&self, number: u64) {
        // The sender lives as long as this does.
        let _ = self
            .written
            .subscribe()
            .wait_for(|written| *written >= number)
            .await;
    }

    /// Writes what comes, for ever.
    pub(super) async fn write_to(&self, out: &Out) {
        let mut added = self.added.subscribe();
        let mut number = 0;
        loop {
            let next = lock(&self.waiting).pop_front();
            let Some((line, room)) = next else {
                if added.wait_for(|added| *added > number).await.is_err() {
                    return;
                }
                continue;
            };
            // A host that has gone is noticed elsewhere.
            drop(out.message(&line).await);
            drop(room);
            number += 1;
            self.written.send_replace(number);
        }
    }
}
