//! The proxy: what each of its faults does to both ends, and the lab behind it.

use std::io::ErrorKind;
use std::time::Duration;

use http::StatusCode;
use pilotlight_testkit::fetch;
use pilotlight_testkit::proxy::{End, Line, Proxy, Way};
use pilotlight_testkit::{Lab, LabConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

/// A server that the test plays itself, behind a proxy.
struct Played {
    proxy: Proxy,
    listener: TcpListener,
}

impl Played {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Proxy::start(0, address).await.unwrap();
        Self { proxy, listener }
    }

    /// Opens a connection of this kind; gives the client's end and the server's.
    async fn connect(&self, line: Line) -> (TcpStream, TcpStream) {
        self.proxy.push(line);
        let client = TcpStream::connect(self.proxy.address()).await.unwrap();
        let (server, _) = self.listener.accept().await.unwrap();
        (client, server)
    }
}

/// Reads to the end: what came, and how it ended.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> (String, Option<ErrorKind>) {
    let (mut all, mut buffer) = (Vec::new(), [0; 1024]);
    let end = loop {
        match timeout(LONG, stream.read(&mut buffer)).await.unwrap() {
            Ok(0) => break None,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => break Some(error.kind()),
        }
    };
    (String::from_utf8(all).unwrap(), end)
}

/// Reads exactly this.
async fn expect(stream: &mut TcpStream, text: &str) {
    let mut buffer = vec![0; text.len()];
    timeout(LONG, stream.read_exact(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(String::from_utf8(buffer).unwrap(), text);
}

/// Whether nothing comes for a while, not even the end.
async fn silent(stream: &mut TcpStream) -> bool {
    timeout(SOON, stream.read(&mut [0; 8])).await.is_err()
}

#[tokio::test]
async fn a_whole_line_carries_both_ways_and_both_ends() {
    let played = Played::new().await;
    let (mut client, mut server) = played.connect(Line::pass()).await;
    client.write_all(b"question").await.unwrap();
    expect(&mut server, "question").await;
    client.shutdown().await.unwrap();
    assert_eq!(read(&mut server).await, (String::new(), None));
    server.write_all(b"answer").await.unwrap();
    drop(server);
    assert_eq!(read(&mut client).await, ("answer".into(), None));
    assert_eq!(
        (played.proxy.accepted(), played.proxy.most_connections()),
        (1, 1)
    );
    let since = Instant::now();
    while played.proxy.connections() > 0 {
        assert!(since.elapsed() < LONG, "it is still open");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cut_is_an_end_in_good_order_after_so_many_bytes() {
    let played = Played::new().await;
    let line = Line::down(Way::ending(3, End::Cut));
    let (mut client, mut server) = played.connect(line).await;
    // What the client sends and nobody has read must not turn the end into a reset.
    let much = vec![b'x'; 16 * 1024 * 1024];
    let (mut hears, mut says) = client.split();
    let reading = async {
        server.write_all(b"answer").await.unwrap();
        read(&mut hears).await
    };
    let (written, read) = tokio::join!(says.write_all(&much), reading);
    written.unwrap();
    assert_eq!(read, ("ans".into(), None));
}

#[tokio::test]
async fn a_reset_is_an_error_at_both_ends() {
    let played = Played::new().await;
    let line = Line::up(Way::ending(4, End::Reset));
    let (mut client, mut server) = played.connect(line).await;
    client.write_all(b"quest").await.unwrap();
    let (_, end) = read(&mut client).await;
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    let (_, end) = read(&mut server).await;
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_half_closed_connection_still_carries_the_other_way() {
    let played = Played::new().await;
    let line = Line::up(Way::ending(5, End::HalfClose));
    let (mut client, mut server) = played.connect(line).await;
    client.write_all(b"question").await.unwrap();
    assert_eq!(read(&mut server).await, ("quest".into(), None));
    server.write_all(b"answer").await.unwrap();
    expect(&mut client, "answer").await;
    client.write_all(b"more").await.unwrap();
    assert!(silent(&mut client).await, "open, and nothing more comes");
}

#[tokio::test]
async fn a_black_hole_takes_everything_and_tells_nobody() {
    let played = Played::new().await;
    let (mut client, mut server) = played.connect(Line::black_hole()).await;
    let much = vec![0; 4 * 1024 * 1024];
    let written = timeout(LONG, client.write_all(&much)).await;
    written.expect("it is read").unwrap();
    assert!(silent(&mut client).await && silent(&mut server).await);
}

#[tokio::test]
async fn a_stalled_line_takes_nothing_until_it_is_healed() {
    let played = Played::new().await;
    let line = Line::up(Way::ending(0, End::Stall));
    let (mut client, mut server) = played.connect(line).await;
    // More than what the kernel keeps for both sockets.
    let much = vec![b'x'; 32 * 1024 * 1024];
    let (_hears, mut says) = client.split();
    let mut writing = std::pin::pin!(says.write_all(&much));
    assert!(timeout(SOON, &mut writing).await.is_err(), "nobody reads");
    assert!(silent(&mut server).await);
    played.proxy.heal();
    let reading = async {
        let (mut left, mut buffer) = (much.len(), vec![0; 64 * 1024]);
        while left > 0 {
            left -= server.read(&mut buffer).await.unwrap();
        }
    };
    let (written, ()) = timeout(LONG, async { tokio::join!(writing, reading) })
        .await
        .unwrap();
    written.unwrap();
}

#[tokio::test]
async fn delay_and_rate_take_their_time() {
    let played = Played::new().await;
    let slow = Line::down(Way::delayed(Duration::from_millis(120)));
    let (mut client, mut server) = played.connect(slow).await;
    let since = Instant::now();
    server.write_all(b"late").await.unwrap();
    expect(&mut client, "late").await;
    assert!(since.elapsed() >= Duration::from_millis(120));

    let thin = Line::down(Way::throttled(1000));
    let (mut client, mut server) = played.connect(thin).await;
    let since = Instant::now();
    server.write_all(&[b'x'; 400]).await.unwrap();
    expect(&mut client, &"x".repeat(400)).await;
    // The last piece is there before its time is over.
    assert!(since.elapsed() >= Duration::from_millis(290));
}

#[tokio::test]
async fn every_open_connection_can_be_reset() {
    let played = Played::new().await;
    let (mut one, _server) = played.connect(Line::pass()).await;
    let (mut two, _other) = played.connect(Line::black_hole()).await;
    one.write_all(b"x").await.unwrap();
    two.write_all(b"x").await.unwrap();
    played.proxy.reset_all();
    for client in [&mut one, &mut two] {
        assert_eq!(read(client).await.1, Some(ErrorKind::ConnectionReset));
    }
    let (mut client, mut server) = played.connect(Line::pass()).await;
    client.write_all(b"new").await.unwrap();
    expect(&mut server, "new").await;
}

#[tokio::test]
async fn a_closed_proxy_refuses_and_keeps_its_port() {
    let played = Played::new().await;
    played.proxy.close().await;
    for _ in 0..3 {
        let refused = TcpStream::connect(played.proxy.address()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    let taken = TcpListener::bind(played.proxy.address()).await;
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::AddrInUse);
    played.proxy.open().unwrap();
    let (mut client, mut server) = played.connect(Line::pass()).await;
    client.write_all(b"back").await.unwrap();
    expect(&mut server, "back").await;
}

#[tokio::test]
async fn a_lab_behind_a_proxy_names_the_proxys_port() {
    let config = LabConfig::default().with(|lab| {
        lab.issuer_proxied = true;
        lab.issuer_path = "/tenant".into();
    });
    let lab = Lab::start(config).await.unwrap();
    let proxy = lab.issuer_proxy().unwrap();
    assert_eq!(lab.issuer(), format!("{}/tenant", proxy.origin()));
    let url = format!(
        "{}/.well-known/oauth-authorization-server/tenant",
        proxy.origin()
    );
    let metadata = fetch::get(&url).await.unwrap().json();
    for member in ["issuer", "token_endpoint", "authorization_endpoint"] {
        assert!(metadata[member].as_str().unwrap().starts_with(lab.issuer()));
    }
    assert_eq!(proxy.accepted(), 1);

    // The answer is lost, and the request was processed all the same.
    proxy.set(Line::answer_lost(End::Reset));
    let seen = || lab.with_issuer(|issuer| issuer.stats().discovery);
    assert!(fetch::get(&url).await.is_err());
    assert_eq!(seen(), 2);
    proxy.set(Line::answer_lost(End::Lose));
    assert!(
        timeout(SOON, fetch::get(&url)).await.is_err(),
        "left silent"
    );
    assert_eq!(seen(), 3);
    proxy.set(Line::up(Way::ending(0, End::Reset)));
    assert!(fetch::get(&url).await.is_err());
    assert_eq!(seen(), 3, "reset before the server saw anything");
    proxy.set(Line::up(Way::ending(150, End::HalfClose)));
    let half = [("grant_type", "refresh_token"), ("x", &"y".repeat(500))];
    let token = fetch::post_form(&format!("{}/token", lab.issuer()), &half).await;
    assert!(token.is_err(), "half a request is not answered: {token:?}");
    assert_eq!(lab.with_issuer(|issuer| issuer.stats().token), 0);

    // Control requests go past it, and it heals.
    proxy.close().await;
    let stats = fetch::get(&format!("{}stats", lab.issuer_control())).await;
    assert_eq!(stats.unwrap().status, StatusCode::OK);
    proxy.open().unwrap();
    proxy.heal();
    assert_eq!(fetch::get(&url).await.unwrap().status, StatusCode::OK);
    lab.stop().await;
}
