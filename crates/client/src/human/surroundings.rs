//! Whether a browser can be expected to open where the program runs.

/// What is known about where the program runs. The command line fills it in; a host that knows better need not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// The session came by SSH (`SSH_CONNECTION`, `SSH_TTY`).
    pub ssh: bool,
    /// A container (`/.dockerenv`, `/run/.containerenv`, `container`), a Codespace or another remote workspace.
    pub container: bool,
    /// Windows Subsystem for Linux that cannot start Windows programs.
    pub wsl_without_interop: bool,
    /// No graphical display (`DISPLAY`, `WAYLAND_DISPLAY`) on a system that needs one.
    pub no_display: bool,
}

impl Surroundings {
    /// Whether a browser that is opened here is likely to be seen by the person who logs in.
    #[must_use]
    pub fn browser_is_likely(&self) -> bool {
        !(self.ssh || self.container || self.wsl_without_interop || self.no_display)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any one obstacle is enough.
    #[test]
    fn one_obstacle_is_enough() {
        assert!(Surroundings::default().browser_is_likely());
        for obstacle in [
            Surroundings {
                ssh: true,
                ..Surroundings::default()
            },
            Surroundings {
                container: true,
                ..Surroundings::default()
            },
            Surroundings {
                wsl_without_interop: true,
                ..Surroundings::default()
            },
            Surroundings {
                no_display: true,
                ..Surroundings::default()
            },
        ] {
            assert!(!obstacle.browser_is_likely(), "{obstacle:?}");
        }
    }
}
