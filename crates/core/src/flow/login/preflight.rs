//! Whether the issuer still knows a stored registration, before a person is sent there with it (F-16).
//!
//! ```text
//!  a token was issued to it lately? -> shown
//!  else GET the authorization URL -> a page that refuses it -> registered anew once -> the old one forgotten, the new one shown
//!                                                              -> refused -> shown, as it was
//!                                 -> anything else          -> shown
//! ```
//!
//! An issuer that has forgotten a client can tell nobody but the person, on a page: no redirect may follow (RFC 6749
//! section 4.1.2.1). The request has a state and a challenge of its own, of use to nobody, and carries no cookie.

use std::time::Duration;

use crate::{
    error::{Error, LoginCause},
    exchange::{Exchange, Exchanged, Leg, Reply},
    flow::{Act, Reading, Turn},
    registration::Client,
    time::Now,
};

use super::{Known, Login, Request, State, derived};

impl Login {
    /// Where the issuer has given this client a token lately, it knows it.
    pub(super) fn prove(
        self,
        known: Box<Known>,
        redirect_uri: String,
        client: Client,
    ) -> Turn<Self> {
        if self.by_device {
            // There the issuer itself answers whether it knows the client, before anybody is shown anything (`device.rs`).
            return self.show(*known, redirect_uri, client);
        }
        let key = self.credential_key(&known.discovered);
        self.next(
            State::ExpectProof(known, redirect_uri, client),
            Act::Reread(key),
        )
    }

    pub(super) fn proven(
        self,
        known: Box<Known>,
        redirect_uri: String,
        client: Client,
        read: Result<Box<Reading>, Error>,
        now: Now,
    ) -> Turn<Self> {
        let record = read.ok().and_then(|reading| reading.record);
        let credential = record
            .filter(|record| {
                let doubt = record.suspicion.as_ref().map(|doubt| &doubt.cause);
                doubt != Some(&LoginCause::RegistrationGone)
            })
            .and_then(|record| record.credential)
            .filter(|credential| credential.client.id == client.id);
        let issued_at = credential.and_then(|credential| credential.received_at);
        let lately =
            issued_at.is_some_and(|at| at.wall <= now.wall && at.wall.until(now.wall) < PROVEN_FOR);
        if lately {
            return self.show(*known, redirect_uri, client);
        }
        let [verifier, state, _] = self.task.entropy.map(|seed| derived(PREFLIGHT, &seed));
        let asked = Known {
            discovered: known.discovered.clone(),
            registrations: Vec::new(),
            scopes: known.scopes.clone(),
            application_type: known.application_type,
            dead: None,
        };
        let request = self.request(
            asked,
            redirect_uri.clone(),
            client.clone(),
            &verifier,
            &state,
        );
        let url = match request.url(
            &self.task.authorize_params,
            self.lessons.insist.parameters(),
        ) {
            Ok(url) => url,
            Err(error) => return self.fail(error),
        };
        let mut exchange = Exchange::get(Leg::Preflight, url, "authorization_endpoint");
        // As a browser would: some servers answer programs with nothing at all.
        let page = http::HeaderValue::from_static("text/html,*/*;q=0.8");
        exchange.headers.insert(http::header::ACCEPT, page);
        self.next(
            State::ExpectPreflight(known, redirect_uri, client),
            Act::Send(Box::new(exchange)),
        )
    }

    pub(super) fn preflown(
        mut self,
        mut known: Box<Known>,
        redirect_uri: String,
        client: Client,
        exchanged: &Exchanged,
    ) -> Turn<Self> {
        let dead = exchanged.as_ref().is_ok_and(refuses);
        if !dead || self.forgotten.is_some() {
            return self.show(*known, redirect_uri, client);
        }
        self.give_up(&client);
        known.dead = Some(client);
        self.register_lock(known, redirect_uri)
    }

    /// Forgets a registration, and that it was ours: what a store that refuses shows again is not taken for alive.
    pub(super) fn forget(&mut self, request: &Request) -> Act {
        self.give_up(&request.client);
        Act::forgetting(request.issuer.clone(), request.client.clone())
    }

    fn give_up(&mut self, client: &Client) {
        self.forgotten = Some(client.id.clone());
        // What was answered so far belongs to the client that is gone: the next request has its own secrets.
        self.task.entropy = self.task.entropy.map(|seed| derived(ONCE_MORE, &seed));
    }
}

/// A page, or an OAuth error, that says: there is no such client. A redirect leads on, and so the client is known; a page that
/// asks who is there is about the person.
fn refuses(reply: &Reply) -> bool {
    let has = |name| reply.headers.contains_key(name);
    let about_client = reply.is_page() && !has(http::header::WWW_AUTHENTICATE);
    matches!(reply.status, 400 | 401 | 404 | 410 | 422)
        && !has(http::header::LOCATION)
        && (about_client || is_invalid_client(&reply.body))
}

fn is_invalid_client(body: &[u8]) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = value.as_ref().and_then(|value| value.get("error"));
    error.and_then(serde_json::Value::as_str) == Some("invalid_client")
}

/// What the look's own entropy is made for.
const PREFLIGHT: &str = "preflight";
/// What that of another client's request is made for.
const ONCE_MORE: &str = "once more";
/// For so long after a token was issued to it a client is taken for known.
const PROVEN_FOR: Duration = Duration::from_secs(86_400);
