//! A worker: calls the MCP server again and again, with the token that its session gives.

use std::time::Duration;

use http::{HeaderMap, Method, header};
use pilotlight::{Error, Next, Session, clock::Clock, core::time::millis};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use super::{
    fail_point::{FailPoints, Point},
    said::{Journal, Said},
};
use crate::fetch::{self, FetchError};

/// What a worker works with.
pub(super) struct Worker<'a> {
    pub(super) session: Session,
    pub(super) points: &'a FailPoints,
    pub(super) journal: Journal,
    pub(super) clock: &'a dyn Clock,
}

impl Worker<'_> {
    /// Calls every so often, or once for each line on stdin; ends when stdin does.
    pub(super) async fn work(&self, every: Option<Duration>) {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        loop {
            match every {
                Some(pause) => {
                    self.call().await;
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = ended(&mut lines) => return,
                    }
                }
                None => match lines.next_line().await {
                    Ok(Some(_)) => self.call().await,
                    _ => return,
                },
            }
        }
    }

    async fn call(&self) {
        let began = self.clock.now().mono;
        let called = self.exchange().await;
        let ms = millis(began.until(self.clock.now().mono));
        let (status, code, words) = match called {
            Ok(status) => (Some(status), None, None),
            Err(Unanswered::ByToken(error)) => {
                (None, Some(error.code().to_owned()), Some(error.to_string()))
            }
            Err(Unanswered::ByServer(error)) => {
                let code = "call.failed".to_owned();
                (None, Some(code), Some(error.to_string()))
            }
        };
        self.journal.say(Said::Called {
            status,
            code,
            words,
            ms,
        });
    }

    /// One call: with a token, and once more with a newer one where the server refuses it.
    async fn exchange(&self) -> Result<u16, Unanswered> {
        let url = self.session.url();
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {} } });
        let body = body.to_string().into_bytes();
        let mut again = false;
        loop {
            let mut request = http::Request::post(url.as_str())
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, "application/json, text/event-stream")
                .body(())
                .map_err(|_| Unanswered::ByToken(Error::ConfigRuntime))?
                .into_parts()
                .0;
            let authorized = self.session.authorize(&mut request).await;
            let authorized = authorized.map_err(Unanswered::ByToken)?;
            let authorized = if again {
                authorized.again()
            } else {
                authorized
            };
            let passed = self.points.pass(Point::Call);
            passed.map_err(Unanswered::ByToken)?;
            let headers: HeaderMap = request.headers;
            let answer = fetch::exchange(Method::POST, url.as_str(), headers, body.clone()).await;
            let answer = answer.map_err(Unanswered::ByServer)?;
            let next = self
                .session
                .answered(&authorized, answer.status, &answer.headers);
            match next.await {
                Next::Done => return Ok(answer.status.as_u16()),
                Next::Retry => again = true,
                Next::Stop(error) => return Err(Unanswered::ByToken(error)),
            }
        }
    }
}

async fn ended(lines: &mut Lines<BufReader<Stdin>>) {
    while let Ok(Some(_)) = lines.next_line().await {}
}

/// Why a call has no answer.
enum Unanswered {
    /// There is no token for it, or none that the server takes.
    ByToken(Error),
    /// The server does not answer.
    ByServer(FetchError),
}
