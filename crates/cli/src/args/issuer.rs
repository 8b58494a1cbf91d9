//! Which authorization server, where the server's word alone does not decide.

use clap::Args;
use pilotlight::core::issuer::{Issuer, IssuerException};

/// Beside what the server says.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Exceptions")]
pub(crate) struct IssuerFlags {
    /// The authorization server to log in at, where the server names several or a client was made at this one
    #[arg(long, value_name = "ISSUER", value_parser = issuer)]
    pub(crate) issuer: Option<Issuer>,
    /// Accept, for this server, that the metadata of the authorization server PUBLISHED names METADATA; PUBLISHED=PUBLISHED
    /// takes it back
    #[arg(long, value_name = "PUBLISHED=METADATA", value_parser = exception)]
    pub(crate) accept_issuer: Option<IssuerException>,
}

fn issuer(text: &str) -> Result<Issuer, String> {
    Issuer::parse(text).map_err(|error| error.to_string())
}

fn exception(text: &str) -> Result<IssuerException, String> {
    IssuerException::parse(text).map_err(|error| error.to_string())
}
