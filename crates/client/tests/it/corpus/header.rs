//! The header of a store, written a second time: raises what it asks of its writers, as a later build would.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use pilotlight::store::SqliteStoreConfig;
use rusqlite::Connection;
use sha2::Sha256;

/// Sets `min_writer`, and signs the header with the root key that the key file opens.
pub(super) fn raise_min_writer(config: &SqliteStoreConfig, min_writer: u32) {
    let connection = Connection::open(config.data_dir.join("store.db")).unwrap();
    let row = connection.query_row(
        "SELECT store_id, slots, format, min_reader, key_id, created_at, magic FROM header",
        (),
        |row| {
            let numbers: [u32; 3] = [row.get(2)?, row.get(3)?, row.get(4)?];
            let text: (String, String) = (row.get(1)?, row.get(6)?);
            Ok((
                row.get::<_, [u8; 16]>(0)?,
                text,
                numbers,
                row.get::<_, i64>(5)?,
            ))
        },
    );
    let (store_id, (slots, magic), [format, min_reader, key_id], created_at) = row.unwrap();

    let key: [u8; 32] = std::fs::read(&config.key_file).unwrap().try_into().unwrap();
    let root = unwrap(
        &derive(&key, &store_id, b"slot/v1"),
        &slots,
        &store_id,
        key_id,
    );
    let numbers = [format, min_reader, min_writer, key_id].map(u32::to_be_bytes);
    let mut mac = Hmac::<Sha256>::new_from_slice(&derive(&root, &store_id, b"header/v1")).unwrap();
    let mut sign = |field: &[u8]| {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field);
    };
    sign(b"pilotlight/header1");
    sign(magic.as_bytes());
    sign(&store_id);
    sign(slots.as_bytes());
    numbers.iter().for_each(|number| sign(number));
    sign(&created_at.to_be_bytes());
    let mac = mac.finalize().into_bytes().to_vec();
    connection
        .execute(
            "UPDATE header SET min_writer = ?1, mac = ?2",
            (min_writer, mac),
        )
        .unwrap();
}

/// The root key, from the slot that the key file opens.
fn unwrap(slot_key: &[u8; 32], slots: &str, store_id: &[u8; 16], key_id: u32) -> [u8; 32] {
    let slots: serde_json::Value = serde_json::from_str(slots).unwrap();
    assert_eq!(slots[0]["kind"], "keyfile");
    let wrapped = BASE64
        .decode(slots[0]["wrapped"].as_str().unwrap())
        .unwrap();
    let (nonce, sealed) = wrapped.split_first_chunk::<24>().unwrap();
    let key_id = key_id.to_be_bytes();
    let payload = Payload {
        msg: sealed,
        aad: &[b"pilotlight/slot1", &b"keyfile"[..], store_id, &key_id].concat(),
    };
    let cipher = XChaCha20Poly1305::new(slot_key.into());
    let root = cipher.decrypt(&XNonce::from(*nonce), payload).unwrap();
    root.try_into().unwrap()
}

fn derive(key: &[u8; 32], salt: &[u8; 16], info: &[u8]) -> [u8; 32] {
    let mut derived = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), key)
        .expand(info, &mut derived)
        .unwrap();
    derived
}
