//! `logout`: the issuer is told, and nothing of the login is left here.

use pilotlight_core::{Error, error::LoginCause, event::Revocation};
use serde_json::json;

use crate::{
    app::{App, Stay},
    args::Logout,
    failure::Failure,
    report::story,
    target::Target,
};

pub(crate) async fn run(app: &App, args: Logout) -> Result<(), Failure> {
    let (store, targets) = match &args.target {
        Some(typed) => {
            let (store, target) = app.open_target(typed).await?;
            (Some(store), vec![target])
        }
        None => {
            let store = app.existing_store()?;
            let bindings = match &store {
                Some(store) => store.bindings().await?,
                None => Vec::new(),
            };
            let live = bindings
                .into_iter()
                .filter(|binding| binding.credential.is_some());
            let targets = live.map(|binding| Target {
                key: binding.key.clone(),
                binding: Some(binding),
                server: None,
            });
            (store, targets.collect())
        }
    };
    let mut done = Vec::new();
    if let Some(store) = store {
        let sessions = app.sessions(store, Stay::Brief)?;
        for target in &targets {
            let what = format!("logging out of {}", target.typed());
            let revocation = match app
                .report
                .wait(&what, sessions.logout(&target.key, args.local))
                .await
            {
                Ok(revocation) => revocation,
                // With --all, what is out already is as it should be.
                Err(Error::LoginRequired {
                    cause: LoginCause::Never,
                }) if args.all => continue,
                Err(error) => return Err(Failure::of(&error, target)),
            };
            if !app.report.json() {
                app.report.say(format!(
                    "{}: {}.",
                    target.typed(),
                    story::logged_out(revocation)
                ));
            }
            done.push(entry(target, revocation));
        }
    }
    if app.report.json() {
        app.report.object(json!({ "logouts": done }));
    } else if done.is_empty() {
        app.report.say("Nobody is logged in anywhere.");
    }
    Ok(())
}

fn entry(target: &Target, revocation: Revocation) -> serde_json::Value {
    json!({
        "name": target.typed(),
        "url": target.key.url.as_str(),
        "account": target.key.account.as_str(),
        "revocation": revocation,
    })
}
