//! The simulated world, tested: it repeats itself to the last event, a world without faults loses nothing, and it catches
//! what is wrong. How often it must do so is `./test world`'s business: here are few seeds, since this build is slow.

use std::time::Duration;

use pilotlight_testkit::world::{
    Faults, Grace, Kind, Level, LossClass, Setup, Variant, replay, shrink, simulate,
};

const THIRTY: Grace = Grace(Duration::from_secs(30));

/// I-19: the same seed gives the same run, to the last event, whether or not anybody reads the log; another seed another.
#[test]
fn a_seed_is_one_run() {
    let setup = Setup::new(THIRTY, Level::Swarm);
    let mut before = 0;
    for seed in 0..20 {
        let (first, second) = (simulate(&setup, seed), replay(&setup, seed));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.events, second.events, "seed {seed}");
        assert_ne!(first.trace, before, "seed {seed} is the one before");
        before = first.trace;
        assert!(!second.log.is_empty() && first.log.is_empty());
    }
}

/// I-10, I-12, I-14: where nothing goes wrong, every request is served, every token is refreshed once, and nothing is lost.
#[test]
fn without_faults_there_is_one_refresh_in_each_interval() {
    for grace in [Grace(Duration::ZERO), THIRTY] {
        let setup = Setup::new(grace, Level::Calm);
        for seed in 0..10 {
            let report = simulate(&setup, seed);
            assert!(!report.failed_us(), "seed {seed}: {:?}", report.broken);
            assert_eq!((report.failed, report.losses.len()), (0, 0), "seed {seed}");
            assert_eq!(report.refreshes, report.intervals, "seed {seed}");
            assert!(report.refreshes >= 20, "seed {seed}: {}", report.refreshes);
        }
    }
}

/// I-20: no seed of the ordinary run shows an avoidable loss or a broken invariant, at any grace.
#[test]
fn nothing_avoidable_is_lost() {
    for grace in Grace::ALL {
        let setup = Setup::new(grace, Level::Swarm);
        for seed in 0..25 {
            let report = simulate(&setup, seed);
            let ours = (&report.broken, report.count(LossClass::Avoidable));
            assert!(!report.failed_us(), "grace {grace}, seed {seed}: {ours:?}");
        }
    }
}

/// The judge is no rubber stamp: the oldest mistake of all is caught at once, and without the fault that it needs a seed
/// is clean again.
#[test]
fn a_known_bad_program_is_caught() {
    let mut setup = Setup::new(Grace(Duration::ZERO), Level::Harsh);
    setup.variant = Some(Variant::Naive);
    let caught = (0..5)
        .filter(|seed| simulate(&setup, *seed).failed_us())
        .count();
    assert_eq!(caught, 5);
    setup.variant = Some(Variant::NoRetryOn401);
    setup.level = Level::Swarm;
    let bad = (0..200)
        .find(|seed| simulate(&setup, *seed).failed_us())
        .expect("caught");
    let needed = shrink(&setup, bad);
    let refusing = [
        Kind::ServerRefuses,
        Kind::ServerRefusesAll,
        Kind::EarlyEnd,
        Kind::Revocation,
        Kind::NoLifetime,
        // Where the store gives nothing, a token that has ended is tried.
        Kind::DiskBroken,
    ];
    assert!(refusing.iter().any(|kind| needed.has(*kind)), "{needed:?}");
    setup.without = Faults::of(Kind::ALL);
    assert!(!simulate(&setup, bad).failed_us());
}

/// F-23: an issuer that gives out the same token until shortly before its end is asked at most three times in a life, and no
/// request fails.
#[test]
fn a_cached_token_is_no_loop() {
    let mut setup = Setup::new(THIRTY, Level::Calm);
    setup.with = Faults::of(&[Kind::CachedToken]);
    setup.pace = Some(Duration::from_secs(5));
    let lives = setup.length.as_secs() / 300 + 4;
    for seed in 0..5 {
        let report = simulate(&setup, seed);
        let calls = report.calls_at.len() as u64;
        assert_eq!((report.failed, report.losses.len()), (0, 0), "seed {seed}");
        assert!(calls > lives && calls <= 3 * lives, "seed {seed}: {calls}");
    }
}
