use super::*;
use crate::error::NetworkFault;

fn unreachable() -> Error {
    Error::Network {
        host: "as.example".into(),
        why: NetworkFault::Connect,
    }
}

fn failing() -> Error {
    Error::ServerError {
        status: 502,
        retry_after: None,
    }
}

fn row(error: &Error, calls: u32) -> Failed<'_> {
    Failed {
        calls,
        ..Failed::once(error)
    }
}

fn at(wall: Wall) -> Now {
    Stamp {
        wall,
        mono: crate::time::Mono(wall.0),
        ..Stamp::default()
    }
}

const START: Wall = Wall(1_000_000_000);

/// I-9, F-12, F-26: at least half a second between calls after a failure, at most 24 an hour with all that came on top, and
/// never more than six minutes between two, however long it lasts and whatever is drawn.
#[test]
fn six_hours_of_failure_stay_within_the_budget() {
    let error = failing();
    for draw in [0.0, 0.3, 0.999] {
        let (mut now, mut backoff, mut calls) = (START, None::<Backoff>, Vec::new());
        let mut longest = Duration::ZERO;
        while now < START + 6 * HOUR {
            calls.push(now);
            let mut sent = 1;
            while sent < 5 && Backoff::spares(backoff.as_ref(), sent, at(now)) {
                calls.push(now);
                sent += 1;
            }
            let next = Backoff::after(backoff.as_ref(), &row(&error, sent), draw, at(now));
            assert!(next.not_before >= now + FIRST_PAUSE);
            longest = longest.max(now.until(next.not_before));
            now = next.not_before;
            backoff = Some(next);
        }
        for (i, call) in calls.iter().enumerate() {
            let later = calls.iter().skip(i);
            let hour = later.take_while(|c| call.until(**c) < HOUR).count();
            assert!(hour <= CALLS_AN_HOUR, "{hour} calls within an hour");
        }
        assert!(calls.len() <= 150, "{} calls in six hours", calls.len());
        assert!(longest <= Duration::from_secs(360), "{draw}: {longest:?}");
    }
}

/// F-12: Retry-After is honoured up to an hour, and nobody looks before it is over.
#[test]
fn retry_after_is_honoured_up_to_an_hour() {
    let (now, error) = (at(START), unreachable());
    let after = |s| {
        let failed = Failed {
            retry_after: Some(Duration::from_secs(s)),
            ..row(&error, 1)
        };
        Backoff::after(None, &failed, 0.5, now)
    };
    assert_eq!(after(90).not_before, START + Duration::from_secs(90));
    assert_eq!(after(86_400).not_before, START + HOUR);
    assert!(!after(90).may_look(now.after(Duration::from_secs(89))));
    assert!(after(90).may_look(now.after(Duration::from_secs(90))));
}

/// F-12: one call for each time that the issuer comes back, a few an hour; none while it has been there all along.
#[test]
fn a_call_is_allowed_when_the_issuer_comes_back() {
    let (mut now, error) = (at(START), unreachable());
    let mut backoff = Backoff::after(None, &row(&error, 1), 0.5, now);
    let mut allowed = 0;
    for _ in 0..20 {
        assert!(!backoff.may_look(now.after(Duration::from_secs(9))));
        now = now.after(LOOK_EVERY);
        if !backoff.may_look(now) {
            break;
        }
        let (still_down, back) = backoff.looked(false, now);
        assert!(!back);
        now = now.after(LOOK_EVERY);
        let (up, back) = still_down.looked(true, now);
        assert!(back && up.binds(now).is_none());
        allowed += 1;
        let failed = Failed {
            early: true,
            ..row(&error, 1)
        };
        backoff = Backoff::after(Some(&up), &failed, 0.5, now);
        now = now.after(LOOK_EVERY);
        let (same, back) = backoff.looked(true, now);
        assert!(!back, "it has not been away");
        backoff = same;
    }
    assert_eq!(allowed, BACK_AN_HOUR);
}

/// F-12: a token endpoint that fails beside an issuer that answers gets no call before its time.
#[test]
fn an_issuer_that_answers_allows_no_call() {
    let (now, error) = (at(START), failing());
    let backoff = Backoff::after(None, &row(&error, 1), 0.5, now);
    let (_, back) = backoff.looked(true, now.after(LOOK_EVERY));
    assert!(!back);
}

/// F-19: a pause that was set by a clock an hour ahead, before a restart, binds nobody once the clock is right.
#[test]
fn a_pause_from_the_future_binds_nobody() {
    let ahead = at(START + HOUR);
    let error = failing();
    let mut backoff = Backoff::after(None, &row(&error, 1), 0.5, ahead);
    assert!(backoff.binds(ahead).is_some());
    backoff.at = None;
    assert_eq!(backoff.binds(at(START)), None);
}

/// F-19, I-9, I-12: within one boot a jump of the wall clock, or another process's, changes neither the pause nor the
/// budget.
#[test]
fn a_jump_changes_no_pause() {
    let (now, error) = (at(START), failing());
    let failed = Failed {
        retry_after: Some(Duration::from_secs(60)),
        ..row(&error, 1)
    };
    let mut backoff = Backoff::after(None, &failed, 0.5, now);
    for jump in [0, 1_000, 2_000_000] {
        let later = Stamp {
            wall: Wall::from_unix_seconds(jump),
            ..now.after(Duration::from_secs(20))
        };
        assert_eq!(backoff.binds(later), Some(Duration::from_secs(40)));
        assert!(!backoff.may_look(later));
    }
    for n in 1..u64::try_from(CALLS_AN_HOUR).unwrap() {
        let later = Stamp {
            wall: Wall::from_unix_seconds(n % 2 * 9_000_000),
            ..now.after(Duration::from_secs(60 * n))
        };
        backoff = Backoff::after(Some(&backoff), &row(&error, 1), 0.0, later);
    }
    let full = now.after(Duration::from_secs(60 * 24));
    let left = backoff.binds(full).expect("the budget is spent");
    assert!(left > Duration::from_secs(2000), "{left:?}");
}
