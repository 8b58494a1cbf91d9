//! The deciding half of Pilotlight.
//!
//! Nothing here reads a clock, draws a random number, opens a socket or a file, or looks at the environment: time,
//! entropy and what happened come in as arguments, what to do goes out as values. That is what lets one simulated world
//! and the real driver run the very same decisions.

pub mod assertion;
pub mod attempt;
pub mod challenge;
pub mod credential;
pub mod dpop;
pub mod error;
pub mod event;
pub mod exchange;
pub mod flow;
pub mod freshness;
pub mod grant;
pub mod issuer;
pub mod jws;
pub mod legacy;
pub mod memory;
pub mod metadata;
pub mod notes;
pub mod pkce;
pub mod quirks;
pub mod record;
pub mod reference;
pub mod registration;
pub mod resource;
pub mod scope;
pub mod secret;
pub mod state;
pub mod time;
pub mod token;
pub mod unattended;

pub use error::Error;
