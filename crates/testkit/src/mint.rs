//! Deterministic strings that look random.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Makes token strings from a seed and a counter: the same seed gives the same strings in the same order.
#[derive(Debug, Clone)]
pub(crate) struct Mint {
    seed: u64,
    counter: u64,
}

impl Mint {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, counter: 0 }
    }

    /// Makes the next string: `prefix` and 43 URL-safe characters.
    pub(crate) fn next(&mut self, prefix: &str) -> String {
        self.counter += 1;
        let digest = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(self.counter.to_be_bytes())
            .chain_update(prefix)
            .finalize();
        format!("{prefix}{}", URL_SAFE_NO_PAD.encode(digest))
    }
}

/// Names a secret without showing it: the first 12 hexadecimal digits of its SHA-256.
#[must_use]
pub fn fingerprint(secret: &str) -> String {
    Sha256::digest(secret)
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
