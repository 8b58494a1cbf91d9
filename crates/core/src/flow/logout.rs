//! A logout: forget here, revoke there (RFC 7009).
//!
//! ```text
//!  each: lock -> bury (a tombstone; the secrets move to the sealed revocation queue) -> unlock
//!  each: revoke -> off the queue
//! ```
//!
//! The burials come first, so that a crash leaves logins that are over here and whose revocations are still to be sent. An
//! issuer that cannot be reached leaves its own in the queue, which later commands work off for seven days. Where a server
//! has changed its issuer, the login at the former one is ended as well: it lies in the store with all it needs to go on.

use std::collections::VecDeque;

use crate::{
    attempt::ProcessId,
    credential::{Credential, CredentialKey},
    error::{Error, LoginCause},
    event::{Event, Happened, Revocation},
    exchange::{Exchange, Exchanged, Leg},
    flow::{Act, Answer, Buried, Flow, Lock, Step, Turn},
    grant::revocation_request,
    registration::RegistrationManagement,
    time::Now,
};

/// What is to be ended.
#[derive(Debug, Clone)]
pub struct Task {
    /// Whose login.
    pub key: CredentialKey,
    /// Whether to leave the issuer alone.
    pub local: bool,
    /// Which process this is.
    pub process: ProcessId,
}

/// The flow. See the [module](self).
#[derive(Debug)]
pub struct Logout {
    task: Task,
    state: State,
    /// What is yet to be buried: the login in force first.
    left: VecDeque<CredentialKey>,
    /// What is buried, and of which the issuer has yet to be told.
    pending: VecDeque<Pending>,
    /// What came of each that was buried.
    outcomes: Vec<Revocation>,
    /// The first that could not be buried, and why. The others are all the same.
    failed: Option<Error>,
}

#[derive(Debug)]
enum State {
    Ready,
    ExpectLease(CredentialKey),
    ExpectBurial(CredentialKey),
    ExpectUnlock,
    ExpectRevocation(Box<Pending>),
    ExpectDeletion(Box<Pending>, Revocation),
    ExpectDequeue(Box<Pending>, Revocation),
    ExpectRecorded(Revocation),
}

/// What the issuer has yet to be told.
#[derive(Debug)]
struct Pending {
    credential: Credential,
    management: Option<RegistrationManagement>,
}

impl Logout {
    /// Sets up the flow.
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self {
            left: VecDeque::from([task.key.clone()]),
            task,
            state: State::Ready,
            pending: VecDeque::new(),
            outcomes: Vec::new(),
            failed: None,
        }
    }

    /// The same, and the logins that were in force before: at issuers that the server has left.
    #[must_use]
    pub fn and_former(mut self, former: impl IntoIterator<Item = CredentialKey>) -> Self {
        self.left.extend(former);
        self
    }

    /// Sets up the flow for a login that is buried already and waits in the queue.
    #[must_use]
    pub fn queued(
        task: Task,
        credential: Credential,
        management: Option<RegistrationManagement>,
    ) -> Self {
        Self {
            left: VecDeque::new(),
            pending: VecDeque::from([Pending {
                credential,
                management,
            }]),
            ..Self::new(task)
        }
    }

    fn next(self, state: State, act: Act) -> Turn<Self> {
        Turn::Next(Self { state, ..self }, Step::act(act))
    }

    /// Buries what is left, then tells the issuers.
    fn go_on(mut self) -> Turn<Self> {
        if let Some(key) = self.left.pop_front() {
            let act = Act::Lock(Lock::Refresh(key.clone()));
            return self.next(State::ExpectLease(key), act);
        }
        match self.pending.pop_front() {
            Some(pending) => self.revoke(Box::new(pending)),
            None => self.end(),
        }
    }

    /// What a person is told of several: that one is still to be revoked, else what became of the login in force.
    fn end(self) -> Turn<Self> {
        let queued = self.outcomes.contains(&Revocation::Queued);
        let told = queued.then_some(&Revocation::Queued);
        Turn::Done(match (self.failed, told.or(self.outcomes.first())) {
            (Some(error), _) => Err(error),
            (None, Some(outcome)) => Ok(*outcome),
            (None, None) => Err(Error::login(LoginCause::Never)),
        })
    }

    fn event(&self, now: Now, happened: Happened) -> Event {
        Event {
            at: now.wall,
            process: self.task.process,
            happened,
        }
    }

    fn bury(self, key: CredentialKey, now: Now) -> Turn<Self> {
        let local = self.task.local;
        let act = Act::Bury {
            key: key.clone(),
            event: self.event(now, Happened::LoggedOut { local }),
            revoke: !local,
        };
        self.next(State::ExpectBurial(key), act)
    }

    fn buried(
        mut self,
        key: CredentialKey,
        buried: Result<Option<Box<Buried>>, Error>,
    ) -> Turn<Self> {
        match buried {
            Ok(Some(_)) if self.task.local => self.outcomes.push(Revocation::Local),
            Ok(Some(buried)) => self.pending.push_back(Pending {
                credential: buried.credential,
                management: buried
                    .unshared
                    .and_then(|registration| registration.management),
            }),
            // Over already.
            Ok(None) => {}
            Err(error) => self.fail(error),
        }
        self.next(State::ExpectUnlock, Act::Unlock(Lock::Refresh(key)))
    }

    fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    fn revoke(self, pending: Box<Pending>) -> Turn<Self> {
        let credential = &pending.credential;
        let Some(endpoint) = credential.pins.revocation_endpoint.clone() else {
            // A key that a person has brought has no issuer that could be told.
            let outcome = match credential.is_static() {
                true => Revocation::Local,
                false => Revocation::Unsupported,
            };
            return self.delete(pending, outcome);
        };
        let (token, hint) = match &credential.refresh_token {
            Some(token) => (token.expose(), "refresh_token"),
            None => (credential.access_token.expose(), "access_token"),
        };
        let form = revocation_request(token, hint, &credential.client, credential.audience());
        let exchange = Exchange::form(Leg::Revocation, endpoint, "revocation_endpoint", form);
        self.next(
            State::ExpectRevocation(pending),
            Act::Send(Box::new(exchange)),
        )
    }

    fn answered(mut self, pending: Box<Pending>, exchanged: &Exchanged) -> Turn<Self> {
        match exchanged.as_ref().map(|reply| reply.status) {
            // Anything the issuer itself says ends the matter: what it does not know cannot be revoked (section 2.2).
            Ok(200..=204) => self.delete(pending, Revocation::Revoked),
            Ok(400..=428) if told(exchanged) => self.delete(pending, Revocation::Revoked),
            _ => {
                self.outcomes.push(Revocation::Queued);
                self.go_on()
            }
        }
    }

    /// Deletes the registration that no other login uses (RFC 7592 section 2.3), then takes the login off the queue.
    fn delete(self, pending: Box<Pending>, revocation: Revocation) -> Turn<Self> {
        match pending
            .management
            .as_ref()
            .and_then(RegistrationManagement::delete_request)
        {
            Some(exchange) => self.next(
                State::ExpectDeletion(pending, revocation),
                Act::Send(Box::new(exchange)),
            ),
            None => self.dequeue(pending, revocation),
        }
    }

    fn dequeue(self, pending: Box<Pending>, revocation: Revocation) -> Turn<Self> {
        let Credential { key, version, .. } = &pending.credential;
        let act = Act::Revoked(key.clone(), version.incarnation);
        self.next(State::ExpectDequeue(pending, revocation), act)
    }
}

impl Flow for Logout {
    type Outcome = Result<Revocation, Error>;

    fn start(self, _now: Now) -> Turn<Self> {
        self.go_on()
    }

    fn handle(mut self, answer: Answer, now: Now) -> Turn<Self> {
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, answer) {
            (State::ExpectLease(key), Answer::Locked(Ok(_))) => self.bury(key, now),
            (State::ExpectLease(_), Answer::Locked(Err(error))) => {
                self.fail(error);
                self.go_on()
            }
            (State::ExpectBurial(key), Answer::Buried(buried)) => self.buried(key, buried),
            (State::ExpectUnlock, Answer::Done(_)) => self.go_on(),
            (State::ExpectRevocation(pending), Answer::Exchanged(exchanged)) => {
                self.answered(pending, &exchanged)
            }
            (State::ExpectDeletion(pending, outcome), Answer::Exchanged(_)) => {
                self.dequeue(pending, outcome)
            }
            (State::ExpectDequeue(pending, outcome), Answer::Done(_)) => {
                let event = self.event(now, Happened::Revocation { outcome });
                let act = Act::Record(pending.credential.key, event);
                self.next(State::ExpectRecorded(outcome), act)
            }
            (State::ExpectRecorded(outcome), Answer::Done(_)) => {
                self.outcomes.push(outcome);
                self.go_on()
            }
            _ => Turn::Done(Err(Error::Bug {
                what: "logout: an answer that nothing waits for",
            })),
        }
    }
}

/// Whether an OAuth error came, and not a proxy's page.
fn told(exchanged: &Exchanged) -> bool {
    exchanged
        .as_ref()
        .is_ok_and(|reply| crate::token::refusal(&reply.body).is_some())
}

#[cfg(test)]
mod tests;
