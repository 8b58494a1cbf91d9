//! Several issuers, and one that is accepted although its metadata names another.

use super::*;
use crate::error::LoginCause;

const ONE: &str = "https://one.example";
const TWO: &str = "https://two.example";

fn document(issuer: &str, more: &str) -> String {
    format!(
        r#"{{"issuer":"{issuer}","authorization_endpoint":"{issuer}/authorize","token_endpoint":"{issuer}/token",
        "code_challenge_methods_supported":["S256"]{more}}}"#
    )
}

fn place(issuer: &str) -> String {
    format!("{issuer}/.well-known/oauth-authorization-server")
}

/// A server that names both.
fn both() -> Stage {
    let mut stage = challenged("Bearer");
    let issuers = format!(r#"["{ONE}","{TWO}"]"#);
    stage.page(RESOURCE_PATH, reply(200, &resource_document(MCP, &issuers)));
    stage
}

fn registers(issuer: &str) -> String {
    document(
        issuer,
        &format!(r#","registration_endpoint":"{issuer}/register""#),
    )
}

fn found(stage: &mut Stage, task: Task) -> String {
    let found = discover(stage, task).unwrap();
    found.server.issuer.as_str().to_owned()
}

/// AUTH-15: without a choice the first is taken that there is a way to become a client of; each is tried once, in order. Where
/// there is none, the first is what the person is told about.
#[test]
fn the_first_that_takes_us_is_taken() {
    for (first, second, want) in [
        (registers(ONE), registers(TWO), ONE),
        (document(ONE, ""), registers(TWO), TWO),
        (document(ONE, ""), document(TWO, ""), ONE),
    ] {
        let mut stage = both();
        stage.page(&place(ONE), reply(200, &first));
        stage.page(&place(TWO), reply(200, &second));
        assert_eq!(found(&mut stage, task()), want);
    }
    let mut stage = both();
    stage.page(&place(TWO), reply(200, &registers(TWO)));
    assert_eq!(
        found(&mut stage, task()),
        TWO,
        "the first publishes nothing"
    );
    assert_eq!(documents(&stage).len(), 4);

    let with_document = Task {
        ways: Ways {
            document: true,
            ..Ways::default()
        },
        ..task()
    };
    let mut stage = both();
    stage.page(&place(ONE), reply(200, &document(ONE, "")));
    let takes = document(TWO, r#","client_id_metadata_document_supported":true"#);
    stage.page(&place(TWO), reply(200, &takes));
    assert_eq!(found(&mut stage, with_document), TWO, "AUTH-42");
}

/// AUTH-15, T-16: an issuer that cannot be reached, or fails, ends it: whoever can block one must not choose another.
#[test]
fn a_blocked_issuer_does_not_choose_another() {
    type Answers = Box<dyn FnOnce(&Exchange, &mut Stage) -> Exchanged>;
    let answers: [Answers; 3] = [
        Box::new(unreachable),
        Box::new(silent),
        Box::new(reply(503, "")),
    ];
    for answer in answers {
        let mut stage = both();
        stage.page(&place(ONE), answer);
        assert!(discover(&mut stage, task()).is_err());
        assert!(!stage.asked().iter().any(|url| url.starts_with(TWO)));
    }
}

/// AUTH-15, AUTH-23: each is independent of the others: a document that is of no use, or names somebody else, is one issuer's. Where
/// no other will do, that is how it ends; and one that a person has chosen, or that has the login, is not left for it.
#[test]
fn a_bad_document_is_one_issuers() {
    for bad in [
        registers(TWO),
        "{".into(),
        "[]".into(),
        document(ONE, "").replace("token_endpoint", "no_endpoint"),
    ] {
        let mut stage = both();
        stage.page(&place(ONE), reply(200, &bad));
        stage.page(&place(TWO), reply(200, &registers(TWO)));
        assert_eq!(found(&mut stage, task()), TWO, "{bad}");

        let mut alone = both();
        alone.page(&place(ONE), reply(200, &bad));
        missing(&mut alone);
        let error = discover(&mut alone, task()).unwrap_err();
        let code = if bad == registers(TWO) {
            "peer.issuer_mismatch"
        } else {
            "peer.metadata_invalid"
        };
        assert_eq!(error.code(), code, "{error}");
        assert!(!error.to_string().contains("well-known places"), "{error}");

        for task in [
            bound(ONE),
            Task {
                issuer: Issuer::parse(ONE).ok(),
                ..task()
            },
        ] {
            let mut stage = both();
            stage.page(&place(ONE), reply(200, &bad));
            assert!(discover(&mut stage, task).is_err());
            assert!(!stage.asked().iter().any(|url| url.starts_with(TWO)));
        }
    }
}

/// AUTH-15: the issuer of the login there is stays, wherever it stands in the list.
#[test]
fn the_known_issuer_stays() {
    let mut stage = both();
    stage.page(&place(TWO), reply(200, &document(TWO, "")));
    assert_eq!(found(&mut stage, bound(TWO)), TWO);
}

/// AUTH-41: a client was made at one issuer. Among several a person has to say at which, and where its own is named no
/// more it goes nowhere: both before anything is asked of any of them.
#[test]
fn a_brought_client_is_not_tried_out() {
    let ways = Ways {
        brought: true,
        ..Ways::default()
    };
    let mut stage = both();
    let error = discover(&mut stage, Task { ways, ..task() }).unwrap_err();
    assert_eq!(error.code(), "config.value");
    assert!(
        error
            .to_string()
            .ends_with(&format!("choose from {ONE} {TWO}")),
        "{error}"
    );
    assert_eq!(documents(&stage), [RESOURCE_PATH]);

    let mut stage = both();
    let known = Task {
        ways,
        ..bound("https://former.example")
    };
    let changed = LoginCause::IssuerChanged {
        former: "https://former.example".into(),
        issuer: ONE.into(),
    };
    assert_eq!(
        discover(&mut stage, known).unwrap_err(),
        Error::login(changed)
    );
    assert_eq!(documents(&stage), [RESOURCE_PATH]);

    let mut stage = both();
    stage.page(&place(TWO), reply(200, &document(TWO, "")));
    let chosen = Task {
        ways,
        issuer: Issuer::parse(TWO).ok(),
        ..task()
    };
    assert_eq!(found(&mut stage, chosen), TWO);
}

fn accepts(published: &str, metadata: &str) -> Option<IssuerException> {
    Some(IssuerException {
        published: Issuer::parse(published).unwrap(),
        metadata: Issuer::parse(metadata).unwrap(),
    })
}

/// T-17, T-20, AUTH-23: an accepted exception is for exactly these two, octet for octet; the identity is what the server names, and the
/// other is no more than a name. A document that names anything else is refused, the published issuer included.
#[test]
fn an_exception_is_for_exactly_two_issuers() {
    let as_example = "https://as.example";
    for (exception, named, want) in [
        (None, as_example, Ok(as_example)),
        (None, TWO, Err((as_example, TWO))),
        (accepts(as_example, TWO), TWO, Ok(TWO)),
        (accepts(as_example, TWO), as_example, Err((TWO, as_example))),
        (
            accepts(as_example, TWO),
            "https://two.example/",
            Err((TWO, "https://two.example/")),
        ),
        (accepts(as_example, TWO), ONE, Err((TWO, ONE))),
        (accepts(ONE, TWO), TWO, Err((as_example, TWO))),
        (accepts(ONE, TWO), as_example, Ok(as_example)),
    ] {
        let mut stage = challenged("Bearer");
        published(&mut stage);
        stage.page(OAUTH, reply(200, &server_document(named)));
        let task = Task {
            exception: exception.clone(),
            ..task()
        };
        let want = want.map_err(|(expected, got)| Error::MetadataMismatch {
            published: as_example.into(),
            expected: expected.into(),
            got: got.into(),
        });
        let got = discover(&mut stage, task).map(|found| {
            assert_eq!(found.server.issuer.as_str(), as_example);
            found.server.name().as_str().to_owned()
        });
        assert_eq!(got, want.map(str::to_owned), "{exception:?} {named}");
    }
}

/// T-17, T-20, AUTH-15: a login under an exception is found again by the issuer that the server names. One at the true issuer of the
/// accepted name is not taken for it, and to choose, only what the server names will do.
#[test]
fn an_excepted_issuer_is_known_by_what_the_server_calls_it() {
    let as_example = "https://as.example";
    let issuers = format!(r#"["{ONE}","{as_example}"]"#);
    for (chosen, known, want) in [
        (None, None, Some(ONE)),
        (None, Some(TWO), Some(ONE)),
        (None, Some(as_example), Some(as_example)),
        (Some(as_example), Some(TWO), Some(as_example)),
        (Some(TWO), Some(as_example), None),
    ] {
        let mut stage = challenged("Bearer");
        stage.page(RESOURCE_PATH, reply(200, &resource_document(MCP, &issuers)));
        stage.page(&place(ONE), reply(200, &registers(ONE)));
        stage.page(OAUTH, reply(200, &server_document(TWO)));
        let task = Task {
            exception: accepts(as_example, TWO),
            known_issuer: known.and_then(|known| Issuer::parse(known).ok()),
            issuer: chosen.and_then(|chosen| Issuer::parse(chosen).ok()),
            ..task()
        };
        match want {
            Some(want) => assert_eq!(found(&mut stage, task), want, "{chosen:?} {known:?}"),
            None => {
                let error = discover(&mut stage, task).unwrap_err();
                assert_eq!(error.code(), "config.value");
            }
        }
    }
}
