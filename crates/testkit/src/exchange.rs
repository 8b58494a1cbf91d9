//! One HTTP exchange as plain data, without sockets.

use std::collections::BTreeMap;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;

/// A request as a model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// The request target: path and query, as sent.
    pub path_and_query: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Request {
    /// Makes a request without header fields or body.
    #[must_use]
    pub fn new(method: Method, path_and_query: impl Into<String>) -> Self {
        Self {
            method,
            path_and_query: path_and_query.into(),
            headers: HeaderMap::new(),
            body: Vec::new(),
        }
    }

    /// The request as it came, decoded bytes and all, for tests that look into it.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut text = format!("{} {}\n", self.method, self.path_and_query);
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            text.push_str(&format!("{name}: {value}\n"));
        }
        text.push_str(&String::from_utf8_lossy(&self.body));
        text
    }

    /// Makes a GET request.
    #[must_use]
    pub fn get(path_and_query: impl Into<String>) -> Self {
        Self::new(Method::GET, path_and_query)
    }

    /// Makes a POST request with a form body.
    #[must_use]
    pub fn form(path_and_query: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let mut request = Self::new(Method::POST, path_and_query);
        request.body = encode_form(fields).into_bytes();
        request.with_header(CONTENT_TYPE, "application/x-www-form-urlencoded")
    }

    /// Makes a POST request with a JSON body.
    #[must_use]
    pub fn json(path_and_query: impl Into<String>, body: &Value) -> Self {
        let mut request = Self::new(Method::POST, path_and_query);
        request.body = body.to_string().into_bytes();
        request.with_header(CONTENT_TYPE, "application/json")
    }

    /// Adds a header field; a value that HTTP does not allow is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        put(&mut self.headers, name, value);
        self
    }

    /// Gives the path, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }

    /// Gives the query, without the question mark; empty when there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        self.path_and_query
            .split_once('?')
            .map_or("", |(_, query)| query)
    }

    /// Reads a header field as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Reads the token of an `Authorization: Bearer` field (RFC 6750 section 2.1).
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        self.token_of("bearer")
    }

    /// Reads the token of an `Authorization` field of some scheme.
    #[must_use]
    pub fn token_of(&self, scheme: &str) -> Option<&str> {
        let (own, token) = self.header("authorization")?.split_once(' ')?;
        own.eq_ignore_ascii_case(scheme).then(|| token.trim())
    }
}

/// What a model answers, and how the answer has to travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
    /// What the network has to do with it.
    pub deliver: Delivery,
}

impl Response {
    /// Makes an answer without a body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Vec::new(),
            deliver: Delivery::Normal,
        }
    }

    /// Makes an answer with a body of the given media type.
    #[must_use]
    pub fn with_body(status: StatusCode, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut response = Self::empty(status);
        response.body = body.into();
        response.with_header(CONTENT_TYPE, content_type)
    }

    /// Makes a JSON answer.
    #[must_use]
    pub fn json(status: StatusCode, body: &Value) -> Self {
        Self::with_body(status, "application/json", body.to_string())
    }

    /// Makes an HTML answer that may neither run scripts nor be framed.
    #[must_use]
    pub fn html(status: StatusCode, body: String) -> Self {
        Self::with_body(status, "text/html; charset=utf-8", body)
            .with_header(
                http::header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            )
            .with_header(http::header::REFERRER_POLICY, "no-referrer")
    }

    /// Makes a 302 answer.
    #[must_use]
    pub fn redirect(location: &str) -> Self {
        Self::empty(StatusCode::FOUND).with_header(http::header::LOCATION, location)
    }

    /// Makes an answer that only says what the network has to do.
    #[must_use]
    pub fn undelivered(deliver: Delivery) -> Self {
        let mut response = Self::empty(StatusCode::SERVICE_UNAVAILABLE);
        response.deliver = deliver;
        response
    }

    /// Adds a header field; a value that HTTP does not allow is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        put(&mut self.headers, name, value);
        self
    }

    /// Forbids caching, as token responses must (RFC 6749 section 5.1).
    #[must_use]
    pub fn no_store(self) -> Self {
        self.with_header(http::header::CACHE_CONTROL, "no-store")
    }

    /// Reads the body as JSON; `null` when it is not JSON.
    #[must_use]
    pub fn body_json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// What the network has to do with a request or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The answer is sent at once.
    Normal,
    /// The request was processed; the connection is destroyed before any of the answer is sent.
    LoseAnswer,
    /// The request was processed; the answer is sent this many milliseconds later.
    DelayMs(u64),
    /// Nothing was processed yet: hand the same request to [`Service::resume`] this many milliseconds later.
    HoldMs(u64),
    /// Nothing was processed and nothing will be: the connection is closed.
    Close,
}

/// A model that answers requests: pure, its only clock is the argument.
pub trait Service: Send {
    /// Answers a request that has just arrived; `now_ms` is Unix time in milliseconds.
    fn handle(&mut self, now_ms: u64, request: Request) -> Response;

    /// Answers a request that [`Delivery::HoldMs`] held back; call it once the time is over.
    fn resume(&mut self, now_ms: u64, request: Request) -> Response {
        self.handle(now_ms, request)
    }

    /// Answers a test's control request, `operation` being the path after `/__ctl/`; `None` when it is unknown.
    fn control(&mut self, now_ms: u64, operation: &str, request: &Request) -> Option<Response> {
        let _ = (now_ms, operation, request);
        None
    }
}

/// Form fields, the first value of each name.
///
/// OAuth forbids repeated parameters (RFC 6749 section 3.1); `repeated` names the first one seen twice.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    values: BTreeMap<String, String>,
    pub(crate) repeated: Option<String>,
}

impl Fields {
    pub(crate) fn parse(encoded: &[u8]) -> Self {
        let mut fields = Self::default();
        for (name, value) in url::form_urlencoded::parse(encoded) {
            // RFC 6749 section 3.1: a parameter without a value is as if it was not sent.
            if value.is_empty() {
                continue;
            }
            // RFC 8707 section 2 is the exception: `resource` may come more than once.
            if fields.values.contains_key(name.as_ref()) && name != "resource" {
                fields.repeated.get_or_insert_with(|| name.to_string());
                continue;
            }
            fields
                .values
                .entry(name.into_owned())
                .or_insert_with(|| value.into_owned());
        }
        fields
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

pub(crate) fn encode_form(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// Adds query parameters to a URL that may have some already.
pub(crate) fn append_query(url: &str, fields: &[(&str, &str)]) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{}", encode_form(fields))
}

/// Merges `patch` into `target`; `null` removes a member (RFC 7396).
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(members) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
