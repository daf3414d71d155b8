//! The time from a query to its answer, as a histogram of fixed size.

use core::time::Duration;

/// Steps per doubling: a figure read back is at most 1/8 too high.
const STEPS: u32 = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Exponents 10 (1 µs) to 33 (17 s) of a time in nanoseconds; what lies outside goes to the ends.
const LOW: u32 = 10;
const HIGH: u32 = 34;
const BUCKETS: usize = ((HIGH - LOW) * STEPS) as usize;

/// Round trip times since the session began: log-linear buckets from 1 µs to 17 s, eight to a doubling.
#[derive(Clone, Debug)]
pub struct Rtt {
    buckets: [u32; BUCKETS],
    count: u64,
    sum: Duration,
}

impl Rtt {
    pub(super) const fn new() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, sum: Duration::ZERO }
    }

    pub(super) fn record(&mut self, rtt: Duration) {
        if let Some(bucket) = self.buckets.get_mut(index(rtt)) {
            *bucket = bucket.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(rtt);
    }

    /// Answers measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All times added up.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Half of the answers took no longer.
    #[must_use]
    pub fn p50(&self) -> Option<Duration> {
        self.quantile(50)
    }

    /// 99 of 100 answers took no longer.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        self.quantile(99)
    }

    /// The bucket bound that at least `percent` of the answers did not exceed; `None` without answers.
    #[must_use]
    pub fn quantile(&self, percent: u8) -> Option<Duration> {
        let all: u64 = self.buckets.iter().copied().map(u64::from).sum();
        let rank = all.saturating_mul(u64::from(percent.min(100))).div_ceil(100).max(1);
        self.cumulative().find(|(_, below)| *below >= rank).map(|(bound, _)| bound)
    }

    /// Each bucket's upper bound with the number of answers up to it, shortest first.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut below = 0u64;
        self.buckets.iter().zip(0u32..).map(move |(count, i)| {
            below = below.saturating_add(u64::from(*count));
            (bound(i), below)
        })
    }
}

/// The bucket a time falls into.
fn index(rtt: Duration) -> usize {
    let nanos = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX);
    let exponent = nanos.checked_ilog2().unwrap_or(0);
    if exponent < LOW {
        return 0;
    }
    let step = (nanos >> (exponent - STEP_BITS)) & u64::from(STEPS - 1);
    let bucket = u64::from(exponent - LOW) * u64::from(STEPS) + step;
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The first time that no longer falls into bucket `i`.
fn bound(i: u32) -> Duration {
    let exponent = LOW + i / STEPS;
    let steps = u64::from(STEPS + i % STEPS + 1);
    Duration::from_nanos(steps << (exponent - STEP_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_has_no_quantile() {
        assert_eq!(Rtt::new().p50(), None);
    }

    #[test]
    fn every_time_lies_below_its_bound_and_within_an_eighth() {
        let mut nanos = 1u64 << LOW;
        while nanos < 1 << HIGH {
            let at = bound(u32::try_from(index(Duration::from_nanos(nanos))).unwrap()).as_nanos() as u64;
            assert!(nanos < at && at - nanos <= nanos / 8 + 1, "{nanos} in bucket up to {at}");
            nanos += nanos / 17 + 1;
        }
    }

    #[test]
    fn extremes_go_to_the_ends() {
        assert_eq!(index(Duration::ZERO), 0);
        assert_eq!(index(Duration::from_nanos(1)), 0);
        assert_eq!(index(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_read_from_the_ranks() {
        let mut rtt = Rtt::new();
        for us in 1..=100u64 {
            rtt.record(Duration::from_micros(us * 10));
        }
        assert_eq!(rtt.count(), 100);
        assert_eq!(rtt.sum(), Duration::from_micros(50_500));
        let (p50, p99) = (rtt.p50().unwrap().as_micros(), rtt.p99().unwrap().as_micros());
        assert!((500..=570).contains(&p50), "{p50}");
        assert!((990..=1_120).contains(&p99), "{p99}");
        assert_eq!(rtt.cumulative().last().map(|(_, n)| n), Some(100));
    }
}
