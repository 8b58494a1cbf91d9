//! The fixed pages of the callback listener (T-03): nothing of a request is ever part of an answer.

use url::Url;

/// Which fixed answer a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// The redirect of this login, with a code.
    LoggedIn,
    /// The redirect of this login, with an error.
    Refused,
    /// Another login's redirect, or none: the wait goes on.
    NotThisLogin,
    /// Not the redirect's path.
    NotFound,
    /// Not a GET.
    WrongMethod,
    /// Not a request that can be read.
    BadRequest,
    /// A head over the limit.
    TooLarge,
}

impl Page {
    /// What sends the browser on to a page that a person has configured. Nothing of the request goes there, and no referrer.
    pub(super) fn elsewhere(to: &Url) -> Vec<u8> {
        format!("HTTP/1.1 303 See Other\r\n{HEADERS}Location: {to}\r\nContent-Length: 0\r\n\r\n")
            .into_bytes()
    }

    /// The whole answer, byte for byte.
    pub(super) fn answer(self) -> Vec<u8> {
        let (status, body) = match self {
            Self::LoggedIn => ("200 OK", LOGGED_IN),
            Self::Refused => ("200 OK", REFUSED),
            Self::NotThisLogin => ("400 Bad Request", NOT_THIS_LOGIN),
            Self::NotFound => ("404 Not Found", NOT_FOUND),
            Self::WrongMethod => ("405 Method Not Allowed", NOT_FOUND),
            Self::BadRequest => ("400 Bad Request", NOT_FOUND),
            Self::TooLarge => ("431 Request Header Fields Too Large", NOT_FOUND),
        };
        let allow = if self == Self::WrongMethod {
            "Allow: GET\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 {status}\r\n{HEADERS}{allow}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// The style's hash is that of [`page`]'s `style` element; a test keeps them together.
const HEADERS: &str = "Content-Type: text/html; charset=utf-8\r\n\
Content-Security-Policy: default-src 'none'; style-src 'sha256-So0h4tYpOuzKM4enUJTVNBVWjzdSW9VVaX2sO1qiXl8='; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
X-Content-Type-Options: nosniff\r\n\
Referrer-Policy: no-referrer\r\n\
Cache-Control: no-store\r\n\
Connection: close\r\n";

macro_rules! page {
    ($title:literal, $text:literal) => {
        concat!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
            $title,
            "</title>\n<style>",
            "html{color-scheme:light dark;font:1.125rem/1.6 system-ui,sans-serif}\
body{display:grid;min-height:90vh;place-content:center;text-align:center;margin:1rem}\
h1{font-size:1.5rem;margin:0}p{margin:.5rem 0;opacity:.75}",
            "</style>\n<main><h1>",
            $title,
            "</h1><p>",
            $text,
            "</p></main>\n</html>\n"
        )
    };
}

const LOGGED_IN: &str = page!("You are logged in.", "You can close this window.");
const REFUSED: &str = page!(
    "The login was not completed.",
    "The program that began it says why. You can close this window."
);
const NOT_THIS_LOGIN: &str = page!(
    "This is not the login that is waited for.",
    "Go back to the program and open its link again."
);
const NOT_FOUND: &str = page!(
    "There is nothing here.",
    "This address only takes the end of a login."
);

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// T-03: the policy admits the page's own style and nothing else.
    #[test]
    fn the_policy_names_the_hash_of_the_style() {
        for page in [LOGGED_IN, REFUSED, NOT_THIS_LOGIN, NOT_FOUND] {
            let style = page
                .split_once("<style>")
                .unwrap()
                .1
                .split_once("</style>")
                .unwrap()
                .0;
            let hash = format!(
                "style-src 'sha256-{}'",
                STANDARD.encode(Sha256::digest(style))
            );
            assert!(HEADERS.contains(&hash), "{hash}");
        }
    }
}
