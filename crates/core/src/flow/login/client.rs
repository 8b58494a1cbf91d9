//! As which client to log in: one that a person brought, our metadata document, or a registration (AUTH-31).

use url::Url;

use crate::{
    error::{Error, LoginCause},
    exchange::{Exchange, Exchanged, Leg},
    flow::{Act, Callback, Lock, Registration, Turn, discover::Discovered},
    metadata::ServerMetadata,
    registration::{
        ApplicationType, Client, ClientMetadata, Way, authentication_to_ask, choose,
        choose_authentication, parse_refusal, parse_registration,
    },
    scope::{self, Scopes},
    time::Now,
};

use super::{Known, Login, State};

impl Login {
    /// Opens the callback on the port that a stored registration fixes, else on any.
    pub(super) fn open_callback(
        self,
        discovered: Discovered,
        registrations: Vec<Registration>,
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
            let redirect_uris = vec![self.task.callback.in_a_console()];
            return self.fail(Error::NoRegistrationWay {
                issuer: server.issuer.as_str().to_owned(),
                redirect_uris,
            });
        }
        let mut callback = self.task.callback.clone();
        if matches!(way, Way::Dynamic(_)) && callback.port.is_none() {
            callback.port = registrations
                .iter()
                .find_map(|known| registered_port(known, &callback));
        }
        let known = Known {
            discovered,
            registrations,
            scopes,
            application_type: ApplicationType::Native,
        };
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
        if self.task.client.is_some() && known.is_some_and(|known| *known != server.issuer) {
            return Err(Error::login(LoginCause::IssuerChanged));
        }
        if discovered.dpop_required && !server.binds_tokens() {
            return Err(Error::NoDpop);
        }
        Ok(())
    }

    /// The scopes to ask for.
    pub(super) fn scopes(&self, discovered: &Discovered) -> Scopes {
        scope::select(
            discovered.challenged.as_ref(),
            discovered.resource_scopes.as_ref(),
            self.task.scopes.as_ref(),
            discovered.server.scopes_supported.as_ref(),
        )
    }

    pub(super) fn choose_client(
        mut self,
        known: Box<Known>,
        redirect_uri: String,
        now: Now,
    ) -> Turn<Self> {
        self.callback_open = true;
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
                let client = Client::metadata_document(&url);
                self.show(*known, redirect_uri, client)
            }
            Way::Dynamic(_) => match usable(&known.registrations, &redirect_uri, now) {
                Some(client) => self.show(*known, redirect_uri, client),
                None => {
                    let issuer = server.issuer.clone();
                    self.next(
                        State::ExpectRegisterLock(known, redirect_uri),
                        Act::Lock(Lock::Register(issuer)),
                    )
                }
            },
            Way::Nothing => self.fail(Error::Bug {
                what: "login: no way to register",
            }),
        }
    }

    pub(super) fn client_metadata(&self, known: &Known, redirect_uri: &str) -> ClientMetadata {
        let scope = (!known.scopes.is_empty()).then(|| known.scopes.clone());
        ClientMetadata {
            application_type: known.application_type,
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

/// A stored registration that fits the redirect URI and whose secret has not expired.
pub(super) fn usable(
    registrations: &[Registration],
    redirect_uri: &str,
    now: Now,
) -> Option<Client> {
    let live = |r: &&Registration| r.client.secret_expires_at.is_none_or(|end| end > now.wall);
    let fits = |r: &&Registration| r.redirect_uris.iter().any(|uri| uri == redirect_uri);
    registrations
        .iter()
        .filter(live)
        .find(fits)
        .map(|r| r.client.clone())
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
