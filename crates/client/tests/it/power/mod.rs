//! Power cuts (F-07): a real process is recorded, and its disk is cut off at any point of the record.
//!
//! A child of this binary uses a [`SqliteStore`](pilotlight::store::SqliteStore) and marks each promise once it is
//! answered ([`script`]). The kernel reports every change that the child makes to its files, with the data and in order
//! (`record.c`, [`record`]). For a cut after any number of changes, [`disk`] builds a folder that a power cut may leave,
//! and a store is opened there. What was promised before the cut must be in it; what was under way is there wholly or
//! not at all; nothing else is there.
//!
//! # What a cut leaves
//!
//! *Data.* What a file held when it was last synced is there. Of what was written since, one of: nothing; all; the first
//! writes and a part of the next; any of the writes, some in part; each sector as it was at any moment since. A part of
//! a write is its first sectors of 512 bytes. A file may be as long as it was at any moment, with zeros for what is
//! missing. This is less than ext4 with ordered data and xfs promise. A sector is written whole or not at all.
//!
//! *Names* (files made, renamed, removed; folders made), in two models that take turns:
//!
//! - *journalled*, as ext4 and xfs do it: one order for all folders; what survives is a beginning of it, at least up to
//!   the last change that a synced file or folder was part of. (The kernel often keeps more: a sync writes the whole
//!   journal out. That is not used.) A sync of data alone (fdatasync) makes no name durable.
//! - *strict*, what POSIX promises: each folder for itself; only its own sync counts, not that of a file in it.
//!
//! *The index of the log* (`store.db-shm`) is not on the disk in any sense that counts: it is left out, or garbage.
//!
//! Permissions are not modelled (everything is made 0600 and 0700, and stays so), nor disks that lie about a sync.
//!
//! 500 cuts in an ordinary run, 5 000 with `PILOTLIGHT_SLOW=1`, 50 000 with `PILOTLIGHT_LONG=1`.

mod chance;
mod cuts;
mod disk;
mod file;
mod record;
mod script;

use std::{path::Path, sync::Arc};

use cuts::{Life, cuts_wanted};
use record::{Change, Recorder, Shim};
use script::{Act, Snapshot, play, script};

/// No test: what a [`Recorder`] runs.
#[test]
fn child() {
    let Some((role, dir)) = role() else { return };
    let acts = script();
    let acts = match role.as_str() {
        "short" => &acts[..SHORT],
        _ => &acts[..],
    };
    runtime().block_on(play(Path::new(&dir), acts));
}

/// F-07, I-4, I-18, promises 1 and 2: wherever the power goes, what was answered is there, nothing is there by half, and
/// the store opens and goes on.
#[test]
fn nothing_that_was_promised_is_lost() {
    let life = whole_life();
    let failures = life.cut(cuts_wanted(), 5);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// F-07, F-31, I-18: a logout that the power cut short has either happened or not, and the login can be read either way.
#[test]
fn a_logout_that_is_cut_short_leaves_all_or_nothing() {
    let failures = whole_life().cut_in(800, |act| matches!(act, Act::Bury(..)));
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// F-07: the same cuts find each sync that is left out. Were one of them missing in the store, the test above would
/// see it.
#[test]
fn a_missing_sync_is_found() {
    let life = whole_life();
    type Names = fn(&str) -> bool;
    let missing: [(&str, Names); 7] = [
        ("the log of the database", |p| p.ends_with("-wal")),
        ("the database", |p| p.ends_with("store.db")),
        ("the new database", |p| p.ends_with("store.db.new")),
        ("the key file", |p| {
            p.ends_with(".tmp") && p.contains("/state/")
        }),
        ("a new spool slot", |p| {
            p.ends_with(".tmp") && p.contains("/spool/")
        }),
        ("the spool slot", |p| p.ends_with(".spool")),
        ("the folders", |p| !p.contains('.') && !p.ends_with("key")),
    ];
    for (what, is_missing) in missing {
        let without = life.without(|change| match change {
            Change::Sync { path, .. } => is_missing(path),
            _ => false,
        });
        let failures = without.cut(3_000, 1);
        assert!(!failures.is_empty(), "nobody misses the sync of {what}");
    }
}

/// F-07, F-03: a process that dies at any point of making a store and logging in, another that does it again and is
/// answered, and then the power cut: what the dead one had done without a sync is not taken for done.
#[test]
fn what_a_dead_process_left_unsynced_is_not_relied_on() {
    let shim = Shim::build();
    let acts = &script()[..SHORT];
    let twice = [acts, acts].concat();
    let after = runtime().block_on(Snapshot::after_each(&twice));
    let step = if cuts_wanted() > 500 { 1 } else { 5 };
    let mut failures = Vec::new();
    let mut lives = 0;
    for kill_at in (1..).step_by(step) {
        let recorder = Recorder::new(&shim);
        if recorder.run("short", Some(kill_at)).status.success() {
            break;
        }
        let mut changes = recorder.changes();
        let first = changes.len();
        let second = recorder.run("short", None);
        assert!(second.status.success(), "{second:#?}");
        changes.retain(|change| !matches!(change, Change::Mark(_)));
        changes.extend_from_slice(&recorder.changes()[first..]);
        // The login may have been stored twice.
        let mut expected = vec![Arc::clone(&after[SHORT]); SHORT + 1];
        expected.push(Arc::clone(&after[2 * SHORT]));
        let life = Life::new(recorder.root_inode(), changes, acts.to_vec(), expected);
        let found = life.cut_at_the_end(8).into_iter();
        failures.extend(found.map(|failure| format!("killed at change {kill_at}: {failure}")));
        lives += 1;
    }
    assert!(lives * step > 40, "{lives} lives");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn whole_life() -> Life {
    let shim = Shim::build();
    let recorder = Recorder::new(&shim);
    let child = recorder.run("whole", None);
    assert!(child.status.success(), "{child:#?}");
    let acts = script();
    let expected = runtime().block_on(Snapshot::after_each(&acts));
    Life::new(recorder.root_inode(), recorder.changes(), acts, expected)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "how a child of this binary learns its role"
)]
fn role() -> Option<(String, String)> {
    let role = std::env::var("PILOTLIGHT_TEST_POWER").ok()?;
    Some((role, std::env::var("PILOTLIGHT_TEST_DIR").ok()?))
}

/// How much of the script makes a store, a key and a login.
const SHORT: usize = 4;
