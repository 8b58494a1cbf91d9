//! Flows: what a login, a refresh and a logout do, step by step, with nothing done.
//!
//! ```text
//!      +--------+   Step { act, wake }   +--------+
//!      |  flow  | ---------------------> | driver |   does the act, waits for the wake
//!      | (core) | <--------------------- | (client|
//!      +--------+        Answer          | world) |
//!                                        +--------+
//! ```
//!
//! A flow is a state machine. Each state is named for what it waits for, holds only what has been proven so far, and is
//! consumed by [`Flow::handle`]. The driver in `client` and the simulated world in `testkit` interpret the same steps.
//! Call [`Flow::start`] once, then [`Flow::handle`] with what came of each step until [`Turn::Done`]. An answer that the
//! state does not wait for ends the flow with [`Error::Bug`]; a wake-up that came too early is a no-op.

pub mod discover;
pub mod login;
pub mod logout;
pub mod look;
pub mod refresh;
#[cfg(test)]
mod stage;
pub mod unattended;
mod ways;

use url::Url;
use zeroize::Zeroizing;

use crate::{
    attempt::Attempt,
    credential::{Binding, Credential, CredentialKey, Incarnation, Version},
    error::Error,
    event::Event,
    exchange::{Exchange, Exchanged},
    issuer::Issuer,
    notes::IssuerNotes,
    record::{Fact, Forced, Record},
    reference::SecretRef,
    registration::{Client, RegistrationManagement},
    secret::StateParameter,
    time::{Mono, Now, Wall},
};

pub use ways::{CodePrompt, Device, Redirect};

/// A flow: something to be driven to its outcome.
pub trait Flow: Sized {
    /// What it ends with.
    type Outcome;

    /// Gives the first step.
    fn start(self, now: Now) -> Turn<Self>;

    /// Takes what came of the last step and gives the next.
    fn handle(self, answer: Answer, now: Now) -> Turn<Self>;
}

/// What a flow says next.
#[expect(
    clippy::large_enum_variant,
    reason = "one turn lives at a time, on the driver's stack"
)]
pub enum Turn<F: Flow> {
    /// Do this and come back.
    Next(F, Step),
    /// The flow has ended.
    Done(F::Outcome),
}

/// What a flow needs done, and what else may wake it while that is being done or, without an act, instead.
#[derive(Debug)]
pub struct Step {
    /// The one thing to do; `None` to wait only.
    pub act: Option<Act>,
    /// Until when to wait at most; the answer is then [`Answer::Woken`].
    pub wake_at: Option<Mono>,
}

impl Step {
    /// A step that waits for its act alone.
    #[must_use]
    pub fn act(act: Act) -> Self {
        Self {
            act: Some(act),
            wake_at: None,
        }
    }

    /// A step that only waits.
    #[must_use]
    pub fn wait_until(at: Mono) -> Self {
        Self {
            act: None,
            wake_at: Some(at),
        }
    }
}

/// What a flow can ask for. Each is answered by the [`Answer`] named with it.
#[derive(Debug)]
pub enum Act {
    /// Make one HTTP exchange. [`Answer::Exchanged`]
    Send(Box<Exchange>),
    /// Take a lock, waiting for it as long as the driver sees fit. [`Answer::Locked`]
    Lock(Lock),
    /// Let go of a lock. [`Answer::Done`]
    Unlock(Lock),
    /// Read store and spool. [`Answer::Read`]
    Reread(CredentialKey),
    /// Write facts beside the credential while `version` is still the stored one; what is said of an attempt takes the
    /// place of what the spool slot holds of that version. [`Answer::Noted`]
    Note {
        /// Whose.
        key: CredentialKey,
        /// The version that the facts belong to.
        version: Version,
        /// The facts, written together.
        facts: Vec<Fact>,
        /// The event that travels with them.
        event: Option<Event>,
    },
    /// Make a new version durable. [`Answer::Committed`]
    Commit(Box<Commit>),
    /// Keep a version in the spool slot, because the store refused it. [`Answer::Done`]
    Spool {
        /// The version that it follows.
        follows: Option<Version>,
        /// What to keep.
        credential: Box<Credential>,
    },
    /// Keep an attempt in the spool slot, beside whatever else is there, because the store refused to note it; or take the
    /// one that is there back. [`Answer::Done`]
    SpoolAttempt {
        /// Whose.
        key: CredentialKey,
        /// The version whose refresh token it spends.
        version: Version,
        /// What to keep; `None` to take back what is there.
        attempt: Option<Attempt>,
    },
    /// Make sure that the spool slot exists and has room. [`Answer::Done`]
    PrepareSpool(CredentialKey),
    /// Write what was learned about an issuer. [`Answer::Done`]
    Learn(Issuer, IssuerNotes),
    /// Look up the registrations of this program at an issuer. [`Answer::Registered`]
    FindRegistrations(Issuer),
    /// Keep a registration. [`Answer::Done`]
    KeepRegistration(Box<Registration>),
    /// Forget registrations that a new one replaces. [`Answer::Done`]
    ForgetRegistration(Box<Registration>),
    /// Open the listener for the redirect. [`Answer::CallbackOpen`]
    OpenCallback(Callback),
    /// Show a person the authorization URL and wait for the redirect. [`Answer::Redirected`]
    Show(Box<Prompt>),
    /// Show a person a code to log in with on another device; done as soon as it is shown. [`Answer::Done`]
    ShowCode(Box<CodePrompt>),
    /// Close the listener. [`Answer::Done`]
    CloseCallback,
    /// Replace a login by a tombstone and queue its revocation. [`Answer::Buried`]
    Bury {
        /// Whose.
        key: CredentialKey,
        /// The event that travels with it.
        event: Event,
        /// Whether the issuer is to be told.
        revoke: bool,
    },
    /// Take the revocation of one login off the queue: the issuer has answered. [`Answer::Done`]
    Revoked(CredentialKey, Incarnation),
    /// Write a binding, before there is a login for it. [`Answer::Done`]
    PutBinding(Box<Binding>),
    /// Record an event that belongs to no write. [`Answer::Done`]
    Record(CredentialKey, Event),
    /// Read a secret of one line from where it lies, as it is now. [`Answer::Secret`]
    ReadSecret(SecretRef),
}

impl Act {
    /// Forgets a client that an issuer has registered. It is found by the two: what else was known of it does not matter any more.
    fn forgetting(issuer: Issuer, client: Client) -> Self {
        Self::ForgetRegistration(Box::new(Registration {
            issuer,
            client,
            redirect_uris: Vec::new(),
            management: None,
            registered_at: Wall::default(),
        }))
    }
}

/// What came of a step.
pub enum Answer {
    /// An exchange.
    Exchanged(Exchanged),
    /// A lock: its fence, or why it could not be had.
    Locked(Result<u64, Error>),
    /// A read.
    Read(Result<Box<Reading>, Error>),
    /// Whether the facts were written: `false` where the version had moved on.
    Noted(Result<bool, Error>),
    /// A commit.
    Committed(Result<Committed, Error>),
    /// The registrations at an issuer, newest first.
    Registered(Result<Vec<Registration>, Error>),
    /// The redirect URI of the open listener.
    CallbackOpen(Result<String, Error>),
    /// The parameters of the redirect, in order, form-decoded.
    Redirected(Result<Vec<(String, String)>, Error>),
    /// The login that was buried, and the registration that no other login uses.
    Buried(Result<Option<Box<Buried>>, Error>),
    /// A secret.
    Secret(Result<Zeroizing<String>, Error>),
    /// An act without a result was done, or could not be.
    Done(Result<(), Error>),
    /// The instant of [`Step::wake_at`] has come.
    Woken,
}

impl std::fmt::Debug for Answer {
    /// Names the kind alone: a redirect holds a code.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exchanged(_) => "Exchanged",
            Self::Locked(_) => "Locked",
            Self::Read(_) => "Read",
            Self::Noted(_) => "Noted",
            Self::Committed(_) => "Committed",
            Self::Registered(_) => "Registered",
            Self::CallbackOpen(_) => "CallbackOpen",
            Self::Redirected(_) => "Redirected",
            Self::Buried(_) => "Buried",
            Self::Secret(_) => "Secret",
            Self::Done(_) => "Done",
            Self::Woken => "Woken",
        })
    }
}

/// The locks of a machine. Each is its own: a login never holds up a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lock {
    /// The right to refresh (the *lease*).
    Refresh(CredentialKey),
    /// The right to register at an issuer.
    Register(Issuer),
}

/// What store and spool hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The record; `None` where there never was one.
    pub record: Option<Record>,
    /// What is known of the issuer.
    pub notes: IssuerNotes,
    /// Whether this process may write (`min_writer`).
    pub writable: bool,
}

/// A new version to make durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The version.
    pub credential: Credential,
    /// What must be stored now for the commit to go through.
    pub expects: Expects,
    /// The binding to move to it, in the same transaction: a login's.
    pub binding: Option<Binding>,
    /// What to remember of forced refreshes; every other fact is cleared.
    pub forced: Option<Forced>,
    /// The event that travels with it.
    pub event: Event,
}

/// The condition of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// Exactly this version.
    Version(Version),
    /// No login: nothing, or a tombstone.
    Nothing,
    /// Whatever is there: a login never loses.
    Anything,
}

/// What came of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// It is durable; the login it replaced, if another incarnation was there.
    Done {
        /// What to revoke.
        superseded: Option<Box<Credential>>,
    },
    /// Something else is stored: nothing was written.
    Moved,
}

/// How an issuer knows this program.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Registration {
    /// At which issuer.
    pub issuer: Issuer,
    /// As which client.
    pub client: Client,
    /// The redirect URIs that were registered.
    pub redirect_uris: Vec<String>,
    /// How to delete it again (RFC 7592).
    pub management: Option<RegistrationManagement>,
    /// When it was made.
    pub registered_at: Wall,
}

/// A login that was replaced by a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buried {
    /// What it was.
    pub credential: Credential,
    /// Its registration, where no other login uses it.
    pub unshared: Option<Registration>,
}

/// The listener that a redirect needs (RFC 8252 section 7.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// `127.0.0.1`, `[::1]`, or `localhost` (then both address families are served).
    pub host: String,
    /// The port; `None` for any free one.
    pub port: Option<u16>,
    /// The path, `/callback` by default.
    pub path: String,
}

impl Callback {
    /// The port that is named where a redirect URI has to be entered by hand, and none was asked for.
    pub const CONSOLE_PORT: u16 = 33417;

    /// The redirect URI to enter in an issuer's console: most want it to the octet, and so with its port.
    #[must_use]
    pub fn in_a_console(&self) -> String {
        let port = self.port.unwrap_or(Self::CONSOLE_PORT);
        format!("http://{}:{port}{}", self.host, self.path)
    }
}

impl Default for Callback {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: None,
            path: "/callback".into(),
        }
    }
}

/// What to show a person who is to approve.
#[derive(Clone)]
pub struct Prompt {
    /// The authorization URL.
    pub url: Url,
    /// The `state` that the redirect must carry: the listener answers 400 to any other and goes on waiting.
    pub state: StateParameter,
    /// The issuer that the login is at, as the server names it; the redirect's `iss` is judged by the flow (AUTH-62).
    pub issuer: Issuer,
    /// The issuer of the login so far, where the server has changed it: whoever approves gives consent to that, too.
    pub former_issuer: Option<Issuer>,
    /// The host that will be sent the tokens' secrets.
    pub token_host: String,
    /// The server.
    pub resource: String,
    /// The scopes asked for.
    pub scopes: crate::scope::Scopes,
    /// Whether the tokens will not be limited to the server: a person has asked to leave `resource` out for this issuer.
    pub without_resource: bool,
}

impl std::fmt::Debug for Prompt {
    /// Leaves the URL out: it holds the `state`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prompt")
            .field("issuer", &self.issuer)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}
