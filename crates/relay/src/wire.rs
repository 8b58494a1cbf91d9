//! What is known of the connection to the server: the session, its version, what is listened to.

use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::sync::watch;

use crate::{headers::MCP_PROTOCOL_VERSION, lock::lock, redirect::Target, refusal::Fault};

/// What is known of the connection to the server.
#[derive(Debug)]
pub(crate) struct Wire {
    state: Mutex<State>,
    /// Held by whoever opens a new session in the place of one that is gone.
    pub(crate) reopening: tokio::sync::Mutex<()>,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) endpoint: watch::Sender<Endpoint>,
    /// Counts the messages that the server has taken.
    pub(crate) accepted: watch::Sender<u64>,
}

/// What the listening task is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing yet.
    Idle,
    /// Keep a GET stream open, for the session of this number.
    Listen(u64),
    /// Keep an HTTP+SSE stream open.
    Sse,
}

/// Where messages go on HTTP+SSE.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// Not known (any more).
    Unknown,
    /// Here.
    At(Target),
    /// There is none.
    None(Fault),
}

#[derive(Debug, Default)]
struct State {
    session: Option<HeaderValue>,
    version: Option<HeaderValue>,
    /// Counts the sessions that were opened.
    generation: u64,
    /// The host's own words, to be said again.
    initialize: Option<Bytes>,
    initialized: Option<Bytes>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            reopening: tokio::sync::Mutex::new(()),
            stage: watch::Sender::new(Stage::Idle),
            endpoint: watch::Sender::new(Endpoint::Unknown),
            accepted: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub(crate) fn keep_initialize(&self, message: &Bytes) {
        self.state().initialize = Some(message.clone());
    }

    pub(crate) fn keep_initialized(&self, message: &Bytes) {
        self.state().initialized = Some(message.clone());
    }

    pub(crate) fn said(&self) -> (Option<Bytes>, Option<Bytes>) {
        let state = self.state();
        (state.initialize.clone(), state.initialized.clone())
    }

    /// A session begins with the head of the answer to `initialize`.
    pub(crate) fn begin(&self, head: &HeaderMap) {
        self.replace(named_session(head), None);
    }

    pub(crate) fn replace(&self, session: Option<HeaderValue>, version: Option<HeaderValue>) {
        let mut state = self.state();
        state.session = session;
        state.version = version;
        state.generation += 1;
    }

    /// The version that the answer names goes on every request from now on (TR-33), if it is one that knows the header:
    /// servers of 2025-03-26 and 2024-11-05 get none.
    pub(crate) fn agree(&self, answer: &[u8]) {
        self.state().version = agreed(answer);
    }

    /// From now on the server may send what nobody asked for.
    pub(crate) fn listen(&self) {
        let generation = self.state().generation;
        self.stage.send_if_modified(|stage| {
            let changes = *stage != Stage::Sse;
            if changes {
                *stage = Stage::Listen(generation);
            }
            changes
        });
    }

    /// The number of the session, if it has an id.
    pub(crate) fn named(&self) -> Option<u64> {
        let state = self.state();
        state.session.as_ref().map(|_| state.generation)
    }

    /// Puts on a request what the session wants; tells the number of the session.
    pub(crate) fn mark(&self, head: &mut HeaderMap) -> Option<u64> {
        let state = self.state();
        if let Some(version) = &state.version {
            head.insert(MCP_PROTOCOL_VERSION, version.clone());
        }
        let session = state.session.as_ref()?;
        head.insert(SESSION, session.clone());
        Some(state.generation)
    }
}

/// The session that the head of an answer to `initialize` names.
pub(crate) fn named_session(head: &HeaderMap) -> Option<HeaderValue> {
    head.get(&SESSION).cloned().map(|mut id| {
        // TR-39.
        id.set_sensitive(true);
        id
    })
}

/// The version that an answer to `initialize` names, where requests are to repeat it.
pub(crate) fn agreed(answer: &[u8]) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        result: Agreed<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Agreed<'a> {
        #[serde(borrow)]
        protocol_version: std::borrow::Cow<'a, str>,
    }
    let answer: Answer<'_> = serde_json::from_slice(answer).ok()?;
    let version = answer.result.protocol_version;
    // Versions are dates.
    (*version >= *REPEATED_SINCE)
        .then(|| HeaderValue::from_str(&version).ok())
        .flatten()
}

pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// The first version that has a header for the version.
const REPEATED_SINCE: &str = "2025-06-18";
