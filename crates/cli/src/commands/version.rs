//! `version`.

use serde_json::json;

use crate::{app::App, failure::Failure};

pub(crate) fn run(app: &App) -> Result<(), Failure> {
    let release = env!("CARGO_PKG_VERSION");
    if app.report.json() {
        app.report.object(json!({ "program": "pilotlight", "release": release, "os": std::env::consts::OS, "arch": std::env::consts::ARCH }));
    } else {
        app.report.data(format!("pilotlight {release}"));
    }
    Ok(())
}
