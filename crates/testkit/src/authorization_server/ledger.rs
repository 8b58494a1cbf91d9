//! What the authorization server saw, for tests to judge by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One request that was about a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// When it was processed, Unix time in milliseconds.
    pub at_ms: u64,
    /// What it was.
    pub kind: Kind,
    /// The client that sent it, as far as it said.
    pub client_id: Option<String>,
    /// The refresh token it presented, by [`fingerprint`](crate::fingerprint()).
    pub refresh_token: Option<String>,
    /// Whether that refresh token had been spent before.
    pub spent_before: bool,
    /// Whether it was spent, and answered with its successor again because the grace had not ended.
    pub grace_hit: bool,
    /// The grant it belonged to; refresh tokens of one family descend from one another.
    pub family: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it was processed and its answer then lost on purpose.
    pub answer_lost: bool,
    /// The `x-pilotlight-attempt` header field, which only test clients send.
    pub label: Option<String>,
}

/// What a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An authorization code was exchanged.
    Code,
    /// A refresh token was presented.
    Refresh,
    /// A token was revoked.
    Revoke,
    /// A client registered.
    Register,
    /// A token request with some other grant type.
    Other,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It succeeded.
    Ok,
    /// It was refused with this OAuth error code.
    Error(String),
    /// A [`Fault`](crate::Fault) of this name answered in its place; nothing was processed.
    Fault(String),
}

/// The list of what was seen, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The requests, oldest first.
    pub entries: Vec<Entry>,
}

impl Ledger {
    /// Gives the entries of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.kind == kind)
    }

    /// Gives the presentations of spent refresh tokens that no grace covered: each one cost a session.
    pub fn reuse(&self) -> impl Iterator<Item = &Entry> {
        self.of(Kind::Refresh)
            .filter(|entry| entry.spent_before && !entry.grace_hit)
    }
}

/// The counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Token requests that arrived.
    pub token: u64,
    /// Codes exchanged.
    pub code_ok: u64,
    /// Refreshes that succeeded.
    pub refresh_ok: u64,
    /// Refreshes that were refused.
    pub refresh_err: u64,
    /// Grants revoked because a spent refresh token was presented.
    pub reuse_revocations: u64,
    /// Clients registered.
    pub registrations: u64,
    /// Revocation requests that were processed.
    pub revocations: u64,
    /// Presentations of a spent refresh token, within the grace or not.
    pub spent_presented: u64,
    /// Refused requests by OAuth error code.
    pub by_error: BTreeMap<String, u64>,
    /// Requests for well-known documents.
    pub discovery: u64,
    /// Requests to the authorization endpoint.
    pub authorize: u64,
    /// Logins begun on another device.
    pub device: u64,
    /// Requests that a fault answered or closed.
    pub faults: u64,
}
