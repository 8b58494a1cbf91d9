//! Under the lease: what store and spool hold decides whether a call is made, and under which label.

use std::time::Duration;

use crate::{
    attempt::{Attempt, Label, Ruling, repeat_window},
    credential::{Credential, Lifetime, Renewal, Version},
    error::{Error, LoginCause},
    event::{Happened, Reason},
    flow::{Act, Commit, Expects, Reading, Turn},
    freshness::{DueReason, Freshness},
    record::{Backoff, Fact, Forced, Record, Suspicion},
    time::{BootId, Now, Wall},
};

use super::{Call, Gain, Outcome, Refresh, State, ending::Then, version_of};

impl Refresh {
    /// Decides, from what store and spool hold, whether to send at all.
    pub(super) fn decide(
        mut self,
        fence: u64,
        mut reading: Reading,
        merged: bool,
        now: Now,
    ) -> Turn<Self> {
        self.remember(&mut reading, now.boot);
        let Some((record, credential)) = reading
            .record
            .as_ref()
            .and_then(|record| Some((record, record.credential.as_ref()?)))
        else {
            if let (Some(_), Some(kept)) = (&reading.record, self.task.unsaved.take()) {
                return self.discard(fence, &kept, reading);
            }
            return self.stop(reading, Err(Error::login(LoginCause::Never)));
        };
        let version = credential.version;
        if !merged {
            self.task.unsaved = self
                .task
                .unsaved
                .take()
                .filter(|kept| kept.is_ahead_of(credential, now.boot));
            if let Some(kept) = self.task.unsaved.clone() {
                return self.merge(fence, reading, *kept, Expects::Version(version), true, now);
            }
            if let Some(spooled) = record.spooled {
                let expects = spooled.follows.map_or(Expects::Nothing, Expects::Version);
                let credential = credential.clone();
                return self.merge(fence, reading, credential, expects, false, now);
            }
        }
        let refused = self.task.refused == Some(version);
        let freshness = credential.freshness(now, self.task.policy);
        let reason = match freshness {
            // That a server refuses what has ended says nothing against the server (T-45).
            Freshness::Expired { .. } => Reason::Expired,
            _ if refused => Reason::Refused,
            Freshness::Due {
                reason: DueReason::Due,
                ..
            } => Reason::Due,
            Freshness::Due {
                reason: DueReason::AgeUnknown,
                ..
            } => Reason::AgeUnknown,
            Freshness::Fresh { .. } if self.task.asked && self.task.held == Some(version) => {
                Reason::Asked
            }
            // Whoever made it wanted another token, and may be dead: its call is repeated in time, or never.
            Freshness::Fresh { .. } if self.repeats_in_time(&reading, version, now) => {
                Reason::Asked
            }
            Freshness::Fresh { .. } => {
                let gain = if self.task.held == Some(version) {
                    Gain::Nothing
                } else {
                    Gain::Adopted
                };
                return self.stop(reading, Ok(gain));
            }
        };
        let usable = !matches!(reason, Reason::Refused | Reason::Expired);
        if let Some(end) = forbidden(record, credential, &reading, reason, now) {
            return match end {
                Forbidden::Pause(error, may_look) => {
                    let waits = !usable || reason == Reason::Asked;
                    self.pauses(fence, reading, error, waits && may_look)
                }
                Forbidden::Error(error) => self.stop(reading, Err(error)),
                Forbidden::Nothing => self.stop(reading, Ok(Gain::Nothing)),
                Forbidden::Key => {
                    let record = record.clone();
                    self.key_refused(reading, record, version, now)
                }
                Forbidden::Trip(forced, until) => {
                    let record = record.clone();
                    self.trip(reading, record, forced, until, version, now)
                }
            };
        }
        // What is left of a pause is one that a waiting caller may look through.
        let pause = record.backoff.as_ref().and_then(|pause| pause.binds(now));
        self.early |= pause.is_some();
        if self.misses_endpoint(record, now) {
            return self.ask_issuer(fence, reading, now);
        }
        let found = record
            .attempt
            .filter(|attempt| attempt.generation == version.generation);
        let ruling = found.map(|attempt| match attempt.label {
            // What was sent as uncertain never becomes a crash again: each label has its maximum (I-1).
            Some(Label::Uncertain) => Ruling::Uncertain,
            // Its own repeat came to nothing: that is no crash, and once is enough.
            Some(Label::RetryAmbiguous) if attempt.process == self.task.process => {
                Ruling::Uncertain
            }
            _ => {
                let grace = reading.notes.grace(now.wall);
                let limit = self.task.policy.repeat_limit;
                attempt.ruling(now, repeat_window(grace, limit))
            }
        });
        let label = match ruling {
            _ if record.suspicion.is_some() => Some(Label::ProbeSuspect),
            None => None,
            Some(Ruling::Send(label)) => Some(label),
            Some(Ruling::Uncertain) if usable => return self.stop(reading, Ok(Gain::Uncertain)),
            Some(Ruling::Uncertain) => Some(Label::Uncertain),
        };
        let attempt = Attempt {
            generation: version.generation,
            number: found.map_or(0, |attempt| attempt.number) + 1,
            label,
            fence,
            process: self.task.process,
            first_sent_at: found.map_or(now, |attempt| attempt.first_sent_at),
            sent_at: now,
        };
        let names_scopes = reading.notes.quirks.names_scopes(now.wall);
        let begun_at = self.asked_issuer.unwrap_or(now);
        self.note(Call {
            names_scopes,
            asked_otherwise: false,
            record: record.clone(),
            credential: credential.clone(),
            reading,
            reason,
            attempt,
            found,
            sent: 0,
            repeats: false,
            window_from: if label == Some(Label::Uncertain) {
                now
            } else {
                attempt.first_sent_at
            },
            left_at: now,
            begun_at,
            is_first: found.is_none(),
            failed: None,
            acted: None,
        })
    }

    /// Whether an attempt of another process stands that can be repeated now, since its window is open.
    fn repeats_in_time(&self, reading: &Reading, version: Version, now: Now) -> bool {
        let window = repeat_window(reading.notes.grace(now.wall), self.task.policy.repeat_limit);
        let attempt = reading.record.as_ref().and_then(|record| record.attempt);
        attempt.is_some_and(|attempt| {
            let foreign = attempt.process != self.task.process;
            let first = matches!(attempt.label, None | Some(Label::RetryAmbiguous));
            let stands = attempt.generation == version.generation && first;
            foreign && stands && matches!(attempt.ruling(now, window), Ruling::Send(_))
        })
    }

    /// Lays what an earlier run could not note over what the store knows of the same version (I-1, I-9).
    fn remember(&mut self, reading: &mut Reading, boot: BootId) {
        let (Some(known), Some(record)) = (&self.task.remembered, &mut reading.record) else {
            return;
        };
        let read = record.clone();
        record.remember(known, boot);
        // Nor does the store know now: a run that only looks must not forget it.
        self.unnoted |= *record != read;
    }

    /// Brings a version that only spool or memory hold into the store, then looks again.
    pub(super) fn merge(
        self,
        fence: u64,
        reading: Reading,
        credential: Credential,
        expects: Expects,
        unsaved: bool,
        now: Now,
    ) -> Turn<Self> {
        let happened = Happened::Merged {
            generation: credential.version.generation,
        };
        let event = self.event(now, happened);
        let forced = reading
            .record
            .as_ref()
            .and_then(|record| record.forced.clone());
        let commit = Commit {
            credential,
            expects,
            binding: None,
            forced,
            event,
        };
        self.next(
            State::ExpectMerge {
                fence,
                reading: Box::new(reading),
                unsaved,
            },
            Act::Commit(Box::new(commit)),
        )
    }

    /// The store refuses what only memory holds: the spool may take it.
    pub(super) fn keep(self, fence: u64, reading: Box<Reading>, now: Now) -> Turn<Self> {
        let Some(credential) = self.task.unsaved.clone() else {
            return self.decide(fence, *reading, true, now);
        };
        let follows = version_of(&reading.record);
        self.next(
            State::ExpectKept { fence, reading },
            Act::Spool {
                follows,
                credential,
            },
        )
    }

    /// Neither store nor spool takes what memory holds. It is the newest version all the same: what they still hold is
    /// spent, and never sent again (I-2).
    pub(super) fn decide_in_memory(
        mut self,
        fence: u64,
        mut reading: Reading,
        now: Now,
    ) -> Turn<Self> {
        let held = reading.record.take().unwrap_or_default();
        self.stored = held.version();
        let credential = self.task.unsaved.as_deref().cloned();
        reading.record = Some(Record {
            credential,
            forced: held.forced,
            ..Record::default()
        });
        self.decide(fence, reading, true, now)
    }

    /// The server refuses what a forced refresh has just brought: no more of them for half the token's life (T-45).
    pub(super) fn trip(
        self,
        reading: Reading,
        mut record: Record,
        forced: Forced,
        until: Wall,
        version: Version,
        now: Now,
    ) -> Turn<Self> {
        let facts = vec![Fact::Forced(Some(forced))];
        record.apply(&facts);
        let event = self.event(now, Happened::BreakerTripped { until });
        let outcome = Outcome::known(record, reading.notes, Err(Error::DeniedByResource));
        self.facts(outcome, version, facts, event, Then::Unlock)
    }

    /// The server refuses the key that a person has brought: noted, so that every process and `status` tell it; once a minute
    /// at most, whatever asks, and by whoever may write. The key stays, and the next time that the server takes it ends this.
    fn key_refused(
        self,
        reading: Reading,
        mut record: Record,
        version: Version,
        now: Now,
    ) -> Turn<Self> {
        let cause = LoginCause::StaticTokenRefused;
        let error = Err(Error::login(cause.clone()));
        let known = record.suspicion.as_ref();
        let noted_at = known.and_then(|known| known.at);
        let age = noted_at.and_then(|at| now.since(&at));
        if !reading.writable || age.is_some_and(|age| age < A_MINUTE) {
            return self.unlock(Outcome::known(record, reading.notes, error));
        }
        let suspicion = Suspicion {
            cause: cause.clone(),
            since: known.map_or(now.wall, |known| known.since),
            probes: 0,
            next_probe_at: None,
            at: Some(now),
        };
        let lost = Happened::Lost { cause, label: None };
        let event = known.is_none().then(|| self.event(now, lost));
        let facts = vec![Fact::Suspicion(Some(suspicion))];
        record.apply(&facts);
        let outcome = Outcome::known(record, reading.notes, error);
        self.facts(outcome, version, facts, event, Then::Unlock)
    }
}

/// Why nothing is sent.
enum Forbidden {
    Error(Error),
    /// Calls pause; whether a look at the issuer could end that.
    Pause(Error, bool),
    Nothing,
    /// The server refuses the key that a person has brought.
    Key,
    Trip(Forced, Wall),
}

/// Whether something stored forbids a call now: no refresh token, a verdict, a pause, a breaker.
fn forbidden(
    record: &Record,
    credential: &Credential,
    reading: &Reading,
    reason: Reason,
    now: Now,
) -> Option<Forbidden> {
    let usable = !matches!(reason, Reason::Refused | Reason::Expired);
    match credential.renewal() {
        Renewal::RefreshToken(_) => {}
        // A login of the other kind has taken this one's place: whoever asked looks again.
        Renewal::Grant(_) => return Some(Forbidden::Nothing),
        Renewal::Nothing if usable => return Some(Forbidden::Nothing),
        Renewal::Nothing if credential.is_static() => return Some(Forbidden::Key),
        Renewal::Nothing => {
            return Some(Forbidden::Error(Error::login(LoginCause::NoRefreshToken)));
        }
    }
    if !reading.writable {
        let why = "a newer version of Pilotlight keeps this store; update this program".to_owned();
        return Some(Forbidden::Error(Error::StoreUnavailable { why }));
    }
    if let Some(suspicion) = &record.suspicion
        && suspicion.probe_in(now).is_none_or(|left| !left.is_zero())
    {
        return Some(Forbidden::Error(Error::login(suspicion.cause.clone())));
    }
    // Where nothing left, because a secret could not be read, whoever waits may look whether that has changed.
    let waits = !usable || reason == Reason::Asked;
    let may_look_elsewhere =
        |pause: &Backoff| waits && pause.looks_elsewhere && Backoff::spares(Some(pause), 1, now);
    if let Some(backoff) = &record.backoff
        && let Some(retry_after) = backoff.binds(now)
        && !may_look_elsewhere(backoff)
    {
        let code = backoff.code.clone();
        let error = Error::BackingOff { code, retry_after };
        return Some(Forbidden::Pause(error, backoff.may_look(now)));
    }
    if reason != Reason::Refused {
        return None;
    }
    forced_limit(record, credential, now).map(|limit| match limit {
        ForcedLimit::Pause => Forbidden::Error(Error::DeniedByResource),
        ForcedLimit::Trip(forced, until) => Forbidden::Trip(forced, until),
    })
}

/// Why a token is not replaced although the server refuses it.
pub(in crate::flow) enum ForcedLimit {
    /// It was just replaced for that reason.
    Pause,
    /// It is itself what replaced a refused one, and nobody has ever had it accepted: the breaker opens, until then.
    Trip(Forced, Wall),
}

/// Whether a server that refuses a token must wait before another is got for it (T-45).
pub(in crate::flow) fn forced_limit(
    record: &Record,
    credential: &Credential,
    now: Now,
) -> Option<ForcedLimit> {
    let lifetime = credential.lifetime.map(Lifetime::span);
    let forced = record.forced.clone().unwrap_or_default();
    let generation = credential.version.generation;
    let accepted = record
        .acceptance
        .is_some_and(|seen| seen.generation == generation);
    if forced.brought == Some(generation) && !accepted && forced.broken_until.is_none() {
        let until = now.wall + lifetime.map_or(BREAKER, |life| life / 2);
        return Some(ForcedLimit::Trip(
            Forced {
                broken_until: Some(until),
                ..forced
            },
            until,
        ));
    }
    if forced.at.last().is_some_and(|last| *last > now.wall) {
        return None;
    }
    let wait = now.wall.until(forced.allowed_at(lifetime));
    let longest = DAY.max(lifetime.unwrap_or_default() / 2);
    (!wait.is_zero() && wait <= longest).then_some(ForcedLimit::Pause)
}

const BREAKER: Duration = Duration::from_secs(1800);

const A_MINUTE: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(86_400);
