//! HTTP by hand, for what a test asks and answers itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// One HTTP request; answers status, the `Location` field and the body.
pub(crate) fn http(method: &str, url: &str, body: &str) -> (u16, Option<String>, String) {
    let url = url::Url::parse(url).expect("a URL");
    let address = url.socket_addrs(|| None).expect("an address")[0];
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut socket = TcpStream::connect(address).expect("somebody listens");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time-out");
    // HTTP/1.0, so that the answer is never chunked.
    write!(
        socket,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len(),
    )
    .expect("the request is sent");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let location = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("location"))
        .map(|(_, value)| value.to_owned());
    (status.expect("a status"), location, body.to_owned())
}

/// A server that knows two answers, until the test ends: one for `/mcp` and one for everywhere else.
pub(crate) struct Answers {
    origin: String,
}

impl Answers {
    /// Each answer is a status line without its version, a media type and a body.
    pub(crate) fn start(mcp: [&str; 3], elsewhere: [&str; 3]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let origin = format!("http://{}", listener.local_addr().expect("bound"));
        let whole = |[status, media_type, body]: [&str; 3]| {
            let length = body.len();
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
        };
        let (mcp, elsewhere) = (whole(mcp), whole(elsewhere));
        thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                // The first line is enough to answer; the bodies sent here fit the same packet.
                let mut head = [0; 16 * 1024];
                let length = socket.read(&mut head).unwrap_or_default();
                let line = String::from_utf8_lossy(&head[..length]);
                let for_mcp = line.split(' ').nth(1) == Some("/mcp");
                let answer = if for_mcp { &mcp } else { &elsewhere };
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        Self { origin }
    }

    /// The URL of its `/mcp`.
    pub(crate) fn url(&self) -> String {
        format!("{}/mcp", self.origin)
    }
}
