//! The listener that a login's redirect comes to (RFC 8252 section 7.3).
//!
//! Everything on the machine, and every page in its browser, can reach it. So it believes nothing but the one `state` of
//! the login (T-04), answers with fixed pages that hold nothing of the request (T-03), and nobody can keep the true
//! redirect out: a connection that says nothing is closed after five seconds, and where too many are open the oldest goes
//! first (T-07).

mod delivery;
mod head;
mod page;

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    task::Poll,
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{AbortHandle, BoxFuture, abortable},
    stream::FuturesUnordered,
};
use pilotlight_core::{Error, flow::Callback, resource::clean, secret::StateParameter};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use url::Url;

use head::Head;
use page::Page;

pub(crate) use delivery::Deliveries;
pub(crate) use head::carries;

/// The open listener of one login. Closed by dropping it.
#[derive(Debug)]
pub struct Listener {
    host: String,
    port: u16,
    path: String,
    sockets: Vec<TcpListener>,
    connections: Connections,
    /// Where the browser is sent on, once it has brought the code.
    success_url: Option<Url>,
    /// The redirect that was accepted and whose answer is still being written.
    accepted: Option<Vec<(String, String)>>,
}

impl Listener {
    /// Opens the listener: on `127.0.0.1`, on `[::1]` where the host says so, on both for `localhost`.
    ///
    /// # Errors
    /// `config.callback_port` where the wanted port is taken (it never silently takes another: the redirect URI is
    /// registered); `config.value` for a host or path that a loopback redirect cannot have.
    pub async fn open(spec: &Callback) -> Result<Self, Error> {
        let bad = |why: &str| Error::ConfigValue {
            what: "login redirect".into(),
            why: why.into(),
        };
        let (v4, v6) = match spec.host.as_str() {
            "127.0.0.1" => (true, false),
            "[::1]" | "::1" => (false, true),
            "localhost" => (true, true),
            _ => return Err(bad("the host must be 127.0.0.1, [::1] or localhost")),
        };
        if !spec.path.starts_with('/')
            || !spec
                .path
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"?#\"<>\\".contains(&b))
        {
            return Err(bad("the path must be an absolute URL path"));
        }
        let host = if spec.host == "::1" {
            "[::1]".to_owned()
        } else {
            spec.host.clone()
        };
        let wanted = spec.port.filter(|port| *port != 0);
        // The other family's socket of a port that happens to be free on one may be taken.
        let mut tries = if wanted.is_some() { 1 } else { FREE_PORT_TRIES };
        loop {
            tries -= 1;
            let error = match bind(v4, v6, wanted.unwrap_or(0)) {
                Ok((sockets, port)) => {
                    let (path, connections) = (spec.path.clone(), Connections::default());
                    return Ok(Self {
                        host,
                        port,
                        path,
                        sockets,
                        connections,
                        success_url: None,
                        accepted: None,
                    });
                }
                Err(error) => error,
            };
            match wanted {
                _ if error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(bad(&format!(
                        "cannot listen: {}",
                        clean(&error.to_string())
                    )));
                }
                Some(port) => return Err(Error::ConfigCallbackPort { port }),
                None if tries == 0 => return Err(bad("no port is free")),
                None => {}
            }
        }
    }

    /// Sends the browser on to that page, instead of showing ours, once it has brought the code.
    #[must_use]
    pub fn sending_on_to(mut self, success_url: Option<Url>) -> Self {
        self.success_url = success_url;
        self
    }

    /// The redirect URI that leads here.
    #[must_use]
    pub fn redirect_uri(&self) -> String {
        format!("http://{}:{}{}", self.host, self.port, self.path)
    }

    /// Serves until the redirect of the login with this `state` comes; answers it, and gives all its parameters,
    /// form-decoded, in order. Anything else is turned away and does not end the wait.
    ///
    /// Cancel-safe: what has been read stays with the listener, and a later call goes on from there. Nothing is served
    /// between calls.
    ///
    /// # Errors
    /// None at present: a listener that cannot accept goes on trying.
    pub async fn wait(&mut self, state: &StateParameter) -> Result<Vec<(String, String)>, Error> {
        loop {
            let event = tokio::select! {
                // Who has spoken comes before who only knocks.
                biased;
                Some(event) = self.connections.next() => event,
                stream = accept(&self.sockets), if self.accepted.is_none() => {
                    match stream {
                        Ok(stream) => self.connections.push(|id| read_head(id, stream).boxed()),
                        // Out of descriptors, or the peer is gone already.
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                    continue;
                }
                // Cannot be: an accepted redirect has its answer among the connections.
                else => Event::Answered { accepted: true },
            };
            match event {
                Event::Head(stream, head) => self.answer(stream, &head, state),
                Event::Answered { accepted: true } => {
                    if let Some(parameters) = self.accepted.take() {
                        return Ok(parameters);
                    }
                }
                Event::Answered { accepted: false } | Event::Closed => {}
            }
        }
    }

    fn answer(&mut self, stream: TcpStream, head: &Received, state: &StateParameter) {
        let judged = match head {
            Received::TooLarge => Err(Page::TooLarge),
            Received::Whole(bytes) => Head::parse(bytes)
                .ok_or(Page::BadRequest)
                .and_then(|head| head.judge(&self.path, self.port, state)),
        };
        let (page, accepted) = match judged {
            // Single use: a second redirect with the right state, while the first is being answered, is too late.
            Ok(_) if self.accepted.is_some() => (Page::NotThisLogin, false),
            Ok(parameters) => {
                let refused = parameters.iter().any(|(name, _)| name == "error");
                self.accepted = Some(parameters);
                (
                    if refused {
                        Page::Refused
                    } else {
                        Page::LoggedIn
                    },
                    true,
                )
            }
            Err(page) => (page, false),
        };
        let answer = match &self.success_url {
            Some(url) if page == Page::LoggedIn => Page::elsewhere(url),
            _ => page.answer(),
        };
        self.connections
            .push(|id| write_answer(id, stream, answer, accepted).boxed());
    }
}

/// What came of a connection's work.
enum Event {
    Head(TcpStream, Received),
    Answered { accepted: bool },
    Closed,
}

/// What a connection sent.
enum Received {
    Whole(Vec<u8>),
    TooLarge,
}

/// The connections in work, at most [`CONNECTIONS`]: one more ends the oldest.
#[derive(Default)]
struct Connections {
    running: FuturesUnordered<BoxFuture<'static, Option<(u64, Event)>>>,
    order: VecDeque<(u64, AbortHandle)>,
    last: u64,
}

impl Connections {
    fn push(&mut self, work: impl FnOnce(u64) -> BoxFuture<'static, (u64, Event)>) {
        while self.order.len() >= CONNECTIONS {
            if let Some((_, oldest)) = self.order.pop_front() {
                oldest.abort();
            }
        }
        self.last += 1;
        let (work, handle) = abortable(work(self.last));
        self.order.push_back((self.last, handle));
        self.running.push(work.map(Result::ok).boxed());
    }

    /// The next piece of work that ends; `None` where there is none.
    async fn next(&mut self) -> Option<Event> {
        // `None` inside is work that was ended: its socket is closed, its place long taken.
        let (id, event) = self.running.next().await?.unwrap_or((0, Event::Closed));
        self.order.retain(|(other, _)| *other != id);
        Some(event)
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connections({})", self.order.len())
    }
}

async fn read_head(id: u64, mut stream: TcpStream) -> (u64, Event) {
    let reading = async {
        let mut head = Vec::with_capacity(1024);
        // A block may run past the end of the head: a GET has no body, so the parser refuses what follows.
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut block = [0u8; 1024];
            match stream.read(&mut block).await {
                Ok(0) | Err(_) => return None,
                Ok(n) if head.len() + n > HEAD_LIMIT => return Some(Received::TooLarge),
                Ok(n) => head.extend_from_slice(&block[..n]),
            }
        }
        Some(Received::Whole(head))
    };
    let received = timeout(HEAD_TIMEOUT, reading).await.ok().flatten();
    (
        id,
        received.map_or(Event::Closed, |received| Event::Head(stream, received)),
    )
}

async fn write_answer(
    id: u64,
    mut stream: TcpStream,
    answer: Vec<u8>,
    accepted: bool,
) -> (u64, Event) {
    let writing = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    };
    // A browser that takes no page has still brought the code.
    let _ = timeout(ANSWER_TIMEOUT, writing).await;
    (id, Event::Answered { accepted })
}

async fn accept(sockets: &[TcpListener]) -> io::Result<TcpStream> {
    poll_fn(|cx| {
        for socket in sockets {
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                return Poll::Ready(accepted.map(|(stream, _)| stream));
            }
        }
        Poll::Pending
    })
    .await
}

/// Binds the wanted families to one port. A machine without IPv6 serves `localhost` on IPv4 alone.
fn bind(v4: bool, v6: bool, port: u16) -> io::Result<(Vec<TcpListener>, u16)> {
    let mut sockets = Vec::new();
    let mut port = port;
    if v4 {
        let socket = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        port = socket.local_addr()?.port();
        sockets.push(socket);
    }
    if v6 {
        match listen(SocketAddr::from((Ipv6Addr::LOCALHOST, port))) {
            Ok(socket) => {
                port = socket.local_addr()?.port();
                sockets.push(socket);
            }
            Err(error) if v4 && error.kind() != io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Ok((sockets, port))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // On Unix this only lets a port be used again while its last login's connections are fading; it never shares a
    // port with a listener. On Windows it would (T-06).
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

const CONNECTIONS: usize = 32;
const HEAD_LIMIT: usize = 8 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const BACKLOG: u32 = 1024;
const FREE_PORT_TRIES: usize = 16;
