use pilotlight_core::{
    attempt::ProcessId,
    credential::Generation,
    error::{Certainty, LoginCause, Named},
    scope::Scopes,
};

use super::*;
use crate::report::table::tests::login;

const START: u64 = 1_795_400_000_000;

fn at(seconds: u64, happened: Happened) -> Event {
    Event {
        at: Wall(START + seconds * 1000),
        process: ProcessId { pid: 7, nonce: 7 },
        happened,
    }
}

fn refresh(seconds: u64, reason: Reason, label: Option<Label>) -> Event {
    let happened = Happened::Refreshed {
        generation: Generation(seconds),
        reason,
        label,
        calls: 1 + u32::from(label.is_some()),
        sent_at: Wall(START + seconds * 1000),
        previous_refresh_point: None,
        lifetime: Some(Duration::from_secs(10)),
    };
    at(seconds, happened)
}

fn logged_in() -> Event {
    let happened = Happened::LoggedIn {
        issuer: "https://auth.linear.example".into(),
        scopes: Scopes::parse("read write"),
        lifetime: Some(Duration::from_secs(3600)),
        refresh_token: true,
        former_issuer: None,
    };
    at(0, happened)
}

fn told(state: State, events: &[Event]) -> String {
    tell(
        &login("linear", "default", state),
        events,
        Wall(START + 100_000),
        &TimeZone::UTC,
    )
}

/// A service's story says how it stays alive, and not that something is missing.
#[test]
fn a_login_without_a_person_says_by_which_grant_it_lives() {
    let Happened::LoggedIn { issuer, .. } = logged_in().happened else {
        panic!("a login")
    };
    let happened = Happened::LoggedIn {
        issuer,
        scopes: Scopes::default(),
        lifetime: None,
        refresh_token: false,
        former_issuer: None,
    };
    let mut service = login("linear", "default", State::Ok);
    service.grant = Some("workload");
    let text = tell(&service, &[at(0, happened)], Wall(START), &TimeZone::UTC);
    assert!(
        text.contains("It needs no person: the grant workload is made again"),
        "{text}"
    );
    assert!(
        text.contains("logged in at") && !text.contains("refresh token"),
        "{text}"
    );
}

#[test]
fn a_loss_is_told_cause_first() {
    let cause = LoginCause::RefreshRejected {
        certainty: Certainty::Certain,
        named: Some(Named::Reuse),
    };
    let ambiguous = Happened::Ambiguous {
        code: "unavailable.network".into(),
        repeated: true,
    };
    let events = [
        logged_in(),
        refresh(8, Reason::Due, None),
        at(16, ambiguous),
        at(
            17,
            Happened::Lost {
                cause: cause.clone(),
                label: Some(Label::RetryAmbiguous),
            },
        ),
    ];
    insta::assert_snapshot!(told(State::LoginRequired { cause }, &events), @"
    linear needs a login: the authorization server refused to refresh the login: it says that a refresh token was used twice (login.refresh_rejected)
      pilotlight login linear

    02:13:20  logged in at https://auth.linear.example, with the permissions read write; the token lives for 1 h
    02:13:28  refreshed before the token ended (lives for 10 s)
    02:13:36  the answer to a refresh was lost, and that to its repeat as well (unavailable.network)
    02:13:37  the login was lost: the authorization server refused to refresh the login: it says that a refresh token was used twice (login.refresh_rejected); it had refreshed a moment before, and that answer was lost on the way
    ");
}

#[test]
fn a_long_quiet_life_is_a_short_story() {
    let mut events = vec![logged_in()];
    events.extend((1..8).map(|n| refresh(n * 8, Reason::Due, None)));
    events.push(refresh(70, Reason::Refused, Some(Label::RetryAmbiguous)));
    events.extend((0..2).map(|n| refresh(78 + n * 8, Reason::Due, None)));
    insta::assert_snapshot!(told(State::Ok, &events), @"
    linear is ok. The login is from 10 d ago.

    02:13:20  logged in at https://auth.linear.example, with the permissions read write; the token lives for 1 h
    02:13:28  refreshed before the token ended (lives for 10 s)
              ... 5 more like that
    02:14:16  refreshed before the token ended (lives for 10 s)
    02:14:30  refreshed, since the server refused the token, at the second try: the first answer was lost (lives for 10 s)
    02:14:38  refreshed before the token ended (lives for 10 s)
    02:14:46  refreshed before the token ended (lives for 10 s)
    ");
}

#[test]
fn without_a_past_there_is_little_to_tell() {
    insta::assert_snapshot!(told(State::Ok, &[]), @"
    linear is ok. The login is from 10 d ago.

    Nothing has happened yet.
    ");
}
