//! What sessions are opened with.

use std::sync::{Arc, Mutex, atomic::AtomicUsize};

use pilotlight_core::{Error, attempt::ProcessId};
use tokio::{runtime::Handle, sync::broadcast};

use crate::{
    clock::{Clock, SystemClock},
    config::Limits,
    crypto,
    dpop::Peers,
    drive::Turns,
    egress::Cidr,
    http::HttpConfig,
    human::{Human, Refuse},
    secrets::{FileSecrets, Secrets},
    slot::CoarseClock,
    store::Store,
};

use super::{Inner, Sessions, tick, watch};

/// Builds [`Sessions`]: only the store has no default.
#[derive(Debug)]
pub struct SessionsBuilder {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    human: Arc<dyn Human>,
    secrets: Arc<dyn Secrets>,
    http: HttpConfig,
    allow_private: Vec<Cidr>,
    limits: Limits,
    client_name: String,
    one_shot: bool,
    runtime: Option<Handle>,
}

impl SessionsBuilder {
    pub(super) fn over(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            clock: Arc::new(SystemClock),
            human: Arc::new(Refuse),
            secrets: Arc::new(FileSecrets),
            http: HttpConfig::default(),
            allow_private: Vec::new(),
            limits: Limits::default(),
            client_name: "Pilotlight".to_owned(),
            one_shot: false,
            runtime: None,
        }
    }

    /// Who can approve a login (default: nobody).
    #[must_use]
    pub fn human(mut self, human: Arc<dyn Human>) -> Self {
        self.human = human;
        self
    }

    /// Who knows what references to secrets stand for (default: [`FileSecrets`]).
    #[must_use]
    pub fn secrets(mut self, secrets: Arc<dyn Secrets>) -> Self {
        self.secrets = secrets;
        self
    }

    /// The HTTP stack: extra authorities, proxy, user agent. Its egress policy is made anew for each server.
    #[must_use]
    pub fn http(mut self, http: HttpConfig) -> Self {
        self.http = http;
        self
    }

    /// Private networks that servers may lead to.
    #[must_use]
    pub fn allow_private(mut self, networks: Vec<Cidr>) -> Self {
        self.allow_private = networks;
        self
    }

    /// Another clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Time limits and the refresh policy.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The program's name, as a registration tells it to the issuer.
    #[must_use]
    pub fn program(mut self, name: &str) -> Self {
        self.client_name = name.to_owned();
        self
    }

    /// For a process that makes one request and ends: no ticker, no refresh in the background.
    #[must_use]
    pub fn one_shot(mut self, one_shot: bool) -> Self {
        self.one_shot = one_shot;
        self
    }

    /// The runtime that refreshes run on (default: the current one).
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Opens the front door. Nothing is read or sent.
    ///
    /// # Errors
    /// `config.runtime` where no tokio runtime is given and none is current.
    pub fn open(self) -> Result<Sessions, Error> {
        let runtime = match self.runtime {
            Some(runtime) => runtime,
            None => Handle::try_current().map_err(|_| Error::ConfigRuntime)?,
        };
        let process = ProcessId {
            pid: std::process::id(),
            nonce: u64::from_be_bytes(crypto::random()),
        };
        let inner = Arc::new(Inner {
            store: self.store,
            coarse: CoarseClock::default(),
            clock: self.clock,
            limits: self.limits,
            process,
            one_shot: self.one_shot,
            human: self.human,
            deliveries: Arc::default(),
            secrets: self.secrets,
            http: self.http,
            allow_private: self.allow_private,
            client_name: self.client_name,
            runtime,
            cells: Mutex::default(),
            requests: Mutex::default(),
            kept: Mutex::default(),
            turns: Turns::default(),
            peers: Peers::default(),
            changes: broadcast::channel(64).0,
            at_work: AtomicUsize::new(0),
            idle: tokio::sync::Notify::new(),
        });
        if inner.ticking() {
            inner.coarse.set(inner.clock.now().mono);
            inner.runtime.spawn(tick(Arc::downgrade(&inner)));
            inner.runtime.spawn(watch(Arc::downgrade(&inner)));
        }
        Ok(Sessions { inner })
    }
}
