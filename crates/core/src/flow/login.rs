//! A login: the authorization code grant with PKCE (RFC 6749 section 4.1, RFC 7636, RFC 8252).
//!
//! ```text
//!  discover -> registrations -> callback open -> (register, under its lock) -> spool ready
//!     -> show the URL, wait for the redirect -> state, then iss, then error or code
//!     -> exchange -> read -> spool -> lock -> commit as a new incarnation, whatever is there -> unlock
//! ```
//!
//! The callback is open before anything is registered or shown, since its redirect URI must exist first. No lock is held
//! while a person thinks. A login never loses: it commits whatever is there (I-5).

use std::time::Duration;

use url::Url;

use crate::{
    attempt::ProcessId,
    credential::{Binding, Credential, CredentialKey, Generation, Incarnation, Pins, Version},
    error::{Error, LoginCause},
    event::{Event, Happened},
    exchange::{Exchange, Exchanged, Leg},
    flow::{
        Act, Answer, Callback, Commit, Committed, Expects, Flow, Lock, Prompt, Registration, Step,
        Turn,
        discover::{self, Discover, Discovered},
    },
    grant::{AuthorizationRequest, Grant, token_request},
    issuer::Issuer,
    metadata::ServerMetadata,
    pkce::{Pkce, state_from_entropy},
    registration::{
        Client, ClientMetadata, ClientSource, Way, authentication_to_ask, choose,
        choose_authentication, parse_refusal, parse_registration,
    },
    resource::is_loopback,
    scope::{self, Scopes},
    secret::{AuthorizationCode, StateParameter},
    time::{Mono, Now},
    token::{TokenAnswer, Verdict},
};

/// What kind of login is wanted.
#[derive(Debug, Clone)]
pub struct Task {
    /// The binding to log in for; its credential, if there is one, names the issuer so far.
    pub binding: Binding,
    /// The scopes to ask for, where the person named them.
    pub scopes: Option<Scopes>,
    /// A client that the issuer's console made.
    pub client: Option<Client>,
    /// The URL of our client ID metadata document, if one is hosted.
    pub client_metadata_url: Option<Url>,
    /// What a registration says about us.
    pub client_name: String,
    /// Where the redirect is to arrive.
    pub callback: Callback,
    /// Which process this is.
    pub process: ProcessId,
    /// 32 random bytes for each of: the verifier, the state, the incarnation.
    pub entropy: [[u8; 32]; 3],
}

/// A completed login.
#[derive(Debug)]
pub struct LoggedIn {
    /// What is stored, or at least spooled, now.
    pub credential: Credential,
    /// The login that it replaced.
    pub superseded: Option<Box<Credential>>,
    /// Whether the issuer lists `offline_access` among its scopes.
    pub offline_access_offered: bool,
}

/// The flow. See the [module](self).
#[derive(Debug)]
pub struct Login {
    task: Task,
    state: State,
    callback_open: bool,
}

#[derive(Debug)]
enum State {
    Ready,
    Discovering(Box<Discover>),
    ExpectRegistrations(Box<Discovered>),
    ExpectCallback(Box<Known>),
    ExpectRegisterLock(Box<Known>, String),
    ExpectOthersRegistrations(Box<Known>, String),
    ExpectRegistration(Box<Known>, String),
    ExpectKept(Box<Known>, String, Client),
    ExpectRegisterUnlock(Box<Known>, String, Result<Client, Error>),
    ExpectSpoolReady(Box<Request>),
    ExpectRedirect(Box<Request>),
    ExpectCallbackClosed(Box<Request>, AuthorizationCode),
    ExpectToken(Box<Request>, AuthorizationCode, u32),
    ExpectPause(Box<Request>, AuthorizationCode, u32, Mono),
    ExpectForgotten,
    ExpectStored(Box<Credential>, bool),
    ExpectSpooled(Box<Credential>, bool),
    ExpectLease(Box<Credential>, bool),
    ExpectCommit(Box<Credential>, bool),
    ExpectUnlock(Result<Box<LoggedIn>, Error>),
    ExpectClosed(Error),
}

/// Discovery's result and the registrations that are there already.
#[derive(Debug)]
struct Known {
    discovered: Discovered,
    registrations: Vec<Registration>,
    scopes: Scopes,
}

/// One authorization request: the issuer is recorded with the verifier and the state (AUTH-62).
#[derive(Debug)]
struct Request {
    discovered: Discovered,
    client: Client,
    redirect_uri: String,
    scopes: Scopes,
    pkce: Pkce,
    state: StateParameter,
    issuer: Issuer,
}

impl Login {
    /// Sets up the flow.
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self {
            task,
            state: State::Ready,
            callback_open: false,
        }
    }

    fn next(self, state: State, act: Act) -> Turn<Self> {
        Turn::Next(Self { state, ..self }, Step::act(act))
    }

    fn fail(mut self, error: Error) -> Turn<Self> {
        if std::mem::take(&mut self.callback_open) {
            return self.next(State::ExpectClosed(error), Act::CloseCallback);
        }
        Turn::Done(Err(error))
    }

    fn discovering(self, turn: Turn<Discover>) -> Turn<Self> {
        match turn {
            Turn::Next(discover, step) => Turn::Next(
                Self {
                    state: State::Discovering(Box::new(discover)),
                    ..self
                },
                step,
            ),
            Turn::Done(Err(error)) => self.fail(error),
            Turn::Done(Ok(discovered)) => {
                let issuer = discovered.server.issuer.clone();
                self.next(
                    State::ExpectRegistrations(Box::new(discovered)),
                    Act::FindRegistrations(issuer),
                )
            }
        }
    }

    /// Opens the callback on the port that a stored registration fixes, else on any.
    fn open_callback(self, discovered: Discovered, registrations: Vec<Registration>) -> Turn<Self> {
        let server = &discovered.server;
        let scopes = scope::select(
            discovered.challenged.as_ref(),
            discovered.resource_scopes.as_ref(),
            self.task.scopes.as_ref(),
            server.scopes_supported.as_ref(),
        );
        let way = choose(
            self.task.client.as_ref(),
            self.task.client_metadata_url.as_ref(),
            server,
        );
        if matches!(way, Way::Nothing) {
            return self.fail(Error::NoRegistrationWay {
                issuer: server.issuer.as_str().to_owned(),
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
        };
        self.next(
            State::ExpectCallback(Box::new(known)),
            Act::OpenCallback(callback),
        )
    }

    fn choose_client(mut self, known: Box<Known>, redirect_uri: String, now: Now) -> Turn<Self> {
        self.callback_open = true;
        let server = &known.discovered.server;
        match choose(
            self.task.client.as_ref(),
            self.task.client_metadata_url.as_ref(),
            server,
        ) {
            Way::PreRegistered(client) => {
                let client = authenticated(client, server);
                self.show(*known, redirect_uri, client)
            }
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

    fn client_metadata(&self, known: &Known, redirect_uri: &str) -> ClientMetadata {
        let scope = (!known.scopes.is_empty()).then(|| known.scopes.clone());
        ClientMetadata::new(
            self.task.client_name.clone(),
            vec![redirect_uri.to_owned()],
            scope,
        )
    }

    fn register(self, known: Box<Known>, redirect_uri: String) -> Turn<Self> {
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

    fn registered(
        self,
        known: Box<Known>,
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
            Ok(reply) => Err(parse_refusal(reply.status, &reply.body)),
            Err(failure) => Err(failure.error()),
        };
        match parsed {
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

    fn register_unlock(
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

    /// Prepares the one authorization request; the spool slot exists before the URL is shown.
    fn show(self, known: Known, redirect_uri: String, client: Client) -> Turn<Self> {
        let [verifier, state, _] = &self.task.entropy;
        let Known {
            discovered, scopes, ..
        } = known;
        let key = self.credential_key(&discovered);
        let issuer = discovered.server.issuer.clone();
        let request = Request {
            pkce: Pkce::from_entropy(verifier),
            state: state_from_entropy(state),
            discovered,
            client,
            redirect_uri,
            scopes,
            issuer,
        };
        self.next(
            State::ExpectSpoolReady(Box::new(request)),
            Act::PrepareSpool(key),
        )
    }

    fn prompt(self, request: Box<Request>) -> Turn<Self> {
        let server = &request.discovered.server;
        let Some(endpoint) = &server.authorization_endpoint else {
            let (document, field) = ("authorization server metadata", "authorization_endpoint");
            return self.fail(Error::MetadataInvalid {
                document,
                field,
                why: "it is missing",
            });
        };
        if endpoint.scheme() != "https" && !is_loopback(endpoint) {
            let (document, field) = ("authorization server metadata", "authorization_endpoint");
            return self.fail(Error::MetadataInvalid {
                document,
                field,
                why: "it is no https URL",
            });
        }
        let url = AuthorizationRequest {
            endpoint,
            client_id: &request.client.id,
            redirect_uri: &request.redirect_uri,
            scopes: &request.scopes,
            state: &request.state,
            challenge: &request.pkce.challenge,
            resource: request.discovered.resource_parameter.as_deref(),
        }
        .url();
        let prompt = Prompt {
            url,
            state: request.state.clone(),
            issuer: request.issuer.clone(),
            token_host: server
                .token_endpoint
                .host_str()
                .unwrap_or_default()
                .to_owned(),
            resource: self.task.binding.key.url.to_string(),
            scopes: request.scopes.clone(),
        };
        self.next(State::ExpectRedirect(request), Act::Show(Box::new(prompt)))
    }

    /// Judges the redirect: `state` first, then `iss`, then `error` or `code` (T-04, T-05, AUTH-61 to AUTH-65).
    fn redirected(mut self, request: Box<Request>, parameters: &[(String, String)]) -> Turn<Self> {
        match judge_redirect(&request, parameters) {
            Ok(code) => {
                self.callback_open = false;
                self.next(
                    State::ExpectCallbackClosed(request, code),
                    Act::CloseCallback,
                )
            }
            Err(error) => self.fail(error),
        }
    }

    fn exchange(self, request: Box<Request>, code: AuthorizationCode, tries: u32) -> Turn<Self> {
        let grant = Grant::AuthorizationCode {
            code: &code,
            redirect_uri: &request.redirect_uri,
            verifier: &request.pkce.verifier,
        };
        let form = token_request(
            &grant,
            &request.client,
            request.discovered.resource_parameter.as_deref(),
        );
        let endpoint = request.discovered.server.token_endpoint.clone();
        let exchange = Exchange::post(
            Leg::Token,
            endpoint,
            "token_endpoint",
            form.headers,
            form.body,
        );
        self.next(
            State::ExpectToken(request, code, tries + 1),
            Act::Send(Box::new(exchange)),
        )
    }

    fn judge(
        self,
        request: Box<Request>,
        code: AuthorizationCode,
        tries: u32,
        exchanged: &Exchanged,
        now: Now,
    ) -> Turn<Self> {
        let sent_at = exchanged
            .as_ref()
            .map_or_else(|failure| failure.sent_at, |reply| reply.sent_at);
        match Verdict::of(exchanged) {
            Verdict::Granted(answer) => self.granted(&request, *answer, sent_at),
            Verdict::NotDelivered { retry_after, .. } if tries < TRIES => {
                let pause = retry_after
                    .unwrap_or(Duration::from_secs(1))
                    .clamp(Duration::from_millis(500), LONGEST_PAUSE);
                self.pause(request, code, tries, now.mono + pause)
            }
            Verdict::NotDelivered { error, .. } | Verdict::Ambiguous { error, .. } => {
                self.fail(error)
            }
            Verdict::InvalidGrant { .. } => self.fail(Error::DeniedByIssuer {
                error: "invalid_grant".into(),
            }),
            Verdict::Refused { error } => self.fail(Error::DeniedByIssuer { error }),
            Verdict::InvalidClient if request.client.source == ClientSource::Dynamic => {
                let registration = Registration {
                    issuer: request.issuer.clone(),
                    client: request.client.clone(),
                    redirect_uris: vec![request.redirect_uri.clone()],
                    management: None,
                    registered_at: now.wall,
                };
                self.next(
                    State::ExpectForgotten,
                    Act::ForgetRegistration(Box::new(registration)),
                )
            }
            Verdict::InvalidClient => self.fail(Error::DeniedByIssuer {
                error: "invalid_client".into(),
            }),
        }
    }

    fn pause(
        self,
        request: Box<Request>,
        code: AuthorizationCode,
        tries: u32,
        at: Mono,
    ) -> Turn<Self> {
        let state = State::ExpectPause(request, code, tries, at);
        Turn::Next(Self { state, ..self }, Step::wait_until(at))
    }

    fn credential_key(&self, discovered: &Discovered) -> CredentialKey {
        CredentialKey {
            tenant: self.task.binding.key.tenant.clone(),
            resource: discovered.resource.clone(),
            issuer: discovered.server.issuer.clone(),
            account: self.task.binding.key.account.clone(),
        }
    }

    fn granted(self, request: &Request, answer: TokenAnswer, sent_at: Now) -> Turn<Self> {
        let [.., incarnation] = &self.task.entropy;
        let mut name = [0u8; 16];
        for (to, from) in name.iter_mut().zip(incarnation) {
            *to = *from;
        }
        let key = self.credential_key(&request.discovered);
        let server = &request.discovered.server;
        let credential = Credential {
            key: key.clone(),
            version: Version {
                incarnation: Incarnation(name),
                generation: Generation(0),
            },
            pins: Pins {
                resource_parameter: request.discovered.resource_parameter.clone(),
                token_endpoint: server.token_endpoint.clone(),
                revocation_endpoint: server.revocation_endpoint.clone(),
            },
            client: request.client.clone(),
            access_token: answer.access_token,
            token_type: answer.token_type,
            refresh_token: answer.refresh_token,
            received_at: Some(sent_at),
            lifetime: answer.lifetime,
            scopes_requested: request.scopes.clone(),
            scopes_granted: answer.scopes.unwrap_or_else(|| request.scopes.clone()),
            logged_in_at: sent_at.wall,
        };
        let offered = server
            .scopes_supported
            .as_ref()
            .is_some_and(|scopes| scopes.contains("offline_access"));
        self.next(
            State::ExpectStored(Box::new(credential), offered),
            Act::Reread(key),
        )
    }

    fn commit(self, credential: Box<Credential>, offered: bool, now: Now) -> Turn<Self> {
        let happened = Happened::LoggedIn {
            issuer: credential.key.issuer.as_str().to_owned(),
            scopes: credential.scopes_granted.clone(),
            lifetime: credential.lifetime.map(crate::credential::Lifetime::span),
            refresh_token: credential.refresh_token.is_some(),
        };
        let commit = Commit {
            credential: (*credential).clone(),
            expects: Expects::Anything,
            binding: Some(Binding {
                credential: Some(credential.key.clone()),
                ..self.task.binding.clone()
            }),
            forced: None,
            event: Event {
                at: now.wall,
                process: self.task.process,
                happened,
            },
        };
        self.next(
            State::ExpectCommit(credential, offered),
            Act::Commit(Box::new(commit)),
        )
    }

    fn committed(
        self,
        credential: Box<Credential>,
        offline_access_offered: bool,
        committed: Result<Committed, Error>,
    ) -> Turn<Self> {
        let lock = Lock::Refresh(credential.key.clone());
        let done = match committed {
            Ok(Committed::Done { superseded }) => Ok(Box::new(LoggedIn {
                credential: *credential,
                superseded,
                offline_access_offered,
            })),
            Ok(Committed::Moved) => Err(Error::Bug {
                what: "login: a commit of anything was refused",
            }),
            Err(error) => Err(error),
        };
        self.next(State::ExpectUnlock(done), Act::Unlock(lock))
    }
}

impl Flow for Login {
    type Outcome = Result<Box<LoggedIn>, Error>;

    fn start(self, now: Now) -> Turn<Self> {
        let server = self.task.binding.key.url.clone();
        // A first login may fall back to the oldest rules; one that has an issuer may not (T-16).
        let known_issuer = self
            .task
            .binding
            .credential
            .as_ref()
            .map(|key| key.issuer.clone());
        let discover = Discover::new(discover::Task {
            server,
            known_issuer,
        });
        let turn = discover.start(now);
        self.discovering(turn)
    }

    fn handle(mut self, answer: Answer, now: Now) -> Turn<Self> {
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, answer) {
            (State::Discovering(discover), answer) => {
                let turn = discover.handle(answer, now);
                self.discovering(turn)
            }
            (State::ExpectRegistrations(discovered), Answer::Registered(Ok(registrations))) => {
                self.open_callback(*discovered, registrations)
            }
            (State::ExpectRegistrations(_), Answer::Registered(Err(error))) => self.fail(error),
            (State::ExpectCallback(known), Answer::CallbackOpen(Ok(redirect_uri))) => {
                self.choose_client(known, redirect_uri, now)
            }
            (
                State::ExpectCallback(mut known),
                Answer::CallbackOpen(Err(Error::ConfigCallbackPort { .. })),
            ) if self.task.callback.port.is_none() && !known.registrations.is_empty() => {
                // The port of an earlier registration is taken: another port, and so another registration. Nothing that
                // was registered is sent to the wrong listener.
                known.registrations.clear();
                let callback = self.task.callback.clone();
                self.next(State::ExpectCallback(known), Act::OpenCallback(callback))
            }
            (State::ExpectCallback(_), Answer::CallbackOpen(Err(error))) => self.fail(error),
            (State::ExpectRegisterLock(known, uri), Answer::Locked(Ok(_))) => {
                let issuer = known.discovered.server.issuer.clone();
                self.next(
                    State::ExpectOthersRegistrations(known, uri),
                    Act::FindRegistrations(issuer),
                )
            }
            (State::ExpectRegisterLock(..), Answer::Locked(Err(error))) => self.fail(error),
            (State::ExpectOthersRegistrations(known, uri), Answer::Registered(found)) => {
                match found.ok().and_then(|found| usable(&found, &uri, now)) {
                    Some(client) => self.register_unlock(known, uri, Ok(client)),
                    None => self.register(known, uri),
                }
            }
            (State::ExpectRegistration(known, uri), Answer::Exchanged(exchanged)) => {
                self.registered(known, uri, exchanged, now)
            }
            (State::ExpectKept(known, uri, client), Answer::Done(kept)) => {
                self.register_unlock(known, uri, kept.map(|()| client))
            }
            (State::ExpectRegisterUnlock(known, uri, client), Answer::Done(_)) => match client {
                Ok(client) => self.show(*known, uri, client),
                Err(error) => self.fail(error),
            },
            (State::ExpectSpoolReady(request), Answer::Done(Ok(()))) => self.prompt(request),
            (State::ExpectSpoolReady(_), Answer::Done(Err(error))) => self.fail(error),
            (State::ExpectRedirect(request), Answer::Redirected(Ok(parameters))) => {
                self.redirected(request, &parameters)
            }
            (State::ExpectRedirect(_), Answer::Redirected(Err(error))) => self.fail(error),
            (State::ExpectCallbackClosed(request, code), Answer::Done(_)) => {
                self.exchange(request, code, 0)
            }
            (State::ExpectToken(request, code, tries), Answer::Exchanged(exchanged)) => {
                self.judge(request, code, tries, &exchanged, now)
            }
            (State::ExpectPause(request, code, tries, at), Answer::Woken) if now.mono < at => {
                self.pause(request, code, tries, at)
            }
            (State::ExpectPause(request, code, tries, _), Answer::Woken) => {
                self.exchange(request, code, tries)
            }
            (State::ExpectForgotten, Answer::Done(_)) => {
                self.fail(Error::login(LoginCause::RegistrationGone))
            }
            (State::ExpectStored(credential, offered), Answer::Read(read)) => {
                let follows =
                    read.ok()
                        .and_then(|r| r.record)
                        .and_then(|record| match record.spooled {
                            Some(spooled) => spooled.follows,
                            None => record.version(),
                        });
                let act = Act::Spool {
                    follows,
                    credential: credential.clone(),
                };
                self.next(State::ExpectSpooled(credential, offered), act)
            }
            (State::ExpectSpooled(credential, offered), Answer::Done(_)) => {
                let act = Act::Lock(Lock::Refresh(credential.key.clone()));
                self.next(State::ExpectLease(credential, offered), act)
            }
            (State::ExpectLease(credential, offered), Answer::Locked(_)) => {
                // A login never loses: where the lock cannot be had, the commit itself still settles who came last.
                self.commit(credential, offered, now)
            }
            (State::ExpectCommit(credential, offered), Answer::Committed(committed)) => {
                self.committed(credential, offered, committed)
            }
            (State::ExpectUnlock(done), Answer::Done(_)) => Turn::Done(done),
            (State::ExpectClosed(error), Answer::Done(_)) => Turn::Done(Err(error)),
            _ => Turn::Done(Err(Error::Bug {
                what: "login: an answer that nothing waits for",
            })),
        }
    }
}

/// The code of a redirect that belongs to this request and comes from its issuer.
fn judge_redirect(
    request: &Request,
    parameters: &[(String, String)],
) -> Result<AuthorizationCode, Error> {
    let one = |name: &str| {
        let mut values = parameters
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        (values.next(), values.next().is_some())
    };
    let (state, twice) = one("state");
    let state = state.and_then(|text| StateParameter::new(text.to_owned()).ok());
    if twice || state.as_ref() != Some(&request.state) {
        return Err(Error::StateMismatch);
    }
    let expected = request.issuer.as_str();
    let mismatch = |got: &str| Error::IssuerMismatch {
        expected: expected.to_owned(),
        got: got.to_owned(),
    };
    match one("iss") {
        (Some(iss), false) if iss == expected => {}
        (None, _) if !request.discovered.server.iss_parameter => {}
        (iss, _) => return Err(mismatch(iss.unwrap_or_default())),
    }
    if let (Some(error), _) = one("error") {
        return Err(match error {
            "access_denied" => Error::DeniedByHuman,
            other => Error::DeniedByIssuer {
                error: other.to_owned(),
            },
        });
    }
    let missing = Error::DeniedByIssuer {
        error: "the redirect carries neither code nor error".into(),
    };
    match one("code") {
        (Some(code), false) => AuthorizationCode::new(code.to_owned()).map_err(|_| missing),
        _ => Err(missing),
    }
}

/// A client that a person brought, authenticating in a way that the issuer takes (AUTH-44).
fn authenticated(client: Client, server: &ServerMetadata) -> Client {
    if server.offers(client.authentication)
        && client.authentication.needs_secret() == client.secret.is_some()
    {
        return client;
    }
    Client {
        authentication: choose_authentication(server, client.secret.is_some()),
        ..client
    }
}

/// A stored registration that fits the redirect URI and whose secret has not expired.
fn usable(registrations: &[Registration], redirect_uri: &str, now: Now) -> Option<Client> {
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

const TRIES: u32 = 3;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
