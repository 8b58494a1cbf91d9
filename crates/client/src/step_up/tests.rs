//! The limits.

use super::*;

fn one(scopes: &str, ago: i64, code: Option<&str>, step_up: bool) -> Authorization {
    let at = Wall(NOW.0.saturating_add_signed(-ago * 1000));
    let mut one = Authorization::new(Scopes::parse(scopes), at, code.map(str::to_owned));
    one.step_up = step_up;
    one
}

const NOW: Wall = Wall(10_000_000);

fn ruled(asked: Vec<Authorization>, wanted: &str, covered: bool, human: bool) -> Ruling {
    let asked = LoginOutcome {
        authorizations: asked,
        ..LoginOutcome::default()
    };
    rule(&asked, &Scopes::parse(wanted), covered, human, NOW)
}

/// AUTH-58, T-31: three authorizations for the same scopes in ten minutes, the first login among them; then it is the
/// server that refuses.
#[test]
fn the_same_scopes_are_asked_for_three_times() {
    let login = one("a", 300, None, false);
    let step = |ago| one("a", ago, None, true);
    assert_eq!(ruled(vec![login.clone()], "a", true, true), Ruling::Ask);
    let two = vec![login.clone(), step(200)];
    assert_eq!(ruled(two, "a", true, true), Ruling::Ask);
    let three = vec![login.clone(), step(200), step(100)];
    assert_eq!(ruled(three.clone(), "a", true, true), Ruling::Denied);
    assert_eq!(ruled(three, "b", false, true), Ruling::Ask, "another scope");
    let old = vec![one("a", 601, None, false), step(700), step(100)];
    assert_eq!(ruled(old, "a", true, true), Ruling::Ask);
}

/// T-31: what was asked for three times and never granted is not asked for again, and the server has refused nothing.
#[test]
fn what_was_never_granted_was_not_refused_by_the_server() {
    let failed = |ago| one("a", ago, Some("unavailable.network"), false);
    let three = vec![failed(30), failed(20), failed(10)];
    assert_eq!(ruled(three, "a", false, true), Ruling::Tell);
}

/// F-19: after the clock was set back, what was written before counts for nothing: nobody is told of a refusal that may be
/// years old, and nobody is kept from asking for as long as the clock was wrong.
#[test]
fn what_lies_in_the_future_counts_for_nothing() {
    let ahead = |code| one("a", -3600, code, true);
    assert_eq!(ruled(vec![ahead(None); 3], "a", true, true), Ruling::Ask);
    let refused = vec![ahead(Some("denied.by_human"))];
    assert_eq!(ruled(refused, "a", false, true), Ruling::Ask);
    assert_eq!(
        ruled(vec![ahead(None)], "a", true, false),
        Ruling::Tell,
        "nor as run in vain"
    );
}

/// T-31: a server that wants another scope each time gets three prompts in ten minutes; then a person has to begin.
#[test]
fn new_scopes_without_end_are_three_prompts() {
    let asked = |n| {
        let all = ["a", "a b", "a b c", "a b c d"];
        all.iter()
            .take(n)
            .map(|scopes| one(scopes, 60, None, true))
            .collect()
    };
    assert_eq!(ruled(asked(2), "c", false, true), Ruling::Ask);
    assert_eq!(ruled(asked(3), "d", false, true), Ruling::Tell);
}

/// AUTH-56: without a person the command is told, unless it was run in vain.
#[test]
fn without_a_person_the_command_is_told_once() {
    assert_eq!(ruled(vec![], "a", false, false), Ruling::Tell);
    let ran = vec![one("a b", 30, None, false)];
    assert_eq!(ruled(ran.clone(), "a", true, false), Ruling::Denied);
    assert_eq!(ruled(ran, "c", false, false), Ruling::Tell);
    let failed = vec![one("a", 30, Some("login.abandoned"), false)];
    assert_eq!(ruled(failed, "a", true, false), Ruling::Tell);
}

/// DESIGN.md section 3: whoever has refused is left in peace for five minutes, whatever is wanted then.
#[test]
fn a_refusal_stands_for_five_minutes() {
    let refused = |ago| vec![one("a", ago, Some("denied.by_human"), true)];
    assert_eq!(ruled(refused(299), "a", false, true), Ruling::Refused);
    assert_eq!(ruled(refused(10), "b", false, true), Ruling::Refused);
    assert_eq!(ruled(refused(301), "a", false, true), Ruling::Ask);
}
