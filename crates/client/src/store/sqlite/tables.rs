//! What is stored beside logins: bindings, registrations, notes on issuers, outcomes of logins.

use pilotlight_core::{
    Error,
    credential::{Binding, BindingId, BindingKey},
    flow::Registration,
    issuer::Issuer,
    notes::IssuerNotes,
};
use rusqlite::{Connection, OptionalExtension as _};

use super::{Inner, error::sql, schema::hides_nothing};
use crate::store::{
    LoginOutcome,
    seal::{Keys, Kind, Place},
};

/// What to do where a binding's name belongs to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakenName {
    /// Refuse: a person chose it.
    Refuse,
    /// Number it: a login never loses.
    Number,
}

impl Inner {
    pub(super) fn binding(&self, key: &BindingKey) -> Result<Option<Binding>, Error> {
        let id = self.keys.lookup.binding(key).0;
        let row: Option<Row> = self.reading(|connection| {
            connection
                .prepare_cached("SELECT id, name, sealed FROM binding WHERE id = ?1")
                .and_then(|mut s| s.query_row([id], row).optional())
                .map_err(|e| sql(&e))
        })?;
        match row {
            Some(row) => open_binding(&self.keys, &row).map(Some),
            // One whose id was changed, or that the index no longer leads to, is damage and not absence.
            None if self
                .bindings()?
                .iter()
                .any(|binding| self.keys.lookup.binding(&binding.key).0 == id) =>
            {
                Err(Error::StoreCorrupt {
                    what: "the index of binding".into(),
                })
            }
            None => Ok(None),
        }
    }

    pub(super) fn bindings(&self) -> Result<Vec<Binding>, Error> {
        let rows: Vec<Row> = self.reading(|connection| {
            hides_nothing(connection, "binding", "binding_id")?;
            connection
                .prepare_cached("SELECT id, name, sealed FROM binding NOT INDEXED ORDER BY seq")
                .and_then(|mut s| s.query_map((), row)?.collect())
                .map_err(|e| sql(&e))
        })?;
        let mut bindings = rows
            .iter()
            .map(|row| open_binding(&self.keys, row))
            .collect::<Result<Vec<_>, _>>()?;
        bindings.sort_by_key(|binding| binding.created_at);
        Ok(bindings)
    }

    pub(super) fn registrations(&self, issuer: &Issuer) -> Result<Vec<Registration>, Error> {
        let issuer = self.keys.lookup.issuer(issuer);
        let rows: Vec<([u8; 32], Vec<u8>)> = self.reading(|connection| {
            connection
                .prepare_cached(
                    "SELECT id, sealed FROM registration WHERE issuer = ?1 ORDER BY seq DESC",
                )
                .and_then(|mut s| {
                    s.query_map([issuer], |row| Ok((row.get(0)?, row.get(1)?)))?
                        .collect()
                })
                .map_err(|e| sql(&e))
        })?;
        let opened = rows
            .into_iter()
            .map(|(id, sealed)| open_registration(&self.keys, &id, &issuer, &sealed));
        let mut registrations = opened.collect::<Result<Vec<_>, _>>()?;
        registrations.sort_by_key(|registration| std::cmp::Reverse(registration.registered_at));
        Ok(registrations)
    }

    pub(super) fn put_registration(&self, registration: &Registration) -> Result<(), Error> {
        let id = self
            .keys
            .lookup
            .client(&registration.issuer, &registration.client.id);
        let issuer = self.keys.lookup.issuer(&registration.issuer);
        let clear = [&issuer[..]];
        let place = Place {
            kind: Kind::Registration,
            record: &id,
            version: None,
            clear: &clear,
        };
        let sealed = self.keys.seal(&place, registration)?;
        self.put(
            "INSERT OR REPLACE INTO registration (id, issuer, sealed) VALUES (?1, ?2, ?3)",
            (id, issuer, sealed),
        )
    }

    pub(super) fn forget_registration(&self, registration: &Registration) -> Result<(), Error> {
        let id = self
            .keys
            .lookup
            .client(&registration.issuer, &registration.client.id);
        self.put("DELETE FROM registration WHERE id = ?1", [id])
    }

    pub(super) fn notes(&self, issuer: &Issuer) -> Result<IssuerNotes, Error> {
        let id = self.keys.lookup.issuer(issuer);
        let notes = self.open_one("SELECT sealed FROM issuer WHERE id = ?1", Kind::Issuer, &id)?;
        Ok(notes.unwrap_or_default())
    }

    pub(super) fn learn(&self, issuer: &Issuer, notes: &IssuerNotes) -> Result<(), Error> {
        let id = self.keys.lookup.issuer(issuer);
        let place = plain(Kind::Issuer, &id);
        self.writing(|transaction| {
            let sealed: Option<Vec<u8>> = transaction
                .query_row("SELECT sealed FROM issuer WHERE id = ?1", [id], |row| {
                    row.get(0)
                })
                .optional()
                .map_err(|e| sql(&e))?;
            // What cannot be read is replaced: notes are evidence, not property.
            let held =
                sealed.and_then(|sealed| self.keys.open::<IssuerNotes>(&place, &sealed).ok());
            let joined = held.unwrap_or_default().joined(notes);
            let sealed = self.keys.seal(&place, &joined)?;
            transaction
                .execute(
                    "INSERT OR REPLACE INTO issuer (id, sealed) VALUES (?1, ?2)",
                    (id, sealed),
                )
                .map_err(|e| sql(&e))
                .map(drop)
        })
    }

    pub(super) fn login_outcome(&self, binding: BindingId) -> Result<Option<LoginOutcome>, Error> {
        self.open_one(
            "SELECT sealed FROM outcome WHERE binding = ?1",
            Kind::Outcome,
            &binding.0,
        )
    }

    pub(super) fn put_login_outcome(
        &self,
        binding: BindingId,
        outcome: &LoginOutcome,
    ) -> Result<(), Error> {
        let sealed = self.keys.seal(&plain(Kind::Outcome, &binding.0), outcome)?;
        self.put(
            "INSERT OR REPLACE INTO outcome (binding, sealed) VALUES (?1, ?2)",
            (binding.0, sealed),
        )
    }

    fn open_one<T: serde::de::DeserializeOwned>(
        &self,
        select: &str,
        kind: Kind,
        id: &[u8; 32],
    ) -> Result<Option<T>, Error> {
        let sealed: Option<Vec<u8>> = self.reading(|connection| {
            connection
                .prepare_cached(select)
                .and_then(|mut statement| statement.query_row([id], |row| row.get(0)).optional())
                .map_err(|e| sql(&e))
        })?;
        sealed
            .map(|sealed| self.keys.open(&plain(kind, id), &sealed))
            .transpose()
    }

    fn put(&self, statement: &str, parameters: impl rusqlite::Params) -> Result<(), Error> {
        self.writing(|transaction| {
            transaction
                .execute(statement, parameters)
                .map_err(|e| sql(&e))
                .map(drop)
        })
    }
}

/// Writes a binding over the one of the same URL and account.
pub(super) fn put_binding(
    connection: &Connection,
    keys: &Keys,
    binding: &Binding,
    taken: TakenName,
) -> Result<(), Error> {
    let id = keys.lookup.binding(&binding.key).0;
    let mut binding = binding.clone();
    let wanted = binding.name.clone();
    let mut number = 1u64;
    let name = loop {
        let name = keys.lookup.name(&binding.name);
        let owner: Option<[u8; 32]> = connection
            .query_row("SELECT id FROM binding WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .optional()
            .map_err(|e| sql(&e))?;
        match (owner, taken) {
            (Some(owner), TakenName::Refuse) if owner != id => {
                return Err(crate::store::name_taken());
            }
            (Some(owner), TakenName::Number) if owner != id => {
                number += 1;
                binding.name = format!("{wanted}-{number}");
            }
            _ => break name,
        }
    };
    let clear = [&name[..]];
    let place = Place {
        kind: Kind::Binding,
        record: &id,
        version: None,
        clear: &clear,
    };
    let sealed = keys.seal(&place, &binding)?;
    connection
        .execute(
            "INSERT INTO binding (id, name, sealed) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, sealed = excluded.sealed",
            (id, name, sealed),
        )
        .map_err(|e| sql(&e))
        .map(drop)
}

/// Takes a registration out of its table.
pub(super) fn take_registration(
    connection: &Connection,
    keys: &Keys,
    id: &[u8; 32],
) -> Result<Option<Registration>, Error> {
    let row: Option<([u8; 32], Vec<u8>)> = connection
        .query_row(
            "DELETE FROM registration WHERE id = ?1 RETURNING issuer, sealed",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
        .map_err(|e| sql(&e))?;
    row.map(|(issuer, sealed)| open_registration(keys, id, &issuer, &sealed))
        .transpose()
}

/// A binding's id, name and sealed text.
type Row = ([u8; 32], [u8; 32], Vec<u8>);

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn open_binding(keys: &Keys, (id, name, sealed): &Row) -> Result<Binding, Error> {
    keys.open(
        &Place {
            kind: Kind::Binding,
            record: id,
            version: None,
            clear: &[name],
        },
        sealed,
    )
}

fn open_registration(
    keys: &Keys,
    id: &[u8; 32],
    issuer: &[u8; 32],
    sealed: &[u8],
) -> Result<Registration, Error> {
    keys.open(
        &Place {
            kind: Kind::Registration,
            record: id,
            version: None,
            clear: &[issuer],
        },
        sealed,
    )
}

fn plain(kind: Kind, id: &[u8; 32]) -> Place<'_> {
    Place {
        kind,
        record: id,
        version: None,
        clear: &[],
    }
}
