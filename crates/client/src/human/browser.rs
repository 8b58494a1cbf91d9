//! Opening a URL in a browser (T-01, T-02).

use std::{ffi::OsString, path::PathBuf, process::Stdio};

use pilotlight_core::{
    flow::Prompt,
    resource::{Resource, is_loopback},
};
use url::{Host, Url};

/// Opens the authorization URL in the platform's browser, or by a program of the person's choice.
#[derive(Clone, Default)]
pub struct Browser {
    command: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
}

impl Browser {
    /// Opens by the platform's own opener: `xdg-open`, `open`, or the URL handler of Windows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens by this program instead; the URL is its only argument. It comes from the person (`--browser-command`,
    /// `$BROWSER`), never from a server or a project's files.
    #[must_use]
    pub fn with_command(mut self, program: impl Into<PathBuf>) -> Self {
        self.command = Some(program.into());
        self
    }

    /// Takes from an environment what a browser needs (display, session bus, home, language, paths); the program gets
    /// nothing else of it, so no secret (T-34). Without this it gets an empty one.
    #[must_use]
    pub fn with_environment(mut self, all: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.environment = all
            .into_iter()
            .filter(|(name, _)| name.to_str().is_some_and(passes))
            .collect();
        self
    }

    /// Opens the URL and does not wait; tells whether the program was started. That it was not is no error: the URL is
    /// shown as well.
    ///
    /// Has to be called within a tokio runtime, which reaps the program when it ends.
    pub(super) fn open(&self, prompt: &Prompt) -> bool {
        let local = Resource::parse(&prompt.resource).is_ok_and(|server| server.is_loopback());
        let Some(url) = openable(&prompt.url, local) else {
            return false;
        };
        let started = self.start(&url);
        if let Err(error) = &started {
            tracing::debug!(%error, "no browser was opened");
        }
        started.is_ok()
    }

    /// The one place of the library that starts a program (T-29).
    fn start(&self, url: &str) -> std::io::Result<()> {
        let (program, arguments): (OsString, &[&str]) = match &self.command {
            Some(program) => (program.into(), &[]),
            None => (PLATFORM_OPENER.0.into(), PLATFORM_OPENER.1),
        };
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .arg(url)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Ctrl-C at the terminal is for us, not for the person's browser.
        #[cfg(unix)]
        command.process_group(0);
        command.spawn().map(drop)
    }
}

impl std::fmt::Debug for Browser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Browser")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

/// The text to open, if the URL may be opened: `https`, or `http` to loopback for a server on loopback; a host made of
/// letters that no shell and no opener script can misread; no user name; a length that every platform passes on.
fn openable(url: &Url, local: bool) -> Option<String> {
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && local && is_loopback(url));
    let host = match url.host()? {
        Host::Domain(name) => name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
        Host::Ipv4(_) | Host::Ipv6(_) => true,
    };
    let text = url.as_str();
    let plain = url.username().is_empty()
        && url.password().is_none()
        && text.bytes().all(|b| b.is_ascii_graphic());
    (scheme && host && plain && text.len() <= LONGEST_URL && !text.starts_with('-'))
        .then(|| text.to_owned())
}

/// Whether a variable is one that a browser needs.
fn passes(name: &str) -> bool {
    PASSED.contains(&name)
        || PASSED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(target_os = "macos")]
const PLATFORM_OPENER: (&str, &[&str]) = ("/usr/bin/open", &[]);
#[cfg(windows)]
const PLATFORM_OPENER: (&str, &[&str]) = ("rundll32.exe", &["url.dll,FileProtocolHandler"]);
#[cfg(not(any(target_os = "macos", windows)))]
const PLATFORM_OPENER: (&str, &[&str]) = ("xdg-open", &[]);

const PASSED: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TZ",
    "TMPDIR",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "DBUS_SESSION_BUS_ADDRESS",
    "DESKTOP_SESSION",
    "BROWSER",
    "WSL_DISTRO_NAME",
    "WSL_INTEROP",
    "SYSTEMROOT",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "PROGRAMFILES",
    "TEMP",
];
const PASSED_PREFIXES: [&str; 5] = ["LC_", "XDG_", "KDE_", "GNOME_", "GTK_"];

/// Windows passes 32,767 characters in all.
const LONGEST_URL: usize = 32_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// T-02: only https, and http for loopback at a loopback server.
    #[test]
    fn only_web_addresses_are_opened() {
        let may =
            |text: &str, local| Url::parse(text).is_ok_and(|url| openable(&url, local).is_some());
        assert!(
            may("https://as.example/authorize?x=1", false) && may("https://[2606:4700::1]/", false)
        );
        assert!(
            may("http://127.0.0.1:9/authorize", true) && may("http://localhost:9/authorize", true)
        );
        assert!(!may("http://127.0.0.1:9/authorize", false) && !may("http://as.example/", true));
        for text in [
            "file:///etc/passwd",
            "javascript:alert(1)",
            "smb://evil/x",
            "ms-msdt:/id",
            "https://u:p@as.example/",
        ] {
            assert!(!may(text, true), "{text}");
        }
    }

    /// T-34: of the environment only what a browser needs is passed on.
    #[test]
    fn secrets_in_the_environment_stay_here() {
        let all = [
            "PATH",
            "DISPLAY",
            "XDG_RUNTIME_DIR",
            "LC_ALL",
            "GITHUB_TOKEN",
            "PILOTLIGHT_KEY_FILE",
            "AWS_SECRET_ACCESS_KEY",
        ];
        let browser = Browser::new().with_environment(all.map(|name| (name.into(), "x".into())));
        let kept: Vec<_> = browser
            .environment
            .iter()
            .map(|(name, _)| name.to_str().unwrap())
            .collect();
        assert_eq!(kept, ["PATH", "DISPLAY", "XDG_RUNTIME_DIR", "LC_ALL"]);
    }
}
