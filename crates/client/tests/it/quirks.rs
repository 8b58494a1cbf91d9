//! Issuers that want it otherwise than most, on real sockets: what is learned, by whom it is minded, and what never is.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use pilotlight::{
    Error, Flag, LoggedIn, LoginRequest, Sessions,
    clock::SystemClock,
    core::{
        credential::Account, event::Happened, flow::Prompt, quirks::Quirk, resource::Resource,
        scope::Scopes,
    },
    human::Human,
    store::MemoryStore,
};
use pilotlight_testkit::{
    Lab, LabConfig, ScriptedHuman,
    authorization_server::{IssueRefreshToken, Kind, Outcome, RefreshScopes},
};

use crate::sessions::{Clicks, lab, process};

/// Clicks, and remembers what was shown.
#[derive(Debug, Clone)]
struct Remembers(Arc<Mutex<Vec<Prompt>>>);

#[async_trait]
impl Human for Remembers {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        self.0.lock().unwrap().push(prompt.clone());
        Clicks(ScriptedHuman::allows()).approve(prompt).await
    }
}

impl Remembers {
    fn new() -> Self {
        Self(Arc::default())
    }

    /// A process with this person, over a store of its own unless one is given.
    fn at(&self, store: &Arc<MemoryStore>) -> Sessions {
        let human = Arc::new(self.clone());
        Sessions::builder(store.clone())
            .human(human)
            .open()
            .unwrap()
    }

    /// A parameter of each URL that was shown.
    fn shown(&self, name: &str) -> Vec<Option<String>> {
        let prompts = self.0.lock().unwrap();
        let of = |prompt: &Prompt| {
            let mut pairs = prompt.url.query_pairs();
            pairs
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        prompts.iter().map(of).collect()
    }
}

fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

fn url(lab: &Lab) -> Resource {
    Resource::parse(lab.resource_url()).unwrap()
}

fn request(lab: &Lab) -> LoginRequest {
    LoginRequest::new(url(lab), Account::default())
}

/// Ends the login on this machine, so that the next one is no mere repetition of this.
async fn forget(sessions: &Sessions, lab: &Lab) {
    let key = pilotlight::core::credential::BindingKey::new(url(lab), Account::default());
    sessions.logout(&key, true).await.unwrap();
}

async fn learned(sessions: &Sessions, lab: &Lab) -> Vec<Quirk> {
    let session = sessions.get(&url(lab), &Account::default()).await.unwrap();
    let binding = session.status().await.unwrap().binding;
    let events = sessions.history(&binding, 100).await.unwrap();
    let quirk = |event: &pilotlight::core::event::Event| match event.happened {
        Happened::Learned { quirk } => Some(quirk),
        _ => None,
    };
    events.iter().filter_map(quirk).collect()
}

/// The token calls of refreshes, as the issuer answered them.
fn refreshes(lab: &Lab) -> Vec<Outcome> {
    lab.with_issuer(|issuer| {
        let refreshes = issuer.ledger().of(Kind::Refresh);
        refreshes.map(|entry| entry.outcome.clone()).collect()
    })
}

/// DESIGN.md section 6, AUTH-70: an issuer that wants scopes named at a refresh refuses one call; the session goes on, and the
/// next refresh, in another process, asks rightly at once. An issuer that has come to refuse them costs one call, too.
#[tokio::test(flavor = "multi_thread")]
async fn scopes_at_a_refresh_are_learned_once_for_all() {
    let refused = Outcome::Error("invalid_scope".into());
    let lab = lab(|issuer| {
        issuer.access_ttl = Duration::from_secs(1);
        issuer.refresh_scopes = RefreshScopes::Wanted;
    })
    .await;
    let store = store();
    let sessions = process(&store);
    sessions.login(request(&lab)).await.unwrap();
    let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
    session.refresh(true).await.unwrap();
    assert_eq!(refreshes(&lab), [refused.clone(), Outcome::Ok]);
    assert_eq!(learned(&sessions, &lab).await, [Quirk::ScopesAtRefresh]);

    let other = process(&store);
    let other = other.get(&url(&lab), &Account::default()).await.unwrap();
    other.refresh(true).await.unwrap();
    assert_eq!(refreshes(&lab)[2..], [Outcome::Ok]);

    lab.with_issuer(|issuer| issuer.config_mut().refresh_scopes = RefreshScopes::Refused);
    other.refresh(true).await.unwrap();
    other.refresh(true).await.unwrap();
    assert_eq!(refreshes(&lab)[3..], [refused, Outcome::Ok, Outcome::Ok]);
    let both = [Quirk::ScopesAtRefresh, Quirk::NoScopesAtRefresh];
    assert_eq!(learned(&sessions, &lab).await, both);
    lab.with_issuer(|issuer| assert_eq!(issuer.ledger().reuse().count(), 0));
}

/// DESIGN.md section 6: where a refresh token is wanted and none comes, each login asks for one thing more, and says so; what
/// brought one stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_insisted_on() {
    let lab = lab(|issuer| issuer.issue_refresh_token = IssueRefreshToken::WithAccessType).await;
    let (human, store) = (Remembers::new(), store());
    let sessions = human.at(&store);
    let mut done = Vec::new();
    for _ in 0..4 {
        let one: LoggedIn = sessions.login(request(&lab)).await.unwrap();
        done.push((one.status.refresh_token, one.learned));
        forget(&sessions, &lab).await;
    }
    let wanted = [
        (false, vec![Quirk::PromptConsent]),
        (false, vec![Quirk::AccessTypeOffline]),
        (true, vec![]),
        (true, vec![]),
    ];
    assert_eq!(done, wanted);
    let consent = Some("consent".to_owned());
    assert_eq!(
        human.shown("prompt"),
        [None, consent.clone(), consent.clone(), consent]
    );
    let offline = Some("offline".to_owned());
    assert_eq!(
        human.shown("access_type"),
        [None, None, offline.clone(), offline]
    );
    let resource = Some(lab.resource_url().to_owned());
    assert!(
        human.shown("resource").iter().all(|sent| *sent == resource),
        "AUTH-70"
    );

    // One that will not be asked like that is asked once more, without, by the same person in the same login.
    lab.with_issuer(|issuer| issuer.config_mut().refuses_insisting = true);
    let one = sessions.login(request(&lab)).await.unwrap();
    assert_eq!(one.learned, [Quirk::NothingHelps]);
    assert_eq!(human.shown("prompt")[4..], [Some("consent".into()), None]);
}

/// AUTH-56, AUTH-92: `offline_access` that an issuer lists and refuses is left out, in the same login and from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_we_added_and_that_is_refused_is_left_out() {
    let lab = lab(|issuer| issuer.refuses_offline_access = true).await;
    let (human, store) = (Remembers::new(), store());
    let sessions = human.at(&store);
    let one = sessions.login(request(&lab)).await.unwrap();
    assert_eq!(one.learned, [Quirk::NoOfflineAccess]);
    assert_eq!(one.status.scopes, Scopes::parse("mcp:tools"));
    forget(&sessions, &lab).await;
    assert_eq!(sessions.login(request(&lab)).await.unwrap().learned, []);
    let scopes: Vec<_> = human.shown("scope").into_iter().flatten().collect();
    assert_eq!(
        scopes,
        ["mcp:tools offline_access", "mcp:tools", "mcp:tools"]
    );
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!((stats.authorize, stats.code_ok), (3, 2));
}

/// T-24, DESIGN.md section 6: a server that names somebody else's issuer as its own gets nothing. The issuer refuses to make
/// tokens for it (`invalid_target`), and no second try leaves the resource out, which would make tokens that are good at the
/// issuer's own server: however often it is tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_somebody_elses_issuer_gets_nothing() {
    let honest = lab(|_| {}).await;
    let theirs = vec![honest.resource_url().to_owned()];
    honest.with_issuer(|issuer| {
        let config = issuer.config_mut();
        config.allowed_resources = Some(theirs);
        // It would give a token to whoever names no resource.
        config.require_resource = false;
    });
    let named = honest.issuer().to_owned();
    let evil = Lab::start(LabConfig::default().with(|lab| {
        lab.mcp_server.authorization_servers = vec![named];
        lab.mcp_server.check_audience = false;
    }));
    let evil = evil.await.unwrap();
    let (human, store) = (Remembers::new(), store());
    let sessions = human.at(&store);
    for _ in 0..3 {
        let error = sessions.login(request(&evil)).await.unwrap_err();
        assert_eq!(
            error,
            Error::DeniedByIssuer {
                error: "invalid_target".into()
            }
        );
        assert!(
            sessions
                .get(&url(&evil), &Account::default())
                .await
                .is_err()
        );
    }
    let resource = Some(evil.resource_url().to_owned());
    assert_eq!(human.shown("resource"), vec![resource; 3]);
    let stats = honest.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!((stats.token, stats.code_ok), (0, 0));
    // Not a byte of a token, a code or a secret reached the server.
    evil.with_mcp(|server| assert!(server.stats().by_token_tail.is_empty()));
    honest.with_issuer(|issuer| assert_eq!(issuer.issued_secrets(), [] as [String; 0]));
}

/// DESIGN.md section 6, T-24: leaving the resource out is a person's own decision. Whoever approves is told; the status says so for
/// as long as it lasts; refreshes and later logins do the same; and it can be taken back.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_person_leaves_the_resource_out() {
    let lab = Lab::start(LabConfig::default().with(|lab| {
        lab.authorization_server.allowed_resources = Some(Vec::new());
        lab.authorization_server.require_resource = false;
        lab.mcp_server.check_audience = false;
    }));
    let lab = lab.await.unwrap();
    let (human, store) = (Remembers::new(), store());
    let sessions = human.at(&store);
    assert!(
        sessions.login(request(&lab)).await.is_err(),
        "not by itself"
    );
    let mut by_hand = request(&lab);
    by_hand.without_resource = Some(true);
    let done = sessions.login(by_hand.clone()).await.unwrap();
    assert!(done.status.flags.contains(&Flag::NoResource));
    let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
    session.refresh(true).await.unwrap();
    assert_eq!(refreshes(&lab), [Outcome::Ok]);
    forget(&sessions, &lab).await;
    let done = sessions.login(request(&lab)).await.unwrap();
    assert!(done.status.flags.contains(&Flag::NoResource), "kept");
    let told: Vec<_> = human
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|one| one.without_resource)
        .collect();
    assert_eq!(told, [false, true, true]);
    let sent: Vec<_> = human
        .shown("resource")
        .iter()
        .map(Option::is_some)
        .collect();
    assert_eq!(sent, [true, false, false]);
    by_hand.without_resource = Some(false);
    let error = sessions.login(by_hand).await.unwrap_err();
    assert_eq!(
        error,
        Error::DeniedByIssuer {
            error: "invalid_target".into()
        }
    );
}
