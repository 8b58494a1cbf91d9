//! What happened to a login, told in words: the one cause of a loss first, and what to do.

use std::time::Duration;

use jiff::tz::TimeZone;
use pilotlight::Flag;
use pilotlight_core::{
    attempt::Label,
    credential::TokenType,
    event::{Event, Happened, Reason, Revocation},
    resource::clean,
    state::State,
    time::Wall,
};

use super::{
    events::label,
    shown::Shown,
    words::{cause_in_words, clock, explained, relative, span, state},
};
use crate::failure::quoted;

/// Tells the story of a login.
pub(crate) fn tell(login: &Shown, events: &[Event], now: Wall, zone: &TimeZone) -> String {
    let mut text = opening(login, now);
    if events.is_empty() {
        text.push_str("\n\nNothing has happened yet.");
        return text;
    }
    text.push_str("\n\n");
    let mut quiet = 0;
    let mut lines = Vec::new();
    for (i, event) in events.iter().enumerate() {
        // A long row of plain refreshes is one line: its first and its last are told.
        let plain = |event: Option<&Event>| event.is_some_and(is_routine);
        if is_routine(event) && i > 0 && plain(events.get(i - 1)) && plain(events.get(i + 1)) {
            quiet += 1;
            continue;
        }
        if quiet > 0 {
            lines.push(format!("{:>8}  ... {quiet} more like that", ""));
            quiet = 0;
        }
        let mut line = line(event);
        if login.grant.is_some() {
            // That there is none is as it should be.
            line = line.replace("; no refresh token was issued", "");
        }
        lines.push(format!("{}  {line}", clock(event.at, now, zone)));
    }
    text.push_str(&lines.join("\n"));
    text
}

/// One event, in words.
pub(crate) fn line(event: &Event) -> String {
    match &event.happened {
        Happened::LoggedIn {
            issuer,
            scopes,
            lifetime,
            refresh_token,
            former_issuer,
        } => {
            let mut text = format!("logged in at {}", clean(issuer));
            if let Some(former) = former_issuer {
                text.push_str(&format!(" instead of {}", clean(former)));
            }
            if !scopes.is_empty() {
                text.push_str(&format!(", with the permissions {scopes}"));
            }
            if let Some(life) = lifetime {
                text.push_str(&format!("; the token lives for {}", span(*life)));
            }
            if !refresh_token {
                text.push_str("; no refresh token was issued");
            }
            text
        }
        Happened::IssuerChanged { from, to } => format!(
            "the server has gone back from {} to {}, and so has the login",
            clean(from),
            clean(to)
        ),
        Happened::Repinned { from, to } => format!(
            "the authorization server has moved its token endpoint from {} to {}",
            clean(from),
            clean(to)
        ),
        Happened::TokenTypeChanged { to: TokenType::Bearer, .. } => {
            "the token is no longer bound to a key: the authorization server gave out a bearer token".to_owned()
        }
        Happened::TokenTypeChanged { .. } => "the token is bound to a key from now on".to_owned(),
        Happened::Damaged => {
            "what was stored of the login could not be read any more; it was replaced".to_owned()
        }
        Happened::Learned { quirk } => {
            format!("learned about the authorization server: {quirk}")
        }
        Happened::LoginFailed { code } => format!("a login was begun and failed ({})", clean(code)),
        Happened::Refreshed {
            reason,
            label,
            calls,
            lifetime,
            ..
        } => refreshed(*reason, *label, *calls, *lifetime),
        Happened::Merged { .. } => {
            "a token that the store had refused for a while has been stored".to_owned()
        }
        Happened::RefreshFailed { code, next } => {
            format!(
                "refreshing did not work ({}); nothing is lost, the next try was allowed {}",
                clean(code),
                relative(*next, event.at)
            )
        }
        Happened::Ambiguous {
            code,
            repeated: true,
        } => {
            format!(
                "the answer to a refresh was lost, and that to its repeat as well ({})",
                clean(code)
            )
        }
        Happened::Ambiguous {
            code,
            repeated: false,
        } => {
            format!(
                "the answer to a refresh was lost ({}); the token at hand is used while it lasts",
                clean(code)
            )
        }
        Happened::Suspected {
            cause,
            next_probe_at,
            ..
        } => {
            let mut text = format!("{}{}", cause_in_words(cause), after_what(event));
            if let Some(at) = next_probe_at {
                text.push_str(&format!(
                    "; it may be asked again {}",
                    relative(*at, event.at)
                ));
            }
            text
        }
        Happened::Healed => {
            "asked again, the server gave tokens after all: the refusal was a mistake".to_owned()
        }
        Happened::Lost { cause, .. } => format!(
            "the login was lost: {} ({}){}",
            cause_in_words(cause),
            cause.code(),
            after_what(event)
        ),
        Happened::BreakerTripped { until } => {
            format!(
                "the server refuses even new tokens: none is fetched for that reason until {} later",
                span(event.at.until(*until))
            )
        }
        Happened::LoggedOut { local: true } => logged_out(Revocation::Local).to_owned(),
        Happened::LoggedOut { local: false } => "logged out".to_owned(),
        Happened::Revocation { outcome } => match outcome {
            Revocation::Revoked => "the authorization server has revoked the login".to_owned(),
            Revocation::Local => "nobody had to be told: it was a key, not a login".to_owned(),
            Revocation::Unreadable => {
                "nobody could be told: what was stored could not be read any more".to_owned()
            }
            _ => {
                "the authorization server offers no way to revoke a login; it ends there by itself"
                    .to_owned()
            }
        },
        _ => "something that this version has no words for".to_owned(),
    }
}

/// Why a refused call may have presented a spent refresh token, where it was known to.
fn after_what(event: &Event) -> &'static str {
    match label(event) {
        Some(Label::RetryAmbiguous) => {
            "; it had refreshed a moment before, and that answer was lost on the way"
        }
        Some(Label::AfterCrash) => "; a process had ended in the middle of a refresh before",
        Some(Label::Uncertain) => "; the answer to an earlier refresh had been lost",
        Some(Label::Restored) => "; the store had gone back in time",
        _ => "",
    }
}

/// What became of the login at its issuer, in words.
pub(crate) fn logged_out(revocation: Revocation) -> &'static str {
    match revocation {
        Revocation::Revoked => "logged out; the authorization server has revoked the login",
        Revocation::Unsupported => {
            "logged out; the authorization server offers no way to revoke a login, so it ends there by itself"
        }
        Revocation::Queued => {
            "logged out; the authorization server could not be reached and will be told within seven days"
        }
        Revocation::Local => {
            "logged out on this machine only; the authorization server was not told"
        }
        Revocation::Unreadable => {
            "logged out; what was stored could not be read any more, so the authorization server was not told"
        }
        _ => "logged out",
    }
}

fn opening(login: &Shown, now: Wall) -> String {
    let name = clean(&login.name);
    if let Some(cause) = login.cause() {
        let command = format!("pilotlight login {}", quoted(&login.name));
        return format!(
            "{name} needs a login: {} ({})\n  {command}",
            cause_in_words(cause),
            cause.code()
        );
    }
    let mut text = format!("{name} is {}", state(&login.state));
    if let Some(more) = explained(&login.state, now) {
        text.push_str(&format!(": {more}"));
    } else if matches!(login.state, State::Expired) {
        text.push_str(": its token has ended and is refreshed at the next use");
    }
    if let Some(at) = login.logged_in_at {
        text.push_str(&format!(". The login is from {}", relative(at, now)));
    }
    text.push('.');
    if login.flags.contains(&Flag::Static) {
        text.push_str(" It is a key that was stored by hand: nothing refreshes it.");
    }
    if login.flags.contains(&Flag::NoResource) {
        text.push_str(" Its tokens are not limited to this server, as was asked for by hand.");
    }
    if login.flags.contains(&Flag::WithMcpRemote) {
        text.push_str(" It is shared with mcp-remote.");
    }
    if let Some(grant) = login.grant {
        text.push_str(&format!(
            " It needs no person: the grant {grant} is made again before the token ends."
        ));
    }
    text
}

fn refreshed(
    reason: Reason,
    label: Option<Label>,
    calls: u32,
    lifetime: Option<Duration>,
) -> String {
    let mut text = match reason {
        Reason::Due => "refreshed before the token ended",
        Reason::Expired => "refreshed after the token had ended",
        Reason::AgeUnknown => "refreshed, since nobody knew the token's age",
        Reason::Refused => "refreshed, since the server refused the token",
        Reason::Asked => "refreshed, as asked",
        _ => "refreshed",
    }
    .to_owned();
    match label {
        Some(Label::RetryAmbiguous) => {
            text.push_str(", at the second try: the first answer was lost")
        }
        Some(Label::AfterCrash) => text.push_str(", after a process had ended in the middle of it"),
        Some(Label::ProbeSuspect) => text.push_str(", to see whether a refusal was meant"),
        Some(Label::Uncertain) => text
            .push_str(", although an earlier answer had been lost: nothing was left to wait for"),
        Some(Label::Restored) => text.push_str(", after the store had gone back in time"),
        _ if calls > 1 => text.push_str(&format!(", in {calls} calls")),
        _ => {}
    }
    if let Some(life) = lifetime {
        text.push_str(&format!(" (lives for {})", span(life)));
    }
    text
}

fn is_routine(event: &Event) -> bool {
    matches!(
        event.happened,
        Happened::Refreshed {
            reason: Reason::Due,
            label: None,
            calls: 0 | 1,
            ..
        }
    )
}

#[cfg(test)]
mod tests;
