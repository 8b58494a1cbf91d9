//! A login that mcp-remote has made, used by both: its files as it writes them, its marker as it takes it.
//!
//! [`Rival`] does what mcp-remote 0.15.1 was seen to do; `peers_shared.rs` of the CLI has the program itself.

mod endings;
mod races;
mod rival;

use std::{path::PathBuf, sync::Arc, time::Duration};

use pilotlight::{
    Flag, LoginRequest, Session, Sessions,
    clock::SystemClock,
    core::{
        credential::{Account, Credential, CredentialKey},
        resource::Resource,
    },
    mcp_remote::{Brought, Files, Import, Shared},
    store::{MemoryStore, Store},
};
use pilotlight_testkit::{AuthorizationServerConfig, Lab};
use serde_json::json;
use tempfile::TempDir;

use crate::sessions::process;
use rival::Rival;

/// An issuer and a server, a login that mcp-remote made there, and our store beside it.
struct Desk {
    lab: Lab,
    folder: TempDir,
    rival: Rival,
    /// What lies below the [`Shared`] of each process.
    inner: Arc<dyn Store>,
}

/// One process of ours.
struct Ours {
    shared: Shared,
    sessions: Sessions,
}

impl Desk {
    async fn new(change: impl FnOnce(&mut AuthorizationServerConfig)) -> Self {
        let lab = crate::sessions::lab(change).await;
        let folder = tempfile::tempdir().unwrap();
        let made = log_in(&lab).await;
        let rival = Rival::new(&folder.path().join("mcp-auth"), &made);
        Self {
            lab,
            rival,
            inner: Arc::new(MemoryStore::new(Arc::new(SystemClock))),
            folder,
        }
    }

    fn links(&self) -> PathBuf {
        self.folder.path().join("links")
    }

    fn process(&self) -> Ours {
        let shared = Shared::over(self.inner.clone(), self.links(), Arc::new(SystemClock));
        let sessions = Sessions::builder(Arc::new(shared.clone())).open().unwrap();
        Ours { shared, sessions }
    }

    fn url(&self) -> Resource {
        Resource::parse(self.lab.resource_url()).unwrap()
    }

    fn import(&self) -> Import {
        Import::new(self.url(), self.rival.files())
    }

    /// A process that has brought the login in, or found it here.
    async fn joined(&self) -> (Ours, Session) {
        let ours = self.process();
        let brought = ours
            .sessions
            .bring(&ours.shared, self.import())
            .await
            .unwrap();
        assert!(!matches!(brought, Brought::Copied(_)), "{brought:?}");
        let session = ours
            .sessions
            .get(&self.url(), &Account::default())
            .await
            .unwrap();
        (ours, session)
    }

    async fn stored(&self) -> Credential {
        let binding = self.inner.bindings().await.unwrap().remove(0);
        let record = self.inner.read(&binding.credential.unwrap()).await.unwrap();
        record.unwrap().credential.unwrap()
    }

    async fn key(&self) -> CredentialKey {
        self.stored().await.key
    }

    /// Refreshes at the issuer, spent tokens that it was shown, logins that people were asked for.
    fn counts(&self) -> (u64, u64, u64) {
        let stats = self.lab.with_issuer(|issuer| issuer.stats().clone());
        (stats.refresh_ok, stats.spent_presented, stats.authorize)
    }
}

/// Makes a login, and forgets it: whoever is handed the tokens is the only one to have them.
async fn log_in(lab: &Lab) -> Credential {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let sessions = process(&store);
    let mut request = LoginRequest::new(
        Resource::parse(lab.resource_url()).unwrap(),
        Account::default(),
    );
    request.bearer = true;
    sessions.login(request).await.unwrap();
    let binding = store.bindings().await.unwrap().remove(0);
    let record = store.read(&binding.credential.unwrap()).await.unwrap();
    record.unwrap().credential.unwrap()
}

/// The drop-in contract: what mcp-remote is logged in to is used at once, with nobody asked and nothing refreshed, and said to
/// be shared.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_mcp_remote_is_used_at_once() {
    let desk = Desk::new(|_| {}).await;
    let before = desk.counts();
    let (ours, session) = desk.joined().await;
    assert_eq!(
        session.header().await.unwrap(),
        format!("Bearer {}", desk.rival.access())
    );
    assert_eq!(desk.counts(), before);
    let status = session.status().await.unwrap();
    assert!(
        status.flags.contains(&Flag::WithMcpRemote),
        "{:?}",
        status.flags
    );
    let again = ours
        .sessions
        .bring(&ours.shared, desk.import())
        .await
        .unwrap();
    assert!(matches!(again, Brought::Known), "{again:?}");
}

/// Storm case (j), F-22, I-1: both refresh one login in turn, with single-use refresh tokens and no grace: each goes on from
/// what the other has got, and no token is spent twice. What mcp-remote keeps beside the tokens stays, for its owner only.
#[tokio::test(flavor = "multi_thread")]
async fn both_refresh_one_login_in_turn() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_, session) = desk.joined().await;
    let before = desk.counts();
    for round in 1..=5 {
        assert!(session.refresh(true).await.unwrap().refreshed);
        let token = session.token(None).await.unwrap().access_token;
        assert_eq!(
            desk.rival.access(),
            token.expose(),
            "round {round}: written back"
        );
        let written = desk.rival.tokens();
        assert_eq!(
            (&written["requested_scope"], &written["later"]),
            (&json!("asked"), &json!({"kept": [1.0]}))
        );
        assert!(written["expires_at"].as_u64().unwrap() > 1_700_000_000_000);
        desk.rival.is_private();

        let theirs = desk
            .rival
            .refresh(&desk.lab)
            .await
            .expect("theirs goes on from ours");
        // Due or not: what another has made is seen.
        session.refresh(false).await.unwrap();
        let token = session.token(None).await.unwrap().access_token;
        assert_eq!(token.expose(), theirs, "round {round}: taken over");
    }
    let after = desk.counts();
    assert_eq!((after.0 - before.0, after.1, after.2), (10, 0, before.2));
    assert_eq!(
        desk.stored().await.version.generation.0,
        9,
        "what is newest is in the store when it is spent"
    );
}

/// Storm case (j): a process that runs on sees within seconds what mcp-remote has refreshed, and stores it (I-4).
#[tokio::test(flavor = "multi_thread")]
async fn what_mcp_remote_refreshes_reaches_a_process_that_runs() {
    let desk = Desk::new(|_| {}).await;
    let (_ours, session) = desk.joined().await;
    session.header().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let theirs = desk.rival.refresh(&desk.lab).await.unwrap();
    let seen = async {
        while session.header().await.unwrap() != format!("Bearer {theirs}") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        while desk.stored().await.access_token.expose() != theirs {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), seen)
        .await
        .expect("seen");
    assert_eq!(desk.counts().1, 0);
}

/// F-18: tokens in the layout of 0.1.x carry no time: the file's date says when they came. They are read once and not shared,
/// for no program that runs uses them.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_layout_is_read_once() {
    let desk = Desk::new(|_| {}).await;
    desk.rival.make_old("0.1.38");
    let ours = desk.process();
    let brought = ours
        .sessions
        .bring(&ours.shared, desk.import())
        .await
        .unwrap();
    let Brought::Copied(status) = brought else {
        panic!("{brought:?}");
    };
    assert!(!status.flags.contains(&Flag::WithMcpRemote));
    let stored = desk.stored().await;
    let age = std::time::SystemTime::UNIX_EPOCH
        + Duration::from_millis(stored.received_at.unwrap().wall.0);
    assert!(age.elapsed().unwrap() < Duration::from_secs(60));
    let session = ours
        .sessions
        .get(&desk.url(), &Account::default())
        .await
        .unwrap();
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert_eq!(desk.counts().1, 0);
}

/// Nothing there is nothing; a file that makes no sense is not nothing.
#[tokio::test(flavor = "multi_thread")]
async fn absent_and_unreadable_are_two_things() {
    let desk = Desk::new(|_| {}).await;
    let ours = desk.process();
    let nobody = Files::new(&desk.folder.path().join("mcp-auth"), &"0".repeat(32)).unwrap();
    let import = Import::new(desk.url(), nobody);
    assert!(matches!(
        ours.sessions.bring(&ours.shared, import).await,
        Ok(Brought::Nothing)
    ));
    std::fs::write(desk.rival.path("tokens.json"), "{\"access_tok").unwrap();
    let error = ours
        .sessions
        .bring(&ours.shared, desk.import())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "unavailable.store");
    assert!(Files::new(&desk.folder.path().join("x"), "../../etc/passwd").is_none());
}
