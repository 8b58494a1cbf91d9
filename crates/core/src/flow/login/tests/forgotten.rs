//! An issuer that has forgotten a client that it made itself (F-16).

use super::*;
use crate::{exchange::Leg, record::Suspicion, time::Wall};

fn with_registration() -> Stage {
    let mut stage = stage();
    stage.registrations.push(registration("earlier", ANY_PORT));
    stage
}

/// The page of an issuer that knows no such client.
fn dead(status: u16) -> impl FnOnce(&Exchange, &mut Stage) -> Exchanged + 'static + use<> {
    with_headers(
        status,
        &[("content-type", "text/html; charset=utf-8")],
        "<h1>Unknown client</h1>",
    )
}

fn preflights(stage: &Stage) -> Vec<&Exchange> {
    sent_to_path(stage, AUTHORIZE)
}

fn sent_to_path<'a>(stage: &'a Stage, url: &str) -> Vec<&'a Exchange> {
    let of = |exchange: &&Exchange| exchange.url.as_str().starts_with(url);
    stage.exchanges.iter().filter(of).collect()
}

/// F-16: before a person is sent there with a stored registration, the issuer is asked whether it still knows the client. A
/// page that refuses it forgets it; one other is registered, and only that is shown.
#[test]
fn a_dead_client_is_seen_before_a_browser_opens() {
    for status in [400, 401, 404, 410, 422] {
        let mut stage = with_registration();
        stage.page(AUTHORIZE, dead(status));
        let done = login(&mut stage, task()).unwrap();
        assert_eq!(done.credential.client.id, "client-1", "{status}");
        assert_eq!(shown(&stage, "client_id").as_deref(), Some("client-1"));
        assert_eq!(
            (stage.count("show"), stage.count("send registration")),
            (1, 1)
        );
        let left: Vec<_> = stage
            .registrations
            .iter()
            .map(|one| &one.client.id)
            .collect();
        assert_eq!(left, ["client-1"]);
    }
    let mut stage = with_registration();
    stage.page(AUTHORIZE, reply(401, r#"{"error":"invalid_client"}"#));
    assert_eq!(
        login(&mut stage, task()).unwrap().credential.client.id,
        "client-1"
    );
}

/// F-16: a page that asks who the person is says nothing of the client, whatever its status: single sign-on stands in front of the
/// issuer. An error that names the client is one all the same.
#[test]
fn a_page_about_the_person_is_no_dead_client() {
    let page = ("content-type", "text/html");
    for scheme in ["Negotiate", "Basic realm=\"staff\""] {
        let mut stage = with_registration();
        let headers = [page, ("www-authenticate", scheme)];
        stage.page(
            AUTHORIZE,
            with_headers(401, &headers, "<h1>Who are you?</h1>"),
        );
        let done = login(&mut stage, task()).unwrap();
        assert_eq!(done.credential.client.id, "earlier");
        assert_eq!(
            (stage.count("forget"), stage.count("send registration")),
            (0, 0)
        );
    }
    let mut stage = with_registration();
    let headers = [("www-authenticate", "Basic")];
    stage.page(
        AUTHORIZE,
        with_headers(401, &headers, r#"{"error":"invalid_client"}"#),
    );
    assert_eq!(
        login(&mut stage, task()).unwrap().credential.client.id,
        "client-1"
    );
}

/// F-16: a page is no proof. What is stored is forgotten when there is another: an issuer that registers nobody any more leaves
/// it as it was, and the person is shown what there is. One that is only away is asked another time.
#[test]
fn a_client_is_not_given_up_before_there_is_another() {
    let mut stage = with_registration();
    stage.page(AUTHORIZE, dead(400));
    stage.page(REGISTER, reply(403, r#"{"error":"access_denied"}"#));
    let done = login(&mut stage, task()).unwrap();
    assert_eq!(done.credential.client.id, "earlier");
    assert_eq!(stage.registrations[0].client.id, "earlier");
    assert_eq!((stage.count("forget"), stage.count("show")), (0, 1));

    let mut stage = with_registration();
    stage.page(AUTHORIZE, dead(400));
    stage.page(REGISTER, reply(503, ""));
    let error = login(&mut stage, task()).unwrap_err();
    assert_eq!(error.code(), "unavailable.server_error");
    assert_eq!((stage.count("forget"), stage.registrations.len()), (0, 1));

    // It was dead: the exchange says so, and that is proof. Then there is nobody to log in as.
    let mut stage = with_registration();
    stage.page(AUTHORIZE, dead(400));
    stage.page(REGISTER, reply(403, r#"{"error":"access_denied"}"#));
    stage.page(TOKEN, reply(401, r#"{"error":"invalid_client"}"#));
    stage.before("forget", |stage| {
        stage.page(REGISTER, reply(403, r#"{"error":"access_denied"}"#));
    });
    let error = login(&mut stage, task()).unwrap_err();
    assert_eq!(error.code(), "peer.registration_refused");
    assert_eq!((stage.count("show"), stage.registrations.len()), (1, 0));
}

/// F-16: whatever else is answered says nothing against the client: it is shown, and nothing is registered. The answer to a
/// page that leads on is a redirect, and nobody follows it.
#[test]
fn anything_else_is_no_dead_client() {
    type Answers = Box<dyn FnOnce(&Exchange, &mut Stage) -> Exchanged>;
    let answers: Vec<Answers> = vec![
        Box::new(reply(200, "<h1>Allow?</h1>")),
        Box::new(reply(302, "")),
        Box::new(reply(403, "<h1>Robots stay out</h1>")),
        Box::new(reply(429, "<h1>Later</h1>")),
        Box::new(reply(503, "<h1>Later</h1>")),
        Box::new(reply(404, r#"{"error":"not_found"}"#)),
        Box::new(with_headers(
            400,
            &[("location", "https://as.example/login")],
            "<p>",
        )),
        Box::new(unreachable),
        Box::new(silent),
    ];
    for answer in answers {
        let mut stage = with_registration();
        stage.page(AUTHORIZE, answer);
        let done = login(&mut stage, task()).unwrap();
        assert_eq!(done.credential.client.id, "earlier");
        assert_eq!(
            (stage.count("show"), stage.count("send registration")),
            (1, 0)
        );
        assert_eq!(preflights(&stage).len(), 1);
    }
}

/// F-16, T-09: the look carries a state and a challenge that are of use to nobody, no cookie and no secret; a code that an
/// issuer gives out at once could not even be exchanged.
#[test]
fn the_look_gives_nothing_away() {
    let mut stage = with_registration();
    login(&mut stage, task()).unwrap();
    let look = preflights(&stage)[0];
    let of_look = |name: &str| {
        let mut pairs = look.url.query_pairs();
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    assert_eq!((look.leg, look.leg.redirects()), (Leg::Preflight, 0));
    assert_eq!(of_look("client_id"), shown(&stage, "client_id"));
    for name in ["state", "code_challenge"] {
        assert!(of_look(name).is_some());
        assert_ne!(of_look(name), shown(&stage, name));
    }
    let names: Vec<_> = look.headers.keys().map(|name| name.as_str()).collect();
    assert_eq!((names, look.body.len()), (vec!["accept"], 0));
}

/// F-16: a client that was given a token within a day is known: nothing is asked, nor where that token is refused by now. Not so
/// where it was for another client, is longer ago, or the client itself was refused since.
#[test]
fn a_client_that_is_in_use_is_not_asked_for() {
    let of = |client_id: &str, hours: u64| {
        let at = start();
        Record {
            credential: Some(Credential {
                client: client(client_id),
                received_at: Some(Now {
                    wall: Wall(at.wall.0 - hours * 3_600_000),
                    ..at
                }),
                ..credential(3)
            }),
            ..Record::default()
        }
    };
    let doubtful = |cause: LoginCause| Record {
        suspicion: Some(Suspicion {
            cause,
            since: start().wall,
            probes: 0,
            next_probe_at: None,
            at: None,
        }),
        ..of("earlier", 1)
    };
    let refused = LoginCause::RefreshRejected {
        certainty: crate::error::Certainty::Certain,
        named: None,
    };
    for (record, looks) in [
        (of("earlier", 1), 0),
        (of("earlier", 23), 0),
        (of("earlier", 24), 1),
        (of("other", 1), 1),
        (doubtful(refused), 0),
        (doubtful(LoginCause::RegistrationGone), 1),
    ] {
        let mut stage = with_registration();
        stage.record = Some(record);
        login(&mut stage, task()).unwrap();
        assert_eq!(preflights(&stage).len(), looks);
    }
}

/// F-16: an issuer that says so only at the exchange: another client is registered in the same login, and the person is
/// shown a URL of its own. A second refusal ends it: there is no loop.
#[test]
fn a_client_that_is_refused_at_the_exchange_is_replaced_once() {
    for again in [false, true] {
        let mut stage = with_registration();
        stage.page(TOKEN, reply(401, r#"{"error":"invalid_client"}"#));
        stage.before("forget", move |stage| {
            if again {
                stage.page(TOKEN, reply(401, r#"{"error":"invalid_client"}"#));
            } else {
                stage.page(TOKEN, tokens(0));
            }
        });
        let done = login(&mut stage, task());
        match done {
            Ok(done) => assert_eq!(
                (again, done.credential.client.id.as_str()),
                (false, "client-1")
            ),
            Err(error) => {
                assert_eq!(
                    (again, error),
                    (true, Error::login(LoginCause::RegistrationGone))
                );
            }
        }
        assert_eq!(
            (stage.count("show"), stage.count("send registration")),
            (2, 1)
        );
        let exchanges = sent_to(&stage, TOKEN);
        let verifiers: Vec<_> = exchanges
            .iter()
            .map(|sent| form(sent, "code_verifier"))
            .collect();
        assert!(verifiers.len() == 2 && verifiers[0] != verifiers[1]);
    }
}

/// F-16: both together are one: what was registered because of the page is not replaced once more.
#[test]
fn there_is_one_new_registration_in_a_login() {
    let mut stage = with_registration();
    stage.page(AUTHORIZE, dead(400));
    stage.page(TOKEN, reply(401, r#"{"error":"invalid_client"}"#));
    assert_eq!(
        login(&mut stage, task()).unwrap_err(),
        Error::login(LoginCause::RegistrationGone)
    );
    assert_eq!(
        (stage.count("show"), stage.count("send registration")),
        (1, 1)
    );
}

/// F-16: a store that will not forget it does not bring it back.
#[test]
fn a_dead_client_does_not_come_back_from_the_store() {
    let mut stage = with_registration();
    stage.page(AUTHORIZE, dead(400)).fail("forget-registration");
    let done = login(&mut stage, task()).unwrap();
    assert_eq!(done.credential.client.id, "client-1");
}

/// F-16, AUTH-41: what a person brought is theirs: it is neither asked for nor forgotten.
#[test]
fn a_brought_client_is_not_forgotten() {
    let mut stage = stage();
    stage.page(TOKEN, reply(401, r#"{"error":"invalid_client"}"#));
    let task = Task {
        client: Some(Client {
            source: ClientSource::PreRegistered,
            ..client("brought")
        }),
        ..task()
    };
    let want = Error::DeniedByIssuer {
        error: "invalid_client".into(),
    };
    assert_eq!(login(&mut stage, task).unwrap_err(), want);
    assert_eq!((stage.count("forget"), preflights(&stage).len()), (0, 0));
}
