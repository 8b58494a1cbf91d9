//! What the demo ends with: the issuer's own count of what was asked of it, and ours.

use std::time::Duration;

use pilotlight::core::time::Wall;
use pilotlight_core::event::{Event, Happened};
use pilotlight_testkit::authorization_server::Kind;
use serde_json::{Value, json};

use super::{Fleet, Mishaps, World};
use crate::report::{
    events,
    shown::Shown,
    table::{Cell, Paint, Table},
    words,
};

/// The figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Figures {
    calls: u64,
    failed_calls: u64,
    slowest: Duration,
    logins: u64,
    expiries: u64,
    refreshes: u64,
    spent_labelled: u64,
    spent_unlabelled: u64,
    killed: u64,
    mishaps: u64,
}

impl Figures {
    pub(crate) fn read(
        world: &World,
        fleet: &Fleet,
        mishaps: &Mishaps,
        history: &[Event],
        now: Wall,
    ) -> Self {
        let (logins, refreshes) = world
            .lab
            .with_issuer(|issuer| (issuer.stats().code_ok, issuer.stats().refresh_ok));
        let spent = world.lab.with_issuer(|issuer| {
            issuer
                .ledger()
                .of(Kind::Refresh)
                .filter(|entry| entry.spent_before)
                .count() as u64
        });
        let spent_labelled = spent.min(labels(history));
        Self {
            calls: fleet.calls,
            failed_calls: fleet.failed,
            slowest: fleet.slowest,
            logins,
            expiries: expiries(history, now),
            refreshes,
            spent_labelled,
            spent_unlabelled: spent - spent_labelled,
            killed: fleet.killed,
            mishaps: mishaps.happened(),
        }
    }

    /// Whether nobody noticed anything.
    pub(crate) fn all_well(&self) -> bool {
        self.failed_calls == 0 && self.logins == 1 && self.spent_unlabelled == 0
    }

    pub(crate) fn to_json(&self, login: &Shown, events: Vec<Value>) -> Value {
        json!({
            "calls": self.calls,
            "failed_calls": self.failed_calls,
            "logins": self.logins,
            "expiries": self.expiries,
            "refreshes": self.refreshes,
            "spent_unlabelled": self.spent_unlabelled,
            "spent_labelled": self.spent_labelled,
            "slowest_ms": u64::try_from(self.slowest.as_millis()).unwrap_or(u64::MAX),
            "killed": self.killed,
            "mishaps": self.mishaps,
            "session": login.to_json(),
            "events": events,
        })
    }

    pub(crate) fn table(&self, colour: bool) -> String {
        let mut table = Table::headed(&["WHAT", "COUNT", ""]);
        let zero = |count: u64| if count == 0 { Paint::Good } else { Paint::Bad };
        let one = if self.logins == 1 {
            Paint::Good
        } else {
            Paint::Bad
        };
        let slowest = format!("the slowest took {}", words::span(self.slowest));
        let rows: [(&str, u64, Paint, &str); 8] = [
            ("calls", self.calls, Paint::Plain, &slowest),
            (
                "failed calls",
                self.failed_calls,
                zero(self.failed_calls),
                "the killed process's last one aside",
            ),
            (
                "logins",
                self.logins,
                one,
                "authorization codes that the issuer exchanged",
            ),
            (
                "expiries",
                self.expiries,
                Paint::Plain,
                "tokens that came to their end meanwhile",
            ),
            (
                "refreshes",
                self.refreshes,
                Paint::Plain,
                "as the issuer counted",
            ),
            (
                "spent refresh tokens",
                self.spent_unlabelled,
                zero(self.spent_unlabelled),
                "presented without knowing it",
            ),
            (
                "  and knowingly",
                self.spent_labelled,
                Paint::Plain,
                "repeats of a call whose answer was lost",
            ),
            (
                "processes killed",
                self.killed,
                Paint::Plain,
                "while refreshing",
            ),
        ];
        for (what, count, paint, note) in rows {
            table.row(vec![
                Cell::new(what),
                Cell::painted_as(count.to_string(), paint),
                Cell::new(note),
            ]);
        }
        table.render(colour)
    }

    /// The figures in a sentence.
    pub(crate) fn verdict(&self, grace: u64) -> &'static str {
        if grace == 0 {
            "This issuer repeats no answer: when one is lost on the way, the login is lost with it, whatever the client does.\nhint: pilotlight demo"
        } else if self.all_well() {
            "Logged in once, stayed connected."
        } else {
            "Something went wrong that should not have; `--json` has all of it."
        }
    }
}

/// How many calls were made knowing that they may present a spent refresh token: whatever came of them says so.
fn labels(history: &[Event]) -> u64 {
    let knowing = |event: &&Event| match &event.happened {
        // The repeat, too, stayed without an answer.
        Happened::Ambiguous { repeated, .. } => *repeated,
        _ => events::label(event).is_some(),
    };
    history.iter().filter(knowing).count() as u64
}

/// How many tokens came to their end by `now`.
fn expiries(history: &[Event], now: Wall) -> u64 {
    let end = |event: &Event| match &event.happened {
        Happened::LoggedIn { lifetime, .. } => lifetime.map(|life| event.at + life),
        Happened::Refreshed {
            lifetime, sent_at, ..
        } => lifetime.map(|life| *sent_at + life),
        _ => None,
    };
    history
        .iter()
        .filter_map(end)
        .filter(|end| *end <= now)
        .count() as u64
}

#[cfg(test)]
mod tests {
    use pilotlight_core::{
        attempt::{Label, ProcessId},
        credential::Generation,
        event::Reason,
        scope::Scopes,
    };

    use super::*;

    fn figures() -> Figures {
        Figures {
            calls: 894,
            failed_calls: 0,
            slowest: Duration::from_millis(61),
            logins: 1,
            expiries: 7,
            refreshes: 10,
            spent_labelled: 2,
            spent_unlabelled: 0,
            killed: 1,
            mishaps: 4,
        }
    }

    #[test]
    fn the_table_and_the_verdict() {
        insta::assert_snapshot!(figures().table(false), @"
        WHAT                  COUNT
        calls                 894    the slowest took 61 ms
        failed calls          0      the killed process's last one aside
        logins                1      authorization codes that the issuer exchanged
        expiries              7      tokens that came to their end meanwhile
        refreshes             10     as the issuer counted
        spent refresh tokens  0      presented without knowing it
          and knowingly       2      repeats of a call whose answer was lost
        processes killed      1      while refreshing
        ");
        assert!(figures().all_well());
        let bad = [
            Figures {
                failed_calls: 1,
                ..figures()
            },
            Figures {
                logins: 2,
                ..figures()
            },
            Figures {
                spent_unlabelled: 1,
                ..figures()
            },
        ];
        assert!(bad.iter().all(|figures| !figures.all_well()));
    }

    #[test]
    fn a_repeat_is_counted_once_and_tokens_end_by_their_own_clock() {
        let at = |ms, happened| Event {
            at: Wall(ms),
            process: ProcessId::default(),
            happened,
        };
        let refreshed = |ms, label| {
            at(
                ms + 50,
                Happened::Refreshed {
                    generation: Generation(1),
                    reason: Reason::Due,
                    label,
                    calls: 1,
                    sent_at: Wall(ms),
                    previous_refresh_point: None,
                    lifetime: Some(Duration::from_secs(10)),
                },
            )
        };
        let login = Happened::LoggedIn {
            issuer: "x".into(),
            scopes: Scopes::default(),
            lifetime: Some(Duration::from_secs(10)),
            refresh_token: true,
            former_issuer: None,
        };
        let history = [
            at(0, login),
            at(
                7_000,
                Happened::Ambiguous {
                    code: "unavailable.network".into(),
                    repeated: false,
                },
            ),
            refreshed(7_500, Some(Label::RetryAmbiguous)),
            refreshed(15_000, Some(Label::AfterCrash)),
            refreshed(22_000, None),
        ];
        assert_eq!(labels(&history), 2);
        assert_eq!(expiries(&history, Wall(25_000)), 3);
    }
}
