//! The login that mcp-remote has for the same invocation: brought in where there is none here, and shared from then on.

use pilotlight::{
    Sessions,
    core::{credential::BindingKey, registration::Client},
    mcp_remote::{Brought, Files, Import, Shared},
    store::Store as _,
};
use pilotlight_core::Error;

use super::{Grant, Options, ResourceParameter};

/// What is said of a login that is shared.
pub(crate) const SHARED: &str = "shared with mcp-remote";

/// What a login has to do with mcp-remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// Both use it.
    Shared,
    /// It was brought in just now, from an older layout that no running program uses.
    Copied,
    /// mcp-remote has none, or there is one here that is not shared.
    Neither,
}

/// Brings in what mcp-remote has, if anything. `sessions` were opened over
/// `shared`. Nothing is asked of a person, and nothing is sent where there is a login already, or none there.
///
/// # Errors
/// Those of [`Sessions::bring`]: the login is not used then, and a new one takes its place.
pub(crate) async fn join(
    sessions: &Sessions,
    shared: &Shared,
    options: &Options,
    key: &BindingKey,
) -> Result<Joined, Error> {
    // A client that logs in as itself shares nothing that could be spent; an ID token is not what we keep.
    let by_a_person = matches!(options.grant, Grant::Browser | Grant::Device) && !options.id_token;
    let files = options
        .folder
        .as_deref()
        .and_then(|base| Files::new(base, options.hash.as_str()));
    if let Some(files) = files.filter(|_| by_a_person) {
        let mut import = Import::new(key.url.clone(), files);
        import.account = key.account.clone();
        let document = options.client_metadata_url.as_ref();
        // It keeps none of its own where it was given one.
        import.client = options
            .own_client()
            .or_else(|| document.map(Client::metadata_document));
        import.resource_parameter = match &options.resource {
            ResourceParameter::Published => None,
            ResourceParameter::Given(resource) => Some(Some(resource.clone())),
            ResourceParameter::LeftOut => Some(None),
        };
        match Box::pin(sessions.bring(shared, import)).await? {
            Brought::Shared(_) => return Ok(Joined::Shared),
            Brought::Copied(_) => return Ok(Joined::Copied),
            Brought::Nothing | Brought::Known => {}
        }
    }
    let binding = shared.binding(key).await?;
    Ok(match binding.and_then(|binding| binding.credential) {
        Some(credential) if shared.is_shared(&credential).await => Joined::Shared,
        _ => Joined::Neither,
    })
}
