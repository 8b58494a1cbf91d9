//! How a person is reached from behind a host: by the host itself where it can show a URL, else as the program would.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use pilotlight::{
    Error,
    core::flow::{CodePrompt, Prompt},
    human::Human,
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{oneshot, watch};

use crate::{lock::lock, out::Out, scan::Id};

/// Asks the person through the host, or by another way.
#[derive(Debug)]
pub struct Approver {
    other: Arc<dyn Human>,
    /// Whether the other way puts something before the person's eyes.
    opens: bool,
    host: Mutex<Option<Arc<Out>>>,
    /// Whether the host has declared that it shows URLs.
    elicits: AtomicBool,
    /// Whether it has ended the handshake: before that it may not be asked.
    open_to_questions: AtomicBool,
    asked: Mutex<HashMap<Id, oneshot::Sender<Answer>>>,
    /// The question that the host has not been told the end of.
    open: Mutex<Option<String>>,
    next: AtomicU64,
    shown: watch::Sender<Option<Shown>>,
}

/// What a person has to open.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) url: String,
    /// Whether it is before their eyes.
    pub(crate) in_sight: bool,
}

impl std::fmt::Debug for Shown {
    /// Leaves the URL out: it holds the `state`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown")
            .field("in_sight", &self.in_sight)
            .finish_non_exhaustive()
    }
}

/// What a person said to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Accepted,
    Declined,
    /// The host cannot do it after all.
    Unable,
}

impl Approver {
    /// Asks by `other` where the host cannot show a URL; `opens` tells whether that puts something before the person's eyes.
    #[must_use]
    pub fn new(other: Arc<dyn Human>, opens: bool) -> Self {
        Self {
            other,
            opens,
            host: Mutex::default(),
            elicits: AtomicBool::new(false),
            open_to_questions: AtomicBool::new(false),
            asked: Mutex::default(),
            open: Mutex::default(),
            next: AtomicU64::new(1),
            shown: watch::Sender::new(None),
        }
    }

    pub(crate) fn attach(&self, host: Arc<Out>) {
        *lock(&self.host) = Some(host);
    }

    /// Reads of an `initialize` what the host can do.
    pub(crate) fn learn(&self, initialize: &[u8]) {
        self.open_to_questions.store(false, Ordering::Relaxed);
        self.elicits
            .store(shows_urls(initialize), Ordering::Relaxed);
    }

    /// The host has ended the handshake.
    pub(crate) fn initialized(&self) {
        self.open_to_questions.store(true, Ordering::Relaxed);
    }

    fn may_elicit(&self) -> bool {
        let may = [&self.elicits, &self.open_to_questions];
        may.iter().all(|may| may.load(Ordering::Relaxed))
    }

    pub(crate) fn shown(&self) -> watch::Receiver<Option<Shown>> {
        self.shown.subscribe()
    }

    /// Takes a message of the host, if it is the answer to a question of ours.
    pub(crate) fn answered(&self, id: &Id, message: &[u8]) -> bool {
        let Some(asked) = lock(&self.asked).remove(id) else {
            return false;
        };
        // Whoever asked may have what it waited for by another way.
        let _ = asked.send(said(message));
        true
    }

    /// The login is over: a host that shows a URL may take it away.
    pub(crate) async fn ended(&self) {
        self.shown.send_replace(None);
        let open = lock(&self.open).take();
        let host = lock(&self.host).clone();
        if let (Some(id), Some(host)) = (open, host) {
            let told = json!({
                "jsonrpc": "2.0",
                "method": "notifications/elicitation/complete",
                "params": { "elicitationId": id },
            });
            drop(host.message(told.to_string().as_bytes()).await);
        }
    }

    /// Has the host show the URL; nothing where it cannot.
    async fn elicited(&self, prompt: &Prompt) -> Option<Answer> {
        let host = lock(&self.host).clone()?;
        if !self.may_elicit() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("pilotlight-login-{number}");
        let question = json!({
            "jsonrpc": "2.0",
            "id": name,
            "method": "elicitation/create",
            "params": {
                "mode": "url",
                "elicitationId": name,
                "url": prompt.url.as_str(),
                "message": format!(
                    "Log in to {}. Tokens come from {}.",
                    pilotlight_core::resource::clean(&prompt.resource),
                    pilotlight_core::resource::clean(&prompt.token_host),
                ),
            },
        });
        let (tell, told) = oneshot::channel();
        lock(&self.asked).insert(Id::new(&format!("\"{name}\"")), tell);
        *lock(&self.open) = Some(name);
        host.message(question.to_string().as_bytes()).await.ok()?;
        told.await.ok()
    }
}

#[async_trait]
impl Human for Approver {
    fn refuses(&self) -> bool {
        self.other.refuses()
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        let show = |in_sight| {
            self.shown.send_replace(Some(Shown {
                url: prompt.url.to_string(),
                in_sight,
            }));
        };
        if self.may_elicit() {
            show(true);
        }
        match self.elicited(prompt).await {
            // The redirect comes to the listener.
            Some(Answer::Accepted) => std::future::pending().await,
            Some(Answer::Declined) => Err(Error::DeniedByHuman),
            Some(Answer::Unable) | None => {
                show(self.opens);
                self.other.approve(prompt).await
            }
        }
    }

    async fn show_code(&self, prompt: &CodePrompt) -> Result<(), Error> {
        self.other.show_code(prompt).await
    }
}

/// Whether an `initialize` declares elicitation in URL mode.
fn shows_urls(initialize: &[u8]) -> bool {
    let message: Option<serde_json::Value> = serde_json::from_slice(initialize).ok();
    message
        .is_some_and(|message| message["params"]["capabilities"]["elicitation"]["url"].is_object())
}

fn said(message: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Message {
        result: Option<Result>,
    }
    #[derive(Deserialize)]
    struct Result {
        action: String,
    }
    let message: Option<Message> = serde_json::from_slice(message).ok();
    match message.and_then(|message| message.result) {
        Some(result) if result.action == "accept" => Answer::Accepted,
        Some(_) => Answer::Declined,
        None => Answer::Unable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_shows_urls_says_so() {
        let declares = |capabilities: &str| {
            shows_urls(format!(r#"{{"params":{{"capabilities":{capabilities}}}}}"#).as_bytes())
        };
        assert!(declares(r#"{"elicitation":{"url":{},"form":{}}}"#));
        assert!(!declares(r#"{"elicitation":{}}"#));
        assert!(!declares(r#"{"elicitation":{"form":{}}}"#));
    }

    #[test]
    fn an_answer_is_a_yes_a_no_or_none() {
        assert_eq!(said(br#"{"result":{"action":"accept"}}"#), Answer::Accepted);
        assert_eq!(said(br#"{"result":{"action":"cancel"}}"#), Answer::Declined);
        assert_eq!(said(br#"{"error":{"code":-32601}}"#), Answer::Unable);
    }
}
