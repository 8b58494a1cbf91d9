//! The local names of logins.

use pilotlight_core::{
    Error,
    resource::{Resource, clean},
};

use crate::config::bad_value;

/// The name that a login gets unless somebody says otherwise: the host without `mcp.`, `api.`, `www.` and the public
/// suffix; where that is taken, with the smallest number that is free.
pub(crate) fn default_name(url: &Resource, taken: impl Fn(&str) -> bool) -> String {
    let name = base_name(url);
    if !taken(&name) {
        return name;
    }
    (2u32..)
        .map(|number| format!("{name}-{number}"))
        .find(|name| !taken(name))
        .unwrap_or(name)
}

/// Refuses a name that could be read as something else.
///
/// # Errors
/// `config.value`.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let fits = (1..=64).contains(&name.chars().count())
        && name
            .chars()
            .all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '@' | '/' | ':'))
        && !name.starts_with('-')
        && clean(name) == name;
    if fits {
        Ok(())
    } else {
        Err(bad_value(
            "name",
            "1 to 64 characters, no spaces, none of @ / : and no - in front",
        ))
    }
}

fn base_name(url: &Resource) -> String {
    let host = match url.url().host() {
        Some(url::Host::Domain(domain)) => domain.trim_end_matches('.').to_ascii_lowercase(),
        Some(url::Host::Ipv4(ip)) => return ip.to_string(),
        // No colons: they look like a URL.
        Some(url::Host::Ipv6(ip)) => {
            return ip
                .to_string()
                .replace(':', "-")
                .trim_matches('-')
                .to_owned();
        }
        None => String::new(),
    };
    let mut name = host.as_str();
    if let Some(suffix) = psl::suffix(host.as_bytes()).filter(psl::Suffix::is_known)
        && let Ok(suffix) = std::str::from_utf8(suffix.as_bytes())
        && let Some(rest) = name
            .strip_suffix(suffix)
            .and_then(|rest| rest.strip_suffix('.'))
    {
        name = rest;
    }
    while let Some(rest) = ["mcp.", "api.", "www."]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
    {
        name = rest;
    }
    if name.is_empty() {
        "server".to_owned()
    } else {
        name.chars().take(60).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Resource {
        Resource::parse(text).unwrap()
    }

    #[test]
    fn default_names_are_what_people_call_the_server() {
        for (at, name) in [
            ("https://mcp.linear.app/mcp", "linear"),
            ("https://api.githubcopilot.com/mcp/", "githubcopilot"),
            ("https://www.example.co.uk/", "example"),
            ("https://mcp.api.stripe.com", "stripe"),
            ("https://docs.mcp.cloudflare.com/mcp", "docs.mcp.cloudflare"),
            ("https://mcp.com/", "mcp"),
            ("http://localhost:3000/mcp", "localhost"),
            ("http://127.0.0.1:3000/mcp", "127.0.0.1"),
            ("http://[::1]:3000/mcp", "1"),
            ("https://tools.internal/mcp", "tools.internal"),
        ] {
            assert_eq!(base_name(&url(at)), name, "{at}");
        }
        assert_eq!(
            default_name(&url("https://linear.app"), |name| ["linear", "linear-2"]
                .contains(&name)),
            "linear-3"
        );
    }

    #[test]
    fn a_name_cannot_be_taken_for_a_url_or_an_account() {
        for bad in [
            "",
            "a b",
            "a@b",
            "https://x",
            "-x",
            "a/b",
            "a\u{1b}[2J",
            &"x".repeat(65),
        ] {
            assert_eq!(check_name(bad).unwrap_err().code(), "config.value", "{bad}");
        }
        assert!(check_name("linear-2").is_ok() && check_name("büro").is_ok());
    }
}
