//! Paths that carry nothing any more, and what is learned of the issuer's grace.

use super::*;
use crate::{exchange::Exchange, notes::ReuseGrace};

/// For which of the calls a dead path was waited for where they left at once and nothing has passed since.
fn patience(stage: &Stage) -> Vec<bool> {
    let waits = |sent: &Exchange| sent.patient_from.is_some_and(|from| from <= stage.now.mono);
    stage.exchanges.iter().map(waits).collect()
}

/// DESIGN.md section 3, step 6: a dead path is given up at once only where a repeat can follow; else it is waited for, since
/// it may heal and bring the answer.
#[test]
fn a_dead_path_is_waited_for_where_no_repeat_can_follow() {
    let mut stage = due();
    let begun = stage.now.mono;
    stage.answer(broken).answer(tokens(5));
    stage.refresh();
    assert_eq!(
        patience(&stage),
        [false, false],
        "both leave in time for one more"
    );
    // The window of the first opens when it leaves, so it never leaves too late. A repeat does, where its connection takes
    // seconds or its process is stopped: found dead ten seconds later, after the twelve, it would have been given up for
    // nothing.
    assert_eq!(stage.exchanges[0].patient_from, None);
    let from = stage.exchanges[1].patient_from;
    let from = from.map(|from| begun.until(from));
    assert!(
        from.is_some_and(|from| (secs(1)..secs(2)).contains(&from)),
        "{from:?}"
    );

    let mut stage = due();
    stage.answer(breaks_after(secs(9))).answer(tokens(5));
    stage.refresh();
    assert_eq!(
        patience(&stage),
        [false, true],
        "the last one of the window"
    );

    let mut stage = due();
    stage.notes = IssuerNotes::default().repeated_badly(secs(10), stage.now.wall);
    stage.answer(tokens(5));
    stage.refresh();
    assert_eq!(patience(&stage), [true], "the window is five seconds");
}

/// DESIGN.md section 3, step 6: of what a repeat brought only a 200 that could not be read is evidence that the issuer had
/// acted before, and so has a grace; a captive portal's page is none.
#[test]
fn a_grace_is_learned_from_an_answer_that_was_cut_short() {
    for (body, learned) in [
        (r#"{"access_token":"at-5","refr"#, true),
        ("<html>access_token</html>", false),
        ("", false),
    ] {
        let mut stage = due();
        stage.answer(reply(200, body)).answer(tokens(5));
        assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
        let grace = stage.notes.grace(stage.now.wall);
        let held = matches!(grace, ReuseGrace::AtLeast { span } if span < secs(2));
        assert_eq!(held, learned, "{body}: {grace:?}");
    }
}

/// DESIGN.md section 3, step 6: the first call reaches the issuer after its repeat, and ends the login: that is learned too.
/// Until the outcome is known, other dead paths are waited for: an issuer without grace takes one login this way, not several.
#[test]
fn a_late_arrival_is_learned() {
    let after_a_dead_path = || {
        let mut stage = due();
        stage.answer(dead_path).answer(tokens(5));
        assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
        assert_eq!(stage.labels(), [None, Some(Label::RetryAmbiguous)]);
        assert!(stage.notes.is_trying(stage.now.wall));
        assert_eq!(stage.notes.grace(stage.now.wall), ReuseGrace::Unknown);
        stage.pass(secs(3400));
        stage
    };
    let mut stage = after_a_dead_path();
    stage.answer(oauth_error("invalid_grant"));
    assert!(stage.run(Refresh::new(task(5))).result.is_err());
    assert!(patience(&stage)[2], "one trial at a time");
    let grace = stage.notes.grace(stage.now.wall);
    assert!(
        matches!(grace, ReuseGrace::Below { span } if span > secs(8)),
        "{grace:?}"
    );

    let mut stage = after_a_dead_path();
    stage.answer(tokens(6));
    assert!(stage.run(Refresh::new(task(5))).result.is_ok());
    assert_eq!(stage.notes, IssuerNotes::default(), "all went well");
}

/// I-9, I-20: while a path is dying, another login's repeat is refused: this one makes none, and pauses as after any failure.
#[test]
fn what_was_learned_while_a_path_died_counts() {
    let mut stage = expired();
    stage.answer(|exchange, stage| {
        let learned = stage.notes.repeated_badly(secs(1), stage.now.wall);
        let dead = dead_path(exchange, stage);
        stage.notes = learned;
        dead
    });
    assert!(stage.refresh().result.is_err());
    assert_eq!(stage.labels(), [None], "{:?}", stage.log);
    assert!(stage.record().backoff.is_some() && stage.record().attempt.is_some());
    assert!(!stage.notes.is_trying(stage.now.wall));
}
