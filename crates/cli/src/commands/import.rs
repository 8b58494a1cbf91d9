//! `import`: the logins of another program, shared with it, or moved.

use std::sync::Arc;

use pilotlight::Flag;
use pilotlight_core::credential::BindingKey;
use serde_json::json;

use crate::{
    app::{App, Stay},
    args::{Import, Tool},
    failure::Failure,
    mcp_remote::{self, Invocation, Joined, SHARED},
};

pub(crate) async fn run(app: &App, args: Import) -> Result<(), Failure> {
    let Tool::McpRemote = args.tool;
    let shared = app.shared()?;
    let sessions = app.sessions(Arc::new(shared.clone()), Stay::Brief)?;
    let (mut brought, mut copied, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
    for url in &args.urls {
        let read = mcp_remote::read(vec![url.clone()], &app.settings.environment);
        let Invocation::Run(options) = read else {
            let why = format!("{url} is no URL of a server");
            return Err(Failure::usage(why, 2));
        };
        let target = app.find(options.server.as_str(), &sessions.store().bindings().await?)?;
        let joined = mcp_remote::join(&sessions, &shared, &options, &target.key).await;
        match joined.map_err(|error| Failure::of(&error, &target))? {
            Joined::Shared => {
                app.report.say(format!("{}: {SHARED}.", target.typed()));
                brought.push(target.typed());
            }
            Joined::Copied => {
                let how = "copied from an older mcp-remote, and Pilotlight's alone";
                app.report.say(format!("{}: {how}.", target.typed()));
                copied.push(target.typed());
            }
            Joined::Neither => {
                let why = format!(
                    "mcp-remote has no login for {url}, or there is one here already that is not shared"
                );
                return Err(Failure::usage(why, 1));
            }
        }
        wanted.push(target.key);
    }
    let mut moved = Vec::new();
    if args.moves {
        moved = moves(app, &sessions, &shared, &wanted).await?;
    }
    if app.report.json() {
        app.report
            .object(json!({ "shared": brought, "copied": copied, "moved": moved }));
    }
    Ok(())
}

/// Ends sharing for those that are named, or for all.
async fn moves(
    app: &App,
    sessions: &pilotlight::Sessions,
    shared: &pilotlight::mcp_remote::Shared,
    wanted: &[BindingKey],
) -> Result<Vec<String>, Failure> {
    let mut moved = Vec::new();
    for status in sessions.statuses().await? {
        let is_meant = wanted.is_empty() || wanted.contains(&status.binding.key);
        let Some(credential) = status.binding.credential.filter(|_| is_meant) else {
            continue;
        };
        if status.flags.contains(&Flag::WithMcpRemote) && shared.keep_alone(&credential).await? {
            app.report.say(format!(
                "{} is Pilotlight's alone; mcp-remote has to log in again.",
                status.binding.name
            ));
            moved.push(status.binding.name);
        }
    }
    if moved.is_empty() {
        app.report.say("No login is shared with mcp-remote.");
    }
    Ok(moved)
}
