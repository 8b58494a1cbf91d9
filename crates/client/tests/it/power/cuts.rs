//! Cuts the power in a recorded life, many times, and looks at what is left.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use pilotlight::{
    core::flow::{Committed, Expects},
    store::{LockName, Locked, SqliteStore, Store},
};
use rusqlite::Connection;

use super::{
    chance::Chance,
    disk::{Disk, Model},
    record::{Change, fast},
    runtime,
    script::{Act, Snapshot, varied},
};
use crate::store_support::*;

/// A recorded life, and what a store must hold after each of its acts.
pub(super) struct Life {
    root_inode: u64,
    changes: Vec<Change>,
    acts: Vec<Act>,
    expected: Vec<Arc<Snapshot>>,
}

/// How many cuts this run is for.
#[expect(clippy::disallowed_methods, reason = "how `./test` asks for more")]
pub(super) fn cuts_wanted() -> usize {
    let set = |name| std::env::var(name).is_ok_and(|value| value == "1");
    if set("PILOTLIGHT_LONG") {
        50_000
    } else if set("PILOTLIGHT_SLOW") {
        5_000
    } else {
        500
    }
}

/// What had been answered at a cut.
#[derive(Default)]
struct Answered {
    acts: usize,
    /// The last fence of each lock.
    fences: BTreeMap<u8, u64>,
}

impl Life {
    pub(super) fn new(
        root_inode: u64,
        changes: Vec<Change>,
        acts: Vec<Act>,
        expected: Vec<Arc<Snapshot>>,
    ) -> Self {
        Self {
            root_inode,
            changes,
            acts,
            expected,
        }
    }

    /// The same life, with some changes left out.
    pub(super) fn without(&self, left_out: impl Fn(&Change) -> bool) -> Self {
        let changes = self.changes.iter().filter(|change| !left_out(change));
        let changes: Vec<Change> = changes.cloned().collect();
        assert!(changes.len() < self.changes.len(), "nothing was left out");
        Self {
            changes,
            acts: self.acts.clone(),
            expected: self.expected.clone(),
            ..*self
        }
    }

    /// Cuts the power this many times, all over this life; answers what went wrong, up to so many times. Each act of the
    /// varied part is as likely as the other, however much it changes; the long part has a third of the cuts.
    pub(super) fn cut(&self, count: usize, enough: usize) -> Vec<String> {
        let spans = self.spans();
        let mut chance = Chance(count as u64);
        let position = |_| {
            let (varied, long) = spans.split_at(varied().len());
            if chance.up_to(2) == 0 {
                self.within(&(long[0].start..self.changes.len()), &mut chance)
            } else {
                self.within(&varied[chance.up_to(varied.len() - 1)], &mut chance)
            }
        };
        self.cut_at((0..count).map(position).collect(), enough)
    }

    /// Cuts the power this many times within acts of one kind.
    pub(super) fn cut_in(&self, count: usize, kind: impl Fn(&Act) -> bool) -> Vec<String> {
        let spans = self.spans().into_iter().zip(&self.acts);
        let spans: Vec<_> = spans.filter(|(_, act)| kind(act)).collect();
        let mut chance = Chance(count as u64);
        let position = |_| self.within(&spans[chance.up_to(spans.len() - 1)].0, &mut chance);
        self.cut_at((0..count).map(position).collect(), 5)
    }

    /// Cuts the power this many times when all is done.
    pub(super) fn cut_at_the_end(&self, count: usize) -> Vec<String> {
        self.cut_at(vec![self.changes.len(); count], 1)
    }

    /// Where in the record each act is.
    fn spans(&self) -> Vec<Range<usize>> {
        let mut from = 0;
        let mut spans = Vec::new();
        for (at, change) in self.changes.iter().enumerate() {
            if matches!(change, Change::Mark(_)) {
                spans.push(from..at + 1);
                from = at + 1;
            }
        }
        spans
    }

    /// Somewhere in a span, its ends included; every other time just before a sync, when there is most to lose.
    fn within(&self, span: &Range<usize>, chance: &mut Chance) -> usize {
        let at = span.start + chance.up_to(span.len());
        let is_sync = |change: &Change| matches!(change, Change::Sync { .. });
        match self.changes[at..span.end].iter().position(is_sync) {
            Some(ahead) if chance.up_to(1) == 0 => at + ahead,
            _ => at,
        }
    }

    /// Cuts after so many changes each time, in both models by turns.
    fn cut_at(&self, mut positions: Vec<usize>, enough: usize) -> Vec<String> {
        positions.sort_unstable();
        let failures = Mutex::new(Vec::new());
        let workers = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(8);
        thread::scope(|scope| {
            for worker in 0..workers {
                let (failures, positions) = (&failures, &positions);
                scope.spawn(move || {
                    let mut replays =
                        [Model::Journalled, Model::Strict].map(|m| Replay::new(self, m));
                    // The same cuts whatever the number of workers.
                    let mine = (0..positions.len()).filter(|n| n / 2 % workers == worker);
                    for number in mine {
                        if failures.lock().unwrap().len() >= enough {
                            return;
                        }
                        let replay = &mut replays[number % 2];
                        let failure = replay.cut(number, positions[number]);
                        failures.lock().unwrap().extend(failure);
                    }
                });
            }
        });
        failures.into_inner().unwrap()
    }
}

/// A life up to the newest cut, in one model.
struct Replay<'a> {
    life: &'a Life,
    model: Model,
    disk: Disk,
    done: usize,
    answered: Answered,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Replay<'a> {
    fn new(life: &'a Life, model: Model) -> Self {
        Self {
            life,
            model,
            disk: Disk::new(model, life.root_inode),
            done: 0,
            answered: Answered::default(),
            runtime: runtime(),
        }
    }

    /// Goes on to a cut and looks at what it leaves; answers what is wrong.
    fn cut(&mut self, number: usize, position: usize) -> Option<String> {
        while self.done < position {
            let change = &self.life.changes[self.done];
            self.disk.apply(change);
            if let Change::Mark(line) = change {
                self.answered.read(line, &self.life.acts);
            }
            self.done += 1;
        }
        let place = tempfile::tempdir_in(fast()).unwrap();
        let mut chance = Chance(number as u64);
        self.disk.cut(&mut chance, place.path());
        stale_index(&mut chance, place.path());
        let look = self.look(place.path(), number.is_multiple_of(3));
        let wrong = self.runtime.block_on(look).err()?;
        let mut report = format!(
            "cut {number}, after {position} changes, {:?}: {wrong}\n  answered: {}",
            self.model, self.answered.acts
        );
        if let Some(act) = self.life.acts[..self.answered.acts].last() {
            write!(report, ", last {act:?}").unwrap();
        }
        if let Some(act) = self.life.acts.get(self.answered.acts) {
            write!(report, ", under way {act:?}").unwrap();
        }
        Some(report)
    }

    /// `write`: goes on to use it too.
    async fn look(&self, root: &Path, write: bool) -> Result<(), String> {
        let answered = &self.answered;
        let config = config(root);
        let store = match SqliteStore::open_existing(&config) {
            Ok(None) if answered.acts == 0 => SqliteStore::open(&config),
            Ok(None) => return Err("the store is gone".into()),
            Ok(Some(store)) => Ok(store),
            Err(error) => Err(error),
        };
        let store = store.map_err(|e| format!("it does not open: {e} ({})", e.code()))?;
        self.compare(&store).await?;
        self.slots(&store, root)?;
        for (n, before) in &answered.fences {
            let name = LockName::Refresh(store.credential_id(&key(*n)));
            match store.try_lock(name).await {
                Ok(Locked::Got(lease)) if lease.fence > *before => {}
                other => return Err(format!("the fence was {before}, and now: {other:?}")),
            }
        }
        if write {
            goes_on(&store).await?;
        }
        drop(store);
        let file = config.data_dir.join("store.db");
        let verdict: String = Connection::open(file)
            .and_then(|c| c.query_row("PRAGMA integrity_check", (), |row| row.get(0)))
            .map_err(|e| e.to_string())?;
        if verdict == "ok" {
            Ok(())
        } else {
            Err(verdict)
        }
    }

    /// What is there is what the last answer left, or what the act under way would leave.
    async fn compare(&self, store: &SqliteStore) -> Result<(), String> {
        let found = Snapshot::of(store)
            .await
            .map_err(|e| format!("it cannot be read: {e} ({})", e.code()))?;
        let expected = &self.life.expected;
        let acts = self.answered.acts;
        let next = (acts + 1).min(expected.len() - 1);
        if found == *expected[acts] || found == *expected[next] {
            return Ok(());
        }
        Err(match expected.iter().rposition(|e| found == **e) {
            Some(at) => format!("it is as after {at} acts, and {acts} were answered"),
            None => format!("it is as it never was: {found:#?}"),
        })
    }

    /// Prepared slots are there, with room for a record of the size that the login has now.
    fn slots(&self, store: &SqliteStore, root: &Path) -> Result<(), String> {
        let mut room: BTreeMap<u8, u64> = BTreeMap::new();
        for act in &self.life.acts[..self.answered.acts] {
            match act {
                Act::Prepare(n) => {
                    room.entry(*n).or_insert(2 * 16 * 1024);
                }
                Act::Commit(n, _, _, length) => {
                    let room = room.entry(*n).or_default();
                    *room = (*room).max(4 * *length as u64);
                }
                _ => {}
            }
        }
        for (n, wanted) in room {
            let id: String =
                store
                    .credential_id(&key(n))
                    .0
                    .iter()
                    .fold(String::new(), |mut hex, byte| {
                        write!(hex, "{byte:02x}").unwrap();
                        hex
                    });
            let size = |file: String| fs::metadata(root.join(file)).map_or(0, |m| m.len());
            let slot = size(format!("data/spool/{id}.spool"));
            if slot < wanted {
                return Err(format!("the slot of {n} has {slot} of {wanted} bytes"));
            }
            if size(format!("data/locks/refresh-{id}.lock")) < 1024 {
                return Err(format!("the lock of {n} has no room for its note"));
            }
        }
        Ok(())
    }
}

impl Answered {
    fn read(&mut self, line: &str, acts: &[Act]) {
        let (number, fence) = line.trim_end().split_once(' ').unwrap();
        self.acts = number.parse().unwrap();
        if let Act::Lock(n) = acts[self.acts - 1] {
            self.fences.insert(n, fence.parse().unwrap());
        }
    }
}

/// A new login, over one that is there or not.
async fn goes_on(store: &SqliteStore) -> Result<(), String> {
    let login = commit(2, version(99, 0), Expects::Anything);
    match store.commit(&login).await {
        Ok(Committed::Done { .. }) => Ok(()),
        other => Err(format!("it does not go on: {other:?}")),
    }
}

/// Leaves an index of the log that has nothing to do with the log, sometimes.
fn stale_index(chance: &mut Chance, root: &Path) {
    let file = root.join("data/store.db");
    if !file.exists() || chance.up_to(2) > 0 {
        return;
    }
    let byte = if chance.up_to(1) == 0 { 0 } else { 0xa5 };
    fs::write(file.with_extension("db-shm"), vec![byte; 32 * 1024]).unwrap();
}
