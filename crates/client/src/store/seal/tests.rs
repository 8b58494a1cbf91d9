use super::*;
use pilotlight_core::credential::{Generation, Incarnation};
use proptest::prelude::*;

const VERSION_7: Version = Version {
    incarnation: Incarnation([b'I'; 16]),
    generation: Generation(7),
};

fn keys() -> Keys {
    let root: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
    Keys::new(Zeroizing::new(root), [b'S'; 16], 1)
}

fn place<'a>(clear: &'a [&'a [u8]]) -> Place<'a> {
    Place {
        kind: Kind::Credential,
        record: &[b'R'; 32],
        version: Some(VERSION_7),
        clear,
    }
}

/// T-38: a known answer, computed by a second implementation (`tests/it/envelope_v1.py`).
#[test]
fn the_envelope_is_the_one_that_is_written_down() {
    let clear: [&[u8]; 1] = [&[b'C'; 32]];
    let nonce: [u8; 24] = std::array::from_fn(|i| u8::try_from(100 + i).unwrap());
    let text = padded(&"a secret").unwrap();
    assert_eq!(
        hex(&keys().seal_with(&place(&clear), &text, nonce).unwrap()),
        VECTOR
    );
    let opened: String = keys().open(&place(&clear), &unhex(VECTOR)).unwrap();
    assert_eq!(opened, "a secret");
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// T-38: what was sealed for one place opens at no other.
#[test]
fn an_envelope_opens_in_its_own_place_only() {
    let clear: [&[u8]; 1] = [b"clear"];
    let keys = keys();
    let good = place(&clear);
    let envelope = keys.seal(&good, &"a secret").unwrap();
    let later = Version {
        generation: Generation(8),
        ..VERSION_7
    };
    let other = Version {
        incarnation: Incarnation([0; 16]),
        ..VERSION_7
    };
    for (what, bad) in [
        (
            "record",
            Place {
                record: &[b'Q'; 32],
                ..good
            },
        ),
        (
            "kind",
            Place {
                kind: Kind::Tombstone,
                ..good
            },
        ),
        (
            "generation",
            Place {
                version: Some(later),
                ..good
            },
        ),
        (
            "incarnation",
            Place {
                version: Some(other),
                ..good
            },
        ),
        (
            "no version",
            Place {
                version: None,
                ..good
            },
        ),
        (
            "clear column",
            Place {
                clear: &[b"cleaR"],
                ..good
            },
        ),
        (
            "clear columns cut otherwise",
            Place {
                clear: &[b"cle", b"ar"],
                ..good
            },
        ),
        ("no clear column", Place { clear: &[], ..good }),
    ] {
        assert!(
            matches!(
                keys.open::<String>(&bad, &envelope),
                Err(Error::StoreCorrupt { .. })
            ),
            "{what}"
        );
    }
    let elsewhere = Keys::new(Zeroizing::new([9; 32]), [b'S'; 16], 1);
    assert!(
        elsewhere.open::<String>(&good, &envelope).is_err(),
        "root key"
    );
    let elsewhere = Keys::new(keys.root.clone(), [b'T'; 16], 1);
    assert!(elsewhere.open::<String>(&good, &envelope).is_err(), "store");
    let elsewhere = Keys::new(keys.root.clone(), [b'S'; 16], 2);
    assert!(
        elsewhere.open::<String>(&good, &envelope).is_err(),
        "key id"
    );
    assert_eq!(keys.open::<String>(&good, &envelope).unwrap(), "a secret");
}

/// T-38: each bit of an envelope counts.
#[test]
fn every_flipped_bit_and_every_cut_is_damage() {
    let keys = keys();
    let envelope = keys.seal(&place(&[]), &"a secret").unwrap();
    for bit in 0..envelope.len() * 8 {
        let mut flipped = envelope.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(
            keys.open::<String>(&place(&[]), &flipped).is_err(),
            "bit {bit}"
        );
    }
    for length in 0..envelope.len() {
        assert!(
            keys.open::<String>(&place(&[]), &envelope[..length])
                .is_err(),
            "{length} bytes"
        );
    }
}

/// DESIGN.md section 4: lengths show in steps of 256 only, and no two envelopes are alike.
#[test]
fn lengths_are_hidden_and_nonces_differ() {
    let (keys, mut seen) = (keys(), std::collections::HashSet::new());
    for length in [0, 1, 200, 249, 250] {
        let envelope = keys.seal(&place(&[]), &"x".repeat(length)).unwrap();
        assert_eq!(envelope.len(), HEAD + 256 + 16, "{length}");
        assert!(seen.insert(envelope[5..29].to_vec()));
    }
    assert_eq!(
        keys.seal(&place(&[]), &"x".repeat(251)).unwrap().len(),
        HEAD + 512 + 16
    );
}

/// T-38: a fact belongs to one field of one version of one login.
#[test]
fn a_fact_belongs_to_its_version_and_field() {
    let keys = keys();
    let stored = keys.seal_fact(&[1; 32], VERSION_7, "attempt", b"{}");
    assert_eq!(
        keys.open_fact(&[1; 32], VERSION_7, "attempt", &stored)
            .unwrap(),
        b"{}"
    );
    let later = Version {
        generation: Generation(8),
        ..VERSION_7
    };
    assert!(
        keys.open_fact(&[2; 32], VERSION_7, "attempt", &stored)
            .is_err()
    );
    assert!(keys.open_fact(&[1; 32], later, "attempt", &stored).is_err());
    assert!(
        keys.open_fact(&[1; 32], VERSION_7, "backoff", &stored)
            .is_err()
    );
    for bit in 0..stored.len() * 8 {
        let mut flipped = stored.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(
            keys.open_fact(&[1; 32], VERSION_7, "attempt", &flipped)
                .is_err(),
            "bit {bit}"
        );
    }
}

proptest! {
    /// Whatever is sealed comes back, and whatever is not an envelope is damage and no panic.
    #[test]
    fn what_is_sealed_comes_back(text in ".{0,2000}", junk in prop::collection::vec(any::<u8>(), 0..400)) {
        let keys = keys();
        let envelope = keys.seal(&place(&[]), &text).unwrap();
        prop_assert_eq!(keys.open::<String>(&place(&[]), &envelope).unwrap(), text);
        prop_assert!(keys.open::<String>(&place(&[]), &junk).is_err());
    }
}

const VECTOR: &str = concat!(
    "01000000016465666768696a6b6c6d6e6f707172737475767778797a7b5d9b528e3b7ba321fb452d5e1bfbe4670f1aff28a77b2899ce42",
    "0cf678c8fa1c13fbb2bfb96733ed44b60e04733f35bdd4fcf881c6c6f32957bc856dd8ce1564af0decd3d9b5f5e9b382c594d3b48c6ec5",
    "d7913e735e7c5894bd689867a0b4a691af76d9302f3c3744acdedfc8f844ca295f3b77dec7ff5ed947df81a3359c46d631ede6f37e9150",
    "48fb41f8b4b75b31d0a1e208ec7ac287f8beeb4c7b15c1d4dece259c054ee39161d773dbb3ea77e47582de49d6e6463aecdd8c8ee8bdf3",
    "fdf8f9dd94ecd92bc465c3c861c30c5eb8a91c42deb668bc869029b4d5d3241668fa4ad6eefac76d03be790efcf4da679ed9922cca9e63",
    "449f3f58bbcaf7471ce30aeef4cbc2a94b417a918e7224b16b33",
);
