//! What a process of the harness says: one JSON object a line, each with the time.

use std::io::Write as _;

use pilotlight::{
    clock::{Clock as _, SystemClock},
    core::attempt::Label,
};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, in milliseconds of the machine's own Unix time, whatever the process was told about its clock.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub said: Said,
}

/// What can be said. Refresh tokens are named by their [`fingerprint`](crate::fingerprint()).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub enum Said {
    /// The login is open, and calls can begin.
    Ready,
    /// A call to the MCP server has ended.
    Called {
        /// The HTTP status of its last answer.
        status: Option<u16>,
        /// Why it failed: an error's code.
        code: Option<String>,
        /// The same in words.
        words: Option<String>,
        /// How long it took.
        ms: u64,
    },
    /// The store was asked to note that a refresh token is being spent, and has answered.
    Attempt {
        /// Which refresh token.
        token: String,
        /// Of which login: its incarnation.
        login: String,
        /// Its generation.
        generation: u64,
        /// The how many-th call with it.
        number: u32,
        /// Why it may repeat an earlier one.
        label: Option<Label>,
        /// Whether it is durable: what is not may be sent all the same, where nothing else is left.
        durable: bool,
    },
    /// The note was taken back: the call did not reach the issuer, or was refused.
    Cleared {
        /// Which refresh token.
        token: String,
    },
    /// A refresh token is durable, in store or spool.
    Durable {
        /// Which.
        token: String,
        /// Of which login: its incarnation.
        login: String,
        /// Its generation.
        generation: u64,
        /// Where.
        spooled: bool,
    },
    /// Neither store nor spool took a refresh token: this process alone has it.
    Held {
        /// Which.
        token: String,
        /// Of which login: its incarnation.
        login: String,
        /// Its generation.
        generation: u64,
    },
    /// A fail point was passed and acts now.
    Point {
        /// Which.
        name: String,
        /// How.
        action: String,
    },
    /// A login was made.
    LoggedIn {
        /// Whether another process had made it.
        adopted: bool,
    },
    /// An access token, for the caller: the one secret that is ever said.
    Token {
        /// The token.
        access_token: String,
        /// How long it still lives.
        expires_in_ms: Option<u64>,
        /// The code of what went wrong with a refresh that would have been better.
        warning: Option<String>,
    },
    /// A refresh was asked for.
    Refreshed {
        /// Whether there is a new token.
        refreshed: bool,
        /// How often it was tried.
        tries: u32,
    },
    /// A login was ended.
    LoggedOut {
        /// What became of it at the issuer.
        revocation: String,
    },
    /// The process could not do what it was asked.
    Failed {
        /// The error's code.
        code: String,
        /// The same in words.
        words: String,
    },
    /// Everything that was under way is done.
    Drained,
}

/// Where a process says it: standard output.
#[derive(Debug, Clone, Copy, Default)]
pub struct Journal {
    silent: bool,
}

impl Journal {
    /// One that says nothing, for tests within a process.
    #[must_use]
    pub fn silent() -> Self {
        Self { silent: true }
    }

    /// Says something, in one write, so that a process that is killed leaves no half line.
    pub fn say(&self, said: Said) {
        if self.silent {
            return;
        }
        let line = Line {
            at_ms: SystemClock.now().wall.0,
            said,
        };
        if let Ok(mut bytes) = serde_json::to_vec(&line) {
            bytes.push(b'\n');
            let mut out = std::io::stdout().lock();
            // Nobody to tell it to: the reader has gone, and so will this process.
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
        }
    }
}
