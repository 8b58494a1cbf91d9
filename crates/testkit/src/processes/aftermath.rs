//! What is left when every process has ended: judged with a new process, in the store, in the ledger and in the files.

use std::{collections::BTreeMap, time::Duration};

use pilotlight::core::{error::LoginCause, error::Named, state::State};

use super::{
    oracle::{self, Judgement, Loss},
    said::Said,
    site::Site,
    testimony::Exit,
};

/// How a round went.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Its plan's seed.
    pub seed: u64,
    /// What struck: fail points with their action, and signals.
    pub blows: Vec<String>,
    /// What the judge says.
    pub judgement: Judgement,
    /// Calls of the workers that were answered.
    pub calls: u64,
    /// Calls that were not, by the error's code.
    pub failed_calls: BTreeMap<String, u64>,
    /// Everything that is not allowed.
    pub violations: Vec<String>,
    /// What happened, in order.
    pub story: Vec<String>,
}

/// What should be left when all is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// A login that works, or one whose loss is the allowed one.
    Login,
    /// No login: a person logged out.
    Nothing,
}

/// Looks at what is left when every process has ended: with a new process, in the store, in the ledger, in the files.
pub async fn look_at(site: &Site, grace: Duration, left: Left, report: &mut Report) {
    count(site, report);
    if let Err(wrong) = judge(site, grace, left, report).await {
        report.violations.push(wrong);
    }
    report.story = site.story();
}

fn count(site: &Site, report: &mut Report) {
    for witness in site.witnesses() {
        for line in witness.lines() {
            match line.said {
                Said::Point { name, action } => {
                    let action = action.split(':').next().unwrap_or_default();
                    report.blows.push(format!("{name} {action}"));
                }
                Said::Called { code: None, .. } => report.calls += 1,
                Said::Called {
                    code: Some(code), ..
                } => *report.failed_calls.entry(code).or_default() += 1,
                _ => {}
            }
        }
        let complaints = witness.complaints();
        if !complaints.is_empty() {
            report
                .violations
                .push(format!("{} complains: {complaints}", witness.name()));
        }
    }
}

async fn judge(
    site: &Site,
    grace: Duration,
    left: Left,
    report: &mut Report,
) -> Result<(), String> {
    let gone = left == Left::Nothing;
    let refused = if gone {
        logged_out(site, report).await?;
        None
    } else {
        works(site, report).await?
    };
    let found = site.look().await?;
    let ledger = site.lab.with_issuer(|issuer| issuer.ledger().clone());
    report.judgement = oracle::judge(
        &ledger,
        &site.witnesses(),
        found.refresh_token.as_deref(),
        &found.events,
    );
    let Report {
        judgement,
        violations,
        ..
    } = report;
    violations.append(&mut judgement.violations);
    if found.integrity != "ok" {
        violations.push(format!("integrity_check: {}", found.integrity));
    }
    match (judgement.loss, refused) {
        (Some(Loss::AnswerDiedWithItsProcess), Some(refused)) if grace.is_zero() => {
            if refused.0 != "login.refresh_rejected" {
                violations.push(format!(
                    "the loss is reported as {} ({})",
                    refused.0, refused.1
                ));
            }
            let state = found.status.map(|status| status.state);
            let named = |state: &State| {
                matches!(
                    state.error(),
                    Some(pilotlight::Error::LoginRequired {
                        cause: LoginCause::RefreshRejected {
                            named: Some(Named::Reuse),
                            ..
                        }
                    })
                )
            };
            if !state.as_ref().is_some_and(named) {
                violations.push(format!("the state does not name the reuse: {state:?}"));
            }
        }
        (Some(loss), refused) => {
            violations.push(format!("I-20: lost ({}): {refused:?}", loss.name()))
        }
        (None, Some((code, words))) => violations.push(format!(
            "a new process gets no working token: {code} ({words})"
        )),
        (None, None) if !gone => unexpected_failures(site, violations),
        (None, None) => {}
    }
    violations.extend(
        site.leaks()
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(|leak| format!("leak: {leak}")),
    );
    Ok(())
}

/// A new process gets a token that works, and can refresh it; else the code and words of its failure.
async fn works(site: &Site, report: &mut Report) -> Result<Option<(String, String)>, String> {
    if let Err(wrong) = has_a_token(site).await? {
        report.violations.push(wrong);
    }
    let refresh = site
        .start("refresh")
        .arg("--force")
        .arg("--insist-ms=5000")
        .arg("--caller-wait-ms=5000");
    let (exit, refresh) = site.run(refresh).await?;
    let new = |said: &Said| {
        matches!(
            said,
            Said::Refreshed {
                refreshed: true,
                ..
            }
        )
    };
    let refreshed = refresh.lines().iter().any(|line| new(&line.said));
    Ok(match (exit, refreshed) {
        (Exit::Code(0), true) => None,
        (exit, _) => Some(
            refresh
                .failure()
                .unwrap_or_else(|| (format!("{exit:?}"), "it did not refresh".to_owned())),
        ),
    })
}

/// Whether a new process gets a token that the servers take; what is wrong, in words, where it does not.
async fn has_a_token(site: &Site) -> Result<Result<(), String>, String> {
    let mut tries = 0;
    loop {
        tries += 1;
        let start = site.start("token").arg("--caller-wait-ms=4000");
        let (exit, token) = site.run(start).await?;
        let given = token.lines().into_iter().find_map(|line| match line.said {
            Said::Token {
                access_token,
                expires_in_ms,
                ..
            } => Some((access_token, expires_in_ms.map(|left| line.at_ms + left))),
            _ => None,
        });
        if site.has_seen_reuse() {
            return Ok(Ok(()));
        }
        match (exit, given) {
            (Exit::Code(0), Some((token, _))) if site.accepts(&token) => return Ok(Ok(())),
            // The issuer said that it lives for no time at all: only a server can tell what that means.
            (Exit::Code(0), Some((_, None))) => return one_call(site).await,
            // It may have ended on its way here.
            (Exit::Code(0), Some((_, Some(ends_ms))))
                if ends_ms > site.lab.clock().now_ms() + 50 =>
            {
                return Ok(Err("a token that nobody takes".to_owned()));
            }
            (Exit::Code(0 | LATER), _) if tries < MOST_TRIES => {}
            (exit, _) => {
                let why = token.failure();
                return Ok(Err(format!("no working token: {exit:?} {why:?}")));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether a new process can use the MCP server.
async fn one_call(site: &Site) -> Result<Result<(), String>, String> {
    let start = site.start("work").arg("--step");
    let mut worker = site.spawn(start).map_err(|error| error.to_string())?;
    worker.step().await.map_err(|error| error.to_string())?;
    let called = |said: &Said| matches!(said, Said::Called { .. });
    let line = worker.next(PATIENCE, called).await;
    let line = line.map_err(|late| late.to_string())?;
    worker.close();
    worker
        .end(PATIENCE)
        .await
        .map_err(|late| late.to_string())?;
    Ok(match line.said {
        Said::Called { code: None, .. } => Ok(()),
        said => Err(format!("no call gets through: {said:?}")),
    })
}

/// After a logout nobody has a token, and the issuer knows.
async fn logged_out(site: &Site, report: &mut Report) -> Result<(), String> {
    let (exit, again) = site.run(site.start("logout")).await?;
    let never = Some("login.never".to_owned());
    if exit != Exit::Code(0) && again.failure().map(|(code, _)| code) != never {
        report.violations.push(format!(
            "the second logout ended with {exit:?}: {:?}",
            again.failure()
        ));
    }
    let (_, token) = site.run(site.start("token")).await?;
    if token.failure().map(|(code, _)| code) != never {
        report
            .violations
            .push("a token after the logout".to_owned());
    }
    let live = site.lab.with_issuer(|issuer| issuer.live_grants());
    if live > 0 {
        report
            .violations
            .push(format!("{live} grants live on after the logout"));
    }
    Ok(())
}

/// Where nothing was lost, no call fails for good, and no process ends as if something were.
fn unexpected_failures(site: &Site, violations: &mut Vec<String>) {
    let fatal = |code: &str| !code.starts_with("unavailable.") && code != "denied.by_resource";
    for witness in site.witnesses() {
        let codes = witness
            .lines()
            .into_iter()
            .filter_map(|line| match line.said {
                Said::Called { code, .. } => code,
                Said::Failed { code, .. } => Some(code),
                _ => None,
            });
        let codes: Vec<String> = codes.filter(|code| fatal(code)).collect();
        if !codes.is_empty() {
            violations.push(format!(
                "{} says {codes:?} although nothing was lost",
                witness.name()
            ));
        }
    }
}

/// The exit code of what is worth trying again.
const LATER: i32 = 75;
const PATIENCE: Duration = Duration::from_secs(15);
const MOST_TRIES: u32 = 40;
