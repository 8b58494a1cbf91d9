//! Many calls: several at once, at a pace, over one session and one connection; and what became of them.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use futures_util::future::join_all;
use pilotlight_core::time::Mono;
use rmcp::model::JsonObject;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::arguments::Typed;
use crate::{app::App, failure::Failure, mcp::Client, report::words};

/// What is to be called, and how often.
pub(super) struct Task<'a> {
    pub(super) client: &'a Client,
    pub(super) tool: &'a str,
    pub(super) typed: &'a Typed,
    pub(super) lanes: u16,
    /// The time between two calls of a lane, and for how long; once where it is absent.
    pub(super) pace: Option<(Duration, Duration)>,
}

/// What became of the calls.
#[derive(Debug, Default)]
struct Tally {
    failed: u64,
    errors: BTreeMap<String, u64>,
    took: Vec<Duration>,
}

pub(super) async fn run(app: &App, task: Task<'_>) -> Result<(), Failure> {
    let told = Told::new(app);
    let tally = &told.tally;
    let progress = app.report.spinner();
    progress.set_message(format!("calling {}", task.tool));
    let arguments = tokio::sync::OnceCell::new();
    let lane = || async {
        match task.pace {
            None => once(app, &task, &arguments, tally).await,
            Some((every, during)) => {
                let until = app.clock().now().mono + during;
                let mut ticks = tokio::time::interval(every.max(SHORTEST));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    if app.clock().now().mono >= until {
                        return;
                    }
                    once(app, &task, &arguments, tally).await;
                    progress.set_message(held(tally, |tally| tally.line(task.tool)));
                }
            }
        }
    };
    join_all((0..task.lanes).map(|_| lane())).await;
    drop(progress);
    if held(tally, |tally| tally.failed > 0) {
        return Err(Failure::silent(SOME_FAILED));
    }
    Ok(())
}

/// The tally, which is told at the end, whatever brought that about: who stops a loop wants to know what it has come to.
struct Told<'a> {
    app: &'a App,
    tally: Mutex<Tally>,
}

impl<'a> Told<'a> {
    fn new(app: &'a App) -> Self {
        let tally = Mutex::default();
        Self { app, tally }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let report = &self.app.report;
        held(&self.tally, |tally| match report.json() {
            true => report.object(tally.to_json()),
            false => report.data(tally.in_words()),
        });
    }
}

/// One call, counted.
async fn once(
    app: &App,
    task: &Task<'_>,
    arguments: &tokio::sync::OnceCell<JsonObject>,
    tally: &Mutex<Tally>,
) {
    let began = app.clock().now().mono;
    let done = async {
        let arguments = arguments
            .get_or_try_init(|| task.typed.settle(task.client, task.tool))
            .await?;
        task.client.call(task.tool, arguments).await
    };
    let failed = match done.await {
        Ok(result) if result.is_error == Some(true) => Some("tool.is_error".to_owned()),
        Ok(_) => None,
        Err(failure) => Some(failure.code.clone()),
    };
    let took = since(began, app.clock().now().mono);
    held(tally, |tally| {
        tally.took.push(took);
        if let Some(code) = failed {
            tally.failed += 1;
            *tally.errors.entry(code).or_default() += 1;
        }
    });
}

impl Tally {
    fn line(&self, tool: &str) -> String {
        format!(
            "calling {tool}: {} calls, {} failed",
            self.took.len(),
            self.failed
        )
    }

    fn slowest(&self) -> Duration {
        self.took.iter().max().copied().unwrap_or_default()
    }

    fn median(&self) -> Duration {
        let mut sorted = self.took.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    fn to_json(&self) -> Value {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        json!({
            "calls": self.took.len(),
            "failed_calls": self.failed,
            "slowest_ms": ms(self.slowest()),
            "median_ms": ms(self.median()),
            "errors": self.errors,
        })
    }

    fn in_words(&self) -> String {
        let (median, slowest) = (words::span(self.median()), words::span(self.slowest()));
        let mut text = format!(
            "{} calls, {} failed; half of them took at most {median}, the slowest {slowest}",
            self.took.len(),
            self.failed
        );
        for (code, count) in &self.errors {
            text.push_str(&format!("\n  {count} x {code}"));
        }
        text
    }
}

fn since(began: Mono, now: Mono) -> Duration {
    began.until(now)
}

fn held<T>(tally: &Mutex<Tally>, work: impl FnOnce(&mut Tally) -> T) -> T {
    work(
        &mut tally
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    )
}

const SOME_FAILED: u8 = 1;
const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_adds_up() {
        let took = [3, 1, 2].map(Duration::from_millis).to_vec();
        let tally = Tally {
            failed: 1,
            errors: BTreeMap::from([("login.never".to_owned(), 1)]),
            took,
        };
        insta::assert_snapshot!(tally.to_json().to_string(), @r#"{"calls":3,"errors":{"login.never":1},"failed_calls":1,"median_ms":2,"slowest_ms":3}"#);
        insta::assert_snapshot!(tally.in_words(), @"
        3 calls, 1 failed; half of them took at most 2 ms, the slowest 3 ms
          1 x login.never
        ");
        assert_eq!(Tally::default().to_json()["median_ms"], 0);
    }
}
