//! Tokens that are bound to a key (RFC 9449), on real sockets: an issuer that binds them and a server that checks each proof.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use pilotlight::{
    Error, LoginRequest, Session, Sessions,
    clock::{Clock, SystemClock},
    core::{
        credential::{Account, Credential, TokenType},
        resource::Resource,
    },
    store::{MemoryStore, Store},
};
use pilotlight_testkit::{
    Fault, Lab, LabConfig, ScriptedHuman,
    authorization_server::{ProofRules, Taken},
};
use serde_json::json;

use crate::sessions::Clicks;

/// An issuer that binds tokens, and a server of its own kind.
pub(crate) async fn lab(change: impl FnOnce(&mut LabConfig)) -> Lab {
    let config = LabConfig::default().with(|lab| {
        lab.authorization_server.dpop = Some(ProofRules::default());
        lab.mcp_server.challenges_dpop = true;
        change(lab);
    });
    Lab::start(config).await.unwrap()
}

pub(crate) fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

/// A process over a store; two over one store share nothing else.
pub(crate) fn process(store: &Arc<dyn Store>, clock: Arc<dyn Clock>) -> Sessions {
    Sessions::builder(store.clone())
        .human(Arc::new(Clicks(ScriptedHuman::allows())))
        .clock(clock)
        .open()
        .unwrap()
}

fn url(lab: &Lab) -> Resource {
    Resource::parse(lab.resource_url()).unwrap()
}

pub(crate) async fn log_in(sessions: &Sessions, lab: &Lab) -> Result<Session, Error> {
    let request = LoginRequest::new(url(lab), Account::default());
    sessions.login(request).await?;
    sessions.get(&url(lab), &Account::default()).await
}

/// A process that has logged in.
pub(crate) async fn logged_in(lab: &Lab) -> (Sessions, Session) {
    let sessions = process(&memory(), Arc::new(SystemClock));
    let session = log_in(&sessions, lab).await.unwrap();
    (sessions, session)
}

fn request(lab: &Lab, query: &str) -> http::request::Builder {
    Request::post(format!("{}{query}", lab.resource_url()))
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
}

fn listing() -> Bytes {
    Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)
}

/// One request; whether the server took its token.
pub(crate) async fn ask(session: &Session, lab: &Lab) -> Result<(), Error> {
    let request = request(lab, "").body(listing()).unwrap();
    let status = session.send(request).await?.status();
    assert_ne!(status, StatusCode::UNAUTHORIZED);
    Ok(())
}

/// The proofs that the issuer and the server took, in order.
pub(crate) fn taken(lab: &Lab) -> (Vec<Taken>, Vec<Taken>) {
    (
        lab.with_issuer(|issuer| issuer.proofs().taken.clone()),
        lab.with_mcp(|server| server.proofs().taken.clone()),
    )
}

/// Why the issuer and the server refused proofs, in order.
pub(crate) fn refused(lab: &Lab) -> (Vec<&'static str>, Vec<&'static str>) {
    let errors = |all: &[(&'static str, _)]| all.iter().map(|(error, _)| *error).collect();
    (
        lab.with_issuer(|issuer| errors(&issuer.proofs().refused)),
        lab.with_mcp(|server| errors(&server.proofs().refused)),
    )
}

/// No proof was sent twice, all are of one key, and no bound token ever went out as a bearer token.
pub(crate) fn in_order(lab: &Lab) {
    let (issuer, server) = taken(lab);
    let all: Vec<_> = issuer.iter().chain(&server).collect();
    let ids: BTreeSet<_> = all.iter().map(|proof| &proof.jti).collect();
    assert_eq!(ids.len(), all.len(), "each proof is another");
    let keys: BTreeSet<_> = all.iter().map(|proof| &proof.key).collect();
    assert_eq!(keys.len(), 1, "one login has one key");
    assert_eq!(lab.with_mcp(|server| server.stats().bound_as_bearer), 0);
}

async fn stored(sessions: &Sessions, session: &Session) -> Credential {
    let key = session.status().await.unwrap().binding.credential.unwrap();
    let record = sessions.store().read(&key).await.unwrap().unwrap();
    record.credential.unwrap()
}

/// EXT-30, T-32: where the issuer binds tokens the code is exchanged with a proof, and each request has one of its own: for
/// its method, its URL without the query, and its token. The server checks all of it.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_a_proof_of_its_own() {
    let lab = lab(|_| {}).await;
    let (_, session) = logged_in(&lab).await;
    let asked = (0..20).map(|_| ask(&session, &lab));
    for answer in futures_util::future::join_all(asked).await {
        answer.unwrap();
    }
    let queried = request(&lab, "?secret=1&b=2").body(listing()).unwrap();
    assert_ne!(
        session.send(queried).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    let ended = Request::delete(lab.resource_url())
        .body(Bytes::new())
        .unwrap();
    assert_ne!(
        session.send(ended).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );

    let (issuer, server) = taken(&lab);
    assert_eq!((issuer.len(), server.len()), (1, 22));
    assert_eq!(refused(&lab), (vec![], vec![]));
    assert!(issuer[0].url.ends_with("/token") && issuer[0].method == "POST");
    assert!(server.iter().all(|proof| proof.url == lab.resource_url()));
    assert_eq!(server[21].method, "DELETE");
    in_order(&lab);
}

/// EXT-30: a caller's own proof, were it twice, is replaced: a request has exactly one.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_of_the_caller_is_replaced() {
    let lab = lab(|_| {}).await;
    let (_, session) = logged_in(&lab).await;
    let own = request(&lab, "")
        .header("DPoP", "one")
        .header("dpop", "two");
    let answer = session.send(own.body(listing()).unwrap()).await.unwrap();
    assert_ne!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((taken(&lab).1.len(), refused(&lab).1.len()), (1, 0));
}

/// EXT-30, EXT-32: a refresh proves the same key, and the request that a 401 stopped goes out again with another proof.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_keeps_the_key() {
    let lab = lab(|_| {}).await;
    let (sessions, session) = logged_in(&lab).await;
    ask(&session, &lab).await.unwrap();
    let before = stored(&sessions, &session).await;
    lab.with_issuer(|issuer| issuer.revoke_access());
    ask(&session, &lab).await.unwrap();
    session.refresh(true).await.unwrap();
    ask(&session, &lab).await.unwrap();
    let after = stored(&sessions, &session).await;
    assert_eq!(after.version.generation.0, 2);
    assert_eq!(after.token_type, TokenType::Dpop);
    assert!(after.proof_key.is_some() && after.proof_key == before.proof_key);
    let (issuer, server) = taken(&lab);
    assert_eq!((issuer.len(), server.len()), (3, 3));
    in_order(&lab);
}

/// EXT-30, F-03, T-32: a refresh whose answer is lost is repeated with a proof of its own: the issuer takes none twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_has_a_proof_of_its_own() {
    let lab = lab(|lab| {
        lab.authorization_server.reuse_grace = Some(Duration::from_secs(30));
    })
    .await;
    let (_, session) = logged_in(&lab).await;
    lab.with_issuer(|issuer| issuer.push_fault(Fault::Lose));
    assert!(session.refresh(true).await.unwrap().refreshed);
    ask(&session, &lab).await.unwrap();
    let stats = lab.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!((stats.spent_presented, stats.reuse_revocations), (1, 0));
    assert_eq!((taken(&lab).0.len(), refused(&lab).0.len()), (3, 0));
    in_order(&lab);
}

/// EXT-32: the key lies sealed beside the tokens: a process that begins anew proves it, at the server and at the refresh, and
/// no file shows it.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn the_key_survives_a_restart() {
    use pilotlight::store::{SqliteStore, SqliteStoreConfig};
    let lab = lab(|_| {}).await;
    let dir = tempfile::tempdir().unwrap();
    let open = || -> Arc<dyn Store> {
        let (data, key) = (dir.path().join("data"), dir.path().join("key"));
        let config = SqliteStoreConfig::new(data, key, "test", Arc::new(SystemClock));
        Arc::new(SqliteStore::open(&config).unwrap())
    };
    let key = {
        let sessions = process(&open(), Arc::new(SystemClock));
        let session = log_in(&sessions, &lab).await.unwrap();
        ask(&session, &lab).await.unwrap();
        sessions.drain(Duration::from_secs(5)).await;
        stored(&sessions, &session).await.proof_key.unwrap()
    };
    let sessions = process(&open(), Arc::new(SystemClock));
    let session = sessions.get(&url(&lab), &Account::default()).await.unwrap();
    ask(&session, &lab).await.unwrap();
    assert!(session.refresh(true).await.unwrap().refreshed);
    ask(&session, &lab).await.unwrap();
    let (issuer, server) = taken(&lab);
    assert_eq!((issuer.len(), server.len()), (2, 3));
    in_order(&lab);

    let pkcs8 = key.pkcs8();
    let secret = &pkcs8[36..68];
    let mut looked_at = 0;
    for entry in walk(dir.path()) {
        let bytes = std::fs::read(&entry).unwrap();
        looked_at += 1;
        assert!(!holds(&bytes, secret), "{}", entry.display());
        let text = serde_json::to_value(&key).unwrap()["secret"].clone();
        assert!(!holds(&bytes, text.as_str().unwrap().as_bytes()));
    }
    assert!(looked_at >= 3, "{looked_at} files");
}

#[cfg(feature = "sqlite")]
fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[cfg(feature = "sqlite")]
fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// EXT-30: a header alone is of no use, so none is handed out; the token itself is, with its kind.
#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_has_no_header_of_its_own() {
    let lab = lab(|_| {}).await;
    let (_, session) = logged_in(&lab).await;
    assert_eq!(session.header().await, Err(Error::ConfigProofNeeded));
    assert_eq!(session.ready(), None);
    ask(&session, &lab).await.unwrap();
    assert_eq!(session.ready(), None);
    assert_eq!(
        session.header().await.unwrap_err().code(),
        "config.proof_needed"
    );
    let token = session.token(None).await.unwrap();
    assert_eq!(token.token_type, TokenType::Dpop);
    session.prepare().await.unwrap();
}

/// EXT-30: an issuer that binds nothing although it says so is taken at its answer; the token is a bearer token then.
#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_token_in_the_answer_is_a_bearer_token() {
    let lab = lab(|lab| {
        lab.authorization_server.dpop_answers_bearer = true;
        lab.mcp_server.challenges_dpop = false;
    })
    .await;
    let (_, session) = logged_in(&lab).await;
    assert_eq!(taken(&lab).0.len(), 1, "a proof was offered");
    let header = session.header().await.unwrap();
    assert!(header.to_str().unwrap().starts_with("Bearer "));
    assert!(session.ready().is_some());
    let (mut parts, ()) = request(&lab, "").body(()).unwrap().into_parts();
    session.authorize(&mut parts).await.unwrap();
    assert!(!parts.headers.contains_key("dpop"));
    ask(&session, &lab).await.unwrap();
    assert!(session.refresh(true).await.unwrap().refreshed);
    ask(&session, &lab).await.unwrap();
}

/// EXT-30: no proof goes to an issuer that does not know of them.
#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_without_proofs_gets_none() {
    let lab = lab(|lab| {
        lab.authorization_server.dpop = None;
        lab.mcp_server.challenges_dpop = false;
    })
    .await;
    let (sessions, session) = logged_in(&lab).await;
    ask(&session, &lab).await.unwrap();
    assert!(session.refresh(true).await.unwrap().refreshed);
    let credential = stored(&sessions, &session).await;
    assert_eq!(
        (credential.token_type, credential.proof_key),
        (TokenType::Bearer, None)
    );
}

/// EXT-30, RFC 9728 section 2: a server that takes bound tokens only, with an issuer that binds none, is an error before
/// anything is registered or shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_bound_tokens_and_gets_none_is_an_error() {
    let wants = |lab: &mut LabConfig| {
        lab.mcp_server.metadata_overrides = json!({ "dpop_bound_access_tokens_required": true });
    };
    let without = lab(|lab| {
        wants(lab);
        lab.authorization_server.dpop = None;
    })
    .await;
    let sessions = process(&memory(), Arc::new(SystemClock));
    let error = log_in(&sessions, &without).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("peer.no_dpop", 5));
    let stats = without.with_issuer(|issuer| issuer.stats().clone());
    assert_eq!(
        (stats.registrations, stats.authorize, stats.token),
        (0, 0, 0)
    );

    let with = lab(wants).await;
    let (_, session) = logged_in(&with).await;
    ask(&session, &with).await.unwrap();
    in_order(&with);
}
