//! One grant without a person: what is needed is read, looked at, and sent; once, whatever comes of it.
//!
//! ```text
//!  client credentials:                                             -> token
//!  workload:            read the JWT -> does it fit? ------------- -> token
//!  enterprise:          read the identity -> exchange at the identity provider -> token
//! ```
//!
//! There is no second try here and no other grant (EXT-41): what was refused stays refused until something changes, and
//! what was lost is asked for again after a pause, since nothing that is sent can be spent.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::{
    dpop::ProofKey,
    error::{Error, Waited},
    exchange::{Exchange, Exchanged, Fault, Leg},
    flow::{Act, Answer, Flow, Step, Turn},
    grant::{Grant, token_request},
    issuer::Issuer,
    registration::Client,
    scope::Scopes,
    secret::Assertion,
    time::{Mono, Now},
    token::{TokenAnswer, Verdict},
    unattended::{
        IdentityProvider, Unattended, check_subject, check_workload, digest, read_id_jag,
    },
};

/// What is wanted, of whom.
#[derive(Debug, Clone)]
pub(in crate::flow) struct Wanted {
    pub(in crate::flow) grant: Unattended,
    pub(in crate::flow) client: Client,
    /// The name that the issuer goes by: what is shown to it is made out to that.
    pub(in crate::flow) issuer: Issuer,
    pub(in crate::flow) token_endpoint: url::Url,
    pub(in crate::flow) resource: Option<String>,
    pub(in crate::flow) scopes: Scopes,
    pub(in crate::flow) proof_key: Option<ProofKey>,
    /// The assertions that are never shown again.
    pub(in crate::flow) refused: Vec<[u8; 32]>,
}

/// Tokens, and when the request for them left.
#[derive(Debug)]
pub(in crate::flow) struct Obtained {
    pub(in crate::flow) answer: TokenAnswer,
    pub(in crate::flow) sent_at: Now,
}

/// No tokens.
#[derive(Debug)]
pub(in crate::flow) struct NotObtained {
    pub(in crate::flow) error: Error,
    /// The pause that the issuer asks for.
    pub(in crate::flow) retry_after: Option<Duration>,
    /// How many requests left.
    pub(in crate::flow) calls: u32,
    /// The assertion that must be another one before this can end well.
    pub(in crate::flow) refused: Option<[u8; 32]>,
}

/// The flow. See the [module](self).
#[derive(Debug)]
pub(in crate::flow) struct Obtain {
    wanted: Wanted,
    state: State,
    /// What was read, by its digest.
    shown: Option<[u8; 32]>,
    calls: u32,
    /// When all of it must have come to an end.
    until: Mono,
}

#[derive(Debug)]
enum State {
    Ready,
    ExpectSecret,
    ExpectAssertion,
    ExpectToken,
}

impl Obtain {
    pub(in crate::flow) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            state: State::Ready,
            shown: None,
            calls: 0,
            until: Mono(0),
        }
    }

    fn read(mut self, secret: &Zeroizing<String>, now: Now) -> Turn<Self> {
        self.shown = Some(digest(secret));
        let refused = &self.wanted.refused;
        let Ok(assertion) = Assertion::new((**secret).clone()) else {
            return self.bug();
        };
        match self.wanted.grant.clone() {
            Unattended::ClientCredentials => self.bug(),
            Unattended::Workload { token } => {
                let issuer = &self.wanted.issuer;
                match check_workload(secret, &token, issuer, refused, now.wall) {
                    Ok(()) => self.show(&assertion, now),
                    Err(error) => self.unfit(error),
                }
            }
            Unattended::Enterprise(provider) => {
                match check_subject(secret, &provider, refused, now.wall) {
                    Ok(()) => self.exchange(&provider, &assertion, now),
                    Err(error) => self.unfit(error),
                }
            }
        }
    }

    /// Exchanges an identity for an assertion, at the provider that it comes from (EXT-20). No proof goes along: the assertion
    /// is for another issuer, and no token of ours.
    fn exchange(self, provider: &IdentityProvider, subject: &Assertion, now: Now) -> Turn<Self> {
        let grant = Grant::TokenExchange {
            subject,
            subject_type: &provider.subject_type,
            audience: &self.wanted.issuer,
            scope: Some(&self.wanted.scopes),
        };
        let form = token_request(
            &grant,
            &provider.client,
            &provider.issuer,
            self.wanted.resource.as_deref(),
        );
        let endpoint = provider.token_endpoint.clone();
        let exchange = Exchange::form(Leg::Token, endpoint, "idp_token_endpoint", form);
        self.send(exchange, State::ExpectAssertion, now)
    }

    fn exchanged(self, exchanged: &Exchanged, now: Now) -> Turn<Self> {
        match exchanged {
            Ok(reply) if (200..=299).contains(&reply.status) => {
                match read_id_jag(reply, &self.wanted.issuer) {
                    Ok(assertion) => self.show(&assertion, now),
                    Err(error) => self.fail(error, None, None),
                }
            }
            _ => {
                let shown = self.shown;
                self.judge(Verdict::of(exchanged), exchanged, shown)
            }
        }
    }

    /// Shows an assertion to the server's own issuer (RFC 7523 section 2.1, EXT-21, EXT-40).
    fn show(self, assertion: &Assertion, now: Now) -> Turn<Self> {
        let scope = Some(&self.wanted.scopes);
        let grant = Grant::JwtBearer { assertion, scope };
        let exchange = self.token_call(&grant);
        self.send(exchange, State::ExpectToken, now)
    }

    fn token_call(&self, grant: &Grant<'_>) -> Exchange {
        let wanted = &self.wanted;
        let form = token_request(
            grant,
            &wanted.client,
            &wanted.issuer,
            wanted.resource.as_deref(),
        );
        let endpoint = wanted.token_endpoint.clone();
        let mut exchange = Exchange::form(Leg::Token, endpoint, "token_endpoint", form);
        exchange.orders.proof.clone_from(&wanted.proof_key);
        exchange
    }

    /// Sends within what is left of the time: others wait for the lease, and for no longer than that.
    fn send(mut self, mut exchange: Exchange, state: State, now: Now) -> Turn<Self> {
        let left = now.mono.until(self.until);
        if left < SHORTEST_CALL {
            let (waited_for, limit) = (Waited::Answer, LONGEST);
            return self.fail(Error::Timeout { waited_for, limit }, None, None);
        }
        exchange.within = exchange.within.min(left);
        self.calls += 1;
        self.next(state, Act::Send(Box::new(exchange)))
    }

    fn answered(self, exchanged: &Exchanged) -> Turn<Self> {
        // An assertion that the provider made for this one call is no reason to distrust the identity behind it.
        let shown = match self.wanted.grant {
            Unattended::Workload { .. } => self.shown,
            _ => None,
        };
        self.judge(Verdict::of(exchanged), exchanged, shown)
    }

    fn judge(
        mut self,
        verdict: Verdict,
        exchanged: &Exchanged,
        shown: Option<[u8; 32]>,
    ) -> Turn<Self> {
        let sent_at = exchanged
            .as_ref()
            .map_or_else(|failure| failure.sent_at, |reply| reply.sent_at);
        if matches!(exchanged, Err(failure) if matches!(failure.fault, Fault::Unsigned(_))) {
            self.calls -= 1;
        }
        match verdict {
            Verdict::Granted(answer) => {
                // Nothing here needs one, and what is not stored cannot leak (I-6 is about logins that live by one).
                let answer = TokenAnswer {
                    refresh_token: None,
                    ..*answer
                };
                Turn::Done(Ok(Obtained { answer, sent_at }))
            }
            Verdict::NotDelivered { error, retry_after } => self.fail(error, retry_after, None),
            Verdict::Ambiguous { error, .. } => self.fail(error, None, None),
            Verdict::InvalidGrant { .. } => self.refused("invalid_grant".into(), shown),
            // Of the client, of its scopes or of a proof: nothing is said about what was shown beside them.
            Verdict::InvalidClient => self.refused("invalid_client".into(), None),
            Verdict::Refused { error } => self.refused(error, None),
        }
    }

    fn refused(self, error: String, shown: Option<[u8; 32]>) -> Turn<Self> {
        self.fail(Error::refused(error), None, shown)
    }

    /// What was read is of no use now: nothing was sent. It may be of use later, where only our clock was wrong.
    fn unfit(self, error: Error) -> Turn<Self> {
        self.fail(error, None, None)
    }

    fn fail(
        self,
        error: Error,
        retry_after: Option<Duration>,
        refused: Option<[u8; 32]>,
    ) -> Turn<Self> {
        Turn::Done(Err(NotObtained {
            error,
            retry_after,
            calls: self.calls,
            refused,
        }))
    }

    fn bug(self) -> Turn<Self> {
        let what = "unattended: an answer that nothing waits for";
        self.fail(Error::Bug { what }, None, None)
    }

    fn next(self, state: State, act: Act) -> Turn<Self> {
        Turn::Next(Self { state, ..self }, Step::act(act))
    }
}

impl Flow for Obtain {
    type Outcome = Result<Obtained, NotObtained>;

    fn start(mut self, now: Now) -> Turn<Self> {
        self.until = now.mono + LONGEST;
        match self.wanted.grant.subject().cloned() {
            Some(reference) => self.next(State::ExpectSecret, Act::ReadSecret(reference)),
            None => {
                let scope = Some(&self.wanted.scopes);
                let exchange = self.token_call(&Grant::ClientCredentials { scope });
                self.send(exchange, State::ExpectToken, now)
            }
        }
    }

    fn handle(mut self, answer: Answer, now: Now) -> Turn<Self> {
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, answer) {
            (State::ExpectSecret, Answer::Secret(Ok(secret))) => self.read(&secret, now),
            (State::ExpectSecret, Answer::Secret(Err(error))) => self.fail(error, None, None),
            (State::ExpectAssertion, Answer::Exchanged(exchanged)) => {
                self.exchanged(&exchanged, now)
            }
            (State::ExpectToken, Answer::Exchanged(exchanged)) => self.answered(&exchanged),
            _ => self.bug(),
        }
    }
}

/// For so long all of it may hold the lease: others wait for that for 75 s, and the commit takes its time.
const LONGEST: Duration = Duration::from_secs(72);

/// What has less left is not sent: it would only be given up.
const SHORTEST_CALL: Duration = Duration::from_secs(1);
