//! Instants, spans and states in words.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use pilotlight::Flag;
use pilotlight_core::{
    error::{Certainty, LoginCause},
    resource::clean,
    state::State,
    time::Wall,
};

/// A span as people say it: the two largest units, `42 min`, `3 h 5 min`, `2 d`.
pub(crate) fn span(span: Duration) -> String {
    let s = span.as_secs();
    let two = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {smaller}"),
    };
    match s {
        0 if span.as_millis() > 0 => format!("{} ms", span.as_millis()),
        0..=119 => format!("{s} s"),
        120..=3599 => format!("{} min", s / 60),
        3600..=86_399 => two(s / 3600, "h", s % 3600 / 60, "min"),
        86_400..=863_999 => two(s / 86_400, "d", s % 86_400 / 3600, "h"),
        _ => format!("{} d", s / 86_400),
    }
}

/// An instant as seen from now: `in 42 min`, `2 min ago`, `now`.
pub(crate) fn relative(at: Wall, now: Wall) -> String {
    let (ahead, behind) = (now.until(at), at.until(now));
    if ahead.as_secs() > 0 {
        format!("in {}", span(Duration::from_secs(ahead.as_secs())))
    } else if behind.as_secs() > 0 {
        format!("{} ago", span(Duration::from_secs(behind.as_secs())))
    } else {
        "now".to_owned()
    }
}

/// An instant in RFC 3339, in UTC.
pub(crate) fn rfc3339(at: Wall) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

/// An instant on the clock on the wall; with the date where it is not today.
pub(crate) fn clock(at: Wall, now: Wall, zone: &TimeZone) -> String {
    let local = |at: Wall| {
        i64::try_from(at.0)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .map(|t| t.to_zoned(zone.clone()))
    };
    match (local(at), local(now)) {
        (Some(at), Some(now)) if at.date() == now.date() => at.strftime("%H:%M:%S").to_string(),
        (Some(at), _) => at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        (None, _) => "?".to_owned(),
    }
}

/// The zone that clocks here show.
pub(crate) fn here() -> TimeZone {
    TimeZone::system()
}

/// A state in a word or two.
pub(crate) fn state(state: &State) -> String {
    state.word().replace('_', " ")
}

/// What a state means for the person, where they may want to know.
pub(crate) fn explained(state: &State, now: Wall) -> Option<String> {
    Some(match state {
        State::Retrying { since, next } => {
            format!(
                "refreshing fails since {}; the next try is {}",
                relative(*since, now),
                relative(*next, now)
            )
        }
        State::Uncertain => {
            "the answer to a refresh was lost; the token at hand is used while it lasts".to_owned()
        }
        State::Suspect { cause } | State::LoginRequired { cause } => {
            format!("{} ({})", cause_in_words(cause), cause.code())
        }
        State::Ending { at: Some(at) } => format!(
            "no refresh token was issued: the login ends {}",
            relative(*at, now)
        ),
        State::Unreadable => {
            "it cannot be read from the store any more (store.corrupt); a login takes its place"
                .to_owned()
        }
        State::Ending { at: None } => {
            "no refresh token was issued: the login ends with its token".to_owned()
        }
        _ => return None,
    })
}

/// A cause, with what an issuer named.
pub(crate) fn cause_in_words(cause: &LoginCause) -> String {
    use pilotlight_core::error::Named;
    match cause {
        LoginCause::RefreshRejected { named: Some(Named::Reuse), .. } => {
            "the authorization server refused to refresh the login: it says that a refresh token was used twice".to_owned()
        }
        LoginCause::RefreshRejected { named: Some(Named::Revoked), .. } => {
            "the authorization server refused to refresh the login: it says that the login was revoked".to_owned()
        }
        LoginCause::RefreshRejected { certainty: Certainty::Suspect, named: None } => {
            "the authorization server refused to refresh the login; it is asked again, in case that was a mistake".to_owned()
        }
        other => clean(&other.to_string()),
    }
}

/// A flag in a word.
pub(crate) fn flag(flag: Flag) -> &'static str {
    match flag {
        Flag::Shared => "shared",
        Flag::Degraded => "degraded",
        Flag::IssuerException => "issuer exception",
        Flag::Static => "static",
        Flag::NoResource => "no_resource",
        Flag::WithMcpRemote => "shared with mcp-remote",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_say_them() {
        let said = |s| span(Duration::from_secs(s));
        assert_eq!(
            [said(0), said(59), said(119), said(120), said(3599)],
            ["0 s", "59 s", "119 s", "2 min", "59 min"]
        );
        assert_eq!(
            [said(3600), said(11_100), said(86_400), said(2_000_000)],
            ["1 h", "3 h 5 min", "1 d", "23 d"]
        );
        assert_eq!(span(Duration::from_millis(250)), "250 ms");
    }

    #[test]
    fn instants_are_seen_from_now() {
        let now = Wall(1_000_000_000);
        assert_eq!(relative(now + Duration::from_secs(2520), now), "in 42 min");
        assert_eq!(relative(Wall(now.0 - 125_000), now), "2 min ago");
        assert_eq!(relative(now + Duration::from_millis(400), now), "now");
        assert_eq!(rfc3339(Wall(1_795_400_000_123)), "2026-11-23T02:13:20.123Z");
        assert_eq!(
            clock(now, now + Duration::from_secs(5), &TimeZone::UTC),
            "13:46:40"
        );
        assert_eq!(
            clock(now, Wall(1_795_400_000_123), &TimeZone::UTC),
            "1970-01-12 13:46:40"
        );
    }
}
