//! Clocks that jump, stand or are wrong: at most one refresh more than needed for each jump, never a loop.

use std::time::Duration;

use futures_util::future::join_all;
use pilotlight::Session;

use crate::faults_support::{DAY, HOUR, MINUTE, Process, Time, World, served, until_async};

/// What becomes of the process when the clock jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It goes on.
    Running,
    /// It ends, and another one starts.
    Restarted,
    /// The machine starts anew: only the wall clock tells how old a token is.
    Rebooted,
}

const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap()
}

/// Every jump of the table, in milliseconds, with its name.
fn jumps(world: &World) -> Vec<(String, i64)> {
    let mut jumps = vec![(
        "1970".to_owned(),
        -i64::try_from(world.lab.clock().now_ms()).unwrap(),
    )];
    for (name, span) in [
        ("10 min", 10 * MINUTE),
        ("DST", HOUR),
        ("1 day", DAY),
        ("30 days", 30 * DAY),
        ("1 year", YEAR),
        ("10 years", 10 * YEAR),
    ] {
        jumps.push((format!("+{name}"), ms(span)));
        jumps.push((format!("-{name}"), -ms(span)));
    }
    jumps
}

/// Uses the session for a while; how many refreshes that took.
async fn used(world: &World, process: &Process, session: &Session) -> u64 {
    let before = world.stats().refresh_ok;
    for _ in 0..6 {
        world.advance(Duration::from_secs(2));
        served(session, world).await;
        process.idle().await;
    }
    world.stats().refresh_ok - before
}

/// Uses a session whose token is due until it has been refreshed, and for a while more; how many refreshes that took.
async fn refreshed(world: &World, process: &Process, session: &Session) -> u64 {
    let before = world.stats().refresh_ok;
    until_async("a refresh", async || {
        served(session, world).await;
        process.idle().await;
        world.stats().refresh_ok > before
    })
    .await;
    let first = world.stats().refresh_ok - before;
    first + used(world, process, session).await
}

/// F-19, I-12: whatever the wall clock does, to whatever process, each jump costs at most one refresh more, a jump within one
/// boot none; the server is never asked in vain, and afterwards each life is refreshed once again.
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_wall_clock_costs_at_most_one_refresh() {
    let some = World::new(|_| {}).await;
    let cases = jumps(&some).into_iter().flat_map(|(name, off)| {
        [Then::Running, Then::Restarted, Then::Rebooted].map(|then| (name.clone(), off, then))
    });
    join_all(cases.map(|(name, off, then)| jump(name, off, then))).await;
}

async fn jump(name: String, off: i64, then: Then) {
    let world = World::new(|_| {}).await;
    let time = Time::new(world.lab.clock());
    let mut process = world.process_at(&time);
    let mut session = process.log_in(&world).await;
    served(&session, &world).await;

    time.set_wall_off(off);
    if then == Then::Rebooted {
        time.reboot();
    }
    if then != Then::Running {
        drop(session);
        process = world.process_at(&time);
        session = process.session(&world).await;
    }
    process.ticked().await;
    let extra = used(&world, &process, &session).await;
    let allowed = u64::from(then == Then::Rebooted);
    assert!(
        extra <= allowed,
        "{name}, {then:?}: {extra} extra refreshes"
    );

    // Somebody sets the clock right.
    time.set_wall_off(0);
    process.ticked().await;
    let extra = used(&world, &process, &session).await;
    assert!(
        extra <= 1,
        "{name}, {then:?}, back: {extra} extra refreshes"
    );

    for life in 0..2 {
        world.advance(58 * MINUTE);
        process.ticked().await;
        let refreshed = refreshed(&world, &process, &session).await;
        assert_eq!(refreshed, 1, "{name}, {then:?}, life {life}");
    }
    let refused = world.lab.with_mcp(|server| server.stats().unauthorized);
    assert_eq!(refused, 1, "{name}, {then:?}: only before the login");
    world.assert_nothing_lost();
}

/// F-19: a machine that wakes up after thirty days has an ended token, and refreshes it once for all callers.
#[tokio::test(flavor = "multi_thread")]
async fn thirty_days_of_sleep_cost_one_refresh() {
    let world = World::new(|_| {}).await;
    let (process, session) = world.logged_in().await;
    served(&session, &world).await;
    world.advance(30 * DAY);
    process.ticked().await;
    join_all((0..20).map(|_| served(&session, &world))).await;
    assert_eq!(world.stats().refresh_ok, 1);
    assert_eq!(used(&world, &process, &session).await, 0);
    world.advance(58 * MINUTE);
    process.ticked().await;
    assert_eq!(refreshed(&world, &process, &session).await, 1);
    world.assert_nothing_lost();
}

/// F-20: of two dozen processes over one store two have a wall clock that is an hour off, one in each direction. That makes no
/// refresh more than one for each life, whoever is first; nor does a restart of the machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_skewed_process_makes_the_others_refresh_no_more() {
    let world = World::new(|_| {}).await;
    let (first, session) = world.logged_in().await;
    let (mut processes, mut sessions) = (vec![first], vec![session]);
    for _ in 1..24 {
        let process = world.process();
        sessions.push(process.session(&world).await);
        processes.push(process);
    }
    processes[7].time.set_wall_off(ms(HOUR));
    processes[19].time.set_wall_off(-ms(HOUR));
    const LIVES: u64 = 6;
    const HALF: Duration = Duration::from_secs(1800);
    for life in 0..LIVES {
        for pass in [HALF, 58 * MINUTE - HALF] {
            world.advance(pass);
            join_all(processes.iter().map(Process::ticked)).await;
            // A skewed one first, every other time.
            if life % 2 == 0 {
                served(&sessions[7], &world).await;
                served(&sessions[19], &world).await;
            }
            let before = world.stats().refresh_ok;
            until_async("a refresh", async || {
                join_all(sessions.iter().map(Session::header)).await;
                join_all(processes.iter().map(Process::idle)).await;
                pass == HALF || world.stats().refresh_ok > before
            })
            .await;
        }
        served(&sessions[usize::try_from(life).unwrap()], &world).await;
    }
    assert_eq!(world.stats().refresh_ok, LIVES);
    world.assert_nothing_lost();
}

/// F-33: a process that goes on from a snapshot holds an old generation, and clocks that stand where they stood: it looks
/// into the store before it sends, so the refresh token it remembers, long spent, goes nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_from_a_snapshot_sends_no_spent_token() {
    let cases = [Duration::ZERO, 2 * HOUR].into_iter().flat_map(|behind| {
        ["header", "request", "refresh", "token"].map(|use_of| (behind, use_of))
    });
    join_all(cases.map(|(behind, use_of)| snapshot(behind, use_of))).await;
}

async fn snapshot(behind: Duration, use_of: &str) {
    let world = World::new(|_| {}).await;
    let (one, first) = world.logged_in().await;
    let copy = world.process();
    let second = copy.session(&world).await;
    served(&second, &world).await;
    for _ in 0..3 {
        world.advance(HOUR);
        one.ticked().await;
        served(&first, &world).await;
    }
    copy.time.set_wall_off(-ms(behind));
    copy.time.set_mono_off(-ms(behind));
    copy.ticked().await;
    match use_of {
        "header" => drop(second.header().await.unwrap()),
        "refresh" => drop(second.refresh(true).await.unwrap()),
        "token" => drop(second.token(Some(2 * HOUR)).await.unwrap()),
        _ => {}
    }
    served(&second, &world).await;
    copy.idle().await;
    let calls = world.refreshes().len();
    let most = 3 + usize::from(matches!(use_of, "refresh" | "token"));
    assert!(calls <= most, "{use_of}, {behind:?}: {calls} calls");
    served(&first, &world).await;
    world.assert_nothing_lost();
}
