//! One HTTP exchange as a value: what to send, and what came of it.

use std::{fmt, time::Duration};

use http::{HeaderMap, Method};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    assertion::ClientKey,
    dpop::ProofKey,
    error::{Error, NetworkFault, Waited},
    grant::FormRequest,
    issuer::Issuer,
    reference::SecretRef,
    time::{Mono, Now},
};

/// An HTTP request for the driver to make once: it retries nothing and follows no redirect but those of [`Leg`].
#[derive(Clone)]
pub struct Exchange {
    /// What the request is for; decides the client, the deadline and the redirect rule.
    pub leg: Leg,
    /// The method.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// What led to the URL, for messages: a metadata field, or `server`.
    pub origin: &'static str,
    /// The headers; secret values are marked sensitive.
    pub headers: HeaderMap,
    /// The body, wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
    /// Where the body leaves at this time or later, a path that seems dead is waited for until the deadline of the leg:
    /// nothing would follow from giving it up. `None` where it is always given up.
    pub patient_from: Option<Mono>,
    /// Until when the body may leave. Who is ready to send it later, because a connection took its time, sends nothing of it
    /// and answers [`Fault::TooLate`].
    pub not_after: Option<Mono>,
    /// What the driver puts in as the request departs, anew for each departure.
    pub orders: Orders,
    /// How long it may take as a whole: the deadline of its leg, or less.
    pub within: Duration,
}

/// What only the driver can put into a request: it needs a secret that no flow holds, or a signature.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    /// The client's signed assertion (RFC 7523 section 2.2), appended to the form.
    pub assertion: Option<AssertionOrder>,
    /// The client's secret, from where it lies.
    pub secret: Option<SecretOrder>,
    /// A proof of possession of this key (RFC 9449 section 5).
    pub proof: Option<ProofKey>,
}

/// A client assertion that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionOrder {
    /// The key that signs it.
    pub key: ClientKey,
    /// `iss` and `sub`.
    pub client_id: String,
    /// `aud`: an issuer identifier, never an endpoint.
    pub audience: Issuer,
}

/// A client secret that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretOrder {
    /// Where it lies.
    pub reference: SecretRef,
    /// Whose it is.
    pub client_id: String,
    /// Whether it goes into the form (`client_secret_post`) instead of the `Authorization` field.
    pub in_body: bool,
}

impl Exchange {
    /// A GET without a body that accepts JSON.
    #[must_use]
    pub fn get(leg: Leg, url: Url, origin: &'static str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(
            http::header::ACCEPT,
            http::HeaderValue::from_static("application/json"),
        );
        Self {
            leg,
            method: Method::GET,
            url,
            origin,
            headers,
            body: Zeroizing::new(Vec::new()),
            patient_from: None,
            not_after: None,
            orders: Orders::default(),
            within: leg.deadline(),
        }
    }

    /// A POST.
    #[must_use]
    pub fn post(
        leg: Leg,
        url: Url,
        origin: &'static str,
        headers: HeaderMap,
        body: Zeroizing<Vec<u8>>,
    ) -> Self {
        Self {
            leg,
            method: Method::POST,
            url,
            origin,
            headers,
            body,
            patient_from: None,
            not_after: None,
            orders: Orders::default(),
            within: leg.deadline(),
        }
    }

    /// A POST of a form, with what the driver is to put into it.
    #[must_use]
    pub fn form(leg: Leg, url: Url, origin: &'static str, form: FormRequest) -> Self {
        let mut exchange = Self::post(leg, url, origin, form.headers, form.body);
        exchange.orders = form.orders;
        exchange
    }

    /// The host, for messages.
    #[must_use]
    pub fn host(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        url.set_query(None);
        f.debug_struct("Exchange")
            .field("leg", &self.leg)
            .field("method", &self.method)
            .field("url", &url.as_str())
            .finish_non_exhaustive()
    }
}

/// What an exchange is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leg {
    /// The MCP server, without a token, to see its challenge.
    Challenge,
    /// Metadata of the resource or the authorization server: at most three redirects, same origin.
    Metadata,
    /// Dynamic client registration: no redirects.
    Registration,
    /// The device authorization endpoint: no redirects.
    Device,
    /// The token endpoint: no redirects, no idle connections, never repeated by the client.
    Token,
    /// The revocation endpoint: no redirects.
    Revocation,
    /// The issuer's metadata, only to see whether anything answers: no redirects, a short deadline.
    Reach,
    /// The authorization endpoint, only to see whether it knows the client: no redirects, a short deadline.
    Preflight,
}

impl Leg {
    /// How long an exchange may take as a whole.
    #[must_use]
    pub fn deadline(self) -> Duration {
        match self {
            Self::Token => Duration::from_secs(60),
            Self::Reach | Self::Preflight => Duration::from_secs(5),
            _ => Duration::from_secs(15),
        }
    }

    /// How many redirects are followed, same origin only (T-13).
    #[must_use]
    pub fn redirects(self) -> usize {
        if self == Self::Metadata { 3 } else { 0 }
    }
}

/// The longest body that is read, after decoding (T-14).
pub const BODY_LIMIT: usize = 256 * 1024;

/// An HTTP answer, whole.
#[derive(Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most [`BODY_LIMIT`], wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
    /// When the request left.
    pub sent_at: Now,
}

impl Reply {
    /// `Retry-After` in seconds (RFC 9110 section 10.2.3); a date is left to the back-off.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }

    /// Whether the body is for people, not for programs.
    #[must_use]
    pub fn is_page(&self) -> bool {
        let html = |value: &http::HeaderValue| {
            value
                .to_str()
                .is_ok_and(|text| text.to_ascii_lowercase().contains("html"))
        };
        let first = self.body.iter().find(|byte| !byte.is_ascii_whitespace());
        self.headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(html)
            || first == Some(&b'<')
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({}, {} bytes)", self.status, self.body.len())
    }
}

/// An exchange that brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whether the request can have reached the other side.
    pub delivery: Delivery,
    /// What went wrong.
    pub fault: Fault,
    /// The host.
    pub host: String,
    /// When the request left, or would have.
    pub sent_at: Now,
}

/// Whether a request that failed can have reached the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It failed before a connection existed, or the peer said that it did nothing.
    NotDelivered,
    /// The connection stood: nobody knows.
    Ambiguous,
}

/// What went wrong with an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The network.
    Network(NetworkFault),
    /// [`Exchange::within`].
    Deadline(Duration),
    /// The connection stood after [`Exchange::not_after`]: nothing was sent.
    TooLate,
    /// The egress policy: nothing was sent.
    Forbidden {
        /// The address that is not allowed.
        address: String,
        /// What led there.
        field: String,
    },
    /// What [`Exchange::orders`] asks for could not be had: nothing was sent.
    Unsigned(Box<Error>),
}

impl Failure {
    /// The failure as an error for people.
    #[must_use]
    pub fn error(&self) -> Error {
        match &self.fault {
            Fault::Network(why) => Error::Network {
                host: self.host.clone(),
                why: *why,
            },
            Fault::Deadline(limit) => Error::Timeout {
                waited_for: Waited::Answer,
                limit: *limit,
            },
            Fault::TooLate => Error::Network {
                host: self.host.clone(),
                why: NetworkFault::Connect,
            },
            Fault::Forbidden { address, field } => Error::AddressForbidden {
                field: field.clone(),
                address: address.clone(),
            },
            Fault::Unsigned(error) => (**error).clone(),
        }
    }
}

/// What came of an exchange.
pub type Exchanged = Result<Reply, Failure>;
