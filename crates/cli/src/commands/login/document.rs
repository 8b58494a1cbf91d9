//! `login --print-client-metadata`: the document to host, on stdout.

use pilotlight::{core::registration::document, secrets::public_key};
use serde_json::Value;

use crate::{
    app::App,
    args::Login,
    config::{Referred, bad_value},
    failure::Failure,
};

/// For no server in particular; with a TARGET, as that one is configured.
pub(super) async fn run(app: &App, args: &Login) -> Result<(), Failure> {
    let server = match args.targets.as_slice() {
        [] => None,
        [typed] => app.find(typed, &[])?.server,
        _ => {
            let why = "the document is one; give one TARGET, or none";
            return Err(bad_value("--print-client-metadata", why).into());
        }
    };
    let server = server.as_ref();
    let configured = server.and_then(|server| server.client_metadata_url.clone());
    let url = args.own.client_metadata_url.clone().or(configured);
    let url = url.ok_or_else(|| {
        let why = "say where the document will be: --client-metadata-url URL";
        bad_value("--print-client-metadata", why)
    })?;
    let usual = server.map(|server| server.grant.clone());
    let grant = args.grant.settings()?.or(usual.unwrap_or_default());
    let key: Option<Value> = match grant.key() {
        Some(key) => {
            let secrets = Referred(app.settings.environment.clone());
            Some(public_key(&secrets, &key).await?)
        }
        None => None,
    };
    let port = args.way.callback_port;
    let port = port.or_else(|| server.and_then(|server| server.callback_port));
    let ports: Vec<u16> = port.filter(|port| *port != 0).into_iter().collect();
    let document = document(&url, "Pilotlight", &ports, key.as_ref())?;
    // Other programs read this: it is their form, without our version.
    app.report.data(format!("{document:#}"));
    Ok(())
}
