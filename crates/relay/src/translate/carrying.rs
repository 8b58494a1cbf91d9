//! The messages of a machine on their way to the server, and what comes back.

use std::sync::Arc;

use http::HeaderMap;

use super::Permit;
use crate::{
    bridge::Core,
    era::{Input, Post},
    refusal::Fault,
    scan::{Id, Scan},
    table::Ask,
    upstream::{Place, refused},
    wire::Stage,
};

impl Core {
    pub(super) fn begin_post(self: &Arc<Self>, post: Post, permit: Option<Permit>) {
        let (core, ticket) = (self.clone(), post.ticket);
        let before = self.opening.before();
        let opens = Scan::of(&post.raw).method;
        let turn = matches!(opens.as_str(), "initialize" | "notifications/initialized")
            .then(|| self.opening.take());
        let mut posts = self.translation.posts();
        self.under_way(&mut posts, ticket, async move {
            if let Some(before) = before {
                before.done().await;
            }
            Box::pin(core.carry(post, &opens, permit)).await;
            drop(turn);
        });
    }

    /// Carries one message of the machine, and tells it what comes of that.
    async fn carry(self: &Arc<Self>, post: Post, method: &str, permit: Option<Permit>) {
        let (to, answered) = (post.ticket, post.answered);
        if !post.after.is_zero() {
            tokio::time::sleep(post.after).await;
        }
        let opens = method == "initialize";
        if opens {
            self.wire.keep_initialize(&post.raw);
        } else if method == "notifications/initialized" {
            self.wire.keep_initialized(&post.raw);
        }
        let done = Box::pin(self.carried(&post, method, permit)).await;
        if method == "notifications/initialized" {
            self.wire.listen();
        }
        if !answered {
            return;
        }
        if let Err(fault) = done {
            match &fault {
                Fault::Status { status, error } => {
                    let body = error.clone().unwrap_or_default();
                    let refused = Input::Refused {
                        to,
                        status: *status,
                        body,
                    };
                    return self.feed(refused).await;
                }
                // Sent again, or told as lost, as the machine sees fit.
                Fault::NoAnswer => {}
                fault => {
                    // An error of ours is the answer.
                    tracing::info!(method, code = fault.code(), "a request failed");
                    let id = Scan::of(&post.raw).id;
                    let raw = fault.answer(id.as_ref(), &self.config.login_command).into();
                    self.feed(Input::Answer { to, raw }).await;
                }
            }
        }
        self.feed(Input::Ended { to }).await;
    }

    async fn carried(
        self: &Arc<Self>,
        post: &Post,
        method: &str,
        permit: Option<Permit>,
    ) -> Result<(), Fault> {
        let mut fields = HeaderMap::new();
        fields.extend(post.headers.iter().cloned());
        let opens = method == "initialize";
        let place = if opens {
            Place::Alone
        } else {
            Place::InSession
        };
        let id = Scan::of(&post.raw).id.filter(|_| post.answered);
        let ask = id.map(|id| {
            let mut ask = Ask::new(Id::new(id.as_str()), method, true);
            ask.ticket = Some(post.ticket);
            Arc::new(ask)
        });
        let sse = self.wire.stage() == Stage::Sse;
        if let Some(ask) = ask.as_ref().filter(|_| sse) {
            self.table.add(ask);
        }
        let response = match &ask {
            Some(ask) => self.post_asked(ask, &post.raw, &fields, place).await,
            None => self.post(&post.raw, &fields, place).await,
        }?;
        drop(permit);
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let Some(ask) = ask else {
            self.after(response).await;
            return Ok(());
        };
        if sse {
            ask.settled().await;
            self.table.remove(&ask);
            return Ok(());
        }
        if opens {
            self.wire.begin(response.headers());
        }
        // What had begun and broke off is the machine's to judge; silence is none of that.
        let answered = Box::pin(self.answered(&ask, response)).await;
        answered.map_err(|fault| match fault.is_broken() && !fault.is_silence() {
            true => Fault::NoAnswer,
            false => fault,
        })
    }
}
