//! Step-up: a server wants more scopes than a login has (RFC 6750 section 3.1, AUTH-54 to AUTH-58).
//!
//! ```text
//!  403 insufficient_scope -> no login? login.never: only `login` starts a first one
//!      -> has somebody got more meanwhile? repeat with that
//!      -> asked for the same too often? denied.by_resource
//!      -> nobody to ask, or asked too often? login.scope, with what to run
//!      -> the login lock -> all of that again: another's login may have ended meanwhile; its failure is the answer
//!      -> a login with the scopes requested so far and those challenged -> repeat
//! ```
//!
//! What was asked of people is kept beside the outcome of the last login: what belongs to a login ends with it, and a
//! step-up is a new login. What the store could not take is kept in memory.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use pilotlight_core::{
    Error,
    challenge::Demand,
    credential::{Credential, Version},
    error::{Action, LoginCause, Waited},
    registration::ClientSource,
    scope::Scopes,
    time::{Mono, Now, Wall},
};
use url::Url;

use crate::{
    cell::{Cell, lock},
    config::LoginRequest,
    flight::Deadline,
    login::told,
    session::Next,
    sessions::Sessions,
    store::{Authorization, LoginOutcome},
};

/// What people were asked for, as far as the store does not tell.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The last step-up of this process that failed.
    failed: Option<Failed>,
    /// What no store has taken note of.
    unnoted: Vec<Authorization>,
}

/// A step-up that failed: the answer for every request that waited for it.
#[derive(Debug)]
struct Failed {
    at: Mono,
    scopes: Scopes,
    error: Error,
}

/// What a request that met a 403 wants.
#[derive(Debug)]
struct Want {
    /// The token that was refused; nothing where the request went out bare.
    refused: Option<Version>,
    scopes: Scopes,
    asked_at: Now,
}

impl Cell {
    /// A 403: more scopes are wanted, or the answer is the server's own affair.
    pub(crate) async fn forbidden(
        self: &Arc<Self>,
        refused: Option<Version>,
        headers: &HeaderMap,
    ) -> Next {
        let demand = Demand::from_headers(headers);
        if demand.error.as_deref() != Some("insufficient_scope") {
            return Next::Done;
        }
        let want = Want {
            refused,
            scopes: demand.scope.unwrap_or_default(),
            asked_at: self.inner.clock.now(),
        };
        match self.step_up(&want).await {
            Ok(()) => Next::Retry,
            Err(error) => {
                if self.credential().is_err() {
                    self.unanswered(refused, headers);
                }
                Next::Stop(error)
            }
        }
    }

    async fn step_up(self: &Arc<Self>, want: &Want) -> Result<(), Error> {
        let by = self.deadline();
        // Who is not to be asked does not wait for the lock.
        let Some(request) = self.ruled(want, by).await? else {
            return Ok(());
        };
        let sessions = Sessions {
            inner: self.inner.clone(),
        };
        let id = self.inner.store.binding_id(&self.binding().key);
        let patience = if self.inner.human.refuses() {
            self.inner.limits.lock_wait
        } else {
            request.timeout
        };
        let lease = sessions.login_lock(id, patience, by).await?;
        // While this one waited a person may have been asked: what was true before need not be so any more.
        let by = self.deadline();
        let request = match self.ruled(want, by).await {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) => {
                // The others need not find out one by one that the store stands still.
                if error.action() == Action::RetryLater {
                    self.step_up_failed(&want.scopes, &error);
                }
                return Err(error);
            }
        };
        let done = Box::pin(sessions.ask(request, lease, None, Some(by))).await?;
        match self.load_by(self.deadline()).await {
            Err(error) if !matches!(error, Error::LoginRequired { .. }) => {
                tracing::warn!(
                    code = error.code(),
                    "a new login is used that could not be read back"
                );
                self.take_over_login(done.credential);
                Ok(())
            }
            read => read,
        }
    }

    /// What to ask the person for; nothing where there is more than the request was refused with.
    async fn ruled(
        self: &Arc<Self>,
        want: &Want,
        by: Deadline,
    ) -> Result<Option<LoginRequest>, Error> {
        match self.load_by(by).await {
            Ok(()) | Err(Error::LoginRequired { .. }) => {}
            // Nothing is known of what others were granted, or of what people were asked for.
            Err(error) => return Err(error),
        }
        let credential = self.credential()?;
        if credential.is_static() {
            // Nobody could be asked for more: somebody has to bring another key.
            return Err(Error::login(LoginCause::StaticTokenRefused));
        }
        let requested = &credential.scopes_requested;
        let covered = requested.covers(&want.scopes);
        if Some(credential.version) != want.refused && covered {
            return Ok(None);
        }
        let key = self.binding().key;
        let store = &self.inner.store;
        let stored = store.login_outcome(store.binding_id(&key));
        let stored = by.limit(Waited::Store, stored).await?;
        let asked = self.with_unnoted(stored.unwrap_or_default());
        let now = self.inner.clock.now().wall;
        let tell = || {
            let scopes = requested.union(&want.scopes);
            let scopes = scopes.iter().map(str::to_owned).collect();
            Error::login(LoginCause::Scope { scopes })
        };
        if let Some(error) = self.failed_since(want) {
            return Err(error);
        }
        if let Some((code, scopes)) = failed_elsewhere(&asked, want, now) {
            let told = told::again(code, scopes, &credential.key.issuer);
            return Err(told.unwrap_or_else(tell));
        }
        // Where the grant needs no person, nobody is asked but the issuer.
        let human = credential.unattended.is_some() || !self.inner.human.refuses();
        match rule(&asked, &want.scopes, covered, human, now) {
            Ruling::Ask => Ok(Some(self.request(&credential, &want.scopes))),
            Ruling::Denied => Err(Error::DeniedByResource),
            Ruling::Refused => Err(Error::DeniedByHuman),
            Ruling::Tell => Err(tell()),
        }
    }

    /// A login as the same client, which asks for all that was requested so far too (AUTH-57).
    fn request(&self, credential: &Credential, wanted: &Scopes) -> LoginRequest {
        let key = self.binding().key;
        let mut request = LoginRequest::new(key.url.clone(), key.account.clone());
        request.unattended.clone_from(&credential.unattended);
        let client = &credential.client;
        match client.source {
            // Without a person there is no registration to find: the client was given.
            _ if request.unattended.is_some() => request.client = Some(client.clone()),
            ClientSource::PreRegistered => request.client = Some(client.clone()),
            ClientSource::MetadataDocument => {
                request.client_metadata_url = Url::parse(&client.id).ok();
                request.client_key.clone_from(&client.key);
            }
            // Registrations are found by their issuer.
            _ => {}
        }
        if let Some(last) = self.inner.last_request(&key) {
            request = request.asking_as(&last);
        }
        request.scopes = Some(credential.scopes_requested.union(wanted));
        // What was made without a key goes on so: a program may have the token as a header.
        request.bearer = credential.proof_key.is_none();
        request.step_up = true;
        request
    }

    /// Remembers a failure for those who wait: before they have the lock.
    pub(crate) fn step_up_failed(&self, scopes: &Scopes, error: &Error) {
        lock(&self.asked).failed = Some(Failed {
            at: self.inner.clock.now().mono,
            scopes: scopes.clone(),
            error: error.clone(),
        });
    }

    /// How a step-up of this process ended that a request has waited for.
    fn failed_since(&self, want: &Want) -> Option<Error> {
        let asked = lock(&self.asked);
        let failed = asked.failed.as_ref()?;
        let answers = failed.at > want.asked_at.mono && failed.scopes.covers(&want.scopes);
        answers.then(|| failed.error.clone())
    }

    /// Takes into account what the store could not take.
    pub(crate) fn with_unnoted(&self, mut stored: LoginOutcome) -> LoginOutcome {
        for one in &lock(&self.asked).unnoted {
            // A store that stood still may have gone through with it.
            if !stored.authorizations.contains(one) {
                stored.authorizations.push(one.clone());
            }
        }
        stored.authorizations.sort_by_key(|one| one.at);
        stored
    }

    /// The store has taken all there is to note, or not this one.
    pub(crate) fn noted(&self, unnoted: Option<Authorization>) {
        let mut asked = lock(&self.asked);
        match unnoted {
            None => asked.unnoted.clear(),
            Some(one) => {
                let lately = |old: &Authorization| old.at.until(one.at) < TEN_MINUTES;
                asked.unnoted.retain(lately);
                asked.unnoted.push(one);
            }
        }
    }
}

/// The code of a step-up of any process that failed while a request waited for it.
fn failed_elsewhere<'a>(
    asked: &'a LoginOutcome,
    want: &Want,
    now: Wall,
) -> Option<(&'a str, &'a Scopes)> {
    let answers = |one: &&Authorization| {
        one.step_up
            && one.at > want.asked_at.wall
            && one.at <= now
            && one.scopes.covers(&want.scopes)
    };
    let failed = asked.authorizations.iter().filter(answers);
    let mut codes = failed.filter_map(|one| Some((one.code.as_deref()?, &one.scopes)));
    codes.rfind(|(code, _)| *code != Authorization::LEFT)
}

/// What to do about scopes that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ruling {
    /// Ask the person.
    Ask,
    /// Do not ask: say what the person has to run.
    Tell,
    /// The scopes were granted, and the server refuses all the same.
    Denied,
    /// A person has just refused.
    Refused,
}

/// At most three authorizations for the same scopes in ten minutes, and three step-ups in all (AUTH-58, T-31); none for
/// anything after a refusal.
fn rule(asked: &LoginOutcome, wanted: &Scopes, covered: bool, human: bool, now: Wall) -> Ruling {
    // What lies in the future was written before the clock was set back, nobody knows when (F-19).
    let lately = |span| {
        asked
            .authorizations
            .iter()
            .filter(move |one| one.at <= now && one.at.until(now) < span)
    };
    let same = |one: &&Authorization| one.scopes.covers(wanted);
    let granted = |one: &Authorization| one.code.is_none();
    let refused = |one: &Authorization| one.code.as_deref() == Some("denied.by_human");
    let often = lately(TEN_MINUTES).filter(same).count() >= MOST;
    let in_vain = lately(TEN_MINUTES).filter(same).any(granted);
    if often && in_vain {
        return Ruling::Denied;
    }
    if lately(AFTER_REFUSAL).any(refused) {
        return Ruling::Refused;
    }
    let step_ups = lately(TEN_MINUTES).filter(|one| one.step_up).count();
    if human && !often && step_ups < MOST {
        return Ruling::Ask;
    }
    // To run the same login once more would help nobody.
    if covered && in_vain {
        return Ruling::Denied;
    }
    Ruling::Tell
}

const MOST: usize = 3;
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// For so long nobody is asked again after a refusal.
const AFTER_REFUSAL: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
