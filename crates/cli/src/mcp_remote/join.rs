//! The login that mcp-remote has for the same invocation: brought in where there is none here, and shared from then on.

use pilotlight::{
    Sessions,
    core::{
        credential::BindingKey,
        registration::{Client, ClientAuthentication},
    },
    mcp_remote::{Brought, Files, Import, Shared},
    store::Store as _,
};
use pilotlight_core::Error;

use super::{Grant, Options, ResourceParameter};

/// What is said of a login that is shared.
pub(crate) const SHARED: &str = "shared with mcp-remote";

/// Brings in what mcp-remote has, if anything; answers whether the login is shared with it now. `sessions` were opened over
/// `shared`. Nothing is asked of a person, and nothing is sent where there is a login already, or none there.
///
/// # Errors
/// Those of [`Sessions::bring`]: the login is not used then, and a new one takes its place.
pub(crate) async fn join(
    sessions: &Sessions,
    shared: &Shared,
    options: &Options,
    key: &BindingKey,
) -> Result<bool, Error> {
    // A client that logs in as itself shares nothing that could be spent; an ID token is not what we keep.
    let by_a_person = matches!(options.grant, Grant::Browser | Grant::Device) && !options.id_token;
    let files = options
        .folder
        .as_deref()
        .and_then(|base| Files::new(base, options.hash.as_str()));
    if let Some(files) = files.filter(|_| by_a_person) {
        let mut import = Import::new(key.url.clone(), files);
        import.account = key.account.clone();
        import.client = client(options);
        import.resource_parameter = match &options.resource {
            ResourceParameter::Published => None,
            ResourceParameter::Given(resource) => Some(Some(resource.clone())),
            ResourceParameter::LeftOut => Some(None),
        };
        if let Brought::Shared(_) = Box::pin(sessions.bring(shared, import)).await? {
            return Ok(true);
        }
    }
    let binding = shared.binding(key).await?;
    Ok(match binding.and_then(|binding| binding.credential) {
        Some(credential) => shared.is_shared(&credential).await,
        None => false,
    })
}

/// The client that mcp-remote was given: it keeps none of its own then.
fn client(options: &Options) -> Option<Client> {
    if let Some(given) = &options.client {
        return Some(Client {
            secret: given.secret.clone(),
            authentication: given.authentication.unwrap_or(ClientAuthentication::None),
            ..Client::brought(given.id.clone())
        });
    }
    options
        .client_metadata_url
        .as_ref()
        .map(Client::metadata_document)
}
