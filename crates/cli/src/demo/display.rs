//! What is seen while it runs: the processes, the token's life, and a line for each thing that happens.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pilotlight::{Status, core::time::Mono};
use pilotlight_core::resource::clean;

use super::{
    Fleet,
    fleet::{News, Said},
};
use crate::{
    app::App,
    report::{Report, words},
};

/// The live display; plain lines where nobody looks at a terminal.
pub(crate) struct Display {
    report: Report,
    all: Option<MultiProgress>,
    head: ProgressBar,
    token: ProgressBar,
    processes: Vec<ProgressBar>,
    complaints: u32,
}

impl Display {
    pub(crate) fn new(report: &Report, seconds: u64) -> Self {
        let all = (report.stderr_is_terminal() && !report.quiet()).then(MultiProgress::new);
        let bar = |length: u64, template: &str| {
            let bar = match &all {
                Some(all) => all.add(ProgressBar::new(length)),
                None => ProgressBar::hidden(),
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        };
        let head = bar(seconds, "the demo  [{bar:30}] {msg}");
        let token = bar(TOKEN_LIFE_MS, "the token [{bar:30}] {msg}");
        Self {
            report: report.clone(),
            all,
            head,
            token,
            processes: Vec::new(),
            complaints: 0,
        }
    }

    /// Tells what has happened.
    pub(crate) fn tell(&self, text: &str) {
        match &self.all {
            // Above the bars, where it stays.
            Some(all) => drop(all.println(text)),
            None => self.report.say(text),
        }
    }

    /// Takes note of what a process said.
    pub(crate) fn heard(&mut self, news: &News) {
        match &news.what {
            Said::Called {
                code: Some(code), ..
            } => self.tell(&format!("A call failed: {}", clean(code))),
            Said::Complained(line) if self.complaints < FEW => {
                self.complaints += 1;
                self.tell(&format!("A process said: {}", clean(line)));
            }
            _ => {}
        }
    }

    /// Draws how things are.
    pub(crate) fn draw(&mut self, fleet: &Fleet, status: &Status, end: Mono, app: &App) {
        let Some(all) = &self.all else { return };
        let left = app.clock().now().mono.until(end);
        self.head.set_position(
            self.head
                .length()
                .unwrap_or_default()
                .saturating_sub(left.as_secs()),
        );
        self.head.set_message(format!(
            "{} left; {} calls, {} failed",
            words::span(Duration::from_secs(left.as_secs())),
            fleet.calls,
            fleet.failed
        ));
        let life = status
            .expires_at
            .map(|at| app.now().until(at))
            .unwrap_or_default();
        self.token.set_position(
            u64::try_from(life.as_millis())
                .unwrap_or_default()
                .min(TOKEN_LIFE_MS),
        );
        self.token.set_message(format!(
            "{}, {:.1} s left",
            words::state(&status.state),
            life.as_secs_f64()
        ));
        for (i, member) in fleet.members().iter().enumerate() {
            if self.processes.len() <= i {
                let line = all.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("  {msg}") {
                    line.set_style(style);
                }
                self.processes.push(line);
            }
            let Some(line) = self.processes.get(i) else {
                continue;
            };
            let how = if member.gone {
                "gone".to_owned()
            } else {
                format!("the last call took {} ms", member.last_ms)
            };
            line.set_message(format!(
                "{} (pid {}): {} calls, {} failed, {how}",
                member.name, member.pid, member.calls, member.failed
            ));
        }
    }

    /// Takes the bars away.
    pub(crate) fn end(&self) {
        self.head.finish_and_clear();
        self.token.finish_and_clear();
        for line in &self.processes {
            line.finish_and_clear();
        }
    }
}

const TOKEN_LIFE_MS: u64 = 10_000;
const FEW: u32 = 5;
