//! A TCP proxy in front of a loopback server: the network between a client and an issuer, with switches.
//!
//! ```text
//!            ┌── up: Way ──>
//!   client ──┤ proxy        ├── server
//!            <── down: Way ─┘
//! ```
//!
//! Every connection gets a [`Line`] when it is accepted: the next one of the queue, else the standing one. A line says of
//! each direction how fast it carries, and after how many bytes and how it ends. [`Proxy::heal`] makes lines whole again,
//! [`Proxy::close`] leaves nobody listening, [`Proxy::reset_all`] breaks what is open.
//!
//! What a line loses or breaks is decided by bytes, not by time: `down` that ends after 0 bytes ends when the first byte
//! of an answer comes, so the server has certainly processed the request.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::serve::lock;

mod line;

pub use line::{End, Line, Way};

/// A proxy on a loopback port. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// Bound and never listening: nobody else can get the port while it is closed.
    _port: TcpSocket,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Starts to carry connections to a server; port 0 lets the system choose. It must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The port is taken, or no socket can be made.
    pub async fn start(port: u16, server: SocketAddr) -> io::Result<Self> {
        let held = socket((Ipv4Addr::LOCALHOST, port).into())?;
        let proxy = Self {
            address: held.local_addr()?,
            _port: held,
            shared: Arc::new(Shared::new(server)),
            accepting: Mutex::default(),
        };
        proxy.open()?;
        Ok(proxy)
    }

    /// Gives the origin, for instance `http://127.0.0.1:4711`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Gives the address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Treats every connection like this from now on, but those that find one in the queue.
    pub fn set(&self, line: Line) {
        lock(&self.shared.lines).standing = line;
    }

    /// Queues what is to happen to the next connection that finds no other in the queue.
    pub fn push(&self, line: Line) {
        lock(&self.shared.lines).once.push_back(line);
    }

    /// Carries everything from now on; what has stalled goes on, what is lost stays lost.
    pub fn heal(&self) {
        *lock(&self.shared.lines) = Lines::default();
        self.shared.healed.send_modify(|times| *times += 1);
    }

    /// Resets every open connection.
    pub fn reset_all(&self) {
        self.shared.broken.send_modify(|times| *times += 1);
    }

    /// Leaves nobody listening: new connections are refused, open ones go on.
    pub async fn close(&self) {
        let accepting = lock(&self.accepting).take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // Cancelled, as it was asked to: now the socket is closed.
            let _ = accepting.await;
        }
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    ///
    /// No socket can be made.
    pub fn open(&self) -> io::Result<()> {
        let mut accepting = lock(&self.accepting);
        if accepting.is_none() {
            let listener = socket(self.address)?.listen(BACKLOG)?;
            *accepting = Some(tokio::spawn(accept(listener, Arc::clone(&self.shared))));
        }
        Ok(())
    }

    /// How many connections were ever accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many connections were open at once, at most.
    #[must_use]
    pub fn most_connections(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(accepting) = lock(&self.accepting).take() {
            accepting.abort();
        }
        lock(&self.shared.carried).abort_all();
    }
}

/// What the proxy and its connections share.
#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    lines: Mutex<Lines>,
    healed: watch::Sender<u64>,
    broken: watch::Sender<u64>,
    carried: Mutex<JoinSet<()>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Debug, Default)]
struct Lines {
    once: VecDeque<Line>,
    standing: Line,
}

impl Shared {
    fn new(server: SocketAddr) -> Self {
        Self {
            server,
            lines: Mutex::default(),
            healed: watch::Sender::default(),
            broken: watch::Sender::default(),
            carried: Mutex::default(),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }
    }

    fn line(&self) -> Line {
        let mut lines = lock(&self.lines);
        lines
            .once
            .pop_front()
            .unwrap_or_else(|| lines.standing.clone())
    }
}

/// Counts a connection for as long as it is open.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most.fetch_max(open, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How a direction came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its sender had no more.
    Finished,
    Cut,
    Reset,
}

const BACKLOG: u32 = 1024;
const PIECE: usize = 16 * 1024;

/// A socket bound to the port, beside others of ours: only one of them ever listens.
fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let counted = Counted::new(&shared);
                let mut carried = lock(&shared.carried);
                while carried.try_join_next().is_some() {}
                carried.spawn(carry(client, shared.line(), counted));
            }
            // Out of file descriptors, or the peer went away: neither is a reason to stop, nor to spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Carries one connection until it has ended in both directions, or is broken.
async fn carry(mut client: TcpStream, line: Line, counted: Counted) {
    let shared = &counted.0;
    let mut broken = shared.broken.subscribe();
    let Ok(mut server) = TcpStream::connect(shared.server).await else {
        reset(&client);
        return;
    };
    // Pieces go on as they come.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ended = {
        let (client_says, client_hears) = client.split();
        let (server_says, server_hears) = server.split();
        let healed = || shared.healed.subscribe();
        let up = pump(client_says, server_hears, line.up, healed());
        let down = pump(server_says, client_hears, line.down, healed());
        tokio::select! {
            ended = both(up, down) => ended,
            _ = broken.changed() => Ended::Reset,
        }
    };
    match ended {
        Ended::Finished => {}
        Ended::Cut => {
            let _ = (client.shutdown().await, server.shutdown().await);
            // Closing a socket with unread bytes would be a reset.
            tokio::join!(drain(&mut client), drain(&mut server));
        }
        Ended::Reset => {
            reset(&client);
            reset(&server);
        }
    }
}

/// Waits for both directions to finish, or for the first that ends the whole connection.
async fn both(up: impl Future<Output = Ended>, down: impl Future<Output = Ended>) -> Ended {
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        ended = &mut up => if ended == Ended::Finished { down.await } else { ended },
        ended = &mut down => if ended == Ended::Finished { up.await } else { ended },
    }
}

/// Carries one direction.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    mut healed: watch::Receiver<u64>,
) -> Ended {
    let mut end = way.end;
    // A tenth of a second at a time, so that what is throttled flows.
    let most = way
        .rate
        .map_or(PIECE, |rate| PIECE.min(rate as usize / 10).max(1));
    let mut buffer = vec![0; most];
    loop {
        let mut room = most;
        match end {
            Some((0, End::Stall)) => {
                // The sender lives as long as the proxy.
                let _ = healed.changed().await;
                end = None;
            }
            Some((left @ 1.., _)) => room = room.min(usize::try_from(left).unwrap_or(room)),
            _ => {}
        }
        let piece = match from.read(&mut buffer[..room]).await {
            Ok(0) => {
                let _ = to.shutdown().await;
                return Ended::Finished;
            }
            Ok(piece) => piece,
            Err(_) => return Ended::Reset,
        };
        match &mut end {
            Some((0, End::Cut)) => return Ended::Cut,
            Some((0, End::Reset)) => return Ended::Reset,
            Some((0, how)) => {
                if *how == End::HalfClose {
                    let _ = to.shutdown().await;
                }
                drain(&mut from).await;
                let _ = to.shutdown().await;
                return Ended::Finished;
            }
            Some((left, _)) => *left -= piece as u64,
            None => {}
        }
        tokio::time::sleep(way.delay).await;
        if to.write_all(&buffer[..piece]).await.is_err() {
            return Ended::Reset;
        }
        if let Some(rate) = way.rate {
            tokio::time::sleep(Duration::from_secs(1) * u32::try_from(piece).unwrap_or(1) / rate)
                .await;
        }
    }
}

/// Reads and forgets whatever comes, to its end.
async fn drain(from: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = vec![0; PIECE];
    while !matches!(from.read(&mut buffer).await, Ok(0) | Err(_)) {}
}

/// Has the kernel reset the connection when the socket is closed, which it is next.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
