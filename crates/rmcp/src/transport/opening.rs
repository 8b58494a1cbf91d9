//! A new session's own stream stands before anything is asked (TR-34, TR-36).
//!
//! ```text
//!   initialized -> 202 -> expect    GET ──────────> answered: over
//!                         first request waits ──────────────────> goes
//! ```
//!
//! What a server has to ask while it works on a request comes on the GET stream, which rmcp opens beside its first request.
//! Servers drop a question that finds no stream, so that the request would wait for ever.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

/// The session whose stream is about to be opened. Clones share it.
#[derive(Clone)]
pub(super) struct Opening(watch::Sender<Option<Arc<str>>>);

/// An attempt to open the stream: over when it is dropped, whether there is a stream now or none.
pub(super) struct Attempt {
    opening: Opening,
    session: Option<Arc<str>>,
}

impl Opening {
    /// Notes that the stream of a session is about to be opened.
    pub(super) fn expect(&self, session: Arc<str>) {
        self.0.send_replace(Some(session));
    }

    /// Begins to open it.
    pub(super) fn attempt(&self, session: Option<Arc<str>>) -> Attempt {
        Attempt {
            opening: self.clone(),
            session,
        }
    }

    /// Waits until the stream of a session has been opened or refused, if it is about to be; not for long, since some servers
    /// answer only when they have something to say.
    pub(super) async fn settled(&self, session: &str) {
        let mut seen = self.0.subscribe();
        let other = seen.wait_for(|opening| opening.as_deref() != Some(session));
        if timeout(LONGEST, other).await.is_err() {
            tracing::debug!("the server has not answered the GET: going on without a stream");
            self.over(session);
        }
    }

    fn over(&self, session: &str) {
        self.0
            .send_if_modified(|opening| opening.take_if(|opening| **opening == *session).is_some());
    }
}

impl Default for Opening {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            self.opening.over(session);
        }
    }
}

const LONGEST: Duration = Duration::from_secs(2);
