//! The bridge's pure modules, built by themselves.
#![forbid(unsafe_code)]

#[path = "../../crates/relay/src"]
mod relay {
    pub mod batch;
    pub mod era;
    pub mod headers;
    pub mod message;
    pub mod tools;
}

pub use relay::{batch, era, headers, message, tools};
