//! The integration tests of the client, in one binary.

mod sessions;
