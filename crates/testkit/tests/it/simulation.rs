//! The simulated world, tested: it repeats itself to the last event, a world without faults loses nothing, and it catches
//! what is wrong. How often it must do so is `./test world`'s business: here are few seeds, since this build is slow.

use std::time::Duration;

use pilotlight_core::freshness::{Policy, refresh_point};
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
    ];
    assert!(refusing.iter().any(|kind| needed.has(*kind)), "{needed:?}");
    setup.without = Faults::of(Kind::ALL);
    assert!(!simulate(&setup, bad).failed_us());
}

/// I-11, F-21: a thousand logins whose tokens were received in one second are refreshed over their whole jitter window: the
/// busiest second has at most three times the mean.
#[test]
fn a_thousand_sessions_are_no_herd() {
    let (lifetime, policy) = (Duration::from_secs(3600), Policy::default());
    let mut setup = Setup::new(THIRTY, Level::Calm);
    (setup.processes, setup.logins) = (Some(1), Some(1000));
    setup.lifetime = Some(lifetime);
    setup.pace = Some(Duration::from_secs(1));
    setup.length = Duration::from_secs(3660);
    let report = simulate(&setup, 7);
    assert!(!report.failed_us(), "{:?}", report.broken.first());
    let window = refresh_point(lifetime, 0.0, policy) - refresh_point(lifetime, 1.0, policy);
    assert!(window >= lifetime / 20);
    let mut seconds = std::collections::BTreeMap::<u64, u64>::new();
    for at in &report.calls_at {
        *seconds.entry(at / 1000).or_default() += 1;
    }
    let all: u64 = seconds.values().sum();
    let (first, last) = (
        seconds.keys().next().unwrap(),
        seconds.keys().last().unwrap(),
    );
    assert_eq!(all, 1000, "each token once");
    assert!(last - first >= window.as_secs() * 9 / 10, "{first}..{last}");
    let mean = all as f64 / window.as_secs() as f64;
    let peak = *seconds.values().max().unwrap();
    // A mean of five or so a second leaves chance some room; three times it is the limit all the same.
    assert!(peak as f64 <= 3.0 * mean, "peak {peak}, mean {mean:.1}");
}
