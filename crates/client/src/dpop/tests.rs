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
        deliveries: Arc::default(),
        owner: None,
        secrets: Arc::new(FileSecrets),
        peers: peers.clone(),
        clock,
        lock_wait: Duration::ZERO,
        human_wait: Duration::ZERO,
        success_url: None,
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

/// T-32: a date is cut to the second and takes its time: what is less than five seconds is no other clock, ahead or behind.
#[test]
fn a_few_seconds_are_no_other_clock() {
    let noon = Wall::from_unix_seconds(1_000_000);
    for (ms, other) in [(0, 0), (4_999, 0), (5_000, 5_000), (3_600_000, 3_600_000)] {
        let late = noon + Duration::from_millis(ms);
        assert_eq!(ahead(late, noon), other, "{ms}");
        assert_eq!(ahead(noon, late), -other, "{ms}");
    }
}

/// T-32: what was learned of a clock goes once an answer shows that it is right.
#[test]
fn a_clock_that_was_set_right_is_right() {
    let (peers, noon) = (Peers::default(), Wall::from_http_date(NOON).unwrap());
    let at = Url::parse("https://as.example").unwrap().origin();
    let mut answer = HeaderMap::new();
    answer.insert(DATE, NOON.parse().unwrap());
    for (ours, other) in [(1800, 1800), (3, 0), (-1800, -1800), (0, 0)] {
        let ours = Wall(noon.0.saturating_add_signed(-ours * 1000));
        assert_eq!(
            peers.learn(Role::Issuer, &at, &answer, ours).ahead,
            other * 1000
        );
        assert_eq!(peers.of(Role::Issuer, &at).ahead, other * 1000);
    }
}

/// A key, as it lies in a file.
#[derive(Debug)]
struct Slowly(u64);

#[async_trait]
impl crate::secrets::Secrets for Slowly {
    async fn read(&self, _: &crate::secrets::SecretRef) -> Result<Zeroizing<Vec<u8>>, Error> {
        tokio::time::sleep(Duration::from_secs(self.0)).await;
        Ok(Zeroizing::new(include_bytes!("../sign/ec.pem").to_vec()))
    }
}

/// A call that a client's key signs.
fn signed(leg: Leg) -> Exchange {
    let mut exchange = ordered();
    (exchange.leg, exchange.within) = (leg, leg.deadline());
    exchange.orders.proof = None;
    let reference = crate::secrets::SecretRef::file("/run/key").unwrap();
    exchange.orders.assertion = Some(pilotlight_core::exchange::AssertionOrder {
        key: pilotlight_core::assertion::ClientKey::new(reference),
        client_id: "service".into(),
        audience: pilotlight_core::issuer::Issuer::parse("https://as.example").unwrap(),
    });
    exchange
}

/// When each assertion says that it was made.
fn made_at(http: &Scripted) -> Vec<u64> {
    let sent = lock(&http.sent);
    let claims = |exchange: &Exchange| -> Value {
        let mut form = url::form_urlencoded::parse(&exchange.body);
        let (_, assertion) = form.find(|(name, _)| name == "client_assertion").unwrap();
        let payload = assertion.split('.').nth(1).unwrap().to_owned();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    };
    let all = sent.iter();
    all.map(|one| claims(one)["iat"].as_u64().unwrap())
        .collect()
}

fn with_key(http: &Arc<Scripted>, peers: &Peers, takes: u64) -> Driver {
    Driver {
        secrets: Arc::new(Slowly(takes)),
        ..driver(http, peers)
    }
}

/// F-19, T-32: a client's assertion that an issuer with another clock refuses is made anew by that clock, once, in the same call,
/// and dated so from then on: at its token endpoint as at that for revocations. A refusal by a clock like ours is one.
#[tokio::test]
async fn an_assertion_is_dated_by_the_clock_of_its_reader() {
    for leg in [Leg::Token, Leg::Revocation] {
        let refused = |date: &str| {
            let body = json!({ "error": "invalid_client" });
            reply(401, &body, &[("date", date)])
        };
        let date = "Thu, 01 Jan 2099 00:00:00 GMT";
        let http = Scripted::of(vec![
            (0, refused(date)),
            (0, reply(200, &json!({}), &[("date", date)])),
            (0, refused(date)),
            (0, refused(date)),
        ]);
        let driver = with_key(&http, &Peers::default(), 0);
        assert_eq!(status(&driver.send_proven(signed(leg)).await), 200);
        assert_eq!(status(&driver.send_proven(signed(leg)).await), 401);
        let theirs = Wall::from_http_date(date).unwrap().unix_seconds();
        let at = made_at(&http);
        assert_eq!(at.len(), 3, "{at:?}");
        assert!(at[0] < theirs - 1_000_000);
        assert!(at[1..].iter().all(|at| at.abs_diff(theirs) <= 2), "{at:?}");
    }
}

/// F-09, I-9: what a vault takes to give a key is part of the call's time, for both of its requests: the lease is held meanwhile.
/// One that takes all of it leaves nothing to be sent, and that is what is known.
#[tokio::test(start_paused = true)]
async fn a_reading_takes_its_time_from_the_call() {
    let http = Scripted::of(vec![]);
    let driver = with_key(&http, &Peers::default(), 7);
    let begun = tokio::time::Instant::now();
    let failure = driver.send_proven(signed(Leg::Token)).await.unwrap_err();
    assert_eq!(begun.elapsed(), Leg::Token.deadline());
    assert_eq!(lock(&http.sent)[0].within, Duration::from_secs(53));
    let whole = Fault::Deadline(Leg::Token.deadline());
    assert_eq!(
        (failure.delivery, failure.fault),
        (Delivery::Ambiguous, whole)
    );

    let mut hurried = signed(Leg::Token);
    hurried.within = Duration::from_secs(5);
    let failure = driver.send_proven(hurried).await.unwrap_err();
    assert_eq!(failure.delivery, Delivery::NotDelivered);
    assert_eq!(lock(&http.sent).len(), 1);
}

/// EXT-10, I-6: a key that is gone when a token is to be handed back: nothing is sent, and that is told as it is.
#[tokio::test]
async fn without_its_key_a_revocation_is_not_sent() {
    let http = Scripted::of(vec![]);
    let driver = driver(&http, &Peers::default());
    let failure = driver
        .send_proven(signed(Leg::Revocation))
        .await
        .unwrap_err();
    assert_eq!(failure.delivery, Delivery::NotDelivered);
    assert_eq!(failure.error().code(), "config.value");
    assert!(lock(&http.sent).is_empty());
}

const NOON: &str = "Thu, 01 Jan 2026 12:00:00 GMT";

/// EXT-31, I-1: an issuer asks for a nonce when next to nothing is left of the call's time: what it said is the answer, which is
/// that nothing was spent. A second request would be given up on its way, and nobody could know.
#[tokio::test(start_paused = true)]
async fn a_repeat_without_time_is_not_made() {
    for (within, sent) in [(10_000, 1), (10_900, 1), (11_000, 2)] {
        let http = Scripted::of(vec![(10, wants("one")), (0, granted("two"))]);
        let mut order = ordered();
        order.within = Duration::from_millis(within + 1);
        let done = driver(&http, &Peers::default()).send_proven(order).await;
        assert_eq!(http.sent().len(), sent, "{within}");
        assert_eq!(status(&done), if sent == 1 { 400 } else { 200 });
    }
}
