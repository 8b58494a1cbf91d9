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
        state,
        expires_at: after(2520),
        next_refresh_at: after(1860),
        last_accepted_at: ago(125),
        logged_in_at: ago(864_000),
        refresh_token: true,
        scopes: vec!["read".into(), "offline_access".into()],
        ..Shown::never(name.into(), BindingKey::new(url, Account::parse(account).unwrap()))
    }
}

fn every_state() -> Vec<Shown> {
    let refused = LoginCause::RefreshRejected { certainty: Certainty::Suspect, named: None };
    let reused = LoginCause::RefreshRejected { certainty: Certainty::Certain, named: Some(Named::Reuse) };
    let ended = Shown { expires_at: ago(7200), next_refresh_at: ago(7900), ..login("asana", "default", State::Expired) };
    let retrying = State::Retrying { since: NOW, next: NOW + Duration::from_secs(4) };
    vec![
        login("linear", "default", State::Ok),
        ended,
        login("notion", "work", retrying),
        Shown { flags: vec![Flag::Degraded, Flag::Shared], ..login("sentry", "default", State::Uncertain) },
        login("figma", "default", State::Suspect { cause: refused }),
        login("stripe", "default", State::LoginRequired { cause: reused }),
        Shown { refresh_token: false, next_refresh_at: None, ..login("vercel", "default", State::Ending { at: after(2520) }) },
    ]
}

#[test]
fn one_login_is_one_line() {
    insta::assert_snapshot!(statuses(&[login("linear", "default", State::Ok)], NOW, false), @"");
}

#[test]
fn every_state_is_told_at_a_glance() {
    insta::assert_snapshot!(statuses(&every_state(), NOW, false), @"");
}

#[test]
fn a_list_names_the_servers() {
    insta::assert_snapshot!(list(&every_state(), false), @"");
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
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
}

#[test]
fn the_json_form_is_stable() {
    let cause = LoginCause::RefreshRejected { certainty: Certainty::Suspect, named: None };
    let lost = Shown { flags: vec![Flag::Shared], ..login("figma", "work", State::Suspect { cause }) };
    insta::assert_snapshot!(serde_json::to_string_pretty(&lost.to_json()).unwrap(), @"");
    let never = Shown::never("new".into(), lost.key);
    assert_eq!(never.to_json()["state"], "login_required");
    assert_eq!(never.to_json()["cause"]["code"], "login.never");
}
