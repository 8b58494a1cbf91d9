//! As which client, and on which port.

use super::*;
use crate::{secret::ClientSecret, time::Wall};

fn brought(secret: Option<&str>, authentication: ClientAuthentication) -> Option<Client> {
    let secret = secret.map(|secret| ClientSecret::new(secret.into()).unwrap());
    Some(Client {
        secret,
        authentication,
        source: ClientSource::PreRegistered,
        ..client("brought")
    })
}

/// AUTH-31, AUTH-35: a client that a person brought goes first, and nothing is registered.
#[test]
fn a_pre_registered_client_goes_first() {
    let mut stage = with_metadata(r#","client_id_metadata_document_supported":true"#);
    let client_metadata_url = "https://pilotlight.example/client.json".parse().ok();
    let task = Task {
        client: brought(Some("s3"), ClientAuthentication::Post),
        client_metadata_url,
        ..task()
    };
    let done = login(&mut stage, task).unwrap();
    assert_eq!(
        (
            done.credential.client.id.as_str(),
            stage.count("send registration")
        ),
        ("brought", 0)
    );
    assert_eq!(
        form(sent_to(&stage, TOKEN)[0], "client_secret").as_deref(),
        Some("s3")
    );
    assert!(stage.registrations.is_empty());
}

/// AUTH-44: it authenticates in a way that the issuer takes, whatever it was made with.
#[test]
fn a_pre_registered_client_authenticates_as_the_issuer_takes_it() {
    use ClientAuthentication::{Basic, None as Public, Post};
    for (secret, made_with, offered, want) in [
        (Some("s"), Basic, "client_secret_post", Post),
        (Some("s"), Post, "client_secret_basic", Basic),
        (Some("s"), Post, "client_secret_post", Post),
        (Some("s"), Public, "client_secret_basic", Basic),
        (None, Basic, "client_secret_basic", Public),
        (None, Public, "none", Public),
    ] {
        let mut stage = with_metadata(&format!(
            r#","token_endpoint_auth_methods_supported":["{offered}"]"#
        ));
        let done = login(
            &mut stage,
            Task {
                client: brought(secret, made_with),
                ..task()
            },
        )
        .unwrap();
        assert_eq!(
            done.credential.client.authentication, want,
            "{secret:?} {made_with:?} {offered}"
        );
    }
}

/// AUTH-31, AUTH-32, AUTH-42: a metadata document goes before dynamic registration, where the issuer takes one.
#[test]
fn a_metadata_document_goes_before_dynamic_registration() {
    let url = "https://pilotlight.example/client.json";
    for (more, id) in [
        (r#","client_id_metadata_document_supported":true"#, url),
        ("", "client-1"),
    ] {
        let mut stage = with_metadata(more);
        let done = login(
            &mut stage,
            Task {
                client_metadata_url: url.parse().ok(),
                ..task()
            },
        )
        .unwrap();
        assert_eq!(done.credential.client.id, id);
        assert_eq!(
            stage.count("send registration"),
            usize::from(id == "client-1")
        );
        assert_eq!(shown(&stage, "client_id").as_deref(), Some(id));
    }
}

/// AUTH-31: where no way is left a person is asked for a client ID, before a browser or a port is opened.
#[test]
fn without_a_way_to_register_it_says_so() {
    let mut stage = with_metadata(r#","registration_endpoint":null"#);
    let want = Error::NoRegistrationWay {
        issuer: "https://as.example".into(),
        redirect_uris: vec!["http://127.0.0.1:33417/callback".into()],
    };
    assert_eq!(login(&mut stage, task()).unwrap_err(), want);
    assert_eq!(stage.count("open-callback"), 0);
}

/// AUTH-36, AUTH-37, AUTH-43, AUTH-91: what is registered is what the listener really has.
#[test]
fn the_registration_names_the_open_port() {
    let mut stage = stage();
    login(
        &mut stage,
        Task {
            redirect: on_port(7777),
            ..task()
        },
    )
    .unwrap();
    let body: serde_json::Value =
        serde_json::from_slice(&sent_to(&stage, REGISTER)[0].body).unwrap();
    assert_eq!(
        body["redirect_uris"],
        serde_json::json!(["http://127.0.0.1:7777/callback"])
    );
    assert_eq!(body["application_type"], "native");
    assert_eq!(
        body["grant_types"],
        serde_json::json!(["authorization_code", "refresh_token"])
    );
    assert_eq!(
        stage.registrations[0].redirect_uris,
        ["http://127.0.0.1:7777/callback"]
    );
    assert_eq!(stage.registrations[0].issuer, issuer());
}

/// AUTH-39: an earlier registration is used again, and its port with it.
#[test]
fn an_earlier_registration_is_used_again_on_its_port() {
    let mut stage = stage();
    stage
        .registrations
        .push(registration("earlier", "http://127.0.0.1:6123/callback"));
    let done = login(&mut stage, task()).unwrap();
    assert_eq!(
        (
            done.credential.client.id.as_str(),
            stage.count("send registration")
        ),
        ("earlier", 0)
    );
    assert_eq!(stage.count("open-callback 6123"), 1);
    assert_eq!(
        shown(&stage, "redirect_uri").as_deref(),
        Some("http://127.0.0.1:6123/callback")
    );
    assert_eq!(stage.count("lock registering"), 0);
}

/// AUTH-39, AUTH-40, T-20: a registration at another issuer is nothing here.
#[test]
fn another_issuers_registration_is_not_used() {
    let mut stage = stage();
    let issuer = Issuer::parse("https://other.example").unwrap();
    stage.registrations.push(Registration {
        issuer,
        ..registration("theirs", ANY_PORT)
    });
    assert_eq!(
        login(&mut stage, task()).unwrap().credential.client.id,
        "client-1"
    );
}

/// T-06, AUTH-43: where that port is taken, another port and so another registration: nothing goes to the wrong listener.
#[test]
fn a_taken_port_makes_another_registration() {
    let mut stage = stage();
    stage
        .registrations
        .push(registration("earlier", "http://127.0.0.1:6123/callback"));
    stage.taken.push(6123);
    let done = login(&mut stage, task()).unwrap();
    assert_eq!(done.credential.client.id, "client-1");
    assert_eq!(shown(&stage, "redirect_uri").as_deref(), Some(ANY_PORT));
    assert_eq!(stage.registrations.len(), 2, "a new row for new logins");
}

/// T-06: a port that a person named is that port or an error, with or without a registration.
#[test]
fn an_explicit_port_that_is_taken_is_an_error() {
    for registrations in [
        vec![],
        vec![registration("earlier", "http://127.0.0.1:7777/callback")],
    ] {
        let mut stage = stage();
        stage.registrations = registrations;
        stage.taken.push(7777);
        let task = Task {
            redirect: on_port(7777),
            ..task()
        };
        assert_eq!(
            login(&mut stage, task).unwrap_err(),
            Error::ConfigCallbackPort { port: 7777 }
        );
        assert_eq!((stage.count("show"), stage.count("open-callback")), (0, 1));
    }
    let mut stage = stage();
    stage.taken.push(50_000);
    assert_eq!(
        login(&mut stage, task()).unwrap_err(),
        Error::ConfigCallbackPort { port: 50_000 },
        "and it ends"
    );
}

/// AUTH-43: a registration with another host, path or port does not fit an explicit callback.
#[test]
fn a_registration_that_does_not_fit_is_not_used() {
    for uri in [
        "http://localhost:7777/callback",
        "http://127.0.0.1:7777/other",
        "http://127.0.0.1:7778/callback",
    ] {
        let mut stage = stage();
        stage.registrations.push(registration("earlier", uri));
        let task = Task {
            redirect: on_port(7777),
            ..task()
        };
        assert_eq!(
            login(&mut stage, task).unwrap().credential.client.id,
            "client-1",
            "{uri}"
        );
    }
}

/// F-01 for registrations: one that another process made meanwhile is found under the lock.
#[test]
fn a_concurrent_registration_is_found_under_the_lock() {
    let mut stage = stage();
    stage.before("lock registering", |stage| {
        stage.registrations.push(registration("theirs", ANY_PORT))
    });
    assert_eq!(
        login(&mut stage, task()).unwrap().credential.client.id,
        "theirs"
    );
    assert_eq!(
        (
            stage.count("send registration"),
            stage.count("unlock registering")
        ),
        (0, 1)
    );
}

/// RFC 7591 section 3.2.1: a secret that has expired makes another registration.
#[test]
fn an_expired_secret_makes_another_registration() {
    for (expires_at, id) in [
        (start().wall, "client-1"),
        (Wall(start().wall.0 + 3_600_000), "earlier"),
    ] {
        let mut stage = stage();
        let mut earlier = registration("earlier", ANY_PORT);
        earlier.client.secret = ClientSecret::new("s".into()).ok();
        earlier.client.secret_expires_at = Some(expires_at);
        stage.registrations.push(earlier);
        assert_eq!(login(&mut stage, task()).unwrap().credential.client.id, id);
    }
}

/// AUTH-38, T-19: a refused or unusable registration is told, and lock and listener are let go of.
#[test]
fn a_refused_registration_is_told() {
    let refused = |error: &str| Error::RegistrationRefused {
        issuer: "https://as.example".into(),
        error: error.into(),
        redirect_uris: vec![ANY_PORT.into()],
    };
    for (status, body, want) in [
        (
            400,
            r#"{"error":"unapproved_software_statement"}"#,
            refused("unapproved_software_statement"),
        ),
        (403, "<html>", refused("HTTP 403")),
        (
            500,
            "",
            Error::ServerError {
                status: 500,
                retry_after: None,
            },
        ),
        (429, "", Error::RateLimited { retry_after: None }),
        (
            201,
            r#"{"client_id":"c","redirect_uris":["https://evil.example/"]}"#,
            Error::MetadataInvalid {
                document: "registration answer",
                field: "redirect_uris",
                why: "our own redirect URI is not among them",
            },
        ),
    ] {
        let mut stage = stage();
        stage.page(REGISTER, reply(status, body));
        assert_eq!(login(&mut stage, task()).unwrap_err(), want);
        assert_eq!(
            stage.log[stage.log.len() - 2..],
            ["unlock registering", "close-callback"]
        );
        assert!(stage.registrations.is_empty() && stage.count("show") == 0);
    }
}

/// AUTH-38: an issuer that takes our redirect URIs from no native application is asked once as a web application; what it
/// says then is told.
#[test]
fn what_a_native_application_may_not_have_a_web_application_may() {
    let error = r#"{"error":"invalid_redirect_uri"}"#;
    for granted in [true, false] {
        let mut stage = stage();
        stage.page(REGISTER, move |exchange, stage| {
            let second = if granted {
                reply(201, r#"{"client_id":"client-1"}"#)(exchange, stage)
            } else {
                reply(400, error)(exchange, stage)
            };
            stage.page(REGISTER, move |_, _| second);
            reply(400, error)(exchange, stage)
        });
        let done = login(&mut stage, task());
        let kinds: Vec<_> = sent_to(&stage, REGISTER)
            .iter()
            .map(|sent| serde_json::from_slice::<serde_json::Value>(&sent.body).unwrap())
            .map(|body| body["application_type"].clone())
            .collect();
        assert_eq!(kinds, ["native", "web"]);
        match done {
            Ok(done) => assert_eq!(done.credential.client.id, "client-1"),
            Err(told) => assert!(
                !granted && told.code() == "peer.registration_refused",
                "{told:?}"
            ),
        }
    }
}
