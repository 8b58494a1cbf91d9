//! Logins that need no person.

use super::*;
use crate::{
    assertion::ClientKey, reference::SecretRef, secret::ClientSecret, unattended::Unattended,
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

fn as_service() -> Task {
    Task {
        client: Some(service()),
        ..task()
    }
}

/// EXT-10: where the issuer lets nobody log in by a browser, a client with a secret is a service: nothing is registered, opened
/// or shown, and what it gets is stored like any other login, with what renews it.
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

/// EXT-10: the same client goes by a browser wherever the issuer has that, or does not say what it has.
#[test]
fn where_people_can_log_in_they_do() {
    for types in [
        "",
        r#","grant_types_supported":["client_credentials","authorization_code"]"#,
    ] {
        let mut stage = with_metadata(types);
        let done = login(&mut stage, as_service()).unwrap();
        assert_eq!((done.credential.unattended, stage.count("show")), (None, 1));
    }
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
        login(&mut stage, as_service()).unwrap_err(),
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
            ..task()
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
    let mut task = as_service();
    task.binding.credential = Some(CredentialKey {
        issuer: Issuer::parse("https://former.example").unwrap(),
        ..key()
    });
    let error = login(&mut stage, task).unwrap_err();
    assert_eq!(error, Error::login(LoginCause::IssuerChanged));
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
