//! Media time: 100 ns ticks, as in Media Foundation.

use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point or a span on a media timeline, in ticks of 100 ns.
///
/// Arithmetic saturates: a time that came from a hostile file must not be able to wrap.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaTime(i64);

impl MediaTime {
    /// The origin of a timeline; also the empty span.
    pub const ZERO: Self = Self(0);
    /// The latest representable time.
    pub const MAX: Self = Self(i64::MAX);
    /// Ticks in a second.
    pub const TICKS_PER_SECOND: i64 = 10_000_000;

    /// A time of `ticks` times 100 ns.
    pub const fn from_ticks(ticks: i64) -> Self {
        Self(ticks)
    }

    /// A time of `millis` milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(10_000))
    }

    /// A time of whole seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(Self::TICKS_PER_SECOND))
    }

    /// The nearest tick to `seconds`; not-a-number gives zero, what is out of range saturates.
    pub fn from_secs_f64(seconds: f64) -> Self {
        // `as` saturates and maps NaN to 0.
        Self((seconds * 1e7).round() as i64)
    }

    /// Ticks of 100 ns.
    pub const fn ticks(self) -> i64 {
        self.0
    }

    /// Seconds, for display and for arithmetic that may lose precision.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e7
    }

    /// A wall-clock span of this length; negative times give zero.
    pub fn to_duration(self) -> Duration {
        let ticks = u64::try_from(self.0).unwrap_or(0);
        Duration::new(ticks / 10_000_000, (ticks % 10_000_000) as u32 * 100)
    }
}

impl From<Duration> for MediaTime {
    fn from(span: Duration) -> Self {
        Self(i64::try_from(span.as_nanos() / 100).unwrap_or(i64::MAX))
    }
}

impl Add for MediaTime {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for MediaTime {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for MediaTime {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for MediaTime {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for MediaTime {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl fmt::Debug for MediaTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl fmt::Display for MediaTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let ticks = self.0.unsigned_abs();
        write!(
            out,
            "{sign}{}.{:07}s",
            ticks / 10_000_000,
            ticks % 10_000_000
        )
    }
}

/// The length of one unit of a stream's own timestamps, in seconds, as a fraction: 1/15360.
///
/// Ticks convert back to the stream's units without loss as long as a unit is longer than a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeBase {
    numerator: u32,
    denominator: u32,
}

impl TimeBase {
    /// The time base of [`MediaTime`] itself.
    pub const TICKS: Self = Self {
        numerator: 1,
        denominator: 10_000_000,
    };

    /// `numerator / denominator` seconds; `None` when either is zero.
    pub const fn new(numerator: u32, denominator: u32) -> Option<Self> {
        if numerator == 0 || denominator == 0 {
            return None;
        }
        Some(Self {
            numerator,
            denominator,
        })
    }

    /// One unit per `rate` of a second; `None` for zero.
    pub const fn per_second(rate: u32) -> Option<Self> {
        Self::new(1, rate)
    }

    /// The fraction's numerator, at least 1.
    pub const fn numerator(self) -> u32 {
        self.numerator
    }

    /// The fraction's denominator, at least 1.
    pub const fn denominator(self) -> u32 {
        self.denominator
    }

    /// `units` of this base as media time, rounded to the nearest tick, saturating.
    pub fn to_time(self, units: i64) -> MediaTime {
        let ticks = rounded_ratio(
            i128::from(units) * i128::from(self.numerator) * 10_000_000,
            i128::from(self.denominator),
        );
        MediaTime(ticks)
    }

    /// Media time in units of this base, rounded to the nearest unit, saturating.
    pub fn to_units(self, time: MediaTime) -> i64 {
        rounded_ratio(
            i128::from(time.0) * i128::from(self.denominator),
            i128::from(self.numerator) * 10_000_000,
        )
    }
}

impl fmt::Display for TimeBase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.numerator, self.denominator)
    }
}

/// `value / by`, ties away from zero, clamped into an `i64`; `by` is positive.
fn rounded_ratio(value: i128, by: i128) -> i64 {
    let half = by / 2;
    let rounded = if value >= 0 {
        (value + half) / by
    } else {
        (value - half) / by
    };
    i64::try_from(rounded).unwrap_or(if rounded > 0 { i64::MAX } else { i64::MIN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_survive_the_way_through_ticks() {
        for rate in [600, 1000, 15_360, 44_100, 48_000, 90_000, 1_000_000] {
            let base = TimeBase::per_second(rate).expect("not zero");
            for units in (-5000..5000).chain([i64::from(i32::MAX), 1 << 40]) {
                assert_eq!(
                    base.to_units(base.to_time(units)),
                    units,
                    "{units} at {base}"
                );
            }
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(MediaTime::MAX + MediaTime::from_secs(1), MediaTime::MAX);
        let base = TimeBase::new(u32::MAX, 1).expect("not zero");
        assert_eq!(base.to_time(i64::MAX), MediaTime::MAX);
        assert_eq!(MediaTime::from_secs_f64(f64::NAN), MediaTime::ZERO);
    }

    #[test]
    fn displays_seconds_with_seven_places() {
        assert_eq!(
            MediaTime::from_ticks(-12_345_678).to_string(),
            "-1.2345678s"
        );
    }
}
