//! A session's own stream and its first request: which comes first.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use pilotlight::{
    Session, Sessions,
    clock::SystemClock,
    core::{credential::Account, resource::Resource},
    store::MemoryStore,
};
use pilotlight_rmcp::{Wire, connect_on};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::support::read;

/// TR-34, TR-36: what a server asks during the first request finds a stream: the request waits until the GET is answered, however
/// the server answers it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_request_waits_for_the_stream() {
    for stream in [Stream::After(Duration::from_millis(300)), Stream::Refused] {
        let (url, log) = server(stream).await;
        let client = connect_on(Wire::Stateful, session(&url).await, ()).await;
        let client = client.unwrap();
        for _ in 0..2 {
            assert_eq!(client.list_all_tools().await.unwrap().len(), 0);
        }
        let log = log.lock().unwrap().clone();
        assert_eq!(
            log,
            [
                "initialize",
                "notifications/initialized",
                "stream",
                "tools/list",
                "tools/list"
            ],
            "{stream:?}"
        );
    }
}

/// TR-34: a server that answers the GET only when it has something to say keeps the first request waiting for two seconds at
/// most, and the next one not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_never_answered_holds_nobody_up() {
    let (url, log) = server(Stream::Never).await;
    let client = connect_on(Wire::Stateful, session(&url).await, ()).await;
    let client = client.unwrap();
    let list = || tokio::time::timeout(Duration::from_secs(10), client.list_all_tools());
    assert_eq!(list().await.unwrap().unwrap().len(), 0);
    let second = tokio::time::timeout(Duration::from_millis(1500), client.list_all_tools());
    assert_eq!(second.await.unwrap().unwrap().len(), 0);
    assert!(!log.lock().unwrap().contains(&"stream".to_owned()));
}

async fn session(url: &str) -> Session {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let sessions = Sessions::builder(store).open().unwrap();
    let url = Resource::parse(url).unwrap();
    sessions.open(&url, &Account::default()).await.unwrap()
}

/// How the server answers the GET.
#[derive(Debug, Clone, Copy)]
enum Stream {
    /// With a stream, late.
    After(Duration),
    /// There is none.
    Refused,
    /// Not at all.
    Never,
}

type Log = Arc<Mutex<Vec<String>>>;

/// A server with sessions that notes when each POST arrives and when the GET is answered.
async fn server(stream: Stream) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = Arc::clone(&log);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection, stream, Arc::clone(&seen)));
        }
    });
    (url, log)
}

async fn answer(mut connection: TcpStream, stream: Stream, log: Log) {
    let request = read(&mut connection).await;
    if request.starts_with("GET") {
        match stream {
            Stream::After(time) => tokio::time::sleep(time).await,
            Stream::Refused => {}
            Stream::Never => return std::future::pending().await,
        }
        log.lock().unwrap().push("stream".to_owned());
        if matches!(stream, Stream::Refused) {
            return say(&mut connection, "405 Method Not Allowed", "").await;
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        connection.write_all(head.as_bytes()).await.unwrap();
        return std::future::pending().await;
    }
    let body = request.split_once("\r\n\r\n").unwrap().1;
    let message: serde_json::Value = serde_json::from_str(body).unwrap();
    let method = message["method"].as_str().unwrap().to_owned();
    let result = match &*method {
        "initialize" => {
            r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}"#
        }
        "tools/list" => r#"{"tools":[]}"#,
        _ => "",
    };
    log.lock().unwrap().push(method);
    if result.is_empty() {
        return say(&mut connection, "202 Accepted", "").await;
    }
    let id = &message["id"];
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    say(&mut connection, "200 OK", &body).await;
}

async fn say(connection: &mut TcpStream, status: &str, body: &str) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nmcp-session-id: one\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    let _ = connection.write_all((head + body).as_bytes()).await;
    let _ = connection.shutdown().await;
}
