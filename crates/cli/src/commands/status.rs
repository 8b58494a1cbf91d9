//! `status`: where the logins stand, at a glance. It sends nothing and makes nothing.

use serde_json::json;

use crate::{
    app::{App, Stay},
    args::Status,
    failure::Failure,
    report::{shown::Shown, table},
};

pub(crate) async fn run(app: &App, args: Status) -> Result<(), Failure> {
    let all = match &args.target {
        None => super::everything(app).await?,
        Some(typed) => vec![one(app, typed).await?],
    };
    if app.report.json() {
        app.report
            .object(json!({ "sessions": all.iter().map(Shown::to_json).collect::<Vec<_>>() }));
    } else if all.is_empty() {
        app.report.say("No logins yet.\nhint: pilotlight login URL");
    } else {
        app.report
            .data(table::statuses(&all, app.now(), app.report.colour()));
    }
    if args.check && all.iter().any(Shown::needs_login) {
        return Err(Failure::silent(NEEDS_LOGIN));
    }
    Ok(())
}

async fn one(app: &App, typed: &str) -> Result<Shown, Failure> {
    let store = app.existing_store()?;
    let bindings = match &store {
        Some(store) => store.bindings().await?,
        None => Vec::new(),
    };
    let target = app.find(typed, &bindings)?;
    if let (Some(store), Some(_)) = (store, &target.binding)
        && let Some(login) = super::shown(&app.sessions(store, Stay::Brief)?, &target.key).await?
    {
        return Ok(login);
    }
    Ok(Shown::never(target.typed(), target.key))
}

const NEEDS_LOGIN: u8 = 3;
