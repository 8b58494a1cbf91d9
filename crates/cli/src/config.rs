//! What is set, and by whom: flag, then environment, then `config.toml`, then default.
//!
//! The only place in the program that reads the environment or asks where home is. Files below the working directory are
//! never read (T-28, T-41): a repository that was cloned cannot say where a login goes.

mod environment;
mod file;
mod grant;
mod reference;

use std::path::PathBuf;

use pilotlight::{core::credential::Account, egress::Cidr, http::Proxy};
use pilotlight_core::Error;

use crate::args::Global;

pub(crate) use environment::Environment;
pub(crate) use file::Server;
pub(crate) use grant::{Grant, Kind, secret_file};
pub(crate) use reference::{Referred, read_secret, secret_in, secret_on_stdin};

/// A value, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) from: Origin,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag on the command line.
    Flag(&'static str),
    /// A variable of the environment.
    Variable(&'static str),
    /// The configuration file.
    File,
    /// Nobody said anything.
    Default,
}

/// Everything that is set.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) config_file: Setting<PathBuf>,
    pub(crate) store: Setting<PathBuf>,
    pub(crate) key_file: Setting<PathBuf>,
    pub(crate) log: Option<Setting<PathBuf>>,
    pub(crate) account: Option<Setting<Account>>,
    pub(crate) no_interactive: Setting<bool>,
    pub(crate) browser_command: Option<Setting<PathBuf>>,
    pub(crate) allow_private: Setting<Vec<Cidr>>,
    pub(crate) ca_file: Option<Setting<PathBuf>>,
    pub(crate) proxy: Setting<Proxy>,
    pub(crate) servers: Vec<Server>,
    pub(crate) environment: Environment,
}

impl Settings {
    /// Where logs are kept that nobody has named a place for.
    ///
    /// # Errors
    /// `config.value` where no home folder is known.
    pub(crate) fn log_folder(&self) -> Result<PathBuf, Error> {
        Ok(self.environment.places()?.state.value.join("log"))
    }

    /// Resolves everything.
    ///
    /// # Errors
    /// `config.value` for a value that cannot be, and for a key that nobody knows.
    pub(crate) fn resolve(flags: &Global, environment: Environment) -> Result<Self, Error> {
        let places = environment.places()?;
        let config_file = flags
            .config
            .clone()
            .map(|value| Setting {
                value,
                from: Origin::Flag("--config"),
            })
            .or_else(|| environment.path("PILOTLIGHT_CONFIG"))
            .unwrap_or_else(|| {
                places
                    .config
                    .clone()
                    .map(|folder| folder.join("config.toml"))
            });
        // A file that was named must be there; the usual one need not.
        let file = file::read(
            &config_file.value,
            matches!(
                config_file.from,
                Origin::Flag(_) | Origin::Variable("PILOTLIGHT_CONFIG")
            ),
        )?;

        let path = |flag: Option<&PathBuf>, name, variable, in_file: &Option<PathBuf>| {
            flag.cloned()
                .map(|value| Setting {
                    value,
                    from: Origin::Flag(name),
                })
                .or_else(|| environment.path(variable))
                .or_else(|| {
                    in_file.clone().map(|value| Setting {
                        value,
                        from: Origin::File,
                    })
                })
        };
        let store = path(
            flags.store.as_ref(),
            "--store",
            "PILOTLIGHT_STORE",
            &file.store,
        )
        .unwrap_or_else(|| places.data.clone());
        let key_file = path(
            flags.key_file.as_ref(),
            "--key-file",
            "PILOTLIGHT_KEY_FILE",
            &file.key_file,
        )
        .unwrap_or_else(|| places.state.clone().map(|folder| folder.join("store.key")));
        let log = path(None, "", "PILOTLIGHT_LOG", &file.log);
        let browser_command = environment
            .path("BROWSER")
            .or_else(|| file.browser_command.clone().map(in_file));
        let ca_file = path(None, "", "PILOTLIGHT_CA_FILE", &file.ca_file);

        let account = match (&flags.account, environment.text("PILOTLIGHT_ACCOUNT")?) {
            (Some(label), _) => Some(Setting {
                value: Account::parse(label)?,
                from: Origin::Flag("--account"),
            }),
            (None, Some(label)) => Some(Setting {
                value: Account::parse(&label)?,
                from: Origin::Variable("PILOTLIGHT_ACCOUNT"),
            }),
            (None, None) => file.account.clone().map(in_file),
        };
        Ok(Self {
            config_file,
            store,
            key_file,
            log,
            account,
            no_interactive: no_interactive(&environment, file.no_interactive)?,
            browser_command,
            allow_private: allow_private(flags, &file.allow_private)?,
            ca_file,
            proxy: environment.proxy()?,
            servers: file.servers,
            environment,
        })
    }
}

impl<T> Setting<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting {
            value: change(self.value),
            from: self.from,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File => f.write_str("config.toml"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The error for a setting that cannot be.
pub(crate) fn bad_value(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::ConfigValue {
        what: what.into(),
        why: why.into(),
    }
}

fn in_file<T>(value: T) -> Setting<T> {
    Setting {
        value,
        from: Origin::File,
    }
}

/// `CI=true` implies it; what `PILOTLIGHT_NO_INTERACTIVE` or the file say outright counts for more.
fn no_interactive(environment: &Environment, file: Option<bool>) -> Result<Setting<bool>, Error> {
    if let Some(value) = environment.switch("PILOTLIGHT_NO_INTERACTIVE")? {
        return Ok(Setting {
            value,
            from: Origin::Variable("PILOTLIGHT_NO_INTERACTIVE"),
        });
    }
    if let Some(value) = file {
        return Ok(in_file(value));
    }
    // Anything but a plain yes is somebody else's affair.
    let in_ci = environment
        .text("CI")?
        .is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "true" | "1"));
    Ok(if in_ci {
        Setting {
            value: true,
            from: Origin::Variable("CI"),
        }
    } else {
        Setting {
            value: false,
            from: Origin::Default,
        }
    })
}

fn allow_private(flags: &Global, file: &[Cidr]) -> Result<Setting<Vec<Cidr>>, Error> {
    if flags.allow_private.is_empty() {
        let from = if file.is_empty() {
            Origin::Default
        } else {
            Origin::File
        };
        return Ok(Setting {
            value: file.to_vec(),
            from,
        });
    }
    let networks: Result<_, _> = flags
        .allow_private
        .iter()
        .map(|text| network("--allow-private", text))
        .collect();
    Ok(Setting {
        value: networks?,
        from: Origin::Flag("--allow-private"),
    })
}

fn network(what: &str, text: &str) -> Result<Cidr, Error> {
    text.parse().map_err(|_| {
        bad_value(
            what,
            format!("{text:?} is no network; write 10.0.0.0/8 or fd00::/8"),
        )
    })
}

#[cfg(test)]
mod tests;
