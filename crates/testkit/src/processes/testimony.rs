//! What a process leaves for the judge: what it was, what it said, how it ended.

use std::{
    process::ExitStatus,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::Signal;

use super::{
    harness::Start,
    said::{Line, Said},
};

/// What a process was, what it said, and how it ended: what is left of it for the judge.
#[derive(Debug)]
pub struct Testimony {
    /// Its process id.
    pub pid: u32,
    /// How it was started.
    pub start: Start,
    pub(super) lines: Mutex<Vec<Line>>,
    pub(super) complaints: Mutex<String>,
    pub(super) fate: Mutex<Option<Exit>>,
}

impl Testimony {
    pub(super) fn new(pid: u32, start: Start) -> Self {
        Self {
            pid,
            start,
            lines: Mutex::default(),
            complaints: Mutex::default(),
            fate: Mutex::default(),
        }
    }

    /// What it said so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        lock(&self.lines).clone()
    }

    /// What it wrote that is no line of a harness, to standard error for instance.
    #[must_use]
    pub fn complaints(&self) -> String {
        lock(&self.complaints).clone()
    }

    /// How it ended; `None` while it lives.
    #[must_use]
    pub fn fate(&self) -> Option<Exit> {
        *lock(&self.fate)
    }

    /// Whether SIGKILL ended it.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        matches!(self.fate(), Some(Exit::Signal(signal)) if signal == Signal::KILL.as_raw())
    }

    /// The first failure that it told.
    #[must_use]
    pub fn failure(&self) -> Option<(String, String)> {
        lock(&self.lines).iter().find_map(|line| match &line.said {
            Said::Failed { code, words } => Some((code.clone(), words.clone())),
            _ => None,
        })
    }

    /// Its command, and what was armed.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} (pid {})", self.start, self.pid)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
