//! The egress policy: what a server may make us talk to (T-11, T-12).

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use pilotlight::{
    clock::SystemClock,
    core::{
        exchange::{Delivery, Fault},
        resource::Resource,
    },
    egress::{Cidr, Egress},
    http::{Http as _, HttpClient, HttpConfig},
};
use url::Url;

use crate::net_http::support::{Certificate, Names, answer, local, serve, serve_tls, token};

/// AUTH-102, T-11: every form of writing a private address is refused before anything is sent, in more than three hundred hosts.
#[tokio::test]
async fn no_form_of_a_private_address_passes() {
    let client =
        HttpClient::new(HttpConfig::new(Egress::public(&[])), Arc::new(SystemClock)).unwrap();
    let mut hosts = Vec::new();
    for address in [
        "169.254.169.254",
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "198.18.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.0.192",
        "168.63.129.16",
    ] {
        hosts.extend(forms(address.parse().unwrap()));
    }
    for host in [
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[fe80::1]",
        "[febf::1]",
        "[fec0::1]",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[ff02::1]",
        "[fd00:ec2::254]",
        "[fd20:ce::254]",
        "[64:ff9b:1::8.8.8.8]",
        "[2001:db8::1]",
        "[100::1]",
        "[5f00::1]",
        "[3fff::1]",
        "[::8.8.8.8]",
        "[2002:808:808::1]",
        "[2001::1]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "localhost。",
        "ｌｏｃａｌｈｏｓｔ",
        "metadata.google.internal",
        "Metadata.Google.Internal.",
        "metadata",
        "instance-data",
        "metadata.goog",
        "metadata。google。internal",
    ] {
        hosts.push(host.to_owned());
    }
    let mut parsed = 0;
    for host in &hosts {
        // What the standard parser refuses never becomes a URL to send to.
        let Ok(url) = Url::parse(&format!("https://{host}:8443/x")) else {
            continue;
        };
        parsed += 1;
        assert!(
            client.egress().check_literal(&url).is_err(),
            "{host} passed as {url}"
        );
        let failure = client.send(token(url)).await.unwrap_err();
        assert_eq!(failure.delivery, Delivery::NotDelivered);
        assert!(
            matches!(failure.fault, Fault::Forbidden { field, .. } if field == "token_endpoint"),
            "{host}"
        );
    }
    assert!(
        hosts.len() >= 300 && parsed >= hosts.len() - 40,
        "{parsed} of {}",
        hosts.len()
    );
    for odd in [
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://0x7f.1.2.3.4.5/",
        "https://127.0.0.1.1/",
        "https://256.1.1.1/",
    ] {
        assert!(Url::parse(odd).is_err(), "{odd}");
    }
}

/// What is on the internet stays reachable, also over the translators of IPv6-only networks.
#[test]
fn public_addresses_pass() {
    let policy = Egress::public(&[]);
    for host in [
        "8.8.8.8",
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.1",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.169.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "134744072",
        "0x08080808",
        "[2606:4700::1111]",
        "[2a00:1450::1]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::808:808]",
        "mcp.example.com",
        "mcp.example.com.",
        "notlocalhost",
        "localhost.example.com",
        "metadata.example.com",
        "xn--bcher-kva.example",
    ] {
        let url = Url::parse(&format!("https://{host}/")).unwrap();
        assert_eq!(policy.check_literal(&url), Ok(()), "{host}");
    }
}

/// AUTH-90, AUTH-101, T-02, T-11: plain http goes to loopback only, and other schemes nowhere.
#[test]
fn only_https_leaves_the_machine() {
    let policy = of("http://127.0.0.1/");
    for text in [
        "http://mcp.example.com/",
        "http://8.8.8.8/",
        "ftp://8.8.8.8/",
        "file:///etc/passwd",
        "data:,x",
        "ws://8.8.8.8/",
    ] {
        assert!(
            policy.check_literal(&Url::parse(text).unwrap()).is_err(),
            "{text}"
        );
    }
    assert!(
        policy
            .check_literal(&Url::parse("http://localhost:1/").unwrap())
            .is_ok()
    );
}

/// T-11: a server's own URL opens its own kind of place and no more.
#[test]
fn a_server_opens_what_it_is() {
    for (server, open, shut) in [
        (
            "http://127.0.0.1:3000/mcp",
            vec![
                "127.0.0.1",
                "127.9.9.9",
                "[::1]",
                "[::ffff:127.0.0.1]",
                "localhost",
            ],
            vec![
                "10.0.0.1",
                "169.254.169.254",
                "[fd00::1]",
                "[64:ff9b::7f00:1]",
            ],
        ),
        (
            "https://localhost/mcp",
            vec!["127.0.0.1", "[::1]"],
            vec!["192.168.0.1", "0.0.0.0"],
        ),
        (
            "https://10.0.0.5/mcp",
            vec!["10.0.0.5", "[::ffff:10.0.0.5]"],
            vec!["10.0.0.6", "127.0.0.1", "169.254.169.254"],
        ),
        (
            "https://[fd00::5]/mcp",
            vec!["[fd00::5]"],
            vec!["[fd00::6]", "[::1]"],
        ),
        (
            "https://169.254.169.254/mcp",
            vec![],
            vec!["169.254.169.254", "169.254.1.1"],
        ),
        (
            "https://100.100.100.200/mcp",
            vec![],
            vec!["100.100.100.200"],
        ),
        ("https://[fe80::5]/mcp", vec![], vec!["[fe80::5]"]),
        (
            "https://mcp.example.com/mcp",
            vec!["8.8.8.8"],
            vec!["127.0.0.1", "10.0.0.1"],
        ),
    ] {
        let policy = of(server);
        for (hosts, want) in [(open, true), (shut, false)] {
            for host in hosts {
                let url = Url::parse(&format!("https://{host}/")).unwrap();
                assert_eq!(
                    policy.check_literal(&url).is_ok(),
                    want,
                    "{server} and {host}"
                );
            }
        }
    }
}

/// T-11: an allowed range opens itself; link-local and metadata addresses only by their exact address.
#[test]
fn allowed_ranges_open_themselves() {
    let allow = |ranges: &[&str]| {
        Egress::public(
            &ranges
                .iter()
                .map(|range| range.parse().unwrap())
                .collect::<Vec<Cidr>>(),
        )
    };
    for (ranges, host, want) in [
        (&["10.1.0.0/16"][..], "10.1.2.3", true),
        (&["10.1.0.0/16"], "[::ffff:10.1.2.3]", true),
        (&["10.1.0.0/16"], "10.2.0.1", false),
        (&["127.0.0.0/8"], "localhost", true),
        (&["169.254.0.0/16"], "169.254.169.254", false),
        (&["169.254.169.254"], "169.254.169.254", true),
        (&["169.254.169.254/32"], "169.254.169.253", false),
        (&["169.254.169.254/32"], "metadata.google.internal", true),
        (&["10.0.0.1"], "metadata.google.internal", false),
        (&["0.0.0.0/0", "::/0"], "169.254.169.254", false),
        (&["0.0.0.0/0", "::/0"], "100.100.100.200", false),
        (&["0.0.0.0/0", "::/0"], "[2002:a9fe:a9fe::]", false),
        (&["0.0.0.0/0", "::/0"], "[64:ff9b::a9fe:a9fe]", false),
        (&["0.0.0.0/0", "::/0"], "[fe80::1]", false),
        (&["::/0"], "[fd00:ec2::254]", false),
        (&["fd00:ec2::254/128"], "[fd00:ec2::254]", true),
        (&["fd00::/8"], "[fd00::1]", true),
    ] {
        let url = Url::parse(&format!("https://{host}/")).unwrap();
        assert_eq!(
            allow(ranges).check_literal(&url).is_ok(),
            want,
            "{ranges:?} and {host}"
        );
    }
}

/// T-11, T-12: a name that resolves to private addresses only is refused, and nobody at those addresses hears anything.
#[tokio::test]
async fn a_name_that_leads_inside_is_refused() {
    let (connects, port) = counted().await;
    let names = Names::default().with("evil.example", ["127.0.0.1", "::1", "10.0.0.1"]);
    let client = public(&[], names);
    let failure = client.send(at("evil.example", port)).await.unwrap_err();
    let fault = Fault::Forbidden {
        address: "127.0.0.1".into(),
        field: "token_endpoint".into(),
    };
    assert_eq!(
        (failure.delivery, failure.fault.clone()),
        (Delivery::NotDelivered, fault)
    );
    assert_eq!(failure.error().code(), "peer.address_forbidden");
    let traffic = client
        .mcp()
        .unwrap()
        .get(format!("https://evil.example:{port}/"))
        .send()
        .await;
    assert!(traffic.is_err());
    assert_eq!(connects.load(Ordering::SeqCst), 0);
}

/// T-12: of a mixed answer only what is permitted is connected to, from the one look-up.
#[tokio::test]
async fn a_mixed_answer_is_filtered() {
    let certificate = Certificate::of("as.test");
    let address = serve_tls(&certificate, &[], |mut stream| async move {
        answer(&mut stream).await
    })
    .await;
    let names = Names::default().with("as.test", ["10.255.255.1", "127.0.0.1", "169.254.169.254"]);
    let asked = names.asked.clone();
    let config = HttpConfig::new(of("http://127.0.0.1/")).with_extra_ca(certificate.pem.clone());
    let client = HttpClient::new(config, Arc::new(SystemClock))
        .unwrap()
        .with_lookup(Arc::new(names));
    assert_eq!(
        client
            .send(at("as.test", address.port()))
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(*asked.lock().unwrap(), ["as.test"]);
}

/// AUTH-104, T-12: a name that changes its mind between two look-ups is judged by each.
#[tokio::test]
async fn rebinding_finds_the_filter_at_each_connection() {
    let (connects, port) = counted().await;
    let names = Names::default()
        .with("evil.example", ["127.0.0.2"])
        .with("evil.example", ["127.0.0.1"]);
    let client = public(&["127.0.0.2/32"], names);
    // Nobody listens at the permitted address: that it is tried shows that it passed.
    assert!(matches!(
        client
            .send(at("evil.example", port))
            .await
            .unwrap_err()
            .fault,
        Fault::Network(_)
    ));
    for _ in 0..3 {
        assert!(matches!(
            client
                .send(at("evil.example", port))
                .await
                .unwrap_err()
                .fault,
            Fault::Forbidden { .. }
        ));
    }
    assert_eq!(connects.load(Ordering::SeqCst), 0);
}

/// T-11: a private server's name opens that name and no other, and never loopback or link-local.
#[tokio::test]
async fn a_local_name_opens_itself_only() {
    let (connects, port) = counted().await;
    let names = Names::default()
        .with("mcp.lan", ["10.0.0.5"])
        .with("other.lan", ["10.0.0.5"])
        .with("looped.lan", ["127.0.0.1"])
        .with("linked.lan", ["169.254.169.254"]);
    for (server, host, refused) in [
        ("https://mcp.lan/", "other.lan", true),
        ("https://looped.lan/", "looped.lan", true),
        ("https://linked.lan/", "linked.lan", true),
        ("https://mcp.example.com/", "mcp.lan", true),
    ] {
        let client = HttpClient::new(HttpConfig::new(of(server)), Arc::new(SystemClock))
            .unwrap()
            .with_lookup(Arc::new(names.clone()));
        let failure = client.send(at(host, port)).await.unwrap_err();
        assert_eq!(
            matches!(failure.fault, Fault::Forbidden { .. }),
            refused,
            "{server} {host}"
        );
    }
    assert_eq!(connects.load(Ordering::SeqCst), 0);
}

/// mcp-remote's `--ipv4`: of a name's addresses only those of IPv4 are connected to, `localhost`'s too; a name without any fails
/// before anything is sent.
#[tokio::test]
async fn ipv4_alone_leaves_the_others_out() {
    let there = serve(|mut stream| async move { answer(&mut stream).await }).await;
    let names = Names::default().with("six.localnet", ["::1"]);
    let config = HttpConfig::new(of("http://127.0.0.1/")).with_ipv4_only(true);
    let client = HttpClient::new(config, Arc::new(SystemClock))
        .unwrap()
        .with_lookup(Arc::new(names));
    let url = |host: &str| Url::parse(&format!("http://{host}:{}/", there.port())).unwrap();
    let here = client.send(token(url("localhost"))).await;
    assert_eq!(here.unwrap().status, 200);
    let failure = client
        .send(at("six.localnet", there.port()))
        .await
        .unwrap_err();
    assert_eq!(failure.delivery, Delivery::NotDelivered);
    assert!(
        matches!(failure.fault, Fault::Network(_)),
        "{:?}",
        failure.fault
    );
}

/// RFC 6761: `localhost` is loopback whatever a resolver would say.
#[tokio::test]
async fn localhost_is_asked_of_nobody() {
    let address = serve(|mut stream| async move { answer(&mut stream).await }).await;
    let names = Names::default().with("localhost", ["10.0.0.1"]);
    let asked = names.asked.clone();
    let client = local().with_lookup(Arc::new(names));
    let url = Url::parse(&format!("http://localhost:{}/", address.port())).unwrap();
    assert_eq!(client.send(token(url)).await.unwrap().status, 200);
    assert!(asked.lock().unwrap().is_empty());
}

/// Every way of writing an IPv4 address in a URL.
fn forms(ip: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = ip.octets();
    let number = u32::from(ip);
    let wide = |text: &str| {
        text.chars()
            .map(|c| {
                if c.is_ascii_digit() {
                    char::from_u32(c as u32 + 0xfee0).unwrap()
                } else {
                    c
                }
            })
            .collect::<String>()
    };
    let inverted = Ipv4Addr::from(!number);
    let (high, low) = (number >> 16, number & 0xffff);
    let (ihigh, ilow) = (u32::from(inverted) >> 16, u32::from(inverted) & 0xffff);
    vec![
        ip.to_string(),
        format!("{ip}."),
        number.to_string(),
        format!("0x{number:x}"),
        format!("0{number:o}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("0x{a:x}.0X{b:X}.{c}.{d}"),
        format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)),
        format!("{a}.{}", number & 0x00ff_ffff),
        format!("{a}。{b}。{c}。{d}"),
        format!("{a}．{b}｡{c}.{d}"),
        wide(&ip.to_string()),
        ip.to_string()
            .bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect(),
        format!("user@{ip}"),
        format!("[::ffff:{ip}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[0:0:0:0:0:FFFF:{high:04X}:{low:04X}]"),
        format!("[::ffff:0:{ip}]"),
        format!("[::{high:x}:{low:x}]"),
        format!("[64:ff9b::{ip}]"),
        format!("[64:ff9b:1::{ip}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[2001:0:808:808:0:0:{ihigh:x}:{ilow:x}]"),
    ]
}

fn of(server: &str) -> Egress {
    Egress::for_server(&Resource::parse(server).unwrap(), &[])
}

fn public(allow: &[&str], names: Names) -> HttpClient {
    let allow: Vec<Cidr> = allow.iter().map(|range| range.parse().unwrap()).collect();
    HttpClient::new(
        HttpConfig::new(Egress::public(&allow)),
        Arc::new(SystemClock),
    )
    .unwrap()
    .with_lookup(Arc::new(names))
}

fn at(host: &str, port: u16) -> pilotlight::core::exchange::Exchange {
    token(Url::parse(&format!("https://{host}:{port}/token")).unwrap())
}

/// A listener on loopback that counts who connects.
async fn counted() -> (Arc<AtomicUsize>, u16) {
    let connects = Arc::new(AtomicUsize::new(0));
    let count = connects.clone();
    let address = serve(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    (connects, address.port())
}
