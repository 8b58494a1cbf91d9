//! Servers that change their issuer or name several, issuers that move or forget: on real sockets, with real stores.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use http::StatusCode;
use pilotlight::{
    Error, Flag, LoginRequest,
    core::{
        credential::Account,
        error::LoginCause,
        event::Happened,
        flow::Prompt,
        issuer::{Issuer, IssuerException},
        registration::{Client, ClientAuthentication, ClientSource},
        state::State,
    },
    human::Human,
    store::Store,
};
use pilotlight_testkit::{
    AuthorizationServerConfig, Lab, LabConfig, ScriptedHuman,
    authorization_server::{IssueRefreshToken, Kind},
};
use serde_json::json;

use crate::{
    faults_support::{Process, World, ask, served},
    sessions::Clicks,
};

mod accepted;
mod logout;
mod look;
mod moved;

/// A person who remembers what they were shown.
#[derive(Debug)]
struct Remembers {
    clicks: Clicks,
    prompts: Mutex<Vec<Prompt>>,
}

impl Remembers {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            clicks: Clicks(ScriptedHuman::allows()),
            prompts: Mutex::default(),
        })
    }

    fn prompts(&self) -> Vec<Prompt> {
        self.prompts.lock().unwrap().clone()
    }
}

#[async_trait]
impl Human for Remembers {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        self.prompts.lock().unwrap().push(prompt.clone());
        self.clicks.approve(prompt).await
    }
}

fn request(world: &World) -> LoginRequest {
    LoginRequest::new(world.url(), Account::default())
}

/// Another lab in the same time, whose issuer keeps every request.
async fn another(world: &World, change: impl FnOnce(&mut AuthorizationServerConfig)) -> Lab {
    let config = LabConfig::default().with(|lab| {
        lab.clock = world.lab.clock().clone();
        lab.authorization_server.keep_requests = true;
        lab.authorization_server.seed = 77;
        change(&mut lab.authorization_server);
    });
    Lab::start(config).await.unwrap()
}

fn process(world: &World, human: &Arc<Remembers>) -> Process {
    let human = human.clone();
    world.process_with(|builder| builder.human(human))
}

fn issuer(lab: &Lab) -> Issuer {
    Issuer::parse(lab.issuer()).unwrap()
}

fn changed(from: &Lab, to: &Lab) -> Error {
    Error::login(LoginCause::IssuerChanged {
        former: from.issuer().to_owned(),
        issuer: to.issuer().to_owned(),
    })
}

/// Nothing that one issuer has ever given out, or that a client has of it, came to another.
fn assert_nothing_leaked(from: &Lab, to: &Lab) {
    let secrets = from.with_issuer(|issuer| issuer.issued_secrets().to_vec());
    assert!(secrets.len() >= 2, "a login was made");
    let heard = to.with_issuer(|issuer| issuer.heard().to_vec());
    for secret in &secrets {
        let told: Vec<_> = heard
            .iter()
            .filter(|request| request.contains(secret.as_str()))
            .collect();
        assert!(told.is_empty(), "{told:?}");
    }
}

/// The metadata documents that the server was asked for.
fn documents(world: &World) -> u64 {
    world.lab.with_mcp(|server| server.stats().metadata)
}

/// AUTH-16, AUTH-39, AUTH-40, T-15, T-20: a server that moves to another issuer. The session lives on its pins and nobody asks, until
/// the server refuses what the old issuer gives out: then the error names both, and one login, which says so to the person, goes to the
/// new one as a stranger. Nothing of the old login goes there, and it is neither replaced nor revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_moves_to_another_issuer() {
    let world = World::with_tokens_of(Duration::from_secs(3600)).await;
    world
        .lab
        .with_issuer(|issuer| issuer.config_mut().confidential_clients = true);
    let human = Remembers::new();
    let process = process(&world, &human);
    let session = process.log_in(&world).await;
    served(&session, &world).await;
    let new = another(&world, |_| {}).await;

    // The metadata says another name, and the tokens are still taken: nothing happens, at a refresh neither.
    let names = vec![new.issuer().to_owned()];
    world
        .lab
        .with_mcp(|server| server.config_mut().authorization_servers = names);
    let before = documents(&world);
    world.advance(Duration::from_secs(3700));
    served(&session, &world).await;
    assert_eq!((world.refreshes().len(), documents(&world)), (1, before));

    world.lab.trust(&new);
    let error = ask(&session, &world).await.unwrap_err();
    assert_eq!(error, changed(&world.lab, &new));
    assert_eq!(error.code(), "login.issuer_changed");
    let looked = documents(&world);
    assert_eq!(looked, before + 1);
    assert_eq!(ask(&session, &world).await.unwrap_err(), error);
    assert_eq!(documents(&world), looked, "once an hour");
    assert!(new.with_issuer(|issuer| issuer.stats().token) == 0);

    process.sessions.login(request(&world)).await.unwrap();
    served(&session, &world).await;
    let prompts = human.prompts();
    assert_eq!(prompts.len(), 2);
    assert_eq!(
        (&prompts[0].issuer, &prompts[0].former_issuer),
        (&issuer(&world.lab), &None)
    );
    assert_eq!(
        (&prompts[1].issuer, &prompts[1].former_issuer),
        (&issuer(&new), &Some(issuer(&world.lab)))
    );
    let told = |happened: &Happened| matches!(happened, Happened::LoggedIn { former_issuer: Some(former), .. } if former == world.lab.issuer());
    assert_eq!(process.count(&world, told).await, 1);
    process.idle().await;
    assert_nothing_leaked(&world.lab, &new);
    assert_eq!(
        world
            .lab
            .with_issuer(|issuer| issuer.ledger().of(Kind::Revoke).count()),
        0
    );
    assert_eq!(world.lab.with_issuer(|issuer| issuer.live_grants()), 1);
    let clients = new.with_issuer(|issuer| issuer.stats().registrations);
    assert_eq!(clients, 1, "AUTH-40: registered anew");
}

/// T-20: the server goes back: the old login is still there and is used again, in every process. Nobody is asked, nothing is
/// registered, and the new issuer hears nothing of it. After a logout nobody goes back to anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_back_to_its_issuer() {
    let world = World::with_tokens_of(Duration::from_secs(3600)).await;
    let human = Remembers::new();
    let (process, other) = (process(&world, &human), world.process());
    let session = process.log_in(&world).await;
    let theirs = other.session(&world).await;
    let new = another(&world, |_| {}).await;
    world.lab.trust(&new);
    // Else it is the login of a moment ago that is adopted.
    world.advance(Duration::from_secs(60));
    process.sessions.login(request(&world)).await.unwrap();
    served(&session, &world).await;

    world.lab.trust(&world.lab);
    // The new issuer's tokens are refused now, and its server says who is trusted instead.
    assert_eq!(
        ask(&session, &world).await.unwrap_err(),
        changed(&new, &world.lab)
    );
    world.advance(Duration::from_secs(60));
    let done = process.sessions.login(request(&world)).await.unwrap();
    assert_eq!(done.former_issuer, Some(issuer(&new)));
    assert_eq!(done.status.issuer, Some(issuer(&world.lab)));
    served(&session, &world).await;
    served(&theirs, &world).await;
    assert_eq!(human.prompts().len(), 2, "nobody was asked");
    let stats = world.stats();
    assert_eq!((stats.code_ok, stats.registrations), (1, 1));
    let told = |happened: &Happened| matches!(happened, Happened::IssuerChanged { .. });
    assert_eq!(process.count(&world, told).await, 1);
    assert_nothing_leaked(&world.lab, &new);
    assert_eq!(
        new.with_issuer(|issuer| issuer.live_grants()),
        1,
        "it waits for the next change"
    );

    process.sessions.logout(&world.key(), false).await.unwrap();
    world.lab.trust(&new);
    world.advance(Duration::from_secs(60));
    process.sessions.login(request(&world)).await.unwrap();
    assert_eq!(human.prompts().len(), 3);
}

/// AUTH-40: a login that has ended without a refresh token is explained as well, in every process and in what `status` shows;
/// of many requests and processes one looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_has_ended_is_explained() {
    let world = World::new(|lab| {
        lab.authorization_server.issue_refresh_token = IssueRefreshToken::Never;
    })
    .await;
    let (process, session) = world.logged_in().await;
    let processes: Vec<Process> = (0..4).map(|_| world.process()).collect();
    let new = another(&world, |_| {}).await;
    world.lab.trust(&new);
    let before = documents(&world);
    world.advance(Duration::from_secs(3700));
    process.ticked().await;
    let first = session.header().await.unwrap_err();
    assert_eq!(first, changed(&world.lab, &new));
    let binding = process.binding(&world).await;
    for process in &processes {
        let session = process.session(&world).await;
        assert_eq!(session.header().await.unwrap_err(), first);
        let status = process.sessions.status(&binding).await.unwrap();
        assert!(matches!(
            status.state,
            State::LoginRequired {
                cause: LoginCause::IssuerChanged { .. }
            }
        ));
    }
    assert_eq!(documents(&world), before + 1);

    // An hour later it is looked at again: the server has gone back meanwhile.
    world.lab.trust(&world.lab);
    world.advance(Duration::from_secs(3600));
    let error = session.header().await.unwrap_err();
    assert_eq!(error, Error::login(LoginCause::NoRefreshToken));
    assert_eq!(documents(&world), before + 2);
}

/// T-15, T-16: a server that names an issuer which is not there, or another host for its metadata, explains nothing: the error stays
/// what it was, and no secret goes anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_cannot_prove_explains_nothing() {
    let world = World::new(|lab| {
        lab.authorization_server.issue_refresh_token = IssueRefreshToken::Never;
    })
    .await;
    let (process, session) = world.logged_in().await;
    let evil = another(&world, |config| {
        config.metadata_overrides = json!({ "issuer": "https://somebody.example" });
    })
    .await;
    world.lab.trust(&evil);
    world.advance(Duration::from_secs(3700));
    process.ticked().await;
    for _ in 0..3 {
        let error = session.header().await.unwrap_err();
        assert_eq!(error, Error::login(LoginCause::NoRefreshToken));
    }
    assert_nothing_leaked(&world.lab, &evil);
}

/// AUTH-41, T-20: a client that a person brought was made at one issuer: where the server names another its secret is not
/// tried there; the error names both, before anything is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_brought_client_stays_with_its_issuer() {
    let world = World::new(|lab| {
        lab.authorization_server
            .clients
            .push(brought_at_the_issuer());
    })
    .await;
    let human = Remembers::new();
    let process = process(&world, &human);
    let mut request = request(&world);
    request.client = Some(brought());
    process.sessions.login(request.clone()).await.unwrap();
    let new = another(&world, |_| {}).await;
    world.lab.trust(&new);
    world.advance(Duration::from_secs(60));
    let error = process.sessions.login(request).await.unwrap_err();
    assert_eq!(error, changed(&world.lab, &new));
    assert_eq!(human.prompts().len(), 1);
    let heard = new.with_issuer(|issuer| issuer.heard().len());
    assert_eq!(heard, 0);
}

fn brought() -> Client {
    Client {
        id: "brought".into(),
        secret: pilotlight::core::secret::ClientSecret::new("canary-brought-secret".into()).ok(),
        secret_ref: None,
        key: None,
        secret_expires_at: None,
        authentication: ClientAuthentication::Basic,
        source: ClientSource::PreRegistered,
    }
}

fn brought_at_the_issuer() -> pilotlight_testkit::authorization_server::StaticClient {
    pilotlight_testkit::authorization_server::StaticClient {
        client_id: "brought".into(),
        client_secret: Some("canary-brought-secret".into()),
        redirect_uris: vec!["http://127.0.0.1/callback".into()],
    }
}

/// AUTH-15: of several issuers a person may choose one; without a choice the first is taken that takes programs like this.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_issuers_is_chosen() {
    let world = World::new(|lab| lab.authorization_server.registration = false).await;
    let second = another(&world, |_| {}).await;
    let both = vec![world.lab.issuer().to_owned(), second.issuer().to_owned()];
    world.lab.trust(&second);
    world
        .lab
        .with_mcp(|server| server.config_mut().authorization_servers = both);
    let process = world.process();
    let done = process.sessions.login(request(&world)).await.unwrap();
    assert_eq!(done.status.issuer, Some(issuer(&second)));

    let mut chosen = request(&world);
    chosen.issuer = Some(issuer(&world.lab));
    let error = process.sessions.login(chosen.clone()).await.unwrap_err();
    assert_eq!(
        error.code(),
        "peer.no_registration_way",
        "that one takes nobody"
    );
    chosen.issuer = Issuer::parse("https://unnamed.example").ok();
    let error = process.sessions.login(chosen).await.unwrap_err();
    assert_eq!(error.code(), "config.value");
    served(&process.session(&world).await, &world).await;
}

/// T-17: an issuer whose metadata names another is refused, with both named; accepted by a person, exactly these two are
/// required from then on, at later logins, and shown with the server, until it is taken back.
#[tokio::test(flavor = "multi_thread")]
async fn an_exception_is_kept_with_the_server() {
    let world = World::new(|_| {}).await;
    let says = |says: &str| {
        let overrides = json!({ "issuer": says });
        world.lab.with_issuer(|issuer| {
            let config = issuer.config_mut();
            config.metadata_overrides = overrides;
            config.send_iss = pilotlight_testkit::authorization_server::SendIss::Other(says.into());
        });
    };
    let inner = format!("{}/inner", world.lab.issuer());
    says(&inner);
    let process = world.process();
    let error = process.sessions.login(request(&world)).await.unwrap_err();
    let want = Error::MetadataMismatch {
        published: world.lab.issuer().into(),
        expected: world.lab.issuer().into(),
        got: inner.clone(),
    };
    assert_eq!(error, want);
    assert_eq!(world.stats().registrations, 0);

    let mut accepting = request(&world);
    let exception = format!("{}={inner}", world.lab.issuer());
    accepting.exception = IssuerException::parse(&exception).ok();
    process.sessions.login(accepting).await.unwrap();
    served(&process.session(&world).await, &world).await;
    let binding = process.binding(&world).await;
    assert_eq!(binding.exception.as_ref().unwrap().to_string(), exception);
    let status = process.sessions.status(&binding).await.unwrap();
    assert_eq!(status.issuer, Some(issuer(&world.lab)), "the one named");
    assert!(status.flags.contains(&Flag::IssuerException));

    // It is kept, and it is for this one and no other.
    let later = world.process();
    world.advance(Duration::from_secs(60));
    later.sessions.login(request(&world)).await.unwrap();
    says(&format!("{inner}/other"));
    world.advance(Duration::from_secs(60));
    let error = later.sessions.login(request(&world)).await.unwrap_err();
    assert_eq!(error.code(), "peer.issuer_mismatch");

    let mut back = request(&world);
    back.exception = IssuerException::parse(&format!("{0}={0}", world.lab.issuer())).ok();
    world.lab.with_issuer(|issuer| {
        let config = issuer.config_mut();
        config.metadata_overrides = json!({});
        config.send_iss = pilotlight_testkit::authorization_server::SendIss::Issuer;
    });
    later.sessions.login(back).await.unwrap();
    assert_eq!(later.binding(&world).await.exception, None);
    assert_eq!(
        ask(&later.session(&world).await, &world).await,
        Ok(StatusCode::OK)
    );
}

/// T-17, AUTH-23: none is there by default, and none that was not asked for is stored by a login that fails.
#[tokio::test(flavor = "multi_thread")]
async fn no_exception_comes_by_itself() {
    let world = World::new(|_| {}).await;
    world.lab.with_issuer(|issuer| {
        issuer.config_mut().metadata_overrides = json!({ "issuer": "https://other.example" });
    });
    let process = world.process();
    assert!(process.sessions.login(request(&world)).await.is_err());
    assert!(process.sessions.login(request(&world)).await.is_err());
    assert_eq!(process.store.bindings().await.unwrap(), []);
}
