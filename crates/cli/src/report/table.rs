//! Tables that a person reads at a glance.

use pilotlight_core::{
    credential::Account, error::LoginCause, resource::clean, state::State, time::Wall,
};

use super::{shown::Shown, words};
use crate::failure::quoted;

/// Columns of text, as wide as they need to be.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

/// A piece of text, and how it is painted where colours are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

/// The meaning of a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Head,
    Good,
    Wary,
    Bad,
}

impl Table {
    pub(crate) fn headed(heads: &[&str]) -> Self {
        Self {
            rows: vec![
                heads
                    .iter()
                    .map(|head| Cell {
                        text: (*head).to_owned(),
                        paint: Paint::Head,
                    })
                    .collect(),
            ],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The text, without a line break at its end.
    pub(crate) fn render(&self, colour: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(Cell::width)
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<Cell>| {
            let last = row.len().saturating_sub(1);
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(i, (cell, width))| {
                    let gap = if i == last {
                        0
                    } else {
                        width - cell.width() + 2
                    };
                    format!("{}{}", cell.painted(colour), " ".repeat(gap))
                });
            cells.collect::<String>().trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            paint: Paint::Plain,
        }
    }

    pub(crate) fn painted_as(text: impl Into<String>, paint: Paint) -> Self {
        Self {
            text: text.into(),
            paint,
        }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn painted(&self, colour: bool) -> String {
        let code = match self.paint {
            _ if !colour => return self.text.clone(),
            Paint::Plain => return self.text.clone(),
            Paint::Head => "1",
            Paint::Good => "32",
            Paint::Wary => "33",
            Paint::Bad => "31",
        };
        format!("\u{1b}[{code}m{}\u{1b}[0m", self.text)
    }
}

/// The logins at a glance, and below them what a person should know or do.
pub(crate) fn statuses(all: &[Shown], now: Wall, colour: bool) -> String {
    let accounts = all
        .iter()
        .any(|login| login.key.account != Account::default());
    let flags = all.iter().any(|login| !login.flags.is_empty());
    let mut heads = vec![
        "NAME",
        "STATE",
        "TOKEN ENDS",
        "NEXT REFRESH",
        "LAST ACCEPTED",
    ];
    if accounts {
        heads.insert(1, "ACCOUNT");
    }
    let grants = all.iter().any(|login| login.grant.is_some());
    if grants {
        heads.push("GRANT");
    }
    if flags {
        heads.push("NOTE");
    }
    let mut table = Table::headed(&heads);
    let when = |at: Option<Wall>| {
        Cell::new(at.map_or_else(|| "-".to_owned(), |at| words::relative(at, now)))
    };
    for login in all {
        let next = match &login.state {
            State::Expired | State::Due => Cell::new("at next use"),
            State::Retrying { next, .. } => when(Some(*next)),
            State::Ok | State::Uncertain => when(login.next_refresh_at),
            _ => Cell::new("-"),
        };
        let mut row = vec![
            Cell::new(clean(&login.name)),
            state(login),
            when(login.expires_at),
            next,
            when(login.last_accepted_at),
        ];
        if accounts {
            row.insert(1, Cell::new(login.key.account.to_string()));
        }
        if grants {
            row.push(Cell::new(login.grant.unwrap_or("-")));
        }
        if flags {
            row.push(Cell::new(
                login
                    .flags
                    .iter()
                    .map(|flag| words::flag(*flag))
                    .collect::<Vec<_>>()
                    .join(", "),
            ));
        }
        table.row(row);
    }
    let mut text = table.render(colour);
    for login in all {
        if let Some(exception) = &login.exception {
            text.push_str(&format!(
                "\n\n{}: its authorization server is accepted as {} (login --accept-issuer)",
                clean(&login.name),
                clean(exception)
            ));
        }
    }
    for note in all.iter().filter_map(|login| note(login, now)) {
        text.push_str(&format!("\n\n{note}"));
    }
    text
}

/// The logins and their servers.
pub(crate) fn list(all: &[Shown], colour: bool) -> String {
    let grants = all.iter().any(|login| login.grant.is_some());
    let mut heads = vec!["NAME", "ACCOUNT", "STATE", "SERVER"];
    if grants {
        heads.insert(3, "GRANT");
    }
    let mut table = Table::headed(&heads);
    for login in all {
        let mut row = vec![
            Cell::new(clean(&login.name)),
            Cell::new(login.key.account.to_string()),
            state(login),
            Cell::new(login.key.url.to_string()),
        ];
        if grants {
            row.insert(3, Cell::new(login.grant.unwrap_or("-")));
        }
        table.row(row);
    }
    table.render(colour)
}

/// What a person should know or do about a login.
fn note(login: &Shown, now: Wall) -> Option<String> {
    let explained = words::explained(&login.state, now)?;
    let command = if login.needs_login() {
        format!("\n  pilotlight login {}", quoted(&login.name))
    } else {
        String::new()
    };
    Some(format!("{}: {explained}{command}", clean(&login.name)))
}

fn state(login: &Shown) -> Cell {
    let paint = match &login.state {
        State::Ok | State::Due => Paint::Good,
        State::Expired
        | State::LoginRequired {
            cause: LoginCause::Never,
        } => Paint::Plain,
        State::Retrying { .. } | State::Uncertain | State::Ending { .. } | State::Unverified => {
            Paint::Wary
        }
        _ => Paint::Bad,
    };
    Cell::painted_as(words::state(&login.state), paint)
}

#[cfg(test)]
pub(crate) mod tests;
