//! Many requests that want more scopes, and one person.

use futures_util::future::join_all;
use http::{HeaderMap, Request, StatusCode, header::WWW_AUTHENTICATE};
use pilotlight::{
    Error, LoginRequest, Next, Session,
    core::{
        credential::{Account, Credential},
        error::LoginCause,
        flow::{Callback, Redirect},
        registration::Client,
        scope::Scopes,
    },
    store::{MemoryStore, Store},
};
use pilotlight_testkit::{
    Lab, LabConfig, ScriptedHuman,
    authorization_server::{Approval, SendIss, StaticClient},
};

use super::{Counts, Duration, lab, process, request, store, url};

/// A lab whose issuer knows these scopes too.
pub(super) async fn lab_with(scopes: impl IntoIterator<Item = String>) -> Lab {
    let config = LabConfig::default().with(|lab| {
        lab.authorization_server.scopes_supported.extend(scopes);
        lab.authorization_server.approval = Approval::Page;
        lab.mcp_server.challenge_scope = Some("mcp:tools".into());
    });
    Lab::start(config).await.unwrap()
}

/// A request that the server refuses, because it wants this scope too.
pub(super) async fn wants(session: &Session, lab: &Lab, scope: &str) -> Next {
    let request = Request::post(lab.resource_url()).body(()).unwrap();
    let (mut parts, ()) = request.into_parts();
    let sent = session.authorize(&mut parts).await.unwrap();
    let challenge = format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
    let mut headers = HeaderMap::new();
    headers.insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    session
        .answered(&sent, StatusCode::FORBIDDEN, &headers)
        .await
}

pub(super) fn code(next: &Next) -> &'static str {
    match next {
        Next::Done => "done",
        Next::Retry => "retry",
        Next::Stop(error) => error.code(),
    }
}

pub(super) async fn stored(store: &MemoryStore) -> Credential {
    let key = store.bindings().await.unwrap()[0]
        .credential
        .clone()
        .unwrap();
    store.read(&key).await.unwrap().unwrap().credential.unwrap()
}

/// T-31, AUTH-58: twenty requests that want twenty scopes at once are three prompts. The others are told what to run, and
/// that is all that was asked for, so that nothing which was granted is lost by it (AUTH-57).
#[tokio::test(flavor = "multi_thread")]
async fn twenty_scopes_at_once_are_three_prompts() {
    let lab = lab_with((0..20).map(|i| format!("s{i}"))).await;
    let (store, human) = (store(), Counts::new(ScriptedHuman::allows()));
    let sessions = [process(&store, &human), process(&store, &human)];
    sessions[0].login(request(&lab)).await.unwrap();
    let account = Account::default();
    let sessions = [
        sessions[0].get(&url(&lab), &account).await.unwrap(),
        sessions[1].get(&url(&lab), &account).await.unwrap(),
    ];
    let wanted: Vec<_> = (0..20).map(|i| format!("s{i}")).collect();
    let asking = (0..20).map(|i| wants(&sessions[i % 2], &lab, &wanted[i]));
    let answers = join_all(asking).await;
    assert_eq!(human.asked(), 1 + 3);
    let granted = stored(&store).await.scopes_requested;
    for (answer, wanted) in answers.iter().zip(&wanted) {
        match answer {
            Next::Retry => assert!(granted.contains(wanted), "{wanted} was lost"),
            Next::Stop(Error::LoginRequired {
                cause: LoginCause::Scope { scopes },
            }) => {
                let told = Scopes::from_list(scopes);
                assert!(told.contains(wanted) && !granted.contains(wanted));
                assert!(told.covers(&granted), "{told} loses some of {granted}");
            }
            other => panic!("{wanted}: {other:?}"),
        }
    }
    let retried = answers.iter().filter(|answer| **answer == Next::Retry);
    assert_eq!(retried.count(), 3);
}

/// AUTH-57: of two requests that want different scopes neither takes from the other what it was granted.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_request_was_granted_is_kept() {
    let lab = lab_with(["a".into(), "b".into()]).await;
    let (store, human) = (store(), Counts::new(ScriptedHuman::allows()));
    let sessions = process(&store, &human);
    sessions.login(request(&lab)).await.unwrap();
    let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
    let (one, two) = tokio::join!(wants(&session, &lab, "a"), wants(&session, &lab, "b"));
    assert_eq!((one, two), (Next::Retry, Next::Retry));
    let granted = stored(&store).await.scopes_granted;
    let all = Scopes::parse("mcp:tools offline_access a b");
    assert!(granted.covers(&all), "{granted}");
}

/// T-31: a step-up that ends in an error of the issuer ends so for every request that waited for it, in every process: nobody
/// is asked once for each of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_up_that_fails_is_one_answer_for_all() {
    let lab = lab_with(["a".into()]).await;
    let (store, human) = (store(), Counts::new(ScriptedHuman::allows()));
    let processes = [process(&store, &human), process(&store, &human)];
    processes[0].login(request(&lab)).await.unwrap();
    let account = Account::default();
    let sessions = [
        processes[0].get(&url(&lab), &account).await.unwrap(),
        processes[1].get(&url(&lab), &account).await.unwrap(),
    ];
    lab.with_issuer(|issuer| {
        issuer.config_mut().send_iss = SendIss::Other("https://other.example".into());
    });
    let asking = (0..12).map(|i| wants(&sessions[i % 2], &lab, "a"));
    for answer in join_all(asking).await {
        assert_eq!(code(&answer), "peer.issuer_mismatch");
    }
    assert_eq!(human.asked(), 1 + 1);
    // Who comes later asks again.
    lab.with_issuer(|issuer| issuer.config_mut().send_iss = SendIss::Issuer);
    assert_eq!(wants(&sessions[0], &lab, "a").await, Next::Retry);
    assert_eq!(human.asked(), 1 + 2);
}

/// DESIGN.md section 3: after a refusal no browser opens by itself for five minutes, whatever is wanted and whoever wants
/// it; a login that a person starts is not held back.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_refusal_only_a_person_starts_a_login() {
    let lab = lab_with(["a".into(), "b".into()]).await;
    let (store, allows) = (store(), Counts::new(ScriptedHuman::allows()));
    process(&store, &allows).login(request(&lab)).await.unwrap();
    let refuses = Counts::new(ScriptedHuman::denies());
    let sessions = process(&store, &refuses);
    let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
    let other = process(&store, &allows);
    let other = other.get(&url(&lab), &Account::default()).await.unwrap();
    assert_eq!(code(&wants(&session, &lab, "a").await), "denied.by_human");
    for session in [&session, &other] {
        for scope in ["b", "a b", "a"] {
            assert_eq!(code(&wants(session, &lab, scope).await), "denied.by_human");
        }
    }
    assert_eq!((refuses.asked(), allows.asked()), (1, 1));
    let mut by_hand = request(&lab);
    by_hand.scopes = Some(Scopes::parse("mcp:tools b"));
    process(&store, &allows).login(by_hand).await.unwrap();
    assert_eq!(allows.asked(), 2);
    assert_eq!(wants(&session, &lab, "b").await, Next::Retry);
}

fn client(id: &str) -> Client {
    Client::brought(id.into())
}

/// AUTH-57: a step-up asks as the client that the login was made with, by whichever process; what some login of this process
/// asked for in vain counts for nothing, and where the redirect arrived last time it arrives again.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_up_asks_as_the_client_of_the_login() {
    let known = |id: &str| StaticClient {
        client_id: id.into(),
        client_secret: None,
        redirect_uris: vec!["http://127.0.0.1/callback".into()],
    };
    let config = LabConfig::default().with(|lab| {
        lab.authorization_server.scopes_supported.push("a".into());
        lab.authorization_server.approval = Approval::Page;
        lab.authorization_server.clients = vec![known("mine"), known("vain"), known("theirs")];
        lab.mcp_server.challenge_scope = Some("mcp:tools".into());
    });
    let lab = Lab::start(config).await.unwrap();
    let (store, human) = (store(), Counts::new(ScriptedHuman::allows()));
    let (one, two) = (process(&store, &human), process(&store, &human));
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let mut mine = request(&lab);
    mine.client = Some(client("mine"));
    mine.redirect = Redirect::Loopback(Callback {
        port: Some(port),
        ..Callback::default()
    });
    one.login(mine).await.unwrap();
    let session = one.get(&url(&lab), &Account::default()).await.unwrap();
    let mut vain: LoginRequest = request(&lab);
    vain.client = Some(client("vain"));
    vain.timeout = Duration::ZERO;
    let ended = one.login(vain).await.unwrap_err();
    assert_eq!(ended.code(), "login.abandoned");
    let mut theirs = request(&lab);
    theirs.client = Some(client("theirs"));
    two.login(theirs).await.unwrap();

    assert_eq!(wants(&session, &lab, "a").await, Next::Retry);
    let urls = human.urls.lock().unwrap().clone();
    let said = |name: &str| {
        let mut pairs = urls.last().unwrap().query_pairs();
        pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
    };
    assert_eq!(said("client_id"), "theirs");
    assert_eq!(
        said("redirect_uri"),
        format!("http://127.0.0.1:{port}/callback")
    );
    assert_eq!(stored(&store).await.client.id, "theirs");
}

/// DESIGN.md section 3: only `login` starts a first login. A 403 to a session without one is kept for it: it asks for what
/// was wanted (AUTH-54).
#[tokio::test(flavor = "multi_thread")]
async fn a_403_without_a_login_asks_nobody() {
    let (lab, store, human) = (lab().await, store(), Counts::new(ScriptedHuman::allows()));
    let sessions = process(&store, &human);
    let account = Account::default();
    let session = sessions.open(&url(&lab), &account).await.unwrap();
    let answer = wants(&session, &lab, "mcp:admin").await;
    assert_eq!(code(&answer), "login.never");
    assert_eq!(human.asked(), 0);
    sessions.login(request(&lab)).await.unwrap();
    assert_eq!(
        human.scopes.lock().unwrap()[..],
        ["mcp:admin offline_access"]
    );
}
