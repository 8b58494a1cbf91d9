//! One command a file.

mod call;
mod completions;
mod demo;
mod grant;
mod import;
mod list;
mod login;
mod logout;
mod paths;
mod proxy;
mod refresh;
mod rename;
mod status;
mod token;
mod tools;
mod version;
mod why;

use pilotlight::Sessions;
use pilotlight_core::credential::BindingKey;

use crate::{
    app::{App, Stay},
    args::Command,
    failure::Failure,
    report::shown::Shown,
};

/// Carries out what was typed.
pub(crate) async fn run(app: &App, command: Command) -> Result<(), Failure> {
    match command {
        Command::Login(args) => Box::pin(login::run(app, *args)).await,
        Command::List => list::run(app).await,
        Command::Status(args) => status::run(app, args).await,
        Command::Tools(args) => Box::pin(tools::run(app, args)).await,
        Command::Call(args) => Box::pin(call::run(app, args)).await,
        Command::Token(args) => Box::pin(token::run(app, args)).await,
        Command::Refresh(args) => Box::pin(refresh::run(app, args)).await,
        Command::Logout(args) => Box::pin(logout::run(app, args)).await,
        Command::Import(args) => Box::pin(import::run(app, args)).await,
        Command::Why(args) => why::run(app, args).await,
        Command::Rename(args) => rename::run(app, args).await,
        Command::Paths => paths::run(app),
        Command::Proxy(args) => Box::pin(proxy::run(app, args)).await,
        Command::Demo(args) => Box::pin(demo::run(app, args)).await,
        Command::Completions(args) => completions::run(app, args),
        Command::Version => version::run(app),
        Command::DemoWorker(args) => Box::pin(crate::demo::worker::run(app, args)).await,
    }
}

/// Whether a command needs threads beside the main one.
pub(crate) fn is_busy(command: &Command) -> bool {
    matches!(command, Command::Demo(_))
}

/// Whether a command hears signals itself, and ends in its own way.
pub(crate) fn ends_itself(command: &Command) -> bool {
    matches!(command, Command::Proxy(_))
}

/// What the log is called that a command keeps for itself, if it does.
pub(crate) fn keeps_log(command: &Command) -> Option<String> {
    match command {
        Command::Proxy(args) => Some(proxy::log_name(args)),
        _ => None,
    }
}

/// What to say when a person stops the command.
pub(crate) fn when_interrupted(command: &Command) -> &'static str {
    match command {
        Command::Login(_) => "login cancelled, nothing changed",
        _ => "interrupted, nothing is lost",
    }
}

/// Every login of the store and every configured server, as they stand; those that a logout ended are left out.
async fn everything(app: &App) -> Result<Vec<Shown>, Failure> {
    let mut all = Vec::new();
    if let Some(store) = app.existing_store()? {
        let statuses = app.sessions(store, Stay::Brief)?.statuses().await?;
        all.extend(statuses.iter().map(Shown::from).filter(Shown::exists));
    }
    for server in app.settings.servers.iter().map(Shown::configured) {
        // One that names no account stands for any.
        if !all.iter().any(|login| login.key.url == server.key.url) {
            all.push(server);
        }
    }
    Ok(all)
}

/// Where the login of a binding stands.
async fn shown(sessions: &Sessions, key: &BindingKey) -> Result<Option<Shown>, Failure> {
    match sessions.store().binding(key).await? {
        Some(binding) => Ok(Some(Shown::from(&sessions.status(&binding).await?))),
        None => Ok(None),
    }
}
