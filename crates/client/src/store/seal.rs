//! Sealing, "envelope v1": what the store writes is ciphertext, and bound to the place it is written to (T-38).
//!
//! ```text
//!  root key (32 random bytes a store)
//!    |- HKDF-SHA256, salt = store id, info = "rec/v1" + tenant + record id  -> record key
//!    |- ... "lookup/v1" -> keyed hashes      |- ... "fact/v1" -> MACs of facts      |- ... "header/v1" -> MAC of the header
//!
//!  envelope = 0x01 | key id (4, big endian) | nonce (24, random) | XChaCha20-Poly1305(text)
//!  text     = length (4, big endian) | JSON | zeros up to a multiple of 256
//!  AAD      = each field behind its length (8, big endian): "pilotlight/env1", store id, tenant, record id, kind,
//!             incarnation, generation (8, big endian; both empty where there is none), key id, then the clear columns
//! ```
//!
//! The record id is the keyed hash of tenant, resource, issuer and account, and the pins lie inside the text: whoever can
//! write to the database can change none of them, nor exchange two rows. A nonce of 24 random bytes needs no counter that
//! processes would have to share.

use std::io::{self, Write};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use hmac::Mac;
use pilotlight_core::{Error, credential::Version};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::hex::hex;

use super::lookup::{Lookup, framed, hmac};

/// The keys of an open store.
pub(super) struct Keys {
    root: Zeroizing<[u8; 32]>,
    store: [u8; 16],
    key_id: u32,
    facts: Zeroizing<[u8; 32]>,
    /// The ids of things.
    pub(super) lookup: Lookup,
}

/// Where something sealed lies: it opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Which kind of row.
    pub(super) kind: Kind,
    /// The row's id.
    pub(super) record: &'a [u8; 32],
    /// The version, for what has one.
    pub(super) version: Option<Version>,
    /// The columns beside it that stay in the clear.
    pub(super) clear: &'a [&'a [u8]],
}

/// What is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Binding,
    Credential,
    Tombstone,
    Revocation,
    Registration,
    Issuer,
    Event,
    Outcome,
    Spool,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Credential => "credential",
            Self::Tombstone => "tombstone",
            Self::Revocation => "revocation",
            Self::Registration => "registration",
            Self::Issuer => "issuer",
            Self::Event => "event",
            Self::Outcome => "outcome",
            Self::Spool => "spool",
        }
    }
}

impl Keys {
    /// Derives what a store needs from its root key.
    pub(super) fn new(root: Zeroizing<[u8; 32]>, store: [u8; 16], key_id: u32) -> Self {
        let lookup = Lookup::new(derive(&root, &store, &[b"lookup/v1"]));
        let facts = derive(&root, &store, &[b"fact/v1"]);
        Self {
            root,
            store,
            key_id,
            facts,
            lookup,
        }
    }

    /// Seals a value for a place.
    pub(super) fn seal<T: Serialize>(
        &self,
        place: &Place<'_>,
        value: &T,
    ) -> Result<Vec<u8>, Error> {
        self.seal_with(place, &padded(value)?, crate::crypto::random())
    }

    fn seal_with(&self, place: &Place<'_>, text: &[u8], nonce: [u8; 24]) -> Result<Vec<u8>, Error> {
        let payload = Payload {
            msg: text,
            aad: &self.associated(place, self.key_id),
        };
        let sealed = self
            .cipher(place)
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::Bug {
                what: "seal: the text is too long for the cipher",
            })?;
        let mut envelope = Vec::with_capacity(HEAD + sealed.len());
        envelope.push(VERSION);
        envelope.extend_from_slice(&self.key_id.to_be_bytes());
        envelope.extend_from_slice(&nonce);
        envelope.extend_from_slice(&sealed);
        Ok(envelope)
    }

    /// Opens what was sealed for a place.
    ///
    /// # Errors
    /// `store.corrupt`, naming the row, where a single bit of it or of its place differs.
    pub(super) fn open<T: DeserializeOwned>(
        &self,
        place: &Place<'_>,
        envelope: &[u8],
    ) -> Result<T, Error> {
        let damaged = || damaged(place);
        let ([VERSION, key_id @ ..], nonce, sealed) = split(envelope).ok_or_else(damaged)? else {
            return Err(damaged());
        };
        let key_id = u32::from_be_bytes(key_id);
        if key_id != self.key_id {
            return Err(damaged());
        }
        let payload = Payload {
            msg: sealed,
            aad: &self.associated(place, key_id),
        };
        let text = self
            .cipher(place)
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| damaged())?;
        let text = Zeroizing::new(text);
        let (length, rest) = text.split_first_chunk::<4>().ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged())?;
        let json = rest.get(..length).ok_or_else(damaged)?;
        serde_json::from_slice(json).map_err(|_| damaged())
    }

    /// Authenticates a fact that stays in the clear.
    pub(super) fn seal_fact(
        &self,
        record: &[u8; 32],
        version: Version,
        field: &str,
        json: &[u8],
    ) -> Vec<u8> {
        let mac = self
            .fact_mac(record, version, field, json)
            .finalize()
            .into_bytes();
        [&mac, json].concat()
    }

    /// Checks a fact and gives it back without its MAC.
    pub(super) fn open_fact<'a>(
        &self,
        record: &[u8; 32],
        version: Version,
        field: &str,
        stored: &'a [u8],
    ) -> Result<&'a [u8], Error> {
        let damaged = || Error::StoreCorrupt {
            what: format!("{field} of {}", short(record)),
        };
        let (mac, json) = stored.split_at_checked(MAC).ok_or_else(damaged)?;
        self.fact_mac(record, version, field, json)
            .verify_slice(mac)
            .map_err(|_| damaged())?;
        Ok(json)
    }

    fn fact_mac(
        &self,
        record: &[u8; 32],
        version: Version,
        field: &str,
        json: &[u8],
    ) -> hmac::Hmac<Sha256> {
        let mut mac = hmac(&self.facts);
        let generation = version.generation.0.to_be_bytes();
        for part in [
            b"pilotlight/fact1",
            &record[..],
            &version.incarnation.0,
            &generation,
            field.as_bytes(),
            json,
        ] {
            framed(&mut mac, part);
        }
        mac
    }

    fn cipher(&self, place: &Place<'_>) -> XChaCha20Poly1305 {
        let key = derive(
            &self.root,
            &self.store,
            &[b"rec/v1", TENANT.as_bytes(), place.record],
        );
        XChaCha20Poly1305::new((&*key).into())
    }

    fn associated(&self, place: &Place<'_>, key_id: u32) -> Vec<u8> {
        let incarnation = place.version.map(|v| v.incarnation.0);
        let generation = place.version.map(|v| v.generation.0.to_be_bytes());
        let fixed: [&[u8]; 8] = [
            b"pilotlight/env1",
            &self.store,
            TENANT.as_bytes(),
            place.record,
            place.kind.as_str().as_bytes(),
            incarnation.as_ref().map_or(&[], |i| i),
            generation.as_ref().map_or(&[], |g| g),
            &key_id.to_be_bytes(),
        ];
        let mut bytes = Vec::with_capacity(256);
        for field in fixed.iter().chain(place.clear) {
            bytes.extend_from_slice(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }
}

/// Derives a key for one purpose from the root key of a store.
#[expect(
    clippy::expect_used,
    reason = "32 bytes are far below what HKDF can give"
)]
pub(super) fn derive(root: &[u8; 32], salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), root)
        .expand_multi_info(info, &mut *key)
        .expect("32 bytes are few");
    key
}

/// The first bytes of an id: enough to find a row by, in messages.
pub(super) fn short(id: &[u8; 32]) -> String {
    hex(&id[..4])
}

/// Serialises a value into one buffer that never grows (so that no copy is left behind) and is wiped.
fn padded<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, Error> {
    let unwritable = |_| Error::Bug {
        what: "seal: a record that is no JSON",
    };
    let mut counted = Count(0);
    serde_json::to_writer(&mut counted, value).map_err(unwritable)?;
    let length = u32::try_from(counted.0).map_err(|_| Error::Bug {
        what: "seal: a record of 4 GiB",
    })?;
    let size = (4 + counted.0).next_multiple_of(BUCKET);
    let mut text = Zeroizing::new(Vec::with_capacity(size));
    text.extend_from_slice(&length.to_be_bytes());
    serde_json::to_writer(&mut *text, value).map_err(unwritable)?;
    text.resize(size, 0);
    Ok(text)
}

/// Counts what is written to it.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Version and key id, nonce, ciphertext.
fn split(envelope: &[u8]) -> Option<([u8; 5], [u8; 24], &[u8])> {
    let (head, rest) = envelope.split_first_chunk::<5>()?;
    let (nonce, sealed) = rest.split_first_chunk::<24>()?;
    Some((*head, *nonce, sealed))
}

fn damaged(place: &Place<'_>) -> Error {
    Error::StoreCorrupt {
        what: format!("{} {}", place.kind.as_str(), short(place.record)),
    }
}

/// Whose records an embedded store holds; a fleet's store has many.
const TENANT: &str = "";
const VERSION: u8 = 1;
const HEAD: usize = 1 + 4 + 24;
const MAC: usize = 32;
const BUCKET: usize = 256;

#[cfg(test)]
mod tests;
