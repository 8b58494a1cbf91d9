//! What is known of an issuer before it is asked, and what a login teaches (DESIGN.md section 6): parameters that are added,
//! a scope that is left out; never a request without its `resource`, unless a person has asked for that.

use crate::{
    error::Error,
    event::{Event, Happened},
    flow::{Act, Answer, Turn, discover::Discovered},
    issuer::Issuer,
    notes::IssuerNotes,
    pkce::{Pkce, state_from_entropy},
    quirks::{Insist, Quirk},
    scope::OFFLINE_ACCESS,
    time::Now,
    token::TokenAnswer,
};

use super::{LoggedIn, Login, Request, State, derived};

/// What is known of the issuer of a login, and what the login has taught so far.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    notes: IssuerNotes,
    /// What this login insists by.
    pub(super) insist: Insist,
    /// Whether it leaves `offline_access` out.
    pub(super) no_offline_access: bool,
    /// Whether the person was shown a second URL, because the first was refused for what we had added.
    asked_again: bool,
    /// Whether `offline_access` was refused, and the login worked without it.
    refused_offline: bool,
    /// What is to be told once the login stands.
    learned: Vec<Quirk>,
    changed: bool,
}

impl Login {
    /// Looks up what is known of the issuer.
    pub(super) fn look_up(self, discovered: Discovered) -> Turn<Self> {
        let key = self.credential_key(&discovered);
        self.next(State::ExpectNotes(Box::new(discovered)), Act::Reread(key))
    }

    /// What was known. Notes only tune a request: where they cannot be read, nothing is known.
    pub(super) fn looked_up(
        mut self,
        discovered: Discovered,
        answer: Answer,
        now: Now,
    ) -> Turn<Self> {
        if let Answer::Read(Ok(reading)) = answer {
            let held = reading.record.and_then(|record| record.credential);
            self.held = held.map(|held| held.client.id);
            let quirks = reading.notes.quirks;
            self.lessons = Lessons {
                insist: quirks.insist(now.wall),
                no_offline_access: quirks.omits_offline_access(now.wall),
                notes: reading.notes,
                ..Lessons::default()
            };
        }
        let discovered = self.as_a_person_wants(discovered);
        self.with_a_person(discovered)
    }

    /// Leaves `resource` out where a person has asked for that, for this server and this issuer (T-24).
    pub(super) fn as_a_person_wants(&mut self, discovered: Discovered) -> Discovered {
        let issuer = &discovered.server.issuer;
        let binding = &mut self.task.binding;
        match self.task.without_resource {
            Some(true) => binding.without_resource_at = Some(issuer.clone()),
            Some(false) => binding.without_resource_at = None,
            None => {}
        }
        if binding.without_resource_at.as_ref() == Some(issuer) {
            Discovered {
                resource_parameter: None,
                ..discovered
            }
        } else {
            discovered
        }
    }

    /// Whether the tokens of this login will not be limited to the server.
    pub(super) fn without_resource(&self, issuer: &Issuer) -> bool {
        self.task.binding.without_resource_at.as_ref() == Some(issuer)
    }

    /// The redirect says no. Where what we added may be why, the person is shown one more URL, without it.
    pub(super) fn refused_redirect(
        mut self,
        mut request: Box<Request>,
        error: Error,
        now: Now,
    ) -> Turn<Self> {
        let said = match &error {
            Error::DeniedByIssuer { error } => error.as_str(),
            _ => "",
        };
        let lessons = &mut self.lessons;
        let insisted = !lessons.insist.parameters().is_empty();
        let again = !lessons.asked_again;
        match said {
            "invalid_scope" if again && request.adds_offline_access => {
                let others = request.scopes.iter().filter(|one| *one != OFFLINE_ACCESS);
                request.scopes = others.collect();
                request.adds_offline_access = false;
                lessons.refused_offline = true;
            }
            "invalid_request" if again && insisted => {
                lessons.insist = Insist::GivenUp;
                let quirks = &mut lessons.notes.quirks;
                *quirks = quirks.with_insist(Insist::GivenUp, now.wall);
                lessons.changed = true;
                lessons.learned.push(Quirk::NothingHelps);
            }
            "invalid_scope" => {
                let error = request.refused(said.to_owned());
                return self.fail(error);
            }
            _ => return self.fail(error),
        }
        lessons.asked_again = true;
        // Another request: its verifier and its state are its own.
        let [verifier, state, _] = &self.task.entropy;
        request.pkce = Pkce::from_entropy(&derived(ASKED_AGAIN, verifier));
        request.state = state_from_entropy(&derived(ASKED_AGAIN, state));
        self.prompt(request)
    }

    /// What the tokens teach.
    pub(super) fn lesson(&mut self, request: &Request, answer: &TokenAnswer, now: Now) {
        let server = &request.discovered.server;
        let lessons = &mut self.lessons;
        let quirks = lessons.notes.quirks;
        if lessons.refused_offline {
            lessons.notes.quirks = quirks.without_offline_access(now.wall);
            lessons.learned.push(Quirk::NoOfflineAccess);
            lessons.changed = true;
            // That no refresh token came now says nothing about how to insist on one.
            return;
        }
        let wanted =
            request.scopes.contains(OFFLINE_ACCESS) || server.offers_grant("refresh_token");
        let insist = lessons.insist;
        if answer.refresh_token.is_some() {
            // What works is remembered for as long as it is used.
            if !insist.parameters().is_empty() {
                lessons.notes.quirks = quirks.with_insist(insist, now.wall);
                lessons.changed = true;
            }
        } else if wanted && insist != Insist::GivenUp {
            lessons.notes.quirks = quirks.with_insist(insist.next(), now.wall);
            lessons.learned.extend(insist.next().quirk());
            lessons.changed = true;
        }
    }

    /// Notes what was learned, once the login stands.
    pub(super) fn teach(self, done: Box<LoggedIn>) -> Turn<Self> {
        if !self.lessons.changed {
            return Turn::Done(Ok(done));
        }
        let issuer = done.credential.key.issuer.clone();
        let notes = self.lessons.notes.clone();
        self.next(State::ExpectLearned(done), Act::Learn(issuer, notes))
    }

    /// Tells of it, one event for each.
    pub(super) fn tell(self, mut done: Box<LoggedIn>, now: Now) -> Turn<Self> {
        let told = done.learned.len();
        let Some(quirk) = self.lessons.learned.get(told).copied() else {
            return Turn::Done(Ok(done));
        };
        done.learned.push(quirk);
        let event = Event {
            at: now.wall,
            process: self.task.process,
            happened: Happened::Learned { quirk },
        };
        let key = done.credential.key.clone();
        self.next(State::ExpectLearned(done), Act::Record(key, event))
    }
}

/// What the entropy of a second request for the same client is made for.
const ASKED_AGAIN: &str = "asked again";
