//! A small HTTP/1.1 client for loopback addresses: no TLS, no redirects, one connection per request.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use url::Url;

/// Sends a GET request.
///
/// # Errors
///
/// See [`FetchError`].
pub async fn get(url: &str) -> Result<Fetched, FetchError> {
    exchange(Method::GET, url, HeaderMap::new(), Vec::new()).await
}

/// Sends a POST request with a body of the given media type.
///
/// # Errors
///
/// See [`FetchError`].
pub async fn post(
    url: &str,
    content_type: &str,
    body: impl Into<Vec<u8>>,
) -> Result<Fetched, FetchError> {
    let mut headers = HeaderMap::new();
    let value = content_type.parse();
    headers.insert(CONTENT_TYPE, value.map_err(FetchError::new)?);
    exchange(Method::POST, url, headers, body.into()).await
}

/// Sends a POST request with a form body.
///
/// # Errors
///
/// See [`FetchError`].
pub async fn post_form(url: &str, fields: &[(&str, &str)]) -> Result<Fetched, FetchError> {
    let body = crate::exchange::encode_form(fields);
    post(url, "application/x-www-form-urlencoded", body).await
}

/// Sends any request and reads the whole answer, for at most two minutes.
///
/// # Errors
///
/// See [`FetchError`].
pub async fn exchange(
    method: Method,
    url: &str,
    headers: HeaderMap,
    body: Vec<u8>,
) -> Result<Fetched, FetchError> {
    match tokio::time::timeout(DEADLINE, send(method, url, headers, body)).await {
        Ok(result) => result,
        Err(_) => Err(FetchError::new("no answer in time")),
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The HTTP status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Fetched {
    /// Reads a header field as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Reads the body as text, replacing what is not UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Reads the body as JSON; `null` when it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// No answer came: the URL is not `http` on a loopback address, nobody listens, or the connection broke.
#[derive(Debug)]
pub struct FetchError(Box<dyn std::error::Error + Send + Sync>);

impl FetchError {
    pub(crate) fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer over loopback: {}", self.0)
    }
}

impl std::error::Error for FetchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.0.as_ref())
    }
}

const DEADLINE: Duration = Duration::from_secs(120);

async fn send(
    method: Method,
    url: &str,
    headers: HeaderMap,
    body: Vec<u8>,
) -> Result<Fetched, FetchError> {
    let url = Url::parse(url).map_err(FetchError::new)?;
    let port = url.port_or_known_default().unwrap_or(80);
    let address = match url.host() {
        Some(url::Host::Ipv4(ip)) if ip.is_loopback() => ip.to_string(),
        Some(url::Host::Ipv6(ip)) if ip.is_loopback() => ip.to_string(),
        Some(url::Host::Domain("localhost")) => "localhost".to_owned(),
        _ => return Err(FetchError::new("not a loopback address")),
    };
    if url.scheme() != "http" {
        return Err(FetchError::new("not an http URL"));
    }

    let stream = TcpStream::connect((address.as_str(), port))
        .await
        .map_err(FetchError::new)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::new)?;
    let driver = tokio::spawn(connection);

    let mut request = http::Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    *request.uri_mut() = url[url::Position::BeforePath..url::Position::AfterQuery]
        .parse()
        .map_err(FetchError::new)?;
    *request.headers_mut() = headers;
    let host = url[url::Position::BeforeHost..url::Position::AfterPort].parse();
    request
        .headers_mut()
        .insert(HOST, host.map_err(FetchError::new)?);

    let result = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(FetchError::new)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(FetchError::new)?;
        Ok(Fetched {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes().to_vec(),
        })
    }
    .await;
    driver.abort();
    result
}
