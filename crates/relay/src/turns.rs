//! Who waits for whom: messages that must reach the server one after the other.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// A lane in which messages keep their order.
#[derive(Debug)]
pub(crate) struct Turns {
    given: AtomicU64,
    done: watch::Sender<u64>,
}

/// A place in the lane. Dropped, it lets the next one go.
#[derive(Debug)]
pub(crate) struct Turn {
    number: u64,
    done: watch::Sender<u64>,
}

/// All who were in the lane at a certain moment.
#[derive(Debug)]
pub(crate) struct Before {
    number: u64,
    done: watch::Receiver<u64>,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            given: AtomicU64::new(0),
            done: watch::Sender::new(0),
        }
    }

    /// Joins the lane.
    pub(crate) fn take(&self) -> Turn {
        Turn {
            number: self.given.fetch_add(1, Ordering::Relaxed),
            done: self.done.clone(),
        }
    }

    /// Waits for those in the lane without joining it; nothing where all are done.
    pub(crate) fn before(&self) -> Option<Before> {
        let number = self.given.load(Ordering::Relaxed);
        (*self.done.borrow() < number).then(|| Before {
            number,
            done: self.done.subscribe(),
        })
    }
}

impl Turn {
    pub(crate) async fn come(&self) {
        wait(self.done.subscribe(), self.number).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.done
            .send_modify(|done| *done = (*done).max(self.number + 1));
    }
}

impl Before {
    pub(crate) async fn done(self) {
        wait(self.done, self.number).await;
    }
}

async fn wait(mut done: watch::Receiver<u64>, number: u64) {
    // It ends with the lane, and with it all that waits.
    let _ = done.wait_for(|done| *done >= number).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn each_waits_for_those_before_it() {
        let turns = Turns::new();
        assert!(turns.before().is_none());
        let (first, second) = (turns.take(), turns.take());
        let all = turns.before().unwrap();
        first.come().await;
        let early = tokio::time::timeout(Duration::from_millis(20), second.come());
        assert!(early.await.is_err());
        drop(first);
        second.come().await;
        drop(second);
        all.done().await;
        assert!(turns.before().is_none());
    }
}
