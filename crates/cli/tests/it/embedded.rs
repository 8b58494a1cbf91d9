//! Another program on the same store: this test itself, with the library in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pilotlight::clock::{Clock, SystemClock};
use pilotlight::core::flow::Prompt;
use pilotlight::core::time::{BootId, Mono, Now, Wall};
use pilotlight::human::Human;
use pilotlight::store::{SqliteStore, SqliteStoreConfig};
use pilotlight::{Error, Sessions};
use tokio::sync::mpsc;

use crate::support::Home;

/// Hours ago, on a machine that has been started anew since: so that what takes an hour can have happened when the shipped
/// program, which has only the machine's own clocks, comes to it.
#[derive(Debug)]
pub(crate) struct LongAgo {
    behind: Duration,
    passed_ms: AtomicU64,
}

impl LongAgo {
    pub(crate) fn new(behind: Duration) -> Arc<Self> {
        let passed_ms = AtomicU64::new(0);
        Arc::new(Self { behind, passed_ms })
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.passed_ms.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for LongAgo {
    fn now(&self) -> Now {
        let passed = self.passed_ms.load(Ordering::SeqCst);
        let behind = u64::try_from(self.behind.as_millis()).unwrap();
        let real = SystemClock.now();
        Now {
            wall: Wall(real.wall.0 - behind + passed),
            mono: Mono(1_000 + passed),
            boot: BootId([7; 16]),
        }
    }
}

/// A person who is sent to a page, and whose browser the test is.
#[derive(Debug)]
pub(crate) struct Opens(pub(crate) mpsc::UnboundedSender<String>);

#[async_trait]
impl Human for Opens {
    fn refuses(&self) -> bool {
        false
    }

    async fn approve(&self, prompt: &Prompt) -> Result<Vec<(String, String)>, Error> {
        self.0.send(prompt.url.to_string()).unwrap();
        std::future::pending().await
    }
}

/// The sessions of a home, as another program has them.
pub(crate) fn sessions(home: &Home, clock: Arc<dyn Clock>, human: Arc<dyn Human>) -> Sessions {
    let (data, key) = (
        home.data().join("data"),
        home.data().join("state/store.key"),
    );
    let config = SqliteStoreConfig::new(data, key, "another", clock.clone());
    let store = SqliteStore::open(&config).unwrap();
    let builder = Sessions::builder(Arc::new(store)).human(human).clock(clock);
    builder.program("another").one_shot(true).open().unwrap()
}
