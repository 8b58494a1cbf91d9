//! What a person pastes: the address that the browser ended at, or a code.

use pilotlight_core::secret::{AuthorizationCode, StateParameter};
use url::{Url, form_urlencoded};

use crate::callback::carries;

/// What a pasted line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pasted {
    /// An empty line.
    Nothing,
    /// The parameters of this login's redirect.
    Redirect(Vec<(String, String)>),
    /// A code alone, without anything that ties it to this login.
    Code(AuthorizationCode),
    /// A redirect whose state is another, or missing, or there twice.
    AnotherLogin,
    /// None of these.
    Unreadable,
}

/// Reads a pasted line: a redirect URL (its parameters in the query), the query alone, `code#state` as some issuers
/// show it, or a bare code.
pub(super) fn read(line: &str, state: &StateParameter) -> Pasted {
    let text = line.trim().trim_matches(['"', '\'', '<', '>']).trim();
    if text.is_empty() {
        return Pasted::Nothing;
    }
    if text.contains("://") {
        let Ok(url) = Url::parse(text) else {
            return Pasted::Unreadable;
        };
        return url
            .query()
            .map_or(Pasted::Unreadable, |query| redirect(query, state));
    }
    let query = text.trim_start_matches('?');
    if ["code=", "state=", "error="]
        .iter()
        .any(|name| query.starts_with(name) || query.contains(&format!("&{name}")))
    {
        return redirect(query, state);
    }
    if let Some((code, sent)) = text.split_once('#') {
        return redirect_of(
            vec![("code".into(), code.into()), ("state".into(), sent.into())],
            state,
        );
    }
    // A word that somebody typed is not a code; no issuer gives out one that short.
    if text.len() < SHORTEST_CODE || text.contains(char::is_whitespace) {
        return Pasted::Unreadable;
    }
    AuthorizationCode::new(text.to_owned()).map_or(Pasted::Unreadable, Pasted::Code)
}

/// The parameters for a bare code. **The `state` is our own, not the redirect's**: nothing proves that the code belongs to
/// this login but that a person at this terminal pasted it, and PKCE, without which the issuer will not take it. There is
/// no `iss` either, so a login at an issuer that promises one still fails, as it must.
pub(super) fn unproven(code: AuthorizationCode, state: &StateParameter) -> Vec<(String, String)> {
    vec![
        ("code".into(), code.expose().to_owned()),
        ("state".into(), state.expose().to_owned()),
    ]
}

fn redirect(query: &str, state: &StateParameter) -> Pasted {
    redirect_of(
        form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        state,
    )
}

fn redirect_of(parameters: Vec<(String, String)>, state: &StateParameter) -> Pasted {
    if carries(&parameters, state) {
        Pasted::Redirect(parameters)
    } else {
        Pasted::AnotherLogin
    }
}

const SHORTEST_CODE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// T-04: by hand as by the listener, a redirect counts only with this login's state.
    #[test]
    fn a_pasted_redirect_needs_the_state_of_this_login() {
        let state = StateParameter::new("right".into()).unwrap();
        for good in [
            "http://127.0.0.1:1234/callback?code=abc&state=right",
            "  \"http://localhost/callback?state=right&error=access_denied\"  ",
            "?code=abc&state=right",
            "code=abc&state=right&iss=https%3A%2F%2Fx",
            "abcdef#right",
        ] {
            assert!(matches!(read(good, &state), Pasted::Redirect(_)), "{good}");
        }
        for other in [
            "http://127.0.0.1:1234/callback?code=abc&state=wrong",
            "http://127.0.0.1:1234/callback?code=abc",
            "http://127.0.0.1:1234/callback?code=abc&state=right&state=right",
            "code=abc",
            "abcdef#wrong",
        ] {
            assert_eq!(read(other, &state), Pasted::AnotherLogin, "{other}");
        }
        for odd in [
            "https://as.example/done",
            "http://[",
            "yes",
            "what is this",
            "caf\u{e9}caf\u{e9}",
        ] {
            assert_eq!(read(odd, &state), Pasted::Unreadable, "{odd}");
        }
        assert_eq!(read(" \r\n", &state), Pasted::Nothing);
        let Pasted::Code(code) = read("SplxlOBeZQQYbYS6WxSbIA\n", &state) else {
            panic!("a bare code")
        };
        assert_eq!(unproven(code, &state)[1], ("state".into(), "right".into()));
    }
}
