//! The root key's slots: what opens a store.
//!
//! A store's root key is drawn once and wrapped by one or more *slots*, an open list in the header. This version writes
//! and opens `keyfile`: 32 random bytes in a file of their own, outside the data folder, so that a copy of the data alone
//! opens nothing. A slot carries a check value of its key, which tells a wrong key from a damaged slot.

use std::{io::Read as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hmac::Mac;
use pilotlight_core::Error;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::hex::hex;

use super::{
    lookup::hmac,
    place::{Folder, Others, failed, refused},
    seal::derive,
};

/// A store's root key.
pub(super) type RootKey = Zeroizing<[u8; 32]>;

/// The key in a key file.
pub(super) struct SlotKey(Zeroizing<[u8; 32]>);

/// One way to the root key; the fields of kinds that this version does not know are kept by the header as they are.
#[derive(Serialize, Deserialize)]
pub(super) struct Slot {
    /// `keyfile`, or one that another version knows: `keychain`, `passphrase`, `descriptor` ...
    pub(super) kind: String,
    /// A keyed hash by which a slot key is known to be the right one.
    #[serde(default)]
    check: String,
    /// The root key under the slot key.
    #[serde(default)]
    wrapped: String,
}

impl SlotKey {
    /// Reads a key file; `None` where there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let (above, name) = split(path)?;
        match Folder::open(above, Others::Look)? {
            Some(folder) => Self::read_in(&folder, name, path),
            None => Ok(None),
        }
    }

    /// Reads a key file, or makes it. Never writes over one: of many processes that make it at once, one wins.
    pub(super) fn read_or_make(path: &Path) -> Result<Self, Error> {
        let (above, name) = split(path)?;
        let folder = Folder::create(above, Others::Look)?;
        // Whoever made the folder or the key may have died before their names were durable.
        folder.sync_name()?;
        if let Some(key) = Self::read_in(&folder, name, path)? {
            folder.sync()?;
            return Ok(key);
        }
        let key = Zeroizing::new(crate::crypto::random::<32>());
        let temporary = format!(".{name}.{}.tmp", hex(&crate::crypto::random::<8>()));
        let Some(mut file) = folder.new_file(&temporary)? else {
            return Err(Error::Bug {
                what: "key: a random name was taken",
            });
        };
        let written = std::io::Write::write_all(&mut file, &*key).and_then(|()| file.sync_all());
        if let Err(error) = written {
            folder.remove(&temporary)?;
            return Err(failed(path, error));
        }
        folder.rename_if_free(&temporary, name)?;
        folder.sync()?;
        Self::read_in(&folder, name, path)?.ok_or_else(|| Error::KeyMissing {
            path: path.display().to_string(),
        })
    }

    fn read_in(folder: &Folder, name: &str, path: &Path) -> Result<Option<Self>, Error> {
        let Some(file) = folder.file_to_read(name)? else {
            return Ok(None);
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(64));
        file.take(33)
            .read_to_end(&mut bytes)
            .map_err(|e| failed(path, e))?;
        match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(key) => Ok(Some(Self(Zeroizing::new(key)))),
            Err(_) => Err(Error::KeyWrong {
                path: path.display().to_string(),
            }),
        }
    }

    /// Wraps a root key for a store.
    pub(super) fn wrap(
        &self,
        root: &RootKey,
        store: &[u8; 16],
        key_id: u32,
    ) -> Result<Slot, Error> {
        let nonce: [u8; 24] = crate::crypto::random();
        let payload = Payload {
            msg: &root[..],
            aad: &associated(store, key_id),
        };
        let sealed = self
            .cipher(store)
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::Bug {
                what: "key: 32 bytes are too long for the cipher",
            })?;
        let wrapped = BASE64.encode([&nonce[..], &sealed].concat());
        Ok(Slot {
            kind: KEY_FILE.into(),
            check: self.check(),
            wrapped,
        })
    }

    /// Unwraps the root key of a store.
    ///
    /// # Errors
    /// `store.key_wrong` where this is another store's key, `store.corrupt` where the slot is damaged.
    pub(super) fn unwrap(
        &self,
        slot: &Slot,
        store: &[u8; 16],
        key_id: u32,
        path: &Path,
    ) -> Result<RootKey, Error> {
        let root = self.try_unwrap(slot, store, key_id);
        match (root, slot.check == self.check()) {
            (Some(root), true) => Ok(root),
            (None, false) => Err(Error::KeyWrong {
                path: path.display().to_string(),
            }),
            (Some(_), false) | (None, true) => Err(Error::StoreCorrupt {
                what: "the header's key slot".into(),
            }),
        }
    }

    fn try_unwrap(&self, slot: &Slot, store: &[u8; 16], key_id: u32) -> Option<RootKey> {
        let bytes = BASE64.decode(&slot.wrapped).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<24>()?;
        let payload = Payload {
            msg: sealed,
            aad: &associated(store, key_id),
        };
        let root = Zeroizing::new(
            self.cipher(store)
                .decrypt(&XNonce::from(*nonce), payload)
                .ok()?,
        );
        <[u8; 32]>::try_from(root.as_slice())
            .ok()
            .map(Zeroizing::new)
    }

    fn check(&self) -> String {
        let mac = hmac(&self.0)
            .chain_update(b"pilotlight/slot-check1")
            .finalize()
            .into_bytes();
        BASE64.encode(&mac[..16])
    }

    fn cipher(&self, store: &[u8; 16]) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*derive(&self.0, store, &[b"slot/v1"])).into())
    }
}

fn associated(store: &[u8; 16], key_id: u32) -> Vec<u8> {
    [
        b"pilotlight/slot1".as_slice(),
        KEY_FILE.as_bytes(),
        store,
        &key_id.to_be_bytes(),
    ]
    .concat()
}

fn split(path: &Path) -> Result<(&Path, &str), Error> {
    match (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) {
        (Some(above), Some(name)) => Ok((above, name)),
        _ => Err(refused(path, "the key file needs a folder and a name")),
    }
}

/// The kind of slot that this version writes.
pub(super) const KEY_FILE: &str = "keyfile";
