//! Sizes and times as people write them: `512MiB`, `30s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Reads a time: `500ms`, `30s`, `2m`, `1h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit `{unit}`: use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(number * scale).map_err(|e| e.to_string())
}

/// Reads a size in bytes: `4096`, `64KiB`, `512MiB`, `2GiB`.
pub fn size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" | "K" | "k" => 10,
        "MiB" | "M" => 20,
        "GiB" | "G" => 30,
        _ => return Err(format!("unknown unit `{unit}`: use KiB, MiB or GiB")),
    };
    let number: u64 = number.parse().map_err(|_| "not a number".to_owned())?;
    number.checked_shl(shift).filter(|n| n >> shift == number).ok_or_else(|| "too large".to_owned())
}

/// A time in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Time(pub Duration);

/// A size in a configuration, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text).map(Self).map_err(|why| format!("`{text}` is no time: {why}"))
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        size(text).map(Self).map_err(|why| format!("`{text}` is no size: {why}"))
    }
}

/// The largest unit that leaves at most one decimal: `1.5 GiB`, `12 KiB`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(shift, _)| self.0 >> shift > 0) {
            Some((shift, unit)) => {
                let tenths = (self.0 as f64 / (1u64 << shift) as f64 * 10.0).round() / 10.0;
                write!(f, "{tenths} {unit}")
            }
            None => write!(f, "{} B", self.0),
        }
    }
}

/// A stretch of time in the unit that fits: `12.5 s`, `3.2 min`, `26 h`.
pub fn stretch(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("5 fortnights").is_err() && duration("").is_err());
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("2G"), Ok(2 << 30));
        assert!(size("1.5GiB").is_err() && size("99999999999999GiB").is_err());
    }

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        let told = |bytes| Size(bytes).to_string();
        assert_eq!([told(12), told(12 << 10), told(3 << 29)], ["12 B", "12 KiB", "1.5 GiB"]);
    }
}
