//! The head of a request to the callback listener, and what it is worth.

use pilotlight_core::secret::StateParameter;
use url::form_urlencoded;

use super::page::Page;

/// The parts of a request that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    hosts: Vec<&'a str>,
}

impl<'a> Head<'a> {
    /// Reads a request line in origin form and the `Host` headers. Total: whatever is odd is `None`.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some()
            || !matches!(version, "HTTP/1.1" | "HTTP/1.0")
            || !target.starts_with('/')
        {
            return None;
        }
        let mut hosts = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
                return None;
            }
            if name.eq_ignore_ascii_case("host") {
                hosts.push(value.trim_matches([' ', '\t']));
            }
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Some(Self {
            method,
            path,
            query,
            hosts,
        })
    }

    /// Judges the request in the order of T-04: path, method, host, state. Only a request with the one right state ends
    /// the wait; its parameters come form-decoded and in order.
    pub(super) fn judge(
        &self,
        path: &str,
        port: u16,
        state: &StateParameter,
    ) -> Result<Vec<(String, String)>, Page> {
        if self.path != path {
            return Err(Page::NotFound);
        }
        if self.method != "GET" {
            return Err(Page::WrongMethod);
        }
        // Any loopback name will do, no other: a page of the web that rebinds its own name to us is turned away (T-26).
        let [host] = self.hosts[..] else {
            return Err(Page::BadRequest);
        };
        let ours = LOOPBACK.iter().any(|name| {
            let host = host.to_ascii_lowercase();
            host == format!("{name}:{port}") || (port == 80 && host == *name)
        });
        if !ours {
            return Err(Page::BadRequest);
        }
        let parameters: Vec<(String, String)> = form_urlencoded::parse(self.query.as_bytes())
            .into_owned()
            .collect();
        if carries(&parameters, state) {
            Ok(parameters)
        } else {
            Err(Page::NotThisLogin)
        }
    }
}

/// Whether parameters hold exactly one `state`, and it is this one; compared in constant time.
pub(crate) fn carries(parameters: &[(String, String)], state: &StateParameter) -> bool {
    let mut states = parameters.iter().filter(|(name, _)| name == "state");
    let (Some((_, sent)), None) = (states.next(), states.next()) else {
        return false;
    };
    StateParameter::new(sent.clone()).is_ok_and(|sent| sent == *state)
}

const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(request: &str) -> Result<Vec<(String, String)>, Page> {
        let state = StateParameter::new("right".into()).unwrap();
        Head::parse(request.as_bytes())
            .ok_or(Page::BadRequest)?
            .judge("/callback", 1234, &state)
    }

    fn get(target: &str) -> Result<Vec<(String, String)>, Page> {
        judge(&format!(
            "GET {target} HTTP/1.1\r\nHost: 127.0.0.1:1234\r\n\r\n"
        ))
    }

    /// T-04: parameters come decoded and in order, repeated ones included, for the flow to judge.
    #[test]
    fn the_right_request_gives_its_parameters_in_order() {
        let got =
            get("/callback?code=a%2Bb+c&state=right&iss=https%3A%2F%2Fx&code=2&empty").unwrap();
        let got: Vec<(&str, &str)> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            got,
            [
                ("code", "a+b c"),
                ("state", "right"),
                ("iss", "https://x"),
                ("code", "2"),
                ("empty", "")
            ]
        );
    }

    /// T-04: a wrong, missing, empty, repeated or misspelt state is never taken.
    #[test]
    fn only_the_one_right_state_is_taken() {
        for query in [
            "",
            "?",
            "?code=x",
            "?error=access_denied",
            "?state=",
            "?state=wrong",
            "?state=righ",
            "?state=rightt",
            "?state=Right",
            "?state=right&state=right",
            "?state=right&state=wrong",
            "?state=wrong&state=right",
            "?State=right",
            "?state%5B%5D=right",
            "?xstate=right",
            "?state=right%00",
            "?state=right%0d%0a",
            "?state=+right",
            "?state=%72ight%20",
            "?code=state%3Dright",
            "?state=caf%C3%A9",
        ] {
            assert_eq!(
                get(&format!("/callback{query}")),
                Err(Page::NotThisLogin),
                "{query}"
            );
        }
        assert!(get("/callback?state=%72ight").is_ok());
    }

    /// T-04: ten thousand wrong states leave the right one as good as before.
    #[test]
    fn ten_thousand_wrong_states_change_nothing() {
        for i in 0..10_000u32 {
            assert_eq!(
                get(&format!("/callback?code=x&state={i:x}right")),
                Err(Page::NotThisLogin)
            );
        }
        assert!(get("/callback?code=x&state=right").is_ok());
    }

    /// T-04: the path is exact.
    #[test]
    fn another_path_is_not_found() {
        for path in [
            "/",
            "/callback/",
            "/Callback",
            "/callbac%6b",
            "//callback",
            "/callback/../callback",
            "/favicon.ico",
        ] {
            assert_eq!(
                get(&format!("{path}?state=right")),
                Err(Page::NotFound),
                "{path}"
            );
        }
    }

    /// T-04, T-26: method and host are checked before the state is looked at.
    #[test]
    fn method_and_host_are_checked() {
        let with = |method: &str, headers: &str| {
            judge(&format!(
                "{method} /callback?state=right HTTP/1.1\r\n{headers}\r\n"
            ))
        };
        for method in ["POST", "HEAD", "get", "OPTIONS", "PUT"] {
            assert_eq!(
                with(method, "Host: 127.0.0.1:1234\r\n"),
                Err(Page::WrongMethod),
                "{method}"
            );
        }
        for headers in [
            "",
            "Host: evil.example\r\n",
            "Host: 127.0.0.1\r\n",
            "Host: 127.0.0.1:1235\r\n",
            "Host: localhost.evil:1234\r\n",
            "Host: 127.0.0.1.nip.io:1234\r\n",
            "Host: 127.0.0.1:1234\r\nHost: 127.0.0.1:1234\r\n",
            "Host: \r\n",
            "Host: 127.0.0.1:01234\r\n",
            "Host: 2130706433:1234\r\n",
            "Host: u@127.0.0.1:1234\r\n",
        ] {
            assert_eq!(with("GET", headers), Err(Page::BadRequest), "{headers}");
        }
        for host in [
            "127.0.0.1:1234",
            "localhost:1234",
            "LocalHost:1234",
            "[::1]:1234",
        ] {
            assert!(with("GET", &format!("host:{host}\r\n")).is_ok(), "{host}");
        }
    }

    /// T-07: what cannot be read is refused, never guessed at.
    #[test]
    fn broken_heads_are_refused() {
        for head in [
            "",
            "\r\n\r\n",
            "GET\r\n\r\n",
            "GET /callback\r\n\r\n",
            "GET  /callback HTTP/1.1\r\n\r\n",
            "GET /callback?state=right HTTP/2\r\n\r\n",
            "GET http://127.0.0.1:1234/callback HTTP/1.1\r\n\r\n",
            "GET * HTTP/1.1\r\n\r\n",
            "GET /callback HTTP/1.1\r\nHost\r\n\r\n",
            "GET /callback HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET /callback HTTP/1.1\r\n: x\r\n\r\n",
            "GET /callback HTTP/1.1\r\n folded\r\n\r\n",
            "GET /callback HTTP/1.1\nHost: 127.0.0.1:1234\n\n",
            "GET /call back HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(Head::parse(head.as_bytes()), None, "{head:?}");
        }
        assert_eq!(Head::parse(b"GET /\xff HTTP/1.1\r\n\r\n"), None);
    }
}
