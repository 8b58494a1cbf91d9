//! How a client authenticates where it is to (AUTH-44): what it has, and what the server offers.

use crate::{error::Error, metadata::ServerMetadata, resource::clean};

use super::{Client, ClientAuthentication};

impl Client {
    /// Whether it has what a method of authentication needs, and would not leave unused what it has.
    fn suits(&self, method: ClientAuthentication) -> bool {
        match method {
            ClientAuthentication::None => !self.is_confidential(),
            ClientAuthentication::Basic | ClientAuthentication::Post => self.has_secret(),
            ClientAuthentication::PrivateKeyJwt => self.key.is_some(),
        }
    }

    /// The same client, authenticating in a way that suits it and that the server offers (AUTH-44, EXT-10): by its key before
    /// its secret, since nothing that could be used again is sent then. A server that lists no methods is believed to take a
    /// key; one without metadata is believed anything.
    ///
    /// # Errors
    /// `config.value` where no method is left that both have.
    pub fn authenticating_at(self, server: &ServerMetadata) -> Result<Self, Error> {
        use ClientAuthentication::{Basic, None, Post, PrivateKeyJwt};
        let offered = |method: ClientAuthentication| {
            let silent = server.token_auth_methods.is_none();
            server.offers(method) || method == None || (method == PrivateKeyJwt && silent)
        };
        let fits = |method: &ClientAuthentication| self.suits(*method) && offered(*method);
        let method = [self.authentication, PrivateKeyJwt, Basic, Post, None]
            .into_iter()
            .find(fits);
        match method {
            Some(authentication) => Ok(Self {
                authentication,
                ..self
            }),
            Option::None => Err(Error::ConfigValue {
                what: "the client".into(),
                why: format!(
                    "it has {}, and the authorization server takes {}",
                    if self.key.is_some() {
                        "a private key"
                    } else {
                        "a secret"
                    },
                    clean(
                        &server
                            .token_auth_methods
                            .clone()
                            .unwrap_or_default()
                            .join(", ")
                    ),
                ),
            }),
        }
    }
}

/// Chooses how a client that exists authenticates (AUTH-44): with a secret by Basic if that is offered, else in the
/// body, else not at all if only that is offered; without a secret not at all, whatever is offered.
#[must_use]
pub fn choose_authentication(metadata: &ServerMetadata, has_secret: bool) -> ClientAuthentication {
    use ClientAuthentication::{Basic, None, Post};
    let offered = |method: &ClientAuthentication| metadata.offers(*method);
    if has_secret {
        [Basic, Post, None]
            .into_iter()
            .find(offered)
            .unwrap_or(Basic)
    } else {
        None
    }
}

/// Chooses which method to ask for at registration (AUTH-44): none if that is offered, since a secret on many machines
/// is none; else Basic, else in the body.
#[must_use]
pub fn authentication_to_ask(metadata: &ServerMetadata) -> ClientAuthentication {
    use ClientAuthentication::{Basic, None, Post};
    [None, Basic, Post]
        .into_iter()
        .find(|method| metadata.offers(*method))
        .unwrap_or(None)
}
