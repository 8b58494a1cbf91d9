//! `paths`: every location, and where each setting came from. It opens nothing.

use std::path::{Path, PathBuf};

use pilotlight::http::Proxy;
use serde_json::{Value, json};

use crate::{
    app::App,
    config::{Origin, Setting, Settings},
    failure::Failure,
    report::table::{Cell, Table},
};

pub(crate) fn run(app: &App) -> Result<(), Failure> {
    let (places, values) = (places(&app.settings), values(&app.settings));
    if app.report.json() {
        let places = places.iter().map(|(what, place)| {
            json!({ "what": what, "path": place.value.display().to_string(), "from": place.from.to_string(), "exists": place.value.exists() })
        });
        let values = values
            .iter()
            .map(|(what, value, from)| json!({ "name": what, "value": value, "from": from }));
        app.report.object(
            json!({ "paths": places.collect::<Vec<_>>(), "settings": values.collect::<Vec<_>>() }),
        );
        return Ok(());
    }
    let mut table = Table::headed(&["WHAT", "WHERE", "SET BY", ""]);
    for (what, place) in &places {
        let there = if place.value.exists() {
            ""
        } else {
            "(not there)"
        };
        table.row(
            [*what, &shown(&place.value), &place.from.to_string(), there]
                .map(Cell::new)
                .to_vec(),
        );
    }
    let places = table.render(app.report.colour());
    let mut table = Table::headed(&["SETTING", "VALUE", "SET BY"]);
    for (what, value, from) in &values {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        table.row([*what, &value, from].map(Cell::new).to_vec());
    }
    app.report
        .data(format!("{places}\n\n{}", table.render(app.report.colour())));
    Ok(())
}

fn places(settings: &Settings) -> Vec<(&'static str, Setting<PathBuf>)> {
    let below = |name: &str| settings.store.clone().map(|folder| folder.join(name));
    let mut all = vec![
        ("configuration", settings.config_file.clone()),
        ("store", below("store.db")),
        ("locks", below("locks")),
        ("spare copies", below("spool")),
        ("key", settings.key_file.clone()),
    ];
    all.extend(settings.log.clone().map(|log| ("log", log)));
    all.extend(
        settings
            .ca_file
            .clone()
            .map(|file| ("extra certificates", file)),
    );
    all.extend(
        settings
            .browser_command
            .clone()
            .map(|program| ("browser", program)),
    );
    all
}

fn values(settings: &Settings) -> Vec<(&'static str, Value, String)> {
    let networks: Vec<String> = settings
        .allow_private
        .value
        .iter()
        .map(ToString::to_string)
        .collect();
    let account = settings.account.as_ref();
    vec![
        (
            "account",
            account.map_or(Value::Null, |account| json!(account.value.as_str())),
            account.map_or_else(|| "default".to_owned(), |account| account.from.to_string()),
        ),
        (
            "no_interactive",
            json!(settings.no_interactive.value),
            settings.no_interactive.from.to_string(),
        ),
        (
            "allow_private",
            json!(networks),
            settings.allow_private.from.to_string(),
        ),
        // Its URL may carry a password; the value's own form for people leaves that out.
        (
            "proxy",
            match &settings.proxy.value {
                Proxy::None => Value::Null,
                proxy => json!(format!("{proxy:?}")),
            },
            settings.proxy.from.to_string(),
        ),
        (
            "servers",
            json!(
                settings
                    .servers
                    .iter()
                    .map(|server| &server.name)
                    .collect::<Vec<_>>()
            ),
            if settings.servers.is_empty() {
                Origin::Default
            } else {
                Origin::File
            }
            .to_string(),
        ),
    ]
}

fn shown(path: &Path) -> String {
    pilotlight_core::resource::clean(&path.display().to_string())
}
