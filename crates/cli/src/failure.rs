//! How a command fails: what happened, who must act, what to type next, and the exit code.

use std::time::Duration;

use pilotlight_core::{
    Error, error::LoginCause, flow::discover::WHICH_ISSUER, issuer::IssuerException,
    resource::clean,
};
use serde_json::{Value, json};
use url::Url;

use crate::target::Target;

/// Why a command did not do what was asked. Small, since every result carries room for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(Box<Told>);

/// What a failure tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The stable, dotted code; empty where everything has been said already.
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    /// A command that can be pasted.
    pub(crate) hint: Option<String>,
    pub(crate) action: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) exit: u8,
}

impl Failure {
    /// The answer is negative and has been given: nothing more is said.
    pub(crate) fn silent(exit: u8) -> Self {
        Told {
            exit,
            ..Told::default()
        }
        .into()
    }

    /// The MCP server answered a request with an error of its own.
    pub(crate) fn server_said(message: &str) -> Self {
        let message = format!("the server answered: {}", clean(message));
        Told {
            code: "mcp.error".into(),
            message,
            action: "stop".into(),
            exit: 1,
            ..Told::default()
        }
        .into()
    }

    /// The connection to the MCP server cannot be used, for no reason that the login would have.
    pub(crate) fn connection(message: String, causes: Vec<String>) -> Self {
        Told {
            code: "mcp.connection".into(),
            message,
            causes,
            action: "retry_later".into(),
            exit: 75,
            ..Told::default()
        }
        .into()
    }

    /// A person stopped the command.
    pub(crate) fn interrupted(message: &str, exit: u8) -> Self {
        Told {
            code: "interrupted".into(),
            message: message.into(),
            action: "stop".into(),
            exit,
            ..Told::default()
        }
        .into()
    }

    /// What was typed makes no command.
    pub(crate) fn usage(message: String, exit: u8) -> Self {
        let hint = Some("pilotlight help".to_owned());
        Told {
            code: "config.value".into(),
            message,
            hint,
            action: "fix_own_side".into(),
            exit,
            ..Told::default()
        }
        .into()
    }

    /// The same as the error, about a certain server: the hint names it.
    pub(crate) fn of(error: &Error, target: &Target) -> Self {
        let signs = target.server.as_ref();
        let signs = signs.is_some_and(|server| server.grant.client_key.is_some());
        let hint = match error {
            Error::DeniedByIssuer { error } if error == "invalid_client" && signs => {
                Some(CLOCK.to_owned())
            }
            Error::ConfigProofNeeded => Some(format!(
                "pilotlight token {} --format headers --for {}",
                quoted(&target.typed()),
                quoted(target.key.url.as_str())
            )),
            error => hint(error, Some(&target.typed())),
        };
        Told {
            hint,
            ..Told::from(error)
        }
        .into()
    }

    /// The same, for a login that failed: where nobody could be asked, the way to ask somebody is the hint.
    pub(crate) fn of_login(error: &Error, target: &Target) -> Self {
        let mut told = Told {
            hint: hint(error, Some(&target.typed())),
            ..Told::from(error)
        };
        let offline = matches!(
            error,
            Error::Network { .. } | Error::Timeout { .. } | Error::ServerError { .. }
        );
        if offline && target.binding.is_none() {
            // There is no login yet that could be looked at.
            told.hint = None;
        }
        if matches!(error, Error::NoOauth { status: 404 | 405 }) {
            told.hint = Some(NO_SERVER.to_owned());
        }
        // What the configuration names was made at the issuer that it names: that goes to no other one.
        let named = target
            .server
            .as_ref()
            .is_some_and(|server| server.issuer.is_some());
        if matches!(error, Error::ConfigValue { what, .. } if what == WHICH_ISSUER) && !named {
            let typed = quoted(&target.typed());
            told.hint = Some(format!("pilotlight login {typed} --issuer ISSUER"));
        }
        if let Error::LoginRequired {
            cause: LoginCause::IssuerChanged { issuer, .. },
        } = error
        {
            // It was the client that was in the way: it belongs to the issuer before.
            told.hint = Some(format!(
                "pilotlight login {} --client-id ID --issuer {}, with a client that was made there",
                quoted(&target.typed()),
                quoted(issuer)
            ));
        }
        if let Error::LoginRequired {
            cause: LoginCause::EndpointMoved,
        } = error
        {
            // A person's login moves with the person; without one the pins stay until somebody takes them away.
            told.hint = Some(format!(
                "pilotlight logout {}   (if you expect that; then log in again the same way)",
                quoted(&target.typed())
            ));
        }
        if let Error::LoginRequired {
            cause: LoginCause::Never,
        } = error
        {
            told.message = "nobody can be asked from here to approve the login".to_owned();
            told.hint = Some(format!(
                "pilotlight login {} --paste, at a terminal (or --browser-command PROGRAM)",
                quoted(&target.typed())
            ));
        }
        told.into()
    }

    /// The error as `--json` shows it.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "action": self.action,
            "message": self.message,
            "hint": self.hint,
            "retry_after_s": self.retry_after.map(|span| span.as_secs_f64().ceil()),
        })
    }
}

impl std::ops::Deref for Failure {
    type Target = Told;
    fn deref(&self) -> &Told {
        &self.0
    }
}

impl From<Told> for Failure {
    fn from(told: Told) -> Self {
        Self(Box::new(told))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Told::from(&error).into()
    }
}

impl From<&Error> for Told {
    fn from(error: &Error) -> Self {
        let action = serde_json::to_value(error.action())
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned));
        Self {
            code: error.code().to_owned(),
            message: error.to_string(),
            causes: causes(error),
            hint: hint(error, None),
            action: action.unwrap_or_default(),
            retry_after: error.retry_after(),
            exit: error.exit_code(),
        }
    }
}

/// What lies behind an error, where the error knows.
fn causes(error: &Error) -> Vec<String> {
    match error {
        Error::BackingOff { code, .. } => vec![format!("the last try ended with {code}")],
        _ => Vec::new(),
    }
}

/// The next command, where there is one that helps.
fn hint(error: &Error, typed: Option<&str>) -> Option<String> {
    let login = |flags: &str| {
        let target = typed.map_or_else(|| "TARGET".to_owned(), quoted);
        format!("pilotlight login {target}{flags}")
    };
    Some(match error {
        Error::LoginRequired {
            cause: LoginCause::Scope { scopes },
        } => {
            let scopes: String = scopes
                .iter()
                .map(|scope| format!(" --scope {}", quoted(scope)))
                .collect();
            login(&scopes)
        }
        Error::LoginRequired {
            cause: LoginCause::StaticTokenRefused,
        } => login(" --with-token"),
        Error::MetadataMismatch { published, got, .. } => {
            let accepted = IssuerException::parse(&format!("{published}={got}")).ok()?;
            let accepted = format!(
                "{}={}",
                accepted.published.as_str(),
                accepted.metadata.as_str()
            );
            login(&format!(" --accept-issuer {}", quoted(&accepted)))
        }
        Error::ScopeRefused { .. } => login(" --scope SCOPE"),
        Error::LoginRequired { .. }
        | Error::DeniedByHuman
        | Error::DeniedByIssuer { .. }
        | Error::StateMismatch => login(""),
        Error::DeniedByResource => {
            format!("pilotlight why {}", quoted(typed?))
        }
        Error::NoRegistrationWay { redirect_uris, .. }
        | Error::RegistrationRefused { redirect_uris, .. } => {
            let port = redirect_uris
                .iter()
                .find_map(|uri| Url::parse(uri).ok()?.port());
            let port = port.map_or_else(String::new, |port| format!(" --callback-port {port}"));
            login(&format!(" --client-id ID{port}"))
        }
        Error::NoDeviceLogin => login(" --paste"),
        Error::ConfigCallbackPort { .. } => login(" --callback-port 0"),
        Error::LeaseHeld { holder } | Error::LoginInProgress { holder } if holder.stopped => {
            format!("kill -CONT {}", holder.pid)
        }
        Error::LoginInProgress { .. } => format!("pilotlight status {}", quoted(typed?)),
        Error::Network { .. }
        | Error::Timeout { .. }
        | Error::ServerError { .. }
        | Error::BackingOff { .. }
        | Error::LeaseHeld { .. } => {
            format!("pilotlight status {}", quoted(typed?))
        }
        Error::TargetUnknown { target } if looks_like_a_host(target) => {
            format!("pilotlight login {}", quoted(&format!("https://{target}")))
        }
        Error::TargetUnknown { .. } => "pilotlight list".to_owned(),
        Error::TargetAmbiguous { candidates, .. } => {
            format!("pilotlight status {}", quoted(candidates.first()?))
        }
        Error::KeyMissing { .. }
        | Error::KeyWrong { .. }
        | Error::StoreCorrupt { .. }
        | Error::StoreForeign { .. }
        | Error::StoreNewerFormat { .. }
        | Error::ConfigStore { .. }
        | Error::StoreUnavailable { .. } => "pilotlight paths".to_owned(),
        _ => return None,
    })
}

/// What a URL that leads nowhere mostly lacks.
const NO_SERVER: &str = "see whether that is the whole URL of the MCP server; many end in /mcp";

/// What a client with a key can look at first.
const CLOCK: &str = "date -u   (an issuer refuses a signature whose time is more than a minute off; else it does not know the key)";

fn looks_like_a_host(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or_default();
    host.contains('.')
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':'))
}

/// A word as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '-' | '.' | '/' | ':' | '@' | '%' | '+' | ',' | '=')
    };
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", clean(word).replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_core::{
        credential::{Account, BindingKey},
        error::{Certainty, Holder, NetworkFault},
        resource::Resource,
    };

    use super::*;

    fn target() -> Target {
        let key = BindingKey::new(
            Resource::parse("https://mcp.linear.app/mcp").unwrap(),
            Account::default(),
        );
        Target {
            key,
            binding: None,
            server: None,
        }
    }

    fn hint_of(error: Error) -> Option<String> {
        Failure::of(&error, &target()).hint.clone()
    }

    #[test]
    fn hints_are_commands_that_can_be_pasted() {
        let url = "https://mcp.linear.app/mcp";
        assert_eq!(
            hint_of(Error::login(LoginCause::Never)),
            Some(format!("pilotlight login {url}"))
        );
        let scope = LoginCause::Scope {
            scopes: vec!["read".into(), "it's $HOME".into()],
        };
        assert_eq!(
            hint_of(Error::login(scope)),
            Some(format!(
                r"pilotlight login {url} --scope read --scope 'it'\''s $HOME'"
            ))
        );
        let stopped = Holder {
            pid: 42,
            stopped: true,
            ..Holder::default()
        };
        assert_eq!(
            hint_of(Error::LeaseHeld { holder: stopped }),
            Some("kill -CONT 42".into())
        );
        assert_eq!(
            hint_of(Error::TargetUnknown {
                target: "mcp.linear.app/mcp".into()
            }),
            Some(format!("pilotlight login {url}"))
        );
        let no_way = Error::NoRegistrationWay {
            issuer: "https://as.example".into(),
            redirect_uris: vec!["http://127.0.0.1:33417/callback".into()],
        };
        assert_eq!(
            hint_of(no_way),
            Some(format!(
                "pilotlight login {url} --client-id ID --callback-port 33417"
            ))
        );
        assert_eq!(
            hint_of(Error::KeyMissing { path: "/k".into() }),
            Some("pilotlight paths".into())
        );
    }

    /// A hint helps on, or there is none: a login that never was has no status to look at.
    #[test]
    fn a_first_login_that_fails_is_answered_for_what_it_is() {
        let hint = |error: Error| Failure::of_login(&error, &target()).hint.clone();
        let nowhere = Error::Network {
            host: "x".into(),
            why: NetworkFault::Dns,
        };
        assert_eq!(hint(nowhere.clone()), None);
        assert!(hint_of(nowhere).is_some(), "of a login that is there");
        assert!(hint(Error::NoOauth { status: 404 }).is_some_and(|hint| hint.contains("/mcp")));
        assert_eq!(hint(Error::NoOauth { status: 200 }), None);
        let moved = hint(Error::login(LoginCause::EndpointMoved)).unwrap();
        assert!(
            moved.starts_with("pilotlight logout https://mcp.linear.app/mcp "),
            "{moved}"
        );
    }

    #[test]
    fn the_json_form_is_stable() {
        let cause = LoginCause::RefreshRejected {
            certainty: Certainty::Suspect,
            named: None,
        };
        insta::assert_snapshot!(Failure::of(&Error::login(cause), &target()).to_json().to_string(), @r#"{"action":"log_in","code":"login.refresh_rejected","hint":"pilotlight login https://mcp.linear.app/mcp","message":"the authorization server refused to refresh the login (not yet certain)","retry_after_s":null}"#);
        let limited = Error::RateLimited {
            retry_after: Some(Duration::from_millis(1500)),
        };
        insta::assert_snapshot!(Failure::from(limited).to_json().to_string(), @r#"{"action":"retry_later","code":"unavailable.rate_limited","hint":null,"message":"the authorization server asks to wait","retry_after_s":2.0}"#);
    }
}
