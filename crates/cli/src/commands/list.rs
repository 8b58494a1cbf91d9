//! `list`: the logins and their servers.

use serde_json::json;

use crate::{
    app::App,
    failure::Failure,
    report::{shown::Shown, table},
};

pub(crate) async fn run(app: &App) -> Result<(), Failure> {
    let all = super::everything(app).await?;
    if app.report.json() {
        app.report
            .object(json!({ "sessions": all.iter().map(Shown::to_json).collect::<Vec<_>>() }));
    } else if all.is_empty() {
        app.report.say("No logins yet.\nhint: pilotlight login URL");
    } else {
        app.report.data(table::list(&all, app.report.colour()));
    }
    Ok(())
}
