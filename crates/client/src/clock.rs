//! The one place that asks what time it is.

use std::sync::OnceLock;

use pilotlight_core::time::{BootId, Mono, Now, Stamp, Wall};

/// Tells the time. A role, so that tests bring their own.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// The present instant on both clocks.
    fn now(&self) -> Now;
}

/// The machine's clocks: real time, and the boot clock that counts suspend.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Stamp {
            wall: wall(),
            mono: mono(),
            boot: boot_id(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one door to the wall clock")]
fn wall() -> Wall {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Wall(pilotlight_core::time::millis(since))
}

#[cfg(target_os = "linux")]
fn mono() -> Mono {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    Mono(seconds * 1000 + nanos / 1_000_000)
}

#[cfg(not(target_os = "linux"))]
#[expect(
    clippy::disallowed_methods,
    reason = "the one door to the monotonic clock"
)]
fn mono() -> Mono {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    Mono(pilotlight_core::time::millis(
        START.get_or_init(std::time::Instant::now).elapsed(),
    ))
}

/// The boot's identity: the kernel's on Linux, else one drawn for this process (ages then count by the wall clock).
fn boot_id() -> BootId {
    static BOOT: OnceLock<BootId> = OnceLock::new();
    *BOOT.get_or_init(|| read_boot_id().unwrap_or_else(|| BootId(crate::crypto::random())))
}

#[cfg(target_os = "linux")]
fn read_boot_id() -> Option<BootId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let mut id = [0u8; 16];
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(BootId(id))
}

#[cfg(not(target_os = "linux"))]
fn read_boot_id() -> Option<BootId> {
    None
}
