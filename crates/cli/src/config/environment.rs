//! The environment, read once and passed on as a value, so that a test's machine is a list of variables.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use pilotlight::http::Proxy;
use pilotlight_core::Error;
use url::Url;

use super::{Origin, Setting, bad_value};

/// The variables of a process, and its home folder.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<String, OsString>,
    home: Option<PathBuf>,
}

/// Where things lie unless somebody says otherwise.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) config: Setting<PathBuf>,
    pub(super) data: Setting<PathBuf>,
    pub(super) state: Setting<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process.
    #[expect(clippy::disallowed_methods, reason = "the one door to the environment")]
    pub(crate) fn of_this_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        Self {
            variables,
            home: std::env::home_dir(),
        }
    }

    /// An environment made up for a test.
    #[cfg(test)]
    pub(crate) fn made_up(variables: &[(&str, &str)]) -> Self {
        let variables: BTreeMap<String, OsString> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        let home = variables.get("HOME").map(PathBuf::from);
        Self { variables, home }
    }

    /// A variable that is set to something, as text.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        match self.variables.get(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => match value.clone().into_string() {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(bad_value(name, "it is not UTF-8")),
            },
        }
    }

    /// A variable that names a file or folder.
    pub(super) fn path(&self, name: &'static str) -> Option<Setting<PathBuf>> {
        let value = self.variables.get(name).filter(|value| !value.is_empty())?;
        Some(Setting {
            value: PathBuf::from(value),
            from: Origin::Variable(name),
        })
    }

    /// A variable that is yes or no.
    pub(super) fn switch(&self, name: &'static str) -> Result<Option<bool>, Error> {
        match self
            .text(name)?
            .map(|text| text.to_ascii_lowercase())
            .as_deref()
        {
            None => Ok(None),
            Some("1" | "true" | "yes" | "on") => Ok(Some(true)),
            Some("0" | "false" | "no" | "off") => Ok(Some(false)),
            Some(other) => Err(bad_value(
                name,
                format!("{other:?} is neither true nor false"),
            )),
        }
    }

    /// Whether a variable is there and not empty.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.variables
            .get(name)
            .is_some_and(|value| !value.is_empty())
    }

    /// A variable's value, for who may look at it: secret references and what tells where a browser can be.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)?
            .to_str()
            .filter(|value| !value.is_empty())
    }

    /// All of it, for a role that picks what a program needs.
    pub(crate) fn all(&self) -> impl Iterator<Item = (OsString, OsString)> + '_ {
        self.variables
            .iter()
            .map(|(name, value)| (name.into(), value.clone()))
    }

    /// The folders: `PILOTLIGHT_HOME` moves all of them, else the XDG base directories decide.
    pub(super) fn places(&self) -> Result<Places, Error> {
        if let Some(all) = self.path("PILOTLIGHT_HOME") {
            return Ok(Places {
                config: all.clone(),
                data: all.clone().map(|folder| folder.join("data")),
                state: all.map(|folder| folder.join("state")),
            });
        }
        let place = |variable: &'static str, below_home: &str| {
            // The specification has relative paths ignored.
            let given = self
                .path(variable)
                .filter(|setting| setting.value.is_absolute());
            let base = given.or_else(|| {
                let home = self.home.as_ref().filter(|home| home.is_absolute())?;
                Some(Setting {
                    value: home.join(below_home),
                    from: Origin::Default,
                })
            });
            let base =
                base.ok_or_else(|| bad_value("HOME", "it is not set; set it, or PILOTLIGHT_HOME"))?;
            Ok::<_, Error>(base.map(|folder| folder.join("pilotlight")))
        };
        Ok(Places {
            config: place("XDG_CONFIG_HOME", ".config")?,
            data: place("XDG_DATA_HOME", ".local/share")?,
            state: place("XDG_STATE_HOME", ".local/state")?,
        })
    }

    /// The proxies, as other programs read them: lower case counts first, `http_proxy` in lower case only (CGI).
    pub(super) fn proxy(&self) -> Result<Setting<Proxy>, Error> {
        let find = |names: &[&'static str]| -> Result<Option<Setting<Url>>, Error> {
            for name in names {
                if let Some(text) = self.text(name)? {
                    let text = if text.contains("://") {
                        text
                    } else {
                        format!("http://{text}")
                    };
                    let url = Url::parse(&text)
                        .map_err(|_| bad_value(*name, "it is not the URL of a proxy"))?;
                    return Ok(Some(Setting {
                        value: url,
                        from: Origin::Variable(name),
                    }));
                }
            }
            Ok(None)
        };
        let https = find(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?;
        let http = find(&["http_proxy", "all_proxy", "ALL_PROXY"])?;
        let Some(from) = https.as_ref().or(http.as_ref()).map(|setting| setting.from) else {
            return Ok(Setting {
                value: Proxy::None,
                from: Origin::Default,
            });
        };
        let no_proxy = match self.text("no_proxy")? {
            Some(hosts) => hosts,
            None => self.text("NO_PROXY")?.unwrap_or_default(),
        };
        let value = Proxy::Explicit {
            https: https.map(|s| s.value),
            http: http.map(|s| s.value),
            no_proxy,
        };
        Ok(Setting { value, from })
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets.
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
