//! Sessions that have no login yet, and logins that grow: a first request without a token, a 403 that wants more scopes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use pilotlight::{
    Error, LoginRequest, Session, Sessions,
    clock::SystemClock,
    core::{
        credential::{Account, BindingKey},
        error::LoginCause,
        flow::Prompt,
        resource::Resource,
    },
    human::Human,
    store::{MemoryStore, Store},
};
use pilotlight_testkit::{
    Lab, LabConfig, ScriptedHuman,
    authorization_server::{Approval, IssueRefreshToken},
};

use crate::sessions::Clicks;

mod herd;
#[cfg(feature = "sqlite")]
mod stall;

/// A person who counts how often they were asked, and for what.
#[derive(Debug)]
struct Counts {
    clicks: Clicks,
    asked: AtomicUsize,
    scopes: std::sync::Mutex<Vec<String>>,
    urls: std::sync::Mutex<Vec<url::Url>>,
}

impl Counts {
    fn new(person: ScriptedHuman) -> Arc<Self> {
        Arc::new(Self {
            clicks: Clicks(person),
            asked: AtomicUsize::new(0),
            scopes: std::sync::Mutex::default(),
            urls: std::sync::Mutex::default(),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Human for Counts {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.scopes.lock().unwrap().push(prompt.scopes.to_string());
        self.urls.lock().unwrap().push(prompt.url.clone());
        self.clicks.approve(prompt).await
    }
}

async fn lab() -> Lab {
    let config = LabConfig::default().with(|lab| {
        lab.authorization_server.access_ttl = Duration::from_secs(3600);
        // A page is shown each time, so that a person can refuse.
        lab.authorization_server.approval = Approval::Page;
        lab.mcp_server.challenge_scope = Some("mcp:tools".into());
    });
    Lab::start(config).await.unwrap()
}

fn url(lab: &Lab) -> Resource {
    Resource::parse(lab.resource_url()).unwrap()
}

fn process(store: &Arc<MemoryStore>, human: &Arc<Counts>) -> Sessions {
    Sessions::builder(store.clone())
        .human(human.clone())
        .program("test")
        .open()
        .unwrap()
}

fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

fn request(lab: &Lab) -> LoginRequest {
    LoginRequest::new(url(lab), Account::default())
}

/// Calls a tool; the status.
async fn call(session: &Session, lab: &Lab, tool: &str) -> Result<StatusCode, Error> {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    );
    let request = Request::post(lab.resource_url())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool)
        .body(Bytes::from(body))
        .unwrap();
    session.send(request).await.map(|answer| answer.status())
}

/// AUTH-10: without a login the first request goes out bare, and its 401 is all that the login which follows needs to know:
/// nothing else is asked of the server but its metadata. The same session then goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_without_a_login() {
    let (lab, store, human) = (lab().await, store(), Counts::new(ScriptedHuman::allows()));
    let sessions = process(&store, &human);
    let account = Account::default();
    let strict = sessions.get(&url(&lab), &account).await.unwrap_err();
    assert_eq!(strict.code(), "login.never");
    let session = sessions.open(&url(&lab), &account).await.unwrap();
    session.prepare().await.unwrap();
    assert_eq!(session.header().await.unwrap_err().code(), "login.never");
    let refused = call(&session, &lab, "whoami").await.unwrap_err();
    assert_eq!(refused.code(), "login.never");
    let before = lab.with_mcp(|server| server.stats().clone());
    assert_eq!((before.posts, before.unauthorized), (1, 1));

    sessions.login(request(&lab)).await.unwrap();
    let after = lab.with_mcp(|server| server.stats().clone());
    assert_eq!(after.posts, 1, "the challenge was known");
    assert_eq!(
        human.scopes.lock().unwrap()[..],
        ["mcp:tools offline_access"],
        "AUTH-50"
    );
    assert_eq!(
        call(&session, &lab, "whoami").await.unwrap(),
        StatusCode::OK
    );
    assert_eq!(human.asked(), 1);

    sessions
        .logout(&BindingKey::new(url(&lab), account), false)
        .await
        .unwrap();
    let refused = call(&session, &lab, "whoami").await.unwrap_err();
    assert_eq!(
        refused.code(),
        "login.never",
        "logged out, it goes bare again"
    );
}

/// AUTH-42: a login is no answer to the 401 that its own token has just met, however young it is: another one is made.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_refused_is_not_adopted() {
    let (lab, store, human) = (lab().await, store(), Counts::new(ScriptedHuman::allows()));
    lab.with_issuer(|issuer| issuer.config_mut().issue_refresh_token = IssueRefreshToken::Never);
    let sessions = process(&store, &human);
    sessions.login(request(&lab)).await.unwrap();
    let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
    let again = sessions.login(request(&lab)).await.unwrap();
    assert!(again.adopted, "it works: both were meant as one");

    lab.with_issuer(|issuer| issuer.revoke_access());
    let refused = call(&session, &lab, "whoami").await.unwrap_err();
    assert_eq!(refused.code(), "login.no_refresh_token");
    assert!(!sessions.login(request(&lab)).await.unwrap().adopted);
    assert_eq!(
        call(&session, &lab, "whoami").await.unwrap(),
        StatusCode::OK
    );
    assert_eq!(human.asked(), 2);
}

/// AUTH-54, AUTH-56, AUTH-57: a 403 leads to one consent for the union of what was requested and what is wanted, whoever
/// meets it; each request is repeated and answered. What was granted is remembered by every process.
#[tokio::test(flavor = "multi_thread")]
async fn a_403_is_one_consent_for_all() {
    let (lab, store, human) = (lab().await, store(), Counts::new(ScriptedHuman::allows()));
    let (one, two) = (process(&store, &human), process(&store, &human));
    one.login(request(&lab)).await.unwrap();
    let account = Account::default();
    let first = one.get(&url(&lab), &account).await.unwrap();
    let second = two.get(&url(&lab), &account).await.unwrap();
    let calls = (0..12).map(|i| call(if i % 2 == 0 { &first } else { &second }, &lab, "admin"));
    for status in join_all(calls).await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(
        human.scopes.lock().unwrap()[..],
        [
            "mcp:tools offline_access",
            "mcp:tools offline_access mcp:admin"
        ]
    );
    let late = process(&store, &human);
    let late = late.get(&url(&lab), &account).await.unwrap();
    assert_eq!(call(&late, &lab, "admin").await.unwrap(), StatusCode::OK);
    assert_eq!(human.asked(), 2);
}

/// AUTH-58, T-31: a server that refuses whatever is granted costs three authorizations, the login among them, however often
/// it is asked; then the refusal is the server's.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_for_ever_costs_three_authorizations() {
    let (lab, store, human) = (lab().await, store(), Counts::new(ScriptedHuman::allows()));
    lab.with_mcp(|server| {
        server.config_mut().challenge_scope = Some("mcp:admin".into());
        server.config_mut().forbid_all = true;
    });
    let sessions = process(&store, &human);
    sessions.login(request(&lab)).await.unwrap();
    let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
    for _ in 0..30 {
        let refused = call(&session, &lab, "admin").await.unwrap_err();
        assert_eq!(refused.code(), "denied.by_resource");
    }
    assert_eq!(human.asked(), 3);
    let others = process(&store, &human);
    let session = others.get(&url(&lab), &Account::default()).await.unwrap();
    let refused = call(&session, &lab, "admin").await.unwrap_err();
    assert_eq!(
        refused.code(),
        "denied.by_resource",
        "another process knows"
    );
    assert_eq!(human.asked(), 3);
}

/// AUTH-56: without a person the 403 says what to ask for; a person who refuses is not asked again at once, and the login
/// that there was goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_up_that_nobody_grants_keeps_the_login() {
    let (lab, store, human) = (lab().await, store(), Counts::new(ScriptedHuman::allows()));
    process(&store, &human).login(request(&lab)).await.unwrap();
    let alone = Sessions::builder(store.clone())
        .program("test")
        .open()
        .unwrap();
    let session = alone.get(&url(&lab), &Account::default()).await.unwrap();
    let error = call(&session, &lab, "admin").await.unwrap_err();
    let Error::LoginRequired {
        cause: LoginCause::Scope { scopes },
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(scopes, ["mcp:tools", "offline_access", "mcp:admin"]);

    let refuses = Counts::new(ScriptedHuman::denies());
    let sessions = process(&store, &refuses);
    let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
    for _ in 0..5 {
        let error = call(&session, &lab, "admin").await.unwrap_err();
        assert_eq!(error.code(), "denied.by_human");
        assert_eq!(
            call(&session, &lab, "whoami").await.unwrap(),
            StatusCode::OK
        );
    }
    assert_eq!(refuses.asked(), 1);
    let key = store.bindings().await.unwrap()[0]
        .credential
        .clone()
        .unwrap();
    let kept = store.read(&key).await.unwrap().unwrap().credential.unwrap();
    assert_eq!(
        kept.scopes_requested.to_string(),
        "mcp:tools offline_access"
    );
}
