//! A host that is scripted, a server that is scripted, and a bridge between them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use pilotlight::{
    Error, LoginRequest, Sessions,
    clock::SystemClock,
    core::{credential::Account, flow::Prompt, resource::Resource},
    human::{Human, Refuse},
    store::{MemoryStore, Store},
};
use pilotlight_relay::{Bridge, Config, Ended, Ground, approver::Approver};
use pilotlight_testkit::{Lab, LabConfig, ScriptedHuman};
use serde_json::{Value, json};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream,
        ReadHalf, WriteHalf,
    },
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn is(&self, method: &str) -> bool {
        self.body.contains(&format!(r#""method":"{method}""#))
    }

    /// The id of the message, as it is written, where it is a number.
    pub(crate) fn id(&self) -> String {
        let rest = self.body.split(r#""id":"#).nth(1).unwrap_or("0");
        rest.chars()
            .take_while(|c| !matches!(c, ',' | '}'))
            .collect()
    }
}

type Handler = dyn Fn(Request, Reply) -> BoxFuture<'static, Reply> + Send + Sync;

/// A server that does what a script says to each request.
pub(crate) struct Script {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Vec<Request>>>,
    /// How many handlers have panicked.
    failed: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
        // What a handler asserts counts as what the test does.
        let failed = self.failed.load(Ordering::SeqCst);
        assert!(
            failed == 0 || std::thread::panicking(),
            "a handler has panicked"
        );
    }
}

/// Where the script writes its answer.
pub(crate) struct Reply(TcpStream, bool);

impl Reply {
    /// A whole answer.
    pub(crate) async fn send(mut self, status: &str, head: &str, body: &str) -> Self {
        let text = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{head}\r\n{body}",
            body.len()
        );
        let _ = self.0.write_all(text.as_bytes()).await;
        self
    }

    pub(crate) async fn json(self, body: &str) -> Self {
        self.send("200 OK", "content-type: application/json\r\n", body)
            .await
    }

    pub(crate) async fn accepted(self) -> Self {
        self.send("202 Accepted", "", "").await
    }

    /// The head of an answer whose body ends with the connection.
    pub(crate) async fn open(mut self, head: &str) -> Self {
        self.1 = false;
        self.write(&format!(
            "HTTP/1.1 200 OK\r\n{head}connection: close\r\n\r\n"
        ))
        .await;
        self
    }

    pub(crate) async fn stream(self) -> Self {
        self.open("content-type: text/event-stream\r\n").await
    }

    pub(crate) async fn write(&mut self, text: &str) -> bool {
        self.0.write_all(text.as_bytes()).await.is_ok()
    }

    pub(crate) async fn event(&mut self, data: &str) -> bool {
        self.write(&format!("data: {data}\n\n")).await
    }

    /// Waits until the other side has hung up.
    pub(crate) async fn hung_up(&mut self) {
        let mut byte = [0];
        while self.0.read(&mut byte).await.is_ok_and(|count| count > 0) {}
    }
}

impl Script {
    pub(crate) async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Request, Reply) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let kept = seen.clone();
        let failed = Arc::<AtomicUsize>::default();
        let fails = failed.clone();
        let handler: Arc<Handler> =
            Arc::new(move |request, reply| Box::pin(handler(request, reply)));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, kept, fails) = (handler.clone(), kept.clone(), fails.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    let _ = stream.set_nodelay(true);
                    while let Some(request) = read(&mut stream).await {
                        kept.lock().unwrap().push(request.clone());
                        let handled = tokio::spawn(handler(request, Reply(stream, true))).await;
                        let Ok(Reply(next, goes_on)) = handled else {
                            fails.fetch_add(1, Ordering::SeqCst);
                            return;
                        };
                        stream = next;
                        if !goes_on {
                            break;
                        }
                    }
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self {
            url,
            seen,
            failed,
            task,
        }
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Request) -> bool) -> usize {
        self.seen().iter().filter(|request| wanted(request)).count()
    }

    /// Waits until so many such requests have come.
    pub(crate) async fn until(&self, count: usize, wanted: impl Fn(&Request) -> bool) {
        eventually(|| self.count(&wanted) >= count).await;
    }
}

/// Waits for something to become true.
pub(crate) async fn eventually(holds: impl Fn() -> bool) {
    let all = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("in time");
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let mut first = head.split(' ');
    let mut request = Request {
        method: first.next()?.to_owned(),
        path: first.next()?.to_owned(),
        head: head.clone(),
        body: String::new(),
    };
    let length = request
        .header("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    Some(request)
}

/// A host with a bridge to a server.
pub(crate) struct Host {
    to: Option<WriteHalf<DuplexStream>>,
    from: BufReader<ReadHalf<DuplexStream>>,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) ended: JoinHandle<Ended>,
    /// Keeps the session's timers running.
    _sessions: Sessions,
}

impl Host {
    /// A bridge to a server that wants no token.
    pub(crate) async fn start(url: &str) -> Self {
        Self::with(url, Arc::new(Refuse), |_| {}).await
    }

    pub(crate) async fn with(
        url: &str,
        human: Arc<dyn Human>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        Self::on(store, url, human, change).await
    }

    pub(crate) async fn on(
        store: Arc<dyn Store>,
        url: &str,
        human: Arc<dyn Human>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let approver = Arc::new(Approver::new(human, true));
        let sessions = Sessions::builder(store)
            .human(approver.clone())
            .open()
            .unwrap();
        let url = Resource::parse(url).unwrap();
        let session = sessions.open(&url, &Account::default()).await.unwrap();
        let mut config = Config::new(LoginRequest::new(url, Account::default()));
        change(&mut config);
        let ground = Ground::new(sessions.clone(), session, approver, Arc::new(SystemClock));
        let (host, ours) = tokio::io::duplex(64 * 1024);
        let (from, to) = tokio::io::split(ours);
        let bridge = Bridge::new(ground, config, to).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(bridge.run(from, async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        let (from, to) = tokio::io::split(host);
        Self {
            to: Some(to),
            from: BufReader::new(from),
            stop: Some(stop),
            ended,
            _sessions: sessions,
        }
    }

    pub(crate) async fn say(&mut self, line: &str) {
        let to = self.to.as_mut().unwrap();
        to.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        to.flush().await.unwrap();
    }

    /// The next line.
    pub(crate) async fn hear(&mut self) -> String {
        let mut line = String::new();
        let read = self.from.read_line(&mut line);
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("a line in time")
            .unwrap();
        line.truncate(line.trim_end().len());
        line
    }

    /// Nothing is written for a while.
    pub(crate) async fn hears_nothing(&mut self) {
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_millis(150), self.from.read_line(&mut line));
        assert!(read.await.is_err(), "heard {line}");
    }

    /// Waits until what was said has been read: a line that is no JSON is answered in its turn.
    pub(crate) async fn is_read(&mut self) {
        self.say("{").await;
        let error = self.hear().await;
        assert!(error.contains("-32700"), "{error}");
    }

    /// `initialize` and `initialized`.
    pub(crate) async fn shake_hands(&mut self) -> String {
        self.say(INITIALIZE).await;
        let answer = self.hear().await;
        self.say(INITIALIZED).await;
        answer
    }

    /// Hangs up, as a host does that ends, and waits for the bridge's end.
    pub(crate) async fn hang_up(mut self) -> Ended {
        self.says_no_more().await;
        self.ended().await
    }

    /// Hangs up, and goes on to listen.
    pub(crate) async fn says_no_more(&mut self) {
        self.to.take().unwrap().shutdown().await.unwrap();
    }

    /// Waits for the bridge's end.
    pub(crate) async fn ended(self) -> Ended {
        tokio::time::timeout(PATIENCE, self.ended)
            .await
            .expect("an end in time")
            .unwrap()
    }

    pub(crate) async fn stop(mut self) -> Ended {
        self.stop.take().unwrap().send(()).unwrap();
        self.ended().await
    }
}

/// A lab, and a store with a login to it.
pub(crate) async fn logged_in(change: impl FnOnce(&mut LabConfig)) -> (Lab, Arc<dyn Store>) {
    let lab = Lab::start(LabConfig::default().with(change)).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let human = Clicks::of(ScriptedHuman::allows());
    let sessions = Sessions::builder(store.clone())
        .human(human)
        .open()
        .unwrap();
    let url = Resource::parse(lab.resource_url()).unwrap();
    sessions
        .login(LoginRequest::new(url, Account::default()))
        .await
        .unwrap();
    (lab, store)
}

/// A person who clicks in the background, as in a browser.
#[derive(Debug)]
pub(crate) struct Clicks {
    human: ScriptedHuman,
    pub(crate) shown: Mutex<usize>,
}

impl Clicks {
    pub(crate) fn of(human: ScriptedHuman) -> Arc<Self> {
        Arc::new(Self {
            human,
            shown: Mutex::new(0),
        })
    }

    pub(crate) fn shown(&self) -> usize {
        *self.shown.lock().unwrap()
    }
}

#[async_trait]
impl Human for Clicks {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        *self.shown.lock().unwrap() += 1;
        let (human, url) = (self.human, prompt.url.to_string());
        tokio::spawn(async move { human.visit(&url).await });
        std::future::pending().await
    }
}

/// The answer to an `initialize` of id 0.
pub(crate) fn welcome(version: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"result":{{"protocolVersion":"{version}","capabilities":{{}},"serverInfo":{{"name":"s","version":"1"}}}}}}"#
    )
}

/// A request as a host of the new era writes it.
pub(crate) fn new(id: &str, method: &str, params: &Value) -> String {
    let mut params = params.clone();
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "h", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

/// The next message that the host gets.
pub(crate) async fn answer(host: &mut Host) -> Value {
    serde_json::from_str(&host.hear().await).unwrap()
}

/// What a server of the new era answers when the bridge asks what it speaks.
pub(crate) const DISCOVERED: &str = r#"{"jsonrpc":"2.0","id":"pilotlight-probe","result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}}"#;
pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"h","version":"1"}}}"#;
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
