//! Changes: an old host hears of them by itself, a new server tells them on a subscription (TR-12).
//!
//! One subscription holds all that the host wants. When that changes, a new one is opened, and the old one ends when the
//! new one is acknowledged: in between, both tell, and nothing is missed.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::super::{
    INVALID_PARAMS, METHOD_NOT_FOUND, Output, Refusal, Ticket, call as request, host, result,
};
use super::{Call, Id, Kind, Message, OldHost, Purpose};
use crate::message::{SUBSCRIPTION_ID, json, object};

/// How many resources a host may watch.
const MAX_URIS: usize = 1024;
/// The longest pause before a subscription that ended is opened again.
const LONGEST: Duration = Duration::from_secs(60);
const BAD: Refusal = Refusal::BadRequest(INVALID_PARAMS);
const NOT_OFFERED: Refusal = Refusal::NotOffered(METHOD_NOT_FOUND);

/// What is being listened to.
#[derive(Debug, Default)]
pub(super) struct Listen {
    begun: bool,
    /// The server has none, or refuses for good.
    none: bool,
    uris: BTreeSet<String>,
    /// The subscription that has been acknowledged.
    current: Option<Ticket>,
    /// The one that has not been yet, and who waits for it: the host's ids, each with its resource.
    next: Option<(Ticket, Vec<(Id, String)>)>,
    failures: u32,
}

impl OldHost {
    pub(super) fn begin_listening(&mut self, out: &mut Vec<Output>) {
        if !self.listen.begun {
            self.listen.begun = true;
            self.listen_anew(Vec::new(), out);
        }
    }

    pub(super) fn subscribe(&mut self, id: &Id, message: &Message, out: &mut Vec<Output>) {
        let told = match message.param_text("uri") {
            None => BAD.answer(id, "a uri is missing"),
            Some(_) if !self.offers("resources", "subscribe") || self.listen.none => {
                NOT_OFFERED.answer(id, "the server does not tell when resources change")
            }
            Some(_) if self.listen.uris.len() >= MAX_URIS => {
                Refusal::TooMany.answer(id, "too many resources are watched")
            }
            Some(uri) if self.listen.current.is_some() && self.listen.uris.contains(&*uri) => {
                result(id, b"{}")
            }
            Some(uri) => {
                self.listen.begun = true;
                self.listen.uris.insert(uri.clone().into_owned());
                return self.listen_anew(vec![(id.clone(), uri.into_owned())], out);
            }
        };
        out.push(Output::ToHost(told));
    }

    pub(super) fn unsubscribe(&mut self, id: &Id, message: &Message, out: &mut Vec<Output>) {
        let Some(uri) = message.param_text("uri") else {
            return out.push(Output::ToHost(BAD.answer(id, "a uri is missing")));
        };
        out.push(Output::ToHost(result(id, b"{}")));
        if self.listen.uris.remove(&*uri) {
            self.listen_anew(Vec::new(), out);
        }
    }

    /// Opens a subscription to all that is wanted now.
    fn listen_anew(&mut self, mut waiting: Vec<(Id, String)>, out: &mut Vec<Output>) {
        if let Some((ticket, others)) = self.listen.next.take() {
            self.sender.stop(ticket, out);
            waiting.extend(others);
        }
        let mut wanted = Vec::new();
        for (object, filter) in [
            ("tools", "toolsListChanged"),
            ("prompts", "promptsListChanged"),
            ("resources", "resourcesListChanged"),
        ] {
            if self.offers(object, "listChanged") {
                wanted.push((filter, b"true".to_vec()));
            }
        }
        if !self.listen.uris.is_empty() {
            let uris: Vec<_> = self
                .listen
                .uris
                .iter()
                .map(|uri| json::quoted(uri))
                .collect();
            wanted.push((
                "resourceSubscriptions",
                format!("[{}]", uris.join(",")).into_bytes(),
            ));
        }
        if wanted.is_empty() || self.listen.none {
            if let Some(current) = self.listen.current.take() {
                self.sender.stop(current, out);
            }
            // Who waits has taken it back meanwhile, or finds out that there is nothing.
            out.extend(waiting.into_iter().map(|(id, uri)| {
                let told = if self.listen.uris.remove(&uri) {
                    NOT_OFFERED.answer(&id, "the server does not tell when resources change")
                } else {
                    result(&id, b"{}")
                };
                Output::ToHost(told)
            }));
            return;
        }
        let params = object(vec![("notifications", object(wanted))]);
        let plain = request(
            Some(&self.sender.numbers.id()),
            b"\"subscriptions/listen\"",
            Some(&params),
        );
        let Ok(plain) = Message::read(plain) else {
            return;
        };
        let raw = self.dressed(&plain).finish();
        let pause = Duration::from_secs(1 << self.listen.failures.min(6)).min(LONGEST);
        let after = if self.listen.failures == 0 {
            Duration::ZERO
        } else {
            pause
        };
        if let Some(ticket) = self
            .sender
            .send(Call::new(plain, Purpose::Listen), raw, after, out)
        {
            self.listen.next = Some((ticket, waiting));
        }
    }

    /// Something came on a subscription.
    pub(super) fn heard(&mut self, ticket: Ticket, raw: Bytes, out: &mut Vec<Output>) {
        let Ok(message) = Message::read(raw) else {
            self.sender.stop(ticket, out);
            return self.not_heard(ticket, None, out);
        };
        match (message.kind(), &*message.method()) {
            (Kind::Notification, "notifications/subscriptions/acknowledged") => {
                self.acknowledged(ticket, &message, out)
            }
            (Kind::Notification, _) => out.push(Output::ToHost(
                message.edit().without_meta(SUBSCRIPTION_ID).finish(),
            )),
            (Kind::Error, _) => self.not_heard(ticket, Some((200, message.raw())), out),
            (Kind::Result, _) => self.not_heard(ticket, None, out),
            (Kind::Request, _) => {}
        }
    }

    fn acknowledged(&mut self, ticket: Ticket, message: &Message, out: &mut Vec<Output>) {
        let Some((next, waiting)) = self.listen.next.take_if(|(next, _)| *next == ticket) else {
            return;
        };
        self.listen.failures = 0;
        if let Some(old) = self.listen.current.replace(next) {
            self.sender.stop(old, out);
        }
        let filter = message.param("notifications").unwrap_or(b"{}");
        let mut granted = BTreeSet::new();
        if let Some(list) = json::member(filter, &(0..filter.len()), "resourceSubscriptions") {
            json::elements(filter, &list, |uri| {
                granted.extend(json::decoded(&filter[uri]).map(|uri| uri.into_owned()));
            });
        }
        for (id, uri) in waiting {
            let told = if granted.contains(&uri) || !self.listen.uris.contains(&uri) {
                result(&id, b"{}")
            } else {
                self.listen.uris.remove(&uri);
                Refusal::NotOffered(INVALID_PARAMS)
                    .answer(&id, "the server does not tell when this resource changes")
            };
            out.push(Output::ToHost(told));
        }
    }

    /// A subscription ended or was refused. It is opened again, but for a server that has none.
    pub(super) fn not_heard(
        &mut self,
        ticket: Ticket,
        refusal: Option<(u16, &Bytes)>,
        out: &mut Vec<Output>,
    ) {
        drop(self.sender.forget(ticket));
        let ours = if self.listen.current == Some(ticket) {
            self.listen.current = None;
            true
        } else {
            false
        };
        let next = self.listen.next.take_if(|(next, _)| *next == ticket);
        if !ours && next.is_none() {
            return;
        }
        let why = refusal.map_or(Refusal::NoAnswer, |(status, _)| Refusal::Status(status));
        for (id, uri) in next.into_iter().flat_map(|(_, waiting)| waiting) {
            self.listen.uris.remove(&uri);
            out.push(Output::ToHost(
                why.answer(&id, "the server did not take the subscription"),
            ));
        }
        self.listen.failures += 1;
        self.listen.none |= refusal.is_some_and(|(status, body)| for_good(status, body));
        if self.listen.current.is_none() && self.listen.next.is_none() {
            self.listen_anew(Vec::new(), out);
        }
    }

    fn offers(&self, object: &str, member: &str) -> bool {
        let known = self
            .discovery
            .as_ref()
            .and_then(|known| known.capabilities.as_ref());
        known.is_some_and(|capabilities| host::flag(capabilities, object, member))
    }
}

/// Says whether a server that refuses a subscription so would refuse it again.
fn for_good(status: u16, body: &Bytes) -> bool {
    let code = Message::read(body.clone())
        .ok()
        .and_then(|message| message.error_code());
    matches!(code, Some(METHOD_NOT_FOUND | INVALID_PARAMS))
        || matches!(status, 400 | 404 | 405 | 501)
}
