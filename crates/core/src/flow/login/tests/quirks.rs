//! What a login knows of its issuer, and what it teaches (DESIGN.md section 6).

use super::*;
use crate::{
    assertion::ClientKey,
    quirks::{Insist, Quirk},
    reference::SecretRef,
    scope::Scopes,
};

const ONE_TOKEN: &str = r#"{"access_token":"at-0","token_type":"Bearer","expires_in":3600}"#;
const REFRESHES: &str = r#","grant_types_supported":["authorization_code","refresh_token"]"#;
const LISTS_OFFLINE: &str = r#","scopes_supported":["a","offline_access"]"#;

/// The same issuer, some time later.
fn later(before: &Stage, more: &str) -> Stage {
    let mut stage = with_metadata(more);
    stage.notes = before.notes.clone();
    stage.now = before.now.after(secs(60));
    stage
}

fn told(stage: &Stage) -> Vec<Quirk> {
    let quirk = |event: &Event| match event.happened {
        Happened::Learned { quirk } => Some(quirk),
        _ => None,
    };
    stage.events.iter().filter_map(quirk).collect()
}

fn added(stage: &Stage) -> (Option<String>, Option<String>) {
    (shown(stage, "prompt"), shown(stage, "access_type"))
}

/// DESIGN.md section 6, AUTH-94: an issuer that gives no refresh token although one is wanted is asked with one parameter more
/// at each login, and with none any more where nothing helps; each step is told in the history. No request is without its
/// resource (AUTH-70).
#[test]
fn a_refresh_token_is_insisted_on_step_by_step() {
    let yes = |text: &str| Some(text.to_owned());
    let mut before = Stage::new();
    for (asked, learned) in [
        ((None, None), vec![Quirk::PromptConsent]),
        ((yes("consent"), None), vec![Quirk::AccessTypeOffline]),
        ((yes("consent"), yes("offline")), vec![Quirk::NothingHelps]),
        ((None, None), vec![]),
    ] {
        let mut stage = later(&before, REFRESHES);
        stage.page(TOKEN, reply(200, ONE_TOKEN));
        let done = login(&mut stage, task()).unwrap();
        assert_eq!(added(&stage), asked);
        assert_eq!(
            (done.learned.clone(), told(&stage)),
            (learned.clone(), learned)
        );
        assert_eq!(
            shown(&stage, "resource").as_deref(),
            Some("https://mcp.example")
        );
        before = stage;
    }
    // After thirty days it is an issuer like any other.
    before.pass(secs(31 * 86_400));
    let mut stage = later(&before, REFRESHES);
    login(&mut stage, task()).unwrap();
    assert_eq!(added(&stage), (None, None));
}

/// DESIGN.md section 6: what brought a refresh token is asked for from then on; and nothing is learned of one that gives what it
/// need not, or that offers no such grant.
#[test]
fn what_brings_a_refresh_token_is_kept() {
    let mut first = later(&Stage::new(), REFRESHES);
    first.page(TOKEN, reply(200, ONE_TOKEN));
    login(&mut first, task()).unwrap();
    for _ in 0..2 {
        let mut stage = later(&first, REFRESHES);
        stage.pass(secs(20 * 86_400));
        let done = login(&mut stage, task()).unwrap();
        assert_eq!(shown(&stage, "prompt").as_deref(), Some("consent"));
        assert_eq!((done.learned.clone(), told(&stage)), (vec![], vec![]));
        first = stage;
    }
    let silent = r#","grant_types_supported":["authorization_code"]"#;
    let mut stage = later(&Stage::new(), silent);
    stage.page(TOKEN, reply(200, ONE_TOKEN));
    assert_eq!(login(&mut stage, task()).unwrap().learned, []);
    assert!(stage.notes.quirks.is_empty());
}

/// DESIGN.md section 6, T-05: an issuer that refuses to be asked like that is asked once more without, in the same login, with a
/// state and a verifier of their own; and not again.
#[test]
fn an_issuer_that_refuses_what_we_add_is_asked_without() {
    let mut stage = with_metadata(REFRESHES);
    let now = stage.now.wall;
    stage.notes.quirks = stage.notes.quirks.with_insist(Insist::Consent, now);
    stage.redirect = redirect(&[("state", STATE), ("error", "invalid_request")]);
    let done = login(&mut stage, task()).unwrap();
    assert_eq!(stage.count("show"), 2);
    assert_eq!(stage.count("open-callback"), 1);
    assert_eq!(added(&stage), (None, None));
    assert_eq!(done.learned, [Quirk::NothingHelps]);
    assert_eq!(stage.notes.quirks.insist(stage.now.wall), Insist::GivenUp);
    let verifier = form(sent_to(&stage, TOKEN)[0], "code_verifier").unwrap();
    let first = Pkce::from_entropy(&[1; 32]);
    assert_ne!(verifier, first.verifier.expose());
    assert_ne!(shown(&stage, "code_challenge"), Some(first.challenge));
    assert_ne!(
        shown(&stage, "state").unwrap(),
        state_from_entropy(&[2; 32]).expose()
    );
    // Without anything that we had added an error is an error.
    let mut stage = later(&stage, REFRESHES);
    stage.redirect = redirect(&[("state", STATE), ("error", "invalid_request")]);
    let error = login(&mut stage, task()).unwrap_err();
    assert_eq!((error.code(), stage.count("show")), ("denied.by_issuer", 1));
}

/// AUTH-56, AUTH-92, AUTH-93: `offline_access` that we added, since the issuer lists it, and that it refuses all the same, is
/// left out once, and from then on. Nobody's own wish is changed: what a person or the server asks for is asked for.
#[test]
fn offline_access_that_is_refused_is_left_out() {
    let refuses = |stage: &mut Stage| {
        stage.redirect = redirect(&[("state", STATE), ("error", "invalid_scope")]);
    };
    let asks = |scopes: &str| Task {
        scopes: Some(Scopes::parse(scopes)),
        ..task()
    };
    let mut stage = with_metadata(LISTS_OFFLINE);
    refuses(&mut stage);
    let done = login(&mut stage, asks("a")).unwrap();
    assert_eq!(stage.count("show"), 2);
    assert_eq!(shown(&stage, "scope").as_deref(), Some("a"));
    assert_eq!(done.credential.scopes_requested, Scopes::parse("a"));
    assert_eq!(
        (done.learned.clone(), told(&stage)),
        (vec![Quirk::NoOfflineAccess], vec![Quirk::NoOfflineAccess])
    );

    let mut next = later(&stage, LISTS_OFFLINE);
    login(&mut next, asks("a")).unwrap();
    assert_eq!(
        (next.count("show"), shown(&next, "scope").as_deref()),
        (1, Some("a"))
    );

    let mut own = with_metadata(LISTS_OFFLINE);
    refuses(&mut own);
    let error = login(&mut own, asks("a offline_access")).unwrap_err();
    assert_eq!((error.code(), own.count("show")), ("denied.scope", 1));

    // Once, not again and again: another refusal is one.
    let mut twice = with_metadata(LISTS_OFFLINE);
    refuses(&mut twice);
    twice.before("show", |stage| {
        stage.before("show", |stage| {
            stage.redirect = redirect(&[("state", STATE), ("error", "invalid_scope")]);
        });
    });
    let error = login(&mut twice, asks("a")).unwrap_err();
    assert_eq!((error.code(), twice.count("show")), ("denied.scope", 2));
    assert!(twice.notes.quirks.is_empty());
}

/// DESIGN.md section 6, T-24: `invalid_target`, wherever it comes, ends the login. No second request is made, least of all one
/// without the resource.
#[test]
fn a_refused_resource_ends_the_login() {
    let mut stage = stage();
    stage.redirect = redirect(&[("state", STATE), ("error", "invalid_target")]);
    let error = login(&mut stage, task()).unwrap_err();
    assert_eq!((error.code(), stage.count("show")), ("denied.by_issuer", 1));
    assert!(sent_to(&stage, TOKEN).is_empty());

    let mut stage = super::stage();
    stage.page(TOKEN, oauth_error("invalid_target"));
    let error = login(&mut stage, task()).unwrap_err();
    assert_eq!((error.code(), stage.count("show")), ("denied.by_issuer", 1));
    let sent = sent_to(&stage, TOKEN);
    assert_eq!(sent.len(), 1);
    assert_eq!(
        form(sent[0], "resource").as_deref(),
        Some("https://mcp.example")
    );
    assert!(stage.notes.quirks.is_empty());
}

/// DESIGN.md section 6, AUTH-73: the resource goes out octet for octet as it was published, whatever a URL parser would make of
/// it, in the authorization request and at the token endpoint.
#[test]
fn the_resource_is_sent_to_the_octet() {
    for published in [
        "https://MCP.example",
        "https://mcp.example",
        "https://mcp.example:443/%6dcp",
    ] {
        let mut stage = stage();
        let document = format!(
            r#"{{"resource":"{published}","authorization_servers":["https://as.example"]}}"#
        );
        stage.page(RESOURCE, reply(200, &document));
        match login(&mut stage, task()) {
            Ok(done) => {
                assert_eq!(shown(&stage, "resource").as_deref(), Some(published));
                let sent = sent_to(&stage, TOKEN);
                assert_eq!(form(sent[0], "resource").as_deref(), Some(published));
                assert_eq!(
                    done.credential.pins.resource_parameter.as_deref(),
                    Some(published)
                );
            }
            Err(error) => assert_eq!(error.code(), "peer.resource_mismatch", "{published}"),
        }
    }
}

/// DESIGN.md section 6, T-24: leaving the resource out is a person's own decision, for one issuer: it is stored with the binding,
/// said where the login is approved, kept for the next login, and not good at another issuer.
#[test]
fn only_a_person_leaves_the_resource_out() {
    let by_hand = |without| Task {
        without_resource: without,
        ..task()
    };
    let mut stage = stage();
    let done = login(&mut stage, by_hand(Some(true))).unwrap();
    assert!(stage.prompt.as_ref().unwrap().without_resource);
    assert_eq!(shown(&stage, "resource"), None);
    assert_eq!(form(sent_to(&stage, TOKEN)[0], "resource"), None);
    assert_eq!(done.credential.pins.resource_parameter, None);
    let bound = stage.commits[0].binding.clone().unwrap();
    assert_eq!(bound.without_resource_at, Some(issuer()));

    let again = |bound: Binding, without| {
        let mut stage = super::stage();
        let task = Task {
            binding: bound,
            ..by_hand(without)
        };
        login(&mut stage, task).unwrap();
        (
            shown(&stage, "resource").is_some(),
            stage.commits[0].binding.clone().unwrap(),
        )
    };
    assert!(!again(bound.clone(), None).0, "kept");
    let elsewhere = Binding {
        without_resource_at: Issuer::parse("https://other.example").ok(),
        ..bound.clone()
    };
    assert!(again(elsewhere, None).0, "not at another issuer");
    let (sends, bound) = again(bound, Some(false));
    assert!(sends && bound.without_resource_at.is_none(), "taken back");
}

/// AUTH-34: the client of a metadata document that has a key authenticates by it; where the issuer does not take that, nothing
/// is shown.
#[test]
fn a_metadata_document_may_have_a_key() {
    let key = ClientKey {
        reference: SecretRef::parse("file:/k").unwrap(),
        algorithm: None,
        key_id: Some("one".into()),
    };
    let task = || Task {
        client_metadata_url: Url::parse("https://app.example/c.json").ok(),
        client_key: Some(key.clone()),
        ..task()
    };
    let takes = r#","client_id_metadata_document_supported":true,"token_endpoint_auth_methods_supported":["private_key_jwt"]"#;
    let mut stage = with_metadata(takes);
    let done = login(&mut stage, task()).unwrap();
    let exchange = sent_to(&stage, TOKEN)[0];
    let order = exchange.orders.assertion.as_ref().unwrap();
    assert_eq!(
        (order.client_id.as_str(), &order.audience),
        ("https://app.example/c.json", &issuer())
    );
    assert_eq!(form(exchange, "client_id"), None);
    assert_eq!(
        done.credential.client.authentication,
        ClientAuthentication::PrivateKeyJwt
    );

    let mut stage = with_metadata(r#","client_id_metadata_document_supported":true"#);
    let error = login(&mut stage, task()).unwrap_err();
    assert_eq!((error.code(), stage.count("show")), ("config.value", 0));
}
