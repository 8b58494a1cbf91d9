//! What the tests share.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pilotlight::{
    Error, LoginRequest, Session, Sessions,
    clock::SystemClock,
    core::{credential::Account, flow::Prompt, resource::Resource},
    human::Human,
    store::MemoryStore,
};
use pilotlight_rmcp::{Persist, PersistError, PersistedCredentials};
use pilotlight_testkit::{Lab, LabConfig, ScriptedHuman, fetch};
use rmcp::transport::{OAuthHttpClient, OAuthHttpClientFuture, OAuthHttpRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The host's OAuth HTTP client: the testkit's, which follows no redirects.
pub(crate) struct HostHttp;

impl OAuthHttpClient for HostHttp {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            let (parts, body) = request.request.into_parts();
            let answer =
                fetch::exchange(parts.method, &parts.uri.to_string(), parts.headers, body).await?;
            let mut response = http::Response::new(answer.body);
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(response)
        })
    }
}

/// The host's secure storage: one text, as it would lie in a keychain.
#[derive(Clone, Default)]
pub(crate) struct Keychain {
    entry: Arc<Mutex<Option<String>>>,
    locked: Arc<AtomicBool>,
}

impl Keychain {
    /// What a new process loads.
    pub(crate) fn load(&self) -> Option<PersistedCredentials> {
        let entry = self.entry.lock().unwrap();
        entry
            .as_deref()
            .map(|text| serde_json::from_str(text).unwrap())
    }

    /// From now on it refuses to write, or writes again.
    pub(crate) fn lock(&self, locked: bool) {
        self.locked.store(locked, Ordering::SeqCst);
    }
}

#[async_trait]
impl Persist for Keychain {
    async fn persist(&self, credentials: PersistedCredentials) -> Result<(), PersistError> {
        if self.locked.load(Ordering::SeqCst) {
            return Err("the keychain is locked".into());
        }
        *self.entry.lock().unwrap() = Some(serde_json::to_string(&credentials)?);
        Ok(())
    }

    async fn cleared(&self) {}
}

/// A lab and a session that somebody has logged in to it for.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) session: Session,
    /// Keeps the session's timers running.
    pub(crate) sessions: Sessions,
}

impl World {
    pub(crate) async fn start(change: impl FnOnce(&mut LabConfig)) -> Self {
        let mut config = LabConfig::default();
        change(&mut config);
        let lab = Lab::start(config).await.unwrap();
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let human = Arc::new(Clicks(ScriptedHuman::allows()));
        let sessions = Sessions::builder(store).human(human).open().unwrap();
        let url = Resource::parse(lab.resource_url()).unwrap();
        sessions
            .login(LoginRequest::new(url.clone(), Account::default()))
            .await
            .unwrap();
        let session = sessions.get(&url, &Account::default()).await.unwrap();
        Self {
            lab,
            session,
            sessions,
        }
    }

    /// Puts `answer` in the place of the MCP server: it gets each request and gives what to write before hanging up.
    pub(crate) async fn replace_server(
        self,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Replaced {
        let url = self.lab.resource_url().to_owned();
        self.lab.stop().await;
        let address = url
            .trim_start_matches("http://")
            .trim_end_matches("/mcp")
            .to_owned();
        let listener = TcpListener::bind(address).await.unwrap();
        Replaced {
            url: url.into(),
            requests: serve(listener, answer),
            session: self.session,
            _sessions: self.sessions,
        }
    }
}

/// A session whose server has been replaced by a script.
pub(crate) struct Replaced {
    pub(crate) url: Arc<str>,
    pub(crate) requests: Requests,
    pub(crate) session: Session,
    _sessions: Sessions,
}

impl Replaced {
    /// Waits until the requests that came are enough, and answers them.
    pub(crate) async fn until(&self, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        for _ in 0..1000 {
            let requests = self.requests.lock().unwrap().clone();
            if enough(&requests) {
                return requests;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not all came: {:?}", self.requests.lock().unwrap());
    }
}

/// The requests that a script got, whole.
pub(crate) type Requests = Arc<Mutex<Vec<String>>>;

/// Answers every connection of a listener by a script.
pub(crate) fn serve(
    listener: TcpListener,
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> Requests {
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = read(&mut stream).await;
            let said = answer(&request);
            seen.lock().unwrap().push(request);
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    requests
}

/// One request, whole.
pub(crate) async fn read(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
            body.len() >= length.unwrap_or(0)
        });
        if count == 0 || whole {
            return text;
        }
    }
}

/// A person who clicks in the background, as a browser does.
#[derive(Debug)]
struct Clicks(ScriptedHuman);

#[async_trait]
impl Human for Clicks {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        let (human, url) = (self.0, prompt.url.to_string());
        tokio::spawn(async move { human.visit(&url).await });
        std::future::pending().await
    }
}
