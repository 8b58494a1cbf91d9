//! The proxy, as the command line found it (T-41): the library itself never looks for one.

use std::net::IpAddr;

use pilotlight_core::resource::is_loopback;
use url::{Host, Url};

use crate::egress::Cidr;

/// Through which proxy requests go. Loopback is never sent through one.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxy {
    /// Through none.
    #[default]
    None,
    /// Through the ones named here; their own addresses are exempt from the egress policy.
    Explicit {
        /// For `https` URLs; may carry a user name and password.
        https: Option<Url>,
        /// For `http` URLs.
        http: Option<Url>,
        /// The hosts that are reached without it, as in `NO_PROXY`: `*`, names (with their subdomains), addresses and
        /// address ranges, separated by commas.
        no_proxy: String,
    },
}

impl Proxy {
    /// The proxy that a URL is fetched through, if any.
    #[must_use]
    pub fn of(&self, url: &Url) -> Option<&Url> {
        let Self::Explicit {
            https,
            http,
            no_proxy,
        } = self
        else {
            return None;
        };
        if is_loopback(url) || bypasses(no_proxy, url) {
            return None;
        }
        if url.scheme() == "https" {
            https.as_ref()
        } else {
            http.as_ref()
        }
    }

    /// The proxies' own hosts.
    pub(super) fn hosts(&self) -> Vec<String> {
        let Self::Explicit { https, http, .. } = self else {
            return Vec::new();
        };
        let host = |proxy: &Url| {
            proxy
                .host_str()
                .map(|host| host.trim_end_matches('.').to_ascii_lowercase())
        };
        https.iter().chain(http).filter_map(host).collect()
    }

    /// The same as reqwest wants it: one function, so that it decides exactly as [`Proxy::of`].
    pub(super) fn reqwest(&self) -> Option<reqwest::Proxy> {
        if *self == Self::None {
            return None;
        }
        let this = self.clone();
        Some(reqwest::Proxy::custom(move |url| this.of(url).cloned()))
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URLs may carry a password.
        write!(f, "Proxy({})", self.hosts().join(", "))
    }
}

fn bypasses(no_proxy: &str, url: &Url) -> bool {
    let ip: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(ip)) => Some(ip.into()),
        Some(Host::Ipv6(ip)) => Some(ip.into()),
        _ => None,
    };
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_end_matches('.')
        .to_ascii_lowercase();
    no_proxy
        .split([',', ' '])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            let name = entry
                .trim_start_matches("*.")
                .trim_matches('.')
                .to_ascii_lowercase();
            match ip {
                _ if entry == "*" => true,
                Some(ip) => entry
                    .trim_matches(['[', ']'])
                    .parse::<Cidr>()
                    .is_ok_and(|range| range.contains(ip)),
                None => !name.is_empty() && (host == name || host.ends_with(&format!(".{name}"))),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NO_PROXY` as curl and Go read it; loopback never goes through a proxy.
    #[test]
    fn no_proxy_names_hosts_and_ranges() {
        let proxy = Proxy::Explicit {
            https: Some(Url::parse("http://u:secret@proxy.corp:3128").unwrap()),
            http: None,
            no_proxy: "example.com, .corp,10.0.0.0/8,[fd00::1], *.b.test".into(),
        };
        for (url, through) in [
            ("https://other.org/", true),
            ("https://notexample.com/", true),
            ("https://example.com/", false),
            ("https://a.Example.com./", false),
            ("https://x.corp/", false),
            ("https://a.b.test/", false),
            ("https://10.1.2.3/", false),
            ("https://11.1.2.3/", true),
            ("https://[fd00::1]/", false),
            ("https://localhost/", false),
            ("http://other.org/", false),
        ] {
            assert_eq!(
                proxy.of(&Url::parse(url).unwrap()).is_some(),
                through,
                "{url}"
            );
        }
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy.corp)");
    }
}
