//! What goes wrong, one thing after the other: each is prepared, and told when it has happened.

use std::time::Duration;

use pilotlight_core::time::Mono;
use pilotlight_testkit::{
    Fault,
    authorization_server::{Kind, Outcome},
};

use super::{Fleet, World};
use crate::failure::Failure;

/// The plan, and how far it has come.
pub(crate) struct Mishaps {
    left: Vec<Mishap>,
    armed: Option<Armed>,
    /// The next is prepared when this many refreshes have succeeded.
    after_refreshes: u64,
    /// And not before this.
    not_before: Option<Mono>,
    happened: u64,
    brisk: bool,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mishap {
    /// The issuer answers a refresh with 503.
    Overload,
    /// The issuer refreshes and its answer is lost.
    LostAnswer,
    /// The process that refreshes is killed when the issuer has refreshed already.
    Kill,
    /// The MCP server refuses a token that is alive.
    Refusal,
}

/// A mishap that waits for its moment, and what had been seen before.
#[derive(Debug, Clone, Copy)]
struct Armed {
    mishap: Mishap,
    entries: usize,
    unauthorized: u64,
}

impl Mishaps {
    /// Everything, spread over the time there is. Without a grace the first lost answer is the end.
    pub(crate) fn planned(seconds: u64, grace: u64) -> Self {
        let left = if grace == 0 {
            vec![Mishap::LostAnswer]
        } else {
            vec![
                Mishap::Overload,
                Mishap::LostAnswer,
                Mishap::Kill,
                Mishap::Refusal,
            ]
        };
        Self {
            left,
            armed: None,
            after_refreshes: 0,
            not_before: None,
            happened: 0,
            brisk: seconds < UNHURRIED,
        }
    }

    /// How many have happened.
    pub(super) fn happened(&self) -> u64 {
        self.happened
    }

    /// Goes on; answers what there is to tell.
    pub(crate) async fn step(
        &mut self,
        world: &World,
        fleet: &mut Fleet,
        now: Mono,
    ) -> Result<Vec<String>, Failure> {
        let Some(armed) = self.armed else {
            self.arm(world, now);
            return Ok(Vec::new());
        };
        let told = match armed.mishap {
            Mishap::Overload => seen(world, armed, |outcome, _| *outcome == Outcome::Fault("status".into()))
                .then(|| "The issuer answered a refresh with 503: the token at hand goes on, the next try comes later.".to_owned()),
            Mishap::LostAnswer => seen(world, armed, |_, lost| lost)
                .then(|| "The issuer refreshed, and its answer was lost on the way: the old refresh token is spent.".to_owned()),
            Mishap::Kill if seen(world, armed, |outcome, _| *outcome == Outcome::Ok) => match world.refreshing_pid().await? {
                Some(pid) => fleet.kill(pid).await?.map(|name| {
                    format!("{name} was killed (SIGKILL, pid {pid}) while it refreshed: nobody saw the issuer's answer. Another takes its place.")
                }),
                // It was faster than we looked: at the next refresh, then.
                None => {
                    self.armed = None;
                    None
                }
            },
            Mishap::Kill => None,
            Mishap::Refusal => (world.lab.with_mcp(|server| server.stats().unauthorized) > armed.unauthorized)
                .then(|| "The server refused a token that was alive.".to_owned()),
        };
        let Some(told) = told else {
            return Ok(Vec::new());
        };
        self.happened += 1;
        self.left.remove(0);
        self.armed = None;
        self.not_before = Some(now + PAUSE);
        let wait_for_success = !(self.brisk && armed.mishap == Mishap::Overload);
        self.after_refreshes = refreshes(world) + u64::from(wait_for_success);
        if !wait_for_success {
            // In a short run the second try after the 503 is the one whose answer is lost.
            self.not_before = None;
            self.arm(world, now);
        }
        Ok(vec![told])
    }

    /// Prepares the next mishap, when its time has come.
    fn arm(&mut self, world: &World, now: Mono) {
        let Some(&mishap) = self.left.first() else {
            return;
        };
        if refreshes(world) < self.after_refreshes || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        let entries = world
            .lab
            .with_issuer(|issuer| issuer.ledger().entries.len());
        let unauthorized = world.lab.with_mcp(|server| server.stats().unauthorized);
        match mishap {
            Mishap::Overload => world.lab.with_issuer(|issuer| {
                issuer.push_fault(Fault::Status {
                    status: 503,
                    retry_after: Some(1),
                    body: None,
                })
            }),
            Mishap::LostAnswer => world
                .lab
                .with_issuer(|issuer| issuer.push_fault(Fault::Lose)),
            Mishap::Kill => world.lab.with_issuer(|issuer| {
                issuer.push_fault(Fault::DelayAnswer {
                    ms: LONG_ENOUGH_TO_KILL_MS,
                })
            }),
            Mishap::Refusal => world.lab.with_mcp(|server| server.reject_next(1)),
        }
        self.armed = Some(Armed {
            mishap,
            entries,
            unauthorized,
        });
    }
}

/// Whether the issuer has seen such a refresh since the mishap was prepared.
fn seen(world: &World, armed: Armed, such: impl Fn(&Outcome, bool) -> bool) -> bool {
    world.lab.with_issuer(|issuer| {
        let new = issuer.ledger().entries.iter().skip(armed.entries);
        new.filter(|entry| entry.kind == Kind::Refresh)
            .any(|entry| such(&entry.outcome, entry.answer_lost))
    })
}

/// How many refreshes have succeeded whose answer was not lost.
fn refreshes(world: &World) -> u64 {
    world.lab.with_issuer(|issuer| {
        let entries = issuer.ledger().of(Kind::Refresh);
        entries
            .filter(|entry| entry.outcome == Outcome::Ok && !entry.answer_lost)
            .count() as u64
    })
}

/// A run of this many seconds leaves room for one mishap a refresh.
const UNHURRIED: u64 = 40;
const PAUSE: Duration = Duration::from_millis(1500);
const LONG_ENOUGH_TO_KILL_MS: u64 = 4000;
