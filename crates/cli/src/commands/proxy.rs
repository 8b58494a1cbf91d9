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
        resource::clean,
    },
    http::HttpConfig,
    store::Store,
};
use pilotlight_relay::{Bridge, Config, Ended, Ground, approver::Approver, stdio};

use crate::{
    app::{App, Stay},
    approver,
    args::{Proxy, Way},
    config::bad_value,
    failure::{Failure, Told},
    mcp_remote::{
        self, AfterMcpRemote, Grant, Invocation, Joined, Options, Patience, ResourceParameter,
        passes,
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
    let http = http(app, &options)?;
    let sessions = app.sessions_over(http, store, Stay::Bridge, approver.clone())?;
    match mcp_remote::join(&sessions, &shared, &options, &target.key).await {
        Ok(Joined::Shared) if !options.is_mute() => app.report.must_say(mcp_remote::SHARED),
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
        Err(error) if options.is_mute() => {
            tracing::warn!(code = error.code(), "mcp-remote's login is left alone");
        }
        Err(error) => app.report.warn(format!(
            "the login of mcp-remote is left alone: {error} ({})",
            error.code()
        )),
    }
    let session = sessions.open(&target.key.url, &target.key.account).await;
    let session = session.map_err(|error| failed(&error))?;
    let config = config(app, &options, &target)?;
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

fn config(app: &App, options: &Options, target: &Target) -> Result<Config, Failure> {
    let mut config = Config::new(login(app, options, target)?);
    config.headers.clone_from(&options.headers);
    config.cookies = options.cookies;
    config.ignored_tools.clone_from(&options.ignored_tools);
    config.transport = options.transport;
    config.headers_timeout = patience(options.headers_timeout);
    config.body_timeout = patience(options.body_timeout);
    config.ping_interval = options.ping_every;
    config.login_command = format!("pilotlight login {}", target.typed());
    Ok(config)
}

fn http(app: &App, options: &Options) -> Result<HttpConfig, Failure> {
    let mut http = app.http()?.with_ipv4_only(options.ipv4);
    if let Some(limit) = options.connect_timeout {
        http = http.with_connect_timeout(limit);
    }
    if let Some(file) = &options.extra_ca {
        match std::fs::read(file) {
            Ok(pem) => http = http.with_extra_ca(pem),
            // Node.js goes on without it, too.
            Err(error) if !options.is_mute() => app.report.warn(format!(
                "NODE_EXTRA_CA_CERTS {} cannot be read: {error}",
                clean(&file.to_string_lossy())
            )),
            Err(_) => {}
        }
    }
    Ok(http)
}

fn patience(patience: Patience) -> Option<Duration> {
    match patience {
        Patience::Usual => Some(USUAL),
        Patience::Endless => None,
        Patience::For(limit) => Some(limit),
    }
}

/// The login that is asked for where the server wants one: as it is configured, with what mcp-remote's flags say over it.
fn login(app: &App, options: &Options, target: &Target) -> Result<LoginRequest, Failure> {
    let mut request = super::login::configured(app, target)?;
    if let Some(scopes) = options.scopes() {
        request.scopes = Some(scopes);
    }
    if let Some(url) = &options.client_metadata_url {
        request.client_metadata_url = Some(url.clone());
    }
    if let Some(client) = options.own_client() {
        // What was configured of another client is not this one's.
        request.client = Some(client);
        request.client_key = None;
        request.unattended = None;
    }
    request.authorize_params = options
        .authorize_params
        .iter()
        .map(|one| (one.name.clone(), one.value.clone()))
        .collect();
    if options.resource == ResourceParameter::LeftOut {
        request.without_resource = Some(true);
    }
    request.success_url.clone_from(&options.success_page);
    if let Some(limit) = options.auth_timeout {
        request.timeout = limit;
    }
    request.device = match options.grant {
        Grant::Browser if request.device == Device::Only => Device::Only,
        Grant::Browser => Device::Never,
        Grant::Device => {
            request.unattended = None;
            Device::Only
        }
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
