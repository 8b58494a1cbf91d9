//! Logins without a person: as they are configured, and the first one, which any command makes that needs it.

use pilotlight::{
    LoginRequest, Session, Sessions,
    core::{reference::SecretRef, registration::Client, unattended::Unattended},
};
use pilotlight_core::{Error, error::LoginCause};

use super::login::log_in;
use crate::{
    app::{App, Stay},
    config::{Grant, bad_value},
    failure::Failure,
    target::Target,
};

/// The session of the login that a TARGET means. Where nobody is logged in yet and the configuration names a grant that
/// needs nobody, it is made now: a container that begins empty has no other moment for it.
pub(super) async fn session(
    app: &App,
    typed: &str,
    stay: Stay,
) -> Result<(Session, Target), Failure> {
    let store = app.existing_store()?;
    let bindings = match &store {
        Some(store) => store.bindings().await?,
        None => Vec::new(),
    };
    let target = app.find(typed, &bindings)?;
    let failed = |error: &Error| Failure::of(error, &target);
    let never = Error::login(LoginCause::Never);
    let request = configured(&target)?;
    let store = match store {
        Some(store) if target.binding.is_some() || request.is_some() => store,
        None if request.is_some() => app.store()?,
        _ => return Err(failed(&never)),
    };
    let sessions = app.sessions(store, stay)?;
    let (url, account) = (&target.key.url, &target.key.account);
    if let Some(request) = request
        && is_out(&sessions, &target).await?
    {
        let work = Box::pin(log_in(&sessions, request, false));
        let done = app.report.wait("logging in without a person", work).await;
        done.map_err(|error| failed(&error))?;
    }
    let session = sessions.get(url, account).await;
    let session = session.map_err(|error| failed(&error))?;
    Ok((session, target))
}

/// Whether nobody is logged in: not yet, or not since a logout.
async fn is_out(sessions: &Sessions, target: &Target) -> Result<bool, Failure> {
    let shown = super::shown(sessions, &target.key).await?;
    Ok(!shown.is_some_and(|login| login.exists()))
}

/// The login that the configuration describes, where it needs no person.
fn configured(target: &Target) -> Result<Option<LoginRequest>, Failure> {
    let Some(server) = &target.server else {
        return Ok(None);
    };
    let Some(unattended) = server.grant.unattended()? else {
        return Ok(None);
    };
    let mut request = LoginRequest::new(target.key.url.clone(), target.key.account.clone());
    if target.binding.is_none() {
        request.name = Some(server.name.clone());
    }
    request.scopes.clone_from(&server.scopes);
    request.issuer.clone_from(&server.issuer);
    request.exception.clone_from(&server.accept_issuer);
    let secret = server.client_secret.as_deref().map(SecretRef::parse);
    let id = server.client_id.clone();
    request.client = Some(client(&server.grant, &unattended, id, secret.transpose()?)?);
    request.unattended = Some(unattended);
    Ok(Some(request))
}

/// The client that makes a grant: what it has to show stays where it lies.
pub(super) fn client(
    grant: &Grant,
    unattended: &Unattended,
    id: Option<String>,
    secret: Option<SecretRef>,
) -> Result<Client, Error> {
    let id = id.ok_or_else(|| {
        let why = "a login without a person needs it (--client-id)";
        bad_value("client_id", why)
    })?;
    let mut client = Client::brought(id);
    client.secret_ref = secret;
    client.key = grant.key();
    if *unattended == Unattended::ClientCredentials && !client.is_confidential() {
        let why = "grant = \"client_credentials\" needs a client_secret or a client_key";
        return Err(bad_value("the client", why));
    }
    Ok(client)
}
