//! The places where a process of the harness can be made to die, to stop, or to be refused.
//!
//! A process is given them in its environment: `PL_FAIL=before-commit` kills it before the first commit of a refresh,
//! `PL_FAIL=after-lock:2=stop` stops it when it has taken the lock for the second time, and
//! `PL_FAIL=before-commit=refuse,before-spool=late-kill:300` lets the store refuse the commit and kills the process
//! 300 microseconds into the write to the spool. `PL_FAIL=before-commit=outage:500,before-spool=outage:500` is a disk that
//! refuses for half a second from the first commit on.

use std::{
    fmt,
    str::FromStr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use pilotlight::{
    Error,
    clock::{Clock as _, SystemClock},
    core::time::Mono,
};
use rustix::process::{Signal, getpid, kill_process};

use super::said::{Journal, Said};

/// What a process does at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Opening the store, which makes it where there is none.
    Open,
    /// Taking the lock of a refresh.
    Lock,
    /// Reading store and spool under that lock.
    Read,
    /// Noting that a refresh token is being spent; the request leaves straight after it.
    Attempt,
    /// Keeping that note in the spool, because the store refuses it.
    SpoolAttempt,
    /// Committing a refresh; the answer has come straight before it.
    Commit,
    /// Keeping a refresh or a login in the spool.
    Spool,
    /// Bringing to the store what the spool holds.
    Merge,
    /// Noting a failure, a refusal or an acceptance.
    Fact,
    /// Writing down what was learned about an issuer.
    Learn,
    /// Making the spool slot of a login.
    PrepareSpool,
    /// Keeping a registration.
    Register,
    /// Committing a login.
    LoginCommit,
    /// Writing down how a login ended.
    Outcome,
    /// Reading how the last login ended.
    ReadOutcome,
    /// Ending a login in the store.
    Bury,
    /// Taking a revocation off the queue, because the issuer has answered.
    Revoked,
}

/// A named place in the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before something is done.
    Before(Deed),
    /// After it was done, before anybody is told.
    After(Deed),
    /// The login URL is shown, and the listener waits for the redirect.
    Shown,
    /// A call to the MCP server has its token, and leaves straight after it.
    Call,
    /// Everything is done and drained; the process is about to end.
    Exit,
}

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// SIGTERM.
    Terminate,
    /// SIGKILL, after so long: inside of what is done there.
    LateKill(Duration),
    /// The store refuses, this many times from here on.
    Refuse(u32),
    /// The store refuses for so long. It is one disk: its outage begins at the first such point in the list, and until then
    /// the others let everything pass.
    Outage(Duration),
}

/// An action at the n-th time that a point is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailPoint {
    /// Where.
    pub point: Point,
    /// At which passage, from 1.
    pub nth: u32,
    /// What happens.
    pub action: Action,
}

/// The fail points of a process, and how often each was passed.
#[derive(Debug, Default)]
pub struct FailPoints {
    armed: Vec<(FailPoint, AtomicU32)>,
    /// Since when the disk refuses.
    away_since: OnceLock<Mono>,
    journal: Journal,
}

impl Deed {
    /// Every deed.
    pub const ALL: [Self; 17] = [
        Self::Open,
        Self::Lock,
        Self::Read,
        Self::Attempt,
        Self::SpoolAttempt,
        Self::Commit,
        Self::Spool,
        Self::Merge,
        Self::Fact,
        Self::Learn,
        Self::PrepareSpool,
        Self::Register,
        Self::LoginCommit,
        Self::Outcome,
        Self::ReadOutcome,
        Self::Bury,
        Self::Revoked,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Lock => "lock",
            Self::Read => "read",
            Self::Attempt => "attempt",
            Self::SpoolAttempt => "spool-attempt",
            Self::Commit => "commit",
            Self::Spool => "spool",
            Self::Merge => "merge",
            Self::Fact => "fact",
            Self::Learn => "learn",
            Self::PrepareSpool => "prepare-spool",
            Self::Register => "register",
            Self::LoginCommit => "login-commit",
            Self::Outcome => "outcome",
            Self::ReadOutcome => "read-outcome",
            Self::Bury => "bury",
            Self::Revoked => "revoked",
        }
    }
}

impl Point {
    /// Every point, in no order that matters.
    pub fn all() -> impl Iterator<Item = Self> {
        Deed::ALL
            .into_iter()
            .flat_map(|deed| [Self::Before(deed), Self::After(deed)])
            .chain([Self::Shown, Self::Call, Self::Exit])
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(deed) => write!(f, "before-{}", deed.name()),
            Self::After(deed) => write!(f, "after-{}", deed.name()),
            Self::Shown => f.write_str("shown"),
            Self::Call => f.write_str("call"),
            Self::Exit => f.write_str("exit"),
        }
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::all()
            .find(|point| point.to_string() == name)
            .ok_or_else(|| format!("no fail point is called {name}"))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("kill"),
            Self::Stop => f.write_str("stop"),
            Self::Terminate => f.write_str("term"),
            Self::LateKill(after) => write!(f, "late-kill:{}", after.as_micros()),
            Self::Refuse(times) => write!(f, "refuse:{times}"),
            Self::Outage(length) => write!(f, "outage:{}", length.as_millis()),
        }
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().map_err(|error| error.to_string());
        Ok(match text.split_once(':').unwrap_or((text, "")) {
            ("kill", "") => Self::Kill,
            ("stop", "") => Self::Stop,
            ("term", "") => Self::Terminate,
            ("late-kill", micros) => Self::LateKill(Duration::from_micros(number(micros)?.into())),
            ("refuse", "") => Self::Refuse(1),
            ("refuse", times) => Self::Refuse(number(times)?),
            ("outage", ms) => Self::Outage(Duration::from_millis(number(ms)?.into())),
            _ => return Err(format!("no action is called {text}")),
        })
    }
}

impl FailPoint {
    /// An action at the first passage.
    #[must_use]
    pub fn new(point: Point, action: Action) -> Self {
        Self {
            point,
            nth: 1,
            action,
        }
    }
}

impl fmt::Display for FailPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}={}", self.point, self.nth, self.action)
    }
}

impl FromStr for FailPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, action) = text.split_once('=').unwrap_or((text, "kill"));
        let (point, nth) = place.split_once(':').unwrap_or((place, "1"));
        Ok(Self {
            point: point.parse()?,
            nth: nth.parse().map_err(|_| format!("{nth} is no number"))?,
            action: action.parse()?,
        })
    }
}

impl FailPoints {
    /// Reads the fail points that a text lists, separated by commas.
    ///
    /// # Errors
    ///
    /// In words, what cannot be read: a fail point that is silently ignored would prove nothing.
    pub fn parse(text: &str, journal: Journal) -> Result<Self, String> {
        let armed = text
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().map(|point| (point, AtomicU32::new(0))))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            armed,
            away_since: OnceLock::new(),
            journal,
        })
    }

    /// Passes a point. Whatever is armed there happens now.
    ///
    /// # Errors
    ///
    /// `unavailable.store` where the store is to refuse.
    pub fn pass(&self, point: Point) -> Result<(), Error> {
        for (armed, passed) in &self.armed {
            if armed.point != point {
                continue;
            }
            let passage = passed.fetch_add(1, Ordering::SeqCst) + 1;
            let acts = match armed.action {
                Action::Outage(length) => passage >= armed.nth && self.is_away(armed, length),
                Action::Refuse(times) => (armed.nth..armed.nth + times).contains(&passage),
                _ => passage == armed.nth,
            };
            if !acts {
                continue;
            }
            self.journal.say(Said::Point {
                name: point.to_string(),
                action: armed.action.to_string(),
            });
            perform(armed.action)?;
        }
        Ok(())
    }

    /// Whether the disk refuses now.
    fn is_away(&self, at: &FailPoint, length: Duration) -> bool {
        let outage = |armed: &&FailPoint| matches!(armed.action, Action::Outage(_));
        let first = self.armed.iter().map(|(armed, _)| armed).find(outage);
        let now = SystemClock.now().mono;
        let since = match self.away_since.get() {
            Some(since) => since,
            None if first == Some(at) => self.away_since.get_or_init(|| now),
            None => return false,
        };
        since.until(now) < length
    }
}

fn perform(action: Action) -> Result<(), Error> {
    match action {
        Action::Kill => send(Signal::KILL),
        Action::Stop => send(Signal::STOP),
        Action::Terminate => send(Signal::TERM),
        Action::LateKill(after) => {
            std::thread::spawn(move || {
                std::thread::sleep(after);
                send(Signal::KILL);
            });
        }
        Action::Refuse(_) | Action::Outage(_) => {
            let why = "a fail point refuses".to_owned();
            return Err(Error::StoreUnavailable { why });
        }
    }
    Ok(())
}

/// Sends a signal to this very process. The kernel may hand it to another thread first: this one then waits the moment
/// that it takes to reach them all.
fn send(signal: Signal) {
    if kill_process(getpid(), signal).is_ok() && signal != Signal::TERM {
        let forever = signal == Signal::KILL;
        std::thread::sleep(Duration::from_millis(if forever { 10_000 } else { 5 }));
    }
}

#[cfg(test)]
mod tests;
