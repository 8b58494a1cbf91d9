use pilotlight_core::time::BootId;

use super::*;

const HASH: &str = "41de1428c5b082cf5ea630e2db10fddd";
const TAG: &str = "pilotlight-00-";

fn files(base: &Path) -> Files {
    Files::in_folder(base.to_owned(), HASH.to_owned())
}

fn now() -> Now {
    Now {
        wall: Wall(1_800_000_000_000),
        mono: Mono(1),
        boot: BootId([1; 16]),
    }
}

fn refused(kind: io::ErrorKind) -> impl Fn(&Path, &str) -> io::Result<()> {
    move |_, _| Err(kind.into())
}

/// F-06, I-2: where files have no second names the marker is made as mcp-remote makes its own: one has it, and nobody else.
#[test]
fn a_file_system_without_links_has_markers() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let path = files.path(NAME);
    let without = |_: &Path, _: &Path| Err(io::ErrorKind::Unsupported.into());
    create(&path, "first", now().wall, without).unwrap();
    assert_eq!(read(&path).unwrap().unwrap().nonce, "first");
    let second = create(&path, "second", now().wall, without).unwrap_err();
    assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(read(&path).unwrap().unwrap().nonce, "first");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// F-06: a folder that takes no file holds nobody up, and is left as it is.
#[test]
fn a_folder_that_takes_no_file_is_no_obstacle() {
    for kind in [
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::PermissionDenied,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let taken = Marker::take_by(&files, TAG, &mut None, now(), refused(kind)).unwrap();
        let Taken::Got(marker) = taken else {
            panic!("{taken:?}");
        };
        assert!(marker.is_alone() && marker.is_held() && marker.renew(now().wall));
        // Somebody has come after all: it is theirs, and stays theirs.
        fs::write(files.path(NAME), text("theirs", now().wall).unwrap()).unwrap();
        assert!(!marker.is_held() && !marker.renew(now().wall));
        drop(marker);
        assert!(files.path(NAME).exists());
    }
}

/// I-2: a marker that binds counts as well where we cannot make our own; any other trouble is no reason to go on without.
#[test]
fn who_holds_it_is_waited_for_whatever_the_folder_takes() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    fs::write(files.path(NAME), text("theirs", now().wall).unwrap()).unwrap();
    let refused_all = refused(io::ErrorKind::ReadOnlyFilesystem);
    let taken = Marker::take_by(&files, TAG, &mut None, now(), refused_all).unwrap();
    assert!(matches!(taken, Taken::HeldBy(_)), "{taken:?}");
    fs::remove_file(files.path(NAME)).unwrap();
    let other = refused(io::ErrorKind::Other);
    assert!(Marker::take_by(&files, TAG, &mut None, now(), other).is_err());
}
