use super::*;
use crate::store::place::Others;

fn folder() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::create(&dir.path().join("spool"), Others::Nothing).unwrap();
    (dir, folder)
}

impl Slot<'_> {
    fn write(&self, envelope: &[u8]) -> Result<(), Error> {
        self.update(|_| Ok(Some(envelope.to_vec())))
    }
}

/// F-06: the slot is allocated before it is needed, and each write leaves the other half alone.
#[test]
fn halves_are_written_in_turn() {
    let (_dir, folder) = folder();
    let slot = Slot::new(&folder, "a");
    slot.reserve(100).unwrap();
    let size = folder.look("a.spool").unwrap().unwrap().size;
    assert_eq!(size, 2 * SMALLEST_HALF);
    assert!(slot.read().unwrap().is_empty());
    for n in 0u8..5 {
        slot.write(&[n; 1000]).unwrap();
        let held = slot.read().unwrap();
        assert_eq!(held[0], [n; 1000]);
        assert_eq!(
            held.get(1),
            (n > 0).then(|| vec![n.wrapping_sub(1); 1000]).as_ref()
        );
    }
    assert_eq!(folder.look("a.spool").unwrap().unwrap().size, size);
    slot.wipe().unwrap();
    assert!(slot.read().unwrap().is_empty());
    assert!(
        std::fs::read(folder.path().join("a.spool"))
            .unwrap()
            .iter()
            .all(|b| *b == 0)
    );
}

/// F-03, F-06: a write torn at any byte leaves what was there before; two damaged halves are an error, not nothing.
#[test]
fn a_torn_write_leaves_the_version_before() {
    let (_dir, folder) = folder();
    let slot = Slot::new(&folder, "a");
    slot.write(b"first").unwrap();
    let path = folder.path().join("a.spool");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let new = half(2, b"second");
    for cut in 1..new.len() {
        fill_half(&file, SMALLEST_HALF);
        file.write_all_at(&new[..cut], SMALLEST_HALF).unwrap();
        assert_eq!(slot.read().unwrap(), [b"first"], "torn after {cut} bytes");
    }
    file.write_all_at(b"PLSPOOL?", 0).unwrap();
    assert!(matches!(slot.read(), Err(Error::StoreCorrupt { .. })));
    slot.write(b"third").unwrap();
    assert_eq!(
        slot.read().unwrap(),
        [b"third"],
        "the next write heals the slot"
    );
}

fn fill_half(file: &File, offset: u64) {
    file.write_all_at(&[0; 1024], offset).unwrap();
}

/// F-06: a slot grows before a larger record needs it, and keeps what it holds.
#[test]
fn a_slot_grows_and_keeps_what_it_holds() {
    let (_dir, folder) = folder();
    let slot = Slot::new(&folder, "a");
    slot.write(b"small").unwrap();
    slot.reserve(20_000).unwrap();
    assert!(folder.look("a.spool").unwrap().unwrap().size >= 80_000);
    assert_eq!(slot.read().unwrap(), [b"small"]);
    slot.write(&[7; 60_000]).unwrap();
    assert_eq!(slot.read().unwrap()[0], [7; 60_000]);
    slot.reserve(10).unwrap();
    assert_eq!(slot.read().unwrap()[0], [7; 60_000], "it never shrinks");
}

/// F-27: a slot cut short is damage.
#[test]
fn a_truncated_slot_is_damage() {
    let (_dir, folder) = folder();
    let slot = Slot::new(&folder, "a");
    slot.write(b"first").unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(folder.path().join("a.spool"))
        .unwrap();
    for size in [0, 1, 51, 4096, 16_384, 32_767] {
        file.set_len(size).unwrap();
        assert!(
            matches!(slot.read(), Err(Error::StoreCorrupt { .. })),
            "{size}"
        );
    }
    slot.write(b"second").unwrap();
    assert_eq!(
        slot.read().unwrap(),
        [b"second"],
        "the next write heals the slot"
    );
}

/// F-06: a change sees the newest envelope, and one that makes nothing of it writes nothing.
#[test]
fn a_change_sees_the_newest_and_may_make_nothing_of_it() {
    let (_dir, folder) = folder();
    let slot = Slot::new(&folder, "a");
    slot.update(|newest| {
        assert_eq!(newest, None);
        Ok(None)
    })
    .unwrap();
    slot.write(b"first").unwrap();
    slot.write(b"second").unwrap();
    let before = std::fs::read(folder.path().join("a.spool")).unwrap();
    slot.update(|newest| {
        assert_eq!(newest, Some(&b"second"[..]));
        Ok(None)
    })
    .unwrap();
    let failed = slot.update(|_| Err(Error::Bug { what: "no" }));
    assert!(failed.is_err());
    assert_eq!(
        std::fs::read(folder.path().join("a.spool")).unwrap(),
        before
    );
}
