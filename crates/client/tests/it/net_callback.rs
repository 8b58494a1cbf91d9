//! The callback listener against everything else on the machine (T-03, T-04, T-06, T-07).

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{net::SocketAddr, time::Duration};

use pilotlight::{
    callback::Listener,
    core::{Error, flow::Callback, secret::StateParameter},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use url::Url;

/// T-04: the true redirect is answered with a fixed page and gives its parameters.
#[tokio::test]
async fn the_true_redirect_ends_the_wait() {
    let mut listener = Listener::open(&Callback::default()).await.unwrap();
    let uri = Url::parse(&listener.redirect_uri()).unwrap();
    assert_eq!(
        (uri.scheme(), uri.host_str(), uri.path()),
        ("http", Some("127.0.0.1"), "/callback")
    );
    let (got, answer) = tokio::join!(
        wait(&mut listener),
        get(&uri, "?code=a%20b&state=right&iss=https://x")
    );
    let got = got.unwrap();
    assert_eq!(got[0], ("code".to_owned(), "a b".to_owned()));
    assert_eq!(got.len(), 3);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("You are logged in."));
}

/// T-03: whatever a redirect carries, the page is the same, byte for byte, and the browser is told to run nothing.
#[tokio::test]
async fn nothing_of_the_request_is_in_the_page() {
    let mut pages = Vec::new();
    for name in ["error", "error_description", "code", "iss", "<b>"] {
        for text in [
            "<script>alert(1)</script>",
            "\"><svg onload=alert(1)>",
            "'-alert(1)-'",
            "<img src=x onerror=alert(1)>",
            "</title><h1>",
            "\r\nSet-Cookie: a=b",
            "%0d%0aX: y",
            "javascript:alert(1)",
            "{{7*7}}",
            "${7*7}",
            "\u{202e}",
            "canary-9f2",
        ] {
            let mut listener = Listener::open(&Callback::default()).await.unwrap();
            let mut uri = Url::parse(&listener.redirect_uri()).unwrap();
            uri.query_pairs_mut()
                .append_pair("state", "right")
                .append_pair("error", "e")
                .append_pair(name, text);
            let target = format!("?{}", uri.query().unwrap());
            let (got, answer) = tokio::join!(wait(&mut listener), get(&uri, &target));
            assert_eq!(got.unwrap()[2], (name.to_owned(), text.to_owned()));
            pages.push(answer);
        }
    }
    let page = &pages[0];
    assert!(pages.len() >= 40 && pages.iter().all(|other| other == page));
    for header in [
        "Content-Security-Policy: default-src 'none';",
        "X-Content-Type-Options: nosniff\r\n",
        "Referrer-Policy: no-referrer\r\n",
        "Cache-Control: no-store\r\n",
    ] {
        assert!(page.contains(header), "{header}");
    }
    assert!(!page.contains("You are logged in"));
}

/// T-04: ten thousand forged hits are turned away with fixed answers, and the login still succeeds.
#[tokio::test]
async fn forged_hits_do_not_end_the_wait() {
    let mut listener = Listener::open(&Callback::default()).await.unwrap();
    let uri = Url::parse(&listener.redirect_uri()).unwrap();
    let forge = async {
        let hits: Vec<_> = (0..8)
            .map(|worker: u32| {
                let uri = uri.clone();
                tokio::spawn(async move {
                    for i in 0..1250u32 {
                        let n = worker * 1250 + i;
                        let (target, status) = match n % 6 {
                            0 => (format!("?code=x&state={n:x}"), "400"),
                            1 => (format!("?error=x{n}"), "400"),
                            2 => (format!("?code=x&state=right&state={n}"), "400"),
                            3 => ("?code=x&state=right&state=right".into(), "400"),
                            4 => (format!("/{n}?code=x&state=right"), "404"),
                            _ => (String::new(), "400"),
                        };
                        let answer = get(&uri, &target).await;
                        assert!(
                            answer.starts_with(&format!("HTTP/1.1 {status} ")),
                            "{target}: {answer}"
                        );
                    }
                })
            })
            .collect();
        for hit in hits {
            hit.await.unwrap();
        }
        get(&uri, "?code=true&state=right").await
    };
    let (got, answer) = tokio::join!(wait(&mut listener), forge);
    assert_eq!(got.unwrap()[0].1, "true");
    assert!(answer.starts_with("HTTP/1.1 200"));
}

/// T-04, T-26: other methods and hosts are turned away.
#[tokio::test]
async fn other_methods_and_hosts_are_turned_away() {
    let mut listener = Listener::open(&Callback::default()).await.unwrap();
    let uri = Url::parse(&listener.redirect_uri()).unwrap();
    let port = uri.port().unwrap();
    let hits = async {
        for (request, status) in [
            (
                format!("POST /callback?state=right HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"),
                "405",
            ),
            (
                format!("HEAD /callback?state=right HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"),
                "405",
            ),
            (
                format!("GET /callback?state=right HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n"),
                "400",
            ),
            ("GET /callback?state=right HTTP/1.1\r\n\r\n".into(), "400"),
            (
                format!(
                    "GET http://evil/callback?state=right HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
                ),
                "400",
            ),
            (
                format!(
                    "GET /callback?state=right HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\nGET /callback?state=right"
                ),
                "400",
            ),
            ("PRI * HTTP/2.0\r\n\r\n".into(), "400"),
            ("\u{16}\u{3}\u{1}\r\n\r\n".into(), "400"),
            (
                format!("GET /callback?{} HTTP/1.1\r\n\r\n", "x".repeat(9000)),
                "431",
            ),
            (
                format!("GET /callback HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(2000)),
                "431",
            ),
        ] {
            let answer = raw(&uri, request.as_bytes()).await;
            // A head over the limit may meet a closed connection before it reads the answer.
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} "))
                    || (status == "431" && answer.is_empty()),
                "{request}: {answer}"
            );
        }
        get(&uri, "?code=x&state=right").await
    };
    let (got, _) = tokio::join!(wait(&mut listener), hits);
    assert!(got.is_ok());
}

/// T-07: five hundred half-open connections hold nobody up, and at most 32 are held.
#[tokio::test]
async fn half_open_connections_hold_nobody_up() {
    let mut listener = Listener::open(&Callback::default()).await.unwrap();
    let uri = Url::parse(&listener.redirect_uri()).unwrap();
    let begun = Instant::now();
    let flood = async {
        let mut open = Vec::new();
        for i in 0..500 {
            let mut stream = TcpStream::connect(address(&uri)).await.unwrap();
            if i % 2 == 0 {
                let _ = stream.write_all(b"GET /callback?code=x&st").await;
            }
            open.push(stream);
        }
        let answer = get(&uri, "?code=true&state=right").await;
        (open, answer)
    };
    let (got, (mut open, answer)) = tokio::join!(wait(&mut listener), flood);
    assert_eq!(got.unwrap()[0].1, "true");
    assert!(answer.starts_with("HTTP/1.1 200"));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    // Of five hundred that were let in no more are held than the limit; the others were hung up on.
    let mut held = 0;
    for stream in &mut open {
        held += usize::from(
            timeout(Duration::from_millis(2), stream.read(&mut [0; 16]))
                .await
                .is_err(),
        );
    }
    assert!(held <= 32, "{held}");
}

/// T-07: who says nothing for five seconds is hung up on.
#[tokio::test]
async fn silence_is_hung_up_on() {
    let mut listener = Listener::open(&Callback::default()).await.unwrap();
    let uri = Url::parse(&listener.redirect_uri()).unwrap();
    let silent = async {
        let mut stream = TcpStream::connect(address(&uri)).await.unwrap();
        stream.write_all(b"GET /call").await.unwrap();
        tokio::task::yield_now().await;
        tokio::time::pause();
        let begun = Instant::now();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
        begun.elapsed()
    };
    let elapsed = tokio::select! {
        _ = wait(&mut listener) => panic!("nothing was accepted"),
        elapsed = silent => elapsed,
    };
    assert!(elapsed <= Duration::from_secs(6), "{elapsed:?}");
}

/// The wait may be dropped at any moment and taken up again without losing a redirect.
#[tokio::test]
async fn the_wait_is_cancel_safe() {
    for cut in 0..60u64 {
        let mut listener = Listener::open(&Callback::default()).await.unwrap();
        let uri = Url::parse(&listener.redirect_uri()).unwrap();
        let browser = tokio::spawn(async move { get(&uri, "?code=true&state=right").await });
        let got = loop {
            if let Ok(got) = timeout(Duration::from_micros(cut * 10), wait(&mut listener)).await {
                break got.unwrap();
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(got[0].1, "true");
        assert!(browser.await.unwrap().starts_with("HTTP/1.1 200"));
    }
}

/// T-03: where a page of somebody's own is wanted, the browser is sent there with nothing of the redirect; one that was refused,
/// or that is not this login's, sees our own words.
#[tokio::test]
async fn a_page_of_ones_own_is_told_nothing() {
    let own = Url::parse("https://example.com/welcome").unwrap();
    for (query, status) in [
        ("?code=sesame&state=right", "303 See Other"),
        ("?error=access_denied&state=right", "200 OK"),
    ] {
        let listener = Listener::open(&Callback::default()).await.unwrap();
        let mut listener = listener.sending_on_to(Some(own.clone()));
        let uri = Url::parse(&listener.redirect_uri()).unwrap();
        let browser = async {
            let other = get(&uri, "?code=sesame&state=wrong").await;
            assert!(other.starts_with("HTTP/1.1 400 "), "{other}");
            get(&uri, query).await
        };
        let (got, page) = tokio::join!(wait(&mut listener), browser);
        assert!(got.is_ok());
        assert!(
            page.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{page}"
        );
        assert!(!page.contains("sesame"), "{page}");
        let location = "\r\nLocation: https://example.com/welcome\r\n";
        assert_eq!(page.contains(location), status.starts_with("303"), "{page}");
    }
}

/// T-06: a taken port is an error that names it; a free one is used again at once; the end of the login closes it.
#[tokio::test]
async fn a_registered_port_is_taken_or_refused() {
    let squatter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = squatter.local_addr().unwrap().port();
    let spec = |host: &str| Callback {
        host: host.into(),
        port: Some(port),
        ..Callback::default()
    };
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(
            Listener::open(&spec(host)).await.unwrap_err(),
            Error::ConfigCallbackPort { port }
        );
    }
    drop(squatter);
    for _ in 0..3 {
        let mut listener = Listener::open(&spec("127.0.0.1")).await.unwrap();
        let uri = Url::parse(&listener.redirect_uri()).unwrap();
        assert_eq!(uri.port(), Some(port));
        assert_eq!(
            Listener::open(&spec("127.0.0.1")).await.unwrap_err(),
            Error::ConfigCallbackPort { port }
        );
        let (got, _) = tokio::join!(wait(&mut listener), get(&uri, "?code=x&state=right"));
        assert!(got.is_ok());
        drop(listener);
        assert!(TcpStream::connect(address(&uri)).await.is_err());
    }
}

/// T-06: `localhost` is served on both address families, on one port.
#[tokio::test]
async fn localhost_is_served_on_both_families() {
    let spec = Callback {
        host: "localhost".into(),
        path: "/oauth/callback".into(),
        port: None,
    };
    for address in ["127.0.0.1", "[::1]"] {
        let mut listener = Listener::open(&spec).await.unwrap();
        let uri = Url::parse(&listener.redirect_uri()).unwrap();
        assert_eq!(
            (uri.host_str(), uri.path()),
            (Some("localhost"), "/oauth/callback")
        );
        let to: SocketAddr = format!("{address}:{}", uri.port().unwrap())
            .parse()
            .unwrap();
        if TcpStream::connect(to).await.is_err() && address == "[::1]" {
            // A machine without IPv6.
            continue;
        }
        let request = format!(
            "GET /oauth/callback?code=x&state=right HTTP/1.1\r\nHost: localhost:{}\r\n\r\n",
            to.port()
        );
        let (got, answer) = tokio::join!(wait(&mut listener), raw_at(to, request.as_bytes()));
        assert!(
            got.is_ok() && answer.starts_with("HTTP/1.1 200"),
            "{address}"
        );
    }
}

/// A host or path that is no loopback redirect is refused before anything is bound.
#[tokio::test]
async fn what_is_no_loopback_redirect_is_refused() {
    for (host, path) in [
        ("0.0.0.0", "/callback"),
        ("example.com", "/callback"),
        ("", "/callback"),
        ("127.0.0.1", "callback"),
        ("127.0.0.1", "/a b"),
        ("127.0.0.1", "/a?b"),
        ("127.0.0.1", "/a\r\nb"),
    ] {
        let spec = Callback {
            host: host.into(),
            path: path.into(),
            port: None,
        };
        assert!(
            matches!(Listener::open(&spec).await, Err(Error::ConfigValue { .. })),
            "{host} {path}"
        );
    }
}

async fn wait(listener: &mut Listener) -> Result<Vec<(String, String)>, Error> {
    let state = StateParameter::new("right".into()).unwrap();
    listener.wait(&state).await
}

fn address(uri: &Url) -> SocketAddr {
    format!("127.0.0.1:{}", uri.port().unwrap())
        .parse()
        .unwrap()
}

async fn get(uri: &Url, suffix: &str) -> String {
    let port = uri.port().unwrap();
    raw(
        uri,
        format!(
            "GET {}{suffix} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: test\r\n\r\n",
            uri.path()
        )
        .as_bytes(),
    )
    .await
}

async fn raw(uri: &Url, request: &[u8]) -> String {
    raw_at(address(uri), request).await
}

async fn raw_at(to: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}
