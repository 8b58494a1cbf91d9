//! What the server sends without being asked: the GET stream of a session (TR-34, TR-35), or the one stream of HTTP+SSE.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use url::Url;

use crate::{
    answer::{Assembly, Came, Message, Stream},
    bridge::Core,
    exchange::is_away,
    redirect::Target,
    refusal::Fault,
    scan::{Id, Kind, Scan},
    upstream::{Place, is_events, refused},
    wire::{Endpoint, Stage},
};

impl Core {
    /// Keeps open what the stage asks for, until the bridge ends.
    pub(crate) async fn listening(self: Arc<Self>) {
        let mut stages = self.wire.stage.subscribe();
        loop {
            let stage = *stages.borrow_and_update();
            let work = async {
                match stage {
                    Stage::Idle => {}
                    Stage::Listen(_) => self.own_stream().await,
                    Stage::Sse => self.sse().await,
                }
            };
            tokio::select! {
                // A new session has a new stream; the old one may hang for ever.
                changed = stages.changed() => if changed.is_err() { return },
                () = Box::pin(work) => if stages.changed().await.is_err() { return },
            }
        }
    }

    /// Keeps the session's own stream open for as long as the server offers one.
    async fn own_stream(self: &Arc<Self>) {
        let (mut last, mut retry): (Option<String>, Option<Duration>) = (None, None);
        let mut failures = 0;
        let mut accepted = self.wire.accepted.subscribe();
        loop {
            let mut lively = false;
            accepted.mark_unchanged();
            match self.get_quietly(last.as_deref()).await {
                Ok(response) if response.status().is_success() && is_events(response.headers()) => {
                    let whole = self.translation.is_on();
                    let assembly = Assembly::new(&self.out, self.config.limits, whole);
                    let mut stream =
                        Stream::new(response.into_body(), assembly, self.config.body_timeout);
                    if let Some(last) = &last {
                        stream.resumes(last, retry);
                    }
                    loop {
                        match stream.next().await {
                            Ok(Some(Came::Message(message))) => {
                                lively = true;
                                if self.deliver(message, None).await.is_err() {
                                    return;
                                }
                            }
                            Ok(Some(Came::Other(..))) => {}
                            Ok(None) => break,
                            Err(Fault::HostGone) => return,
                            Err(fault) => {
                                tracing::debug!(code = fault.code(), "the stream broke off");
                                // Silence is no failure: nobody had anything to say.
                                lively |= fault.is_silence();
                                break;
                            }
                        }
                    }
                    last = stream.last_id().map(str::to_owned);
                    retry = stream.retry;
                }
                // It comes back with the next session: whoever sends a request opens that.
                Ok(response) if response.status() == StatusCode::NOT_FOUND => return,
                Ok(response) if response.status().is_server_error() => {}
                Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {}
                Ok(response)
                    if response.status().is_client_error()
                        && response.status() != StatusCode::METHOD_NOT_ALLOWED
                        && last.is_some() =>
                {
                    // The server may have forgotten the event: what comes from now on is better than nothing.
                    last = None;
                }
                // Not offered.
                Ok(_) => return,
                Err(fault) if is_away(&fault) => {}
                Err(fault) => {
                    // Whoever sends a request asks for the login that is wanted; one that is taken says that it is there.
                    tracing::debug!(code = fault.code(), "the stream waits for a login");
                    if accepted.changed().await.is_err() {
                        return;
                    }
                }
            }
            failures = if lively { 0 } else { failures + 1 };
            tokio::time::sleep(pause(retry, failures)).await;
        }
    }

    /// Keeps the stream of HTTP+SSE open; each new one is a new session.
    async fn sse(self: &Arc<Self>) {
        let (mut opened, mut failures) = (false, 0);
        loop {
            let ended = self.sse_once(&mut opened).await;
            let fault = ended.err().unwrap_or(Fault::NoAnswer);
            if !opened || matches!(fault, Fault::HostGone) {
                self.wire.endpoint.send_replace(Endpoint::None(fault));
                return;
            }
            tracing::info!(
                code = fault.code(),
                "the stream broke off; it is opened anew"
            );
            if matches!(*self.wire.endpoint.borrow(), Endpoint::At(..)) {
                failures = 0;
            }
            self.wire.endpoint.send_replace(Endpoint::Unknown);
            // What was asked on it is answered by nobody. What waits to be sent goes to the next.
            for ask in self.table.all() {
                if ask.lose() && !ask.own {
                    let answer = Fault::NoAnswer.answer(Some(&ask.id), &self.config.login_command);
                    if self.out.message(&answer).await.is_err() {
                        return;
                    }
                }
            }
            failures += 1;
            tokio::time::sleep(pause(None, failures)).await;
        }
    }

    /// Reads one stream of HTTP+SSE to its end.
    async fn sse_once(self: &Arc<Self>, opened: &mut bool) -> Result<(), Fault> {
        let response = self.get(None, Place::Alone).await?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        if !is_events(response.headers()) {
            return Err(Fault::NoTransport);
        }
        // Whose answers come here is known only when they are whole: of a handshake, or for a machine.
        let assembly = Assembly::new(&self.out, self.config.limits, true);
        let mut stream = Stream::new(response.into_body(), assembly, self.config.body_timeout);
        let mut replayed: Option<(Id, Target)> = None;
        while let Some(came) = stream.next().await? {
            match came {
                Came::Other(kind, data) if kind == "endpoint" => {
                    let endpoint = self.named_endpoint(&data)?;
                    let again = self.wire.said().0.filter(|_| *opened);
                    match again.and_then(|message| Some((Scan::of(&message).id?, message))) {
                        None => {
                            self.wire.endpoint.send_replace(Endpoint::At(endpoint));
                        }
                        Some((id, message)) => {
                            self.say(&endpoint, &message).await?;
                            replayed = Some((id, endpoint));
                        }
                    }
                    *opened = true;
                }
                Came::Other(..) => {}
                Came::Message(Message::Held(_, peek))
                    if peek.kind == Kind::Response
                        && replayed.as_ref().is_some_and(|(id, _)| {
                            peek.id
                                .as_ref()
                                .is_some_and(|one| one.meaning() == id.meaning())
                        }) =>
                {
                    if let Some((_, endpoint)) = replayed.take() {
                        if let Some(initialized) = self.wire.said().1 {
                            self.say(&endpoint, &initialized).await?;
                        }
                        self.wire.endpoint.send_replace(Endpoint::At(endpoint));
                    }
                }
                Came::Message(message) => self.deliver(message, None).await?,
            }
        }
        Ok(())
    }

    /// The endpoint that the server names: it gets the token only where it is of the same origin (TR-52).
    fn named_endpoint(&self, data: &[u8]) -> Result<Target, Fault> {
        let text = std::str::from_utf8(data).unwrap_or_default().trim();
        let own = self.session.url();
        let url: Url = own.url().join(text).map_err(|_| Fault::NoTransport)?;
        let session = self.session.at(&url)?;
        let uri = url.as_str().parse().map_err(|_| Fault::NoTransport)?;
        Ok((session, uri))
    }
}

/// How long to wait before a stream is opened again: as the server says, longer while nothing comes of it.
fn pause(retry: Option<Duration>, failures: u32) -> Duration {
    let first = retry.unwrap_or(PAUSE);
    let grown = first.saturating_mul(1 << failures.saturating_sub(1).min(6));
    grown.min(LONGEST_PAUSE).max(first.min(RETRY_AT_MOST))
}

const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that asks for more than this is asked after this.
const RETRY_AT_MOST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    /// TR-35: `retry` is honoured, and a server that sends nothing is asked ever less often.
    #[test]
    fn a_stream_is_opened_again_as_the_server_says() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(pause(None, 0), second);
        assert_eq!(pause(Some(second / 2), 1), second / 2);
        assert_eq!(pause(None, 3), 4 * second);
        assert_eq!(pause(None, 100), LONGEST_PAUSE);
        assert_eq!(pause(Some(minute), 1), minute, "never sooner than asked");
        assert_eq!(pause(Some(1000 * minute), 1), RETRY_AT_MOST);
    }
}
