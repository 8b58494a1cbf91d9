//! Logins as rows: the sealed credential or its tombstone, the facts beside it, and its history.

use pilotlight_core::{
    Error,
    credential::{Credential, CredentialId, Generation, Incarnation, Version},
    event::Event,
    record::{Fact, Forced, Record},
    time::Wall,
};
use rusqlite::{Connection, OptionalExtension as _, Row, types::Value};
use serde::{Serialize, de::DeserializeOwned};

use super::{error::sql, schema::hides_nothing};
use crate::store::{
    rules::Held,
    seal::{Keys, Kind, Place, short},
};

/// What the store holds of a login.
#[derive(Debug)]
pub(super) enum Stored {
    /// Nothing.
    Nothing,
    /// A tombstone.
    Buried(Version),
    /// The login and its facts; `spooled` is `None`.
    Login(Box<Record>, Version),
}

impl Stored {
    pub(super) fn held(&self) -> Held {
        match self {
            Self::Nothing => Held::Nothing,
            Self::Buried(version) => Held::Buried(version.incarnation),
            Self::Login(_, version) => Held::Login(*version),
        }
    }
}

/// Reads a login.
pub(super) fn load(
    connection: &Connection,
    keys: &Keys,
    id: CredentialId,
) -> Result<Stored, Error> {
    let row = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM credential WHERE id = ?1"))
        .and_then(|mut statement| statement.query_row([id.0], raw).optional())
        .map_err(|e| sql(&e))?;
    match row {
        Some(row) => open(keys, row),
        None => absent(connection, keys, id),
    }
}

/// What the store holds of a login, for one who takes its place: one that cannot be read counts for nothing. Answers whether
/// it is like that. What an index hides, or another row's damage, is not this login's.
pub(super) fn load_or_damaged(
    connection: &Connection,
    keys: &Keys,
    id: CredentialId,
) -> Result<(Stored, bool), Error> {
    let error = match load(connection, keys, id) {
        Err(error @ Error::StoreCorrupt { .. }) => error,
        loaded => return loaded.map(|stored| (stored, false)),
    };
    hides_nothing(connection, "credential", "credential_id")?;
    let rows = |how: &str| {
        connection
            .query_row(
                &format!("SELECT count(*) FROM credential {how} WHERE id = ?1"),
                [id.0],
                |row| row.get::<_, i64>(0),
            )
            .map_err(|e| sql(&e))
    };
    match (rows("INDEXED BY credential_id")?, rows("NOT INDEXED")?) {
        (0, 0) => Ok((Stored::Nothing, false)),
        (1, 1) => Ok((Stored::Nothing, true)),
        _ => Err(error),
    }
}

/// The version that is written beside a login in the clear, as far as it can be read.
pub(super) fn clear_version(connection: &Connection, id: CredentialId) -> Option<Version> {
    let columns = connection.query_row(
        "SELECT incarnation, generation FROM credential WHERE id = ?1",
        [id.0],
        |row| Ok((row.get(0)?, row.get(1)?)),
    );
    columns.ok().and_then(|(name, n)| version(name, n).ok())
}

/// Answers that there is no such login, after a look at all there are: one whose id was changed, or that the index no
/// longer leads to, is damage and not absence.
fn absent(connection: &Connection, keys: &Keys, id: CredentialId) -> Result<Stored, Error> {
    hides_nothing(connection, "credential", "credential_id")?;
    let rows: Vec<Raw> = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM credential NOT INDEXED"))
        .and_then(|mut statement| statement.query_map((), raw)?.collect())
        .map_err(|e| sql(&e))?;
    for row in rows {
        if row.id == id {
            return Err(Error::StoreCorrupt {
                what: "the index of credential".into(),
            });
        }
        open(keys, row)?;
    }
    Ok(Stored::Nothing)
}

fn open(keys: &Keys, row: Raw) -> Result<Stored, Error> {
    let id = row.id;
    let version = version(row.incarnation, row.generation)?;
    match (row.buried_at, row.client) {
        (Some(buried_at), None) => {
            let place = tombstone_place(&id.0, version);
            let sealed_at: i64 = keys.open(&place, &row.sealed)?;
            if sealed_at != buried_at {
                return Err(Error::StoreCorrupt {
                    what: format!("tombstone {}", short(&id.0)),
                });
            }
            Ok(Stored::Buried(version))
        }
        (None, Some(client)) => {
            let clear = [&client[..]];
            let place = Place {
                kind: Kind::Credential,
                record: &id.0,
                version: Some(version),
                clear: &clear,
            };
            let credential: Credential = keys.open(&place, &row.sealed)?;
            let mut record = Record {
                credential: Some(credential),
                ..Record::default()
            };
            let [attempt, acceptance, suspicion, backoff, forced] = row.facts;
            let facts = Facts { keys, id, version };
            record.attempt = facts.open("attempt", attempt)?;
            record.acceptance = facts.open("acceptance", acceptance)?;
            record.suspicion = facts.open("suspicion", suspicion)?;
            record.backoff = facts.open("backoff", backoff)?;
            record.forced = facts.open("forced", forced)?;
            Ok(Stored::Login(Box::new(record), version))
        }
        _ => Err(Error::StoreCorrupt {
            what: format!("credential {}", short(&id.0)),
        }),
    }
}

/// Writes a new version over whatever is stored; every fact but `forced` is cleared. Answers how long it is, sealed.
pub(super) fn save(
    connection: &Connection,
    keys: &Keys,
    id: CredentialId,
    credential: &Credential,
    forced: Option<&Forced>,
) -> Result<usize, Error> {
    let version = credential.version;
    let client = keys
        .lookup
        .client(&credential.key.issuer, &credential.client.id);
    let clear = [&client[..]];
    let place = Place {
        kind: Kind::Credential,
        record: &id.0,
        version: Some(version),
        clear: &clear,
    };
    let sealed = keys.seal(&place, credential)?;
    let forced = Facts { keys, id, version }.seal("forced", forced)?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO credential (id, incarnation, generation, client, sealed, forced)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut statement| {
            statement.execute((id.0, version.incarnation.0, generation(version), client, &sealed, forced))
        })
        .map_err(|e| sql(&e))?;
    Ok(sealed.len())
}

/// Writes a tombstone over whatever is stored.
pub(super) fn entomb(
    connection: &Connection,
    keys: &Keys,
    id: CredentialId,
    version: Version,
    at: Wall,
) -> Result<(), Error> {
    let buried_at = instant(at);
    let sealed = keys.seal(&tombstone_place(&id.0, version), &buried_at)?;
    connection
        .execute(
            "INSERT OR REPLACE INTO credential (id, incarnation, generation, buried_at, sealed) VALUES (?1, ?2, ?3, ?4, ?5)",
            (id.0, version.incarnation.0, generation(version), buried_at, sealed),
        )
        .map_err(|e| sql(&e))?;
    Ok(())
}

/// Writes facts beside a version; answers whether it was the stored one.
pub(super) fn note(
    connection: &Connection,
    keys: &Keys,
    id: CredentialId,
    version: Version,
    facts: &[Fact],
) -> Result<bool, Error> {
    let (mut columns, mut values): (Vec<String>, Vec<Value>) = (
        Vec::new(),
        vec![
            blob(&id.0),
            blob(&version.incarnation.0),
            Value::Integer(generation(version)),
        ],
    );
    let seal = Facts { keys, id, version };
    for fact in facts {
        let (field, stored) = match fact {
            Fact::Attempt(value) => ("attempt", seal.seal("attempt", value.as_ref())?),
            Fact::Acceptance(value) => ("acceptance", seal.seal("acceptance", value.as_ref())?),
            Fact::Suspicion(value) => ("suspicion", seal.seal("suspicion", value.as_ref())?),
            Fact::Backoff(value) => ("backoff", seal.seal("backoff", value.as_ref())?),
            Fact::Forced(value) => ("forced", seal.seal("forced", value.as_ref())?),
        };
        values.push(stored.map_or(Value::Null, Value::Blob));
        columns.push(format!("{field} = ?{}", values.len()));
    }
    let set = if columns.is_empty() {
        "generation = generation".to_owned()
    } else {
        columns.join(", ")
    };
    let changed = connection
        .prepare_cached(&format!(
            "UPDATE credential SET {set} WHERE id = ?1 AND incarnation = ?2 AND generation = ?3 AND buried_at IS NULL"
        ))
        .and_then(|mut statement| statement.execute(rusqlite::params_from_iter(values)))
        .map_err(|e| sql(&e))?;
    Ok(changed == 1)
}

/// Adds an event to a login's history and forgets the oldest beyond a thousand.
pub(super) fn add_event(
    connection: &Connection,
    keys: &Keys,
    id: CredentialId,
    event: &Event,
) -> Result<(), Error> {
    let last: Option<i64> = connection
        .prepare_cached("SELECT max(n) FROM event WHERE login = ?1")
        .and_then(|mut statement| statement.query_row([id.0], |row| row.get(0)))
        .map_err(|e| sql(&e))?;
    let n = last.unwrap_or_default() + 1;
    let sealed = event_place(&id.0, n, |place| keys.seal(place, event))?;
    connection
        .prepare_cached("INSERT INTO event (login, n, sealed) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute((id.0, n, sealed)))
        .and_then(|_| connection.prepare_cached("DELETE FROM event WHERE login = ?1 AND n <= ?2"))
        .and_then(|mut statement| statement.execute((id.0, n - EVENTS_KEPT)))
        .map_err(|e| sql(&e))?;
    Ok(())
}

/// The newest events of a login, oldest first.
pub(super) fn events(
    connection: &Connection,
    keys: &Keys,
    id: CredentialId,
    limit: usize,
) -> Result<Vec<Event>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows: Vec<(i64, Vec<u8>)> = connection
        .prepare_cached("SELECT n, sealed FROM event WHERE login = ?1 ORDER BY n DESC LIMIT ?2")
        .and_then(|mut statement| {
            statement
                .query_map((id.0, limit), |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
        .map_err(|e| sql(&e))?;
    // Events are numbered without gaps.
    if rows.windows(2).any(|pair| pair[0].0 != pair[1].0 + 1) {
        return Err(Error::StoreCorrupt {
            what: format!("the history of {}", short(&id.0)),
        });
    }
    rows.into_iter()
        .rev()
        .map(|(n, sealed)| event_place(&id.0, n, |place| keys.open(place, &sealed)))
        .collect()
}

/// An instant as SQLite keeps it.
pub(super) fn instant(at: Wall) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// The facts of one version: each is bound to it and to its field.
struct Facts<'a> {
    keys: &'a Keys,
    id: CredentialId,
    version: Version,
}

impl Facts<'_> {
    fn seal<T: Serialize>(&self, field: &str, fact: Option<&T>) -> Result<Option<Vec<u8>>, Error> {
        let Some(fact) = fact else { return Ok(None) };
        let json = serde_json::to_vec(fact).map_err(|_| Error::Bug {
            what: "store: a fact that is no JSON",
        })?;
        Ok(Some(self.keys.seal_fact(
            &self.id.0,
            self.version,
            field,
            &json,
        )))
    }

    fn open<T: DeserializeOwned>(
        &self,
        field: &str,
        stored: Option<Vec<u8>>,
    ) -> Result<Option<T>, Error> {
        let Some(stored) = stored else {
            return Ok(None);
        };
        let json = self
            .keys
            .open_fact(&self.id.0, self.version, field, &stored)?;
        let fact = serde_json::from_slice(json);
        fact.map(Some).map_err(|_| Error::StoreCorrupt {
            what: format!("{field} of {}", short(&self.id.0)),
        })
    }
}

/// A row before anything of it is believed.
struct Raw {
    id: CredentialId,
    incarnation: [u8; 16],
    generation: i64,
    client: Option<Vec<u8>>,
    buried_at: Option<i64>,
    sealed: Vec<u8>,
    facts: [Option<Vec<u8>>; 5],
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        id: CredentialId(row.get(0)?),
        incarnation: row.get(1)?,
        generation: row.get(2)?,
        client: row.get(3)?,
        buried_at: row.get(4)?,
        sealed: row.get(5)?,
        facts: [
            row.get(6)?,
            row.get(7)?,
            row.get(8)?,
            row.get(9)?,
            row.get(10)?,
        ],
    })
}

fn version(incarnation: [u8; 16], generation: i64) -> Result<Version, Error> {
    let generation = u64::try_from(generation).map_err(|_| Error::StoreCorrupt {
        what: "a generation below zero".into(),
    })?;
    Ok(Version {
        incarnation: Incarnation(incarnation),
        generation: Generation(generation),
    })
}

fn generation(version: Version) -> i64 {
    i64::try_from(version.generation.0).unwrap_or(i64::MAX)
}

fn tombstone_place(id: &[u8; 32], version: Version) -> Place<'_> {
    Place {
        kind: Kind::Tombstone,
        record: id,
        version: Some(version),
        clear: &[],
    }
}

fn event_place<T>(id: &[u8; 32], n: i64, then: impl FnOnce(&Place<'_>) -> T) -> T {
    let position = n.to_be_bytes();
    then(&Place {
        kind: Kind::Event,
        record: id,
        version: None,
        clear: &[&position],
    })
}

fn blob(bytes: &[u8]) -> Value {
    Value::Blob(bytes.to_vec())
}

const COLUMNS: &str = "id, incarnation, generation, client, buried_at, sealed, attempt, acceptance, suspicion, backoff, forced";
const EVENTS_KEPT: i64 = 1000;
