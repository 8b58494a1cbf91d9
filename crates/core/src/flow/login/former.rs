//! A server that has changed its issuer: what is said of the one before, and the way back (AUTH-16, AUTH-40, T-20).
//!
//! Nothing of one issuer goes to another: the login of the former is kept under its own key, and never revoked. If the
//! server goes back to it, that login is used again; a person has approved it once, at just this issuer. After a logout
//! nothing is.

use crate::{
    credential::{Credential, Renewal},
    error::Error,
    event::{Event, Happened},
    flow::{Act, Reading, Turn, discover::Discovered},
    issuer::Issuer,
    record::Record,
    time::Now,
};

use super::{LoggedIn, Login, State};

impl Login {
    /// The issuer of the login there is, where this one is another.
    pub(super) fn former_issuer(&self, issuer: &Issuer) -> Option<Issuer> {
        let former = &self.task.binding.credential.as_ref()?.issuer;
        (former != issuer).then(|| former.clone())
    }

    /// Whether the person still wants the login that they have: a logout leaves a tombstone.
    pub(super) fn look_back(self, discovered: Discovered) -> Turn<Self> {
        let Some(key) = self.task.binding.credential.clone() else {
            return self.fail(Error::Bug {
                what: "login: no former login",
            });
        };
        self.next(State::ExpectFormer(Box::new(discovered)), Act::Reread(key))
    }

    pub(super) fn former(
        self,
        discovered: Discovered,
        read: Result<Box<Reading>, Error>,
        now: Now,
    ) -> Turn<Self> {
        if stored(read).is_none() {
            return self.begin(discovered, now);
        }
        let key = self.credential_key(&discovered);
        self.next(State::ExpectReturn(Box::new(discovered)), Act::Reread(key))
    }

    /// An earlier login at the issuer that the server names now, if it still is what is asked for.
    pub(super) fn may_return(
        mut self,
        discovered: Discovered,
        read: Result<Box<Reading>, Error>,
        now: Now,
    ) -> Turn<Self> {
        let known = stored(read).filter(|record| record.suspicion.is_none());
        let credential = known.and_then(|record| record.credential);
        // What the binding then says of `resource` is what was just said, here as in a login with a person.
        let wanted = match self.task.unattended {
            None => self.as_a_person_wants(discovered.clone()),
            Some(_) => discovered.clone(),
        };
        let Some(credential) = credential.filter(|one| self.serves(one, &wanted, now)) else {
            return self.begin(discovered, now);
        };
        let binding = self.task.binding.moved_to(credential.key.clone());
        self.next(
            State::ExpectReturned(Box::new(credential)),
            Act::PutBinding(Box::new(binding)),
        )
    }

    fn serves(&self, one: &Credential, discovered: &Discovered, now: Now) -> bool {
        let lives = match one.renewal() {
            Renewal::Nothing => one.expires_in(now).is_none_or(|left| !left.is_zero()),
            Renewal::RefreshToken(_) | Renewal::Grant(_) => true,
        };
        let wanted = [&self.task.scopes, &discovered.challenged];
        let mut wanted = wanted.into_iter().flatten();
        lives
            && wanted.all(|scopes| one.scopes_requested.covers(scopes))
            && self
                .task
                .client
                .as_ref()
                .is_none_or(|client| client.id == one.client.id)
            && self.task.unattended == one.unattended
            && one.pins.resource_parameter == discovered.resource_parameter
            && (self.task.proof_key.is_some() || one.proof_key.is_none())
    }

    pub(super) fn returned(
        self,
        credential: Box<Credential>,
        bound: Result<(), Error>,
        now: Now,
    ) -> Turn<Self> {
        if let Err(error) = bound {
            return self.fail(error);
        }
        let to = credential.key.issuer.as_str().to_owned();
        let from = self.former_issuer(&credential.key.issuer);
        let happened = Happened::IssuerChanged {
            from: from.map_or_else(String::new, |from| from.as_str().to_owned()),
            to,
        };
        let event = Event {
            at: now.wall,
            process: self.task.process,
            happened,
        };
        let key = credential.key.clone();
        self.next(State::ExpectReturnTold(credential), Act::Record(key, event))
    }

    pub(super) fn gone_back(self, credential: Credential) -> Turn<Self> {
        Turn::Done(Ok(Box::new(LoggedIn {
            former_issuer: self.former_issuer(&credential.key.issuer),
            credential,
            superseded: None,
            offline_access_offered: false,
            learned: Vec::new(),
        })))
    }
}

/// The login that was read, if there is one.
fn stored(read: Result<Box<Reading>, Error>) -> Option<Record> {
    let record = read.ok()?.record?;
    record.credential.is_some().then_some(record)
}
