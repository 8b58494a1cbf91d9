//! `config.toml`. A key that nobody knows is an error, with the nearest one that somebody does.

use std::{
    io,
    path::{Path, PathBuf},
};

use pilotlight::{
    core::{
        credential::Account,
        issuer::{Issuer, IssuerException},
        reference::SecretRef,
        resource::Resource,
        scope::Scopes,
    },
    egress::Cidr,
};
use pilotlight_core::{Error, resource::clean};
use toml::{Table, Value};
use url::Url;

use super::{
    bad_value,
    grant::{self, Grant},
    network,
};

/// What the file says.
#[derive(Debug, Clone, Default)]
pub(super) struct File {
    pub(super) account: Option<Account>,
    pub(super) no_interactive: Option<bool>,
    pub(super) store: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) log: Option<PathBuf>,
    pub(super) browser_command: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) allow_private: Vec<Cidr>,
    pub(super) servers: Vec<Server>,
}

/// A server in `[servers.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) url: Resource,
    pub(crate) account: Option<Account>,
    pub(crate) scopes: Option<Scopes>,
    pub(crate) client_id: Option<String>,
    /// `file:`, `fd:` or `env:`; never the secret itself.
    pub(crate) client_secret: Option<String>,
    pub(crate) client_metadata_url: Option<Url>,
    pub(crate) callback_port: Option<u16>,
    /// Whether a person logs in on another device: yes, or not even where no browser is likely.
    pub(crate) device: Option<bool>,
    /// The issuer to log in at, where the server names several: that of the client, where there is one.
    pub(crate) issuer: Option<Issuer>,
    /// An issuer whose metadata names another, accepted as it is.
    pub(crate) accept_issuer: Option<IssuerException>,
    /// What a login without a person needs.
    pub(crate) grant: Grant,
}

/// Reads the file; one that is missing says nothing, unless it `must_exist`.
pub(super) fn read(path: &Path, must_exist: bool) -> Result<File, Error> {
    let shown = clean(&path.display().to_string());
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, &shown, path.parent()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => Ok(File::default()),
        Err(error) => Err(bad_value(shown, error.to_string())),
    }
}

pub(super) fn parse(text: &str, shown: &str, folder: Option<&Path>) -> Result<File, Error> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            text.get(..span.start)
                .unwrap_or_default()
                .lines()
                .count()
                .max(1)
        });
        bad_value(format!("{shown} line {line}"), error.message().to_owned())
    })?;
    let keys = Keys {
        place: shown.to_owned(),
        table: &table,
    };
    keys.all_known(&TOP)?;
    let path = |key| keys.path(key, folder);
    let networks = keys.texts("allow_private")?.unwrap_or_default();
    let networks: Result<_, _> = networks
        .iter()
        .map(|text| network("allow_private", text))
        .collect();
    Ok(File {
        account: keys.text("account")?.map(Account::parse).transpose()?,
        no_interactive: keys.switch("no_interactive")?,
        store: path("store")?,
        key_file: path("key_file")?,
        log: path("log")?,
        browser_command: path("browser_command")?,
        ca_file: path("ca_file")?,
        allow_private: networks?,
        servers: keys
            .tables("servers")?
            .into_iter()
            .map(|(name, table)| server(shown, folder, name, table))
            .collect::<Result<_, _>>()?,
    })
}

fn server(shown: &str, folder: Option<&Path>, name: &str, table: &Table) -> Result<Server, Error> {
    let keys = Keys {
        place: format!("{shown} [servers.{name}]"),
        table,
    };
    let known: Vec<&str> = SERVER.iter().chain(&grant::KEYS).copied().collect();
    keys.all_known(&known)?;
    let url = keys
        .text("url")?
        .ok_or_else(|| bad_value(keys.place.clone(), "url is missing"))?;
    let client_secret = keys.text("client_secret")?.map(|text| {
        let what = format!("{}: client_secret", keys.place);
        grant::admitted(&what, SecretRef::parse(text).ok(), folder)
    });
    let (callback_port, device) = (keys.port("callback_port")?, keys.switch("device")?);
    let grant = Grant::from_file(&keys.place, folder, |key| keys.text(key))?;
    if device == Some(true) && (callback_port.is_some() || grant.asks_nobody()) {
        let why = "a code for another device needs neither callback_port nor a grant";
        return Err(bad_value(format!("{}: device", keys.place), why));
    }
    let metadata = keys.text("client_metadata_url")?;
    let metadata = metadata.map(Url::parse).transpose();
    Ok(Server {
        name: name.to_owned(),
        url: Resource::parse(url)?,
        account: keys.text("account")?.map(Account::parse).transpose()?,
        scopes: keys.texts("scopes")?.map(Scopes::from_list),
        client_id: keys.text("client_id")?.map(str::to_owned),
        client_secret: client_secret.transpose()?.map(String::from),
        client_metadata_url: metadata.map_err(|_| {
            bad_value(
                format!("{}: client_metadata_url", keys.place),
                "it is not a URL",
            )
        })?,
        callback_port,
        device,
        issuer: keys.issuer("issuer", Issuer::parse)?,
        accept_issuer: keys.issuer("accept_issuer", IssuerException::parse)?,
        grant,
    })
}

/// A table of the file, for reading typed values out of it.
struct Keys<'a> {
    place: String,
    table: &'a Table,
}

impl<'a> Keys<'a> {
    fn all_known(&self, known: &[&str]) -> Result<(), Error> {
        let Some(key) = self.table.keys().find(|key| !known.contains(&key.as_str())) else {
            return Ok(());
        };
        let nearest = known
            .iter()
            .min_by_key(|name| distance(key, name))
            .copied()
            .unwrap_or_default();
        let why = format!("there is no such key; the nearest is {nearest}");
        Err(bad_value(format!("{}: {}", self.place, clean(key)), why))
    }

    fn read<T>(
        &self,
        key: &str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.table.get(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(bad_value(
                    format!("{}: {key}", self.place),
                    format!("it must be {kind}"),
                )),
            },
        }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.read(key, "a text", Value::as_str)
    }

    fn switch(&self, key: &str) -> Result<Option<bool>, Error> {
        self.read(key, "true or false", Value::as_bool)
    }

    fn port(&self, key: &str) -> Result<Option<u16>, Error> {
        self.read(key, "a port", |value| {
            u16::try_from(value.as_integer()?).ok()
        })
    }

    fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, Error> {
        self.read(key, "a list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    fn issuer<T>(
        &self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let value = self.text(key)?.map(read).transpose();
        value.map_err(|error| bad_value(format!("{}: {key}", self.place), error.to_string()))
    }

    fn tables(&self, key: &str) -> Result<Vec<(&'a String, &'a Table)>, Error> {
        let all = self.read(key, "tables, as in [servers.linear]", |value| {
            value
                .as_table()?
                .iter()
                .map(|(name, value)| Some((name, value.as_table()?)))
                .collect()
        });
        Ok(all?.unwrap_or_default())
    }

    /// A path; one that is not absolute is counted from the file's own folder.
    fn path(&self, key: &str, folder: Option<&Path>) -> Result<Option<PathBuf>, Error> {
        Ok(self
            .text(key)?
            .map(|text| folder.unwrap_or(Path::new("")).join(text)))
    }
}

/// How many letters differ (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut before = i;
        let mut next = vec![i + 1];
        for (b, above) in other.iter().zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or_default();
            next.push((before + usize::from(a != *b)).min(left + 1).min(above + 1));
            before = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

const TOP: [&str; 9] = [
    "account",
    "no_interactive",
    "store",
    "key_file",
    "log",
    "browser_command",
    "ca_file",
    "allow_private",
    "servers",
];
const SERVER: [&str; 10] = [
    "url",
    "account",
    "scopes",
    "client_id",
    "client_secret",
    "client_metadata_url",
    "callback_port",
    "device",
    "issuer",
    "accept_issuer",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text, "config.toml", None).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = r#"
            account = "work"
            allow_private = ["10.0.0.0/8"]
            [servers.linear]
            url = "https://mcp.linear.app/mcp"
            scopes = ["read", "write"]
            client_id = "abc"
            client_secret = "file:/run/secrets/linear"
            callback_port = 8085
        "#;
        let file = parse(text, "config.toml", None).unwrap();
        assert_eq!(file.account.unwrap().as_str(), "work");
        let [server] = file.servers.as_slice() else {
            panic!("one server")
        };
        assert_eq!(
            (server.name.as_str(), server.url.as_str()),
            ("linear", "https://mcp.linear.app/mcp")
        );
        assert_eq!(server.scopes.as_ref().unwrap().to_string(), "read write");
        assert_eq!(
            (server.client_id.as_deref(), server.callback_port),
            (Some("abc"), Some(8085))
        );
    }

    /// RFC 8628: whoever logs in to a server on another device says so once; it goes with no other way.
    #[test]
    fn another_device_is_a_servers_choice() {
        let with = |more: &str| format!("[servers.x]\nurl = \"https://x.example\"\n{more}\n");
        let device =
            |more: &str| parse(&with(more), "config.toml", None).unwrap().servers[0].device;
        assert_eq!(device(""), None);
        assert_eq!(device("device = true"), Some(true));
        assert_eq!(device("device = false\ncallback_port = 8085"), Some(false));
        let wrong = refused(&with("device = \"yes\""));
        assert!(
            wrong.ends_with("device: it must be true or false"),
            "{wrong}"
        );
        for other in ["callback_port = 8085", "grant = \"client_credentials\""] {
            let wrong = refused(&with(&format!("device = true\n{other}")));
            assert!(wrong.contains("[servers.x]: device: "), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest() {
        let wrong = refused("[servers.x]\nurl = \"https://x.example\"\nclientid = \"a\"\n");
        assert_eq!(
            wrong,
            "config.toml [servers.x]: clientid: there is no such key; the nearest is client_id"
        );
        assert!(refused("acount = \"a\"").ends_with("the nearest is account"));
    }

    /// T-28: a secret itself does not belong in the file, and is not repeated in the error.
    #[test]
    fn a_secret_in_the_clear_is_refused_and_not_repeated() {
        let wrong =
            refused("[servers.x]\nurl = \"https://x.example\"\nclient_secret = \"hunter2\"\n");
        assert!(
            wrong.contains("file:PATH") && !wrong.contains("hunter2"),
            "{wrong}"
        );
    }

    #[test]
    fn what_is_no_toml_names_its_line() {
        assert!(refused("account = \"a\"\n[servers\n").starts_with("config.toml line 2"));
        assert!(refused("account = 3").contains("it must be a text"));
        assert!(refused("[servers]\nx = 1").contains("it must be tables"));
    }
}
