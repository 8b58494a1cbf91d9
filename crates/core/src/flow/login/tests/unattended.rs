//! Logins that need no person.

use super::*;
use crate::{
    assertion::ClientKey, reference::SecretRef, scope::Scopes, secret::ClientSecret,
    unattended::Unattended,
};

const ONLY_SO: &str = r#","grant_types_supported":["client_credentials"]"#;

fn service() -> Client {
    Client {
        secret: ClientSecret::new("s".into()).ok(),
        authentication: ClientAuthentication::Basic,
        source: ClientSource::PreRegistered,
        ..client("service")
    }
}

/// A service, as the issuer knows it that is named beside it.
fn as_service() -> Task {
    Task {
        client: Some(service()),
        unattended: Some(Unattended::ClientCredentials),
        issuer: Some(issuer()),
        ..task()
    }
}

/// A person's login with the same client, at whichever issuer.
fn by_a_person() -> Task {
    Task {
        unattended: None,
        issuer: None,
        ..as_service()
    }
}

/// EXT-10: a client with a secret is a service where it is told to be: nothing is registered, opened or shown, and what it gets is stored like any other login, with what renews it.
#[test]
fn a_service_logs_in_without_a_person() {
    let mut stage = with_metadata(ONLY_SO);
    let done = login(&mut stage, as_service()).unwrap();
    assert_eq!(
        done.credential.unattended,
        Some(Unattended::ClientCredentials)
    );
    assert_eq!(done.credential.refresh_token, None, "it was given one");
    assert_eq!(done.credential.pins.token_endpoint.as_str(), TOKEN);
    for act in [
        "open-callback",
        "show",
        "find-registrations",
        "send registration",
    ] {
        assert_eq!(stage.count(act), 0, "{act}");
    }
    let sent = sent_to(&stage, TOKEN);
    assert_eq!(sent.len(), 1);
    assert_eq!(
        form(sent[0], "grant_type").as_deref(),
        Some("client_credentials")
    );
    assert_eq!(
        form(sent[0], "resource").as_deref(),
        Some("https://mcp.example")
    );
    assert_eq!(
        form(sent[0], "scope"),
        None,
        "no scope was named, and none is made up"
    );
    assert_eq!(stage.commits.len(), 1);
    assert!(stage.commits[0].binding.is_some());
}

/// AUTH-56, EXT-10: an issuer that does not grant a service the scopes has them named, as after a redirect.
#[test]
fn refused_scopes_are_named() {
    let mut stage = with_metadata(ONLY_SO);
    stage.page(TOKEN, oauth_error("invalid_scope"));
    let wanted = Task {
        scopes: Some(Scopes::parse("a b")),
        ..as_service()
    };
    let error = login(&mut stage, wanted).unwrap_err();
    let scopes = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(error, Error::ScopeRefused { scopes });
}

/// EXT-30: a service's token is bound to a key wherever the issuer does that, and the key stays with the login.
#[test]
fn a_service_proves_its_key() {
    let binds = format!(r#"{ONLY_SO},"dpop_signing_alg_values_supported":["ES256"]"#);
    let key = crate::dpop::ProofKey::new(b"key", [1; 32], [2; 32]).ok();
    for (more, want) in [(binds.as_str(), key.clone()), (ONLY_SO, None)] {
        let mut stage = with_metadata(more);
        let task = Task {
            proof_key: key.clone(),
            ..as_service()
        };
        let done = login(&mut stage, task).unwrap();
        assert_eq!(done.credential.proof_key, want);
        assert_eq!(sent_to(&stage, TOKEN)[0].orders.proof, want);
    }
}

/// EXT-10, T-20: without a configured grant a person logs in, wherever the issuer has that, or does not say what it has. Where it
/// has not, nothing is sent, and what to say is said: metadata make no silent grant of a person's login. Only who leaves all to
/// the server has it so.
#[test]
fn where_people_can_log_in_they_do() {
    for types in [
        "",
        r#","grant_types_supported":["client_credentials","authorization_code"]"#,
    ] {
        let mut stage = with_metadata(types);
        let done = login(&mut stage, by_a_person()).unwrap();
        assert_eq!((done.credential.unattended, stage.count("show")), (None, 1));
    }
    for issuer in [None, Some(issuer())] {
        let mut stage = with_metadata(ONLY_SO);
        let task = Task {
            issuer,
            ..by_a_person()
        };
        let error = login(&mut stage, task).unwrap_err();
        assert_eq!(error.code(), "config.value");
        assert!(error.to_string().contains("client_credentials"), "{error}");
        assert_eq!(
            sent_to(&stage, TOKEN).len() + stage.count("open-callback"),
            0
        );
    }
    let mut stage = with_metadata(ONLY_SO);
    let left_to_it = Task {
        trusts_server: true,
        ..by_a_person()
    };
    let done = login(&mut stage, left_to_it).unwrap();
    assert_eq!(
        done.credential.unattended,
        Some(Unattended::ClientCredentials)
    );
    // A public client can be no service.
    let mut stage = with_metadata(ONLY_SO);
    let public = Task {
        client: Some(client("public")),
        ..task()
    };
    assert_eq!(
        login(&mut stage, public).unwrap().credential.unattended,
        None
    );
    // A configured grant is the grant.
    let mut stage = with_metadata("");
    let configured = Task {
        unattended: Some(Unattended::ClientCredentials),
        ..as_service()
    };
    let done = login(&mut stage, configured).unwrap();
    assert_eq!(
        done.credential.unattended,
        Some(Unattended::ClientCredentials)
    );
}

/// AUTH-24: PKCE protects a code: a login that has one ends without it, before anything is opened; a service has none.
#[test]
fn only_a_login_with_a_code_needs_pkce() {
    let none = r#","code_challenge_methods_supported":["plain"]"#;
    let mut stage = with_metadata(none);
    assert_eq!(
        login(&mut stage, by_a_person()).unwrap_err(),
        Error::NoPkceS256
    );
    assert_eq!(
        stage.count("open-callback") + stage.count("find-registrations"),
        0
    );
    let mut stage = with_metadata(&format!("{none}{ONLY_SO}"));
    assert!(login(&mut stage, as_service()).is_ok());
}

/// EXT-10, AUTH-44: the client authenticates as the issuer takes it, by its key before its secret; where they have nothing in
/// common that is said, and nothing is sent.
#[test]
fn a_service_authenticates_as_the_issuer_takes_it() {
    use ClientAuthentication::{Basic, Post, PrivateKeyJwt};
    let key = ClientKey {
        reference: SecretRef::file("/run/key").unwrap(),
        algorithm: None,
        key_id: None,
    };
    let secret = service();
    let keyed = Client {
        key: Some(key.clone()),
        secret: None,
        ..service()
    };
    let both = Client {
        key: Some(key),
        ..service()
    };
    let elsewhere = Client {
        secret: None,
        secret_ref: SecretRef::file("/run/secret").ok(),
        ..service()
    };
    for (client, offered, want) in [
        (&secret, r#"["client_secret_post"]"#, Some(Post)),
        (
            &secret,
            r#"["client_secret_post","client_secret_basic"]"#,
            Some(Basic),
        ),
        (&secret, r#"["private_key_jwt"]"#, None),
        (&secret, r#"["none"]"#, None),
        (&elsewhere, r#"["client_secret_post"]"#, Some(Post)),
        (
            &keyed,
            r#"["private_key_jwt","client_secret_basic"]"#,
            Some(PrivateKeyJwt),
        ),
        (&keyed, r#"["client_secret_basic"]"#, None),
        (&keyed, "null", Some(PrivateKeyJwt)),
        (
            &both,
            r#"["private_key_jwt","client_secret_post"]"#,
            Some(PrivateKeyJwt),
        ),
        (&both, r#"["client_secret_post"]"#, Some(Post)),
    ] {
        let methods = format!(r#"{ONLY_SO},"token_endpoint_auth_methods_supported":{offered}"#);
        let mut stage = with_metadata(&methods);
        let task = Task {
            client: Some(Client {
                authentication: ClientAuthentication::None,
                ..client.clone()
            }),
            ..as_service()
        };
        match (login(&mut stage, task), want) {
            (Ok(done), Some(want)) => assert_eq!(done.credential.client.authentication, want),
            (Err(error), None) => {
                assert_eq!(error.code(), "config.value", "{error}");
                assert_eq!(sent_to(&stage, TOKEN).len(), 0);
            }
            (done, want) => panic!("{offered}: {done:?}, not {want:?}"),
        }
    }
}

/// T-20, AUTH-41: the client of one issuer is not shown to another that the server names all of a sudden.
#[test]
fn a_service_is_not_shown_to_another_issuer() {
    let mut stage = with_metadata(ONLY_SO);
    let mut task = Task {
        issuer: None,
        ..as_service()
    };
    task.binding.credential = Some(CredentialKey {
        issuer: Issuer::parse("https://former.example").unwrap(),
        ..key()
    });
    let error = login(&mut stage, task).unwrap_err();
    assert_eq!(
        error,
        Error::login(LoginCause::IssuerChanged {
            former: "https://former.example".into(),
            issuer: "https://as.example".into(),
        })
    );
    assert_eq!(sent_to(&stage, TOKEN).len(), 0);
}

/// EXT-41: a token that was refused at the last try is not shown at this one; a refusal ends the login, and no other grant
/// is tried.
#[test]
fn a_workload_is_refused_once() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let grant = Unattended::Workload {
        token: SecretRef::file("/run/token").unwrap(),
    };
    let claims = r#"{"aud":"https://as.example","exp":1900000000}"#;
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
    let attempt = |refused| {
        let mut stage = stage();
        stage.secrets.insert("/run/token", token.clone());
        stage.page(TOKEN, oauth_error("invalid_grant"));
        let task = Task {
            unattended: Some(grant.clone()),
            client: Some(client("public")),
            refused,
            ..task()
        };
        let error = login(&mut stage, task).unwrap_err();
        (error.code(), sent_to(&stage, TOKEN).len())
    };
    assert_eq!(attempt(None), ("denied.by_issuer", 1));
    let digest = crate::unattended::digest(&token);
    assert_eq!(attempt(Some(digest)), ("config.assertion", 0));
}

/// AUTH-39, AUTH-41, T-16, T-20: a first login with a secret, or with an identity, at an issuer that only the server names, or that
/// is only guessed: nothing is sent there, nor to an identity provider, and the message says what to pass. Whoever names it, or
/// leaves it to the server, is believed; what a key signs is for one reader only, and needs no name.
#[test]
fn a_secret_goes_only_where_somebody_said() {
    let idp = crate::unattended::IdentityProvider::new(
        Issuer::parse("https://idp.example").unwrap(),
        Url::parse("https://idp.example/token").unwrap(),
        client("at-idp"),
        SecretRef::file("/run/identity").unwrap(),
    );
    let elsewhere = Client {
        secret: None,
        secret_ref: SecretRef::file("/run/secret").ok(),
        ..service()
    };
    let keyed = Client {
        secret: None,
        key: SecretRef::file("/run/key").ok().map(ClientKey::new),
        ..service()
    };
    let other = Issuer::parse("https://as.other").unwrap();
    let methods =
        r#","token_endpoint_auth_methods_supported":["private_key_jwt","client_secret_basic"]"#;
    let grant = || Unattended::ClientCredentials;
    let enterprise = || Unattended::Enterprise(Box::new(idp.clone()));
    for (who, kind, named, trusts, good) in [
        (service(), grant(), None, false, false),
        (elsewhere.clone(), grant(), None, false, false),
        (keyed.clone(), enterprise(), None, false, false),
        (service(), grant(), Some(other), false, false),
        (service(), grant(), Some(issuer()), false, true),
        (elsewhere, grant(), None, true, true),
        (keyed, grant(), None, false, true),
    ] {
        let mut stage = with_metadata(methods);
        let (said, unnamed) = (format!("{who:?} {named:?} {trusts}"), named.is_none());
        let task = Task {
            client: Some(who),
            unattended: Some(kind),
            issuer: named,
            trusts_server: trusts,
            ..task()
        };
        match login(&mut stage, task) {
            Ok(_) => assert!(good, "{said}"),
            Err(error) => {
                assert!(!good, "{said}: {error}");
                assert_eq!(error.code(), "config.value", "{said}");
                let hint = error.to_string().contains("--issuer https://as.example");
                assert_eq!(hint, unnamed, "{error}");
                let asked = stage.asked();
                assert!(asked.iter().all(|url| !url.contains("token")), "{asked:?}");
            }
        }
    }
    // A person sees where a login leads, but not that it is a guess.
    let secret = |trusts_server| {
        let mut stage = Stage::new();
        stage.page(
            MCP,
            with_headers(401, &[("www-authenticate", "Bearer")], ""),
        );
        for _ in 0..8 {
            stage.answer(reply(404, ""));
        }
        let task = Task {
            trusts_server,
            ..by_a_person()
        };
        let done = login(&mut stage, task);
        (
            done.is_ok() || stage.count("show") == 1,
            stage.count("open-callback"),
        )
    };
    assert_eq!(secret(false), (false, 0));
    assert_eq!(secret(true), (true, 1));
}

/// AUTH-41: the login that this client has already names its issuer; that of another client does not.
#[test]
fn a_login_names_the_issuer_of_its_own_client() {
    for (id, good) in [("service", true), ("another", false)] {
        let mut stage = stage();
        let mut task = renewed_service(&mut stage, None);
        task.issuer = None;
        task.client.as_mut().unwrap().id = id.into();
        let done = login(&mut stage, task);
        assert_eq!(done.is_ok(), good, "{done:?}");
        assert_eq!(sent_to(&stage, TOKEN).len(), usize::from(good));
    }
}

/// The binding of a service whose login is stored, and may have been refused something.
fn renewed_service(stage: &mut Stage, refused: Option<[u8; 32]>) -> Task {
    let mut task = Task {
        unattended: Some(Unattended::ClientCredentials),
        ..as_service()
    };
    task.binding.credential = Some(key());
    let why = Error::DeniedByIssuer {
        error: "invalid_grant".into(),
    };
    let backoff = crate::record::Backoff {
        refused,
        ..crate::record::Backoff::after(None, &crate::record::Failed::once(&why), 0.5, start())
    };
    stage.record = Some(Record {
        credential: Some(Credential {
            client: service(),
            unattended: Some(Unattended::ClientCredentials),
            refresh_token: None,
            ..credential(3)
        }),
        backoff: Some(backoff),
        ..Record::default()
    });
    task
}

/// The issuer's metadata leads to another token endpoint.
fn with_endpoint(stage: &mut Stage, endpoint: &str) {
    let document = format!(
        r#"{{"issuer":"https://as.example","token_endpoint":"{endpoint}","grant_types_supported":["client_credentials"],
        "token_endpoint_auth_methods_supported":["client_secret_basic"]}}"#
    );
    stage.page(METADATA, reply(200, &document));
}

/// T-15: a login without a person is there already, and the issuer's metadata lead to another host all of a sudden: nobody
/// can look at that, so nothing is sent, neither for a step-up nor for a login. Another place on the same host is taken, and
/// after a logout there is nothing to keep to.
#[test]
fn an_endpoint_that_moved_gets_no_secret() {
    for evil in [
        "https://evil.example/token",
        "http://as.example/token",
        "https://as.example:444/token",
    ] {
        let mut stage = stage();
        with_endpoint(&mut stage, evil);
        let task = renewed_service(&mut stage, None);
        let moved = Error::login(LoginCause::EndpointMoved);
        let error = login(&mut stage, task).unwrap_err();
        if error.code() != "peer.metadata_invalid" {
            assert_eq!(error, moved);
        }
        assert!(
            stage
                .exchanges
                .iter()
                .all(|sent| !sent.url.path().contains("token"))
        );
        assert_eq!(stage.record().version(), Some(version(3)));
    }
    let mut stage = stage();
    with_endpoint(&mut stage, "https://as.example/v2/token");
    let task = renewed_service(&mut stage, None);
    stage.page("https://as.example/v2/token", tokens(0));
    let done = login(&mut stage, task).unwrap();
    assert_eq!(done.credential.pins.token_endpoint.path(), "/v2/token");
}

/// EXT-41: a token that a renewal has shown in vain is not shown by a login or a step-up either.
#[test]
fn what_a_renewal_was_refused_is_not_shown_at_a_login() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = r#"{"aud":"https://as.example","exp":1900000000}"#;
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
    for (refused, sent) in [
        (Some(crate::unattended::digest(&token)), 0),
        (Some([1; 32]), 1),
    ] {
        let mut stage = stage();
        stage.secrets.insert("/run/token", token.clone());
        let mut task = renewed_service(&mut stage, refused);
        task.unattended = Some(Unattended::Workload {
            token: SecretRef::file("/run/token").unwrap(),
        });
        let done = login(&mut stage, task);
        assert_eq!(done.is_ok(), sent == 1, "{done:?}");
        assert_eq!(sent_to(&stage, TOKEN).len(), sent);
    }
}
