//! Cookies of the one server that a bridge speaks to, in memory: load balancers tell by them who is to be asked again.
//!
//! They go to that server's origin only, whatever their `Domain` says. They end with the process or when the server takes them
//! back, not by their age.

use std::sync::Mutex;

use http::{
    HeaderMap, HeaderValue, Uri,
    header::{COOKIE, SET_COOKIE},
};

use crate::lock::lock;

/// The cookies there are.
#[derive(Default)]
pub(crate) struct Cookies {
    kept: Mutex<Vec<Cookie>>,
}

struct Cookie {
    name: String,
    value: String,
    path: String,
    secure: bool,
}

impl Cookies {
    /// Puts on a request what belongs there, unless the person has put cookies there.
    pub(crate) fn mark(&self, uri: &Uri, head: &mut HeaderMap) {
        let kept = lock(&self.kept);
        if kept.is_empty() || head.contains_key(COOKIE) {
            return;
        }
        let secure = uri.scheme_str() == Some("https");
        let fits =
            |cookie: &&Cookie| covers(&cookie.path, uri.path()) && (secure || !cookie.secure);
        let pairs: Vec<String> = kept
            .iter()
            .filter(fits)
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        if let Ok(mut value) = HeaderValue::from_str(&pairs.join("; "))
            && !pairs.is_empty()
        {
            value.set_sensitive(true);
            head.insert(COOKIE, value);
        }
    }

    /// Takes what an answer sets, and lets go of what it takes back.
    pub(crate) fn learn(&self, uri: &Uri, head: &HeaderMap) {
        for value in head.get_all(SET_COOKIE) {
            let Some((cookie, over)) = value.to_str().ok().and_then(|text| read(text, uri.path()))
            else {
                continue;
            };
            let mut kept = lock(&self.kept);
            kept.retain(|old| (&old.name, &old.path) != (&cookie.name, &cookie.path));
            if !over && kept.len() < MOST {
                kept.push(cookie);
            }
        }
    }
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies")
    }
}

/// A `Set-Cookie` field (RFC 6265 section 5.2), and whether it takes the cookie back.
fn read(text: &str, asked: &str) -> Option<(Cookie, bool)> {
    let mut parts = text.split(';').map(str::trim);
    let (name, value) = parts.next()?.split_once('=')?;
    if name.is_empty() || name.len() + value.len() > LONGEST {
        return None;
    }
    let usual = asked.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let mut cookie = Cookie {
        name: name.trim().to_owned(),
        value: value.trim().to_owned(),
        path: if usual.is_empty() { "/" } else { usual }.to_owned(),
        secure: false,
    };
    let mut over = false;
    for part in parts {
        let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
        match attribute.to_ascii_lowercase().as_str() {
            "secure" => cookie.secure = true,
            "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
            "max-age" => over |= value.parse::<i64>().is_ok_and(|age| age <= 0),
            "expires" => over |= value.contains(" 1970 ") || value.contains("-1970 "),
            _ => {}
        }
    }
    Some((cookie, over))
}

/// RFC 6265 section 5.1.4.
fn covers(path: &str, asked: &str) -> bool {
    asked
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || path.ends_with('/') || rest.starts_with('/'))
}

const MOST: usize = 50;
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(set: &[&str], uri: &str) -> Option<String> {
        let cookies = Cookies::default();
        for text in set {
            let mut head = HeaderMap::new();
            head.append(SET_COOKIE, HeaderValue::from_str(text).unwrap());
            cookies.learn(&Uri::from_static("https://a.example/x/mcp"), &head);
        }
        let mut head = HeaderMap::new();
        cookies.mark(&uri.parse().unwrap(), &mut head);
        head.get(COOKIE).map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        })
    }

    #[test]
    fn a_cookie_goes_where_it_belongs_until_it_is_taken_back() {
        let here = "https://a.example/x/mcp";
        assert_eq!(
            sent(&["a=1; Path=/", "b=2; HttpOnly"], here).unwrap(),
            "a=1; b=2"
        );
        assert_eq!(sent(&["a=1", "a=2"], here).unwrap(), "a=2");
        assert_eq!(sent(&["a=1", "a=; Max-Age=0"], here), None);
        assert_eq!(
            sent(&["a=1", "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], here),
            None
        );
        assert_eq!(sent(&["a=1; Path=/x"], "https://a.example/xy"), None);
        assert_eq!(sent(&["a=1; Secure; Path=/"], "http://a.example/"), None);
        assert_eq!(sent(&["=1", "nonsense"], here), None);
    }
}
