//! The HTTP stack against servers that fail, lie and stall, on real sockets (T-13, T-14, T-40, F-12, F-25).

mod dead_paths;
mod proxy;
mod redirects;
pub(crate) mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pilotlight::{
    clock::{Clock, SystemClock},
    core::{
        Error,
        error::NetworkFault,
        exchange::{BODY_LIMIT, Delivery, Fault, Leg},
        time::{Now, Wall},
    },
    egress::Egress,
    http::{Http as _, HttpClient, HttpConfig, Proxy},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use url::Url;

use support::{
    Certificate, Names, answer, at_test, fixed, get, local, loopback, redirecting, request, send,
    serve, serve_tls, token, trusting,
};

/// F-12: a port that nobody listens on delivers nothing.
#[tokio::test]
async fn a_refused_connection_delivers_nothing() {
    let address = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    for leg in [Leg::Token, Leg::Metadata, Leg::Registration] {
        let failure = send(&local(), leg, address).await.unwrap_err();
        assert_eq!(
            (failure.delivery, failure.fault),
            (
                Delivery::NotDelivered,
                Fault::Network(NetworkFault::Connect)
            )
        );
        assert_eq!(failure.host, "127.0.0.1");
    }
}

/// F-12: a name that does not resolve delivers nothing.
#[tokio::test]
async fn an_unknown_name_delivers_nothing() {
    let client = local().with_lookup(Arc::new(Names::default()));
    let url = Url::parse("https://as.example/token").unwrap();
    let failure = client.send(token(url)).await.unwrap_err();
    assert_eq!(
        (failure.delivery, failure.fault),
        (Delivery::NotDelivered, Fault::Network(NetworkFault::Dns))
    );
}

/// F-12: whatever breaks after the connection stood is ambiguous, and is sent exactly once.
#[tokio::test]
async fn a_connection_that_breaks_is_ambiguous_and_nothing_is_sent_twice() {
    let answers: [&[u8]; 6] = [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access_to",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"acc\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    ];
    for answer in answers {
        for reset in [false, true] {
            let requests = Arc::new(AtomicUsize::new(0));
            let seen = requests.clone();
            let address = serve(move |mut stream| {
                let seen = seen.clone();
                async move {
                    request(&mut stream).await;
                    seen.fetch_add(1, Ordering::SeqCst);
                    stream.write_all(answer).await.unwrap();
                    if reset {
                        stream.set_zero_linger().unwrap();
                    }
                }
            })
            .await;
            let failure = send(&local(), Leg::Token, address).await.unwrap_err();
            let text = String::from_utf8_lossy(answer).into_owned();
            assert_eq!(failure.delivery, Delivery::Ambiguous, "{text}");
            assert_eq!(
                failure.fault,
                Fault::Network(NetworkFault::Broken),
                "{text}"
            );
            assert_eq!(requests.load(Ordering::SeqCst), 1, "{text}");
        }
    }
}

/// T-14: a body is read up to the limit and not a byte further, whether its length is announced or not.
#[tokio::test]
async fn bodies_are_capped() {
    let announced = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        BODY_LIMIT + 1
    );
    let most = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {BODY_LIMIT}\r\n\r\n{}",
        "x".repeat(BODY_LIMIT)
    );
    let failure = send(&local(), Leg::Metadata, fixed(announced).await)
        .await
        .unwrap_err();
    assert_eq!(
        (failure.delivery, failure.fault),
        (Delivery::Ambiguous, Fault::Network(NetworkFault::TooLarge))
    );
    assert_eq!(
        send(&local(), Leg::Metadata, fixed(most).await)
            .await
            .unwrap()
            .body
            .len(),
        BODY_LIMIT
    );

    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let endless = serve(move |mut stream| {
        let counter = counter.clone();
        async move {
            request(&mut stream).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
            while stream.write_all(chunk.as_bytes()).await.is_ok() {
                counter.fetch_add(chunk.len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    let failure = send(&local(), Leg::Metadata, endless).await.unwrap_err();
    assert_eq!(failure.fault, Fault::Network(NetworkFault::TooLarge));
    // What the sockets buffer comes on top of the limit.
    assert!(sent.load(Ordering::SeqCst) < BODY_LIMIT + 16 * 1024 * 1024);
}

/// T-14: a head without end is refused.
#[tokio::test]
async fn endless_headers_are_refused() {
    let address = serve(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        for i in 0..1_000_000 {
            if stream
                .write_all(format!("x-{i}: {i}\r\n").as_bytes())
                .await
                .is_err()
            {
                return;
            }
        }
    })
    .await;
    let failure = send(&local(), Leg::Metadata, address).await.unwrap_err();
    assert_eq!(
        (failure.delivery, failure.fault),
        (Delivery::Ambiguous, Fault::Network(NetworkFault::Broken))
    );
}

/// T-14: a body that drips runs into the deadline of its leg, which counts from the first connect to the last byte.
#[tokio::test]
async fn a_dripping_body_ends_at_the_deadline() {
    let address = serve(|mut stream| async move {
        request(&mut stream).await;
        tokio::time::pause();
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            .await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let failure = send(&local(), Leg::Metadata, address).await.unwrap_err();
    assert_eq!(
        (failure.delivery, failure.fault),
        (
            Delivery::Ambiguous,
            Fault::Deadline(Duration::from_secs(15))
        )
    );
}

/// F-25, step 6: a token endpoint that is alive and slow is waited for, up to the deadline and no longer.
#[tokio::test]
async fn a_slow_issuer_is_waited_for() {
    let answering = |after: u64| {
        serve(move |mut stream| async move {
            request(&mut stream).await;
            tokio::time::pause();
            tokio::time::sleep(Duration::from_secs(after)).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .await;
            let _ = stream.read(&mut [0; 1]).await;
        })
    };
    assert_eq!(
        send(&local(), Leg::Token, answering(55).await)
            .await
            .unwrap()
            .body
            .as_slice(),
        b"{}"
    );
    tokio::time::resume();
    let failure = send(&local(), Leg::Token, answering(61).await)
        .await
        .unwrap_err();
    assert_eq!(
        (failure.delivery, failure.fault),
        (
            Delivery::Ambiguous,
            Fault::Deadline(Duration::from_secs(60))
        )
    );
}

/// Step 5 of a refresh: the token client keeps no connection; the other one does.
#[tokio::test]
async fn token_connections_are_never_reused() {
    for (leg, want) in [(Leg::Token, 3), (Leg::Metadata, 1)] {
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let address = serve(move |mut stream| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                while !request(&mut stream).await.is_empty() {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                        .await;
                }
            }
        })
        .await;
        let client = local();
        for _ in 0..3 {
            send(&client, leg, address).await.unwrap();
        }
        assert_eq!(connections.load(Ordering::SeqCst), want, "{leg:?}");
    }
}

/// T-14, T-33: the request says who we are, offers no compression and gives no page away; a failure's words and `Debug`
/// show nothing of the URL's query.
#[tokio::test]
async fn a_request_says_no_more_than_it_must() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    let address = serve(move |mut stream| {
        let kept = kept.clone();
        async move {
            let head = request(&mut stream).await;
            kept.lock()
                .unwrap()
                .push(String::from_utf8(head).unwrap().to_ascii_lowercase());
        }
    })
    .await;
    let url = Url::parse(&format!("http://{address}/token?code=canary-5c1")).unwrap();
    let failure = local().send(token(url)).await.unwrap_err();
    let head = heads.lock().unwrap().pop().unwrap();
    assert!(head.contains("user-agent: pilotlight/") && head.contains("grant_type=refresh_token"));
    assert!(!head.contains("accept-encoding") && !head.contains("referer"));
    assert!(!format!("{failure:?} {}", failure.error()).contains("canary-5c1"));
}

/// Expiry counts from the moment the request left: the instant is taken from the clock that came in.
#[tokio::test]
async fn the_instant_of_sending_is_the_clocks() {
    #[derive(Debug)]
    struct Fixed;
    impl Clock for Fixed {
        fn now(&self) -> Now {
            Now {
                wall: Wall(77),
                ..Now::default()
            }
        }
    }
    let client = HttpClient::new(HttpConfig::new(loopback()), Arc::new(Fixed)).unwrap();
    let reply = send(
        &client,
        Leg::Token,
        fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()).await,
    )
    .await
    .unwrap();
    assert_eq!(reply.sent_at.wall, Wall(77));
}

/// T-40: a certificate that nobody vouches for, or for another name, or no TLS at all, ends before anything is sent.
#[tokio::test]
async fn bad_tls_delivers_nothing() {
    let certificate = Certificate::of("as.test");
    let address = serve_tls(&certificate, &[], |mut stream| async move {
        answer(&mut stream).await
    })
    .await;
    let names = Names::default()
        .with("as.test", ["127.0.0.1"])
        .with("other.test", ["127.0.0.1"]);
    let untrusting = local().with_lookup(Arc::new(names.clone()));
    let trusting = trusting(&certificate).with_lookup(Arc::new(names));
    let at =
        |host: &str, port: u16| token(Url::parse(&format!("https://{host}:{port}/token")).unwrap());

    assert_eq!(
        trusting
            .send(at("as.test", address.port()))
            .await
            .unwrap()
            .status,
        200
    );
    let not_tls = serve(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    let closes = serve(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    for (client, host, port) in [
        (&untrusting, "as.test", address.port()),
        (&trusting, "other.test", address.port()),
        (&trusting, "as.test", not_tls.port()),
        (&trusting, "as.test", closes.port()),
    ] {
        let failure = client.send(at(host, port)).await.unwrap_err();
        assert_eq!(
            (failure.delivery, failure.fault),
            (Delivery::NotDelivered, Fault::Network(NetworkFault::Tls)),
            "{host}:{port}"
        );
    }
}

/// T-40: an extra certificate that cannot be read is the user's to mend, at once.
#[test]
fn a_broken_extra_certificate_is_refused() {
    for pem in [
        &b""[..],
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"\xff\xfe",
    ] {
        let config = HttpConfig::new(loopback()).with_extra_ca(pem.to_vec());
        assert!(matches!(
            HttpClient::new(config, Arc::new(SystemClock)),
            Err(Error::ConfigValue { .. })
        ));
    }
}

/// T-23: the client for MCP traffic follows no redirect and streams.
#[tokio::test]
async fn the_mcp_client_follows_no_redirect() {
    let (address, seen) = redirecting(307, |_| Some("/elsewhere".into())).await;
    let client = local();
    let response = client
        .mcp()
        .unwrap()
        .get(format!("http://{address}/mcp"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 307);
    assert_eq!(seen.lock().unwrap().len(), 1);
}
