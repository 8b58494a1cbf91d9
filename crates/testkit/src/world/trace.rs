//! What happened in a run: one number that tells two runs apart, and, where it is wanted, a log to read.

/// The trace of one run.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    log: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(logging: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            log: logging.then(Vec::new),
        }
    }

    /// Notes what happened, as numbers.
    pub(super) fn mark(&mut self, numbers: [u64; 4]) {
        for number in numbers {
            self.hash = (self.hash ^ number)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(17);
        }
    }

    /// Writes a line, if anybody reads.
    pub(super) fn say(&mut self, at: u64, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let (seconds, ms) = (at / 1000, at % 1000);
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            log.push(format!(
                "{hours:02}:{minutes:02}:{:02}.{ms:03}  {}",
                seconds % 60,
                line()
            ));
        }
    }

    pub(super) fn finish(self) -> (u64, Vec<String>) {
        (self.hash, self.log.unwrap_or_default())
    }
}
