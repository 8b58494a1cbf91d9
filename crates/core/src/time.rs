//! Time as a value: the core never asks what time it is.
//!
//! Two clocks matter. The *wall* clock survives restarts but jumps; the *boot* clock counts suspend and never jumps, but
//! ends with the boot. A [`Stamp`] holds both, so that an age is measured by the boot clock within one boot and by
//! the wall clock only across boots (F-19).

use std::{ops::Add, time::Duration};

use serde::{Deserialize, Serialize};

/// Wall-clock time in milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct Wall(pub u64);

/// Time in milliseconds on a clock that never jumps and counts suspend, since the machine booted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct Mono(pub u64);

/// Which boot of which machine a [`Mono`] belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct BootId(pub [u8; 16]);

/// One instant on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Stamp {
    /// The wall clock.
    pub wall: Wall,
    /// The boot clock.
    pub mono: Mono,
    /// The boot that `mono` counts from.
    pub boot: BootId,
}

/// The present instant, as an argument.
pub type Now = Stamp;

impl Stamp {
    /// Measures how long ago `earlier` was; `None` where the clocks cannot tell (the future, or more than ten years ago).
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<Duration> {
        let millis = if self.boot == earlier.boot {
            self.mono.0.saturating_sub(earlier.mono.0)
        } else {
            self.wall.0.checked_sub(earlier.wall.0)?
        };
        (millis <= TEN_YEARS_MS).then(|| Duration::from_millis(millis))
    }

    /// Whether this came after `other`, by the boot clock alone: a wall clock jumps. What came since the restart of this machine,
    /// whose boot is `boot`, came after what did not; of two other boots nobody can tell.
    #[must_use]
    pub fn is_later_than(&self, other: &Self, boot: BootId) -> bool {
        if self.boot == other.boot {
            self.mono > other.mono
        } else {
            self.boot == boot
        }
    }

    /// Moves both clocks forward.
    #[must_use]
    pub fn after(&self, span: Duration) -> Self {
        Self {
            wall: self.wall + span,
            mono: self.mono + span,
            boot: self.boot,
        }
    }
}

impl Wall {
    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub fn unix_seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The instant `seconds` after the Unix epoch.
    #[must_use]
    pub fn from_unix_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Reads a `Date` field (RFC 9110 section 5.6.7), in the one form that may be sent: `Sun, 06 Nov 1994 08:49:37 GMT`.
    #[must_use]
    pub fn from_http_date(text: &str) -> Option<Self> {
        let (_, rest) = text.trim().split_once(", ")?;
        let [day, month, year, time, "GMT"] = *rest.split(' ').collect::<Vec<_>>() else {
            return None;
        };
        let [hour, minute, second] = *time.split(':').collect::<Vec<_>>() else {
            return None;
        };
        let number = |text: &str, of: std::ops::RangeInclusive<u64>| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u64>()
                .ok()
                .filter(|n| digits && of.contains(n))
        };
        let (day, year) = (number(day, 1..=31)?, number(year, 1970..=9999)?);
        let (hour, minute) = (number(hour, 0..=23)?, number(minute, 0..=59)?);
        let second = number(second, 0..=60)?;
        let month = MONTHS.iter().position(|name| *name == month)? as u64;
        // Years that begin in March end with the leap day.
        let (from_march, years) = ((month + 10) % 12, year - u64::from(month < 2));
        let leap_days = years / 4 - years / 100 + years / 400;
        let days = 365 * years + leap_days + (153 * from_march + 2) / 5 + day - 1;
        let days = days.checked_sub(DAYS_TO_1970)?;
        Some(Self::from_unix_seconds(
            ((days * 24 + hour) * 60 + minute) * 60 + second,
        ))
    }

    /// How long until `later`; zero when it has passed.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

impl Mono {
    /// How long until `later`; zero when it has passed.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

impl Add<Duration> for Wall {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

/// A span in milliseconds, saturating.
#[must_use]
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// From the first of March of the year 0.
const DAYS_TO_1970: u64 = 719_468;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const TEN_YEARS_MS: u64 = 10 * 366 * 86_400 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: u64, mono: u64, boot: u8) -> Stamp {
        Stamp {
            wall: Wall(wall),
            mono: Mono(mono),
            boot: BootId([boot; 16]),
        }
    }

    /// F-19: of two stamps of one boot the boot clock tells, of others the restart of this machine, and the wall clock never.
    #[test]
    fn the_wall_clock_puts_nothing_in_order() {
        let here = BootId([1; 16]);
        for (one, other, later) in [
            (at(0, 2, 1), at(9, 1, 1), true),
            (at(9, 1, 1), at(0, 1, 1), false),
            (at(9, 2, 3), at(0, 1, 3), true),
            (at(0, 1, 1), at(9, 2, 2), true),
            (at(9, 2, 2), at(0, 1, 1), false),
            (at(9, 2, 2), at(0, 1, 3), false),
        ] {
            assert_eq!(one.is_later_than(&other, here), later, "{one:?} {other:?}");
        }
    }

    /// T-32: the one form of a date that HTTP sends is read, on leap days and at the turn of years too.
    #[test]
    fn a_date_of_http_is_read() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Fri, 31 Dec 2027 23:59:59 GMT", 1_830_297_599),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
        ] {
            let read = Wall::from_http_date(text);
            assert_eq!(read, Some(Wall::from_unix_seconds(seconds)), "{text}");
        }
        for bad in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT GMT",
        ] {
            assert_eq!(Wall::from_http_date(bad), None, "{bad}");
        }
    }

    /// F-19: within one boot a wall clock that jumps changes no age.
    #[test]
    fn a_wall_clock_jump_changes_no_age_within_one_boot() {
        let sent = at(1_000_000, 5_000, 1);
        for wall in [0, 1_000_000, 99_000_000_000_000] {
            assert_eq!(
                at(wall, 8_000, 1).since(&sent),
                Some(Duration::from_secs(3))
            );
        }
    }

    /// F-19: across boots only the wall clock can tell, and neither the future nor a decade is believed.
    #[test]
    fn across_boots_the_future_and_a_decade_are_unknown() {
        let sent = at(1_000_000, 5_000, 1);
        assert_eq!(
            at(1_060_000, 10, 2).since(&sent),
            Some(Duration::from_secs(60))
        );
        assert_eq!(at(999_999, 10, 2).since(&sent), None);
        assert_eq!(at(1_000_000 + TEN_YEARS_MS + 1, 10, 2).since(&sent), None);
    }
}
