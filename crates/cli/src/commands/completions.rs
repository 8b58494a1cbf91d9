//! `completions`: a script that teaches a shell our commands.

use clap::CommandFactory as _;

use crate::{
    app::App,
    args::{Cli, Completions},
    failure::Failure,
};

pub(crate) fn run(app: &App, args: Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pilotlight", &mut script);
    app.report.raw(&script);
    Ok(())
}
