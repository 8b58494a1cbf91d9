//! The hot path: a header and a deadline behind one atomic pointer.
//!
//! A fresh token costs one pointer load, one comparison with a coarse clock and one clone of a `HeaderValue`: no lock, no
//! allocation, no store. The coarse clock is a counter that a task advances every 250 ms from the boot clock, so a suspend
//! shows within that time of the wake-up.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Method};
use pilotlight_core::{
    Error,
    credential::{Credential, TokenType, Version},
    dpop,
    time::{Mono, Wall},
};
use url::Url;

use crate::dpop::{Peer, Prover};

/// A token ready for use.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// `Bearer ...` or `DPoP ...`, marked sensitive.
    pub(crate) header: HeaderValue,
    /// Whose token it is.
    pub(crate) version: Version,
    /// Until when the header can be used by itself, on the boot clock: never, where it needs a proof. So the path of a
    /// bearer token asks nothing about proofs.
    quiet_until: Mono,
    /// What goes beside the header.
    pub(crate) proof: Option<Proving>,
}

/// The key that a token is bound to (RFC 9449).
#[derive(Debug, Clone)]
pub(crate) struct Proving {
    prover: Arc<Prover>,
    /// `ath`.
    token_hash: String,
    /// Until when nothing needs looking at, on the boot clock.
    quiet_until: Mono,
}

impl Proving {
    /// Makes the proof for one request.
    pub(crate) fn header(
        &self,
        method: &Method,
        url: &Url,
        peer: &Peer,
        now: Wall,
    ) -> Result<HeaderValue, Error> {
        let hash = Some(self.token_hash.as_str());
        self.prover.proof(method, url, hash, peer, now)
    }
}

impl Slot {
    /// Builds the header of a credential's access token. What `before` has read of the same version's key is kept.
    ///
    /// # Errors
    /// `store.corrupt` where the key that the token is bound to is not there, or is none: somebody is logged in all the same.
    pub(crate) fn of(
        credential: &Credential,
        quiet_until: Mono,
        before: Option<&Self>,
    ) -> Result<Self, Error> {
        let corrupt = || Error::StoreCorrupt {
            what: "the key of a login".into(),
        };
        let (scheme, key) = match credential.token_type {
            TokenType::Dpop => {
                let key = credential.proof_key.as_ref();
                (dpop::SCHEME, Some(key.ok_or_else(corrupt)?))
            }
            _ => ("Bearer", None),
        };
        let token = credential.access_token.expose();
        let mut header =
            HeaderValue::try_from(format!("{scheme} {token}")).map_err(|_| Error::Bug {
                what: "slot: a token that no header can hold",
            })?;
        header.set_sensitive(true);
        let slot = Self {
            header,
            version: credential.version,
            quiet_until,
            proof: None,
        };
        let Some(key) = key else { return Ok(slot) };
        let before = before.filter(|slot| slot.version == credential.version);
        let known = before.and_then(|slot| slot.proof.as_ref());
        let prover = match known {
            Some(known) => known.prover.clone(),
            None => Arc::new(Prover::new(key).ok_or_else(corrupt)?),
        };
        Ok(Self {
            quiet_until: Mono(0),
            proof: Some(Proving {
                prover,
                token_hash: dpop::token_hash(&credential.access_token),
                quiet_until,
            }),
            ..slot
        })
    }

    /// Whether nothing needs looking at.
    pub(crate) fn is_quiet(&self, now: Mono) -> bool {
        match &self.proof {
            Some(proof) => now < proof.quiet_until,
            None => now < self.quiet_until,
        }
    }
}

/// The slot of one session.
#[derive(Debug, Default)]
pub(crate) struct SlotCell(ArcSwapOption<Slot>);

impl SlotCell {
    /// The header, if there is one that needs no looking at, and no proof.
    pub(crate) fn quiet(&self, coarse: &CoarseClock) -> Option<HeaderValue> {
        let slot = self.0.load();
        let slot = slot.as_ref()?;
        (coarse.now() < slot.quiet_until).then(|| slot.header.clone())
    }

    pub(crate) fn load(&self) -> Option<Arc<Slot>> {
        self.0.load_full()
    }

    pub(crate) fn set(&self, slot: Option<Slot>) {
        self.0.store(slot.map(Arc::new));
    }
}

/// A clock that is read with one relaxed load, at most 250 ms behind.
#[derive(Debug, Default)]
pub(crate) struct CoarseClock(AtomicU64);

impl CoarseClock {
    pub(crate) fn now(&self) -> Mono {
        Mono(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, now: Mono) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}
