//! A login: the authorization code grant with PKCE (RFC 6749 section 4.1, RFC 7636, RFC 8252).
//!
//! ```text
//!  discover -> registrations -> callback open -> (register, under its lock) -> spool ready
//!     -> show the URL, wait for the redirect -> state, then iss, then error or code
//!     -> exchange -> read -> spool -> lock -> commit as a new incarnation, whatever is there -> unlock
//! ```
//!
//! A person with a browser on another device turns off after the registration: no callback, no redirect (`login/device.rs`).
//! A login that needs no person turns off after the discovery: no registration, no callback, no URL (`login/unattended.rs`).
//!
//! The callback is open before anything is registered or shown, since its redirect URI must exist first. No lock is held
//! while a person thinks. A login never loses: it commits whatever is there (I-5).

mod client;
mod device;
mod former;
mod preflight;
mod quirk;
mod request;
mod settle;
mod unattended;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use sha2::{Digest, Sha256};
use url::Url;

use crate::{
    assertion::ClientKey,
    attempt::ProcessId,
    credential::{Binding, Credential, CredentialKey, Version},
    dpop::ProofKey,
    error::{Error, LoginCause},
    flow::{
        Act, Answer, Device, Flow, Prompt, Redirect, Registration, Step, Turn,
        discover::{self, Discover, Discovered, Ways},
        unattended::obtain::Obtain,
    },
    issuer::Issuer,
    pkce::{Pkce, state_from_entropy},
    quirks::Quirk,
    registration::{ApplicationType, Client},
    scope::Scopes,
    secret::AuthorizationCode,
    time::{Mono, Now},
    unattended::Unattended,
};

use request::{Request, judge_redirect};

/// What kind of login is wanted.
#[derive(Clone)]
pub struct Task {
    /// The binding to log in for; its credential, if there is one, names the issuer so far.
    pub binding: Binding,
    /// The headers of a 401 that the server has just answered; without them it is asked.
    pub challenge: Option<http::HeaderMap>,
    /// The scopes to ask for, where the person named them.
    pub scopes: Option<Scopes>,
    /// A client that the issuer's console made.
    pub client: Option<Client>,
    /// A grant that needs no person, where one is configured.
    pub unattended: Option<Unattended>,
    /// The assertion that was refused at the last try: it is never shown again.
    pub refused: Option<[u8; 32]>,
    /// The URL of our client ID metadata document, if one is hosted.
    pub client_metadata_url: Option<Url>,
    /// The issuer to log in at, where a person has chosen among those that the server names.
    pub issuer: Option<Issuer>,
    /// Whether a secret may go to whichever issuer the server names.
    pub trusts_server: bool,
    /// Whether `resource` is left out for the issuer of this login, or no longer; `None`: as it was before.
    pub without_resource: Option<bool>,
    /// The private key whose public half is in our client ID metadata document.
    pub client_key: Option<ClientKey>,
    /// What a registration says about us.
    pub client_name: String,
    /// Where the redirect is to arrive.
    pub redirect: Redirect,
    /// Whether the person logs in on another device.
    pub device: Device,
    /// Further parameters of the authorization request, as a person has named them; none can stand in for one of the flow's own.
    pub authorize_params: Vec<(String, String)>,
    /// How long the person has on another device; a redirect is waited for as long as the driver sees fit.
    pub human_wait: Duration,
    /// Which process this is.
    pub process: ProcessId,
    /// A new key, for an issuer that binds tokens to one (RFC 9449).
    pub proof_key: Option<ProofKey>,
    /// 32 random bytes for each of: the verifier, the state, the incarnation.
    pub entropy: [[u8; 32]; 3],
}

impl std::fmt::Debug for Task {
    /// Leaves the entropy out: verifier and state follow from it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("binding", &self.binding)
            .finish_non_exhaustive()
    }
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
    /// The issuer of the login before, where the server has changed it.
    pub former_issuer: Option<Issuer>,
    /// What the login has taught about the issuer.
    pub learned: Vec<Quirk>,
}

/// The flow. See the [module](self).
#[derive(Debug)]
pub struct Login {
    task: Task,
    state: State,
    callback_open: bool,
    /// Whether the person logs in on another device.
    by_device: bool,
    /// Whether the spool holds the login where a later run finds it.
    findable: bool,
    /// What is known of the issuer.
    lessons: quirk::Lessons,
    /// The client of the login that there is at this issuer.
    held: Option<String>,
    /// The client that the issuer has forgotten: another was registered in its place, once (F-16).
    forgotten: Option<String>,
    /// Where it is left which assertion was shown in vain.
    shown_in_vain: ShownInVain,
}

/// The SHA-256 of an assertion that an issuer, or an identity provider, has refused. Whoever drives a login keeps a copy to
/// look at when it has ended.
pub type ShownInVain = Arc<OnceLock<[u8; 32]>>;

#[derive(Debug)]
enum State {
    Ready,
    Discovering(Box<Discover>),
    Obtaining(Box<Obtain>, Box<unattended::Wish>),
    ExpectPins(Box<Discovered>, Unattended),
    ExpectNotes(Box<Discovered>),
    ExpectFormer(Box<Discovered>),
    ExpectReturn(Box<Discovered>),
    ExpectReturned(Box<Credential>),
    ExpectReturnTold(Box<Credential>),
    ExpectRegistrations(Box<Discovered>),
    ExpectCallback(Box<Known>),
    ExpectProof(Box<Known>, String, Client),
    ExpectPreflight(Box<Known>, String, Client),
    ExpectRegisterLock(Box<Known>, String),
    ExpectOthersRegistrations(Box<Known>, String),
    ExpectRegistration(Box<Known>, String),
    ExpectKept(Box<Known>, String, Client),
    ExpectDeadForgotten(Box<Known>, String, Client),
    ExpectRegisterUnlock(Box<Known>, String, Result<Client, Error>),
    ExpectSpoolReady(Box<Request>),
    ExpectRedirect(Box<Request>),
    ExpectCallbackClosed(Box<Request>, AuthorizationCode),
    ExpectToken(Box<Request>, AuthorizationCode, u32),
    ExpectPause(Box<Request>, AuthorizationCode, u32, Mono),
    OnAnotherDevice(device::State),
    ExpectForgotten(Box<Discovered>),
    ExpectGone,
    ExpectStored(Box<Credential>, bool),
    ExpectBound(Box<Credential>, bool, Option<Version>),
    ExpectSpooled(Box<Credential>, bool),
    ExpectMoved(Box<Credential>, bool),
    ExpectLease(Box<Credential>, bool),
    ExpectCommit(Box<Credential>, bool),
    ExpectUnlock(Result<Box<LoggedIn>, Error>),
    ExpectLearned(Box<LoggedIn>),
    ExpectClosed(Error),
}

/// Discovery's result and the registrations that are there already.
#[derive(Debug)]
struct Known {
    discovered: Discovered,
    registrations: Vec<Registration>,
    scopes: Scopes,
    /// As what to register.
    application_type: ApplicationType,
    /// A client that the issuer does not seem to know any more: forgotten as soon as there is another.
    dead: Option<Client>,
}

impl Login {
    /// Sets up the flow.
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self {
            task,
            state: State::Ready,
            callback_open: false,
            by_device: false,
            findable: true,
            lessons: quirk::Lessons::default(),
            held: None,
            forgotten: None,
            shown_in_vain: ShownInVain::default(),
        }
    }

    /// The same, and which assertion was shown in vain, if one was, is left there: no login and no renewal is to show it again
    /// (EXT-41).
    #[must_use]
    pub fn leaving(self, shown_in_vain: ShownInVain) -> Self {
        Self {
            shown_in_vain,
            ..self
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

    /// Which grant it is to be: one that needs no person where that is configured, or where the issuer offers no other to the
    /// client at hand.
    fn discovered(self, discovered: Discovered, now: Now) -> Turn<Self> {
        if self.former_issuer(&discovered.server.issuer).is_some() {
            return self.look_back(discovered);
        }
        self.begin(discovered, now)
    }

    fn begin(self, discovered: Discovered, now: Now) -> Turn<Self> {
        match self.unattended(&discovered.server) {
            Ok(Some(grant)) => self.look_at_pins(grant, discovered, now),
            Ok(None) => self.look_up(discovered),
            Err(error) => self.fail(error),
        }
    }

    fn with_a_person(self, discovered: Discovered) -> Turn<Self> {
        match self.wants_device(&discovered.server) {
            Err(error) => self.fail(error),
            Ok(true) if !self.may_show_client(&discovered.server, self.held.as_deref()) => {
                // Nobody has said that our secret may go there: by a redirect a person looks first.
                let error = client::unnamed(&discovered.server);
                self.rather_by_redirect(error, discovered)
            }
            Ok(true) => self.with_registrations(true, discovered),
            Ok(false) => self.by_redirect(discovered),
        }
    }

    fn by_redirect(self, discovered: Discovered) -> Turn<Self> {
        // It protects a code: where there is none, nothing is asked of the issuer.
        if let Err(error) = discovered.server.require_pkce_s256() {
            return self.fail(error);
        }
        self.with_registrations(false, discovered)
    }

    fn with_registrations(mut self, by_device: bool, discovered: Discovered) -> Turn<Self> {
        self.by_device = by_device;
        let issuer = discovered.server.issuer.clone();
        self.next(
            State::ExpectRegistrations(Box::new(discovered)),
            Act::FindRegistrations(issuer),
        )
    }

    fn discovering(self, turn: Turn<Discover>, now: Now) -> Turn<Self> {
        match turn {
            Turn::Next(discover, step) => Turn::Next(
                Self {
                    state: State::Discovering(Box::new(discover)),
                    ..self
                },
                step,
            ),
            Turn::Done(Err(error)) => self.fail(error),
            Turn::Done(Ok(discovered)) => self.discovered(discovered, now),
        }
    }

    /// Prepares the one authorization request; the spool slot exists before the URL is shown.
    fn show(self, known: Known, redirect_uri: String, client: Client) -> Turn<Self> {
        let [verifier, state, _] = &self.task.entropy;
        let key = self.credential_key(&known.discovered);
        let request = self.request(known, redirect_uri, client, verifier, state);
        self.next(
            State::ExpectSpoolReady(Box::new(request)),
            Act::PrepareSpool(key),
        )
    }

    /// One authorization request, with its own verifier and state.
    fn request(
        &self,
        known: Known,
        redirect_uri: String,
        client: Client,
        verifier: &[u8; 32],
        state: &[u8; 32],
    ) -> Request {
        let Known {
            discovered, scopes, ..
        } = known;
        Request {
            pkce: Pkce::from_entropy(verifier),
            state: state_from_entropy(state),
            adds_offline_access: self.adds_offline_access(&discovered, &scopes),
            issuer: discovered.server.issuer.clone(),
            discovered,
            client,
            redirect_uri,
            scopes,
        }
    }

    fn prompt(self, request: Box<Request>) -> Turn<Self> {
        let url = match request.url(
            &self.task.authorize_params,
            self.lessons.insist.parameters(),
        ) {
            Ok(url) => url,
            Err(error) => return self.fail(error),
        };
        let prompt = Prompt {
            url,
            state: request.state.clone(),
            issuer: request.issuer.clone(),
            former_issuer: self.former_issuer(&request.issuer),
            token_host: request.token_host(),
            resource: self.task.binding.key.url.to_string(),
            scopes: request.scopes.clone(),
            without_resource: self.without_resource(&request.issuer),
        };
        self.next(State::ExpectRedirect(request), Act::Show(Box::new(prompt)))
    }

    /// Judges the redirect: `state` first, then `iss`, then `error` or `code` (T-04, T-05, AUTH-61 to AUTH-65).
    fn redirected(
        mut self,
        request: Box<Request>,
        parameters: &[(String, String)],
        now: Now,
    ) -> Turn<Self> {
        match judge_redirect(&request, parameters) {
            Ok(code) => {
                self.callback_open = false;
                self.next(
                    State::ExpectCallbackClosed(request, code),
                    Act::CloseCallback,
                )
            }
            Err(error) => self.refused_redirect(request, error, now),
        }
    }

    fn credential_key(&self, discovered: &Discovered) -> CredentialKey {
        CredentialKey {
            tenant: self.task.binding.key.tenant.clone(),
            resource: discovered.resource.clone(),
            issuer: discovered.server.issuer.clone(),
            account: self.task.binding.key.account.clone(),
        }
    }
}

impl Flow for Login {
    type Outcome = Result<Box<LoggedIn>, Error>;

    fn start(mut self, now: Now) -> Turn<Self> {
        if let Err(error) = self.task.redirect.check() {
            return self.fail(error);
        }
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
            challenge: self.task.challenge.take(),
            issuer: self.task.issuer.clone(),
            exception: self.task.binding.exception.clone(),
            ways: Ways {
                brought: self.task.client.is_some(),
                document: self.task.client_metadata_url.is_some(),
            },
        });
        let turn = discover.start(now);
        self.discovering(turn, now)
    }

    fn handle(mut self, answer: Answer, now: Now) -> Turn<Self> {
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, answer) {
            (State::Discovering(discover), answer) => {
                let turn = discover.handle(answer, now);
                self.discovering(turn, now)
            }
            (State::Obtaining(obtain, wish), answer) => {
                let turn = obtain.handle(answer, now);
                self.obtaining(turn, wish)
            }
            (State::ExpectPins(discovered, grant), Answer::Read(read)) => {
                self.pinned(grant, *discovered, read, now)
            }
            (State::ExpectNotes(discovered), answer) => self.looked_up(*discovered, answer, now),
            (State::ExpectFormer(discovered), Answer::Read(read)) => {
                self.former(*discovered, read, now)
            }
            (State::ExpectReturn(discovered), Answer::Read(read)) => {
                self.may_return(*discovered, read, now)
            }
            (State::ExpectReturned(credential), Answer::Done(bound)) => {
                self.returned(credential, bound, now)
            }
            (State::ExpectReturnTold(credential), Answer::Done(_)) => self.gone_back(*credential),
            (State::ExpectProof(known, uri, client), Answer::Read(read)) => {
                self.proven(known, uri, client, read, now)
            }
            (State::ExpectPreflight(known, uri, client), Answer::Exchanged(exchanged)) => {
                self.preflown(known, uri, client, &exchanged)
            }
            (State::ExpectRegistrations(discovered), Answer::Registered(Ok(registrations))) => {
                self.open_callback(*discovered, registrations, now)
            }
            (State::ExpectRegistrations(_), Answer::Registered(Err(error))) => self.fail(error),
            (State::ExpectCallback(known), Answer::CallbackOpen(Ok(redirect_uri))) => {
                self.callback_open = true;
                self.choose_client(known, redirect_uri, now)
            }
            (
                State::ExpectCallback(mut known),
                Answer::CallbackOpen(Err(Error::ConfigCallbackPort { .. })),
            ) if !known.registrations.is_empty()
                && let Redirect::Loopback(callback) = &self.task.redirect
                && callback.port.is_none() =>
            {
                // The port of an earlier registration is taken: another port, and so another registration. Nothing that
                // was registered is sent to the wrong listener.
                known.registrations.clear();
                let callback = callback.clone();
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
                match found.ok().and_then(|found| self.usable(&found, &uri, now)) {
                    Some(client) => self.replaced(known, uri, client),
                    None => self.register(known, uri),
                }
            }
            (State::ExpectRegistration(known, uri), Answer::Exchanged(exchanged)) => {
                self.registered(known, uri, exchanged, now)
            }
            (State::ExpectKept(known, uri, client), Answer::Done(Ok(()))) => {
                self.replaced(known, uri, client)
            }
            (State::ExpectKept(known, uri, _), Answer::Done(Err(error))) => {
                self.register_unlock(known, uri, Err(error))
            }
            (State::ExpectDeadForgotten(known, uri, client), Answer::Done(_)) => {
                self.register_unlock(known, uri, Ok(client))
            }
            (State::ExpectRegisterUnlock(known, uri, client), Answer::Done(_)) => match client {
                Ok(client) => self.show(*known, uri, client),
                Err(error) if self.by_device => self.not_by_device(error, known.discovered),
                Err(error) => self.not_registered(*known, uri, error),
            },
            (State::ExpectSpoolReady(request), Answer::Done(Ok(()))) if self.by_device => {
                self.ask_for_code(request)
            }
            (State::ExpectSpoolReady(request), Answer::Done(Ok(()))) => self.prompt(request),
            (State::OnAnotherDevice(state), answer) => self.on_another_device(state, answer, now),
            (State::ExpectSpoolReady(_), Answer::Done(Err(error))) => self.fail(error),
            (State::ExpectRedirect(request), Answer::Redirected(Ok(parameters))) => {
                self.redirected(request, &parameters, now)
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
            (State::ExpectGone, Answer::Done(_)) => {
                self.fail(Error::login(LoginCause::RegistrationGone))
            }
            (State::ExpectForgotten(discovered), Answer::Done(_)) => {
                self.open_callback(*discovered, Vec::new(), now)
            }
            (State::ExpectStored(credential, offered), Answer::Read(read)) => {
                let follows =
                    read.ok()
                        .and_then(|r| r.record)
                        .and_then(|record| match record.spooled {
                            Some(spooled) => spooled.follows,
                            None => record.version(),
                        });
                if self.task.binding.credential.is_some() {
                    return self.spool(credential, offered, follows);
                }
                // A first login can be found before it is stored: a crash from here on leaves what the spool has taken.
                let act = self.bind(&credential);
                self.next(State::ExpectBound(credential, offered, follows), act)
            }
            (State::ExpectBound(credential, offered, follows), Answer::Done(bound)) => {
                self.findable = bound.is_ok();
                self.spool(credential, offered, follows)
            }
            (State::ExpectSpooled(credential, offered), Answer::Done(spooled)) => {
                self.findable &= spooled.is_ok();
                let in_force = self.task.binding.credential.as_ref();
                if in_force.is_some_and(|key| *key != credential.key) && self.findable {
                    // The login at another issuer is not lost any more: so it takes the place of the one that is in force.
                    let act = self.bind(&credential);
                    return self.next(State::ExpectMoved(credential, offered), act);
                }
                self.lease(credential, offered)
            }
            (State::ExpectMoved(credential, offered), Answer::Done(bound)) => {
                self.findable = bound.is_ok();
                self.lease(credential, offered)
            }
            (State::ExpectLease(credential, offered), Answer::Locked(_)) => {
                // A login never loses: where the lock cannot be had, the commit itself still settles who came last.
                self.commit(credential, offered, now)
            }
            (State::ExpectCommit(credential, offered), Answer::Committed(committed)) => {
                self.committed(credential, offered, committed)
            }
            (State::ExpectUnlock(Ok(done)), Answer::Done(_)) => self.teach(done),
            (State::ExpectUnlock(Err(error)), Answer::Done(_)) => Turn::Done(Err(error)),
            (State::ExpectLearned(done), Answer::Done(_)) => self.tell(done, now),
            (State::ExpectClosed(error), Answer::Done(_)) => Turn::Done(Err(error)),
            _ => Turn::Done(Err(Error::Bug {
                what: "login: an answer that nothing waits for",
            })),
        }
    }
}

/// Random bytes for one more use, that tell nothing of those they come from.
fn derived(what: &str, seed: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(what);
    hash.update(seed);
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
