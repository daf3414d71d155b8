//! A histogram of durations: eight buckets per power of two, so a value is known to 12.5 %.

use std::time::Duration;

const SUB_BITS: u32 = 3;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) << SUB_BITS;

/// How long frames took.
#[derive(Clone, Debug)]
pub struct Latency {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    max: u64,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { buckets: Box::new([0; BUCKETS]), count: 0, max: 0 }
    }
}

impl Latency {
    /// Adds one duration of `nanos`.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// Durations recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The duration that `share` (0.0 to 1.0) of all do not exceed, rounded up to its bucket's end; zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper(index).min(self.max));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanos: u64) -> usize {
    let exponent = nanos.checked_ilog2().unwrap_or(0);
    if exponent <= SUB_BITS {
        return nanos as usize;
    }
    let shift = exponent - SUB_BITS;
    (((shift + 1) << SUB_BITS) as u64 + ((nanos >> shift) & ((1 << SUB_BITS) - 1))) as usize
}

/// The largest value of a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index >> SUB_BITS).saturating_sub(1);
    if shift == 0 {
        return index;
    }
    let first = ((1 << SUB_BITS) + (index & ((1 << SUB_BITS) - 1))) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..5000u64).chain([1 << 20, (1 << 20) + 12345, u64::MAX / 3, u64::MAX]) {
            let index = bucket(value);
            assert!(upper(index) >= value, "{value} above its bucket {index}");
            assert!(index == 0 || upper(index - 1) < value, "{value} below its bucket {index}");
            assert!(
                (upper(index) - value) as f64 <= value as f64 / 8.0,
                "{value} too far from {}",
                upper(index)
            );
        }
    }

    #[test]
    fn quantiles_of_a_known_set() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), Duration::ZERO);
        (1..=1000).for_each(|us| latency.record(us * 1000));
        assert_eq!((latency.count(), latency.max()), (1000, Duration::from_millis(1)));
        let within = |share, us: u64| {
            let got = latency.quantile(share).as_nanos() as f64;
            assert!((us as f64 * 1000.0..=us as f64 * 1126.0).contains(&got), "{share}: {got}");
        };
        within(0.5, 500);
        within(0.99, 990);
        assert_eq!(latency.quantile(1.0), Duration::from_millis(1));
    }
}
