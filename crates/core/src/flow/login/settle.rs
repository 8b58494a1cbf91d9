//! From the code to a stored login: the exchange, its verdict, and the commit that never loses.

use std::time::Duration;

use crate::{
    credential::{Credential, Generation, Incarnation, Pins, TokenType, Version, presented},
    dpop::ProofKey,
    error::{Error, LoginCause},
    event::{Event, Happened},
    exchange::{Exchange, Exchanged, Leg},
    flow::{Act, Commit, Committed, Expects, Lock, Step, Turn},
    grant::{Grant, token_request},
    registration::ClientSource,
    secret::AuthorizationCode,
    time::{Mono, Now},
    token::{TokenAnswer, Verdict},
};

use super::{LoggedIn, Login, Request, State};

impl Login {
    pub(super) fn exchange(
        self,
        request: Box<Request>,
        code: AuthorizationCode,
        tries: u32,
    ) -> Turn<Self> {
        let grant = Grant::AuthorizationCode {
            code: &code,
            redirect_uri: &request.redirect_uri,
            verifier: &request.pkce.verifier,
        };
        let exchange = self.token_call(&request, &grant);
        self.next(
            State::ExpectToken(request, code, tries + 1),
            Act::Send(Box::new(exchange)),
        )
    }

    /// A request for tokens, as the client and with the proof of this login.
    pub(super) fn token_call(&self, request: &Request, grant: &Grant<'_>) -> Exchange {
        let form = token_request(
            grant,
            &request.client,
            request.discovered.server.name(),
            request.discovered.resource_parameter.as_deref(),
        );
        let endpoint = request.discovered.server.token_endpoint.clone();
        let mut exchange = Exchange::form(Leg::Token, endpoint, "token_endpoint", form);
        exchange.orders.proof = self.proof_key(request);
        exchange
    }

    /// The key to bind the tokens to, wherever the issuer can (EXT-30).
    pub(super) fn proof_key(&self, request: &Request) -> Option<ProofKey> {
        let binds = request.discovered.server.binds_tokens();
        self.task.proof_key.clone().filter(|_| binds)
    }

    pub(super) fn judge(
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
            Verdict::Refused { error } => self.fail(request.refused(error)),
            Verdict::InvalidClient => self.unknown_client(&request),
        }
    }

    /// The issuer does not know the client. What it gave it itself is forgotten, and another is registered and shown, once
    /// in a login (F-16).
    pub(super) fn unknown_client(mut self, request: &Request) -> Turn<Self> {
        if request.client.source != ClientSource::Dynamic {
            return self.fail(Error::DeniedByIssuer {
                error: "invalid_client".into(),
            });
        }
        if self.forgotten.is_some() {
            return self.fail(Error::login(LoginCause::RegistrationGone));
        }
        let act = self.forget(request);
        self.next(
            State::ExpectForgotten(Box::new(request.discovered.clone())),
            act,
        )
    }

    pub(super) fn pause(
        self,
        request: Box<Request>,
        code: AuthorizationCode,
        tries: u32,
        at: Mono,
    ) -> Turn<Self> {
        let state = State::ExpectPause(request, code, tries, at);
        Turn::Next(Self { state, ..self }, Step::wait_until(at))
    }

    pub(super) fn granted(
        mut self,
        request: &Request,
        answer: TokenAnswer,
        sent_at: Now,
    ) -> Turn<Self> {
        let proof_key = self.proof_key(request);
        let said = answer.token_type.unwrap_or(TokenType::Bearer);
        let token_type = presented(said, proof_key.as_ref());
        if request.discovered.dpop_required && token_type != TokenType::Dpop {
            // The server has said how much it wants them bound (RFC 9449 section 5).
            return self.fail(Error::NoDpop);
        }
        self.lesson(request, &answer, sent_at);
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
                called: server.called.clone(),
            },
            client: request.client.clone(),
            access_token: answer.access_token,
            token_type,
            proof_key,
            unattended: None,
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

    /// Names this login as the one in force.
    pub(super) fn bind(&self, credential: &Credential) -> Act {
        let binding = self.task.binding.moved_to(credential.key.clone());
        Act::PutBinding(Box::new(binding))
    }

    pub(super) fn lease(self, credential: Box<Credential>, offered: bool) -> Turn<Self> {
        let act = Act::Lock(Lock::Refresh(credential.key.clone()));
        self.next(State::ExpectLease(credential, offered), act)
    }

    pub(super) fn spool(
        self,
        credential: Box<Credential>,
        offered: bool,
        follows: Option<Version>,
    ) -> Turn<Self> {
        let act = Act::Spool {
            follows,
            credential: credential.clone(),
        };
        self.next(State::ExpectSpooled(credential, offered), act)
    }

    pub(super) fn commit(self, credential: Box<Credential>, offered: bool, now: Now) -> Turn<Self> {
        let happened = Happened::LoggedIn {
            issuer: credential.key.issuer.as_str().to_owned(),
            scopes: credential.scopes_granted.clone(),
            lifetime: credential.lifetime.map(crate::credential::Lifetime::span),
            refresh_token: credential.refresh_token.is_some(),
            former_issuer: self
                .former_issuer(&credential.key.issuer)
                .map(|former| former.as_str().to_owned()),
        };
        let commit = Commit {
            credential: (*credential).clone(),
            expects: Expects::Anything,
            binding: Some(self.task.binding.moved_to(credential.key.clone())),
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

    pub(super) fn committed(
        self,
        credential: Box<Credential>,
        offline_access_offered: bool,
        committed: Result<Committed, Error>,
    ) -> Turn<Self> {
        let lock = Lock::Refresh(credential.key.clone());
        let former_issuer = self.former_issuer(&credential.key.issuer);
        let done = match committed {
            Ok(Committed::Done { superseded }) => Ok(Box::new(LoggedIn {
                credential: *credential,
                superseded,
                offline_access_offered,
                former_issuer,
                learned: Vec::new(),
            })),
            Ok(Committed::Moved) => Err(Error::login(LoginCause::Never)),
            // The store refuses and the spool holds it: whoever refreshes it next brings it to the store (F-06).
            Err(_) if self.findable => Ok(Box::new(LoggedIn {
                credential: *credential,
                superseded: None,
                offline_access_offered,
                former_issuer,
                learned: Vec::new(),
            })),
            Err(error) => Err(error),
        };
        self.next(State::ExpectUnlock(done), Act::Unlock(lock))
    }
}

const TRIES: u32 = 3;

const LONGEST_PAUSE: Duration = Duration::from_secs(10);
