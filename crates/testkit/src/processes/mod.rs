//! Real processes over one store: killed, stopped and continued at named points, with the issuer's ledger as the oracle.
//!
//! ```text
//!   Site: Lab + folder ──spawn──> Harness ──stdout──> Testimony ─┐
//!            │                       │                           ├─> oracle
//!            │                 a real process: program.rs        │
//!            └──────────── the issuer's ledger ──────────────────┘
//! ```
//!
//! - [`program`]: what runs in the process, over the library and its store on disk;
//! - [`fail_point`], [`failing_store`], [`skewed_clock`]: what can be made to go wrong in it;
//! - [`said`]: what it says;
//! - [`harness`]: the process from the outside; [`testimony`]: what is left of it;
//! - [`site`]: the servers and the folder;
//! - [`oracle`]: who presented which refresh token when, and whether that was allowed;
//! - [`aftermath`]: what is left when all have ended;
//! - [`plan`], [`round`]: one round of chaos, from a seed.

pub mod aftermath;
pub mod fail_point;
pub mod failing_store;
pub mod harness;
pub mod oracle;
pub mod plan;
pub mod program;
pub mod round;
pub mod said;
pub mod site;
pub mod skewed_clock;
pub mod testimony;

mod dice;
mod worker;
