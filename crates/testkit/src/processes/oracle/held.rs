//! Versions that only one process had for a while: saved, or dead with it.

use super::Judgement;
use crate::processes::{
    said::{Line, Said},
    testimony::Testimony,
};

/// What became of the versions that neither store nor spool took at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// They, or what followed them, became durable.
    pub saved: u64,
    /// They died with their process, which was killed.
    pub killed: u64,
}

/// F-06: what only one process has becomes durable before it ends, unless it is killed.
pub(super) fn look_at(said: &[(&Testimony, Vec<Line>)], judgement: &mut Judgement) {
    for (by, lines) in said {
        for (number, line) in lines.iter().enumerate() {
            let Said::Held {
                login, generation, ..
            } = &line.said
            else {
                continue;
            };
            let saved = lines.iter().skip(number).any(|line| {
                matches!(&line.said, Said::Durable { login: of, generation: its, .. }
                    if of == login && its >= generation)
            });
            match saved {
                true => judgement.held.saved += 1,
                false if by.was_killed() => judgement.held.killed += 1,
                false => judgement.violations.push(format!(
                    "F-06: {} ended with generation {generation}, which only it had",
                    by.name()
                )),
            }
        }
    }
}
