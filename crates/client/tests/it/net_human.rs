//! Opening URLs that a server chose, and taking what a person pastes (T-01, T-02, T-04).

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use pilotlight::{
    core::{flow::Prompt, issuer::Issuer, scope::Scopes, secret::StateParameter},
    human::{Browser, Human as _, Refuse, Terminal},
};
use tokio::{sync::mpsc, time::timeout};
use url::Url;

/// AUTH-67, AUTH-68, T-01, T-02: whatever a server puts into its authorization URL, the opener gets it as its one argument, starting with
/// `https://`, or is not called; and nothing else runs.
#[tokio::test]
async fn hostile_urls_are_one_argument_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (out, canary) = (folder.path().join("out"), folder.path().join("canary"));
    fs::create_dir(&out).unwrap();
    let opener = recorder(folder.path());
    let hit = canary.to_str().unwrap().to_owned();
    let long = format!("https://as.example/{}", "a".repeat(64 * 1024));
    let mut payloads: Vec<String> = [
        "http://a$(calc.exe)/",
        "https://a$(calc.exe)/",
        "https://a`calc`/",
        "https://as.example/$(touch CANARY)",
        "https://as.example/`touch CANARY`",
        "https://as.example/?a=\"&touch CANARY&\"",
        "https://as.example/?a='; touch CANARY; '",
        "https://as.example/;touch CANARY",
        "https://as.example/|touch CANARY",
        "https://as.example/&&touch CANARY",
        "https://as.example/%22%26touch%20CANARY",
        "https://as.example/\r\ntouch CANARY",
        "https://as.example/\ntouch CANARY\n",
        "https://as.example/%0a%0dtouch",
        "https://as.example/?$IFS",
        "https://as.example/${HOME}",
        "https://as.example/%PATH%",
        "https://as.example/!x",
        "https://as.example/*",
        "https://as.example/~",
        "https://as.example/>CANARY",
        "https://as.example/<(touch CANARY)",
        "https://as.example/$((1+1))",
        "https://as.example/\\\\evil\\x",
        "https:\\\\evil\\x",
        "--upload-pack=touch CANARY",
        "-https://as.example/",
        "--help",
        "-",
        "",
        " ",
        "\\\\evil\\share\\x.exe",
        "//evil/x",
        "file:///bin/sh",
        "file://evil/x",
        "FILE:///etc/passwd",
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>",
        "vbscript:x",
        "ms-msdt:/id PCWDiagnostic",
        "smb://evil/x",
        "ssh://-oProxyCommand=touch CANARY/",
        "ftp://evil/",
        "mailto:a@b",
        "about:blank",
        "chrome://settings",
        "view-source:https://as.example/",
        "blob:https://as.example/x",
        "ws://as.example/",
        "intent://x#Intent;end",
        "search-ms:query=x",
        "http://as.example/",
        "http://169.254.169.254/",
        "http://127.0.0.1:1/",
        "https://user:password@as.example/",
        "https://as.example@evil.example/",
        "https://аs.example/",
        "https://as.example\u{202e}/",
        "https://as.example/\u{0}",
        "https://as.example/\u{202e}txt.exe",
        "https://[::1",
        "https://",
        "https://as.example:99999/",
        "https://as%00.example/",
        "https://as example/",
        "https://-as.example/x y",
        "https:as.example/ok",
        "https://as.example/?x=\u{1b}]52;c;x\u{7}",
    ]
    .iter()
    .map(|payload| payload.replace("CANARY", &hit))
    .collect();
    payloads.push(long);
    assert!(payloads.len() >= 60);

    let mut opened = 0;
    for payload in &payloads {
        let Ok(url) = Url::parse(payload) else {
            continue;
        };
        let said = Arc::new(Mutex::new(String::new()));
        let words = said.clone();
        let terminal = Terminal::new(Arc::new(move |text: &str| {
            words.lock().unwrap().push_str(text)
        }))
        .with_browser(Browser::new().with_command(&opener));
        let prompt = prompt(url);
        assert!(
            timeout(Duration::ZERO, terminal.approve(&prompt))
                .await
                .is_err()
        );
        let said = said.lock().unwrap();
        assert!(
            said.chars().all(|c| c == '\n' || !c.is_control()),
            "{payload:?}"
        );
        opened += usize::from(said.contains("approve in the browser"));
    }
    assert!(opened >= 20, "{opened}");
    let recorded = recordings(&out, opened).await;
    for arguments in &recorded {
        let [url] = &arguments[..] else {
            panic!("{arguments:?}")
        };
        assert!(
            url.starts_with("https://") && url.bytes().all(|b| b.is_ascii_graphic()),
            "{url}"
        );
        let host = Url::parse(url).unwrap().host_str().unwrap().to_owned();
        assert!(!host.contains(['$', '(', '`', '@']), "{url}");
    }
    assert!(!canary.exists());
}

/// T-34: the opener inherits nothing of our environment but what was passed on to it.
#[tokio::test]
async fn the_opener_gets_a_scrubbed_environment() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("out")).unwrap();
    let opener = folder.path().join("opener");
    script(
        &opener,
        "#!/bin/sh\nenv > \"${0%/*}/out/$$.new\"\nmv \"${0%/*}/out/$$.new\" \"${0%/*}/out/$$\"\n",
    );
    let all = [
        ("PATH", "/usr/bin:/bin"),
        ("DISPLAY", ":7"),
        ("OPENAI_API_KEY", "canary-77"),
    ];
    let browser = Browser::new()
        .with_command(&opener)
        .with_environment(all.map(|(name, value)| (name.into(), value.into())));
    let prompt = prompt(Url::parse("https://as.example/authorize").unwrap());
    assert!(
        timeout(Duration::ZERO, browser.approve(&prompt))
            .await
            .is_err()
    );
    let text = recordings(&folder.path().join("out"), 1)
        .await
        .remove(0)
        .join("\n");
    assert!(
        text.contains("DISPLAY=:7") && !text.contains("canary-77") && !text.contains("CARGO"),
        "{text}"
    );
}

/// A program that cannot be started is no error: the URL is on the screen.
#[tokio::test]
async fn a_missing_opener_leaves_the_printed_url() {
    let said = Arc::new(Mutex::new(String::new()));
    let words = said.clone();
    let terminal = Terminal::new(Arc::new(move |text: &str| {
        words.lock().unwrap().push_str(text)
    }))
    .with_browser(Browser::new().with_command("/nonexistent/browser"));
    let prompt = prompt(Url::parse("https://as.example/authorize?client_id=1").unwrap());
    assert!(
        timeout(Duration::ZERO, terminal.approve(&prompt))
            .await
            .is_err()
    );
    let said = said.lock().unwrap();
    assert!(
        said.contains("https://as.example/authorize?client_id=1")
            && said.contains("open this URL in a browser"),
        "{said}"
    );
    assert!(
        said.contains("Tokens come from as.example") && said.contains("repo:read"),
        "{said}"
    );
}

/// T-04: pasted lines are judged like redirects: other logins and nonsense are named and the wait goes on.
#[tokio::test]
async fn pasting_goes_on_until_the_right_redirect() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let words = said.clone();
    let (paste, lines) = mpsc::channel(8);
    let terminal = Terminal::new(Arc::new(move |text: &str| {
        words.lock().unwrap().push(text.to_owned())
    }))
    .with_lines(lines);
    for line in [
        "",
        "help",
        "http://127.0.0.1:1/callback?code=x&state=wrong",
        "http://127.0.0.1:1/callback?code=good&state=right&iss=a",
    ] {
        paste.send(line.to_owned()).await.unwrap();
    }
    let prompt = prompt(Url::parse("https://as.example/authorize").unwrap());
    let got = terminal.approve(&prompt).await.unwrap();
    assert_eq!(got[0], ("code".to_owned(), "good".to_owned()));
    assert_eq!(got.len(), 3);
    assert_eq!(said.lock().unwrap().len(), 3);

    paste
        .send("SplxlOBeZQQYbYS6WxSbIA".to_owned())
        .await
        .unwrap();
    let got = terminal.approve(&prompt).await.unwrap();
    assert_eq!(
        got,
        [
            ("code".to_owned(), "SplxlOBeZQQYbYS6WxSbIA".to_owned()),
            ("state".to_owned(), "right".to_owned())
        ]
    );
    drop(paste);
    assert!(
        timeout(Duration::from_millis(20), terminal.approve(&prompt))
            .await
            .is_err()
    );
}

/// Nobody to ask: the login fails at once.
#[tokio::test]
async fn refusing_is_immediate() {
    assert!(Refuse.refuses());
    let error = Refuse
        .approve(&prompt(Url::parse("https://as.example/").unwrap()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "login.never");
}

fn prompt(url: Url) -> Prompt {
    Prompt {
        url,
        state: StateParameter::new("right".into()).unwrap(),
        former_issuer: None,
        without_resource: false,
        issuer: Issuer::parse("https://as.example").unwrap(),
        token_host: "as.example".into(),
        resource: "https://mcp.example/mcp".into(),
        scopes: Scopes::parse("repo:read"),
    }
}

/// A program that writes its arguments down, one a line, in a file of its own.
fn recorder(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("opener");
    script(
        &path,
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"${0%/*}/out/$$.new\"\nmv \"${0%/*}/out/$$.new\" \"${0%/*}/out/$$\"\n",
    );
    path
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Waits until so many recordings are there, and reads them.
async fn recordings(folder: &Path, count: usize) -> Vec<Vec<String>> {
    let there = || {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_none())
            .collect::<Vec<_>>()
    };
    for _ in 0..1000 {
        if there().len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let files = there();
    assert_eq!(files.len(), count);
    files
        .iter()
        .map(|file| {
            fs::read_to_string(file)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect()
        })
        .collect()
}
