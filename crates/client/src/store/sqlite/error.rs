//! What SQLite's errors mean: a bad moment, or damage.

use pilotlight_core::Error;
use rusqlite::{Error as Sql, ErrorCode};

/// The error of a call on an open store.
pub(super) fn sql(error: &Sql) -> Error {
    match error {
        Sql::SqliteFailure(failure, message) => {
            let why = || match message {
                Some(message) => format!("{message} ({})", failure.extended_code),
                None => failure.to_string(),
            };
            match failure.code {
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Error::StoreUnavailable {
                    why: "another process is writing to it".into(),
                },
                ErrorCode::SystemIoFailure if MEANS_DAMAGE.contains(&failure.extended_code) => {
                    Error::StoreCorrupt { what: why() }
                }
                ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OperationInterrupted
                | ErrorCode::OperationAborted
                | ErrorCode::SchemaChanged
                | ErrorCode::TooBig => Error::StoreUnavailable { why: why() },
                // Not a database, malformed, a table that is missing, a row that breaks its own rules.
                _ => Error::StoreCorrupt { what: why() },
            }
        }
        // A column of another type, a number out of range, a row that is missing.
        other => Error::StoreCorrupt {
            what: other.to_string(),
        },
    }
}

/// The error of the first look at a file: it may be somebody else's.
pub(super) fn first_look(error: &Sql, path: &str) -> Error {
    match error {
        Sql::SqliteFailure(failure, _) if failure.code == ErrorCode::NotADatabase => {
            Error::StoreForeign {
                path: path.to_owned(),
            }
        }
        error => sql(error),
    }
}

/// `SQLITE_IOERR_SHORT_READ`, `SQLITE_IOERR_DATA`, `SQLITE_IOERR_CORRUPTFS`.
const MEANS_DAMAGE: [i32; 3] = [522, 8202, 8458];
