//! Keys that a person has brought: in the list of logins, on requests as they are, and nowhere else.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use pilotlight::{
    Error, Flag, LoginRequest, Session, Sessions,
    clock::SystemClock,
    core::{
        credential::{Account, BindingKey},
        error::LoginCause,
        event::{Happened, Revocation},
        resource::Resource,
        secret::AccessToken,
        state::State,
    },
    store::{MemoryStore, Store},
};
use pilotlight_testkit::Lab;

use crate::sessions::{lab, process};

fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

fn url(lab: &Lab) -> Resource {
    Resource::parse(lab.resource_url()).unwrap()
}

fn own() -> Account {
    Account::default()
}

/// Something that the server takes: how somebody came by it is no business of the store it goes into.
async fn key(lab: &Lab) -> AccessToken {
    let sessions = process(&store());
    sessions
        .login(LoginRequest::new(url(lab), own()))
        .await
        .unwrap();
    let session = sessions.get(&url(lab), &own()).await.unwrap();
    session.token(None).await.unwrap().access_token
}

async fn ask(session: &Session, lab: &Lab) -> Result<StatusCode, Error> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{
        "io.modelcontextprotocol/protocolVersion":"2026-07-28",
        "io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let request = Request::post(lab.resource_url())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "server/discover")
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap();
    session.send(request).await.map(|answer| answer.status())
}

async fn put(sessions: &Sessions, lab: &Lab, token: AccessToken) -> pilotlight::Status {
    let (url, account) = (url(lab), own());
    let put = sessions.put_static(&url, &account, Some("mine"), token);
    put.await.unwrap()
}

/// DESIGN.md section 6: a key goes on requests like any token, in every process of the store; it is listed, says what it is, and is
/// in order although nothing would renew it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_listed_and_used_as_it_is() {
    let lab = lab(|_| {}).await;
    let (store, token) = (store(), key(&lab).await);
    let calls = lab.with_issuer(|issuer| issuer.stats().token);
    let status = put(&process(&store), &lab, token).await;
    assert_eq!(
        (status.state, status.flags),
        (State::Ok, vec![Flag::Static])
    );
    let other = process(&store);
    let all = other.statuses().await.unwrap();
    assert_eq!((all.len(), all[0].binding.name.as_str()), (1, "mine"));
    assert_eq!(
        (all[0].refresh_token, all[0].next_refresh_at),
        (false, None)
    );
    let session = other.get(&url(&lab), &own()).await.unwrap();
    assert_eq!(ask(&session, &lab).await, Ok(StatusCode::OK));
    // Whoever asks for a refresh gets none, and no error: there is nothing to refresh.
    assert!(session.refresh(true).await.is_ok());
    let after = lab.with_issuer(|issuer| issuer.stats().token);
    assert_eq!(after, calls, "nobody asked the issuer for anything");
}

/// T-15, F-32: a key that the server refuses is `login.static_token_refused`, at each request anew, and is sent nowhere else: no
/// refresh, no discovery. It is not forgotten: a server may be wrong for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_is_told_and_kept() {
    let lab = lab(|_| {}).await;
    let (store, token) = (store(), key(&lab).await);
    let sessions = process(&store);
    put(&sessions, &lab, token).await;
    let session = sessions.get(&url(&lab), &own()).await.unwrap();
    let before = lab.with_issuer(|issuer| issuer.stats().clone());
    lab.with_mcp(|server| server.reject_next(2));
    for _ in 0..2 {
        let refused = Error::login(LoginCause::StaticTokenRefused);
        assert_eq!(ask(&session, &lab).await, Err(refused));
    }
    assert_eq!(ask(&session, &lab).await, Ok(StatusCode::OK));
    let after = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(
        (after.token, after.discovery),
        (before.token, before.discovery)
    );
}

/// AUTH-56: a key is no login that could be given more: a 403 for more scopes asks nobody.
#[tokio::test(flavor = "multi_thread")]
async fn no_person_is_asked_for_more_than_a_key_has() {
    let lab = lab(|_| {}).await;
    let (store, token) = (store(), key(&lab).await);
    let sessions = process(&store);
    put(&sessions, &lab, token).await;
    lab.with_mcp(|server| server.config_mut().forbid_all = true);
    let session = sessions.get(&url(&lab), &own()).await.unwrap();
    let before = lab.with_issuer(|issuer| issuer.stats().authorize);
    let refused = Error::login(LoginCause::StaticTokenRefused);
    assert_eq!(ask(&session, &lab).await, Err(refused));
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().authorize), before);
}

/// F-31: a logout forgets a key and tells nobody: there is no issuer to tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_only_forgets_a_key() {
    let lab = lab(|_| {}).await;
    let (store, token) = (store(), key(&lab).await);
    let sessions = process(&store);
    put(&sessions, &lab, token).await;
    let key = BindingKey::new(url(&lab), own());
    let before = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(
        sessions.logout(&key, false).await.unwrap(),
        Revocation::Local
    );
    let after = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(after.revocations, before.revocations);
    let session = sessions.get(&url(&lab), &own()).await.unwrap();
    assert_eq!(
        ask(&session, &lab).await,
        Err(Error::login(LoginCause::Never))
    );
    assert!(store.revocations().await.unwrap().is_empty());
}

/// AUTH-41, T-16, T-20: a key is nobody's login. The first login after it is a first login, at whichever issuer the server names; a
/// key after a login takes its place, and a session that runs goes on with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_takes_a_keys_place_and_a_key_a_logins() {
    let lab = lab(|_| {}).await;
    let (store, token) = (store(), key(&lab).await);
    let sessions = process(&store);
    put(&sessions, &lab, token.clone()).await;
    let session = sessions.get(&url(&lab), &own()).await.unwrap();
    let done = sessions
        .login(LoginRequest::new(url(&lab), own()))
        .await
        .unwrap();
    assert!(!done.adopted && done.status.refresh_token);
    assert_eq!(done.status.flags, []);
    assert_eq!(done.status.binding.name, "mine");
    assert_ne!(session.token(None).await.unwrap().access_token, token);

    let status = put(&sessions, &lab, token.clone()).await;
    assert_eq!(status.flags, [Flag::Static]);
    assert_eq!(session.token(None).await.unwrap().access_token, token);
    assert_eq!(sessions.statuses().await.unwrap().len(), 1);
}

/// F-32: that a server refuses a key is stored: every process and `status` say so, from the first 401 on. The key goes on
/// requests all the same, and the first that is taken, in whichever process, ends it; each is in the history.
#[tokio::test(flavor = "multi_thread")]
async fn that_a_key_is_refused_is_known_until_it_is_taken() {
    let lab = lab(|_| {}).await;
    let (store, token) = (store(), key(&lab).await);
    let (one, other) = (process(&store), process(&store));
    put(&one, &lab, token).await;
    let session = one.get(&url(&lab), &own()).await.unwrap();
    let theirs = other.get(&url(&lab), &own()).await.unwrap();
    assert_eq!(ask(&session, &lab).await, Ok(StatusCode::OK));
    one.drain(Duration::from_secs(10)).await;
    let state = async || other.statuses().await.unwrap().remove(0).state;
    let cause = LoginCause::StaticTokenRefused;
    for _ in 0..2 {
        assert_eq!(state().await, State::Ok);
        lab.with_mcp(|server| server.reject_next(2));
        for _ in 0..2 {
            let refused = Error::login(cause.clone());
            assert_eq!(ask(&session, &lab).await, Err(refused));
        }
        let cause = cause.clone();
        assert_eq!(state().await, State::LoginRequired { cause });
        // It has looked at the store within a second; then the next request that is taken is noted.
        let healed = async {
            while state().await != State::Ok {
                assert_eq!(ask(&theirs, &lab).await, Ok(StatusCode::OK));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), healed)
            .await
            .unwrap();
    }
    assert_eq!(state().await, State::Ok);
    let binding = other.statuses().await.unwrap().remove(0).binding;
    let history = other.history(&binding, 100).await.unwrap();
    let count = |kind: fn(&Happened) -> bool| history.iter().filter(|e| kind(&e.happened)).count();
    let lost = count(|happened| matches!(happened, Happened::Lost { .. }));
    assert_eq!(lost, 2, "once each time, however many requests it meets");
    assert!(count(|happened| matches!(happened, Happened::Healed)) >= 2);
}
