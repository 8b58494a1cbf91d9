//! A small stage for the flows: one store that keeps its promises, scripted issuers and servers, a virtual clock, and a log
//! of every act. Each act takes a millisecond, so that no flow can lean on two of them sharing an instant.

mod script;
mod store;
mod words;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

pub(super) use script::*;
use words::words;

use super::*;
use crate::{
    attempt::{Attempt, Label, ProcessId},
    credential::Incarnation,
    exchange::Leg,
    time::Wall,
    token::Verdict,
};

/// What answers an exchange.
pub(super) type Scripted = Box<dyn FnOnce(&Exchange, &mut Stage) -> Exchanged>;
type Hook = Box<dyn FnOnce(&mut Stage)>;

/// A refresh token that left, as a stranger on the wire sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) token: String,
    /// The durable attempt at that moment.
    pub(super) label: Option<Label>,
    pub(super) noted: bool,
    /// Whether the issuer may have acted on it.
    pub(super) delivered: bool,
    pub(super) at: Now,
}

/// The stage. See the [module](self).
#[derive(Default)]
pub(super) struct Stage {
    pub(super) now: Now,
    pub(super) record: Option<Record>,
    pub(super) buried: Option<Incarnation>,
    pub(super) spool: Option<(Vec<Option<Version>>, Credential)>,
    /// The attempt that the slot holds beside it, and the version that this belongs to.
    pub(super) slot_attempt: Option<(Version, Attempt)>,
    pub(super) notes: IssuerNotes,
    pub(super) read_only: bool,
    /// What the store holds of other issuers.
    pub(super) elsewhere: Vec<(Issuer, Record)>,
    pub(super) registrations: Vec<Registration>,
    pub(super) binding: Option<Binding>,
    pub(super) queue: Vec<Credential>,
    pub(super) events: Vec<Event>,
    /// What was done, in order, in words.
    pub(super) log: Vec<String>,
    /// Every exchange, in order.
    pub(super) exchanges: Vec<Exchange>,
    /// Every refresh token that left.
    pub(super) sent: Vec<Sent>,
    /// The commits that were asked for.
    pub(super) commits: Vec<Commit>,
    pub(super) prompt: Option<Prompt>,
    /// The code that was shown.
    pub(super) code: Option<CodePrompt>,
    /// How much longer than asked each wait takes.
    pub(super) oversleep: Duration,
    /// Ports that are taken.
    pub(super) taken: Vec<u16>,
    /// What the redirect brings; `code` and `state` where it is `None`.
    pub(super) redirect: Option<Result<Vec<(String, String)>, Error>>,
    pub(super) locks: Vec<Lock>,
    /// Secrets that lie elsewhere.
    pub(super) secrets: HashMap<&'static str, String>,
    /// Whether a flow may end with its lock held, for the run that saves what only memory holds.
    pub(super) may_keep: bool,
    fence: u64,
    failing: HashSet<&'static str>,
    script: VecDeque<Scripted>,
    pages: HashMap<String, Scripted>,
    hooks: Vec<(&'static str, Hook)>,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self {
            now: start(),
            ..Self::default()
        }
    }

    /// A stage whose store holds this login.
    pub(super) fn with(credential: Credential) -> Self {
        Self::holding(Some(Record {
            credential: Some(credential),
            ..Record::default()
        }))
    }

    /// A stage whose store holds this.
    pub(super) fn holding(record: Option<Record>) -> Self {
        Self {
            record,
            ..Self::new()
        }
    }

    /// Answers the next exchange that no page answers.
    pub(super) fn answer(
        &mut self,
        script: impl FnOnce(&Exchange, &mut Self) -> Exchanged + 'static,
    ) -> &mut Self {
        self.script.push_back(Box::new(script));
        self
    }

    /// Answers the next exchange with this address (without its query).
    pub(super) fn page(
        &mut self,
        url: &str,
        script: impl FnOnce(&Exchange, &mut Self) -> Exchanged + 'static,
    ) -> &mut Self {
        self.pages.insert(url.to_owned(), Box::new(script));
        self
    }

    /// Does something just before the next act whose words start like this.
    pub(super) fn before(
        &mut self,
        act: &'static str,
        hook: impl FnOnce(&mut Self) + 'static,
    ) -> &mut Self {
        self.hooks.push((act, Box::new(hook)));
        self
    }

    /// Makes every act of this kind fail from now on.
    pub(super) fn fail(&mut self, act: &'static str) -> &mut Self {
        self.failing.insert(act);
        self
    }

    pub(super) fn heal(&mut self) -> &mut Self {
        self.failing.clear();
        self
    }

    /// Forgets what was scripted and not used.
    pub(super) fn clear(&mut self) {
        self.script.clear();
        self.hooks.clear();
    }

    pub(super) fn pass(&mut self, span: Duration) -> &mut Self {
        self.now = self.now.after(span);
        self
    }

    pub(super) fn labels(&self) -> Vec<Option<Label>> {
        self.sent.iter().map(|sent| sent.label).collect()
    }

    pub(super) fn count(&self, act: &str) -> usize {
        self.log.iter().filter(|line| line.starts_with(act)).count()
    }

    /// The addresses that were asked, in order.
    pub(super) fn asked(&self) -> Vec<String> {
        self.exchanges
            .iter()
            .map(|exchange| exchange.url.to_string())
            .collect()
    }

    /// Drives a flow to its end. What it locked it has let go of by then.
    pub(super) fn run<F: Flow>(&mut self, flow: F) -> F::Outcome {
        let mut turn = flow.start(self.now);
        for _ in 0..100 {
            match turn {
                Turn::Done(outcome) => {
                    assert!(
                        self.may_keep || self.locks.is_empty(),
                        "still locked: {:?}",
                        self.locks
                    );
                    return outcome;
                }
                Turn::Next(flow, Step { act, wake_at }) => {
                    let answer = match act {
                        Some(act) => self.perform(act),
                        None => {
                            let until =
                                self.now.mono.until(wake_at.expect("something to wait for"));
                            self.log.push("wait".into());
                            self.pass(until + self.oversleep);
                            Answer::Woken
                        }
                    };
                    turn = flow.handle(answer, self.now);
                }
            }
        }
        panic!("no end after: {:#?}", self.log)
    }

    /// Drives a flow through the first act whose words start like this, and kills the process there: the kernel lets go of
    /// its locks. A flow that never gets there just ends.
    pub(super) fn crash_after<F: Flow>(&mut self, act: &str, flow: F) {
        let mut turn = flow.start(self.now);
        while let Turn::Next(flow, Step { act: next, wake_at }) = turn {
            let Some(next) = next else {
                self.pass(self.now.mono.until(wake_at.expect("something to wait for")));
                turn = flow.handle(Answer::Woken, self.now);
                continue;
            };
            let answer = self.perform(next);
            if self.log.last().is_some_and(|line| line.starts_with(act)) {
                self.locks.clear();
                return;
            }
            turn = flow.handle(answer, self.now);
        }
    }

    pub(super) fn perform(&mut self, act: Act) -> Answer {
        let line = words(&act);
        let (due, later) = std::mem::take(&mut self.hooks)
            .into_iter()
            .partition(|(act, _)| line.starts_with(act));
        self.hooks = later;
        let due: Vec<(_, Hook)> = due;
        for (_, hook) in due {
            hook(self);
        }
        self.pass(Duration::from_millis(1));
        let kind = line.split(' ').next().unwrap_or_default().to_owned();
        self.log.push(line);
        let broken = || {
            Err(Error::StoreUnavailable {
                why: "disk full".into(),
            })
        };
        if self.failing.contains(kind.as_str()) {
            return match act {
                Act::Lock(_) => Answer::Locked(Err(Error::LeaseHeld {
                    holder: crate::error::Holder::default(),
                })),
                Act::Reread(_) => Answer::Read(broken().map(|()| Box::default())),
                Act::Note { .. } => Answer::Noted(broken().map(|()| true)),
                Act::Commit(_) => Answer::Committed(broken().map(|()| Committed::Moved)),
                Act::FindRegistrations(_) => Answer::Registered(broken().map(|()| Vec::new())),
                Act::Bury { .. } => Answer::Buried(broken().map(|()| None)),
                _ => Answer::Done(broken()),
            };
        }
        match act {
            Act::Send(exchange) => Answer::Exchanged(self.exchange(&exchange)),
            Act::Lock(lock) if self.may_keep && self.locks.contains(&lock) => {
                Answer::Locked(Ok(self.fence))
            }
            Act::Lock(lock) => {
                assert!(!self.locks.contains(&lock), "locked twice");
                self.locks.push(lock);
                self.fence += 1;
                Answer::Locked(Ok(self.fence))
            }
            Act::Unlock(lock) => {
                self.locks.retain(|held| *held != lock);
                Answer::Done(Ok(()))
            }
            Act::Reread(key) => {
                let other = self
                    .elsewhere
                    .iter()
                    .find(|(issuer, _)| *issuer == key.issuer);
                Answer::Read(Ok(Box::new(match other {
                    Some((_, record)) => Reading {
                        record: Some(record.clone()),
                        writable: true,
                        ..Reading::default()
                    },
                    None => self.read(),
                })))
            }
            Act::Note {
                version,
                facts,
                event,
                ..
            } => Answer::Noted(Ok(self.note(version, &facts, event))),
            Act::Commit(commit) => Answer::Committed(Ok(self.commit(*commit))),
            Act::Spool {
                follows,
                credential,
            } => {
                self.keep(follows, *credential);
                Answer::Done(Ok(()))
            }
            Act::SpoolAttempt {
                version, attempt, ..
            } => {
                self.keep_attempt(version, attempt);
                Answer::Done(Ok(()))
            }
            Act::PrepareSpool(_) => Answer::Done(Ok(())),
            Act::Learn(_, notes) => {
                self.notes = notes;
                Answer::Done(Ok(()))
            }
            Act::FindRegistrations(issuer) => {
                let fits = |r: &&Registration| r.issuer == issuer;
                Answer::Registered(Ok(self
                    .registrations
                    .iter()
                    .filter(fits)
                    .cloned()
                    .collect()))
            }
            Act::KeepRegistration(registration) => {
                self.registrations.insert(0, *registration);
                Answer::Done(Ok(()))
            }
            Act::ForgetRegistration(gone) => {
                self.registrations
                    .retain(|r| r.issuer != gone.issuer || r.client.id != gone.client.id);
                Answer::Done(Ok(()))
            }
            Act::OpenCallback(Callback { host, port, path }) => {
                let port = port.unwrap_or(50_000);
                Answer::CallbackOpen(if self.taken.contains(&port) {
                    Err(Error::ConfigCallbackPort { port })
                } else {
                    Ok(format!("http://{host}:{port}{path}"))
                })
            }
            Act::Show(prompt) => {
                assert!(
                    self.locks.is_empty(),
                    "no lock is held while a person thinks"
                );
                let state = prompt.state.expose().to_owned();
                self.prompt = Some(*prompt);
                let usual = || {
                    Ok(vec![
                        ("code".into(), "code-1".into()),
                        ("state".into(), state.clone()),
                    ])
                };
                let redirect = self.redirect.take().unwrap_or_else(usual);
                Answer::Redirected(redirect.map(|mut parameters| {
                    parameters
                        .iter_mut()
                        .filter(|(_, value)| value == STATE)
                        .for_each(|(_, v)| v.clone_from(&state));
                    parameters
                }))
            }
            Act::ShowCode(prompt) => {
                assert!(
                    self.locks.is_empty(),
                    "no lock is held while a person thinks"
                );
                self.code = Some(*prompt);
                Answer::Done(Ok(()))
            }
            Act::CloseCallback => Answer::Done(Ok(())),
            Act::Bury { event, revoke, .. } => Answer::Buried(Ok(self.bury(event, revoke))),
            Act::PutBinding(binding) => {
                self.binding = Some(*binding);
                Answer::Done(Ok(()))
            }
            Act::Revoked(..) => {
                self.queue.clear();
                Answer::Done(Ok(()))
            }
            Act::Record(_, event) => {
                self.events.push(event);
                Answer::Done(Ok(()))
            }
            Act::ReadSecret(reference) => Answer::Secret(
                self.secrets
                    .get(reference.rest())
                    .map(|text| Zeroizing::new(text.clone()))
                    .ok_or_else(|| Error::ConfigValue {
                        what: reference.to_string(),
                        why: "there is none".into(),
                    }),
            ),
        }
    }

    fn exchange(&mut self, exchange: &Exchange) -> Exchanged {
        self.exchanges.push(exchange.clone());
        if let Some(token) = form(exchange, "refresh_token") {
            assert!(
                self.locks
                    .iter()
                    .any(|lock| matches!(lock, Lock::Refresh(_))),
                "sent without the lock (I-16)"
            );
            let known = self.read().record.filter(|record| {
                let kept = record.credential.as_ref();
                let kept = kept.and_then(|credential| credential.refresh_token.as_ref());
                kept.is_some_and(|kept| kept.expose() == token)
            });
            let attempt = known.and_then(|record| record.attempt);
            let (label, noted) = (attempt.and_then(|attempt| attempt.label), attempt.is_some());
            self.sent.push(Sent {
                token,
                label,
                noted,
                delivered: true,
                at: self.now,
            });
        }
        let mut address = exchange.url.clone();
        address.set_query(None);
        let script = self
            .pages
            .remove(address.as_str())
            .or_else(|| self.script.pop_front());
        let Some(script) = script else {
            panic!("nobody answers {exchange:?} after {:#?}", self.log)
        };
        let exchanged = script(exchange, self);
        if let (Some(sent), Verdict::NotDelivered { .. }) =
            (self.sent.last_mut(), Verdict::of(&exchanged))
        {
            sent.delivered &= exchange.leg != Leg::Token;
        }
        exchanged
    }
}
