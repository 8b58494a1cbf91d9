//! The store contract: each numbered promise of `pilotlight::store`, on every store.

mod attempts;
mod first;
mod last;
mod lists;

use std::{sync::Arc, time::Duration};

use pilotlight::{
    Error,
    core::{
        credential::{Binding, Generation},
        error::LoginCause,
        flow::{Commit, Committed, Expects},
        notes::IssuerNotes,
        record::{Acceptance, Backoff, Fact, Failed, Forced, Record, Suspicion},
        time::Wall,
    },
    store::{Lease, LockName, Locked, LoginOutcome, Store},
};

use crate::store_support::*;
use {attempts::*, first::*, last::*, lists::*};

/// Makes one test of each promise for each store.
macro_rules! contract {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $($(#[$doc])* #[tokio::test] async fn $name() { super::$name(&Memory::new()).await; })*
        }
        mod shared {
            use super::*;
            $($(#[$doc])* #[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&SharedMemory::new()).await; })*
        }
        mod sqlite {
            use super::*;
            $($(#[$doc])* #[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&Sqlite::new()).await; })*
        }
    };
}

contract! {
    /// Promise 1 (F-07, I-4): what was answered is there for whoever opens the store next.
    promise_1_durable,
    /// Promise 2 (I-8): what does not go through writes nothing at all.
    promise_2_atomic,
    /// Promise 3 (I-5): a commit goes through only over the version that it expects.
    promise_3_compare_and_swap,
    /// Promise 3 (I-5, F-31): of many commits over one version one goes through.
    promise_3_one_of_many,
    /// Promise 3 (I-5, F-31): a login goes through over anything, and says what it replaced.
    promise_3_a_login_never_loses,
    /// Promise 4: facts belong to the version they were written beside.
    promise_4_facts_belong_to_a_version,
    /// Promise 5 (I-5): within one login nothing goes back.
    promise_5_monotone,
    /// Promise 6 (I-6): a refresh token stays, whatever is written beside it.
    promise_6_nothing_deletes_a_refresh_token,
    /// Promise 7 (F-10, I-16): one holder at a time, each with a larger fence.
    promise_7_one_holder,
    /// Promise 7: many tasks that want one lock have it in turn.
    promise_7_many_tasks,
    /// Promise 8 (F-06): what the store refused is read from the spool while it follows.
    promise_8_reads_see_the_spool,
    /// Promise 8 (F-06): one spooled version may follow another that never reached the store.
    promise_8_spooled_after_spooled,
    /// Promise 8 (F-06, F-31): a login over a spooled refresh is told of the spooled one.
    promise_8_a_login_supersedes_what_is_spooled,
    /// Promise 8 (F-03, I-1, I-3): an attempt that the store refused is read from the slot, beside its version.
    promise_8_reads_see_a_spooled_attempt,
    /// Promise 8 (F-06, I-3): a version and an attempt in one slot never displace each other, and end each in its time.
    promise_8_version_and_attempt_share_the_slot,
    /// Promise 8 (F-06, I-3): nor do two writers at once, a login and a refresh.
    promise_8_two_writers_of_one_slot_lose_nothing,
    /// Promise 8 (I-3, I-8): what is noted of an attempt takes the place of what the slot holds.
    promise_8_a_note_rules_over_the_slot,
    /// Promise 9 (T-33): no store shows a secret when it is printed.
    promise_9_debug_shows_nothing,
    /// A logout leaves a tombstone, a queue entry, and no way back (F-31).
    a_burial_ends_a_login,
    /// A logout without the issuer leaves nothing to do.
    a_local_burial_queues_nothing,
    /// Only a registration that no other login uses goes with a login.
    a_shared_registration_stays,
    /// Bindings: by URL and account, oldest first, one name each.
    bindings_have_one_name_each,
    /// Registrations: newest first, one per client id.
    registrations_are_listed_newest_first,
    /// Notes on issuers and outcomes of logins are kept.
    notes_and_outcomes_are_kept,
    /// The history: in order, at most a thousand.
    the_history_is_capped,
    /// Every write shows in the number of changes, to every process.
    changes_are_counted,
}

async fn login(store: &Arc<dyn Store>, n: u8, incarnation: u8) {
    let done = store
        .commit(&commit(n, version(incarnation, 0), Expects::Anything))
        .await
        .unwrap();
    assert!(matches!(done, Committed::Done { .. }));
}

async fn refresh(store: &Arc<dyn Store>, n: u8, incarnation: u8, generation: u64) -> Committed {
    let expects = Expects::Version(version(incarnation, generation - 1));
    store
        .commit(&commit(n, version(incarnation, generation), expects))
        .await
        .unwrap()
}

async fn read(store: &Arc<dyn Store>, n: u8) -> Record {
    store.read(&key(n)).await.unwrap().unwrap()
}

async fn take(store: &Arc<dyn Store>, name: LockName) -> Lease {
    match store.try_lock(name).await.unwrap() {
        Locked::Got(lease) => lease,
        Locked::HeldBy(holder) => panic!("held by {holder}"),
    }
}

const NOT_THERE: Committed = Committed::Moved;
const DONE: Committed = Committed::Done { superseded: None };
