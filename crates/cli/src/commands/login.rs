//! `login`: a person approves once.

mod document;
mod with_token;
mod words;

use pilotlight::{
    LoggedIn, LoginRequest, Sessions,
    core::{
        flow::{Callback, Device, Redirect},
        issuer::Issuer,
        reference::SecretRef,
        registration::{Client, ClientAuthentication, ClientSource, document_url},
        scope::Scopes,
        unattended::Unattended,
    },
};
use pilotlight_core::Error;
use serde_json::{Value, json};

use crate::{
    app::{App, Stay},
    approver,
    args::{Login, Quirk},
    config::{Grant, bad_value, read_secret, secret_file, secret_in, secret_on_stdin},
    failure::Failure,
    report::shown::Shown,
    target::{Target, check_name, default_name},
};

pub(crate) async fn run(app: &App, args: Login) -> Result<(), Failure> {
    if args.by_hand.print_client_metadata {
        return document::run(app, &args).await;
    }
    if let Some(name) = &args.name {
        check_name(name)?;
        if args.targets.len() != 1 {
            return Err(bad_value("--name", "it names one login; give one TARGET").into());
        }
    }
    if args.own.client_secret_stdin && args.targets.len() != 1 {
        // It may have been typed: then it is the TARGET too many, and is not repeated.
        let why = "the secret is one client's, and is read from stdin; give one TARGET";
        return Err(bad_value("--client-secret-stdin", why).into());
    }
    if args.by_hand.with_token {
        return with_token::run(app, &args).await;
    }
    let targets = targets(app, &args).await?;
    if targets.is_empty() {
        app.report.say("Every login is in order.");
        return Ok(());
    }
    let requests: Result<Vec<_>, Failure> = targets
        .into_iter()
        .map(|target| Ok((request(app, &args, &target)?, target)))
        .collect();
    let requests = requests?;
    let sessions = app.sessions_with(app.store()?, Stay::Brief, approver::human(app, &args.way))?;
    let several = requests.len() > 1;
    let mut failed = None;
    for (mut request, target) in requests {
        request.timeout = args.timeout;
        let what = format!(
            "Logging in to {} ... (Ctrl-C cancels, and changes nothing)",
            request.url
        );
        let work = log_in(&sessions, request, args.name.is_some());
        match app.report.wait_plainly(&what, work).await {
            Ok(done) => tell(app, &done),
            Err(error) if several => {
                // The others have their turn all the same.
                let failure = Failure::of_login(&error, &target);
                app.report.fail(&failure);
                failed = failed.or(Some(Failure::silent(failure.exit)));
            }
            Err(error) => return Err(Failure::of_login(&error, &target)),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// What is to be logged in to. Everything typed is understood before anything is done.
async fn targets(app: &App, args: &Login) -> Result<Vec<Target>, Failure> {
    let store = app.existing_store()?;
    let bindings = match &store {
        Some(store) => store.bindings().await?,
        None => Vec::new(),
    };
    if !args.all {
        return args
            .targets
            .iter()
            .map(|typed| app.find(typed, &bindings))
            .collect();
    }
    let all = super::everything(app).await?;
    let waiting = all.iter().filter(|login| login.cause().is_some());
    waiting
        .map(|login| app.find(&format!("{}@{}", login.name, login.key.account), &bindings))
        .collect()
}

/// The login that follows from the configuration alone.
pub(super) fn configured(app: &App, target: &Target) -> Result<LoginRequest, Failure> {
    request(app, &Login::default(), target)
}

fn request(app: &App, args: &Login, target: &Target) -> Result<LoginRequest, Failure> {
    let server = target.server.as_ref();
    let mut request = LoginRequest::new(target.key.url.clone(), target.key.account.clone());
    request.name.clone_from(&args.name);
    if target.binding.is_none() && request.name.is_none() {
        request.name = server.map(|server| server.name.clone());
    }
    request.scopes = match args.scope.as_slice() {
        [] => server.and_then(|server| server.scopes.clone()),
        scopes => Some(Scopes::from_list(scopes)),
    };
    let usual = server.map(|server| server.grant.clone());
    let grant = args.grant.settings()?.or(usual.unwrap_or_default());
    request.unattended = grant.unattended()?;
    if request.unattended.is_some() && args.by_hand.quirk.is_some() {
        let why = "it is for logins that a person makes, and this server has a grant in the configuration";
        return Err(bad_value("--quirk", why).into());
    }
    request.client = match &request.unattended {
        Some(unattended) => Some(service(args, target, &grant, unattended)?),
        None => client(app, args, target, &grant)?,
    };
    request.client_metadata_url = args
        .own
        .client_metadata_url
        .clone()
        .or_else(|| server?.client_metadata_url.clone());
    if let Some(url) = &request.client_metadata_url {
        document_url(url)?;
    }
    request.client_key = grant.key();
    request.bearer = args.by_hand.bearer;
    request.without_resource = args.by_hand.quirk.map(Quirk::without_resource);
    let chosen = args.issuers.issuer.clone();
    request.issuer = chosen.or_else(|| server?.issuer.clone());
    let accepted = args.issuers.accept_issuer.clone();
    request.exception = accepted.or_else(|| server?.accept_issuer.clone());
    let way = &args.way;
    let port = way.callback_port.or_else(|| server?.callback_port);
    // 0 is any port, whatever is configured.
    let port = port.filter(|port| *port != 0);
    let usual = Callback::default();
    request.redirect = Redirect::Loopback(Callback {
        host: way.callback_host.clone().unwrap_or(usual.host),
        port,
        path: usual.path,
    });
    // Who names the place that the redirect arrives at, over SSH too, wants it there.
    let by_flag = way.callback_port.is_some_and(|port| port != 0) || way.callback_host.is_some();
    let configured = server.and_then(|server| server.device);
    request.device = match approver::device(app, way, configured) {
        Device::Prefer if by_flag || port.is_some() => Device::Never,
        Device::Only if by_flag => Device::Never,
        device => device,
    };
    Ok(request)
}

/// The client that a person registered by hand, from flags or from the configuration.
fn client(
    app: &App,
    args: &Login,
    target: &Target,
    grant: &Grant,
) -> Result<Option<Client>, Failure> {
    let server = target.server.as_ref();
    let from_flags = args.own.client_id.is_some();
    let chosen = args.issuers.issuer.as_ref();
    if !from_flags && chosen.is_some() && chosen != server.and_then(|server| server.issuer.as_ref())
    {
        // The client in the configuration was made at the issuer in the configuration.
        return Ok(None);
    }
    let Some(id) = args
        .own
        .client_id
        .clone()
        .or_else(|| server?.client_id.clone())
    else {
        return Ok(None);
    };
    let configured = server.and_then(|server| server.client_secret.as_deref());
    let secret = match (&args.own.client_secret_file, args.own.client_secret_stdin) {
        (Some(file), _) => Some(secret_in(file)?),
        (None, true) => Some(secret_on_stdin()?),
        (None, false) if from_flags => None,
        (None, false) => configured
            .map(|reference| read_secret(reference, &app.settings.environment))
            .transpose()?,
    };
    // What the issuer offers decides in the end.
    let authentication = if secret.is_some() {
        ClientAuthentication::Basic
    } else {
        ClientAuthentication::None
    };
    Ok(Some(Client {
        id,
        secret,
        secret_ref: None,
        key: grant.key(),
        secret_expires_at: None,
        authentication,
        source: ClientSource::PreRegistered,
    }))
}

/// The client of a login without a person, which reads its secret at each renewal.
fn service(
    args: &Login,
    target: &Target,
    grant: &Grant,
    unattended: &Unattended,
) -> Result<Client, Failure> {
    if args.own.client_secret_stdin {
        let why =
            "a login without a person reads the secret at each renewal; give --client-secret-file";
        return Err(bad_value("--client-secret-stdin", why).into());
    }
    let server = target.server.as_ref();
    let named = server.and_then(|server| server.issuer.as_ref());
    let chosen = args.issuers.issuer.as_ref().filter(|_| named.is_some());
    if args.own.client_id.is_none() && chosen.is_some() && chosen != named {
        // What the configuration holds was made at the issuer that it names, and goes to no other one.
        let why = "the configuration names another one, where its client was made: change it there, or give --client-id";
        return Err(bad_value("--issuer", why).into());
    }
    let secret = match &args.own.client_secret_file {
        Some(file) => Some(secret_file(file)?),
        None if args.own.client_id.is_some() => None,
        None => server
            .and_then(|server| server.client_secret.as_deref())
            .map(SecretRef::parse)
            .transpose()?,
    };
    let id = args.own.client_id.clone();
    let id = id.or_else(|| server?.client_id.clone());
    Ok(super::grant::client(grant, unattended, id, secret)?)
}

/// Logs in; a name that nobody asked for gives way to the name of a login that was faster.
pub(super) async fn log_in(
    sessions: &Sessions,
    mut request: LoginRequest,
    named: bool,
) -> Result<LoggedIn, Error> {
    let mut tries = 0;
    loop {
        let bindings = sessions.store().bindings().await?;
        let known = bindings.iter().any(|binding| {
            binding.key.url == request.url && binding.key.account == request.account
        });
        if !named && !known {
            let taken = |name: &str| bindings.iter().any(|binding| binding.name == name);
            let wanted = request.name.take().filter(|name| !taken(name));
            request.name = Some(wanted.unwrap_or_else(|| default_name(&request.url, taken)));
        }
        match Box::pin(sessions.login(request.clone())).await {
            Err(Error::ConfigValue { what, .. }) if !named && tries < 3 && what == "--name" => {
                tries += 1
            }
            done => return done,
        }
    }
}

fn tell(app: &App, done: &LoggedIn) {
    let login = Shown::from(&done.status);
    if app.report.json() {
        let mut object = login.to_json();
        if let Value::Object(fields) = &mut object {
            fields.insert("adopted".into(), json!(done.adopted));
            fields.insert("token_host".into(), json!(done.token_host));
            let former = done.former_issuer.as_ref().map(Issuer::as_str);
            fields.insert("former_issuer".into(), json!(former));
            fields.insert("learned".into(), json!(done.learned));
        }
        app.report.object(json!({ "login": object }));
    } else {
        let mut text = words::told(
            &login,
            &done.token_host,
            done.adopted,
            done.offline_access_offered,
            app.now(),
        );
        text.push_str(&words::moved(done.former_issuer.as_ref()));
        text.push_str(&words::learned(&done.learned));
        app.report.say(text);
    }
}
