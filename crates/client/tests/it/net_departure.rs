//! When the body of a token call leaves, and that it does not leave too late (F-04).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use pilotlight::{
    clock::{Clock as _, SystemClock},
    core::exchange::{Delivery, Exchange, Failure, Fault, Leg, Reply},
    http::Http as _,
};
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::net_http::support::{Certificate, Names, request, serve, token, trusting};

const SLOW: Duration = Duration::from_millis(400);

/// A token call to a server whose handshake takes [`SLOW`]; what the server read of it.
async fn call(alpn: &'static [u8], limit: Duration) -> (Result<Reply, Failure>, Vec<u8>) {
    let certificate = Certificate::of("as.test");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (read, acceptor) = (seen.clone(), certificate.acceptor(&[alpn]));
    let address = serve(move |stream| {
        let (read, acceptor) = (read.clone(), acceptor.clone());
        async move {
            tokio::time::sleep(SLOW).await;
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            if alpn == b"h2" {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((asked, mut respond))) = connection.accept().await {
                    let (head, mut body) = asked.into_parts();
                    read.lock()
                        .unwrap()
                        .extend(format!("{head:?}").into_bytes());
                    let read = read.clone();
                    tokio::spawn(async move {
                        while let Some(Ok(data)) = body.data().await {
                            read.lock().unwrap().extend_from_slice(&data);
                        }
                        let _ = respond.send_response(http::Response::new(()), true);
                    });
                }
            } else {
                let bytes = request(&mut stream).await;
                read.lock().unwrap().extend(bytes);
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                    .await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await;
    let client = trusting(&certificate)
        .with_lookup(Arc::new(Names::default().with("as.test", ["127.0.0.1"])));
    let url = Url::parse(&format!("https://as.test:{}/token", address.port())).unwrap();
    let exchange = Exchange {
        not_after: Some(SystemClock.now().mono + limit),
        ..token(url)
    };
    let answer = client.send(exchange).await;
    // What has left is on its way: it arrives well within this.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let seen = seen.lock().unwrap().clone();
    (answer, seen)
}

/// F-04: where the connection takes longer to stand than the call may wait, the token does not leave, over either protocol;
/// the failure says that nothing was delivered.
#[tokio::test]
async fn a_body_that_would_leave_too_late_stays() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let (answer, seen) = call(alpn, SLOW / 2).await;
        let failure = answer.unwrap_err();
        assert_eq!(
            (failure.delivery, failure.fault),
            (Delivery::NotDelivered, Fault::TooLate)
        );
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(!seen.contains("canary"), "{seen}");
    }
}

/// F-04: a body that is in time leaves whole, with its length, and the call counts from that moment: not from when the
/// connection was asked for.
#[tokio::test]
async fn a_call_counts_from_when_its_body_left() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let begun = SystemClock.now();
        let (answer, seen) = call(alpn, Duration::from_secs(20)).await;
        let reply = answer.unwrap();
        assert!(
            begun.mono.until(reply.sent_at.mono) >= SLOW,
            "{:?}",
            reply.sent_at
        );
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.ends_with("refresh_token=canary"), "{seen}");
        assert!(
            seen.contains("content-length: 45") || seen.contains(r#""content-length": "45""#),
            "{seen}"
        );
    }
}

/// F-10, DESIGN.md section 3, step 6: a repeat whose connection stood so late that nothing could follow it leaves on another,
/// which waits for a path that answers no ping; its body leaves once.
#[tokio::test]
async fn a_body_that_leaves_late_has_its_dead_path_waited_for() {
    let certificate = Certificate::of("as.test");
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let (read, acceptor) = (bodies.clone(), certificate.acceptor(&[b"h2"]));
    let address = serve(move |stream| {
        let (read, acceptor) = (read.clone(), acceptor.clone());
        async move {
            tokio::time::sleep(SLOW).await;
            let stream = acceptor.accept(stream).await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((asked, respond))) = connection.accept().await {
                let reading = tokio::spawn(async move {
                    let (mut body, mut whole) = (asked.into_body(), Vec::new());
                    while let Some(Ok(data)) = body.data().await {
                        whole.extend_from_slice(&data);
                    }
                    whole
                });
                // Whoever asks for nothing more, and has not gone, waits for an answer.
                let left = tokio::time::timeout(SLOW / 4, connection.accept()).await;
                let whole = reading.await.unwrap();
                read.lock().unwrap().push(whole);
                if left.is_err() {
                    tokio::time::pause();
                    std::future::pending::<()>().await;
                }
                drop(respond);
            }
        }
    })
    .await;
    let client = trusting(&certificate)
        .with_lookup(Arc::new(Names::default().with("as.test", ["127.0.0.1"])));
    let url = Url::parse(&format!("https://as.test:{}/token", address.port())).unwrap();
    let exchange = Exchange {
        patient_from: Some(SystemClock.now().mono + SLOW / 2),
        ..token(url)
    };
    let failure = client.send(exchange).await.unwrap_err();
    assert_eq!(
        (failure.delivery, failure.fault),
        (Delivery::Ambiguous, Fault::Deadline(Leg::Token.deadline()))
    );
    let bodies = bodies.lock().unwrap();
    let left: Vec<bool> = bodies.iter().map(|body| !body.is_empty()).collect();
    assert_eq!(left, [false, true], "{bodies:?}");
}
