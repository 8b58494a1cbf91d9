//! Who is first: the marker, crashes between two writes, content that is old.

use std::{sync::Arc, time::Duration};

use pilotlight::{
    LoginRequest,
    clock::SystemClock,
    core::{
        attempt::{Attempt, ProcessId},
        credential::Account,
        record::Fact,
        time::{BootId, Mono, Stamp, Wall},
    },
    mcp_remote::Shared,
    store::{LockName, Locked, Store},
};
use pilotlight_testkit::{Fault, ScriptedHuman};
use serde_json::json;

use super::{
    Desk,
    rival::{Alive, dead, now_ms},
};
use crate::sessions::Clicks;

/// I-16: while a process of mcp-remote refreshes, ours waits, and goes on with what that has got: one refresh in all.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_of_mcp_remote_is_waited_for() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_, session) = desk.joined().await;
    let before = desk.counts();
    let other = Alive::new();
    desk.rival.mark(other.pid(), 0, "theirs");
    let waits = tokio::spawn(async move {
        session.refresh(true).await.unwrap();
        session.token(None).await.unwrap().access_token
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(desk.counts(), before, "nothing is sent");
    let theirs = desk.rival.spend(&desk.lab).await.unwrap();
    desk.rival.unmark();
    assert_eq!(waits.await.unwrap().expose(), theirs);
    let after = desk.counts();
    assert_eq!((after.0 - before.0, after.1), (1, 0));
}

/// F-10, F-11: a marker binds nobody whose process is dead, that is older than 30 s, or that makes no sense; and it is ours only
/// for as long as the refresh takes.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_marker_binds_nobody() {
    let desk = Desk::new(|_| {}).await;
    let (_, session) = desk.joined().await;
    let other = Alive::new();
    for which in 0..3 {
        match which {
            0 => desk.rival.mark(dead(), 0, "dead"),
            1 => desk.rival.mark(other.pid(), 31, "stale"),
            _ => {
                desk.rival
                    .put("refresh_in_progress.json", &json!("nonsense"));
                tokio::time::sleep(Duration::from_millis(1100)).await;
            }
        }
        let done = tokio::time::timeout(Duration::from_secs(3), session.refresh(true)).await;
        assert!(
            done.expect("it waits for nobody").unwrap().refreshed,
            "{which}"
        );
        assert!(!desk.rival.is_marked(), "{which}: let go of");
    }
    assert_eq!(desk.counts().1, 0);
}

/// I-16: while ours refreshes the marker says so, in mcp-remote's own terms, and it is renewed: a call may take longer than the
/// 30 s after which anybody may take it away.
#[tokio::test(flavor = "multi_thread")]
async fn our_marker_is_there_and_is_renewed() {
    let desk = Desk::new(|_| {}).await;
    let (ours, _session) = desk.joined().await;
    let id = ours.shared.credential_id(&desk.key().await);
    let Locked::Got(lease) = ours.shared.try_lock(LockName::Refresh(id)).await.unwrap() else {
        panic!("nobody has it");
    };
    let marker = desk.rival.read("refresh_in_progress.json").unwrap();
    assert_eq!(marker["pid"], std::process::id());
    assert!(marker["nonce"].as_str().unwrap().len() > 30);
    let at = marker["at"].as_u64().unwrap();
    assert!(now_ms() - at < 5_000);
    let renewed = async {
        while desk
            .rival
            .read("refresh_in_progress.json")
            .is_none_or(|now| now["at"] == at)
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(8), renewed)
        .await
        .expect("renewed");
    let process = desk.process();
    let Locked::HeldBy(_) = process
        .shared
        .try_lock(LockName::Refresh(id))
        .await
        .unwrap()
    else {
        panic!("it is ours");
    };
    drop(lease);
    assert!(!desk.rival.is_marked());
}

/// I-1: whoever was stopped for so long that its marker was taken does not spend the token it had read: it reads again.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_lost_the_marker_reads_again_before_the_call() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (ours, _session) = desk.joined().await;
    let key = desk.key().await;
    let id = ours.shared.credential_id(&key);
    let Locked::Got(lease) = ours.shared.try_lock(LockName::Refresh(id)).await.unwrap() else {
        panic!("nobody has it");
    };
    let read = ours.shared.read(&key).await.unwrap().unwrap();
    let version = read.version().unwrap();
    let stamp = Stamp {
        wall: Wall(now_ms()),
        mono: Mono(1),
        boot: BootId([1; 16]),
    };
    let attempt = Attempt {
        generation: version.generation,
        number: 1,
        label: None,
        fence: lease.fence,
        process: ProcessId::default(),
        first_sent_at: stamp,
        sent_at: stamp,
    };
    let facts = [Fact::Attempt(Some(attempt))];
    // Here it is stopped: the other removes the marker, refreshes, and is done.
    desk.rival.unmark();
    let theirs = desk.rival.refresh(&desk.lab).await.unwrap();
    assert_eq!(
        ours.shared.note(&key, version, &facts, None).await,
        Ok(false)
    );
    assert!(desk.rival.is_marked(), "taken again");
    let again = ours.shared.read(&key).await.unwrap().unwrap();
    assert_eq!(
        again.credential.as_ref().unwrap().access_token.expose(),
        theirs
    );
    let (version, spooled) = (again.version().unwrap(), again.spooled);
    assert!(spooled.is_none(), "in our store before it is spent");
    assert_eq!(
        ours.shared.note(&key, version, &facts, None).await,
        Ok(true)
    );
    drop(lease);
    assert!(!desk.rival.is_marked());
}

/// F-03, I-1, I-2: a crash between our commit and the write into mcp-remote's file: the file holds what is spent. Whoever
/// refreshes next does not go back to it, and writes what is newest there before anything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_write_goes_back_to_nothing() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_, session) = desk.joined().await;
    let spent = desk.rival.tokens();
    session.refresh(true).await.unwrap();
    let ours = desk.rival.access();
    desk.rival.put("tokens.json", &spent);
    let (other, session) = desk.joined().await;
    assert_eq!(session.header().await.unwrap(), format!("Bearer {ours}"));
    let id = other.shared.credential_id(&desk.key().await);
    let Locked::Got(lease) = other.shared.try_lock(LockName::Refresh(id)).await.unwrap() else {
        panic!("nobody has it");
    };
    drop(other.shared.read(&desk.key().await).await.unwrap());
    assert_eq!(
        desk.rival.access(),
        ours,
        "written as soon as the lock is had"
    );
    drop(lease);
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert!(desk.rival.refresh(&desk.lab).await.is_some());
    assert_eq!(desk.counts().1, 0);
}

/// I-2: a crash after the write and before it was remembered: the content is ours, and so is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_the_write_forgets_nothing() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_, session) = desk.joined().await;
    let link = std::fs::read_dir(desk.links())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let before = std::fs::read(&link).unwrap();
    session.refresh(true).await.unwrap();
    std::fs::write(&link, before).unwrap();
    let written = desk.rival.tokens();
    let (_, session) = desk.joined().await;
    assert!(session.refresh(true).await.unwrap().refreshed);
    // What was ours, and spent since, comes back: it is known.
    desk.rival.put("tokens.json", &written);
    let (_, session) = desk.joined().await;
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert_eq!(desk.counts().1, 0);
}

/// F-29: a folder restored from a backup: what nobody here has seen, and is days older than what we have, is spent.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_folder_is_not_believed() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_, session) = desk.joined().await;
    let mut old = desk.rival.tokens();
    old["access_token"] = "from-a-backup".into();
    old["refresh_token"] = "spent-long-ago".into();
    old["expires_at"] = (now_ms() - 3 * 86_400_000).into();
    desk.rival.put("tokens.json", &old);
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert_eq!(
        desk.rival.access(),
        session.token(None).await.unwrap().access_token.expose()
    );
    let stats = desk.lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(stats.refresh_err, 0);
}

/// F-06: a file that cannot be written: ours is durable all the same, and theirs follows as soon as it can.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_is_made_up_for() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_ours, session) = desk.joined().await;
    let before = desk.rival.access();
    // A folder in the file's place: it cannot be replaced, whoever we are.
    let (file, aside) = (
        desk.rival.path("tokens.json"),
        desk.folder.path().join("aside"),
    );
    std::fs::rename(&file, &aside).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert!(
        desk.rival.is_marked(),
        "until it is written nobody else spends what is spent"
    );
    // Another process of ours need not wait for that: our own lock keeps the two apart.
    let other = desk.process();
    let second = other
        .sessions
        .get(&desk.url(), &Account::default())
        .await
        .unwrap();
    let done = tokio::time::timeout(Duration::from_secs(5), second.refresh(true)).await;
    assert!(done.expect("it waits for nobody").unwrap().refreshed);
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    let newest = second.token(None).await.unwrap().access_token;
    assert_ne!(before, newest.expose());
    let written = async {
        while desk.rival.access() != newest.expose() || desk.rival.is_marked() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), written)
        .await
        .expect("written");
    assert!(desk.rival.refresh(&desk.lab).await.is_some());
    assert_eq!(desk.counts().1, 0);
}

/// F-02, F-21: six processes of ours and mcp-remote over one login that all want to refresh: never two at once, no spent token.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_refreshes_one_by_one() {
    let desk = Arc::new(Desk::new(|issuer| issuer.reuse_grace = None).await);
    let (_first, _) = desk.joined().await;
    let mut crowd = Vec::new();
    for _ in 0..6 {
        let shared = Shared::over(desk.inner.clone(), desk.links(), Arc::new(SystemClock));
        let sessions = pilotlight::Sessions::builder(Arc::new(shared))
            .open()
            .unwrap();
        let desk = desk.clone();
        crowd.push(tokio::spawn(async move {
            let session = sessions
                .get(
                    &desk.url(),
                    &pilotlight::core::credential::Account::default(),
                )
                .await
                .unwrap();
            for _ in 0..4 {
                session.refresh(true).await.unwrap();
            }
        }));
    }
    let theirs = tokio::spawn({
        let desk = desk.clone();
        async move {
            for _ in 0..6 {
                // As it does: somebody else's marker is waited for.
                while desk.rival.is_marked() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let other = Alive::new();
                if desk.rival.try_mark(other.pid()) {
                    assert!(desk.rival.spend(&desk.lab).await.is_some());
                    desk.rival.unmark();
                }
            }
        }
    });
    for one in crowd {
        one.await.unwrap();
    }
    theirs.await.unwrap();
    let (refreshed, spent, _) = desk.counts();
    assert!(
        refreshed >= 6 && spent == 0,
        "{refreshed} refreshes, {spent} spent"
    );
}

/// I-6, F-06: what mcp-remote has written while our call was on its way is not written over because the file beside it, of its
/// client, cannot be read just then: each of the two counts by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_client_hides_no_later_tokens() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_ours, session) = desk.joined().await;
    let client = desk.rival.read("client_info.json").unwrap();
    let mut later = desk.rival.tokens();
    later["access_token"] = "theirs".into();
    later["refresh_token"] = "theirs too".into();
    desk.lab
        .with_issuer(|issuer| issuer.push_fault(Fault::DelayAnswer { ms: 1500 }));
    let before = desk.counts();
    let refreshes = {
        let session = session.clone();
        tokio::spawn(async move { session.refresh(true).await })
    };
    while desk.counts() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    desk.rival.put("tokens.json", &later);
    std::fs::write(desk.rival.path("client_info.json"), "{\"client_i").unwrap();
    assert!(refreshes.await.unwrap().unwrap().refreshed);
    assert_eq!(desk.rival.tokens(), later);
    // It is the same login all the same: once both can be read, theirs is taken over.
    desk.rival.put("client_info.json", &client);
    session.refresh(false).await.unwrap();
    let token = session.token(None).await.unwrap().access_token;
    assert_eq!(token.expose(), "theirs");
}

/// I-1, F-06: the tokens count by themselves also before a call of ours: later ones are taken over, and nothing of ours is spent;
/// where there are none, our refresh does not wait for the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_client_holds_no_refresh_up() {
    let desk = Desk::new(|issuer| issuer.reuse_grace = None).await;
    let (_ours, session) = desk.joined().await;
    let theirs = desk.rival.refresh(&desk.lab).await.unwrap();
    std::fs::write(desk.rival.path("client_info.json"), "{\"client_i").unwrap();
    let before = desk.counts();
    session.refresh(false).await.unwrap();
    let token = session.token(None).await.unwrap().access_token;
    assert_eq!(token.expose(), theirs);
    assert_eq!(desk.counts(), before, "nothing was spent");
    assert!(session.refresh(true).await.unwrap().refreshed);
    assert_eq!(desk.counts().1, 0);
    let token = session.token(None).await.unwrap().access_token;
    assert_eq!(desk.rival.access(), token.expose(), "and is written");
}

/// The same while nothing else is written there: a later version is of the client that the login was shared with, and
/// mcp-remote gets it; a new login may be of any, and ends sharing.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_client_is_not_taken_for_the_same() {
    let desk = Desk::new(|issuer| issuer.access_ttl = Duration::from_secs(20)).await;
    let (ours, session) = desk.joined().await;
    let client = desk.rival.read("client_info.json").unwrap();
    std::fs::write(desk.rival.path("client_info.json"), "{\"client_i").unwrap();
    assert!(session.refresh(true).await.unwrap().refreshed);
    let token = session.token(None).await.unwrap().access_token;
    assert_eq!(desk.rival.access(), token.expose());
    desk.rival.put("client_info.json", &client);
    assert!(session.refresh(true).await.unwrap().refreshed);

    let theirs = desk.rival.tokens();
    std::fs::write(desk.rival.path("client_info.json"), "{\"client_i").unwrap();
    let person = pilotlight::Sessions::builder(Arc::new(ours.shared.clone()))
        .human(Arc::new(Clicks(ScriptedHuman::allows())))
        .open()
        .unwrap();
    let mut request = LoginRequest::new(desk.url(), Account::default());
    request.bearer = true;
    person.login(request).await.unwrap();
    assert_eq!(desk.rival.tokens(), theirs);
    assert!(!ours.shared.is_shared(&desk.key().await).await);
}
