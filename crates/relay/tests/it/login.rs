//! Tokens and logins behind the host's back.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, sync::Arc};

use pilotlight::{
    clock::SystemClock,
    core::{issuer::Issuer, reference::SecretRef, registration::Client, unattended::Unattended},
    human::Refuse,
    store::{MemoryStore, Store},
};
use pilotlight_testkit::{
    Lab, LabConfig, ScriptedHuman,
    authorization_server::{Approval, ClientAuthentication, IssueRefreshToken, StaticClient},
    processes::{fail_point::FailPoints, failing_store::FailingStore, said::Journal},
};

use crate::support::{Clicks, Host, logged_in};

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hi"}}}"#;

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

/// Case (c) of the storm, in one process: 64 calls meet a token that was revoked; all are answered, with one refresh.
#[tokio::test]
async fn calls_that_meet_a_401_wait_and_are_answered() {
    let (lab, store) = logged_in(|_| {}).await;
    let mut host = Host::on(store, lab.resource_url(), Arc::new(Refuse), |_| {}).await;
    host.shake_hands().await;
    host.say(CALL).await;
    host.hear().await;
    lab.with_issuer(|issuer| issuer.revoke_access());
    for id in 100..164 {
        host.say(&CALL.replace("\"id\":7", &format!("\"id\":{id}")))
            .await;
    }
    for _ in 100..164 {
        let answer = host.hear().await;
        assert!(answer.contains(r#""text":"hi""#), "{answer}");
    }
    lab.with_issuer(|issuer| {
        assert_eq!(issuer.stats().refresh_ok, 1);
        assert_eq!(issuer.stats().spent_presented, 0);
    });
}

/// Without a login the person is asked, once, however many requests want one; they are answered when it is there.
#[tokio::test]
async fn a_login_is_asked_for_once() {
    let lab = Lab::start(LabConfig::default()).await.unwrap();
    let person = Clicks::of(ScriptedHuman::allows());
    let mut host = Host::on(store(), lab.resource_url(), person.clone(), |_| {}).await;
    let welcome = host.shake_hands().await;
    assert!(welcome.contains("protocolVersion"), "{welcome}");
    host.say(CALL).await;
    assert!(host.hear().await.contains(r#""text":"hi""#));
    assert_eq!(person.shown(), 1);
}

/// A person who says no is not asked again: the request is answered with an error that says what to run.
#[tokio::test]
async fn a_refusal_is_respected() {
    let asks = LabConfig::default().with(|lab| lab.authorization_server.approval = Approval::Page);
    let lab = Lab::start(asks).await.unwrap();
    let person = Clicks::of(ScriptedHuman::denies());
    let mut host = Host::on(store(), lab.resource_url(), person.clone(), |_| {}).await;
    for _ in 0..3 {
        host.say(crate::support::INITIALIZE).await;
        let error: serde_json::Value = serde_json::from_str(&host.hear().await).unwrap();
        assert_eq!(error["error"]["code"], -32001, "{error}");
    }
    assert_eq!(
        person.shown(),
        1,
        "within five minutes of a refusal nobody is asked"
    );
}

/// A store that cannot say whether somebody has refused does not say that nobody has: nothing opens.
#[tokio::test]
async fn a_store_that_cannot_be_read_opens_nothing() {
    let lab = Lab::start(LabConfig::default()).await.unwrap();
    let person = Clicks::of(ScriptedHuman::allows());
    let points = FailPoints::parse("before-read-outcome=refuse", Journal::silent()).unwrap();
    let inner = MemoryStore::new(Arc::new(SystemClock));
    let unreadable = FailingStore::new(inner, Arc::new(points), Journal::silent());
    let unreadable = Arc::new(unreadable);
    let mut host = Host::on(unreadable, lab.resource_url(), person.clone(), |_| {}).await;
    host.say(crate::support::INITIALIZE).await;
    let error: serde_json::Value = serde_json::from_str(&host.hear().await).unwrap();
    assert_eq!(error["error"]["data"]["code"], "unavailable.store");
    assert_eq!(person.shown(), 0);
}

/// Where nobody can be asked, the error says what to run; nothing waits.
#[tokio::test]
async fn where_nobody_can_be_asked_the_error_says_what_to_run() {
    let lab = Lab::start(LabConfig::default()).await.unwrap();
    let mut host = Host::on(store(), lab.resource_url(), Arc::new(Refuse), |_| {}).await;
    host.say(crate::support::INITIALIZE).await;
    let error: serde_json::Value = serde_json::from_str(&host.hear().await).unwrap();
    assert_eq!(error["error"]["data"]["code"], "login.never");
    let run = error["error"]["data"]["run"].as_str().unwrap();
    assert_eq!(run, format!("pilotlight login {}", lab.resource_url()));
}

/// EXT-01: a grant that needs no person makes the first login by itself also where nobody can be asked.
#[tokio::test]
async fn a_grant_without_a_person_needs_nobody() {
    let config = LabConfig::default().with(|lab| {
        let issuer = &mut lab.authorization_server;
        issuer.grant_types = vec!["client_credentials".into()];
        issuer.token_endpoint_auth_methods = vec![ClientAuthentication::Basic];
        issuer.clients = vec![StaticClient {
            client_id: "service".into(),
            client_secret: Some("cs-canary".into()),
            redirect_uris: Vec::new(),
        }];
    });
    let lab = Lab::start(config).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "cs-canary").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let mut client = Client::brought("service".into());
    client.secret_ref = Some(SecretRef::file(secret.to_str().unwrap()).unwrap());
    let issuer = Issuer::parse(lab.issuer()).unwrap();
    let grant = |config: &mut pilotlight_relay::Config| {
        config.login.client = Some(client);
        config.login.unattended = Some(Unattended::ClientCredentials);
        config.login.issuer = Some(issuer);
    };
    let mut host = Host::with(lab.resource_url(), Arc::new(Refuse), grant).await;
    let welcome = host.shake_hands().await;
    assert!(welcome.contains("protocolVersion"), "{welcome}");
    host.say(CALL).await;
    assert!(host.hear().await.contains(r#""text":"hi""#));
    assert_eq!(lab.with_issuer(|issuer| issuer.asked().len()), 1);
}

/// I-13: a server that refuses every token, at an issuer without refresh tokens: one login is offered, then each request, a ping
/// too, hears a typed error; so does another process.
#[tokio::test]
async fn a_login_in_vain_is_not_offered_again() {
    let (lab, store) = logged_in(|lab| {
        lab.authorization_server.issue_refresh_token = IssueRefreshToken::Never;
    })
    .await;
    let person = Clicks::of(ScriptedHuman::allows());
    let often = |config: &mut pilotlight_relay::Config| {
        config.ping_interval = Some(std::time::Duration::from_millis(50));
    };
    let url = lab.resource_url();
    let mut host = Host::on(store.clone(), url, person.clone(), often).await;
    host.shake_hands().await;
    host.say(CALL).await;
    assert!(host.hear().await.contains(r#""text":"hi""#));
    lab.with_mcp(|server| server.reject_next(u64::MAX));
    let refused = |server: &pilotlight_testkit::McpServer| server.stats().posts;
    let before = lab.with_mcp(|server| refused(server));
    crate::support::eventually(|| lab.with_mcp(|server| refused(server)) > before + 2).await;
    assert_eq!(person.shown(), 0, "a ping asks nobody");
    for _ in 0..3 {
        host.say(CALL).await;
        let error: serde_json::Value = serde_json::from_str(&host.hear().await).unwrap();
        assert_eq!(error["error"]["data"]["code"], "denied.by_resource");
    }
    let mut other = Host::on(store, url, person.clone(), |_| {}).await;
    other.say(crate::support::INITIALIZE).await;
    let error: serde_json::Value = serde_json::from_str(&other.hear().await).unwrap();
    assert_eq!(error["error"]["data"]["code"], "denied.by_resource");
    assert_eq!(person.shown(), 1);
}

/// A host that shows URLs is asked to show this one, and told when it is done; no browser opens.
#[tokio::test]
async fn a_host_that_shows_urls_shows_the_login() {
    let (lab, store) = logged_in(|_| {}).await;
    let person = Clicks::of(ScriptedHuman::allows());
    let mut host = Host::on(store, lab.resource_url(), person.clone(), |_| {}).await;
    let able = crate::support::INITIALIZE.replace(
        r#""capabilities":{}"#,
        r#""capabilities":{"elicitation":{"url":{}}}"#,
    );
    host.say(&able).await;
    host.hear().await;
    host.say(crate::support::INITIALIZED).await;
    lab.with_issuer(|issuer| issuer.revoke_all());
    host.say(CALL).await;
    let question: serde_json::Value = serde_json::from_str(&host.hear().await).unwrap();
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"]["mode"], "url");
    host.say(&format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{{"action":"accept"}}}}"#,
        question["id"]
    ))
    .await;
    let url = question["params"]["url"].as_str().unwrap().to_owned();
    tokio::spawn(async move { ScriptedHuman::allows().visit(&url).await });
    let done: serde_json::Value = serde_json::from_str(&host.hear().await).unwrap();
    assert_eq!(done["method"], "notifications/elicitation/complete");
    assert!(host.hear().await.contains(r#""text":"hi""#));
    assert_eq!(person.shown(), 0);
}

/// Before the handshake has ended a host may not be asked: a login that `initialize` itself needs is shown by the browser.
#[tokio::test]
async fn a_host_is_not_asked_before_the_handshake_has_ended() {
    let lab = Lab::start(LabConfig::default()).await.unwrap();
    let person = Clicks::of(ScriptedHuman::allows());
    let mut host = Host::on(store(), lab.resource_url(), person.clone(), |_| {}).await;
    let able = crate::support::INITIALIZE.replace(
        r#""capabilities":{}"#,
        r#""capabilities":{"elicitation":{"url":{}}}"#,
    );
    host.say(&able).await;
    let welcome = host.hear().await;
    assert!(welcome.contains("protocolVersion"), "{welcome}");
    assert_eq!(person.shown(), 1);
}

/// AUTH-54 to AUTH-58: a call that needs more than the login has waits for one consent, and is answered; the calls beside it go on.
#[tokio::test]
async fn a_call_that_needs_more_waits_for_one_consent() {
    let (lab, store) = logged_in(|_| {}).await;
    let person = Clicks::of(ScriptedHuman::allows());
    let mut host = Host::on(store, lab.resource_url(), person.clone(), |_| {}).await;
    host.shake_hands().await;
    let admin = r#"{"jsonrpc":"2.0","id":"admin-1","method":"tools/call","params":{"name":"admin","arguments":{}}}"#;
    host.say(admin).await;
    host.say(&admin.replace("admin-1", "admin-2")).await;
    host.say(CALL).await;
    let mut heard = vec![host.hear().await, host.hear().await, host.hear().await];
    heard.sort();
    assert!(
        heard.iter().all(|answer| answer.contains(r#""result""#)),
        "{heard:?}"
    );
    assert_eq!(
        heard
            .iter()
            .filter(|answer| answer.contains("admin ok"))
            .count(),
        2,
        "{heard:?}"
    );
    assert_eq!(person.shown(), 1);
}

/// T-33: nothing that the host hears, in errors or else, holds a secret; an issuer that is away is a typed error.
#[tokio::test]
async fn an_issuer_that_is_away_is_a_typed_error() {
    let (lab, store) = logged_in(|_| {}).await;
    let person = Clicks::of(ScriptedHuman::allows());
    let mut host = Host::on(store, lab.resource_url(), person.clone(), |_| {}).await;
    host.shake_hands().await;
    lab.with_issuer(|issuer| {
        issuer.revoke_access();
        let away = pilotlight_testkit::Fault::Status {
            status: 400,
            retry_after: None,
            body: Some(issuer.issued_secrets().join(" ")),
        };
        issuer.set_standing_fault(pilotlight_testkit::faults::Endpoint::Token, Some(away));
    });
    host.say(CALL).await;
    let answer = host.hear().await;
    assert!(answer.contains(r#""code":-32001"#), "{answer}");
    lab.with_issuer(|issuer| {
        for secret in issuer.issued_secrets() {
            assert!(
                !answer.contains(secret.as_str()),
                "a secret reached the host"
            );
        }
    });
    assert_eq!(
        person.shown(),
        0,
        "an answer that nobody understands opens no browser"
    );
}
