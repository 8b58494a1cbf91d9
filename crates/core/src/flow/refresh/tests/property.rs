//! Whatever is answered, and whatever breaks.

use proptest::prelude::*;

use super::*;
use crate::record::Spooled;

/// The answers that an act can get, right and wrong, chosen by a number.
fn answered(act: Option<&Act>, choice: u8, now: Now) -> Answer {
    let no = || Error::StoreUnavailable { why: "no".into() };
    if choice > 244 {
        return Answer::Done(Ok(()));
    }
    match act {
        None => Answer::Woken,
        Some(Act::Lock(_)) if choice % 8 == 7 => Answer::Locked(Err(no())),
        Some(Act::Lock(_)) => Answer::Locked(Ok(choice.into())),
        Some(Act::Reread(_)) => Answer::Read(if choice % 8 == 7 {
            Err(no())
        } else {
            Ok(Box::new(reading(choice, now)))
        }),
        Some(Act::Note { .. }) => Answer::Noted(
            [Ok(true), Ok(true), Ok(false), Err(no())][usize::from(choice % 4)].clone(),
        ),
        Some(Act::Commit(_)) => Answer::Committed(match choice % 3 {
            0 => Ok(Committed::Done { superseded: None }),
            1 => Ok(Committed::Moved),
            _ => Err(no()),
        }),
        Some(Act::Send(exchange)) => {
            let stage = &mut Stage::new();
            stage.now = now;
            Answer::Exchanged(network(choice, 9)(exchange, stage))
        }
        Some(_) if choice % 2 == 1 => Answer::Done(Err(no())),
        Some(_) => Answer::Done(Ok(())),
    }
}

fn reading(choice: u8, now: Now) -> Reading {
    let mut record = Record {
        credential: Some(credential((choice / 16).into())),
        ..Record::default()
    };
    let credential = record.credential.as_mut().unwrap();
    match choice % 8 {
        0 => credential.received_at = None,
        1 => *credential = other_login("client-2"),
        2 => {
            return Reading {
                record: Some(Record::default()),
                ..Reading::default()
            };
        }
        3 => {
            record.spooled = Some(Spooled {
                follows: Some(version(1)),
            })
        }
        4 => {
            let (generation, process) = (credential.version.generation, process(2));
            let sent_at = Now {
                mono: Mono(now.mono.0.saturating_sub(u64::from(choice) * 100)),
                ..now
            };
            let attempt = Attempt {
                generation,
                number: 1,
                label: None,
                fence: 1,
                process,
                first_sent_at: sent_at,
                sent_at,
            };
            record.attempt = Some(attempt);
        }
        5 => credential.refresh_token = None,
        _ => {}
    }
    Reading {
        record: Some(record),
        notes: IssuerNotes::default(),
        writable: choice % 32 != 6,
    }
}

/// What the network makes of a call: tokens, then everything that is none.
fn network(choice: u8, next: u64) -> Scripted {
    match choice % 12 {
        0..4 => Box::new(tokens(next)),
        4 => Box::new(broken),
        5 => Box::new(unreachable),
        6 => Box::new(silent),
        7 => Box::new(oauth_error("invalid_grant")),
        8 => Box::new(reply(500, "")),
        9 => Box::new(with_headers(429, &[("retry-after", "3")], "")),
        10 => Box::new(reply(200, "<html>")),
        _ => Box::new(reply(401, r#"{"error":"invalid_client"}"#)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// I-1, I-16, I-17: whatever is answered, a refresh neither panics nor goes on for ever, lets go of what it locked, and
    /// sends nothing but under the lock, after an attempt that store or slot took (or both refused, for a token that has
    /// ended).
    #[test]
    fn whatever_is_answered_the_rules_hold(
        choices in prop::collection::vec(any::<u8>(), 0..60),
        refused in any::<bool>(),
        asked in any::<bool>(),
        kept in prop::option::of(0u64..20),
        age in 0u64..4000,
    ) {
        let unsaved = kept.map(|generation| Box::new(credential(generation)));
        let refused = refused.then(|| version(3));
        let mut now = start().after(secs(age));
        let mut choices = choices.into_iter();
        let mut turn = Refresh::new(Task { unsaved, refused, asked, ..task(3) }).start(now);
        let (mut locked, mut noted, mut slot_refused, mut bug, mut steps) = (false, None, false, false, 0);
        let mut unspooled = false;
        let outcome = loop {
            let (flow, Step { act, wake_at }) = match turn {
                Turn::Done(outcome) => break outcome,
                Turn::Next(flow, step) => (flow, step),
            };
            steps += 1;
            prop_assert!(steps < 100, "no end");
            let answer = answered(act.as_ref(), choices.next().unwrap_or_default(), now);
            now = now.after(wake_at.map_or(Duration::from_millis(7), |at| now.mono.until(at)));
            match (&act, &answer) {
                (Some(Act::Lock(_)), Answer::Locked(Ok(_))) => locked = true,
                (Some(Act::Unlock(_)), _) => locked = false,
                (Some(Act::Note { facts, .. }), Answer::Noted(written)) => {
                    if let [Fact::Attempt(Some(attempt)), ..] = facts[..] {
                        (noted, slot_refused) = (Some((attempt, *written == Ok(true))), false);
                    }
                }
                // What the issuer has just granted may be in memory only, too.
                (Some(Act::Spool { .. }), Answer::Done(Err(_))) => unspooled = true,
                // After the call it puts back what was found before it.
                (Some(Act::SpoolAttempt { attempt: Some(attempt), .. }), Answer::Done(kept)) if noted.is_some() => {
                    prop_assert!(noted == Some((*attempt, false)), "the store is asked first");
                    (noted, slot_refused) = (Some((*attempt, kept.is_ok())), kept.is_err());
                }
                (Some(Act::Send(exchange)), _) if exchange.leg == Leg::Token => {
                    prop_assert!(locked);
                    let Some((attempt, durable)) = noted.take() else { panic!("sent without a note") };
                    let excused = slot_refused || kept.is_some() || unspooled;
                    prop_assert!(durable || (excused && attempt.label.is_none()));
                }
                _ => {}
            }
            // After a wrong answer the driver lets go of everything.
            let done = matches!(act, Some(Act::Unlock(_) | Act::Spool { .. } | Act::SpoolAttempt { .. } | Act::Learn(..) | Act::Record(..) | Act::ForgetRegistration(_)));
            bug |= !done && matches!(answer, Answer::Done(_));
            turn = flow.handle(answer, now);
        };
        prop_assert!(!locked || bug || outcome.unsaved, "still locked");
        prop_assert_eq!(matches!(outcome.result, Err(Error::Bug { .. })), bug);
    }

    /// I-1, I-2, I-3, I-4, I-5, I-8, F-03, F-06: three processes, crashes, a network and a store that break: per refresh
    /// token one unlabelled call, each label within its maximum, nothing spent is sent again, and no login is ever lost. While
    /// the slot takes what the store refuses, nothing leaves without a durable attempt.
    #[test]
    fn whatever_breaks_the_invariants_hold(script in prop::collection::vec(any::<[u8; 5]>(), 1..40)) {
        let mut stage = Stage::with(credential(0));
        stage.may_keep = true;
        let mut memories: [Memory; 3] = Default::default();
        let mut spent: Vec<String> = Vec::new();
        for (i, [who, time, weather, fault, change]) in script.into_iter().enumerate() {
            stage.pass(Duration::from_millis(u64::from(time) * u64::from(time) * 60));
            let next = u64::try_from(i).unwrap() + 100;
            stage.heal().clear();
            break_store(&mut stage, fault, change);
            for _ in 0..8 {
                stage.answer(network(weather, next));
            }
            let (before, mut refreshed) = (stage.sent.len(), false);
            // Where nothing durable knows the newest version, only the process that holds it could know better.
            let holder = memories.iter().position(|memory| memory.unsaved.is_some()).unwrap_or(usize::from(who % 3));
            let memory = &mut memories[holder];
            let held = memory.unsaved.as_ref().or(stage.record().credential.as_ref()).map(|c| c.version);
            let refused = held.filter(|_| who > 200);
            let unsaved = memory.unsaved.clone().map(Box::new);
            let remembered = memory.unnoted.clone().map(Box::new);
            let task = Task { held, refused, unsaved, remembered, process: process(u32::try_from(holder).unwrap()), ..task(0) };
            if fault > 230 && memory.unsaved.is_none() {
                stage.crash_after(CRASHES[usize::from(weather) % CRASHES.len()], Refresh::new(task));
                *memory = Memory::default();
            } else {
                let outcome = stage.run(Refresh::new(task));
                let wrong = matches!(outcome.result, Err(Error::Bug { .. } | Error::LoginRequired { cause: LoginCause::Never }));
                prop_assert!(!wrong, "{:?}", outcome.result);
                refreshed = outcome.result == Ok(Gain::Refreshed);
                memory.settle(outcome, &stage);
            }
            for sent in &stage.sent[before..] {
                prop_assert!(!spent.contains(&sent.token), "{} is spent", sent.token);
                prop_assert!(sent.noted || slot_fails(fault), "{:?} left without a durable attempt", sent);
            }
            if refreshed {
                spent.push(stage.sent.last().unwrap().token.clone());
            }
            prop_assert!(stage.record().credential.as_ref().is_some_and(|c| c.refresh_token.is_some()));
        }
        for token in stage.sent.iter().map(|sent| &sent.token) {
            let of = |label| stage.sent.iter().filter(|s| s.token == *token && s.delivered && s.label == label).count();
            // What nothing durable knew of may be sent again by whoever was not told.
            let unheld = stage.sent.iter().filter(|s| s.token == *token && !s.noted).count();
            prop_assert!(of(None) <= 1 + unheld, "{token} {:?}", stage.sent);
            prop_assert!(of(Some(Label::RetryAmbiguous)) <= 1 && of(Some(Label::AfterCrash)) <= 1, "{token} {:?}", stage.sent);
        }
    }
}

/// What a process knows that no store does.
#[derive(Default)]
struct Memory {
    unsaved: Option<Credential>,
    unnoted: Option<Record>,
}

impl Memory {
    fn settle(&mut self, outcome: Outcome, stage: &Stage) {
        self.unnoted = outcome.record.clone().filter(|_| outcome.unnoted);
        let newest = outcome.record.and_then(|record| record.credential);
        let stored = stage.read().record.and_then(|record| record.version());
        self.unsaved = newest
            .filter(|_| outcome.unsaved)
            .or(self.unsaved.take())
            .filter(|kept| stored.is_some_and(|stored| kept.version.succeeds(&stored)));
    }
}

/// Makes store and slot refuse, from the start or from the call on, or only until then.
fn break_store(stage: &mut Stage, fault: u8, change: u8) {
    if fault % 5 == 1 {
        stage.fail("commit");
    }
    if fault % 3 == 1 {
        stage.fail("note");
    }
    if slot_fails(fault) {
        stage.fail("spool");
    }
    match change % 8 {
        0 => drop(stage.before("send", |stage| {
            stage.heal();
        })),
        1 => drop(stage.before("send", |stage| {
            stage.fail("note").fail("commit");
        })),
        2 => drop(stage.before("note attempt retry", |stage| {
            stage.fail("note");
        })),
        _ => {}
    }
}

fn slot_fails(fault: u8) -> bool {
    fault % 25 == 6
}

const CRASHES: [&str; 6] = ["lock", "reread", "note", "spool", "send", "commit"];
