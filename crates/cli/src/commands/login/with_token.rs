//! `login --with-token`: a key that somebody has got elsewhere, in the same list as the logins.

use std::io::Read as _;

use pilotlight::Status;
use pilotlight_core::{Error, secret::AccessToken};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    app::{App, Stay},
    args::Login,
    config::bad_value,
    failure::Failure,
    report::shown::Shown,
    target::{Target, default_name},
};

pub(super) async fn run(app: &App, args: &Login) -> Result<(), Failure> {
    let [typed] = args.targets.as_slice() else {
        let why = "a key is one server's; give one TARGET";
        return Err(bad_value("--with-token", why).into());
    };
    let store = app.store()?;
    let bindings = store.bindings().await?;
    let target = app.find(typed, &bindings)?;
    let token = key(app, &target).await?;
    let name = args.name.clone().or_else(|| {
        let taken = |name: &str| bindings.iter().any(|binding| binding.name == name);
        let wanted = target.server.as_ref().map(|server| server.name.clone());
        let wanted = wanted.filter(|name| !taken(name));
        let new = target.binding.is_none();
        new.then(|| wanted.unwrap_or_else(|| default_name(&target.key.url, taken)))
    });
    let sessions = app.sessions(store, Stay::Brief)?;
    let (url, account) = (&target.key.url, &target.key.account);
    let stored = sessions.put_static(url, account, name.as_deref(), token);
    let status = stored.await.map_err(|error| Failure::of(&error, &target))?;
    tell(app, &status);
    Ok(())
}

/// The key: all of stdin, or a line that is typed and not shown. It is never an argument: other users see those.
async fn key(app: &App, target: &Target) -> Result<AccessToken, Failure> {
    let at_terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    if at_terminal && app.settings.no_interactive.value {
        return Err(unfit("nobody is asked here: give the key on stdin").into());
    }
    // It comes back whatever ends this, Ctrl-C too: whoever waits here owns it, not the thread that reads.
    let silence = if at_terminal {
        Some(Silence::of_stdin()?)
    } else {
        None
    };
    if at_terminal {
        app.report.must_say(format!(
            "The key for {} (it is not shown), then Enter:",
            target.key.url
        ));
    }
    let read = tokio::task::spawn_blocking(move || read(at_terminal));
    let bytes = read.await.map_err(|_| Error::ConfigRuntime)??;
    drop(silence);
    Ok(token(&bytes)?)
}

fn read(line: bool) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT + 1));
    let failed = |error: std::io::Error| unfit(&error.to_string());
    let mut stdin = std::io::stdin().lock().take(LIMIT as u64 + 1);
    if line {
        std::io::BufRead::read_until(&mut stdin, b'\n', &mut bytes).map_err(failed)?;
    } else {
        stdin.read_to_end(&mut bytes).map_err(failed)?;
    }
    Ok(bytes)
}

/// One line of printable ASCII; a line break at the end is the editor's.
fn token(bytes: &[u8]) -> Result<AccessToken, Error> {
    let line = bytes.trim_ascii_end();
    if bytes.len() > LIMIT {
        return Err(unfit("it is longer than a key should be"));
    }
    if line.is_empty() {
        return Err(unfit("it is empty"));
    }
    std::str::from_utf8(line)
        .ok()
        .and_then(|line| AccessToken::new(line.to_owned()).ok())
        .ok_or_else(|| unfit("it is not one line of printable ASCII"))
}

fn unfit(why: &str) -> Error {
    bad_value("the key", why)
}

/// A terminal that does not show what is typed, for as long as this lives.
struct Silence(Termios);

impl Silence {
    fn of_stdin() -> Result<Self, Error> {
        let failed = |error: rustix::io::Errno| {
            let error = std::io::Error::from(error);
            unfit(&format!(
                "the terminal would show it ({error}); give it on stdin"
            ))
        };
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // Nothing can be done where the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

fn tell(app: &App, status: &Status) {
    let login = Shown::from(status);
    if app.report.json() {
        app.report.object(json!({ "login": login.to_json() }));
    } else {
        app.report.say(super::words::kept(&login));
    }
}

const LIMIT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// T-30, T-34: what is no single line of printable characters is no key, and is not repeated in the error.
    #[test]
    fn only_one_printable_line_is_a_key() {
        assert_eq!(token(b"key-1\r\n").unwrap().expose(), "key-1");
        let long = vec![b'k'; LIMIT + 1];
        for bad in [
            &b""[..],
            b"\n",
            b"two\nlines",
            b"x\r\nX-Evil: 1",
            b"\xff\xfe",
            &long,
        ] {
            let error = token(bad).unwrap_err();
            assert_eq!(error.code(), "config.value");
            assert!(!error.to_string().contains("Evil"));
        }
    }
}
