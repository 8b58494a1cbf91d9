//! A token endpoint that is no longer where it was pinned (DESIGN.md section 3).
//!
//! ```text
//!  404, 405, 410 or no such name, five calls in a row over an hour -> the pinned issuer's own metadata, once
//!     -> the same place, or nothing to be read -> the call is made as ever
//!     -> another place on the same origin      -> pinned in a new generation, the tokens as they are
//!     -> another origin                        -> `login.endpoint_moved`: a person confirms by logging in
//! ```
//!
//! Under an exception that a person has accepted, the metadata still has to carry the name that was accepted, to the letter.
//!
//! This is the only time that a refresh reads metadata, and it never sends anything where the metadata leads but within
//! the origin that the person has approved (T-15, I-15). Nothing is asked while an attempt stands: its label belongs to the
//! generation that it spends.

use std::time::Duration;

use url::Url;

use crate::{
    credential::{Credential, Pins, Version},
    error::{Error, LoginCause},
    event::Happened,
    exchange::{Exchange, Exchanged, Leg},
    flow::{Act, Commit, Committed, Expects, Reading, Turn},
    metadata::ServerMetadata,
    record::{Fact, Record, Suspicion},
    time::Now,
};

use super::{Outcome, Refresh, State, ending::Then, version_of};

impl Refresh {
    /// Whether the endpoint has been gone for long, and nothing else is in the way of asking for it.
    pub(super) fn misses_endpoint(&self, record: &Record, now: Now) -> bool {
        let gone = |record: &Record| {
            let pause = record.backoff.as_ref();
            pause.is_some_and(|pause| pause.endpoint_is_gone(now))
        };
        self.asked_issuer.is_none()
            && self.stored.is_none()
            && record.attempt.is_none()
            && record.suspicion.is_none()
            && gone(record)
    }

    pub(super) fn ask_issuer(mut self, fence: u64, mut reading: Reading, now: Now) -> Turn<Self> {
        self.asked_issuer = Some(now);
        if let Some(record) = &mut reading.record {
            record.backoff = record.backoff.take().map(|pause| pause.metadata_asked());
        }
        let mut left = self.task.key.issuer.metadata_urls();
        left.reverse();
        self.ask_at(fence, Box::new(reading), left, now)
    }

    fn ask_at(self, fence: u64, reading: Box<Reading>, mut left: Vec<Url>, now: Now) -> Turn<Self> {
        let Some(url) = left.pop() else {
            return self.decide(fence, *reading, true, now);
        };
        let mut exchange = Exchange::get(Leg::Metadata, url, "issuer");
        // The lease is held: the call that follows needs its time.
        exchange.within = exchange.within.min(QUICKLY);
        self.next(
            State::ExpectPinnedMetadata {
                fence,
                reading,
                left,
            },
            Act::Send(Box::new(exchange)),
        )
    }

    pub(super) fn metadata_told(
        self,
        fence: u64,
        reading: Box<Reading>,
        left: Vec<Url>,
        exchanged: &Exchanged,
        now: Now,
    ) -> Turn<Self> {
        let record = reading.record.as_ref();
        let pinned = record
            .and_then(|record| record.credential.as_ref())
            .cloned();
        let server = match exchanged {
            Ok(reply) if matches!(reply.status, 400..=499) || reply.is_page() => {
                return self.ask_at(fence, reading, left, now);
            }
            Ok(reply) if reply.status == 200 => {
                let issuer = &self.task.key.issuer;
                let name = pinned.as_ref().map_or(issuer, Credential::audience);
                ServerMetadata::parse_of(&reply.body, issuer, name).ok()
            }
            _ => None,
        };
        let (Some(server), Some(pinned)) = (server, pinned) else {
            return self.decide(fence, *reading, true, now);
        };
        let (from, to) = (&pinned.pins.token_endpoint, &server.token_endpoint);
        if from == to {
            self.decide(fence, *reading, true, now)
        } else if from.origin() == to.origin() {
            self.repin(fence, reading, pinned, server, now)
        } else {
            self.moved_away(*reading, &pinned, now)
        }
    }

    fn repin(
        self,
        fence: u64,
        reading: Box<Reading>,
        pinned: Credential,
        server: ServerMetadata,
        now: Now,
    ) -> Turn<Self> {
        let (old, new) = (pinned.version, pinned.version.next());
        let from = pinned.pins.token_endpoint.clone();
        let same_origin = |url: &Url| url.origin() == from.origin();
        let revocation_endpoint = server.revocation_endpoint.filter(same_origin);
        let credential = Credential {
            version: new,
            pins: Pins {
                token_endpoint: server.token_endpoint.clone(),
                revocation_endpoint: revocation_endpoint.or(pinned.pins.revocation_endpoint),
                ..pinned.pins
            },
            ..pinned
        };
        let mut forced = reading
            .record
            .as_ref()
            .and_then(|record| record.forced.clone());
        if let Some(forced) = &mut forced
            && forced.brought == Some(old.generation)
        {
            forced.brought = Some(new.generation);
        }
        let happened = Happened::Repinned {
            from: from.to_string(),
            to: server.token_endpoint.to_string(),
        };
        let event = self.event(now, happened);
        let commit = Commit {
            credential,
            expects: Expects::Version(old),
            binding: None,
            forced,
            event,
        };
        self.next(
            State::ExpectRepinned { fence, reading },
            Act::Commit(Box::new(commit)),
        )
    }

    pub(super) fn repinned(
        mut self,
        fence: u64,
        reading: Reading,
        committed: Result<Committed, Error>,
        now: Now,
    ) -> Turn<Self> {
        match committed {
            Ok(Committed::Done { .. }) => {
                let old = version_of(&reading.record);
                let new = old.map(Version::next);
                // The access token is the same: what is said of it goes on.
                for named in [&mut self.task.held, &mut self.task.refused] {
                    *named = if *named == old { new } else { *named };
                }
                self.reread(fence, true)
            }
            Ok(Committed::Moved) => self.reread(fence, true),
            // What is not stored is not used: the next row of failures asks again.
            Err(_) => self.decide(fence, reading, true, now),
        }
    }

    fn moved_away(self, reading: Reading, pinned: &Credential, now: Now) -> Turn<Self> {
        let cause = LoginCause::EndpointMoved;
        let suspicion = Suspicion {
            cause: cause.clone(),
            since: now.wall,
            probes: 0,
            next_probe_at: None,
            at: Some(now),
        };
        let facts = vec![Fact::Backoff(None), Fact::Suspicion(Some(suspicion))];
        let mut record = reading.record.unwrap_or_default();
        record.apply(&facts);
        let happened = Happened::Lost {
            cause: cause.clone(),
            label: None,
        };
        let event = self.event(now, happened);
        let outcome = Outcome::known(record, reading.notes, Err(Error::login(cause)));
        self.facts(outcome, pinned.version, facts, event, Then::Unlock)
    }
}

/// For so long each of the issuer's well-known places is waited for.
const QUICKLY: Duration = Duration::from_secs(5);
