//! HTTP+SSE of 2024-11-05.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

use crate::support::{Host, PATIENCE, Script, welcome};

/// A server of 2024-11-05: answers come on the one stream; `endpoint` is where messages go.
async fn old_server(endpoint: &'static str) -> (Script, Arc<AtomicUsize>) {
    let line = Arc::<Mutex<Option<mpsc::UnboundedSender<String>>>>::default();
    let streams = Arc::new(AtomicUsize::new(0));
    let counter = streams.clone();
    let server = Script::start(move |request, reply| {
        let (line, counter) = (line.clone(), counter.clone());
        async move {
            if request.method == "GET" {
                let (sender, mut events) = mpsc::unbounded_channel();
                *line.lock().unwrap() = Some(sender);
                let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                let mut reply = reply.stream().await;
                reply
                    .write(&format!("event: endpoint\ndata: {endpoint}{number}\n\n"))
                    .await;
                while let Some(event) = events.recv().await {
                    if event == "hang up" || !reply.event(&event).await {
                        break;
                    }
                }
                return reply;
            }
            if request.path == "/mcp" {
                return reply.send("405 Method Not Allowed", "", "").await;
            }
            let sender = line.lock().unwrap().clone().unwrap();
            if request.is("initialize") {
                sender.send(welcome("2024-11-05")).unwrap();
            } else if request.is("hang up") {
                sender.send("hang up".to_owned()).unwrap();
            } else if request.body.contains(r#""id""#) {
                sender
                    .send(format!(r#"{{"id":{},"result":{{}}}}"#, request.id()))
                    .unwrap();
            }
            reply.accepted().await
        }
    })
    .await;
    (server, streams)
}

/// TR-50: a server that does not know the POST is asked for its stream; messages go where its first event says.
#[tokio::test]
async fn an_old_server_is_spoken_to_as_it_wants() {
    let (server, _) = old_server("/messages/?n=").await;
    let mut host = Host::start(&server.url).await;
    assert_eq!(host.shake_hands().await, welcome("2024-11-05"));
    host.say(r#"{"id":1,"method":"a"}"#).await;
    assert_eq!(host.hear().await, r#"{"id":1,"result":{}}"#);
    let posts: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|one| one.method == "POST")
        .collect();
    assert_eq!(posts[0].path, "/mcp");
    assert!(posts[1..].iter().all(|one| one.path == "/messages/?n=1"));
}

/// A stream that breaks off is a new session at its next opening: the host's own handshake is said again, and what was asked
/// on the old one is answered with an error.
#[tokio::test]
async fn an_old_servers_stream_is_opened_anew() {
    let (server, streams) = old_server("/messages/?n=").await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    host.say(r#"{"id":1,"method":"hang up"}"#).await;
    let error = host.hear().await;
    assert!(error.contains("server.no_answer"), "{error}");
    host.say(r#"{"id":2,"method":"a"}"#).await;
    assert_eq!(host.hear().await, r#"{"id":2,"result":{}}"#);
    host.hears_nothing().await;
    assert_eq!(streams.load(Ordering::SeqCst), 2);
    assert_eq!(
        server.count(|one| one.is("initialize") && one.path == "/messages/?n=2"),
        1
    );
    assert_eq!(
        server.count(|one| one.is("notifications/initialized") && one.path.ends_with('2')),
        1
    );
}

/// What was sent on a stream is lost with it, and hung up on; what waits for the next one is sent there, once, and answered. The
/// handshake that is said again goes to where the first went: it carries the same cookies.
#[tokio::test]
async fn what_waits_for_a_stream_is_not_lost_with_the_one_before() {
    let streams = Arc::new(AtomicUsize::new(0));
    let counter = streams.clone();
    let (to_stream, line) = tokio::sync::watch::channel(String::new());
    let hung_up = Arc::new(tokio::sync::Notify::new());
    let told = hung_up.clone();
    let server = Script::start(move |request, mut reply| {
        let told = told.clone();
        let (to_stream, mut line, counter) = (to_stream.clone(), line.clone(), counter.clone());
        async move {
            if request.method == "GET" {
                // The second time it is away.
                if counter.fetch_add(1, Ordering::SeqCst) == 1 {
                    return reply.send("503 Service Unavailable", "", "").await;
                }
                line.mark_unchanged();
                let head = "content-type: text/event-stream\r\nset-cookie: sticky=1\r\n";
                let mut reply = reply.open(head).await;
                reply.write("event: endpoint\ndata: /messages\n\n").await;
                while line.changed().await.is_ok() {
                    let event = line.borrow_and_update().clone();
                    if event == "hang up" || !reply.event(&event).await {
                        break;
                    }
                }
                return reply;
            }
            if request.path == "/mcp" {
                return reply.send("405 Method Not Allowed", "", "").await;
            }
            if request.is("initialize") {
                to_stream.send_replace(welcome("2024-11-05"));
            } else if request.is("hang up") {
                to_stream.send_replace("hang up".to_owned());
                reply.hung_up().await;
                told.notify_one();
                return reply;
            } else if request.body.contains(r#""id""#) {
                let answer = format!(r#"{{"id":{},"result":{{}}}}"#, request.id());
                to_stream.send_replace(answer);
            }
            reply.accepted().await
        }
    })
    .await;
    let mut host = Host::start(&server.url).await;
    host.shake_hands().await;
    host.say(r#"{"id":1,"method":"hang up"}"#).await;
    let error = host.hear().await;
    assert!(error.contains("server.no_answer"), "{error}");
    tokio::time::timeout(PATIENCE, hung_up.notified())
        .await
        .expect("in time");
    host.say(r#"{"id":2,"method":"a"}"#).await;
    assert_eq!(host.hear().await, r#"{"id":2,"result":{}}"#);
    assert_eq!(streams.load(Ordering::SeqCst), 3);
    assert_eq!(server.count(|one| one.is("a")), 1);
    // What is said again goes to where the first was.
    for method in ["initialize", "notifications/initialized"] {
        let sticky = |one: &crate::support::Request| one.header("cookie") == Some("sticky=1");
        let to_messages = |one: &crate::support::Request| one.path == "/messages";
        assert_eq!(
            server.count(|one| one.is(method) && to_messages(one) && sticky(one)),
            2,
            "{method}"
        );
    }
}

/// TR-52: an endpoint of another origin is not written to.
#[tokio::test]
async fn an_endpoint_elsewhere_gets_nothing() {
    let thief = Script::start(|_, reply| async { reply.accepted().await }).await;
    let elsewhere: &'static str = Box::leak(thief.url.clone().into_boxed_str());
    let (server, _) = old_server(elsewhere).await;
    let mut host = Host::start(&server.url).await;
    host.say(crate::support::INITIALIZE).await;
    let error = host.hear().await;
    assert!(error.contains(r#""error""#), "{error}");
    assert!(thief.seen().is_empty());
}
