//! An issuer that a person has accepted although its metadata names another: two parties, and what is whose stays apart.

use super::*;
use crate::{
    assertion::ClientKey, issuer::IssuerException, reference::SecretRef, secret::ClientSecret,
};

/// Where the server leads: its metadata says that it is `https://as.example`.
const PUBLISHED: &str = "https://p.example";
const PUBLISHED_METADATA: &str = "https://p.example/.well-known/oauth-authorization-server";

fn published() -> Issuer {
    Issuer::parse(PUBLISHED).unwrap()
}

/// A server that names the one, whose metadata names the other, and a registration at that other, with its secret.
fn two() -> Stage {
    let mut stage = stage();
    let named =
        r#"{"resource":"https://mcp.example","authorization_servers":["https://p.example"]}"#;
    stage.page(RESOURCE, reply(200, named));
    let document = r#"{"issuer":"https://as.example","authorization_endpoint":"https://p.example/authorize",
        "token_endpoint":"https://p.example/token","registration_endpoint":"https://p.example/register",
        "revocation_endpoint":"https://p.example/revoke","code_challenge_methods_supported":["S256"],
        "token_endpoint_auth_methods_supported":["none","client_secret_basic","private_key_jwt"],
        "authorization_response_iss_parameter_supported":true}"#;
    stage.page(PUBLISHED_METADATA, reply(200, document));
    let given = r#"{"client_id":"of-p","client_secret":"SECRET-OF-P","token_endpoint_auth_method":"client_secret_basic"}"#;
    stage.page("https://p.example/register", reply(201, given));
    stage.page("https://p.example/token", tokens(0));
    stage.page("https://p.example/authorize", reply(302, ""));
    stage.redirect = from("https://as.example");
    let secret = Client {
        secret: ClientSecret::new("SECRET-OF-M".into()).ok(),
        authentication: ClientAuthentication::Basic,
        ..client("of-m")
    };
    stage.registrations.push(Registration {
        client: secret,
        ..registration("of-m", ANY_PORT)
    });
    stage
}

fn from(iss: &str) -> Option<Result<Vec<(String, String)>, Error>> {
    redirect(&[("code", "code-1"), ("state", STATE), ("iss", iss)])
}

fn accepting() -> Task {
    let mut task = task();
    task.binding.exception = IssuerException::parse("https://p.example=https://as.example").ok();
    task
}

/// AUTH-16, AUTH-39, T-17, T-20: an accepted issuer counts as the one whose documents are read. Nothing of the one that it calls itself
/// goes there: the client is its own, and so are the registration that is kept and the credential.
#[test]
fn an_accepted_issuer_gets_nothing_of_the_one_that_it_names() {
    let mut stage = two();
    let done = login(&mut stage, accepting()).unwrap();
    assert_eq!(done.credential.client.id, "of-p");
    assert_eq!(done.credential.key.issuer, published());
    assert_eq!(shown(&stage, "client_id").as_deref(), Some("of-p"));
    assert_eq!(stage.prompt.as_ref().unwrap().issuer, published());
    assert!(!all_sent(&stage).contains("of-m"), "{}", all_sent(&stage));
    // "Basic " + base64("of-m:SECRET-OF-M")
    assert!(!all_sent(&stage).contains("b2YtbTpTRUNSRVQtT0YtTQ"));
    let kept: Vec<_> = stage
        .registrations
        .iter()
        .map(|one| (one.issuer.as_str(), one.client.id.as_str()))
        .collect();
    assert_eq!(kept, [(PUBLISHED, "of-p"), ("https://as.example", "of-m")]);
}

/// AUTH-39, T-20: nor the other way round: what it has given out is not shown to the one that it names.
#[test]
fn the_one_that_it_names_gets_nothing_of_it() {
    let mut stage = two();
    stage.registrations.clear();
    login(&mut stage, accepting()).unwrap();
    let mut other = self::stage();
    other.registrations = stage.registrations;
    let done = login(&mut other, task()).unwrap();
    assert_eq!(done.credential.client.id, "client-1");
    assert!(!all_sent(&other).contains("of-p"));
}

/// AUTH-23, AUTH-62, AUTH-64, T-17: the name in the metadata is what redirects have to carry, to the letter.
#[test]
fn a_redirect_carries_the_name_in_the_metadata() {
    for wrong in [PUBLISHED, "https://as.example/"] {
        let mut stage = two();
        stage.redirect = from(wrong);
        let error = login(&mut stage, accepting()).unwrap_err();
        assert_eq!(error.code(), "peer.issuer_mismatch", "{wrong}");
        assert!(sent_to(&stage, "https://p.example/token").is_empty());
    }
}

/// EXT-11: what a key signs is made out to the name that the issuer goes by.
#[test]
fn an_assertion_is_made_out_to_the_name_in_the_metadata() {
    let mut stage = two();
    let task = Task {
        client: Some(Client {
            key: Some(ClientKey::new(SecretRef::file("/k").unwrap())),
            ..Client::brought("brought".into())
        }),
        ..accepting()
    };
    login(&mut stage, task).unwrap();
    let sent = sent_to(&stage, "https://p.example/token")[0].clone();
    assert_eq!(sent.orders.assertion.unwrap().audience, issuer());
}

/// AUTH-16, AUTH-40, T-15: a server whose issuer was the true one, and that now leads to another by that name, has changed its
/// issuer; the person is told so. To say `--issuer` with the name that it calls itself names it not.
#[test]
fn it_is_another_issuer_than_the_one_that_it_names() {
    let mut stage = two();
    stage.elsewhere.push((published(), Record::default()));
    stage.record = Some(Record {
        credential: Some(credential(3)),
        ..Record::default()
    });
    let mut task = accepting();
    task.binding.credential = Some(key());
    let done = login(&mut stage, task).unwrap();
    assert_eq!(done.former_issuer, Some(issuer()));
    let prompt = stage.prompt.as_ref().unwrap();
    assert_eq!(prompt.former_issuer, Some(issuer()));
    assert!(!all_sent(&stage).contains("rt-3"));

    let mut stage = two();
    let chosen = Task {
        issuer: Some(issuer()),
        ..accepting()
    };
    let error = login(&mut stage, chosen).unwrap_err();
    assert_eq!(error.code(), "config.value");
    assert_eq!(stage.asked(), [MCP, RESOURCE]);
}

/// EXT-10, EXT-11, EXT-40, T-17, T-20: what is made out to a name is of use to whoever has that name: without a person it goes where
/// the metadata only say the name no more than a secret does. Nor does what a device login would show.
#[test]
fn what_is_made_out_to_a_name_needs_the_issuer_named() {
    let keyed = Task {
        client: Some(Client {
            key: Some(ClientKey::new(SecretRef::file("/k").unwrap())),
            ..Client::brought("brought".into())
        }),
        unattended: Some(Unattended::ClientCredentials),
        ..accepting()
    };
    let platform = Task {
        unattended: Some(Unattended::Workload {
            token: SecretRef::file("/t").unwrap(),
        }),
        client: Some(Client::brought("brought".into())),
        ..accepting()
    };
    for task in [keyed.clone(), platform] {
        let mut stage = two();
        let error = login(&mut stage, task).unwrap_err();
        assert_eq!(error.code(), "config.value");
        assert!(error.to_string().contains(PUBLISHED), "{error}");
        assert!(
            !stage
                .asked()
                .iter()
                .any(|url| url.starts_with("https://p.example/t"))
        );
    }
    let mut stage = two();
    let named = Task {
        issuer: Some(published()),
        ..keyed
    };
    let done = login(&mut stage, named).unwrap();
    let sent = sent_to(&stage, "https://p.example/token")[0].clone();
    assert_eq!(sent.orders.assertion.unwrap().audience, issuer());
    // And so it is at each renewal.
    assert_eq!(done.credential.audience(), &issuer());
    assert_eq!(done.credential.key.issuer, published());
}
