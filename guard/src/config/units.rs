//! Values with units as people write them: "100us" is a time, 0.5 or 2 a number of CPUs.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Duration);

/// A text that is no length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// No number with a unit.
    #[error("want a number and a unit, such as 10s, 500ms or 100us")]
    Form,
    /// Below zero.
    #[error("want a time that is not negative")]
    Negative,
}

impl Time {
    /// So many milliseconds.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// The same for the standard library.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// In ns, at most `u64::MAX`.
    #[must_use]
    pub fn ns(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let parsed: jiff::SignedDuration = text.parse().map_err(|_| TimeError::Form)?;
        Duration::try_from(parsed).map(Self).map_err(|_| TimeError::Negative)
    }
}

/// In the largest unit that needs no fraction.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
        match units.into_iter().find(|(unit, _)| ns.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", ns / unit),
            None => write!(f, "{ns}ns"),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeVisitor)
    }
}

struct TimeVisitor;

impl de::Visitor<'_> for TimeVisitor {
    type Value = Time;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time with its unit in quotes, such as \"10s\", \"500ms\" or \"100us\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
        text.parse().map_err(E::custom)
    }
}

/// A number of CPUs, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus {
    /// Thousandths of a CPU.
    pub milli: u64,
}

impl Cpus {
    /// The largest number that is believed: as many CPUs as the kernel can have.
    const MOST: f64 = 8_192.0;

    fn from_number<E: de::Error>(cpus: f64) -> Result<Self, E> {
        if !(0.001..=Self::MOST).contains(&cpus) {
            return Err(E::custom(format!("want a number of CPUs from 0.001 to {}", Self::MOST)));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        let milli = (cpus * 1_000.0).round() as u64;
        Ok(Self { milli })
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[allow(clippy::cast_precision_loss, reason = "at most 8,192,000")]
        let cpus = self.milli as f64 / 1_000.0;
        serializer.serialize_f64(cpus)
    }
}

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CpusVisitor)
    }
}

struct CpusVisitor;

impl de::Visitor<'_> for CpusVisitor {
    type Value = Cpus;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of CPUs, such as 0.5 or 2")
    }

    fn visit_i64<E: de::Error>(self, cpus: i64) -> Result<Cpus, E> {
        #[allow(clippy::cast_precision_loss, reason = "far beyond the range where it matters")]
        Cpus::from_number(cpus as f64)
    }

    fn visit_f64<E: de::Error>(self, cpus: f64) -> Result<Cpus, E> {
        Cpus::from_number(cpus)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_written_in_the_largest_unit_without_a_fraction() {
        for (text, written) in [("100us", "100us"), ("1.5ms", "1500us"), ("90s", "90s"), ("1m", "60s"), ("1ns", "1ns")]
        {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), written, "{text}");
        }
    }

    #[test]
    fn a_time_without_a_unit_is_refused() {
        for text in ["", "10", "ten s", "s"] {
            assert_eq!(text.parse::<Time>(), Err(TimeError::Form), "{text}");
        }
        assert_eq!("-5s".parse::<Time>(), Err(TimeError::Negative));
    }

    proptest! {
        #[test]
        fn a_time_is_read_back_as_it_was_written(ns in 0..u64::MAX / 2) {
            let time = Time(Duration::from_nanos(ns));
            prop_assert_eq!(time.to_string().parse::<Time>(), Ok(time));
        }
    }
}
