use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use pilotlight_core::{Error, error::NetworkFault};
use serde_json::{Value, json};

use super::*;

type Body = BoxStream<'static, Result<Bytes, Error>>;

fn body(text: &str) -> Body {
    let chunks: Vec<_> = text
        .as_bytes()
        .chunks(7)
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    stream::iter(chunks).boxed()
}

fn broken() -> Body {
    let error = Error::Network {
        host: "mcp.example".into(),
        why: NetworkFault::Broken,
    };
    stream::iter([Ok(Bytes::from_static(b"{")), Err(error)]).boxed()
}

fn response(status: u16, headers: &[(&'static str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body).unwrap()
}

fn message(value: Value) -> ClientJsonRpcMessage {
    serde_json::from_value(value).unwrap()
}

fn call() -> ClientJsonRpcMessage {
    message(json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list"}))
}

fn discover() -> ClientJsonRpcMessage {
    message(json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {}}))
}

fn notification() -> ClientJsonRpcMessage {
    message(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
}

fn small() -> StreamableHttpResponseLimits {
    let mut limits = StreamableHttpResponseLimits::default();
    limits.max_json_response_size = 300;
    limits.max_error_response_size = 20;
    limits
}

/// The outcome in a form that can be compared.
async fn told(asked: &ClientJsonRpcMessage, in_session: bool, response: Response<Body>) -> String {
    match of(
        Question {
            message: asked,
            in_session,
        },
        response,
        small(),
    )
    .await
    {
        Ok(Answer::Accepted) => "accepted".into(),
        Ok(Answer::Json(message, session)) => {
            let message = serde_json::to_value(message).unwrap();
            format!(
                "{} id={} session={session:?}",
                message.get("error").map_or("result", |_| "error"),
                message["id"]
            )
        }
        Ok(Answer::Events(_, session)) => format!("events session={session:?}"),
        Err(error) => format!("{error:?}"),
    }
}

const JSON_TYPE: (&str, &str) = ("content-type", "application/json");
const RESULT: &str = r#"{"jsonrpc":"2.0","id":7,"result":{"tools":[]}}"#;
const ERROR: &str = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no"}}"#;

/// TR-02, TR-36: both kinds of answer are taken, with the session they name; the media type is compared by its essence.
#[tokio::test]
async fn successes_are_json_or_events() {
    let session = ("mcp-session-id", "s1");
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        let answer = response(200, &[("content-type", kind), session], body(RESULT));
        assert_eq!(
            told(&call(), false, answer).await,
            "result id=7 session=Some(\"s1\")"
        );
    }
    let answer = response(
        200,
        &[("content-type", "text/event-stream;charset=utf-8")],
        body(""),
    );
    assert_eq!(told(&call(), false, answer).await, "events session=None");
    let odd = told(
        &call(),
        false,
        response(200, &[("content-type", "text/html")], body("<html>")),
    )
    .await;
    assert_eq!(odd, "UnexpectedContentType(Some(\"text/html\"))");
    let junk = told(&call(), false, response(200, &[JSON_TYPE], body("{}"))).await;
    assert!(
        junk.starts_with("UnexpectedServerResponse") && junk.ends_with("{}\")"),
        "{junk}"
    );
}

/// TR-36: a message that awaits no answer is accepted whatever a success carries.
#[tokio::test]
async fn notifications_need_no_answer() {
    for status in [202, 204] {
        assert_eq!(
            told(&call(), true, response(status, &[], body(""))).await,
            "accepted"
        );
    }
    for answer in [
        response(200, &[("content-length", "0")], body("")),
        response(200, &[], body("")),
        response(200, &[("content-type", "text/plain")], body("ok")),
        response(200, &[JSON_TYPE], body("null")),
    ] {
        assert_eq!(told(&notification(), true, answer).await, "accepted");
    }
}

/// TR-31: only a request that named a session can have lost it.
#[tokio::test]
async fn not_found_with_a_session_is_its_end() {
    assert_eq!(
        told(&call(), true, response(404, &[JSON_TYPE], body(ERROR))).await,
        "SessionExpired"
    );
    assert_eq!(
        told(&call(), false, response(404, &[JSON_TYPE], body(ERROR))).await,
        "error id=7 session=None"
    );
    assert!(
        told(&call(), false, response(404, &[], body("gone")))
            .await
            .contains("HTTP 404 Not Found: gone")
    );
}

/// TR-15: a rejected discovery keeps the server's own error under the ID that was asked with, or gets one, so that
/// rmcp falls back; a refusal of access or a failure is neither.
#[tokio::test]
async fn a_rejected_discovery_tells_the_era() {
    let modern = r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32022,"message":"no"}}"#;
    let long = "x".repeat(1000);
    for (status, text, code) in [
        (400, modern, -32022),
        (400, ERROR, -32601),
        (404, "", -32600),
        (405, long.as_str(), -32600),
    ] {
        let kind = if text.starts_with('{') {
            "application/json"
        } else {
            "text/plain"
        };
        let answer = response(status, &[("content-type", kind)], body(text));
        let asked = discover();
        let Ok(Answer::Json(message, None)) = of(
            Question {
                message: &asked,
                in_session: false,
            },
            answer,
            small(),
        )
        .await
        else {
            panic!("{status} {text}");
        };
        let message = serde_json::to_value(message).unwrap();
        assert_eq!(
            (&message["id"], &message["error"]["code"]),
            (&json!(1), &json!(code))
        );
    }
    for status in [401, 403] {
        let why = told(
            &discover(),
            false,
            response(status, &[JSON_TYPE], body(ERROR)),
        )
        .await;
        assert!(why.starts_with("UnexpectedServerResponse"), "{why}");
    }
    assert!(
        told(&discover(), false, response(503, &[], body("")))
            .await
            .starts_with("HttpStatus")
    );
    assert!(
        told(&discover(), true, response(400, &[], body("")))
            .await
            .starts_with("Unexpected")
    );
}

/// TR-51: a challenge stays a challenge.
#[tokio::test]
async fn challenges_are_kept() {
    let challenge = (
        "www-authenticate",
        r#"Bearer error="insufficient_scope", scope="a b""#,
    );
    let why = told(
        &call(),
        true,
        response(401, &[challenge, JSON_TYPE], body(ERROR)),
    )
    .await;
    assert!(
        why.starts_with("AuthRequired") && why.contains("insufficient_scope"),
        "{why}"
    );
    let why = told(&call(), true, response(403, &[challenge], body(""))).await;
    assert!(
        why.starts_with("InsufficientScope") && why.contains(r#"required_scope: Some("a b")"#),
        "{why}"
    );
}

/// F-12: a failing server's status and Retry-After are kept; a JSON-RPC error says more.
#[tokio::test]
async fn failures_keep_their_status() {
    let later = ("retry-after", "7");
    for (status, kind) in [(429, JSON_TYPE), (503, ("content-type", "text/html"))] {
        let why = told(&call(), true, response(status, &[later, kind], body(ERROR))).await;
        assert_eq!(
            why,
            format!("HttpStatus(HttpStatusError {{ status: {status}, retry_after: Some(\"7\") }})")
        );
    }
    assert_eq!(
        told(&call(), false, response(500, &[JSON_TYPE], body(ERROR))).await,
        "error id=7 session=None"
    );
    assert!(
        told(&call(), false, response(500, &[JSON_TYPE], broken()))
            .await
            .starts_with("HttpStatus")
    );
    assert!(
        told(
            &call(),
            false,
            response(500, &[JSON_TYPE], body(&"x".repeat(301)))
        )
        .await
        .starts_with("HttpStatus")
    );
}

/// T-14: a JSON body is whole or refused, an explanation is cut, and nothing is read beyond either limit.
#[tokio::test]
async fn bodies_are_bounded() {
    let too_large = "ResponseBodyTooLarge { max_size: 300 }";
    assert_eq!(
        told(
            &call(),
            false,
            response(200, &[JSON_TYPE], body(&" ".repeat(301)))
        )
        .await,
        too_large
    );
    let announced =
        stream::poll_fn(|_| panic!("a body that is announced too large is not read")).boxed();
    assert_eq!(
        told(
            &call(),
            false,
            response(200, &[JSON_TYPE, ("content-length", "301")], announced)
        )
        .await,
        too_large
    );
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let endless = stream::repeat_with(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(Bytes::from_static(b"0123456789"))
    });
    let why = told(&call(), false, response(400, &[], endless.boxed())).await;
    assert_eq!(
        why,
        r#"UnexpectedServerResponse("HTTP 400 Bad Request: 01234567890123456789")"#
    );
    assert_eq!(reads.load(Ordering::SeqCst), 2);
    let why = told(&call(), false, response(200, &[JSON_TYPE], broken())).await;
    assert!(why.starts_with("Client(Network"), "{why}");
}

/// TR-34: 405 to a GET means that there is no stream, which is no error.
#[test]
fn a_stream_is_a_stream_or_says_why() {
    let said = |status, headers: &[(&'static str, &str)]| {
        stream(response(status, headers, body("")))
            .map(|_| ())
            .map_err(|error| format!("{error:?}"))
    };
    assert_eq!(said(200, &[("content-type", "text/event-stream")]), Ok(()));
    assert_eq!(said(405, &[]), Err("ServerDoesNotSupportSse".into()));
    assert_eq!(
        said(200, &[("content-type", "text/html")]),
        Err("UnexpectedContentType(Some(\"text/html\"))".into())
    );
    assert_eq!(said(200, &[]), Err("UnexpectedContentType(None)".into()));
    assert!(said(404, &[]).unwrap_err().contains("HTTP 404"));
    assert!(said(500, &[]).unwrap_err().starts_with("HttpStatus"));
    assert!(
        said(401, &[("www-authenticate", "Bearer")])
            .unwrap_err()
            .starts_with("AuthRequired")
    );
}
