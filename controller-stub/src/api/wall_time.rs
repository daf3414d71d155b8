//! The wall clock, for people.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An instant on the wall clock in milliseconds, shown as RFC 3339 in UTC.
///
/// It is written down for people and compared with nothing: the order of events is the order of their ids, so a
/// clock that jumps only makes the shown times jump.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WallTime(u64);

/// 9999-12-31T23:59:59.999Z, the last instant RFC 3339 can write.
const LAST: u64 = 253_402_300_799_999;

impl WallTime {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: WallTime = WallTime(0);

    /// Milliseconds since 1970; later than the year 9999 becomes its end.
    pub fn from_unix_millis(millis: u64) -> WallTime {
        WallTime(millis.min(LAST))
    }

    /// Milliseconds since 1970.
    pub fn unix_millis(self) -> u64 {
        self.0
    }
}

impl From<SystemTime> for WallTime {
    /// A clock set before 1970 gives 1970.
    fn from(time: SystemTime) -> WallTime {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        WallTime::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(LAST))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(self.0)).fmt(f)
    }
}

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WallTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(WallTime::from).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::WallTime;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn shown_and_read_as_rfc_3339() {
        let time = WallTime::from_unix_millis(1_700_000_000_123);
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(text, "\"2023-11-14T22:13:20.123Z\"");
        assert_eq!(serde_json::from_str::<WallTime>(&text).unwrap(), time);
    }

    #[test]
    fn any_clock_can_be_shown() {
        assert_eq!(WallTime::from(UNIX_EPOCH - Duration::from_secs(1)), WallTime::EPOCH);
        assert_eq!(WallTime::from_unix_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
