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

/// Sharing ends by itself where nobody else has written for 30 days, and only then.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_else_uses_for_thirty_days_is_ours() {
    let desk = Desk::new(|_| {}).await;
    let (_, session) = desk.joined().await;
    let link = std::fs::read_dir(desk.links())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let since = |days: u64| {
        let mut known: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&link).unwrap()).unwrap();
        known["others_at"] = json!(super::rival::now_ms() - days * 86_400_000);
        std::fs::write(&link, serde_json::to_vec(&known).unwrap()).unwrap();
    };
    since(29);
    session.refresh(true).await.unwrap();
    assert!(
        session
            .status()
            .await
            .unwrap()
            .flags
            .contains(&Flag::WithMcpRemote)
    );
    since(31);
    let before = desk.rival.tokens();
    tokio::time::timeout(Duration::from_secs(5), session.refresh(true))
        .await
        .unwrap()
        .unwrap();
    assert!(
        !session
            .status()
            .await
            .unwrap()
            .flags
            .contains(&Flag::WithMcpRemote)
    );
    assert_eq!(desk.rival.tokens(), before);
}
