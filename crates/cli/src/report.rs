//! The one module that talks to people and programs: data on stdout, words on stderr.

pub(crate) mod events;
pub(crate) mod shown;
pub(crate) mod story;
pub(crate) mod table;
pub(crate) mod usage;
pub(crate) mod words;

use std::{
    fmt::Display,
    future::Future,
    io::{IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{
    args::Global,
    config::Environment,
    failure::{Failure, Told},
};

/// Who listens, and what they want to hear.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    json: bool,
    quiet: bool,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    no_color: bool,
}

impl Report {
    pub(crate) fn new(flags: &Global, environment: &Environment) -> Self {
        Self {
            json: flags.json,
            quiet: flags.quiet,
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            no_color: environment.has("NO_COLOR") || environment.value("TERM") == Some("dumb"),
        }
    }

    /// Whether results are wanted as JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Whether only results and errors are wanted.
    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// Whether stdout ends on somebody's screen.
    pub(crate) fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    /// Whether stderr ends on somebody's screen.
    pub(crate) fn stderr_is_terminal(&self) -> bool {
        self.stderr_is_terminal
    }

    /// Whether tables may be coloured.
    pub(crate) fn colour(&self) -> bool {
        self.stdout_is_terminal && !self.no_color
    }

    /// Prints a result for people, or for programs that want just this.
    pub(crate) fn data(&self, text: impl Display) {
        out(&format!("{text}\n"));
    }

    /// Prints bytes as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        // A reader that went away has seen what it wanted.
        drop(std::io::stdout().lock().write_all(bytes));
    }

    /// Prints a result for programs: one object on one line, with the version of its form.
    pub(crate) fn object(&self, value: Value) {
        let mut object = json!({ "version": 1 });
        if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), value) {
            object.extend(fields);
        }
        out(&format!("{object}\n"));
    }

    /// Says something that is no result.
    pub(crate) fn say(&self, text: impl Display) {
        if !self.quiet {
            err(&format!("{text}\n"));
        }
    }

    /// Says something that has to be heard: a URL to open, a warning.
    pub(crate) fn must_say(&self, text: impl Display) {
        err(&format!("{text}\n"));
    }

    /// Warns.
    pub(crate) fn warn(&self, text: impl Display) {
        err(&format!("warning: {text}\n"));
    }

    /// Tells why a command did not do what was asked.
    pub(crate) fn fail(&self, failure: &Failure) {
        if failure.code.is_empty() {
            return;
        }
        if self.json {
            err(&format!(
                "{}\n",
                json!({ "version": 1, "error": failure.to_json() })
            ));
        } else {
            err(&told(failure));
        }
    }

    /// Waits for something; when that takes more than a second and somebody looks, a line says for what.
    pub(crate) async fn wait<F: Future>(&self, what: &str, work: F) -> F::Output {
        tokio::pin!(work);
        if self.quiet || !self.stderr_is_terminal {
            return work.await;
        }
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let spinner = self.spinner();
        spinner.set_message(what.to_owned());
        work.await
    }

    /// The same while others write on the screen too: one plain line, once.
    pub(crate) async fn wait_plainly<F: Future>(&self, what: &str, work: F) -> F::Output {
        tokio::pin!(work);
        if self.quiet || !self.stderr_is_terminal {
            return work.await;
        }
        tokio::select! {
            done = &mut work => done,
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                self.say(what);
                work.await
            }
        }
    }

    /// A line on stderr that can be drawn again and again; hidden where nobody looks.
    pub(crate) fn spinner(&self) -> Spinner {
        if self.quiet || !self.stderr_is_terminal {
            return Spinner(ProgressBar::hidden());
        }
        let spinner = ProgressBar::new_spinner();
        let template = if self.no_color {
            "{spinner} {msg}"
        } else {
            "{spinner:.cyan} {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(120));
        Spinner(spinner)
    }

    /// A function that shows a person a paragraph, for roles of the library.
    pub(crate) fn voice(&self) -> Arc<dyn Fn(&str) + Send + Sync> {
        Arc::new(|text| err(&format!("{text}\n\n")))
    }
}

/// A line that is drawn again and again, and is gone when this is: after Ctrl-C, too.
#[derive(Debug)]
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    pub(crate) fn set_message(&self, message: String) {
        self.0.set_message(message);
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line of the log.
pub(crate) fn log_line(line: &str) {
    err(line);
}

/// An error in words.
fn told(failure: &Told) -> String {
    let mut text = format!("error: {} ({})\n", failure.message, failure.code);
    for cause in &failure.causes {
        text.push_str(&format!("caused by: {cause}\n"));
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // A reader that went away has seen what it wanted.
    drop(
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush()),
    );
}

fn err(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use pilotlight_core::Error;

    use super::*;

    #[test]
    fn an_error_is_told_with_its_code_its_cause_and_the_next_command() {
        let error = Error::BackingOff {
            code: "unavailable.network".into(),
            retry_after: Duration::from_secs(4),
        };
        let failure = Told {
            hint: Some("pilotlight status linear".into()),
            ..Told::from(&error)
        };
        insta::assert_snapshot!(told(&failure), @"
        error: refreshing failed, the next try is in 4 s (unavailable.network)
        caused by: the last try ended with unavailable.network
        hint: pilotlight status linear
        ");
    }
}
