use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

const KEY: &[u8] = include_bytes!("../sign/ec.pem");

fn put(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> SecretRef {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    SecretRef::file(path.to_str().unwrap()).unwrap()
}

async fn why(reference: &SecretRef) -> String {
    let error = FileSecrets.read(reference).await.unwrap_err();
    assert_eq!(error.code(), "config.value");
    error.to_string()
}

/// T-36: a file that another could have written is no secret of ours, and a key of ours that others can read is refused with
/// what to run; what a platform has written for all to read is taken.
#[tokio::test]
async fn what_others_can_touch_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for mode in [0o600, 0o400, 0o644] {
        let token = put(folder.path(), &format!("t{mode:o}"), b"a.b.c\n", mode);
        assert_eq!(
            FileSecrets.read(&token).await.unwrap().as_slice(),
            b"a.b.c\n"
        );
    }
    for mode in [0o620, 0o602, 0o666] {
        let token = put(folder.path(), &format!("w{mode:o}"), b"a.b.c", mode);
        assert!(why(&token).await.contains("chmod go-w"));
    }
    let key = put(folder.path(), "closed", KEY, 0o600);
    assert_eq!(FileSecrets.read(&key).await.unwrap().as_slice(), KEY);
    for mode in [0o640, 0o604] {
        let key = put(folder.path(), &format!("k{mode:o}"), KEY, mode);
        assert!(why(&key).await.contains("chmod 600"));
    }
    let mut stat = rustix::fs::stat("/proc/self/stat").unwrap();
    stat.st_mode = 0o100_600;
    stat.st_uid = 1234;
    assert_eq!(admit(&stat, 1000), Err("it belongs to another user"));
    stat.st_uid = 0;
    assert_eq!(admit(&stat, 1000), Ok(()), "root is who mounts them");
}

/// T-37: what is no plain file is refused without waiting for it; a link is followed, as a platform lays them.
#[tokio::test]
async fn what_is_no_plain_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let pipe = SecretRef::file(pipe.to_str().unwrap()).unwrap();
    assert!(why(&pipe).await.contains("plain file"));
    let itself = SecretRef::file(folder.path().to_str().unwrap()).unwrap();
    assert!(why(&itself).await.contains("plain file"));
    put(folder.path(), "real", b"secret", 0o600);
    let link = folder.path().join("link");
    symlink(folder.path().join("real"), &link).unwrap();
    let link = SecretRef::file(link.to_str().unwrap()).unwrap();
    assert_eq!(FileSecrets.read(&link).await.unwrap().as_slice(), b"secret");
}

/// T-14, T-28: nothing without an end is read, nothing by a path that means something else elsewhere, and no other scheme.
#[tokio::test]
async fn only_short_files_by_whole_paths_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let most = put(folder.path(), "most", &vec![b'a'; LIMIT], 0o600);
    assert_eq!(FileSecrets.read(&most).await.unwrap().len(), LIMIT);
    let long = put(folder.path(), "long", &vec![b'a'; LIMIT + 1], 0o600);
    assert!(why(&long).await.contains("64 KiB"));
    for (text, word) in [
        ("file:secret", "absolute"),
        ("file:./secret", "absolute"),
        ("env:HOME", "file:PATH"),
        ("fd:0", "file:PATH"),
        ("file:/nonexistent/secret", "No such file"),
    ] {
        let reference = SecretRef::parse(text).unwrap();
        assert!(why(&reference).await.contains(word), "{text}");
    }
}

/// T-30: a secret that goes into a request is one line; the editor's line break is none of it.
#[tokio::test]
async fn a_line_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (bytes, want) in [
        (&b"abc\n"[..], Some("abc")),
        (b"abc\r\n", Some("abc")),
        (b"a b c", Some("a b c")),
        (b"a\nb", None),
        (b"", None),
        (b"\n", None),
        (b"caf\xc3\xa9", None),
        (b"\xff\xfe", None),
    ] {
        let reference = put(folder.path(), "line", bytes, 0o600);
        let line = read_line(&FileSecrets, &reference).await;
        assert_eq!(line.ok().as_deref().map(String::as_str), want, "{bytes:?}");
    }
}

/// Somebody who knows secrets and never tells.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Secrets for Silent {
    async fn read(&self, _: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Error> {
        std::future::pending().await
    }
}

/// I-17: a vault that hangs is given up after ten seconds: the lock of the refresh is held meanwhile.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_for_a_secret() {
    let reference = SecretRef::file("/run/secret").unwrap();
    let eleven = Duration::from_secs(11);
    let error = tokio::time::timeout(eleven, read_line(&Silent, &reference)).await;
    let error = error.expect("nobody waits longer").unwrap_err();
    assert_eq!(error.code(), "config.value");
}
