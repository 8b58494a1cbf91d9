//! What the program that runs a bridge decides about it: plain values with defaults.

use std::time::Duration;

use http::HeaderMap;
use pilotlight::LoginRequest;

/// How a bridge behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The login to ask for, where the server wants one.
    pub login: LoginRequest,
    /// Fields that go on every request to the server; they are never shown.
    pub headers: HeaderMap,
    /// Whether cookies of the server are kept, in memory (default: yes).
    pub cookies: bool,
    /// How the server is spoken to.
    pub transport: Transport,
    /// How long the head of an answer may take; `None`: for ever (default 300 s).
    pub headers_timeout: Option<Duration>,
    /// How long an answer may be silent; `None`: for ever (default 300 s).
    pub body_timeout: Option<Duration>,
    /// How often an idle server is sent a `ping`; `None`: never (the default).
    pub ping_interval: Option<Duration>,
    /// Tools that the host does not see, and cannot call: `*` stands for anything, upper and lower case are the same.
    pub ignored_tools: Vec<String>,
    /// How long a request waits for a person before it is answered with an error; the login goes on (default 120 s).
    pub login_wait: Duration,
    /// What bounds memory.
    pub limits: Limits,
    /// What a person runs to log in by hand, for error messages.
    pub login_command: String,
}

impl Config {
    /// The defaults, with the login to ask for.
    #[must_use]
    pub fn new(login: LoginRequest) -> Self {
        let login_command = format!("pilotlight login {}", login.url.as_str());
        Self {
            login,
            headers: HeaderMap::new(),
            cookies: true,
            transport: Transport::default(),
            headers_timeout: Some(Duration::from_secs(300)),
            body_timeout: Some(Duration::from_secs(300)),
            ping_interval: None,
            ignored_tools: Vec::new(),
            login_wait: Duration::from_secs(120),
            limits: Limits::default(),
            login_command,
        }
    }
}

/// Which of the two HTTP transports is tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// Streamable HTTP; HTTP+SSE where the server does not know it.
    #[default]
    HttpFirst,
    /// HTTP+SSE; Streamable HTTP where the server does not know it.
    SseFirst,
    /// Streamable HTTP only.
    HttpOnly,
    /// HTTP+SSE only.
    SseOnly,
}

impl Transport {
    /// Whether HTTP+SSE is tried before a POST.
    pub(crate) fn begins_with_sse(self) -> bool {
        matches!(self, Self::SseFirst | Self::SseOnly)
    }
}

/// What bounds memory, in bytes unless it says otherwise.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Limits {
    /// The longest message of the host (default 64 MiB).
    pub frame: usize,
    /// How much of the host's messages may wait for answers before no more is read (default 64 MiB).
    pub in_flight: usize,
    /// How many requests may wait for answers; one more is refused (default 4096).
    pub requests: usize,
    /// How much of an answer is held until it is whole; a longer one is streamed (default 256 KiB).
    pub hold: usize,
    /// The longest answer of those that have to be known whole (default 64 MiB).
    pub whole: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: 64 << 20,
            in_flight: 64 << 20,
            requests: 4096,
            hold: 256 << 10,
            whole: 64 << 20,
        }
    }
}
