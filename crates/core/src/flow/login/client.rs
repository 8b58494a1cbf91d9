//! As which client to log in: one that a person brought, our metadata document, or a registration (AUTH-31).

use url::Url;

use crate::{
    error::{Error, LoginCause},
    exchange::{Exchange, Exchanged, Leg},
    flow::{Act, Callback, Lock, Redirect, Registration, Turn, discover::Discovered},
    metadata::ServerMetadata,
    registration::{
        ApplicationType, Client, ClientMetadata, Way, authentication_to_ask, choose,
        choose_authentication, parse_refusal, parse_registration,
    },
    scope::{self, Scopes},
    time::Now,
};

use super::{Known, Login, State, device};

impl Login {
    /// Opens the callback on the port that a stored registration fixes, else on any; where no redirect comes, or it comes to
    /// the program that embeds this, there is nothing to open.
    pub(super) fn open_callback(
        self,
        discovered: Discovered,
        registrations: Vec<Registration>,
        now: Now,
    ) -> Turn<Self> {
        let server = &discovered.server;
        if let Err(error) = self.admit(&discovered) {
            return self.fail(error);
        }
        let scopes = self.scopes(&discovered);
        let way = choose(
            self.task.client.as_ref(),
            self.task.client_metadata_url.as_ref(),
            server,
        );
        if matches!(way, Way::Nothing) {
            let redirect_uris = vec![self.task.redirect.in_a_console()];
            return self.fail(Error::NoRegistrationWay {
                issuer: server.issuer.as_str().to_owned(),
                redirect_uris,
            });
        }
        let application_type = match self.by_device {
            true => ApplicationType::Native,
            false => self.task.redirect.application_type(),
        };
        let (mut callback, elsewhere) = match &self.task.redirect {
            _ if self.by_device => (Callback::default(), Some(device::REDIRECT_URI.to_owned())),
            Redirect::Loopback(callback) => (callback.clone(), None),
            Redirect::Hosted(uri) => (Callback::default(), Some(uri.clone())),
        };
        if matches!(way, Way::Dynamic(_)) && callback.port.is_none() {
            callback.port = registrations
                .iter()
                .find_map(|known| registered_port(known, &callback));
        }
        let known = Known {
            discovered,
            registrations,
            scopes,
            application_type,
            dead: None,
        };
        if let Some(uri) = elsewhere {
            return self.choose_client(Box::new(known), uri, now);
        }
        self.next(
            State::ExpectCallback(Box::new(known)),
            Act::OpenCallback(callback),
        )
    }

    /// Whether the client at hand may be shown to this issuer, and its tokens to the server.
    pub(super) fn admit(&self, discovered: &Discovered) -> Result<(), Error> {
        let server = &discovered.server;
        // A client that a person brought was made at the issuer of this login: its secret goes nowhere else (AUTH-41, T-20).
        let known = self.task.binding.credential.as_ref().map(|key| &key.issuer);
        let chosen = self.task.issuer.as_ref() == Some(&server.issuer);
        if let Some(known) = known.filter(|known| **known != server.issuer)
            && self.task.client.is_some()
            && !chosen
        {
            return Err(Error::login(LoginCause::IssuerChanged {
                former: known.as_str().to_owned(),
                issuer: server.issuer.as_str().to_owned(),
            }));
        }
        // A person is shown where a login leads; nobody sees a guess for what it is (T-16).
        let has_secret = self.task.client.as_ref().is_some_and(Client::shows_secret);
        if discovered.guessed && has_secret && !chosen && !self.task.trusts_server {
            return Err(unnamed(server));
        }
        let binds = server.binds_tokens() && self.task.proof_key.is_some();
        if discovered.dpop_required && !binds {
            return Err(Error::NoDpop);
        }
        Ok(())
    }

    /// The scopes to ask for.
    pub(super) fn scopes(&self, discovered: &Discovered) -> Scopes {
        let listed = discovered.server.scopes_supported.clone();
        // One that refuses `offline_access` counts as one that does not list it.
        let listed = listed.map(|all| match self.lessons.no_offline_access {
            true => all
                .iter()
                .filter(|one| *one != scope::OFFLINE_ACCESS)
                .collect(),
            false => all,
        });
        scope::select(
            discovered.challenged.as_ref(),
            discovered.resource_scopes.as_ref(),
            self.task.scopes.as_ref(),
            listed.as_ref(),
        )
    }

    /// Whether `offline_access` is asked for because the issuer lists it, and for no other reason: nobody has named it who is
    /// authoritative.
    pub(super) fn adds_offline_access(&self, discovered: &Discovered, scopes: &Scopes) -> bool {
        let named = |by: Option<&Scopes>| by.is_some_and(|by| by.contains(scope::OFFLINE_ACCESS));
        scopes.contains(scope::OFFLINE_ACCESS)
            && !named(self.task.scopes.as_ref())
            && !named(discovered.challenged.as_ref())
            && scopes.len() > 1
    }

    pub(super) fn choose_client(
        self,
        known: Box<Known>,
        redirect_uri: String,
        now: Now,
    ) -> Turn<Self> {
        let server = &known.discovered.server;
        match choose(
            self.task.client.as_ref(),
            self.task.client_metadata_url.as_ref(),
            server,
        ) {
            Way::PreRegistered(client) => match authenticated(client, server) {
                Ok(client) => self.show(*known, redirect_uri, client),
                Err(error) => self.fail(error),
            },
            Way::MetadataDocument(url) => {
                let client = Client {
                    key: self.task.client_key.clone(),
                    ..Client::metadata_document(&url)
                };
                // The document says how the client authenticates: with its key, or not at all (AUTH-34).
                match client.authenticating_at(server) {
                    Ok(client) => self.show(*known, redirect_uri, client),
                    Err(error) => self.fail(error),
                }
            }
            Way::Dynamic(_) => match self.usable(&known.registrations, &redirect_uri, now) {
                Some(client) => self.prove(known, redirect_uri, client),
                None => self.register_lock(known, redirect_uri),
            },
            Way::Nothing => self.fail(Error::Bug {
                what: "login: no way to register",
            }),
        }
    }

    pub(super) fn register_lock(self, known: Box<Known>, redirect_uri: String) -> Turn<Self> {
        let issuer = known.discovered.server.issuer.clone();
        self.next(
            State::ExpectRegisterLock(known, redirect_uri),
            Act::Lock(Lock::Register(issuer)),
        )
    }

    /// A stored registration that fits the redirect URI, whose secret has not expired, and that the issuer has not
    /// forgotten as far as is known.
    pub(super) fn usable(
        &self,
        registrations: &[Registration],
        redirect_uri: &str,
        now: Now,
    ) -> Option<Client> {
        let live = |r: &&Registration| {
            r.client.secret_expires_at.is_none_or(|end| end > now.wall)
                && self.forgotten.as_ref() != Some(&r.client.id)
        };
        let fits = |r: &&Registration| r.redirect_uris.iter().any(|uri| uri == redirect_uri);
        registrations
            .iter()
            .filter(live)
            .find(fits)
            .map(|r| r.client.clone())
    }

    pub(super) fn client_metadata(&self, known: &Known, redirect_uri: &str) -> ClientMetadata {
        // What is registered is all that the client may ever ask for, and a step-up asks as the same client: so beside what
        // is wanted now, what the server and its issuer list is named. Asked for is the least, all the same (AUTH-55).
        let discovered = &known.discovered;
        let listed = [
            &discovered.resource_scopes,
            &discovered.server.scopes_supported,
        ];
        let scope = (!known.scopes.is_empty()).then(|| {
            let listed = listed.into_iter().flatten();
            listed.fold(known.scopes.clone(), |all, more| all.union(more))
        });
        ClientMetadata {
            application_type: known.application_type,
            device_login: self.by_device,
            ..ClientMetadata::new(
                self.task.client_name.clone(),
                vec![redirect_uri.to_owned()],
                scope,
            )
        }
    }

    pub(super) fn register(self, known: Box<Known>, redirect_uri: String) -> Turn<Self> {
        let server = &known.discovered.server;
        let Some(endpoint) = server.registration_endpoint.clone() else {
            return self.fail(Error::Bug {
                what: "login: no registration endpoint",
            });
        };
        let authentication = authentication_to_ask(server);
        let body = self
            .client_metadata(&known, &redirect_uri)
            .to_json(authentication);
        let mut headers = http::HeaderMap::new();
        let json = http::HeaderValue::from_static("application/json");
        headers.insert(http::header::CONTENT_TYPE, json.clone());
        headers.insert(http::header::ACCEPT, json);
        let body = zeroize::Zeroizing::new(body);
        let exchange = Exchange::post(
            Leg::Registration,
            endpoint,
            "registration_endpoint",
            headers,
            body,
        );
        self.next(
            State::ExpectRegistration(known, redirect_uri),
            Act::Send(Box::new(exchange)),
        )
    }

    pub(super) fn registered(
        self,
        mut known: Box<Known>,
        redirect_uri: String,
        exchanged: Exchanged,
        now: Now,
    ) -> Turn<Self> {
        let issuer = known.discovered.server.issuer.clone();
        let asked = self.client_metadata(&known, &redirect_uri);
        let parsed = match exchanged {
            Ok(reply) if matches!(reply.status, 200 | 201) => {
                parse_registration(&reply.body, &asked)
            }
            Ok(reply) if reply.status >= 500 => Err(Error::ServerError {
                status: reply.status,
                retry_after: reply.retry_after(),
            }),
            Ok(reply) => Err(parse_refusal(reply.status, &reply.body, &issuer, &asked)),
            Err(failure) => Err(failure.error()),
        };
        match parsed {
            // Some issuers take loopback redirect URIs from hosted programs only (AUTH-38).
            Err(Error::RegistrationRefused { error, .. })
                if known.application_type == ApplicationType::Native && is_about_us(&error) =>
            {
                known.application_type = ApplicationType::Web;
                self.register(known, redirect_uri)
            }
            Ok((client, management)) => {
                let registration = Registration {
                    issuer,
                    client: client.clone(),
                    redirect_uris: vec![redirect_uri.clone()],
                    management,
                    registered_at: now.wall,
                };
                self.next(
                    State::ExpectKept(known, redirect_uri, client),
                    Act::KeepRegistration(Box::new(registration)),
                )
            }
            Err(error) => self.register_unlock(known, redirect_uri, Err(error)),
        }
    }

    /// There is a client to show: the one whose place it takes is forgotten now, and not before (F-16).
    pub(super) fn replaced(
        self,
        mut known: Box<Known>,
        redirect_uri: String,
        client: Client,
    ) -> Turn<Self> {
        let Some(dead) = known.dead.take() else {
            return self.register_unlock(known, redirect_uri, Ok(client));
        };
        let issuer = known.discovered.server.issuer.clone();
        let act = Act::forgetting(issuer, dead);
        self.next(State::ExpectDeadForgotten(known, redirect_uri, client), act)
    }

    /// Nobody is registered. Where that is the issuer's word, the client that it did not seem to know is shown all the same: a
    /// page is no proof, and there is no other.
    pub(super) fn not_registered(
        mut self,
        mut known: Known,
        redirect_uri: String,
        error: Error,
    ) -> Turn<Self> {
        let refused = matches!(error, Error::RegistrationRefused { .. });
        match known.dead.take().filter(|_| refused) {
            Some(client) => {
                self.forgotten = None;
                self.show(known, redirect_uri, client)
            }
            None => self.fail(error),
        }
    }

    pub(super) fn register_unlock(
        self,
        known: Box<Known>,
        redirect_uri: String,
        client: Result<Client, Error>,
    ) -> Turn<Self> {
        let issuer = known.discovered.server.issuer.clone();
        self.next(
            State::ExpectRegisterUnlock(known, redirect_uri, client),
            Act::Unlock(Lock::Register(issuer)),
        )
    }
}

/// Nobody but the server has named this issuer, and a secret is to go there.
pub(super) fn unnamed(server: &ServerMetadata) -> Error {
    Error::ConfigValue {
        what: "the authorization server".into(),
        why: format!(
            "a secret goes only where you say, and so far only the server names {0}; if the client was made there, say so \
             (--issuer {0})",
            server.issuer
        ),
    }
}

/// Whether a refusal may turn on what kind of program we are (RFC 7591 section 3.2.2).
fn is_about_us(error: &str) -> bool {
    matches!(error, "invalid_redirect_uri" | "invalid_client_metadata")
}

/// A client that a person brought, authenticating in a way that the issuer takes (AUTH-44). A secret that it takes in no way
/// is tried all the same: metadata is often wrong about that.
fn authenticated(client: Client, server: &ServerMetadata) -> Result<Client, Error> {
    let has_secret = client.secret.is_some() || client.secret_ref.is_some();
    client.clone().authenticating_at(server).or_else(|error| {
        if !has_secret {
            return Err(error);
        }
        Ok(Client {
            authentication: choose_authentication(server, true),
            ..client
        })
    })
}

/// The port that an earlier registration's redirect URI fixes, where it has this callback's host and path.
fn registered_port(registration: &Registration, callback: &Callback) -> Option<u16> {
    registration.redirect_uris.iter().find_map(|uri| {
        let url = Url::parse(uri).ok()?;
        (url.host_str() == Some(&callback.host) && url.path() == callback.path)
            .then(|| url.port())
            .flatten()
    })
}
