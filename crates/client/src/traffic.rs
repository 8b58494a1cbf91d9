//! MCP traffic with a token on it: one request, one retry after a 401, the answer as a stream.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderMap, Request, Response, StatusCode};
use pilotlight_core::{
    Error,
    error::{NetworkFault, Waited},
};

use crate::session::{Next, Sent, Session};

/// The body of an answer, as it arrives.
pub struct Body(BoxStream<'static, Result<Bytes, Error>>);

impl Body {
    /// Collects the body.
    ///
    /// # Errors
    /// `unavailable.network` where it breaks, or is longer than `limit` bytes.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, Error> {
        let mut all = Vec::new();
        while let Some(chunk) = self.0.next().await {
            let chunk = chunk?;
            if all.len() + chunk.len() > limit {
                return Err(Error::Network {
                    host: String::new(),
                    why: NetworkFault::TooLarge,
                });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }
}

impl Stream for Body {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

impl Session {
    /// Sends a request to the server with the token on it.
    ///
    /// A 401 is met with a newer token and one repeat (I-13: never after a time-out); one that only wants another proof of
    /// possession, with that and one repeat of its own. Redirects are not followed (T-23):
    /// a 3xx comes back as the answer. Every other status comes back too; only 401 and `insufficient_scope` that no token
    /// can mend are errors.
    ///
    /// # Errors
    /// Those of [`Session::authorize`]; `login.scope`, `denied.by_resource`; `unavailable.*` where no answer came.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        self.send_within(request, None).await
    }

    /// Sends a request as [`Session::send`] does; the head of each answer has to come within `limit`, not counting what a token,
    /// or a person, is waited for.
    ///
    /// # Errors
    /// Those of [`Session::send`]; `unavailable.timeout` where the server did not answer in time: the request is not repeated.
    pub async fn send_within(
        &self,
        request: Request<Bytes>,
        limit: Option<Duration>,
    ) -> Result<Response<Body>, Error> {
        let http = self.cell.http()?;
        let client = http.mcp()?;
        let (parts, body) = request.into_parts();
        let mut before: Option<(Sent, StatusCode, HeaderMap)> = None;
        loop {
            let mut parts = parts.clone();
            let mut sent = self.authorize(&mut parts).await?;
            if let Some((before, status, answer)) = &before {
                sent = sent.after(before, *status, answer);
            }
            let request = reqwest::Request::try_from(Request::from_parts(parts, body.clone()))
                .map_err(|_| Error::Bug {
                    what: "traffic: a request that cannot be sent",
                })?;
            let sending = client.execute(request);
            let answer = match limit {
                Some(limit) => {
                    tokio::time::timeout(limit, sending)
                        .await
                        .map_err(|_| Error::Timeout {
                            waited_for: Waited::Answer,
                            limit,
                        })?
                }
                None => sending.await,
            };
            let answer = answer.map_err(|error| failed(&error))?;
            match self
                .answered(&sent, answer.status(), answer.headers())
                .await
            {
                Next::Done => return Ok(respond(answer)),
                Next::Retry => before = Some((sent, answer.status(), answer.headers().clone())),
                Next::Stop(error) => return Err(error),
            }
        }
    }
}

fn respond(answer: reqwest::Response) -> Response<Body> {
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = answer.status();
    parts.version = answer.version();
    parts.headers = answer.headers().clone();
    let stream = answer
        .bytes_stream()
        .map(|chunk| chunk.map_err(|error| failed(&error)));
    Response::from_parts(parts, Body(stream.boxed()))
}

fn failed(error: &reqwest::Error) -> Error {
    let host = error
        .url()
        .and_then(url::Url::host_str)
        .unwrap_or("the server")
        .to_owned();
    if error.is_timeout() {
        return Error::Timeout {
            waited_for: Waited::Answer,
            limit: CONNECT_LIMIT,
        };
    }
    let why = if error.is_connect() {
        NetworkFault::Connect
    } else {
        NetworkFault::Broken
    };
    Error::Network { host, why }
}

/// What the MCP client allows a connection to take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
