//! A login that needs no person: the first grant of its kind, stored like any other login and renewed from then on.

use crate::{
    credential::{Credential, Generation, Incarnation, Pins, TokenType, Version, presented},
    error::Error,
    flow::{
        Act, Flow, Turn,
        discover::Discovered,
        unattended::obtain::{Obtain, Obtained, Wanted},
    },
    metadata::ServerMetadata,
    registration::Client,
    scope::{self, Scopes},
    time::Now,
    unattended::Unattended,
};

use super::{Login, State};

/// What such a login is to be.
#[derive(Debug)]
pub(super) struct Wish {
    discovered: Discovered,
    client: Client,
    grant: Unattended,
    scopes: Scopes,
}

impl Login {
    /// The grant without a person that is configured; or, for a client that can show who it is and of whom nothing more is
    /// known, the one that it was made for where the issuer lets nobody log in by a browser.
    pub(super) fn unattended(&self, server: &ServerMetadata) -> Option<Unattended> {
        if let Some(grant) = &self.task.unattended {
            return Some(grant.clone());
        }
        let client = self.task.client.as_ref()?;
        let only_so =
            !server.offers_grant("authorization_code") && server.offers_grant("client_credentials");
        (client.is_confidential() && only_so).then_some(Unattended::ClientCredentials)
    }

    pub(super) fn begin_unattended(
        self,
        grant: Unattended,
        discovered: Discovered,
        now: Now,
    ) -> Turn<Self> {
        let wish = self.admit(&discovered).and_then(|()| {
            let client = self.client_for(&grant, &discovered.server)?;
            Ok(Box::new(Wish {
                client,
                scopes: self.scopes_without_refresh(&discovered),
                discovered,
                grant,
            }))
        });
        let wish = match wish {
            Ok(wish) => wish,
            Err(error) => return self.fail(error),
        };
        let server = &wish.discovered.server;
        let wanted = Wanted {
            grant: wish.grant.clone(),
            client: wish.client.clone(),
            issuer: server.issuer.clone(),
            token_endpoint: server.token_endpoint.clone(),
            resource: wish.discovered.resource_parameter.clone(),
            scopes: wish.scopes.clone(),
            proof_key: self
                .task
                .proof_key
                .clone()
                .filter(|_| server.binds_tokens()),
            refused: self.task.refused,
        };
        let turn = Obtain::new(wanted).start(now);
        self.obtaining(turn, wish)
    }

    pub(super) fn obtaining(self, turn: Turn<Obtain>, wish: Box<Wish>) -> Turn<Self> {
        match turn {
            Turn::Next(obtain, step) => {
                let state = State::Obtaining(Box::new(obtain), wish);
                Turn::Next(Self { state, ..self }, step)
            }
            Turn::Done(Ok(obtained)) => self.obtained(*wish, obtained),
            Turn::Done(Err(failed)) => self.fail(failed.error),
        }
    }

    fn obtained(self, wish: Wish, obtained: Obtained) -> Turn<Self> {
        let Obtained { answer, sent_at } = obtained;
        let [.., incarnation] = &self.task.entropy;
        let mut name = [0u8; 16];
        for (to, from) in name.iter_mut().zip(incarnation) {
            *to = *from;
        }
        let key = self.credential_key(&wish.discovered);
        let server = wish.discovered.server;
        let proof_key = self
            .task
            .proof_key
            .clone()
            .filter(|_| server.binds_tokens());
        let credential = Credential {
            key: key.clone(),
            version: Version {
                incarnation: Incarnation(name),
                generation: Generation(0),
            },
            pins: Pins {
                resource_parameter: wish.discovered.resource_parameter,
                token_endpoint: server.token_endpoint,
                revocation_endpoint: server.revocation_endpoint,
            },
            client: wish.client,
            access_token: answer.access_token,
            token_type: presented(
                answer.token_type.unwrap_or(TokenType::Bearer),
                proof_key.as_ref(),
            ),
            proof_key,
            unattended: Some(wish.grant),
            refresh_token: answer.refresh_token,
            received_at: Some(sent_at),
            lifetime: answer.lifetime,
            scopes_granted: answer.scopes.unwrap_or_else(|| wish.scopes.clone()),
            scopes_requested: wish.scopes,
            logged_in_at: sent_at.wall,
        };
        self.next(
            State::ExpectStored(Box::new(credential), false),
            Act::Reread(key),
        )
    }

    /// The client, authenticating in a way that the issuer takes (EXT-10, AUTH-44).
    fn client_for(&self, grant: &Unattended, server: &ServerMetadata) -> Result<Client, Error> {
        let unfit = |why: &str| Error::ConfigValue {
            what: "the client".into(),
            why: why.into(),
        };
        let client = self.task.client.clone().ok_or_else(|| {
            unfit("a login without a person needs the ID of a client that the authorization server knows")
        })?;
        if *grant == Unattended::ClientCredentials && !client.is_confidential() {
            return Err(unfit(
                "it needs a secret or a private key: it is all that is shown",
            ));
        }
        client.authenticating_at(server)
    }

    /// The scopes to ask for; never one that only asks for a refresh token, unless a person has named it.
    fn scopes_without_refresh(&self, discovered: &Discovered) -> Scopes {
        scope::select(
            discovered.challenged.as_ref(),
            discovered.resource_scopes.as_ref(),
            self.task.scopes.as_ref(),
            Some(&Scopes::default()),
        )
    }
}
