//! What each target does with its input. The fuzzer runs it, and so does a test of the bridge, over the corpora: so this is built
//! in two crates, and each names what is tested `subject`.

mod era;
mod frame;
mod message;
mod sse;

/// A target, with the name of its corpus.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const ALL: [Target; 4] = [
    ("era", era::run),
    ("frame", frame::run),
    ("message", message::run),
    ("sse", sse::run),
];
