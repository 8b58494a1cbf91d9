//! How a person is reached, and how they come back: by a redirect, or not at all.

use std::time::Duration;

use url::Url;

use crate::{
    error::Error, issuer::Issuer, registration::ApplicationType, resource::is_loopback,
    scope::Scopes,
};

use super::Callback;

/// Where the redirect of a login arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// At a listener that is opened for the login (RFC 8252 section 7.3).
    Loopback(Callback),
    /// At the program that embeds this library: it is told by the system, or by its own web server, and hands the URL in. An
    /// `https` URI, or one of a private-use scheme that has a dot in it, as a domain name turned around has (RFC 8252
    /// section 7.1). It goes out octet for octet as it stands here. An `https` page is opened by any browser: where there is
    /// more than one person, the program has to know that it is the one that the login was begun in (T-10).
    Hosted(String),
}

impl Default for Redirect {
    fn default() -> Self {
        Self::Loopback(Callback::default())
    }
}

impl Redirect {
    /// The redirect URI to enter in an issuer's console.
    #[must_use]
    pub fn in_a_console(&self) -> String {
        match self {
            Self::Loopback(callback) => callback.in_a_console(),
            Self::Hosted(uri) => uri.clone(),
        }
    }

    /// Refuses a hosted URI that nobody could register, or that others could take redirects away with.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self::Hosted(uri) = self else {
            return Ok(());
        };
        let why = match Url::parse(uri) {
            Err(_) => "it is not a URI",
            Ok(url) if url.fragment().is_some() => "a redirect URI has no fragment",
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                "a user name or password does not belong in it"
            }
            Ok(url) if url.scheme() == "https" || url.scheme().contains('.') => return Ok(()),
            Ok(_) => {
                "it must be https, or of a scheme with a dot in it, such as com.example.app:/login; for one on loopback a \
                 listener is opened here"
            }
        };
        Err(Error::ConfigValue {
            what: "login redirect".into(),
            why: why.into(),
        })
    }

    /// As what kind of program it is registered (AUTH-37).
    pub(crate) fn application_type(&self) -> ApplicationType {
        match self {
            Self::Hosted(uri) if uri.starts_with("https:") => ApplicationType::Web,
            Self::Loopback(_) | Self::Hosted(_) => ApplicationType::Native,
        }
    }
}

/// Whether the person logs in on another device, with a code that they type in there (RFC 8628).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Device {
    /// No: the authorization URL is shown.
    #[default]
    Never,
    /// Where the issuer offers it; else the authorization URL is shown.
    Prefer,
    /// Yes, or not at all.
    Only,
}

/// What to show a person who logs in on another device.
#[derive(Clone, PartialEq, Eq)]
pub struct CodePrompt {
    /// The code to type in: at most 64 characters, all of them printable.
    pub user_code: String,
    /// The page to type it in at.
    pub verification_uri: Url,
    /// The same page with the code in it, for a picture that a camera reads. The code is shown all the same: the person is to
    /// see that it is the same (RFC 8628 section 3.3.1).
    pub verification_uri_complete: Option<Url>,
    /// For how long the code is good.
    pub expires_in: Duration,
    /// The issuer.
    pub issuer: Issuer,
    /// The issuer of the login so far, where the server has changed it.
    pub former_issuer: Option<Issuer>,
    /// The host that will be sent the tokens' secrets.
    pub token_host: String,
    /// The server.
    pub resource: String,
    /// The scopes asked for.
    pub scopes: Scopes,
}

impl std::fmt::Debug for CodePrompt {
    /// Leaves the code out: whoever has it could log in somebody else.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodePrompt")
            .field("issuer", &self.issuer)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

/// Whether a page may be shown to a person: `https`, or `http` where issuer and page are both on this machine (T-02).
pub(crate) fn may_be_visited(page: &Url, local: bool) -> bool {
    let scheme =
        page.scheme() == "https" || (page.scheme() == "http" && local && is_loopback(page));
    scheme && page.username().is_empty() && page.password().is_none()
}
