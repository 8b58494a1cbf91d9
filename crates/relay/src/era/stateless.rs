//! A host of the new era in front of a server of the new era: what stdio and HTTP say differently.
//!
//! The messages pass as they are. HTTP wants headers; a request is cancelled by closing its stream instead of a
//! notification (TR-11); a subscription whose stream ends is told to the host, which listens again (TR-12).

mod sender;

use std::time::Duration;

use bytes::Bytes;

use super::{Failure, Input, Note, Output, Refusal, call, read_host};
use crate::message::{Id, Kind, Message};
use crate::tools::Tools;
pub(crate) use sender::{Call, Came, Purpose, Sender};

/// The machine for new hosts and new servers.
#[derive(Debug)]
pub struct Stateless {
    sender: Sender,
}

impl Stateless {
    /// Begins, with what is known of the server's tools.
    #[must_use]
    pub fn new(tools: Tools) -> Self {
        Self {
            sender: Sender::new(tools),
        }
    }

    /// Takes what happened, and says what is to be done.
    pub fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let came = match input {
            Input::Host(raw) => {
                if let Some(message) = read_host(raw, &mut out) {
                    self.host(message, &mut out);
                }
                None
            }
            Input::Answer { to, raw } => self.sender.answered(to, raw, &mut out),
            Input::Refused { to, status, body } => self.sender.refused(to, status, body, &mut out),
            Input::Ended { to } => self.sender.ended(to, &mut out),
            Input::Server(_) => {
                out.push(Output::Note(Note::LeftOut(
                    "a message on no answer".to_owned(),
                )));
                None
            }
        };
        match came {
            Some(Came::Notification(message)) => out.push(Output::ToHost(message.into_raw())),
            Some(Came::Answer(call, message)) => {
                self.sender.deliver(&call, message, false, &mut out)
            }
            Some(Came::Lost(call)) => out.push(Output::ToHost(lost(&call))),
            None => {}
        }
        out
    }

    fn host(&mut self, message: Message, out: &mut Vec<Output>) {
        match message.kind() {
            Kind::Request if message.method() == "initialize" => {
                out.push(Output::Fail(Failure::HostEra(message.into_raw())));
            }
            Kind::Request => {
                if !ignored(&self.sender, &message, out) {
                    let raw = message.raw().clone();
                    self.sender
                        .send(Call::new(message, Purpose::Host), raw, Duration::ZERO, out);
                }
            }
            Kind::Notification if message.method() == "notifications/cancelled" => {
                if let Some(id) = message.param("requestId").and_then(Id::of_value) {
                    self.sender.cancel(&id, out);
                }
            }
            Kind::Notification => self.sender.notify(&message, out),
            // The new era asks the host nothing, so this answers nothing.
            Kind::Result | Kind::Error => {
                out.push(Output::Note(Note::LeftOut("an answer".to_owned())))
            }
        }
    }
}

/// What is said of a request whose connection broke.
pub(crate) const BROKE: &str =
    "the connection broke before the answer came; the server may have done it";

/// What the host is told of a request whose answer broke off.
pub(crate) fn lost(lost: &Call) -> Bytes {
    if lost.origin.method() == "subscriptions/listen" {
        // On stdio, a server ends a subscription with this; the host may listen again.
        let params = format!("{{\"requestId\":{}}}", lost.id().as_str());
        return call(
            None,
            b"\"notifications/cancelled\"",
            Some(params.as_bytes()),
        );
    }
    Refusal::NoAnswer.answer(&lost.id(), BROKE)
}

/// Answers a call of a tool that the person asked to hide.
pub(crate) fn ignored(sender: &Sender, message: &Message, out: &mut Vec<Output>) -> bool {
    let name = message.name().filter(|_| message.method() == "tools/call");
    match (name, message.id()) {
        (Some(name), Some(id)) if sender.tools.ignored(&name) => {
            out.push(Output::ToHost(
                Refusal::Hidden.answer(id, &format!("the tool {name} is ignored by request")),
            ));
            true
        }
        _ => false,
    }
}
