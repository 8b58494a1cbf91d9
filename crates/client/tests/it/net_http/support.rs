//! Servers, certificates and names for the tests of the network.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use http::HeaderMap;
use pilotlight::{
    clock::SystemClock,
    core::{
        exchange::{Exchange, Failure, Leg, Reply},
        resource::Resource,
    },
    egress::{Egress, Lookup},
    http::{Http as _, HttpClient, HttpConfig},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};
use url::Url;
use zeroize::Zeroizing;

pub(crate) fn loopback() -> Egress {
    Egress::for_server(&Resource::parse("http://127.0.0.1/mcp").unwrap(), &[])
}

pub(crate) fn local() -> HttpClient {
    HttpClient::new(HttpConfig::new(loopback()), Arc::new(SystemClock)).unwrap()
}

pub(crate) fn trusting(certificate: &Certificate) -> HttpClient {
    let config = HttpConfig::new(loopback()).with_extra_ca(certificate.pem.clone());
    HttpClient::new(config, Arc::new(SystemClock)).unwrap()
}

pub(crate) async fn at_test(
    certificate: &Certificate,
    address: SocketAddr,
) -> Result<Reply, Failure> {
    let client = trusting(certificate)
        .with_lookup(Arc::new(Names::default().with("as.test", ["127.0.0.1"])));
    client
        .send(token(
            Url::parse(&format!("https://as.test:{}/token", address.port())).unwrap(),
        ))
        .await
}

pub(crate) fn token(url: Url) -> Exchange {
    let body = Zeroizing::new(b"grant_type=refresh_token&refresh_token=canary".to_vec());
    Exchange::post(Leg::Token, url, "token_endpoint", HeaderMap::new(), body)
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Exchange {
    Exchange::get(
        Leg::Metadata,
        Url::parse(&format!("http://{address}{path}")).unwrap(),
        "resource_metadata",
    )
}

pub(crate) async fn send(
    client: &HttpClient,
    leg: Leg,
    address: SocketAddr,
) -> Result<Reply, Failure> {
    let url = Url::parse(&format!("http://{address}/token")).unwrap();
    let exchange = match leg {
        Leg::Metadata => Exchange::get(leg, url, "resource_metadata"),
        _ => Exchange {
            leg,
            within: leg.deadline(),
            ..token(url)
        },
    };
    client.send(exchange).await
}

/// Serves connections on a free port of loopback.
pub(crate) async fn serve<F, D>(handler: F) -> SocketAddr
where
    F: Fn(TcpStream) -> D + Send + 'static,
    D: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handler(stream));
        }
    });
    address
}

/// The same under TLS.
pub(crate) async fn serve_tls<F, D>(
    certificate: &Certificate,
    alpn: &[&[u8]],
    handler: F,
) -> SocketAddr
where
    F: Fn(TlsStream<TcpStream>) -> D + Send + Sync + 'static,
    D: Future<Output = ()> + Send + 'static,
{
    let acceptor = certificate.acceptor(alpn);
    let handler = Arc::new(handler);
    serve(move |stream| {
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                handler(stream).await;
            }
        }
    })
    .await
}

pub(crate) async fn fixed(text: String) -> SocketAddr {
    serve(move |mut stream| {
        let text = text.clone();
        async move {
            request(&mut stream).await;
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.read(&mut [0; 1]).await;
        }
    })
    .await
}

/// Redirects where `target` says so, else answers `{}`; tells what it was asked.
pub(crate) async fn redirecting(
    status: u16,
    target: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, target) = (seen.clone(), Arc::new(target));
    let address = serve(move |mut stream| {
        let (log, target) = (log.clone(), target.clone());
        async move {
            let head = String::from_utf8_lossy(&request(&mut stream).await).into_owned();
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
            log.lock().unwrap().push(format!("{method} {path}"));
            let answer = match target(&path) {
                Some(to) => format!("HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
                None => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".into(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    (address, seen)
}

/// Reads a request with its body, if it announces one; empty where the connection ends instead.
pub(crate) async fn request<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .split_once("content-length: ")
                .and_then(|(_, rest)| rest.lines().next()?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return bytes;
            }
        }
        let mut block = [0; 4096];
        match stream.read(&mut block).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&block[..n]),
            _ => return Vec::new(),
        }
    }
}

pub(crate) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    request(stream).await;
    let _ = stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        .await;
    let _ = stream.shutdown().await;
}

/// A self-signed certificate for one name.
pub(crate) struct Certificate {
    pub(crate) pem: Vec<u8>,
    key: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Certificate {
    pub(crate) fn of(name: &str) -> Self {
        let key = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Self {
            pem: key.cert.pem().into_bytes(),
            key,
        }
    }

    pub(crate) fn acceptor(&self, alpn: &[&[u8]]) -> TlsAcceptor {
        let private =
            rustls::pki_types::PrivateKeyDer::Pkcs8(self.key.signing_key.serialize_der().into());
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![self.key.cert.der().clone()], private)
        .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A resolver with answers of its own: each look-up of a name takes its next answer, the last one stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    answers: Vec<(String, Vec<Vec<IpAddr>>)>,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Names {
    pub(crate) fn with<const N: usize>(mut self, name: &str, addresses: [&str; N]) -> Self {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        match self.answers.iter_mut().find(|(known, _)| known == name) {
            Some((_, all)) => all.push(addresses),
            None => self.answers.push((name.to_owned(), vec![addresses])),
        }
        self
    }
}

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let before = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(name.to_owned());
            asked.iter().filter(|other| *other == name).count() - 1
        };
        let found = self.answers.iter().find(|(known, _)| known == name);
        let (_, all) =
            found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name"))?;
        Ok(all[before.min(all.len() - 1)].clone())
    }
}
