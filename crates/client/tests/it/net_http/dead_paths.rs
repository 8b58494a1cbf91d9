//! Streams that are refused, and paths that carry nothing any more (F-12, DESIGN.md section 3, step 6).

use super::*;

/// F-12: over HTTP/2 a refused stream delivers nothing, any other reset is ambiguous; neither is sent again.
#[tokio::test]
async fn a_refused_stream_delivers_nothing() {
    let certificate = Certificate::of("as.test");
    for (reason, want) in [
        (h2::Reason::REFUSED_STREAM, Delivery::NotDelivered),
        (h2::Reason::INTERNAL_ERROR, Delivery::Ambiguous),
        (h2::Reason::CANCEL, Delivery::Ambiguous),
    ] {
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = requests.clone();
        let address = serve_tls(&certificate, &[b"h2"], move |stream| {
            let seen = seen.clone();
            async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    seen.fetch_add(1, Ordering::SeqCst);
                    respond.send_reset(reason);
                }
            }
        })
        .await;
        let failure = at_test(&certificate, address).await.unwrap_err();
        assert_eq!(
            (failure.delivery, failure.fault),
            (want, Fault::Network(NetworkFault::Broken)),
            "{reason}"
        );
        assert_eq!(requests.load(Ordering::SeqCst), 1, "{reason}");
    }
}

/// Step 6: over HTTP/2 a peer that answers no ping is a dead path, known within ten seconds.
#[tokio::test]
async fn an_unanswered_ping_is_a_dead_path() {
    let certificate = Certificate::of("as.test");
    let paused = Arc::new(Mutex::new(None));
    let since = paused.clone();
    let address = serve_tls(&certificate, &[b"h2"], move |stream| {
        let since = since.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                return;
            };
            let held = connection.accept().await;
            tokio::time::pause();
            *since.lock().unwrap() = Some(tokio::time::Instant::now());
            // Neither read nor closed: the socket is alive, whoever is behind it is not.
            std::future::pending::<()>().await;
            drop(held);
        }
    })
    .await;
    let failure = at_test(&certificate, address).await.unwrap_err();
    assert_eq!(
        (failure.delivery, failure.fault),
        (Delivery::Ambiguous, Fault::Network(NetworkFault::DeadPath))
    );
    let since = paused.lock().unwrap().unwrap();
    assert!(
        since.elapsed() <= Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
}

/// Step 6: over HTTP/1.1 a path that swallows everything, before or after the request arrived, is known to be dead within
/// ten seconds. Real time: the kernel's clock decides.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_path_that_swallows_everything_is_dead() {
    let swallowing = |after_the_request: bool| {
        serve(move |mut stream| async move {
            if after_the_request {
                request(&mut stream).await;
            }
            // A filter that keeps nothing: no segment is seen, none is acknowledged.
            let nothing = [socket2::SockFilter::new(6, 0, 0, 0)];
            socket2::SockRef::from(&stream)
                .attach_filter(&nothing)
                .unwrap();
            std::future::pending::<()>().await;
        })
    };
    let begun = tokio::time::Instant::now();
    let (late, early) = (swallowing(true).await, swallowing(false).await);
    let client = local();
    let (late, early) = tokio::join!(
        send(&client, Leg::Token, late),
        send(&client, Leg::Token, early)
    );
    for failure in [late.unwrap_err(), early.unwrap_err()] {
        let want = (Delivery::Ambiguous, Fault::Network(NetworkFault::DeadPath));
        assert_eq!((failure.delivery, failure.fault), want);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}
