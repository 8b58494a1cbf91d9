//! The way to the issuer: what becomes of one token call, drawn when it leaves.

use pilotlight_core::{attempt::Label, credential::Version};

use super::{
    issuer::Answer,
    plan::{Kind, Plan},
    random::Random,
};

/// Which token call of the run.
pub(super) type CallId = usize;

/// One token call, from its sending to whatever becomes of it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) run: usize,
    pub(super) step: u32,
    pub(super) process: usize,
    pub(super) epoch: u32,
    pub(super) login: usize,
    /// When its sender set out: the connection may take its time.
    pub(super) set_out_at: u64,
    /// Which call of its run it is.
    pub(super) nth: u64,
    /// Whether a look had found the issuer back, which allows this one call.
    pub(super) early: bool,
    /// When it leaves: its connection stands then.
    pub(super) sent_at: u64,
    /// The grant and the refresh token it presents; `None` for a code.
    pub(super) presents: Option<(usize, usize)>,
    /// The version it is made for; `None` for a code.
    pub(super) version: Option<Version>,
    /// The label of the durable attempt.
    pub(super) label: Option<Label>,
    pub(super) fate: Fate,
    /// Whether store or spool held a note of it as it left.
    pub(super) noted: bool,
    /// Whether the client may take it as not delivered.
    pub(super) not_delivered: bool,
    pub(super) processed_at: Option<u64>,
    pub(super) answer: Option<Answer>,
    /// When its answer reached its sender.
    pub(super) answered_at: Option<u64>,
    /// When its sender gave it up, and how.
    pub(super) failed: Option<(u64, Failed)>,
}

impl Call {
    /// Whether something kept its sender from an answer of the issuer's own.
    pub(super) fn met_a_fault(&self) -> bool {
        let spoilt = self.fate.instead.is_some() || self.fate.spoilt.is_some();
        self.failed.is_some() || self.not_delivered || (spoilt && self.answered_at.is_some())
    }
}

/// How a sender sees a call fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    NotConnected,
    Broken,
    DeadPath,
    Deadline,
}

/// What becomes of a call, in milliseconds of the run.
#[derive(Debug, Clone, Default)]
pub(super) struct Fate {
    /// When the issuer reads it.
    pub(super) arrives: Option<u64>,
    /// When a middlebox has it arrive once more.
    pub(super) again: Option<u64>,
    /// When the answer would reach a sender that still waits, counted from the send.
    pub(super) replies: Option<u64>,
    /// When the sender gives up, if no answer came before.
    pub(super) fails: Option<(u64, Failed)>,
    /// What is answered in the issuer's place.
    pub(super) instead: Option<Answer>,
    /// What is answered although the issuer acted.
    pub(super) spoilt: Option<Answer>,
}

/// How long a sender waits for an answer on a connection that lives.
pub(super) const DEADLINE: u64 = 60_000;

/// An outage of the token endpoint, and how it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outage {
    Refused,
    Unavailable { retry_after: Option<u64> },
    Failing,
    Silent,
}

/// How long a connection takes to stand, beyond the usual.
pub(super) fn stands_after(plan: &Plan, random: &mut Random) -> u64 {
    let slow = random.chance(0.04 * plan.harm);
    let takes = random.between(500, 9_900);
    if slow && plan.has(Kind::SlowConnect) {
        takes
    } else {
        0
    }
}

/// Draws what becomes of a call that leaves at `now`.
pub(super) fn fate(now: u64, plan: &Plan, outage: Option<Outage>, random: &mut Random) -> Fate {
    let delay = |random: &mut Random| 10 + random.exponential(40.0) as u64;
    let (to, back) = (delay(random), delay(random));
    let deadline = Some((now + DEADLINE, Failed::Deadline));
    let usual = Fate {
        arrives: Some(now + to),
        replies: Some(now + to + 5 + back),
        fails: deadline,
        ..Fate::default()
    };
    let instead = |answer| Fate {
        arrives: None,
        instead: Some(answer),
        ..usual.clone()
    };
    match outage {
        Some(Outage::Refused) => return not_connected(now + to),
        Some(Outage::Failing) => return instead(Answer::page(500, "<html>".into())),
        Some(Outage::Unavailable { retry_after }) => {
            return instead(Answer {
                retry_after,
                ..Answer::page(503, String::new())
            });
        }
        // Connected and never answered; nothing was done.
        Some(Outage::Silent) => {
            return Fate {
                fails: deadline,
                ..Fate::default()
            };
        }
        None => {}
    }
    let mut hit = |kind: Kind, probability: f64| {
        let drawn = random.chance(probability * plan.harm);
        drawn && plan.has(kind)
    };
    if hit(Kind::RequestLost, 0.01) {
        not_connected(now + to)
    } else if hit(Kind::Broken, 0.01) {
        Fate {
            fails: Some((now + to, Failed::Broken)),
            ..Fate::default()
        }
    } else if hit(Kind::AnswerLost, 0.01) {
        Fate {
            replies: None,
            fails: Some((now + to + 5 + back, Failed::Broken)),
            ..usual
        }
    } else if hit(Kind::ServerError, 0.02) {
        let retry_after = random.chance(0.3).then_some(2);
        let status = [500, 502, 503][random.below(3) as usize];
        instead(Answer {
            retry_after,
            ..Answer::page(status, String::new())
        })
    } else if hit(Kind::GatewayTimeout, 0.01) {
        Fate {
            spoilt: Some(Answer::page(504, "<html>".into())),
            ..usual
        }
    } else if hit(Kind::UnreadableAnswer, 0.01) {
        Fate {
            spoilt: Some(Answer::page(200, r#"{"access_token":"a."#.into())),
            ..usual
        }
    } else if hit(Kind::CaptivePortal, 0.01) {
        instead(Answer::page(200, "<html>Welcome</html>".into()))
    } else if hit(Kind::FalseRefusal, 0.01) {
        instead(Answer::error(400, "invalid_grant"))
    } else if hit(Kind::Slow, 0.03) {
        let most = if plan.has(Kind::DeadPath) {
            55_000
        } else {
            25_000
        };
        let work = random.between(1_000, most);
        // Some issuers act as the request comes in, some when they get to it.
        let acts_at = if random.chance(0.5) {
            now + to
        } else {
            now + to + work
        };
        Fate {
            arrives: Some(acts_at),
            replies: Some(now + to + work + back),
            ..usual
        }
    } else if hit(Kind::Duplicate, 0.01) {
        Fate {
            again: Some(now + to + random.between(1, 3_000)),
            ..usual
        }
    } else if hit(Kind::DeadPath, 0.02) {
        dead_path(now, to, back, plan, random)
    } else {
        usual
    }
}

/// A black hole from some moment on, until it heals: seconds, or minutes. The sender finds out within ten seconds.
fn dead_path(now: u64, to: u64, back: u64, plan: &Plan, random: &mut Random) -> Fate {
    let heals = now
        + [random.between(500, 12_000), random.between(5_000, 150_000)][random.below(2) as usize];
    let found = now + random.between(8_400, 10_000);
    let before = random.chance(0.5);
    // What is under way when the path dies is sent again by the kernel, as long as the sender has not hung up.
    let arrives = if before {
        Some(now + to)
    } else if heals < found || plan.has(Kind::LateArrival) {
        Some(heals + to)
    } else {
        None
    };
    let replies = arrives.map(|at| at.max(heals) + 5 + back);
    Fate {
        arrives,
        replies,
        fails: Some((found, Failed::DeadPath)),
        ..Fate::default()
    }
}

fn not_connected(at: u64) -> Fate {
    Fate {
        fails: Some((at, Failed::NotConnected)),
        ..Fate::default()
    }
}
