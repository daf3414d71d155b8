//! The one place of the datapath where the clock is read.

use rustix::time::{ClockId, clock_gettime};

use crate::liveness::Timestamp;

/// Now, on the monotonic clock.
#[must_use]
pub fn monotonic_now() -> Timestamp {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
