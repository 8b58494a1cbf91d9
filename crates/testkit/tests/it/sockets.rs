//! The lab on real sockets: a scripted login, lost answers, delays, control requests, and what leaks.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pilotlight_testkit::authorization_server::{Approval, Kind, Ledger, Outcome};
use pilotlight_testkit::fetch::{self, FetchError, Fetched};
use pilotlight_testkit::{Canaries, Fault, Lab, LabConfig, ScriptedHuman};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use url::Url;

use crate::world::{VERIFIER, challenge};

/// A client with one login, as small as it can be.
struct Client<'a> {
    lab: &'a Lab,
    client_id: String,
    body: Value,
}

impl<'a> Client<'a> {
    async fn login(lab: &'a Lab) -> Self {
        let (url, client_id, redirect_uri) = prepare(lab, 9).await;
        let last = ScriptedHuman::allows().without_callback().visit(&url).await;
        let last = Url::parse(&last.unwrap()).unwrap();
        let code = last
            .query_pairs()
            .find(|(name, _)| name == "code")
            .unwrap()
            .1;
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", &client_id),
            ("code", &code),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", VERIFIER),
            ("resource", lab.resource_url()),
        ];
        let answer = fetch::post_form(&format!("{}/token", lab.issuer()), &fields).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        Self {
            lab,
            client_id,
            body: answer.json(),
        }
    }

    async fn refresh(&self) -> Result<Fetched, FetchError> {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", &self.client_id),
            (
                "refresh_token",
                self.body["refresh_token"].as_str().unwrap(),
            ),
            ("resource", self.lab.resource_url()),
        ];
        fetch::post_form(&format!("{}/token", self.lab.issuer()), &fields).await
    }

    async fn discover(&self) -> Fetched {
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", self.body["access_token"].as_str().unwrap());
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&bearer).unwrap());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            "mcp-protocol-version",
            HeaderValue::from_static("2026-07-28"),
        );
        headers.insert("mcp-method", HeaderValue::from_static("server/discover"));
        let message = json!({
            "jsonrpc": "2.0", "id": 1, "method": "server/discover",
            "params": { "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            }},
        });
        let body = message.to_string().into_bytes();
        let url = self.lab.resource_url();
        fetch::exchange(Method::POST, url, headers, body)
            .await
            .unwrap()
    }
}

/// Registers a client and gives its login URL, its id and its redirect URI.
async fn prepare(lab: &Lab, callback_port: u16) -> (String, String, String) {
    let redirect_uri = format!("http://127.0.0.1:{callback_port}/callback");
    let body = json!({ "client_name": "<b>t</b>", "redirect_uris": [redirect_uri] }).to_string();
    let url = format!("{}/register", lab.issuer());
    let registered = fetch::post(&url, "application/json", body)
        .await
        .unwrap()
        .json();
    let client_id = registered["client_id"].as_str().unwrap().to_owned();
    let url = Url::parse_with_params(
        &format!("{}/authorize", lab.issuer()),
        [
            ("response_type", "code"),
            ("client_id", &client_id),
            ("redirect_uri", &redirect_uri),
            ("state", "st"),
            ("code_challenge", &challenge()),
            ("code_challenge_method", "S256"),
            ("resource", lab.resource_url()),
        ],
    );
    (url.unwrap().into(), client_id, redirect_uri)
}

/// Takes one callback and gives its request line.
async fn callback(listener: TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut buffer = vec![0; 4096];
    let read = stream.read(&mut buffer).await.unwrap();
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    stream.write_all(answer).await.unwrap();
    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
    text.lines().next().unwrap().to_owned()
}

async fn lab(change: impl FnOnce(&mut LabConfig)) -> Lab {
    Lab::start(LabConfig::default().with(change)).await.unwrap()
}

#[tokio::test]
async fn a_person_logs_in_and_the_token_works_until_it_expires() {
    let lab = lab(|config| config.issuer_path = "/tenant".into()).await;
    let client = Client::login(&lab).await;
    let found = client.discover().await;
    assert_eq!(found.status, StatusCode::OK, "{}", found.text());
    assert_eq!(found.json()["result"]["supportedVersions"][0], "2026-07-28");
    lab.clock().advance(Duration::from_secs(3600));
    assert_eq!(client.discover().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(client.refresh().await.unwrap().status, StatusCode::OK);
    lab.stop().await;
}

#[tokio::test]
async fn the_consent_page_leads_back_to_the_clients_callback() {
    let lab = lab(|config| config.authorization_server.approval = Approval::Page).await;
    for (human, expected) in [
        (ScriptedHuman::allows(), "/callback?code=code-"),
        (ScriptedHuman::denies(), "/callback?error=access_denied"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (url, ..) = prepare(&lab, port).await;
        let called = tokio::spawn(callback(listener));
        let last = human.visit(&url).await.unwrap();
        assert!(last.contains(expected), "{last}");
        let line = called.await.unwrap();
        assert!(line.starts_with(&format!("GET {expected}")), "{line}");
    }
}

#[tokio::test]
async fn an_error_page_is_an_error() {
    let lab = lab(|_| {}).await;
    let url = format!(
        "{}/authorize?client_id=x&redirect_uri=http://127.0.0.1:9/",
        lab.issuer()
    );
    let error = ScriptedHuman::allows().visit(&url).await.unwrap_err();
    assert!(error.to_string().contains("400"), "{error}");
    assert!(
        fetch::get("http://example.com/").await.is_err(),
        "loopback only"
    );
}

#[tokio::test]
async fn a_lost_answer_breaks_the_connection_after_processing() {
    let lab = lab(|_| {}).await;
    let client = Client::login(&lab).await;
    lab.with_issuer(|issuer| issuer.push_fault(Fault::Lose));
    assert!(client.refresh().await.is_err(), "no answer");
    let again = client.refresh().await.unwrap();
    assert_eq!(again.json()["error"], "invalid_grant", "it was processed");
    lab.with_issuer(|issuer| {
        let outcomes: Vec<_> = issuer.ledger().of(Kind::Refresh).collect();
        assert!(outcomes[0].answer_lost && outcomes[0].outcome == Outcome::Ok);
        assert_eq!(issuer.ledger().reuse().count(), 1);
    });
}

#[tokio::test]
async fn a_closed_connection_processed_nothing() {
    let lab = lab(|_| {}).await;
    let client = Client::login(&lab).await;
    lab.with_issuer(|issuer| issuer.push_fault(Fault::Close));
    assert!(client.refresh().await.is_err(), "no answer");
    assert_eq!(client.refresh().await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_delay_holds_the_request_back_and_a_client_that_leaves_changes_nothing() {
    let lab = lab(|_| {}).await;
    let client = Client::login(&lab).await;
    lab.with_issuer(|issuer| issuer.push_fault(Fault::Delay { ms: 150 }));
    let sent_at = Instant::now();
    // The client gives up long before the answer.
    let gave_up = tokio::time::timeout(Duration::from_millis(50), client.refresh()).await;
    assert!(gave_up.is_err());
    let refreshed = || lab.with_issuer(|issuer| issuer.stats().refresh_ok);
    while refreshed() == 0 && sent_at.elapsed() < Duration::from_secs(5) {
        tokio::task::yield_now().await;
    }
    assert_eq!(refreshed(), 1, "processed all the same");
    assert!(sent_at.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn control_requests_work_for_processes_and_not_for_web_pages() {
    let lab = lab(|_| {}).await;
    let client = Client::login(&lab).await;
    let issuer = |operation: &str| format!("{}{operation}", lab.issuer_control());
    let faults = json!([
        { "fault": "status", "status": 500 },
        { "fault": "raw200", "body": "{" },
        { "at": "register", "fault": "close" },
    ]);
    let queued = fetch::post(&issuer("fault"), "application/json", faults.to_string()).await;
    assert_eq!(queued.unwrap().json()["queued"], 3);
    assert_eq!(
        client.refresh().await.unwrap().status,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert_eq!(client.refresh().await.unwrap().text(), "{");

    let stats = fetch::get(&issuer("stats")).await.unwrap().json();
    assert_eq!((&stats["code_ok"], &stats["token"]), (&json!(1), &json!(3)));
    let ledger: Ledger =
        serde_json::from_value(fetch::get(&issuer("ledger")).await.unwrap().json()).unwrap();
    assert_eq!(lab.with_issuer(|issuer| issuer.ledger().clone()), ledger);

    let revoked = fetch::post(&issuer("revoke-access"), "text/plain", "")
        .await
        .unwrap();
    assert_eq!(revoked.json()["revoked"], 1);
    assert_eq!(client.discover().await.status, StatusCode::UNAUTHORIZED);
    let bad = fetch::post(&issuer("fault"), "application/json", "{}")
        .await
        .unwrap();
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    let unknown = fetch::get(&issuer("nothing")).await.unwrap();
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);

    let reject = format!("{}reject-next/1", lab.mcp_control());
    let told = fetch::post(&reject, "text/plain", "").await.unwrap();
    assert_eq!(told.json()["reject_next"], 1);
    let mut headers = HeaderMap::new();
    headers.insert(ORIGIN, HeaderValue::from_static("https://page.example"));
    let page = fetch::exchange(Method::POST, &issuer("revoke-all"), headers, Vec::new()).await;
    assert_eq!(page.unwrap().status, StatusCode::FORBIDDEN);
    assert_eq!(lab.with_issuer(|issuer| issuer.live_grants()), 1);
}

#[tokio::test]
async fn a_dropped_lab_no_longer_answers() {
    let lab = lab(|_| {}).await;
    let url = format!("{}stats", lab.issuer_control());
    assert!(fetch::get(&url).await.is_ok());
    drop(lab);
    let since = Instant::now();
    while fetch::get(&url).await.is_ok() {
        assert!(since.elapsed() < Duration::from_secs(5), "it still answers");
    }
}

#[tokio::test]
async fn secrets_of_the_issuer_are_found_in_files_and_not_in_its_ledger() {
    let lab = lab(|_| {}).await;
    let client = Client::login(&lab).await;
    client.refresh().await.unwrap();
    let mut canaries = Canaries::new();
    lab.with_issuer(|issuer| canaries.extend(issuer.issued_secrets()));
    assert!(canaries.len() >= 5, "{canaries:?}");

    let ledger = fetch::get(&format!("{}ledger", lab.issuer_control()))
        .await
        .unwrap();
    canaries.assert_absent(&ledger.body, "the ledger");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("below")).unwrap();
    std::fs::write(folder.path().join("clean"), "nothing to see").unwrap();
    canaries.assert_folder_clean(folder.path());
    std::fs::write(folder.path().join("below/log"), client.body.to_string()).unwrap();
    let leaks = canaries.scan_folder(folder.path()).unwrap();
    assert_eq!(leaks.len(), 2, "access and refresh token: {leaks:?}");
    assert!(leaks.iter().all(|leak| leak.what.ends_with("below/log")));
    canaries.assert_absent(format!("{leaks:?}"), "the report");
}
