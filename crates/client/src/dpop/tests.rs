//! The exchange at a token endpoint that is two requests and one call, with scripted answers.

use std::{collections::VecDeque, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderName;
use pilotlight_core::{
    exchange::{Leg, Reply},
    time::Mono,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::{
    clock::{Clock, SystemClock},
    http::Http,
    human::Refuse,
    secrets::FileSecrets,
    store::MemoryStore,
};

/// Answers what it is told to, and nothing where it is told nothing more; keeps the time as every implementation must.
#[derive(Debug, Default)]
struct Scripted {
    answers: Mutex<VecDeque<(Duration, Exchanged)>>,
    sent: Mutex<Vec<Exchange>>,
}

#[async_trait]
impl Http for Scripted {
    async fn send(&self, exchange: Exchange) -> Exchanged {
        let (within, sent_at, host) = (exchange.within, SystemClock.now(), exchange.host());
        lock(&self.sent).push(exchange);
        let next = lock(&self.answers).pop_front();
        let answer = async {
            match next {
                Some((took, answer)) => {
                    tokio::time::sleep(took).await;
                    answer
                }
                None => std::future::pending().await,
            }
        };
        let in_time = tokio::time::timeout(within, answer).await;
        in_time.unwrap_or_else(|_| {
            Err(Failure {
                delivery: Delivery::Ambiguous,
                fault: Fault::Deadline(within),
                host,
                sent_at,
            })
        })
    }
}

impl Scripted {
    fn of(answers: Vec<(u64, Exchanged)>) -> Arc<Self> {
        let answers = answers.into_iter();
        let answers = answers.map(|(seconds, answer)| (Duration::from_secs(seconds), answer));
        Arc::new(Self {
            answers: Mutex::new(answers.collect()),
            sent: Mutex::default(),
        })
    }

    /// What was sent: the claims of each proof, and until when it may leave.
    fn sent(&self) -> Vec<(Value, Option<Mono>)> {
        let sent = lock(&self.sent);
        let claims = |exchange: &Exchange| {
            let mut proofs = exchange.headers.get_all(PROOF_FIELD).iter();
            let proof = proofs.next().unwrap().to_str().unwrap().to_owned();
            assert!(proofs.next().is_none());
            let payload = proof.split('.').nth(1).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
        };
        let all = sent.iter();
        all.map(|exchange| (claims(exchange), exchange.not_after))
            .collect()
    }
}

fn driver(http: &Arc<Scripted>, peers: &Peers) -> Driver {
    let clock = Arc::new(SystemClock);
    Driver {
        store: Arc::new(MemoryStore::new(clock.clone())),
        http: http.clone(),
        human: Arc::new(Refuse),
        secrets: Arc::new(FileSecrets),
        peers: peers.clone(),
        clock,
        lock_wait: Duration::ZERO,
        human_wait: Duration::ZERO,
        answered: Arc::default(),
    }
}

fn ordered() -> Exchange {
    let body = Zeroizing::new(b"grant_type=refresh_token".to_vec());
    let url = Url::parse("https://as.example/token?tenant=1").unwrap();
    let mut exchange = Exchange::post(Leg::Token, url, "token_endpoint", HeaderMap::new(), body);
    exchange.not_after = Some(Mono(4711));
    exchange.orders.proof = Some(new_key().unwrap());
    exchange
}

fn reply(status: u16, body: &Value, headers: &[(&'static str, &str)]) -> Exchanged {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    Ok(Reply {
        status,
        headers: map,
        body: Zeroizing::new(body.to_string().into_bytes()),
        sent_at: SystemClock.now(),
    })
}

fn wants(nonce: &str) -> Exchanged {
    let body = json!({ "error": "use_dpop_nonce" });
    reply(400, &body, &[("dpop-nonce", nonce)])
}

fn granted(nonce: &str) -> Exchanged {
    reply(200, &json!({}), &[("dpop-nonce", nonce)])
}

fn status(exchanged: &Exchanged) -> u16 {
    exchanged.as_ref().unwrap().status
}

/// EXT-31, T-32, F-04: the repeat with the nonce has a proof of its own, and the window of the call still binds it; the
/// nonce that comes with the tokens is the next one's.
#[tokio::test]
async fn the_repeat_is_another_proof_in_the_same_window() {
    let http = Scripted::of(vec![
        (0, wants("one")),
        (0, granted("two")),
        (0, granted("three")),
    ]);
    let peers = Peers::default();
    let (key, driver) = (ordered(), driver(&http, &peers));
    assert_eq!(status(&driver.send_proven(key.clone()).await), 200);
    assert_eq!(status(&driver.send_proven(key).await), 200);
    let sent = http.sent();
    let nonces: Vec<_> = sent
        .iter()
        .map(|(claims, _)| claims["nonce"].clone())
        .collect();
    assert_eq!(nonces, [Value::Null, json!("one"), json!("two")]);
    assert!(sent.iter().all(|(_, until)| *until == Some(Mono(4711))));
    assert!(
        sent.iter()
            .all(|(claims, _)| claims["htu"] == "https://as.example/token")
    );
    assert!(sent.iter().all(|(claims, _)| claims["ath"].is_null()));
    let (first, second) = (&sent[0].0["jti"], &sent[1].0["jti"]);
    assert!(first.is_string() && first != second);
}

/// T-32: two attempts at most; what the second is answered is the answer.
#[tokio::test]
async fn two_attempts_and_no_more() {
    let http = Scripted::of(vec![
        (0, wants("one")),
        (0, wants("two")),
        (0, granted("three")),
    ]);
    let done = driver(&http, &Peers::default())
        .send_proven(ordered())
        .await;
    assert_eq!((status(&done), http.sent().len()), (400, 2));
}

/// EXT-31: only what is about the proof is repeated, and only where there is something to do otherwise.
#[tokio::test]
async fn nothing_else_is_repeated() {
    let nonce = [("dpop-nonce", "n")];
    let error = |name: &str| json!({ "error": name });
    for (what, answer) in [
        ("no nonce", reply(400, &error("use_dpop_nonce"), &[])),
        (
            "two nonces",
            reply(400, &error("use_dpop_nonce"), &[nonce[0], nonce[0]]),
        ),
        ("another error", reply(400, &error("invalid_grant"), &nonce)),
        ("a failure", reply(500, &error("use_dpop_nonce"), &nonce)),
        (
            "no OAuth error",
            reply(401, &json!("use_dpop_nonce"), &nonce),
        ),
        (
            "the same time",
            reply(400, &error("invalid_dpop_proof"), &nonce),
        ),
    ] {
        let http = Scripted::of(vec![(0, answer), (0, granted("x"))]);
        let done = driver(&http, &Peers::default())
            .send_proven(ordered())
            .await;
        assert_ne!(status(&done), 200, "{what}");
        assert_eq!(http.sent().len(), 1, "{what}");
    }
}

/// T-32: a proof that is refused for its time is made anew by the server's clock, once that has been seen.
#[tokio::test]
async fn the_time_is_the_servers() {
    let date = "Thu, 01 Jan 2099 00:00:00 GMT";
    let refused = || {
        let body = json!({ "error": "invalid_dpop_proof" });
        reply(400, &body, &[("date", date)])
    };
    let http = Scripted::of(vec![
        (0, refused()),
        (0, granted("x")),
        (0, refused()),
        (0, refused()),
    ]);
    let (peers, order) = (Peers::default(), ordered());
    let driver = driver(&http, &peers);
    assert_eq!(status(&driver.send_proven(order.clone()).await), 200);
    let sent = http.sent();
    let expected = Wall::from_http_date(date).unwrap().unix_seconds();
    assert!(sent[0].0["iat"].as_u64().unwrap() < expected - 1_000_000);
    assert!(sent[1].0["iat"].as_u64().unwrap().abs_diff(expected) <= 2);
    // The time was right: a repeat would be the same again.
    assert_eq!(status(&driver.send_proven(order).await), 400);
    assert_eq!(http.sent().len(), 3);
}

/// EXT-31, I-17: both attempts fit into the time that the call may take as a whole, which for a repeat is less than its leg's;
/// the second may have been delivered, and what is told is the time of the whole call.
#[tokio::test(start_paused = true)]
async fn both_attempts_have_one_limit() {
    for within in [Leg::Token.deadline(), Duration::from_secs(20)] {
        let took = within.as_secs() - 10;
        let http = Scripted::of(vec![(took, wants("one"))]);
        let mut order = ordered();
        order.within = within;
        let begun = tokio::time::Instant::now();
        let done = driver(&http, &Peers::default()).send_proven(order).await;
        let failure = done.unwrap_err();
        assert_eq!(failure.delivery, Delivery::Ambiguous);
        assert_eq!(failure.fault, Fault::Deadline(within));
        assert_eq!(begun.elapsed().as_secs(), within.as_secs());
        let limits: Vec<_> = lock(&http.sent)
            .iter()
            .map(|sent| sent.within.as_secs())
            .collect();
        assert_eq!(limits, [within.as_secs(), 10]);
    }
}

/// EXT-31, F-04: a repeat that would leave too late stays, and the flow learns that nothing was delivered.
#[tokio::test]
async fn a_repeat_that_is_too_late_is_not_delivered() {
    let late = Err(Failure {
        delivery: Delivery::NotDelivered,
        fault: Fault::TooLate,
        host: "as.example".into(),
        sent_at: SystemClock.now(),
    });
    let http = Scripted::of(vec![(0, wants("one")), (0, late)]);
    let done = driver(&http, &Peers::default())
        .send_proven(ordered())
        .await;
    let failure = done.unwrap_err();
    assert_eq!(
        (failure.delivery, failure.fault),
        (Delivery::NotDelivered, Fault::TooLate)
    );
    assert_eq!(http.sent().len(), 2);
}

/// EXT-31: the nonces of a server's two roles are kept apart, and so are those of two servers.
#[test]
fn nonces_belong_to_one_server_in_one_role() {
    let (peers, now) = (Peers::default(), Wall(0));
    let at = |text: &str| Url::parse(text).unwrap().origin();
    let (one, other) = (
        at("https://one.example/a"),
        at("https://one.example:8443/a"),
    );
    let gives = |nonce: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("dpop-nonce", nonce.parse().unwrap());
        headers
    };
    peers.learn(Role::Issuer, &one, &gives("as"), now);
    peers.learn(Role::Resource, &one, &gives("rs"), now);
    let nonce = |role, at| peers.of(role, at).nonce;
    assert_eq!(nonce(Role::Issuer, &one).as_deref(), Some("as"));
    assert_eq!(nonce(Role::Resource, &one).as_deref(), Some("rs"));
    assert_eq!(nonce(Role::Issuer, &other), None);
    // An answer without one takes nothing away.
    peers.learn(Role::Issuer, &one, &HeaderMap::new(), now);
    assert_eq!(nonce(Role::Issuer, &one).as_deref(), Some("as"));
}

/// T-32: a date is cut to the second and takes its time: a few seconds are no other clock.
#[test]
fn a_few_seconds_are_no_other_clock() {
    let noon = Wall::from_unix_seconds(1_000_000);
    assert_eq!(ahead(noon + Duration::from_secs(4), noon), 0);
    assert_eq!(ahead(noon + Duration::from_secs(3600), noon), 3_600_000);
    assert_eq!(ahead(noon, noon + Duration::from_secs(3600)), -3_600_000);
}
