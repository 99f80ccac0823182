//! How things are said: lines, JSON, failures and their exit status, times and sizes.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use serde_json::Value;
use waterway::{OpenError, observer::ObserveError};

/// The version of what `--json` says; raised when a field changes its meaning or goes.
const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Timeout(String),
    #[error("{0}")]
    Closed(String),
    #[error("{0}")]
    Unhealthy(String),
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl Failure {
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Open(OpenError::InvalidName { .. } | OpenError::InvalidOptions(_)) => 2,
            Self::Open(OpenError::NotFound { .. }) | Self::Observe(ObserveError::NoChannel { .. }) => 3,
            Self::Timeout(_) => 4,
            Self::Open(
                OpenError::WrongVersion { .. } | OpenError::Incompatible { .. } | OpenError::Mismatch { .. },
            )
            | Self::Observe(ObserveError::NoMessages { .. }) => 5,
            Self::Closed(_) => 6,
            Self::Unhealthy(_)
            | Self::Open(OpenError::Damaged { .. } | OpenError::Truncated { .. })
            | Self::Observe(ObserveError::Damaged { .. } | ObserveError::Truncated { .. }) => 7,
            _ => 1,
        }
    }
}

/// The two parts of SEGMENT/CHANNEL.
pub(crate) fn channel_of(place: &str) -> Result<(&str, &str), Failure> {
    place.split_once('/').ok_or_else(|| Failure::Usage(format!("{place:?} is no channel: say SEGMENT/CHANNEL")))
}

/// The parts of SEGMENT or SEGMENT/CHANNEL.
pub(crate) fn parts_of(place: &str) -> (&str, Option<&str>) {
    place.split_once('/').map_or((place, None), |(segment, channel)| (segment, Some(channel)))
}

/// The name of a variant, in lower case.
pub(crate) fn word(variant: impl fmt::Debug) -> String {
    format!("{variant:?}").to_lowercase()
}

/// A line of JSON, with the version.
pub(crate) fn say(out: &mut impl Write, mut what: Value) -> io::Result<()> {
    what["version"] = VERSION.into();
    writeln!(out, "{what}")
}

/// A time as people write it: `2`, `1.5s`, `500ms`, `1m`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("{unit:?} is no unit of time: there are ms, s, m and h")),
    };
    let number: f64 = digits.parse().map_err(|_| "a time is a number and a unit, such as 500ms".to_owned())?;
    match Duration::try_from_secs_f64(number * unit) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("a time is more than nothing, and not endless".into()),
    }
}

/// A number of bytes, for people.
pub(crate) fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 || size >= 100.0 { format!("{size:.0} {}", units[unit]) } else { format!("{size:.1} {}", units[unit]) }
}

/// A rate or a number, for people.
pub(crate) fn short(number: f64) -> String {
    match number {
        _ if number >= 1e9 => format!("{:.1}G", number / 1e9),
        _ if number >= 1e6 => format!("{:.1}M", number / 1e6),
        _ if number >= 1e4 => format!("{:.1}k", number / 1e3),
        _ if number >= 100.0 || number.fract() == 0.0 => format!("{number:.0}"),
        _ => format!("{number:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_units() {
        assert_eq!(time("2"), Ok(Duration::from_secs(2)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "0", "-1", "x", "3d", "ms", "inf", "nan", "1e300h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_rates_are_short() {
        assert_eq!([0.0, 1023.0, 1536.0, 1e9].map(bytes), ["0 B", "1023 B", "1.5 KiB", "954 MiB"]);
        assert_eq!([0.0, 7.25, 9_999.0, 12_345.0, 3e6].map(short), ["0", "7.2", "9999", "12.3k", "3.0M"]);
    }
}
