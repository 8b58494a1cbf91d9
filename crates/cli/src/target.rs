//! TARGET: a name, a URL, or the beginning of one that fits a single login; `@ACCOUNT` where there are several.

mod name;

use pilotlight_core::{
    Error,
    credential::{Account, Binding, BindingKey},
    resource::Resource,
};

use crate::config::{Server, bad_value};

pub(crate) use name::{check_name, default_name};

/// What there is to choose from.
#[derive(Debug, Default)]
pub(crate) struct Known<'a> {
    /// The logins of the store.
    pub(crate) bindings: &'a [Binding],
    /// The servers of the configuration.
    pub(crate) servers: &'a [Server],
    /// `--account`, or what counts as that.
    pub(crate) account: Option<&'a Account>,
}

/// What a TARGET means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The server and account.
    pub(crate) key: BindingKey,
    /// The login in the store, if there is one.
    pub(crate) binding: Option<Binding>,
    /// The server in the configuration, if it is there.
    pub(crate) server: Option<Server>,
}

impl Target {
    /// What to type to mean this again: its name, else its URL.
    pub(crate) fn typed(&self) -> String {
        let account = &self.key.account;
        let (base, usual) = match (&self.binding, &self.server) {
            (Some(binding), _) => return binding.name.clone(),
            (None, Some(server)) => (
                server.name.clone(),
                server.account.clone().unwrap_or_default(),
            ),
            (None, None) => (self.key.url.as_str().to_owned(), Account::default()),
        };
        if *account == usual {
            base
        } else {
            format!("{base}@{account}")
        }
    }
}

impl Known<'_> {
    /// Finds what a TARGET means.
    ///
    /// # Errors
    /// `config.target_ambiguous` with the candidates, `config.target_unknown`, `config.url`.
    pub(crate) fn find(&self, text: &str) -> Result<Target, Error> {
        let text = text.trim();
        let (base, suffix) = split_account(text);
        let account = match suffix {
            Some(label) => Some(Account::parse(label)?),
            None => self.account.cloned(),
        };
        if is_url(base) {
            return self.at_url(text, &Resource::parse(base)?, account.as_ref());
        }
        if let Some(server) = self.servers.iter().find(|server| server.name == base) {
            let account = account.or_else(|| server.account.clone());
            return self.at_url(text, &server.url, account.as_ref());
        }
        if let Some(binding) = self.bindings.iter().find(|binding| binding.name == base) {
            return match account {
                // A name is one login; only an account that was asked for leads from it to another.
                None => Ok(self.target(binding.key.clone())),
                Some(account) => self.at_url(text, &binding.key.url, Some(&account)),
            };
        }
        self.by_prefix(text, base, account.as_ref())
    }

    /// The one login there is, for commands that need no TARGET then.
    ///
    /// # Errors
    /// `login.never` where there is none, `config.target_ambiguous` where there are several.
    pub(crate) fn sole(&self) -> Result<Target, Error> {
        let live: Vec<&Binding> = self
            .bindings
            .iter()
            .filter(|binding| binding.credential.is_some())
            .collect();
        match live.as_slice() {
            [one] => Ok(self.target(one.key.clone())),
            [] => Err(bad_value(
                "TARGET",
                "nobody is logged in anywhere yet; give the URL of a server",
            )),
            several => Err(ambiguous(
                "(nothing)",
                several.iter().map(|binding| binding.name.clone()),
            )),
        }
    }

    /// The login at a URL: of the account that was asked for, else `default`, else the only one there is.
    fn at_url(
        &self,
        typed: &str,
        url: &Resource,
        account: Option<&Account>,
    ) -> Result<Target, Error> {
        let here: Vec<&Binding> = self
            .bindings
            .iter()
            .filter(|binding| binding.key.url == *url)
            .collect();
        let default = Account::default();
        let chosen = match (account, here.as_slice()) {
            (Some(account), _) => account.clone(),
            (None, here) if here.iter().any(|binding| binding.key.account == default) => default,
            (None, []) => default,
            (None, [one]) => one.key.account.clone(),
            (None, several) => {
                return Err(ambiguous(
                    typed,
                    several
                        .iter()
                        .map(|binding| format!("{}@{}", binding.name, binding.key.account)),
                ));
            }
        };
        Ok(self.target(BindingKey::new(url.clone(), chosen)))
    }

    fn by_prefix(
        &self,
        typed: &str,
        base: &str,
        account: Option<&Account>,
    ) -> Result<Target, Error> {
        let wanted =
            |binding: &&Binding| account.is_none_or(|account| binding.key.account == *account);
        let fits = |name: &str, url: &Resource| {
            let place = url
                .as_str()
                .split_once("://")
                .map_or("", |(_, place)| place);
            !base.is_empty() && (name.starts_with(base) || place.starts_with(base))
        };
        let bindings = self
            .bindings
            .iter()
            .filter(wanted)
            .filter(|binding| fits(&binding.name, &binding.key.url));
        let mut found: Vec<(String, BindingKey)> = bindings
            .map(|binding| (binding.name.clone(), binding.key.clone()))
            .collect();
        for server in self
            .servers
            .iter()
            .filter(|server| fits(&server.name, &server.url))
        {
            let own = account.cloned().or_else(|| server.account.clone());
            let key = BindingKey::new(server.url.clone(), own.clone().unwrap_or_default());
            // A server that somebody is logged in to is there already, under the login's name.
            if !found.iter().any(|(_, other)| {
                other.url == key.url && own.as_ref().is_none_or(|own| other.account == *own)
            }) {
                found.push((server.name.clone(), key));
            }
        }
        match found.as_slice() {
            [] => Err(Error::TargetUnknown {
                target: typed.to_owned(),
            }),
            [(_, key)] => Ok(self.target(key.clone())),
            // Several accounts of one server: the rule of accounts decides.
            [(_, first), rest @ ..] if rest.iter().all(|(_, key)| key.url == first.url) => {
                self.at_url(typed, &first.url, account)
            }
            several => Err(ambiguous(
                typed,
                several.iter().map(|(name, _)| name.clone()),
            )),
        }
    }

    fn target(&self, key: BindingKey) -> Target {
        let binding = self
            .bindings
            .iter()
            .find(|binding| binding.key == key)
            .cloned();
        let same = |server: &&Server| server.url == key.url;
        let exact = |server: &&Server| {
            same(server)
                && server
                    .account
                    .as_ref()
                    .is_some_and(|account| *account == key.account)
        };
        let any = |server: &&Server| same(server) && server.account.is_none();
        let server = self
            .servers
            .iter()
            .find(exact)
            .or_else(|| self.servers.iter().find(any))
            .cloned();
        Target {
            key,
            binding,
            server,
        }
    }
}

/// `linear@work` is `linear` and `work`; the `@` of a path (`https://x/@scope`) and of a user name is no account's.
fn split_account(text: &str) -> (&str, Option<&str>) {
    let Some((base, label)) = text.rsplit_once('@') else {
        return (text, None);
    };
    let in_path = match text.split_once("://") {
        Some((_, rest)) => {
            base.len() > text.len() - rest.len()
                && base
                    .split_once("://")
                    .is_some_and(|(_, place)| place.contains('/'))
        }
        None => true,
    };
    let plain =
        !label.is_empty() && !label.contains('/') && !base.is_empty() && !base.ends_with('/');
    // `https://host@work` has no path: whoever writes it means an account, since user names in URLs are refused anyway.
    let bare_host = text.contains("://") && !in_path && Resource::parse(base).is_ok();
    if plain && (in_path || bare_host) {
        (base, Some(label))
    } else {
        (text, None)
    }
}

fn is_url(text: &str) -> bool {
    text.contains("://")
        || text
            .split_once(':')
            .is_some_and(|(scheme, _)| matches!(scheme, "http" | "https" | "file" | "javascript"))
}

fn ambiguous(typed: &str, candidates: impl Iterator<Item = String>) -> Error {
    Error::TargetAmbiguous {
        target: typed.to_owned(),
        candidates: candidates.collect(),
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_core::time::Wall;

    use super::*;

    fn url(text: &str) -> Resource {
        Resource::parse(text).unwrap()
    }

    fn binding(name: &str, at: &str, account: &str) -> Binding {
        let key = BindingKey::new(url(at), Account::parse(account).unwrap());
        Binding {
            key,
            name: name.into(),
            credential: None,
            created_at: Wall(0),
            exception: None,
            without_resource_at: None,
            former: Vec::new(),
        }
    }

    fn logins() -> Vec<Binding> {
        vec![
            binding("linear", "https://mcp.linear.app/mcp", "default"),
            binding("linear-2", "https://mcp.linear.app/mcp", "work"),
            binding("notion", "https://mcp.notion.com/mcp", "default"),
            binding("sentry", "https://mcp.sentry.dev/mcp", "home"),
            binding("sentry-2", "https://mcp.sentry.dev/mcp", "work"),
        ]
    }

    fn found(text: &str) -> String {
        found_as(text, None)
    }

    fn found_as(text: &str, account: Option<&str>) -> String {
        let account = account.map(|label| Account::parse(label).unwrap());
        let known = Known {
            bindings: &logins(),
            servers: &[],
            account: account.as_ref(),
        };
        match known.find(text) {
            Ok(target) => format!("{} {}", target.typed(), target.key.account),
            Err(Error::TargetAmbiguous { candidates, .. }) => {
                format!("ambiguous: {}", candidates.join(", "))
            }
            Err(error) => error.code().to_owned(),
        }
    }

    #[test]
    fn names_urls_and_prefixes() {
        assert_eq!(found("linear"), "linear default");
        assert_eq!(found("linear-2"), "linear-2 work");
        assert_eq!(found("no"), "notion default");
        assert_eq!(found("mcp.not"), "notion default");
        assert_eq!(found("https://mcp.notion.com/mcp"), "notion default");
        assert_eq!(
            found("https://mcp.notion.com/mcp@work"),
            "https://mcp.notion.com/mcp@work work"
        );
        assert_eq!(
            found("https://new.example/mcp"),
            "https://new.example/mcp default"
        );
        assert_eq!(
            found("mcp."),
            "ambiguous: linear, linear-2, notion, sentry, sentry-2"
        );
        assert_eq!(found("x"), "config.target_unknown");
        assert_eq!(found(""), "config.target_unknown");
        assert_eq!(found("http://example.com/"), "config.url");
        assert_eq!(found("javascript:alert(1)"), "config.url");
    }

    #[test]
    fn accounts_default_then_the_only_one_then_a_question() {
        assert_eq!(found("linear@work"), "linear-2 work");
        assert_eq!(found("lin@work"), "linear-2 work");
        assert_eq!(found("lin"), "linear default");
        assert_eq!(found_as("linear", Some("work")), "linear-2 work");
        assert_eq!(
            found_as("linear@default", Some("work")),
            "linear default",
            "what is typed at the name is nearest"
        );
        assert_eq!(
            found("https://mcp.sentry.dev/mcp"),
            "ambiguous: sentry@home, sentry-2@work"
        );
        assert_eq!(found("https://mcp.sentry.dev/mcp@home"), "sentry home");
        assert_eq!(found("sentry"), "sentry home", "a name is one login");
        assert_eq!(found("sen"), "ambiguous: sentry@home, sentry-2@work");
    }

    #[test]
    fn the_at_of_a_path_is_no_account() {
        assert_eq!(
            split_account("https://x.example/@scope/mcp"),
            ("https://x.example/@scope/mcp", None)
        );
        assert_eq!(
            split_account("https://x.example/@scope"),
            ("https://x.example/@scope", None)
        );
        assert_eq!(
            split_account("https://x.example/mcp@work"),
            ("https://x.example/mcp", Some("work"))
        );
        assert_eq!(
            split_account("https://x.example@work"),
            ("https://x.example", Some("work"))
        );
        assert_eq!(
            split_account("https://user:pass@x.example/"),
            ("https://user:pass@x.example/", None)
        );
        assert_eq!(split_account("a@"), ("a@", None));
    }

    #[test]
    fn a_configured_server_is_a_name_before_anybody_logs_in() {
        let server = Server {
            name: "tracker".into(),
            url: url("https://tracker.example/mcp"),
            account: Some(Account::parse("work").unwrap()),
            scopes: None,
            client_id: None,
            client_secret: None,
            client_metadata_url: None,
            callback_port: None,
            device: None,
            issuer: None,
            accept_issuer: None,
            grant: crate::config::Grant::default(),
        };
        let servers = [server];
        let known = Known {
            bindings: &[],
            servers: &servers,
            account: None,
        };
        for typed in ["tracker", "tra", "tracker.example"] {
            let target = known.find(typed).unwrap();
            assert_eq!(
                (target.typed().as_str(), target.key.account.as_str()),
                ("tracker", "work"),
                "{typed}"
            );
            assert!(target.server.is_some() && target.binding.is_none());
        }
    }
}
