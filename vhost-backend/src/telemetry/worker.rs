//! What a worker does with its time: one writer (the worker), any number of readers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The busy ratio is taken over this time, and then over the next.
const PERIOD: Duration = Duration::from_secs(1);
/// Parts of one in which the busy ratio is kept.
const WHOLE: u64 = 1_000_000;

/// The time of one worker. The worker accounts for all of it, round by round, with [`busy`](Self::busy),
/// [`idle`](Self::idle), [`slept`](Self::slept) and [`stirred`](Self::stirred); each costs a few uncontended stores.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct WorkerCounters {
    busy: AtomicU64,
    idle: AtomicU64,
    slept: AtomicU64,
    rounds: AtomicU64,
    sleeps: AtomicU64,
    flows_displaced: AtomicU64,
    /// Of the period that runs: nanoseconds busy, and all of them.
    period_busy: AtomicU64,
    period: AtomicU64,
    /// Of the period before, in parts of [`WHOLE`].
    ratio: AtomicU64,
    pauses: [AtomicU64; Pauses::BOUNDS.len() + 1],
    paused: AtomicU64,
    longest: AtomicU64,
}

impl WorkerCounters {
    /// A round that served frames took this long.
    #[inline]
    pub fn busy(&self, took: Duration) {
        let took = nanos(took);
        add(&self.busy, took);
        add(&self.rounds, 1);
        add(&self.period_busy, took);
        self.pass(took);
    }

    /// A round that found nothing took this long.
    #[inline]
    pub fn idle(&self, took: Duration) {
        let took = nanos(took);
        add(&self.idle, took);
        add(&self.rounds, 1);
        self.pass(took);
    }

    /// A look at a few ports, or the time for which others had the core, took this long and is no round; `busy` if it served frames.
    #[inline]
    pub fn stirred(&self, took: Duration, busy: bool) {
        let took = nanos(took);
        add(if busy { &self.busy } else { &self.idle }, took);
        add(&self.period_busy, if busy { took } else { 0 });
        self.pass(took);
    }

    /// The worker slept this long.
    #[inline]
    pub fn slept(&self, took: Duration) {
        let took = nanos(took);
        add(&self.slept, took);
        add(&self.sleeps, 1);
        self.pass(took);
    }

    /// A round began this much later than it could have: frames took longer than usual, or the system ran something else
    /// on this core. What is shorter than [`Pauses::SHORTEST`] is not counted.
    #[inline]
    pub fn paused(&self, gap: Duration) {
        if gap >= Pauses::SHORTEST {
            self.count_pause(gap);
        }
    }

    #[cold]
    fn count_pause(&self, gap: Duration) {
        let bucket = Pauses::BOUNDS.partition_point(|bound| *bound < gap);
        if let Some(count) = self.pauses.get(bucket) {
            add(count, 1);
        }
        let gap = nanos(gap);
        add(&self.paused, gap);
        self.longest.fetch_max(gap, Ordering::Relaxed);
    }

    /// So many flows have made room for newer ones since the worker's start.
    #[inline]
    pub fn flows_displaced(&self, count: u64) {
        self.flows_displaced.store(count, Ordering::Relaxed);
    }

    #[inline]
    fn pass(&self, took: u64) {
        add(&self.period, took);
        let period = self.period.load(Ordering::Relaxed);
        if Duration::from_nanos(period) >= PERIOD {
            let busy = self.period_busy.load(Ordering::Relaxed);
            // In 128 bits: a machine that was suspended makes a very long period.
            let parts = u128::from(busy) * u128::from(WHOLE) / u128::from(period);
            self.ratio.store(u64::try_from(parts).unwrap_or(WHOLE), Ordering::Relaxed);
            self.period.store(0, Ordering::Relaxed);
            self.period_busy.store(0, Ordering::Relaxed);
        }
    }

    /// The values now.
    #[must_use]
    pub fn read(&self) -> WorkerReading {
        let time = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        WorkerReading {
            busy: time(&self.busy),
            idle: time(&self.idle),
            slept: time(&self.slept),
            rounds: self.rounds.load(Ordering::Relaxed),
            sleeps: self.sleeps.load(Ordering::Relaxed),
            flows_displaced: self.flows_displaced.load(Ordering::Relaxed),
            busy_ratio: self.ratio.load(Ordering::Relaxed) as f64 / WHOLE as f64,
            pauses: Pauses {
                counts: std::array::from_fn(|i| {
                    self.pauses.get(i).map_or(0, |count| count.load(Ordering::Relaxed))
                }),
                sum: time(&self.paused),
                longest: time(&self.longest),
            },
        }
    }
}

/// A reading of [`WorkerCounters`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkerReading {
    /// Time in rounds that served frames, and in looks between two sleeps that did.
    pub busy: Duration,
    /// Time in those that found nothing.
    pub idle: Duration,
    /// Time asleep.
    pub slept: Duration,
    /// Rounds over all ports. Of an idle worker few: answers to probes need none.
    pub rounds: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Flows forgotten to make room for newer ones: the flow table is too small.
    pub flows_displaced: u64,
    /// Busy time by all time, 0 to 1, over the last full second the worker accounted for; not older than two seconds, as
    /// no worker sleeps longer than one. Polling in vain is not busy: at 1 the worker can take no more.
    pub busy_ratio: f64,
    /// How late rounds began.
    pub pauses: Pauses,
}

/// How much later than it could have a round began, as a histogram since the worker's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pauses {
    counts: [u64; Self::BOUNDS.len() + 1],
    sum: Duration,
    longest: Duration,
}

impl Pauses {
    /// The shortest that is counted; a round with all rings full takes about this long.
    pub const SHORTEST: Duration = Duration::from_micros(100);

    /// Upper bounds of the buckets but the last, which has none.
    pub const BOUNDS: [Duration; 13] = [
        Duration::from_micros(200),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_millis(2),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(20),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(200),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_secs(10),
    ];

    /// All of them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All added up.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The longest since the worker's start.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The upper bound of each bucket with the number of pauses in it alone; that of the last is [`Duration::MAX`].
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        Self::BOUNDS.into_iter().chain([Duration::MAX]).zip(self.counts)
    }

    /// The bucket bound, but no more than the longest, that at least `percent` of the pauses did not exceed; `None`
    /// without pauses.
    #[must_use]
    pub fn quantile(&self, percent: u8) -> Option<Duration> {
        let rank = self.count().saturating_mul(u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut below = 0u64;
        let (bound, _) = self.buckets().find(|(_, count)| {
            below = below.saturating_add(*count);
            below >= rank
        })?;
        Some(bound.min(self.longest))
    }
}

/// Adds to a counter that no other thread writes.
#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn time_is_counted_by_what_it_was_spent_on() {
        let worker = WorkerCounters::default();
        worker.busy(ms(3));
        worker.busy(ms(4));
        worker.idle(ms(5));
        worker.slept(ms(6));
        worker.stirred(ms(10), true);
        worker.stirred(ms(20), false);
        let read = worker.read();
        assert_eq!((read.busy, read.idle, read.slept), (ms(17), ms(25), ms(6)));
        assert_eq!((read.rounds, read.sleeps), (3, 1));
    }

    #[test]
    fn the_busy_ratio_is_that_of_the_last_full_second() {
        let worker = WorkerCounters::default();
        worker.busy(ms(999));
        assert_eq!(worker.read().busy_ratio, 0.0, "the first second is not over");
        worker.idle(ms(1));
        assert_eq!(worker.read().busy_ratio, 0.999);
        worker.busy(ms(250));
        worker.idle(ms(250));
        assert_eq!(worker.read().busy_ratio, 0.999, "the second is not over");
        worker.slept(ms(500));
        assert_eq!(worker.read().busy_ratio, 0.25);
        worker.busy(ms(3000));
        assert_eq!(worker.read().busy_ratio, 1.0);
        worker.slept(Duration::MAX);
        assert_eq!(worker.read().busy_ratio, 0.0);
    }

    #[test]
    fn a_pause_falls_into_the_bucket_it_does_not_exceed() {
        let worker = WorkerCounters::default();
        worker.paused(Duration::from_micros(99));
        assert_eq!(worker.read().pauses, Pauses::default(), "too short to count");
        worker.paused(Pauses::SHORTEST);
        for bound in Pauses::BOUNDS {
            worker.paused(bound);
            worker.paused(bound + Duration::from_nanos(1));
        }
        let pauses = worker.read().pauses;
        let counts: Vec<_> = pauses.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [[2].as_slice(), &[2; 12], &[1]].concat());
        assert_eq!(pauses.count(), 27);
        let bounds: Duration = Pauses::BOUNDS.iter().sum();
        assert_eq!(pauses.sum(), bounds * 2 + Pauses::SHORTEST + Duration::from_nanos(13));
        assert_eq!(pauses.longest(), Duration::from_secs(10) + Duration::from_nanos(1));
    }

    #[test]
    fn quantiles_of_pauses_are_bucket_bounds_and_never_above_the_longest() {
        let worker = WorkerCounters::default();
        assert_eq!(worker.read().pauses.quantile(99), None);
        (0..99).for_each(|_| worker.paused(ms(3)));
        worker.paused(Duration::from_secs(60));
        let pauses = worker.read().pauses;
        assert_eq!(pauses.quantile(50), Some(ms(5)));
        assert_eq!(pauses.quantile(99), Some(ms(5)));
        assert_eq!(pauses.quantile(100), Some(Duration::from_secs(60)));
        let one = WorkerCounters::default();
        one.paused(ms(3));
        assert_eq!(one.read().pauses.quantile(99), Some(ms(3)));
    }
}
