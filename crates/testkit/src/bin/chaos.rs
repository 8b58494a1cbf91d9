//! Rounds of chaos over real processes, and a table of what came of them.
//!
//! ```text
//!  chaos --rounds 300 --grace 0 --jobs 6
//!  chaos --grace 0 --replay 1234567
//! ```
//!
//! It ends with 1 where anything happened that is not allowed, and says with which seed to see it again.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of the test kit that a person reads"
)]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use clap::Parser;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use pilotlight_testkit::processes::{
    aftermath::Report,
    harness::Program,
    oracle::Loss,
    plan::{Kind, Plan},
    program, round,
};

/// Rounds of chaos over real processes on one store, with the issuer's ledger as the judge.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Told {
    /// How many rounds.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// For how many seconds the issuer gives the successor of a spent refresh token again.
    #[arg(long, default_value_t = 30)]
    grace: u64,
    /// How many rounds at a time.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// The first round's seed; the others follow it. Drawn from the clock by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Play the one round of this seed, and tell everything.
    #[arg(long)]
    replay: Option<u64>,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == HARNESS) {
        return program::main(arguments.into_iter().skip(1)).into();
    }
    let told = Told::parse_from(arguments);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let (Ok(runtime), Ok(this)) = (runtime, std::env::current_exe()) else {
        eprintln!("error: no runtime");
        return ExitCode::FAILURE;
    };
    // Itself, so that the two are always of one build.
    let program = Program::new(this).with_first(HARNESS);
    let clean = runtime.block_on(play(&told, &program));
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One round, and how long it took.
type Played = (Report, Duration);

async fn play(told: &Told, program: &Program) -> bool {
    let (first, rounds) = match told.replay {
        Some(seed) => (seed, 1),
        None => (told.seed.unwrap_or_else(drawn), told.rounds),
    };
    let grace = Duration::from_secs(told.grace);
    let bar = ProgressBar::new(rounds).with_style(style());
    let began = now();
    let seeds = stream::iter(first..first + rounds);
    let playing = seeds.map(|seed| {
        let bar = &bar;
        async move {
            let plan = Plan::draw(seed);
            if told.replay.is_some() {
                println!("{plan:#?}");
            }
            let began = now();
            let report = Box::pin(round::play(program, &plan, grace)).await;
            for violation in &report.violations {
                let again = format!("chaos --grace {} --replay {seed}", told.grace);
                bar.suspend(|| eprintln!("not allowed: {violation}\n  again: {again}"));
            }
            if !report.violations.is_empty() || told.replay.is_some() {
                bar.suspend(|| eprintln!("  {}", report.story.join("\n  ")));
            }
            bar.inc(1);
            (report, began.elapsed())
        }
    });
    let played: Vec<Played> = playing.buffer_unordered(told.jobs.max(1)).collect().await;
    bar.finish_and_clear();
    print_table(&played, began.elapsed(), told);
    played
        .iter()
        .all(|(report, _)| report.violations.is_empty())
}

fn print_table(played: &[Played], took: Duration, told: &Told) {
    let reports = || played.iter().map(|(report, _)| report);
    let mut points: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for report in reports() {
        let mut blows: Vec<&str> = report.blows.iter().map(String::as_str).collect();
        blows.sort_unstable();
        blows.dedup();
        for blow in blows {
            let row = points.entry(blow).or_default();
            row.0 += 1;
            row.1 += u64::from(report.judgement.loss.is_some());
        }
    }
    println!("{:<34} {:>7} {:>6}", "WHAT STRUCK", "ROUNDS", "LOST");
    for (blow, (rounds, lost)) in &points {
        println!("{blow:<34} {rounds:>7} {lost:>6}");
    }
    let struck = reports().filter(|report| !report.blows.is_empty()).count();
    let lost = |loss| {
        reports()
            .filter(|report| report.judgement.loss == Some(loss))
            .count()
    };
    let sum = |count: fn(&Report) -> u64| reports().map(count).sum::<u64>();
    let mut times: Vec<Duration> = played.iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let rate = played.len() as f64 / took.as_secs_f64();
    println!();
    for (what, count) in [
        ("rounds", played.len() as u64),
        ("  in which something struck", struck as u64),
        ("  lost, avoidable", lost(Loss::Avoidable) as u64),
        (
            "  lost, inherent (grace 0 only)",
            lost(Loss::AnswerDiedWithItsProcess) as u64,
        ),
        ("refreshes", sum(|report| report.judgement.refreshes)),
        (
            "spent tokens presented, labelled",
            sum(|report| report.judgement.spent_labelled),
        ),
        (
            "spent tokens presented, unlabelled",
            sum(|report| report.judgement.spent_unlabelled),
        ),
        (
            "  that only the dead knew to be (inherent)",
            sum(|report| report.judgement.spent_unknowably),
        ),
        (
            "versions in one memory only, then saved",
            sum(|report| report.judgement.held.saved),
        ),
        (
            "  then killed with their process",
            sum(|report| report.judgement.held.killed),
        ),
        ("calls answered", sum(|report| report.calls)),
        (
            "calls failed",
            sum(|report| report.failed_calls.values().sum()),
        ),
        (
            "rounds with something not allowed",
            reports()
                .filter(|report| !report.violations.is_empty())
                .count() as u64,
        ),
    ] {
        println!("{what:<42} {count:>6}");
    }
    let mut codes: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for report in reports() {
        for (code, count) in &report.failed_calls {
            let row = codes.entry(code).or_insert((0, report.seed));
            row.0 += count;
        }
    }
    for (code, (count, seed)) in codes {
        println!("  {code:<36} {count:>10}   (seed {seed})");
    }
    let mut kinds: BTreeMap<Kind, u64> = BTreeMap::new();
    for report in reports() {
        *kinds.entry(Plan::draw(report.seed).kind).or_default() += 1;
    }
    println!("kinds: {kinds:?}");
    println!(
        "grace {} s, seed {}, {} at a time: {:.1} s in all, {rate:.2} rounds a second, a round takes {:.2} s (median)",
        told.grace,
        reports()
            .map(|report| report.seed)
            .min()
            .unwrap_or_default(),
        told.jobs,
        took.as_secs_f64(),
        median.as_secs_f64(),
    );
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {pos}/{len} rounds, {elapsed} ({eta} left)")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a seed that nobody chose, told to whoever wants it again"
)]
fn drawn() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(1, |since| since.as_millis() as u64)
}

#[expect(clippy::disallowed_methods, reason = "how long real processes took")]
fn now() -> Instant {
    Instant::now()
}

/// The argument that makes this binary the harness.
const HARNESS: &str = "harness";
