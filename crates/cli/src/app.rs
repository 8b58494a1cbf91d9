//! What every command starts from: the settings, whom to talk to, and the store.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use pilotlight::{
    Limits, Sessions,
    clock::{Clock, SystemClock},
    core::{credential::Binding, time::Wall},
    http::HttpConfig,
    human::{Human, Refuse},
    mcp_remote::Shared,
    store::{SqliteStore, SqliteStoreConfig, Store},
};
use pilotlight_core::{Error, error::LoginCause};

use crate::{
    config::{Referred, Settings, bad_value},
    failure::Failure,
    report::Report,
    target::{Known, Target},
};

/// A run of the program.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) report: Report,
    clock: Arc<dyn Clock>,
    sessions: OnceLock<Sessions>,
}

/// For how long the process works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// One request, then the end: nothing runs in the background.
    Brief,
    /// Many requests: the token is kept fresh meanwhile.
    Long,
    /// Many requests of a program that does not ask twice: they may wait longer.
    Bridge,
}

impl App {
    pub(crate) fn new(settings: Settings, report: Report) -> Self {
        Self {
            settings,
            report,
            clock: Arc::new(SystemClock),
            sessions: OnceLock::new(),
        }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Wall {
        self.clock.now().wall
    }

    /// The clock, for measuring.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The store, made where there is none.
    pub(crate) fn store(&self) -> Result<Arc<dyn Store>, Error> {
        Ok(Arc::new(self.shared()?))
    }

    /// The same, as what shares logins with mcp-remote.
    pub(crate) fn shared(&self) -> Result<Shared, Error> {
        Ok(self.sharing(SqliteStore::open(&self.store_config())?))
    }

    fn sharing(&self, store: SqliteStore) -> Shared {
        let links = self.settings.store.value.join("mcp-remote");
        Shared::over(Arc::new(store), links, self.clock.clone())
    }

    /// The store, where there is one: looking makes nothing.
    pub(crate) fn existing_store(&self) -> Result<Option<Arc<dyn Store>>, Error> {
        Ok(SqliteStore::open_existing(&self.store_config())?
            .map(|store| Arc::new(self.sharing(store)) as Arc<dyn Store>))
    }

    fn store_config(&self) -> SqliteStoreConfig {
        let (data, key) = (
            self.settings.store.value.clone(),
            self.settings.key_file.value.clone(),
        );
        SqliteStoreConfig::new(data, key, "pilotlight", self.clock.clone())
    }

    /// The sessions of a store, with nobody to ask.
    pub(crate) fn sessions(&self, store: Arc<dyn Store>, stay: Stay) -> Result<Sessions, Error> {
        self.sessions_with(store, stay, Arc::new(Refuse))
    }

    /// The sessions of a store, with somebody who can approve a login.
    pub(crate) fn sessions_with(
        &self,
        store: Arc<dyn Store>,
        stay: Stay,
        human: Arc<dyn Human>,
    ) -> Result<Sessions, Error> {
        self.sessions_over(self.http()?, store, stay, human)
    }

    /// The same, over an HTTP stack that is set up otherwise.
    pub(crate) fn sessions_over(
        &self,
        http: HttpConfig,
        store: Arc<dyn Store>,
        stay: Stay,
        human: Arc<dyn Human>,
    ) -> Result<Sessions, Error> {
        let mut limits = Limits::default();
        limits.caller_wait = match stay {
            // Nobody else waits on this process: one whole token call may be waited for.
            Stay::Brief => Duration::from_secs(70),
            Stay::Long => limits.caller_wait,
            Stay::Bridge => Duration::from_secs(90),
        };
        let sessions = Sessions::builder(store)
            .human(human)
            .secrets(Arc::new(Referred(self.settings.environment.clone())))
            .http(http)
            .allow_private(self.settings.allow_private.value.clone())
            .clock(self.clock.clone())
            .limits(limits)
            .program("Pilotlight")
            .one_shot(stay == Stay::Brief)
            .open()?;
        // A command opens sessions once; only the first are waited for at the end.
        drop(self.sessions.set(sessions.clone()));
        Ok(sessions)
    }

    /// How the HTTP stack is set up by configuration and environment.
    pub(crate) fn http(&self) -> Result<HttpConfig, Error> {
        let mut http = HttpConfig::default().with_proxy(self.settings.proxy.value.clone());
        if let Some(file) = &self.settings.ca_file {
            let read = std::fs::read(&file.value);
            http = http.with_extra_ca(read.map_err(|error| {
                bad_value(
                    format!("ca_file {}", file.value.display()),
                    error.to_string(),
                )
            })?);
        }
        Ok(http)
    }

    /// Lets what is under way reach the store: a rotation, an acceptance, a revocation.
    pub(crate) async fn finish(&self, limit: Duration) {
        if let Some(sessions) = self.sessions.get() {
            self.report
                .wait("finishing what is under way", sessions.drain(limit))
                .await;
        }
    }

    /// What a TARGET means.
    pub(crate) fn find(&self, typed: &str, bindings: &[Binding]) -> Result<Target, Failure> {
        Ok(self.known(bindings).find(typed)?)
    }

    /// What there is to choose from.
    pub(crate) fn known<'a>(&'a self, bindings: &'a [Binding]) -> Known<'a> {
        let account = self.settings.account.as_ref().map(|setting| &setting.value);
        Known {
            bindings,
            servers: &self.settings.servers,
            account,
        }
    }

    /// The store and the login that a TARGET means, for commands that work on one.
    pub(crate) async fn open_target(
        &self,
        typed: &str,
    ) -> Result<(Arc<dyn Store>, Target), Failure> {
        let store = self.existing_store()?;
        let bindings = match &store {
            Some(store) => store.bindings().await?,
            None => Vec::new(),
        };
        let target = self.find(typed, &bindings)?;
        match store {
            Some(store) if target.binding.is_some() => Ok((store, target)),
            _ => Err(Failure::of(&Error::login(LoginCause::Never), &target)),
        }
    }
}
