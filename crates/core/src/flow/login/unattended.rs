//! A login that needs no person: the first grant of its kind, stored like any other login and renewed from then on.

use crate::{
    credential::{Credential, Generation, Incarnation, Pins, TokenType, Version, presented},
    error::{Error, LoginCause},
    flow::{
        Act, Flow, Reading, Turn,
        discover::Discovered,
        unattended::obtain::{Obtain, Obtained, Wanted},
    },
    metadata::ServerMetadata,
    record::Record,
    registration::{Client, ClientAuthentication},
    scope::{self, Scopes},
    time::Now,
    unattended::Unattended,
};

use super::{Login, State, client::unnamed, request::refused_for};

/// What such a login is to be.
#[derive(Debug)]
pub(super) struct Wish {
    discovered: Discovered,
    client: Client,
    grant: Unattended,
    scopes: Scopes,
}

impl Login {
    /// The grant without a person that is configured. What the issuer's metadata say makes none of a person's login, unless all
    /// is left to the server.
    ///
    /// # Errors
    /// `config.value` where the issuer lets nobody log in, and the client could get a token without anybody.
    pub(super) fn unattended(&self, server: &ServerMetadata) -> Result<Option<Unattended>, Error> {
        if self.task.unattended.is_some() {
            return Ok(self.task.unattended.clone());
        }
        let only_so =
            !server.offers_grant("authorization_code") && server.offers_grant("client_credentials");
        let client = self.task.client.as_ref();
        if !only_so || !client.is_some_and(Client::is_confidential) {
            return Ok(None);
        }
        if matches!(self.wants_device(server), Ok(true)) {
            // There people have another way in.
            return Ok(None);
        }
        if self.task.trusts_server {
            return Ok(Some(Unattended::ClientCredentials));
        }
        Err(Error::ConfigValue {
            what: "the grant".into(),
            why: format!(
                "{} lets nobody log in by a browser; for a login as the client itself, say so: client_credentials",
                server.issuer
            ),
        })
    }

    /// Whether what this grant shows may go to this issuer: what an identity was exchanged for as little as a secret, and an
    /// assertion that is made out to another's name (AUTH-39, AUTH-41, T-20).
    fn may_show(
        &self,
        grant: &Unattended,
        server: &ServerMetadata,
        held: Option<&Credential>,
    ) -> bool {
        let held = held.filter(|held| held.key.issuer == server.issuer);
        let of_use_elsewhere = match grant {
            Unattended::ClientCredentials => false,
            Unattended::Workload { .. } => server.called.is_some(),
            Unattended::Enterprise(_) => true,
        };
        let held = held.map(|held| held.client.id.as_str());
        let known = self.is_for_us(server, held);
        known || (!of_use_elsewhere && self.may_show_client(server, held))
    }

    /// Whether what the client shows may go to this issuer before a person has seen where it leads: a secret only where whoever
    /// has brought the client has named the issuer, or where this client has a login already, `held`. What a key signs is for
    /// one reader; but under an accepted exception that is whoever the name belongs to (T-17).
    pub(super) fn may_show_client(&self, server: &ServerMetadata, held: Option<&str>) -> bool {
        let client = self.task.client.as_ref();
        let harmless = match self.shows_key(server) {
            true => server.called.is_none(),
            false => !client.is_some_and(Client::shows_secret),
        };
        harmless || self.is_for_us(server, held)
    }

    fn is_for_us(&self, server: &ServerMetadata, held: Option<&str>) -> bool {
        let client = self.task.client.as_ref().map(|client| client.id.as_str());
        let named = self.task.issuer.as_ref() == Some(&server.issuer);
        named || self.task.trusts_server || (held.is_some() && held == client)
    }

    /// Whether the client shows its key, and no secret that it may have beside it.
    fn shows_key(&self, server: &ServerMetadata) -> bool {
        let client = self.task.client.clone();
        let client = client.and_then(|client| client.authenticating_at(server).ok());
        client.is_some_and(|client| client.authentication == ClientAuthentication::PrivateKeyJwt)
    }

    /// A login that takes the place of another at the same issuer: nobody is there to look at a new endpoint, so what that
    /// one is pinned to counts (T-15).
    pub(super) fn look_at_pins(
        self,
        grant: Unattended,
        discovered: Discovered,
        now: Now,
    ) -> Turn<Self> {
        let held = self.task.binding.credential.as_ref();
        let held = held.filter(|key| key.issuer == discovered.server.issuer);
        match held.cloned() {
            Some(key) => self.next(
                State::ExpectPins(Box::new(discovered), grant),
                Act::Reread(key),
            ),
            None => self.begin_unattended(grant, discovered, None, now),
        }
    }

    pub(super) fn pinned(
        self,
        grant: Unattended,
        discovered: Discovered,
        read: Result<Box<Reading>, Error>,
        now: Now,
    ) -> Turn<Self> {
        match read {
            Ok(reading) => self.begin_unattended(grant, discovered, reading.record, now),
            // A login never loses: one that nobody can read is replaced.
            Err(Error::StoreCorrupt { .. }) => self.begin_unattended(grant, discovered, None, now),
            Err(error) => self.fail(error),
        }
    }

    fn begin_unattended(
        self,
        grant: Unattended,
        discovered: Discovered,
        held: Option<Record>,
        now: Now,
    ) -> Turn<Self> {
        let pins = held.as_ref().and_then(|held| held.credential.as_ref());
        if !self.may_show(&grant, &discovered.server, pins) {
            return self.fail(unnamed(&discovered.server));
        }
        let moved = pins.is_some_and(|held| {
            held.pins.token_endpoint.origin() != discovered.server.token_endpoint.origin()
        });
        if moved {
            return self.fail(Error::login(LoginCause::EndpointMoved));
        }
        let refused = held.and_then(|held| held.backoff?.refused);
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
            issuer: server.name().clone(),
            token_endpoint: server.token_endpoint.clone(),
            resource: wish.discovered.resource_parameter.clone(),
            scopes: wish.scopes.clone(),
            proof_key: self
                .task
                .proof_key
                .clone()
                .filter(|_| server.binds_tokens()),
            refused: self.task.refused.into_iter().chain(refused).collect(),
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
            Turn::Done(Err(failed)) => {
                if let Some(refused) = failed.refused {
                    // One grant in a login: nothing was left there before.
                    let _ = self.shown_in_vain.set(refused);
                }
                self.fail(match failed.error {
                    Error::DeniedByIssuer { error } => refused_for(&wish.scopes, error),
                    other => other,
                })
            }
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
        let binds = wish.discovered.server.binds_tokens();
        let proof_key = self.task.proof_key.clone().filter(|_| binds);
        let said = answer.token_type.unwrap_or(TokenType::Bearer);
        let token_type = presented(said, proof_key.as_ref());
        if wish.discovered.dpop_required && token_type != TokenType::Dpop {
            // The server has said how much it wants them bound (RFC 9449 section 5).
            return self.fail(Error::NoDpop);
        }
        let server = wish.discovered.server;
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
                called: server.called,
            },
            client: wish.client,
            access_token: answer.access_token,
            token_type,
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
