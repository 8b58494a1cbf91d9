//! The one HTTP stack: every leg of OAuth, and the client that MCP traffic goes through.
//!
//! The life of an exchange:
//!
//! 1. the URL's scheme and literal address are checked ([`crate::egress`]);
//! 2. a connection is made: names go through our resolver, TLS through the system's roots (loaded at the first
//!    handshake) and the configured extra ones;
//! 3. the request leaves, once: no redirect is followed by the stack, nothing is retried, nothing is decompressed;
//! 4. the answer is read up to [`BODY_LIMIT`](pilotlight_core::exchange::BODY_LIMIT), all within the leg's deadline;
//! 5. a metadata request that is redirected starts over at 1, at most three times, within its origin (T-13).
//!
//! A failure says whether the request can have been delivered (F-12). That is decided by *when* it failed: before the
//! connection stood, nothing was delivered; afterwards nobody knows. A body that would leave too late stays here. The legs that carry secrets use connections of
//! their own that are never reused, so that a connection found dead is never mistaken for a request that was lost, and
//! a path that has died is found within ten seconds: by TCP keep-alive and user time-out, and by HTTP/2 pings.

mod answer;
mod classify;
mod departure;
mod proxy;
mod tls;

use std::{
    fmt::{self, Debug},
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use pilotlight_core::{
    Error,
    error::NetworkFault,
    exchange::{Exchange, Exchanged, Failure, Fault, Leg, Reply},
};
use url::{Host, Url};

use crate::{
    clock::Clock,
    egress::{Egress, Forbidden, Lookup, Resolver, SystemLookup},
};
use answer::read;
use classify::Ended;
use departure::{Departing, Departure, Ends, Stayed};

pub use proxy::Proxy;

/// Makes HTTP exchanges. A role, so that tests and hosts bring their own.
#[async_trait]
pub trait Http: Send + Sync + Debug + 'static {
    /// Makes one exchange: sends it once, follows no redirect but those of its [`Leg`], keeps its deadline.
    ///
    /// Where the exchange has an end for its departure ([`Exchange::not_after`], on the clock of its caller) that is looked at
    /// when the body is about to leave, after name, connection and TLS have taken their time. If it has passed by then,
    /// nothing of the body is sent and the answer is [`Fault::TooLate`] with
    /// [`NotDelivered`](pilotlight_core::exchange::Delivery::NotDelivered): a refresh token that arrives after the window in
    /// which its issuer forgives a repeat ends the login. An implementation that ignores it loses logins. Whether a path that
    /// carries nothing any more is given up or waited for is settled at that moment, too ([`Exchange::patient_from`]).
    ///
    /// Not cancel-safe in what matters: dropping the future of a [`Leg::Token`] exchange may lose an answer that the
    /// issuer has given, so a refresh runs in a task of its own.
    async fn send(&self, exchange: Exchange) -> Exchanged;
}

/// How the HTTP stack is set up. Nothing of it is read from the environment.
#[derive(Debug, Clone, Default)]
pub struct HttpConfig {
    /// Which addresses may be talked to.
    pub egress: Egress,
    /// Certificates (PEM, one or more in each) that are trusted beside the system's.
    pub extra_ca: Vec<Vec<u8>>,
    /// The proxy, if any.
    pub proxy: Proxy,
    /// What `User-Agent` says; empty for the library's own name and version.
    pub user_agent: String,
    /// Whether names stand for their IPv4 addresses alone.
    pub ipv4_only: bool,
    /// How long a connection for MCP traffic may take to stand (default 15 s). Those to issuers have 10 s: what may be repeated, and
    /// when, is counted from there.
    pub connect_timeout: Option<Duration>,
}

impl HttpConfig {
    /// Starts from a policy, with no proxy and the system's roots.
    #[must_use]
    pub fn new(egress: Egress) -> Self {
        Self {
            egress,
            ..Self::default()
        }
    }

    /// Trusts the certificates in a PEM file beside the system's.
    #[must_use]
    pub fn with_extra_ca(mut self, pem: Vec<u8>) -> Self {
        self.extra_ca.push(pem);
        self
    }

    /// Goes through a proxy.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// Uses only the IPv4 addresses of a name.
    #[must_use]
    pub fn with_ipv4_only(mut self, ipv4_only: bool) -> Self {
        self.ipv4_only = ipv4_only;
        self
    }

    /// Waits so long for a connection for MCP traffic to stand.
    #[must_use]
    pub fn with_connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = Some(limit);
        self
    }

    /// Says something else in `User-Agent`.
    #[must_use]
    pub fn with_user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }
}

/// The HTTP stack of one server's session. Its inner clients are made when they are first needed.
pub struct HttpClient {
    config: HttpConfig,
    clock: Arc<dyn Clock>,
    lookup: Arc<dyn Lookup>,
    tls: tls::Tls,
    /// Metadata, registration, revocation, challenge.
    plain: OnceLock<reqwest::Client>,
    /// The token endpoint.
    token: OnceLock<reqwest::Client>,
    /// The token endpoint, where a dead path is waited for.
    patient: OnceLock<reqwest::Client>,
    mcp: OnceLock<reqwest::Client>,
}

impl HttpClient {
    /// Sets the stack up; opens nothing and loads no system roots yet.
    ///
    /// # Errors
    /// `config.value` where an extra certificate cannot be read.
    pub fn new(config: HttpConfig, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let tls = tls::Tls::new(&config.extra_ca)?;
        Ok(Self {
            config,
            clock,
            lookup: Arc::new(SystemLookup),
            tls,
            plain: OnceLock::new(),
            token: OnceLock::new(),
            patient: OnceLock::new(),
            mcp: OnceLock::new(),
        })
    }

    /// Looks names up with `lookup` instead of the operating system's resolver; what it answers is filtered all the same.
    #[must_use]
    pub fn with_lookup(mut self, lookup: Arc<dyn Lookup>) -> Self {
        self.lookup = lookup;
        self
    }

    /// The egress policy.
    #[must_use]
    pub fn egress(&self) -> &Egress {
        &self.config.egress
    }

    /// The client for MCP traffic: pooled and streaming, no total deadline, no redirects, the same TLS, proxy and
    /// address filter. A literal address in a URL that is not the server's own has to be checked by the caller
    /// ([`Egress::check_literal`]): a connector never sees literals.
    ///
    /// # Errors
    /// `config.value` where the TLS library cannot be set up.
    pub fn mcp(&self) -> Result<&reqwest::Client, Error> {
        made(&self.mcp, || {
            self.builder()
                .connect_timeout(self.config.connect_timeout.unwrap_or(MCP_CONNECT_TIMEOUT))
                .pool_idle_timeout(Duration::from_secs(60))
                .tcp_keepalive(Duration::from_secs(15))
                .http2_keep_alive_interval(Duration::from_secs(20))
                .http2_keep_alive_timeout(Duration::from_secs(20))
        })
    }

    fn client(&self, leg: Leg, patient: bool) -> Result<&reqwest::Client, Error> {
        if leg == Leg::Token && patient {
            made(&self.patient, || {
                self.builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .pool_max_idle_per_host(0)
            })
        } else if leg == Leg::Token {
            made(&self.token, || {
                quick_to_notice(self.builder())
                    .connect_timeout(CONNECT_TIMEOUT)
                    .pool_max_idle_per_host(0)
            })
        } else {
            made(&self.plain, || {
                quick_to_notice(self.builder())
                    .connect_timeout(CONNECT_TIMEOUT)
                    .pool_idle_timeout(Duration::from_secs(5))
                    .pool_max_idle_per_host(2)
            })
        }
    }

    /// What every client has in common.
    fn builder(&self) -> reqwest::ClientBuilder {
        let agent = match self.config.user_agent.as_str() {
            "" => concat!("pilotlight/", env!("CARGO_PKG_VERSION")),
            own => own,
        };
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.config())
            .dns_resolver(self.resolver())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .user_agent(agent);
        match self.config.proxy.reqwest() {
            Some(proxy) => builder.proxy(proxy),
            None => builder,
        }
    }

    fn resolver(&self) -> Resolver {
        Resolver::new(
            self.config.egress.clone(),
            self.lookup.clone(),
            self.config.proxy.hosts(),
        )
        .ipv4_only(self.config.ipv4_only)
    }

    /// Checks a URL before anything is sent to it.
    async fn admit(&self, url: &Url) -> Result<(), Forbidden> {
        self.config.egress.check_literal(url)?;
        if let (Some(Host::Domain(name)), Some(_)) = (url.host(), self.config.proxy.of(url)) {
            let check = self.resolver();
            // A name that does not resolve here in time is one that only the proxy knows.
            return tokio::time::timeout(LOCAL_LOOKUP_TIMEOUT, check.check_proxied(name))
                .await
                .unwrap_or(Ok(()));
        }
        Ok(())
    }

    /// Sends the request and, for metadata, its redirected forms.
    async fn follow(&self, exchange: Exchange, departure: &mut Departure) -> Result<Reply, Ended> {
        let Exchange {
            leg,
            method,
            mut url,
            origin,
            headers,
            mut body,
            patient_from,
            not_after,
            orders: _,
            within: _,
        } = exchange;
        // The bytes stay in their wiping container until the last copy is dropped.
        let body = Bytes::from_owner(std::mem::take(&mut body));
        let refused = || Ended::after(Fault::Network(NetworkFault::Redirect));
        let mut hops_left = leg.redirects();
        loop {
            self.admit(&url)
                .await
                .map_err(|forbidden| Ended::forbidden(forbidden, origin))?;
            if url.scheme() == "https" {
                self.tls.load().await;
            }
            let asked_at = self.clock.now();
            let patient = patient_from.is_some_and(|from| asked_at.mono >= from);
            let mut request = self
                .client(leg, patient)
                .map_err(|_| Ended::before(Fault::Network(NetworkFault::Tls)))?
                .request(method.clone(), url.clone())
                .headers(headers.clone());
            if !body.is_empty() {
                let ends = Ends {
                    not_after,
                    patient_from: patient_from.filter(|_| !patient),
                };
                let body = Departing::new(body.clone(), ends, self.clock.clone(), departure);
                request = request.body(reqwest::Body::wrap(body));
            } else if method == Method::POST {
                request = request.body(Bytes::new());
            }
            let response = match request.send().await {
                Ok(response) => response,
                // Nothing of the body has left: it does on a connection that waits.
                Err(_) if departure.stayed() == Some(Stayed::Impatient) => {
                    *departure = Departure::default();
                    continue;
                }
                Err(error) => return Err(Ended::sending(error, origin)),
            };
            // A leg that follows none gives the redirect as its answer.
            let location =
                redirected(&response).filter(|_| leg.redirects() > 0 && method == Method::GET);
            let Some(location) = location else {
                return read(response, departure.at().unwrap_or(asked_at)).await;
            };
            hops_left = hops_left.checked_sub(1).ok_or_else(refused)?;
            url = within_origin(&url, location).ok_or_else(refused)?;
        }
    }
}

#[async_trait]
impl Http for HttpClient {
    async fn send(&self, exchange: Exchange) -> Exchanged {
        let (leg, host, within) = (exchange.leg, exchange.host(), exchange.within);
        let has_body = !exchange.body.is_empty();
        let (begun, mut departure) = (self.clock.now(), Departure::default());
        // Boxed: the future of a whole exchange is large, and is held by every flow.
        let answer =
            tokio::time::timeout(within, Box::pin(self.follow(exchange, &mut departure))).await;
        let ended = match answer {
            Ok(Ok(reply)) => return Ok(reply),
            _ if departure.stayed() == Some(Stayed::TooLate) => Ended::before(Fault::TooLate),
            Ok(Err(ended)) => ended,
            // All that matters is in the body, and nobody has asked for it.
            Err(_) if has_body && departure.at().is_none() => {
                Ended::before(Fault::Deadline(within))
            }
            Err(_) => Ended::after(Fault::Deadline(within)),
        };
        let sent_at = departure.at().unwrap_or(begun);
        tracing::debug!(?leg, host, delivery = ?ended.delivery, fault = ?ended.fault, "exchange failed");
        Err(Failure {
            delivery: ended.delivery,
            fault: ended.fault,
            host,
            sent_at,
        })
    }
}

impl Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("egress", &self.config.egress)
            .finish_non_exhaustive()
    }
}

/// Gives the client in `cell`, building it first where it is not there yet.
fn made(
    cell: &OnceLock<reqwest::Client>,
    builder: impl FnOnce() -> reqwest::ClientBuilder,
) -> Result<&reqwest::Client, Error> {
    if let Some(client) = cell.get() {
        return Ok(client);
    }
    let client = builder().build().map_err(|error| Error::ConfigValue {
        what: "the HTTP client".into(),
        why: error.without_url().to_string(),
    })?;
    Ok(cell.get_or_init(|| client))
}

/// Sets the timers by which a dead path is found within ten seconds while a live slow peer is waited for: TCP probes
/// after 3, 5, 7 and 9 s of silence, of which the kernel gives up at the first that finds 8 s unanswered; a ping of
/// HTTP/2 every 4 s that has 5 s for its answer.
fn quick_to_notice(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    let builder = builder
        .tcp_keepalive(Duration::from_secs(3))
        .tcp_keepalive_interval(Duration::from_secs(2))
        .tcp_keepalive_retries(3)
        .http2_keep_alive_interval(Duration::from_secs(4))
        .http2_keep_alive_timeout(Duration::from_secs(5))
        .http2_keep_alive_while_idle(true);
    #[cfg(target_os = "linux")]
    let builder = builder.tcp_user_timeout(Duration::from_secs(8));
    builder
}

/// Where an answer redirects to, if it does.
fn redirected(response: &reqwest::Response) -> Option<&HeaderValue> {
    let redirects = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if redirects {
        response.headers().get(http::header::LOCATION)
    } else {
        None
    }
}

/// The URL that a redirect leads to, if it is of the same origin (T-13); so https stays https.
fn within_origin(from: &Url, location: &HeaderValue) -> Option<Url> {
    let mut to = from.join(location.to_str().ok()?).ok()?;
    to.set_fragment(None);
    let plain = to.username().is_empty() && to.password().is_none();
    (plain && to.origin().is_tuple() && to.origin() == from.origin()).then_some(to)
}

/// Name, TCP, proxy and TLS together; shorter than any leg's deadline, so that running into the deadline always means
/// that the connection stood.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const LOCAL_LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
