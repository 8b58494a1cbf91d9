//! What a person decides by hand, where nothing that is learned or discovered may.

use clap::{Args, ValueEnum};

use super::{HOW, OWN};

/// Beside the usual login.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Exceptions")]
pub(crate) struct ByHand {
    /// Store a key that the server takes as it is: from stdin, or typed at a prompt that does not show it
    #[arg(
        long,
        help_heading = HOW,
        conflicts_with_all = [
            "all", "client_id", "client_metadata_url", "scope", "callback_port", "callback_host", "browser",
            "browser_command", "paste", "device", "grant", "client_key", "print_client_metadata", "quirk", "bearer",
            "issuer", "accept_issuer", "workload_token", "idp_issuer", "idp_token_endpoint", "idp_client_id",
            "idp_client_secret", "subject_token",
        ]
    )]
    pub(crate) with_token: bool,
    /// Print the client ID metadata document to host at --client-metadata-url, and log in nowhere
    #[arg(long, help_heading = OWN, conflicts_with_all = ["all", "client_id", "quirk"])]
    pub(crate) print_client_metadata: bool,
    /// Take tokens that need no proof for each request, although the authorization server would bind them to a key (DPoP)
    #[arg(long, conflicts_with = "all")]
    pub(crate) bearer: bool,
    /// Another way than the standards have it, for this login. no-resource: name no resource, so that tokens are not limited
    /// to this server; none: name it again
    #[arg(long, value_enum, value_name = "QUIRK", hide_possible_values = true, conflicts_with_all = ["all", "grant"])]
    pub(crate) quirk: Option<Quirk>,
}

/// What only a person may want otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Quirk {
    /// Leave the resource out: tokens are then not limited to this server
    NoResource,
    /// Name the resource again
    None,
}

impl Quirk {
    /// Whether the resource is left out.
    pub(crate) fn without_resource(self) -> bool {
        self == Self::NoResource
    }
}
