//! `pilotlight`: arguments in, words and exit codes out.

mod app;
mod approver;
mod args;
mod commands;
mod config;
mod demo;
mod failure;
mod log;
mod mcp;
mod mcp_remote;
mod report;
mod target;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

use crate::{
    app::App,
    args::Cli,
    config::{Environment, Settings},
    failure::Failure,
    report::Report,
};

fn main() -> ExitCode {
    keep_memory_private();
    let line: Vec<_> = std::env::args_os().collect();
    let line = mcp_remote::rearranged(line.clone()).unwrap_or(line);
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => {
            let json = std::env::args_os().any(|argument| argument == "--json");
            return ExitCode::from(report::usage::usage(error, json));
        }
    };
    let environment = Environment::of_this_process();
    let report = Report::new(&cli.global, &environment);
    let done = Settings::resolve(&cli.global, environment)
        .map_err(Failure::from)
        .and_then(|mut settings| {
            match commands::keeps_log(&cli.command) {
                Some(name) => log::keep(&mut settings, &name, cli.global.verbose)?,
                None => log::start(
                    settings.log.as_ref().map(|log| log.value.as_path()),
                    cli.global.verbose,
                )?,
            }
            run(&App::new(settings, report.clone()), cli.command)
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report.fail(&failure);
            ExitCode::from(failure.exit)
        }
    }
}

/// Runs a command to its end, or until a person stops it; either way what is under way reaches the store.
fn run(app: &App, command: args::Command) -> Result<(), Failure> {
    let said = commands::when_interrupted(&command);
    let runtime = runtime(commands::is_busy(&command))?;
    let done = runtime.block_on(async {
        if commands::ends_itself(&command) {
            let done = Box::pin(commands::run(app, command)).await;
            // A signal that came before was for the command.
            let mut stop = Stop::new()?;
            tokio::select! {
                () = app.finish(WHOLE_TOKEN_CALL) => {}
                _ = stop.asked() => {}
            }
            return done;
        }
        let mut stop = Stop::new()?;
        tokio::select! {
            done = Box::pin(commands::run(app, command)) => {
                // Whoever stops the program now does not want to wait for the rest.
                tokio::select! {
                    () = app.finish(WHOLE_TOKEN_CALL) => {}
                    _ = stop.asked() => {}
                }
                done
            }
            exit = stop.asked() => {
                tokio::select! {
                    () = app.finish(WHOLE_TOKEN_CALL) => {}
                    _ = stop.asked() => {}
                }
                Err(Failure::interrupted(said, exit))
            }
        }
    });
    // A thread that still waits (for a name to resolve, say) is not waited for.
    runtime.shutdown_background();
    done
}

fn runtime(busy: bool) -> Result<Runtime, Failure> {
    let mut builder = if busy {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    builder
        .enable_all()
        .worker_threads(2)
        .build()
        .map_err(|_| pilotlight_core::Error::ConfigRuntime.into())
}

/// The signals by which a person or a service manager asks the program to stop.
#[cfg(unix)]
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Stop {
    fn new() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen =
            |kind| signal(kind).map_err(|_| Failure::from(pilotlight_core::Error::ConfigRuntime));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for either, and says which exit code it means.
    async fn asked(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}

#[cfg(not(unix))]
struct Stop;

#[cfg(not(unix))]
impl Stop {
    fn new() -> Result<Self, Failure> {
        Ok(Self)
    }

    async fn asked(&mut self) -> u8 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        130
    }
}

/// Tokens live in memory: no core file of it, and no other program of the same user may look into it (T-32).
#[cfg(target_os = "linux")]
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // Where the system refuses, there is nothing more to be done about it.
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(not(target_os = "linux"))]
fn keep_memory_private() {}

/// A rotation under way at the end of a command is waited for as long as a token call may take.
const WHOLE_TOKEN_CALL: Duration = Duration::from_secs(75);
