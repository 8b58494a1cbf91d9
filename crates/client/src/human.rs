//! The person who approves a login, and the ways to reach them.
//!
//! What comes in are URLs that a server chose. So a URL is opened only after its scheme and host have been looked at
//! again, as one argument of one fixed program, never through a shell (T-01, T-02); and what a person pastes is taken
//! only with the `state` of this login (T-04).

mod browser;
mod code;
mod paste;
mod surroundings;

use std::{fmt, fmt::Write as _, sync::Arc};

use async_trait::async_trait;
use pilotlight_core::{
    Error,
    error::LoginCause,
    flow::{CodePrompt, Prompt},
    issuer::Issuer,
    resource::clean,
    scope::Scopes,
};
use tokio::sync::{Mutex, mpsc};

pub use browser::Browser;
pub use surroundings::Surroundings;

use paste::Pasted;

/// Whoever can open a URL and approve. A role, so that hosts bring their own.
#[async_trait]
pub trait Human: Send + Sync + fmt::Debug + 'static {
    /// Whether nobody can be asked: a login then fails at once, before anything is registered.
    fn refuses(&self) -> bool;

    /// Shows the authorization URL. May stay pending for ever: the driver races it with the callback listener, and drops
    /// it when the redirect comes there. It gives parameters only where a person brought the redirect by hand.
    ///
    /// # Errors
    /// Whatever ends the login: `login.*` where nobody can be asked, `denied.by_human` where the person says no.
    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error>;

    /// Shows a code, and where it is to be typed in, and comes back as soon as it is shown: the issuer is asked from then on. That
    /// the login has ended, the caller of [`login`](crate::Sessions::login) learns.
    ///
    /// # Errors
    /// Whatever ends the login. Who does not say how a code is shown cannot show one: `login.never`.
    async fn show_code(&self, _: &CodePrompt) -> Result<(), Error> {
        Err(Error::login(LoginCause::Never))
    }
}

/// Nobody: every login is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refuse;

#[async_trait]
impl Human for Refuse {
    fn refuses(&self) -> bool {
        true
    }

    async fn approve(&self, _: &Prompt) -> Result<Vec<(String, String)>, Error> {
        Err(Error::login(LoginCause::Never))
    }
}

#[async_trait]
impl Human for Browser {
    fn refuses(&self) -> bool {
        false
    }

    /// Opens the URL, and waits for ever: the redirect comes to the listener.
    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        self.open(prompt);
        std::future::pending().await
    }
}

/// Somebody at a terminal: the URL is shown, a browser is opened where there is one, and the redirect URL or the code may
/// be pasted. The library never touches the terminal: words go out by a function, lines come in by a channel.
pub struct Terminal {
    say: Arc<dyn Fn(&str) + Send + Sync>,
    browser: Option<Browser>,
    lines: Option<Mutex<mpsc::Receiver<String>>>,
}

/// What somebody must know before they approve at another issuer than before.
fn moved(former: &Issuer, issuer: &Issuer) -> String {
    format!(
        "\nThe server has changed its authorization server: from {former} to {issuer}. Approve only if you expected that."
    )
}

fn permissions(scopes: &Scopes) -> String {
    let scopes: Vec<&str> = scopes.iter().collect();
    if scopes.is_empty() {
        return String::new();
    }
    format!(" Permissions asked for: {}.", clean(&scopes.join(" ")))
}

impl Terminal {
    /// Shows URLs by `say`, which is given whole paragraphs without a final line break.
    #[must_use]
    pub fn new(say: Arc<dyn Fn(&str) + Send + Sync>) -> Self {
        Self {
            say,
            browser: None,
            lines: None,
        }
    }

    /// Opens the URL too.
    #[must_use]
    pub fn with_browser(mut self, browser: Browser) -> Self {
        self.browser = Some(browser);
        self
    }

    /// Takes pasted lines. When the channel closes, the other ways go on.
    #[must_use]
    pub fn with_lines(mut self, lines: mpsc::Receiver<String>) -> Self {
        self.lines = Some(Mutex::new(lines));
        self
    }

    fn explain(&self, prompt: &Prompt, opened: bool) -> String {
        let mut text = format!("To log in to {}, ", clean(&prompt.resource));
        text.push_str(if opened {
            "approve in the browser. If none has opened, open this URL:"
        } else {
            "open this URL in a browser:"
        });
        // The serialised form of a URL is printable ASCII: a terminal has nothing to obey in it.
        let _ = write!(
            text,
            "\n\n  {}\n\nTokens come from {}.",
            prompt.url,
            clean(&prompt.token_host)
        );
        if let Some(former) = &prompt.former_issuer {
            let _ = write!(text, "{}", moved(former, &prompt.issuer));
        }
        text.push_str(&permissions(&prompt.scopes));
        if prompt.without_resource {
            let _ = write!(
                text,
                "\nWARNING: as you asked, {} is not told that the tokens are for {} alone: whatever they are good for, {} can \
                 use them for.",
                clean(&prompt.token_host),
                clean(&prompt.resource),
                clean(&prompt.resource)
            );
        }
        if self.lines.is_some() {
            text.push_str("\nIs that browser on another machine? Paste the address that it ends at, or the code, here.");
        }
        text
    }

    /// Reads lines until one brings the redirect; for ever where there are none (any more).
    async fn pasted(&self, prompt: &Prompt) -> Vec<(String, String)> {
        let Some(lines) = &self.lines else {
            return std::future::pending().await;
        };
        let mut lines = lines.lock().await;
        while let Some(line) = lines.recv().await {
            match paste::read(&line, &prompt.state) {
                Pasted::Nothing => {}
                Pasted::Redirect(parameters) => return parameters,
                Pasted::Code(code) => return paste::unproven(code, &prompt.state),
                Pasted::AnotherLogin => (self.say)(
                    "That address belongs to another login (its state differs). Open the URL above and paste where it ends.",
                ),
                Pasted::Unreadable => {
                    (self.say)(
                        "That is neither the address that the browser ended at nor a code. Paste it whole, on one line.",
                    );
                }
            }
        }
        std::future::pending().await
    }
}

#[async_trait]
impl Human for Terminal {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        let opened = self
            .browser
            .as_ref()
            .is_some_and(|browser| browser.open(prompt));
        (self.say)(&self.explain(prompt, opened));
        Ok(self.pasted(prompt).await)
    }

    /// Opens no browser: the person has said, or the surroundings do, that there is none here.
    async fn show_code(&self, prompt: &CodePrompt) -> Result<(), Error> {
        (self.say)(&code::explain(prompt));
        Ok(())
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal")
            .field("browser", &self.browser)
            .field("reads", &self.lines.is_some())
            .finish_non_exhaustive()
    }
}
