//! A login of mcp-remote's that cannot be brought in yet: nobody is asked for another meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pilotlight::{
    Sessions,
    core::{
        credential::BindingKey,
        flow::{CodePrompt, Prompt},
    },
    human::Human,
    mcp_remote::Shared,
};
use pilotlight_core::Error;

use super::{Options, join};

/// Who is asked for a login, once it is known that mcp-remote has none.
#[derive(Debug)]
pub(crate) struct AfterMcpRemote {
    human: Arc<dyn Human>,
    waits: AtomicBool,
}

impl AfterMcpRemote {
    pub(crate) fn new(human: Arc<dyn Human>) -> Arc<Self> {
        Arc::new(Self {
            human,
            waits: AtomicBool::new(false),
        })
    }

    /// Brings the login in as soon as that can be done; until then, at most for some minutes, every other login is refused.
    pub(crate) fn retry(
        self: &Arc<Self>,
        sessions: Sessions,
        shared: Shared,
        options: Arc<Options>,
        key: BindingKey,
    ) {
        self.waits.store(true, Ordering::Release);
        let this = self.clone();
        drop(tokio::spawn(async move {
            let (mut pause, mut waited) = (FIRST_PAUSE, Duration::ZERO);
            loop {
                tokio::time::sleep(pause).await;
                waited += pause;
                if waited > REFUSES_FOR {
                    this.waits.store(false, Ordering::Release);
                }
                pause = (pause * 3 / 2).min(LONGEST_PAUSE);
                match Box::pin(join(&sessions, &shared, &options, &key)).await {
                    Err(error) if passes(&error) => {}
                    Err(error) => {
                        tracing::warn!(code = error.code(), "mcp-remote's login is left alone");
                        break;
                    }
                    Ok(joined) => {
                        tracing::info!(?joined, "mcp-remote's login was looked for again");
                        break;
                    }
                }
            }
            this.waits.store(false, Ordering::Release);
        }));
    }
}

/// Whether it is to be expected that the same goes well later. Files that cannot be read are not: somebody has to act.
pub(crate) fn passes(error: &Error) -> bool {
    let code = error.code();
    code.starts_with("unavailable.") && !matches!(error, Error::StoreUnavailable { .. })
}

#[async_trait]
impl Human for AfterMcpRemote {
    fn refuses(&self) -> bool {
        self.waits.load(Ordering::Acquire) || self.human.refuses()
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        self.human.approve(prompt).await
    }

    async fn show_code(&self, prompt: &CodePrompt) -> Result<(), Error> {
        self.human.show_code(prompt).await
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The issuer of its tokens may be gone for good, and another in its place.
const REFUSES_FOR: Duration = Duration::from_secs(600);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
