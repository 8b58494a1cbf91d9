//! What happens, and when.

use super::{faults::Timed, network::CallId, people::What};

/// Something that happens at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Start {
        process: usize,
    },
    Request {
        process: usize,
        epoch: u32,
        login: usize,
    },
    Arrive {
        request: usize,
    },
    GiveUp {
        request: usize,
        wait: u32,
    },
    Perform {
        run: usize,
        step: u32,
    },
    Answer {
        run: usize,
        step: u32,
    },
    Begin {
        run: usize,
        step: u32,
    },
    StillLocked {
        run: usize,
        step: u32,
    },
    LeaseEnds {
        lock: usize,
        fence: u64,
    },
    AtIssuer {
        call: CallId,
    },
    Again {
        call: CallId,
    },
    Reply {
        call: CallId,
    },
    Fail {
        call: CallId,
    },
    AttemptStands {
        login: usize,
    },
    LookForAbandoned {
        process: usize,
        epoch: u32,
        login: usize,
    },
    Look {
        process: usize,
        epoch: u32,
        login: usize,
    },
    Save {
        process: usize,
        epoch: u32,
        login: usize,
    },
    Resume {
        process: usize,
    },
    Person {
        login: usize,
        what: What,
    },
    Fault(Timed),
}

/// An event in the queue: by time, then in the order of scheduling.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scheduled {
    pub(super) at: u64,
    pub(super) order: u64,
    pub(super) event: Event,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
