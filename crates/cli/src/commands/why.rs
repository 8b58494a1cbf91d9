//! `why`: the history of a login, and the one cause of its loss.

use pilotlight_core::{Error, error::LoginCause};
use serde_json::json;

use crate::{
    app::{App, Stay},
    args::Why,
    failure::Failure,
    report::{
        events,
        shown::{Shown, cause_to_json},
        story, words,
    },
};

pub(crate) async fn run(app: &App, args: Why) -> Result<(), Failure> {
    let store = app.existing_store()?;
    let bindings = match &store {
        Some(store) => store.bindings().await?,
        None => Vec::new(),
    };
    let target = match &args.target {
        Some(typed) => app.find(typed, &bindings)?,
        None => app.known(&bindings).sole()?,
    };
    let (Some(store), Some(binding)) = (store, &target.binding) else {
        return Err(Failure::of(&Error::login(LoginCause::Never), &target));
    };
    let sessions = app.sessions(store, Stay::Brief)?;
    let login = Shown::from(&sessions.status(binding).await?);
    let history = sessions.history(binding, args.limit).await?;
    if app.report.json() {
        app.report.object(json!({
            "name": login.name,
            "state": login.state.word(),
            "grant": login.grant,
            "cause": login.cause().map(cause_to_json),
            "events": history.iter().map(events::to_json).collect::<Vec<_>>(),
        }));
    } else {
        app.report
            .data(story::tell(&login, &history, app.now(), &words::here()));
    }
    Ok(())
}
