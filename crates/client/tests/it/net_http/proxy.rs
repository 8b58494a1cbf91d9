//! What a proxy is asked for, and what not (T-11, T-41).

use super::*;

/// T-41, T-11: through a proxy, the proxy's own address is exempt; literals and names known here to be private are
/// refused before the proxy hears of them; a tunnel that it refuses delivers nothing; loopback is never sent to it.
#[tokio::test]
async fn a_proxy_is_no_way_around_the_policy() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let proxy = serve(move |mut stream| {
        let hears = hears.clone();
        async move {
            let head = String::from_utf8(request(&mut stream).await).unwrap();
            hears
                .lock()
                .unwrap()
                .push(head.lines().next().unwrap_or_default().to_owned());
            let _ = stream
                .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    })
    .await;
    let proxy = Url::parse(&format!("http://proxy.corp:{}/", proxy.port())).unwrap();
    let proxy = Proxy::Explicit {
        https: Some(proxy.clone()),
        http: Some(proxy),
        no_proxy: String::new(),
    };
    let names = Names::default()
        .with("proxy.corp", ["127.0.0.1"])
        .with("inside.example", ["10.0.0.7"])
        .with("mixed.example", ["8.8.8.8", "10.0.0.8"]);
    let config = HttpConfig::new(Egress::public(&[])).with_proxy(proxy);
    let client = HttpClient::new(config, Arc::new(SystemClock))
        .unwrap()
        .with_lookup(Arc::new(names));
    for (url, address) in [
        ("https://10.1.2.3/", "10.1.2.3"),
        ("https://[::ffff:a9fe:a9fe]/", "169.254.169.254"),
        (
            "https://metadata.google.internal/",
            "metadata.google.internal",
        ),
        ("https://localhost/", "127.0.0.1"),
        ("http://127.0.0.1:1/", "127.0.0.1"),
        ("https://inside.example/", "10.0.0.7"),
        ("https://mixed.example/", "10.0.0.8"),
    ] {
        let failure = client
            .send(token(Url::parse(url).unwrap()))
            .await
            .unwrap_err();
        let fault = Fault::Forbidden {
            address: address.into(),
            field: "token_endpoint".into(),
        };
        assert_eq!(
            (failure.delivery, failure.fault),
            (Delivery::NotDelivered, fault),
            "{url}"
        );
    }
    assert!(heard.lock().unwrap().is_empty());
    let failure = client
        .send(token(Url::parse("https://outside.example/").unwrap()))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.delivery, failure.fault),
        (
            Delivery::NotDelivered,
            Fault::Network(NetworkFault::Connect)
        )
    );
    assert_eq!(
        *heard.lock().unwrap(),
        ["CONNECT outside.example:443 HTTP/1.1"]
    );
}
