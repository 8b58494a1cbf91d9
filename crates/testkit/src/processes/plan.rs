//! What is to go wrong in a round, drawn from a seed: the same seed, the same plan.

use std::{fmt, time::Duration};

use super::{
    dice::Dice,
    fail_point::{Action, Deed, FailPoint, Point},
};

/// The plan of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// What is under attack.
    pub kind: Kind,
    /// How long access tokens live.
    pub token_life: Duration,
    /// How long the issuer keeps each of its next answers back.
    pub slow_answers_ms: Vec<u64>,
    /// The processes that work meanwhile.
    pub workers: Vec<Worker>,
    /// What happens to processes that are started for one thing only.
    pub one_shots: Vec<Assault>,
}

/// What is under attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The first login, on a store that does not exist yet.
    FirstLogin,
    /// A login where there is one.
    SecondLogin,
    /// Refreshes.
    Refresh,
    /// A logout.
    Logout,
}

/// A process that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The time between two of its calls.
    pub every_ms: u64,
    /// How far its wall clock is off.
    pub shift_ms: i64,
    /// A step of its wall clock, `after_ms:by_ms`.
    pub jump: Option<(u64, i64)>,
    /// What happens to it.
    pub assault: Option<Assault>,
}

/// What happens to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assault {
    /// When the process is started, or when it happens to one that works.
    pub after_ms: u64,
    /// What.
    pub blow: Blow,
    /// How long a process that was stopped stays so.
    pub stopped_ms: u64,
    /// Whether it is killed after that, instead of going on.
    pub then_killed: bool,
}

/// How.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blow {
    /// At these fail points.
    At(Vec<FailPoint>),
    /// By a signal, so long after it was started or, for one that works, at once.
    Timed(Sudden, Duration),
}

/// A signal from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sudden {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGSTOP, and later SIGCONT.
    Stop,
}

impl fmt::Display for Sudden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "timed kill",
            Self::Terminate => "timed term",
            Self::Stop => "timed stop",
        })
    }
}

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let kind = match dice.between(1, 100) {
            1..=8 => Kind::FirstLogin,
            9..=16 => Kind::SecondLogin,
            17..=26 => Kind::Logout,
            _ => Kind::Refresh,
        };
        let count = dice.between(2, 4);
        let mut workers: Vec<Worker> = (0..count).map(|_| worker(&mut dice)).collect();
        let mut one_shots = Vec::new();
        if kind == Kind::Refresh {
            for worker in &mut workers {
                worker.assault = dice.percent(35).then(|| on_worker(&mut dice));
            }
            let none_yet = workers.iter().all(|worker| worker.assault.is_none());
            let count = dice.between(u64::from(none_yet), 2);
            one_shots.extend((0..count).map(|_| on_one_shot(&mut dice, kind)));
        } else {
            one_shots.push(on_one_shot(&mut dice, kind));
        }
        let slow_answers_ms = if dice.percent(50) {
            (0..6).map(|_| dice.between(0, 60)).collect()
        } else {
            Vec::new()
        };
        Self {
            seed,
            kind,
            token_life: Duration::from_secs(dice.between(1, 2)),
            slow_answers_ms,
            workers,
            one_shots,
        }
    }
}

fn worker(dice: &mut Dice) -> Worker {
    let wrong = dice.percent(15);
    let jumps = dice.percent(10);
    Worker {
        every_ms: dice.between(60, 150),
        shift_ms: if wrong { dice.one_of(&SHIFTS_MS) } else { 0 },
        jump: jumps.then(|| (dice.between(50, 900), dice.one_of(&SHIFTS_MS))),
        assault: None,
    }
}

/// A worker refreshes when its token is due; an armed one has to live until then.
fn on_worker(dice: &mut Dice) -> Assault {
    let blow = if dice.percent(60) {
        let deed = dice.one_of(&[
            Deed::Lock,
            Deed::Read,
            Deed::Attempt,
            Deed::Commit,
            Deed::Fact,
        ]);
        let mut points = vec![FailPoint::new(side(dice, deed), action(dice))];
        match dice.between(1, 100) {
            1..=10 => points = refused_commit(dice),
            11..=25 => points = refused_everywhere(dice),
            _ => {}
        }
        Blow::At(points)
    } else {
        Blow::Timed(sudden(dice), Duration::ZERO)
    };
    Assault {
        after_ms: dice.between(0, 900),
        blow,
        stopped_ms: dice.between(50, 700),
        then_killed: dice.percent(25),
    }
}

fn on_one_shot(dice: &mut Dice, kind: Kind) -> Assault {
    let deeds: &[Deed] = match kind {
        Kind::FirstLogin | Kind::SecondLogin => &LOGIN_DEEDS,
        Kind::Refresh => &REFRESH_DEEDS,
        Kind::Logout => &LOGOUT_DEEDS,
    };
    let blow = if dice.percent(70) {
        let deed = dice.one_of(deeds);
        let login = matches!(kind, Kind::FirstLogin | Kind::SecondLogin);
        Blow::At(match kind {
            Kind::Refresh if dice.percent(15) => refused_commit(dice),
            Kind::Refresh if dice.percent(20) => refused_everywhere(dice),
            _ if login && dice.percent(10) => vec![FailPoint::new(Point::Shown, action(dice))],
            _ if dice.percent(5) => vec![FailPoint::new(Point::Exit, Action::Kill)],
            _ => vec![FailPoint::new(side(dice, deed), action(dice))],
        })
    } else {
        Blow::Timed(
            sudden(dice),
            Duration::from_micros(dice.between(0, 120_000)),
        )
    };
    Assault {
        after_ms: dice.between(0, 300),
        blow,
        stopped_ms: dice.between(50, 500),
        then_killed: dice.percent(25),
    }
}

/// The store refuses the commit, so that the spool takes it; there, or when the spool is brought in, it strikes.
fn refused_commit(dice: &mut Dice) -> Vec<FailPoint> {
    let deed = dice.one_of(&[Deed::Spool, Deed::Merge]);
    vec![
        FailPoint::new(Point::Before(Deed::Commit), Action::Refuse(1)),
        FailPoint::new(side(dice, deed), action(dice)),
    ]
}

/// Store and spool refuse the commit, so that the process alone holds the newest version, and the lock. Then it strikes, or
/// nothing does and the disk comes back.
fn refused_everywhere(dice: &mut Dice) -> Vec<FailPoint> {
    // An access token lives for longer than most outages; in the others the process may have to rotate once more.
    let outage_ms = if dice.percent(75) {
        dice.between(50, 900)
    } else {
        dice.between(900, 2500)
    };
    // The first read under the lock comes before the call.
    let (point, nth) = dice.one_of(&[
        (Point::Before(Deed::Spool), 1),
        (Point::Before(Deed::Spool), 2),
        (Point::Before(Deed::Merge), 1),
        (Point::Before(Deed::Merge), 2),
        (Point::Before(Deed::Read), 2),
        (Point::After(Deed::Read), 2),
    ]);
    let action = match dice.between(1, 100) {
        1..=25 => Some(Action::LateKill(Duration::from_micros(
            dice.between(1, 1000 * outage_ms),
        ))),
        26..=40 => Some(Action::Kill),
        41..=60 => Some(Action::Stop),
        61..=80 => Some(Action::Terminate),
        _ => None,
    };
    // First what strikes: a point that refuses ends there.
    let mut points: Vec<FailPoint> = action
        .map(|action| FailPoint { point, nth, action })
        .into_iter()
        .collect();
    let mut deeds = vec![Deed::Commit, Deed::Spool, Deed::Merge];
    if dice.percent(50) {
        deeds.extend([Deed::Attempt, Deed::SpoolAttempt, Deed::Fact]);
    }
    let outage = Action::Outage(Duration::from_millis(outage_ms));
    points.extend(
        deeds
            .into_iter()
            .map(|deed| FailPoint::new(Point::Before(deed), outage)),
    );
    points
}

fn side(dice: &mut Dice, deed: Deed) -> Point {
    if dice.percent(50) {
        Point::Before(deed)
    } else {
        Point::After(deed)
    }
}

fn action(dice: &mut Dice) -> Action {
    match dice.between(1, 100) {
        1..=50 => Action::Kill,
        51..=80 => Action::LateKill(Duration::from_micros(dice.between(0, 4000))),
        81..=94 => Action::Stop,
        _ => Action::Terminate,
    }
}

fn sudden(dice: &mut Dice) -> Sudden {
    match dice.between(1, 100) {
        1..=60 => Sudden::Kill,
        61..=85 => Sudden::Stop,
        _ => Sudden::Terminate,
    }
}

const LOGIN_DEEDS: [Deed; 8] = [
    Deed::Open,
    Deed::PrepareSpool,
    Deed::Register,
    Deed::Spool,
    Deed::Lock,
    Deed::Read,
    Deed::LoginCommit,
    Deed::Outcome,
];

const REFRESH_DEEDS: [Deed; 6] = [
    Deed::Open,
    Deed::Lock,
    Deed::Read,
    Deed::Attempt,
    Deed::Commit,
    Deed::Learn,
];

const LOGOUT_DEEDS: [Deed; 4] = [Deed::Open, Deed::Lock, Deed::Bury, Deed::Revoked];

/// Ten minutes and ten years, either way.
const SHIFTS_MS: [i64; 4] = [600_000, -600_000, 315_360_000_000, -315_360_000_000];

#[cfg(test)]
mod tests {
    use super::*;

    /// I-19: a seed is a plan, and seeds differ.
    #[test]
    fn a_seed_is_a_plan() {
        let plans: Vec<Plan> = (0..300).map(Plan::draw).collect();
        for plan in &plans {
            assert_eq!(*plan, Plan::draw(plan.seed));
            let attacked = plan.workers.iter().any(|worker| worker.assault.is_some());
            assert!(attacked || !plan.one_shots.is_empty(), "{plan:?}");
        }
        for kind in [
            Kind::FirstLogin,
            Kind::SecondLogin,
            Kind::Refresh,
            Kind::Logout,
        ] {
            assert!(plans.iter().any(|plan| plan.kind == kind), "{kind:?}");
        }
    }
}
