//! `refresh`: what is due now, of one login or of all; a timer can call it.

use pilotlight_core::{Error, error::LoginCause, state::State};
use serde_json::{Value, json};

use crate::{
    app::{App, Stay},
    args::Refresh,
    failure::Failure,
    report::{shown::Shown, words},
    target::Target,
};

pub(crate) async fn run(app: &App, args: Refresh) -> Result<(), Failure> {
    let Some(store) = app.existing_store()? else {
        return match &args.target {
            Some(typed) => Err(Failure::of(
                &Error::login(LoginCause::Never),
                &app.find(typed, &[])?,
            )),
            None => nothing(app),
        };
    };
    let bindings = store.bindings().await?;
    let known = app.known(&bindings);
    let targets: Vec<Target> = match &args.target {
        Some(typed) => vec![known.find(typed)?],
        None if args.all => {
            let live = bindings
                .iter()
                .filter(|binding| binding.credential.is_some());
            live.map(|binding| Target {
                key: binding.key.clone(),
                binding: Some(binding.clone()),
                server: None,
            })
            .collect()
        }
        None => vec![known.sole()?],
    };
    if targets.is_empty() {
        return nothing(app);
    }
    let sessions = app.sessions(store, Stay::Brief)?;
    let (mut results, mut worst) = (Vec::new(), None::<Failure>);
    for target in &targets {
        let work = async {
            let session = sessions.get(&target.key.url, &target.key.account).await?;
            session.refresh(args.force).await
        };
        let what = format!("refreshing {}", target.typed());
        match app.report.wait(&what, work).await {
            Ok(report) => {
                let login = Shown::from(&report.status);
                say(app, &login, report.refreshed);
                results.push(json!({ "name": login.name, "refreshed": report.refreshed, "session": login.to_json(), "error": null }));
            }
            // With --all, what a logout has ended is no failure.
            Err(Error::LoginRequired {
                cause: LoginCause::Never,
            }) if args.all => {}
            Err(error) => {
                let failure = Failure::of(&error, target);
                results.push(json!({ "name": target.typed(), "refreshed": false, "session": Value::Null, "error": failure.to_json() }));
                if targets.len() > 1 && !app.report.json() {
                    app.report.must_say(format!(
                        "{}: {} ({})",
                        target.typed(),
                        failure.message,
                        failure.code
                    ));
                }
                // A person to log in outranks a bad moment.
                worst = Some(
                    worst
                        .take()
                        .filter(|worst| worst.exit <= failure.exit)
                        .unwrap_or(failure),
                );
            }
        }
    }
    if args.all
        && let Err(error) = sessions.retry_revocations().await
    {
        app.report.warn(format!(
            "an earlier logout still waits to be told to its issuer ({})",
            error.code()
        ));
    }
    if app.report.json() && (targets.len() > 1 || worst.is_none()) {
        app.report.object(json!({ "refreshes": results }));
    }
    worst.map_or(Ok(()), Err)
}

fn say(app: &App, login: &Shown, refreshed: bool) {
    if app.report.json() {
        return;
    }
    let until = login
        .expires_at
        .map(|at| format!(", its token ends {}", words::relative(at, app.now())))
        .unwrap_or_default();
    let what = match (&login.state, refreshed) {
        (_, true) => "refreshed",
        (State::Ending { .. }, false) => "cannot be refreshed: no refresh token was issued",
        (_, false) => "is fresh",
    };
    app.report.say(format!("{} {what}{until}", login.name));
}

fn nothing(app: &App) -> Result<(), Failure> {
    if app.report.json() {
        app.report.object(json!({ "refreshes": [] }));
    } else {
        app.report.say("No logins yet.");
    }
    Ok(())
}
