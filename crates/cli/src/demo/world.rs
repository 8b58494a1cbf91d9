//! The servers, the store in a folder of its own, and the one login.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use pilotlight::{
    LoginRequest, Sessions, Status,
    core::{
        credential::{Account, Binding, CredentialKey},
        event::Event,
        flow::Prompt,
        resource::Resource,
    },
    http::Proxy,
    human::{Browser, Human, Terminal},
    store::{LockName, Locked},
};
use pilotlight_core::{Error, error::LoginCause};
use pilotlight_testkit::{
    AuthorizationServerConfig, Lab, LabConfig, ScriptedHuman, authorization_server::Approval,
};
use tempfile::TempDir;

use crate::{
    app::{App, Stay},
    args::Demo,
    config::{Origin, Setting},
    failure::Failure,
    report::shown::Shown,
};

/// Everything but the processes.
pub(crate) struct World {
    pub(super) lab: Lab,
    home: TempDir,
    sessions: Sessions,
    binding: Binding,
}

impl World {
    /// Starts the servers and logs in.
    pub(crate) async fn begin(app: &App, args: &Demo) -> Result<Self, Failure> {
        let grace = (args.grace > 0).then(|| Duration::from_secs(args.grace));
        let issuer = AuthorizationServerConfig::default().with(|issuer| {
            issuer.access_ttl = TOKEN_LIFE;
            issuer.reuse_grace = grace;
            issuer.names_reuse = true;
            issuer.approval = Approval::Page;
            issuer.seed = u64::from(std::process::id()) << 32 | app.now().0 & 0xffff_ffff;
        });
        let lab =
            Lab::start(LabConfig::default().with(|lab| lab.authorization_server = issuer)).await;
        let lab = lab.map_err(|error| unavailable(&error))?;
        let home = tempfile::Builder::new()
            .prefix("pilotlight-demo-")
            .tempdir()
            .map_err(|error| unavailable(&error))?;

        let sandbox = sandboxed(app, home.path());
        let human: Arc<dyn Human> = if args.browser {
            let browser = Browser::new().with_environment(app.settings.environment.all());
            let browser = match &app.settings.browser_command {
                Some(program) => browser.with_command(program.value.clone()),
                None => browser,
            };
            Arc::new(Terminal::new(app.report.voice()).with_browser(browser))
        } else {
            Arc::new(Scripted)
        };
        let sessions = sandbox.sessions_with(sandbox.store()?, Stay::Brief, human)?;
        let mut request =
            LoginRequest::new(Resource::parse(lab.resource_url())?, Account::default());
        request.name = Some("demo".to_owned());
        let done = Box::pin(sessions.login(request)).await?;
        Ok(Self {
            lab,
            home,
            sessions,
            binding: done.status.binding,
        })
    }

    /// The folder that everything lies in: `PILOTLIGHT_HOME` of the processes.
    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The server's URL.
    pub(super) fn url(&self) -> &str {
        self.lab.resource_url()
    }

    /// Where the login stands.
    pub(crate) async fn status(&self) -> Result<Status, Failure> {
        Ok(self.sessions.status(&self.binding).await?)
    }

    /// Where the login stands, and all that happened to it.
    pub(crate) async fn account(&self) -> Result<(Shown, Vec<Event>), Failure> {
        let login = Shown::from(&self.status().await?);
        Ok((login, self.sessions.history(&self.binding, 10_000).await?))
    }

    /// The process that refreshes the login just now.
    pub(super) async fn refreshing_pid(&self) -> Result<Option<u32>, Error> {
        let store = self.sessions.store();
        let name = LockName::Refresh(store.credential_id(self.credential()?));
        Ok(match store.try_lock(name).await? {
            Locked::HeldBy(holder) => Some(holder.pid),
            Locked::Got(_) => None,
        })
    }

    fn credential(&self) -> Result<&CredentialKey, Error> {
        self.binding
            .credential
            .as_ref()
            .ok_or(Error::login(LoginCause::Never))
    }

    /// Stops the servers; the folder goes with this value.
    pub(crate) async fn end(self) {
        self.lab.stop().await;
    }
}

/// Somebody who clicks Allow, as a script, where a browser would be.
#[derive(Debug)]
struct Scripted;

#[async_trait]
impl Human for Scripted {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        if let Err(error) = ScriptedHuman::allows().visit(prompt.url.as_str()).await {
            tracing::warn!(%error, "nobody could click");
            return Err(Error::login(LoginCause::Abandoned));
        }
        // The redirect comes to the listener, as from a browser.
        std::future::pending().await
    }
}

/// The same settings, but for everything that could lead out of the demo.
fn sandboxed(app: &App, home: &Path) -> App {
    let mut settings = app.settings.clone();
    let own = |value| Setting {
        value,
        from: Origin::Default,
    };
    settings.store = own(home.join("data"));
    settings.key_file = own(home.join("state").join("store.key"));
    settings.account = None;
    settings.ca_file = None;
    settings.servers = Vec::new();
    settings.proxy = Setting {
        value: Proxy::None,
        from: Origin::Default,
    };
    App::new(settings, app.report.clone())
}

fn unavailable(error: &std::io::Error) -> Failure {
    Failure::connection(
        format!("the demo's servers cannot be started: {error}"),
        Vec::new(),
    )
}

const TOKEN_LIFE: Duration = Duration::from_secs(10);
