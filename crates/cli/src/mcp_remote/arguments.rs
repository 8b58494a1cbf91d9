//! A list of arguments, searched as mcp-remote searches it.

use super::flags;

/// What stands on the command line, without the headers, which are taken out first.
#[derive(Debug)]
pub(super) struct Arguments(Vec<String>);

/// Where the two arguments that are no flags stand.
#[derive(Debug, Default)]
pub(super) struct Positionals {
    /// The server's URL.
    pub(super) server: Option<String>,
    /// What stands right behind it, unless that is a flag.
    pub(super) port: Option<String>,
    /// What was passed over.
    pub(super) warnings: Vec<String>,
}

impl Arguments {
    /// Takes the arguments, and what `take` wants of the pairs of a flag and its value.
    pub(super) fn without<E>(
        words: Vec<String>,
        mut take: impl FnMut(&str, &str) -> Result<bool, E>,
    ) -> Result<Self, E> {
        let mut kept = Vec::with_capacity(words.len());
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            let taken = match words.peek() {
                Some(value) => take(&word, value)?,
                None => false,
            };
            match taken {
                true => drop(words.next()),
                false => kept.push(word),
            }
        }
        Ok(Self(kept))
    }

    /// Whether a word is there, wherever it stands.
    pub(super) fn has(&self, word: &str) -> bool {
        self.0.iter().any(|one| one == word)
    }

    /// What stands behind the first of a flag.
    pub(super) fn value(&self, flag: &str) -> Option<&str> {
        let at = self.0.iter().position(|one| one == flag)?;
        self.0.get(at + 1).map(String::as_str)
    }

    /// What stands behind each of a flag.
    pub(super) fn values(&self, flag: &str) -> Vec<&str> {
        let pairs = self.0.windows(2);
        let values = pairs.filter_map(|pair| match pair {
            [one, value] if one == flag => Some(value.as_str()),
            _ => None,
        });
        values.collect()
    }

    /// How often a flag is there.
    pub(super) fn count(&self, flag: &str) -> usize {
        self.0.iter().filter(|one| *one == flag).count()
    }

    /// Tells URL and port from flags and their values, and warns of what nobody reads.
    pub(super) fn positionals(&self) -> Positionals {
        let mut found = Positionals::default();
        let mut words = self.0.iter().peekable();
        while let Some(word) = words.next() {
            let flag = word.as_str();
            if let Some(known) = flags::find(flag) {
                if known.value.is_some() && words.next().is_none() {
                    found
                        .warnings
                        .push(format!("{flag} needs a value; it is ignored"));
                }
            } else if flag.len() > 1 && flag.starts_with('-') {
                found.warnings.push(unknown(flag));
            } else if found.server.is_none() {
                found.server = Some(word.clone());
                if let Some(port) = words.next_if(|next| !next.starts_with("--")) {
                    found.port = Some(port.clone());
                }
            } else {
                let what = pilotlight_core::resource::clean(flag);
                let why = "is ignored: a port stands right behind the URL";
                found.warnings.push(format!("{what} {why}"));
            }
        }
        found
    }
}

/// What to say of a flag that nobody knows. What stands behind its `=` may be a secret.
fn unknown(flag: &str) -> String {
    let (name, value) = flag
        .split_once('=')
        .map_or((flag, None), |(name, value)| (name, Some(value)));
    let known = flags::find(name).is_some_and(|flag| flag.value.is_some());
    let name = pilotlight_core::resource::clean(name);
    match value {
        Some(_) if known => format!("{name}=... is ignored: write {name} VALUE"),
        _ => format!("{name} is ignored: no such flag"),
    }
}

/// The flags of headers: their pairs are taken out first.
pub(super) const HEADERS: [&str; 2] = ["--header", "--header-file"];
