//! A refresh on the stage, by theme.

mod dead_path;
mod elsewhere;
mod forced;
mod holding;
mod late;
mod moved;
mod order;
mod proof;
mod property;
mod reach;
mod refusal;
mod repeat;
mod scopes;
mod slot;
mod storing;

use std::time::Duration;

use super::*;
use crate::flow::stage::*;
use crate::{
    attempt::Label,
    error::Certainty,
    exchange::{Exchange, Leg},
    record::Fact,
    time::Wall,
};

/// A refresh by process 1 that holds this generation.
fn task(held: u64) -> Task {
    Task {
        key: key(),
        held: Some(version(held)),
        refused: None,
        asked: false,
        unsaved: None,
        memory: None,
        remembered: None,
        process: process(1),
        entropy: [0x80; 32],
        policy: Policy::default(),
    }
}

/// A refresh by another process.
fn by(pid: u32) -> Refresh {
    Refresh::new(Task {
        process: process(pid),
        ..task(4)
    })
}

fn refused(held: u64) -> Task {
    Task {
        refused: Some(version(held)),
        ..task(held)
    }
}

/// A stage whose login is of generation 4 and due, not expired.
fn due() -> Stage {
    let mut stage = Stage::with(credential(4));
    stage.pass(secs(3400));
    stage
}

/// The same, expired.
fn expired() -> Stage {
    let mut stage = Stage::with(credential(4));
    stage.pass(secs(3700));
    stage
}

/// Generation 5, received when generation 4 was due.
fn five() -> Credential {
    Credential {
        received_at: Some(start().after(secs(3400))),
        ..credential(5)
    }
}

impl Stage {
    fn refresh(&mut self) -> Outcome {
        self.run(Refresh::new(task(4)))
    }
}
