//! Step-up: a server wants more scopes than a login has (RFC 6750 section 3.1, AUTH-54 to AUTH-58).
//!
//! ```text
//!  403 insufficient_scope -> has somebody got more meanwhile? repeat with that
//!      -> asked for the same too often? denied.by_resource
//!      -> nobody to ask, or asked too often? login.scope, with what to run
//!      -> a login with the scopes requested so far and those challenged -> repeat
//! ```
//!
//! What was asked of people is kept beside the outcome of the last login: what belongs to a login ends with it, and a
//! step-up is a new login.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use pilotlight_core::{
    Error,
    challenge::Demand,
    credential::{Credential, Version},
    error::LoginCause,
    registration::ClientSource,
    scope::Scopes,
    time::Wall,
};
use url::Url;

use crate::{
    cell::Cell,
    config::LoginRequest,
    session::Next,
    sessions::Sessions,
    store::{Authorization, LoginOutcome},
};

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
        match self
            .step_up(refused, demand.scope.unwrap_or_default())
            .await
        {
            Ok(()) => Next::Retry,
            Err(error) => Next::Stop(error),
        }
    }

    async fn step_up(
        self: &Arc<Self>,
        refused: Option<Version>,
        wanted: Scopes,
    ) -> Result<(), Error> {
        let by = self.deadline();
        if let Err(error) = self.load_by(by).await {
            tracing::debug!(code = error.code(), "no newer login was looked for");
        }
        let credential = self.credential().ok();
        let requested = credential
            .as_ref()
            .map(|credential| credential.scopes_requested.clone())
            .unwrap_or_default();
        let version = credential.as_ref().map(|credential| credential.version);
        let covered = requested.covers(&wanted);
        if version != refused && covered {
            return Ok(());
        }
        let key = self.binding().key;
        let store = &self.inner.store;
        let asked = store.login_outcome(store.binding_id(&key)).await?;
        let now = self.inner.clock.now().wall;
        // Where the grant needs no person, nobody is asked but the issuer.
        let alone = credential
            .as_ref()
            .is_some_and(|credential| credential.unattended.is_some());
        let human = alone || !self.inner.human.refuses();
        match rule(&asked.unwrap_or_default(), &wanted, covered, human, now) {
            Ruling::Ask => {}
            Ruling::Denied => return Err(Error::DeniedByResource),
            Ruling::Refused => return Err(Error::DeniedByHuman),
            Ruling::Tell => {
                let scopes = requested.union(&wanted);
                return Err(Error::login(LoginCause::Scope {
                    scopes: scopes.iter().map(str::to_owned).collect(),
                }));
            }
        }
        let last = self.inner.last_request(&key);
        let request = LoginRequest {
            scopes: Some(requested.union(&wanted)),
            refused,
            step_up: true,
            ..last.unwrap_or_else(|| as_before(self, credential.as_ref()))
        };
        let sessions = Sessions {
            inner: self.inner.clone(),
        };
        sessions.login(request).await?;
        self.load().await
    }
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

/// At most three authorizations for the same scopes in ten minutes, and three step-ups in all (AUTH-58, T-31).
fn rule(asked: &LoginOutcome, wanted: &Scopes, covered: bool, human: bool, now: Wall) -> Ruling {
    let lately = |span| {
        asked
            .authorizations
            .iter()
            .filter(move |one| one.at.until(now) < span)
    };
    let same = |one: &&Authorization| one.scopes.covers(wanted);
    let granted = |one: &&Authorization| one.code.is_none();
    let refused = |one: &&Authorization| one.code.as_deref() == Some("denied.by_human");
    if lately(TEN_MINUTES).filter(same).count() >= MOST {
        return Ruling::Denied;
    }
    if lately(AFTER_REFUSAL).filter(same).any(|one| refused(&one)) {
        return Ruling::Refused;
    }
    let step_ups = lately(TEN_MINUTES).filter(|one| one.step_up).count();
    if human && step_ups < MOST {
        return Ruling::Ask;
    }
    // To run the same login once more would help nobody.
    if covered && lately(TEN_MINUTES).filter(same).any(|one| granted(&one)) {
        return Ruling::Denied;
    }
    Ruling::Tell
}

/// A login as the same client.
fn as_before(cell: &Cell, credential: Option<&Credential>) -> LoginRequest {
    let key = cell.binding().key;
    let mut request = LoginRequest::new(key.url, key.account);
    request.unattended = credential.and_then(|credential| credential.unattended.clone());
    if let Some(client) = credential.map(|credential| &credential.client) {
        match client.source {
            ClientSource::PreRegistered => request.client = Some(client.clone()),
            ClientSource::MetadataDocument => {
                request.client_metadata_url = Url::parse(&client.id).ok();
            }
            // Registrations are found by their issuer.
            _ => {}
        }
    }
    request
}

const MOST: usize = 3;
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// For so long nobody is asked again for what was refused.
const AFTER_REFUSAL: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn one(scopes: &str, ago: u64, code: Option<&str>, step_up: bool) -> Authorization {
        Authorization {
            scopes: Scopes::parse(scopes),
            at: Wall(NOW.0 - ago * 1000),
            code: code.map(str::to_owned),
            step_up,
        }
    }

    const NOW: Wall = Wall(10_000_000);

    fn ruled(asked: Vec<Authorization>, wanted: &str, covered: bool, human: bool) -> Ruling {
        let asked = LoginOutcome {
            authorizations: asked,
            ..LoginOutcome::default()
        };
        rule(&asked, &Scopes::parse(wanted), covered, human, NOW)
    }

    /// AUTH-58, T-31: three authorizations for the same scopes in ten minutes, the first login among them; then it is the
    /// server that refuses.
    #[test]
    fn the_same_scopes_are_asked_for_three_times() {
        let login = one("a", 300, None, false);
        let step = |ago| one("a", ago, None, true);
        assert_eq!(ruled(vec![login.clone()], "a", true, true), Ruling::Ask);
        let two = vec![login.clone(), step(200)];
        assert_eq!(ruled(two, "a", true, true), Ruling::Ask);
        let three = vec![login.clone(), step(200), step(100)];
        assert_eq!(ruled(three.clone(), "a", true, true), Ruling::Denied);
        assert_eq!(ruled(three, "b", false, true), Ruling::Ask, "another scope");
        let old = vec![one("a", 601, None, false), step(700), step(100)];
        assert_eq!(ruled(old, "a", true, true), Ruling::Ask);
    }

    /// T-31: a server that wants another scope each time gets three prompts in ten minutes; then a person has to begin.
    #[test]
    fn new_scopes_without_end_are_three_prompts() {
        let asked = |n| {
            let all = ["a", "a b", "a b c", "a b c d"];
            all.iter()
                .take(n)
                .map(|scopes| one(scopes, 60, None, true))
                .collect()
        };
        assert_eq!(ruled(asked(2), "c", false, true), Ruling::Ask);
        assert_eq!(ruled(asked(3), "d", false, true), Ruling::Tell);
    }

    /// AUTH-56: without a person the command is told, unless it was run in vain.
    #[test]
    fn without_a_person_the_command_is_told_once() {
        assert_eq!(ruled(vec![], "a", false, false), Ruling::Tell);
        let ran = vec![one("a b", 30, None, false)];
        assert_eq!(ruled(ran.clone(), "a", true, false), Ruling::Denied);
        assert_eq!(ruled(ran, "c", false, false), Ruling::Tell);
        let failed = vec![one("a", 30, Some("login.abandoned"), false)];
        assert_eq!(ruled(failed, "a", true, false), Ruling::Tell);
    }

    /// Whoever has refused is left in peace for five minutes.
    #[test]
    fn a_refusal_stands_for_five_minutes() {
        let refused = |ago| vec![one("a", ago, Some("denied.by_human"), true)];
        assert_eq!(ruled(refused(299), "a", false, true), Ruling::Refused);
        assert_eq!(ruled(refused(301), "a", false, true), Ruling::Ask);
        assert_eq!(ruled(refused(10), "b", false, true), Ruling::Ask);
    }
}
