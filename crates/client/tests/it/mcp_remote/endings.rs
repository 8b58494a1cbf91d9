//! What is not shared, and how sharing ends.

use std::{sync::Arc, time::Duration};

use pilotlight::{
    Error, Flag, LoginRequest,
    core::{
        credential::{Account, BindingKey},
        error::LoginCause,
    },
    mcp_remote::Brought,
};
use serde_json::json;

use super::{Desk, log_in};
use crate::sessions::Clicks;
use pilotlight_testkit::ScriptedHuman;

/// T-20: tokens that say they are another issuer's are neither brought in nor, later, taken over; nothing of them is sent.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_issuer_is_used() {
    let desk = Desk::new(|_| {}).await;
    let own = desk.rival.tokens();
    let mut foreign = own.clone();
    foreign["issuer"] = "https://elsewhere.example".into();
    desk.rival.put("tokens.json", &foreign);
    let ours = desk.process();
    let error = ours
        .sessions
        .bring(&ours.shared, desk.import())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::LoginRequired {
                cause: LoginCause::IssuerChanged { .. }
            }
        ),
        "{error:?}"
    );

    let mut stamped = own;
    stamped["issuer"] = format!("{}/", desk.lab.issuer().trim_end_matches('/')).into();
    desk.rival.put("tokens.json", &stamped);
    let (_, session) = desk.joined().await;
    foreign["refresh_token"] = "canary".into();
    desk.rival.put("tokens.json", &foreign);
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert_eq!(desk.rival.tokens(), foreign, "nor is it written over");
    assert_eq!(desk.lab.with_issuer(|issuer| issuer.stats().refresh_err), 0);
}

/// A new login of mcp-remote at the same issuer, as another client: taken over with that client.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_login_of_mcp_remote_is_taken_over() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_, session) = desk.joined().await;
    let new = log_in(&desk.lab).await;
    assert_ne!(new.client.id, desk.stored().await.client.id);
    let other = super::Rival::new(&desk.folder.path().join("mcp-auth"), &new);
    session.refresh(false).await.unwrap();
    assert_eq!(
        session.header().await.unwrap(),
        format!("Bearer {}", new.access_token.expose())
    );
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert_eq!(desk.stored().await.client.id, new.client.id);
    assert!(other.refresh(&desk.lab).await.is_some());
    assert_eq!(desk.counts().1, 0);
}

/// mcp-remote has thrown its tokens away, because of a refusal or of other scopes: ours stay, and it has them again after our next
/// refresh, not before.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_thrown_away_there_stay_here() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_, session) = desk.joined().await;
    std::fs::remove_file(desk.rival.path("tokens.json")).unwrap();
    let (_, again) = desk.joined().await;
    again.header().await.unwrap();
    assert!(desk.rival.read("tokens.json").is_none());
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert!(desk.rival.refresh(&desk.lab).await.is_some());
    assert_eq!(desk.counts().1, 0);
}

/// `import --move`: what is newest comes over, the files go, and the login is ours alone; old content that turns up again is not
/// brought in.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_moved_is_shared_no_more() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (ours, session) = desk.joined().await;
    let theirs = desk.rival.refresh(&desk.lab).await.unwrap();
    let (last, client) = (
        desk.rival.tokens(),
        desk.rival.read("client_info.json").unwrap(),
    );
    assert_eq!(ours.shared.keep_alone(&desk.key().await).await, Ok(true));
    assert!(
        desk.rival.read("tokens.json").is_none() && desk.rival.read("client_info.json").is_none()
    );
    assert_eq!(desk.stored().await.access_token.expose(), theirs);
    assert!(
        !session
            .status()
            .await
            .unwrap()
            .flags
            .contains(&Flag::WithMcpRemote)
    );
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert!(desk.rival.read("tokens.json").is_none() && !desk.rival.is_marked());
    assert_eq!(ours.shared.keep_alone(&desk.key().await).await, Ok(false));

    desk.rival.put("tokens.json", &last);
    desk.rival.put("client_info.json", &client);
    let key = BindingKey::new(desk.url(), Account::default());
    ours.sessions.logout(&key, true).await.unwrap();
    let again = ours
        .sessions
        .bring(&ours.shared, desk.import())
        .await
        .unwrap();
    assert!(matches!(again, Brought::Nothing), "{again:?}");
}

/// A login of ours as a client of our own is another login: mcp-remote keeps what it has, and nobody writes there any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_as_another_client_ends_sharing() {
    let desk = Desk::new(|_| {}).await;
    let (ours, session) = desk.joined().await;
    let theirs = desk.rival.tokens();
    let person = pilotlight::Sessions::builder(Arc::new(ours.shared.clone()))
        .human(Arc::new(Clicks(ScriptedHuman::allows())))
        .open()
        .unwrap();
    person
        .login(LoginRequest::new(desk.url(), Account::default()))
        .await
        .unwrap();
    assert_eq!(desk.rival.tokens(), theirs);
    assert!(
        !session
            .status()
            .await
            .unwrap()
            .flags
            .contains(&Flag::WithMcpRemote)
    );
}

/// F-22, I-1: mcp-remote that only reads, because we renew, has always the token that is good: after 30 days as before. Sharing
/// ends by itself where by then nothing of the login lies there.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_else_uses_for_thirty_days_is_ours() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_ours, session) = desk.joined().await;
    let link = link_of(&desk);
    let since = |days: u64| {
        let mut known: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&link).unwrap()).unwrap();
        known["others_at"] = json!(super::rival::now_ms() - days * 86_400_000);
        std::fs::write(&link, serde_json::to_vec(&known).unwrap()).unwrap();
    };
    for days in [29, 31, 400] {
        since(days);
        assert!(session.refresh(true).await.unwrap().refreshed);
        assert!(is_shared(&session).await, "{days} days");
        let token = session.token(None).await.unwrap().access_token;
        assert_eq!(desk.rival.access(), token.expose(), "{days} days");
    }
    assert!(
        desk.rival.refresh(&desk.lab).await.is_some(),
        "it goes on from what it reads"
    );
    session.refresh(false).await.unwrap();

    std::fs::remove_file(desk.rival.path("tokens.json")).unwrap();
    since(29);
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert!(is_shared(&session).await && desk.rival.read("tokens.json").is_some());
    std::fs::remove_file(desk.rival.path("tokens.json")).unwrap();
    since(31);
    tokio::time::timeout(Duration::from_secs(5), session.refresh(true))
        .await
        .unwrap()
        .unwrap();
    assert!(!is_shared(&session).await);
    assert!(desk.rival.read("tokens.json").is_none());
    assert_eq!(desk.counts().1, 0);
}

/// F-06: mcp-remote's folder is deleted, the usual remedy for trouble with it: ours is renewed all the same, nothing is made
/// there, and a login that mcp-remote makes anew is taken over.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_deleted_holds_nobody_up() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_ours, session) = desk.joined().await;
    let base = desk.folder.path().join("mcp-auth");
    std::fs::remove_dir_all(&base).unwrap();
    for _ in 0..2 {
        let done = tokio::time::timeout(Duration::from_secs(10), session.refresh(true)).await;
        assert!(done.expect("nobody is waited for").unwrap().refreshed);
    }
    assert!(!base.exists());

    let new = log_in(&desk.lab).await;
    let rival = super::Rival::new(&base, &new);
    session.refresh(false).await.unwrap();
    let token = session.token(None).await.unwrap().access_token;
    assert_eq!(token.expose(), new.access_token.expose());
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert!(rival.refresh(&desk.lab).await.is_some());
    assert_eq!(desk.counts().1, 0);
}

/// The same with `--move`: sharing ends without the folder.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_can_be_moved() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (ours, session) = desk.joined().await;
    std::fs::remove_dir_all(desk.folder.path().join("mcp-auth")).unwrap();
    let key = desk.key().await;
    let moved = tokio::time::timeout(Duration::from_secs(10), ours.shared.keep_alone(&key)).await;
    assert_eq!(moved.expect("at once"), Ok(true));
    assert!(!is_shared(&session).await);
    assert!(session.refresh(true).await.unwrap().refreshed);
}

/// I-1, F-06: a file that is there and cannot be read may hold a later version: what we have is not spent while its access token
/// works. Once there is something to read, that is what counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_not_taken_for_none() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_ours, session) = desk.joined().await;
    let theirs = desk.rival.refresh(&desk.lab).await.unwrap();
    let file = desk.rival.path("tokens.json");
    let aside = desk.folder.path().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    let before = desk.counts();
    // Nobody can read a link to itself, whoever they are.
    std::os::unix::fs::symlink(&file, &file).unwrap();
    closed(&session).await;
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "{\"access_tok").unwrap();
    closed(&session).await;
    assert_eq!(desk.counts(), before, "nothing was spent");
    std::fs::rename(&aside, &file).unwrap();
    session.refresh(false).await.unwrap();
    let token = session.token(None).await.unwrap().access_token;
    assert_eq!(token.expose(), theirs);
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert_eq!(desk.counts().1, 0);
}

async fn closed(session: &pilotlight::Session) {
    let error = session.refresh(true).await.unwrap_err();
    assert_eq!(error.code(), "unavailable.store");
    assert!(error.to_string().contains("tokens.json"), "{error}");
    session.header().await.expect("what works is used");
}

/// The same, near the end of the access token: there is no other way to go on than with what we have.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_does_not_end_a_login() {
    let desk = Desk::new(|issuer| issuer.access_ttl = Duration::from_secs(20)).await;
    let (_ours, session) = desk.joined().await;
    std::fs::write(desk.rival.path("tokens.json"), "{\"access_tok").unwrap();
    assert!(session.refresh(true).await.unwrap().refreshed);
    let token = session.token(None).await.unwrap().access_token;
    assert_eq!(desk.rival.access(), token.expose(), "and is written");
}

/// F-29: what was ours a day of short tokens ago is known, and not taken for newer.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_ours_some_hours_ago_is_known() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_ours, session) = desk.joined().await;
    let old = desk.rival.tokens();
    for _ in 0..20 {
        assert!(session.refresh(true).await.unwrap().refreshed);
    }
    desk.rival.put("tokens.json", &old);
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert_eq!(desk.counts().1, 0);
    assert!(desk.rival.refresh(&desk.lab).await.is_some());
}

/// A login copied from an older layout is copied once: after a logout the same content stays where it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_not_made_twice() {
    let desk = Desk::new(|_| {}).await;
    desk.rival.make_old("0.1.38");
    let ours = desk.process();
    let bring = || ours.sessions.bring(&ours.shared, desk.import());
    let brought = bring().await.unwrap();
    assert!(matches!(brought, Brought::Copied(_)), "{brought:?}");
    let key = BindingKey::new(desk.url(), Account::default());
    ours.sessions.logout(&key, true).await.unwrap();
    let again = bring().await.unwrap();
    assert!(matches!(again, Brought::Nothing), "{again:?}");
}

async fn is_shared(session: &pilotlight::Session) -> bool {
    let status = session.status().await.unwrap();
    status.flags.contains(&Flag::WithMcpRemote)
}

fn link_of(desk: &Desk) -> std::path::PathBuf {
    let mut all = std::fs::read_dir(desk.links()).unwrap();
    all.next().unwrap().unwrap().path()
}
