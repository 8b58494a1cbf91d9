//! Proofs of possession as requests leave (RFC 9449): drawn keys, signatures, and what each server wants to see in them.
//!
//! ```text
//!  token endpoint   Driver::send_proven   -> 400 use_dpop_nonce: nothing was done, nothing spent -> once more, with the nonce
//!  MCP server       Session::authorize    -> 401 use_dpop_nonce: nothing was done                -> once more, with the nonce
//! ```
//!
//! A nonce and the clock belong to one server in one of its two roles, and are remembered for as long as the process lives: a
//! process that begins without pays one answer for each.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, header::DATE};
use pilotlight_core::{
    Error,
    dpop::{self, PROOF_FIELD, Proof, ProofKey, Refused},
    exchange::{Delivery, Exchange, Exchanged, Failure, Fault},
    time::Wall,
    token::Verdict,
};
use url::{Origin, Url};

use crate::{
    cell::lock,
    crypto,
    drive::Driver,
    sign::{SigningKey, new_p256},
};

/// Draws the key of a login.
///
/// # Errors
/// `bug` where the system gives no randomness.
pub(crate) fn new_key() -> Result<ProofKey, Error> {
    let pkcs8 = new_p256()?;
    SigningKey::from_pkcs8(&pkcs8)
        .and_then(|key| key.point())
        .and_then(|(x, y)| ProofKey::new(&pkcs8, x, y).ok())
        .ok_or(Error::Bug {
            what: "dpop: a drawn key that cannot be read",
        })
}

/// A key that is ready to sign: reading one costs more than a signature.
pub(crate) struct Prover {
    key: ProofKey,
    signing: SigningKey,
}

impl Prover {
    /// Reads a key; `None` for one that is none.
    pub(crate) fn new(key: &ProofKey) -> Option<Self> {
        Some(Self {
            key: key.clone(),
            signing: SigningKey::from_pkcs8(&key.pkcs8())?,
        })
    }

    /// Makes the proof for one request, unlike every other.
    ///
    /// # Errors
    /// `bug` where the system gives no randomness.
    pub(crate) fn proof(
        &self,
        method: &Method,
        url: &Url,
        token_hash: Option<&str>,
        peer: &Peer,
        now: Wall,
    ) -> Result<HeaderValue, Error> {
        let unsigned = Proof {
            method,
            url,
            token_hash,
            nonce: peer.nonce.as_deref(),
            jti: crypto::random(),
            at: peer.time(now),
        }
        .unsigned(&self.key);
        let proof = self.signing.sign(unsigned)?;
        let mut proof = HeaderValue::try_from(proof).map_err(|_| Error::Bug {
            what: "dpop: a proof that no header can hold",
        })?;
        // No two are alike: a table of the fields that were sent need not remember them.
        proof.set_sensitive(true);
        Ok(proof)
    }
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

/// In which role a server is talked to: one that is both may give each another nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// A token endpoint.
    Issuer,
    /// An MCP server.
    Resource,
}

/// What a server wants to see in a proof.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    nonce: Option<String>,
    /// By how many milliseconds its clock is ahead of ours.
    pub(crate) ahead: i64,
}

impl Peer {
    /// What its clock shows.
    pub(crate) fn time(&self, now: Wall) -> Wall {
        Wall(now.0.saturating_add_signed(self.ahead))
    }
}

/// What the servers want to see in proofs, by server. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peers(Arc<Mutex<HashMap<(Role, Origin), Peer>>>);

impl Peers {
    /// What a server wants to see.
    pub(crate) fn of(&self, role: Role, at: &Origin) -> Peer {
        let peers = lock(&self.0);
        peers.get(&(role, at.clone())).cloned().unwrap_or_default()
    }

    /// Takes from an answer what there is in it: any answer may give the next nonce (RFC 9449 section 8.2).
    pub(crate) fn learn(&self, role: Role, at: &Origin, answer: &HeaderMap, now: Wall) -> Peer {
        let mut peers = lock(&self.0);
        let peer = peers.entry((role, at.clone())).or_default();
        if let Some(nonce) = dpop::nonce(answer) {
            peer.nonce = Some(nonce.to_owned());
        }
        let date = answer.get(DATE).and_then(|date| date.to_str().ok());
        if let Some(theirs) = date.and_then(Wall::from_http_date) {
            peer.ahead = ahead(theirs, now);
        }
        peer.clone()
    }
}

/// By how much a server's clock is ahead of ours. The date of an answer is cut to the second, and was written a while ago:
/// what may be no more than that is nothing.
fn ahead(theirs: Wall, ours: Wall) -> i64 {
    let span = theirs.0.abs_diff(ours.0);
    if span < FAR_OFF_MS {
        return 0;
    }
    let span = i64::try_from(span).unwrap_or(i64::MAX);
    if theirs > ours { span } else { -span }
}

/// Whether a proof that a server refused may be made anew: it has just told what it wants to see.
pub(crate) fn may_be_mended(refused: Refused, answer: &HeaderMap, before: i64, after: i64) -> bool {
    match refused {
        Refused::Nonce => dpop::nonce(answer).is_some(),
        Refused::Proof => before.abs_diff(after) >= FAR_OFF_MS,
    }
}

/// What has less time left would only be given up: and then nobody knows whether it was delivered, though what came before it
/// was refused.
const SHORTEST_REPEAT: Duration = Duration::from_secs(1);

/// Servers that look at the clock forgive so much and more.
const FAR_OFF_MS: u64 = 5_000;

impl Driver {
    /// Sends a request, with a proof where one is ordered. A proof that lacks the server's nonce, or has another time, is
    /// made anew once, and so is a client's assertion that has another time: the server did nothing, so nothing was spent,
    /// and to the flow it is one request (T-32). Both fit into the time that the exchange may take; where the second could
    /// only leave too late, it stays ([`Exchange::not_after`]).
    pub(crate) async fn send_proven(&self, mut exchange: Exchange) -> Exchanged {
        let (key, signs) = (
            exchange.orders.proof.take(),
            exchange.orders.assertion.is_some(),
        );
        if key.is_none() && !signs {
            return self.send(exchange).await;
        }
        let key = key.as_ref();
        let at = exchange.url.origin();
        let (begun, within) = (tokio::time::Instant::now(), exchange.within);
        let peer = self.peers.of(Role::Issuer, &at);
        let first = self.send(self.proven(&exchange, key, &peer)?).await;
        let Ok(reply) = &first else { return first };
        let now = self.clock.now().wall;
        let told = self.peers.learn(Role::Issuer, &at, &reply.headers, now);
        let refused = Refused::by_issuer(reply.status, &reply.body).filter(|_| key.is_some());
        // Who does not say so of an assertion may mean its time.
        let by_time =
            (signs && Verdict::of(&first) == Verdict::InvalidClient).then_some(Refused::Proof);
        let mendable = refused
            .or(by_time)
            .is_some_and(|refused| may_be_mended(refused, &reply.headers, peer.ahead, told.ahead));
        // Whoever sends it keeps the time: only there it is known when the body left.
        exchange.within = within.saturating_sub(begun.elapsed());
        if !mendable || exchange.within < SHORTEST_REPEAT {
            return first;
        }
        tracing::debug!(host = exchange.host(), "the proof is made anew");
        let mut second = self.send(self.proven(&exchange, key, &told)?).await;
        match &mut second {
            Ok(reply) => {
                let now = self.clock.now().wall;
                self.peers.learn(Role::Issuer, &at, &reply.headers, now);
            }
            Err(failure) => {
                if let Fault::Deadline(limit) = &mut failure.fault {
                    *limit = within;
                }
            }
        }
        second
    }

    /// The request with its proof, if it is to have one.
    fn proven(
        &self,
        exchange: &Exchange,
        key: Option<&ProofKey>,
        peer: &Peer,
    ) -> Result<Exchange, Failure> {
        let Some(key) = key else {
            return Ok(exchange.clone());
        };
        let now = self.clock.now();
        let proof = Prover::new(key)
            .ok_or(Error::StoreCorrupt {
                what: "the key of a login".into(),
            })
            .and_then(|prover| prover.proof(&exchange.method, &exchange.url, None, peer, now.wall));
        match proof {
            Ok(proof) => {
                let mut exchange = exchange.clone();
                exchange.headers.insert(PROOF_FIELD, proof);
                Ok(exchange)
            }
            Err(error) => Err(Failure {
                delivery: Delivery::NotDelivered,
                fault: Fault::Unsigned(Box::new(error)),
                host: exchange.host(),
                sent_at: now,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
