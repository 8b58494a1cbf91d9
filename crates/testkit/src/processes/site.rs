//! Where a test takes place: an issuer and an MCP server on loopback, a folder with a store, and the processes on it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pilotlight::{
    Sessions, Status,
    clock::SystemClock,
    core::{credential::Account, event::Event},
    store::{SqliteStore, SqliteStoreConfig},
};
use tempfile::TempDir;

use super::{
    harness::{Harness, Program, Start},
    oracle,
    said::Said,
    testimony::{Exit, Testimony},
};
use crate::{AuthorizationServerConfig, Canaries, Lab, LabConfig};

/// The servers, the folder, and everybody who ever worked there.
#[derive(Debug)]
pub struct Site {
    /// The servers.
    pub lab: Lab,
    program: Program,
    home: PathBuf,
    _folder: Option<TempDir>,
    witnesses: Mutex<Vec<Arc<Testimony>>>,
}

/// What a site's issuer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issuer {
    /// How long access tokens live.
    pub token_life: Duration,
    /// For how long a spent refresh token gives its successor again.
    pub grace: Duration,
    /// Where its tokens come from.
    pub seed: u64,
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            token_life: Duration::from_secs(2),
            grace: Duration::ZERO,
            seed: 1,
        }
    }
}

/// How a store is found when nobody uses it any more.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where the login stands; `None` where there is none.
    pub status: Option<Status>,
    /// The refresh token that is stored, by fingerprint.
    pub refresh_token: Option<String>,
    /// Its history.
    pub events: Vec<Event>,
    /// What `PRAGMA integrity_check` answers.
    pub integrity: String,
}

impl Site {
    /// Starts the servers, with a new folder. It must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// There is no port or no folder.
    pub async fn open(program: &Program, issuer: Issuer) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pilotlight-site-")
            .tempdir()?;
        let home = folder.path().to_owned();
        let mut site = Self::open_in(program, issuer, home).await?;
        site._folder = Some(folder);
        Ok(site)
    }

    /// Starts the servers, with a folder that is somebody else's to remove.
    ///
    /// # Errors
    ///
    /// There is no port.
    pub async fn open_in(program: &Program, issuer: Issuer, home: PathBuf) -> io::Result<Self> {
        let config = AuthorizationServerConfig::default().with(|server| {
            server.access_ttl = issuer.token_life;
            server.reuse_grace = (!issuer.grace.is_zero()).then_some(issuer.grace);
            server.names_reuse = true;
            server.seed = issuer.seed;
        });
        let lab = Lab::start(LabConfig::default().with(|lab| lab.authorization_server = config));
        Ok(Self {
            lab: lab.await?,
            program: program.clone(),
            home,
            _folder: None,
            witnesses: Mutex::default(),
        })
    }

    /// The folder of store and key.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Prepares a process.
    #[must_use]
    pub fn start(&self, command: &str) -> Start {
        Start::new(&self.program, command, &self.home, self.lab.resource_url())
    }

    /// Starts a process, and remembers it for the judge.
    ///
    /// # Errors
    ///
    /// The system starts no process.
    pub fn spawn(&self, start: Start) -> io::Result<Harness> {
        let harness = start.spawn()?;
        let mut witnesses = self
            .witnesses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        witnesses.push(Arc::clone(harness.testimony()));
        Ok(harness)
    }

    /// Runs a process to its end.
    ///
    /// # Errors
    ///
    /// In words: it cannot be started, or does not end.
    pub async fn run(&self, start: Start) -> Result<(Exit, Arc<Testimony>), String> {
        let mut harness = self.spawn(start).map_err(|error| error.to_string())?;
        let exit = harness
            .end(LONGEST)
            .await
            .map_err(|late| late.to_string())?;
        Ok((exit, Arc::clone(harness.testimony())))
    }

    /// Everybody who worked here.
    #[must_use]
    pub fn witnesses(&self) -> Vec<Arc<Testimony>> {
        let witnesses = self
            .witnesses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        witnesses.clone()
    }

    /// Whether both servers take an access token now.
    #[must_use]
    pub fn accepts(&self, access_token: &str) -> bool {
        let now = self.lab.clock().now_ms();
        self.lab
            .with_issuer(|issuer| issuer.introspect(now, access_token).active)
    }

    /// Whether the issuer has ended a login because of reuse.
    #[must_use]
    pub fn has_seen_reuse(&self) -> bool {
        self.lab
            .with_issuer(|issuer| oracle::reuse(issuer.ledger()).next().is_some())
    }

    /// Looks at the store with the library and with SQLite alone.
    ///
    /// # Errors
    ///
    /// In words: it does not open or cannot be read.
    pub async fn look(&self) -> Result<Found, String> {
        let (data, key) = (
            self.home.join("data"),
            self.home.join("state").join("store.key"),
        );
        let integrity = integrity(&data.join("store.db")).map_err(|error| error.to_string())?;
        let config = SqliteStoreConfig::new(data, key, "judge", Arc::new(SystemClock));
        let told = |error: pilotlight::Error| format!("{} ({error})", error.code());
        let store = SqliteStore::open_existing(&config).map_err(told)?;
        let store = Arc::new(store.ok_or("there is no store")?);
        let sessions = Sessions::builder(store)
            .one_shot(true)
            .open()
            .map_err(told)?;
        let mut found = Found {
            status: None,
            refresh_token: None,
            events: Vec::new(),
            integrity,
        };
        for status in sessions.statuses().await.map_err(told)? {
            found.events = sessions
                .history(&status.binding, 10_000)
                .await
                .map_err(told)?;
            if let Some(key) = &status.binding.credential {
                let record = sessions.store().read(key).await.map_err(told)?;
                let credential = record.and_then(|record| record.credential);
                found.refresh_token = credential
                    .and_then(|credential| credential.refresh_token)
                    .map(|token| crate::fingerprint(token.expose()));
            }
            if status.binding.key.account == Account::default() {
                found.status = Some(status);
            }
        }
        Ok(found)
    }

    /// What happened here, from both sides and in order, for whoever has to understand it.
    #[must_use]
    pub fn story(&self) -> Vec<String> {
        let mut story = Vec::new();
        self.lab.with_issuer(|issuer| {
            for entry in &issuer.ledger().entries {
                let (token, outcome) = (entry.refresh_token.as_deref(), &entry.outcome);
                let spent = if entry.spent_before { ", spent" } else { "" };
                let what = format!("issuer: {:?} {token:?}{spent}: {outcome:?}", entry.kind);
                story.push((entry.at_ms, what));
            }
        });
        for witness in self.witnesses() {
            let name = witness.name();
            let first = witness.lines().first().map_or(0, |line| line.at_ms);
            for line in witness.lines() {
                if !matches!(
                    line.said,
                    Said::Called { code: None, .. } | Said::Token { .. }
                ) {
                    story.push((line.at_ms, format!("{name}: {:?}", line.said)));
                }
            }
            let last = witness.lines().last().map_or(first, |line| line.at_ms);
            story.push((last, format!("{name}: {:?}", witness.fate())));
        }
        story.sort_by_key(|(at_ms, _)| *at_ms);
        let began = story.first().map_or(0, |(at_ms, _)| *at_ms);
        let told = story.into_iter();
        told.map(|(at_ms, what)| format!("{:>6} ms  {what}", at_ms - began))
            .collect()
    }

    /// Looks for the issuer's secrets in every file of the folder, and in what the processes wrote.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn leaks(&self) -> io::Result<Vec<String>> {
        let mut canaries = Canaries::new();
        self.lab
            .with_issuer(|issuer| canaries.extend(issuer.issued_secrets()));
        let mut leaks = canaries.scan_folder(&self.home)?;
        for witness in self.witnesses() {
            let mut said = witness.complaints();
            for line in witness.lines() {
                // The one line that is a secret by its purpose.
                if !matches!(line.said, Said::Token { .. }) {
                    said.push_str(&serde_json::to_string(&line)?);
                }
            }
            leaks.extend(canaries.find(said.as_bytes(), &witness.name()));
        }
        Ok(leaks.iter().map(ToString::to_string).collect())
    }
}

fn integrity(file: &Path) -> rusqlite::Result<String> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = rusqlite::Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.query_row("PRAGMA integrity_check", (), |row| row.get(0))
}

/// No process of the harness that is asked for one thing works for longer.
const LONGEST: Duration = Duration::from_secs(90);
