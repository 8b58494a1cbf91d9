//! What is armed is read back, and acts when it should.

use super::*;

/// Each point has a name of its own, and what is armed is read back as it was written.
#[test]
fn names_are_read_back() {
    let names: std::collections::BTreeSet<String> =
        Point::all().map(|point| point.to_string()).collect();
    assert_eq!(names.len(), Point::all().count());
    for point in Point::all() {
        for action in [
            Action::Kill,
            Action::Stop,
            Action::Terminate,
            Action::LateKill(Duration::from_micros(250)),
            Action::Refuse(3),
            Action::Outage(Duration::from_millis(700)),
        ] {
            let armed = FailPoint {
                point,
                nth: 2,
                action,
            };
            assert_eq!(armed.to_string().parse(), Ok(armed));
        }
    }
    assert_eq!(
        "before-commit".parse(),
        Ok(FailPoint::new(Point::Before(Deed::Commit), Action::Kill))
    );
    for wrong in ["before-noon", "exit=explode", "exit:x", "after-lock=kill:3"] {
        assert!(wrong.parse::<FailPoint>().is_err(), "{wrong}");
    }
}

/// A point that refuses does so from its passage on, as often as it was told, and then no more.
#[test]
fn a_refusal_is_counted() {
    let points = FailPoints::parse("before-commit:2=refuse:2", Journal::silent()).unwrap();
    let passes: Vec<bool> = (0..5)
        .map(|_| points.pass(Point::Before(Deed::Commit)).is_ok())
        .collect();
    assert_eq!(passes, [true, false, false, true, true]);
    assert!(points.pass(Point::After(Deed::Commit)).is_ok());
}

/// The first point of an outage begins it, for all of them; then it ends for all.
#[test]
fn an_outage_is_of_one_disk() {
    let list = "before-commit=outage:60000,before-spool=outage:60000,before-merge=outage:0";
    let points = FailPoints::parse(list, Journal::silent()).unwrap();
    let passes = |deed| points.pass(Point::Before(deed)).is_ok();
    assert!(passes(Deed::Spool), "the disk is there still");
    assert!(!passes(Deed::Commit));
    assert!(!passes(Deed::Spool) && !passes(Deed::Commit));
    assert!(passes(Deed::Merge), "and is back after its time");
}
