//! Who approves a login: everything that can work is offered at once, and flags only narrow it.

use std::{io::BufRead as _, path::PathBuf, sync::Arc};

use pilotlight::{
    core::flow::Device,
    human::{Browser, Human, Refuse, Surroundings, Terminal},
};
use tokio::sync::mpsc;

use crate::{
    app::App,
    args::Way,
    config::{Environment, Setting},
};

/// What is offered to the person.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Offer {
    /// Nobody is asked.
    Nobody,
    /// The URL is shown; a browser, and pasted lines, where they can work.
    Person {
        browser: Option<Opener>,
        paste: bool,
    },
}

/// Which program opens the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Opener {
    Platform,
    Program(PathBuf),
}

/// What is known about the machine.
#[derive(Debug, Clone, Copy)]
struct Machine {
    no_interactive: bool,
    browser_is_likely: bool,
    stdin_is_terminal: bool,
    stderr_is_terminal: bool,
}

/// The person of this run.
pub(crate) fn human(app: &App, way: &Way) -> Arc<dyn Human> {
    let settings = &app.settings;
    match offer(way, settings.browser_command.as_ref(), machine(app)) {
        Offer::Nobody => Arc::new(Refuse),
        Offer::Person { browser, paste } => {
            let mut terminal = Terminal::new(app.report.voice());
            if let Some(opener) = browser {
                terminal = terminal.with_browser(opened(app, opener));
            }
            if paste {
                terminal = terminal.with_lines(lines());
            }
            Arc::new(terminal)
        }
    }
}

/// The person behind a host: stdin is the host's, so nothing can be pasted, and a URL that opens by nothing is still told to
/// the host.
pub(crate) fn bridged(app: &App, way: &Way) -> Arc<dyn Human> {
    let settings = &app.settings;
    let machine = behind(machine(app));
    match offer(way, settings.browser_command.as_ref(), machine) {
        Offer::Nobody => Arc::new(Refuse),
        Offer::Person { browser, .. } => {
            let mut terminal = Terminal::new(app.report.voice());
            if let Some(opener) = browser {
                terminal = terminal.with_browser(opened(app, opener));
            }
            Arc::new(terminal)
        }
    }
}

/// Whether a browser opens by itself.
pub(crate) fn opens(app: &App, way: &Way) -> bool {
    let command = app.settings.browser_command.as_ref();
    matches!(
        offer(way, command, behind(machine(app))),
        Offer::Person {
            browser: Some(_),
            ..
        }
    )
}

/// The host is somebody who looks, unless nobody is to be asked.
fn behind(machine: Machine) -> Machine {
    Machine {
        stdin_is_terminal: false,
        stderr_is_terminal: true,
        ..machine
    }
}

fn opened(app: &App, opener: Opener) -> Browser {
    let browser = Browser::new().with_environment(app.settings.environment.all());
    match opener {
        Opener::Platform => browser,
        Opener::Program(program) => browser.with_command(program),
    }
}

/// Whether the person is to log in on another device; `configured` is what the file says of this server.
pub(crate) fn device(app: &App, way: &Way, configured: Option<bool>) -> Device {
    let command = app.settings.browser_command.as_ref();
    another_device(way, configured, command, machine(app))
}

/// A flag decides, then what is configured for the server, which knows more than a `BROWSER` for everything. Else another
/// device is first where no browser here is likely to be seen.
fn another_device(
    way: &Way,
    configured: Option<bool>,
    command: Option<&Setting<PathBuf>>,
    machine: Machine,
) -> Device {
    match (way.device, configured) {
        (true, _) => Device::Only,
        _ if way.browser || way.browser_command.is_some() || way.paste => Device::Never,
        (_, Some(true)) => Device::Only,
        (_, Some(false)) => Device::Never,
        _ if command.is_some() || machine.browser_is_likely => Device::Never,
        _ => Device::Prefer,
    }
}

fn machine(app: &App) -> Machine {
    let settings = &app.settings;
    Machine {
        no_interactive: settings.no_interactive.value,
        browser_is_likely: surroundings(&settings.environment).browser_is_likely(),
        stdin_is_terminal: std::io::IsTerminal::is_terminal(&std::io::stdin()),
        stderr_is_terminal: app.report.stderr_is_terminal(),
    }
}

fn offer(way: &Way, command: Option<&Setting<PathBuf>>, machine: Machine) -> Offer {
    if way.no_interactive {
        return Offer::Nobody;
    }
    if way.paste || way.device {
        return Offer::Person {
            browser: None,
            paste: way.paste,
        };
    }
    let program = way
        .browser_command
        .clone()
        .or_else(|| command.map(|setting| setting.value.clone()));
    let asked_for = way.browser || way.browser_command.is_some() || command.is_some();
    if asked_for {
        let opener = program.map_or(Opener::Platform, Opener::Program);
        return Offer::Person {
            browser: Some(opener),
            paste: machine.stdin_is_terminal && !machine.no_interactive,
        };
    }
    // Better to fail than to wait for somebody who is not there.
    let somebody_looks =
        machine.browser_is_likely || machine.stdin_is_terminal || machine.stderr_is_terminal;
    if machine.no_interactive || !somebody_looks {
        return Offer::Nobody;
    }
    Offer::Person {
        browser: machine.browser_is_likely.then_some(Opener::Platform),
        paste: machine.stdin_is_terminal,
    }
}

/// The lines that a person types. The thread that reads them ends with the process: a read cannot be called off.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn surroundings(environment: &Environment) -> Surroundings {
    let has = |name: &str| environment.has(name);
    let wsl = has("WSL_DISTRO_NAME");
    let unix_desktop = cfg!(all(unix, not(target_os = "macos")));
    let container = has("container")
        || has("CODESPACES")
        || has("REMOTE_CONTAINERS")
        || ["/.dockerenv", "/run/.containerenv"]
            .iter()
            .any(|file| std::path::Path::new(file).exists());
    Surroundings {
        ssh: has("SSH_CONNECTION") || has("SSH_TTY"),
        container,
        wsl_without_interop: wsl && !has("WSL_INTEROP"),
        no_display: unix_desktop && !wsl && !has("DISPLAY") && !has("WAYLAND_DISPLAY"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    const DESKTOP: Machine = Machine {
        no_interactive: false,
        browser_is_likely: true,
        stdin_is_terminal: true,
        stderr_is_terminal: true,
    };
    const CI: Machine = Machine {
        no_interactive: true,
        browser_is_likely: false,
        stdin_is_terminal: false,
        stderr_is_terminal: false,
    };

    fn person(browser: Option<Opener>, paste: bool) -> Offer {
        Offer::Person { browser, paste }
    }

    #[test]
    fn everything_that_can_work_is_offered_at_once() {
        let none = Way::default();
        assert_eq!(
            offer(&none, None, DESKTOP),
            person(Some(Opener::Platform), true)
        );
        let ssh = Machine {
            browser_is_likely: false,
            ..DESKTOP
        };
        assert_eq!(offer(&none, None, ssh), person(None, true));
        let cron = Machine {
            no_interactive: false,
            ..CI
        };
        assert_eq!(offer(&none, None, cron), Offer::Nobody, "nobody looks");
    }

    #[test]
    fn flags_narrow_and_an_explicit_browser_overrides_ci() {
        let program = |path: &str| Some(Opener::Program(path.into()));
        let command = Setting {
            value: PathBuf::from("/b"),
            from: Origin::Variable("BROWSER"),
        };
        assert_eq!(offer(&Way::default(), None, CI), Offer::Nobody);
        assert_eq!(
            offer(&Way::default(), Some(&command), CI),
            person(program("/b"), false)
        );
        let flag = Way {
            browser_command: Some("/c".into()),
            ..Way::default()
        };
        assert_eq!(
            offer(&flag, Some(&command), CI),
            person(program("/c"), false)
        );
        let browser = Way {
            browser: true,
            ..Way::default()
        };
        assert_eq!(
            offer(&browser, None, CI),
            person(Some(Opener::Platform), false)
        );
        let refused = Way {
            no_interactive: true,
            ..Way::default()
        };
        assert_eq!(
            offer(&refused, Some(&command), DESKTOP),
            Offer::Nobody,
            "an explicit no beats all"
        );
        let paste = Way {
            paste: true,
            ..Way::default()
        };
        assert_eq!(offer(&paste, Some(&command), DESKTOP), person(None, true));
    }

    /// Another device is first where no browser is likely, and only where nothing else was chosen.
    #[test]
    fn another_device_is_first_without_a_browser() {
        let (none, ssh) = (
            Way::default(),
            Machine {
                browser_is_likely: false,
                ..DESKTOP
            },
        );
        assert_eq!(another_device(&none, None, None, DESKTOP), Device::Never);
        assert_eq!(another_device(&none, None, None, ssh), Device::Prefer);
        let command = Setting {
            value: PathBuf::from("/b"),
            from: Origin::Variable("BROWSER"),
        };
        assert_eq!(
            another_device(&none, None, Some(&command), ssh),
            Device::Never
        );
        let configured = |says| another_device(&none, Some(says), Some(&command), ssh);
        assert_eq!(configured(true), Device::Only);
        assert_eq!(configured(false), Device::Never);
        let chosen = [
            Way {
                browser: true,
                ..Way::default()
            },
            Way {
                browser_command: Some("/b".into()),
                ..Way::default()
            },
            Way {
                paste: true,
                ..Way::default()
            },
        ];
        for way in chosen {
            assert_eq!(another_device(&way, None, None, ssh), Device::Never);
            let configured = another_device(&way, Some(true), None, ssh);
            assert_eq!(configured, Device::Never, "a flag counts for more: {way:?}");
        }
        let asked = Way {
            device: true,
            ..Way::default()
        };
        for machine in [DESKTOP, ssh, CI] {
            assert_eq!(
                another_device(&asked, Some(false), Some(&command), machine),
                Device::Only
            );
            assert_eq!(offer(&asked, Some(&command), machine), person(None, false));
        }
    }

    #[test]
    fn surroundings_are_read_from_the_environment() {
        let of = |variables: &[(&str, &str)]| surroundings(&Environment::made_up(variables));
        assert!(of(&[("DISPLAY", ":0"), ("SSH_CONNECTION", "x")]).ssh);
        assert!(of(&[("WSL_DISTRO_NAME", "Ubuntu")]).wsl_without_interop);
        assert!(!of(&[("WSL_DISTRO_NAME", "Ubuntu"), ("WSL_INTEROP", "x")]).no_display);
        assert!(of(&[]).no_display || cfg!(not(all(unix, not(target_os = "macos")))));
    }
}
