//! The front door against the test issuer on real sockets: one login, many callers, several processes.
//!
//! Two `Sessions` over one store stand for two processes: they share nothing but the store.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode};
use pilotlight::{
    Error, LoginRequest, Session, Sessions,
    clock::SystemClock,
    core::{
        credential::{Account, BindingKey},
        error::LoginCause,
        event::{Happened, Revocation},
        flow::Prompt,
        resource::Resource,
        state::State,
    },
    human::Human,
    store::{MemoryStore, Store},
};
use pilotlight_testkit::{AuthorizationServerConfig, Fault, Lab, LabConfig, ScriptedHuman};

/// A person who clicks in the background, as a browser does.
#[derive(Debug)]
pub(crate) struct Clicks(pub(crate) ScriptedHuman);

#[async_trait]
impl Human for Clicks {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        let (human, url) = (self.0, prompt.url.to_string());
        tokio::spawn(async move { human.visit(&url).await });
        std::future::pending().await
    }
}

pub(crate) async fn lab(change: impl FnOnce(&mut AuthorizationServerConfig)) -> Lab {
    let config = LabConfig::default().with(|lab| {
        lab.authorization_server.access_ttl = Duration::from_secs(3600);
        change(&mut lab.authorization_server);
    });
    Lab::start(config).await.unwrap()
}

pub(crate) fn process(store: &Arc<MemoryStore>) -> Sessions {
    let human = Arc::new(Clicks(ScriptedHuman::allows()));
    Sessions::builder(store.clone())
        .human(human)
        .program("test")
        .open()
        .unwrap()
}

fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

fn url(lab: &Lab) -> Resource {
    Resource::parse(lab.resource_url()).unwrap()
}

async fn log_in(sessions: &Sessions, lab: &Lab) -> Session {
    let request = LoginRequest::new(url(lab), Account::default());
    sessions.login(request).await.unwrap();
    sessions.get(&url(lab), &Account::default()).await.unwrap()
}

/// One authorized request; its status.
async fn ask(session: &Session, lab: &Lab) -> Result<StatusCode, Error> {
    let body = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let request = Request::post(lab.resource_url())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(body)
        .unwrap();
    session.send(request).await.map(|answer| answer.status())
}

/// Whatever the server thinks of the request, it took the token.
fn taken(asked: &Result<StatusCode, Error>) -> bool {
    asked
        .as_ref()
        .is_ok_and(|status| *status != StatusCode::UNAUTHORIZED)
}

/// AUTH-10, AUTH-60, AUTH-70: discovery, registration, consent, exchange; then a token that the server takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_brings_a_token_that_the_server_takes() {
    let lab = lab(|_| {}).await;
    let store = store();
    let sessions = process(&store);
    let session = log_in(&sessions, &lab).await;
    assert!(taken(&ask(&session, &lab).await));
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(
        (stats.code_ok, stats.registrations, stats.refresh_ok),
        (1, 1, 0)
    );
    let status = session.status().await.unwrap();
    assert_eq!(status.state, State::Ok);
    assert!(
        status.refresh_token
            && status.expires_at.is_some()
            && status.next_refresh_at < status.expires_at
    );
}

/// F-01, F-02, I-10: however many callers and processes meet an ended token, it is refreshed once.
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_token_is_refreshed_once_for_everybody() {
    let lab = lab(|issuer| issuer.access_ttl = Duration::from_secs(2)).await;
    let store = store();
    let first = log_in(&process(&store), &lab).await;
    let others = [process(&store), process(&store), process(&store)];
    let mut sessions = vec![first];
    for other in &others {
        sessions.push(other.get(&url(&lab), &Account::default()).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let calls = (0..40).map(|i| {
        let session = sessions[i % sessions.len()].clone();
        async move { session.header().await }
    });
    let headers = futures_util::future::join_all(calls).await;
    let headers: Vec<_> = headers.into_iter().map(|header| header.unwrap()).collect();
    assert!(
        headers.windows(2).all(|pair| pair[0] == pair[1]),
        "everybody has the same token"
    );
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(
        (
            stats.refresh_ok,
            stats.spent_presented,
            stats.reuse_revocations
        ),
        (1, 0, 0)
    );
}

/// I-14, F-25: a token endpoint that stalls delays nobody whose token still works.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_refresh_that_is_merely_due() {
    let lab = lab(|issuer| issuer.access_ttl = Duration::from_secs(8)).await;
    let store = store();
    let sessions = process(&store);
    let session = log_in(&sessions, &lab).await;
    lab.with_issuer(|issuer| issuer.push_fault(Fault::Delay { ms: 1500 }));
    tokio::time::sleep(Duration::from_millis(6200)).await;
    let before = tokio::time::Instant::now();
    for _ in 0..50 {
        session.header().await.unwrap();
    }
    assert!(
        before.elapsed() < Duration::from_millis(500),
        "took {:?}",
        before.elapsed()
    );
    assert_eq!(
        lab.with_issuer(|issuer| issuer.stats().refresh_ok),
        0,
        "the refresh is still under way"
    );
    sessions.drain(Duration::from_secs(10)).await;
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().refresh_ok), 1);
}

/// F-02, I-13: a token that the issuer has invalidated costs one refresh and no request.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_meet_a_401_together_are_repeated_after_one_refresh() {
    let lab = lab(|_| {}).await;
    let store = store();
    let session = log_in(&process(&store), &lab).await;
    assert!(taken(&ask(&session, &lab).await));
    lab.with_issuer(|issuer| issuer.revoke_access());
    let calls = (0..20).map(|_| ask(&session, &lab));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(taken), "{answers:?}");
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().refresh_ok), 1);
}

/// T-45: a server that refuses every token gets at most three refreshes out of us, and each caller an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_always_says_401_makes_us_refresh_few_times() {
    let lab = lab(|_| {}).await;
    let store = store();
    let session = log_in(&process(&store), &lab).await;
    lab.with_mcp(|server| server.reject_next(1_000_000));
    for _ in 0..100 {
        assert_eq!(ask(&session, &lab).await, Err(Error::DeniedByResource));
    }
    let refreshes = lab.with_issuer(|issuer| issuer.stats().refresh_ok);
    assert!((1..=3).contains(&refreshes), "{refreshes} refreshes");
}

/// F-03, I-1, I-3: an answer that is lost is asked for once more, inside the grace, and nobody notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_once_more() {
    let lab = lab(|issuer| {
        issuer.access_ttl = Duration::from_secs(2);
        issuer.reuse_grace = Some(Duration::from_secs(30));
    })
    .await;
    let store = store();
    let sessions = process(&store);
    let session = log_in(&sessions, &lab).await;
    lab.with_issuer(|issuer| issuer.push_fault(Fault::Lose));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    session.header().await.unwrap();
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!((stats.spent_presented, stats.reuse_revocations), (1, 0));
    let binding = session.status().await.unwrap().binding;
    let history = sessions.history(&binding, 100).await.unwrap();
    let labels: Vec<_> = history
        .iter()
        .filter_map(|event| match &event.happened {
            Happened::Refreshed { label, calls, .. } => Some((*label, *calls)),
            _ => None,
        })
        .collect();
    assert_eq!(
        labels,
        [(Some(pilotlight::core::attempt::Label::RetryAmbiguous), 2)]
    );
}

/// F-12, F-13: while the issuer is down an ended token is still tried, and the login is there when it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_no_login() {
    let lab = lab(|issuer| issuer.access_ttl = Duration::from_secs(2)).await;
    let store = store();
    let session = log_in(&process(&store), &lab).await;
    let down = Fault::Status {
        status: 503,
        retry_after: Some(1),
        body: None,
    };
    lab.with_issuer(|issuer| issuer.push_fault(down));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let error = ask(&session, &lab).await.unwrap_err();
    assert_eq!(
        error.action(),
        pilotlight::core::error::Action::RetryLater,
        "{error:?}"
    );
    assert!(matches!(
        session.status().await.unwrap().state,
        State::Retrying { .. }
    ));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(taken(&ask(&session, &lab).await));
}

/// F-15, F-32: a revoked grant is one verdict for every process; a login in one heals all without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_in_one_process_heals_the_others() {
    let lab = lab(|_| {}).await;
    let store = store();
    let (one, two) = (process(&store), process(&store));
    let first = log_in(&one, &lab).await;
    let second = two.get(&url(&lab), &Account::default()).await.unwrap();
    assert!(taken(&ask(&second, &lab).await));
    lab.with_issuer(|issuer| issuer.revoke_all());
    for session in [&first, &second] {
        let error = ask(session, &lab).await.unwrap_err();
        assert_eq!(error.code(), "login.refresh_rejected");
    }
    assert_eq!(
        lab.with_issuer(|issuer| issuer.stats().refresh_err),
        1,
        "one verdict for both"
    );
    log_in(&one, &lab).await;
    for session in [&first, &second] {
        let asked = ask(session, &lab).await;
        assert!(taken(&asked), "{asked:?}");
    }
}

/// AUTH-94: without a refresh token the login says so, and its end names the cause.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_a_refresh_token_ends_with_its_reason() {
    let lab = lab(|issuer| {
        issuer.access_ttl = Duration::from_secs(2);
        issuer.issue_refresh_token =
            pilotlight_testkit::authorization_server::IssueRefreshToken::Never;
    })
    .await;
    let store = store();
    let session = log_in(&process(&store), &lab).await;
    assert!(matches!(
        session.status().await.unwrap().state,
        State::Ending { at: Some(_) }
    ));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(
        session.header().await,
        Err(Error::login(LoginCause::NoRefreshToken))
    );
}

/// F-31, RFC 7009: a logout revokes at the issuer and ends every session; nothing is served afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_revokes_and_ends_every_session() {
    let lab = lab(|_| {}).await;
    let store = store();
    let (one, two) = (process(&store), process(&store));
    let first = log_in(&one, &lab).await;
    let second = two.get(&url(&lab), &Account::default()).await.unwrap();
    let key = BindingKey::new(url(&lab), Account::default());
    assert_eq!(one.logout(&key, false).await, Ok(Revocation::Revoked));
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().revocations), 1);
    assert_eq!(first.header().await, Err(Error::login(LoginCause::Never)));
    assert_eq!(
        ask(&second, &lab).await,
        Err(Error::login(LoginCause::Never))
    );
    assert!(store.revocations().await.unwrap().is_empty());
}

/// T-24: the token goes nowhere but below the server's URL.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_another_place_gets_no_token() {
    let lab = lab(|_| {}).await;
    let store = store();
    let session = log_in(&process(&store), &lab).await;
    for place in [
        "https://evil.example/mcp",
        "http://127.0.0.1:1/mcp",
        lab.issuer(),
    ] {
        let (mut parts, ()) = Request::post(place).body(()).unwrap().into_parts();
        assert_eq!(
            session.authorize(&mut parts).await.unwrap_err().code(),
            "config.url",
            "{place}"
        );
        assert!(parts.headers.is_empty());
    }
}

/// F-05: a caller that goes away does not take the refresh with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_caller_does_not_cancel_the_refresh() {
    let lab = lab(|issuer| issuer.access_ttl = Duration::from_secs(2)).await;
    let store = store();
    let sessions = process(&store);
    let session = log_in(&sessions, &lab).await;
    lab.with_issuer(|issuer| issuer.push_fault(Fault::DelayAnswer { ms: 300 }));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let given_up = tokio::time::timeout(Duration::from_millis(100), session.header()).await;
    assert!(given_up.is_err());
    sessions.drain(Duration::from_secs(5)).await;
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!((stats.refresh_ok, stats.spent_presented), (1, 0));
    assert_eq!(session.status().await.unwrap().state, State::Ok);
}

/// Eight logins at once are one login: one registration, one code, one page shown.
#[tokio::test(flavor = "multi_thread")]
async fn logins_at_once_are_one_login() {
    let lab = lab(|_| {}).await;
    let store = store();
    let processes: Vec<_> = (0..8).map(|_| process(&store)).collect();
    let logins = processes
        .iter()
        .map(|p| p.login(LoginRequest::new(url(&lab), Account::default())));
    let done = futures_util::future::join_all(logins).await;
    let adopted = done
        .iter()
        .filter(|login| login.as_ref().is_ok_and(|login| login.adopted))
        .count();
    assert_eq!(adopted, 7, "{done:?}");
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!((stats.code_ok, stats.registrations), (1, 1));
}

/// A refusal in the browser is `denied.by_human`, for the one who asked and for those who waited.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_refused_for_everybody_who_waited() {
    let lab =
        lab(|issuer| issuer.approval = pilotlight_testkit::authorization_server::Approval::Denied)
            .await;
    let store = store();
    let processes = [process(&store), process(&store)];
    let logins = processes
        .iter()
        .map(|p| p.login(LoginRequest::new(url(&lab), Account::default())));
    for login in futures_util::future::join_all(logins).await {
        assert_eq!(login.unwrap_err(), Error::DeniedByHuman);
    }
    assert_eq!(
        lab.with_issuer(|issuer| issuer.stats().authorize),
        1,
        "one page was shown"
    );
}
