use std::time::Duration;

use pilotlight::Flag;
use pilotlight_core::{
    credential::BindingKey,
    error::{Certainty, Named},
    resource::Resource,
};

use super::*;

const NOW: Wall = Wall(1_795_400_000_000);

fn ago(seconds: u64) -> Option<Wall> {
    Some(Wall(NOW.0 - seconds * 1000))
}

fn after(seconds: u64) -> Option<Wall> {
    Some(NOW + Duration::from_secs(seconds))
}

/// A login in a good state, for tests to change.
pub(crate) fn login(name: &str, account: &str, state: State) -> Shown {
    let url = Resource::parse(&format!("https://mcp.{name}.example/mcp")).unwrap();
    Shown {
        issuer: Some(format!("https://auth.{name}.example")),
        exception: None,
        state,
        expires_at: after(2520),
        next_refresh_at: after(1860),
        last_accepted_at: ago(125),
        logged_in_at: ago(864_000),
        refresh_token: true,
        scopes: vec!["read".into(), "offline_access".into()],
        ..Shown::never(
            name.into(),
            BindingKey::new(url, Account::parse(account).unwrap()),
        )
    }
}

fn every_state() -> Vec<Shown> {
    let refused = LoginCause::RefreshRejected {
        certainty: Certainty::Suspect,
        named: None,
    };
    let reused = LoginCause::RefreshRejected {
        certainty: Certainty::Certain,
        named: Some(Named::Reuse),
    };
    let ended = Shown {
        expires_at: ago(7200),
        next_refresh_at: ago(7900),
        ..login("asana", "default", State::Expired)
    };
    let retrying = State::Retrying {
        since: NOW,
        next: NOW + Duration::from_secs(4),
    };
    vec![
        login("linear", "default", State::Ok),
        ended,
        login("notion", "work", retrying),
        Shown {
            flags: vec![Flag::Degraded, Flag::Shared],
            ..login("sentry", "default", State::Uncertain)
        },
        login("figma", "default", State::Suspect { cause: refused }),
        login("stripe", "default", State::LoginRequired { cause: reused }),
        Shown {
            refresh_token: false,
            next_refresh_at: None,
            ..login("vercel", "default", State::Ending { at: after(2520) })
        },
    ]
}

#[test]
fn one_login_is_one_line() {
    insta::assert_snapshot!(statuses(&[login("linear", "default", State::Ok)], NOW, false), @"
    NAME    STATE  TOKEN ENDS  NEXT REFRESH  LAST ACCEPTED
    linear  ok     in 42 min   in 31 min     2 min ago
    ");
}

#[test]
fn every_state_is_told_at_a_glance() {
    insta::assert_snapshot!(statuses(&every_state(), NOW, false), @"
    NAME    ACCOUNT  STATE           TOKEN ENDS  NEXT REFRESH  LAST ACCEPTED  NOTE
    linear  default  ok              in 42 min   in 31 min     2 min ago
    asana   default  expired         2 h ago     at next use   2 min ago
    notion  work     retrying        in 42 min   in 4 s        2 min ago
    sentry  default  uncertain       in 42 min   in 31 min     2 min ago      degraded, shared
    figma   default  suspect         in 42 min   -             2 min ago
    stripe  default  login required  in 42 min   -             2 min ago
    vercel  default  ending          in 42 min   -             2 min ago

    notion: refreshing fails since now; the next try is in 4 s

    sentry: the answer to a refresh was lost; the token at hand is used while it lasts

    figma: the authorization server refused to refresh the login; it is asked again, in case that was a mistake (login.refresh_rejected)
      pilotlight login figma

    stripe: the authorization server refused to refresh the login: it says that a refresh token was used twice (login.refresh_rejected)
      pilotlight login stripe

    vercel: no refresh token was issued: the login ends in 42 min
    ");
}

/// A login that renews itself without a person says by which grant; where there is none, nothing is said about grants.
#[test]
fn a_grant_without_a_person_is_shown() {
    let mut service = login("vercel", "default", State::Ok);
    service.refresh_token = false;
    service.grant = Some("client_credentials");
    let both = [login("linear", "default", State::Ok), service];
    insta::assert_snapshot!(statuses(&both, NOW, false), @"
    NAME    STATE  TOKEN ENDS  NEXT REFRESH  LAST ACCEPTED  GRANT
    linear  ok     in 42 min   in 31 min     2 min ago      -
    vercel  ok     in 42 min   in 31 min     2 min ago      client_credentials
    ");
    insta::assert_snapshot!(list(&both, false), @"
    NAME    ACCOUNT  STATE  GRANT               SERVER
    linear  default  ok     -                   https://mcp.linear.example/mcp
    vercel  default  ok     client_credentials  https://mcp.vercel.example/mcp
    ");
}

#[test]
fn a_list_names_the_servers() {
    insta::assert_snapshot!(list(&every_state(), false), @"
    NAME    ACCOUNT  STATE           SERVER
    linear  default  ok              https://mcp.linear.example/mcp
    asana   default  expired         https://mcp.asana.example/mcp
    notion  work     retrying        https://mcp.notion.example/mcp
    sentry  default  uncertain       https://mcp.sentry.example/mcp
    figma   default  suspect         https://mcp.figma.example/mcp
    stripe  default  login required  https://mcp.stripe.example/mcp
    vercel  default  ending          https://mcp.vercel.example/mcp
    ");
}

#[test]
fn colours_change_nothing_but_colours() {
    let plain = statuses(&every_state(), NOW, false);
    let painted = statuses(&every_state(), NOW, true);
    assert!(painted.contains("\u{1b}[31m"));
    let mut stripped = painted;
    for code in ["1", "32", "33", "31", "0"] {
        stripped = stripped.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(stripped, plain);
}

/// T-21: what a server or a file named cannot speak to the terminal.
#[test]
fn names_cannot_speak_to_the_terminal() {
    let mut bad = login("linear", "default", State::Ok);
    bad.name = "x\u{1b}[2J\u{202e}".into();
    let text = statuses(&[bad.clone()], NOW, false) + &list(&[bad], false);
    assert!(
        !text.contains('\u{1b}') && !text.contains('\u{202e}'),
        "{text}"
    );
}

#[test]
fn the_json_form_is_stable() {
    let cause = LoginCause::RefreshRejected {
        certainty: Certainty::Suspect,
        named: None,
    };
    let lost = Shown {
        flags: vec![Flag::Shared],
        ..login("figma", "work", State::Suspect { cause })
    };
    insta::assert_snapshot!(serde_json::to_string_pretty(&lost.to_json()).unwrap(), @r#"
    {
      "accept_issuer": null,
      "account": "work",
      "cause": {
        "code": "login.refresh_rejected",
        "message": "the authorization server refused to refresh the login; it is asked again, in case that was a mistake"
      },
      "expires_at": "2026-11-23T02:55:20Z",
      "flags": [
        "shared"
      ],
      "grant": null,
      "issuer": "https://auth.figma.example",
      "last_accepted_at": "2026-11-23T02:11:15Z",
      "logged_in_at": "2026-11-13T02:13:20Z",
      "name": "figma",
      "next_refresh_at": "2026-11-23T02:44:20Z",
      "refresh_token": true,
      "scopes": [
        "read",
        "offline_access"
      ],
      "state": "suspect",
      "url": "https://mcp.figma.example/mcp"
    }
    "#);
    let never = Shown::never("new".into(), lost.key);
    assert_eq!(never.to_json()["state"], "login_required");
    assert_eq!(never.to_json()["cause"]["code"], "login.never");
}
