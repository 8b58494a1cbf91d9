//! Which of the issuers that a server names: each is independent of the others, and the client chooses (RFC 9728 section
//! 7.6, AUTH-15).

use crate::{
    error::{Error, LoginCause},
    issuer::{Issuer, IssuerException},
    metadata::ServerMetadata,
};

use super::Task;

/// With what this program could become a client of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ways {
    /// A client that a person brought: made at one issuer, and of use only there (AUTH-41).
    pub brought: bool,
    /// A hosted metadata document, of use wherever one is taken (AUTH-42).
    pub document: bool,
}

impl Ways {
    /// Whether one of them leads to this issuer (AUTH-31).
    pub(super) fn lead_to(self, server: &ServerMetadata) -> bool {
        self.brought
            || (self.document && server.client_id_metadata_document)
            || server.registration_endpoint.is_some()
    }
}

impl Task {
    /// The issuers to try, in order: the one that was chosen, else that of the login there is, else all.
    ///
    /// # Errors
    /// `config.value` where the chosen one is not named, or a client that was made at one issuer has several before it;
    /// `login.issuer_changed` where that client's issuer is no longer named. Nothing has been sent to any of them.
    pub(super) fn candidates(&self, named: Vec<Issuer>) -> Result<Vec<Issuer>, Error> {
        if let Some(chosen) = &self.issuer {
            if named.contains(chosen) {
                return Ok(vec![chosen.clone()]);
            }
            return Err(misfit(format!(
                "the server does not name {chosen}; it names {}",
                words(&named)
            )));
        }
        let known = self.known_issuer.as_ref();
        if let Some(issuer) = known.filter(|known| named.contains(known)) {
            return Ok(vec![issuer.clone()]);
        }
        if self.ways.brought {
            if let (Some(known), Some(now)) = (known, named.first()) {
                return Err(Error::login(LoginCause::IssuerChanged {
                    former: known.as_str().to_owned(),
                    issuer: now.as_str().to_owned(),
                }));
            }
            if named.len() > 1 {
                return Err(misfit(format!(
                    "the server names several authorization servers, and the client was made at one of them: choose from {}",
                    words(&named)
                )));
            }
        }
        Ok(named)
    }

    /// What the metadata of an issuer must name: itself, or exactly what a person has accepted instead (AUTH-23, T-17).
    pub(super) fn expected_of(&self, published: &Issuer) -> Issuer {
        let accepted = self.exception.as_ref();
        let accepted = accepted.filter(|exception| exception.published == *published);
        accepted.map_or_else(
            || published.clone(),
            |IssuerException { metadata, .. }| metadata.clone(),
        )
    }
}

fn misfit(why: String) -> Error {
    let what = WHICH_ISSUER.to_owned();
    Error::ConfigValue { what, why }
}

/// What a `config.value` is about where a person has to choose, or to choose otherwise, among the issuers of a server.
pub const WHICH_ISSUER: &str = "the authorization server";

fn words(issuers: &[Issuer]) -> String {
    let words: Vec<String> = issuers.iter().map(ToString::to_string).collect();
    words.join(" ")
}
