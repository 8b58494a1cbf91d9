//! A look at whom a server trusts now, when its login has ended: nothing but metadata is asked for, and nothing changes.
//!
//! A session lives on its pins whatever metadata says (T-15). Only when it has ended anyway it matters to the person why:
//! where the server names another issuer, the next login is one at a stranger, and they are told so (AUTH-40, AUTH-41).

use crate::{
    error::Error,
    flow::{
        Answer, Flow, Turn,
        discover::{self, Discover},
    },
    issuer::{Issuer, IssuerException},
    resource::Resource,
    time::Now,
};

/// What to look at.
#[derive(Debug, Clone)]
pub struct Task {
    /// The server, as configured.
    pub server: Resource,
    /// The issuer of the login that has ended.
    pub issuer: Issuer,
    /// The exception of its binding.
    pub exception: Option<IssuerException>,
    /// The headers of a 401 that the server has just answered; without them it is asked.
    pub challenge: Option<http::HeaderMap>,
}

/// The flow. See the [module](self). It ends with the issuer that the server names in the place of the login's, if it
/// does: one whose metadata is there and is its own. Whatever cannot be read says nothing.
#[derive(Debug)]
pub struct Look {
    discover: Discover,
    issuer: Issuer,
}

impl Look {
    /// Sets up the flow.
    #[must_use]
    pub fn new(task: Task) -> Self {
        let Task {
            server,
            issuer,
            exception,
            challenge,
        } = task;
        Self {
            discover: Discover::new(discover::Task {
                server,
                // A server that has a login cannot send us elsewhere for its metadata.
                known_issuer: Some(issuer.clone()),
                challenge,
                issuer: None,
                exception,
                ways: discover::Ways::default(),
            }),
            issuer,
        }
    }

    fn later(issuer: Issuer, turn: Turn<Discover>) -> Turn<Self> {
        match turn {
            Turn::Next(discover, step) => Turn::Next(Self { discover, issuer }, step),
            Turn::Done(found) => Turn::Done(found.map(|found| {
                let same = found.server.issuer == issuer;
                (!same).then_some(found.server.issuer)
            })),
        }
    }
}

impl Flow for Look {
    type Outcome = Result<Option<Issuer>, Error>;

    fn start(self, now: Now) -> Turn<Self> {
        let Self { discover, issuer } = self;
        Self::later(issuer, discover.start(now))
    }

    fn handle(self, answer: Answer, now: Now) -> Turn<Self> {
        let Self { discover, issuer } = self;
        Self::later(issuer, discover.handle(answer, now))
    }
}

#[cfg(test)]
mod tests;
