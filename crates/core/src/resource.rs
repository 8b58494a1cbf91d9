//! The MCP server by its canonical URI (RFC 8707 section 2, RFC 9728 section 1.2).

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::error::Error;

/// A protected resource: the text as it was configured or published, and the URL it parses to.
///
/// The text is kept octet for octet (AUTH-73): it is what the `resource` parameter carries. Comparison is by the parsed
/// URL: scheme and host in lower case, default port dropped, an empty path equal to `/`, no fragment.
///
/// Every copy of a login names its resource, so copies share it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resource(Arc<Parsed>);

struct Parsed {
    text: String,
    url: Url,
}

impl Resource {
    /// Parses a resource URI: `https`, or `http` to a loopback host; a host; no fragment, no user name.
    ///
    /// # Errors
    /// `config.url`, with what is wrong in words.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: &'static str| Error::ConfigUrl {
            url: clean(text),
            why,
        };
        let url = Url::parse(text.trim()).map_err(|_| bad("it is not a URL"))?;
        if url.fragment().is_some() {
            return Err(bad("a resource URI has no fragment (RFC 8707 section 2)"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("a user name or password does not belong in it"));
        }
        match url.scheme() {
            "https" if url.host().is_some() => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(bad("plain http is only for a loopback host; use https")),
            _ => return Err(bad("it must start with https://")),
        }
        Ok(Self(Arc::new(Parsed {
            text: text.trim().to_owned(),
            url,
        })))
    }

    /// The text exactly as configured or published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The parsed URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0.url
    }

    /// Whether a resource URI published in metadata stands for this server (RFC 9728 section 3.3, AUTH-14).
    ///
    /// Equal, or the same origin with a path that is a whole-segment prefix of this one: a document at the root may
    /// speak for every path below it.
    #[must_use]
    pub fn is_within(&self, published: &Self) -> bool {
        published.covers(self.url())
    }

    /// Whether a request to `url` may carry this resource's token (T-24): same scheme, host and port, and a path
    /// that has this path as a prefix ending at a `/`.
    #[must_use]
    pub fn covers(&self, url: &Url) -> bool {
        let known = self.url();
        if known.scheme() != url.scheme()
            || known.host() != url.host()
            || known.port_or_known_default() != url.port_or_known_default()
            || !url.username().is_empty()
            || url.password().is_some()
        {
            return false;
        }
        let (own, path) = (known.path().trim_end_matches('/'), url.path());
        // `%2e` and `%2f` are read as `.` and `/` by some servers: a path that could mean another place gets no token.
        let lower = path.to_ascii_lowercase();
        if ["%2e", "%2f", "%5c", "\\"]
            .iter()
            .any(|odd| lower.contains(odd))
            && path != known.path()
        {
            return false;
        }
        path.strip_prefix(own)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The URI in the one form that equal resources share, for look-up.
    #[must_use]
    pub fn canonical(&self) -> &str {
        let (url, text) = (self.url(), self.url().as_str());
        if url.query().is_none() && url.path() == "/" {
            text.strip_suffix('/').unwrap_or(text)
        } else {
            text
        }
    }

    /// Whether the server runs on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.url())
    }
}

/// Whether a URL names this machine: `localhost`, `127.0.0.0/8` or `::1`.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name.eq_ignore_ascii_case("localhost")
                || name.to_ascii_lowercase().ends_with(".localhost")
        }
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
        }
        None => false,
    }
}

/// Text from outside made fit for a terminal: control and bidirectional characters escaped, at most 256 characters (T-21).
#[must_use]
pub fn clean(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == 256 {
            out.push('\u{2026}');
            break;
        }
        if c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for Resource {}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(self.as_str()))
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({self})")
    }
}

impl TryFrom<String> for Resource {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Resource> for String {
    fn from(resource: Resource) -> Self {
        resource.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(text: &str) -> Resource {
        Resource::parse(text).unwrap()
    }

    /// AUTH-71, AUTH-72, AUTH-73: upper case is accepted, the text is kept, equality is canonical.
    #[test]
    fn text_is_kept_and_equality_is_canonical() {
        let a = resource("HTTPS://MCP.Example.com:443/mcp");
        assert_eq!(a.as_str(), "HTTPS://MCP.Example.com:443/mcp");
        assert_eq!(a, resource("https://mcp.example.com/mcp"));
        assert_eq!(
            resource("https://x.example"),
            resource("https://x.example/")
        );
        assert_eq!(resource("https://x.example").as_str(), "https://x.example");
        assert_ne!(a, resource("https://mcp.example.com/mcp/"));
    }

    /// AUTH-71, AUTH-101: what cannot be a resource says why.
    #[test]
    fn what_is_no_resource_is_refused() {
        for bad in [
            "",
            "not a url",
            "ftp://x/",
            "http://example.com/mcp",
            "https://x/#f",
            "https://u:p@x/",
            "javascript:alert(1)",
        ] {
            assert!(
                matches!(Resource::parse(bad), Err(Error::ConfigUrl { .. })),
                "{bad}"
            );
        }
        for good in [
            "http://localhost:3000/mcp",
            "http://127.0.0.1/x",
            "http://[::1]:8/x",
            "https://x.example/a?b=c",
        ] {
            assert!(Resource::parse(good).is_ok(), "{good}");
        }
    }

    /// T-24: a token goes below its path at a `/` boundary and nowhere else.
    #[test]
    fn a_token_stays_below_its_path() {
        let r = resource("https://mcp.x/a");
        for (url, want) in [
            ("https://mcp.x/a", true),
            ("https://mcp.x/a/b?c=d", true),
            ("https://mcp.x/b", false),
            ("https://mcp.x/ab", false),
            ("https://mcp.x/a/../b", false),
            ("https://mcp.x/a%2f..%2fb", false),
            ("https://mcp.x/a/%2e%2e/b", false),
            ("https://mcp.x:444/a", false),
            ("http://mcp.x/a", false),
            ("https://evil/a", false),
            ("https://mcp.x@evil/a", false),
            ("https://u@mcp.x/a", false),
        ] {
            assert_eq!(r.covers(&Url::parse(url).unwrap()), want, "{url}");
        }
    }

    /// T-21: nothing a server says can move a terminal's cursor.
    #[test]
    fn outside_text_is_escaped_and_cut() {
        assert_eq!(clean("a\u{1b}]52;b\u{202e}"), "a\\u{1b}]52;b\\u{202e}");
        assert_eq!(clean(&"x".repeat(300)).chars().count(), 257);
    }
}
