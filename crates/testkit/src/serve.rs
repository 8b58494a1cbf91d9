//! The models on loopback sockets.
//!
//! A request is processed by a task of its own, so that a client that goes away cannot undo what it sent; what
//! [`Delivery`] says happens to real connections. Paths below `/__ctl/` go to [`Service::control`], and only for
//! requests that no web page can have made.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::DATE};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::exchange::{Delivery, Request, Response, Service};

mod clock;

pub use clock::Clock;

/// A bound loopback port that does not answer yet, so that its address can go into what will answer.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Binds a port of 127.0.0.1; 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// The port is taken, or no socket can be made.
    pub async fn new(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
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

    /// Starts to answer. It must be called within a tokio runtime.
    pub fn serve<S: Service + 'static>(self, service: Arc<Mutex<S>>, clock: Clock) -> Loopback {
        let origin = self.origin();
        let (stop, stopped) = watch::channel(());
        let shared = Shared {
            service,
            clock,
            stopped,
        };
        let task = tokio::spawn(accept(self.listener, shared));
        Loopback {
            origin,
            stop: Some(stop),
            task: Some(task),
        }
    }
}

/// A model that answers on a loopback port until it is dropped.
///
/// After that no connection is accepted; requests that are being answered are finished, waiting ones are cut off.
#[derive(Debug)]
pub struct Loopback {
    origin: String,
    stop: Option<watch::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Loopback {
    /// Gives the origin, for instance `http://127.0.0.1:4711`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Stops and waits until every connection is closed.
    pub async fn stop(mut self) {
        self.stop = None;
        if let Some(task) = self.task.take() {
            // It ends by itself; a panic in it has been reported by the runtime.
            let _ = task.await;
        }
    }
}

/// Locks a model, whatever happened to a thread that held it before.
pub(crate) fn lock<T: ?Sized>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every connection needs.
struct Shared<S> {
    service: Arc<Mutex<S>>,
    clock: Clock,
    stopped: watch::Receiver<()>,
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            clock: self.clock.clone(),
            stopped: self.stopped.clone(),
        }
    }
}

/// The connection is to be destroyed.
#[derive(Debug)]
struct Destroyed;

impl fmt::Display for Destroyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection destroyed on purpose")
    }
}

impl std::error::Error for Destroyed {}

const MAX_BODY: usize = 1024 * 1024;

async fn accept<S: Service + 'static>(listener: TcpListener, shared: Shared<S>) {
    let mut connections = JoinSet::new();
    let mut stopped = shared.stopped.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, shared.clone()));
                }
                // Out of file descriptors, or the peer went away: neither is a reason to stop, nor to spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            // The sender is never used, only dropped.
            _ = stopped.changed() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection until either side closes it.
async fn converse<S: Service + 'static>(stream: TcpStream, shared: Shared<S>) {
    let mut stopped = shared.stopped.clone();
    // Answers are small: waiting to fill a packet would only add latency.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, shared.clone()));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // An error is a peer that went away, or `Destroyed`.
        _ = connection.as_mut() => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer<S: Service + 'static>(
    request: http::Request<Incoming>,
    shared: Shared<S>,
) -> Result<http::Response<Full<Bytes>>, Destroyed> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body,
        Err(error) if error.is::<LengthLimitError>() => {
            let too_large = Response::empty(StatusCode::PAYLOAD_TOO_LARGE);
            return Ok(into_http(too_large));
        }
        // The rest of it never came: there is no request to answer.
        Err(_) => return Err(Destroyed),
    };
    let path_and_query = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let request = Request {
        method: head.method,
        path_and_query: path_and_query.to_owned(),
        headers: head.headers,
        body: body.to_bytes().to_vec(),
    };
    let clock = shared.clock.clone();
    // A task of its own: what has arrived is processed, whether or not the client still waits.
    match tokio::spawn(process(request, shared)).await {
        Ok(result) => result.map(|response| {
            let mut response = into_http(response);
            response
                .headers_mut()
                .entry(DATE)
                .or_insert_with(|| date(&clock));
            response
        }),
        Err(_) => Err(Destroyed),
    }
}

async fn process<S: Service + 'static>(
    request: Request,
    shared: Shared<S>,
) -> Result<Response, Destroyed> {
    let mut stopped = shared.stopped.clone();
    if let Some(operation) = request.path().strip_prefix("/__ctl/") {
        let now_ms = shared.clock.now_ms();
        return Ok(if from_a_web_page(&request) {
            Response::empty(StatusCode::FORBIDDEN)
        } else {
            lock(&shared.service)
                .control(now_ms, operation, &request)
                .unwrap_or_else(|| {
                    let body = json!({ "error": "no such control operation" });
                    Response::json(StatusCode::NOT_FOUND, &body)
                })
        });
    }

    let mut response = lock(&shared.service).handle(shared.clock.now_ms(), request.clone());
    while let Delivery::HoldMs(ms) = response.deliver {
        wait(ms, &mut stopped).await?;
        response = lock(&shared.service).resume(shared.clock.now_ms(), request.clone());
    }
    match response.deliver {
        Delivery::Normal | Delivery::HoldMs(_) => Ok(response),
        Delivery::DelayMs(ms) => {
            wait(ms, &mut stopped).await?;
            Ok(response)
        }
        Delivery::LoseAnswer | Delivery::Close => Err(Destroyed),
    }
}

/// Waits, but not for longer than the server runs.
async fn wait(ms: u64, stopped: &mut watch::Receiver<()>) -> Result<(), Destroyed> {
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(ms)) => Ok(()),
        _ = stopped.changed() => Err(Destroyed),
    }
}

/// Tells whether a browser may have sent a request for some page: those carry an origin, or a name that is not ours.
fn from_a_web_page(request: &Request) -> bool {
    let host = request.header("host").unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    request.headers.contains_key("origin") || !matches!(name, "127.0.0.1" | "localhost")
}

/// A server tells its own time, which a test may have moved.
fn date(clock: &Clock) -> HeaderValue {
    let now = std::time::UNIX_EPOCH + Duration::from_millis(clock.now_ms());
    HeaderValue::try_from(httpdate::fmt_http_date(now)).expect("a date is printable")
}

fn into_http(response: Response) -> http::Response<Full<Bytes>> {
    let mut converted = http::Response::new(Full::new(Bytes::from(response.body)));
    *converted.status_mut() = response.status;
    *converted.headers_mut() = response.headers;
    converted
}
