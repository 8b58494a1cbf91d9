//! Refusals: suspicion, probes, loss, healing, and what a refused repeat teaches.

use super::*;
use crate::{notes::ReuseGrace, state};

const MINUTE: u64 = 60;

fn rejected(certainty: Certainty, named: Option<Named>) -> Error {
    Error::login(LoginCause::RefreshRejected { certainty, named })
}

fn described(
    text: &str,
) -> impl FnOnce(&Exchange, &mut Stage) -> crate::exchange::Exchanged + 'static + use<> {
    reply(
        400,
        &format!(r#"{{"error":"invalid_grant","error_description":"{text}"}}"#),
    )
}

fn losses(stage: &Stage) -> Vec<LoginCause> {
    let lost = |event: &Event| match &event.happened {
        Happened::Lost { cause, .. } => Some(cause.clone()),
        _ => None,
    };
    stage.events.iter().filter_map(lost).collect()
}

/// Asks once a minute, by turns in three processes, until `end`; answers how each ended.
fn work(stage: &mut Stage, end: Duration) -> Vec<Result<Gain, Error>> {
    let end = stage.now.mono + end;
    let mut results = Vec::new();
    while stage.now.mono < end {
        let pid = u32::try_from(results.len() % 3).unwrap();
        results.push(
            stage
                .run(Refresh::new(Task {
                    process: process(pid),
                    ..task(4)
                }))
                .result,
        );
        stage.pass(secs(MINUTE));
    }
    results
}

/// F-14, F-15, I-7: a refusal is reported at once as suspect, after a re-read, and the token stays.
#[test]
fn a_refusal_is_suspect_at_once() {
    let mut stage = expired();
    stage.answer(oauth_error("invalid_grant"));
    let outcome = stage.refresh();
    assert_eq!(outcome.result, Err(rejected(Certainty::Suspect, None)));
    let tail = [
        "send token",
        "reread",
        "note no attempt, no backoff, suspicion 0",
        "unlock",
    ];
    assert_eq!(stage.log[3..], tail);
    assert_eq!(stage.record().credential, Some(credential(4)));
    assert_eq!(outcome.record, stage.record);
    assert!(matches!(
        stage.events[..],
        [Event {
            happened: Happened::Suspected { .. },
            ..
        }]
    ));
    let state = state::State::of(
        stage.record(),
        ReuseGrace::Unknown,
        stage.now,
        Policy::default(),
    );
    assert_eq!(state.word(), "suspect");
}

/// F-15, F-32, I-7: probes after 1, 5 and 30 minutes and 6 hours, at most five calls in seven hours, then one loss.
#[test]
fn a_true_refusal_is_probed_four_times_and_then_lost() {
    let mut stage = expired();
    for _ in 0..20 {
        stage.answer(oauth_error("invalid_grant"));
    }
    let results = work(&mut stage, 7 * HOUR);
    assert_eq!(stage.sent.len(), 5);
    let probe = Some(Label::ProbeSuspect);
    assert_eq!(stage.labels(), [None, probe, probe, probe, probe]);
    let gaps: Vec<_> = stage
        .sent
        .windows(2)
        .map(|w| w[1].at.since(&w[0].at).unwrap().as_secs() / MINUTE)
        .collect();
    for (gap, at_least) in gaps.iter().zip([1, 5, 30, 360]) {
        assert!((at_least..at_least + 3).contains(gap), "{gaps:?}");
    }
    let sure = rejected(Certainty::Certain, None);
    assert_eq!(
        losses(&stage),
        [LoginCause::RefreshRejected {
            certainty: Certainty::Certain,
            named: None
        }]
    );
    assert_eq!(results.last(), Some(&Err(sure.clone())));
    assert!(
        results
            .iter()
            .all(|r| *r == Err(rejected(Certainty::Suspect, None)) || *r == Err(sure.clone()))
    );
    work(&mut stage, 48 * HOUR);
    assert_eq!(
        (stage.sent.len(), losses(&stage).len()),
        (5, 1),
        "lost is lost, once"
    );
    assert_eq!(
        stage.record().credential,
        Some(credential(4)),
        "I-6: even then nothing is deleted"
    );
}

/// F-14: a false refusal heals by itself.
#[test]
fn a_false_refusal_heals() {
    for falsely in 1..=4 {
        let mut stage = expired();
        for _ in 0..falsely {
            stage.answer(oauth_error("invalid_grant"));
        }
        stage.answer(tokens(5));
        let results = work(
            &mut stage,
            if falsely == 4 {
                7 * HOUR
            } else {
                45 * secs(MINUTE)
            },
        );
        assert!(
            results.contains(&Ok(Gain::Refreshed)),
            "{falsely}: {results:?}"
        );
        assert_eq!(stage.record().suspicion, None);
        let healed = stage
            .events
            .iter()
            .filter(|event| event.happened == Happened::Healed)
            .count();
        assert_eq!((healed, losses(&stage).len()), (1, 0));
    }
}

/// F-14, F-32: another process's newer generation, or a new login, is adopted instead.
#[test]
fn a_newer_version_at_the_reread_is_adopted() {
    for newer in [
        Credential {
            received_at: Some(start().after(secs(3690))),
            ..credential(5)
        },
        other_login("client-1"),
    ] {
        let mut stage = expired();
        stage.answer(move |exchange, stage| {
            stage.put(newer.clone());
            oauth_error("invalid_grant")(exchange, stage)
        });
        let outcome = stage.refresh();
        assert_eq!(
            stage.count("note no attempt"),
            0,
            "seen at the re-read, before anything is noted about it"
        );
        assert_eq!(outcome.result, Ok(Gain::Adopted));
        assert_eq!(
            (stage.record().suspicion.is_none(), stage.events.len()),
            (true, 0)
        );
    }
}

/// F-31: a logout during the call is a logout.
#[test]
fn a_tombstone_at_the_reread_is_a_logout() {
    let mut stage = expired();
    stage.answer(|exchange, stage| {
        stage.record = Some(Record::default());
        oauth_error("invalid_grant")(exchange, stage)
    });
    assert_eq!(stage.refresh().result, Err(Error::login(LoginCause::Never)));
}

/// I-7, F-32: a login that comes between the re-read and the note is adopted, not reported as refused.
#[test]
fn a_login_between_the_reread_and_the_note_is_adopted() {
    let mut stage = expired();
    stage.answer(oauth_error("invalid_grant"));
    stage.before("note no attempt", |stage| {
        stage.put(other_login("client-1"))
    });
    let outcome = stage.refresh();
    assert_eq!(outcome.result, Ok(Gain::Adopted));
    assert_eq!(outcome.record, stage.record);
}

/// I-7, T-43: an issuer that names reuse or revocation is believed at once; no probe.
#[test]
fn a_named_reason_is_a_loss_at_once() {
    for (text, named) in [
        ("refresh token already used", Named::Reuse),
        ("The grant was revoked.", Named::Revoked),
    ] {
        let mut stage = expired();
        stage.answer(described(text));
        let want = rejected(Certainty::Certain, Some(named));
        assert_eq!(stage.refresh().result, Err(want.clone()));
        work(&mut stage, 10 * HOUR);
        assert_eq!((stage.sent.len(), losses(&stage).len()), (1, 1));
        assert_eq!(stage.refresh().result, Err(want));
        assert!(stage.record().credential.is_some());
    }
}

/// DESIGN.md section 3 step 6, I-20: a refused repeat teaches that the issuer has no grace.
#[test]
fn a_refused_repeat_is_learned() {
    let mut stage = due();
    stage.answer(broken).answer(oauth_error("invalid_grant"));
    let outcome = stage.refresh();
    assert_eq!(outcome.result, Err(rejected(Certainty::Suspect, None)));
    assert_eq!(stage.notes.grace(stage.now.wall), ReuseGrace::None);
    assert_eq!(outcome.notes, stage.notes);
    assert_eq!(
        stage.log[stage.log.len() - 3..],
        [
            "note no attempt, no backoff, suspicion 0",
            "learn",
            "unlock"
        ]
    );
}

/// The same for a repeat after a crash; but neither a first refusal nor a named revocation says anything about grace.
#[test]
fn only_a_refused_repeat_is_learned() {
    let mut stage = due();
    stage.answer(tokens(5));
    stage.crash_after("send", Refresh::new(task(4)));
    stage.answer(described("reuse detected"));
    assert!(stage.refresh().result.is_err());
    assert_eq!(stage.notes.reuse_grace, ReuseGrace::None);

    let mut first = due();
    first.answer(oauth_error("invalid_grant"));
    let mut revoked = due();
    revoked
        .answer(broken)
        .answer(described("revoked by the user"));
    let mut late = expired();
    late.answer(silent).answer(oauth_error("invalid_grant"));
    assert!(late.refresh().result.is_err());
    late.pass(secs(60));
    for mut stage in [first, revoked, late] {
        assert!(stage.refresh().result.is_err());
        assert_eq!(
            (stage.notes.reuse_grace, stage.count("learn")),
            (ReuseGrace::Unknown, 0)
        );
    }
}

/// I-1, I-7: a probe that nobody answers counts and keeps the pace of probes, but no silence makes a loss.
#[test]
fn an_unanswered_probe_counts_but_convicts_nobody() {
    let mut stage = expired();
    stage.answer(oauth_error("invalid_grant"));
    for _ in 0..40 {
        stage.answer(broken);
    }
    work(&mut stage, 7 * HOUR);
    assert!(stage.sent.len() <= 5, "{}", stage.sent.len());
    assert!(losses(&stage).is_empty());
    stage.pass(7 * HOUR);
    assert_eq!(
        stage
            .labels()
            .iter()
            .filter(|label| label.is_none())
            .count(),
        1
    );
    let sent = stage.sent.len();
    assert!(stage.refresh().result.is_err());
    assert_eq!(stage.sent.len(), sent + 1, "it is asked again all the same");
}

/// I-8: a probe that was not delivered is no probe.
#[test]
fn a_probe_that_was_not_delivered_does_not_count() {
    let mut stage = expired();
    stage.answer(oauth_error("invalid_grant"));
    assert!(stage.refresh().result.is_err());
    stage.pass(secs(61)).answer(unreachable);
    assert!(matches!(stage.refresh().result, Err(Error::Network { .. })));
    assert_eq!(stage.record().suspicion.as_ref().map(|s| s.probes), Some(0));
    stage.pass(secs(2)).answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
}

/// F-19, I-12: a probe that a fast clock has put years ahead, before a restart, is due.
#[test]
fn a_probe_in_the_far_future_is_not_believed() {
    let mut stage = expired();
    stage.answer(oauth_error("invalid_grant"));
    assert!(stage.refresh().result.is_err());
    stage.now.wall = Wall(stage.now.wall.0 - 10 * 86_400_000);
    let early = stage.refresh().result;
    assert!(early.is_err(), "the boot clock knows better: {early:?}");
    stage.now.boot = crate::time::BootId([2; 16]);
    stage.answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
}

/// F-16: a forgotten client keeps its tokens, is not asked again, and needs a login.
#[test]
fn a_forgotten_client_keeps_its_tokens() {
    let mut stage = due();
    stage.answer(reply(401, r#"{"error":"invalid_client"}"#));
    let gone = Error::login(LoginCause::RegistrationGone);
    assert_eq!(stage.refresh().result, Err(gone.clone()));
    assert_eq!(stage.record().credential, Some(credential(4)));
    work(&mut stage, 2 * HOUR);
    assert_eq!(stage.refresh().result, Err(gone));
    assert_eq!(
        (stage.sent.len(), losses(&stage).as_slice()),
        (1, &[LoginCause::RegistrationGone][..])
    );
    assert_eq!(stage.count("learn"), 0);
}

/// RFC 6749 section 5.2: another OAuth error spends nothing; it is told and waits.
#[test]
fn another_oauth_error_backs_off() {
    let mut stage = due();
    stage.answer(oauth_error("unauthorized_client"));
    assert_eq!(
        stage.refresh().result,
        Err(Error::DeniedByIssuer {
            error: "unauthorized_client".into()
        })
    );
    assert_eq!(
        (stage.record().attempt, stage.record().suspicion.clone()),
        (None, None)
    );
    assert!(stage.record().backoff.is_some());
}
