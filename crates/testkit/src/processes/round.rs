//! One round of chaos: a new store, workers on it, something that goes wrong, and what is left.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use rustix::process::Signal;
use tokio::time::Instant;

use super::{
    aftermath::{self, Left, Report},
    harness::{Harness, Program, Start},
    plan::{Assault, Blow, Kind, Plan, Sudden},
    said::Said,
    site::{Issuer, Site},
    testimony::Exit,
};
use crate::Fault;

/// Plays a round.
pub async fn play(program: &Program, plan: &Plan, grace: Duration) -> Report {
    let mut report = Report {
        seed: plan.seed,
        ..Report::default()
    };
    let issuer = Issuer {
        token_life: plan.token_life,
        grace,
        seed: plan.seed,
    };
    let site = match Site::open(program, issuer).await {
        Ok(site) => site,
        Err(error) => {
            report.violations.push(format!("no site: {error}"));
            return report;
        }
    };
    if let Err(wrong) = act(&site, plan, &mut report).await {
        report.violations.push(wrong);
    }
    let assaults = plan
        .workers
        .iter()
        .filter_map(|worker| worker.assault.as_ref());
    for assault in plan.one_shots.iter().chain(assaults) {
        if let Blow::Timed(sudden, _) = assault.blow {
            report.blows.push(sudden.to_string());
        }
    }
    let left = match plan.kind {
        Kind::Logout => Left::Nothing,
        _ => Left::Login,
    };
    aftermath::look_at(&site, grace, left, &mut report).await;
    site.lab.stop().await;
    report
}

/// Everything that happens, up to the moment when all processes have ended.
async fn act(site: &Site, plan: &Plan, report: &mut Report) -> Result<(), String> {
    if plan.kind == Kind::FirstLogin {
        for assault in &plan.one_shots {
            strike(site, start_of(site, plan.kind), assault).await?;
        }
    }
    log_in(site).await?;
    for delay_ms in &plan.slow_answers_ms {
        let ms = *delay_ms;
        site.lab
            .with_issuer(|issuer| issuer.push_fault(Fault::DelayAnswer { ms }));
    }
    let workers = plan.workers.iter().map(|worker| async move {
        let start = site
            .start("work")
            .arg(format!("--every-ms={}", worker.every_ms))
            .arg("--caller-wait-ms=2000")
            .arg("--lock-wait-ms=2500")
            .wall_shift_ms(worker.shift_ms);
        let start = match worker.jump {
            Some((after, by)) => start.env("PL_WALL_JUMP", format!("{after}:{by}")),
            None => start,
        };
        life(site, start, worker.assault.as_ref()).await
    });
    let one_shots = plan.one_shots.iter().map(|assault| async {
        if plan.kind != Kind::FirstLogin {
            tokio::time::sleep(Duration::from_millis(assault.after_ms)).await;
            strike(site, start_of(site, plan.kind), assault).await?;
        }
        Ok::<(), String>(())
    });
    let (workers, struck) = tokio::join!(try_join_all(workers), join_all(one_shots));
    let mut workers = workers?;
    struck.into_iter().collect::<Result<Vec<()>, String>>()?;
    site.lab.with_issuer(|issuer| issuer.clear_faults());
    if plan.kind == Kind::SecondLogin {
        log_in(site).await?;
    }
    if plan.kind != Kind::Logout {
        // Whoever is still there goes on.
        let again = workers.iter_mut().map(|worker| async {
            let until = Instant::now() + PATIENCE;
            let fine = |said: &Said| matches!(said, Said::Called { code: None, .. });
            let mut heard = worker.testimony().lines().len();
            while !site.has_seen_reuse() {
                match worker.next_after(heard, A_MOMENT, fine).await {
                    Ok(_) => return None,
                    Err(late) if Instant::now() > until => {
                        return Some(format!("no call gets through: {late}"));
                    }
                    Err(_) => heard = worker.testimony().lines().len(),
                }
            }
            None
        });
        let late = join_all(again).await.into_iter().flatten();
        report.violations.extend(late);
    }
    for worker in &workers {
        worker.signal(Signal::TERM);
    }
    for worker in &mut workers {
        match worker.end(PATIENCE).await {
            Ok(Exit::Code(TERMINATED)) => {}
            // It was replaced so late that it had no time to listen.
            Ok(Exit::Signal(15)) if !is_ready(worker) => {}
            Ok(exit) => report
                .violations
                .push(format!("{} ended with {exit:?}", worker.testimony().name())),
            Err(late) => return Err(late.to_string()),
        }
    }
    Ok(())
}

fn start_of(site: &Site, kind: Kind) -> Start {
    match kind {
        Kind::FirstLogin | Kind::SecondLogin => site.start("login"),
        Kind::Refresh => site
            .start("refresh")
            .arg("--force")
            .arg("--caller-wait-ms=4000"),
        Kind::Logout => site.start("logout"),
    }
}

async fn log_in(site: &Site) -> Result<(), String> {
    let (exit, login) = site.run(site.start("login")).await?;
    match exit {
        Exit::Code(0) => Ok(()),
        exit => Err(format!(
            "{} ended with {exit:?}: {:?}",
            login.name(),
            login.failure()
        )),
    }
}

/// A process that is started for one thing, and what happens to it.
async fn strike(site: &Site, start: Start, assault: &Assault) -> Result<(), String> {
    let start = match &assault.blow {
        Blow::At(points) => start.fail(points),
        Blow::Timed(..) => start,
    };
    let mut harness = site.spawn(start).map_err(|error| error.to_string())?;
    if let Blow::Timed(sudden, after) = assault.blow {
        tokio::time::sleep(after).await;
        hit(&harness, sudden);
    }
    while ended_or_continued(&mut harness, assault, PATIENCE).await {}
    harness
        .end(PATIENCE)
        .await
        .map_err(|late| late.to_string())?;
    Ok(())
}

/// A worker and what happens to it; whoever works in its place afterwards.
async fn life(site: &Site, start: Start, assault: Option<&Assault>) -> Result<Harness, String> {
    let armed = match assault.map(|assault| &assault.blow) {
        Some(Blow::At(points)) => start.clone().fail(points),
        _ => start.clone(),
    };
    let mut worker = site.spawn(armed).map_err(|error| error.to_string())?;
    let Some(assault) = assault else {
        return Ok(worker);
    };
    let mut limit = STRUCK_BY;
    if let Blow::Timed(sudden, _) = assault.blow {
        tokio::time::sleep(Duration::from_millis(assault.after_ms)).await;
        hit(&worker, sudden);
        limit = PATIENCE;
    }
    let goes_on = ended_or_continued(&mut worker, assault, limit).await;
    if !goes_on && !worker.has_ended().await {
        // What was armed has not struck; it must not do so when the round is being judged.
        worker.signal(Signal::TERM);
        while ended_or_continued(&mut worker, assault, PATIENCE).await {}
    }
    if worker.has_ended().await {
        return site.spawn(start).map_err(|error| error.to_string());
    }
    Ok(worker)
}

fn is_ready(worker: &Harness) -> bool {
    let lines = worker.testimony().lines();
    lines.iter().any(|line| line.said == Said::Ready)
}

fn hit(harness: &Harness, sudden: Sudden) {
    harness.signal(match sudden {
        Sudden::Kill => Signal::KILL,
        Sudden::Terminate => Signal::TERM,
        Sudden::Stop => Signal::STOP,
    });
}

/// Waits until a process has ended, or was stopped; answers whether it goes on again.
async fn ended_or_continued(harness: &mut Harness, assault: &Assault, limit: Duration) -> bool {
    let struck = async {
        while !harness.has_ended().await {
            if harness.is_stopped() {
                tokio::time::sleep(Duration::from_millis(assault.stopped_ms)).await;
                let signal = match assault.then_killed {
                    true => Signal::KILL,
                    false => Signal::CONT,
                };
                harness.signal(signal);
                if !assault.then_killed {
                    return true;
                }
                return harness.end(PATIENCE).await.is_err();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    };
    // A point that is not passed strikes nobody.
    tokio::time::timeout(limit, struck).await.unwrap_or(false)
}

const TERMINATED: i32 = 143;
const PATIENCE: Duration = Duration::from_secs(15);
const A_MOMENT: Duration = Duration::from_millis(200);
/// A worker refreshes before its token ends; by then what is armed has struck.
const STRUCK_BY: Duration = Duration::from_millis(2200);
