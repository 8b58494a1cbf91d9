//! The harness: a small real program over the library and its store on disk, that can be made to fail.
//!
//! ```text
//!  harness login | work | token | refresh | logout --home FOLDER --url SERVER
//!  harness points
//! ```
//!
//! It reads from its environment `PL_FAIL` ([fail points](super::fail_point)), `PL_WALL_SHIFT_MS`, `PL_WALL_JUMP`
//! (`after_ms:by_ms`) and `PL_BOOT` (any number: the machine has been restarted). What it says goes to standard output, a
//! JSON object a line ([`Said`]).

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use clap::{Args, Parser, Subcommand};
use pilotlight::{
    Error, LoginRequest, Sessions,
    clock::Clock,
    core::{
        credential::{Account, BindingKey},
        error::LoginCause,
        event::Revocation,
        flow::Prompt,
        resource::Resource,
    },
    human::Human,
    store::{SqliteStore, SqliteStoreConfig, Store},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    fail_point::{Deed, FailPoints, Point},
    failing_store::FailingStore,
    said::{Journal, Said},
    skewed_clock::SkewedClock,
    worker::Worker,
};
use crate::ScriptedHuman;

/// What the program is told.
#[derive(Debug, Parser)]
#[command(
    name = "harness",
    about = "A small client of Pilotlight's library, made to fail"
)]
struct Told {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists the fail points.
    Points,
    /// Logs in; somebody clicks Allow.
    Login(Where),
    /// Calls the MCP server until stdin ends or SIGTERM comes.
    Work {
        #[command(flatten)]
        at: Where,
        /// The time between two calls.
        #[arg(long, default_value_t = 100)]
        every_ms: u64,
        /// Make one call for each line on stdin instead.
        #[arg(long)]
        step: bool,
    },
    /// Gives an access token.
    Token {
        #[command(flatten)]
        at: Where,
        /// How long it must still live.
        #[arg(long)]
        min_valid_ms: Option<u64>,
    },
    /// Refreshes.
    Refresh {
        #[command(flatten)]
        at: Where,
        /// Also what is not due.
        #[arg(long)]
        force: bool,
        /// Try again for so long, until there is a new token.
        #[arg(long, default_value_t = 0)]
        insist_ms: u64,
    },
    /// Logs out, and works off what earlier logouts left to be revoked.
    Logout {
        #[command(flatten)]
        at: Where,
        /// Tell the issuer nothing.
        #[arg(long)]
        local: bool,
    },
}

#[derive(Debug, Clone, Args)]
struct Where {
    /// The folder of the store and its key.
    #[arg(long)]
    home: PathBuf,
    /// The MCP server.
    #[arg(long)]
    url: String,
    /// How long a caller waits for a refresh.
    #[arg(long, default_value_t = 30_000)]
    caller_wait_ms: u64,
    /// How long a refresh waits for that of another process.
    #[arg(long, default_value_t = 75_000)]
    lock_wait_ms: u64,
}

impl Command {
    fn at(&self) -> Option<&Where> {
        match self {
            Self::Points => None,
            Self::Login(at)
            | Self::Work { at, .. }
            | Self::Token { at, .. }
            | Self::Refresh { at, .. }
            | Self::Logout { at, .. } => Some(at),
        }
    }
}

/// Runs the program with these arguments, the first of which is its name; gives its exit code.
///
/// # Panics
///
/// If the environment asks for a fail point that does not exist, or there is no runtime: nothing would be proved.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let told = Told::parse_from(arguments);
    let journal = Journal::default();
    let Some(at) = told.command.at().cloned() else {
        let mut out = std::io::stdout().lock();
        for point in Point::all() {
            // A reader that has gone needs no more of them.
            let _ = std::io::Write::write_fmt(&mut out, format_args!("{point}\n"));
        }
        return 0;
    };
    let surroundings = Surroundings::read(journal).unwrap_or_else(|wrong| panic!("{wrong}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("no runtime: {error}"));
    let exit = runtime.block_on(run(told.command, at, surroundings));
    // What still blocks (a name that is looked up, say) is not waited for.
    runtime.shutdown_background();
    exit
}

/// What the environment asks for.
struct Surroundings {
    journal: Journal,
    points: Arc<FailPoints>,
    clock: Arc<dyn Clock>,
}

impl Surroundings {
    #[expect(
        clippy::disallowed_methods,
        reason = "the harness is told by its environment what is to go wrong; no product code reads it"
    )]
    fn read(journal: Journal) -> Result<Self, String> {
        fn value<T: std::str::FromStr>(name: &str) -> Result<Option<T>, String> {
            match std::env::var(name) {
                Ok(text) => text
                    .parse()
                    .map(Some)
                    .map_err(|_| format!("{name}={text} cannot be read")),
                Err(_) => Ok(None),
            }
        }
        let points = FailPoints::parse(&std::env::var("PL_FAIL").unwrap_or_default(), journal)?;
        let shift_ms = value("PL_WALL_SHIFT_MS")?.unwrap_or_default();
        let clock = SkewedClock::new(shift_ms, value("PL_WALL_JUMP")?, value("PL_BOOT")?);
        Ok(Self {
            journal,
            points: Arc::new(points),
            clock: Arc::new(clock),
        })
    }
}

async fn run(command: Command, at: Where, surroundings: Surroundings) -> u8 {
    let Surroundings {
        journal,
        points,
        clock,
    } = surroundings;
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        return Error::ConfigRuntime.exit_code();
    };
    // A file that may not grow is to be an error of the write, not the end of the process.
    let _too_large = signal(SignalKind::from_raw(SIGXFSZ));
    let work = matches!(command, Command::Work { .. });
    let sessions = match open(&at, work, &points, journal, clock.clone()) {
        Ok(sessions) => sessions,
        Err(error) => return failed(journal, &error),
    };
    let exit = tokio::select! {
        exit = Box::pin(obey(command, &at, &sessions, journal, &*clock, &points)) => exit,
        _ = terminated.recv() => 143,
    };
    sessions.drain(WHOLE_TOKEN_CALL).await;
    journal.say(Said::Drained);
    match points.pass(Point::Exit) {
        Ok(()) => exit,
        Err(error) => failed(journal, &error),
    }
}

fn open(
    at: &Where,
    long: bool,
    points: &Arc<FailPoints>,
    journal: Journal,
    clock: Arc<dyn Clock>,
) -> Result<Sessions, Error> {
    points.pass(Point::Before(Deed::Open))?;
    let (data, key) = (
        at.home.join("data"),
        at.home.join("state").join("store.key"),
    );
    let store = SqliteStore::open(&SqliteStoreConfig::new(data, key, "harness", clock.clone()))?;
    points.pass(Point::After(Deed::Open))?;
    let store: Arc<dyn Store> = Arc::new(FailingStore::new(store, Arc::clone(points), journal));
    let mut limits = pilotlight::Limits::default();
    limits.caller_wait = Duration::from_millis(at.caller_wait_ms);
    limits.lock_wait = Duration::from_millis(at.lock_wait_ms);
    Sessions::builder(store)
        .human(Arc::new(Clicks(Arc::clone(points))))
        .clock(clock)
        .limits(limits)
        .program("Pilotlight harness")
        .one_shot(!long)
        .open()
}

async fn obey(
    command: Command,
    at: &Where,
    sessions: &Sessions,
    journal: Journal,
    clock: &dyn Clock,
    points: &FailPoints,
) -> u8 {
    let done = async {
        let url = Resource::parse(&at.url)?;
        let account = Account::default();
        match command {
            Command::Points => {}
            Command::Login(_) => {
                let done = Box::pin(sessions.login(LoginRequest::new(url, account))).await?;
                journal.say(Said::LoggedIn {
                    adopted: done.adopted,
                });
            }
            Command::Work { every_ms, step, .. } => {
                let session = sessions.get(&url, &account).await?;
                journal.say(Said::Ready);
                let every = (!step).then_some(Duration::from_millis(every_ms.max(1)));
                let worker = Worker {
                    session,
                    points,
                    journal,
                    clock,
                };
                worker.work(every).await;
            }
            Command::Token { min_valid_ms, .. } => {
                let session = sessions.get(&url, &account).await?;
                let wanted = min_valid_ms.map(Duration::from_millis);
                let token = session.token(wanted).await?;
                let left = |at| clock.now().wall.until(at);
                journal.say(Said::Token {
                    access_token: token.access_token.expose().to_owned(),
                    expires_in_ms: token
                        .expires_at
                        .map(left)
                        .map(pilotlight::core::time::millis),
                    warning: token.warning.map(|error| error.code().to_owned()),
                });
            }
            Command::Refresh {
                force, insist_ms, ..
            } => {
                let session = sessions.get(&url, &account).await?;
                let until = clock.now().mono + Duration::from_millis(insist_ms);
                let mut tries = 1;
                let refreshed = loop {
                    let report = session.refresh(force).await;
                    let patient = clock.now().mono < until;
                    match report {
                        Ok(report) if report.refreshed => break true,
                        Ok(_) if !patient => break false,
                        Err(error) if !patient || error.exit_code() != LATER => return Err(error),
                        _ => tries += 1,
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                };
                journal.say(Said::Refreshed { refreshed, tries });
            }
            Command::Logout { local, .. } => {
                let key = BindingKey::new(url, account);
                let ended = sessions.logout(&key, local).await;
                let late = sessions.retry_revocations().await?;
                let revocation = match (ended, late) {
                    (Err(_), 1..) => Revocation::Revoked,
                    (ended, _) => ended?,
                };
                journal.say(Said::LoggedOut {
                    revocation: format!("{revocation:?}").to_lowercase(),
                });
            }
        }
        Ok::<(), Error>(())
    };
    match done.await {
        Ok(()) => 0,
        Err(error) => failed(journal, &error),
    }
}

fn failed(journal: Journal, error: &Error) -> u8 {
    journal.say(Said::Failed {
        code: error.code().to_owned(),
        words: error.to_string(),
    });
    error.exit_code()
}

/// Somebody who opens the URL and clicks Allow.
#[derive(Debug)]
struct Clicks(Arc<FailPoints>);

#[async_trait]
impl Human for Clicks {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        self.0.pass(Point::Shown)?;
        ScriptedHuman::allows()
            .visit(prompt.url.as_str())
            .await
            .map_err(|_| Error::login(LoginCause::Abandoned))?;
        // The redirect comes to the listener, as from a browser.
        std::future::pending().await
    }
}

/// The exit code of what is worth trying again.
const LATER: u8 = 75;
const SIGXFSZ: i32 = 25;
const WHOLE_TOKEN_CALL: Duration = Duration::from_secs(75);
