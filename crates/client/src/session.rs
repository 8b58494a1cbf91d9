//! One login kept alive in memory: a token when asked, a refresh when due, one retry after a 401.
//!
//! Every clone of a [`Session`] for the same server and account shares one slot, one copy of what is stored, and one
//! refresh in flight (F-02). A refresh runs in a task of its own: a caller that goes away does not cancel it (F-05).

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION, request::Parts};
use pilotlight_core::{
    Error,
    credential::{TokenType, Version},
    dpop::{PROOF_FIELD, Refused},
    error::LoginCause,
    flow::refresh::Gain,
    freshness::Freshness,
    memory::Want,
    resource::Resource,
    secret::AccessToken,
    time::Wall,
};
use url::Url;

use crate::{
    cell::Cell,
    config::Status,
    dpop::{self, Role},
    slot::{Proving, Slot},
};

/// A login kept alive. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) cell: Arc<Cell>,
    /// Whether requests go out without a token while there is no login.
    pub(crate) bare: bool,
    /// One more URL that the token may go to.
    pub(crate) endpoint: Option<Arc<http::Uri>>,
}

/// What an answer to a request means for the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Take the answer as it is.
    Done,
    /// Send the request once more: [`Session::authorize`] puts another token on it. Only for a body that can be replayed.
    Retry,
    /// Neither: a person or the caller must act.
    Stop(Error),
}

/// Which token went out with a request; hand it back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// `None` for a request that went out bare.
    version: Option<Version>,
    retried: bool,
    /// The proof that went with it, if the token needs one.
    proof: Option<SentProof>,
    /// Whether a proof for this request was made anew already.
    mended: bool,
}

/// What matters of a proof when the server refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SentProof {
    /// By how much the server's clock was thought to be ahead, in milliseconds.
    ahead: i64,
}

impl Sent {
    /// Marks the token of a request that is being sent for the second time: there will be no third, whatever the reason of
    /// the second was. [`Sent::after`] knows more.
    #[must_use]
    pub fn again(self) -> Self {
        Self {
            retried: true,
            mended: true,
            ..self
        }
    }

    /// Marks the token of a request that repeats `before`, which was answered like that: where only the proof was refused,
    /// the one repeat of a refused token is still to come (RFC 9449 section 9).
    #[must_use]
    pub fn after(self, before: &Self, status: StatusCode, answer: &HeaderMap) -> Self {
        let mends = before.refused_proof(status, answer).is_some();
        Self {
            retried: before.retried || !mends,
            mended: before.mended || mends,
            ..self
        }
    }

    /// How the server refused the proof, if it did.
    fn refused_proof(&self, status: StatusCode, answer: &HeaderMap) -> Option<Refused> {
        self.proof?;
        Refused::by_resource(answer).filter(|_| status == StatusCode::UNAUTHORIZED)
    }
}

/// An access token, handed out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Token {
    /// The token.
    pub access_token: AccessToken,
    /// How it is presented: one that is bound to a key is of use only to [`Session::authorize`].
    pub token_type: TokenType,
    /// When it ends, where that is known.
    pub expires_at: Option<Wall>,
    /// Why a refresh that would have been better did not work.
    pub warning: Option<Error>,
}

/// What asking for a refresh came to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RefreshReport {
    /// Whether a new token was made, or adopted from another process.
    pub refreshed: bool,
    /// Where the login stands now.
    pub status: Status,
}

impl Session {
    /// The server, as configured.
    #[must_use]
    pub fn url(&self) -> Resource {
        self.cell.binding().key.url
    }

    /// A session for the endpoint that the server itself has named for its messages (HTTP+SSE of 2024-11-05), which need not
    /// lie below its URL. The token goes to nobody else: the endpoint is of the same origin (AUTH-82, TR-52).
    ///
    /// # Errors
    /// `peer.metadata_invalid` for an endpoint of another origin, with a user name in it, or that cannot be requested.
    pub fn at(&self, endpoint: &Url) -> Result<Self, Error> {
        let bad = |why| Error::MetadataInvalid {
            document: "HTTP+SSE stream",
            field: "endpoint",
            why,
        };
        let origin = endpoint.origin();
        if !origin.is_tuple() || origin != self.cell.url.url().origin() {
            return Err(bad("it is of another origin than the server"));
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            return Err(bad("there is a user name or a password in it"));
        }
        let uri: http::Uri = endpoint
            .as_str()
            .parse()
            .map_err(|_| bad("it is no URL that can be requested"))?;
        Ok(Self {
            endpoint: Some(Arc::new(uri)),
            ..self.clone()
        })
    }

    /// Gives the value of an `Authorization` header. While the token is fresh no await point is hit.
    ///
    /// # Errors
    /// `config.proof_needed` for a token that is of no use without a proof for each request: [`Session::authorize`] makes
    /// them. `login.*` where a person must act; `unavailable.timeout` where an ended token was not replaced, or the store read, in
    /// time ([`Limits::caller_wait`](crate::Limits)).
    pub async fn header(&self) -> Result<HeaderValue, Error> {
        self.cell.in_use();
        if let Some(header) = self.ready() {
            return Ok(header);
        }
        let slot = self.usable().await?;
        match slot.proof {
            Some(_) => Err(Error::ConfigProofNeeded),
            None => Ok(slot.header.clone()),
        }
    }

    /// Gives the header at once if the token is fresh and needs no proof: one atomic load and one clone.
    #[must_use]
    pub fn ready(&self) -> Option<HeaderValue> {
        self.cell.slot.quiet(&self.cell.inner.coarse)
    }

    /// Makes sure that the token is usable, so that the next request does not wait for a refresh. Without a login there is
    /// nothing to prepare, if the session may do [without](crate::Sessions::open).
    ///
    /// # Errors
    /// Those of [`Session::header`].
    pub async fn prepare(&self) -> Result<(), Error> {
        self.slot().await.map(drop)
    }

    /// The slow path, and why a login that has ended did.
    async fn usable(&self) -> Result<Arc<Slot>, Error> {
        let by = self.cell.deadline();
        match Box::pin(self.cell.usable(by)).await {
            Ok(slot) => Ok(slot),
            Err(error) => Err(self.cell.explained(error, None, by).await),
        }
    }

    /// What to put on a request; `None` where it goes out bare.
    async fn slot(&self) -> Result<Option<Arc<Slot>>, Error> {
        if let Some(slot) = self.cell.slot.load()
            && slot.is_quiet(self.cell.inner.coarse.now())
        {
            return Ok(Some(slot));
        }
        match self.usable().await {
            Ok(slot) => Ok(Some(slot)),
            Err(error) if self.bare && is_never(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts the token on a request (RFC 6750 section 2.1), with a proof for just this request where the token is bound to a
    /// key (RFC 9449 section 7.1), in the place of any that the caller has put there. Call it for each sending. A request that the login's resource does not cover is refused.
    /// Without a login the request stays as it is, if the session may do [without](crate::Sessions::open).
    ///
    /// # Errors
    /// Those of [`Session::header`]; `config.url` for a request to another place (T-24).
    pub async fn authorize(&self, request: &mut Parts) -> Result<Sent, Error> {
        self.cell.in_use();
        if self.endpoint.as_deref() != Some(&request.uri) {
            self.cell.covers(request)?;
        }
        let slot = self.slot().await?;
        let mut proof = None;
        if let Some(slot) = &slot {
            if let Some(proving) = &slot.proof {
                proof = Some(self.prove(proving, request)?);
            }
            request.headers.insert(AUTHORIZATION, slot.header.clone());
        }
        Ok(Sent {
            version: slot.map(|slot| slot.version),
            retried: false,
            proof,
            mended: false,
        })
    }

    /// Puts a proof on a request.
    fn prove(&self, proving: &Proving, request: &mut Parts) -> Result<SentProof, Error> {
        let inner = &self.cell.inner;
        let url = Url::parse(&request.uri.to_string()).map_err(|_| Error::Bug {
            what: "dpop: a request without a URL",
        })?;
        let peer = inner.peers.of(Role::Resource, &url.origin());
        let now = inner.clock.now().wall;
        let proof = proving.header(&request.method, &url, &peer, now)?;
        request.headers.insert(PROOF_FIELD, proof);
        Ok(SentProof { ahead: peer.ahead })
    }

    /// What the server says about the proof: `None` where it has nothing against it.
    fn proof_answered(
        &self,
        sent: &Sent,
        proof: SentProof,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Next> {
        let inner = &self.cell.inner;
        let at = self.cell.url.url().origin();
        let now = inner.clock.now().wall;
        let told = inner.peers.learn(Role::Resource, &at, headers, now);
        let refused = sent.refused_proof(status, headers)?;
        let mendable = dpop::may_be_mended(refused, headers, proof.ahead, told.ahead);
        Some(if mendable && !sent.mended {
            Next::Retry
        } else {
            Next::Stop(Error::ProofRefused)
        })
    }

    /// Says what an answer means. On a 401 it brings a newer token if there is one, else refreshes, once.
    ///
    /// Call it with every answer: acceptance is how a fresh token is told from one that the server refuses.
    /// A repeat is marked by [`Sent::after`].
    pub async fn answered(&self, sent: &Sent, status: StatusCode, headers: &HeaderMap) -> Next {
        if let Some(proof) = sent.proof
            && let Some(next) = self.proof_answered(sent, proof, status, headers)
        {
            return next;
        }
        match status {
            StatusCode::UNAUTHORIZED => {
                let by = self.cell.deadline();
                let next = match sent.retried {
                    true => Next::Stop(Error::DeniedByResource),
                    false => Box::pin(self.cell.refused(sent.version, by)).await,
                };
                let next = match next {
                    Next::Stop(error) => {
                        Next::Stop(self.cell.explained(error, Some(headers), by).await)
                    }
                    next => next,
                };
                if matches!(next, Next::Stop(Error::LoginRequired { .. })) {
                    self.cell.unanswered(sent.version, headers);
                }
                next
            }
            StatusCode::FORBIDDEN => Box::pin(self.cell.forbidden(sent.version, headers)).await,
            status if status.is_success() => {
                if let Some(version) = sent.version {
                    self.cell.accepted(version);
                }
                Next::Done
            }
            _ => Next::Done,
        }
    }

    /// Gives a token with at least `min_valid` left (default: the smaller of 60 s and a quarter of its life).
    ///
    /// With less it refreshes first; if that fails, or the store cannot be read, while the token is still valid, the token
    /// comes with a warning.
    ///
    /// # Errors
    /// Those of [`Session::header`].
    pub async fn token(&self, min_valid: Option<Duration>) -> Result<Token, Error> {
        let by = self.cell.deadline();
        let mut warning = self.cell.look_by(by).await?;
        let now = self.cell.inner.clock.now();
        let credential = self.cell.credential()?;
        let left = credential.expires_in(now);
        let wanted = min_valid.unwrap_or_else(|| {
            let life = credential.lifetime.map_or(
                Duration::from_secs(240),
                pilotlight_core::credential::Lifetime::span,
            );
            Duration::from_secs(60).min(life / 4)
        });
        if left.is_some_and(|left| left < wanted) || credential.received_at.is_none() {
            let ended = left.is_some_and(|left| left.is_zero());
            let gained = self
                .cell
                .join(
                    Want {
                        asked: true,
                        refused: None,
                    },
                    by,
                )
                .await;
            match gained {
                Ok(_) => {}
                Err(error) if ended => return Err(self.cell.explained(error, None, by).await),
                Err(error) => warning = Some(error),
            }
        }
        let credential = self.cell.credential()?;
        let now = self.cell.inner.clock.now();
        Ok(Token {
            expires_at: credential.expires_in(now).map(|left| now.wall + left),
            access_token: credential.access_token,
            token_type: credential.token_type,
            warning,
        })
    }

    /// Refreshes what is due; with `force` also what is not.
    ///
    /// # Errors
    /// `login.*` where a person must act, `unavailable.*` where the issuer cannot be reached.
    pub async fn refresh(&self, force: bool) -> Result<RefreshReport, Error> {
        let by = self.cell.deadline();
        self.cell.load_by(by).await?;
        let now = self.cell.inner.clock.now();
        let fresh = matches!(
            self.cell
                .credential()?
                .freshness(now, self.cell.inner.limits.policy),
            Freshness::Fresh { .. }
        );
        let mut refreshed = false;
        if force || !fresh {
            let want = Want {
                asked: force,
                refused: None,
            };
            let gain = match self.cell.join(want, by).await {
                Ok(gain) => gain,
                Err(error) => return Err(self.cell.explained(error, None, by).await),
            };
            refreshed = matches!(gain, Gain::Refreshed | Gain::Adopted);
        }
        Ok(RefreshReport {
            refreshed,
            status: self.status().await?,
        })
    }

    /// Says where the login stands, as stored now.
    ///
    /// # Errors
    /// `unavailable.store`, `store.corrupt`.
    pub async fn status(&self) -> Result<Status, Error> {
        let binding = self.cell.binding();
        self.cell.inner.status(&binding).await
    }
}

/// Whether nobody is logged in.
pub(crate) fn is_never(error: &Error) -> bool {
    matches!(error, Error::LoginRequired { cause } if *cause == LoginCause::Never)
}
