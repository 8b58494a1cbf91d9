//! Subscriptions of a new host, made of what an old server tells by itself and of `resources/subscribe` (TR-12).

use std::collections::{BTreeMap, BTreeSet};

use super::super::{INVALID_PARAMS, Output, Refusal, call as request, host};
use super::{Bytes, Id, Message, NewHost, Purpose, Stage, json, object};
use crate::message::SUBSCRIPTION_ID;

/// How many subscriptions a host may have.
const MAX_LISTENS: usize = 64;
/// How many resources they may name together.
const MAX_URIS: usize = 1024;

/// What a host listens to.
#[derive(Debug, Default)]
pub(super) struct Listens {
    all: Vec<Listen>,
    /// The resources that the server has been asked to watch, and whether it has agreed.
    watched: BTreeMap<String, bool>,
}

#[derive(Debug)]
struct Listen {
    id: Id,
    tools: bool,
    prompts: bool,
    resources: bool,
    uris: BTreeSet<String>,
    /// Resources that the server has not answered for yet.
    open: BTreeSet<String>,
    acknowledged: bool,
}

impl NewHost {
    pub(super) fn listen(&mut self, id: Id, message: &Message, out: &mut Vec<Output>) {
        let Some(filter) = message
            .param("notifications")
            .filter(|raw| raw.starts_with(b"{"))
        else {
            return out.push(Output::ToHost(
                Refusal::BadRequest(INVALID_PARAMS).answer(&id, "notifications are missing"),
            ));
        };
        let Stage::Open(session) = &self.stage else {
            return;
        };
        let whole = 0..filter.len();
        let on = |name: &str, object: &str| {
            json::member(filter, &whole, name).is_some_and(|value| &filter[value] == b"true")
                && host::flag(&session.capabilities, object, "listChanged")
        };
        let mut listen = Listen {
            id,
            tools: on("toolsListChanged", "tools"),
            prompts: on("promptsListChanged", "prompts"),
            resources: on("resourcesListChanged", "resources"),
            uris: BTreeSet::new(),
            open: BTreeSet::new(),
            acknowledged: false,
        };
        if host::flag(&session.capabilities, "resources", "subscribe")
            && let Some(list) = json::member(filter, &whole, "resourceSubscriptions")
        {
            json::elements(filter, &list, |uri| {
                listen
                    .uris
                    .extend(json::decoded(&filter[uri]).map(|uri| uri.into_owned()));
            });
        }
        let named: usize = self
            .listens
            .all
            .iter()
            .map(|listen| listen.uris.len())
            .sum();
        if self.listens.all.len() >= MAX_LISTENS || named + listen.uris.len() > MAX_URIS {
            return out.push(Output::ToHost(
                Refusal::TooMany.answer(&listen.id, "too many subscriptions"),
            ));
        }
        let mut fresh = Vec::new();
        for uri in &listen.uris {
            match self.listens.watched.get(uri) {
                Some(true) => {}
                Some(false) => {
                    listen.open.insert(uri.clone());
                }
                None => {
                    listen.open.insert(uri.clone());
                    fresh.push(uri.clone());
                }
            }
        }
        self.listens.all.push(listen);
        for uri in fresh {
            self.listens.watched.insert(uri.clone(), false);
            let params = format!("{{\"uri\":{}}}", json::quoted(&uri));
            self.ask(
                "resources/subscribe",
                params.as_bytes(),
                Purpose::Subscribe { uri },
                out,
            );
        }
        self.acknowledge(out);
    }

    /// The server has answered for a resource.
    pub(super) fn subscribed(&mut self, uri: &str, taken: bool, out: &mut Vec<Output>) {
        if taken {
            if let Some(agreed) = self.listens.watched.get_mut(uri) {
                *agreed = true;
            }
        } else {
            self.listens.watched.remove(uri);
        }
        for listen in &mut self.listens.all {
            if listen.open.remove(uri) && !taken {
                listen.uris.remove(uri);
            }
        }
        self.acknowledge(out);
        self.unwatch(out);
    }

    /// Ends a subscription, if the host has one of this id.
    pub(super) fn unlisten(&mut self, id: &Id, out: &mut Vec<Output>) -> bool {
        let before = self.listens.all.len();
        self.listens.all.retain(|listen| !listen.id.same(id));
        self.unwatch(out);
        self.listens.all.len() < before
    }

    /// Has the server stop watching what nobody listens to. One that has not agreed yet is asked when it has.
    fn unwatch(&mut self, out: &mut Vec<Output>) {
        let all = &self.listens.all;
        let heard = |uri: &String| all.iter().any(|listen| listen.uris.contains(uri));
        let unheard: Vec<_> = self
            .listens
            .watched
            .iter()
            .filter(|(uri, agreed)| **agreed && !heard(uri))
            .map(|(uri, _)| uri.clone())
            .collect();
        for uri in unheard {
            self.listens.watched.remove(&uri);
            let params = format!("{{\"uri\":{}}}", json::quoted(&uri));
            self.ask(
                "resources/unsubscribe",
                params.as_bytes(),
                Purpose::Ours,
                out,
            );
        }
    }

    /// Tells the host of each subscription that stands.
    fn acknowledge(&mut self, out: &mut Vec<Output>) {
        for listen in self
            .listens
            .all
            .iter_mut()
            .filter(|listen| !listen.acknowledged && listen.open.is_empty())
        {
            listen.acknowledged = true;
            let mut filter = Vec::new();
            for (name, on) in [
                ("toolsListChanged", listen.tools),
                ("promptsListChanged", listen.prompts),
                ("resourcesListChanged", listen.resources),
            ] {
                if on {
                    filter.push((name, b"true".to_vec()));
                }
            }
            if !listen.uris.is_empty() {
                let uris: Vec<_> = listen.uris.iter().map(|uri| json::quoted(uri)).collect();
                filter.push((
                    "resourceSubscriptions",
                    format!("[{}]", uris.join(",")).into_bytes(),
                ));
            }
            let meta = object(vec![(SUBSCRIPTION_ID, listen.id.as_str().into())]);
            let params = object(vec![("_meta", meta), ("notifications", object(filter))]);
            let raw = request(
                None,
                b"\"notifications/subscriptions/acknowledged\"",
                Some(&params),
            );
            out.push(Output::ToHost(raw));
        }
    }

    /// Something has changed: told on each subscription that wants it.
    pub(super) fn changed(&mut self, message: &Message, out: &mut Vec<Output>) {
        let method = message.method();
        let uri = message.param_text("uri").unwrap_or_default();
        let exact = self
            .listens
            .all
            .iter()
            .any(|listen| listen.uris.contains(&*uri));
        let told = |listen: &Listen| match &*method {
            "notifications/tools/list_changed" => listen.tools,
            "notifications/prompts/list_changed" => listen.prompts,
            "notifications/resources/list_changed" => listen.resources,
            // A server may name a part of what was asked for.
            _ if exact => listen.uris.contains(&*uri),
            _ => listen
                .uris
                .iter()
                .any(|watched| uri.starts_with(watched.as_str())),
        };
        let tagged = |listen: &Listen| -> Bytes {
            message
                .edit()
                .meta(SUBSCRIPTION_ID, listen.id.as_str())
                .finish()
        };
        let wanted = self
            .listens
            .all
            .iter()
            .filter(|listen| listen.acknowledged && told(listen));
        out.extend(wanted.map(tagged).map(Output::ToHost));
    }
}
