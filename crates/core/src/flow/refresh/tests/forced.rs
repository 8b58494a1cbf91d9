//! Refreshes forced by a 401 (T-45).

use super::*;
use crate::{
    credential::{Generation, Lifetime},
    record::Acceptance,
    registration::ClientSource,
};

const MINUTE: Duration = Duration::from_secs(60);

/// A stage whose fresh login lives this long.
fn living(lifetime: Duration) -> Stage {
    let lifetime = Some(Lifetime::Stated(lifetime));
    let mut stage = Stage::with(Credential {
        lifetime,
        ..credential(4)
    });
    stage.pass(secs(1));
    stage
}

fn answers(stage: &mut Stage, lifetime: Duration, from: u64, many: u64) {
    for generation in from..from + many {
        let life = lifetime.as_secs();
        stage.answer(reply(
            200,
            &format!(r#"{{"access_token":"at-{generation}","expires_in":{life}}}"#),
        ));
    }
}

fn accept(stage: &mut Stage) {
    let (generation, at) = (Generation(stage.generation()), stage.now.wall);
    let acceptance = Acceptance {
        generation,
        first_at: at,
        last_at: at,
    };
    stage.record.as_mut().unwrap().acceptance = Some(acceptance);
}

/// Refuses the current token over and over for this long, `accepted` or not in between.
fn storm(stage: &mut Stage, lasting: Duration, accepted: bool) -> Vec<Result<Gain, Error>> {
    let end = stage.now.mono + lasting;
    let mut results = Vec::new();
    while stage.now.mono < end {
        if accepted {
            accept(stage);
        }
        results.push(stage.run(Refresh::new(refused(stage.generation()))).result);
        stage.pass(Duration::from_millis(200));
    }
    results
}

/// AUTH-84, I-10: a 401 refreshes what is fresh by our record.
#[test]
fn a_401_refreshes_a_fresh_token() {
    let mut stage = living(HOUR);
    stage.answer(tokens(5));
    let outcome = stage.run(Refresh::new(refused(4)));
    assert_eq!(outcome.result, Ok(Gain::Refreshed));
    let forced = stage.record().forced.clone().unwrap();
    assert_eq!((forced.brought, forced.at.len()), (Some(Generation(5)), 1));
    assert_eq!(
        outcome.record.unwrap().forced.unwrap().brought,
        Some(Generation(5))
    );
    assert!(matches!(
        stage.events[0].happened,
        Happened::Refreshed {
            reason: Reason::Refused,
            ..
        }
    ));
}

/// T-45: between two forced refreshes lie min(30 s, lifetime / 4), even where each token was accepted once.
#[test]
fn forced_refreshes_keep_their_distance() {
    for (lifetime, spacing) in [(HOUR, 30), (secs(40), 10)] {
        let mut stage = living(lifetime);
        answers(&mut stage, lifetime, 5, 10);
        let results = storm(&mut stage, secs(59), true);
        assert!(
            results
                .iter()
                .all(|r| matches!(r, Ok(Gain::Refreshed) | Err(Error::DeniedByResource)))
        );
        assert!((2..=3).contains(&stage.sent.len()), "{}", stage.sent.len());
        for pair in stage.sent.windows(2) {
            assert!(
                pair[1].at.since(&pair[0].at).unwrap()
                    >= secs(spacing) - Duration::from_millis(100)
            );
        }
    }
}

/// T-45: at most three a minute, whatever the lifetime.
#[test]
fn at_most_three_a_minute_are_forced() {
    let mut stage = living(secs(8));
    answers(&mut stage, secs(8), 5, 100);
    storm(&mut stage, 5 * MINUTE, true);
    for (i, first) in stage.sent.iter().enumerate() {
        let within = stage.sent[i..]
            .iter()
            .take_while(|s| s.at.since(&first.at).unwrap() < secs(59))
            .count();
        // Refreshes that are merely due do not count; a lifetime of 8 s makes some.
        assert!(within <= 12, "{within}");
    }
    let forced = |event: &&Event| {
        matches!(
            event.happened,
            Happened::Refreshed {
                reason: Reason::Refused,
                ..
            }
        )
    };
    let at: Vec<_> = stage
        .events
        .iter()
        .filter(forced)
        .map(|event| event.at)
        .collect();
    for (i, first) in at.iter().enumerate() {
        assert!(
            at[i..]
                .iter()
                .take_while(|t| first.until(**t) < secs(60))
                .count()
                <= 3,
            "{at:?}"
        );
    }
    assert!(at.len() >= 12);
}

/// T-45: a token that came from a forced refresh and that nobody ever had accepted trips the breaker for half its life.
#[test]
fn a_token_that_was_never_accepted_trips_the_breaker() {
    for lifetime in [HOUR, 10 * 24 * HOUR] {
        let mut stage = living(lifetime);
        answers(&mut stage, lifetime, 5, 10);
        let results = storm(&mut stage, MINUTE, false);
        assert_eq!(stage.sent.len(), 1, "{lifetime:?}");
        assert_eq!(
            results[1..]
                .iter()
                .filter(|r| **r == Err(Error::DeniedByResource))
                .count(),
            results.len() - 1
        );
        let tripped = stage
            .events
            .iter()
            .filter(|e| matches!(e.happened, Happened::BreakerTripped { .. }))
            .count();
        assert_eq!(tripped, 1);
        assert_eq!(stage.count("note forced"), 1);
        stage.pass(lifetime / 2 - 2 * MINUTE);
        storm(&mut stage, secs(2), false);
        assert_eq!(
            stage.sent.len(),
            1,
            "{lifetime:?}: half its life is not over"
        );
        stage.pass(3 * MINUTE);
        storm(&mut stage, MINUTE, false);
        assert_eq!(
            stage.sent.len(),
            2,
            "{lifetime:?}: one more, and it trips again"
        );
    }
}

/// T-45: an acceptance in any process keeps the breaker closed.
#[test]
fn an_accepted_token_does_not_trip_the_breaker() {
    let mut stage = living(HOUR);
    answers(&mut stage, HOUR, 5, 2);
    storm(&mut stage, secs(1), false);
    assert_eq!(stage.sent.len(), 1);
    stage
        .record
        .as_mut()
        .unwrap()
        .forced
        .as_mut()
        .unwrap()
        .broken_until = None;
    accept(&mut stage);
    stage.pass(MINUTE);
    assert_eq!(
        stage.run(Refresh::new(refused(5))).result,
        Ok(Gain::Refreshed)
    );
}

/// T-45: a refresh that was merely due neither forgets the storm nor joins it.
#[test]
fn a_due_refresh_carries_the_memory_of_forced_ones_on() {
    let mut stage = living(HOUR);
    stage.answer(tokens(5)).answer(tokens(6));
    stage.run(Refresh::new(refused(4)));
    let before = stage.record().forced.clone();
    stage.pass(secs(3400));
    assert_eq!(stage.run(Refresh::new(task(5))).result, Ok(Gain::Refreshed));
    assert_eq!(stage.record().forced, before);
}

/// F-19, I-12: a breaker set by a clock that ran ahead binds nobody for ever.
#[test]
fn a_breaker_from_the_far_future_is_not_believed() {
    let mut stage = living(HOUR);
    answers(&mut stage, HOUR, 5, 3);
    storm(&mut stage, MINUTE, false);
    stage.now.wall = Wall(stage.now.wall.0 - 30 * 86_400_000);
    assert_eq!(
        stage.run(Refresh::new(refused(5))).result,
        Ok(Gain::Refreshed)
    );
}

/// F-18: an issuer that states no lifetime is learned from: the age at which an accepted token was refused, then more.
#[test]
fn a_silent_issuers_lifetime_is_learned() {
    let mut stage = Stage::with(Credential {
        lifetime: None,
        ..credential(4)
    });
    for _ in 0..3 {
        stage.answer(reply(200, r#"{"access_token":"at"}"#));
    }
    accept(&mut stage);
    stage.pass(secs(600));
    stage.run(Refresh::new(refused(4)));
    let life = |stage: &Stage| stage.record().credential.as_ref().unwrap().lifetime;
    let Some(Lifetime::Hint(learned)) = life(&stage) else {
        panic!()
    };
    assert_eq!(learned.as_secs(), 600);
    stage.pass(secs(590));
    assert_eq!(stage.run(Refresh::new(task(5))).result, Ok(Gain::Refreshed));
    assert_eq!(life(&stage), Some(Lifetime::Hint(learned + learned / 4)));
}

/// F-18: a life as short as fifteen seconds is learned too, or each further refusal would meet the pause between two.
#[test]
fn a_short_silent_life_is_learned() {
    let mut stage = Stage::with(Credential {
        lifetime: None,
        ..credential(4)
    });
    stage.answer(reply(200, r#"{"access_token":"at"}"#));
    accept(&mut stage);
    stage.pass(secs(15));
    stage.run(Refresh::new(refused(4)));
    let life = stage.record().credential.as_ref().unwrap().lifetime;
    assert!(matches!(life, Some(Lifetime::Hint(span)) if span.as_secs() == 15));
}

/// T-45: a server that accepts each token once and refuses it at once teaches nothing: it would drive a refresh at every
/// use, and those that are merely due are not counted among the forced.
#[test]
fn a_server_that_refuses_at_once_drives_no_refreshes() {
    let mut stage = Stage::with(Credential {
        lifetime: None,
        ..credential(4)
    });
    for _ in 0..1000 {
        stage.answer(reply(200, r#"{"access_token":"at"}"#));
    }
    stage.pass(secs(1));
    let end = stage.now.mono + MINUTE;
    while stage.now.mono < end {
        // A request as the session makes it: what is due is refreshed, the token is accepted once, then refused.
        drop(stage.run(Refresh::new(task(stage.generation()))));
        accept(&mut stage);
        drop(stage.run(Refresh::new(refused(stage.generation()))));
        stage.pass(Duration::from_millis(200));
    }
    assert!(
        stage.sent.len() <= 3,
        "{} calls in a minute",
        stage.sent.len()
    );
}

/// DESIGN.md section 4 (`min_writer`), F-30, T-45: that a server refuses a key is noted once a minute, however often it does so, and
/// never by a process that may not write: that one says it, and no more.
#[test]
fn a_refused_key_is_noted_once_a_minute_by_who_may_write() {
    let mut key = Credential {
        refresh_token: None,
        lifetime: None,
        ..credential(4)
    };
    key.client.source = ClientSource::Static;
    for (read_only, notes) in [(false, 2), (true, 0)] {
        let mut stage = Stage::with(key.clone());
        stage.read_only = read_only;
        for _ in 0..5 {
            stage.pass(secs(20));
            let outcome = stage.run(Refresh::new(refused(4)));
            let want = Error::login(LoginCause::StaticTokenRefused);
            assert_eq!(outcome.result, Err(want));
        }
        assert_eq!(stage.count("note"), notes, "{:?}", stage.log);
    }
}
