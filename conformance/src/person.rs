//! Whoever sits before the host: has a home, a browser that clicks Allow, what was given to them about the server, and does
//! what an error tells them to do.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::{env, fs};

use pilotlight_testkit::ScriptedHuman;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Done, Host, use_tools};

/// Starts a host and uses the tools through it, as often as there is something to be done about what went wrong.
pub(crate) fn run(new: bool, bridge: &str, url: &str, context: &str) -> Done {
    let context: Value = serde_json::from_str(context)?;
    let mut person = Person::who_knows(&context, bridge, url)?;
    let mut called = 0;
    loop {
        let mut host = Host::start(new, &person)?;
        let Err(error) = use_tools(&mut host, &context, &mut called) else {
            return host.end();
        };
        host.end()?;
        if !person.can_help(&error.to_string())? {
            return Err(error);
        }
        println!("person: {error}");
    }
}

/// Whoever sits before the host, with a home of their own.
pub(crate) struct Person {
    home: TempDir,
    bridge: String,
    pub(crate) url: String,
    /// What `config.toml` says of the server.
    server: BTreeMap<&'static str, String>,
    /// The variables that it refers to.
    secrets: BTreeMap<String, String>,
    has_run: bool,
}

impl Person {
    /// Somebody who was given what the context brings, by whoever runs the server.
    pub(crate) fn who_knows(context: &Value, bridge: &str, url: &str) -> Done<Self> {
        let home = tempfile::tempdir()?;
        let mut server = BTreeMap::from([
            ("url", url.to_owned()),
            ("client_metadata_url", METADATA_DOCUMENT.to_owned()),
        ]);
        let mut secrets = BTreeMap::new();
        for (key, given) in GIVEN {
            let Some(value) = context[given].as_str() else {
                continue;
            };
            let mut value = value.to_owned();
            if SECRETS.contains(&given) {
                let name = given.to_uppercase();
                let reference = format!("env:{name}");
                secrets.insert(name, std::mem::replace(&mut value, reference));
            }
            server.insert(key, value);
        }
        for (key, grant) in [("workload_token", "workload"), ("idp_issuer", "enterprise")] {
            if server.contains_key(key) {
                server.insert("grant", grant.to_owned());
            }
        }
        if server.contains_key("subject_token") {
            server.insert("subject_token_type", "id_token".to_owned());
        }
        let person = Self {
            home,
            bridge: bridge.to_owned(),
            url: url.to_owned(),
            server,
            secrets,
            has_run: false,
        };
        person.write()?;
        Ok(person)
    }

    fn write(&self) -> Done {
        let mut text = "[servers.tools]\n".to_owned();
        for (key, value) in &self.server {
            text += &format!("{key} = {}\n", json!(value));
        }
        Ok(fs::write(self.home.path().join("config.toml"), text)?)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the configuration")]
    pub(crate) fn pilotlight(&self, arguments: &[&str]) -> Done<Command> {
        let mut command = Command::new(&self.bridge);
        let home = self.home.path();
        command
            .args(arguments)
            .env_clear()
            .envs(&self.secrets)
            .env("PATH", env::var("PATH")?);
        command
            .env("HOME", home)
            .env("PILOTLIGHT_HOME", home)
            .env("BROWSER", env::current_exe()?);
        Ok(command)
    }

    /// Does what an error says is to be done, each thing once.
    pub(crate) fn can_help(&mut self, error: &str) -> Done<bool> {
        let between =
            |from: &str, to: &str| Some(error.split_once(from)?.1.split(to).next()?.to_owned());
        let entry = match between("(--issuer ", ")") {
            Some(issuer) => Some(("issuer", issuer)),
            None => between("say so: ", " ").map(|grant| ("grant", grant)),
        };
        if let Some((key, value)) = entry {
            let new = self.server.insert(key, value).is_none();
            self.write()?;
            return Ok(new);
        }
        let Some(command) = between("Run: pilotlight ", ". Or open").filter(|_| !self.has_run)
        else {
            return Ok(false);
        };
        self.has_run = true;
        let words: Vec<&str> = command.split_whitespace().collect();
        Ok(self
            .pilotlight(&words)?
            .stdin(Stdio::null())
            .status()?
            .success())
    }
}

/// The browser: goes where a login leads, and clicks Allow.
#[tokio::main]
pub(crate) async fn browse(url: &str) -> Done {
    ScriptedHuman::allows().visit(url).await?;
    Ok(())
}

/// The key of `config.toml` that each member of the context belongs to.
const GIVEN: [(&str, &str); 9] = [
    ("client_id", "client_id"),
    ("client_secret", "client_secret"),
    ("client_key", "private_key_pem"),
    ("client_key_algorithm", "signing_algorithm"),
    ("workload_token", "valid_jwt"),
    ("idp_issuer", "idp_issuer"),
    ("idp_token_endpoint", "idp_token_endpoint"),
    ("idp_client_id", "idp_client_id"),
    ("subject_token", "idp_id_token"),
];
/// Those that the file only refers to.
const SECRETS: [&str; 4] = [
    "client_secret",
    "private_key_pem",
    "valid_jwt",
    "idp_id_token",
];
/// The document that describes this program, as its maker would host it.
const METADATA_DOCUMENT: &str = "https://conformance-test.local/client-metadata.json";
