//! The bridge's pure modules, built by themselves, and what is done with them.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "some of it is for the rest of the bridge")]
#[path = "../../crates/relay/src"]
mod relay {
    pub mod batch;
    pub mod era;
    pub mod frame;
    pub mod headers;
    pub mod message;
    pub mod scan;
    pub mod sse;
    pub mod tools;
}

mod targets;

pub use relay::{batch, era, frame, headers, message, scan, sse, tools};
use relay as subject;

/// Runs the target of this name.
pub fn run(name: &str, input: &[u8]) {
    let found = targets::ALL.iter().find(|(target, _)| *target == name);
    let (_, target) = found.expect("a target of this name");
    target(input);
}
