//! `proxy`: the bridge between a host on stdio and a server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use pilotlight::{
    LoginRequest,
    core::{
        flow::{Callback, Device, Redirect},
        registration::{Client, ClientAuthentication, ClientSource},
        resource::clean,
    },
    store::Store,
};
use pilotlight_relay::{Bridge, Config, Ended, Ground, Transport, approver::Approver, stdio};

use crate::{
    app::{App, Stay},
    approver,
    args::{Proxy, Way},
    config::bad_value,
    failure::{Failure, Told},
    mcp_remote::{
        self, AfterMcpRemote, Grant, Invocation, Options, Patience, ResourceParameter, passes,
    },
    target::Target,
};

pub(crate) async fn run(app: &App, args: Proxy) -> Result<(), Failure> {
    let options = match mcp_remote::read(args.words, &app.settings.environment) {
        Invocation::Run(options) => Arc::<Options>::from(options),
        Invocation::Print(text) => {
            app.report.data(text);
            return Ok(());
        }
        Invocation::Refuse(why) if !args.as_mcp_remote => return Err(refused(&why)),
        Invocation::Refuse(why) => {
            for line in why {
                app.report.must_say(format_args!("error: {line}"));
            }
            return Err(Failure::silent(1));
        }
    };
    if let Some(log) = app.settings.log.as_ref().filter(|_| !options.is_mute()) {
        let pid = std::process::id();
        app.report.must_say(format_args!(
            "[{pid}] pilotlight proxy: log in {}",
            log.value.display()
        ));
    }
    let warnings = options
        .warnings
        .iter()
        .cloned()
        .chain(options.without_effect());
    for warning in warnings.filter(|_| !options.is_mute()) {
        app.report.warn(clean(&warning));
    }
    let shared = app.shared()?;
    let store: Arc<dyn Store> = Arc::new(shared.clone());
    let target = app.find(options.server.as_str(), &store.bindings().await?)?;
    let failed = |error: &pilotlight_core::Error| Failure::of(error, &target);

    let way = Way::default();
    let opens = approver::opens(app, &way);
    let person = AfterMcpRemote::new(approver::bridged(app, &way));
    let approver = Arc::new(Approver::new(person.clone(), opens));
    let sessions = app.sessions_with(store, Stay::Bridge, approver.clone())?;
    match mcp_remote::join(&sessions, &shared, &options, &target.key).await {
        Ok(true) if !options.is_mute() => app.report.must_say(mcp_remote::SHARED),
        Ok(_) => {}
        Err(error) if passes(&error) => {
            if !options.is_mute() {
                app.report.warn(format!(
                    "whether mcp-remote has a login is looked for again: {error} ({})",
                    error.code()
                ));
            }
            person.retry(
                sessions.clone(),
                shared.clone(),
                options.clone(),
                target.key.clone(),
            );
        }
        // A login of our own does as well.
        Err(error) => app.report.warn(format!(
            "the login of mcp-remote is left alone: {error} ({})",
            error.code()
        )),
    }
    let session = sessions.open(&target.key.url, &target.key.account).await;
    let session = session.map_err(|error| failed(&error))?;
    let config = config(&options, &target)?;
    let ground = Ground::new(sessions, session, approver, app.clock().clone());
    let mut stop = crate::Stop::new()?;
    let bridge = Bridge::new(ground, config, stdio::output()).map_err(|error| failed(&error))?;

    let exit = AtomicU8::new(0);
    let stopped = async { exit.store(stop.asked().await, Ordering::Relaxed) };
    match Box::pin(bridge.run(stdio::input(), stopped)).await {
        Ended::Stopped => Err(Failure::silent(exit.load(Ordering::Relaxed))),
        Ended::HostLeft => Ok(()),
    }
}

/// What was wrong with the arguments, as every command of ours tells it.
fn refused(why: &[String]) -> Failure {
    let ours = why.iter().filter(|line| !line.starts_with("Usage: "));
    let reasons: Vec<&str> = ours.map(String::as_str).collect();
    let message = match reasons.is_empty() {
        true => "the URL of the server is missing".to_owned(),
        false => reasons.join("; "),
    };
    Told {
        code: "config.value".into(),
        message,
        hint: Some("pilotlight proxy --help".to_owned()),
        action: "fix_own_side".into(),
        exit: 2,
        ..Told::default()
    }
    .into()
}

/// What the log of a bridge is called: one file for each server and process.
pub(super) fn log_name(args: &Proxy) -> String {
    let urls = args
        .words
        .iter()
        .filter_map(|word| url::Url::parse(word).ok());
    let host = urls
        .filter_map(|url| url.host_str().map(str::to_owned))
        .next();
    let host = host.unwrap_or_else(|| "server".to_owned());
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let host: String = host.chars().take(80).map(plain).collect();
    format!("proxy-{host}-{}", std::process::id())
}

fn config(options: &Options, target: &Target) -> Result<Config, Failure> {
    let mut config = Config::new(login(options, target)?);
    config.headers.clone_from(&options.headers);
    config.cookies = options.cookies;
    config.ignored_tools.clone_from(&options.ignored_tools);
    config.transport = match options.transport {
        mcp_remote::Transport::HttpFirst => Transport::HttpFirst,
        mcp_remote::Transport::SseFirst => Transport::SseFirst,
        mcp_remote::Transport::HttpOnly => Transport::HttpOnly,
        mcp_remote::Transport::SseOnly => Transport::SseOnly,
    };
    config.headers_timeout = patience(options.headers_timeout);
    config.body_timeout = patience(options.body_timeout);
    config.ping_interval = options.ping_every;
    config.ignored_tools.clone_from(&options.ignored_tools);
    config.login_command = format!("pilotlight login {}", target.typed());
    Ok(config)
}

fn patience(patience: Patience) -> Option<Duration> {
    match patience {
        Patience::Usual => Some(USUAL),
        Patience::Endless => None,
        Patience::For(limit) => Some(limit),
    }
}

/// The login that is asked for where the server wants one.
fn login(options: &Options, target: &Target) -> Result<LoginRequest, Failure> {
    let server = target.server.as_ref();
    let mut request = LoginRequest::new(target.key.url.clone(), target.key.account.clone());
    if target.binding.is_none() {
        request.name = server.map(|server| server.name.clone());
    }
    request.scopes = options.scopes().or_else(|| server?.scopes.clone());
    request.issuer = server.and_then(|server| server.issuer.clone());
    request.exception = server.and_then(|server| server.accept_issuer.clone());
    request.client_metadata_url = options
        .client_metadata_url
        .clone()
        .or_else(|| server?.client_metadata_url.clone());
    request.client = options.client.as_ref().map(|client| Client {
        id: client.id.clone(),
        secret: client.secret.clone(),
        secret_ref: None,
        key: None,
        secret_expires_at: None,
        authentication: client.authentication.unwrap_or(match client.secret {
            Some(_) => ClientAuthentication::Basic,
            None => ClientAuthentication::None,
        }),
        source: ClientSource::PreRegistered,
    });
    request.authorize_params = options
        .authorize_params
        .iter()
        .map(|one| (one.name.clone(), one.value.clone()))
        .collect();
    if options.resource == ResourceParameter::LeftOut {
        request.without_resource = Some(true);
    }
    request.device = match options.grant {
        Grant::Browser => Device::Never,
        Grant::Device => Device::Only,
        Grant::ClientCredentials { .. } => {
            let why = "log in with `pilotlight login URL --grant client-credentials` first; the bridge then uses that login";
            return Err(bad_value("--client-credentials", why).into());
        }
    };
    // A client that was registered by hand knows one redirect URI; one that registers itself has ours.
    if options.port_is_strict() {
        request.redirect = Redirect::Loopback(Callback {
            host: options.host.clone(),
            port: Some(options.callback_port()),
            path: options.callback_path.clone(),
        });
    }
    Ok(request)
}

const USUAL: Duration = Duration::from_secs(300);
