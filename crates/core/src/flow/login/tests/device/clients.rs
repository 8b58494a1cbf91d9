//! As which client to log in on another device: what it shows, and what happens where it is not known.

use super::*;

const DEVICE_URI: &str = "http://127.0.0.1/callback";

fn with_secret() -> Client {
    Client {
        secret: ClientSecret::new("TOPSECRET".into()).ok(),
        authentication: ClientAuthentication::Basic,
        ..Client::brought("brought".into())
    }
}

/// AUTH-39, AUTH-41, T-20: a device login shows a secret before a person has seen where it leads. So it goes only to an issuer that
/// somebody has named, or where this client has a login; a wish for a device gives way to the redirect, where a person looks first.
#[test]
fn a_secret_goes_to_no_issuer_that_only_the_server_names() {
    for device in [Device::Only, Device::Prefer] {
        let mut stage = stage_with(CODE, "", vec![]);
        let seen = Task {
            client: Some(with_secret()),
            ..by_device(device)
        };
        // Nobody approves: what was sent until then is what a stranger gets without a person.
        stage.redirect = Some(Err(Error::DeniedByHuman));
        let error = login(&mut stage, seen).unwrap_err();
        let want = match device {
            Device::Prefer => "denied.by_human",
            _ => "config.value",
        };
        assert_eq!(error.code(), want, "{error}");
        assert_eq!(
            sent_to(&stage, DEVICE).len() + sent_to(&stage, TOKEN).len(),
            0
        );
        assert!(
            stage
                .exchanges
                .iter()
                .all(|sent| !sent.headers.contains_key("authorization"))
        );
        assert!(!all_sent(&stage).contains("TOPSECRET"));
    }
    // A login of this client, at this issuer.
    let held = |id: &str| {
        let mut stage = stage_of(vec![granted()]);
        stage.record = Some(Record {
            credential: Some(Credential {
                client: client(id),
                ..credential(3)
            }),
            ..Record::default()
        });
        let mut task = Task {
            client: Some(with_secret()),
            ..by_device(Device::Only)
        };
        task.binding.credential = Some(key());
        login(&mut stage, task).map(|done| done.credential.client.id)
    };
    assert_eq!(held("brought").as_deref(), Ok("brought"));
    assert_eq!(held("another").unwrap_err().code(), "config.value");
    let named = Task {
        client: Some(with_secret()),
        issuer: Some(issuer()),
        ..by_device(Device::Only)
    };
    let trusting = Task {
        issuer: None,
        trusts_server: true,
        ..named.clone()
    };
    for task in [named, trusting] {
        let mut stage = stage_of(vec![granted()]);
        login(&mut stage, task).unwrap();
        assert!(
            sent_to(&stage, DEVICE)[0]
                .headers
                .contains_key("authorization")
        );
    }
}

/// F-16: the device endpoint says that it does not know the client, and nobody has typed anything yet: another is registered in the
/// same login and asks again. Once; and after a code was typed in nobody is shown another.
#[test]
fn a_forgotten_client_is_registered_anew_before_a_code_is_shown() {
    let gone = || oauth_error("invalid_client");
    let mut stage = with_metadata(OFFERED);
    stage
        .registrations
        .push(registration("earlier", DEVICE_URI));
    stage.page(DEVICE, gone());
    stage.before("forget", |stage| {
        stage.page(DEVICE, reply(200, CODE));
    });
    let done = only(&mut stage).unwrap();
    assert_eq!(done.credential.client.id, "client-1");
    let asked = sent_to(&stage, DEVICE);
    let ids: Vec<_> = asked
        .iter()
        .map(|sent| form(sent, "client_id").unwrap())
        .collect();
    assert_eq!(ids, ["earlier", "client-1"]);
    assert_eq!(
        (stage.count("show-code"), stage.count("send registration")),
        (1, 1)
    );
    assert_eq!(stage.registrations.len(), 1);

    let mut stage = with_metadata(OFFERED);
    stage
        .registrations
        .push(registration("earlier", DEVICE_URI));
    stage.page(DEVICE, gone());
    stage.before("forget", move |stage| {
        stage.page(DEVICE, gone());
    });
    let error = only(&mut stage).unwrap_err();
    assert_eq!(error, Error::login(LoginCause::RegistrationGone));
    assert_eq!(
        (stage.count("show-code"), stage.count("send registration")),
        (0, 1)
    );

    let mut stage = stage_of(vec![Box::new(gone())]);
    stage
        .registrations
        .push(registration("earlier", DEVICE_URI));
    let error = only(&mut stage).unwrap_err();
    assert_eq!(error, Error::login(LoginCause::RegistrationGone));
    assert_eq!(
        (stage.count("show-code"), stage.count("send registration")),
        (1, 0)
    );
    assert_eq!(stage.registrations.len(), 0);
}

/// AUTH-31, F-16: a client that is not the issuer's to forget, and that its device endpoint does not know, logs in by a redirect where
/// the device was only preferred.
#[test]
fn an_unknown_client_leads_to_the_browser_where_a_device_was_only_preferred() {
    let document = Task {
        client_metadata_url: "https://us.example/client.json".parse().ok(),
        ..task()
    };
    let brought = Task {
        client: Some(Client::brought("brought".into())),
        ..task()
    };
    for task in [document, brought] {
        for device in [Device::Prefer, Device::Only] {
            let mut stage = with_metadata(&format!(
                r#"{OFFERED},"client_id_metadata_document_supported":true"#
            ));
            stage.page(DEVICE, reply(401, r#"{"error":"invalid_client"}"#));
            let task = Task {
                device,
                ..task.clone()
            };
            match login(&mut stage, task) {
                Ok(_) => assert_eq!((device, stage.count("show")), (Device::Prefer, 1)),
                Err(error) => {
                    assert_eq!((device, error.code()), (Device::Only, "denied.by_issuer"))
                }
            }
            assert_eq!(stage.count("forget"), 0);
        }
    }
}

/// RFC 8628: an issuer without browser logins has another way for people: a client with a secret is no service for that.
#[test]
fn an_issuer_without_browser_logins_lets_people_in_by_a_device() {
    let more = format!(r#","grant_types_supported":["client_credentials","{DEVICE_CODE}"]"#);
    for device in [Device::Only, Device::Prefer] {
        let mut stage = stage_with(CODE, &more, vec![granted()]);
        let task = Task {
            client: Some(with_secret()),
            issuer: Some(issuer()),
            ..by_device(device)
        };
        let done = login(&mut stage, task).unwrap();
        assert_eq!(
            (done.credential.unattended, stage.count("show-code")),
            (None, 1)
        );
    }
    // Without a device, and where the secret may not go there, what to say is said.
    for (device, issuer) in [(Device::Never, Some(issuer())), (Device::Prefer, None)] {
        let mut stage = stage_with(CODE, &more, vec![]);
        let task = Task {
            client: Some(with_secret()),
            issuer,
            ..by_device(device)
        };
        assert_eq!(login(&mut stage, task).unwrap_err().code(), "config.value");
    }
}
