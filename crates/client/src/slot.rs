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
use http::HeaderValue;
use pilotlight_core::{
    credential::{Credential, Version},
    time::Mono,
};

/// A token ready for use.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// `Bearer ...`, marked sensitive.
    pub(crate) header: HeaderValue,
    /// Whose token it is.
    pub(crate) version: Version,
    /// Until when nothing needs looking at, on the boot clock.
    pub(crate) quiet_until: Mono,
}

impl Slot {
    /// Builds the header of a credential's access token; `None` for one that cannot be in a header, which
    /// [`AccessToken`](pilotlight_core::secret::AccessToken) rules out.
    pub(crate) fn of(credential: &Credential, quiet_until: Mono) -> Option<Self> {
        let mut header =
            HeaderValue::try_from(format!("Bearer {}", credential.access_token.expose())).ok()?;
        header.set_sensitive(true);
        Some(Self {
            header,
            version: credential.version,
            quiet_until,
        })
    }
}

/// The slot of one session.
#[derive(Debug, Default)]
pub(crate) struct SlotCell(ArcSwapOption<Slot>);

impl SlotCell {
    /// The header, if there is one that needs no looking at.
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
