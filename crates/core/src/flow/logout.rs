//! A logout: forget here, revoke there (RFC 7009).
//!
//! ```text
//!  lock -> bury (a tombstone; the secrets move to the sealed revocation queue) -> unlock -> revoke -> off the queue
//! ```
//!
//! The burial comes first, so that a crash leaves a login that is over here and whose revocation is still to be sent. An
//! issuer that cannot be reached leaves it in the queue, which later commands work off for seven days.

use crate::{
    attempt::ProcessId,
    credential::{Credential, CredentialKey, Incarnation},
    error::{Error, LoginCause},
    event::{Event, Happened, Revocation},
    exchange::{Exchange, Exchanged, Leg},
    flow::{Act, Answer, Flow, Lock, Step, Turn},
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
    /// Which login is being revoked.
    incarnation: Option<Incarnation>,
}

#[derive(Debug)]
enum State {
    Ready,
    ExpectLease,
    ExpectBurial,
    ExpectUnlock(Result<Option<Box<Pending>>, Error>),
    ExpectRevocation(Box<Pending>),
    ExpectDeletion(Revocation),
    ExpectDequeue(Revocation),
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
            task,
            state: State::Ready,
            incarnation: None,
        }
    }

    /// Sets up the flow for a login that is buried already and waits in the queue.
    #[must_use]
    pub fn queued(
        task: Task,
        credential: Credential,
        management: Option<RegistrationManagement>,
    ) -> Self {
        Self {
            task,
            state: State::ExpectUnlock(Ok(Some(Box::new(Pending {
                credential,
                management,
            })))),
            incarnation: None,
        }
    }

    fn next(self, state: State, act: Act) -> Turn<Self> {
        Turn::Next(Self { state, ..self }, Step::act(act))
    }

    fn revoke(mut self, pending: Box<Pending>) -> Turn<Self> {
        self.incarnation = Some(pending.credential.version.incarnation);
        let credential = &pending.credential;
        let Some(endpoint) = credential.pins.revocation_endpoint.clone() else {
            // A key that a person has brought has no issuer that could be told.
            let outcome = match credential.is_static() {
                true => Revocation::Local,
                false => Revocation::Unsupported,
            };
            return self.delete(*pending, outcome);
        };
        let (token, hint) = match &credential.refresh_token {
            Some(token) => (token.expose(), "refresh_token"),
            None => (credential.access_token.expose(), "access_token"),
        };
        let form = revocation_request(token, hint, &credential.client, &credential.key.issuer);
        let exchange = Exchange::form(Leg::Revocation, endpoint, "revocation_endpoint", form);
        self.next(
            State::ExpectRevocation(pending),
            Act::Send(Box::new(exchange)),
        )
    }

    fn answered(self, pending: Pending, exchanged: &Exchanged) -> Turn<Self> {
        match exchanged.as_ref().map(|reply| reply.status) {
            // Anything the issuer itself says ends the matter: what it does not know cannot be revoked (section 2.2).
            Ok(200..=204) => self.delete(pending, Revocation::Revoked),
            Ok(400..=428) if told(exchanged) => self.delete(pending, Revocation::Revoked),
            _ => Turn::Done(Ok(Revocation::Queued)),
        }
    }

    /// Deletes the registration that no other login uses (RFC 7592 section 2.3), then takes the login off the queue.
    fn delete(self, pending: Pending, revocation: Revocation) -> Turn<Self> {
        match pending
            .management
            .as_ref()
            .and_then(RegistrationManagement::delete_request)
        {
            Some(exchange) => self.next(
                State::ExpectDeletion(revocation),
                Act::Send(Box::new(exchange)),
            ),
            None => self.dequeue(revocation),
        }
    }

    fn dequeue(self, revocation: Revocation) -> Turn<Self> {
        let Some(incarnation) = self.incarnation else {
            return Turn::Done(Err(Error::Bug {
                what: "logout: nothing was revoked",
            }));
        };
        let act = Act::Revoked(self.task.key.clone(), incarnation);
        self.next(State::ExpectDequeue(revocation), act)
    }
}

impl Flow for Logout {
    type Outcome = Result<Revocation, Error>;

    fn start(mut self, now: Now) -> Turn<Self> {
        if let State::ExpectUnlock(_) = &self.state {
            let state = std::mem::replace(&mut self.state, State::Ready);
            return Self { state, ..self }.handle(Answer::Done(Ok(())), now);
        }
        let key = self.task.key.clone();
        self.next(State::ExpectLease, Act::Lock(Lock::Refresh(key)))
    }

    fn handle(mut self, answer: Answer, now: Now) -> Turn<Self> {
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, answer) {
            (State::ExpectLease, Answer::Locked(Ok(_))) => {
                let happened = Happened::LoggedOut {
                    local: self.task.local,
                };
                let event = Event {
                    at: now.wall,
                    process: self.task.process,
                    happened,
                };
                let act = Act::Bury {
                    key: self.task.key.clone(),
                    event,
                    revoke: !self.task.local,
                };
                self.next(State::ExpectBurial, act)
            }
            (State::ExpectLease, Answer::Locked(Err(error))) => Turn::Done(Err(error)),
            (State::ExpectBurial, Answer::Buried(buried)) => {
                let pending = match buried {
                    Ok(Some(_)) if self.task.local => Ok(None),
                    Ok(Some(buried)) => Ok(Some(Box::new(Pending {
                        credential: buried.credential,
                        management: buried
                            .unshared
                            .and_then(|registration| registration.management),
                    }))),
                    Ok(None) => Err(Error::login(LoginCause::Never)),
                    Err(error) => Err(error),
                };
                let lock = Lock::Refresh(self.task.key.clone());
                self.next(State::ExpectUnlock(pending), Act::Unlock(lock))
            }
            (State::ExpectUnlock(Ok(Some(pending))), Answer::Done(_)) => self.revoke(pending),
            (State::ExpectUnlock(Ok(None)), Answer::Done(_)) => Turn::Done(Ok(Revocation::Local)),
            (State::ExpectUnlock(Err(error)), Answer::Done(_)) => Turn::Done(Err(error)),
            (State::ExpectRevocation(pending), Answer::Exchanged(exchanged)) => {
                self.answered(*pending, &exchanged)
            }
            (State::ExpectDeletion(revocation), Answer::Exchanged(_)) => self.dequeue(revocation),
            (State::ExpectDequeue(outcome), Answer::Done(_)) => {
                let happened = Happened::Revocation { outcome };
                let event = Event {
                    at: now.wall,
                    process: self.task.process,
                    happened,
                };
                let act = Act::Record(self.task.key.clone(), event);
                self.next(State::ExpectRecorded(outcome), act)
            }
            (State::ExpectRecorded(outcome), Answer::Done(_)) => Turn::Done(Ok(outcome)),
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
